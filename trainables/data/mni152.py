"""MNI152: T1 slices and tissue masks of the ICBM 2009a symmetric template, as the nilearn wheel carries it.

Real MRI without a download, for demonstrations and tests: 197 x 233 x 189 voxels of 1 mm, skull-stripped, with
probability maps of grey and white matter (Fonov et al., NeuroImage 2011).

It is ONE volume, averaged over people: no claim about patients can come of it. Neighbouring slices correlate at .98 or
more, so slices drawn at random would put near copies on both sides of a split. Therefore the split is by
contiguous axial slabs with gaps between them; a slab is the group that a block bootstrap draws. There is no test
split: another slab of the same head would not be an independent test. The volume is exactly mirror-symmetric, so a
horizontal flip changes nothing.
"""

from __future__ import annotations

import importlib.util
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal, Self, get_args

import numpy as np

from trainables.api.card import Groups
from trainables.api.errors import BadData
from trainables.api.trainable import recorded
from trainables.data import reading
from trainables.data.annotations import ClassMasks, Region
from trainables.data.nifti import Voxels, read_scan
from trainables.data.records import Dataset, ImageArray, Record, check_image_size
from trainables.data.square import largest_class, resize, to_grey_levels, to_mask

Tissue = Literal["white_matter", "grey_matter"]
Volume = Literal["image", "white_matter", "grey_matter"]

VOLUME_SHAPE = (197, 233, 189)
FILES: Mapping[Volume, str] = {
    "image": "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    "white_matter": "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
    "grey_matter": "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
}
# The circle of this radius around this voxel holds every brain voxel of every slice with 2 mm to spare, so no rotation
# about the centre of the square cuts the brain. The mirror plane stays in the middle of the square.
_CENTRE_X, _CENTRE_Y, _RADIUS = 98, 118, 96
NATIVE_SIZE_PX = 2 * _RADIUS + 1


@dataclass(frozen=True)
class MNI152(Dataset):
    """Axial slices of the template that hold all of background, fluid, grey and white matter (149 of 189).

    Args:
        image_size_px: side of the square; 193 is the native 1 mm grid; 128 is 1.5 mm, less than half the pixels.
        slab_length: axial slices (mm) a slab.
        gap: slices left out between slabs. At 4 mm and more, masks of white matter overlap with a Dice of .57 or less,
            against .83 for neighbours.
        val_every: one slab in so many is validation; they are spread over the height of the head.
        folder: where the three files lie; by default, inside the installed nilearn.
    """

    name: ClassVar[str] = "mni152"
    licence: ClassVar[str] = (
        "ICBM 152 nonlinear atlas (2009a), McConnell Brain Imaging Centre; packaged with nilearn, free to use and "
        "redistribute with its notice"
    )
    groups: ClassVar[Groups] = "slabs of one volume"
    split_description: ClassVar[str] = (
        "within one volume: contiguous slabs of axial slices with gaps between them, whole slabs held out"
    )

    image_size_px: int = 128
    slab_length: int = recorded(12)
    gap: int = recorded(4)
    val_every: int = recorded(3)
    folder: Path | None = recorded(None)
    excluded: tuple[str, ...] = recorded(())

    def __post_init__(self) -> None:
        check_image_size(self.image_size_px)
        if self.slab_length < 1 or self.gap < 0 or self.val_every < 2:
            raise ValueError(
                f"slab_length = {self.slab_length}, gap = {self.gap}, val_every = {self.val_every}: "
                "use a length of at least 1, a gap of at least 0 and val_every of at least 2"
            )

    def source_files(self) -> Mapping[str, Path]:
        """The T1 volume. The tissues take part in choosing the slices, which ``content`` has."""
        return self.files_of("image")

    def records(self) -> list[Record]:
        """One record a slice, from the bottom up; slices in the gaps are left out."""
        volumes = self.volumes()
        slices = slices_with_all_tissues(volumes["image"], volumes["white_matter"], volumes["grey_matter"])
        period = self.slab_length + self.gap
        records = []
        for slice_index in slices:
            slab, offset = divmod(slice_index - slices[0], period)
            if offset < self.slab_length:
                records.append(self._record(slice_index, slab))
        return self._kept(records)

    def decode(self, record: Record) -> ImageArray:
        """The T1 slice on the template's own 0-255 scale, upright."""
        return to_grey_levels(resize(_square_slice(self.volume("image"), record.position), self.image_size_px))[None]

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Copies of the packaged files, at 32 px."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES.values():
            shutil.copyfile(packaged_folder() / name, folder / name)
        return cls(image_size_px=32, folder=folder)

    def files_of(self, *wanted: Volume) -> Mapping[str, Path]:
        """The files of some volumes, by name.

        Raises:
            FileNotFoundError: names all that are missing, of the three.
        """
        folder = self.folder or packaged_folder()
        missing = [name for name in FILES.values() if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"MNI152: {folder} lacks {', '.join(missing)}; "
                "install nilearn again (pip install --force-reinstall nilearn), or give the folder that holds them"
            )
        return {FILES[role]: folder / FILES[role] for role in wanted}

    def volume(self, role: Volume) -> Voxels:
        """A whole volume as stored. Raises BadData naming the file."""
        ((name, path),) = self.files_of(role).items()
        return _volume(path, name)

    def volumes(self) -> dict[Volume, Voxels]:
        """All three. Raises BadData naming every bad file."""
        volumes: dict[Volume, Voxels] = {}
        problems: dict[str, str] = {}
        for role in FILES:
            try:
                volumes[role] = self.volume(role)
            except BadData as error:
                problems.update(error.problems)
        if problems:
            raise BadData("MNI152", problems)
        return volumes

    def _record(self, slice_index: int, slab: int) -> Record:
        # The last of each run of slabs: the lowest ones hold hardly any tissue, too little for a small split.
        split = "val" if slab % self.val_every == self.val_every - 1 else "train"
        return Record(f"axial_{slice_index:03d}", f"slab_{slab:02d}", split, FILES["image"], position=slice_index)


@dataclass(frozen=True)
class MNI152Tissue(Region):
    """Where the probability of a tissue exceeds one half."""

    images: MNI152
    tissue: Tissue = "white_matter"
    excluded: tuple[str, ...] = recorded(())

    def __post_init__(self) -> None:
        if self.tissue not in get_args(Tissue):
            raise ValueError(f"tissue = {self.tissue!r}: use one of {', '.join(get_args(Tissue))}")

    @property
    def name(self) -> str:
        """The tissue."""
        return self.tissue

    def source_files(self) -> Mapping[str, Path]:
        """The map of the tissue."""
        return self.images.files_of(self.tissue)

    def file(self, record: Record) -> str:
        """One volume for all slices."""
        return FILES[self.tissue]

    def decode(self, record: Record) -> ImageArray:
        """The mask of the tissue."""
        probability_SS = _square_slice(self.images.volume(self.tissue), record.position) / 255.0
        return to_mask(resize(probability_SS, self.images.image_size_px))


@dataclass(frozen=True)
class MNI152Tissues(ClassMasks):
    """The four tissues that choose the slices (``tissues_of``): at each pixel, the one that covers most of it."""

    class_names: ClassVar[tuple[str, ...]] = ("background", "fluid", "grey_matter", "white_matter")

    images: MNI152
    excluded: tuple[str, ...] = recorded(())

    @property
    def name(self) -> str:
        """All of them."""
        return "tissues"

    def source_files(self) -> Mapping[str, Path]:
        """All three volumes: the background is where T1 is 0."""
        return self.images.files_of(*FILES)

    def file(self, record: Record) -> str:
        """The map of white matter; ``content`` has all three."""
        return FILES["white_matter"]

    def content(self, digests: Mapping[str, str]) -> list[list[object]]:
        """The rows [id, group, position, SHA-256 of the three volumes]."""
        sources = [digests.get(name, "") for name in FILES.values()]
        return sorted([r.id, r.group, r.position, *sources] for r in self.records())

    def decode(self, record: Record) -> ImageArray:
        """The index of the tissue."""
        slices = {role: _square_slice(voxels, record.position) for role, voxels in self.images.volumes().items()}
        tissues_KSS = tissues_of(slices["image"], slices["white_matter"], slices["grey_matter"])
        return largest_class(np.argmax(tissues_KSS, axis=0), len(self.class_names), self.images.image_size_px)


def packaged_folder() -> Path:
    """The data folder of the installed nilearn, found without importing it (that takes seconds)."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("MNI152 comes with nilearn, which is not installed: pip install nilearn")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


def tissues_of(image: Voxels, white: Voxels, grey: Voxels) -> Voxels:
    """Background, fluid, grey and white matter as booleans, stacked: T1 is 0, the rest, and where a tissue is more
    probable than not (white before grey). Each voxel of the template is exactly one of them."""
    is_white, is_grey, background = white > 127, grey > 127, image == 0
    fluid = ~background & ~is_white & ~is_grey
    return np.stack([background, fluid, is_grey & ~is_white, is_white])


def slices_with_all_tissues(image_XYZ: Voxels, white_XYZ: Voxels, grey_XYZ: Voxels) -> list[int]:
    """Indices of the axial slices that hold background, fluid, grey and white matter (tissue: probability > 0.5)."""
    present = tissues_of(image_XYZ, white_XYZ, grey_XYZ).any(axis=(1, 2))
    return [int(index) for index in np.flatnonzero(present.all(axis=0))]


def _square_slice(volume_XYZ: Voxels, slice_index: int) -> Voxels:
    """Rows from anterior to posterior, columns from the patient's right to left; the axes are R, A, S in the files."""
    x, y, r = _CENTRE_X, _CENTRE_Y, _RADIUS
    return volume_XYZ[x - r : x + r + 1, y - r : y + r + 1, slice_index].T[::-1, ::-1]


_reading = threading.Lock()


def _volume(path: Path, name: str) -> Voxels:
    """Each volume is read once, though 149 records ask for it from several threads."""
    reading.check(path, name)
    stat = path.stat()
    with _reading:
        return _volume_of_state(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=len(FILES))
def _volume_of_state(path: Path, _size: int, _mtime_ns: int) -> Voxels:
    return read_scan(path, VOLUME_SHAPE).voxels
