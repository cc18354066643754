"""The data sets by their names on the command line: the one table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainables.data.annotations import ClassMasks, Labels, MultiLabels, Region
from trainables.data.brats import BraTS, BraTSClasses, BraTSTumour
from trainables.data.mni152 import MNI152, MNI152Tissue, MNI152Tissues
from trainables.data.records import Dataset


@dataclass(frozen=True)
class Source:
    """A data set with all that is known of its images."""

    name: str
    """For trials and reports."""
    images: Dataset
    regions: Mapping[str, Region] = field(default_factory=dict)
    """By name; the first is the default one. Empty where no masks are known."""
    classes: ClassMasks | None = None
    """The class of every pixel, where there are several."""
    labels: Labels | MultiLabels | None = None


@dataclass(frozen=True)
class Entry:
    """A line of the table."""

    name: str
    images: str
    """What they show, in a few words."""
    origin: str
    """Where they come from: what has to lie in --data-root, if anything."""
    licence: str
    open: Callable[[int, Path | None], Source]
    """(image_size_px, --data-root) -> the data set."""


def lookup(name: str, image_size_px: int, data_root: Path | None) -> Source:
    """The data set of a name on the command line.

    Raises:
        ValueError: an unknown name, or a data set that lies nowhere; says what to give.
    """
    if name not in DATASETS:
        raise ValueError(f"there is no data set {name!r}: use one of {', '.join(DATASETS)}")
    return DATASETS[name].open(image_size_px, data_root)


def _mni152(image_size_px: int, data_root: Path | None) -> Source:
    images = MNI152(image_size_px=image_size_px)
    regions = _by_name(MNI152Tissue(images), MNI152Tissue(images, "grey_matter"))
    return Source("mni152", images, regions, MNI152Tissues(images))


def _brats(image_size_px: int, data_root: Path | None) -> Source:
    images = BraTS(_root("brats", "MICCAI_BraTS2020_TrainingData", data_root), image_size_px=image_size_px)
    regions = _by_name(BraTSTumour(images), BraTSTumour(images, (1, 4)), BraTSTumour(images, (4,)))
    return Source("brats", images, regions, BraTSClasses(images))


def _by_name(*regions: Region) -> dict[str, Region]:
    return {region.name: region for region in regions}


def _root(name: str, folder: str, data_root: Path | None) -> Path:
    if data_root is None:
        raise ValueError(
            f"the data set {name} is not packaged: give --data-root with the folder that holds {folder}, "
            "or choose mni152, whose images are packaged"
        )
    return data_root.resolve()


_ENTRIES = (
    Entry(
        "mni152",
        "T1 MRI of one averaged head, 149 axial slices; regions: white and grey matter",
        "packaged with nilearn, nothing to give",
        MNI152.licence,
        _mni152,
    ),
    Entry(
        "brats",
        "MRI of brain tumours, the median axial slice of each patient; regions: whole tumour, core, enhancing",
        "BraTS 2020: --data-root holds MICCAI_BraTS2020_TrainingData",
        BraTS.licence,
        _brats,
    ),
)
DATASETS: Mapping[str, Entry] = {entry.name: entry for entry in _ENTRIES}
