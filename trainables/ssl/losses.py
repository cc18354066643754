"""Losses of self-supervised learning, and the measures that show a collapse.

Shapes: B queries, K negative keys, N embeddings, D dimensions. Embeddings are of unit length where said.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def contrast_logits(queries_BD: Tensor, keys_BD: Tensor, negatives_KD: Tensor, temperature: float) -> Tensor:
    """Similarities over temperature [B, 1 + K], the positive first (MoCo: He et al. 2020, algorithm 1).

    Args:
        queries_BD, keys_BD, negatives_KD: of unit length, so that products are cosines.
    """
    positives_B1 = (queries_BD * keys_BD).sum(dim=1, keepdim=True)
    return torch.cat([positives_B1, queries_BD @ negatives_KD.T], dim=1) / temperature


def info_nce(logits_BK: Tensor) -> Tensor:
    """InfoNCE (He et al. 2020, Eq. 1): cross-entropy of the positive, which is column 0, mean over the batch.

    At chance it is log(1 + K).
    """
    return functional.cross_entropy(logits_BK, torch.zeros(len(logits_BK), dtype=torch.int64, device=logits_BK.device))


def contrast_accuracy(logits_BK: Tensor) -> Tensor:
    """Share of queries whose positive (column 0) is more similar than every negative.

    A tie is a miss: otherwise collapsed embeddings, which are all the same, would score 1.
    """
    return (logits_BK[:, 0] > logits_BK[:, 1:].amax(dim=1)).float().mean()


def regression_loss(predictions_BD: Tensor, targets_BD: Tensor) -> Tensor:
    """Of each image 2 - 2 cos(prediction, target) [B], the squared distance of their directions, in [0, 4] (BYOL: Grill
    et al. 2020, Eq. 2)."""
    return 2 - 2 * functional.cosine_similarity(predictions_BD, targets_BD, dim=1)


def embedding_std(embeddings_ND: Tensor) -> Tensor:
    """Standard deviation over the images of each dimension of unit-length embeddings, mean over dimensions.

    0 when all are the same; about 1 / sqrt(D) when they spread over the sphere (Chen & He 2021, section 4.1).
    """
    return embeddings_ND.double().std(dim=0, correction=0).mean()


def effective_rank(embeddings_ND: Tensor) -> Tensor:
    """exp of the entropy of the normalised singular values, in [1, min(N, D)] (Roy & Vetterli 2007).

    Not centred, as in RankMe (Garrido et al. 2023): embeddings collapsed to one point give 1.
    """
    singular_values = torch.linalg.svdvals(embeddings_ND.double())
    shares = singular_values / singular_values.sum()
    return torch.exp(torch.special.entr(shares).sum())
