"""What a result was made with: code, packages, machine. Recorded, never hashed; an allow-list, nothing else."""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from trainables.api.card import Card
from trainables.api.identity import Keys, parts_of
from trainables.api.trainable import ReadsFiles

_PACKAGES = ("torch", "torchvision", "ray", "mlflow", "optuna", "numpy", "polars", "scikit-image", "nibabel")
GIT_SHA_VARIABLE = "QUARTERTURN_GIT_SHA"


def provenance() -> dict[str, str]:
    """Code version and environment of this process, the driver."""
    return {"code_version": code_version(), **_software()}


def machine_provenance() -> dict[str, str]:
    """Device, processor, threads and versions of this process, which ran a trial: results differ by them in rounding.

    Torch is asked only where the trial has loaded it.
    """
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else len(os.sched_getaffinity(0))
    return {
        "device": _device(torch),
        "cpu": cpu_model(),
        "threads": str(threads),
        **_software(),
    }


@functools.cache
def _software() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **{f"version.{name}": _version(name) for name in _PACKAGES},
    }


def _device(torch: Any) -> str:
    """The accelerator that the trial has used, or ``cpu``."""
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return str(torch.cuda.get_device_name())
    return "cpu"


def cpu_model() -> str:
    """The processor of this machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def code_version() -> str:
    """The git commit of the code, with ``+changes`` if the tree differs from it; ``unknown`` outside a checkout.

    A Ray job runs in a copy without ``.git``: the submitter passes the commit in ``QUARTERTURN_GIT_SHA``.
    """
    if given := os.environ.get(GIT_SHA_VARIABLE):
        return given
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return "unknown"
    sha = _git(folder, "rev-parse", "HEAD")
    if sha is None:
        return "unknown"
    return f"{sha}+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else sha


def data_fingerprints(configuration: Any, keys: Keys) -> dict[str, str]:
    """Content digest of every part of a configuration that reads files, by class name; several joined by ``+``."""
    return _by_class(configuration, keys.content)


def file_fingerprints(configuration: Any, keys: Keys) -> dict[str, str]:
    """The same of the digests of all their files, which name documents in the store (``inputs.py``)."""
    return _by_class(configuration, keys.files_digest)


def _by_class(configuration: Any, digest: Callable[[ReadsFiles], str]) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for part in _parts_reading_files(configuration):
        found.setdefault(type(part).__name__, set()).add(digest(part))
    return {name: "+".join(sorted(digests)) for name, digests in found.items()}


@runtime_checkable
class _ImageDataSet(ReadsFiles, Protocol):
    """Of the parts that read files, data sets of images have a card; masks, labels and weights have none."""

    def card(self) -> Card:
        """The data set in a few facts."""


def image_data_sets(configuration: Any) -> list[str]:
    """Class names of the parts of a configuration that are data sets of images."""
    return sorted(
        {type(part).__name__ for part in _parts_reading_files(configuration) if isinstance(part, _ImageDataSet)}
    )


def without_password(text: str) -> str:
    """A text fit for records: ``user:password@`` is cut out of every URI, and the value of ``password=``.

    Only before the host, which ends at the first slash: a folder's name may hold an ``@``.
    """
    text = re.sub(r"(?<=://)[^\s/?#]*@", "", text)
    return re.sub(r"([?&]password=)[^&\s]*", r"\1...", text)


def first_line(error: Exception) -> str:
    """An error for a person: one line, without a password."""
    return without_password((str(error).splitlines() or [type(error).__name__])[0])[:300]


def _parts_reading_files(value: Any) -> Iterator[ReadsFiles]:
    if isinstance(value, ReadsFiles):
        yield value
    for part in parts_of(value):
        yield from _parts_reading_files(part)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
