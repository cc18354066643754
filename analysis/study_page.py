"""The frame of the pages of all studies: question, answer, set-up, what is missing, caveats, how to reproduce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.cards import Card, card_rows
from analysis.cells import Cell, missing_lines, mixed_lines
from analysis.render import page
from analysis.render.files import ReportPaths, write_figures, write_file, write_pictures, write_tables
from analysis.render.pictures import Pictures
from analysis.render.style import Figure
from analysis.render.table import Table, to_html

Manifest = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class StudyPage:
    """The page of one data set (and region) of a study whose results are cells.

    ``parts``: figures and pictures below the answer, in the order of their numbers. ``tables`` stand under
    ``tables_title``, those of ``folded`` (title, table) closed behind them. ``setup``: rows of the set-up beside the
    data set's and the study's facts; ``configured``: the cells whose configuration is shown. ``seed``: what a cell has
    several of.
    """

    kind: str
    subject: str
    manifest: Manifest
    data: str
    card: Card
    cells: Sequence[Cell]
    answers: Sequence[str]
    parts: Sequence[Figure | Pictures]
    tables_title: str
    tables: Sequence[Table]
    caveats: Sequence[str]
    configured: Sequence[Cell]
    folded: Sequence[tuple[str, Table]] = ()
    setup: Sequence[tuple[str, str]] = field(default_factory=tuple)
    seed: str = "seed"

    def write(self, out_dir: Path) -> list[Path]:
        """Write ``report.html``, ``figures/`` and ``tables/``, the page last; returns these three."""
        paths = ReportPaths.below(out_dir)
        drawings = write_figures([part for part in self.parts if isinstance(part, Figure)], paths.figures)
        write_pictures([part for part in self.parts if isinstance(part, Pictures)], paths.figures)
        write_tables([*self.tables, *(table for _, table in self.folded)], paths.tables)
        write_file(paths.report_html, self._html(drawings).encode())
        return [path for path in (paths.report_html, paths.figures, paths.tables) if path.exists()]

    def _html(self, drawings: Mapping[str, str]) -> str:
        manifest, missing = self.manifest, missing_lines(self.cells, self.manifest["command"])
        first, *more = self.answers
        shown = "".join(
            page.figure(number, part, drawings[part.name])
            if isinstance(part, Figure)
            else page.picture_figure(number, part)
            for number, part in enumerate(self.parts, 1)
        )
        tables = "".join(to_html(table) for table in self.tables)
        tables += "".join(page.folded(title, to_html(table)) for title, table in self.folded)
        rows = [*card_rows(self.data, self.card), *self.setup, *fact_rows(manifest["facts"])]
        setup = page.pairs(rows) + configurations(self.configured, f"first {self.seed}")
        sections = [
            ("Question", page.paragraph(manifest["question"])),
            ("Answer", page.paragraph(first, "answer") + page.bullets(more) + incomplete(missing) + shown),
            (self.tables_title, tables),
            ("Set-up", setup),
            ("What is missing", what_is_missing(missing, f"Nothing: every {self.seed} is here.")),
            ("Caveats", page.bullets([*scale_caveats(manifest), *self.caveats, *mixed_lines(self.cells)])),
            ("How to reproduce", page.reproduction([manifest["command"]], manifest["provenance"])),
        ]
        return page.document(f"{self.kind}: {self.subject}", byline(manifest, self.subject), sections)


def byline(manifest: Manifest, subject: str) -> str:
    """Study, scale where it has one, and what the page is of."""
    scale = manifest["facts"].get("scale", "")
    return " · ".join(filter(None, [f"Study {manifest['study']}", f"scale {scale}" if scale else "", subject]))


def incomplete(missing: Sequence[tuple[str, str]]) -> str:
    """A warning that names what lacks seeds; nothing where nothing does."""
    if not missing:
        return ""
    return page.paragraph(f"Incomplete: {'; '.join(name for name, _ in missing)}; see below.", "gap")


def what_is_missing(missing: Sequence[tuple[str, str]], nothing: str) -> str:
    return page.pairs(missing) if missing else page.paragraph(nothing)


def fact_rows(facts: Mapping[str, str]) -> list[tuple[str, str]]:
    """(title, text) of what the study says of itself."""
    return [(name.replace("_", " ").capitalize(), value) for name, value in facts.items()]


def configurations(cells: Sequence[Cell], which: str) -> str:
    """The configuration of one trial of each cell, folded."""
    details = "".join(
        page.folded(cell.name, page.preformatted(page.as_json(shown["configuration"])))
        for cell in cells
        for shown in [[*cell.done, *(entry for entry, _ in cell.missing)][0]]
    )
    return f"<h3>Configuration of the trials ({which})</h3>{details}"


def scale_caveats(manifest: Manifest) -> list[str]:
    """What is to be said of the sizes, whatever the study."""
    is_smoke = manifest["facts"].get("scale") == "smoke"
    return ["Sizes are those of a smoke test: it shows that all fits, and nothing else."] if is_smoke else []
