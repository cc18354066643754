"""BraTS 2020: one axial slice a patient, with the tumour as its region (thesis 3.1).

Expected on disk (``.nii`` or ``.nii.gz``; CSV tables beside the case folders are ignored)::

    MICCAI_BraTS2020_TrainingData/
        BraTS20_Training_001/BraTS20_Training_001_{flair,t1,t1ce,t2,seg}.nii.gz
        ...

The mask of case 355 carries the name ``W39_1998.09.19_Segm.nii`` in the distribution; that form is accepted.

As in the thesis, the median slice of each volume is taken (index 77 of 155), and 40 of 369 patients are validation; of
another number of patients the same share.
The thesis does not say which 40, how it normalised, nor at which size; see ``BraTS``. Its slices lie as stored, nearly
symmetric about the x-axis (thesis, chapter 6); here they are transposed to stand upright, anterior up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np

from trainables.api.card import Groups
from trainables.api.errors import BadData
from trainables.api.trainable import recorded
from trainables.data import reading
from trainables.data.annotations import ClassMasks, Region
from trainables.data.filed import FiledAnnotation, FiledImages
from trainables.data.nifti import SUFFIXES, Scan, Voxels, contradiction, read_place, read_scan, upright
from trainables.data.records import ImageArray, Record, check_image_size
from trainables.data.square import grey_levels, largest_class, mask
from trainables.data.synthetic import write_brats

Modality = Literal["flair", "t1", "t1ce", "t2"]

FOLDER_NAME = "MICCAI_BraTS2020_TrainingData"
CASE_PATTERN = "BraTS20_Training_*"
VOLUME_SHAPE = (240, 240, 155)
TUMOUR_LABELS = (1, 2, 4)
ODD_MASK_NAME = "W39_1998.09.19_Segm.nii"
_ODD_MASK_PATTERNS = ("*_Segm.nii", "*_Segm.nii.gz")
_NUM_VAL, _NUM_CASES = 40, 369  # thesis 4.1.1
_WHITE_PERCENTILE = 99.5


@dataclass(frozen=True)
class BraTS(FiledImages):
    """The median axial slice of each case.

    Grey levels: each image is divided by the 99.5th percentile of its own non-zero pixels; what is brighter becomes
    255, and zero (outside the brain) stays zero. MRI has no absolute scale, and a maximum would hang on single voxels.

    Args:
        root: the folder ``MICCAI_BraTS2020_TrainingData``, or one that holds it (up to two folders down).
        modality: flair by default, which shows the whole tumour. The thesis does not name its modality.
        image_size_px: 240 is the native grid, so nothing is resampled; the thesis names no other size.
        num_val: patients in the validation split; by default the thesis's share, 40 of 369: at least 1 of two or three,
            2 of more patients.
        split_seed: which patients; the same for every modality.
        volume_shape: voxels of every volume, as distributed; anything else is reported as a bad file.
    """

    name: ClassVar[str] = "brats"
    title: ClassVar[str] = "BraTS 2020"
    licence: ClassVar[str] = "BraTS 2020 training data: by registration, for research; not redistributed"
    split_description: ClassVar[str] = "by patient, one median axial slice each, drawn with split_seed"
    groups: ClassVar[Groups] = "patients"

    root: Path = recorded()
    modality: Modality = "flair"
    image_size_px: int = 240
    num_val: int | None = recorded(None)
    split_seed: int = recorded(0)
    volume_shape: tuple[int, int, int] = VOLUME_SHAPE
    excluded: tuple[str, ...] = recorded(())

    def __post_init__(self) -> None:
        check_image_size(self.image_size_px)
        if self.modality not in get_args(Modality):
            raise ValueError(f"modality = {self.modality!r}: use one of {', '.join(get_args(Modality))}")
        if self.num_val is not None and self.num_val < 0:
            raise ValueError(f"num_val = {self.num_val}: use a number of patients, 0 or more")

    @property
    def slice_index(self) -> int:
        """The median axial slice: 77 of 155."""
        return self.volume_shape[2] // 2

    def records(self) -> list[Record]:
        """One record a case, by case number; cases that lack a file are included.

        Raises:
            ValueError: ``num_val`` leaves no patient for training.
        """
        folder = self.folder()
        cases = sorted(folder.glob(CASE_PATTERN))
        num_val = _default_num_val(len(cases)) if self.num_val is None else self.num_val
        if num_val >= len(cases):
            raise ValueError(f"num_val = {num_val}, but {self.root} holds {len(cases)} cases: leave some for training")
        order = np.random.default_rng(self.split_seed).permutation(len(cases))
        validation = set(order[:num_val].tolist())
        records = [
            Record(
                id=case.name,
                group=case.name,
                split="val" if index in validation else "train",
                file=f"{case.name}/{_first_file(case, self._image_names(case.name))}",
                position=self.slice_index,
            )
            for index, case in enumerate(cases)
        ]
        return self._kept(records)

    def decode(self, record: Record) -> ImageArray:
        """The normalised slice, upright."""
        scan = self.read_image(record)
        return grey_levels(_normalised(upright(scan.voxels, scan.affine))[None], self.image_size_px)

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Six synthetic cases of small volumes, one of them with the odd mask name."""
        shape = (40, 40, 7)
        write_brats(folder, num_cases=6, volume_shape=shape, odd_mask_case=2)
        return cls(root=folder, image_size_px=32, num_val=2, volume_shape=shape)

    def folder(self) -> Path:
        """The folder of the cases. Raises FileNotFoundError that says what was expected where."""
        root = Path(self.root)
        for candidates in ([root], root.glob("*/"), root.glob("*/*/")):
            for folder in sorted(candidates):
                if folder.is_dir() and any(path.is_dir() for path in folder.glob(CASE_PATTERN)):
                    return folder
        state = f"holds no folder {CASE_PATTERN}" if root.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"BraTS 2020: {root} {state}; expected {root}/{FOLDER_NAME}/BraTS20_Training_001/"
            f"BraTS20_Training_001_{self.modality}.nii[.gz] and so on: unpack the training data there, "
            "or name its place with --data-root DIR"
        )

    def read_image(self, record: Record) -> Scan:
        """The slice as stored. Raises BadData naming the file."""
        expected = self._image_names(record.id)
        scan = _read_slice(self.folder(), record.file, expected, self.volume_shape, self.slice_index)
        if problem := _image_problem(scan.voxels):
            raise BadData(BraTS.title, {record.file: problem})
        return scan

    def _image_names(self, case: str) -> list[str]:
        return [f"{case}_{self.modality}{suffix}" for suffix in SUFFIXES]


class _LabelVolumes(FiledAnnotation):
    """The label volumes of the cases, which every annotation of the tumour reads."""

    images: BraTS

    def file(self, record: Record) -> str:
        """``<case>_seg.nii[.gz]``, or the odd name."""
        return _mask_file(self.images.folder() / record.id)

    def _labels(self, record: Record) -> Voxels:
        """The labels of the slice, upright.

        A label volume without an affine of its own lies as the image of its case does.

        Raises:
            BadData: naming the file of the labels; also where it lies otherwise than the image of its case.
        """
        images, name = self.images, self.file(record)
        scan = _read_slice(images.folder(), name, _mask_names(record.id), images.volume_shape, images.slice_index)
        affine = _affine_of(images.folder() / record.file)
        image = Scan(scan.voxels, scan.affine if affine is None else affine, scan.shape, is_placed=True)
        if problem := _mask_problem(scan.voxels) or contradiction(scan, image):
            raise BadData(BraTS.title, {name: problem})
        # Turned by the image's affine they agree voxel by voxel.
        return upright(scan.voxels, image.affine)


@dataclass(frozen=True)
class BraTSTumour(_LabelVolumes, Region):
    """The tumour, or classes of it. Images without it in their slice have an empty mask.

    Args:
        classes: labels that count: 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour. All three, the
            default, are the "whole tumour"; (1, 4) is the tumour core.
    """

    images: BraTS
    classes: tuple[int, ...] = TUMOUR_LABELS
    excluded: tuple[str, ...] = recorded(())

    def __post_init__(self) -> None:
        if not self.classes or self.classes != tuple(sorted(set(self.classes) & set(TUMOUR_LABELS))):
            raise ValueError(f"classes = {self.classes}: use some of {TUMOUR_LABELS}, each once, in rising order")

    @property
    def name(self) -> str:
        """The tumour, with its classes where they are not all."""
        return "tumour" if self.classes == TUMOUR_LABELS else f"tumour_{'+'.join(map(str, self.classes))}"

    def decode(self, record: Record) -> ImageArray:
        """The mask of ``classes``, upright."""
        labels_HW = self._labels(record)
        return mask(np.isin(labels_HW, self.classes), self.images.image_size_px)


@dataclass(frozen=True)
class BraTSClasses(_LabelVolumes, ClassMasks):
    """Background and the three classes of the tumour; label 4 of the files is index 3."""

    class_names: ClassVar[tuple[str, ...]] = ("background", "core", "oedema", "enhancing")

    images: BraTS
    excluded: tuple[str, ...] = recorded(())

    @property
    def name(self) -> str:
        """All of them."""
        return "tumour_classes"

    def decode(self, record: Record) -> ImageArray:
        """The index of the class, upright."""
        labels_HW = self._labels(record)
        classes_HW = np.searchsorted(TUMOUR_LABELS, labels_HW) + (labels_HW > 0)
        return largest_class(classes_HW, len(self.class_names), self.images.image_size_px)


def _default_num_val(num_cases: int) -> int:
    share = round(num_cases * _NUM_VAL / _NUM_CASES)
    # Two from four cases on: retrieval among validation images tells one image from another.
    return max(2 if num_cases > 3 else 1, share) if num_cases > 1 else 0


def _read_slice(
    folder: Path, name: str, expected: list[str], volume_shape: tuple[int, int, int], slice_index: int
) -> Scan:
    path = folder / name
    if not reading.is_usable(path):
        raise BadData(BraTS.title, {name: reading.why_unusable(path, expected=expected)})
    return read_scan(path, volume_shape, slice_index, name=name)


def _affine_of(image: Path) -> Voxels | None:
    """Where an image lies by its header; None for one that cannot be read, which its own decoding reports."""
    try:
        return read_place(image, image.name)[1]
    except BadData:
        return None


def _mask_file(case: Path) -> str:
    odd = sorted(path.name for pattern in _ODD_MASK_PATTERNS for path in case.glob(pattern))
    regular = _mask_names(case.name)
    return f"{case.name}/{_first_file(case, [*regular, *odd], otherwise=regular[-1])}"


def _mask_names(case: str) -> list[str]:
    return [f"{case}_seg{suffix}" for suffix in SUFFIXES]


def _first_file(folder: Path, names: list[str], otherwise: str | None = None) -> str:
    """The first name that is a file; the name to report as missing when none is."""
    return next((name for name in names if (folder / name).is_file()), otherwise or names[-1])


def _image_problem(image_XY: Voxels) -> str | None:
    if not np.isfinite(image_XY).all():
        return "holds NaN or infinite voxels in the slice that is used"
    if not (image_XY > 0).any():
        return "has no voxel above zero in the slice that is used"
    return None


def _mask_problem(labels_XY: Voxels) -> str | None:
    unexpected = sorted(set(np.unique(labels_XY).tolist()) - {0, *TUMOUR_LABELS})
    if unexpected:
        return f"unexpected label values {unexpected[:10]}, allowed are 0, 1, 2 and 4"
    return None


def _normalised(image_HW: Voxels) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Grey levels 0-255 (see ``BraTS``)."""
    white = np.percentile(image_HW[image_HW > 0], _WHITE_PERCENTILE)
    scaled: np.ndarray[Any, np.dtype[np.float64]] = np.clip(image_HW / white, 0, 1) * 255
    return scaled
