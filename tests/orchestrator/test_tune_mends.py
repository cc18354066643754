"""What is changed of Ray Tune from outside: each needs its change still, and has it."""

from types import SimpleNamespace

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune import PlacementGroupFactory
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial

from orchestrator import tune_mends

ONE, TWO = PlacementGroupFactory([{"CPU": 1}]), PlacementGroupFactory([{"CPU": 2}])


class Task:
    """A task of an actor that writes down what is called."""

    def __init__(self):
        self.errors = []
        self._tracked_actor = self
        self._on_error = lambda actor, error: self.errors.append(error)
        self.actor_id = 1


@pytest.fixture
def manager(monkeypatch):
    monkeypatch.setattr(RayActorManager, "_cleanup_actor", lambda self, tracked_actor: None)
    return RayActorManager(resource_manager=object())


def test_tune_would_end_the_whole_study_for_an_actor_that_ray_ended(manager):
    with pytest.raises(RuntimeError, match="Caught unexpected exception"):
        tune_mends._actor_task_failed(manager, Task(), OutOfMemoryError("the node is low on memory"))


def test_an_actor_that_ray_ended_is_one_that_died(manager):
    tune_mends.apply(lambda resources: False)
    task = Task()
    manager._actor_task_failed(tracked_actor_task=task, exception=OutOfMemoryError("low on memory\nand so on"))
    assert {type(error) for error in task.errors} == {tune_mends.LostActor}
    assert isinstance(task.errors[0], RayActorError)
    assert str(task.errors[0]) == "OutOfMemoryError: low on memory"


@pytest.fixture
def cache():
    """A cache, and the list of resources that the next trial would ask for."""
    wanted = []
    tune_mends.apply(lambda resources: resources in wanted)
    return tune_controller._ObjectCache(may_keep_one=True), wanted


def test_an_actor_that_nobody_is_about_to_use_is_let_go(cache):
    kept, wanted = cache
    assert not kept.cache_object(ONE, "actor")
    wanted.append(TWO)
    assert not kept.cache_object(ONE, "actor")
    assert kept.num_cached_objects == 0


def test_one_that_the_next_trial_wants_is_kept_until_it_does_not(cache):
    kept, wanted = cache
    wanted.append(ONE)
    assert kept.cache_object(ONE, "actor")
    assert not kept.cache_object(ONE, "another")  # the next trial is one
    assert list(kept.flush_cached_objects()) == []
    wanted[:] = [TWO]
    assert list(kept.flush_cached_objects()) == ["actor"]
    assert kept.num_cached_objects == 0


def test_those_of_trials_that_wait_in_tune_are_kept(cache):
    kept, _ = cache
    kept.increase_max(ONE)
    assert kept.cache_object(ONE, "actor")
    assert list(kept.flush_cached_objects()) == []
    assert kept.pop_cached_object(ONE) == "actor"
    kept.decrease_max(ONE)
    assert not kept.cache_object(ONE, "actor")


def test_all_go_when_tune_says_so(cache):
    kept, wanted = cache
    wanted.append(ONE)
    kept.cache_object(ONE, "actor")
    assert list(kept.flush_cached_objects(force_all=True)) == ["actor"]


class Controller:
    """What the changed methods of Tune's controller ask for: nobody to start next, and a disk that is full."""

    def __init__(self):
        self._search_alg = self._checkpoint_manager = self
        self.num_asked = 0

    def next_trial(self):
        self.num_asked += 1

    def sync_up_experiment_state(self, **how):
        raise OSError(28, "No space left on device")

    def save_to_dir(self):
        pass


def test_a_searcher_that_has_nothing_now_is_asked_once_so_that_ctrl_c_is_heard(monkeypatch):
    monkeypatch.setattr(tune_mends, "_PAUSE_S", 0.0)
    tune_mends.apply(lambda resources: False)
    controller = Controller()
    assert not tune_controller.TuneController._update_trial_queue(controller, blocking=True)
    assert controller.num_asked == 1


def test_tune_would_end_where_its_own_state_cannot_be_saved():
    with pytest.raises(OSError, match="No space"):
        tune_mends._checkpoint(Controller())
    tune_mends.apply(lambda resources: False)
    tune_controller.TuneController.checkpoint(Controller())


@pytest.mark.parametrize("is_preempted", [False, True])
def test_every_failure_is_heard_and_none_is_tunes_to_start_again(is_preempted):
    heard = []
    tune_mends.apply(lambda resources: False, lambda key, error: heard.append((key, error)))
    trial, error = Trial("toy", stub=True, config={"key": "k"}), RayActorError(preempted=is_preempted)
    trial.storage = SimpleNamespace(trial_driver_staging_path="/nowhere")  # as on a disk that takes no file
    trial.handle_error(error)
    assert heard == [("k", error)]
    assert not trial.should_recover()
