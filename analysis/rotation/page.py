"""The report of the rotation study: one self-contained HTML page, with figures and tables as files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from analysis import statistics
from analysis.published.rotation import rotation_curve
from analysis.render import page
from analysis.render.files import ReportPaths, write_figures, write_file, write_tables
from analysis.render.style import Figure
from analysis.render.table import Table, to_html
from analysis.resampling import Bootstrap, Resampling
from analysis.rotation import figures as rotation
from analysis.rotation import pretraining, samples, tables
from analysis.rotation.findings import Evidence, headline, sentences
from analysis.rotation.panels import EXPECTED_CURVES, TRAINED, UNTRAINED_PREFIX, missing_curves, panels
from analysis.rotation.samples import Samples

_MARKED_DATASET = "BraTS"  # whose published extrema are drawn where the study's own data set has none


@dataclass(frozen=True)
class MissingTrial:
    """A trial of the study without a result, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class DatasetDescription:
    """What was measured on: images a split, how they were split, a note on the licence; whether it is one volume."""

    name: str
    counts: Mapping[str, int]
    split: str
    licence: str
    one_volume: bool = False


@dataclass(frozen=True, eq=False)
class Setup:
    """Everything about a study that its curves do not say.

    ``configurations``: trial name -> configuration as plain JSON. ``history``: columns metric, step, value of the
    pretraining. ``pretraining_start``: "random" or a sentence on the released weights. ``binarisation``: the one that
    text and central figure use. ``bootstrap``: its block length says how many neighbouring images count as one.
    """

    study: str
    question: str
    scale: str
    dataset: DatasetDescription
    pretraining_start: str
    configurations: Mapping[str, Any] = field(default_factory=dict)
    history: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema={"metric": pl.String, "step": pl.Int64, "value": pl.Float64})
    )
    provenance: Mapping[str, str] = field(default_factory=dict)
    missing: Sequence[MissingTrial] = ()
    commands: Sequence[str] = ()
    binarisation: str = "otsu"
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    expected_curves: Sequence[str] = EXPECTED_CURVES


@dataclass(frozen=True, eq=False)
class ReportInputs:
    """``curves``: the rows of all ``curve.parquet`` with the column ``curve``; ``samples``: curve -> its "
    "``samples.npz``."""

    setup: Setup
    curves: pl.DataFrame
    samples: Mapping[str, Samples] = field(default_factory=dict)


def write_report(inputs: ReportInputs, out_dir: Path) -> ReportPaths:
    """Write ``report.html``, ``figures/*.svg|png`` and ``tables/*.md|tex|csv`` into ``out_dir``.

    Every file is written aside and renamed, the page last: an interrupted call leaves the former report or none.
    Missing curves, samples or histories are listed in the page and fail nothing.

    Raises:
        ValueError: the curves contradict each other (``analysis.rotation.panels``), or lack ``setup.binarisation``.
    """
    evidence = gather(inputs)
    figures = _figures(inputs, evidence)
    printed = _tables(inputs, evidence)
    shots = _sample_rows(inputs.samples)
    paths = ReportPaths.below(out_dir)
    drawings = write_figures(figures, paths.figures)
    if shots:
        write_file(paths.figures / "samples.png", samples.png_bytes(samples.composed(shots)))
    write_tables(printed, paths.tables)
    content = _page(inputs, evidence, figures, drawings, printed, shots)
    write_file(paths.report_html, content.encode())
    return paths


def gather(inputs: ReportInputs) -> Evidence:
    """All statistics of the report."""
    curves, setup = inputs.curves, inputs.setup
    if curves.is_empty():
        nothing = pl.DataFrame(schema={"curve": pl.String, "field_of_view": pl.String, "binarisation": pl.String})
        return Evidence(curves, nothing, nothing, nothing, nothing, setup.binarisation)
    present = curves["binarisation"].unique(maintain_order=True).to_list()
    if setup.binarisation not in present:
        raise ValueError(f"binarisation {setup.binarisation!r} was not measured; the curves hold {present}")
    return Evidence(
        curves,
        statistics.coefficients(curves, setup.bootstrap),
        statistics.explained(curves, setup.bootstrap),
        statistics.levels(curves),
        statistics.extrema(curves),
        setup.binarisation,
    )


def _figures(inputs: ReportInputs, evidence: Evidence) -> list[Figure]:
    curves, setup = inputs.curves, inputs.setup
    drawn: list[Figure] = []
    if not curves.is_empty():
        data = rotation.curve_data(curves, setup.bootstrap)
        marks = rotation_curve(setup.dataset.name) or rotation_curve(_MARKED_DATASET)
        drawn.append(rotation.rotation_figure(data, setup.binarisation, marks))
    history = pretraining.pretraining_data(setup.history)
    if not history.is_empty():
        drawn.append(pretraining.pretraining_figure(history))
    if not curves.is_empty():
        if not rotation.compared(data).is_empty():
            drawn.append(rotation.binarisation_figure(data))
        coefficients = rotation.coefficient_data(curves, setup.bootstrap)
        if not coefficients.is_empty():
            drawn.append(rotation.coefficient_figure(coefficients, setup.binarisation))
    return drawn


def _tables(inputs: ReportInputs, evidence: Evidence) -> list[Table]:
    """The printed tables: for the main binarisation, then for all."""
    if inputs.curves.is_empty():
        return []
    main = evidence.binarisation
    every = [main, *(b for b in inputs.curves["binarisation"].unique(maintain_order=True) if b != main)]
    short = f"maps made binary by {main}"
    return [
        tables.explained_table(
            evidence.explained,
            [main],
            "explained",
            f"What the controls explain of the trained encoder's 90° wave, {short}",
        ),
        tables.coefficient_table(
            evidence.coefficients, [main], "coefficients", f"90° wave and spike of each curve, {short}"
        ),
        tables.level_table(evidence.levels, [main], "levels", f"Levels, {short}"),
        tables.extrema_table(evidence.extrema, [main], "extrema", f"Extrema, {short}"),
        tables.published_table(evidence.levels, evidence.extrema, inputs.setup.dataset.name, TRAINED, main),
        tables.explained_table(
            evidence.explained, every, "explained_all", "What the controls explain, all ways of making maps binary"
        ),
        tables.coefficient_table(
            evidence.coefficients, every, "coefficients_all", "90° wave and spike, all ways of making maps binary"
        ),
        tables.level_table(evidence.levels, every, "levels_all", "Levels, all ways of making maps binary"),
    ]


def _sample_rows(of_curves: Mapping[str, Samples]) -> list[tuple[str, list[samples.Tile]]]:
    shown = {name: content for name, content in of_curves.items() if samples.can_be_shown(content)}
    if TRAINED not in shown:
        return []
    untrained = next((shown[name] for name in sorted(shown) if name.startswith(UNTRAINED_PREFIX)), None)
    return samples.sample_rows(shown[TRAINED], untrained)


def _page(
    inputs: ReportInputs,
    evidence: Evidence,
    figures: Sequence[Figure],
    drawings: Mapping[str, str],
    printed: Sequence[Table],
    shots: Sequence[tuple[str, Sequence[samples.Tile]]],
) -> str:
    setup = inputs.setup
    numbered = {f.name: page.figure(i, f, drawings[f.name]) for i, f in enumerate(figures, 1)}
    by_name = {table.name: to_html(table) for table in printed}
    central = numbered.get("rotation_curve") or page.paragraph("No curve has been measured.", "gap")
    detail = "".join(numbered.get(name, "") for name in ("binarisations", "coefficients"))
    statistics_html = "".join(by_name.get(name, "") for name in ("explained", "coefficients", "levels", "extrema"))
    all_html = "".join(by_name.get(name, "") for name in ("explained_all", "coefficients_all", "levels_all"))
    sections = [
        ("Question", page.paragraph(setup.question)),
        ("Answer", _answer(inputs, evidence) + central + _findings_html(evidence)),
        ("Set-up", _setup_html(setup) + numbered.get("pretraining", "")),
        ("Curves in detail", detail or page.paragraph("No curve has been measured.", "gap")),
        ("Sample maps", _samples_html(len(figures) + 1, shots)),
        (
            "Statistics",
            statistics_html + (page.folded("All ways of making the map binary", all_html) if all_html else ""),
        ),
        ("Published values beside ours", by_name.get("published", page.paragraph("Nothing to compare yet.", "gap"))),
        ("What is missing", _missing_html(inputs)),
        ("Caveats", page.bullets(_caveats(inputs))),
        ("How to reproduce", page.reproduction(setup.commands, setup.provenance)),
    ]
    byline = " · ".join(
        [f"Study {setup.study}", f"scale {setup.scale}", f"data {setup.dataset.name}", setup.provenance.get("date", "")]
    )
    return page.document(f"Rotation and interpretability: {setup.study}", byline.strip(" ·"), sections)


def _answer(inputs: ReportInputs, evidence: Evidence) -> str:
    gaps = _missing_names(inputs)
    warning = page.paragraph(f"Incomplete: {', '.join(gaps)} missing; see below.", "gap") if gaps else ""
    return page.paragraph(headline(evidence), "answer") + warning


def _findings_html(evidence: Evidence) -> str:
    found = sentences(evidence)
    return "".join(page.heading(name) + page.bullets(lines) for name, lines in found.items())


def _setup_html(setup: Setup) -> str:
    counts = ", ".join(f"{name} {count}" for name, count in setup.dataset.counts.items())
    boot = setup.bootstrap
    intervals = (
        f"{boot.confidence * 100:g} % bootstrap, {boot.num_samples} resamples of blocks of {boot.block_length} "
        f"neighbouring image(s), seed {boot.seed}"
    )
    rows = [
        ("Data", f"{setup.dataset.name}: {counts}"),
        ("Split", setup.dataset.split),
        ("Licence", setup.dataset.licence),
        ("Pretraining starts from", setup.pretraining_start),
        ("Scale", setup.scale),
        ("Intervals", intervals),
    ]
    details = "".join(page.folded(name, page.preformatted(page.as_json(c))) for name, c in setup.configurations.items())
    return page.pairs(rows) + (f"<h3>Configuration of the trials</h3>{details}" if details else "")


def _samples_html(number: int, shots: Sequence[tuple[str, Sequence[samples.Tile]]]) -> str:
    if not shots:
        return page.paragraph("No sample maps were published by the trained encoder's trial.", "gap")
    caption = (
        f"Images {', '.join(name for name, _ in shots)}, one a row. Saliency maps of the trained encoder, bright is "
        "salient, each scaled to its own range; turquoise: outline of the mask. An untrained encoder's maps of the "
        "same images stand at the right where they were published."
    )
    return page.sample_figure(number, shots, "Image, mask and saliency map, as they are and rotated", caption)


def _missing_names(inputs: ReportInputs) -> list[str]:
    named = [trial.name for trial in inputs.setup.missing]
    return named + [name for name in missing_curves(inputs.curves, inputs.setup.expected_curves) if name not in named]


def _missing_html(inputs: ReportInputs) -> str:
    reasons = {trial.name: trial.reason for trial in inputs.setup.missing}
    rows = [(name, reasons.get(name, "no curve was handed to this report")) for name in _missing_names(inputs)]
    if inputs.setup.history.is_empty():
        rows.append(("history of the pretraining", "no loss, embedding std or effective rank was recorded"))
    if not _sample_rows(inputs.samples):
        rows.append(("sample maps", "the trained encoder's trial published none at 0° and at another angle"))
    return page.pairs(rows) if rows else page.paragraph("Nothing: every trial of the study is in this report.")


def _caveats(inputs: ReportInputs) -> list[str]:
    setup = inputs.setup
    caveats = [tables.comparability(setup.dataset.name)]
    measured = panels(inputs.curves)
    if measured:
        blocks = Resampling(measured[0].groups, setup.bootstrap).num_blocks
        images, groups = len(measured[0].image_ids), len(set(measured[0].groups))
        one_volume = setup.dataset.one_volume or groups == 1
        parts = "slab(s) of one volume" if one_volume else "patients or volumes"
        caveats.append(
            f"{images} images from {groups} {parts}, resampled as {blocks} blocks. Intervals speak for images like "
            f"these; {'one volume says nothing about other people' if one_volume else 'not for other data sets'}."
        )
        left_out = max(panel.num_left_out for panel in measured)
        if left_out:
            caveats.append(f"{left_out} image(s) without finite Dice in every curve were left out of all curves.")
    untrained = [name for name in setup.expected_curves if name.startswith(UNTRAINED_PREFIX)]
    caveats += [
        f"One pretraining seed stands against {len(untrained)} untrained ones. The intervals hold the spread over "
        f"images, not over pretrainings: of {len(untrained) + 1} encoders alike, the trained one is the outermost once "
        f"in {len(untrained) + 1} times by chance.",
        "A wave that beats its null is one that the images agree on, which the sampling grid alone can bring about. "
        "Only what exceeds the untrained encoders can come from training.",
        "Near the multiples of 90° interpolation is only partly at work, so the spike has flanks; the fitted wave "
        "takes up some of them. The controls share them.",
        "The untrained and the trained encoder's maps may differ in size; compare map fraction and chance level "
        "before levels of Dice.",
    ]
    if setup.pretraining_start.casefold().startswith("random"):
        caveats.append("The pretraining started from random weights, the thesis's from released ones.")
    return caveats
