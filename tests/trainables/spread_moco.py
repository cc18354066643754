"""MoCo of any precision on a small network, and everything that is left of it: for workers against one, and a GPU
against a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from fake_context import FakeContext, FollowerContext
from tiny_shapes import TinyShapes
from torch import Tensor, nn

from trainables import runtime
from trainables.data.cache import open_images
from trainables.models import encoder
from trainables.models.batch_norm import batch_norm_layer
from trainables.models.trunk import build_resnet
from trainables.ssl.moco import MoCo, MoCoTraining
from trainables.training import train

DATA = TinyShapes(num_train=18, num_val=5, image_size_px=33)
CONFIG = MoCo(DATA, backbone="resnet18", num_epochs=3, batch_size=8, queue_size=16, embedding_dim=16, key_momentum=0.9)


def cut_short() -> None:
    """Leave of every ResNet-18 that this process builds the stem, the first stage and a step to the features."""

    def build(backbone: Any, batch_norm_groups: int = 1) -> Any:
        resnet = build_resnet(backbone, batch_norm_groups)
        resnet.layer2 = resnet.layer3 = nn.Identity()
        last = nn.Conv2d(64, 512, kernel_size=3, stride=4, bias=False)
        resnet.layer4 = nn.Sequential(last, batch_norm_layer(batch_norm_groups)(512), nn.ReLU())
        return resnet

    encoder.build_resnet = build


def context_of_worker(root: Path, **arguments: Any) -> FakeContext:
    """The real context for the first worker, one that keeps nothing for the others; the cache is on one machine."""
    rank = runtime.world().rank
    if rank == 0:
        return FakeContext(root, **arguments)
    return FollowerContext(root / f"worker {rank}", cache_dir=root / "cache")


def training_in(dtype: torch.dtype, config: MoCo, context: FakeContext) -> MoCoTraining:
    """A training whose images, networks and queue have this precision."""
    training = MoCoTraining(config, open_images(config.data, context))
    for part in (training.query, training.key, training.queue):
        part.to(dtype)
    for images in (training.train_images, training.val_images):
        make = images.images
        images.images = lambda positions, make=make: make(positions).to(dtype)  # type: ignore[method-assign,misc]
    return training


def trained(dtype: torch.dtype, config: MoCo, root: Path) -> dict[str, Tensor]:
    """Metrics of every epoch and the whole state at the end, of this worker."""
    context = context_of_worker(root)
    training = training_in(dtype, config, context)
    train(training, config.num_epochs, context)
    rows = {f"{name} of epoch {step}": torch.tensor(value) for step, row in context.rows for name, value in row.items()}
    return rows | state_of(training)


def state_of(training: MoCoTraining) -> dict[str, Tensor]:
    """Both networks with their running statistics, the queue, and the optimizer's momenta, on the CPU."""
    found = {}
    for part in ("query", "key", "queue"):
        state = getattr(training, part).state_dict()
        found |= {f"{part} {name}": value.cpu() for name, value in state.items() if isinstance(value, Tensor)}
    momenta = training.optimizer.state_dict()["state"]
    return found | {f"momentum {place}": state["momentum_buffer"].cpu() for place, state in momenta.items()}


def differences(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """How far each tensor is away, largest difference over largest value."""
    assert found.keys() == expected.keys()
    return {
        name: float((found[name].double() - values.double()).abs().max())
        / max(float(values.double().abs().max()), 1e-12)
        for name, values in expected.items()
    }
