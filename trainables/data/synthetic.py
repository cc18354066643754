"""Synthetic images in the layouts of data sets: for ``example()``, for tests, and for trials without the real data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from trainables.data.nifti import SUFFIXES, Voxels

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def picture(seed: int, height: int, width: int) -> tuple[Pixels, Pixels]:
    """pixels_HW3 of a bright ellipse on a coloured, uneven ground, and mask_HW, 255 inside the ellipse."""
    random = np.random.default_rng(seed)
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    centre_y, centre_x = random.uniform(-0.3, 0.3, 2)
    reach_y, reach_x = random.uniform(0.3, 0.6, 2)
    inside_HW = ((y - centre_y) / reach_y) ** 2 + ((x - centre_x) / reach_x) ** 2 < 1
    ground_HW = 60 + 50 * np.sin(3 * x + seed) * np.cos(2 * y)
    pixels_HW3 = (ground_HW + 100 * inside_HW)[..., None] + np.array([40, 0, -10])
    noise_HW3 = random.normal(0, 8, (height, width, 3))
    return np.clip(pixels_HW3 + noise_HW3, 0, 255).astype(np.uint8), (255 * inside_HW).astype(np.uint8)


def write_brats(
    root: Path,
    num_cases: int,
    *,
    modalities: Sequence[str] = ("flair", "t1", "t1ce", "t2"),
    volume_shape: tuple[int, int, int] = (240, 240, 155),
    suffix: str = ".nii.gz",
    odd_mask_case: int | None = None,
    seed: int = 0,
) -> Path:
    """Write synthetic cases in the layout of BraTS 2020, for tests and trials without the real data.

    Each case is an ellipsoid "brain" with a tumour of three nested classes, brighter than the brain around it; one case
    in five has no tumour in its median slice. Case ``odd_mask_case`` (1 is the first) gets the mask name of case 355.
    Returns the folder that holds the case folders. A case of full size takes about half a second for each modality.
    """
    if suffix not in SUFFIXES:
        raise ValueError(f"suffix = {suffix!r}: use one of {', '.join(SUFFIXES)}")
    folder = Path(root) / "MICCAI_BraTS2020_TrainingData"
    for number in range(1, num_cases + 1):
        case = folder / f"BraTS20_Training_{number:03d}"
        case.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng([seed, number])
        brain, labels = _synthetic_case(volume_shape, random, tumour_in_median=number % 5 != 0)
        for modality in modalities:
            write_volume(case / f"{case.name}_{modality}{suffix}", _synthetic_image(brain, labels, random))
        mask_name = "W39_1998.09.19_Segm.nii" if number == odd_mask_case else f"{case.name}_seg{suffix}"
        write_volume(case / mask_name, labels)
    return folder


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


def write_volume(path: Path, volume: Voxels) -> None:
    """Write voxels with the orientation of BraTS."""
    # The orientation of the distributed files: first axis to the left, second to the back, third up.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = volume.shape[1] - 1
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)
