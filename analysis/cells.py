"""Cells: a configuration without its seeds. Mean, standard deviation and n stand in a cell, and what it lacks.

Which trials make a cell is written in the manifest (``cell``: a hash of all that is no seed), so a cell knows how many
seeds it was to have, and never averages over fewer without saying so.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.results import WAITS_FOR, Entry, StudyResults
from trainables.api.names import cell_name, differing_seeds, label_values

HOW_COMPUTED = ("device", "cpu", "threads", "workers", "version.torch")
"""What a result records of how it was computed and what changes float sums, so that a cell that mixes them says so."""
_IF_NOT_RECORDED = {"workers": "1"}  # by results from before there could be more


@dataclass(frozen=True, eq=False)
class Cell:
    """The trials of one configuration over its seeds."""

    id: str
    role: str
    labels: Mapping[str, str]
    done: Sequence[Entry]
    missing: Sequence[tuple[Entry, str]]
    """Trials without a result, and why."""
    values: Mapping[str, Sequence[float]]
    """Metric -> its value for each trial of ``done``; only metrics that all of them report."""
    computed: Mapping[str, Sequence[str]]
    """How the trials of ``done`` were computed: name in ``HOW_COMPUTED`` -> the values found."""
    mixed: Mapping[str, Sequence[str]]
    """What of the machines differs between the trials of ``done``: name -> the values found."""

    @property
    def name(self) -> str:
        """As MLflow calls it."""
        return cell_name(self.role, self.labels)

    @property
    def n(self) -> int:
        """Seeds with a result."""
        return len(self.done)

    @property
    def num_wanted(self) -> int:
        """Seeds the study asks for."""
        return len(self.done) + len(self.missing)

    def mean(self, metric: str) -> float | None:
        """Mean over the seeds that are there; None where none is, or one of them does not report it."""
        values = self.values.get(metric)
        return statistics.fmean(values) if values else None

    def std(self, metric: str) -> float | None:
        """Sample standard deviation over the seeds (n - 1); None from fewer than two."""
        values = self.values.get(metric, ())
        return statistics.stdev(values) if len(values) > 1 else None


def cells_of(results: StudyResults, *, role: str | None = None, **labels: str) -> list[Cell]:
    """The cells of a study, in the order of its manifest."""
    by_id: dict[str, list[Entry]] = {}
    for entry in results.entries(role=role, **labels):
        by_id.setdefault(entry["cell"], []).append(entry)
    return [_cell(results, cell, entries) for cell, entries in by_id.items()]


def missing_lines(cells: Sequence[Cell], command: str) -> list[tuple[str, str]]:
    """(what, why and what to do) of every cell that lacks seeds: which they are, and the command that makes them."""
    lines = []
    for cell in cells:
        if not cell.missing:
            continue
        seeds = [f"{_seed_text(entry, cell)} ({reason})" for entry, reason in cell.missing]
        advice = "with --retry-failed once the cause is mended" if _has_failed(cell) else "computes it"
        lines.append(
            (f"{cell.name}: {cell.n} of {cell.num_wanted} seeds", f"lacks {'; '.join(seeds)}: `{command}` {advice}")
        )
    return lines


def mixed_lines(cells: Sequence[Cell]) -> list[str]:
    """A sentence for every cell whose trials were computed in different ways, and for cells that are compared and were.

    Compared are the roles of the same labels, above all trained and untrained encoders.
    """
    within = [
        f"{cell.name}: its seeds were computed with different "
        + "; ".join(f"{name} ({', '.join(found)})" for name, found in cell.mixed.items())
        + ". Float sums differ between these, and a pretraining amplifies the difference."
        for cell in cells
        if cell.mixed
    ]
    together: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        if cell.done:
            together.setdefault(tuple(label_values(cell.labels)), []).append(cell)
    return within + [
        f"{cell_name('', compared[0].labels)}: curves that are compared were computed with different {name}: "
        + ", ".join(f"{cell.role} with {' and '.join(cell.computed[name])}" for cell in compared)
        + ". What tells them apart may be the machine."
        for compared in together.values()
        for name in HOW_COMPUTED
        if len({tuple(cell.computed[name]) for cell in compared}) > 1
    ]


def _cell(results: StudyResults, cell: str, entries: Sequence[Entry]) -> Cell:
    done = results.finished(entries)
    missing = [(entry, results.reasons[entry["key"]]) for entry in entries if entry["key"] in results.reasons]
    found = [results.results[entry["key"]] for entry in done]
    shared = [name for name in (found[0].metrics if found else ()) if all(name in result.metrics for result in found)]
    values = {name: [result.metrics[name] for result in found] for name in shared}
    # A curve is as its encoder is: how the pretraining was computed counts as well.
    before = [results.results[key] for entry in done for key in entry["upstream"] if key in results.results]
    for_each = {"": found, " of what it was made from": before}
    how = {
        name + whose: sorted({result.provenance.get(name, _IF_NOT_RECORDED.get(name, "unknown")) for result in made})
        for whose, made in for_each.items()
        for name in HOW_COMPUTED
    }
    mixed = {name: values for name, values in how.items() if len(values) > 1}
    computed = {name: how[name] for name in HOW_COMPUTED}
    return Cell(cell, entries[0].get("role", ""), entries[0].get("labels", {}), done, missing, values, computed, mixed)


def _seed_text(entry: Entry, cell: Cell) -> str:
    """The seeds that set a trial apart in its cell; the trial's name where none does."""
    others = [one.get("seeds", {}) for one in (*cell.done, *(lacking for lacking, _ in cell.missing))]
    seeds = {path: value for path, value in entry.get("seeds", {}).items() if path in differing_seeds(others)}
    return ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in seeds.items()) or str(entry["name"])


def _has_failed(cell: Cell) -> bool:
    # What waits for a failed trial runs again only with it: the cause stands innermost.
    causes = [reason.rpartition(f"{WAITS_FOR} (")[2] for _, reason in cell.missing]
    return any(not cause.startswith("not finished") for cause in causes)
