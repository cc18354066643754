"""Files of weights as people download them: what is in them, or why they cannot be used.

Files of torch, read without running code from them, and of safetensors. The tensors lie at the top, as in state dicts
of torchvision and timm, or under ``state_dict`` (facebookresearch/moco, timm) or ``model`` (torchvision's references).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors.torch import load_file
from torch import Tensor

_CONTAINERS = ("state_dict", "model")
_ZIP_BEGINS = b"PK\x03\x04"
_PAGE_BEGINS = (b"<!doctype", b"<html", b"<?xml")
_SAFETENSORS_LENGTH_BYTES = 8
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_NUMBERS = (*_FLOATS, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class WeightFile:
    """The tensors of a file by name, and what it says of them."""

    path: Path
    tensors: Mapping[str, Tensor]
    arch: str | None = None
    epoch: int | None = None


def read_weight_file(path: Path) -> WeightFile:
    """Read a file of weights onto the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: empty, a web page, truncated, damaged, with other objects than tensors and plain values in it, or
            without a state dict of dense tensors. Says which of them, and what to do.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no released weights at {path}")
    with path.open("rb") as file:
        beginning = file.read(512)
    _refuse_at_sight(path, beginning)
    if beginning[_SAFETENSORS_LENGTH_BYTES : _SAFETENSORS_LENGTH_BYTES + 1] == b"{":
        return WeightFile(path, _read_safetensors(path))
    return _of_checkpoint(path, _read_torch(path))


def refuse_non_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError naming every tensor with NaN or infinite values, or with other numbers than weights are."""
    if other := [f"  {name}: {tensor.dtype}" for name, tensor in tensors.items() if tensor.dtype not in _NUMBERS]:
        raise ValueError(f"{path} has weights of kinds that no network has; save them as float32:\n" + "\n".join(other))
    bad = {name: int((~tensor.isfinite()).sum()) for name, tensor in tensors.items()}
    problems = [f"  {name}: {count} of {tensors[name].numel()} values" for name, count in bad.items() if count]
    if problems:
        raise ValueError(
            f"{path} has weights that are NaN or infinite, so the training that wrote it had diverged; "
            "take an earlier checkpoint:\n" + "\n".join(problems)
        )


def _refuse_at_sight(path: Path, beginning: bytes) -> None:
    text = beginning.lstrip().lower()
    if not beginning:
        raise ValueError(f"{path} is empty (0 bytes): download it again")
    if text.startswith(_PAGE_BEGINS):
        raise ValueError(f"{path} is a web page, not weights: open the link in a browser, and save the file behind it")
    if text.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a pointer of Git LFS, not the weights: run `git lfs pull` where it came from")
    if beginning.startswith(_ZIP_BEGINS) and not _is_archive(path):
        raise _truncated(path)


def _truncated(path: Path) -> ValueError:
    size = path.stat().st_size
    return ValueError(f"{path} is truncated: its end is missing after {size:,} bytes; download or copy it again")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except MemoryError:
        raise
    # Also what torch refuses: types that it does not know, more values than it can count.
    except Exception as error:
        if _is_cut_off(path) or "incomplete" in str(error):
            raise _truncated(path) from error
        raise ValueError(f"{path} cannot be read as safetensors ({error}): download or copy it again") from error


def _is_cut_off(path: Path) -> bool:
    """Whether the header of a safetensors file, whose length stands at its beginning, is not all there."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(_SAFETENSORS_LENGTH_BYTES), "little")
    return _SAFETENSORS_LENGTH_BYTES + header_bytes > path.stat().st_size


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(_bounded(path), map_location="cpu", weights_only=True)
    except EOFError as error:
        raise _truncated(path) from error
    except MemoryError:
        raise
    # Damaged files fail in many ways (struct, zipfile, assertions): all of them mean this file is unusable.
    except Exception as error:
        reason = str(error)
        if "unexpected EOF" in reason or "truncated" in reason:
            raise _truncated(path) from error
        if "global" in reason.lower():
            raise ValueError(
                f"{path} holds other objects than tensors and plain values, and reading them would run code from the "
                "file. If you trust it, save it again with only {'epoch', 'arch', 'state_dict'} in it"
            ) from error
        raise ValueError(f"{path} cannot be read: it is no file of torch or safetensors, or it is damaged") from error


def _is_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # it ends as an archive, and opening it will say what is wrong
        return True


def _bounded(path: Path) -> Path | io.BytesIO:
    """What torch is to read, so that no length that the file claims takes more memory than the file has bytes.

    Raises ValueError for an archive whose members are larger than the file: torch never compresses them.
    """
    if not _is_archive(path):
        return io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
    if claimed > path.stat().st_size:
        raise ValueError(f"its members claim {claimed:,} bytes")
    return path


def _of_checkpoint(path: Path, content: Any) -> WeightFile:
    if isinstance(content, Mapping):
        arch, epoch = content.get("arch"), content.get("epoch")
        for tensors in (*(content.get(container) for container in _CONTAINERS), content):
            if _is_state_dict(tensors):
                _refuse_not_dense(path, tensors)
                return WeightFile(
                    path,
                    tensors,
                    arch if isinstance(arch, str) else None,
                    epoch if isinstance(epoch, int) else None,
                )
    found = sorted(map(str, content))[:10] if isinstance(content, Mapping) else type(content).__name__
    raise ValueError(
        f"{path} is no checkpoint: it needs a 'state_dict' or 'model' of tensors, or the tensors themselves, and "
        f"holds {found}"
    )


def _refuse_not_dense(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError naming every tensor whose values do not lie there one by one."""
    bad = [
        f"  {name}"
        for name, tensor in tensors.items()
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested or tensor.is_meta
    ]
    if bad:
        raise ValueError(
            f"{path} has tensors that are sparse, quantised, nested or without values; save them as dense float32:\n"
            + "\n".join(bad)
        )


def _is_state_dict(content: Any) -> TypeGuard[Mapping[str, Tensor]]:
    if not isinstance(content, Mapping):
        return False
    return bool(content) and all(isinstance(n, str) and isinstance(v, Tensor) for n, v in content.items())
