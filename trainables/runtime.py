"""The one place that knows devices, threads, precision, random numbers and state files."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.world import World, current_world, own_gpu

_CGROUPS_OF_PROCESS = Path("/proc/self/cgroup")
_CGROUP_ROOT = Path("/sys/fs/cgroup")
# glibc's numbers for mallopt, and the largest threshold that it accepts.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGEST_HEAP_BLOCK_BYTES = 32 << 20
_KEPT_BYTES = (1 << 31) - 1
_SEED_BITS = 63
# SplitMix64 (Steele, Lea & Flood 2014): the increment and the two multipliers of its output function.
_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def world() -> World:
    """The workers that share what this process does: those of torch.distributed where a group of processes was
    started, else this process alone."""
    return current_world()


def device() -> torch.device:
    """CUDA when there is one, else the CPU. Of several workers each has a GPU of its own, by its ``LOCAL_RANK``."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    workers = world()
    return torch.device("cuda") if workers.size == 1 else own_gpu(workers.rank)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on the device; for the CPU, what the system can give without swapping, and no more
    than what is left of the limits of this process's containers (cgroups, version 1 or 2)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo") as file:
            available = next(line for line in file if line.startswith("MemAvailable:"))
        machine = int(available.split()[1]) * 1024
    except (OSError, StopIteration):  # no Linux: count the free pages only
        machine = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *_left_in_containers()])


def _left_in_containers() -> list[int]:
    """What each limited cgroup around this process has left; file pages that can be dropped count as free."""
    try:
        lines = [line.split(":", 2) for line in _CGROUPS_OF_PROCESS.read_text().splitlines()]
    except OSError:
        return []
    left: list[int] = []
    for _, controllers, place in (line for line in lines if len(line) == 3):
        if not controllers:
            root, names = _CGROUP_ROOT, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root, names = (
                _CGROUP_ROOT / "memory",
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            )
        else:
            continue
        # In a container the place may be the host's name for it, of which only the root is mounted.
        inner = root / place.strip("/")
        for folder in (inner, *inner.parents[: len(inner.parts) - len(root.parts)]):
            left += _left_in_container(folder, *names)
    return left


def _left_in_container(folder: Path, limit_name: str, usage_name: str, droppable: str) -> list[int]:
    """At most one number: nothing where there is no limit, or no such folder."""
    try:
        limit, usage = int((folder / limit_name).read_text()), int((folder / usage_name).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # "max" is no limit
        return []
    return [max(0, limit - usage + int(stat.get(droppable, 0)))]


def use_cores(num_cpus: int) -> None:
    """Let this process keep ``num_cpus`` cores busy, and make it repeatable: bitwise on a CPU with the same number of
    cores, on a GPU up to the order of atomic additions (max pooling backwards).

    float32 means float32 on every device (no TF32), and cuDNN takes deterministic algorithms, because
    device and number of workers are no part of a result's identity.

    Raises:
        ValueError: fewer than one core.
    """
    if num_cpus < 1:
        raise ValueError(f"num_cpus = {num_cpus}: a trial needs at least one core")
    torch.set_num_threads(num_cpus)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def keep_freed_memory() -> None:
    """Let this process keep up to 2 GiB of freed memory for itself instead of returning it at once.

    On a CPU, every activation would otherwise lie in fresh pages that the system first has to fill with zeros: 7 % of
    the time of a pass. It holds for blocks of up to ``LARGEST_HEAP_BLOCK_BYTES``, and with glibc only; elsewhere it
    does nothing. For processes that exist for this work.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def autocast(device: torch.device, enabled: bool) -> AbstractContextManager[Any]:
    """Matrix products and convolutions in bfloat16 inside the block, where ``enabled``."""
    return torch.autocast(device_type=device.type, dtype=torch.bfloat16, enabled=enabled)


def full_precision(values: Tensor) -> Tensor:
    """What autocast made less precise as float32; anything else as it is."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def seed_of(*parts: int | str) -> int:
    """A seed in [0, 2^63) that depends on every part and their order, and is the same on every machine."""
    text = json.dumps([int(part) if isinstance(part, int | np.integer) else str(part) for part in parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - _SEED_BITS)


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator for what the parts name, for example ``generator("order", seed, epoch)``.

    Random numbers drawn per (seed, epoch, index), instead of from one running stream, are what makes a
    killed and resumed training equal to an undisturbed one.
    """
    return torch.Generator().manual_seed(seed_of(*parts))


def uniforms(indices: Tensor | np.ndarray[Any, Any], num_draws: int, *parts: int | str) -> Tensor:
    """Uniform numbers for each index, independent of which other indices are asked for.

    The index picks the place in the SplitMix64 stream that ``parts`` seed, so a whole batch is drawn at
    once and a sample's numbers depend on (parts, index, num_draws) only.

    Args:
        indices: [B], non-negative.
        num_draws: numbers for each index.

    Returns:
        [B, num_draws] float64 in [0, 1), on the CPU.
    """
    places: Any = np.asarray(indices, dtype=np.uint64)[:, None] * np.uint64(num_draws)
    places = places + np.arange(1, num_draws + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is the method
        bits = np.uint64(seed_of(*parts)) + places * np.uint64(_GAMMA)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(_MIX_1)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(_MIX_2)
        bits = bits ^ (bits >> np.uint64(31))
    return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values as a torch file, whole or not at all."""
    aside = path.with_name(path.name + ".writing")
    torch.save(state, aside)
    os.replace(aside, path)


def load_state(path: Path) -> dict[str, Any]:
    """Read what ``save_state`` wrote, onto the CPU. Never unpickles code."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a dictionary of state")
    return state
