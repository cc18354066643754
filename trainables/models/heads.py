"""Heads: what stands on a trunk's features.

Shapes: F features, D embedding dimensions.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

Head = Literal["v1", "v2"]
"""MoCo's: ``v1`` Linear(F, D) (He et al. 2020), ``v2`` Linear(F, F)-ReLU-Linear(F, D) without batch normalisation
(Chen et al. 2020, arXiv:2003.04297)."""


def build_head(head: Head | None, num_features: int, embedding_dim: int) -> nn.Module:
    """A freshly initialised head. Its state dict has the names below ``fc`` in released checkpoints.

    Without a head the features are the embeddings; F and D are the same then.
    """
    if head is None:
        return nn.Identity()
    if head == "v1":
        return nn.Linear(num_features, embedding_dim)
    return nn.Sequential(
        nn.Linear(num_features, num_features), nn.ReLU(inplace=True), nn.Linear(num_features, embedding_dim)
    )
