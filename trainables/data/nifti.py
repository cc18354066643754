"""Reading NIfTI volumes and axial slices of them. The header is judged before a voxel is read.

``upright`` turns a slice by the header's affine into the radiological view: anterior up, the patient's right on
the left of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from trainables.api.errors import BadData
from trainables.data import reading

Voxels = np.ndarray[Any, Any]

SUFFIXES = (".nii", ".nii.gz")  # uncompressed first: a slice of it is read without unpacking the rest

MOST_VOXELS = 2**30
MOST_SIDE = 2**14  # voxels along one axis: the square around a longer slice takes gigabytes, however thin it is
_FLATTEST = 1e-6  # volume of the cell of unit axes; 1 of a right-angled grid
_GZIP = b"\x1f\x8b"
_MOST_COMPRESSION = 1032  # of zlib, at its very best


@dataclass(frozen=True)
class Scan:
    """A volume, or one axial slice of it, as stored, and where its header says that it lies."""

    voxels: Voxels
    affine: Voxels
    shape: tuple[int, ...]
    """Of the whole volume."""
    is_placed: bool
    """Whether the header has an affine of its own (a code for sform or qform); else ``affine`` is nibabel's guess."""


def read_scan(
    path: Path, shape: Sequence[int] | None = None, slice_index: int | None = None, *, name: str | None = None
) -> Scan:
    """A volume, or with ``slice_index`` one slice along its third axis, as stored.

    Only that slice is read from an uncompressed file, and only what lies before it from a compressed one.

    Args:
        shape: what the volume has to have; None allows any of up to ``MOST_VOXELS`` voxels.
        name: of the file in ``source_files()``; by default that of the path.

    Raises:
        BadData: naming the file; with ``slice_index`` also when the third axis is not the body axis.
    """
    name = name or path.name
    reading.check(path, name)
    try:
        volume = _load(path)
        _check_header(volume, shape, path)
        if slice_index is not None:
            _check_axial(volume.affine)
            voxels = np.asanyarray(volume.dataobj[:, :, slice_index]).reshape(volume.shape[:2])
        else:
            voxels = np.asanyarray(volume.dataobj).reshape(volume.shape[:3])
        is_placed = bool(volume.header["sform_code"] or volume.header["qform_code"])
        return Scan(voxels, volume.affine, tuple(volume.shape[:3]), is_placed)
    # Damaged files fail in many ways (zlib, struct, gzip, nibabel's own): all of them mean this file is unusable.
    except Exception as error:
        raise BadData("NIfTI volume", {name: _reason(error)}) from error


def read_place(path: Path, name: str) -> tuple[tuple[int, ...], Voxels]:
    """The shape of a volume and its affine, by its header alone. Raises BadData naming the file."""
    reading.check_regular(path, name)
    try:
        volume = _load(path)
        _check_header(volume, None, path)
        return tuple(volume.shape[:3]), volume.affine
    except Exception as error:
        raise BadData("NIfTI volume", {name: _reason(error)}) from error


def canonical(scan: Scan) -> Voxels:
    """A whole volume with its axes to the patient's right, front and head, whichever way it was stored."""
    return np.asanyarray(nibabel.as_closest_canonical(nibabel.Nifti1Image(scan.voxels, scan.affine)).dataobj)


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


def contradiction(mask: Scan, image: Scan) -> str | None:
    """Why a mask does not lie on its image, or None. A mask without an affine of its own lies as its image does.

    They agree when no corner of the volume lies further apart than half a voxel.
    """
    if mask.shape != image.shape:
        return f"has shape {mask.shape}, and its image {image.shape}: make the mask on the image's own grid"
    if not mask.is_placed:
        return None
    corners = np.array([[*corner, 1] for corner in product(*((0, length - 1) for length in image.shape))])
    apart_mm = np.linalg.norm((corners @ (mask.affine - image.affine).T)[:, :3], axis=1).max()
    voxel_mm = np.linalg.norm(image.affine[:3, :3], axis=0).min()
    if apart_mm <= voxel_mm / 2:
        return None
    axes = ["".join(map(str, nibabel.aff2axcodes(scan.affine))) for scan in (mask, image)]
    return (
        f"its affine contradicts the image's (axes {axes[0]} and {axes[1]}, corners up to {apart_mm:.3g} mm apart): "
        "resample the mask onto the image's grid, or correct the wrong header"
    )


def _load(path: Path) -> Any:
    """nibabel tells kinds of files apart by their names."""
    if not path.name.lower().endswith(".gz"):
        with path.open("rb") as file:
            if file.read(len(_GZIP)) == _GZIP:
                raise ValueError(f"is compressed by gzip: name it {path.name}.gz")
    return nibabel.load(path)


def _check_header(volume: Any, shape: Sequence[int] | None, path: Path) -> None:
    """What is claimed is bounded before it is read, whatever a damaged or hostile header says."""
    claimed = tuple(int(length) for length in volume.shape)
    if shape is not None and claimed != tuple(shape):
        raise ValueError(f"shape {claimed}, expected {tuple(shape)}")
    if len(claimed) == 4 and claimed[3] == 1:
        claimed = claimed[:3]
    if len(claimed) != 3 or min(claimed) < 1:
        raise ValueError(f"shape {claimed}, expected three axes")
    _check_affine(volume.affine)
    stored = volume.get_data_dtype()
    if stored.kind not in "iuf":
        raise ValueError(f"voxels of type {stored}, expected numbers")
    num_voxels = math.prod(claimed)
    if num_voxels > MOST_VOXELS:
        raise ValueError(f"shape {claimed} claims {num_voxels:.3g} voxels, expected at most {MOST_VOXELS:.3g}")
    if max(claimed) > MOST_SIDE:
        raise ValueError(f"shape {claimed}, expected at most {MOST_SIDE} voxels along an axis")
    most_bytes = path.stat().st_size * (_MOST_COMPRESSION if path.suffix.lower() == ".gz" else 1)
    if num_voxels * stored.itemsize > most_bytes:
        raise ValueError(f"shape {claimed} claims more voxels than a file of {path.stat().st_size} bytes can hold")


def _check_affine(affine: Voxels) -> None:
    """Three directions in space, whatever the size of a voxel."""
    axes = np.asarray(affine, dtype=np.float64)[:3]
    lengths = np.linalg.norm(axes[:, :3], axis=0)
    if not np.isfinite(axes).all() or not lengths.all() or abs(np.linalg.det(axes[:, :3] / lengths)) < _FLATTEST:
        found = " ".join(f"[{' '.join(f'{number:g}' for number in row)}]" for row in axes)
        raise ValueError(f"its affine {found} is no place in space: expected three directions, correct the header")


def _check_axial(affine: Voxels) -> None:
    codes = nibabel.aff2axcodes(affine)
    if codes[2] not in ("S", "I"):
        raise ValueError(f"axes point to {''.join(map(str, codes))}: the third has to be the body axis (S or I)")


def _reason(error: Exception) -> str:
    reason = " ".join((str(error) or type(error).__name__).split())
    return reason if isinstance(error, ValueError) else f"{reason}: expected a whole NIfTI volume, copy it again"
