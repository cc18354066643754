"""What additional positives are chosen from: the views of a step as networks see them, and the other images of a batch.

Shapes: V = 2 views, B images of the batch, n of them on this worker, N images of the training split, C channels,
H x W pixels, D embedding dimensions, F features, K hidden units of the predictor, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from trainables import runtime
from trainables.api.context import Context
from trainables.augment.geometric import crop_warp
from trainables.augment.resample import resample
from trainables.data.annotations import Labels, MultiLabels
from trainables.data.batches import DeviceImages
from trainables.data.cache import LabelTable, open_annotation
from trainables.models.batch_norm import spread_batch
from trainables.models.encoder import Encoder
from trainables.ssl.byol_networks import BYOLNetworks, statistics_kept
from trainables.ssl.tracin import output_gradients
from trainables.world import World

SelectionViews = Literal["training", "light", "plain"]
"""``training``: those of the step. ``light``: the image as it is, and flipped with its centre cropped (Zeng et al.
2023, section 4.1). ``plain``: the image as it is, twice."""
_CENTRE = 128 / 140
"""Side of the crop, of the image's: theirs of 128 pixels from 140."""
_BATCH = 256


class BYOLSource(Protocol):
    """Whatever trained networks of BYOL can be taken from: a BYOL training, whose result is then waited for."""

    def load_networks(self, context: Context) -> BYOLNetworks:
        """All networks in evaluation mode, on the CPU, frozen."""


@dataclass(frozen=True)
class Surroundings:
    """What a way to choose is made in, once a training."""

    images: DeviceImages
    """Of the training split."""
    ids: list[str]
    """Of these images."""
    networks: BYOLNetworks
    """Those that are trained."""
    device: torch.device
    world: World
    precision: Literal["float32", "bfloat16"]
    pretrain_seed: int
    context: Context

    def same_label(self, labels: Labels | MultiLabels) -> Callable[[Tensor, Tensor], Tensor]:
        """(positions_n, positions_B) -> whether both images are known to share a label [n, B] bool."""
        table = open_annotation(labels, self.context)
        rows = {id_: row for row, id_ in enumerate(table.index["id"].to_list())}
        of_images = [rows[id_] for id_ in self.ids]
        if isinstance(table, LabelTable):
            labels_N = torch.from_numpy(table.labels_N[of_images])
            has_label_NL = functional.one_hot(labels_N.clamp(min=0), len(table.class_names)).bool()
            has_label_NL &= (labels_N >= 0)[:, None]
        else:
            has_label_NL = torch.from_numpy(table.labels_NK[of_images]).bool()
        labels_NL = has_label_NL.to(self.device).float()
        return lambda positions_n, positions_B: labels_NL[positions_n] @ labels_NL[positions_B].T > 0


@dataclass(frozen=True)
class Passes:
    """Both views of this worker's images, in the networks that choose; detached."""

    features_VnF: Tensor
    """Of the online trunk."""
    predictions_VnD: Tensor
    hidden_VnK: Tensor
    """Inputs of the predictor's last layer."""
    targets_VnD: Tensor

    def gradients_VnD(self) -> Tensor:
        """Of the loss with respect to the predictions: each view predicts the target of the other."""
        predictions_VnD, targets_VnD = map(runtime.full_precision, (self.predictions_VnD, self.targets_VnD))
        directions = zip(predictions_VnD, targets_VnD.flip(0), strict=True)
        return torch.stack([output_gradients(predictions, targets) for predictions, targets in directions])


@dataclass(frozen=True)
class StepViews:
    """What one step knows of its batch."""

    positions_B: Tensor
    """Of the images, in the training split."""
    own: slice
    """Which of them are this worker's."""
    images_nCHW: tuple[Tensor, Tensor]
    """Both views."""
    passes: Passes
    """In the networks that are trained."""
    epoch: int
    step: int

    @property
    def positions_n(self) -> Tensor:
        """Of this worker's images."""
        return self.positions_B[self.own]


def passes_of(source: BYOLSource | None, views: SelectionViews, around: Surroundings) -> Callable[[StepViews], Passes]:
    """What gives the passes of a step's images, in the networks in training or in others that are trained already.

    Those in training see views other than the step's with the batch statistics of these, and keep their running ones.
    What trained ones give of views that do not change is computed here, once.
    """
    if source is None:
        return (lambda step: step.passes) if views == "training" else _in_training(views, around)
    networks = source.load_networks(around.context).to(around.device)
    if views == "training":
        return lambda step: _passes(networks, step.images_nCHW, around)
    return _of_features(networks, views, around)


def features_of(
    source: BYOLSource | None, views: SelectionViews, around: Surroundings
) -> Callable[[StepViews], Tensor]:
    """The online trunk's features of ``passes_of`` alone [V, n, F]: no head and no target network is asked for them."""
    if source is None and views == "training":
        return lambda step: step.passes.features_VnF
    networks = around.networks if source is None else source.load_networks(around.context).to(around.device)
    if source is not None and views != "training":
        online_VNF = _features(networks.online, views, around)
        return lambda step: online_VNF[:, step.positions_n.to(around.device)]

    @torch.no_grad()
    def features(step: StepViews) -> Tensor:
        images = step.images_nCHW if views == "training" else fixed_views(around.images.images(step.positions_n), views)
        with statistics_kept(networks), spread_batch(len(step.positions_B)), _autocast(around):
            return torch.stack([networks.online.features(view_nCHW) for view_nCHW in images])

    return features


def _in_training(views: SelectionViews, around: Surroundings) -> Callable[[StepViews], Passes]:
    def passes(step: StepViews) -> Passes:
        images_nCHW = fixed_views(around.images.images(step.positions_n), views)
        with statistics_kept(around.networks), spread_batch(len(step.positions_B)):
            return _passes(around.networks, images_nCHW, around)

    return passes


def _of_features(networks: BYOLNetworks, views: SelectionViews, around: Surroundings) -> Callable[[StepViews], Passes]:
    """With the trunks' features of all images, computed once; their heads are small."""
    online_VNF = _features(networks.online, views, around)
    target_VNF = _features(networks.target, views, around)

    @torch.no_grad()
    def passes(step: StepViews) -> Passes:
        positions_n = step.positions_n.to(around.device)
        with _autocast(around):
            found = [networks.from_features(features_NF[positions_n]) for features_NF in online_VNF]
            targets = [networks.target.head(features_NF[positions_n]) for features_NF in target_VNF]
        return _stacked(found, targets)

    return passes


@torch.no_grad()
def _features(encoder: Encoder, views: SelectionViews, around: Surroundings) -> Tensor:
    """Of both views of all training images [V, N, F]."""
    parts = []
    with _autocast(around):
        for positions_B in torch.split(torch.arange(len(around.images)), _BATCH):
            images = fixed_views(around.images.images(positions_B), views)
            parts.append(torch.stack([encoder.features(images_BCHW) for images_BCHW in images]))
    return torch.cat(parts, dim=1)


@torch.no_grad()
def _passes(networks: BYOLNetworks, images_nCHW: tuple[Tensor, Tensor], around: Surroundings) -> Passes:
    with _autocast(around):
        found = [networks.passed(view_nCHW) for view_nCHW in images_nCHW]
        return _stacked(found, [networks.target(view_nCHW) for view_nCHW in images_nCHW])


def _stacked(found: list[tuple[Tensor, Tensor, Tensor]], targets: list[Tensor]) -> Passes:
    features, predictions, hidden = (torch.stack(of_views) for of_views in zip(*found, strict=True))
    return Passes(features, predictions, hidden, torch.stack(targets))


def _autocast(around: Surroundings) -> AbstractContextManager[None]:
    return runtime.autocast(around.device, around.precision == "bfloat16")


def fixed_views(images_BCHW: Tensor, views: SelectionViews) -> tuple[Tensor, Tensor]:
    """The two views that are not drawn."""
    if views == "plain":
        return images_BCHW, images_BCHW
    height, width = images_BCHW.shape[2:]
    sides = torch.tensor([[height], [width]], dtype=torch.float64).expand(2, len(images_BCHW)) * _CENTRE
    starts = (torch.tensor([[height], [width]], dtype=torch.float64) - sides) / 2
    warp = crop_warp(starts[0], starts[1], sides[0], sides[1], height, width)
    return images_BCHW, resample(images_BCHW, warp).flip(3)


def top(similarities_nB: Tensor, own: slice, top_k: int) -> Tensor:
    """Equal weights for the most similar others of each image [n, B]; what is -inf is not chosen, nor is itself."""
    similarities_nB = similarities_nB.masked_fill(self_mask(similarities_nB, own), -torch.inf)
    values_nk, places_nk = similarities_nB.topk(min(top_k, similarities_nB.shape[1] - 1), dim=1)
    chosen_nB = torch.zeros_like(similarities_nB, dtype=torch.bool)
    return shared(chosen_nB.scatter(1, places_nk, values_nk > -torch.inf))


def shared(chosen_nB: Tensor) -> Tensor:
    """Equal weights for the chosen, which add up to 1; all 0 where there are none."""
    weights_nB = chosen_nB.to(torch.get_default_dtype())
    return weights_nB / weights_nB.sum(dim=1, keepdim=True).clamp(min=1)


def self_mask(of_nB: Tensor, own: slice) -> Tensor:
    """Where an image meets itself [n, B]."""
    own_n = torch.arange(own.start, own.stop, device=of_nB.device)
    return torch.arange(of_nB.shape[1], device=of_nB.device) == own_n[:, None]


def gathered(world: World, rows_VnX: Tensor, num_images: int) -> Tensor:
    """Of both views all images' rows [V, B, X]."""
    return world.gather(rows_VnX.transpose(0, 1).contiguous(), num_images).transpose(0, 1)


def selection_metrics(
    weights_nB: Tensor, same_nB: Tensor | None, own: slice, num_images: int, world: World
) -> Mapping[str, Tensor]:
    """Of a step: ``selected``, the share of images with an additional positive; ``largest_hub``, the share of the batch
    that chose the image that most chose; and where labels are known, of the images with a label, how many they chose
    (``selection_chosen``) and how many of these have the same label (``selection_right``). What the workers give adds
    up to the batch's."""
    is_chosen_nB = weights_nB > 0
    counts_B = world.sum(is_chosen_nB.sum(dim=0).float())
    metrics = {
        "selected": is_chosen_nB.any(dim=1).sum() / num_images,
        "largest_hub": counts_B.max() / num_images / world.size,
    }
    if same_nB is not None:
        own_n = torch.arange(own.start, own.stop, device=same_nB.device)
        is_known_n = same_nB[torch.arange(len(own_n), device=same_nB.device), own_n]
        metrics["selection_chosen"] = is_chosen_nB[is_known_n].sum().float()
        metrics["selection_right"] = (is_chosen_nB & same_nB)[is_known_n].sum().float()
    return metrics
