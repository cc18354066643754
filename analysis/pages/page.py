"""The page of one data set and region: one self-contained HTML file, with figures and tables as files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from analysis.blocks import MIN_BLOCKS
from analysis.cards import card_rows, group_kind
from analysis.cells import Cell, missing_lines, mixed_lines
from analysis.curves import samples
from analysis.curves.panels import RELEASED, TRAINED, UNTRAINED
from analysis.curves.samples import Samples
from analysis.health import pretraining_figure
from analysis.pages.evidence import CurveSet
from analysis.pages.findings import blocks_sentence, verdict_sentence
from analysis.pages.section import Section, section_of
from analysis.render import page
from analysis.render.files import ReportPaths, write_figures, write_file, write_pictures, write_tables
from analysis.render.pictures import Pictures
from analysis.render.style import Figure
from analysis.render.tile import Tile
from analysis.significance import Verdict
from analysis.study_page import byline, configurations, fact_rows, incomplete, scale_caveats, what_is_missing
from trainables.api.card import Groups

_ASKED_START = "pretraining_start"
"""The fact that says from where pretrainings were asked to start: the page says how they did."""


@dataclass(frozen=True, eq=False)
class GroupPage:
    """All that the page of one data set and region is made of.

    ``members``: its sweeps, each with its verdict. ``starts``: what the
    pretrainings say of how they began. ``samples``: name of a set -> role -> contents of ``samples.npz``.
    """

    name: str
    manifest: Mapping[str, Any]
    card: Mapping[str, Any]
    members: Sequence[tuple[CurveSet, Verdict]]
    cells: Sequence[Cell]
    starts: Sequence[str]
    history: pl.DataFrame
    samples: Mapping[str, Mapping[str, Samples]]


def write_page(group: GroupPage, out_dir: Path) -> list[Path]:
    """Write ``report.html``, ``figures/*.svg|png`` and ``tables/*.md|tex|csv``; returns the page and the two folders.

    Every file is written aside and renamed, the page last: an interrupted call leaves the former report or none.
    """
    parts = [section_of(found) for found, _ in group.members]
    health = [] if group.history.is_empty() else [pretraining_figure(group.history)]
    paths = ReportPaths.below(out_dir)
    drawings = write_figures([*(figure for part in parts for figure in part.figures), *health], paths.figures)
    write_tables([table for part in parts for table in part.tables], paths.tables)
    shots = {found.name: shot for found, _ in group.members if (shot := _shot(found, group))}
    write_pictures(shots.values(), paths.figures)
    content = _document(group, parts, health, drawings, shots)
    write_file(paths.report_html, content.encode())
    return [paths.report_html, paths.figures, paths.tables]


def answers(group: GroupPage) -> list[str]:
    """One sentence a sweep, from its verdict."""
    if not group.members:
        return [f"The question cannot be answered yet: no curve of {group.name} is finished."]
    return [f"{found.heading}: {verdict_sentence(found.sweep, verdict)}" for found, verdict in group.members]


def _document(
    group: GroupPage,
    parts: Sequence[Section],
    health: Sequence[Figure],
    drawings: Mapping[str, str],
    shots: Mapping[str, Pictures],
) -> str:
    manifest = group.manifest
    missing = missing_lines(group.cells, manifest["command"])
    answer = "".join(page.paragraph(text, "answer") for text in answers(group)) + incomplete(missing)
    sections = [("Question", page.paragraph(manifest["question"])), ("Answer", answer)]
    number = 1
    for part, (found, _) in zip(parts, group.members, strict=True):
        body, number = part.html(number, drawings)
        if found.name in shots:
            body += page.picture_figure(number, shots[found.name])
            number += 1
        sections.append((found.heading, body))
    sections += [
        ("Set-up", _setup(group) + "".join(page.figure(number, figure, drawings[figure.name]) for figure in health)),
        ("What is missing", what_is_missing(missing, "Nothing: every seed is in this report.")),
        ("Caveats", page.bullets(caveats(group))),
        ("How to reproduce", page.reproduction([manifest["command"]], manifest["provenance"])),
    ]
    return page.document(f"Interpretability under change: {group.name}", byline(manifest, group.name), sections)


def _setup(group: GroupPage) -> str:
    rows = card_rows(group.name, group.card)
    rows.append(("Pretraining starts from", "; ".join(group.starts) or "no pretraining is finished"))
    said = {name: value for name, value in group.manifest["facts"].items() if name != _ASKED_START}
    rows += fact_rows(said)
    for found, verdict in group.members:
        if text := blocks_sentence(verdict):
            rows.append((f"Intervals, {found.heading}", text))
    return page.pairs(rows) + configurations(group.cells, "first seed")


def caveats(group: GroupPage) -> list[str]:
    """What keeps the numbers from meaning more."""
    found = [*scale_caveats(group.manifest), *_image_caveats(group)]
    pretrainings = max((cell.num_wanted for cell in group.cells if cell.role == TRAINED), default=0)
    if pretrainings == 1:
        found.append("One pretraining: what is said is said of this encoder. --pretrain-seeds varies it.")
    found += [
        "“Learnt” is said of one coefficient a sweep, in the full field of view, when a test over seeds and an "
        "interval over blocks of images both leave out 0; all of the study's sweeps, regions and data sets share the "
        "level (Holm, Bonferroni). So another study of the same curves, of more sets or fewer values, may have another "
        "verdict.",
        "A wave or trend that beats its null is one that the images agree on, which the sampling grid alone can bring "
        "about. Only what exceeds the untrained encoders can come from training.",
        "The untrained and the trained encoders' maps may differ in size; compare map fraction and chance level before "
        "levels of Dice.",
    ]
    if any(cell.role == RELEASED for cell in group.cells):
        found.append("The released encoder is one training (n = 1): its curve has no spread over seeds.")
    if any(start.casefold().startswith("random") for start in group.starts):
        found.append("The pretraining started from random weights, the thesis's from released ones.")
    return found + mixed_lines(group.cells)


def _image_caveats(group: GroupPage) -> list[str]:
    """What the images that were measured speak of; nothing before any was."""
    if not group.members:
        return []
    panel = group.members[0][0].headline_panel
    images, num_groups = len(panel.image_ids), len(set(panel.groups))
    found = [f"{images} images{_from_groups(group_kind(group.card), num_groups)}"]
    left_out = max(p.num_left_out for found_set, _ in group.members for p in found_set.panels)
    if left_out:
        found.append(f"{left_out} image(s) without finite Dice in every curve were left out of all curves.")
    return found


def _from_groups(kind: Groups, num_groups: int) -> str:
    """From whom the images are, and of whom they speak, so."""
    if kind == "images":
        return "; which of them are of one patient is not known. Intervals speak of images like these."
    if kind == "slabs of one volume":
        return f" from {num_groups} slab(s) of one volume, which says nothing about other people."
    if num_groups < MIN_BLOCKS:
        noun = kind.removesuffix("s") if num_groups == 1 else kind
        return f" from {num_groups} {noun}: fewer than {MIN_BLOCKS} say nothing about others."
    return f" from {num_groups} {kind}. Intervals speak of {kind} like these, not of other data sets."


def _shot(found: CurveSet, group: GroupPage) -> Pictures | None:
    """The sample maps of a sweep; None where there are none of a trained encoder."""
    of_roles = group.samples.get(found.name, {})
    shown = {role: content for role, content in of_roles.items() if samples.can_be_shown(content, found.sweep)}
    if TRAINED not in shown:
        return None
    rows = samples.sample_rows(shown[TRAINED], shown.get(UNTRAINED), found.sweep)
    return Pictures(f"samples-{found.name}", f"Maps, {found.heading}", _sample_caption(rows), rows)


def _sample_caption(rows: Sequence[tuple[str, Sequence[Tile]]]) -> str:
    return (
        f"Images {', '.join(name for name, _ in rows)}, one a row. Saliency maps of the first trained encoder, "
        "bright is "
        "salient, each scaled to its own range; turquoise: outline of the mask. The first untrained encoder's maps "
        "of the "
        "same images stand at the right where they were published."
    )
