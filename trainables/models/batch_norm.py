"""Batch normalisation within groups of the batch: several devices' statistics on one device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class SplitBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d that normalises each of ``num_groups`` contiguous parts of the batch by itself.

    In training, group g is ``images[g * B / G : (g + 1) * B / G]``, and the running statistics move by the
    mean over the groups of what each alone would have moved them, as in the reference's single-device form
    of MoCo. In evaluation it is plain batch normalisation. Its state dict is that of BatchNorm2d.

    Raises:
        ValueError: in training, a batch that the groups do not divide.
    """

    def __init__(self, num_features: int, num_groups: int = 1) -> None:
        super().__init__(num_features)
        if num_groups < 1:
            raise ValueError(f"num_groups = {num_groups}: at least one group")
        self.num_groups = num_groups

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.num_groups == 1:
            return super().forward(input)
        if len(input) % self.num_groups:
            raise ValueError(f"a batch of {len(input)} does not divide into {self.num_groups} groups")
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        means = [self.running_mean.clone() for _ in range(self.num_groups)]
        variances = [self.running_var.clone() for _ in range(self.num_groups)]
        self.num_batches_tracked.add_(1)
        # momentum None asks for the cumulative average over all batches seen.
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        outputs = [
            nn.functional.batch_norm(part, mean, variance, self.weight, self.bias, True, share, self.eps)
            for part, mean, variance in zip(input.chunk(self.num_groups), means, variances, strict=True)
        ]
        self.running_mean.copy_(torch.stack(means).mean(dim=0))
        self.running_var.copy_(torch.stack(variances).mean(dim=0))
        return torch.cat(outputs)


def batch_norm_layer(num_groups: int) -> Callable[[int], nn.BatchNorm2d]:
    """The ``norm_layer`` for a torchvision ResNet: plain BatchNorm2d for one group."""
    if num_groups == 1:
        return nn.BatchNorm2d
    return lambda num_features: SplitBatchNorm2d(num_features, num_groups)
