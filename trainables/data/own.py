"""What a user's own images have in common, be they pictures or volumes: their place, splits and labels.

See ``folder`` and ``folder_volumes``, which read them, and ``labels_csv``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from trainables.api.card import Card
from trainables.data import folders, labels_csv, reading, splits
from trainables.data.annotations import Labels
from trainables.data.filed import FiledImages, StemAnnotation
from trainables.data.records import Record


class OwnImages(FiledImages):
    """Base of data sets whose files lie in ``root/images``, with ``labels.csv`` beside it if there is one."""

    licence: ClassVar[str] = "the user's own images: whoever gave them knows their terms; not redistributed"
    split_description: ClassVar[str] = (
        "as labels.csv says, else drawn with split_seed: whole groups, in the proportions of the labels"
    )

    root: Path
    val_share: float
    split_seed: int

    def folder(self) -> Path:
        """The root, once it is sure that it holds images. Raises as ``images_folder``."""
        return images_folder(self.root).parent

    def names(self) -> list[str]:
        """The files below ``images``. Raises BadData where two would share an id."""
        names = folders.files_below(images_folder(self.root))
        folders.check_stems(names, self.title)
        return names

    def rows(self) -> dict[str, labels_csv.Row]:
        """What ``labels.csv`` says of each file of ``names``, by its stem and in that order."""
        return labels_csv.read_rows(self.root, [folders.stem(name) for name in self.names()])

    def card(self) -> Card:
        """Under the name of the folder; a group is a patient where ``labels.csv`` gives groups."""
        known = labels_csv.gives_groups(self.root, [folders.stem(name) for name in self.names()])
        return replace(super().card(), name=Path(self.root).resolve().name, groups="patients" if known else self.groups)

    def drawn_splits(self, rows: Sequence[labels_csv.Row]) -> list[str]:
        """The split of each image, in order: the one that the table gives, or drawn.

        Args:
            rows: that of each image.
        """
        if any(row.split for row in rows):
            return [row.split for row in rows]
        groups, labels = [row.group for row in rows], [row.label for row in rows]
        return splits.validation_split(groups, self.val_share, self.split_seed, labels)


class OwnMask(StemAnnotation):
    """Base of what the masks in ``root/masks`` cover."""

    @property
    def name(self) -> str:
        """The only region there is."""
        return "mask"


class OwnLabels(Labels):
    """Base of the column ``label`` of ``labels.csv``; its classes in alphabetical order."""

    images: OwnImages

    @property
    def name(self) -> str:
        """The column."""
        return "label"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every label of an image that is left in: these name the classes of a result, so they follow from its key."""
        left_out = set(self.excluded)
        return tuple(sorted({label for id_, label in self._label_of().items() if label and id_ not in left_out}))

    def source_files(self) -> Mapping[str, Path]:
        """The table."""
        return reading.usable({labels_csv.NAME: Path(self.images.root) / labels_csv.NAME})

    def labels(self) -> Mapping[str, int]:
        """The images whose file is labelled."""
        indices = {name: index for index, name in enumerate(self.class_names)}
        return {id_: indices[label] for id_, label in self._label_of().items() if label in indices}

    def _label_of(self) -> dict[str, str]:
        """What the table says of every image, empty where nothing, by the image's id."""
        rows = self.images.rows()
        return {record.id: rows[file_stem(record)].label for record in self.images.records()}


def file_stem(record: Record) -> str:
    """Name of the file that an image comes from, below ``images`` and without suffix, as ``labels.csv`` has it."""
    return folders.stem(record.file.removeprefix("images/"))


def images_folder(root: Path) -> Path:
    """``images`` below the root.

    Raises:
        FileNotFoundError: says what was expected where.
        ValueError: a path that is not UTF-8, or holds control characters.
    """
    folder = Path(root) / "images"
    if (shown := reading.printable(str(root))) != str(root):
        raise ValueError(f"folder:{shown}: the path is not UTF-8 or holds control characters: rename the folder")
    if folder.is_dir():
        return folder
    state = (
        "is a file" if Path(root).is_file() else "holds no folder images" if Path(root).is_dir() else "does not exist"
    )
    raise FileNotFoundError(
        f"folder:{root}: {root} {state}; expected {root}/images with png, jpg, tif, bmp, webp or nii.gz files, and "
        f"{root}/masks with the same names: make these folders, or correct the path"
    )
