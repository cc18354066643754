"""A training step of BYOL as lightly's example writes it (lightly-ai/lightly, examples/pytorch/byol.py), to hold ours
against.

Shapes: B images, C channels, H x W pixels, F features, D embedding dimensions, K hidden units.
"""

from __future__ import annotations

import copy
import importlib.util

import torch
import torchvision
from torch import Tensor, nn

from trainables.ssl.byol_networks import BYOLNetworks


def has_lightly() -> bool:
    """Whether lightly's own classes can be used; otherwise plain modules stand for them."""
    return importlib.util.find_spec("lightly") is not None


class PeerBYOL:
    """Networks, loss and step of the example, with the weights of ours.

    lightly's heads have no bias before batch normalisation, which would take it out again, and one at their end, which
    ours lack: it begins at 0, so that both networks begin as one function.

    Args:
        networks: ours; its weights are copied. ResNet-18 for images of three channels.
        uses_lightly: its classes; else plain modules that do the same.
        momentum: of the target in every step.
    """

    def __init__(self, networks: BYOLNetworks, *, uses_lightly: bool, learning_rate: float, momentum: float) -> None:
        online, weight = networks.online, networks.predictor.last.weight
        self.momentum = momentum
        resnet = torchvision.models.resnet18(weights=None)
        resnet.load_state_dict(online.trunk.state_dict(), strict=False)
        self.backbone = nn.Sequential(*list(resnet.children())[:-1])
        num_features, embedding_dim = resnet.fc.in_features, len(weight)
        build = _lightly_heads if uses_lightly else _plain_heads
        self.projector, self.predictor = build(num_features, weight.shape[1], embedding_dim)
        _copy_head(online.head, self.projector)
        _copy_head(nn.Sequential(*networks.predictor.hidden, networks.predictor.last), self.predictor)
        self.trained = nn.ModuleList([self.backbone, self.projector, self.predictor])
        self.trained.to(weight.device, weight.dtype)
        self.target = copy.deepcopy(nn.ModuleList([self.backbone, self.projector])).requires_grad_(False)
        self.optimizer = torch.optim.SGD(self.trained.parameters(), lr=learning_rate, momentum=0.9, weight_decay=1e-5)
        self._loss = _lightly_loss() if uses_lightly else _negative_cosine
        self._update = _lightly_update if uses_lightly else _update

    def forward(self, first_BCHW: Tensor, second_BCHW: Tensor) -> Tensor:
        """The loss of two standardised views, the mean of two negative cosines in [-1, 1].

        The target moves before it; ours moves after a step.
        """
        for fast, slow in zip((self.backbone, self.projector), self.target, strict=True):
            self._update(fast, slow, self.momentum)
        first_BD, first_target_BD = self._predicted(first_BCHW), self._projected(first_BCHW)
        second_BD, second_target_BD = self._predicted(second_BCHW), self._projected(second_BCHW)
        loss: Tensor = 0.5 * (self._loss(first_BD, second_target_BD) + self._loss(second_BD, first_target_BD))
        return loss

    def descend(self, loss: Tensor) -> None:
        """One step of the optimizer."""
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _predicted(self, images_BCHW: Tensor) -> Tensor:
        predictions_BD: Tensor = self.predictor(self.projector(self.backbone(images_BCHW).flatten(start_dim=1)))
        return predictions_BD

    def _projected(self, images_BCHW: Tensor) -> Tensor:
        backbone, projector = self.target
        embeddings_BD: Tensor = projector(backbone(images_BCHW).flatten(start_dim=1))
        return embeddings_BD.detach()


def _lightly_heads(num_features: int, num_hidden: int, embedding_dim: int) -> tuple[nn.Module, nn.Module]:
    from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead

    projector = BYOLProjectionHead(num_features, num_hidden, embedding_dim)
    return projector, BYOLPredictionHead(embedding_dim, num_hidden, embedding_dim)


def _plain_heads(num_features: int, num_hidden: int, embedding_dim: int) -> tuple[nn.Module, nn.Module]:
    def head(num_inputs: int) -> nn.Module:
        first = nn.Linear(num_inputs, num_hidden, bias=False)
        return nn.Sequential(first, nn.BatchNorm1d(num_hidden), nn.ReLU(), nn.Linear(num_hidden, embedding_dim))

    return head(num_features), head(embedding_dim)


@torch.no_grad()
def _copy_head(ours: nn.Module, theirs: nn.Module) -> None:
    """Weights of Linear-BN-ReLU-Linear; both begin with the same batch normalisation."""
    pairs = zip(linear_layers(ours), linear_layers(theirs), strict=True)
    for own, peer in pairs:
        peer.weight.copy_(own.weight)
        if peer.bias is not None:
            peer.bias.zero_()


def linear_layers(head: nn.Module) -> list[nn.Linear]:
    """Of a head, in order."""
    return [layer for layer in head.modules() if isinstance(layer, nn.Linear)]


def _lightly_loss() -> nn.Module:
    from lightly.loss import NegativeCosineSimilarity

    loss: nn.Module = NegativeCosineSimilarity()
    return loss


def _negative_cosine(predictions_BD: Tensor, targets_BD: Tensor) -> Tensor:
    return -torch.cosine_similarity(predictions_BD, targets_BD, dim=1).mean()


def _lightly_update(fast: nn.Module, slow: nn.Module, momentum: float) -> None:
    from lightly.models.utils import update_momentum

    update_momentum(fast, slow, m=momentum)


@torch.no_grad()
def _update(fast: nn.Module, slow: nn.Module, momentum: float) -> None:
    for of_fast, of_slow in zip(fast.parameters(), slow.parameters(), strict=True):
        of_slow.mul_(momentum).add_(of_fast, alpha=1 - momentum)
