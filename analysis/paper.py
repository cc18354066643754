"""The one list of all tables and figures of the papers, and the folder and page that are made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from analysis.exhibits import claims, explanations, hog, rotation, samples, segmentation
from analysis.exhibits.exhibit import Exhibit, Part
from analysis.exhibits.submissions import results_by_scale
from analysis.published.rotation import FULL_SCALE
from analysis.render import page
from analysis.render.files import ReportPaths, file_name, write_figures, write_file, write_pictures, write_tables
from analysis.render.pictures import Pictures
from analysis.render.style import Figure
from analysis.render.table import Table, to_html
from analysis.results import StudyResults
from orchestrator.store import Store
from trainables.api.names import MOCO_TRUNK, UNET

_ROTATION = "python studies/rotation_period.py --scale full --pretrained MOCO.pth.tar --data-root DATA --datasets"

_SEGMENTATION = (
    "python studies/segmentation.py --scale full --pretrained MOCO.pth.tar --data-root DATA --datasets brats"
)

_METHODS = "python studies/saliency_methods.py --scale full --pretrained MOCO.pth.tar --data-root DATA --datasets"

_HOG = "python studies/hog_svm.py --scale full --pretrained MOCO.pth.tar --data-root DATA --datasets"

_AUGMENTATIONS = (
    "python studies/augmentation_types.py --scale full --pretrained MOCO.pth.tar --data-root DATA --datasets"
)

EXHIBITS = (
    Exhibit(
        "Figure 3.1", "Sample image and mask, BraTS", "rotation_period", f"{_ROTATION} brats",
        samples.image_of("brats"),
    ),
    Exhibit(
        "Figure 3.2", "Sample image and mask, lung masks", "rotation_period", f"{_ROTATION} lung_mask",
        samples.image_of("lung_mask"),
    ),
    Exhibit(
        "Figure 3.3", "Sample image and mask, Kvasir-SEG", "rotation_period", f"{_ROTATION} kvasir",
        samples.image_of("kvasir"),
    ),
    Exhibit(
        "Table 4.1", "Supervised model, training and validation", "segmentation", _SEGMENTATION,
        segmentation.scores_of(UNET),
    ),
    Exhibit(
        "Table 4.2", "Self-supervised model, training and validation", "segmentation", _SEGMENTATION,
        segmentation.scores_of(MOCO_TRUNK),
    ),
    Exhibit(
        "Figure 4.1", "Sample result of the self-supervised model", "segmentation", _SEGMENTATION, segmentation.sample,
    ),
    Exhibit(
        "Figure 5.1", "Explanation methods on a sample of BraTS", "saliency_methods", f"{_METHODS} brats",
        explanations.pair,
    ),
    Exhibit(
        "Section 5.1", "Explanation methods in numbers", "saliency_methods", f"{_METHODS} brats lung_mask kvasir",
        explanations.scores,
    ),
    Exhibit(
        "Figure 5.2", "Saliency maps beside masks", "rotation_period", f"{_ROTATION} brats", samples.several_maps,
    ),
    Exhibit(
        "Figure 5.3", "Maps of an image and of its rotation, BraTS", "rotation_period", f"{_ROTATION} brats",
        samples.turned("brats"),
    ),
    Exhibit(
        "Figure 5.4", "Maps of an image and of its rotation, lung masks", "rotation_period", f"{_ROTATION} lung_mask",
        samples.turned("lung_mask"),
    ),
    Exhibit(
        "Figure 5.5", "Maps of an image and of its rotation, Kvasir-SEG", "rotation_period", f"{_ROTATION} kvasir",
        samples.turned("kvasir"),
    ),
    Exhibit(
        "Figures 5.3 to 5.5", "Maps of an image and of its rotation, other data sets and regions", "rotation_period",
        None, samples.turned(None),
    ),
    Exhibit(
        "Figure 5.6", "Interpretability over rotation, BraTS", "rotation_period", f"{_ROTATION} brats",
        rotation.curve_of("brats"),
    ),
    Exhibit(
        "Figure 5.7", "Interpretability over rotation, lung masks", "rotation_period", f"{_ROTATION} lung_mask",
        rotation.curve_of("lung_mask"),
    ),
    Exhibit(
        "Figure 5.8", "Interpretability over rotation, Kvasir-SEG", "rotation_period", f"{_ROTATION} kvasir",
        rotation.curve_of("kvasir"),
    ),
    Exhibit(
        "Figures 5.6 to 5.8", "Interpretability over rotation, other data sets and regions", "rotation_period", None,
        rotation.curve_of(None),
    ),
    Exhibit(
        "Section 5.3", "Extrema and levels beside the published ones", "rotation_period",
        f"{_ROTATION} brats lung_mask kvasir", rotation.all_published,
    ),
    Exhibit(
        "Figure 6.1", "Sample HOG features of each data set", "hog_svm", f"{_HOG} brats lung_mask kvasir",
        hog.histograms,
    ),
    Exhibit("Table 6.1", "Dice curves and SVM accuracy", "hog_svm", f"{_HOG} brats lung_mask kvasir", hog.curves),
    Exhibit("Claim 1", "Self-supervision and segmentation", "segmentation", _SEGMENTATION, claims.effective),
    Exhibit(
        "Claim 2", "A period of 90°", "rotation_period", f"{_ROTATION} brats lung_mask kvasir", claims.periodic,
    ),
    Exhibit(
        "Claim 3", "Minima or maxima at multiples of 90°", "rotation_period", f"{_ROTATION} brats lung_mask kvasir",
        claims.extrema,
    ),
    Exhibit("Claim 4", "No HOG-like features", "hog_svm", f"{_HOG} brats lung_mask kvasir", claims.not_hog),
    Exhibit(
        "Conclusion", "Optimal augmentations to train with", "augmentation_types",
        f"{_AUGMENTATIONS} brats lung_mask kvasir", claims.optimal,
    ),
)  # fmt: skip


def write_paper(store: Store, out_dir: Path, exhibits: Sequence[Exhibit] = EXHIBITS) -> Path:
    """Write every exhibit that the storage allows into ``out_dir``, and the page that says which are missing.

    Only what was computed at full scale, from released weights, bears an exhibit's number; all else is shown under its
    own scale.
    """
    results = {study: _results(store, study) for study in dict.fromkeys(exhibit.study for exhibit in exhibits)}
    made = [
        (exhibit, scale, [_at_scale(part, scale) for part in (exhibit.make(found) if found else ())])
        for exhibit in exhibits
        for scale, found in results[exhibit.study].items()
    ]
    figures = [part for _, _, parts in made for part in parts if isinstance(part, Figure)]
    tables = [part for _, _, parts in made for part in parts if isinstance(part, Table)]
    paths = ReportPaths(out_dir / "paper.html", out_dir / "figures", out_dir / "tables")
    drawings = write_figures(figures, paths.figures)
    write_pictures([part for _, _, parts in made for part in parts if isinstance(part, Pictures)], paths.figures)
    write_tables(tables, paths.tables)
    sections, number = [], 1
    for exhibit, scale, parts in made:
        if parts or (scale == FULL_SCALE and exhibit.command is not None):
            body, number = _html(parts, exhibit, drawings, number, store.uri)
            sections.append((_heading(exhibit, scale), body))
    document = page.document("Interpretability of contrastive learning: the thesis's exhibits", store.uri, sections)
    write_file(paths.report_html, document.encode())
    return paths.report_html


def _results(store: Store, study: str) -> dict[str, StudyResults | None]:
    """Scale -> what a study has; full scale first, also where there is none."""
    found: dict[str, StudyResults | None] = {**results_by_scale(store, study)}
    return {FULL_SCALE: found.pop(FULL_SCALE, None)} | found


def _at_scale(part: Part, scale: str) -> Part:
    """The same with its scale in the caption, and in the file's name unless it is full."""
    name = part.name if scale == FULL_SCALE else file_name(part.name, "at", scale)
    if not isinstance(part, Table):
        return replace(part, name=name, caption=f"{_scale_text(scale)}. {part.caption}")
    return replace(part, name=name, caption=f"{part.caption} ({_scale_text(scale).lower()})")


def _heading(exhibit: Exhibit, scale: str) -> str:
    if scale == FULL_SCALE:
        return f"{exhibit.number}: {exhibit.title}"
    return f"{_scale_text(scale)}, not {exhibit.number}: {exhibit.title}"


def _scale_text(scale: str) -> str:
    return f"At scale {scale}" if scale else "At a scale that was not recorded"


def _html(
    parts: Sequence[Part], exhibit: Exhibit, drawings: Mapping[str, str], number: int, storage: str
) -> tuple[str, int]:
    if not parts:
        command = f"{exhibit.command} --storage {storage}"
        missing = f"Missing: the storage holds no result for it at scale {FULL_SCALE}. Compute it with {command}"
        return page.paragraph(missing, "gap"), number
    body = ""
    for part in parts:
        if isinstance(part, Table):
            body += to_html(part)
            continue
        if isinstance(part, Pictures):
            body += page.picture_figure(number, part)
        else:
            body += page.figure(number, part, drawings[part.name])
        number += 1
    return body, number
