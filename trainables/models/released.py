"""Released ResNets: which tensors of a file are the encoder, how they are made to fit, and a report of every key.

Two kinds of files. MoCo's (facebookresearch/moco) have the query encoder under ``module.encoder_q.``
(``encoder_q.`` where it was saved without DataParallel), its head under ``fc``. Others, of torchvision, timm and our
own export, are a plain ResNet (with or without ``module.``): what they have under ``fc`` is a classifier of other
images' classes, and is not taken.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from trainables.api.names import Backbone, MoCoHead
from trainables.api.trainable import Part, recorded
from trainables.models.encoder import Encoder, build_encoder, frozen
from trainables.models.trunk import NUM_FEATURES
from trainables.models.weight_files import WeightFile, read_weight_file, refuse_non_finite

_MOCO_PREFIXES = ("module.encoder_q.", "encoder_q.")
_PLAIN_PREFIXES = ("module.", "")
_STEM = "conv1.weight"
_HEAD = "fc."
_COUNTER = "num_batches_tracked"
# Residual blocks of each stage, and whether they are bottlenecks (He et al. 2016, Table 1).
_ARCHITECTURES: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
# The last layer of each head, whose rows are the embedding's dimensions.
_LAST_LAYER: dict[MoCoHead, str] = {"v1": "fc.weight", "v2": "fc.2.weight"}


@dataclass(frozen=True)
class ReleasedWeights(Part):
    """A released MoCo checkpoint to go on training from, ``{epoch, arch, state_dict, optimizer}``.

    Its content is hashed; where it lies is recorded only.
    """

    path: str = recorded()

    def source_files(self) -> dict[str, Path]:
        return {"weights": Path(self.path)}


@dataclass(frozen=True)
class _Network:
    """The tensors of one network of a file, and the prefix that their names have there."""

    file: WeightFile
    prefix: str
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class LoadReport:
    """What became of every key of a checkpoint."""

    file: str
    sha256: str
    arch: str | None
    epoch: int | None
    loaded: tuple[str, ...]
    """Keys of the encoder, without prefix, that were taken; its head is among them where it has one."""
    adapted: tuple[str, ...]
    """What was changed of them on the way, and how."""
    unused: tuple[str, ...]
    """Keys of the file that belong to other parts (key encoder, queue, classifier)."""

    def summary(self) -> str:
        """One sentence for people."""
        epoch = "unknown" if self.epoch is None else self.epoch
        has_head = any(name.startswith(_HEAD) for name in self.loaded)
        return (
            f"{self.file} ({self.arch or 'unnamed architecture'}, epoch {epoch}, sha256 {self.sha256[:12]}): "
            f"{len(self.loaded)} tensors of the encoder {'with its head' if has_head else 'without a head'}, "
            f"{len(self.adapted)} adapted, {len(self.unused)} of other parts not used"
        )

    def as_dict(self) -> dict[str, Any]:
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}


def load_released(weights: ReleasedWeights, encoder: Encoder) -> LoadReport:
    """Copy a released query encoder of MoCo, with its head, into ``encoder``.

    A stem of three channels is summed to one where the encoder has one: that equals showing the grey image
    in all three, as one mean and std serve it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read without running code from it, is of another format or architecture, has
            values that are not finite, or any key of the query encoder is missing, unexpected or of another shape (all
            are listed). The encoder is left as it was.
    """
    file = read_weight_file(Path(weights.path))
    network = _under(_MOCO_PREFIXES, file)
    if network is None:
        raise ValueError(
            f"{file.path} has no keys under {' or '.join(_MOCO_PREFIXES)}; it begins with {list(file.tensors)[:5]}. "
            "MoCo goes on training from a query encoder with its head; other weights can be measured as they are, "
            "with Released(path, ...)"
        )
    return _fill(network, encoder)


def released_encoder(
    path: Path, backbone: Backbone, in_channels: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[Encoder, LoadReport]:
    """The encoder that a file holds, frozen: MoCo's with its head, of any other ResNet the features as embeddings.

    Raises:
        FileNotFoundError, ValueError: as ``load_released``.
    """
    file = read_weight_file(path)
    network, head = _under(_MOCO_PREFIXES, file), None
    if network is not None:
        head = _head_of(network)
    else:
        network = _without_classifier(file)
    embedding_dim = NUM_FEATURES[backbone] if head is None else len(network.tensors[_LAST_LAYER[head]])
    encoder = build_encoder(backbone, head, in_channels, embedding_dim, mean, std)
    report = _fill(network, encoder)
    return frozen(encoder), report


def _under(prefixes: Sequence[str], file: WeightFile) -> _Network | None:
    """The network under the first of the prefixes that any name has."""
    for prefix in prefixes:
        tensors = {n.removeprefix(prefix): tensor for n, tensor in file.tensors.items() if n.startswith(prefix)}
        if tensors:
            return _Network(file, prefix, tensors)
    return None


def _without_classifier(file: WeightFile) -> _Network:
    network = _under(_PLAIN_PREFIXES, file)
    assert network is not None  # every name begins with nothing, and a file has names
    tensors = {name: tensor for name, tensor in network.tensors.items() if not name.startswith(_HEAD)}
    if _STEM not in tensors:
        raise ValueError(
            f"{file.path} holds no ResNet: there is no {_STEM}; it begins with {list(file.tensors)[:5]}. Expected are "
            f"the names of torchvision's ResNet, plain, under module., or under {' or '.join(_MOCO_PREFIXES)}"
        )
    return _Network(file, network.prefix, tensors)


def _head_of(network: _Network) -> MoCoHead:
    heads: tuple[MoCoHead, ...] = ("v2", "v1")
    for head in heads:
        last = network.tensors.get(_LAST_LAYER[head])
        if last is not None and last.ndim == 2:
            return head
    raise ValueError(
        f"{network.file.path} has a query encoder without MoCo's head: no {' or '.join(_LAST_LAYER.values())}"
    )


def _fill(network: _Network, encoder: Encoder) -> LoadReport:
    """Adapt the tensors of a network, check them, and copy them into the encoder."""
    file = network.file
    _check_backbone(network, encoder)
    state, adapted = _adapted(network.tensors, encoder)
    _check_keys(file.path, state, encoder)
    refuse_non_finite(file.path, state)
    encoder.load_released_state(state)
    taken = {network.prefix + name for name in network.tensors}
    return LoadReport(
        file=file.path.name,
        sha256=_sha256(file.path),
        arch=file.arch,
        epoch=file.epoch,
        loaded=tuple(network.tensors),
        adapted=tuple(adapted),
        unused=tuple(name for name in file.tensors if name not in taken),
    )


def _check_backbone(network: _Network, encoder: Encoder) -> None:
    """By what the file says of itself, else by its blocks; where neither is known, the keys will tell."""
    names = list(network.tensors)
    stages = [{n.split(".")[1] for n in names if n.startswith(f"layer{stage}.")} for stage in range(1, 5)]
    is_bottleneck = any(".conv3." in name for name in names)
    found = _ARCHITECTURES.get((tuple(map(len, stages)), is_bottleneck))
    if network.file.arch in _ARCHITECTURES.values():
        found = network.file.arch
    wanted = encoder.config.backbone
    if found is not None and found != wanted:
        raise ValueError(f"{network.file.path} holds a {found}, but the encoder is a {wanted}: set backbone={found!r}")


def _adapted(tensors: Mapping[str, Tensor], encoder: Encoder) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors as the encoder needs them, and what was changed."""
    state, changes = dict(tensors), []
    stem = state.get(_STEM)
    if stem is not None and stem.ndim == 4 and stem.shape[1] == 3 and encoder.config.in_channels == 1:
        state[_STEM] = stem.sum(dim=1, keepdim=True)
        changes.append(f"{_STEM}: three input channels summed to one")
    # Files from before torch 0.4.1 have no counters; nothing in evaluation reads them.
    counters = {name: t for name, t in encoder.released_state().items() if name.endswith(_COUNTER)}
    if not counters.keys() & state.keys():
        state |= counters
        changes.append(f"{_COUNTER}: the file has none, all {len(counters)} are 0")
    return state, changes


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
    if encoder.config.head is None:
        return ""
    head = "v1" if "fc.weight" in state else "v2" if "fc.0.weight" in state else None
    if head is None:
        return " (it has no head; MoCo goes on training with its head)"
    return f" (its head is {head}: give --head {head}, or head={head!r})" if head != encoder.config.head else ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
