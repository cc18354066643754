"""Momentum Contrast (He et al. 2020, arXiv:1911.05722; v2: Chen et al. 2020, arXiv:2003.04297).

Shapes: B images of a batch, n of them on this worker, C channels, H x W pixels, D embedding dimensions, K keys in the
queue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, get_args

import torch
from torch import Tensor

from trainables import runtime
from trainables.api.checks import check_choice
from trainables.api.context import Context
from trainables.api.names import MoCoHead
from trainables.data.cache import ImageTable
from trainables.models.batch_norm import share_running_statistics, spread_batch
from trainables.models.encoder import Encoder
from trainables.models.momentum import momentum_copy, update_momentum_encoder
from trainables.models.queue import KeyQueue
from trainables.ssl import losses
from trainables.ssl.pretraining import Pretraining, PretrainingRun, Step, check_momentum

_PAPER_TEMPERATURE: dict[str, float] = {"v1": 0.07, "v2": 0.2}


@dataclass(frozen=True)
class MoCo(Pretraining):
    """Contrastive pretraining of an encoder. The defaults are the thesis's (section 4.1.2) where it states them.

    Stated there: ResNet-50, MLP head, SGD 0.03 with momentum 0.9, 100 epochs, batch 4, one random transformation of
    three. From MoCo: temperature, key momentum, dimension, weight decay. Ours: a queue of 256, the largest
    power of two below the 329 training images; batch normalisation in groups; a constant learning rate, as no
    schedule is stated (``Cosine()`` as in MoCo v2).

    Groups of batch normalisation, the shuffle of the keys among them and the negatives are those of the whole batch,
    however many workers share it. Without groups batch statistics may give the positive away (He et al. 2020, section
    3.3).

    Logs besides ``train/contrast_accuracy`` (chance 1 / (1 + queue_size)).
    """

    # Forward and backward of the query encoder (three forward passes' worth), forward of the key encoder.
    forwards_per_image: ClassVar[float] = 4

    batch_norm_groups: int = 2
    augmented_views: Literal["both", "key"] = "both"
    """``both`` as in MoCo; ``key`` shows the query encoder the plain image (thesis, figure 2.3)."""
    queue_size: int = 256
    temperature: float | None = None
    """None takes the paper's, 0.07 for head v1 and 0.2 for v2, and is that number from construction on."""
    key_momentum: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("head", self.head, get_args(MoCoHead))
        check_choice("augmented_views", self.augmented_views, ("both", "key"))
        if self.queue_size < 1:
            raise ValueError(f"queue_size = {self.queue_size}: at least 1")
        check_momentum("key_momentum", self.key_momentum)
        if self.temperature is None:
            object.__setattr__(self, "temperature", _PAPER_TEMPERATURE[self.head])
        if self.contrast_temperature <= 0:
            raise ValueError(f"temperature = {self.temperature}: it must be positive")
        if self.queue_size % self.batch_size:
            raise ValueError(
                f"queue_size = {self.queue_size} is no multiple of batch_size = {self.batch_size}: "
                f"take {max(1, self.queue_size // self.batch_size) * self.batch_size}"
            )

    @property
    def contrast_temperature(self) -> float:
        """The temperature, which is a number once the training is constructed."""
        assert self.temperature is not None
        return self.temperature

    def check_counts(self, num_train: int, num_val: int) -> None:
        """``check`` for so many images of the two splits."""
        super().check_counts(num_train, num_val)
        if self.queue_size >= num_train:
            fitting = (num_train - 1) // self.batch_size * self.batch_size
            advice = f"take at most {fitting}" if fitting else f"lower batch_size = {self.batch_size} first"
            raise ValueError(
                f"queue_size = {self.queue_size} is not below the {num_train} training images of {self.data.name}: "
                f"images would meet their own older keys as negatives; {advice}"
            )

    def begun(self, table: ImageTable, context: Context) -> MoCoTraining:
        """Encoders, queue and optimizer."""
        return MoCoTraining(self, table)


class _ManyViews(Protocol):
    """DrawnViews of images that can be asked for by their places: a tensor of all, or ``DrawnViews``."""

    def __len__(self) -> int: ...

    def __getitem__(self, places_B: Tensor, /) -> Tensor: ...


class MoCoTraining(PretrainingRun[MoCo]):
    """Query and key encoder with the queue, and what a step does to them."""

    stateful: ClassVar[tuple[str, ...]] = ("query", "key", "queue", "optimizer")
    state_file: ClassVar[str] = "moco.pt"

    def __init__(self, config: MoCo, table: ImageTable) -> None:
        super().__init__(config, table)
        self.query = self.new_encoder(table)
        self.key = momentum_copy(self.query)
        self.queue = KeyQueue(config.queue_size, config.embedding_dim).to(self.device)
        self.optimizer = self.optimizer_of(self.query)

    @property
    def encoder(self) -> Encoder:
        """The query encoder."""
        return self.query

    def trained(self) -> Encoder:
        """The query encoder."""
        return self.query

    def momentum_encoder(self) -> Encoder:
        """The key encoder."""
        return self.key

    def begin_from(self) -> None:
        """Fill the queue with keys of augmented training images, so that the first negatives are the encoder's own.

        The reference starts with random directions; a trained encoder would tell those from images at once.
        """
        config, num_images = self.config, len(self.train_images)
        orders = [
            torch.randperm(num_images, generator=runtime.generator("fill order", config.pretrain_seed, turn))
            + turn * num_images
            for turn in range(math.ceil(config.queue_size / num_images))
        ]
        indices_K = torch.cat(orders)[: config.queue_size]
        for step, indices_B in enumerate(torch.split(indices_K, config.batch_size)):
            shuffle = runtime.generator("fill shuffle", config.pretrain_seed, step)
            self.queue.push(self._keys(self.views(indices_B, "fill", 0), shuffle))
        share_running_statistics(self.key)

    def step(self, positions_B: Tensor, epoch: int, step: int) -> Step:
        """One optimizer step; its embeddings are this worker's queries."""
        config, num_images = self.config, len(positions_B)
        own_n = positions_B[self.world.part(num_images)]
        query_images_nCHW = self.train_images.images(own_n)
        if config.augmented_views == "both":
            query_images_nCHW = self.augmented(query_images_nCHW, own_n, "query", epoch)
        update_momentum_encoder(self.key, self.query, config.key_momentum)
        shuffle = runtime.generator("shuffle", config.pretrain_seed, epoch, step)
        keys_BD = self._keys(self.views(positions_B, "key", epoch), shuffle)
        with spread_batch(num_images):
            queries_nD = self.embedded(self.query, query_images_nCHW)
        own_keys_nD = keys_BD[self.world.part(num_images)]
        logits_nK = losses.contrast_logits(queries_nD, own_keys_nD, self.queue.keys_KD, config.contrast_temperature)
        share = len(own_n) / num_images
        loss = share * losses.info_nce(logits_nK)
        self.descend(loss)
        self.queue.push(keys_BD)
        accuracy = share * losses.contrast_accuracy(logits_nK.detach())
        return Step({"loss": loss.detach(), "contrast_accuracy": accuracy}, queries_nD.detach())

    @torch.no_grad()
    def _keys(self, views: _ManyViews, generator: torch.Generator) -> Tensor:
        """Unit-length keys [B, D], encoded in a shuffled order so that they meet other groups than the queries.

        The shuffle is that of the whole batch; each worker makes and encodes its part of the shuffled views.
        """
        num_images = len(views)
        shuffled_B = torch.randperm(num_images, generator=generator)
        with spread_batch(num_images):
            own_keys_nD = self.embedded(self.key, views[shuffled_B[self.world.part(num_images)]])
        return self.world.gather(own_keys_nD, num_images)[torch.argsort(shuffled_B).to(self.device)]
