"""What a researcher writes down: one question, the trials that answer it, and the report over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.store import Store
from trainables.api.trainable import Trainable

Manifest = dict[str, Any]
Report = Callable[[Store, Manifest, Path], Sequence[Path]]


@dataclass(frozen=True)
class Resources:
    """What one worker of a trial occupies on the cluster."""

    cpus: float = 1.0
    gpus: float = 0.0
    workers: int = 1

    def __post_init__(self) -> None:
        if self.cpus <= 0 or self.gpus < 0 or self.workers < 1:
            raise ValueError(f"{self} is impossible: expected cpus > 0, gpus >= 0 and workers >= 1")


@dataclass(frozen=True)
class Study:
    """One research question.

    ``trials`` names the trainables the answer needs; what they depend on is found in their fields. ``report`` gets the
    store, the manifest of the submission and an output folder, and returns the paths worth showing, the main one first.
    """

    name: str
    question: str
    trials: Mapping[str, Trainable]
    report: Report | None = None
    facts: Mapping[str, str] = field(default_factory=dict)  # said in report and MLflow: scale, kind of start, ...

    def __post_init__(self) -> None:
        if not self.name.replace("_", "").replace("-", "").isalnum():
            raise ValueError(f"study name {self.name!r}: expected letters, digits, '_' and '-' (it names folders)")
        if not self.trials:
            raise ValueError(f"study {self.name!r} has no trials: give at least one trainable")
