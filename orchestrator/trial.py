"""Inside a Tune trial: claim the key, have an attempt computed, here or in other processes, and note its failure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.attempt import Attempt, OnProgress, Payload, Say, compute
from orchestrator.claims import Claim, ClaimLost
from orchestrator.context import Progress
from orchestrator.documents import NewerResult
from orchestrator.failures import note_failure
from orchestrator.graph import Trial
from orchestrator.store import Store
from trainables.api.identity import describe

Work = Callable[[Attempt, OnProgress, Say], None]


class Stopped(BaseException):
    """Tune ends the trial, as on Ctrl-C. It says so by ending the thread at its next report, and that is no failure."""


def run_in_tune(config: Mapping[str, Any]) -> None:
    """The function trainable that Ray Tune calls, in an actor that serves one trial after the other."""
    from ray import tune

    payload = Payload.decode(config["payload"])

    def report(said: dict[str, Any]) -> None:
        try:
            tune.report(said)
        except SystemExit as end:
            raise Stopped from end

    def on_progress(progress: Progress) -> None:
        # Not "done": that name tells Tune to stop the trial.
        report({"items_done": progress.done, "items_total": progress.total, "unit": progress.unit})

    def say(message: str) -> None:
        report({"message": message})

    try:
        run_trial(payload, on_progress, say, _work_of(payload))
    except Exception:
        raise
    except Stopped:
        raise SystemExit(0) from None
    except BaseException as error:  # it would end the process, and Tune would not hear why
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _work_of(payload: Payload) -> Work:
    if payload.demand.in_processes:
        from orchestrator.processes import in_processes

        return in_processes
    if payload.trial.trainable.spreads == "items":
        from orchestrator.spread import over_workers

        return lambda attempt, on_progress, say: compute(attempt, on_progress, say, over_workers(payload.demand))
    return compute


def run_trial(
    payload: Payload,
    on_progress: OnProgress = lambda progress: None,
    say: Say = print,
    work: Work = compute,
) -> None:
    """Run one trial to its end unless it has a result, or failed for good.

    A failure that would come again is recorded in the store and not raised; anything else is noted and raised: the
    driver decides whether the trial starts again, from its last checkpoint. ``say`` gets what a person
    should know meanwhile.
    """
    trial = payload.trial
    store = Store(payload.settings.storage_uri)

    waited_for: list[str] = []

    def on_wait(holder: str) -> None:
        waited_for.append(holder)
        say(f"waits for {holder}, which runs the same trial")

    while store.result(trial.key) is None:
        with Claim(store, f"trials/{trial.key}", on_wait) as claim:
            if waited_for:
                say(f"goes on: {waited_for.pop()} has let it go")  # the clock of a time limit starts here
            try:
                look = store.settle_damage(trial.key)
            except NewerResult as error:
                note_failure(store, trial, store.attempts(trial.key), error)
                return
            if look.result is not None or store.failure(trial.key) is not None:
                return  # it ended while this process waited, or ended the process before this one
            try:
                _attempt(payload, claim, on_progress, say, work)
            except ClaimLost as error:
                # Whoever took over has the trial now: wait for it like anybody else.
                say(str(error))
                continue
            return


def _attempt(payload: Payload, claim: Claim, on_progress: OnProgress, say: Say, work: Work) -> None:
    trial, store = payload.trial, claim.holding.store
    number = _begin_attempt(store, trial)
    try:
        work(Attempt(payload, number, claim.holding), on_progress, say)
    except (ClaimLost, Stopped):
        raise
    except BaseException as error:  # also sys.exit in a trainable: its process would end without a word
        claim.holding.check()  # the failure of a process that was replaced says nothing about the trial
        note_failure(store, trial, number, error)


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
            "node": _node(),
        },
        is_durable=False,
    )
    return attempt


def _node() -> str:
    """The id of the node of Ray that this process is on; empty where it is on none."""
    ray = sys.modules.get("ray")
    return str(ray.get_runtime_context().get_node_id()) if ray is not None and ray.is_initialized() else ""
