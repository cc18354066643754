"""The curves of one data set, region and sweep, cut into panels that may be compared with one another.

Roles: what a curve is to its study, as data in the manifest. A role has a curve for each of its seeds; its mean over
the seeds is what is drawn and described, the single seeds are what a test of training needs.

Shapes: S seeds, N images, V values of the sweep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.arrays import Bools, Floats
from analysis.results import Entry, StudyResults
from trainables.api.names import BINARISATION, CURVE_FILE, DICE, FIELD_OF_VIEW, GROUP, IMAGE_ID, POSITION, VALUE
from trainables.api.names import INTENSITY as INTENSITY
from trainables.api.names import RELEASED as RELEASED
from trainables.api.names import TRAINED as TRAINED
from trainables.api.names import UNTRAINED as UNTRAINED

FIXED_MAP = "fixed map"
MASK = "mask"
ROLES = (TRAINED, UNTRAINED, RELEASED, FIXED_MAP, MASK, INTENSITY)
CONTROLS = ROLES[1:]
ROLE, SEED = "role", "seed"


@dataclass(frozen=True, eq=False)
class Curve:
    """The curves of one role: Dice of N images at V rising values, for each of S seeds."""

    values_V: Floats
    dice_SNV: Floats
    seeds: tuple[str, ...]

    @property
    def dice_NV(self) -> Floats:
        """Mean over the seeds."""
        return np.asarray(self.dice_SNV.mean(axis=0))

    def at(self, keep_V: Bools) -> Curve:
        """The curve at some of its values."""
        return Curve(self.values_V[keep_V], self.dice_SNV[:, :, keep_V], self.seeds)

    def of_seed(self, place: int) -> Curve:
        """One seed's curve alone."""
        return Curve(self.values_V, self.dice_SNV[place : place + 1], self.seeds[place : place + 1])


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
    """By role, in the order of ``ROLES``."""
    num_left_out: int


def curve_frame(results: StudyResults, entries: Sequence[Entry]) -> pl.DataFrame:
    """The rows of these finished curves, with the columns role and seed (text) added."""
    names = {entry["key"]: name for role in ROLES for entry, name in _seed_names(entries, role)}
    parts = [
        pl.read_parquet(results.folder(entry["key"]) / CURVE_FILE).with_columns(
            pl.lit(entry["role"]).alias(ROLE), pl.lit(names[entry["key"]]).alias(SEED)
        )
        for entry in entries
    ]
    return pl.concat(parts)


def _seed_names(entries: Sequence[Entry], role: str) -> list[tuple[Entry, str]]:
    """What tells the curves of a role apart: the seeds in which they differ; of a single one, its first seed."""
    members = [entry for entry in entries if entry["role"] == role]
    paths = list(dict.fromkeys(path for entry in members for path in entry.get("seeds", {})))
    differing = [path for path in paths if len({entry["seeds"].get(path) for entry in members}) > 1] or paths[:1]
    return [(entry, ",".join(str(entry["seeds"].get(path, "")) for path in differing)) for entry in members]


def panels(curves: pl.DataFrame) -> list[Panel]:
    """Cut the long frame of all curves into comparable panels.

    Raises ValueError naming the curve when an image lacks values or has one twice, when curves share no image, or when
    the seeds of a role were measured at different values.
    """
    if curves.is_empty():
        return []
    parts = curves.partition_by([FIELD_OF_VIEW, BINARISATION], as_dict=True, maintain_order=True)
    return [_panel(str(key[0]), str(key[1]), part) for key, part in parts.items()]


def _panel(field_of_view: str, binarisation: str, rows: pl.DataFrame) -> Panel:
    finite = pl.col(DICE).is_not_null() & pl.col(DICE).is_finite()
    num_curves = rows.select(ROLE, SEED).unique().height
    usable = (
        rows.group_by(IMAGE_ID)
        .agg(finite.all().alias("finite"), pl.struct(ROLE, SEED).n_unique().alias("num_curves"))
        .filter(pl.col("finite") & (pl.col("num_curves") == num_curves))
    )
    if usable.is_empty():
        raise ValueError(
            f"{field_of_view} / {binarisation}: no image has finite Dice in all curves of "
            f"{rows[ROLE].unique().to_list()}; the trials of a study must measure the same images"
        )
    kept = rows.join(usable.select(IMAGE_ID), on=IMAGE_ID, how="semi").sort(GROUP, POSITION, IMAGE_ID, VALUE)
    order = kept.select(IMAGE_ID, GROUP).unique(maintain_order=True)
    by_role = {str(key[0]): part for key, part in kept.partition_by(ROLE, as_dict=True, maintain_order=True).items()}
    curves = {role: _curve(role, by_role[role], usable.height) for role in in_order(by_role)}
    num_left_out = rows[IMAGE_ID].n_unique() - usable.height
    return Panel(field_of_view, binarisation, tuple(order[IMAGE_ID]), tuple(order[GROUP]), curves, num_left_out)


def _curve(role: str, rows: pl.DataFrame, num_images: int) -> Curve:
    by_seed = {str(key[0]): part for key, part in rows.partition_by(SEED, as_dict=True, maintain_order=True).items()}
    grids = {seed: part[VALUE].unique().sort().to_numpy() for seed, part in by_seed.items()}
    first = next(iter(grids.values()))
    if any(not np.array_equal(grid, first) for grid in grids.values()):
        raise ValueError(f"the seeds {sorted(grids)} of {role!r} were measured at different values; give all the same")
    seeds = sorted(by_seed, key=lambda seed: (len(seed), seed))
    dice_SNV = np.stack([_matrix(f"{role} {seed}".strip(), by_seed[seed], num_images, first) for seed in seeds])
    return Curve(first.astype(np.float64), dice_SNV, tuple(seeds))


def _matrix(name: str, rows: pl.DataFrame, num_images: int, values_V: Floats) -> Floats:
    if rows.height != num_images * len(values_V) or rows.select(IMAGE_ID, VALUE).is_duplicated().any():
        raise ValueError(
            f"curve {name!r}: {rows.height} rows for {num_images} images at {len(values_V)} values; every image needs "
            "every value exactly once. Do two trials have one role and seed?"
        )
    return rows[DICE].to_numpy().reshape(num_images, len(values_V)).astype(np.float64)


def in_order(roles: Mapping[str, object] | Sequence[str]) -> list[str]:
    """Roles sorted: trained first, then the controls, unknown ones last."""
    return sorted(roles, key=lambda role: (ROLES.index(role) if role in ROLES else len(ROLES), role))


def sorted_by_role(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows sorted by their role as ``in_order`` does."""
    rank = pl.col(ROLE).replace_strict({name: i for i, name in enumerate(ROLES)}, default=len(ROLES))
    return frame.sort(rank, maintain_order=True)
