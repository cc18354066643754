"""Segmentation (thesis, chapter 4): a network is trained to tell the class of every pixel.

Shapes: B images of a batch, n of them on this worker, C channels, H x W pixels, K classes, N images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from trainables import runtime
from trainables.api import names
from trainables.api.context import Context
from trainables.api.trainable import grows, seed
from trainables.augment.augmentation import Augmentation
from trainables.augment.combine import augmented_with_classes
from trainables.data.batches import DeviceImages
from trainables.data.cache import ImageTable, PixelTable, open_annotation, open_images
from trainables.data.splits import labelled
from trainables.metrics.classes import Overlap, mean_over_images
from trainables.models.unet import Segmenter, load_segmenter, save_segmenter
from trainables.schedules import Polynomial, Schedule
from trainables.segmentation.losses import soft_dice_loss
from trainables.segmentation.networks import Inputs, SegmentationNetwork, UNet
from trainables.segmentation.predicting import overlap_of
from trainables.segmentation.target import Target, annotated_rows, class_names, labelled_rows
from trainables.supervised import FORWARDS_PER_STEP, Supervised, SupervisedRun
from trainables.training import train
from trainables.world import World


@dataclass(frozen=True)
class Segmentation(Supervised):
    """Supervised training of a segmenter. The defaults are the thesis's (section 4.1.1) where it states them.

    Stated there: Adam at 0.001, polynomial decay with power 0.9 over 100 epochs, batches of 64, a Dice loss. Ours:
    which Dice loss (``soft_dice_loss``), Adam's other numbers (PyTorch's), no weight decay, no augmentation.
    """

    target: Target
    network: SegmentationNetwork = field(default_factory=UNet)
    label_fraction: float = 1.0
    label_seed: int = seed()
    """Which images are in the fraction."""
    augmentation: Augmentation | None = None
    """Of image and mask together, drawn anew each epoch."""
    num_epochs: int = grows(100)
    batch_size: int = 64
    """Images of one step at most, over all workers; an epoch's images are shared out evenly over its steps."""
    learning_rate: float = 0.001
    schedule: Schedule = field(default_factory=Polynomial)
    """Of the learning rate, a new value each epoch."""
    schedule_epochs: int | None = None
    """Where the schedule ends. None takes ``num_epochs``, and is that number from construction on."""
    precision: Literal["float32", "bfloat16"] = "float32"
    finetune_seed: int = seed()

    def check(self) -> None:
        """Raises ValueError where no training image has a mask, or one alone and nothing to normalise it with."""
        num_labelled, name = self.num_labelled(), f"{self.target.name} of {self.target.images.name}"
        if num_labelled == 0:
            raise ValueError(f"{name} is known for no training image: a segmentation needs masks in the training split")
        if self.most_workers == 1 and self.target.images.image_size_px <= self.network.coarsest_stride:
            raise ValueError(
                f"label_fraction = {self.label_fraction:g} leaves batches of 1 of the {num_labelled} training image(s) "
                f"with {name}, which the network sees as one pixel at {self.network.coarsest_stride}: batch "
                "normalisation needs two values; use a larger share of the masks, larger batches or larger images"
            )

    def num_labelled(self) -> int:
        """How many images it is trained on."""
        groups = [record.group for record in self.target.records() if record.split == "train"]
        return int(labelled(groups, self.label_fraction, self.label_seed).sum()) if groups else 0

    def run(self, context: Context) -> Mapping[str, float]:
        """Train; publishes ``segmenter.pt``, and ``artifacts/labelled.json`` with the ids of the images.

        Logs after each epoch, with step = epochs done: ``train/loss``, ``learning_rate``, and where validation images
        have masks ``val/dice`` (the mean over classes of the mean over images, the background included, thesis 4.2;
        ``Overlap.dice`` says what an absent class counts) and ``val/foreground_dice`` (without the background).

        Raises:
            BadData: the data cannot be read.
            ValueError: an encoder of other channels; more workers than images in a batch.
            NonFiniteMetric: the training diverged.
        """
        images, annotation = open_images(self.target.images, context), open_annotation(self.target, context)
        training = SegmentationTraining(self, images, annotation, context)
        metrics = train(training, self.num_epochs, context)
        save_segmenter(training.segmenter, context.output_dir / names.SEGMENTER_FILE)
        shown = {"num_images": len(training.train_images), "num_epochs": self.num_epochs, "ids": training.ids}
        (context.output_dir / names.LABELLED_FILE).parent.mkdir(exist_ok=True)
        (context.output_dir / names.LABELLED_FILE).write_text(json.dumps(shown, indent=1) + "\n")
        return metrics

    def load(self, context: Context) -> Segmenter:
        """The trained segmenter: in evaluation mode, on the CPU, taking no gradient."""
        return load_segmenter(context.result_dir(self) / names.SEGMENTER_FILE)

    def work_flop(self) -> float:
        """Forward and backward of the labelled images, forward of the validation images."""
        num_val = sum(record.split == "val" for record in self.target.records())
        images = self.target.images
        forward = self.network.forward_flop(images.num_channels, images.image_size_px)
        return forward * (FORWARDS_PER_STEP * self.num_labelled() + num_val) * self.num_epochs


class SegmentationTraining(SupervisedRun[Segmentation]):
    """A segmenter, and the loss of its predictions."""

    draws: ClassVar[str] = "segmentation"
    network_name: ClassVar[str] = "segmenter"
    state_file: ClassVar[str] = "segmentation.pt"

    def __init__(self, config: Segmentation, images: ImageTable, annotation: PixelTable, context: Context) -> None:
        rows, device = labelled_rows(images, annotation, config.label_fraction, config.label_seed), runtime.device()
        super().__init__(config, DeviceImages(images, rows, device, annotation=annotation))
        self.ids: list[str] = images.index["id"].gather(rows).to_list()
        val_rows = annotated_rows(images, annotation, "val")
        self.val_images = DeviceImages(images, val_rows, device, annotation=annotation)
        self.class_names = class_names(config.target)
        mean, std = images.mean_std(images.rows("train"))
        inputs = Inputs(tuple(mean), tuple(std), len(self.class_names))
        # The files of the encoder to begin with may be on the first worker's machine only.
        self.segmenter: Segmenter = self.world.from_first(
            lambda: config.network.build(inputs, context, config.finetune_seed)
        )
        self.optimizer = torch.optim.Adam(self.placed(self.segmenter), lr=config.learning_rate)

    def batch(self, positions_n: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Images, and the classes of their pixels [n, H, W], augmented together."""
        images_nCHW, classes_nHW = self.train_images.images(positions_n), self.train_images.classes(positions_n)
        if self.config.augmentation is None:
            return images_nCHW, classes_nHW
        return augmented_with_classes(
            self.config.augmentation, images_nCHW, classes_nHW, self.drawn(positions_n, epoch)
        )

    def losses(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Soft Dice."""
        return soft_dice_loss(outputs, truth)

    def validate(self) -> dict[str, float]:
        """Dice on the validation images, in the precision of the training."""
        num_images = len(self.val_images)
        if not num_images:
            return {}
        # Some would have none; then all do everything.
        world = self.world if self.world.size <= num_images else World()
        own = torch.arange(num_images)[world.part(num_images)]
        found = overlap_of(self.segmenter, self.val_images, own, self.config.precision)
        counts_NK3 = world.gather(torch.stack([found.both_BK, found.predicted_BK, found.true_BK], dim=2), num_images)
        both_NK, predicted_NK, true_NK = counts_NK3.unbind(dim=2)
        dice_K = mean_over_images(Overlap(both_NK, predicted_NK, true_NK, found.num_pixels).dice())
        metrics = {"val/dice": dice_K.nanmean(), f"val/{names.FOREGROUND_DICE}": dice_K[1:].nanmean()}
        return {name: float(value) for name, value in metrics.items() if not value.isnan()}
