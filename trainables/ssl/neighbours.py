"""How well the nearest training images tell the label of a validation image: a measure of an encoder at next to no
cost, epoch by epoch (weighted votes as in Wu et al. 2018, section 3.4: 0.07; of K we take 20).

The training images' embeddings are those that the epoch's own steps made, of drawn views by weights that moved
meanwhile, so that no image is passed anew; an evaluation of the finished encoder is a trial of its own.

Shapes: N training images with embeddings, Q queries, D embedding dimensions, C classes or findings.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainables import runtime
from trainables.api.context import Context
from trainables.classification.predicting import labelled_rows, truth_of
from trainables.data.annotations import Labels, MultiLabels
from trainables.data.batches import DeviceImages
from trainables.data.cache import ImageTable, LabelTable, open_annotation
from trainables.metrics.classification import finding_scores, mean_of_defined, one_class_scores

NUM_NEIGHBOURS = 20
VOTE_TEMPERATURE = 0.07
_BATCH = 256


class NeighbourProbe:
    """The labels of training and validation images, and the embeddings of an epoch."""

    def __init__(
        self, labels: Labels | MultiLabels, images: ImageTable, device: torch.device, context: Context
    ) -> None:
        table = open_annotation(labels, context)
        self._is_one_class = isinstance(table, LabelTable)
        train_rows = images.rows("train")
        self._is_labelled_N = torch.from_numpy(table.annotated[train_rows]).to(device)
        truth = torch.from_numpy(np.array(truth_of(table, train_rows))).to(device)
        if self._is_one_class:
            truth = functional.one_hot(truth.clamp(min=0), len(table.class_names)).float()
        self._labels_NC = truth
        val_rows = labelled_rows(images, table, "val")
        self._val_images = DeviceImages(images, val_rows, device)
        self._val_truth = truth_of(table, val_rows)
        self._embedded: tuple[Tensor, Tensor] | None = None

    def remember(self, positions_N: Tensor, embeddings_ND: Tensor) -> None:
        """The embeddings of an epoch, of unit length, by the positions of their images in the training split."""
        positions_N = positions_N.to(embeddings_ND.device)
        kept_N = self._is_labelled_N[positions_N]
        self._embedded = positions_N[kept_N], embeddings_ND[kept_N]

    @torch.no_grad()
    def scores(self, embed: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """``val/knn_bma``, of findings ``val/knn_auc``; nothing without labelled images on both sides.

        Args:
            embed: images [B, C, H, W] to embeddings of unit length [B, D].
        """
        if self._embedded is None or not len(self._embedded[0]) or not len(self._val_images):
            return {}
        positions_N, embeddings_ND = self._embedded
        labels_NC = self._labels_NC[positions_N]
        # Batch by batch: of all at once the cosines would take gigabytes.
        votes = [
            neighbour_votes(embed(self._val_images.images(positions_B)), embeddings_ND, labels_NC)
            for positions_B in torch.split(torch.arange(len(self._val_images)), _BATCH)
        ]
        votes_QC = torch.cat(votes).double().cpu().numpy()
        if self._is_one_class:
            found = {"val/knn_bma": mean_of_defined(one_class_scores(votes_QC, self._val_truth)["sensitivity"])}
        else:
            found = {"val/knn_auc": mean_of_defined(finding_scores(votes_QC, self._val_truth)["auc"])}
        return {name: value for name, value in found.items() if value == value}


def neighbour_votes(queries_QD: Tensor, embeddings_ND: Tensor, labels_NC: Tensor) -> Tensor:
    """Of each query the share of its nearest neighbours' votes for each class [Q, C]; a vote counts exp(cosine / 0.07).

    Args:
        queries_QD, embeddings_ND: of unit length.
        labels_NC: 1 for each class or finding that an image has, else 0.
    """
    num = min(NUM_NEIGHBOURS, len(embeddings_ND))
    cosines_QK, places_QK = (runtime.full_precision(queries_QD) @ embeddings_ND.T).topk(num, dim=1)
    weights_QK = (cosines_QK / VOTE_TEMPERATURE).softmax(dim=1)
    return (weights_QK[:, :, None] * labels_NC[places_QK].to(weights_QK)).sum(dim=1)
