"""One attempt of one trial in the process that computes: context, run, publish."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cloudpickle

from orchestrator.checkpoints import Checkpoints, Member
from orchestrator.claims import Holding
from orchestrator.context import Progress, ReadingContext, Spread, TrialContext, in_process
from orchestrator.graph import Trial
from orchestrator.provenance import machine_provenance
from orchestrator.resources import Demand, demand_of
from orchestrator.storage import storage_mark
from orchestrator.store import Failure, Store
from orchestrator.study import Resources
from orchestrator.time_limit import time_limit

DEFAULT_CHECKPOINT_INTERVAL_S = 15.0
_FOLLOWS_WITHIN_S = 5.0

OnProgress = Callable[[Progress], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How trials run, the same for all of a submission. Nothing here changes a result."""

    storage_uri: str
    cache_dir: Path
    resources: Resources
    provenance: Mapping[str, str]
    checkpoint_interval_s: float = DEFAULT_CHECKPOINT_INTERVAL_S
    time_limit_s: float | None = None
    """Of one attempt."""


@dataclass(frozen=True)
class Payload:
    """A trial on its way to the process that runs it."""

    trial: Trial
    settings: Settings

    @property
    def demand(self) -> Demand:
        """What it holds while it runs."""
        return demand_of(self.trial.trainable, self.settings.resources)

    def encode(self) -> str:
        """As text, for a Tune configuration. By value where the class lives in the study's own file."""
        return base64.b64encode(cloudpickle.dumps(self)).decode()

    @staticmethod
    def decode(text: str) -> Payload:
        """The reverse of ``encode``; only for text from this cluster's own driver."""
        payload = cloudpickle.loads(base64.b64decode(text))
        assert isinstance(payload, Payload)
        return payload


@dataclass(frozen=True)
class Attempt:
    """A claimed trial that is to be computed."""

    payload: Payload
    number: int
    holding: Holding

    @property
    def store(self) -> Store:
        """Where its result goes."""
        return self.holding.store


def compute(
    attempt: Attempt, on_progress: OnProgress, say: Say, spread: Spread = in_process, num_workers: int = 1
) -> None:
    """Run the trainable from its furthest state and publish the result. Raises what goes wrong.

    ``num_workers`` processes do so at once, of which this one, the first, is the only one that writes.
    """
    trial, settings, store = attempt.payload.trial, attempt.payload.settings, attempt.store
    with _work_dir(attempt, "trial") as work_dir, _time_limit(attempt, work_dir):
        checkpoints = Checkpoints(
            store,
            trial.key,
            attempt.holding,
            attempt=attempt.number,
            work_dir=work_dir,
            interval_s=settings.checkpoint_interval_s,
            say=say,
            member=Member(trial.family, trial.length) if trial.family is not None else None,
            num_workers=num_workers,
        )
        context = TrialContext(
            store,
            trial.key,
            checkpoints,
            num_cpus=_num_cpus(settings),
            cache_dir=settings.cache_dir,
            work_dir=work_dir,
            on_progress=on_progress,
            spread=spread,
            parts=trial.parts,
        )
        try:
            metrics = trial.trainable.run(context)
            provenance = {**settings.provenance, **machine_provenance(), "workers": str(num_workers)}
            context.publish(metrics, work_flop=trial.trainable.work_flop(), provenance=provenance)
        finally:
            checkpoints.close()


def follow(attempt: Attempt, rank: int) -> None:
    """Run the trainable beside the first process of a trial: read what it reads, and write nothing."""
    trial, settings = attempt.payload.trial, attempt.payload.settings
    # The first process, which writes, ends first where all of them hang.
    with _work_dir(attempt, f"rank-{rank}") as work_dir, _time_limit(attempt, work_dir, margin_s=_FOLLOWS_WITHIN_S):
        cache_dir, num_cpus = settings.cache_dir, _num_cpus(settings)
        trial.trainable.run(
            Follower(attempt.store, trial.parts, num_cpus=num_cpus, cache_dir=cache_dir, work_dir=work_dir)
        )


class Follower(ReadingContext):
    """The context of the other processes of a trial."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """The first process does."""

    def report_progress(self, done: float, total: float, unit: str) -> None:
        """The first process does."""

    def offer_checkpoint(self, write: Callable[[Path], None]) -> bool:
        """The first process takes it."""
        return False

    def load_checkpoint(self) -> Path | None:
        """The first process has it, and shares it."""
        return None

    def save_state(self, write: Callable[[Path], None]) -> None:
        """The first process does."""


def _num_cpus(settings: Settings) -> int:
    return max(1, int(settings.resources.cpus))


@contextlib.contextmanager
def _time_limit(attempt: Attempt, work_dir: Path, margin_s: float = 0.0) -> Iterator[None]:
    """End this process, with word of it and without its folder, when the attempt takes too long."""
    limit_s, key = attempt.payload.settings.time_limit_s, attempt.payload.trial.key

    def record(failure: Failure) -> None:
        # Else another process took over while this one stood still, or the first has published and one beside it hangs.
        if attempt.holding.is_mine() and attempt.store.result(key) is None:
            attempt.store.record_failure(key, failure)
        shutil.rmtree(work_dir, ignore_errors=True)

    with time_limit(None if limit_s is None else limit_s + margin_s, attempt.number, record):
        yield


@contextlib.contextmanager
def _work_dir(attempt: Attempt, kind: str) -> Iterator[Path]:
    """A folder of this attempt's own in the cache; those of earlier ones, whose processes were killed, go."""
    cache_dir = attempt.payload.settings.cache_dir
    cache_dir.mkdir(parents=True, exist_ok=True)
    # Of this storage: another study may share the cache folder, and run the same trial into its own.
    prefix = f"{kind}-{storage_mark(attempt.store)}-{attempt.payload.trial.key}-"
    for abandoned in cache_dir.glob(f"{prefix}*"):  # nobody else runs this trial
        shutil.rmtree(abandoned, ignore_errors=True)
    work_dir = Path(tempfile.mkdtemp(prefix=prefix, dir=cache_dir))
    try:
        yield work_dir
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)


def default_cache_dir() -> Path:
    """Node-local cache, outside the results: ``QUARTERTURN_CACHE`` or the user's cache folder.

    Raises ValueError for a user without a home, as there are in containers.
    """
    if given := os.environ.get("QUARTERTURN_CACHE"):
        return Path(given)
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "quarterturn"
    try:
        return Path.home() / ".cache" / "quarterturn"
    except RuntimeError as error:
        raise ValueError(
            "this user has no home folder ($HOME is not set) to keep a cache in: give --cache-dir with a folder of "
            "this machine, or set QUARTERTURN_CACHE"
        ) from error
