"""What classifiers are trained and scored on, and their predictions. Shapes: B images, N images, K classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables import runtime
from trainables.data.batches import DeviceImages
from trainables.data.cache import ImageTable, LabelTable, MultiLabelTable
from trainables.data.splits import labelled
from trainables.models.classifier import Classifier

_BATCH = 64

Table = LabelTable | MultiLabelTable


def labelled_rows(images: ImageTable, table: Table, split: str) -> NDArray[np.int64]:
    """Rows of the labelled images of a split; none where there is no such split."""
    of_split = images.index["split"].to_numpy() == split
    return np.flatnonzero(of_split & table.annotated)


def rows_of_fraction(images: ImageTable, table: Table, label_fraction: float, label_seed: int) -> NDArray[np.int64]:
    """Rows of the training images whose label is used: whole groups in the proportions of the classes, a smaller
    fraction inside a larger one."""
    rows = labelled_rows(images, table, "train")
    groups = images.index["group"].gather(rows).to_list()
    chosen: NDArray[np.int64] = rows[labelled(groups, label_fraction, label_seed, stratum_of(truth_of(table, rows)))]
    return chosen


def truth_of(table: Table, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Class indices [N] int64, or findings [N, K] float32."""
    if isinstance(table, LabelTable):
        return table.labels_N[rows]
    return table.labels_NK[rows].astype(np.float32)


def stratum_of(truth: NDArray[Any]) -> list[int]:
    """What is kept in proportion when a fraction is drawn: the class; of findings the rarest one that an image has."""
    if truth.ndim == 1:
        return [int(label) for label in truth]
    rarest_first = np.argsort(truth.sum(axis=0), kind="stable")
    has_rarest_NK = truth[:, rarest_first] > 0
    strata: list[int] = np.where(has_rarest_NK.any(axis=1), has_rarest_NK.argmax(axis=1), -1).tolist()
    return strata


@torch.inference_mode()
def probabilities(
    classifier: Classifier, images: DeviceImages, positions_N: Tensor, *, is_one_class: bool, precision: str = "float32"
) -> Tensor:
    """Of every class [N, K] float64, on the CPU; the classifier is set to evaluation mode.

    Args:
        is_one_class: whether an image is of one class, so that they add up to 1, or has any number of findings.
    """
    classifier.eval()
    parts = []
    for positions_B in torch.split(positions_N, _BATCH):
        images_BCHW = images.images(positions_B).contiguous(memory_format=torch.channels_last)
        with runtime.autocast(images.device, precision == "bfloat16"):
            logits_BK = classifier(images_BCHW)
        parts.append(logits_BK.double().cpu())
    logits_NK = torch.cat(parts)
    return logits_NK.softmax(dim=1) if is_one_class else logits_NK.sigmoid()
