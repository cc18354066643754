"""The world of one running trial, as its trainable sees it; what is saved of it is in checkpoints.py."""

from __future__ import annotations

import math
import posixpath
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from orchestrator.checkpoints import Checkpoints
from orchestrator.claims import ClaimLost
from orchestrator.inputs import KnownPart, find, recorded_digests
from orchestrator.store import Result, Store
from trainables.api.context import Arrays, Item
from trainables.api.errors import NonFiniteMetric
from trainables.api.trainable import Part, ReadsFiles, Trainable

_PROGRESS_S = 1.0
_LONGEST_NAME = 230  # MLflow's 250 without what is added to the names of means and summaries
_METRIC_NAME = re.compile(rf"[A-Za-z0-9_.:/ -]{{1,{_LONGEST_NAME}}}")
_STEPS = 2**63

Function = Callable[[Sequence[Any]], Sequence[Arrays]]
Finished = Callable[[list[int], Sequence[Arrays], float], None]
"""A batch, its results, and the seconds that another process than the trial's own worked on it."""


@dataclass(frozen=True)
class Progress:
    """How far a trial is, for the live view."""

    done: float
    total: float
    unit: str

    @property
    def fraction(self) -> float:
        """Between 0 and 1."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0


class Spread(Protocol):
    """Runs batches of items somewhere and tells about each that is finished."""

    def __call__(self, function: Function, batches: list[list[int]], items: Sequence[Any], finished: Finished) -> None:
        """Apply ``function`` to every batch (lists of positions in ``items``)."""


def in_process(function: Function, batches: list[list[int]], items: Sequence[Any], finished: Finished) -> None:
    """One batch after the other, here."""
    for batch in batches:
        finished(batch, function([items[i] for i in batch]), 0.0)


def check_metric(name: str, step: int) -> None:
    """Raise ValueError, naming it, for a metric that MLflow would not take."""
    if not _METRIC_NAME.fullmatch(name) or posixpath.normpath(name) != name or name.startswith(("/", "..")):
        raise ValueError(
            f"metric {name!r}: expected such as 'val/dice': up to {_LONGEST_NAME} letters (a-z), digits, '_', '-', "
            "'.', ':', spaces, and single '/' between words"
        )
    if not -_STEPS <= step < _STEPS:
        raise ValueError(f"step {step} of {name!r}: expected -2^63 <= step < 2^63")


def _check_results(batch: Sequence[int], results: Sequence[Arrays]) -> None:
    """Raise TypeError or ValueError for what could not be kept and read back as it was given.

    At once: kept it is only where a trial takes long enough.
    """
    if not isinstance(results, Sequence):
        raise TypeError(f"the mapped function gave {_short(results)}: expected a list of results, one for each item")
    if len(results) != len(batch):
        raise ValueError(f"the mapped function gave {len(results)} results for {len(batch)} items")
    for position, result in zip(batch, results, strict=True):
        is_kept = isinstance(result, Mapping) and all(
            isinstance(name, str) and isinstance(array, np.ndarray | np.generic) and not array.dtype.hasobject
            for name, array in result.items()
        )
        if not is_kept:
            raise TypeError(
                f"item {position} of the mapped function gave {_short(result)}: expected a mapping of names to NumPy "
                "arrays of numbers or text"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


class ReadingContext:
    """The part of a context that writes nothing."""

    def __init__(
        self, store: Store, parts: Sequence[KnownPart], *, num_cpus: int, cache_dir: Path, work_dir: Path
    ) -> None:
        self._store, self._parts = store, parts
        self._cache_dir, self._num_cpus = cache_dir, num_cpus
        self._output_dir = work_dir / "output"
        self._output_dir.mkdir()

    @property
    def output_dir(self) -> Path:
        """See ``Context``."""
        return self._output_dir

    @property
    def cache_dir(self) -> Path:
        """See ``Context``."""
        return self._cache_dir

    @property
    def num_cpus(self) -> int:
        """See ``Context``."""
        return self._num_cpus

    def key(self, part: Part) -> str:
        """See ``Context``."""
        return find(part, self._parts).key

    def digests(self, part: ReadsFiles) -> Mapping[str, str]:
        """See ``Context``."""
        return recorded_digests(find(part, self._parts), self._store)

    def result_dir(self, upstream: Trainable) -> Path:
        """See ``Context``."""
        return self._store.fetch(find(upstream, self._parts).key, self._cache_dir)

    def map(
        self, function: Callable[[Sequence[Item]], Sequence[Arrays]], items: Sequence[Item], *, batch_size: int = 1
    ) -> list[Arrays]:
        """See ``Context``; for the one process of a trial that has one."""
        raise TypeError("context.map was called in one of several processes: set spreads = 'items' on the trainable")


class TrialContext(ReadingContext):
    """Implements ``trainables.api.context.Context`` over a store."""

    def __init__(
        self,
        store: Store,
        key: str,
        checkpoints: Checkpoints,
        *,
        num_cpus: int,
        cache_dir: Path,
        work_dir: Path,
        on_progress: Callable[[Progress], None],
        spread: Spread = in_process,
        parts: Sequence[KnownPart] = (),
    ) -> None:
        super().__init__(store, parts, num_cpus=num_cpus, cache_dir=cache_dir, work_dir=work_dir)
        self._key, self._checkpoints = key, checkpoints
        self._on_progress, self._spread = on_progress, spread
        self._progress_at = -math.inf

    # -- what the trainable sees ----------------------------------------------------------------------

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """See ``Context``."""
        if isinstance(step, bool) or not isinstance(step, int | np.integer):
            raise TypeError(
                f"step {step!r} of {sorted(metrics)}: expected an integer (an epoch, an index, whole degrees)"
            )
        now_ms = time.time_ns() // 1_000_000
        for name in metrics:
            check_metric(name, int(step))
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise NonFiniteMetric(name, float(value), int(step))
            self._checkpoints.add_row([name, int(step), float(value), now_ms])

    def report_progress(self, done: float, total: float, unit: str) -> None:
        """See ``Context``."""
        progress = Progress(done, total, unit)
        self._checkpoints.fraction = progress.fraction
        if time.monotonic() - self._progress_at >= _PROGRESS_S:
            self._progress_at = time.monotonic()
            self._on_progress(progress)

    def offer_checkpoint(self, write: Callable[[Path], None]) -> bool:
        """See ``Context``."""
        return self._checkpoints.offer(write)

    def load_checkpoint(self) -> Path | None:
        """See ``Context``."""
        return self._checkpoints.checkpoint_dir

    def save_state(self, write: Callable[[Path], None]) -> None:
        """See ``Context``."""
        self._checkpoints.save_state(write)

    def map(
        self,
        function: Callable[[Sequence[Item]], Sequence[Arrays]],
        items: Sequence[Item],
        *,
        batch_size: int = 1,
    ) -> list[Arrays]:
        """See ``Context``."""
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}: expected at least 1")
        done = self._checkpoints.items
        todo = [i for i in range(len(items)) if i not in done]
        batches = [todo[i : i + batch_size] for i in range(0, len(todo), batch_size)]
        unsaved: dict[int, Arrays] = {}

        def finished(batch: list[int], results: Sequence[Arrays], elsewhere_s: float) -> None:
            _check_results(batch, results)
            done.update(zip(batch, results, strict=True))
            unsaved.update(zip(batch, results, strict=True))
            self._checkpoints.add_busy(elsewhere_s)
            self.report_progress(len(done), len(items), "items")
            if len(done) < len(items) and self._checkpoints.is_due():
                self._checkpoints.save_items(unsaved)
                unsaved.clear()

        self.report_progress(len(done), len(items), "items")
        self._spread(function, batches, items, finished)
        return [done[i] for i in range(len(items))]

    # -- what the trial process does with it ----------------------------------------------------------

    def publish(self, metrics: Mapping[str, float], *, work_flop: float, provenance: Mapping[str, str]) -> Result:
        """Publish the output folder, the journal and the summary metrics as the result of the trial.

        The files go into a folder of this attempt's own, so that nothing of another one is touched. Raises ClaimLost
        when another process has taken over.
        """
        if not isinstance(metrics, Mapping):
            raise TypeError(f"run returned {metrics!r}: expected the summary metrics, a mapping of names to numbers")
        for name, value in metrics.items():
            check_metric(name, 0)
            if not math.isfinite(value):
                raise NonFiniteMetric(name, float(value), None)
        token, lineage = uuid.uuid4().hex[:12], self._checkpoints.continued_from
        came_from = {"continued_from": f"{lineage.key} at {lineage.length}"} if lineage else {}
        result = Result(
            key=self._key,
            metrics={name: float(value) for name, value in metrics.items()},
            files=self._store.upload(self._output_dir, f"trials/{self._key}/published/{token}"),
            segments=[],
            started_at=0.0,
            ended_at=0.0,
            busy_s=0.0,
            attempt=0,
            work_flop=work_flop,
            provenance={**provenance, **came_from},
            token=token,
        )
        published = self._checkpoints.publish(result)
        if published is None:
            raise ClaimLost(f"trial {self._key} was published by another process while this one did not answer")
        return published
