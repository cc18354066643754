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
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.cluster import capacity, nodes_alive, watched_node  # it sets what Tune reads when it is imported

# isort: split
from ray import tune
from ray.tune import FailureConfig, PlacementGroupFactory, TuneConfig, Tuner

from orchestrator import idle, tune_mends
from orchestrator.attempt import Payload, Settings
from orchestrator.claims import Claim
from orchestrator.context import Progress
from orchestrator.failures import last_crash, why_ended
from orchestrator.graph import Trial
from orchestrator.places import full_place
from orchestrator.plan import Plan, failure_text
from orchestrator.resources import Demand, alone_on_a_node, demand_of, usual_demand
from orchestrator.retries import Again
from orchestrator.retrying import Retrying, Space
from orchestrator.scheduler import GraphSearcher, More, nothing_more
from orchestrator.store import Failure, Store
from orchestrator.time_limit import ended_without_a_word
from orchestrator.trial import run_in_tune

_SLOW_STORAGE_S = 30.0
_HEAD_NODE = "node:__internal_head__"  # which every cluster has, whatever else its nodes offer


class Listener(Protocol):
    """Hears what becomes of the trials of a launch, by their keys."""

    def started(self, key: str) -> None:
        """A trial began, or began again after a crash."""

    def waits(self, key: str) -> None:
        """An attempt of a trial ended without a result, and it waits for another one."""

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


def launch(
    plan: Plan,
    store: Store,
    settings: Settings,
    listener: Listener,
    *,
    max_concurrent: int | None = None,
    more: More = nothing_more,
    usual: Demand | None = None,
) -> Outcome:
    """Run what is left of a plan on the connected cluster. Ends early, and says so, on SIGINT and SIGTERM.

    ``more`` gives further plans, of trials that mostly have the ``usual`` demand: see ``GraphSearcher``.
    """
    outcome = Outcome()
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # Who limits the trials at once does not want helpers beside them.
    events = _Events(listener, store, may_lend=max_concurrent is None, time_limit_s=settings.time_limit_s)
    ends = _Ends(store, settings, listener, events, outcome)
    searcher = GraphSearcher(
        plan,
        encode=ends.hand_out,
        finished=ends.finished,
        demand=ends.demand,
        capacity=capacity,
        max_concurrent=max_concurrent,
        more=more,
        usual=usual or usual_demand([trial.trainable for trial in plan.runnable()], settings.resources),
        may_start=ends.space.is_there,
    )
    events.searcher = searcher
    tune_mends.apply(lambda resources: _is_next(searcher, resources), events.saw)
    name = f"{plan.study.name}-{uuid.uuid4().hex[:8]}"
    claim = Claim(store, f".tune/{name}")  # gc keeps off also while all trials wait for their next attempt
    # Tune prints a line or a box of its own whatever its verbosity; the view has its own handle on the terminal.
    with _sigterm_as_sigint() as interrupted, watched_node() as lost, contextlib.redirect_stdout(io.StringIO()), claim:
        _tuner(searcher, store, events, name).fit()
    outcome.was_interrupted = interrupted.is_set() or lost.is_set() or _is_unfinished(searcher, outcome, store)
    outcome.blocked = searcher.blocked
    store.remove(f".tune/{name}")
    return outcome


def _is_unfinished(searcher: GraphSearcher, outcome: Outcome, store: Store) -> bool:
    """Whether a trial that was to run has neither a result nor a reason for it."""
    # Lost without a failure here is what another driver saw fail.
    explained = {*outcome.failures, *searcher.lost}
    return any(key not in explained and store.result(key) is None for key in searcher.trials)


class _Events(tune.Callback):
    """Passes Tune's events on to the listener. Tune pickles its callbacks: the listener stays here."""

    def __init__(self, listener: Listener, store: Store, *, may_lend: bool, time_limit_s: float | None) -> None:
        self._listener: Listener | None = listener
        self._store = store
        self._may_lend, self._time_limit_s = may_lend, time_limit_s
        self._begun: dict[str, float] = {}  # by key: when the attempt began, or later
        self.errors: dict[str, str] = {}  # by key: what Tune saw of the last attempt
        self.searcher: GraphSearcher | None = None
        self._announced: tuple[bool, float] | None = None  # what, and when
        self._to_come: set[str] = set()  # keys of trials whose workers wait for slots

    def __getstate__(self) -> dict[str, Any]:
        return {"_listener": None, "errors": {}, "searcher": None}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Trials that share their items may borrow slots that nobody waits for."""
        is_idle = self._may_lend and self.searcher is not None and not self.searcher.is_anyone_waiting
        now = time.monotonic()
        if self._announced is None or self._announced[0] is not is_idle or now > self._announced[1] + idle.SAID_EVERY_S:
            idle.announce(is_idle)
            self._announced = is_idle, now

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = trial.config["key"]
        self._begun[key] = time.monotonic()
        if self.searcher and not self.searcher.started(key):
            self._to_come.add(key)
        elif self._listener:
            self._listener.started(key)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        key = trial.config["key"]
        if self.searcher:
            self.searcher.spoke(key)
        if key in self._to_come or "message" in result:  # it waited, for its workers or for another driver's claim
            self._begun[key] = time.monotonic()
        if self._listener and key in self._to_come:
            self._to_come.discard(key)
            self._listener.started(key)
        if self._listener and "message" in result:
            self._listener.noted(key, result["message"])
        if self._listener and result.get("items_total"):
            progress = Progress(result["items_done"], result["items_total"], result["unit"])
            self._listener.progressed(key, progress)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        tune_mends.forget(trial, "payload")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        tune_mends.forget(trial, "payload")

    def saw(self, key: str, error: Exception) -> None:
        """An attempt failed, and this is what Tune saw of it."""
        self._look_at_the_clock(key)
        self.errors[key] = str(error) + (" (preempted)" if getattr(error, "preempted", False) else "")

    def _look_at_the_clock(self, key: str) -> None:
        """What hung, and could not record it, would hang again: it is recorded here, before it is tried again."""
        begun = self._begun.get(key)
        if self._time_limit_s is None or begun is None or key in self._to_come:
            return
        hung = ended_without_a_word(self._time_limit_s, self._store.attempts(key), time.monotonic() - begun)
        if hung is not None and self._store.failure(key) is None and self._store.result(key) is None:
            with contextlib.suppress(OSError):  # on a full disk it hangs once more
                self._store.record_failure(key, hung)


class _Ends:
    """What becomes of the trials that have ended, and what those that are tried again ask for."""

    def __init__(self, store: Store, settings: Settings, listener: Listener, events: _Events, outcome: Outcome) -> None:
        self._store, self._settings, self._listener = store, settings, listener
        self._events, self._outcome = events, outcome
        self.space = Space(lambda: full_place(store, settings.cache_dir))
        self._retrying = Retrying(store, self.space, nodes_alive)
        self._alone: dict[str, Demand] = {}  # by key: of those that need a node of their own

    def demand(self, trial: Trial) -> Demand:
        """What a trial holds while it runs."""
        alone = self._alone.get(trial.key)
        # The node that it was to have may be gone, and those that are left smaller.
        return alone if alone is not None and capacity().can_hold(alone) else self._usual(trial)

    def _usual(self, trial: Trial) -> Demand:
        return demand_of(trial.trainable, self._settings.resources)

    def hand_out(self, trial: Trial) -> dict[str, Any]:
        """The configuration of a trial that is to start."""
        self._retrying.hands_out(trial)
        return _configuration(Payload(trial, self._settings), self.demand(trial))

    def finished(self, trial: Trial, error: bool) -> bool | Again:
        """Whether the result of a trial that has ended is there, or when to try again."""
        before = self._retrying.attempts_before(trial.key)
        if _has_result(self._store, trial.key, before, ended_well=not error):
            self._listener.done(trial.key)
            return True
        if not error:
            return self._failed(trial, why_ended(self._store, trial, None, before=before))
        was_full = self.space.full
        failure, again = self._retrying.next(trial, self._events.errors.get(trial.key))
        if again is None:
            return self._failed(trial, failure)
        if again.is_alone:
            self._alone[trial.key] = alone_on_a_node(self._usual(trial), capacity())
        if not (was_full and self.space.full):  # of a full disk one word is enough
            self._listener.noted(trial.key, _then_again(failure, again, self.space.full))
        self._listener.waits(trial.key)
        return again

    def _failed(self, trial: Trial, failure: Failure) -> bool:
        self._outcome.failures[trial.key] = failure
        self._listener.failed(trial.key, failure_text(failure))
        return False


def _has_result(store: Store, key: str, before: int, *, ended_well: bool) -> bool:
    """Whether the result is there, with patience for a network file system that shows it late.

    Of the attempts, so many were begun ``before`` the one that ended.
    """
    deadline = time.monotonic() + _SLOW_STORAGE_S
    while store.result(key) is None:
        # A process that ended in order leaves a result or word of a failure, and no claim. One that never began, or
        # was ended by Ctrl-C, does not.
        in_order = store.exists(f"trials/{key}/trial.json") and not store.exists(f"trials/{key}/claim.json")
        explained = store.failure(key) or last_crash(store, key, before=before)
        if not ended_well or not in_order or explained or time.monotonic() > deadline:
            return False
        time.sleep(1.0)
    return True


def _tuner(searcher: GraphSearcher, store: Store, events: tune.Callback, name: str) -> Tuner:
    return Tuner(
        tune.with_resources(run_in_tune, lambda config: PlacementGroupFactory(config["bundles"])),
        tune_config=TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            # Cheap trials would otherwise pay for a new process each: 100 trials of nothing in 10 s instead of 295 s.
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=f"{store.uri}/.tune",
            failure_config=FailureConfig(max_failures=0),  # what is tried again is decided here
            callbacks=[events],
            verbose=0,
        ),
    )


def _then_again(failure: Failure, again: Again, full: str) -> str:
    if full:
        return f"disk full at {full}; waiting for space"
    when = f"again in {again.in_s:g} s" if again.in_s else "again at once"
    return f"{failure_text(failure)}; {when}{', with a node of its own' if again.is_alone else ''}"


def _configuration(payload: Payload, demand: Demand) -> dict[str, Any]:
    return {"key": payload.trial.key, "bundles": _bundles(demand), "payload": payload.encode()}


def _is_next(searcher: GraphSearcher, resources: PlacementGroupFactory) -> bool:
    demand = searcher.next_demand()
    return demand is not None and PlacementGroupFactory(_bundles(demand)) == resources


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
