"""A user's own volumes, without writing code: ``folder:PATH`` with NIfTI files.

Expected on disk::

    PATH/images/<name>.nii[.gz]
         masks/<name>.nii[.gz]   on the image's own grid, 0 outside, above 0 inside; may be missing altogether
         labels.csv              optional: see ``labels_csv``; a row a volume

An image is an axial slice whose voxels are not all equal, whatever the masks say; the region's records are those images
in which it is present, so curves take slices with the region. A volume is a group, unless
``labels.csv`` says otherwise. Volumes may be stored in any orientation: their axes are turned by the header, slices are
counted from the bottom and shown anterior up, the patient's right on the left. Voxels are taken as square. Grey levels:
the 0.5th percentile of a volume becomes 0, the 99.5th 255.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Self

import nibabel
import numpy as np

from trainables.api.card import Groups
from trainables.api.errors import BadData
from trainables.api.trainable import recorded
from trainables.data import folders, labels_csv, nifti, reading
from trainables.data.annotations import Region
from trainables.data.decoding import num_cores
from trainables.data.own import OwnImages, OwnLabels, OwnMask, file_stem
from trainables.data.records import ImageArray, Record, check_image_size
from trainables.data.square import grey_levels, mask
from trainables.data.synthetic import write_volume

_RAS = np.eye(4)
_BLACK_PERCENTILE, _WHITE_PERCENTILE = 0.5, 99.5
_kept = threading.local()


@dataclass(frozen=True)
class FolderVolumes(OwnImages):
    """Axial slices of the volumes of a folder that are not constant.

    Which ones depends on the images alone: no mask, missing, damaged or drawn anew, changes a pretraining. The middle
    slice stands for a volume that cannot be read or has none; decoding it names the volume.

    Args:
        root: the folder that holds ``images``.
        val_share: of the slices that are validation, where ``labels.csv`` gives no splits; whole volumes.
        split_seed: which ones.
    """

    version: ClassVar[int] = 2  # 1 took the slices with a region only
    name: ClassVar[str] = "folder_volumes"
    title: ClassVar[str] = "folder of volumes"
    groups: ClassVar[Groups] = "volumes"

    root: Path = recorded()
    image_size_px: int = 224
    val_share: float = recorded(0.2)
    split_seed: int = recorded(0)
    excluded: tuple[str, ...] = recorded(())

    def __post_init__(self) -> None:
        check_image_size(self.image_size_px)

    def records(self) -> list[Record]:
        """One record a slice: by volume, from the bottom up.

        Raises:
            BadData: two volumes with one name; ``labels.csv`` contradicts itself or the volumes.
        """
        names, rows = self.names(), self.rows()
        with ThreadPoolExecutor(num_cores()) as pool:
            slices = dict(zip(rows, pool.map(self._slices, names), strict=True))
        places = [(name, id_, position) for name, id_ in zip(names, rows, strict=True) for position in slices[id_]]
        of_split = self.drawn_splits([rows[id_] for _, id_, _ in places])
        records = [
            Record(f"{id_}/axial_{position:03d}", rows[id_].group, split, f"images/{name}", position)
            for (name, id_, position), split in zip(places, of_split, strict=True)
        ]
        return self._kept(records)

    def decode(self, record: Record) -> ImageArray:
        """The slice, upright, padded with black to a square."""
        folders.check_suffix(record.file, nifti.SUFFIXES, self.title)
        voxels_RAS, black, white = _windowed(folders.check_file(self.folder(), record.file, self.title), record.file)
        slice_HW = nifti.upright(voxels_RAS[:, :, record.position], _RAS).astype(np.float64)
        return grey_levels(((slice_HW - black) / (white - black)).clip(0, 1)[None] * 255, self.image_size_px)

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Four small volumes of three patients."""
        write_volumes(folder, num_volumes=4)
        return cls(folder, image_size_px=32)

    def _slices(self, name: str) -> list[int]:
        """Positions of the slices to take from a volume."""
        path = Path(self.root) / "images" / name
        try:
            stat = path.stat()
            found = list(_slices_with_content(path, stat.st_size, stat.st_mtime_ns))
        except (BadData, OSError):
            found = []
        return found or [_middle_slice(path, name)]


@dataclass(frozen=True)
class FolderVolumeMask(OwnMask, Region):
    """What the masks of the folder cover.

    Of a volume whose mask cannot be read the middle one of its images stands for it; opening the region names the mask.
    """

    suffixes: ClassVar[Sequence[str]] = nifti.SUFFIXES

    images: FolderVolumes
    excluded: tuple[str, ...] = recorded(())

    def records(self) -> list[Record]:
        """The images that show the region.

        Raises:
            BadData: no mask has any; or as those of the images.
        """
        of_volume: dict[str, list[Record]] = {}
        for record in self.images.records():
            of_volume.setdefault(record.file, []).append(record)
        with ThreadPoolExecutor(num_cores()) as pool:
            shown = [record for found in pool.map(self._with_region, of_volume.values()) for record in found]
        if of_volume and not shown:
            reason = "has no voxel of the region, as all others: expected some that are not 0"
            masks = [self.file(records[0]) for records in of_volume.values()]
            raise BadData(self.images.title, dict.fromkeys(masks, reason))
        left_out = set(self.excluded)
        return [record for record in shown if record.id not in left_out]

    def _with_region(self, records: list[Record]) -> list[Record]:
        """Those of the images of one volume."""
        root = Path(self.images.root)
        image, path = root / records[0].file, root / self.file(records[0])
        try:
            stat = path.stat()
            present = _slices_with_region(path, image, stat.st_size, stat.st_mtime_ns)
        except (BadData, OSError):
            return [records[len(records) // 2]]
        return [record for record in records if record.position in present]

    def stem(self, record: Record) -> str:
        """The volume's name."""
        return f"masks/{file_stem(record)}"

    def decode(self, record: Record) -> ImageArray:
        """The mask, upright, padded as the image."""
        path, name = self.checked_path(record), self.file(record)
        voxels_RAS = _mask_voxels(path, name, Path(self.images.root) / record.file)
        region_HW = nifti.upright(voxels_RAS[:, :, record.position], _RAS) > 0
        return mask(region_HW, self.images.image_size_px)


@dataclass(frozen=True)
class FolderVolumeLabels(OwnLabels):
    """The label of every slice: that of its volume."""

    images: FolderVolumes
    excluded: tuple[str, ...] = recorded(())


def write_volumes(root: Path, num_volumes: int, shape: tuple[int, int, int] = (30, 24, 12), seed: int = 0) -> Path:
    """Write synthetic volumes with masks and ``labels.csv``, the first two of one patient; returns ``root``."""
    rows = ["image,group,label"]
    for kind in ("images", "masks"):
        (Path(root) / kind).mkdir(parents=True, exist_ok=True)
    for number in range(num_volumes):
        random = np.random.default_rng([seed, number])
        x, y, z = np.ogrid[tuple(slice(-1, 1, 1j * length) for length in shape)]
        body = x**2 + y**2 / 0.8 + z**2 / 2 < 0.9
        inside = (x - random.uniform(-0.2, 0.2)) ** 2 + (y + 0.2) ** 2 + z**2 / 0.4 < 0.25
        voxels = random.normal(-1000, 5, shape) + body * 1000 + inside * 80 + random.normal(0, 10, shape)
        write_volume(Path(root) / "images" / f"scan {number}.nii.gz", voxels.astype(np.int16))
        write_volume(Path(root) / "masks" / f"scan {number}.nii.gz", inside.astype(np.uint8))
        rows.append(f"scan {number},patient {max(number, 1)},{('left', 'right')[number % 2]}")
    (Path(root) / labels_csv.NAME).write_text("\n".join(rows) + "\n")
    return Path(root)


def _windowed(path: Path, name: str) -> tuple[nifti.Voxels, float, float]:
    """voxels_RAS with the values that become black and white; each thread keeps its last volume."""
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    if getattr(_kept, "image_key", None) != key:
        scan = nifti.read_scan(path, name=name)
        if not np.isfinite(scan.voxels).all():
            reason = "holds NaN or infinite voxels: expected numbers, mend or leave out the volume"
            raise BadData(FolderVolumes.title, {name: reason})
        black, white = np.percentile(scan.voxels, [_BLACK_PERCENTILE, _WHITE_PERCENTILE])
        if white <= black:
            raise BadData(FolderVolumes.title, {name: f"nearly all voxels are {black:g}: expected an image"})
        _kept.image, _kept.image_key = (nifti.canonical(scan), float(black), float(white)), key
    else:
        reading.check(path, name)
    return _kept.image  # type: ignore[no-any-return]


def _mask_voxels(path: Path, name: str, image: Path) -> nifti.Voxels:
    """voxels_RAS of a mask that lies on its image; each thread keeps its last one."""
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    if getattr(_kept, "mask_key", None) != key:
        _kept.mask, _kept.mask_key = _placed_mask(path, name, image), key
    else:
        reading.check(path, name)
    return _kept.mask  # type: ignore[no-any-return]


def _placed_mask(path: Path, name: str, image: Path) -> nifti.Voxels:
    scan = nifti.read_scan(path, name=name)
    if not (scan.voxels >= 0).all():  # nor is NaN
        reason = "holds negative voxels or NaN: expected 0 outside the region and more inside, mend it"
        raise BadData(FolderVolumes.title, {name: reason})
    try:
        shape, affine = nifti.read_place(image, image.name)
        of_image = nifti.Scan(scan.voxels, affine, shape, is_placed=True)
    except BadData:  # its own decoding says what is wrong with the image
        of_image = scan
    if problem := nifti.contradiction(scan, of_image):
        raise BadData(FolderVolumes.title, {name: problem})
    return nifti.canonical(replace(scan, affine=of_image.affine))


@lru_cache(maxsize=100_000)
def _slices_with_content(path: Path, _size: int, _mtime_ns: int) -> tuple[int, ...]:
    voxels_RAS = nifti.canonical(nifti.read_scan(path))
    has_content_S = (voxels_RAS != voxels_RAS[:1, :1]).any(axis=(0, 1))
    return tuple(int(position) for position in np.flatnonzero(has_content_S))


@lru_cache(maxsize=100_000)
def _slices_with_region(path: Path, image: Path, _size: int, _mtime_ns: int) -> frozenset[int]:
    region_RAS = _placed_mask(path, path.name, image) > 0
    return frozenset(int(position) for position in np.flatnonzero(region_RAS.any(axis=(0, 1))))


def _num_slices(image: Path, name: str) -> int:
    shape, affine = nifti.read_place(image, name)
    orientation = nibabel.io_orientation(affine)
    return int(shape[int(np.flatnonzero(orientation[:, 0] == 2)[0])])


def _middle_slice(image: Path, name: str) -> int:
    try:
        return _num_slices(image, name) // 2
    except (BadData, OSError, IndexError):
        return 0
