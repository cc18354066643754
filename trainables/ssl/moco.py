"""Momentum Contrast (He et al. 2020, arXiv:1911.05722; v2: Chen et al. 2020, arXiv:2003.04297).

Shapes: B images of a batch, C channels, H x W pixels, D embedding dimensions, K keys in the queue, N images.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, get_args

import torch
from torch import Tensor
from torch.nn import functional

from trainables import runtime
from trainables.api.checks import check_choice
from trainables.api.context import Context
from trainables.api.names import ENCODER_FILE, START_FILE, Backbone, Head
from trainables.api.trainable import Spreads, Trainable, grows, seed
from trainables.augment.augmentation import Augmentation
from trainables.augment.combine import THESIS_AUGMENTATION
from trainables.data.batches import DeviceImages
from trainables.data.cache import ImageTable, open_images
from trainables.data.records import Dataset
from trainables.models.batch_norm import share_running_statistics, spread_batch
from trainables.models.encoder import Encoder, EncoderConfig, build_encoder, load_encoder, save_encoder
from trainables.models.momentum import momentum_copy, update_momentum_encoder
from trainables.models.queue import KeyQueue
from trainables.models.released import ReleasedWeights, load_released
from trainables.models.trunk import forward_flop
from trainables.schedules import Constant, Schedule, horizon
from trainables.ssl import losses
from trainables.ssl.views import DrawnViews, augmented, retrieval_accuracy
from trainables.training import train

_STATE_FILE = "moco.pt"
_PAPER_TEMPERATURE: dict[str, float] = {"v1": 0.07, "v2": 0.2}
_STATEFUL = ("query", "key", "queue", "optimizer")


@dataclass(frozen=True)
class MoCo(Trainable):
    """Contrastive pretraining of an encoder. The defaults are the thesis's (section 4.1.2) where it states them.

    Stated there: ResNet-50, MLP head, SGD 0.03 with momentum 0.9, 100 epochs, batch 4, one random transformation of
    three. From MoCo: temperature, key momentum, dimension, weight decay. Ours: a queue of 256, the largest
    power of two below the 329 training images; batch normalisation in groups; a constant learning rate, as no
    schedule is stated.

    Several workers share each batch, for queries and for keys. Groups of batch normalisation, the shuffle of the keys
    and the negatives are those of the whole batch, so results differ from one worker's by the order of sums alone.
    """

    spreads: ClassVar[Spreads] = "processes"
    exporter: ClassVar[str] = "trainables.models.export:export_result"

    data: Dataset
    augmentation: Augmentation = THESIS_AUGMENTATION
    augmented_views: Literal["both", "key"] = "both"
    """``both`` as in MoCo; ``key`` shows the query encoder the plain image (thesis, figure 2.3)."""
    backbone: Backbone = "resnet50"
    head: Head = "v2"
    init: ReleasedWeights | None = None
    """Weights to go on from, head included; a random start where None."""
    num_epochs: int = grows(100)
    batch_size: int = 4
    """Images of one step, over all workers. The images left over at the end of an epoch's order are dropped;
    every epoch has another order."""
    queue_size: int = 256
    embedding_dim: int = 128
    temperature: float | None = None
    """None takes the paper's, 0.07 for head v1 and 0.2 for v2, and is that number from construction on."""
    key_momentum: float = 0.999
    learning_rate: float = 0.03
    schedule: Schedule = Constant()
    """Of the learning rate, a new value each epoch; ``Cosine()`` as in MoCo v2."""
    schedule_epochs: int | None = None
    """Where the schedule ends. None takes ``num_epochs``, and is that number from construction on, so that
    ``replace(num_epochs=...)`` keeps the schedule; it stays None for a schedule without end."""
    sgd_momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_norm_groups: int = 2
    """Parts of a batch that are normalised by themselves. The keys are shuffled among them, so that batch
    statistics do not give the positive away; with 1 they may (He et al. 2020, section 3.3)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    pretrain_seed: int = seed()

    def __post_init__(self) -> None:
        check_choice("head", self.head, get_args(Head))
        EncoderConfig(self.backbone, self.head, self.data.num_channels, self.embedding_dim)
        check_choice("augmented_views", self.augmented_views, ("both", "key"))
        check_choice("precision", self.precision, ("float32", "bfloat16"))
        for name in ("num_epochs", "batch_size", "queue_size", "batch_norm_groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: at least 1")
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise ValueError(
                f"learning_rate = {self.learning_rate} must be positive, weight_decay = {self.weight_decay} at least 0"
            )
        for name in ("key_momentum", "sgd_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: a momentum lies in [0, 1)")
        if self.temperature is None:
            object.__setattr__(self, "temperature", _PAPER_TEMPERATURE[self.head])
        if self.contrast_temperature <= 0:
            raise ValueError(f"temperature = {self.temperature}: it must be positive")
        horizon_epochs = horizon(self.num_epochs, self.schedule_epochs, self.schedule)
        object.__setattr__(self, "schedule_epochs", horizon_epochs)
        self._check_sizes()

    def _check_sizes(self) -> None:
        if self.queue_size % self.batch_size:
            raise ValueError(
                f"queue_size = {self.queue_size} is no multiple of batch_size = {self.batch_size}: "
                f"take {max(1, self.queue_size // self.batch_size) * self.batch_size}"
            )
        if self.batch_size % self.batch_norm_groups or self.batch_size // self.batch_norm_groups < 2:
            raise ValueError(
                f"batch_norm_groups = {self.batch_norm_groups} must divide batch_size = {self.batch_size} into equal "
                "parts of at least 2 images"
            )

    @property
    def contrast_temperature(self) -> float:
        """The temperature, which is a number once the training is constructed."""
        assert self.temperature is not None
        return self.temperature

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        return self.learning_rate * self.schedule.factor(epoch, self.schedule_epochs)

    def check(self) -> None:
        """Hold the sizes against the number of images. Raises ValueError naming the field and what fits."""
        counts = Counter(record.split for record in self.data.records())
        self.check_counts(counts["train"], counts["val"])

    def check_counts(self, num_train: int, num_val: int) -> None:
        """``check`` for so many images of the two splits."""
        if self.batch_size > num_train:
            raise ValueError(
                f"batch_size = {self.batch_size} is larger than the training split of {num_train} images of "
                f"{self.data.name}: no step could be made; take at most {num_train}"
            )
        if self.queue_size >= num_train:
            fitting = (num_train - 1) // self.batch_size * self.batch_size
            advice = f"take at most {fitting}" if fitting else f"lower batch_size = {self.batch_size} first"
            raise ValueError(
                f"queue_size = {self.queue_size} is not below the {num_train} training images of {self.data.name}: "
                f"images would meet their own older keys as negatives; {advice}"
            )
        if num_val == 1:
            raise ValueError(
                f"{self.data.name} has 1 validation image, and val/retrieval_accuracy tells an image from others: "
                "choose 0, or at least 2"
            )

    @property
    def uses_gpu(self) -> bool:
        return True

    @property
    def most_workers(self) -> int:
        """One image of a batch each."""
        return self.batch_size

    def run(self, context: Context) -> Mapping[str, float]:
        """Train; publishes ``encoder.pt`` (the query encoder with its head) and ``artifacts/provenance.json``
        (how it started; of released weights every key).

        Logs after each epoch, with step = epochs done: ``train/loss``, ``train/contrast_accuracy`` (chance
        1 / (1 + queue_size)), ``train/embedding_std`` (compare 1 / sqrt(embedding_dim)), ``train/effective_rank``,
        ``learning_rate``, and where there are validation images ``val/retrieval_accuracy`` (chance 1 / their number).

        Raises:
            ValueError: a batch larger than the training split; weights that do not fit; more workers than images in a
                batch.
            NonFiniteMetric: the training diverged.
        """
        training = MoCoTraining(self, open_images(self.data, context))
        metrics = train(training, self.num_epochs, context)
        save_encoder(training.query, context.output_dir / ENCODER_FILE)
        (context.output_dir / START_FILE).parent.mkdir(exist_ok=True)
        (context.output_dir / START_FILE).write_text(json.dumps(training.provenance, indent=2) + "\n")
        return metrics

    def load(self, context: Context) -> Encoder:
        """The trained query encoder: in evaluation mode, on the CPU, frozen."""
        return load_encoder(context.result_dir(self) / ENCODER_FILE)

    def work_flop(self) -> float:
        """Forward and backward of the query encoder (three forward passes' worth), forward of the key encoder."""
        num_images = sum(record.split == "train" for record in self.data.records())
        return 4 * forward_flop(self.backbone, self.data.image_size_px) * num_images * self.num_epochs


class _ManyViews(Protocol):
    """DrawnViews of images that can be asked for by their places: a tensor of all, or ``DrawnViews``."""

    def __len__(self) -> int: ...

    def __getitem__(self, places_B: Tensor, /) -> Tensor: ...


class MoCoTraining:
    """The state of one pretraining and what an epoch does to it. The same on every worker after an epoch."""

    def __init__(self, config: MoCo, table: ImageTable) -> None:
        rows = table.rows("train")
        val_rows = table.rows("val") if "val" in table.index["split"].to_list() else rows[:0]
        config.check_counts(len(rows), len(val_rows))
        self.config = config
        self.world = runtime.world()
        if self.world.size > config.batch_size:
            raise ValueError(
                f"batch_size = {config.batch_size} is less than one image for each of {self.world.size} workers: "
                f"take at most {config.batch_size} workers"
            )
        self.device = runtime.device()
        self.train_images = DeviceImages(table, rows, self.device)
        self.val_images = DeviceImages(table, val_rows, self.device)
        self.query = _query_encoder(config, *table.mean_std(rows)).to(self.device)
        self.query.to(memory_format=torch.channels_last)
        self.key = momentum_copy(self.query)
        self.queue = KeyQueue(config.queue_size, config.embedding_dim).to(self.device)
        self.optimizer = torch.optim.SGD(
            self.query.parameters(),
            lr=config.learning_rate,
            momentum=config.sgd_momentum,
            weight_decay=config.weight_decay,
        )
        self.provenance: dict[str, Any] = {}
        """How the training began. A checkpoint carries it, as the weights may not be at hand where it goes on."""

    def begin(self) -> None:
        """Take the weights to start from into both encoders, and fill the queue with the encoder's own keys.

        The first worker alone reads and draws them: a file may be on its machine only, and draws may differ in their
        last bit between kinds of CPU.
        """
        self.provenance = self.world.from_first(lambda: _start(self.config, self.query, len(self.train_images)))
        self.world.share_state(self.query)
        self.key.load_state_dict(self.query.state_dict())
        self._fill_queue()

    def train_epoch(self, epoch: int, context: Context) -> dict[str, float]:
        """One pass over the training split in the epoch's own order; returns its metrics."""
        config = self.config
        self.query.train()
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(epoch)
        order_N = torch.randperm(
            len(self.train_images), generator=runtime.generator("order", config.pretrain_seed, epoch)
        )
        num_steps = len(order_N) // config.batch_size
        step_losses, accuracies, embeddings = [], [], []
        for step in range(num_steps):
            positions_B = order_N[step * config.batch_size : (step + 1) * config.batch_size]
            loss, accuracy, queries_BD = self._step(positions_B, epoch, step)
            step_losses.append(loss)
            accuracies.append(accuracy)
            embeddings.append(queries_BD)
            context.report_progress(epoch + (step + 1) / num_steps, config.num_epochs, "epochs")
        share_running_statistics(self.query)
        share_running_statistics(self.key)
        losses_S, accuracies_S = self.world.sum(torch.stack([torch.stack(step_losses), torch.stack(accuracies)]))
        queries_BSD = self.world.gather(torch.stack(embeddings, dim=1), config.batch_size)
        queries_ND = queries_BSD.transpose(0, 1).flatten(0, 1)
        return {
            "train/loss": float(losses_S.mean()),
            "train/contrast_accuracy": float(accuracies_S.mean()),
            "train/embedding_std": float(losses.embedding_std(queries_ND)),
            "train/effective_rank": _effective_rank(queries_ND),
            "learning_rate": config.learning_rate_at(epoch),
        }

    def _step(self, positions_B: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """One optimizer step; returns loss, contrast accuracy and unit-length queries, detached.

        Of several workers each returns its queries [n, D], and what these add to the batch's loss and accuracy.
        """
        config, num_images = self.config, len(positions_B)
        own_n = positions_B[self.world.part(num_images)]
        query_images_nCHW = self.train_images.images(own_n)
        if config.augmented_views == "both":
            query_images_nCHW = self._augmented(query_images_nCHW, own_n, "query", epoch)
        update_momentum_encoder(self.key, self.query, config.key_momentum)
        shuffle = runtime.generator("shuffle", config.pretrain_seed, epoch, step)
        keys_BD = self._keys(self._views(positions_B, "key", epoch), shuffle)
        with spread_batch(num_images):
            queries_nD = self._embed(self.query, query_images_nCHW)
        own_keys_nD = keys_BD[self.world.part(num_images)]
        logits_nK = losses.contrast_logits(queries_nD, own_keys_nD, self.queue.keys_KD, config.contrast_temperature)
        share = len(own_n) / num_images
        loss = share * losses.info_nce(logits_nK)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.world.sum_gradients(self.query.parameters())
        self.optimizer.step()
        self.queue.push(keys_BD)
        return loss.detach(), share * losses.contrast_accuracy(logits_nK.detach()), queries_nD.detach()

    def _augmented(self, images_BCHW: Tensor, indices_B: Tensor, view: str, epoch: int) -> Tensor:
        return augmented(self.config.augmentation, images_BCHW, indices_B, view, self.config.pretrain_seed, epoch)

    def _views(self, indices_B: Tensor, view: str, epoch: int) -> DrawnViews:
        config = self.config
        return DrawnViews(config.augmentation, self.train_images, indices_B, view, config.pretrain_seed, epoch)

    @torch.no_grad()
    def _keys(self, views: _ManyViews, generator: torch.Generator) -> Tensor:
        """Unit-length keys [B, D], encoded in a shuffled order so that they meet other groups than the queries.

        The shuffle is that of the whole batch; each worker makes and encodes its part of the shuffled views.
        """
        num_images = len(views)
        shuffled_B = torch.randperm(num_images, generator=generator)
        with spread_batch(num_images):
            own_keys_nD = self._embed(self.key, views[shuffled_B[self.world.part(num_images)]])
        return self.world.gather(own_keys_nD, num_images)[torch.argsort(shuffled_B).to(self.device)]

    def _embed(self, encoder: Encoder, images_BCHW: Tensor) -> Tensor:
        with runtime.autocast(self.device, self.config.precision == "bfloat16"):
            embeddings_BD = encoder(images_BCHW)
        if embeddings_BD.dtype == torch.bfloat16:
            embeddings_BD = embeddings_BD.float()
        return functional.normalize(embeddings_BD, dim=1)

    def _fill_queue(self) -> None:
        """Keys of augmented training images, so that the first negatives are the encoder's own.

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
            self.queue.push(self._keys(self._views(indices_B, "fill", 0), shuffle))
        share_running_statistics(self.key)

    def validate(self) -> dict[str, float]:
        """Retrieval of the validation images, the encoder in evaluation mode, as it will be used."""
        if not len(self.val_images):
            return {}
        self.query.eval()
        embed = partial(self._embed, self.query)
        config = self.config
        accuracy = retrieval_accuracy(embed, self.val_images, config.augmentation, config.pretrain_seed)
        return {"val/retrieval_accuracy": accuracy}

    def weights(self) -> dict[str, Tensor]:
        return self.query.state_dict()

    def save(self, folder: Path) -> None:
        """The full state after a whole epoch; orders, augmentations and schedule follow from the epoch."""
        state = {name: getattr(self, name).state_dict() for name in _STATEFUL}
        runtime.save_state(folder / _STATE_FILE, {**state, "provenance": json.dumps(self.provenance)})

    def restore(self, folder: Path) -> None:
        """Continue from what ``save`` wrote."""
        state = runtime.load_state(folder / _STATE_FILE)
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.provenance = json.loads(state["provenance"])


def _query_encoder(config: MoCo, mean: list[float], std: list[float]) -> Encoder:
    return build_encoder(
        config.backbone,
        config.head,
        config.data.num_channels,
        config.embedding_dim,
        mean,
        std,
        seed=config.pretrain_seed,
        batch_norm_groups=config.batch_norm_groups,
    )


def _start(config: MoCo, query: Encoder, num_images: int) -> dict[str, Any]:
    """Load the weights to start from, if any, and say where the encoder comes from."""
    provenance = {
        "num_train_images": num_images,
        "num_threads": torch.get_num_threads(),
        "num_workers": runtime.world().size,
    }
    if config.init is None:
        summary = f"random start, pretrain_seed {config.pretrain_seed}: no pretrained weights were used"
        return {"init": "random", "summary": summary, **provenance}
    report = load_released(config.init, query)
    return {
        "init": "released",
        "summary": f"continued from {report.summary()}",
        "weights": report.as_dict(),
        **provenance,
    }


def _effective_rank(embeddings_ND: Tensor) -> float:
    """A diverged network has no singular values: NaN then, which is refused as a metric and named."""
    if not bool(torch.isfinite(embeddings_ND).all()):
        return math.nan
    return float(losses.effective_rank(embeddings_ND))
