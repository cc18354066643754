"""The networks of BYOL: the online encoder with its predictor, and the target encoder (Grill et al. 2020, section 3.1).

Shapes: B images, C channels, H x W pixels, F features, D embedding dimensions, K hidden units of the predictor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from trainables import runtime
from trainables.models.batch_norm import SplitBatchNorm2d
from trainables.models.encoder import Encoder, EncoderConfig, build_encoder
from trainables.models.heads import Predictor
from trainables.models.momentum import momentum_copy


class BYOLNetworks(nn.Module):
    """All three. The target has batch statistics of its own, and like the online network it is used in training mode
    while training goes on."""

    def __init__(self, online: Encoder, predictor: Predictor) -> None:
        super().__init__()
        self.online, self.predictor = online, predictor
        self.target = momentum_copy(online)

    def passed(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One view through the online network: ``from_features`` of its trunk's."""
        return self.from_features(self.online.features(images_BCHW))

    def from_features(self, features_BF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The trunk's features [B, F] themselves, predictions [B, D], and inputs of the predictor's last layer
        [B, K]."""
        predictions_BD, hidden_BK = self.predictor(self.online.head(features_BF))
        return features_BF, predictions_BD, hidden_BK


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Within, batches are normalised as in training and leave the running statistics as they were."""
    layers = [layer for layer in network.modules() if isinstance(layer, SplitBatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def save_networks(networks: BYOLNetworks, path: Path) -> None:
    """Write the configuration of the encoders and all weights."""
    state = {name: tensor.detach().cpu() for name, tensor in networks.state_dict().items()}
    runtime.save_state(path, {"config": asdict(networks.online.config), "state_dict": state})


def load_networks(path: Path) -> BYOLNetworks:
    """What ``save_networks`` wrote: in evaluation mode, on the CPU, frozen."""
    content = runtime.load_state(path)
    config = EncoderConfig(**content["config"])
    online = build_encoder(config.backbone, config.head, config.in_channels, config.embedding_dim)
    networks = BYOLNetworks(online, Predictor(config.embedding_dim))
    networks.load_state_dict(content["state_dict"], strict=True)
    return networks.eval().requires_grad_(False)


def build_predictor(embedding_dim: int, batch_norm_groups: int, seed: int) -> Predictor:
    """A freshly initialised predictor; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(runtime.seed_of("predictor", seed))
        return Predictor(embedding_dim, batch_norm_groups)
