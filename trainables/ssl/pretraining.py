"""What every self-supervised pretraining of an encoder shares: its sizes, its optimizer, and the course of an epoch.

A method is a subclass of ``Pretraining``, its configuration, and one of ``PretrainingRun``, which says what a step is.

Shapes: B images of a batch, n of them on this worker, C channels, H x W pixels, D embedding dimensions, S steps of an
epoch, N images.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
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
from trainables.data.records import Dataset, split_counts
from trainables.models.batch_norm import share_running_statistics
from trainables.models.encoder import Encoder, EncoderConfig, build_encoder, load_encoder, save_encoder
from trainables.models.released import ReleasedWeights, load_released
from trainables.models.trunk import forward_flop
from trainables.schedules import Constant, Schedule, horizon
from trainables.ssl import losses
from trainables.ssl.views import DrawnViews, augmented, retrieval_accuracy
from trainables.training import train


@dataclass(frozen=True)
class Pretraining(Trainable):
    """Base of the methods. The fields and what they mean are the same in all; a method has defaults of its own.

    Several workers share each batch. What an image meets in it (groups of batch normalisation, negatives, other
    positives) is that of the whole batch, so results differ from one worker's by the order of sums alone.
    """

    spreads: ClassVar[Spreads] = "processes"
    exporter: ClassVar[str] = "trainables.models.export:export_result"
    forwards_per_image: ClassVar[float]
    """What an image costs in an epoch, in forward passes of the trunk."""

    data: Dataset
    augmentation: Augmentation = THESIS_AUGMENTATION
    backbone: Backbone = "resnet50"
    head: Head = "v2"
    init: ReleasedWeights | None = None
    """Weights to go on from, head included; a random start where None."""
    num_epochs: int = grows(100)
    batch_size: int = 4
    """Images of one step, over all workers. The images left over at the end of an epoch's order are dropped;
    every epoch has another order."""
    embedding_dim: int = 128
    learning_rate: float = 0.03
    schedule: Schedule = Constant()
    """Of the learning rate, a new value each epoch."""
    schedule_epochs: int | None = None
    """Where the schedule ends. None takes ``num_epochs``, and is that number from construction on, so that
    ``replace(num_epochs=...)`` keeps the schedule; it stays None for a schedule without end."""
    sgd_momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_norm_groups: int = 1
    """Parts of a batch that are normalised by themselves."""
    precision: Literal["float32", "bfloat16"] = "float32"
    pretrain_seed: int = seed()

    def __post_init__(self) -> None:
        check_choice("head", self.head, get_args(Head))
        EncoderConfig(self.backbone, self.head, self.data.num_channels, self.embedding_dim)
        check_choice("precision", self.precision, ("float32", "bfloat16"))
        for name in ("num_epochs", "batch_size", "batch_norm_groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: at least 1")
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise ValueError(
                f"learning_rate = {self.learning_rate} must be positive, weight_decay = {self.weight_decay} at least 0"
            )
        check_momentum("sgd_momentum", self.sgd_momentum)
        horizon_epochs = horizon(self.num_epochs, self.schedule_epochs, *self.schedules())
        object.__setattr__(self, "schedule_epochs", horizon_epochs)
        if self.batch_size % self.batch_norm_groups or self.batch_size // self.batch_norm_groups < 2:
            raise ValueError(
                f"batch_norm_groups = {self.batch_norm_groups} must divide batch_size = {self.batch_size} into equal "
                "parts of at least 2 images"
            )

    def schedules(self) -> tuple[Schedule, ...]:
        """All that run to ``schedule_epochs``."""
        return (self.schedule,)

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        return self.learning_rate * self.schedule.factor(epoch, self.schedule_epochs)

    def check(self) -> None:
        """Hold the sizes against the number of images. Raises ValueError naming the field and what fits."""
        counts = split_counts(self.data)
        self.check_counts(counts["train"], counts["val"])

    def check_counts(self, num_train: int, num_val: int) -> None:
        """``check`` for so many images of the two splits."""
        if self.batch_size > num_train:
            raise ValueError(
                f"batch_size = {self.batch_size} is larger than the training split of {num_train} images of "
                f"{self.data.name}: no step could be made; take at most {num_train}"
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

    @abstractmethod
    def begun(self, table: ImageTable, context: Context) -> PretrainingRun[Any]:
        """The training with its networks, before its first step."""

    def run(self, context: Context) -> Mapping[str, float]:
        """Train; publishes ``encoder.pt`` (trunk and head) and ``artifacts/provenance.json`` (how it started; of
        released weights every key).

        Logs after each epoch, with step = epochs done: ``train/loss``, ``train/embedding_std`` (compare
        1 / sqrt(embedding_dim)), ``train/effective_rank``, ``learning_rate``, what the method adds to them, and where
        there are validation images ``val/retrieval_accuracy`` (chance 1 / their number).

        Raises:
            ValueError: a batch larger than the training split; weights that do not fit; more workers than images in a
                batch.
            NonFiniteMetric: the training diverged.
        """
        training = self.begun(open_images(self.data, context), context)
        metrics = train(training, self.num_epochs, context)
        training.publish(context.output_dir)
        return metrics

    def load(self, context: Context) -> Encoder:
        """The trained encoder: in evaluation mode, on the CPU, frozen."""
        return load_encoder(context.result_dir(self) / ENCODER_FILE)

    def work_flop(self) -> float:
        num_images = split_counts(self.data)["train"]
        of_image = self.forwards_per_image * forward_flop(self.backbone, self.data.image_size_px)
        return of_image * num_images * self.num_epochs


Config = TypeVar("Config", bound=Pretraining)


@dataclass(frozen=True)
class Step:
    """What this worker's part of a batch gave, detached."""

    shares_by_name: Mapping[str, Tensor]
    """Metrics by their name without split; over the workers they add up to the batch's."""
    embeddings_nD: Tensor
    """Of unit length."""


class PretrainingRun(ABC, Generic[Config]):
    """The state of one pretraining and what an epoch does to it. The same on every worker after an epoch.

    Subclasses build what the method has beside the encoder that is trained, and name in ``stateful`` what a checkpoint
    has to hold.
    """

    stateful: ClassVar[tuple[str, ...]]
    """Attributes with a state dict, the optimizer among them."""
    state_file: ClassVar[str]
    """Of a checkpoint and of the state that a longer training goes on from."""
    optimizer: torch.optim.Optimizer

    def __init__(self, config: Config, table: ImageTable) -> None:
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
        self.provenance: dict[str, Any] = {}
        """How the training began. A checkpoint carries it, as the weights may not be at hand where it goes on."""

    @property
    @abstractmethod
    def encoder(self) -> Encoder:
        """The one that is trained by gradients, and published."""

    @abstractmethod
    def trained(self) -> nn.Module:
        """All whose parameters the optimizer moves: the encoder, with what stands on it in the training."""

    @abstractmethod
    def momentum_encoder(self) -> Encoder:
        """The slow copy of the encoder."""

    @abstractmethod
    def begin_from(self) -> None:
        """What the method does once both encoders have the weights to start from: fill a queue."""

    @abstractmethod
    def step(self, positions_B: Tensor, epoch: int, step: int) -> Step:
        """One optimizer step on a batch."""

    def new_encoder(self, table: ImageTable) -> Encoder:
        """An encoder with the weights of the seed, on the device."""
        config = self.config
        encoder = build_encoder(
            config.backbone,
            config.head,
            config.data.num_channels,
            config.embedding_dim,
            *table.mean_std(table.rows("train")),
            seed=config.pretrain_seed,
            batch_norm_groups=config.batch_norm_groups,
        )
        return encoder.to(self.device).to(memory_format=torch.channels_last)

    def begin(self) -> None:
        """Take the weights to start from, on all workers those that the first has.

        It alone reads and draws them: a file may be on its machine only, and draws may differ in their last bit between
        kinds of CPU.
        """
        self.provenance = self.world.from_first(lambda: _start(self.config, self.encoder, len(self.train_images)))
        self.world.share_state(self.trained())
        self.momentum_encoder().load_state_dict(self.encoder.state_dict())
        self.begin_from()

    def train_epoch(self, epoch: int, context: Context) -> dict[str, float]:
        """One pass over the training split in the epoch's own order; returns its metrics."""
        config = self.config
        self.trained().train()
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(epoch)
        order_N = torch.randperm(
            len(self.train_images), generator=runtime.generator("order", config.pretrain_seed, epoch)
        )
        num_steps = len(order_N) // config.batch_size
        steps = []
        for step in range(num_steps):
            positions_B = order_N[step * config.batch_size : (step + 1) * config.batch_size]
            steps.append(self.step(positions_B, epoch, step))
            context.report_progress(epoch + (step + 1) / num_steps, config.num_epochs, "epochs")
        share_running_statistics(self.trained())
        share_running_statistics(self.momentum_encoder())
        embeddings_ND = self._embeddings(steps)
        self.seen(order_N[: len(embeddings_ND)], embeddings_ND)
        return self._metrics(steps, embeddings_ND, epoch)

    def _embeddings(self, steps: list[Step]) -> Tensor:
        """Of all images of the epoch, in its order [N, D], on every worker."""
        embeddings_nSD = torch.stack([step.embeddings_nD for step in steps], dim=1)
        embeddings_BSD = self.world.gather(embeddings_nSD, self.config.batch_size)
        return embeddings_BSD.transpose(0, 1).flatten(0, 1)

    def seen(self, positions_N: Tensor, embeddings_ND: Tensor) -> None:
        """What a method does with the embeddings of an epoch's images."""

    def _metrics(self, steps: list[Step], embeddings_ND: Tensor, epoch: int) -> dict[str, float]:
        names = list(steps[0].shares_by_name)
        shares_MS = torch.stack([torch.stack([step.shares_by_name[name] for step in steps]) for name in names])
        sums_MS = self.world.sum(shares_MS)
        return {
            **{f"train/{name}": float(sums_S.mean()) for name, sums_S in zip(names, sums_MS, strict=True)},
            "train/embedding_std": float(losses.embedding_std(embeddings_ND)),
            "train/effective_rank": _effective_rank(embeddings_ND),
            "learning_rate": self.config.learning_rate_at(epoch),
        }

    def validate(self) -> dict[str, float]:
        """Retrieval of the validation images, the encoder in evaluation mode, as it will be used."""
        if not len(self.val_images):
            return {}
        self.encoder.eval()
        config = self.config
        accuracy = retrieval_accuracy(self.unit_embeddings, self.val_images, config.augmentation, config.pretrain_seed)
        return {"val/retrieval_accuracy": accuracy}

    def optimizer_of(self, network: nn.Module) -> torch.optim.SGD:
        """SGD over the parameters of a network."""
        config = self.config
        return torch.optim.SGD(
            network.parameters(),
            lr=config.learning_rate,
            momentum=config.sgd_momentum,
            weight_decay=config.weight_decay,
        )

    def descend(self, loss: Tensor) -> None:
        """One step of the optimizer down a loss that over the workers adds up to the batch's."""
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.world.sum_gradients(self.trained().parameters())
        self.optimizer.step()

    def augmented(self, images_BCHW: Tensor, indices_B: Tensor, view: str, epoch: int) -> Tensor:
        """A view of each image of the training split."""
        return augmented(self.config.augmentation, images_BCHW, indices_B, view, self.config.pretrain_seed, epoch)

    def views(self, indices_B: Tensor, view: str, epoch: int) -> DrawnViews:
        """The same, made when they are asked for."""
        config = self.config
        return DrawnViews(config.augmentation, self.train_images, indices_B, view, config.pretrain_seed, epoch)

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of the training."""
        return runtime.autocast(self.device, self.config.precision == "bfloat16")

    def unit_embeddings(self, images_BCHW: Tensor) -> Tensor:
        """Of the encoder, float32."""
        return self.embedded(self.encoder, images_BCHW)

    def embedded(self, encoder: Encoder, images_BCHW: Tensor) -> Tensor:
        """Unit-length embeddings [B, D] in the precision of the training, given as float32 at least."""
        with self.autocast():
            embeddings_BD = encoder(images_BCHW)
        return functional.normalize(runtime.full_precision(embeddings_BD), dim=1)

    def publish(self, folder: Path) -> None:
        """The result files."""
        save_encoder(self.encoder, folder / ENCODER_FILE)
        (folder / START_FILE).parent.mkdir(exist_ok=True)
        (folder / START_FILE).write_text(json.dumps(self.provenance, indent=2) + "\n")

    def weights(self) -> dict[str, Tensor]:
        return self.trained().state_dict()

    def save(self, folder: Path) -> None:
        """The full state after a whole epoch; orders, augmentations and schedule follow from the epoch."""
        state = {name: getattr(self, name).state_dict() for name in self.stateful}
        runtime.save_state(folder / self.state_file, {**state, "provenance": json.dumps(self.provenance)})

    def restore(self, folder: Path) -> None:
        """Continue from what ``save`` wrote."""
        state = runtime.load_state(folder / self.state_file)
        for name in self.stateful:
            getattr(self, name).load_state_dict(state[name])
        self.provenance = json.loads(state["provenance"])


def check_momentum(name: str, momentum: float) -> None:
    """Raises ValueError outside [0, 1)."""
    if not 0 <= momentum < 1:
        raise ValueError(f"{name} = {momentum}: a momentum lies in [0, 1)")


def _start(config: Pretraining, encoder: Encoder, num_images: int) -> dict[str, Any]:
    """Load the weights to start from, if any, and say where the encoder comes from."""
    provenance = {
        "num_train_images": num_images,
        "num_threads": torch.get_num_threads(),
        "num_workers": runtime.world().size,
    }
    if config.init is None:
        summary = f"random start, pretrain_seed {config.pretrain_seed}: no pretrained weights were used"
        return {"init": "random", "summary": summary, **provenance}
    report = load_released(config.init, encoder)
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
