"""The long frame of all trials, cut into panels of curves that may be compared with one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis import wave
from analysis.wave import Floats

SEPARATOR = ": "  # a trial is named "<data set>: <curve>"
TRAINED = "trained"
UNTRAINED_PREFIX = "untrained seed "
UNTRAINED_MEAN = "untrained mean"
FIXED_MAP = "fixed map"
MASK_CEILING = "mask ceiling"
INTENSITY = "intensity"
EXPECTED_CURVES = (
    TRAINED,
    *(f"{UNTRAINED_PREFIX}{seed}" for seed in range(3)),
    FIXED_MAP,
    MASK_CEILING,
    INTENSITY,
)


@dataclass(frozen=True, eq=False)
class Curve:
    """One curve: Dice of N images at A angles (in order, 360 included if measured)."""

    angles_deg_A: Floats
    dice_NA: Floats

    def without_full_turn(self) -> Curve:
        keep_A = wave.full_turn_removed(self.angles_deg_A)
        return Curve(self.angles_deg_A[keep_A], self.dice_NA[:, keep_A])

    def fitted_angles(self, fit: str) -> Curve:
        """The angles one of the two fits uses."""
        curve = self.without_full_turn()
        if fit == "all":
            return curve
        keep_A = ~wave.is_multiple_of_90(curve.angles_deg_A)
        return Curve(curve.angles_deg_A[keep_A], curve.dice_NA[:, keep_A])


@dataclass(frozen=True, eq=False)
class Panel:
    """All curves of one field of view and one binarisation, over the same images in the same order.

    Only images with finite Dice in every curve take part; ``num_left_out`` says how many others there are.
    """

    field_of_view: str
    binarisation: str
    image_ids: tuple[str, ...]
    groups: tuple[str, ...]
    curves: Mapping[str, Curve]
    num_left_out: int


def panels(curves: pl.DataFrame) -> list[Panel]:
    """Cut the long frame of all trials into comparable panels, and add the mean of the untrained seeds.

    Raises ValueError naming the curve when an image lacks angles or has an angle twice, when curves share no image,
    or when the untrained seeds were measured at different angles.
    """
    if curves.is_empty():
        return []
    parts = curves.partition_by(["field_of_view", "binarisation"], as_dict=True, maintain_order=True)
    return [_panel(str(key[0]), str(key[1]), part) for key, part in parts.items()]


def _panel(field_of_view: str, binarisation: str, rows: pl.DataFrame) -> Panel:
    finite = pl.col("dice").is_not_null() & pl.col("dice").is_finite()
    num_curves = rows["curve"].n_unique()
    usable = (
        rows.group_by("image_id")
        .agg(finite.all().alias("finite"), pl.col("curve").n_unique().alias("num_curves"))
        .filter(pl.col("finite") & (pl.col("num_curves") == num_curves))
    )
    if usable.is_empty():
        raise ValueError(
            f"{field_of_view} / {binarisation}: no image has finite Dice in all of {rows['curve'].unique().to_list()}; "
            "the trials of a study must measure the same images"
        )
    kept = rows.join(usable.select("image_id"), on="image_id", how="semi").sort(
        "group", "position", "image_id", "angle_deg"
    )
    order = kept.select("image_id", "group").unique(maintain_order=True)
    measured = {
        str(key[0]): _matrix(str(key[0]), part, usable.height)
        for key, part in kept.partition_by("curve", as_dict=True, maintain_order=True).items()
    }
    return Panel(
        field_of_view, binarisation, tuple(order["image_id"]), tuple(order["group"]),
        _with_untrained_mean(measured), rows["image_id"].n_unique() - usable.height,
    )  # fmt: skip


def _matrix(name: str, rows: pl.DataFrame, num_images: int) -> Curve:
    angles = rows["angle_deg"].unique().sort().to_numpy()
    if rows.height != num_images * len(angles) or rows.select("image_id", "angle_deg").is_duplicated().any():
        raise ValueError(
            f"curve {name!r}: {rows.height} rows for {num_images} images at {len(angles)} angles; every image needs "
            "every angle exactly once. Is the curve of two trials under one name?"
        )
    return Curve(angles.astype(np.float64), rows["dice"].to_numpy().reshape(num_images, len(angles)).astype(np.float64))


def _with_untrained_mean(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Measured curves in the expected order, the mean of the seeds behind the seeds."""
    seeds = sorted(name for name in curves if name.startswith(UNTRAINED_PREFIX))
    ordered = [name for name in EXPECTED_CURVES if name in curves]
    ordered += [name for name in curves if name not in ordered]
    result = {name: curves[name] for name in ordered}
    if not seeds:
        return result
    grids = [curves[name].angles_deg_A for name in seeds]
    if any(not np.array_equal(grid, grids[0]) for grid in grids):
        raise ValueError(f"{seeds} were measured at different angles; give all seeds the same grid")
    result[UNTRAINED_MEAN] = Curve(grids[0], np.mean([curves[name].dice_NA for name in seeds], axis=0))
    return result


def in_expected_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows sorted by curve: trained first, then the controls, unknown names last."""
    names = [*EXPECTED_CURVES[:4], UNTRAINED_MEAN, *EXPECTED_CURVES[4:]]
    rank = pl.col("curve").replace_strict({name: i for i, name in enumerate(names)}, default=len(names))
    return frame.sort(rank, maintain_order=True)


def missing_curves(curves: pl.DataFrame, expected: Sequence[str] = EXPECTED_CURVES) -> list[str]:
    """Expected curves of which no row is there."""
    present = set() if curves.is_empty() else set(curves["curve"].unique())
    return [name for name in expected if name not in present]
