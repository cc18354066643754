"""Fine-tuning of an encoder for classification, and linear probing (Zeng et al. 2023, section 4.2).

Shapes: B images of a batch, n of them on this worker, C channels, H x W pixels, K classes, N images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainables import runtime
from trainables.api import names
from trainables.api.context import Context
from trainables.api.trainable import grows, seed
from trainables.augment.augmentation import Augmentation
from trainables.augment.combine import BYOL_AUGMENTATION
from trainables.classification.predicting import (
    Table,
    labelled_rows,
    probabilities,
    rows_of_fraction,
    stratum_of,
    truth_of,
)
from trainables.data.annotations import Labels, MultiLabels
from trainables.data.batches import DeviceImages
from trainables.data.cache import ImageTable, LabelTable, open_annotation, open_images
from trainables.data.splits import labelled
from trainables.metrics.classification import finding_scores, mean_of_defined, one_class_scores
from trainables.models.classifier import Classifier, load_classifier, save_classifier
from trainables.models.sources import EncoderSource
from trainables.models.trunk import forward_flop
from trainables.schedules import Cosine, Schedule
from trainables.supervised import FORWARDS_PER_STEP, Supervised, SupervisedRun
from trainables.training import train
from trainables.world import World


@dataclass(frozen=True)
class Classification(Supervised):
    """Training of a linear layer on an encoder's trunk, and of the trunk with it.

    The defaults are those of BYOL-TracIn (section 4.2) where it states them: 100 epochs, the augmentation of the
    pretraining. Ours, as it states no optimizer: SGD with momentum 0.9, rate 0.01 on a cosine, batches of 256.

    The loss is the cross-entropy of the class; of findings the binary one, the mean over them.
    """

    labels: Labels | MultiLabels
    encoder: EncoderSource
    is_frozen: bool = False
    """Train the linear layer alone, on the encoder as it is: a linear probe."""
    label_fraction: float = 1.0
    label_seed: int = seed()
    """Which images are in the fraction."""
    augmentation: Augmentation | None = BYOL_AUGMENTATION
    """Drawn anew each epoch."""
    num_epochs: int = grows(100)
    batch_size: int = 256
    """Images of one step at most, over all workers; an epoch's images are shared out evenly over its steps."""
    learning_rate: float = 0.01
    schedule: Schedule = field(default_factory=Cosine)
    """Of the learning rate, a new value each epoch."""
    schedule_epochs: int | None = None
    """Where the schedule ends. None takes ``num_epochs``, and is that number from construction on."""
    sgd_momentum: float = 0.9
    weight_decay: float = 1e-5
    precision: Literal["float32", "bfloat16"] = "float32"
    finetune_seed: int = seed()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sgd_momentum < 1 or self.weight_decay < 0:
            raise ValueError(
                f"sgd_momentum = {self.sgd_momentum} must lie in [0, 1), weight_decay = {self.weight_decay} be at "
                "least 0"
            )

    def check(self) -> None:
        """Raises ValueError where no training image is labelled."""
        if self.num_labelled() == 0:
            raise ValueError(
                f"{self.labels.name} of {self.labels.images.name} is known for no training image: a classification "
                "needs labels in the training split"
            )
        if self.num_labelled() == 1 and not self.is_frozen:
            raise ValueError(
                f"label_fraction = {self.label_fraction:g} of {self.labels.images.name} is a single image, and batch "
                "normalisation needs two: take a larger share, or a linear probe"
            )

    def num_labelled(self) -> int:
        """How many images it is trained on."""
        return _num_labelled(self.labels, self.label_fraction, self.label_seed)

    def run(self, context: Context) -> Mapping[str, float]:
        """Train; publishes ``classifier.pt``, and ``artifacts/labelled.json`` with the ids of the images.

        Logs after each epoch, with step = epochs done: ``train/loss``, ``learning_rate``, and where validation images
        are labelled ``val/bma`` (balanced accuracy over the classes that occur) or, of findings, ``val/auc`` (the mean
        over those that occur and are lacking).

        Raises:
            BadData: the data cannot be read.
            ValueError: an encoder of other channels; more workers than images in a batch.
            NonFiniteMetric: the training diverged.
        """
        images, table = open_images(self.labels.images, context), open_annotation(self.labels, context)
        training = ClassificationTraining(self, images, table, context)
        metrics = train(training, self.num_epochs, context)
        save_classifier(training.classifier, context.output_dir / names.CLASSIFIER_FILE)
        shown = {"num_images": len(training.train_images), "num_epochs": self.num_epochs, "ids": training.ids}
        (context.output_dir / names.LABELLED_FILE).parent.mkdir(exist_ok=True)
        (context.output_dir / names.LABELLED_FILE).write_text(json.dumps(shown, indent=1) + "\n")
        return metrics

    def load(self, context: Context) -> Classifier:
        """The trained classifier: in evaluation mode, on the CPU, taking no gradient."""
        return load_classifier(context.result_dir(self) / names.CLASSIFIER_FILE)

    def work_flop(self) -> float:
        """Forward and backward of the labelled images, forward of the validation images."""
        num_val = num_in_split(self.labels, "val")
        backbone: Any = getattr(self.encoder, "backbone", "resnet50")  # the dearer one where it is not known
        of_step = 1 if self.is_frozen else FORWARDS_PER_STEP
        forward = forward_flop(backbone, self.labels.images.image_size_px)
        return forward * (of_step * self.num_labelled() + num_val) * self.num_epochs


# A plan asks for these of every fine-tuning, and reading the labels of a data set may take a second.
@lru_cache(maxsize=64)
def num_in_split(labels: Labels | MultiLabels, split: str) -> int:
    """How many images of a split are labelled; as they are when first asked for in this process."""
    return sum(record.split == split for record in labels.records())


@lru_cache(maxsize=1024)
def _num_labelled(labels: Labels | MultiLabels, label_fraction: float, label_seed: int) -> int:
    records = [record for record in labels.records() if record.split == "train"]
    if not records:
        return 0
    known = labels.labels()
    strata = stratum_of(np.stack([known[record.id] for record in records]))
    return int(labelled([record.group for record in records], label_fraction, label_seed, strata).sum())


class ClassificationTraining(SupervisedRun[Classification]):
    """A classifier, and the loss of its predictions."""

    draws: ClassVar[str] = "classification"
    network_name: ClassVar[str] = "classifier"
    state_file: ClassVar[str] = "classification.pt"

    def __init__(self, config: Classification, images: ImageTable, table: Table, context: Context) -> None:
        rows, device = rows_of_fraction(images, table, config.label_fraction, config.label_seed), runtime.device()
        super().__init__(config, DeviceImages(images, rows, device))
        self.ids: list[str] = images.index["id"].gather(rows).to_list()
        self.is_one_class = isinstance(table, LabelTable)
        self._truth = torch.from_numpy(truth_of(table, rows)).to(device)
        val_rows = labelled_rows(images, table, "val")
        self.val_images = DeviceImages(images, val_rows, device)
        self._val_truth = truth_of(table, val_rows)
        num_channels, num_classes = images.images_NCHW.shape[1], len(table.class_names)
        # The files of the encoder to begin with may be on the first worker's machine only.
        self.classifier: Classifier = self.world.from_first(lambda: _built(config, num_channels, num_classes, context))
        self.optimizer = torch.optim.SGD(
            self.placed(self.classifier),
            lr=config.learning_rate,
            momentum=config.sgd_momentum,
            weight_decay=config.weight_decay,
        )

    def batch(self, positions_n: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Images, and their classes [n] or findings [n, K]."""
        images_nCHW = self.train_images.images(positions_n)
        if self.config.augmentation is not None:
            images_nCHW = self.config.augmentation.apply(images_nCHW, self.drawn(positions_n, epoch))
        return images_nCHW, self._truth[positions_n.to(self.device)]

    def losses(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Cross-entropy, of findings the mean of the binary ones."""
        outputs = runtime.full_precision(outputs)
        if self.is_one_class:
            return functional.cross_entropy(outputs, truth, reduction="none")
        truth = truth.to(outputs.dtype)
        return functional.binary_cross_entropy_with_logits(outputs, truth, reduction="none").mean(dim=1)

    def validate(self) -> dict[str, float]:
        """Of the validation images, in the precision of the training."""
        num_images = len(self.val_images)
        if not num_images:
            return {}
        # Some would have none; then all do everything.
        world = self.world if self.world.size <= num_images else World()
        own = torch.arange(num_images)[world.part(num_images)]
        own_nK = probabilities(
            self.classifier, self.val_images, own, is_one_class=self.is_one_class, precision=self.config.precision
        )
        found_NK = world.gather(own_nK, num_images).numpy()
        if not np.isfinite(found_NK).all():  # the last step diverged: the loop names metric and epoch
            return {"val/bma" if self.is_one_class else "val/auc": math.nan}
        if self.is_one_class:
            metrics = {"val/bma": mean_of_defined(one_class_scores(found_NK, self._val_truth)["sensitivity"])}
        else:
            metrics = {"val/auc": mean_of_defined(finding_scores(found_NK, self._val_truth)["auc"])}
        return {name: value for name, value in metrics.items() if value == value}


def _built(config: Classification, num_channels: int, num_classes: int, context: Context) -> Classifier:
    encoder = config.encoder.load(context)
    if encoder.config.in_channels != num_channels:
        raise ValueError(
            f"the encoder takes {encoder.config.in_channels} channels and the images have {num_channels}: use an "
            "encoder that was trained on such images"
        )
    classifier = Classifier(encoder.requires_grad_(True), num_classes, seed=config.finetune_seed)
    if config.is_frozen:
        classifier.freeze_encoder()
    return classifier.train()
