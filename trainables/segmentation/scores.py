"""How well a trained segmenter does on one split (thesis 4.2): a trial of its own, so that a test split is looked at
for the chosen ones only.

Shapes: N images, S of them shown, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables import runtime
from trainables.api import names
from trainables.api.checks import check_choice
from trainables.api.context import Context
from trainables.api.trainable import Trainable, recorded
from trainables.data.batches import DeviceImages
from trainables.data.cache import ImageTable, open_annotation, open_images
from trainables.data.records import SPLITS
from trainables.metrics.classes import Overlap, mean_over_images
from trainables.segmentation.picture import write_picture
from trainables.segmentation.predicting import overlap_of, predictions
from trainables.segmentation.target import Target, annotated_rows, class_names
from trainables.segmentation.training import Segmentation

_PICTURE = "artifacts/samples.png"
_CLASS_TABLE = "artifacts/classes.csv"


@dataclass(frozen=True)
class SegmentationScores(Trainable):
    """Dice, IoU, sensitivity and specificity of a trained segmenter on the annotated images of a split.

    Each is taken image by image and class by class, averaged over the images in which it is defined (``Overlap`` says
    when), and then over the classes, as in the thesis, the background included. A class whose score is defined in no
    image is left out of the second mean, and stands without a number in ``artifacts/classes.csv``. On ``train`` all
    images of the split count, whatever fraction of their masks was used.

    Writes ``scores.parquet`` (a row for each image and class, the counts of pixels included), ``samples.npz`` and
    ``artifacts/samples.png`` (a few images with truth and prediction).
    """

    model: Segmentation
    split: Literal["train", "val", "test"] = "val"
    num_shown: int = recorded(4)

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)

    def check(self) -> None:
        """Raises ValueError where the split has no annotated image."""
        if not any(record.split == self.split for record in self._target.records()):
            raise ValueError(
                f"{self._target.name} of {self._target.images.name} is known for no image of split {self.split!r}: "
                "score another split, or add masks"
            )

    @property
    def uses_gpu(self) -> bool:
        return True

    def run(self, context: Context) -> Mapping[str, float]:
        """Predict, count and write; returns ``SPLIT/dice``, ``iou``, ``sensitivity`` and ``specificity``, averaged as
        above, ``SPLIT/foreground_dice``, ``SPLIT/dice/CLASS`` of each class, ``num_images`` that were scored and
        ``num_labelled``, on which the model was trained.

        Raises:
            BadData: the data cannot be read.
        """
        runtime.use_cores(context.num_cpus)
        images, annotation = open_images(self._target.images, context), open_annotation(self._target, context)
        rows = annotated_rows(images, annotation, self.split)
        device = runtime.device()
        shown = DeviceImages(images, rows, device, annotation=annotation)
        segmenter = self.model.load(context).to(device).to(memory_format=torch.channels_last)
        every = torch.arange(len(shown))
        found = overlap_of(segmenter, shown, every)
        index = images.index[rows.tolist()]
        classes = class_names(self._target)
        frame = _frame(found, index, classes)
        frame.write_parquet(context.output_dir / names.SCORES_FILE)
        (context.output_dir / "artifacts").mkdir(exist_ok=True)
        samples = self._samples(images, rows, shown, _to_show(found, self.num_shown), segmenter)
        np.savez_compressed(context.output_dir / names.SAMPLES_FILE, **samples)
        write_picture(context.output_dir / _PICTURE, samples)
        means = {name: mean_over_images(getattr(found, name)()).cpu().numpy() for name in names.CLASS_SCORES}
        table = pl.DataFrame({names.CLASS: classes, **means}).fill_nan(None)
        table.write_csv(context.output_dir / _CLASS_TABLE)
        counts = {"num_images": float(len(shown)), "num_labelled": float(self.model.num_labelled())}
        return {**self._summary(means, classes), **counts}

    def work_flop(self) -> float:
        images = self._target.images
        num_images = sum(record.split == self.split for record in self._target.records())
        return num_images * self.model.network.forward_flop(images.num_channels, images.image_size_px)

    @property
    def _target(self) -> Target:
        return self.model.target

    def _summary(self, means: Mapping[str, NDArray[np.float64]], classes: Sequence[str]) -> dict[str, float]:
        summary = {name: _mean(scores_K) for name, scores_K in means.items()}
        summary[names.FOREGROUND_DICE] = _mean(means[names.DICE][1:])
        summary |= {f"{names.DICE}/{name}": float(dice) for name, dice in zip(classes, means[names.DICE], strict=True)}
        defined = {name: value for name, value in summary.items() if np.isfinite(value)}
        return {f"{self.split}/{name}": value for name, value in defined.items()}

    def _samples(
        self, images: ImageTable, rows: NDArray[np.int64], shown: DeviceImages, places: list[int], segmenter: Any
    ) -> dict[str, Any]:
        predicted = [maps_BHW.cpu() for _, maps_BHW in predictions(segmenter, shown, torch.tensor(places))]
        return {
            names.IMAGE_ID: np.array(images.index["id"].gather(rows[places]).to_list()),
            "images_SHW": images.images_NCHW[rows[places]].mean(axis=1).round().astype(np.uint8),
            "true_SHW": shown.classes(torch.tensor(places)).cpu().numpy(),
            "predicted_SHW": torch.cat(predicted).numpy(),
            "class_names": np.array(class_names(self._target)),
        }


def _to_show(found: Overlap, num: int) -> list[int]:
    """Images spread evenly over those whose truth has the most classes: the same ones whatever was predicted."""
    num_classes_N = (found.true_BK > 0).sum(dim=1).cpu()
    richest = torch.nonzero(num_classes_N == num_classes_N.max())[:, 0]
    places = torch.linspace(0, len(richest) - 1, min(num, len(richest)) + 2)[1:-1].round().long()
    return sorted({int(place) for place in richest[places]})


def _frame(found: Overlap, index: pl.DataFrame, classes: Sequence[str]) -> pl.DataFrame:
    def flat(values_NK: Tensor) -> NDArray[Any]:
        return values_NK.flatten().cpu().numpy()

    num_images, num_classes = found.both_BK.shape
    of_images = {
        names.IMAGE_ID: np.repeat(index["id"].to_numpy(), num_classes),
        names.GROUP: np.repeat(index["group"].to_numpy(), num_classes),
        names.POSITION: np.repeat(index["position"].to_numpy(), num_classes),
        names.CLASS: list(classes) * num_images,
        names.NUM_BOTH: flat(found.both_BK),
        names.NUM_PREDICTED: flat(found.predicted_BK),
        names.NUM_TRUE: flat(found.true_BK),
        names.NUM_PIXELS: np.full(num_images * num_classes, found.num_pixels),
    }
    scores = {name: flat(getattr(found, name)()) for name in names.CLASS_SCORES}
    return pl.DataFrame({**of_images, **scores}).with_columns(pl.col(names.CLASS_SCORES).fill_nan(None))


def _mean(scores_K: NDArray[np.float64]) -> float:
    return float(np.nanmean(scores_K)) if np.isfinite(scores_K).any() else float("nan")
