"""What is segmented: the class of every pixel, or a region and what is around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainables.data.annotations import ClassMasks, Region
from trainables.data.cache import ImageTable, PixelTable
from trainables.data.splits import labelled

Target = ClassMasks | Region


def class_names(target: Target) -> tuple[str, ...]:
    """The classes, the background first."""
    return target.class_names if isinstance(target, ClassMasks) else ("background", target.name)


def annotated_rows(images: ImageTable, annotation: PixelTable, split: str) -> NDArray[np.int64]:
    """Rows of the annotated images of a split; none where there is no such split."""
    of_split = images.index["split"].to_numpy() == split
    return np.flatnonzero(of_split & annotation.annotated)


def labelled_rows(
    images: ImageTable, annotation: PixelTable, label_fraction: float, label_seed: int
) -> NDArray[np.int64]:
    """Rows of the training images whose annotation is used: whole groups, a smaller fraction inside a larger one."""
    rows = annotated_rows(images, annotation, "train")
    groups = images.index["group"].gather(rows).to_list()
    chosen: NDArray[np.int64] = rows[labelled(groups, label_fraction, label_seed)]
    return chosen
