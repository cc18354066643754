"""A linear classifier on the trunk of an encoder.

Shapes: B images, C channels, H x W pixels, F features, K classes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from trainables import runtime
from trainables.models.encoder import Encoder, EncoderConfig, build_encoder
from trainables.models.trunk import NUM_FEATURES


class Classifier(nn.Module):
    """A trunk and a linear layer on its pooled features."""

    def __init__(self, encoder: Encoder, num_classes: int, *, seed: int = 0) -> None:
        """
        Args:
            encoder: is taken over; its head, if any, is not.
            seed: of the linear layer's initial weights; the global random state is left as it was.
        """
        super().__init__()
        self.encoder = encoder.without_head()
        self.num_classes = num_classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(runtime.seed_of("classifier", seed))
            self.last = nn.Linear(NUM_FEATURES[encoder.config.backbone], num_classes)
        self._is_encoder_frozen = False

    def freeze_encoder(self) -> None:
        """Its weights and running statistics stay as they are, also in training."""
        self._is_encoder_frozen = True
        self.encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        if self._is_encoder_frozen:
            self.encoder.eval()
        return self

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Images in [0, 1] to logits [B, K]."""
        logits_BK: Tensor = self.last(self.encoder(images_BCHW))
        return logits_BK


def save_classifier(classifier: Classifier, path: Path) -> None:
    """Write configuration and weights, batch-norm statistics, mean and std included."""
    state = {name: tensor.detach().cpu() for name, tensor in classifier.state_dict().items()}
    config = {"encoder": dataclasses.asdict(classifier.encoder.config), "num_classes": classifier.num_classes}
    runtime.save_state(path, {"config": config, "state_dict": state})


def load_classifier(path: Path) -> Classifier:
    """What ``save_classifier`` wrote: in evaluation mode, on the CPU, taking no gradient."""
    content = runtime.load_state(path)
    config = EncoderConfig(**content["config"]["encoder"])
    encoder = build_encoder(config.backbone, config.head, config.in_channels, config.embedding_dim)
    classifier = Classifier(encoder, content["config"]["num_classes"])
    classifier.load_state_dict(content["state_dict"], strict=True)
    return classifier.eval().requires_grad_(False)
