"""What a page shows of one sweep: figures, findings, tables; of a rotation its wave, without a period the trend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from analysis.curves.figures import binarisation_figure, compared, curve_data, curve_figure, field_titles
from analysis.curves.levels import level_table, levels
from analysis.curves.panels import ROLE, TRAINED
from analysis.noise import noise_range
from analysis.pages.evidence import CurveSet
from analysis.render import page
from analysis.render.style import Figure
from analysis.render.table import Table, number, to_html
from analysis.rotation import figures as wave_figures
from analysis.rotation import tables as wave_tables
from analysis.rotation.findings import WaveEvidence, binarisation_sentence, wave_sentences
from analysis.rotation.fitted import fitted
from analysis.rotation.published_table import published_table
from analysis.trends.findings import trend_sentences
from analysis.trends.statistics import trend_frame
from analysis.trends.tables import trend_table
from trainables.api.names import ALL_ONES_DICE, BINARISATION, CHANCE_DICE, FIELD_OF_VIEW


@dataclass(frozen=True, eq=False)
class Section:
    """The parts of a page on one sweep. ``folded``: tables that only those who look closer unfold."""

    figures: Sequence[Figure]
    findings: Sequence[tuple[str, Sequence[str]]]
    shown: Sequence[Table]
    folded: Sequence[Table]

    @property
    def tables(self) -> list[Table]:
        return [*self.shown, *self.folded]

    def html(self, number: int, drawings: Mapping[str, str]) -> tuple[str, int]:
        """The HTML with figures numbered from ``number``, and the next free number."""
        central, *others = self.figures
        body = page.figure(number, central, drawings[central.name])
        body += "".join(page.heading(title) + page.bullets(lines) for title, lines in self.findings)
        for place, figure in enumerate(others, number + 1):
            body += page.figure(place, figure, drawings[figure.name])
        body += "".join(to_html(table) for table in self.shown)
        if self.folded:
            body += page.folded("All ways of making the map binary", "".join(to_html(table) for table in self.folded))
        return body, number + len(self.figures)


def section_of(found: CurveSet) -> Section:
    """Everything on one sweep."""
    level_frame = levels(found.frame, found.sweep)
    part = _part_of(found, level_frame)
    data = curve_data(found.panels, found.sweep, found.resampling_of)
    figures = [curve_figure(data, found.sweep, found.binarisation, found.published)]
    if not compared(data).is_empty():
        figures.append(binarisation_figure(data, found.sweep))
    every = _level_table(found, level_frame, found.binarisations, "levels_all")
    return _named(replace(part, figures=[*figures, *part.figures], folded=[*part.folded, every]), found)


def _part_of(found: CurveSet, level_frame: pl.DataFrame) -> Section:
    """What is known to describe a sweep of its kind; of another kind the levels alone."""
    if found.sweep.is_rotation:
        return _wave_section(found, level_frame)
    if found.sweep.period is None:
        return _trend_section(found, level_frame)
    findings = _findings(found, level_frame, {field: [] for field in found.fields})
    return Section([], findings, [_level_table(found, level_frame, [found.binarisation], "levels")], [])


def _wave_section(found: CurveSet, level_frame: pl.DataFrame) -> Section:
    panels = fitted(found.panels, found.resampling_of)
    evidence = WaveEvidence.of(panels, found.binarisation)
    extrema = evidence.extrema
    titles = field_titles(found.sweep)
    main, every = [found.binarisation], found.binarisations
    plane = wave_figures.coefficient_data(panels)
    figures = [] if plane.is_empty() else [wave_figures.coefficient_figure(plane, found.binarisation, titles)]
    findings = _findings(found, level_frame, {field: wave_sentences(evidence, field) for field in found.fields})
    if text := binarisation_sentence(evidence, titles):
        findings.append(("Peak or dip", [text]))
    explains, wave = "What the controls explain of the trained encoders' 90° wave", "90° wave and spike of each curve"
    shown = [
        wave_tables.explained_table(evidence.explained, main, "explained", explains),
        wave_tables.coefficient_table(evidence.coefficients, main, "coefficients", wave),
        wave_tables.extrema_table(extrema, main, "extrema", "Extrema"),
        _level_table(found, level_frame, main, "levels"),
        published_table(level_frame, extrema, found.labels, found.facts, found.binarisation),
    ]
    folded = [
        wave_tables.explained_table(evidence.explained, every, "explained_all", explains),
        wave_tables.coefficient_table(evidence.coefficients, every, "coefficients_all", wave),
    ]
    return Section(figures, findings, shown, folded)


def _trend_section(found: CurveSet, level_frame: pl.DataFrame) -> Section:
    trends = trend_frame(found.panels, found.sweep, found.resampling_of)
    titles, main = field_titles(found.sweep), [found.binarisation]
    said = {field: trend_sentences(trends, found.sweep, field, found.binarisation) for field in found.fields}
    shown = [
        trend_table(trends, found.sweep, titles, main, "trends", "Trend of each curve"),
        _level_table(found, level_frame, main, "levels"),
    ]
    folded = [trend_table(trends, found.sweep, titles, found.binarisations, "trends_all", "Trend of each curve")]
    return Section([], _findings(found, level_frame, said), shown, folded)


def _findings(
    found: CurveSet, level_frame: pl.DataFrame, said: Mapping[str, Sequence[str]]
) -> list[tuple[str, Sequence[str]]]:
    """What is seen in each field of view, under its title: levels first."""
    titles = field_titles(found.sweep)
    return [
        (
            f"{titles[field]}, maps made binary by {found.binarisation}",
            [_level_sentence(level_frame, found, field), *lines],
        )
        for field, lines in said.items()
    ]


def _level_table(found: CurveSet, level_frame: pl.DataFrame, binarisations: Sequence[str], name: str) -> Table:
    return level_table(level_frame, found.sweep, field_titles(found.sweep), binarisations, name, "Levels")


def _level_sentence(level_frame: pl.DataFrame, found: CurveSet, field: str) -> str:
    rows = level_frame.filter(
        (pl.col(ROLE) == TRAINED) & (pl.col(FIELD_OF_VIEW) == field) & (pl.col(BINARISATION) == found.binarisation)
    )
    if rows.is_empty():
        return "No trained encoder was measured."
    row = rows.row(0, named=True)
    at = found.sweep.text
    return (
        f"The trained encoders' mean Dice over {row['n']} images and {row['num_seeds']} seed(s) lies between "
        f"{number(row['min'], 3)} (at {at(row['min_at'])}) and {number(row['max'], 3)} (at {at(row['max_at'])}). "
        f"{_range_sentence(found, field, row['max'] - row['min'])} Chance for maps of this size is "
        f"{number(row[CHANCE_DICE], 3)}, a map of ones everywhere has {number(row[ALL_ONES_DICE], 3)}."
    )


def _range_sentence(found: CurveSet, field: str, reach: float) -> str:
    """Whether where a curve is least and largest says anything."""
    panel = found.panel(field, found.binarisation)
    curve = panel.curves[TRAINED]
    changed = curve.at(~found.sweep.is_neutral(curve.values_V))
    noise = noise_range(changed.dice_NV, found.resampling_of(panel))
    if math.isnan(noise):
        return "There are too few independent blocks of images to say what of this range noise alone would give."
    within = f"(95 % of curves of such noise stay within {number(noise, 3)})"
    if reach <= noise:
        return f"Noise between blocks of images alone may give such a range {within}."
    return f"Noise between blocks of images gives less {within}; other seeds may give another range."


def _named(section: Section, found: CurveSet) -> Section:
    """File names that tell the curve sets of a page apart."""
    return replace(
        section,
        figures=[replace(figure, name=f"{found.name}_{figure.name}") for figure in section.figures],
        shown=[replace(table, name=f"{found.name}_{table.name}") for table in section.shown],
        folded=[replace(table, name=f"{found.name}_{table.name}") for table in section.folded],
    )
