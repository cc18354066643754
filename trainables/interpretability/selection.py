"""Which images a curve is measured on.

Shapes: N images of the data set, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
import torch

from trainables import runtime
from trainables.api import names
from trainables.api.checks import check_choice
from trainables.api.trainable import Part, seed
from trainables.data.cache import RegionTable

Choice = Literal["evenly", "random"]
Rows = np.ndarray[Any, np.dtype[np.int64]]

_NUM_SHOWN = 4


@dataclass(frozen=True)
class ImageChoice(Part):
    """So many images with a region, out of some splits.

    Images whose region is empty inside the field of view that all values keep are never taken, since Dice says nothing
    about them; which ones, and how many, is recorded.

    Args:
        num: 75, as in the thesis, which does not say which 75 it took.
        choose: ``evenly`` (default) takes them at even steps of the data set's order, so that all of it is covered and
            no seed is involved; ``random`` draws with ``selection_seed``.
        selection_seed: of ``random``; without effect on ``evenly``, where it is set to 0.
        splits: their order does not matter.

    Raises:
        ValueError: a number below 1, another way to choose, no split.
    """

    num: int = 75
    choose: Choice = "evenly"
    selection_seed: int = seed()
    splits: tuple[str, ...] = ("train", "val")

    def __post_init__(self) -> None:
        check_choice("images.choose", self.choose, get_args(Choice))
        if self.num < 1:
            raise ValueError(f"images.num = {self.num}: at least 1")
        if not self.splits:
            raise ValueError("images.splits is empty: name at least one split, for example ('train', 'val')")
        # What cannot change the result must not make another identity.
        object.__setattr__(self, "splits", tuple(sorted(set(self.splits))))
        if self.choose == "evenly":
            object.__setattr__(self, "selection_seed", 0)

    def check(self, splits: Sequence[str], region: str) -> None:
        """Whether there are enough images.

        Args:
            splits: of every image that has the region.
            region: its name, for messages.

        Raises:
            ValueError: a split that is not there, or fewer images than are wanted.
        """
        if unknown := sorted(set(self.splits) - set(splits)):
            there = ", ".join(sorted(set(splits))) or "none"
            raise ValueError(f"images.splits: {region} has no image in {', '.join(unknown)}; its splits are: {there}")
        num = sum(split in self.splits for split in splits)
        if num < self.num:
            raise ValueError(
                f"images.num = {self.num}, but {region} has only {num} images in {', '.join(self.splits)}: "
                f"ask for at most {num}, or add splits"
            )

    def choose_among(self, num: int) -> Rows:
        """Places of the chosen ones among ``num`` candidates, in order."""
        if self.choose == "evenly":
            return even_places(num, self.num)
        generator = runtime.generator("images of a curve", self.selection_seed)
        order = torch.randperm(num, generator=generator)
        return np.sort(order[: self.num].numpy())


@dataclass(frozen=True)
class Selection:
    """The images of a curve, in the data set's order."""

    rows: Rows
    """Of the image table."""
    index: pl.DataFrame
    """Columns image_id, group, position."""
    left_out_ids: list[str]
    """Images whose region is empty in the field of view that all values keep."""

    @property
    def ids(self) -> list[str]:
        return self.index[names.IMAGE_ID].to_list()

    @property
    def shown(self) -> Rows:
        """Places, among the images of the curve, of those whose maps are kept."""
        return even_places(len(self.rows), min(_NUM_SHOWN, len(self.rows)))

    @classmethod
    def of(
        cls,
        choice: ImageChoice,
        index: pl.DataFrame,
        masks: RegionTable,
        kept_HW: np.ndarray[Any, np.dtype[np.bool_]],
        region: str,
    ) -> Selection:
        """Choose.

        Args:
            index: the image table's, with the columns row, id and split.
            masks: a mask a row of the image table; rows without annotation do not take part. Its index has id, group
                and position: an image table may be of a time when groups were others, a region's has those of its key.
            kept_HW: the field of view that all values keep.
            region: its name, for messages.

        Raises:
            ValueError: too few images with a region; says how many there are.
        """
        rows, has_mask = _with_annotation(choice, index["split"].to_list(), masks, kept_HW)
        candidates = rows[has_mask]
        if len(candidates) < choice.num:
            raise ValueError(_too_few(choice, len(candidates), len(rows), bool(masks.masks_NHW[rows].any()), region))
        chosen = candidates[choice.choose_among(len(candidates))]
        columns = [pl.col("id").alias(names.IMAGE_ID), names.GROUP, names.POSITION]
        return cls(chosen, masks.index[chosen].select(columns), index[rows[~has_mask]]["id"].to_list())


def num_with_region(
    choice: ImageChoice, splits: Sequence[str], masks: RegionTable, kept_HW: np.ndarray[Any, np.dtype[np.bool_]]
) -> int:
    """How many images ``choice`` could take; ``splits``: of every row of the image table, the rest as in
    ``Selection.of``."""
    return int(_with_annotation(choice, splits, masks, kept_HW)[1].sum())


def _with_annotation(
    choice: ImageChoice, splits: Sequence[str], masks: RegionTable, kept_HW: np.ndarray[Any, np.dtype[np.bool_]]
) -> tuple[Rows, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Rows that take part, and which of them have a region in the field of view that all values keep."""
    rows = np.flatnonzero(np.isin(splits, choice.splits) & masks.annotated)
    return rows, np.array([bool((masks.masks_NHW[row] & kept_HW).any()) for row in rows], dtype=bool)


def even_places(num: int, num_wanted: int) -> Rows:
    """Middles of ``num_wanted`` equal parts of 0 ... num - 1: all different, nothing favoured at the ends."""
    return ((2 * np.arange(num_wanted, dtype=np.int64) + 1) * num) // (2 * num_wanted)


def _too_few(choice: ImageChoice, num_with_region: int, num: int, any_region: bool, region: str) -> str:
    where = f"the {num} images in {', '.join(choice.splits)}"
    if not any_region:
        return f"{region} is empty in all of {where}: look at its masks, or choose another region or other splits"
    if num_with_region == 0:
        return (
            f"{region} lies outside the field of view that all values keep in all of {where}: "
            "choose milder values or another region"
        )
    return (
        f"images.num = {choice.num}, but only {num_with_region} of {where} have {region} inside the field of view "
        f"that all values keep: ask for at most {num_with_region}, or add splits"
    )
