"""Additional positives: what, beside an image's other view, BYOL pulls it towards (Zeng et al. 2023, section 3).

A way to choose them is one frozen dataclass below ``Selection``, which gives every image weights over the others of its
batch, or below ``Positives`` alone where it changes the pair itself.

Shapes: V = 2 views, B images of the batch, n of them on this worker, D embedding dimensions, F features, K hidden units
of the predictor, k chosen images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from trainables import runtime
from trainables.api.checks import check_choice
from trainables.api.trainable import Part
from trainables.data.annotations import Labels, MultiLabels
from trainables.ssl.selection import (
    BYOLSource,
    SelectionViews,
    StepViews,
    Surroundings,
    features_of,
    gathered,
    passes_of,
    self_mask,
    shared,
    top,
)
from trainables.ssl.tracin import pairwise_tracin, squared_gradients

Selector = Callable[[StepViews], Tensor]
"""Of a step the weights of each image of the batch as a positive of each of this worker's [n, B]; those of an image
add up to 1, or are all 0 where nothing is chosen."""


@dataclass(frozen=True)
class Positives(Part, ABC):
    """Base of all ways."""

    family: ClassVar[str] = "positives"

    weight: float = 1.0
    """Of the additional term beside BYOL's own; not published for BYOL-TracIn."""
    start_epoch: int = 0
    """Before it, the training is plain BYOL."""

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError(f"weight = {self.weight}: a positive number; for plain BYOL give no positives")
        if self.start_epoch < 0:
            raise ValueError(f"start_epoch = {self.start_epoch}: at least 0")


@dataclass(frozen=True)
class Selection(Positives):
    """Base of the ways that choose among the other images of the batch."""

    @abstractmethod
    def selector(self, around: Surroundings) -> Selector:
        """What chooses in each step."""


@dataclass(frozen=True)
class TopK(Selection):
    """Base of the ways that choose the most similar images."""

    top_k: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k < 1:
            raise ValueError(f"top_k = {self.top_k}: at least 1")

    @abstractmethod
    def similarities(self, around: Surroundings) -> Callable[[StepViews], Tensor]:
        """What gives of a step how similar the images of the batch are to this worker's [n, B]."""

    def chosen(self, similarities_nB: Tensor, own: slice) -> Tensor:
        """Equal weights for the most similar others; fewer where the batch has no more."""
        return top(similarities_nB, own, self.top_k)

    def selector(self, around: Surroundings) -> Selector:
        """Whoever is most similar."""
        similarities = self.similarities(around)
        return lambda step: self.chosen(similarities(step), step.own)


@dataclass(frozen=True)
class FeatureSimilarity(TopK):
    """FS and FS-pretrained: the nearest by the cosine of the trunk's features, of the network in training or of another
    one that is trained already.

    Args:
        model: the trained one; its features of an image are computed once a training where the views do not change.
        views: of which features; of several, their directions are added. ``light``, as of TracIn: the paper does not
            say, and similarities are compared of the same views.
    """

    model: BYOLSource | None = None
    views: SelectionViews = "light"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("views", self.views, get_args(SelectionViews))

    def similarities(self, around: Surroundings) -> Callable[[StepViews], Tensor]:
        """As above."""
        features = features_of(self.model, self.views, around)

        def similarities(step: StepViews) -> Tensor:
            directions_VnF = functional.normalize(runtime.full_precision(features(step)), dim=2)
            directions_nF = functional.normalize(directions_VnF.sum(dim=0), dim=1)
            directions_BF = around.world.gather(directions_nF, len(step.positions_B))
            return directions_nF @ directions_BF.T

        return similarities


@dataclass(frozen=True)
class TracIn(TopK):
    """BYOL-TracIn and BYOL-TracIn-pretrained: those whose gradients are most alike (``ssl.tracin``).

    Args:
        models: trained ones; of several, such as the checkpoints of one training, their influences are added. They are
            not weighted by their learning rates, as TracInCP is (Pruthi et al. 2020, section 3.2): on a schedule that
            ends at 0 the last, which chooses best alone, would count for nothing. Without any, the network in training.
        views: ``light`` as in the paper.
        normalize: ``cosine`` divides by the lengths of both gradients; as it is, images with long gradients are near
            to all.
    """

    models: tuple[BYOLSource, ...] = ()
    views: SelectionViews = "light"
    normalize: Literal["none", "cosine"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("views", self.views, get_args(SelectionViews))
        check_choice("normalize", self.normalize, ("none", "cosine"))

    def similarities(self, around: Surroundings) -> Callable[[StepViews], Tensor]:
        """As above."""
        every = [passes_of(model, self.views, around) for model in self.models or (None,)]
        world = around.world

        def similarities(step: StepViews) -> Tensor:
            total_nB: Tensor | float = 0.0
            for passes in every:
                found, num_images = passes(step), len(step.positions_B)
                gradients_VnD, hidden_VnK = found.gradients_VnD(), runtime.full_precision(found.hidden_VnK)
                gradients_VBD, hidden_VBK = (gathered(world, each, num_images) for each in (gradients_VnD, hidden_VnK))
                influence_nB = pairwise_tracin(gradients_VnD, hidden_VnK, gradients_VBD, hidden_VBK)
                if self.normalize == "cosine":
                    lengths_B = squared_gradients(gradients_VBD, hidden_VBK).clamp(min=1e-30).sqrt()
                    influence_nB = influence_nB / (lengths_B[step.own, None] * lengths_B)
                total_nB = total_nB + influence_nB
            assert isinstance(total_nB, Tensor)
            return total_nB

        return similarities


@dataclass(frozen=True)
class FalseNegatives(TopK):
    """FNC: those of the nearest by the target's embeddings that are near enough, in the training's own views (Huynh et
    al. 2022, section 3.2; google-research/fnc: 10 and 0.7). Two images are as similar as their most similar views.
    """

    top_k: int = 10
    threshold: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.threshold < 1:
            raise ValueError(f"threshold = {self.threshold}: a cosine in [-1, 1)")

    def similarities(self, around: Surroundings) -> Callable[[StepViews], Tensor]:
        """As above."""

        def similarities(step: StepViews) -> Tensor:
            targets_VnD = functional.normalize(runtime.full_precision(step.passes.targets_VnD), dim=2)
            targets_VBD = gathered(around.world, targets_VnD, len(step.positions_B))
            return torch.einsum("und,vbd->uvnb", targets_VnD, targets_VBD).amax(dim=(0, 1))

        return similarities

    def chosen(self, similarities_nB: Tensor, own: slice) -> Tensor:
        """Those of the nearest that are near enough."""
        return shared((top(similarities_nB, own, self.top_k) > 0) & (similarities_nB > self.threshold))


@dataclass(frozen=True)
class SameLabel(Selection):
    """BYOL-Sup: an image of the batch with the same label, drawn at random; of images with several findings, one that
    shares one. The upper bound of all that choose without labels.

    Args:
        labels: of the training images; one without a label, or alone with it, gets no additional positive.
        which: ``one`` as in the paper; ``mean`` takes all of them.
    """

    labels: Labels | MultiLabels | None = None
    which: Literal["one", "mean"] = "one"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("which", self.which, ("one", "mean"))
        if self.labels is None:
            raise ValueError("labels = None: positives by label need the labels of the data set")

    def selector(self, around: Surroundings) -> Selector:
        """As above."""
        assert self.labels is not None
        is_same = around.same_label(self.labels)

        def choose(step: StepViews) -> Tensor:
            same_nB = is_same(step.positions_n, step.positions_B)
            same_nB[self_mask(same_nB, step.own)] = False
            if self.which == "mean":
                return shared(same_nB)
            parts = "same label", around.pretrain_seed, step.epoch, step.step
            draws_nB = runtime.uniforms(step.positions_n, len(step.positions_B), *parts).to(same_nB.device)
            return top(draws_nB.masked_fill(~same_nB, -torch.inf), step.own, 1)

        return choose


@dataclass(frozen=True)
class FeatureTransformation(Positives):
    """FT: the pair itself is made harder, by moving prediction and target apart along their difference (Zhu et al.
    2021, section 3.2: extrapolation, with its factor from Beta(2, 2) + 1). Nobody is chosen; the term replaces BYOL's.

    Args:
        per: what gets a factor of its own. ``dimension`` moves the pair in other directions, too. With ``pair``, one
            factor for all dimensions, BYOL's gradient is only rescaled: degenerate, for comparison.
    """

    per: Literal["dimension", "pair"] = "dimension"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("per", self.per, ("dimension", "pair"))

    def moved(
        self, predictions_nD: Tensor, targets_nD: Tensor, positions_n: Tensor, *parts: int | str
    ) -> tuple[Tensor, Tensor]:
        """Both of unit length, then moved apart.

        Args:
            positions_n: of the images, which with ``parts`` say what is drawn.
        """
        num = predictions_nD.shape[1] if self.per == "dimension" else 1
        # The middle one of three uniform numbers has the distribution Beta(2, 2).
        draws_n3D = runtime.uniforms(positions_n, 3 * num, "feature transformation", *parts).view(-1, 3, num)
        factors_nD = 1 + draws_n3D.median(dim=1).values.to(predictions_nD)
        predictions_nD = functional.normalize(predictions_nD, dim=1)
        targets_nD = functional.normalize(targets_nD, dim=1)
        apart_nD = (factors_nD - 1) * (predictions_nD - targets_nD)
        return predictions_nD + apart_nD, targets_nD - apart_nD
