"""Heads: what stands on a trunk's features, and BYOL's predictor on a head's embeddings.

Shapes: B images, F features, D embedding dimensions, H hidden units.
"""

from __future__ import annotations

from torch import Tensor, nn

from trainables.api.names import Head
from trainables.models.batch_norm import SplitBatchNorm2d

BYOL_HIDDEN = 4096


def build_head(head: Head | None, num_features: int, embedding_dim: int, batch_norm_groups: int = 1) -> nn.Module:
    """A freshly initialised head. Its state dict has the names below ``fc`` in released checkpoints.

    Without a head the features are the embeddings; F and D are the same then.
    """
    if head is None:
        return nn.Identity()
    if head == "v1":
        return nn.Linear(num_features, embedding_dim)
    if head == "byol":
        last = nn.Linear(BYOL_HIDDEN, embedding_dim, bias=False)
        return nn.Sequential(*_hidden(num_features, batch_norm_groups), last)
    return nn.Sequential(
        nn.Linear(num_features, num_features), nn.ReLU(inplace=True), nn.Linear(num_features, embedding_dim)
    )


class Predictor(nn.Module):
    """BYOL's: of the target network's embedding, from the online network's. Linear(D, 4096)-BN-ReLU-Linear(4096, D),
    the last without bias (Grill et al. 2020, section 3.3)."""

    def __init__(self, embedding_dim: int, batch_norm_groups: int = 1) -> None:
        super().__init__()
        self.hidden = nn.Sequential(*_hidden(embedding_dim, batch_norm_groups))
        self.last = nn.Linear(BYOL_HIDDEN, embedding_dim, bias=False)

    def forward(self, embeddings_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions [B, D], and the input of the last layer [B, H]."""
        hidden_BH: Tensor = self.hidden(embeddings_BD)
        return self.last(hidden_BH), hidden_BH


class BatchNormOfVectors(SplitBatchNorm2d):
    """Batch normalisation of [B, F], over the whole batch and in groups as that of images."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input[:, :, None, None])[:, :, 0, 0]


def _hidden(num_inputs: int, batch_norm_groups: int) -> tuple[nn.Module, ...]:
    norm = BatchNormOfVectors(BYOL_HIDDEN, batch_norm_groups)
    return nn.Linear(num_inputs, BYOL_HIDDEN), norm, nn.ReLU(inplace=True)
