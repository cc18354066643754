"""What trials compute on: what this machine has, and the names by which results know it.

Loads neither torch nor Ray.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.provenance import cpu_model
from orchestrator.resources import Amount, Capacity

_CPU = "CPU "
_PROC, _DEV = Path("/proc/driver/nvidia/gpus"), Path("/dev")


def device_of(provenance: Mapping[str, str]) -> str:
    """Name of the device of a result, by its provenance: that of its GPU, or ``CPU`` and the processor's model."""
    device = provenance.get("device", "cpu")
    return _CPU + provenance.get("cpu", "") if device == "cpu" else device


def is_cpu(device: str) -> bool:
    """Whether this is the name of a processor."""
    return device.startswith(_CPU)


def device_text(device: str) -> str:
    """A device for people: ``NVIDIA H100``, ``Intel Xeon Platinum 8481C``."""
    name = device.removeprefix(_CPU).partition("@")[0]
    for ornament in ("(R)", "(TM)", "(r)", "(tm)", "CPU", "Processor"):
        name = name.replace(ornament, "")
    return " ".join(name.split()) or "a CPU"


@dataclass(frozen=True)
class Devices:
    """What a submission will compute on, by the names of results. An empty name is one that is not known yet."""

    cpu: str = ""
    gpu: str | None = ""
    """None where there is none, or none is given to trials."""

    def of(self, uses_gpu: bool) -> str:
        """The device of one trial."""
        return self.gpu if uses_gpu and self.gpu is not None else self.cpu

    def among(self, measured: Iterable[str]) -> Devices:
        """The same, by the names of devices on which trials were ``measured``.

        What is not known is taken to be what most trials were measured on. A part of a GPU has its name and more
        (``NVIDIA H100 80GB HBM3 MIG 3g.40gb``), which only a process on it sees.
        """
        counts = Counter(measured)
        cpus = [name for name, _ in counts.most_common() if is_cpu(name)]
        gpus = [name for name, _ in counts.most_common() if not is_cpu(name)]
        gpu = self.gpu
        if gpu == "":
            gpu = gpus[0] if gpus else self._unseen_gpu
        elif gpu is not None and gpu not in gpus:
            gpu = next((name for name in gpus if name.startswith(f"{gpu} MIG")), gpu)
        return replace(self, cpu=self.cpu or (cpus[0] if cpus else _CPU), gpu=gpu)

    @property
    def _unseen_gpu(self) -> str | None:
        """Of this machine, where the processor is known, there is one; a cluster may have none."""
        return "GPU" if self.cpu else None


@functools.cache
def devices_here() -> Devices:
    """The processor and the first GPU of this machine."""
    return Devices(_CPU + cpu_model(), _gpu_model() if _num_gpus() else None)


def capacity_here() -> Capacity:
    """What Ray would find on this machine, if it were started on it."""
    return Capacity((Amount(float(len(os.sched_getaffinity(0))), float(_num_gpus())),))


def _num_gpus() -> int:
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len([path for path in _DEV.glob("nvidia[0-9]*") if path.name.removeprefix("nvidia").isdigit()])
    if chosen is None:
        return present
    return min(present, len([name for name in chosen.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]))


def _gpu_model() -> str:
    """As its driver tells, which is the name that torch gives it; empty where it does not tell."""
    for path in sorted(_PROC.glob("*/information")):
        models = [line for line in path.read_text().splitlines() if line.startswith("Model:")]
        if models:
            return models[0].partition(":")[2].strip()
    return ""


def devices_for(address: str | None, gpus_per_trial: float | None) -> Devices:
    """Those of a submission: of this machine, or not known before the cluster of this address has answered."""
    is_here = (address or os.environ.get("RAY_ADDRESS") or "local") == "local"
    found = devices_here() if is_here else Devices()
    return replace(found, gpu=None) if gpus_per_trial == 0 else found
