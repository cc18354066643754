"""Several processes train one trial together: workers of Ray Train, with torch's process group between them.

The Tune process keeps the claim. The first worker computes and publishes as a single process would; the others run the
same trainable beside it and write nothing. What the workers have to say comes through a queue.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

# Before Ray Train is imported. A preempted node is a lost worker: the trial goes on from its last checkpoint.
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")

import cloudpickle
import ray
import ray.train
import ray.tune
from ray._raylet import PlacementGroupID
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.placement_group import PlacementGroup, get_current_placement_group, remove_placement_group
from ray.util.queue import Empty, Queue

from orchestrator.attempt import Attempt, OnProgress, Say, compute, follow
from orchestrator.claims import ClaimLost
from orchestrator.context import Progress
from orchestrator.failures import NodeLost, WorkerFailed, failure_from, seen
from orchestrator.kinds import Kind
from orchestrator.store import Failure

_POLL_S = 0.5
_NAMESPACE = "quarterturn-groups"


def in_processes(attempt: Attempt, on_progress: OnProgress, say: Say) -> None:
    """Let the workers of a trial compute an attempt.

    Raises ClaimLost as the first worker does, WorkerFailed with what the worker that failed first said, RuntimeError
    for one that was killed, which says nothing and is named.
    """
    free_slots(attempt)
    words = Queue(actor_options={"num_cpus": 0})
    heard = _Heard(on_progress, say)
    try:
        with heard.listening(words):
            _trainer(attempt, words).fit()
    except ray.train.TrainingFailedError as error:
        if attempt.store.result(attempt.payload.trial.key) is None:
            raise heard.failure(attempt, error) from error
    finally:
        words.shutdown(force=True)
        free_slots(attempt)


def note_slots(attempt: Attempt) -> None:
    """For a worker: what placement group the workers of this attempt hold."""
    group = get_current_placement_group()
    if group is not None:
        _internal_kv_put(_slots_key(attempt), group.id.binary(), overwrite=True, namespace=_NAMESPACE)


def free_slots(attempt: Attempt) -> None:
    """Give back what workers of this trial hold whose controller was killed; whoever has the claim may do so.

    The group belongs to the job, and Train's own cleaner asks the dashboard, which is not always there, whether the
    controller lives: the next attempt would wait for ever for the slots of the one before.
    """
    if held := _internal_kv_get(_slots_key(attempt), namespace=_NAMESPACE):
        remove_placement_group(PlacementGroup(PlacementGroupID(held)))
        _internal_kv_del(_slots_key(attempt), namespace=_NAMESPACE)


def _slots_key(attempt: Attempt) -> str:
    return f"{attempt.store.uri}/{attempt.payload.trial.key}"


def _trainer(attempt: Attempt, words: Queue) -> TorchTrainer:
    demand = attempt.payload.demand
    amounts = {"CPU": demand.worker.cpus, "GPU": demand.worker.gpus}
    return TorchTrainer(
        _work,
        train_loop_config={"attempt": cloudpickle.dumps(attempt), "words": words},
        # NCCL takes no two workers on one GPU.
        torch_config=TorchConfig(backend="gloo" if 0 < demand.worker.gpus < 1 else None),
        scaling_config=ray.train.ScalingConfig(
            num_workers=demand.num_workers,
            use_gpu=demand.worker.gpus > 0,
            resources_per_worker={name: amount for name, amount in amounts.items() if amount},
        ),
        run_config=ray.train.RunConfig(
            name=f"{attempt.payload.trial.key}-{attempt.number}",
            # Where Train leaves a mark that all its workers can read; it goes with what Tune leaves.
            storage_path=f"{attempt.store.uri}/.tune/{ray.tune.get_context().get_experiment_name()}/train",
            # The driver starts the trial again, with what the store has of it: one layer of retries.
            failure_config=ray.train.FailureConfig(max_failures=0),
        ),
    )


def _work(config: dict[str, Any]) -> None:
    """What each worker runs."""
    attempt: Attempt = cloudpickle.loads(config["attempt"])
    words: Queue = config["words"]
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()

    def on_progress(progress: Progress) -> None:
        words.put(("progress", asdict(progress)))

    def say(message: str) -> None:
        words.put(("message", message))

    try:
        if rank == 0:
            note_slots(attempt)
            on_progress(Progress(0, 0, ""))  # the workers are there: nobody has to make room for them any more
            compute(attempt, on_progress, say, num_workers=size)
        else:
            follow(attempt, rank)
    except ClaimLost as error:
        words.put(("claim lost", str(error)))
        raise RuntimeError(str(error)) from error
    except BaseException as error:
        words.put(("failed", (rank, asdict(failure_from(error, attempt.number)))))
        raise RuntimeError(f"worker {rank} of {size}: {type(error).__name__}") from None


class _Heard:
    """What the workers said, passed on or kept."""

    def __init__(self, on_progress: OnProgress, say: Say) -> None:
        self._on_progress, self._say = on_progress, say
        self._failures: dict[int, Failure] = {}  # by rank, the first one first
        self._claim_lost = ""

    @contextlib.contextmanager
    def listening(self, words: Queue) -> Iterator[None]:
        """Hear what comes through a queue, until the block ends and nothing is left in it."""
        is_over = threading.Event()
        listener = threading.Thread(target=self._listen, args=(words, is_over.is_set), daemon=True)
        listener.start()
        try:
            yield
        finally:
            is_over.set()
            listener.join()

    def failure(self, attempt: Attempt, error: ray.train.TrainingFailedError) -> Exception:
        """Why the workers ended without a result."""
        if self._claim_lost:
            return ClaimLost(self._claim_lost)
        # The others lose their connection when one of them fails or dies: what would fail again is the cause, then a
        # death.
        said = list(self._failures.values())
        for_good = [failure for failure in said if failure.kind != Kind.CRASHED]
        if for_good:
            return WorkerFailed(for_good[0])
        failed: dict[int, Exception] = getattr(error, "worker_failures", {})
        if dead := sorted(failed.keys() - self._failures.keys()):
            ranks = ", ".join(map(str, dead))
            reason = str(failed[dead[0]]).strip().splitlines()[-1:] or ["no reason given"]
            is_node_lost = any(seen(str(failed[rank])) is Kind.PREEMPTED for rank in dead)
            return (NodeLost if is_node_lost else RuntimeError)(
                f"worker {ranks} of {attempt.payload.demand.num_workers} died without a word ({reason[0]})"
            )
        return WorkerFailed(said[0]) if said else RuntimeError(str(error))

    def _listen(self, words: Queue, is_over: Callable[[], bool]) -> None:
        while True:
            was_over = is_over()
            try:
                kind, word = words.get(timeout=_POLL_S)
            except Empty:
                if was_over:
                    return
            except ray.exceptions.RayError:
                return  # the queue died, as with its node: the workers' own end says the rest
            else:
                self._take(kind, word)

    def _take(self, kind: str, word: Any) -> None:
        if kind == "progress":
            self._on_progress(Progress(**word))
        elif kind == "message":
            self._say(word)
        elif kind == "claim lost":
            self._claim_lost = word
        else:
            rank, failure = word
            self._failures[rank] = Failure(**failure)
