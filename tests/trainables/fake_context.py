"""A Context in this process: what a trial sees, without an orchestrator, and with deaths on demand."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trainables.api.errors import NonFiniteMetric
from trainables.api.identity import FileDigests, key_of
from trainables.api.trainable import Trainable


class Killed(Exception):
    """The process of the trial ended here."""


class FakeContext:
    """One trial in a temporary folder.

    Args:
        root: holds ``output``, ``cache`` and ``checkpoint``.
        upstream: pairs (trainable, folder of its result) for ``result_dir``.
        kill_after_checkpoints: raise Killed once so many checkpoints were taken.
        kill_after_items: raise Killed in ``map`` once so many items are finished (and kept).
        keep_checkpoints: False refuses every offer.
    """

    def __init__(
        self,
        root: Path,
        *,
        num_cpus: int = 1,
        upstream: Sequence[tuple[Trainable, Path]] = (),
        kill_after_checkpoints: int | None = None,
        kill_after_items: int | None = None,
        keep_checkpoints: bool = True,
        cache_dir: Path | None = None,
    ) -> None:
        self.root, self.num_cpus = root, num_cpus
        self.output_dir, self.cache_dir = root / "output", cache_dir or root / "cache"
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        self.upstream = list(upstream)
        self.kill_after_checkpoints, self.kill_after_items = kill_after_checkpoints, kill_after_items
        self.keep_checkpoints = keep_checkpoints
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.progress: list[tuple[float, float, str]] = []
        self.num_checkpoints = 0
        self.finished_items: dict[int, Mapping[str, np.ndarray]] = {}
        self.batch_sizes: list[int] = []
        self._digests = FileDigests()

    def again(self) -> FakeContext:
        """The context of the next attempt: an empty output, the checkpoint and finished items kept, no deaths."""
        shutil.rmtree(self.output_dir)
        context = FakeContext(self.root, num_cpus=self.num_cpus, upstream=self.upstream, cache_dir=self.cache_dir)
        context.finished_items = dict(self.finished_items)
        return context

    def __reduce__(self) -> tuple[Any, ...]:
        """Between workers and the test: all but the digests, which are computed again."""
        rest = {name: value for name, value in vars(self).items() if name != "_digests"}
        return partial(type(self), self.root, cache_dir=self.cache_dir), (), rest

    def metric(self, name: str) -> list[float]:
        """The values of one metric, in the order of logging."""
        return [metrics[name] for _, metrics in self.rows if name in metrics]

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        assert isinstance(step, int)
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise NonFiniteMetric(name, value, step)
        self.rows.append((step, dict(metrics)))

    def report_progress(self, done: float, total: float, unit: str) -> None:
        assert 0 <= done <= total
        self.progress.append((done, total, unit))

    def offer_checkpoint(self, write: Callable[[Path], None]) -> bool:
        if not self.keep_checkpoints:
            return False
        aside = self.root / "checkpoint.aside"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        write(aside)
        shutil.rmtree(self.root / "checkpoint", ignore_errors=True)
        aside.rename(self.root / "checkpoint")
        self.num_checkpoints += 1
        if self.num_checkpoints == self.kill_after_checkpoints:
            raise Killed(f"after checkpoint {self.num_checkpoints}")
        return True

    def load_checkpoint(self) -> Path | None:
        folder = self.root / "checkpoint"
        return folder if folder.is_dir() else None

    def save_state(self, write: Callable[[Path], None]) -> None:
        shutil.rmtree(self.root / "state", ignore_errors=True)
        (self.root / "state").mkdir()
        write(self.root / "state")

    def start_from(self, shorter: FakeContext) -> FakeContext:
        """Begin where a shorter training of the family ended."""
        shutil.copytree(shorter.root / "state", self.root / "checkpoint")
        return self

    def key(self, part: Any) -> str:
        return key_of(part, self._digests)

    def digests(self, part: Any) -> Mapping[str, str]:
        return {name: self._digests.digest(path) for name, path in part.source_files().items()}

    def result_dir(self, upstream: Trainable) -> Path:
        for trainable, folder in self.upstream:
            if trainable == upstream:
                return folder
        raise KeyError(f"no result given for {upstream}")

    def map(
        self,
        function: Callable[[Sequence[Any]], Sequence[Mapping[str, np.ndarray]]],
        items: Sequence[Any],
        *,
        batch_size: int = 1,
    ) -> list[Mapping[str, np.ndarray]]:
        todo = [place for place in range(len(items)) if place not in self.finished_items]
        for start in range(0, len(todo), batch_size):
            places = todo[start : start + batch_size]
            results = function([items[place] for place in places])
            assert len(results) == len(places)
            self.batch_sizes.append(len(places))
            self.finished_items.update(zip(places, results, strict=True))
            self.report_progress(len(self.finished_items), len(items), "items")
            if self.kill_after_items is not None and len(self.finished_items) >= self.kill_after_items:
                raise Killed(f"after {len(self.finished_items)} items")
        return [self.finished_items[place] for place in range(len(items))]


class FollowerContext(FakeContext):
    """What a worker that is not the first has: it reads what all may read, keeps nothing and tells nobody anything."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Nobody hears it, whatever it is."""

    def report_progress(self, done: float, total: float, unit: str) -> None:
        """Nobody hears it."""

    def offer_checkpoint(self, write: Callable[[Path], None]) -> bool:
        return False

    def load_checkpoint(self) -> Path | None:
        return None

    def save_state(self, write: Callable[[Path], None]) -> None:
        """Nothing is kept."""
