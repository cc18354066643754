"""Heads: what stands on a trunk's features.

Shapes: F features, D embedding dimensions.
"""

from __future__ import annotations

from torch import nn

from trainables.api.names import Head


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
