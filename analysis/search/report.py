"""The report of any study with a search: one self-contained page, with figures and tables as files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.cards import Card, card_rows, is_one_volume
from analysis.render import page
from analysis.render.files import ReportPaths, write_figures, write_file, write_tables
from analysis.render.style import Figure
from analysis.render.table import Table, to_html
from analysis.results import look_up
from analysis.search import figures
from analysis.search.findings import answer, caveats, setting
from analysis.search.suggestions import SearchResults, Suggestion, load_search
from analysis.search.tables import rung_table, suggestion_table
from orchestrator.store import Store


def search_report(store: Store, manifest: dict[str, Any], out_dir: Path) -> Sequence[Path]:
    """Write ``report.html``, ``figures/*.svg|png`` and ``tables/*.md|tex|csv``; returns the page and the two folders.

    ``manifest["search"]`` holds ``directions`` (objective -> maximize or minimize), ``space`` (Optuna's JSON of each
    distribution), ``num_suggestions`` and ``suggestions``. The values of single seeds come from the store: a suggestion
    counts only if all of its trials are there. Its cards say what the data are, and whether they are one volume.
    """
    results = load_search(store, manifest)
    drawn, tables = _figures(results), [suggestion_table(results), *([rung_table(results)] if results.lengths else [])]
    paths = ReportPaths.below(out_dir)
    drawings = write_figures(drawn, paths.figures)
    write_tables(tables, paths.tables)
    missing = _missing(store, manifest, results)
    write_file(paths.report_html, _page(manifest, results, drawn, drawings, tables, missing).encode())
    return [paths.report_html, paths.figures, paths.tables]


def _figures(results: SearchResults) -> list[Figure]:
    if not results.complete:
        return []
    front = [figures.front_figure(results)] if len(results.objectives) > 1 else []
    front += [figures.curve_figure(results)] if results.lengths else []
    return [*front, figures.progress_figure(results), figures.parameter_figure(results)]


def _page(
    manifest: Mapping[str, Any],
    results: SearchResults,
    drawn: Sequence[Figure],
    drawings: Mapping[str, str],
    tables: Sequence[Table],
    missing: Sequence[tuple[str, str]],
) -> str:
    charts = "".join(page.figure(i, figure, drawings[figure.name]) for i, figure in enumerate(drawn, 1))
    gap = page.paragraph(f"Incomplete: {_progress(results)}; see what is missing.", "gap")
    is_incomplete = len(results.complete) < results.num_suggestions
    complete = "Nothing: every trial of the study is in this report."
    sections = [
        ("Question", page.paragraph(manifest["question"])),
        ("Answer", page.paragraph(answer(results), "answer") + (gap if is_incomplete else "") + charts),
        ("All suggestions", "".join(to_html(table) for table in tables)),
        ("Set-up", _setup(manifest, results)),
        ("What is missing", page.pairs(missing) if missing else page.paragraph(complete)),
        ("Caveats", page.bullets([*caveats(results), *_data_caveats(manifest.get("cards", {}))])),
        ("How to reproduce", page.reproduction([manifest["command"]], manifest["provenance"])),
    ]
    byline = [f"Study {manifest['study']}"]
    byline += [f"scale {manifest['facts']['scale']}"] if "scale" in manifest["facts"] else []
    byline += [_progress(results), manifest["provenance"].get("date", "")]
    return page.document(f"Search: {manifest['study']}", " · ".join(byline).strip(" ·"), sections)


def _progress(results: SearchResults) -> str:
    return f"{len(results.complete)} of {results.num_suggestions} suggestions have a value"


def _setup(manifest: Mapping[str, Any], results: SearchResults) -> str:
    rows = [("Objective" if i == 0 else "and", f"{o.direction} {o.name}") for i, o in enumerate(results.objectives)]
    seeds = sorted({s.num_seeds(objective) for s in results.complete for objective in results.objectives})
    rows += [(parameter.name, parameter.text()) for parameter in results.space]
    rows.append(("Budget", f"{results.num_suggestions} suggestions"))
    if results.lengths:
        trained, whole = results.epochs()
        lengths = ", ".join(map(str, results.lengths))
        rows.append(("Rungs", f"after {lengths} epochs; the best 1 of {results.reduction} goes on to the next"))
        rows.append(("Epochs trained", f"{trained} over all seeds, of {whole} if all went to the end"))
    rows.append(("Seeds a suggestion", ", ".join(map(str, seeds)) or "–"))
    rows += [row for name, card in manifest.get("cards", {}).items() for row in card_rows(name, card)]
    rows += [(name.replace("_", " "), value) for name, value in manifest["facts"].items()]
    return page.pairs(rows) + _configuration(manifest, results)


def _configuration(manifest: Mapping[str, Any], results: SearchResults) -> str:
    """Everything that is set in the first trial of the best suggestion, or of one on the front."""
    if not results.complete:
        return ""
    chosen = results.ranked(results.objectives[0])[0]
    entry = next((entry for entry in manifest["trials"] if entry["key"] == chosen.keys[0]), None)
    if entry is None:
        return ""
    content = page.preformatted(page.as_json(entry["configuration"]))
    return page.folded(f"Configuration of the first seed of suggestion {chosen.number}", content)


def _missing(store: Store, manifest: Mapping[str, Any], results: SearchResults) -> list[tuple[str, str]]:
    """Suggestions without a value and why, suggestions not made yet, and trials that no suggestion needs."""
    rows = [
        (f"suggestion {s.number}, {s.state}", f"{'; '.join(s.reasons)} ({setting(results, s)})")
        for s in results.suggestions
        if s.state != "complete"
    ]
    rows += [
        (f"suggestion {s.number} after {stage.length} epochs, {stage.state}", "; ".join(stage.reasons))
        for s in results.suggestions
        for stage in s.stages
        if s.state == "complete" and stage.state != "complete"
    ]
    not_made = results.num_suggestions - len(results.suggestions)
    if not_made > 0:
        rows.append((f"{not_made} suggestion(s)", "not made yet; the same command goes on"))
    return rows + _other_trials(store, manifest, results.suggestions)


def _other_trials(
    store: Store, manifest: Mapping[str, Any], suggestions: Sequence[Suggestion]
) -> list[tuple[str, str]]:
    of_suggestions = {key for suggestion in suggestions for key in suggestion.all_keys}
    named = [entry for entry in manifest["trials"] if entry["named"] and entry["key"] not in of_suggestions]
    _, reasons = look_up(store, named)
    return [(entry["name"], reasons[entry["key"]]) for entry in named if entry["key"] in reasons]


def _data_caveats(cards: Mapping[str, Card]) -> list[str]:
    return [
        f"The images of {name} are slices of one volume: they say nothing about other people."
        for name, card in cards.items()
        if is_one_volume(card)
    ]
