"""The Tune searcher that walks the graph: it hands out a trial as soon as its own upstream is done.

One Tune run executes the whole study, with no barrier between stages. A failed trial stops nobody but its dependents.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from orchestrator.plan import Trial

Encode = Callable[[Trial], dict[str, Any]]
Finished = Callable[[Trial, bool], bool]


class GraphSearcher(Searcher):
    """Suggests the trials of a plan in graph order."""

    def __init__(
        self, trials: Sequence[Trial], done: Collection[str], encode: Encode, finished: Finished, max_concurrent: int
    ) -> None:
        """``trials`` are to be run, upstream first; ``done`` are keys whose results exist already.

        ``encode`` makes a trial's Tune configuration. ``finished(trial, error)`` is called once a trial has ended, and
        tells whether its result is there.
        """
        super().__init__(metric=None, mode=None)
        self._waiting = list(trials)
        self._done = set(done)
        self._encode, self._finished, self._max_concurrent = encode, finished, max_concurrent
        self._running: dict[str, Trial] = {}
        self.blocked: dict[str, str] = {}  # key -> key of the upstream trial that failed

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next ready trial; None while all others wait for running ones; FINISHED at the end."""
        if not self._waiting and not self._running:
            return str(Searcher.FINISHED)
        if len(self._running) >= self._max_concurrent:
            return None
        for position, trial in enumerate(self._waiting):
            if self._done.issuperset(trial.upstream):
                self._running[trial_id] = self._waiting.pop(position)
                return self._encode(trial)
        return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Free or block what waits for this trial."""
        trial = self._running.pop(trial_id, None)
        if trial is None:
            return
        if self._finished(trial, error):
            self._done.add(trial.key)
        else:
            self._block_dependents(trial.key)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for a restore that never comes (see ``save``); the callbacks stay here."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the store is the state, and a new submission plans anew."""
        Path(checkpoint_path).write_text("{}")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore, see ``save``."""

    def _block_dependents(self, failed_key: str) -> None:
        stuck = {failed_key}
        for trial in self._waiting:  # upstream first, so one pass reaches all descendants
            if stuck.intersection(trial.upstream):
                stuck.add(trial.key)
                self.blocked[trial.key] = failed_key
        self._waiting = [trial for trial in self._waiting if trial.key not in stuck]
