"""Pairwise TracIn of the images of a batch, in closed form (Zeng et al. 2023, Eq. 2 to 4; TracIn: Pruthi et al. 2020).

The influence of one image on another is the product of their gradients: by how much a step on the one lowers the loss
of the other. Of the last linear layer of BYOL's predictor alone the gradient of an image is an outer product, of the
gradient of the loss with respect to the layer's output and of the layer's input. So the product of two gradients is the
product of two products of vectors, and no gradient of a weight is ever made.

BYOL's loss of an image is the sum of two directions, each view predicting the other; so is its gradient, and the
product of two sums has four terms.

Shapes: V = 2 views, n images of this worker, B images of the batch, D outputs and H inputs of the layer.
"""

from __future__ import annotations

import torch
from torch import Tensor


def output_gradients(predictions_BD: Tensor, targets_BD: Tensor) -> Tensor:
    """Gradient of ``regression_loss`` of each image with respect to its prediction [B, D] (Zeng et al. 2023, Eq. 3).

    Args:
        predictions_BD: of any length above 0.
        targets_BD: likewise; they are constants.
    """
    lengths_B1 = torch.linalg.vector_norm(predictions_BD, dim=1, keepdim=True)
    directions_BD = predictions_BD / lengths_B1
    targets_BD = targets_BD / torch.linalg.vector_norm(targets_BD, dim=1, keepdim=True)
    cosines_B1 = (directions_BD * targets_BD).sum(dim=1, keepdim=True)
    gradients_BD: Tensor = 2 * (cosines_B1 * directions_BD - targets_BD) / lengths_B1
    return gradients_BD


def pairwise_tracin(
    gradients_VnD: Tensor,
    inputs_VnH: Tensor,
    gradients_VBD: Tensor,
    inputs_VBH: Tensor,
    *,
    has_bias: bool = False,
) -> Tensor:
    """TracIn of each of this worker's images with each image of the batch, without the learning rate [n, B].

    Args:
        gradients_VnD: ``output_gradients`` of both directions.
        inputs_VnH: what the layer was given in them.
        gradients_VBD, inputs_VBH: the same of the whole batch.
        has_bias: of the layer; its gradient adds the product of the outputs' gradients alone.
    """
    total_nB = torch.zeros(gradients_VnD.shape[1], gradients_VBD.shape[1]).to(gradients_VnD)
    for gradients_nD, inputs_nH in zip(gradients_VnD, inputs_VnH, strict=True):
        for gradients_BD, inputs_BH in zip(gradients_VBD, inputs_VBH, strict=True):
            of_inputs_nB = inputs_nH @ inputs_BH.T
            total_nB += (gradients_nD @ gradients_BD.T) * (of_inputs_nB + 1 if has_bias else of_inputs_nB)
    return total_nB


def squared_gradients(gradients_VBD: Tensor, inputs_VBH: Tensor, *, has_bias: bool = False) -> Tensor:
    """TracIn of each image with itself, the squared length of its gradient [B]."""
    total_B = torch.zeros(gradients_VBD.shape[1]).to(gradients_VBD)
    for gradients_BD, inputs_BH in zip(gradients_VBD, inputs_VBH, strict=True):
        for others_BD, other_inputs_BH in zip(gradients_VBD, inputs_VBH, strict=True):
            of_inputs_B = (inputs_BH * other_inputs_BH).sum(dim=1)
            total_B += (gradients_BD * others_BD).sum(dim=1) * (of_inputs_B + 1 if has_bias else of_inputs_B)
    return total_B
