"""Checkpoints in the released format, with random weights."""

import torch
import torchvision
from torch import nn

from trainables.models.released import ReleasedWeights


def released_checkpoint(head="v2", arch="resnet18", prefix="module.", dim=16):
    """The format of facebookresearch/moco, and the network in it."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        network = torchvision.models.resnet18(num_classes=dim)
        if head == "v2":
            network.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), network.fc)
    network(torch.rand(4, 3, 32, 32))  # running statistics that are not the initial ones
    weights = network.state_dict()
    state = {f"{prefix}{part}.{name}": w for part in ("encoder_q", "encoder_k") for name, w in weights.items()}
    state |= {f"{prefix}queue": torch.rand(dim, 32), f"{prefix}queue_ptr": torch.zeros(1, dtype=torch.long)}
    return {"epoch": 800, "arch": arch, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}, network


def save(checkpoint, folder):
    path = folder / "moco.pth.tar"
    torch.save(checkpoint, path)
    return ReleasedWeights(str(path))
