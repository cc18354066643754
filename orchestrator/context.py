"""The world of one running trial: its journal, its checkpoints, its finished items, the results it may read."""

from __future__ import annotations

import itertools
import math
import posixpath
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from orchestrator.claims import Claim
from orchestrator.store import DamagedResult, Generation, Result, Store
from trainables.api.context import Arrays, Item
from trainables.api.errors import NonFiniteMetric
from trainables.api.identity import FileDigests, key_of
from trainables.api.trainable import Part, ReadsFiles, Trainable

_PROGRESS_S = 1.0
_LONGEST_NAME = 230  # MLflow's 250 without what is added to the names of means and summaries
_METRIC_NAME = re.compile(rf"[A-Za-z0-9_.:/ -]{{1,{_LONGEST_NAME}}}")
_STEPS = 2**63

Function = Callable[[Sequence[Any]], Sequence[Arrays]]
Finished = Callable[[list[int], Sequence[Arrays]], None]


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
        finished(batch, function([items[i] for i in batch]))


def check_metric(name: str, step: int) -> None:
    """Raise ValueError, naming it, for a metric that MLflow would not take."""
    if not _METRIC_NAME.fullmatch(name) or posixpath.normpath(name) != name or name.startswith(("/", "..")):
        raise ValueError(
            f"metric {name!r}: expected such as 'val/dice': up to {_LONGEST_NAME} letters (a-z), digits, '_', '-', "
            "'.', ':', spaces, and single '/' between words"
        )
    if not -_STEPS <= step < _STEPS:
        raise ValueError(f"step {step} of {name!r}: expected -2^63 <= step < 2^63")


class TrialContext:
    """Implements ``trainables.api.context.Context`` over a store."""

    def __init__(
        self,
        store: Store,
        key: str,
        claim: Claim,
        *,
        attempt: int,
        num_cpus: int,
        cache_dir: Path,
        work_dir: Path,
        checkpoint_interval_s: float,
        on_progress: Callable[[Progress], None],
        say: Callable[[str], None],
        spread: Spread = in_process,
    ) -> None:
        self._store, self._key, self._claim = store, key, claim
        self._cache_dir, self._num_cpus, self._work_dir = cache_dir, num_cpus, work_dir
        self._output_dir = work_dir / "output"
        self._output_dir.mkdir()
        self._interval_s, self._on_progress, self._say, self._spread = checkpoint_interval_s, on_progress, say, spread
        self._digests = FileDigests(cache_dir / "digests.json")
        self._rows: list[list[Any]] = []
        self._names = (f"{attempt:03d}-{uuid.uuid4().hex[:6]}-{n:05d}" for n in itertools.count(1))
        self._started = self._saved_at = time.monotonic()
        self._progress = Progress(0, 0, "")
        self._progress_at = -math.inf
        self._older, self._current, self._checkpoint_dir, self._items = self._resume(attempt)
        self._busy_before_s = self._current.busy_s

    # -- what the trainable sees ----------------------------------------------------------------------

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

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """See ``Context``."""
        if isinstance(step, bool) or not isinstance(step, int | np.integer):
            raise TypeError(
                f"step {step!r} of {sorted(metrics)}: expected an integer (an epoch, an index, whole degrees)"
            )
        now_ms = time.time_ns() // 1_000_000
        for name, value in metrics.items():
            check_metric(name, int(step))
            if not math.isfinite(value):
                raise NonFiniteMetric(name, float(value), int(step))
            self._rows.append([name, int(step), float(value), now_ms])

    def report_progress(self, done: float, total: float, unit: str) -> None:
        """See ``Context``."""
        self._progress = Progress(done, total, unit)
        if time.monotonic() - self._progress_at >= _PROGRESS_S:
            self._progress_at = time.monotonic()
            self._on_progress(self._progress)

    def offer_checkpoint(self, write: Callable[[Path], None]) -> bool:
        """See ``Context``."""
        if not self._is_due():
            return False
        with tempfile.TemporaryDirectory(dir=self._work_dir) as folder:
            write(Path(folder))
            name = f"checkpoints/{next(self._names)}"
            files = self._store.upload(Path(folder), f"trials/{self._key}/{name}")
        self._save(replace(self._current, checkpoint=name, checkpoint_files=files))
        return True

    def load_checkpoint(self) -> Path | None:
        """See ``Context``."""
        return self._checkpoint_dir

    def save_state(self, write: Callable[[Path], None]) -> None:
        """See ``Context``."""

    def key(self, part: Part) -> str:
        """See ``Context``."""
        return key_of(part, self._digests)

    def digests(self, part: ReadsFiles) -> Mapping[str, str]:
        """See ``Context``."""
        return {name: self._digests.digest(path) for name, path in part.source_files().items()}

    def result_dir(self, upstream: Trainable) -> Path:
        """See ``Context``."""
        return self._store.fetch(key_of(upstream, self._digests), self._cache_dir)

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
        done = self._items
        todo = [i for i in range(len(items)) if i not in done]
        batches = [todo[i : i + batch_size] for i in range(0, len(todo), batch_size)]
        unsaved: dict[int, Arrays] = {}

        def finished(batch: list[int], results: Sequence[Arrays]) -> None:
            if len(results) != len(batch):
                raise ValueError(f"the mapped function gave {len(results)} results for {len(batch)} items")
            done.update(zip(batch, results, strict=True))
            unsaved.update(zip(batch, results, strict=True))
            self.report_progress(len(done), len(items), "items")
            if self._is_due() and len(done) < len(items):
                self._save_items(unsaved)
                unsaved.clear()

        self.report_progress(len(done), len(items), "items")
        self._spread(function, batches, items, finished)
        return [done[i] for i in range(len(items))]

    # -- what the trial process does with it ----------------------------------------------------------

    def publish(self, metrics: Mapping[str, float], *, work_flop: float, provenance: Mapping[str, str]) -> Result:
        """Publish the output folder, the journal and the summary metrics as the result of the trial.

        Raises ClaimLost, having touched nothing, when another process has taken over.
        """
        for name, value in metrics.items():
            check_metric(name, 0)
            if not math.isfinite(value):
                raise NonFiniteMetric(name, float(value), None)
        self._claim.check()
        folder = f"trials/{self._key}/files"
        self._store.remove(folder)
        files = self._store.upload(self._output_dir, folder)
        result = Result(
            key=self._key,
            metrics={name: float(value) for name, value in metrics.items()},
            files=files,
            segments=self._write_rows(),
            started_at=self._current.started_at,
            ended_at=time.time(),
            busy_s=self._busy_s(),
            attempt=self._current.attempt,
            work_flop=work_flop,
            provenance=dict(provenance),
        )
        self._claim.check()
        self._store.publish(result)
        return result

    # -- resuming -------------------------------------------------------------------------------------

    def _resume(self, attempt: int) -> tuple[list[Generation], Generation, Path | None, dict[int, Arrays]]:
        """The newest generation that is whole (a damaged one is passed over), with its checkpoint and items."""
        generations = self._store.generations(self._key)
        for position, generation in enumerate(generations):
            try:
                checkpoint_dir = self._read_checkpoint(generation)
                items = self._read_items(generation)
                for segment in generation.segments:
                    self._store.segment(self._key, segment)
            except DamagedResult as error:
                self._say(f"{error}; going on from the state before it")
                continue
            return generations[position:], replace(generation, attempt=attempt), checkpoint_dir, items
        return [], Generation(attempt=attempt, started_at=time.time()), None, {}

    def _read_checkpoint(self, generation: Generation) -> Path | None:
        if generation.checkpoint is None:
            return None
        folder = f"trials/{self._key}/{generation.checkpoint}"
        return self._store.download(folder, generation.checkpoint_files, self._work_dir / "checkpoint")

    def _read_items(self, generation: Generation) -> dict[int, Arrays]:
        folder = self._store.download(f"trials/{self._key}/items", generation.item_files, self._work_dir / "items")
        items: dict[int, dict[str, np.ndarray[Any, Any]]] = {}
        for name in generation.items:
            with np.load(folder / name, allow_pickle=False) as arrays:
                for entry in arrays.files:
                    position, _, array_name = entry.partition("/")
                    items.setdefault(int(position), {})[array_name] = arrays[entry]
        return dict(items)

    # -- saving ---------------------------------------------------------------------------------------

    def _is_due(self) -> bool:
        return time.monotonic() - self._saved_at >= self._interval_s

    def _save_items(self, unsaved: Mapping[int, Arrays]) -> None:
        with tempfile.TemporaryDirectory(dir=self._work_dir) as folder:
            name = f"{next(self._names)}.npz"
            arrays = {f"{i}/{entry}": array for i, result in unsaved.items() for entry, array in result.items()}
            np.savez(Path(folder) / name, **arrays)  # type: ignore[arg-type]
            files = self._store.upload(Path(folder), f"trials/{self._key}/items")
        self._save(
            replace(
                self._current,
                items=[*self._current.items, name],
                item_files={**self._current.item_files, **files},
            )
        )

    def _save(self, generation: Generation) -> None:
        """Make a new resumable state valid; the one before it is kept, older checkpoints go."""
        self._claim.check()
        generation = replace(
            generation, segments=self._write_rows(), fraction=self._progress.fraction, busy_s=self._busy_s()
        )
        kept = [generation, *self._older[:1]]
        self._store.write_generations(self._key, kept)
        for old in self._older[1:]:
            if old.checkpoint and old.checkpoint not in {g.checkpoint for g in kept}:
                self._store.remove(f"trials/{self._key}/{old.checkpoint}")
        self._older, self._current = kept, generation
        self._saved_at = time.monotonic()

    def _write_rows(self) -> list[str]:
        if not self._rows:
            return self._current.segments
        name = self._store.write_segment(self._key, next(self._names), self._rows)
        self._rows = []
        self._current = replace(self._current, segments=[*self._current.segments, name])
        return self._current.segments

    def _busy_s(self) -> float:
        return self._busy_before_s + time.monotonic() - self._started
