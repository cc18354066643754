"""Pairwise TracIn of the images of a batch in three ways, from the same inputs of the predictor's last layer.

Shapes: V = 2 views, B images, D outputs and K inputs of the layer.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from parts.contenders import Work
from trainables import runtime
from trainables.models.heads import BYOL_HIDDEN
from trainables.ssl.losses import regression_loss
from trainables.ssl.tracin import output_gradients, pairwise_tracin

NUM_IMAGES, EMBEDDING_DIM = 256, 256


@dataclass(frozen=True)
class _Layer:
    """The predictor's last layer, what it is given, and the targets."""

    layer: nn.Linear
    inputs_VBK: Tensor
    targets_VBD: Tensor

    @classmethod
    def drawn(cls) -> _Layer:
        generator, device = runtime.generator("benchmark"), runtime.device()
        inputs_VBK = torch.randn(2, NUM_IMAGES, BYOL_HIDDEN, generator=generator).relu_()
        targets_VBD = torch.randn(2, NUM_IMAGES, EMBEDDING_DIM, generator=generator)
        layer = nn.Linear(BYOL_HIDDEN, EMBEDDING_DIM, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) / BYOL_HIDDEN**0.5)
        return cls(layer.to(device), inputs_VBK.to(device), targets_VBD.to(device))


def closed_form() -> Work:
    """Ours, from predictions that a step has made already; gives [B, B] for NumPy."""
    drawn = _Layer.drawn()
    with torch.no_grad():
        predictions_VBD = drawn.layer(drawn.inputs_VBK)

    def influence() -> object:
        pairs = zip(predictions_VBD, drawn.targets_VBD.flip(0), strict=True)
        gradients_VBD = torch.stack([output_gradients(*pair) for pair in pairs])
        found_BB = pairwise_tracin(gradients_VBD, drawn.inputs_VBK, gradients_VBD, drawn.inputs_VBK)
        return found_BB.cpu().numpy()

    return influence


def of_gradients() -> Work:
    """The gradient of each image's loss with respect to the weights, and their products."""
    drawn = _Layer.drawn()
    parameters = {name: values.detach() for name, values in drawn.layer.named_parameters()}

    def loss(parameters: dict[str, Tensor], inputs_VK: Tensor, targets_VD: Tensor) -> Tensor:
        return regression_loss(functional_call(drawn.layer, parameters, (inputs_VK,)), targets_VD.flip(0)).sum()

    of_each = vmap(grad(loss), in_dims=(None, 1, 1))

    def influence() -> object:
        rows_BP = of_each(parameters, drawn.inputs_VBK, drawn.targets_VBD)["weight"].flatten(1)
        return (rows_BP @ rows_BP.T).cpu().numpy()

    return influence


def has_captum() -> bool:
    return importlib.util.find_spec("captum") is not None


def with_captum() -> Work:
    """TracInCPFast knows losses of one direction: the sum over both directions of either image has four."""
    from captum.influence import TracInCPFast
    from torch.utils.data import TensorDataset

    drawn = _Layer.drawn()

    def loss(predictions_BD: Tensor, wanted_BD: Tensor) -> Tensor:
        return (2 - 2 * functional.cosine_similarity(predictions_BD, wanted_BD, dim=1)).sum()

    loss.reduction = "sum"  # type: ignore[attr-defined]
    net = nn.Sequential(drawn.layer)
    directions = list(zip(drawn.inputs_VBK, drawn.targets_VBD.flip(0), strict=True))
    peers = [
        TracInCPFast(net, net[0], TensorDataset(*pair), ["only"], lambda *_: 1.0, loss, batch_size=NUM_IMAGES)
        for pair in directions
    ]

    def influence() -> object:
        return sum(peer.influence(pair, k=None) for peer in peers for pair in directions).detach().cpu().numpy()

    return influence
