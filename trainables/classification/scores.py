"""How well a trained classifier does on one split: a trial of its own, so that a test split is looked at for the chosen
ones only.

Shapes: N images, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from trainables import runtime
from trainables.api import names
from trainables.api.checks import check_choice
from trainables.api.context import Context
from trainables.api.errors import NonFiniteMetric
from trainables.api.trainable import Trainable
from trainables.classification.predicting import labelled_rows, probabilities, rows_of_fraction, truth_of
from trainables.classification.training import Classification, num_in_split
from trainables.data.batches import DeviceImages
from trainables.data.cache import LabelTable, open_annotation, open_images
from trainables.data.records import SPLITS
from trainables.metrics.classification import finding_scores, mean_of_defined, one_class_scores
from trainables.models.trunk import forward_flop

_CLASS_TABLE = "artifacts/classes.csv"


@dataclass(frozen=True)
class ClassificationScores(Trainable):
    """Balanced accuracy, AUC and precision of a trained classifier on the labelled images of a split.

    Each is taken class by class, against all others, and averaged over the classes in which it is defined
    (``metrics.classification`` says when); the others stand without a number in ``artifacts/classes.csv``.

    Writes ``predictions.parquet``: a row an image and class, with its probability and whether the image is of it.
    """

    model: Classification
    split: Literal["train", "val", "test"] = "test"

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)

    def check(self) -> None:
        """Raises ValueError where the split has no labelled image."""
        labels = self.model.labels
        if num_in_split(labels, self.split) == 0:
            raise ValueError(
                f"{labels.name} of {labels.images.name} is known for no image of split {self.split!r}: score another "
                "split, or add labels"
            )

    @property
    def uses_gpu(self) -> bool:
        return True

    def run(self, context: Context) -> Mapping[str, float]:
        """Predict, score and write; returns ``SPLIT/auc``, ``precision`` and ``average_precision`` (of two classes
        those of the second, else means over classes), where an image is of one class ``SPLIT/bma`` and ``accuracy``,
        and ``num_images``, ``num_labelled`` (on which the model was trained), ``num_undefined`` (classes without an
        AUC) and ``num_unseen_classes`` (that images of the split have, and none on which the model was trained).

        Raises:
            BadData: the data cannot be read.
            NonFiniteMetric: a probability is none.
        """
        runtime.use_cores(context.num_cpus)
        labels = self.model.labels
        images, table = open_images(labels.images, context), open_annotation(labels, context)
        rows, device = labelled_rows(images, table, self.split), runtime.device()
        classifier = self.model.load(context).to(device).to(memory_format=torch.channels_last)
        shown, is_one_class = DeviceImages(images, rows, device), isinstance(table, LabelTable)
        found_NK = probabilities(classifier, shown, torch.arange(len(shown)), is_one_class=is_one_class).numpy()
        if not np.isfinite(found_NK).all():
            raise NonFiniteMetric(names.PROBABILITY, math.nan, None)
        truth = truth_of(table, rows)
        scores = one_class_scores(found_NK, truth) if is_one_class else finding_scores(found_NK, truth)
        of_class_NK = _of_class(truth, is_one_class, len(table.class_names))
        _frame(images.index[rows.tolist()], found_NK, of_class_NK, table.class_names).write_parquet(
            context.output_dir / names.PREDICTIONS_FILE
        )
        (context.output_dir / "artifacts").mkdir(exist_ok=True)
        config, counts_K = self.model, of_class_NK.sum(axis=0)
        taught = truth_of(table, rows_of_fraction(images, table, config.label_fraction, config.label_seed))
        taught_K = _of_class(taught, is_one_class, len(table.class_names)).sum(axis=0)
        counts = {"num_images": counts_K, "num_labelled": taught_K}
        by_class = pl.DataFrame({names.CLASS: table.class_names, **counts, **scores})
        by_class.fill_nan(None).write_csv(context.output_dir / _CLASS_TABLE)
        summary = self._summary(scores)
        if is_one_class:
            summary["bma"] = mean_of_defined(scores["sensitivity"])
            summary["accuracy"] = float((found_NK.argmax(axis=1) == truth).mean())
        return {
            **{f"{self.split}/{name}": value for name, value in summary.items() if np.isfinite(value)},
            "num_images": float(len(shown)),
            "num_labelled": float(self.model.num_labelled()),
            "num_undefined": float(np.isnan(scores["auc"]).sum()),
            names.NUM_UNSEEN_CLASSES: float(((counts_K > 0) & (taught_K == 0)).sum()),
        }

    def work_flop(self) -> float:
        images = self.model.labels.images
        num_images = num_in_split(self.model.labels, self.split)
        backbone: Any = getattr(self.model.encoder, "backbone", "resnet50")
        return num_images * forward_flop(backbone, images.image_size_px)

    def _summary(self, scores: Mapping[str, Any]) -> dict[str, float]:
        taken = ("auc", "precision", "average_precision")
        if len(scores["auc"]) == 2:  # the first is what the second is not
            return {name: float(scores[name][1]) for name in taken}
        return {name: mean_of_defined(scores[name]) for name in taken}


def _of_class(truth: NDArray[Any], is_one_class: bool, num_classes: int) -> NDArray[np.bool_]:
    """Whether each image is of each class [N, K]."""
    return np.eye(num_classes, dtype=bool)[truth] if is_one_class else truth > 0


def _frame(index: pl.DataFrame, found_NK: Any, of_class_NK: Any, classes: Sequence[str]) -> pl.DataFrame:
    num_classes = len(classes)
    return pl.DataFrame(
        {
            names.IMAGE_ID: np.repeat(index["id"].to_numpy(), num_classes),
            names.GROUP: np.repeat(index["group"].to_numpy(), num_classes),
            names.CLASS: list(classes) * len(index),
            names.PROBABILITY: found_NK.flatten(),
            names.IS_OF_CLASS: of_class_NK.flatten(),
        }
    )
