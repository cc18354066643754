"""How well saliency maps fit the mask as the image is rotated: thesis sections 5.2 and 5.3, Eq. 5.1.

For each angle: rotate each image by it, make the saliency map of the pair (original, rotated), rotate the map back, and
compare it with the mask. The angles are the items of ``context.map``, so a curve resumes and spreads over machines.

Shapes: N images, A angles, P = A * N pairs, K images shown, C channels, H x W pixels, X pixels in a field of view.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import polars as pl
import torch
from torch import Tensor

from trainables import augment, metrics, runtime
from trainables.api.errors import NonFiniteMetric
from trainables.api.trainable import Trainable
from trainables.data.annotations import Region
from trainables.data.cache import ImageTable, RegionTable, open_annotation, open_images
from trainables.metrics import Binarisation, FieldOfView
from trainables.models.encoder import Encoder, EncoderSource, check_choice, forward_flop
from trainables.models.frozen import FrozenEncoder, keep_freed_memory
from trainables.saliency import Anchors, Prepared, SaliencyMethod, SmoothGrad
from trainables.sample_maps import write_picture

if TYPE_CHECKING:
    from trainables.api.context import Arrays, Context

ImageSelection = Literal["evenly", "random"]

CURVE_FILE = "curve.parquet"
SAMPLES_FILE = "samples.npz"
SAMPLES_PICTURE = "artifacts/samples.png"
CURVE_TABLE = "artifacts/curve.csv"
SELECTION_FILE = "artifacts/selection.json"

SHOWN_ANGLES_DEG = (0.0, 95.0)  # thesis, Fig. 5.3
_NUM_SHOWN = 4
# A batch of angles should fill a few batches of the encoder, and stay small enough to lose little when interrupted.
_PASSES_PER_BATCH = 256
_MOST_ANGLES_PER_BATCH = 16
# An input gradient costs about as much as the forward pass.
_FORWARDS_PER_PASS = 2


@dataclass(frozen=True)
class RotationCurve(Trainable):
    """Dice, its reference levels and average precision of a saliency method, against the rotation angle.

    Writes ``curve.parquet`` (a row for each image, angle, field of view and binarisation), ``samples.npz`` (a few
    images and maps at 0 and 95 degrees), and to look at ``artifacts/samples.png``, ``artifacts/curve.csv`` (means over
    the images) and ``artifacts/selection.json``.

    Args:
        region: what maps are compared with, on its images.
        encoder: where the encoder comes from; None for methods that use none.
        angles_deg: any angles, whole or not; a method may leave some out (``SaliencyMethod.skips``). The thesis: 0 to
            360 in steps of 1.
        num_images: 75, as in the thesis.
        image_selection: which images of ``splits`` with a mask. ``evenly`` (default) takes them at even steps of the
            data set's order, so that all of it is covered and no seed is involved; ``random`` draws with
            ``selection_seed``. Images whose mask is empty inside the inscribed circle are never taken, since Dice
            says nothing about them; which ones, and how many, is recorded. The thesis does not say which 75 it took.
        binarisations: how a map becomes a set of pixels; ``metrics.binarise`` says what each means. All are
            evaluated, the first is the headline. Otsu leads because it looks at the map only, whereas ``top_area``
            knows the mask's size, and mean and percentile fix level or area beforehand. The thesis does not say.
        percentile: for ``percentile``; 80 keeps the highest fifth, between the mask fractions of the data sets.
        interpolation: of images and maps. Bilinear by default: nearest duplicates pixels, bicubic leaves the range.
        fill: what a rotation brings in. Black by default, as the tool of the thesis and the background of the scans.
        cut_image_to_circle: blacken images outside the inscribed circle, at every angle, so that all angles show
            the encoder the same field of view. Off by default, as in the thesis.

    Raises:
        ValueError: settings that contradict each other, or name what does not exist.
    """

    maps_items: ClassVar[bool] = True

    region: Region
    encoder: EncoderSource | None = None
    method: SaliencyMethod = field(default_factory=SmoothGrad)
    angles_deg: Sequence[float] = tuple(float(angle) for angle in range(361))
    num_images: int = 75
    image_selection: ImageSelection = "evenly"
    selection_seed: int = 0
    splits: tuple[str, ...] = ("train", "val")
    binarisations: tuple[Binarisation, ...] = ("otsu", "top_area", "mean", "percentile", "soft")
    percentile: float = 80.0
    interpolation: augment.Interpolation = "bilinear"
    fill: augment.Fill = "zero"
    cut_image_to_circle: bool = False

    def __post_init__(self) -> None:
        # range(361), [0, 90] and (0.0, 90.0) shall have one identity.
        object.__setattr__(self, "angles_deg", tuple(float(angle) for angle in self.angles_deg))
        check_choice("image_selection", self.image_selection, get_args(ImageSelection))
        check_choice("interpolation", self.interpolation, get_args(augment.Interpolation))
        check_choice("fill", self.fill, get_args(augment.Fill))
        if self.num_images < 1:
            raise ValueError(f"num_images = {self.num_images}: at least 1")
        if not self.binarisations or len(set(self.binarisations)) != len(self.binarisations):
            raise ValueError(f"binarisations = {self.binarisations}: at least one, each once")
        for rule in self.binarisations:
            metrics.check_binarisation(rule, self.percentile)
        self._check_angles()
        self._check_encoder()

    def run(self, context: Context) -> Mapping[str, float]:
        """Compute, write and log the curve.

        Raises:
            BadData: the data set is unusable.
            ValueError: it has too few images with a mask, or other channels than the encoder.
        """
        runtime.use_cores(context.num_cpus)
        table, masks = open_images(self.region.images, context), open_annotation(self.region, context)
        selection = _Selection.of(self, table, masks)
        work = _AngleWork.of(self, context, table, masks, selection)
        angles = self._curve_angles()
        extra = [angle for angle in SHOWN_ANGLES_DEG if angle not in angles and not self.method.skips(angle)]
        items = [*angles, *extra]
        results = dict(zip(items, context.map(work, items, batch_size=self._angles_per_batch()), strict=True))
        frame = self._frame(selection.index, {angle: results[angle] for angle in angles})
        means = _means_over_images(frame)
        self._write(context.output_dir, frame, means, selection)
        samples = _samples(table, masks, selection, results)
        np.savez_compressed(context.output_dir / SAMPLES_FILE, **samples)
        write_picture(context.output_dir / SAMPLES_PICTURE, samples)
        self._log(context, means)
        return self._summary(means, selection)

    def work_flop(self) -> float:
        backbone: Any = getattr(self.encoder, "backbone", "resnet50")  # the dearer one where it is not known
        passes = self.method.passes_per_map * self.num_images * len(self.angles_deg)
        return _FORWARDS_PER_PASS * passes * forward_flop(backbone, self.region.images.image_size_px)

    def _check_angles(self) -> None:
        if not self.angles_deg or len(set(self.angles_deg)) != len(self.angles_deg):
            raise ValueError(f"angles_deg = {self.angles_deg}: at least one angle, each once")
        if not all(math.isfinite(angle) for angle in self.angles_deg):
            raise ValueError(f"angles_deg = {self.angles_deg}: finite angles only")
        if not self._curve_angles():
            raise ValueError(f"{self.method} is not defined at any of angles_deg = {self.angles_deg}: add others")

    def _check_encoder(self) -> None:
        name = type(self.method).__name__
        if self.method.needs_encoder and self.encoder is None:
            raise ValueError(f"{name} explains an encoder: give encoder=, for example a pretraining or RandomEncoder")
        if not self.method.needs_encoder and self.encoder is not None:
            raise ValueError(f"{name} uses no encoder: leave encoder out, so that one result serves all encoders")

    def _curve_angles(self) -> list[float]:
        return [angle for angle in self.angles_deg if not self.method.skips(angle)]

    def _angles_per_batch(self) -> int:
        passes_per_angle = max(1, self.num_images * self.method.passes_per_map)
        return min(_MOST_ANGLES_PER_BATCH, max(1, _PASSES_PER_BATCH // passes_per_angle))

    def _frame(self, index: pl.DataFrame, results: Mapping[float, Arrays]) -> pl.DataFrame:
        """One row for each angle, field of view, binarisation and image, in this order."""
        parts = []
        for angle, scores in results.items():
            for place, field_of_view in enumerate(metrics.FIELDS_OF_VIEW):
                for rule_place, rule in enumerate(self.binarisations):
                    columns = self._columns(scores, place, rule_place)
                    names = {"angle_deg": angle, "field_of_view": field_of_view, "binarisation": rule}
                    parts.append(
                        index.with_columns(**{name: pl.lit(value) for name, value in names.items()}, **columns)
                    )
        return pl.concat(parts)

    def _columns(self, scores: Arrays, field_place: int, rule_place: int) -> dict[str, pl.Series]:
        mask_fraction = torch.from_numpy(scores[metrics.MASK_FRACTION][field_place])
        map_fraction = torch.from_numpy(scores[metrics.MAP_FRACTION][field_place, rule_place])
        columns = {
            metrics.DICE: scores[metrics.DICE][field_place, rule_place],
            metrics.MASK_FRACTION: mask_fraction.numpy(),
            metrics.MAP_FRACTION: map_fraction.numpy(),
            metrics.CHANCE_DICE: metrics.chance_dice(mask_fraction, map_fraction).numpy(),
            metrics.ALL_ONES_DICE: metrics.all_ones_dice(mask_fraction).numpy(),
            metrics.AUPRC: scores[metrics.AUPRC][field_place],
        }
        return {name: pl.Series(name, values) for name, values in columns.items()}

    def _write(self, folder: Path, frame: pl.DataFrame, means: pl.DataFrame, selection: _Selection) -> None:
        (folder / "artifacts").mkdir(parents=True, exist_ok=True)
        frame.write_parquet(folder / CURVE_FILE)
        means.write_csv(folder / CURVE_TABLE)
        record = {"image_ids": selection.ids, "left_out_for_empty_mask": selection.left_out_ids}
        (folder / SELECTION_FILE).write_text(json.dumps(record, indent=1))

    def _log(self, context: Context, means: pl.DataFrame) -> None:
        """The headline curve. The step is the angle where all angles are whole, else the angle's place."""
        are_whole = all(angle.is_integer() for angle in self.angles_deg)
        for place, angle in enumerate(self._curve_angles()):
            values = {} if are_whole else {"angle_deg": angle}
            for field_of_view in metrics.FIELDS_OF_VIEW:
                prefix = "" if field_of_view == "full" else f"{field_of_view}/"
                row = self._headline(means, field_of_view).row(place, named=True)
                names = (metrics.DICE, metrics.AUPRC, metrics.MAP_FRACTION, metrics.CHANCE_DICE)
                values |= {prefix + name: row[name] for name in names}
            context.log(values, step=int(angle) if are_whole else place)

    def _headline(self, means: pl.DataFrame, field_of_view: FieldOfView) -> pl.DataFrame:
        of_field = means.filter(pl.col("field_of_view") == field_of_view)
        return of_field.filter(pl.col("binarisation") == self.binarisations[0])

    def _summary(self, means: pl.DataFrame, selection: _Selection) -> dict[str, float]:
        full = self._headline(means, "full")
        circle = self._headline(means, "circle")
        dice: Any = full[metrics.DICE]
        auprc: Any = full[metrics.AUPRC]
        circle_dice: Any = circle[metrics.DICE]
        return {
            "dice_mean": float(dice.mean()),
            "dice_min": float(dice.min()),
            "dice_max": float(dice.max()),
            "circle/dice_mean": float(circle_dice.mean()),
            "auprc_mean": float(auprc.mean()),
            "num_images": float(len(selection.rows)),
            "num_left_out_for_empty_mask": float(len(selection.left_out_ids)),
        }


@dataclass(frozen=True)
class _Selection:
    """The images of a curve, in the data set's order."""

    rows: np.ndarray[Any, np.dtype[np.int64]]
    index: pl.DataFrame
    """Columns image_id, group, position."""
    left_out_ids: list[str]

    @property
    def ids(self) -> list[str]:
        return self.index["image_id"].to_list()

    @property
    def shown(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Places, among the images of the curve, of those whose maps are kept."""
        return _even_places(len(self.rows), min(_NUM_SHOWN, len(self.rows)))

    @classmethod
    def of(cls, curve: RotationCurve, table: ImageTable, masks: RegionTable) -> _Selection:
        rows = table.rows(*curve.splits)
        inside_HW = inscribed_circle(curve.region.images.image_size_px).numpy()
        has_mask = np.array([bool((masks.masks_NHW[row] & inside_HW).any()) for row in rows], dtype=bool)
        candidates = rows[has_mask]
        if len(candidates) < curve.num_images:
            raise ValueError(
                f"num_images = {curve.num_images}, but only {len(candidates)} of the {len(rows)} images in "
                f"{', '.join(curve.splits)} have a mask inside the inscribed circle: ask for fewer or add splits"
            )
        if curve.image_selection == "evenly":
            places = _even_places(len(candidates), curve.num_images)
        else:
            generator = runtime.generator("images of a curve", curve.selection_seed)
            order = torch.randperm(len(candidates), generator=generator)
            places = np.sort(order[: curve.num_images].numpy())
        chosen = candidates[places]
        index = table.index[chosen].select(pl.col("id").alias("image_id"), "group", "position")
        return cls(chosen, index, table.index[rows[~has_mask]]["id"].to_list())


class _AngleWork:
    """What ``context.map`` calls with a batch of angles, in this process or in another.

    Pickles without what lives on a device; that is set up again on the first call.
    """

    def __init__(
        self,
        curve: RotationCurve,
        encoder: Encoder | None,
        ids: tuple[str, ...],
        images_NCHW: np.ndarray[Any, Any],
        masks_NHW: np.ndarray[Any, Any],
        shown: np.ndarray[Any, Any],
        num_cpus: int,
    ) -> None:
        self.curve, self.encoder, self.ids = curve, encoder, ids
        self.images_NCHW, self.masks_NHW, self.shown, self.num_cpus = images_NCHW, masks_NHW, shown, num_cpus
        self.prepared: dict[str, np.ndarray[Any, Any]] | None = None
        self._device_side: _DeviceSide | None = None

    @classmethod
    def of(
        cls, curve: RotationCurve, context: Context, table: ImageTable, masks: RegionTable, selection: _Selection
    ) -> _AngleWork:
        encoder = None if curve.encoder is None else curve.encoder.load(context)
        data = curve.region.images
        if encoder is not None and encoder.config.in_channels != data.num_channels:
            raise ValueError(
                f"the encoder takes {encoder.config.in_channels} channels and {data.name} has "
                f"{data.num_channels}: use an encoder that was trained on such images"
            )
        if encoder is not None and not all(bool(t.isfinite().all()) for t in encoder.state_dict().values()):
            # Fused ReLUs turn NaN into 0: the maps would be finite, and the curve would look normal.
            raise NonFiniteMetric("encoder weights", math.nan, None)
        images_NCHW, masks_NHW = np.array(table.images_NCHW[selection.rows]), np.array(masks.masks_NHW[selection.rows])
        ids = tuple(selection.ids)
        work = cls(curve, encoder, ids, images_NCHW, masks_NHW, selection.shown, context.num_cpus)
        side = _DeviceSide.of(work)
        prepared = curve.method.prepare(side.encoder, side.anchors)
        work.prepared = {name: tensor.float().cpu().numpy() for name, tensor in prepared.items()}
        return work

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_device_side": None}

    def __call__(self, angles_deg: Sequence[float]) -> list[Arrays]:
        if self._device_side is None:
            runtime.use_cores(self.num_cpus)
            self._device_side = _DeviceSide.of(self)
        return self._device_side.scores(self.curve, angles_deg, torch.from_numpy(self.shown))


@dataclass
class _DeviceSide:
    """Encoder, images and prepared tensors on this process's device."""

    encoder: FrozenEncoder | None
    anchors: Anchors
    masks_NHW: Tensor
    circle_HW: Tensor
    prepared: Prepared

    @classmethod
    def of(cls, work: _AngleWork) -> _DeviceSide:
        curve, device = work.curve, runtime.device()
        keep_freed_memory()
        images_NCHW = torch.from_numpy(work.images_NCHW).to(device).float().div_(255)
        masks_NHW = torch.from_numpy(work.masks_NHW).to(device).float()
        circle_HW = inscribed_circle(curve.region.images.image_size_px).to(device)
        if curve.cut_image_to_circle:
            images_NCHW = images_NCHW * circle_HW
        anchors = Anchors(work.ids, images_NCHW, masks_NHW, curve.interpolation, curve.fill)
        dtype = curve.method.encoder_dtype
        encoder = None if work.encoder is None else FrozenEncoder(work.encoder, device, dtype)
        prepared = {name: torch.from_numpy(values).to(device) for name, values in (work.prepared or {}).items()}
        return cls(encoder, anchors, masks_NHW, circle_HW, prepared)

    def scores(self, curve: RotationCurve, angles_deg: Sequence[float], shown_K: Tensor) -> list[Arrays]:
        """For each angle: [field of view, binarisation, image] arrays, and at the shown angles a few maps."""
        num_images = len(self.masks_NHW)
        rows_P = torch.arange(num_images).repeat(len(angles_deg))
        angles_P = torch.tensor(angles_deg, dtype=torch.float64).repeat_interleave(num_images)
        views = self.anchors.views(rows_P, angles_P)
        if curve.cut_image_to_circle:
            views.images_PCHW.mul_(self.circle_HW)
        maps_PHW = curve.method.maps(self.encoder, self.anchors, self.prepared, views)
        finite_P = torch.isfinite(maps_PHW).flatten(1).all(dim=1).cpu()
        if not bool(finite_P.all()):
            # A map with a hole would be scored like any other, and the curve would look normal.
            raise NonFiniteMetric("saliency map", math.nan, round(float(angles_P[~finite_P][0])))
        back_PHW = self.anchors.rotate(maps_PHW[:, None], -angles_P)[:, 0]
        results: list[Arrays] = []
        for place, angle in enumerate(angles_deg):
            part = slice(place * num_images, (place + 1) * num_images)
            result = self._scores_of_angle(curve, back_PHW[part])
            if angle in SHOWN_ANGLES_DEG:
                shown_of = shown_K.to(maps_PHW.device)
                result["rotated_KHW"] = views.images_PCHW[part][shown_of].mean(dim=1).cpu().numpy()
                result["maps_rotated_KHW"] = maps_PHW[part][shown_of].cpu().numpy()
                result["maps_KHW"] = back_PHW[part][shown_of].cpu().numpy()
            results.append(result)
        return results

    def _scores_of_angle(self, curve: RotationCurve, maps_NHW: Tensor) -> dict[str, np.ndarray[Any, Any]]:
        by_field: dict[str, list[Tensor]] = {}
        fields: dict[FieldOfView, Tensor] = {"full": torch.ones_like(self.circle_HW), "circle": self.circle_HW}
        for field_of_view in metrics.FIELDS_OF_VIEW:
            inside_HW = fields[field_of_view]
            scores = score_maps(maps_NHW[:, inside_HW], self.masks_NHW[:, inside_HW], curve)
            for name, values in scores.items():
                by_field.setdefault(name, []).append(values)
        return {name: torch.stack(values).cpu().numpy() for name, values in by_field.items()}


def score_maps(maps_NX: Tensor, masks_NX: Tensor, curve: RotationCurve) -> dict[str, Tensor]:
    """Scores of maps inside one field of view; thresholds and fractions are of these pixels only.

    Returns:
        dice and map_fraction [R, N] for the curve's R binarisations; mask_fraction and auprc [N]. All float64.
    """
    predictions_RNX = [metrics.binarise(maps_NX, masks_NX, rule, curve.percentile) for rule in curve.binarisations]
    return {
        metrics.DICE: torch.stack([metrics.dice(prediction_NX, masks_NX) for prediction_NX in predictions_RNX]),
        metrics.MAP_FRACTION: torch.stack([prediction_NX.mean(dim=1) for prediction_NX in predictions_RNX]),
        metrics.MASK_FRACTION: masks_NX.double().mean(dim=1),
        metrics.AUPRC: metrics.average_precision(maps_NX, masks_NX),
    }


def inscribed_circle(image_size_px: int) -> Tensor:
    """Pixels [H, W] that no rotation about the centre takes out of the image, bool.

    One diagonal of a pixel inside the true circle, so that after bilinear interpolation there and back no value
    inside comes from beyond the border of the image.
    """
    centre = (image_size_px - 1) / 2
    squares = (torch.arange(image_size_px, dtype=torch.float64) - centre) ** 2
    return (squares[:, None] + squares[None, :]).sqrt() <= centre - math.sqrt(2)


def _even_places(num: int, num_wanted: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Middles of ``num_wanted`` equal parts of 0 ... num - 1: all different, nothing favoured at the ends."""
    return ((2 * np.arange(num_wanted, dtype=np.int64) + 1) * num) // (2 * num_wanted)


def _means_over_images(frame: pl.DataFrame) -> pl.DataFrame:
    """Mean of each score for each angle, field of view and binarisation, in the frame's order."""
    names = ["dice", "mask_fraction", "map_fraction", "chance_dice", "all_ones_dice", "auprc"]
    grouped = frame.group_by("angle_deg", "field_of_view", "binarisation", maintain_order=True)
    return grouped.agg(pl.col(names).mean(), pl.len().alias("num_images"))


def _samples(
    table: ImageTable, masks: RegionTable, selection: _Selection, results: Mapping[float, Arrays]
) -> dict[str, Any]:
    """A few images with their maps, for pictures; an angle that the method leaves out is missing here too."""
    rows = selection.rows[selection.shown]
    angles = [angle for angle in SHOWN_ANGLES_DEG if angle in results]
    arrays: dict[str, Any] = {
        f"{name}_KAHW": np.stack([results[angle][f"{name}_KHW"] for angle in angles], axis=1).astype(np.float32)
        for name in ("rotated", "maps_rotated", "maps")
    }
    return {
        "image_id": np.array([selection.ids[place] for place in selection.shown]),
        "images_KHW": table.images_NCHW[rows].mean(axis=1).round().astype(np.uint8),
        "masks_KHW": np.array(masks.masks_NHW[rows]),
        "angles_deg": np.array(angles, dtype=np.float64),
        **arrays,
    }
