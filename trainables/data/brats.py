"""BraTS 2020: one axial slice a patient, with the tumour as its region (thesis 3.1).

Expected on disk (``.nii`` or ``.nii.gz``; CSV tables beside the case folders are ignored)::

    MICCAI_BraTS2020_TrainingData/
        BraTS20_Training_001/BraTS20_Training_001_{flair,t1,t1ce,t2,seg}.nii.gz
        ...

The mask of case 355 carries the name ``W39_1998.09.19_Segm.nii`` in the distribution; that form is accepted.

As in the thesis, the median slice of each volume is taken (index 77 of 155), and 40 of 369 patients are validation.
The thesis does not say which 40, how it normalised, nor at which size; see ``BraTS``. Its slices lie as stored, nearly
symmetric about the x-axis (thesis, chapter 6); here they are transposed to stand upright, anterior up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import nibabel
import numpy as np

from trainables.api.errors import BadData
from trainables.api.trainable import recorded
from trainables.data.nifti import Voxels, read_axial_slice, upright
from trainables.data.records import Dataset, ImageArray, Record, check_image_size
from trainables.data.square import pad_to_square, resize, to_grey_levels, to_mask

Modality = Literal["flair", "t1", "t1ce", "t2"]

FOLDER_NAME = "MICCAI_BraTS2020_TrainingData"
CASE_PATTERN = "BraTS20_Training_*"
VOLUME_SHAPE = (240, 240, 155)
TUMOUR_LABELS = (1, 2, 4)
ODD_MASK_NAME = "W39_1998.09.19_Segm.nii"
_ODD_MASK_PATTERNS = ("*_Segm.nii", "*_Segm.nii.gz")
_SUFFIXES = (".nii", ".nii.gz")  # uncompressed first: a slice of it is read without unpacking the rest
_WHITE_PERCENTILE = 99.5


@dataclass(frozen=True)
class BraTS(Dataset):
    """The median axial slice of each case.

    Grey levels: each image is divided by the 99.5th percentile of its own non-zero pixels; what is brighter becomes
    255, and zero (outside the brain) stays zero. MRI has no absolute scale, and a maximum would hang on single voxels.
    Images without the region are kept, with a ``mask_fraction`` of 0.

    Args:
        root: the folder ``MICCAI_BraTS2020_TrainingData``, or one that holds it (up to two folders down).
        modality: flair by default, which shows the whole tumour. The thesis does not name its modality.
        roi_classes: labels that count as the region: 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour.
            All three, the default, are the "whole tumour"; (1, 4) is the tumour core.
        image_size_px: 240 is the native grid, so nothing is resampled; the thesis names no other size.
        num_val: patients in the validation split (thesis 4.1.1: 40).
        split_seed: which patients; the same for every modality and region.
        volume_shape: voxels of every volume, as distributed; anything else is reported as a bad file.
    """

    name: ClassVar[str] = "brats"
    licence: ClassVar[str] = "BraTS 2020 training data: by registration, for research; not redistributed"
    split_description: ClassVar[str] = "by patient, one median axial slice each, drawn with split_seed"

    root: Path = recorded()
    modality: Modality = "flair"
    roi_classes: tuple[int, ...] = TUMOUR_LABELS
    image_size_px: int = 240
    num_val: int = 40
    split_seed: int = 0
    volume_shape: tuple[int, int, int] = VOLUME_SHAPE

    def __post_init__(self) -> None:
        check_image_size(self.image_size_px)
        if self.modality not in get_args(Modality):
            raise ValueError(f"modality = {self.modality!r}: use one of {', '.join(get_args(Modality))}")
        if not self.roi_classes or self.roi_classes != tuple(sorted(set(self.roi_classes) & set(TUMOUR_LABELS))):
            raise ValueError(
                f"roi_classes = {self.roi_classes}: use some of {TUMOUR_LABELS}, each once, in rising order"
            )
        if self.num_val < 0:
            raise ValueError(f"num_val = {self.num_val}: use a number of patients, 0 or more")

    @property
    def slice_index(self) -> int:
        """The median axial slice: 77 of 155."""
        return self.volume_shape[2] // 2

    def source_files(self) -> Mapping[str, Path]:
        """Images of the modality and masks that are there, named relative to the folder of the cases."""
        folder = self._folder()
        names = [name for record in self.records() for name in record.files.values()]
        return {name: folder / name for name in names if (folder / name).is_file()}

    def records(self) -> list[Record]:
        """One record a case folder, by case number; cases that lack a file are included."""
        cases = _cases(self._folder())
        if self.num_val >= len(cases):
            raise ValueError(
                f"num_val = {self.num_val}, but {self.root} holds {len(cases)} cases: leave some for training"
            )
        order = np.random.default_rng(self.split_seed).permutation(len(cases))
        validation = set(order[: self.num_val].tolist())
        return [
            Record(
                id=case.name,
                group=case.name,
                split="val" if index in validation else "train",
                files={"image": _image_name(case, self.modality), "mask": _mask_name(case)},
                position=self.slice_index,
            )
            for index, case in enumerate(cases)
        ]

    def decode(self, record: Record) -> tuple[ImageArray, ImageArray]:
        """The normalised slice and the mask of ``roi_classes``, upright."""
        image_XY, labels_XY, affine = self._read(record)
        # Image and mask agree voxel by voxel. Turned by one affine they do so even if a mask lost its own.
        image_HW, region_HW = upright(image_XY, affine), upright(np.isin(labels_XY, self.roi_classes), affine)
        image_SS = resize(pad_to_square(_normalised(image_HW)), self.image_size_px)
        region_SS = resize(pad_to_square(region_HW), self.image_size_px)
        return to_grey_levels(image_SS)[None], to_mask(region_SS)

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Six synthetic cases of small volumes, one of them with the odd mask name."""
        shape = (40, 40, 7)
        write_brats(folder, num_cases=6, volume_shape=shape, odd_mask_case=2)
        return cls(root=folder, image_size_px=32, num_val=2, volume_shape=shape)

    def _folder(self) -> Path:
        root = Path(self.root)
        for candidates in ([root], root.glob("*/"), root.glob("*/*/")):
            for folder in sorted(candidates):
                if any(folder.glob(f"{CASE_PATTERN}/")):
                    return folder
        state = f"holds no folder {CASE_PATTERN}" if root.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"BraTS 2020: {root} {state}; expected {root}/{FOLDER_NAME}/BraTS20_Training_001/"
            f"BraTS20_Training_001_{self.modality}.nii[.gz] and so on: unpack the training data there, "
            "or name its place with --data-root DIR"
        )

    def _read(self, record: Record) -> tuple[Voxels, Voxels, Voxels]:
        """The slices of image and labels as stored, and the image's affine."""
        folder, problems, slices, affines = self._folder(), {}, {}, {}
        for role, check in (("image", _image_problem), ("mask", _mask_problem)):
            name = record.files[role]
            if not (folder / name).is_file():
                problems[name] = "missing"
                continue
            try:
                slices[role], affines[role] = read_axial_slice(folder / name, self.volume_shape, self.slice_index)
            except BadData as error:
                problems[name] = "; ".join(error.problems.values())
                continue
            if problem := check(slices[role]):
                problems[name] = problem
        if problems:
            raise BadData("BraTS 2020", problems)
        return slices["image"], slices["mask"], affines["image"]


def write_brats(
    root: Path,
    num_cases: int,
    *,
    modalities: Sequence[Modality] = get_args(Modality),
    volume_shape: tuple[int, int, int] = VOLUME_SHAPE,
    suffix: str = ".nii.gz",
    odd_mask_case: int | None = None,
    seed: int = 0,
) -> Path:
    """Write synthetic cases in the layout of BraTS 2020, for tests and trials without the real data.

    Each case is an ellipsoid "brain" with a tumour of three nested classes, brighter than the brain around it; one case
    in five has no tumour in its median slice. Case ``odd_mask_case`` (1 is the first) gets the mask name of case 355.
    Returns the folder that holds the case folders. A case of full size takes about half a second for each modality.
    """
    if suffix not in _SUFFIXES:
        raise ValueError(f"suffix = {suffix!r}: use one of {', '.join(_SUFFIXES)}")
    folder = Path(root) / FOLDER_NAME
    for number in range(1, num_cases + 1):
        case = folder / f"BraTS20_Training_{number:03d}"
        case.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng([seed, number])
        brain, labels = _synthetic_case(volume_shape, random, tumour_in_median=number % 5 != 0)
        for modality in modalities:
            _write_volume(case / f"{case.name}_{modality}{suffix}", _synthetic_image(brain, labels, random))
        mask_name = ODD_MASK_NAME if number == odd_mask_case else f"{case.name}_seg{suffix}"
        _write_volume(case / mask_name, labels)
    return folder


def _cases(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(CASE_PATTERN) if path.is_dir())


def _image_name(case: Path, modality: str) -> str:
    return f"{case.name}/{_first_file(case, [f'{case.name}_{modality}{suffix}' for suffix in _SUFFIXES])}"


def _mask_name(case: Path) -> str:
    regular = [f"{case.name}_seg{suffix}" for suffix in _SUFFIXES]
    odd = sorted(path.name for pattern in _ODD_MASK_PATTERNS for path in case.glob(pattern))
    return f"{case.name}/{_first_file(case, [*regular, *odd], otherwise=regular[-1])}"


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


def _synthetic_case(
    shape: tuple[int, int, int], random: np.random.Generator, *, tumour_in_median: bool
) -> tuple[Voxels, Voxels]:
    """A brain mask (bool) and a label volume (int16), shape X Y Z."""
    x, y, z = np.ogrid[tuple(slice(-1, 1, 1j * length) for length in shape)]
    brain = x**2 / 0.55 + y**2 / 0.7 + z**2 / 0.9 < 1
    centre_x, centre_y = random.uniform(-0.3, 0.3, size=2)
    centre_z = 0.0 if tumour_in_median else 0.6
    radius = random.uniform(0.2, 0.35)
    distance_squared = (x - centre_x) ** 2 + (y - centre_y) ** 2 + (z - centre_z) ** 2
    labels = np.zeros(shape, dtype=np.int16)
    for label, reach in ((2, 1.0), (4, 0.65), (1, 0.35)):
        labels[(distance_squared < (reach * radius) ** 2) & brain] = label
    return brain, labels


def _synthetic_image(brain: Voxels, labels: Voxels, random: np.random.Generator) -> Voxels:
    """Voxels as a scanner gives them: an arbitrary scale, noise, zero outside the brain."""
    scale = random.uniform(200, 2000)
    noise = random.standard_normal(brain.shape, dtype=np.float32)
    image = scale * (0.5 + 0.1 * labels) * (1 + 0.08 * noise)
    return np.where(brain, np.clip(image, 1, None), 0).astype(np.int16)


def _write_volume(path: Path, volume: Voxels) -> None:
    # The orientation of the distributed files: first axis to the left, second to the back, third up.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = volume.shape[1] - 1
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)
