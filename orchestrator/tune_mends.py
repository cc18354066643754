"""What this version of Ray Tune does that a study cannot live with, changed from outside. Nothing else reaches in.

Each has a test that says when a newer Ray no longer needs it, or has moved it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import ray.air._internal.usage
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution import tune_controller
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.utils.object_cache import _ObjectCache

_actor_task_failed = RayActorManager._actor_task_failed
_handle_error = Trial.handle_error
_update_trial_queue = TuneController._update_trial_queue
_checkpoint = TuneController.checkpoint
_PAUSE_S = 0.5


class LostActor(RayActorError):
    """An actor that Ray itself ended, as its memory monitor does; said in one line."""

    def __init__(self, cause: RayError) -> None:
        super().__init__()
        self._line = f"{type(cause).__name__}: {(str(cause).strip().splitlines() or ['no reason given'])[0]}"

    def __str__(self) -> str:
        return self._line


def _with_every_loss(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
    """Tune takes anything but the death of an actor and an error in it as its own end, and so of the whole study."""
    if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
        exception = LostActor(exception)
    _actor_task_failed(self, tracked_actor_task, exception)


class _WantedActors(_ObjectCache):
    """Keeps an actor between two trials only where one is about to start in it.

    Tune keeps one that may be of use some day, in a slot that a group of Ray Train, or a trial with items to share,
    waits for.
    """

    is_wanted: Callable[[Any], bool] = staticmethod(lambda resources: False)

    def cache_object(self, key: Any, obj: Any) -> bool:
        if len(self._cached_objects[key]) >= max(self._max_num_objects[key], int(self.is_wanted(key))):
            return False
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Any:
        for key, kept in self._cached_objects.items():
            most = 0 if force_all else max(self._max_num_objects[key], int(bool(kept) and self.is_wanted(key)))
            while len(kept) > most:
                self._num_cached_objects -= 1
                yield kept.pop(0)


def _without_blocking(self: TuneController, blocking: bool = False, timeout: int = 600) -> bool:
    """Tune waits in here for up to ten minutes where nothing runs, and hears no Ctrl-C meanwhile."""
    has_one: bool = _update_trial_queue(self, blocking=False)
    if blocking and not has_one:
        time.sleep(_PAUSE_S)
    return has_one


def _whatever_the_disk_says(self: TuneController, force: bool = False, wait: bool = False) -> None:
    """Tune saves its state now and then, and ends where it cannot. Nobody restores it: the store is the state."""
    with contextlib.suppress(OSError):
        _checkpoint(self, force=force, wait=wait)


def apply(
    is_wanted: Callable[[Any], bool], on_failure: Callable[[str, Exception], None] = lambda key, error: None
) -> None:
    """Change Tune in this process; ``is_wanted`` tells whether a trial with these resources is the next to start.

    ``on_failure`` hears of every attempt that failed, by key, before the searcher does; none of them is Tune's to start
    again.
    """

    def handle_error(self: Trial, exc: Exception | None = None) -> None:
        with contextlib.suppress(OSError):  # it writes a file of the error, which nobody reads
            _handle_error(self, exc)
        self.run_metadata.num_failures = max(1, self.run_metadata.num_failures)  # also where a node was preempted
        if exc is not None:
            on_failure(str(self.config["key"]), exc)

    Trial.handle_error = handle_error
    TuneController._update_trial_queue = _without_blocking
    TuneController.checkpoint = _whatever_the_disk_says
    RayActorManager._actor_task_failed = _with_every_loss
    cache = type("_WantedActors", (_WantedActors,), {"is_wanted": staticmethod(is_wanted)})
    tune_controller._ObjectCache = lambda may_keep_one: cache(may_keep_one=may_keep_one)
    # Ray counts callbacks for its usage statistics, off here; to know MLflow's it loads all of it: 2 s of the driver.
    ray.air._internal.usage.tag_callbacks = lambda callbacks: False


def forget(trial: Any, name: str) -> None:
    """Drop an entry of the configuration of a trial that has ended.

    Tune keeps every trial to its own end, and that entry in eight places of each, two of them as JSON, which it writes
    anew for all trials from time to time.
    """
    for kept in (trial.config, trial.evaluated_params, trial._Trial__unresolved_config):
        kept.pop(name, None)
    last = trial.run_metadata.last_result  # of the trial's process, so the configuration here is another copy
    last.pop("config", None)
    last.pop("experiment_tag", None)
    trial._default_result_or_future = None  # of one that reported nothing, likewise
    trial.set_experiment_tag("")
    trial.invalidate_json_state()
    trial.run_metadata.invalidate_cache()
