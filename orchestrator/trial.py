"""Inside a Tune trial: claim the key, run the trainable with its context, publish the result or the failure."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from orchestrator.checkpoints import Checkpoints, Member
from orchestrator.claims import Claim, ClaimLost
from orchestrator.context import Finished, Function, Progress, Spread, TrialContext, in_process
from orchestrator.plan import Trial
from orchestrator.provenance import machine_provenance
from orchestrator.resources import Demand, demand_of
from orchestrator.store import DamagedResult, Failure, Store
from orchestrator.study import Resources
from trainables.api.context import Arrays
from trainables.api.errors import BadData, NonFiniteMetric
from trainables.api.identity import describe

DEFAULT_CHECKPOINT_INTERVAL_S = 15.0

# The same input fails the same way again, so none of these is retried. A file that is not found is none of them: a
# network share may be late on a fresh node.
_DETERMINISTIC = (
    BadData,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ImportError,
)


@dataclass(frozen=True)
class Settings:
    """How trials run, the same for all of a submission. Nothing here changes a result."""

    storage_uri: str
    cache_dir: Path
    resources: Resources
    provenance: Mapping[str, str]
    checkpoint_interval_s: float = DEFAULT_CHECKPOINT_INTERVAL_S


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


def run_in_tune(config: Mapping[str, Any]) -> None:
    """The function trainable that Ray Tune calls, in an actor that serves one trial after the other."""
    from ray import tune

    payload = Payload.decode(config["payload"])

    def on_progress(progress: Progress) -> None:
        # Not "done": that name tells Tune to stop the trial.
        tune.report({"items_done": progress.done, "items_total": progress.total, "unit": progress.unit})

    def say(message: str) -> None:
        tune.report({"message": message})

    spread = in_tasks(payload.demand) if payload.demand.num_workers > 1 else in_process
    run_trial(payload, on_progress, say, spread)


def run_trial(
    payload: Payload,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    say: Callable[[str], None] = print,
    spread: Spread = in_process,
) -> None:
    """Run one trial to its end unless it is done already.

    A failure that would come again is recorded in the store and not raised; anything else is noted and raised, so that
    Tune starts the trial again, from its last checkpoint. ``say`` gets what a person should know meanwhile.
    """
    trial = payload.trial
    store = Store(payload.settings.storage_uri)

    def on_wait(holder: str) -> None:
        say(f"waits for {holder}, which runs the same trial")

    failed_before = store.failure(trial.key)
    while store.result(trial.key) is None:
        with Claim(store, f"trials/{trial.key}", on_wait) as claim:
            store.settle_damage(trial.key)
            if store.result(trial.key) is not None or store.failure(trial.key) != failed_before:
                return  # it ended while this process waited
            try:
                _attempt(payload, store, claim, on_progress, say, spread)
            except ClaimLost as error:
                # Whoever took over has the trial now: wait for it like anybody else.
                say(str(error))
                continue
            return


def _attempt(
    payload: Payload,
    store: Store,
    claim: Claim,
    on_progress: Callable[[Progress], None],
    say: Callable[[str], None],
    spread: Spread,
) -> None:
    trial, cache_dir = payload.trial, payload.settings.cache_dir
    attempt = _begin_attempt(store, trial)
    cache_dir.mkdir(parents=True, exist_ok=True)
    # Of this storage: another study may share the cache folder, and run the same trial into its own.
    prefix = f"trial-{hashlib.sha256(store.uri.encode()).hexdigest()[:8]}-{trial.key}-"
    for abandoned in cache_dir.glob(f"{prefix}*"):  # nobody else runs this trial: its process was killed
        shutil.rmtree(abandoned, ignore_errors=True)
    work_dir = Path(tempfile.mkdtemp(prefix=prefix, dir=cache_dir))
    try:
        _run(payload, store, claim, attempt, work_dir, on_progress, say, spread)
    except ClaimLost:
        raise
    except Exception as error:
        claim.check()  # the failure of a process that was replaced says nothing about the trial
        _note_failure(store, trial, attempt, error)
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)


def _run(
    payload: Payload,
    store: Store,
    claim: Claim,
    attempt: int,
    work_dir: Path,
    on_progress: Callable[[Progress], None],
    say: Callable[[str], None],
    spread: Spread,
) -> None:
    trial, settings = payload.trial, payload.settings
    checkpoints = Checkpoints(
        store,
        trial.key,
        claim,
        attempt=attempt,
        work_dir=work_dir,
        interval_s=settings.checkpoint_interval_s,
        say=say,
        member=Member(trial.family, trial.length) if trial.family is not None else None,
    )
    context = TrialContext(
        store,
        trial.key,
        checkpoints,
        num_cpus=max(1, int(settings.resources.cpus)),
        cache_dir=settings.cache_dir,
        work_dir=work_dir,
        on_progress=on_progress,
        spread=spread,
        parts=trial.parts,
    )
    try:
        metrics = trial.trainable.run(context)
        provenance = {**settings.provenance, **machine_provenance()}
        context.publish(metrics, work_flop=trial.trainable.work_flop(), provenance=provenance)
    finally:
        checkpoints.close()


def _begin_attempt(store: Store, trial: Trial) -> int:
    known = [store.attempts(trial.key), *(generation.attempt for generation in store.generations(trial.key))]
    attempt = max(known) + 1
    store.write_document(
        f"trials/{trial.key}/trial.json",
        {
            "key": trial.key,
            "name": trial.name,
            "class": type(trial.trainable).__name__,
            "module": type(trial.trainable).__module__,
            "upstream": list(trial.upstream),
            "configuration": describe(trial.trainable),
            "attempt": attempt,
        },
        is_durable=False,
    )
    return attempt


def _note_failure(store: Store, trial: Trial, attempt: int, error: Exception) -> None:
    """Record a failure for good, or note it and raise it again where another attempt may succeed."""
    kind = failure_kind(error)
    failure = Failure(kind, f"{type(error).__name__}: {error}", traceback.format_exc(), attempt, time.time())
    if isinstance(error, DamagedResult):
        # Not this trial's fault: the next submission computes what is missing and comes back here.
        store.note_crash(trial.key, failure)
    elif kind == "crash":
        store.note_crash(trial.key, failure)
        raise error
    else:
        store.record_failure(trial.key, failure)


def failure_kind(error: BaseException) -> str:
    """The class of a failure: it decides whether the trial is tried again."""
    if isinstance(error, NonFiniteMetric):
        return "non-finite"
    # torch.OutOfMemoryError by name: this package does not know torch.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory"
    if isinstance(error, DamagedResult):
        return "interrupted"
    return "bad configuration" if isinstance(error, _DETERMINISTIC) else "crash"


def last_crash(store: Store, key: str) -> Failure | None:
    """What the last attempt of a trial left behind; None if its process was killed or it never ran."""
    crash = store.crash(key)
    return crash if crash is not None and crash.attempt == store.attempts(key) else None


def in_tasks(demand: Demand) -> Spread:
    """Spread items over Ray tasks in the trial's own placement group, and work along here meanwhile."""

    def spread(function: Function, batches: list[list[int]], items: Sequence[Any], finished: Finished) -> None:
        import ray

        @ray.remote(num_cpus=demand.worker.cpus, num_gpus=demand.worker.gpus)
        def apply(shipped: Function, batch_items: list[Any]) -> Sequence[Arrays]:
            return shipped(batch_items)

        shipped = ray.put(function)
        waiting = list(reversed(batches))
        running: dict[Any, list[int]] = {}

        def collect(timeout_s: float | None) -> None:
            ready, _ = ray.wait(list(running), num_returns=1, timeout=timeout_s)
            for reference in ready:
                try:
                    finished(running.pop(reference), ray.get(reference))
                except ray.exceptions.RayTaskError as error:
                    # What went wrong, not where: its class decides whether the trial is tried again.
                    raise error.cause from error

        while waiting or running:
            while waiting and len(running) < demand.num_workers - 1:
                batch = waiting.pop()
                running[apply.remote(shipped, [items[i] for i in batch])] = batch
            if waiting:
                batch = waiting.pop()
                finished(batch, function([items[i] for i in batch]))
                if running:
                    collect(timeout_s=0)
            else:
                collect(timeout_s=None)

    return spread


def default_cache_dir() -> Path:
    """Node-local cache, outside the results: ``QUARTERTURN_CACHE`` or the user's cache folder."""
    if given := os.environ.get("QUARTERTURN_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "quarterturn"
