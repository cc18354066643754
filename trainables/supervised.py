"""What trainings with labels share: which images they are shown, their sizes, and the course of an epoch.

A kind is a subclass of ``Supervised``, its configuration, and one of ``SupervisedRun``, which says what an image's loss
is.

Shapes: B images of a batch, n of them on this worker, N images.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from trainables import runtime
from trainables.api.checks import check_choice
from trainables.api.context import Context
from trainables.api.trainable import Spreads, Trainable
from trainables.augment.augmentation import Augmentation
from trainables.data.batches import DeviceImages
from trainables.models.batch_norm import share_running_statistics, spread_batch
from trainables.schedules import Schedule, horizon

FORWARDS_PER_STEP = 3
"""Forward and backward, of which the second costs about twice the first."""


class Supervised(Trainable, ABC):
    """Base of the kinds. Subclasses are frozen dataclasses and declare the fields that stand here.

    ``label_fraction`` of the training images, in whole groups (patients, lesions), are shown with their labels, and the
    others not at all: those of a smaller fraction are among those of a larger one. Mean and standard deviation, by
    which a network of its own standardises, are those of the whole training split, which need no label.

    Several workers share each batch; results differ from one worker's by the order of sums alone.
    """

    spreads: ClassVar[Spreads] = "processes"

    label_fraction: float
    label_seed: int
    """Which images are in the fraction."""
    augmentation: Augmentation | None
    """Drawn anew each epoch."""
    num_epochs: int
    batch_size: int
    """Images of one step at most, over all workers; an epoch's images are shared out evenly over its steps."""
    learning_rate: float
    schedule: Schedule
    """Of the learning rate, a new value each epoch."""
    schedule_epochs: int | None
    """Where the schedule ends. None takes ``num_epochs``, and is that number from construction on."""
    precision: Literal["float32", "bfloat16"]
    finetune_seed: int

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

    @abstractmethod
    def num_labelled(self) -> int:
        """How many images it is trained on."""

    @property
    def uses_gpu(self) -> bool:
        return True

    @property
    def most_workers(self) -> int:
        """One image each of the smallest batch."""
        num_labelled = self.num_labelled()
        return max(1, num_labelled // max(1, math.ceil(num_labelled / self.batch_size)))


Config = TypeVar("Config", bound=Supervised)


class SupervisedRun(ABC, Generic[Config]):
    """The state of one training and what an epoch does to it. The same on every worker after an epoch."""

    draws: ClassVar[str]
    """Word that tells the draws of this kind from another's."""
    network_name: ClassVar[str]
    """Attribute that holds the network."""
    state_file: ClassVar[str]
    optimizer: torch.optim.Optimizer

    def __init__(self, config: Config, train_images: DeviceImages) -> None:
        self.config, self.train_images = config, train_images
        self.world, self.device = runtime.world(), runtime.device()
        if self.world.size > config.most_workers:
            raise ValueError(
                f"batches of {config.most_workers} images are less than one for each of {self.world.size} "
                f"workers: take at most {config.most_workers} workers"
            )

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        network: nn.Module = getattr(self, self.network_name)
        return network

    def placed(self, network: nn.Module) -> list[nn.Parameter]:
        """Bring the network to the device; returns the parameters that are to be trained."""
        network.to(self.device).to(memory_format=torch.channels_last)
        return [parameter for parameter in network.parameters() if parameter.requires_grad]

    @abstractmethod
    def batch(self, positions_n: Tensor, epoch: int) -> tuple[Tensor, Any]:
        """The images [n, C, H, W] as they are shown in an epoch, and what is known of them."""

    @abstractmethod
    def losses(self, outputs: Tensor, truth: Any) -> Tensor:
        """Of each image, from what the network made of it [n]."""

    def begin(self) -> None:
        """The network is built with the weights to start from."""

    def train_epoch(self, epoch: int, context: Context) -> dict[str, float]:
        """One pass over the labelled images in the epoch's own order; returns its metrics."""
        config = self.config
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(epoch)
        shuffle = runtime.generator(f"{self.draws} order", config.finetune_seed, epoch)
        order_N = torch.randperm(len(self.train_images), generator=shuffle)
        batches = torch.tensor_split(order_N, math.ceil(len(order_N) / config.batch_size))
        losses = []
        for step, positions_B in enumerate(batches, start=1):
            losses.append(self._step(positions_B, epoch) * len(positions_B))
            context.report_progress(epoch + step / len(batches), config.num_epochs, "epochs")
        share_running_statistics(self.network)
        loss = self.world.sum(torch.stack(losses)).sum() / len(order_N)
        return {"train/loss": float(loss), "learning_rate": config.learning_rate_at(epoch)}

    def _step(self, positions_B: Tensor, epoch: int) -> Tensor:
        """One optimizer step; returns what this worker's images add to the loss of the batch."""
        config, num_images = self.config, len(positions_B)
        images_nCHW, truth = self.batch(positions_B[self.world.part(num_images)], epoch)
        images_nCHW = images_nCHW.contiguous(memory_format=torch.channels_last)
        with spread_batch(num_images), runtime.autocast(self.device, config.precision == "bfloat16"):
            outputs = self.network(images_nCHW)
        loss = self.losses(outputs, truth).sum() / num_images
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.world.sum_gradients(self.network.parameters())
        self.optimizer.step()
        return loss.detach()

    def drawn(self, positions_n: Tensor, epoch: int) -> Tensor:
        """What the augmentation of images in an epoch takes, by their positions."""
        assert self.config.augmentation is not None
        num_draws, seed = self.config.augmentation.num_draws, self.config.finetune_seed
        return runtime.uniforms(positions_n, num_draws, f"{self.draws} view", seed, epoch)

    def weights(self) -> dict[str, Tensor]:
        return self.network.state_dict()

    def save(self, folder: Path) -> None:
        """The full state after a whole epoch; order, augmentation and schedule follow from the epoch."""
        parts = (self.network_name, "optimizer")
        runtime.save_state(folder / self.state_file, {name: getattr(self, name).state_dict() for name in parts})

    def restore(self, folder: Path) -> None:
        """Continue from what ``save`` wrote."""
        state: Mapping[str, Any] = runtime.load_state(folder / self.state_file)
        for name in (self.network_name, "optimizer"):
            getattr(self, name).load_state_dict(state[name])
