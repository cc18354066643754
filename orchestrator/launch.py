"""From a plan to one Ray Tune run over its whole graph."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

# Tune reads these when it is imported. No logger files of its own: the journal is the record. No strict check of a
# searched metric: nothing is searched by metric here. Many pending trials, or slots stay empty (one is the default).
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A trial that asked for no GPU sees none, or all trials of a machine would meet on one.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
# Trials keep the driver's working folder: a relative path means the same in both.
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "16")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "600")

import ray
import ray.air._internal.usage
from ray import tune
from ray.tune import FailureConfig, PlacementGroupFactory, TuneConfig, Tuner

from orchestrator.attempt import Payload, Settings
from orchestrator.context import Progress
from orchestrator.failures import failure_of, last_crash
from orchestrator.plan import Plan, Trial, failure_text
from orchestrator.resources import Amount, Capacity, Demand, demand_of, usual_demand
from orchestrator.scheduler import GraphSearcher, More, nothing_more
from orchestrator.store import Failure, Store
from orchestrator.study import Resources
from orchestrator.trial import run_in_tune
from trainables.api.trainable import Trainable

# Ray counts callbacks for its usage statistics, off here; to know MLflow's it loads all of MLflow: 2 s of the driver.
ray.air._internal.usage.tag_callbacks = lambda callbacks: False

MAX_CRASHES = 3  # attempts after the first; Tune does not count a node that was announced as preempted
_SLOW_STORAGE_S = 30.0
_HEAD_NODE = "node:__internal_head__"  # which every cluster has, whatever else its nodes offer


class Listener(Protocol):
    """Hears what becomes of the trials of a launch, by their keys."""

    def started(self, key: str) -> None:
        """A trial began, or began again after a crash."""

    def progressed(self, key: str, progress: Progress) -> None:
        """A trial told how far it is."""

    def noted(self, key: str, message: str) -> None:
        """A trial has something to tell."""

    def done(self, key: str) -> None:
        """A trial published its result."""

    def failed(self, key: str, reason: str) -> None:
        """A trial ended without a result."""


@dataclass
class Outcome:
    """How a launch ended."""

    failures: dict[str, Failure] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    was_interrupted: bool = False


class Cluster:
    """A connection to Ray for one submission: an existing cluster, or one started here and shut down at the end."""

    def __init__(self, address: str | None) -> None:
        """``address`` (or ``RAY_ADDRESS``) names a cluster; without either, Ray starts on this machine.

        Raises ValueError for an address that takes jobs only; entering the context, when nothing answers there.
        """
        self._address = address or os.environ.get("RAY_ADDRESS") or "local"

        if self._address.startswith(("http://", "https://", "ray://")):
            raise ValueError(
                f"the Ray address {self._address!r} takes jobs only; submit with `ray job submit --address "
                f"{self._address} -- python studies/<study>.py`, or unset RAY_ADDRESS to run on this machine"
            )

    def __enter__(self) -> Cluster:
        arguments: dict[str, Any] = {"include_dashboard": False} if self._address == "local" else {}
        try:
            ray.init(
                address=self._address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
                **arguments,
            )
        except ConnectionError as error:
            raise ValueError(
                f"no Ray cluster answers at {self._address!r}: {error}. Start one with `ray start --head`"
            ) from error
        return self

    def __exit__(self, *exception: object) -> None:
        ray.shutdown()


def resources_for(trainables: Sequence[Trainable], *, cpus: float, gpus: float | None, workers: int) -> Resources:
    """What one worker of a trial gets on the connected cluster; ``gpus=None`` is one where the cluster has any.

    Raises ValueError when a cluster that does not grow can never hold a trial.
    """
    has = capacity()
    if gpus is None:
        gpus = 1.0 if has.total.gpus >= 1 else 0.0
    resources = Resources(cpus, gpus, workers)
    demands = {demand_of(trainable, resources) for trainable in trainables}
    too_large = [demand for demand in demands if not has.can_hold(demand)]
    if too_large and not has.can_grow:
        largest = max(too_large, key=lambda demand: (demand.total.cpus, demand.total.gpus))
        raise ValueError(f"a trial asks for {_words(largest)}, and the cluster has {_words_of_nodes(has)}")
    return resources


def capacity() -> Capacity:
    """What the connected cluster has."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    amounts = tuple(Amount(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes)
    return Capacity(amounts, _can_grow())


def _can_grow() -> bool:
    """Whether an autoscaler may add nodes: clusters of `ray up` tell it by this file on the head."""
    return Path("~/ray_bootstrap_config.yaml").expanduser().exists()


def _words(demand: Demand) -> str:
    workers = f"{demand.num_workers} times " if demand.num_workers > 1 else ""
    return workers + _words_of(demand.worker)


def _words_of_nodes(has: Capacity) -> str:
    return " and ".join(_words_of(node) for node in has.nodes) or "no nodes"


def _words_of(amount: Amount) -> str:
    return f"{amount.cpus:g} CPU" + (f" with {amount.gpus:g} GPU" if amount.gpus else "")


def launch(
    plan: Plan,
    store: Store,
    settings: Settings,
    listener: Listener,
    *,
    max_concurrent: int | None = None,
    more: More = nothing_more,
) -> Outcome:
    """Run what is left of a plan on the connected cluster. Ends early, and says so, on SIGINT and SIGTERM.

    ``more`` gives further plans, see ``GraphSearcher``.
    """
    outcome = Outcome()
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    events = _Events(listener)
    usual = usual_demand([trial.trainable for trial in plan.runnable()], settings.resources)

    def finished(trial: Trial, error: bool) -> bool:
        if _has_result(store, trial.key, ended_well=not error):
            listener.done(trial.key)
            return True
        failure = failure_of(store, trial, events.errors.get(trial.key), is_final=error)
        outcome.failures[trial.key] = failure
        listener.failed(trial.key, failure_text(failure))
        return False

    searcher = GraphSearcher(
        plan,
        encode=lambda trial: _configuration(Payload(trial, settings)),
        finished=finished,
        demand=lambda trial: demand_of(trial.trainable, settings.resources),
        capacity=capacity,
        max_concurrent=max_concurrent,
        more=more,
        usual=usual,
    )
    name = f"{plan.study.name}-{uuid.uuid4().hex[:8]}"
    # An actor that Tune keeps for a trial to come would hold what a group of Ray Train waits for.
    reuses = not any(demand_of(trial.trainable, settings.resources).in_processes for trial in plan.runnable())
    # Tune prints a line or a box of its own whatever its verbosity; the view has its own handle on the terminal.
    with _sigterm_as_sigint() as interrupted, contextlib.redirect_stdout(io.StringIO()):
        _tuner(searcher, store, events, name, reuses).fit()
    outcome.was_interrupted = interrupted.is_set() or any(
        key not in outcome.failures and key not in searcher.blocked and store.result(key) is None
        for key in searcher.trials
    )
    outcome.blocked = searcher.blocked
    store.remove(f".tune/{name}")
    return outcome


class _Events(tune.Callback):
    """Passes Tune's events on to the listener. Tune pickles its callbacks: the listener stays here."""

    def __init__(self, listener: Listener) -> None:
        self._listener: Listener | None = listener
        self.errors: dict[str, str] = {}  # by key: the last line of what Tune saw

    def __getstate__(self) -> dict[str, Any]:
        return {"_listener": None, "errors": {}}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self._listener:
            self._listener.started(trial.config["key"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if self._listener and "message" in result:
            self._listener.noted(trial.config["key"], result["message"])
        if self._listener and "unit" in result:
            progress = Progress(result["items_done"], result["items_total"], result["unit"])
            self._listener.progressed(trial.config["key"], progress)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._remember(trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._remember(trial)

    def _remember(self, trial: Any) -> None:
        # Tune's own `get_error` looks in the storage, where this file arrives later, if at all.
        file = Path(trial.error_file) if trial.error_file else None
        if file and file.exists() and (lines := file.read_text(errors="replace").strip().splitlines()):
            self.errors[trial.config["key"]] = lines[-1][:500]


def _has_result(store: Store, key: str, *, ended_well: bool) -> bool:
    """Whether the result is there, with patience for a network file system that shows it late."""
    deadline = time.monotonic() + _SLOW_STORAGE_S
    while store.result(key) is None:
        # A process that ended in order leaves a result or word of a failure, and no claim. One that never began, or
        # was ended by Ctrl-C, does not.
        in_order = store.exists(f"trials/{key}/trial.json") and not store.exists(f"trials/{key}/claim.json")
        explained = store.failure(key) or last_crash(store, key)
        if not ended_well or not in_order or explained or time.monotonic() > deadline:
            return False
        time.sleep(1.0)
    return True


def _tuner(searcher: GraphSearcher, store: Store, events: tune.Callback, name: str, reuses: bool) -> Tuner:
    return Tuner(
        tune.with_resources(run_in_tune, lambda config: PlacementGroupFactory(config["bundles"])),
        tune_config=TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            # Cheap trials would otherwise pay for a new process each: 100 trials of nothing in 10 s instead of 295 s.
            reuse_actors=reuses,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=f"{store.uri}/.tune",
            failure_config=FailureConfig(max_failures=MAX_CRASHES),
            callbacks=[events],
            verbose=0,
        ),
    )


def _configuration(payload: Payload) -> dict[str, Any]:
    return {"key": payload.trial.key, "bundles": _bundles(payload.demand), "payload": payload.encode()}


def _bundles(demand: Demand) -> list[dict[str, float]]:
    """The placement group of the Tune process. Processes of Ray Train have one of their own: this one holds nothing."""
    if demand.in_processes:
        return [{_HEAD_NODE: 0.001}]
    amounts = {"CPU": demand.worker.cpus, "GPU": demand.worker.gpus}
    return [{name: amount for name, amount in amounts.items() if amount}] * demand.num_workers


def _trial_name(trial: Any) -> str:
    return str(trial.config["key"])


@contextlib.contextmanager
def _sigterm_as_sigint() -> Iterator[threading.Event]:
    """``ray job stop`` sends SIGTERM, Tune ends in order on SIGINT only: make one of the other."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def forward(number: int, frame: Any) -> None:
        interrupted.set()
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGTERM, before)
