"""Released MoCo checkpoints: what is in the file, what fits the encoder, and a report of every key.

The format is that of facebookresearch/moco: ``{epoch, arch, state_dict, optimizer}``, the query encoder under
``module.encoder_q.`` (``encoder_q.`` where it was saved without DataParallel), the head under ``fc``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainables.api.trainable import Part, recorded
from trainables.models.encoder import Encoder

_PREFIXES = ("module.encoder_q.", "encoder_q.")
_STEM = "conv1.weight"


@dataclass(frozen=True)
class ReleasedWeights(Part):
    """A released MoCo checkpoint, ``{epoch, arch, state_dict, optimizer}`` (facebookresearch/moco).

    Its content is hashed; where it lies is recorded only.
    """

    path: str = recorded()

    def source_files(self) -> dict[str, Path]:
        return {"weights": Path(self.path)}


@dataclass(frozen=True)
class LoadReport:
    """What became of every key of a checkpoint."""

    file: str
    sha256: str
    arch: str | None
    epoch: int | None
    loaded: tuple[str, ...]
    """Keys of the query encoder, without prefix, that were taken; its head is among them."""
    adapted: tuple[str, ...]
    """Those of them whose shape was changed on the way, and how."""
    unused: tuple[str, ...]
    """Keys of the file that belong to other parts (key encoder, queue)."""

    def summary(self) -> str:
        """One sentence for people."""
        epoch = "unknown" if self.epoch is None else self.epoch
        return (
            f"continued from {self.file} ({self.arch or 'unnamed architecture'}, epoch {epoch}, sha256 "
            f"{self.sha256[:12]}): {len(self.loaded)} tensors of the query encoder with its head, "
            f"{len(self.adapted)} adapted, {len(self.unused)} of other parts not used"
        )

    def as_dict(self) -> dict[str, Any]:
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}


def load_released(weights: ReleasedWeights, encoder: Encoder) -> LoadReport:
    """Copy a released query encoder, with its head, into ``encoder``.

    A stem of three channels is summed to one where the encoder has one: that equals showing the grey image
    in all three, as one mean and std serve it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read without running code from it, is of another format or architecture, or
            any key of the query encoder is missing, unexpected or of another shape (all are listed). The encoder is
            left as it was.
    """
    path = Path(weights.path)
    checkpoint = _read(path)
    _check_arch(path, checkpoint.get("arch"), encoder)
    state, unused = _query_encoder(path, checkpoint["state_dict"])
    state, adapted = _adapt_stem(state, encoder.config.in_channels)
    _check_keys(path, state, encoder)
    encoder.load_released_state(state)
    epoch = checkpoint.get("epoch")
    return LoadReport(
        file=path.name,
        sha256=_sha256(path),
        arch=checkpoint.get("arch"),
        epoch=None if epoch is None else int(epoch),
        loaded=tuple(state),
        adapted=tuple(adapted),
        unused=tuple(unused),
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no released weights at {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be read as tensors and plain values ({str(error).splitlines()[0]}). If you trust the file, "
            "save it again with only {'epoch', 'arch', 'state_dict'} in it"
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), Mapping):
        found = sorted(map(str, checkpoint)) if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise ValueError(f"{path} is no released MoCo checkpoint: it needs a 'state_dict', and holds {found}")
    return checkpoint


def _check_arch(path: Path, arch: str | None, encoder: Encoder) -> None:
    if arch is not None and arch != encoder.config.backbone:
        raise ValueError(
            f"{path} holds a {arch}, but the encoder is a {encoder.config.backbone}: set backbone={arch!r}"
        )


def _query_encoder(path: Path, state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The query encoder's tensors without prefix, and the names of all others."""
    for prefix in _PREFIXES:
        state = {name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)}
        if state:
            return state, [name for name in state_dict if not name.startswith(prefix)]
    raise ValueError(f"{path} has no keys under {' or '.join(_PREFIXES)}; it begins with {list(state_dict)[:5]}")


def _adapt_stem(state: dict[str, Tensor], in_channels: int) -> tuple[dict[str, Tensor], list[str]]:
    stem = state.get(_STEM)
    if stem is None or stem.ndim != 4 or stem.shape[1] != 3 or in_channels != 1:
        return state, []
    return {**state, _STEM: stem.sum(dim=1, keepdim=True)}, [f"{_STEM}: three input channels summed to one"]


def _check_keys(path: Path, state: Mapping[str, Tensor], encoder: Encoder) -> None:
    expected = encoder.released_state()
    problems = [f"missing: {name}" for name in expected if name not in state]
    problems += [f"unexpected: {name}" for name in state if name not in expected]
    problems += [
        f"shape of {name}: {tuple(tensor.shape)} in the file, {tuple(expected[name].shape)} in the encoder"
        for name, tensor in state.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if problems:
        hint = _head_hint(state, encoder)
        raise ValueError(f"{path} does not fit the encoder{hint}:\n" + "\n".join(f"  {p}" for p in problems))


def _head_hint(state: Mapping[str, Tensor], encoder: Encoder) -> str:
    head = "v1" if "fc.weight" in state else "v2" if "fc.0.weight" in state else None
    if head is None:
        return " (it has no head; MoCo goes on training with its head)"
    return f" (its head is {head}: set head={head!r})" if head != encoder.config.head else ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
