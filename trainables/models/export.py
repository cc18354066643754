"""A trained trunk as a file that torchvision, and all that read its ResNets, load.

``python -m orchestrator export KEY --out encoder.safetensors`` calls ``export_result``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from trainables import runtime
from trainables.api.names import ENCODER_FILE
from trainables.models.encoder import Encoder, load_encoder

SUFFIXES = (".safetensors", ".pt", ".pth")
_STEM = "conv1.weight"


def export_result(folder: Path, out: Path) -> str:
    """``export_encoder`` of a pretraining's result, which lies in ``folder``."""
    return export_encoder(folder / ENCODER_FILE, out)


def export_encoder(encoder_file: Path, out: Path) -> str:
    """Write the trunk of ``encoder.pt`` as a state dict with torchvision's names; returns how to load it.

    It is the trunk alone: no ``fc``, as a projection head is no classifier, so set ``fc`` to ``nn.Identity()`` before
    a strict load, and the network gives the features. A stem for grey images is written for three channels, a third
    each: shown a grey image in all three, it gives the same. What images are standardised with stands in the
    metadata of a safetensors file, and in the text that is returned.

    Args:
        out: a name that ends in .safetensors, or in .pt or .pth for a file of torch.

    Raises:
        ValueError: another ending.
        FileNotFoundError: no encoder, or no folder for ``out``.
    """
    if out.suffix not in SUFFIXES:
        raise ValueError(f"{out}: the name has to end in {', '.join(SUFFIXES)}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"the folder {out.parent} does not exist: make it first")
    encoder = load_encoder(encoder_file)
    state, aside = _state(encoder), out.with_name(out.name + ".writing")
    if out.suffix == ".safetensors":
        save_file(state, aside, metadata=_metadata(encoder))
        os.replace(aside, out)
    else:
        runtime.save_state(out, state)
    return _how_to_load(encoder, out)


def _state(encoder: Encoder) -> dict[str, Tensor]:
    state = {name: tensor.detach().contiguous().clone() for name, tensor in encoder.trunk.state_dict().items()}
    if encoder.config.in_channels == 1:
        state[_STEM] = (state[_STEM] / 3).repeat(1, 3, 1, 1)
    return state


def _standardisation(encoder: Encoder) -> tuple[list[float], list[float]]:
    """Mean and std of three channels."""
    mean, std = encoder.mean.flatten().expand(3), encoder.std.flatten().expand(3)
    return mean.tolist(), std.tolist()


def _metadata(encoder: Encoder) -> dict[str, str]:
    mean, std = _standardisation(encoder)
    return {"format": "pt", "arch": encoder.config.backbone, "mean": json.dumps(mean), "std": json.dumps(std)}


def _how_to_load(encoder: Encoder, out: Path) -> str:
    read, modules = f'torch.load("{out}", weights_only=True)', "torch, torchvision"
    if out.suffix == ".safetensors":
        read, modules = f'safetensors.torch.load_file("{out}")', "safetensors.torch, torch, torchvision"
    mean, std = _standardisation(encoder)
    return (
        f"import {modules}\n"
        f"network = torchvision.models.{encoder.config.backbone}()\n"
        "network.fc = torch.nn.Identity()  # the file has no classifier: the network gives features\n"
        f"network.load_state_dict({read})\n"
        f"standardise = torchvision.transforms.Normalize({mean}, {std})  # of pixels in [0, 1], three channels\n"
    )
