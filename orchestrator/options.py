"""The flags that all studies share."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro

from orchestrator.kinds import Kind

T = TypeVar("T")
_BUDGET = re.compile(r"(\d+\.?\d*)(gpuh|cpuh)")
_MOST_MINUTES = 60 * 24 * 365
DefaultInHelp = Annotated[T, tyro.conf.arg(help_behavior_hint="")]
"""A flag whose sentence says what holds without it: help adds no ``(default: None)``."""

RetriedClass = Literal["crashed", "out-of-memory", "disk-full", "invalid", "timed-out"]
"""The classes of failures that end a trial for good."""


@dataclass(frozen=True)
class StudyOptions:
    """Flags that every study has."""

    scale: Literal["smoke", "laptop", "full"] = "laptop"
    """How large: smoke takes seconds (tests), laptop minutes on packaged real images, full is the paper's own size."""
    data_root: DefaultInHelp[Path | None] = None
    """Folder that holds the data sets in their published layouts; not needed for packaged images."""
    pretrain_seeds: int = 3
    """How many pretrainings, each from a seed of its own, and as many untrained encoders."""
    skip_bad_files: DefaultInHelp[bool] = False
    """Leave out files that cannot be used, and list them, instead of stopping at them."""
    storage: DefaultInHelp[str | None] = None
    """Where results live: a folder or URL such as s3://bucket/results (default: $QUARTERTURN_STORAGE or ./results)."""
    tracking_uri: DefaultInHelp[str | None] = None
    """The MLflow server or database (default: $MLFLOW_TRACKING_URI or sqlite beside local results)."""
    cache_dir: DefaultInHelp[Path | None] = None
    """Node-local folder for decoded images (default: $QUARTERTURN_CACHE or ~/.cache/quarterturn)."""
    address: DefaultInHelp[str | None] = None
    """Address of a running Ray cluster (default: $RAY_ADDRESS, or Ray on this machine for this run only)."""
    max_concurrent: DefaultInHelp[int | None] = None
    """Run at most this many trials at once (default: as many as the cluster holds)."""
    time_limit: DefaultInHelp[float | None] = None
    """Minutes that one trial may take in one go; one that takes longer has failed (default: no limit)."""
    workers_per_trial: int = 1
    """Processes that share one trial, where it can be shared: the angles of a curve, the batches of a pretraining."""
    gpus_per_trial: DefaultInHelp[float | None] = None
    """GPUs for each worker; a fraction lets trials share one (default: 1 if the cluster shows GPUs now, else none)."""
    lag: DefaultInHelp[int | None] = None
    """Of a search: the n-th decision waits for the first n - LAG, and sees their results and no others, so that
    points do not depend on which trial ends first. Give at least the trials at once (default: all that is done)."""
    plan: DefaultInHelp[bool] = False
    """Show the trials (done, new, resumable, blocked) and the estimated cost; run nothing."""
    json: DefaultInHelp[bool] = False
    """With --plan: print one JSON object for scripts."""
    diff: DefaultInHelp[bool] = False
    """With --plan: what has changed since the last submission of the study, and why."""
    budget: DefaultInHelp[str | None] = None
    """Start nothing that may not fit: hours of GPUs or of cores, such as 40gpuh or 12.5cpuh (default: no limit)."""
    retry_failed: DefaultInHelp[tuple[RetriedClass, ...] | None] = None
    """Run failed trials again, and with them the trials that wait for them; only those of these classes, if any."""

    cpus_per_trial: tyro.conf.Suppress[float] = 1.0

    def __post_init__(self) -> None:
        for name in ("pretrain_seeds", "workers_per_trial"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected at least 1")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise ValueError(f"--max-concurrent {self.max_concurrent}: expected at least 1")
        if self.gpus_per_trial is not None and not 0 <= self.gpus_per_trial < math.inf:
            raise ValueError(
                f"--gpus-per-trial {self.gpus_per_trial:g}: expected 0, a share such as 0.5, or whole GPUs"
            )
        if self.time_limit is not None and not 0 < self.time_limit < _MOST_MINUTES:
            raise ValueError(f"--time-limit {self.time_limit:g}: expected minutes, more than 0 and less than a year")
        if self.lag is not None and self.lag < 1:
            raise ValueError(f"--lag {self.lag}: expected at least 1, which tries one point after the other")
        if self.budget is not None and not (_BUDGET.fullmatch(self.budget) and self.budget_h[1] > 0):
            raise ValueError(f"--budget {self.budget}: expected hours of GPUs or of cores, such as 40gpuh or 12.5cpuh")
        for name in ("json", "diff"):
            if getattr(self, name) and not self.plan:
                raise ValueError(f"--{name} goes with --plan")

    @property
    def kinds_to_retry(self) -> tuple[Kind, ...]:
        """The classes of failures that ``--retry-failed`` names: all of them where it names none."""
        if self.retry_failed == ():
            return tuple(Kind)
        return tuple(Kind(name.replace("-", " ")) for name in self.retry_failed or ())

    @property
    def budget_h(self) -> tuple[bool, float]:
        """Whether the budget is of GPUs, else of cores, and how many hours it has."""
        found = _BUDGET.fullmatch(self.budget or "")
        return (False, math.inf) if found is None else (found[2] == "gpuh", float(found[1]))
