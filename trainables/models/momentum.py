"""The momentum (key, target) encoder: a slow copy that takes no gradient."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Network = TypeVar("Network", bound=nn.Module)


def momentum_copy(network: Network) -> Network:
    """A copy with the same weights and buffers, whose parameters take no gradient."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def update_momentum_encoder(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """``slow = momentum * slow + (1 - momentum) * fast``, over parameters only (He et al. 2020, Eq. 2).

    Buffers are left alone: the slow network keeps the batch-norm statistics of its own forward passes, as in the
    reference.
    """
    update = get_ema_multi_avg_fn(momentum)  # type: ignore[no-untyped-call]
    update(list(slow.parameters()), list(fast.parameters()), None)
