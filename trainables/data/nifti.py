"""Reading axial slices of NIfTI volumes. The header is judged before a voxel is read.

``upright`` turns a slice by the header's affine into the radiological view: anterior up, the patient's right on
the left of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from trainables.api.errors import BadData

Voxels = np.ndarray[Any, Any]


def read_volume(path: Path, shape: Sequence[int]) -> Voxels:
    """A whole volume of exactly ``shape``, as stored. Raises BadData naming the file."""
    return _read(path, shape, slice_index=None)[0]


def read_axial_slice(path: Path, shape: Sequence[int], slice_index: int) -> tuple[Voxels, Voxels]:
    """One slice along the third axis of a volume of exactly ``shape``, as stored, and the affine for ``upright``.

    Only that slice is read from an uncompressed file, and only what lies before it from a compressed one.

    Raises:
        BadData: naming the file; also when the third axis is not the body axis.
    """
    return _read(path, shape, slice_index)


def upright(slice_XY: Voxels, affine: Voxels) -> Voxels:
    """An axial slice as stored -> rows from anterior to posterior, columns from the patient's right to left."""
    first, second, _ = nibabel.aff2axcodes(affine)
    if first in ("A", "P"):
        slice_XY, first, second = slice_XY.T, second, first
    if first == "R":
        slice_XY = slice_XY[::-1]
    if second == "A":
        slice_XY = slice_XY[:, ::-1]
    return slice_XY.T


def _read(path: Path, shape: Sequence[int], slice_index: int | None) -> tuple[Voxels, Voxels]:
    try:
        volume = nibabel.load(path)
        _check_header(volume, shape)
        if slice_index is None:
            return np.asanyarray(volume.dataobj), volume.affine
        _check_axial(volume.affine)
        return np.asanyarray(volume.dataobj[..., slice_index]), volume.affine
    # Damaged files fail in many ways (zlib, struct, gzip, nibabel's own): all of them mean this file is unusable.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise BadData("NIfTI volume", {path.name: " ".join(reason.split())}) from error


def _check_header(volume: Any, shape: Sequence[int]) -> None:
    """The expected shape bounds what reading can take, whatever a damaged or hostile header claims."""
    if tuple(volume.shape) != tuple(shape):
        raise ValueError(f"shape {tuple(volume.shape)}, expected {tuple(shape)}")
    stored = volume.get_data_dtype()
    if stored.kind not in "iuf":
        raise ValueError(f"voxels of type {stored}, expected numbers")


def _check_axial(affine: Voxels) -> None:
    codes = nibabel.aff2axcodes(affine)
    if codes[2] not in ("S", "I"):
        raise ValueError(f"axes point to {''.join(map(str, codes))}: the third has to be the body axis (S or I)")
