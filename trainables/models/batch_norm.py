"""Batch normalisation within groups of a batch, wherever its images are: several on one worker, or one on several.

Shapes: B images of the whole batch, n of them on this worker, C channels, H x W pixels, G groups, W workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from trainables import runtime
from trainables.world import World

_ALONE = World()


@dataclass(frozen=True)
class _Batch:
    """What is normalised: so many images over the workers of this world; None where every worker's are its own."""

    num_images: int | None


_batch: ContextVar[_Batch] = ContextVar("batch")


@contextmanager
def spread_batch(num_images: int) -> Iterator[None]:
    """Within, what layers in training are given is this worker's ``World.part`` of a batch of so many images."""
    token = _batch.set(_Batch(num_images))
    try:
        yield
    finally:
        _batch.reset(token)


@contextmanager
def own_batch() -> Iterator[None]:
    """Within, what layers in training are given is a whole batch, also where there are several workers."""
    token = _batch.set(_Batch(None))
    try:
        yield
    finally:
        _batch.reset(token)


class SplitBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d that normalises each of ``num_groups`` contiguous parts of the batch by itself.

    In training, group g is ``images[g * B / G : (g + 1) * B / G]``, and the running statistics move by the
    mean over the groups of what each alone would have moved them, as in the reference's single-device form
    of MoCo. In evaluation it is plain batch normalisation. Its state dict is that of BatchNorm2d.

    Where several workers share a batch (``spread_batch``), the groups are those of the whole batch, whichever workers
    have their images, so that their number changes no result. Groups that lie on one worker each need no word from the
    others; then the running statistics are a worker's own until ``share_running_statistics``.

    Raises:
        ValueError: in training, a batch that the groups do not divide, or not the worker's part of it.
        RuntimeError: in training with several workers, outside of ``spread_batch`` and ``own_batch``.
    """

    def __init__(self, num_features: int, num_groups: int = 1) -> None:
        super().__init__(num_features)
        if num_groups < 1:
            raise ValueError(f"num_groups = {num_groups}: at least one group")
        self.num_groups = num_groups
        self.has_own_statistics = False

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        world, num_images = _shared(len(input))
        if num_images % self.num_groups:
            raise ValueError(f"a batch of {num_images} does not divide into {self.num_groups} groups")
        layout = _Layout(world, num_images, self.num_groups)
        if layout.is_apart:
            self.has_own_statistics |= world.size > 1
            return self._apart(input, self.num_groups // world.size)
        return self._spanning(input, layout)

    def _spanning(self, input: Tensor, layout: _Layout) -> Tensor:
        """Some groups lie on several workers."""
        num_values = layout.group_size * input[0, 0].numel()
        if num_values < 2:
            raise ValueError(
                f"groups of {num_values} value per channel, shape {tuple(input.shape)}: at least 2 have a spread"
            )
        assert self.running_mean is not None
        assert self.running_var is not None
        output_nCHW: Tensor
        spanning = _Spanning.apply(input, self.weight, self.bias, self.eps, layout)  # type: ignore[no-untyped-call]
        output_nCHW, mean_GC, variance_GC = spanning
        share = self._share()
        variance_GC = variance_GC * (num_values / (num_values - 1))
        self.running_mean.lerp_(mean_GC.mean(dim=0), share)
        self.running_var.lerp_(variance_GC.mean(dim=0), share)
        return output_nCHW

    def _apart(self, input: Tensor, num_groups: int) -> Tensor:
        """All groups lie in ``input``."""
        if num_groups == 1:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        means = [self.running_mean.clone() for _ in range(num_groups)]
        variances = [self.running_var.clone() for _ in range(num_groups)]
        share = self._share()
        outputs = [
            nn.functional.batch_norm(part, mean, variance, self.weight, self.bias, True, share, self.eps)
            for part, mean, variance in zip(input.chunk(num_groups), means, variances, strict=True)
        ]
        self.running_mean.copy_(torch.stack(means).mean(dim=0))
        self.running_var.copy_(torch.stack(variances).mean(dim=0))
        return torch.cat(outputs)

    def _share(self) -> float:
        """Counts the batch; how far it moves the running statistics."""
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        # momentum None asks for the cumulative average over all batches seen.
        momentum: float | None = self.momentum
        return momentum if momentum is not None else 1.0 / float(self.num_batches_tracked)


@torch.no_grad()
def share_running_statistics(network: nn.Module) -> None:
    """Make the running statistics of all workers the same: those of the whole batches.

    Needed after training steps, before anything looks at them: evaluation, or saving. They move linearly, so the mean
    over workers at any later time is what averaging after every step would have given.
    """
    world = runtime.world()
    layers = [layer for layer in network.modules() if isinstance(layer, SplitBatchNorm2d) and layer.has_own_statistics]
    statistics = [values for layer in layers for values in (layer.running_mean, layer.running_var)]
    world.average([values for values in statistics if values is not None])
    for layer in layers:
        layer.has_own_statistics = False


def batch_norm_layer(num_groups: int) -> Callable[[int], nn.BatchNorm2d]:
    """The ``norm_layer`` for a torchvision ResNet."""
    return partial(SplitBatchNorm2d, num_groups=num_groups)


def _shared(num_given: int) -> tuple[World, int]:
    """Who has the images of the batch, and how many they are."""
    world = runtime.world()
    if world.size == 1:
        return _ALONE, num_given
    batch = _batch.get(None)
    if batch is None:
        raise RuntimeError(
            f"batch normalisation in training on one of {world.size} workers: say with `spread_batch(num_images)` how "
            "many images the batch has over all of them, or with `own_batch()` that each has a whole one"
        )
    if batch.num_images is None:
        return _ALONE, num_given
    part = world.part(batch.num_images)
    if num_given != part.stop - part.start:
        raise ValueError(
            f"worker {world.rank} of {world.size} was given {num_given} images of a batch of {batch.num_images}: "
            f"expected its part of it, {part.stop - part.start}"
        )
    return world, batch.num_images


@dataclass(frozen=True)
class _Layout:
    """Which worker has which images of which group; a whole batch has ``num_groups`` groups of equal size."""

    world: World
    num_images: int
    num_groups: int

    @property
    def group_size(self) -> int:
        return self.num_images // self.num_groups

    @property
    def is_apart(self) -> bool:
        """Whether every group lies on one worker, an equal number on each."""
        return self.num_groups % self.world.size == 0

    def num_common(self, part: slice, group: int) -> int:
        """How many images of a worker's part are in a group."""
        start, stop = group * self.group_size, (group + 1) * self.group_size
        num: int = min(part.stop, stop) - max(part.start, start)
        return max(0, num)

    def own_groups(self) -> list[tuple[int, slice]]:
        """The groups that this worker has images of, each with the place of these among the worker's own."""
        part, found, start = self.world.part(self.num_images), [], 0
        for group in range(self.num_groups):
            if num := self.num_common(part, group):
                found.append((group, slice(start, start + num)))
                start += num
        return found


@lru_cache(maxsize=64)
def _counts(layout: _Layout, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Shares of each worker's images in the groups [W, G, 1]; those of a group have the sum 1."""
    parts = layout.world.parts(layout.num_images)
    counts_WG = [[layout.num_common(part, group) for group in range(layout.num_groups)] for part in parts]
    return torch.tensor(counts_WG, device=device, dtype=dtype)[..., None] / layout.group_size


@lru_cache(maxsize=64)
def _groups_of_images(layout: _Layout, device: torch.device) -> Tensor:
    """The group of each of this worker's images [n]."""
    groups = [group for group, images in layout.own_groups() for _ in range(images.stop - images.start)]
    return torch.tensor(groups, device=device)


class _Spanning(torch.autograd.Function):
    """Batch normalisation of groups that lie on several workers: one transfer forward and one backward.

    Each worker's mean and variance of its images of a group are combined as in Chan, Golub & LeVeque 1979: sums of
    squares would cancel where means are large. Gives the output, and mean and biased variance of all groups [G, C].
    """

    @staticmethod
    def forward(
        ctx: Any, images_nCHW: Tensor, weight_C: Tensor, bias_C: Tensor, epsilon: float, layout: _Layout
    ) -> tuple[Tensor, Tensor, Tensor]:
        values_nCHW = images_nCHW.to(weight_C.dtype)  # under autocast images are less precise
        own_2GC = values_nCHW.new_zeros((2, layout.num_groups, len(weight_C)))
        for group, images in layout.own_groups():
            own_2GC[1, group], own_2GC[0, group] = torch.var_mean(values_nCHW[images], dim=(0, 2, 3), correction=0)
        means_WGC, variances_WGC = layout.world.gather(own_2GC[None], layout.world.size).unbind(dim=1)
        shares_WG1 = _counts(layout, images_nCHW.device, weight_C.dtype)
        mean_GC = (shares_WG1 * means_WGC).sum(dim=0)
        variance_GC = (shares_WG1 * (variances_WGC + (means_WGC - mean_GC) ** 2)).sum(dim=0)
        inverse_std_GC = (variance_GC + epsilon).rsqrt()
        groups_n = _groups_of_images(layout, images_nCHW.device)
        centred_nCHW = values_nCHW - _per_image(mean_GC, groups_n)
        output_nCHW = torch.addcmul(
            bias_C.view(1, -1, 1, 1), centred_nCHW, _per_image(inverse_std_GC * weight_C, groups_n)
        )
        ctx.layout = layout
        ctx.save_for_backward(images_nCHW, weight_C, mean_GC, inverse_std_GC)
        ctx.mark_non_differentiable(mean_GC, variance_GC)
        return output_nCHW.to(images_nCHW.dtype), mean_GC, variance_GC

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """The gradients of weight and bias are those of this worker's images, as all gradients of parameters are."""
        images_nCHW, weight_C, mean_GC, inverse_std_GC = ctx.saved_tensors
        layout = ctx.layout
        groups_n = _groups_of_images(layout, images_nCHW.device)
        gradient_nCHW = gradients[0].to(weight_C.dtype)
        centred_nCHW = images_nCHW.to(weight_C.dtype) - _per_image(mean_GC, groups_n)
        own_2GC = images_nCHW.new_zeros((2, *mean_GC.shape), dtype=weight_C.dtype)
        for group, images in layout.own_groups():
            own_2GC[0, group] = gradient_nCHW[images].sum(dim=(0, 2, 3))
            own_2GC[1, group] = (gradient_nCHW[images] * centred_nCHW[images]).sum(dim=(0, 2, 3))
        num_values = layout.group_size * images_nCHW[0, 0].numel()
        mean_2GC = layout.world.sum(own_2GC) / num_values
        of_images_nCHW = gradient_nCHW - _per_image(mean_2GC[0], groups_n)
        of_images_nCHW -= centred_nCHW * _per_image(mean_2GC[1] * inverse_std_GC**2, groups_n)
        of_images_nCHW *= _per_image(inverse_std_GC * weight_C, groups_n)
        of_weight_C = (own_2GC[1] * inverse_std_GC).sum(dim=0)
        return of_images_nCHW.to(images_nCHW.dtype), of_weight_C, own_2GC[0].sum(dim=0), None, None


def _per_image(values_GC: Tensor, groups_n: Tensor) -> Tensor:
    return values_GC[groups_n][:, :, None, None]
