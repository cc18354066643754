"""How well saliency maps fit a region as an image is changed: thesis sections 5.2 and 5.3, Eq. 5.1, for any sweep.

For each value of the sweep: make the view of each image (rotate it, blur it, ...), make the saliency map of the pair
(image, view), bring the map back into the image's frame, and compare it with the region. The values are the items of
``context.map``, so a curve resumes and spreads over machines.

Shapes: N images, V values, K images shown, H x W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import polars as pl

from trainables import runtime
from trainables.api import axis, names
from trainables.api.checks import check_choice
from trainables.api.identity import identity_name
from trainables.api.names import FieldOfView
from trainables.api.trainable import Spreads, Trainable
from trainables.data.annotations import Region
from trainables.data.cache import ImageTable, RegionTable, open_annotation, open_images
from trainables.data.records import Dataset
from trainables.interpretability.device import CurveWork, fields_of_view
from trainables.interpretability.sample_maps import write_picture
from trainables.interpretability.scoring import Scoring, curve_frame, headline, means_over_images
from trainables.interpretability.selection import ImageChoice, Selection
from trainables.models.sources import EncoderSource
from trainables.models.trunk import forward_flop
from trainables.saliency.base import SaliencyMethod
from trainables.saliency.gradients import SmoothGrad
from trainables.sweeps import Rotation, Sweep

if TYPE_CHECKING:
    from trainables.api.context import Arrays, Context

Explained = Literal["view", "anchor"]

_SAMPLES_PICTURE = "artifacts/samples.png"
_CURVE_TABLE = "artifacts/curve.csv"
_LOGGED = (names.DICE, names.AUPRC, names.MAP_FRACTION, names.CHANCE_DICE)
_FAR_SHARE_OF_PERIOD = (95, 360)  # thesis, Fig. 5.3: 95 degrees
# A batch of values should fill a few batches of the encoder, and stay small enough to lose little when interrupted.
_PASSES_PER_BATCH = 256
_MOST_VALUES_PER_BATCH = 16
# An input gradient costs about as much as the forward pass.
_FORWARDS_PER_PASS = 2


@dataclass(frozen=True)
class InterpretabilityCurve(Trainable):
    """Dice, its reference levels and average precision of a saliency method, against the value of a sweep.

    Writes ``curve.parquet`` (a row for each image, value, field of view and binarisation), ``samples.npz`` (a few
    images and maps at the neutral value and a far one), and to look at ``artifacts/samples.png``,
    ``artifacts/curve.csv`` (means over the images), ``artifacts/selection.json`` and ``artifacts/sweep.json``.

    Returns ``val/interpretability``, or ``test/interpretability`` where the splits contain test: the mean headline Dice
    in the full field, each value weighted with the share of the axis it stands for. The neutral value, at which the
    view is the anchor, is measured and named in ``sweep.json``; no number that is returned contains it.

    Args:
        region: what the maps are compared with; it names its images.
        encoder: where the encoder comes from; None for methods that use none.
        sweep: what is done to the images.
        values: of the sweep; by default ``sweep.default_values()``. A method that is not defined at the neutral value
            leaves it out. The thesis: rotation by 0 to 360 degrees in steps of 1.
        images: which ones.
        scoring: how maps are held against the region.
        explains: ``view`` (default) scores the map of the view, brought back by the sweep; ``anchor`` that of the
            unchanged image as it is compared with the view. The thesis scores the map of the rotated image.
        cut_to_circle: for a rotation, blacken images outside the inscribed circle, at every angle, so that all angles
            show the encoder the same field of view. Off by default, as in the thesis.

    Raises:
        ValueError: settings that contradict each other, or name what does not exist.
    """

    spreads: ClassVar[Spreads] = "items"

    region: Region
    encoder: EncoderSource | None = None
    method: SaliencyMethod = field(default_factory=SmoothGrad)
    sweep: Sweep = field(default_factory=Rotation)
    values: tuple[float, ...] = ()
    images: ImageChoice = field(default_factory=ImageChoice)
    scoring: Scoring = field(default_factory=Scoring)
    explains: Explained = "view"
    cut_to_circle: bool = False

    def __post_init__(self) -> None:
        # (0, 90), (0.0, 90.0), (-0.0, 90.0), and 0 but for rounding, shall have one identity.
        values = tuple(self.sweep.snapped(value) + 0.0 for value in self.values) or self.sweep.default_values()
        object.__setattr__(self, "values", values)
        self.sweep.check(values)
        check_choice("explains", self.explains, get_args(Explained))
        if all(self.sweep.is_neutral(value) for value in values):
            raise ValueError(f"values = {values}: the view is the anchor at all of them; add one at which it is not")
        if self.cut_to_circle and not isinstance(self.sweep, Rotation):
            raise ValueError(f"cut_to_circle is for rotations; {type(self.sweep).__name__} keeps no circle: leave it")
        self._check_encoder()

    def check(self) -> None:
        """Counts of records: cheap, and before anything runs."""
        self.images.check([record.split for record in self.region.records()], self._region_name)

    def run(self, context: Context) -> Mapping[str, float]:
        """Compute, write and log the curve.

        Raises:
            BadData: the data set is unusable.
            ValueError: it has too few images with a region, or other channels than the encoder.
        """
        runtime.use_cores(context.num_cpus)
        table, masks = open_images(self._data, context), open_annotation(self.region, context)
        kept_HW = self.sweep.kept(self._data.image_size_px, self.values).numpy()
        selection = Selection.of(self.images, table.index, masks, kept_HW, self._region_name)
        work = self._work(context, table, masks, kept_HW, selection)
        items = [*self.measured_values, *(v for v in self.shown_values if v not in self.measured_values)]
        results = dict(zip(items, context.map(work, items, batch_size=self._values_per_batch()), strict=True))
        fields = fields_of_view(kept_HW)
        measured = {value: results[value] for value in self.measured_values}
        frame = curve_frame(selection.index, measured, fields, self.scoring)
        means = means_over_images(frame)
        samples = _samples(work, {value: results[value] for value in self.shown_values})
        self._write(context.output_dir, frame, means, selection, samples)
        self._log(context, means, fields)
        return self._summary(means, fields, selection)

    @property
    def uses_gpu(self) -> bool:
        """Where an encoder is explained: a mask on its round trip costs next to nothing."""
        return self.encoder is not None

    def work_flop(self) -> float:
        backbone: Any = getattr(self.encoder, "backbone", "resnet50")  # the dearer one where it is not known
        passes = self.images.num * (
            self.method.passes_per_anchor + self.method.passes_per_map * len(self.measured_values)
        )
        return _FORWARDS_PER_PASS * passes * forward_flop(backbone, self._data.image_size_px)

    @property
    def measured_values(self) -> tuple[float, ...]:
        """Those of ``values`` at which the method is defined, in their order."""
        return tuple(v for v in self.values if self._is_defined(v))

    @property
    def shown_values(self) -> tuple[float, ...]:
        """The values whose maps are kept to look at: the neutral one, where there is a map, and a far one."""
        if self.sweep.period is not None:
            share, whole = _FAR_SHARE_OF_PERIOD
            far = self.sweep.neutral + self.sweep.period * share / whole
        else:
            far = max(self.values, key=lambda value: abs(value - self.sweep.neutral))
        return tuple(v for v in (self.sweep.neutral, far) if self._is_defined(v))

    def step_of(self, value: float) -> int | None:
        """The step at which a value is logged: itself where all are whole, else its place; None if it has none."""
        if self._values_are_whole and value.is_integer():
            return int(value)
        return self.measured_values.index(value) if value in self.measured_values else None

    @property
    def _data(self) -> Dataset:
        return self.region.images

    @property
    def _region_name(self) -> str:
        return f"{self.region.name} of {self._data.name}"

    @property
    def _values_are_whole(self) -> bool:
        return all(value.is_integer() for value in self.values)

    def _is_defined(self, value: float) -> bool:
        return self.method.is_defined_at_neutral or not self.sweep.is_neutral(value)

    def _check_encoder(self) -> None:
        name = type(self.method).__name__
        if self.method.needs_encoder and self.encoder is None:
            raise ValueError(f"{name} explains an encoder: give encoder=, for example a pretraining or Untrained")
        if not self.method.needs_encoder and self.encoder is not None:
            raise ValueError(f"{name} uses no encoder: leave encoder out, so that one result serves all encoders")

    def _work(
        self,
        context: Context,
        table: ImageTable,
        masks: RegionTable,
        kept_HW: np.ndarray[Any, Any],
        selection: Selection,
    ) -> CurveWork:
        encoder = None if self.encoder is None else self.encoder.load(context)
        if encoder is not None and encoder.config.in_channels != self._data.num_channels:
            raise ValueError(
                f"the encoder takes {encoder.config.in_channels} channels and {self._data.name} has "
                f"{self._data.num_channels}: use an encoder that was trained on such images"
            )
        pixels = np.array(table.images_NCHW[selection.rows]), np.array(masks.masks_NHW[selection.rows])
        work = CurveWork(self, encoder, selection.ids, *pixels, kept_HW, selection.shown, context.num_cpus)
        work.prepare()
        return work

    def _values_per_batch(self) -> int:
        passes_per_value = max(1, int(self.images.num * self.method.passes_per_map))
        return min(_MOST_VALUES_PER_BATCH, max(1, _PASSES_PER_BATCH // passes_per_value))

    def _write(
        self, folder: Path, frame: pl.DataFrame, means: pl.DataFrame, selection: Selection, samples: Mapping[str, Any]
    ) -> None:
        (folder / "artifacts").mkdir(parents=True, exist_ok=True)
        frame.write_parquet(folder / names.CURVE_FILE)
        means.write_csv(folder / _CURVE_TABLE)
        record = {"image_ids": selection.ids, "left_out_for_empty_mask": selection.left_out_ids}
        (folder / names.SELECTION_FILE).write_text(json.dumps(record, indent=1))
        (folder / names.SWEEP_FILE).write_text(json.dumps(_record_of(self.sweep), indent=1))
        np.savez_compressed(folder / names.SAMPLES_FILE, **samples)
        write_picture(folder / _SAMPLES_PICTURE, samples)

    def _log(self, context: Context, means: pl.DataFrame, fields: tuple[FieldOfView, ...]) -> None:
        """The headline curve, a step a value."""
        for place, value in enumerate(self.measured_values):
            logged = {} if self._values_are_whole else {names.VALUE: value}
            for field_of_view in fields:
                row = headline(means, field_of_view, self.scoring).row(place, named=True)
                logged |= {_prefix(field_of_view) + name: row[name] for name in _LOGGED}
            step = self.step_of(value)
            assert step is not None
            context.log(logged, step=step)

    def _summary(self, means: pl.DataFrame, fields: tuple[FieldOfView, ...], selection: Selection) -> dict[str, float]:
        shares_V = axis.shares(self.measured_values, self.sweep.period)
        changed_V = np.array([not self.sweep.is_neutral(value) for value in self.measured_values])
        weights_V = shares_V[changed_V] / shares_V[changed_V].sum()
        curves = {
            prefix + name: headline(means, field_of_view, self.scoring)[name].to_numpy()[changed_V]
            for field_of_view, prefix in ((f, _prefix(f)) for f in fields)
            for name in (names.DICE, names.AUPRC)
        }
        summary = {f"{name}_mean": float(weights_V @ curve_V) for name, curve_V in curves.items()}
        dice_V = curves[names.DICE]
        split = "test" if "test" in self.images.splits else "val"
        return {
            f"{split}/{names.INTERPRETABILITY.split('/')[1]}": summary.pop(f"{names.DICE}_mean"),
            **summary,
            "dice_min": float(dice_V.min()),
            "dice_max": float(dice_V.max()),
            "num_images": float(len(selection.rows)),
            "num_left_out_for_empty_mask": float(len(selection.left_out_ids)),
        }


def _record_of(sweep: Sweep) -> dict[str, Any]:
    own_name = identity_name(type(sweep)).removeprefix(f"{Sweep.family}.")  # a study's own has its module
    named = {"name": own_name, "title": sweep.title, "unit": sweep.unit}
    return named | {"period": sweep.period, "neutral": sweep.neutral}


def _prefix(field_of_view: FieldOfView) -> str:
    return "" if field_of_view == "full" else f"{field_of_view}/"


def _samples(work: CurveWork, results: Mapping[float, Arrays]) -> dict[str, Any]:
    """A few images with their maps, for pictures, at the values of ``results``."""
    arrays: dict[str, Any] = {
        f"{name}_KVHW": np.stack([result[f"{name}_KHW"] for result in results.values()], axis=1).astype(np.float32)
        for name in ("views", "view_maps", "maps")
    }
    return {
        names.IMAGE_ID: np.array([work.ids[place] for place in work.shown]),
        "images_KHW": work.images_NCHW[work.shown].mean(axis=1).round().astype(np.uint8),
        "masks_KHW": work.masks_NHW[work.shown],
        "values": np.array(list(results), dtype=np.float64),
        **arrays,
    }
