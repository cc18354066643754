"""Bootstrap Your Own Latent (Grill et al. 2020, arXiv:2006.07733), with additional positives (Zeng et al. 2023).

Shapes: V = 2 views, B images of a batch, n of them on this worker, C channels, H x W pixels, D embedding dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainables import runtime
from trainables.api.context import Context
from trainables.api.names import NETWORKS_FILE, Backbone, Head
from trainables.api.trainable import Part, grows
from trainables.augment.augmentation import Augmentation
from trainables.augment.combine import BYOL_AUGMENTATION
from trainables.data.annotations import Labels, MultiLabels
from trainables.data.cache import ImageTable
from trainables.models.batch_norm import spread_batch
from trainables.models.encoder import Encoder
from trainables.models.momentum import update_momentum_encoder
from trainables.models.sources import Untrained
from trainables.schedules import Cosine, Hold, Schedule
from trainables.ssl.byol_networks import BYOLNetworks, build_predictor, load_networks, save_networks
from trainables.ssl.losses import regression_loss
from trainables.ssl.neighbours import NeighbourProbe
from trainables.ssl.positives import FeatureTransformation, Positives, Selection
from trainables.ssl.pretraining import Pretraining, PretrainingRun, Step, check_momentum
from trainables.ssl.selection import Passes, StepViews, Surroundings, gathered, selection_metrics

_VIEWS = ("first", "second")


@dataclass(frozen=True)
class BYOL(Pretraining):
    """Pretraining of an encoder that predicts, from one view of an image, what its slow copy makes of the other.

    The defaults are those of BYOL-TracIn (Zeng et al. 2023, section 4.1) where it states them: ResNet-18, projector and
    predictor as BYOL's, 256 dimensions, SGD 0.1 with momentum 0.9 and weight decay 1e-5, the rate held for 10 epochs
    and then on a cosine, 300 epochs of batches of 256, target momentum from 0.99 to 1 on a cosine. Which way the views
    are augmented is stated but for its numbers (``BYOL_AUGMENTATION``).

    The loss is the mean over images of 2 - 2 cos, summed over both directions (Grill et al. 2020, section 3.1). The
    target network keeps batch statistics of its own and moves after each step.

    Additional positives of an image are other images of its batch; the term of each is BYOL's own with the other
    image's targets. Their choice sees the batch of all workers.

    Logs besides, where positives are chosen, ``train/selected``, ``train/largest_hub`` and, where labels are given,
    ``train/selection_precision``, of images with a label (``selection.selection_metrics``); with labels also
    ``val/knn_bma``, of findings ``val/knn_auc`` (``neighbours``).
    """

    # Forward and backward of the online network for both views, forward of the target network.
    forwards_per_image: ClassVar[float] = 8

    augmentation: Augmentation = BYOL_AUGMENTATION
    backbone: Backbone = "resnet18"
    head: Head = "byol"
    num_epochs: int = grows(300)
    batch_size: int = 256
    embedding_dim: int = 256
    learning_rate: float = 0.1
    schedule: Schedule = field(default_factory=lambda: Hold(10))
    weight_decay: float = 1e-5
    target_momentum: float = 0.99
    """Of the first step; it rises to 1 at ``schedule_epochs`` on a cosine (Grill et al. 2020, section 3.3)."""
    positives: Positives | None = None
    """Beside the other view; None is plain BYOL."""
    labels: Labels | MultiLabels | None = None
    """To tell, epoch by epoch, how often positives are chosen rightly and what the nearest training images say of
    validation images. They change no weight, and yet the identity: what is logged with them is another result."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_momentum("target_momentum", self.target_momentum)
        if self.head != "byol":
            raise ValueError(f"head = {self.head!r}: BYOL trains with its projector, 'byol'")

    def schedules(self) -> tuple[Schedule, ...]:
        """The target's momentum is on a cosine whatever the learning rate is on."""
        return self.schedule, Cosine()

    def target_momentum_at(self, epoch: float) -> float:
        """Of a step, counted in epochs from 0 with its fraction."""
        assert self.schedule_epochs is not None
        return 1 - (1 - self.target_momentum) * (math.cos(math.pi * epoch / self.schedule_epochs) + 1) / 2

    def begun(self, table: ImageTable, context: Context) -> BYOLTraining:
        """Networks, optimizer, and what chooses positives."""
        return BYOLTraining(self, table, context)

    def load_networks(self, context: Context) -> BYOLNetworks:
        """The trained networks, predictor and target included: in evaluation mode, on the CPU, frozen."""
        return load_networks(context.result_dir(self) / NETWORKS_FILE)


@dataclass(frozen=True)
class UntrainedBYOL(Part):
    """The networks of a BYOL before any training, as the control of what a trained one chooses: an encoder calibrated
    as ``models.sources.Untrained``, a predictor drawn beside it, and a target network equal to the encoder."""

    of: Untrained

    def load_networks(self, context: Context) -> BYOLNetworks:
        """In evaluation mode, on the CPU, frozen."""
        predictor = build_predictor(self.of.embedding_dim, 1, runtime.seed_of("untrained predictor", self.of.init_seed))
        return BYOLNetworks(self.of.load(context), predictor).eval().requires_grad_(False)


class BYOLTraining(PretrainingRun[BYOL]):
    """The three networks, and what a step does to them."""

    stateful: ClassVar[tuple[str, ...]] = ("networks", "optimizer")
    state_file: ClassVar[str] = "byol.pt"

    def __init__(self, config: BYOL, table: ImageTable, context: Context) -> None:
        super().__init__(config, table)
        predictor = build_predictor(config.embedding_dim, config.batch_norm_groups, config.pretrain_seed)
        self.networks = BYOLNetworks(self.new_encoder(table), predictor.to(self.device))
        self._trained = nn.ModuleDict({"online": self.networks.online, "predictor": self.networks.predictor})
        self.optimizer = self.optimizer_of(self._trained)
        around = Surroundings(
            images=self.train_images,
            ids=table.index["id"].gather(table.rows("train")).to_list(),
            networks=self.networks,
            device=self.device,
            world=self.world,
            precision=config.precision,
            pretrain_seed=config.pretrain_seed,
            context=context,
        )
        self._choose = config.positives.selector(around) if isinstance(config.positives, Selection) else None
        self._is_same = around.same_label(config.labels) if config.labels is not None else None
        self._probe = NeighbourProbe(config.labels, table, self.device, context) if config.labels is not None else None

    @property
    def encoder(self) -> Encoder:
        """The online encoder."""
        return self.networks.online

    def trained(self) -> nn.Module:
        """The online encoder and the predictor."""
        return self._trained

    def momentum_encoder(self) -> Encoder:
        """The target encoder."""
        return self.networks.target

    def begin_from(self) -> None:
        """Nothing else begins."""

    def seen(self, positions_N: Tensor, embeddings_ND: Tensor) -> None:
        """They are what validation images are compared with."""
        if self._probe is not None:
            self._probe.remember(positions_N, embeddings_ND)

    def validate(self) -> dict[str, float]:
        """Retrieval, and where labels are given what the nearest training images say of them."""
        found = super().validate()
        return found if self._probe is None else found | self._probe.scores(self.unit_embeddings)

    def step(self, positions_B: Tensor, epoch: int, step: int) -> Step:
        """One optimizer step; its embeddings are the projections of the first views."""
        config, num_images = self.config, len(positions_B)
        own = self.world.part(num_images)
        images_nCHW = self.train_images.images(positions_B[own])
        first_nCHW, second_nCHW = (self.augmented(images_nCHW, positions_B[own], view, epoch) for view in _VIEWS)
        passes, projections_nD = self._passes((first_nCHW, second_nCHW), num_images)
        views = StepViews(positions_B, own, (first_nCHW, second_nCHW), _detached(passes), epoch, step)
        weights_nB = self._weights(views)
        loss = self._loss(passes, views, weights_nB)
        self.descend(loss)
        num_steps = len(self.train_images) // config.batch_size
        momentum = config.target_momentum_at(epoch + step / num_steps)
        update_momentum_encoder(self.networks.target, self.networks.online, momentum)
        metrics = {"loss": loss.detach()}
        if self._choose is not None:
            same_nB = self._is_same(views.positions_n, positions_B) if self._is_same is not None else None
            metrics |= selection_metrics(weights_nB, same_nB, own, num_images, self.world)
        return Step(metrics, nn.functional.normalize(runtime.full_precision(projections_nD.detach()), dim=1))

    def _passes(self, images_nCHW: tuple[Tensor, Tensor], num_images: int) -> tuple[Passes, Tensor]:
        """Both views through the online network, with gradient, and through the target network; and the projections of
        the first."""
        networks = self.networks
        with spread_batch(num_images), self.autocast():
            features = [networks.online.features(view_nCHW) for view_nCHW in images_nCHW]
            projections = [networks.online.head(features_nF) for features_nF in features]
            predicted = [networks.predictor(projections_nD) for projections_nD in projections]
            with torch.no_grad():
                targets = [networks.target(view_nCHW) for view_nCHW in images_nCHW]
        predictions, hidden = zip(*predicted, strict=True)
        found = Passes(torch.stack(features), torch.stack(predictions), torch.stack(hidden), torch.stack(targets))
        return found, projections[0]

    def _weights(self, views: StepViews) -> Tensor:
        """Of the batch's images as positives of this worker's [n, B]; all 0 before positives are used."""
        positives, num_images = self.config.positives, len(views.positions_B)
        if self._choose is None or positives is None or views.epoch < positives.start_epoch:
            return torch.zeros(views.own.stop - views.own.start, num_images, device=self.device)
        with torch.no_grad():
            return self._choose(views)

    def _loss(self, passes: Passes, views: StepViews, weights_nB: Tensor) -> Tensor:
        """What this worker's images add to the loss of the batch."""
        positives, num_images = self.config.positives, len(views.positions_B)
        predictions_VnD, targets_VnD = (
            runtime.full_precision(passes.predictions_VnD),
            runtime.full_precision(passes.targets_VnD),
        )
        pairs = list(zip(predictions_VnD, targets_VnD.flip(0), strict=True))
        is_used = positives is not None and views.epoch >= positives.start_epoch
        if is_used and isinstance(positives, FeatureTransformation):
            seed, epoch = self.config.pretrain_seed, views.epoch
            pairs = [
                positives.moved(predictions_nD, targets_nD, views.positions_n, view, seed, epoch)
                for view, (predictions_nD, targets_nD) in zip(_VIEWS, pairs, strict=True)
            ]
        total = torch.stack([regression_loss(*pair) for pair in pairs]).sum()
        if is_used and isinstance(positives, Selection):
            total = total + positives.weight * self._additional(predictions_VnD, targets_VnD, weights_nB, num_images)
        return total / num_images

    def _additional(self, predictions_VnD: Tensor, targets_VnD: Tensor, weights_nB: Tensor, num_images: int) -> Tensor:
        """Sum over this worker's images of the weighted losses to the other images' targets, both directions.

        As 2 - 2 cos is linear in the target's direction, the weighted mean direction stands for all.
        """
        directions_VBD = gathered(self.world, nn.functional.normalize(targets_VnD, dim=2), num_images).flip(0)
        weights_nB, total = weights_nB.to(predictions_VnD), predictions_VnD.new_zeros(())
        for predictions_nD, directions_BD in zip(predictions_VnD, directions_VBD, strict=True):
            cosines_n = (nn.functional.normalize(predictions_nD, dim=1) * (weights_nB @ directions_BD)).sum(dim=1)
            total = total + (2 * weights_nB.sum(dim=1) - 2 * cosines_n).sum()
        return total

    def _metrics(self, steps: list[Step], embeddings_ND: Tensor, epoch: int) -> dict[str, float]:
        """Of choices the share of right ones over the whole epoch; no number where nobody with a label chose."""
        metrics = super()._metrics(steps, embeddings_ND, epoch)
        right, chosen = (metrics.pop(f"train/selection_{name}", 0.0) for name in ("right", "chosen"))
        return metrics | ({"train/selection_precision": right / chosen} if chosen else {})

    def publish(self, folder: Path) -> None:
        """All networks besides, so that they can choose positives in another training."""
        super().publish(folder)
        save_networks(self.networks, folder / NETWORKS_FILE)


def _detached(passes: Passes) -> Passes:
    return Passes(
        passes.features_VnF.detach(), passes.predictions_VnD.detach(), passes.hidden_VnK.detach(), passes.targets_VnD
    )
