"""Segmentation (thesis, chapter 4): a network is trained to tell the class of every pixel.

Shapes: B images of a batch, n of them on this worker, C channels, H x W pixels, K classes, N images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from trainables import runtime
from trainables.api import names
from trainables.api.checks import check_choice
from trainables.api.context import Context
from trainables.api.trainable import Spreads, Trainable, grows, seed
from trainables.augment.augmentation import Augmentation
from trainables.augment.combine import augmented_with_classes
from trainables.data.batches import DeviceImages
from trainables.data.cache import ImageTable, PixelTable, open_annotation, open_images
from trainables.data.splits import labelled
from trainables.metrics.classes import Overlap, mean_over_images
from trainables.models.batch_norm import share_running_statistics, spread_batch
from trainables.models.unet import Segmenter, load_segmenter, save_segmenter
from trainables.schedules import Polynomial, Schedule, horizon
from trainables.segmentation.losses import soft_dice_loss
from trainables.segmentation.networks import Inputs, SegmentationNetwork, UNet
from trainables.segmentation.predicting import overlap_of
from trainables.segmentation.target import Target, annotated_rows, class_names, labelled_rows
from trainables.training import train
from trainables.world import World

_STATE_FILE = "segmentation.pt"
_STATEFUL = ("segmenter", "optimizer")
# Forward and backward, of which the second costs about twice the first.
_FORWARDS_PER_STEP = 3


@dataclass(frozen=True)
class Segmentation(Trainable):
    """Supervised training of a segmenter. The defaults are the thesis's (section 4.1.1) where it states them.

    Stated there: Adam at 0.001, polynomial decay with power 0.9 over 100 epochs, batches of 64, a Dice loss. Ours:
    which Dice loss (``soft_dice_loss``), Adam's other numbers (PyTorch's), no weight decay, no augmentation.

    ``label_fraction`` of the training images, in whole groups (patients), are shown with their masks, and the others
    not at all: those of a smaller fraction are among those of a larger one. Mean and standard deviation, by which a
    network of its own standardises, are those of the whole training split, which need no mask.

    Several workers share each batch; results differ from one worker's by the order of sums alone.
    """

    spreads: ClassVar[Spreads] = "processes"

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

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, ("float32", "bfloat16"))
        for name in ("num_epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate = {self.learning_rate}: a positive number")
        if not 0 < self.label_fraction <= 1:
            raise ValueError(f"label_fraction = {self.label_fraction}: use a fraction in (0, 1]")
        horizon_epochs = horizon(self.num_epochs, self.schedule_epochs, self.schedule)
        object.__setattr__(self, "schedule_epochs", horizon_epochs)

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        return self.learning_rate * self.schedule.factor(epoch, self.schedule_epochs)

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

    @property
    def uses_gpu(self) -> bool:
        return True

    @property
    def most_workers(self) -> int:
        """One image each of the smallest batch."""
        num_labelled = self.num_labelled()
        return max(1, num_labelled // max(1, math.ceil(num_labelled / self.batch_size)))

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
        return forward * (_FORWARDS_PER_STEP * self.num_labelled() + num_val) * self.num_epochs


class SegmentationTraining:
    """The state of one training and what an epoch does to it. The same on every worker after an epoch."""

    def __init__(self, config: Segmentation, images: ImageTable, annotation: PixelTable, context: Context) -> None:
        self.config, self.world, self.device = config, runtime.world(), runtime.device()
        rows = labelled_rows(images, annotation, config.label_fraction, config.label_seed)
        self.ids: list[str] = images.index["id"].gather(rows).to_list()
        self.train_images = DeviceImages(images, rows, self.device, annotation=annotation)
        val_rows = annotated_rows(images, annotation, "val")
        self.val_images = DeviceImages(images, val_rows, self.device, annotation=annotation)
        self._check_workers()
        self.class_names = class_names(config.target)
        mean, std = images.mean_std(images.rows("train"))
        inputs = Inputs(tuple(mean), tuple(std), len(self.class_names))
        # The files of the encoder to begin with may be on the first worker's machine only.
        self.segmenter: Segmenter = self.world.from_first(
            lambda: config.network.build(inputs, context, config.finetune_seed)
        )
        self.segmenter.to(self.device).to(memory_format=torch.channels_last)
        trained = [parameter for parameter in self.segmenter.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=config.learning_rate)

    def begin(self) -> None:
        """The network is built with the weights to start from."""

    def train_epoch(self, epoch: int, context: Context) -> dict[str, float]:
        """One pass over the labelled images in the epoch's own order; returns its metrics."""
        config = self.config
        self.segmenter.train()
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(epoch)
        shuffle = runtime.generator("segmentation order", config.finetune_seed, epoch)
        order_N = torch.randperm(len(self.train_images), generator=shuffle)
        batches = torch.tensor_split(order_N, math.ceil(len(order_N) / config.batch_size))
        losses = []
        for step, positions_B in enumerate(batches, start=1):
            losses.append(self._step(positions_B, epoch) * len(positions_B))
            context.report_progress(epoch + step / len(batches), config.num_epochs, "epochs")
        share_running_statistics(self.segmenter)
        loss = self.world.sum(torch.stack(losses)).sum() / len(order_N)
        return {"train/loss": float(loss), "learning_rate": config.learning_rate_at(epoch)}

    def _step(self, positions_B: Tensor, epoch: int) -> Tensor:
        """One optimizer step; returns what this worker's images add to the loss of the batch."""
        config, num_images = self.config, len(positions_B)
        own_n = positions_B[self.world.part(num_images)]
        images_nCHW, classes_nHW = self.train_images.images(own_n), self.train_images.classes(own_n)
        if config.augmentation is not None:
            draws = runtime.uniforms(
                own_n, config.augmentation.num_draws, "segmentation view", config.finetune_seed, epoch
            )
            images_nCHW, classes_nHW = augmented_with_classes(config.augmentation, images_nCHW, classes_nHW, draws)
        images_nCHW = images_nCHW.contiguous(memory_format=torch.channels_last)
        with spread_batch(num_images), runtime.autocast(self.device, config.precision == "bfloat16"):
            logits_nKHW = self.segmenter(images_nCHW)
        loss = soft_dice_loss(logits_nKHW, classes_nHW).sum() / num_images
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.world.sum_gradients(self.segmenter.parameters())
        self.optimizer.step()
        return loss.detach()

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

    def weights(self) -> dict[str, Tensor]:
        return self.segmenter.state_dict()

    def save(self, folder: Path) -> None:
        """The full state after a whole epoch; order, augmentation and schedule follow from the epoch."""
        runtime.save_state(folder / _STATE_FILE, {name: getattr(self, name).state_dict() for name in _STATEFUL})

    def restore(self, folder: Path) -> None:
        """Continue from what ``save`` wrote."""
        state: Mapping[str, Any] = runtime.load_state(folder / _STATE_FILE)
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(state[name])

    def _check_workers(self) -> None:
        if self.world.size > self.config.most_workers:
            raise ValueError(
                f"batches of {self.config.most_workers} images are less than one for each of {self.world.size} "
                f"workers: take at most {self.config.most_workers} workers"
            )
