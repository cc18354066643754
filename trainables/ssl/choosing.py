"""How rightly trained networks choose additional positives: a trial of its own, without a training that uses them (Zeng
et al. 2023, section 4.2 and Figure 2).

Shapes: V = 2 views, B images of a batch, N images of the training split, C channels, H x W pixels, A anchors shown,
R ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from trainables import runtime
from trainables.api import names
from trainables.api.checks import check_choice
from trainables.api.context import Context
from trainables.api.trainable import Trainable, recorded, seed
from trainables.augment.augmentation import Augmentation
from trainables.augment.combine import BYOL_AUGMENTATION
from trainables.data.annotations import Labels, MultiLabels
from trainables.data.batches import DeviceImages
from trainables.data.cache import ImageTable, open_annotation, open_images
from trainables.data.records import split_counts
from trainables.models.trunk import forward_flop
from trainables.ssl.byol import BYOL
from trainables.ssl.choice_picture import tiles, write_picture
from trainables.ssl.positives import TopK
from trainables.ssl.selection import Passes, StepViews, Surroundings
from trainables.ssl.views import augmented
from trainables.world import World

_PICTURE = "artifacts/choices.png"
RANKS = (1, 2, 3)
"""Of the choices that are shown."""


@dataclass(frozen=True)
class ChoiceScores(Trainable):
    """How often what a trained BYOL chooses from batches of the training split has the label of its anchor.

    Args:
        model: whose features, predictions and targets choose where ``positives`` name no network of their own.
        positives: how it chooses; ``top_k`` and ``weight`` count for nothing here.
        labels: of the training images; an image without one is never right, and no anchor.
        top_ks: how many are chosen.
        num_orders: from each batches are cut, so that every image is an anchor once in it, but for what is left over.
    """

    model: BYOL
    positives: TopK
    labels: Labels | MultiLabels
    top_ks: tuple[int, ...] = (1, 2, 3, 5)
    batch_size: int = 256
    num_orders: int = 3
    augmentation: Augmentation = BYOL_AUGMENTATION
    """Of the views, for ways that choose by those of a training."""
    precision: Literal["float32", "bfloat16"] = "float32"
    num_shown: int = recorded(4)
    choice_seed: int = seed()
    """Of the orders and views."""

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, ("float32", "bfloat16"))
        if not self.top_ks or min(self.top_ks) < 1:
            raise ValueError(f"top_ks = {self.top_ks}: at least one number, each at least 1")
        if self.batch_size <= max(self.top_ks) or self.num_orders < 1:
            raise ValueError(
                f"batch_size = {self.batch_size} must be more than the largest of top_ks = {self.top_ks}, num_orders = "
                f"{self.num_orders} at least 1"
            )
        if getattr(self.positives, "model", self) is None or getattr(self.positives, "models", self) == ():
            raise ValueError(
                f"{type(self.positives).__name__} without a trained network chooses with the one in training, and "
                "here none is trained: name it in positives"
            )

    def check(self) -> None:
        """Raises ValueError where no batch can be cut from the training split."""
        num_train = split_counts(self.labels.images)["train"]
        if num_train < self.batch_size:
            raise ValueError(
                f"batch_size = {self.batch_size} is larger than the training split of {num_train} images of "
                f"{self.labels.images.name}: take at most {num_train}"
            )

    @property
    def uses_gpu(self) -> bool:
        return True

    def run(self, context: Context) -> Mapping[str, float]:
        """Choose, and compare labels. Returns ``precision/top_K`` of each K (the share of all that were chosen that
        have their anchor's label), ``shuffled/top_K`` (the same when the chosen are dealt out to other anchors of their
        batch: what choosing common classes, or images with many findings, gives without any similarity), ``chance``
        (what drawing from the batch gives), ``largest_hub/top_K`` (the mean over batches of the share of anchors that
        chose the image that most chose), ``selected/top_K`` (the share of anchors that chose anybody) and
        ``num_anchors``.

        Writes ``samples.npz`` and ``artifacts/choices.png``: the first anchors of the first batch, which do not depend
        on the way to choose, with what is first, second and third to them.

        Raises:
            BadData: the data cannot be read.
        """
        runtime.use_cores(context.num_cpus)
        choices = _Choices(self, open_images(self.labels.images, context), context)
        counts = {top_k: _Counts() for top_k in self.top_ks}
        total = self.num_orders * choices.num_batches
        for done, step in enumerate(choices.steps(), start=1):
            same_BB = choices.same(step)
            for found, chosen_BB in zip(counts.values(), choices.chosen(step, self.top_ks), strict=True):
                found.add(chosen_BB, same_BB)
            context.report_progress(done, total, "batches")
        (context.output_dir / "artifacts").mkdir(exist_ok=True)
        samples = choices.samples(next(choices.steps()), self.num_shown)
        np.savez_compressed(context.output_dir / names.SAMPLES_FILE, **samples)
        write_picture(context.output_dir / _PICTURE, samples["tiles_ATHWC"])
        summary = {"chance": counts[self.top_ks[0]].chance, "num_anchors": float(counts[self.top_ks[0]].num_anchors)}
        for top_k, found in counts.items():
            summary |= {f"{name}/top_{top_k}": value for name, value in found.summary().items()}
        return summary

    def work_flop(self) -> float:
        """Of every model both networks on both views, of all images once or, where views are drawn, in each order."""
        num_train = split_counts(self.labels.images)["train"]
        num_models = max(1, len(getattr(self.positives, "models", ())))
        passes = 4 * num_models * (self.num_orders + 1 if self.draws_views else 1)
        return passes * num_train * forward_flop(self.model.backbone, self.labels.images.image_size_px)

    @property
    def draws_views(self) -> bool:
        """Whether it chooses by the views of a training."""
        return getattr(self.positives, "views", "training") == "training"


class _Choices:
    """Batches of the training split, and what is chosen from them."""

    def __init__(self, config: ChoiceScores, table: ImageTable, context: Context) -> None:
        self.config, self.table = config, table
        self.rows = table.rows("train")
        self.device = runtime.device()
        self.images = DeviceImages(table, self.rows, self.device)
        self.num_batches = len(self.images) // config.batch_size
        self._networks = config.model.load_networks(context).to(self.device)
        self.ids: list[str] = table.index["id"].gather(self.rows).to_list()
        around = Surroundings(
            images=self.images,
            ids=self.ids,
            networks=self._networks,
            device=self.device,
            world=World(),
            precision=config.precision,
            pretrain_seed=config.choice_seed,
            context=context,
        )
        self._similarities = config.positives.similarities(around)
        self._is_same = around.same_label(config.labels)
        self._annotation = open_annotation(config.labels, context)

    def steps(self) -> Iterator[StepViews]:
        """The batches of every order, as a training would see them."""
        config = self.config
        for order in range(config.num_orders):
            shuffle = runtime.generator("choice order", config.choice_seed, order)
            order_N = torch.randperm(len(self.images), generator=shuffle)
            for batch in range(self.num_batches):
                positions_B = order_N[batch * config.batch_size : (batch + 1) * config.batch_size]
                yield self._step(positions_B, order, batch)

    @torch.no_grad()
    def _step(self, positions_B: Tensor, order: int, batch: int) -> StepViews:
        config, own = self.config, slice(0, len(positions_B))
        images_BCHW = self.images.images(positions_B)
        if not config.draws_views:  # then these are not looked at
            nothing = images_BCHW.new_zeros(0)
            return StepViews(positions_B, own, (images_BCHW,) * 2, Passes(*(nothing,) * 4), order, batch)
        first, second = (
            augmented(config.augmentation, images_BCHW, positions_B, view, config.choice_seed, order)
            for view in ("first", "second")
        )
        with runtime.autocast(self.device, config.precision == "bfloat16"):
            found = [self._networks.passed(view_BCHW) for view_BCHW in (first, second)]
            targets = [self._networks.target(view_BCHW) for view_BCHW in (first, second)]
        features, predictions, hidden = (torch.stack(of_views) for of_views in zip(*found, strict=True))
        passes = Passes(features, predictions, hidden, torch.stack(targets))
        return StepViews(positions_B, own, (first, second), passes, order, batch)

    @torch.no_grad()
    def chosen(self, step: StepViews, top_ks: Sequence[int]) -> list[Tensor]:
        """Of each K whether an image chose another [B, B] bool."""
        similarities_BB = self._similarities(step)
        ways = [replace(self.config.positives, top_k=top_k) for top_k in top_ks]
        return [way.chosen(similarities_BB, step.own) > 0 for way in ways]

    def same(self, step: StepViews) -> Tensor:
        """Whether two images share a label [B, B] bool; its diagonal says which image has one."""
        return self._is_same(step.positions_B, step.positions_B)

    def samples(self, step: StepViews, num_shown: int) -> dict[str, Any]:
        """The first anchors with a label and those of each rank [A, R]; -1 where nobody is chosen."""
        same_BB = self.same(step)
        anchors_A = torch.nonzero(same_BB.diagonal())[:num_shown, 0]
        chosen_RBB = torch.stack(self.chosen(step, RANKS))
        added_RBB = torch.cat([chosen_RBB[:1], chosen_RBB[1:] & ~chosen_RBB[:-1]])
        places_AR = torch.where(added_RBB.any(dim=2), added_RBB.int().argmax(dim=2), -1).T[anchors_A].cpu()
        anchors_A = anchors_A.cpu()
        rows = self.rows[step.positions_B.numpy()]
        ids = np.array([self.ids[position] for position in step.positions_B.tolist()])
        labels = np.array([self._annotation.words(int(row)) for row in rows])
        is_right_AR = (same_BB.cpu()[anchors_A[:, None], places_AR.clamp(min=0)] & (places_AR >= 0)).numpy()
        pixels_BHWC = self.table.images_NCHW[rows].transpose(0, 2, 3, 1)
        return {
            names.IMAGE_ID: ids[anchors_A],
            "labels_A": labels[anchors_A],
            "chosen_ids_AR": np.where(places_AR >= 0, ids[places_AR.clamp(min=0)], ""),
            "chosen_labels_AR": np.where(places_AR >= 0, labels[places_AR.clamp(min=0)], ""),
            "is_right_AR": is_right_AR,
            "tiles_ATHWC": tiles(
                pixels_BHWC[anchors_A], pixels_BHWC[places_AR.clamp(min=0)], (places_AR >= 0).numpy(), is_right_AR
            ),
        }


class _Counts:
    """What was chosen in all batches so far."""

    def __init__(self) -> None:
        self._chosen = self._right = self._selected = self.num_anchors = 0
        self._right_if_shuffled = 0.0
        self._hubs: list[float] = []
        self._pairs = self._same = 0

    def add(self, chosen_BB: Tensor, same_BB: Tensor) -> None:
        """A batch. Anchors are the images with a label; of the others nobody knows whether they chose rightly."""
        is_known_B = same_BB.diagonal()
        chosen_AB, same_AB = chosen_BB[is_known_B], same_BB[is_known_B]
        num_anchors, num_others = len(chosen_AB), chosen_BB.shape[1] - 1
        self.num_anchors += num_anchors
        self._chosen += int(chosen_AB.sum())
        self._right += int((chosen_AB & same_AB).sum())
        self._selected += int(chosen_AB.any(dim=1).sum())
        # Of the anchors but itself, how many share a label with an image.
        others_B = num_anchors - is_known_B.long()
        share_B = (same_AB.sum(dim=0) - is_known_B.long()) / others_B.clamp(min=1)
        self._right_if_shuffled += float((chosen_AB.sum(dim=0) * share_B).sum())
        self._pairs += num_anchors * num_others
        self._same += int(same_AB.sum()) - num_anchors
        self._hubs.append(float(chosen_BB.sum(dim=0).max()) / len(chosen_BB))

    @property
    def chance(self) -> float:
        return self._same / max(1, self._pairs)

    def summary(self) -> dict[str, float]:
        """Names without K; a precision only where anybody was chosen."""
        found = {"largest_hub": float(np.mean(self._hubs)), "selected": self._selected / max(1, self.num_anchors)}
        if not self._chosen:
            return found
        shuffled = self._right_if_shuffled / self._chosen
        return found | {"precision": self._right / self._chosen, "shuffled": shuffled}
