"""One trial in several processes of Ray Train."""

import dataclasses
from types import SimpleNamespace

import pytest
import ray
from toy import Count, OnGpu, Squares
from toy_ranks import Ranks

from orchestrator import processes
from orchestrator.attempt import Attempt, Payload
from orchestrator.claims import Holding
from orchestrator.graph import trials_of
from orchestrator.launch import launch
from orchestrator.plan import make_plan
from orchestrator.store import Store
from orchestrator.study import Study
from trainables.api.identity import FileDigests, Keys


class Heard:
    """A listener that writes down (event, what comes with it)."""

    def __init__(self):
        self.events = []

    def __getattr__(self, event):
        return lambda key, what=None: self.events.append((event, what))


@pytest.fixture
def run(cluster, tmp_path, quick_settings):
    """A function that runs trials with two workers each: (store, plan afterwards by name, outcome, what was heard)."""
    (tmp_path / "log").touch()

    def make(trials, workers=2, cpus=1.0):
        store, heard = Store(str(tmp_path / "results")), Heard()
        study = Study("s", "?", trials)
        outcome = launch(
            make_plan(study, store, Keys(FileDigests())),
            store,
            quick_settings(store, workers=workers, cpus=cpus),
            heard,
        )
        after = make_plan(study, store, Keys(FileDigests()))
        return store, {p.trial.name: p for p in after.planned}, outcome, heard.events

    return make


def lines(tmp_path):
    return [line.split(" of ")[0] for line in (tmp_path / "log").read_text().splitlines()]


def assert_nothing_is_held():
    groups = ray.util.placement_group_table().values()
    assert {group["state"] for group in groups} <= {"REMOVED"}


def test_two_workers_train_one_trial_beside_single_ones(run, tmp_path):
    ranks = Ranks(3, log_path=tmp_path / "log")
    trials = {"both": ranks, "single": Count(2)}
    store, planned, outcome, events = run(trials)
    assert {name: p.state.value for name, p in planned.items()} == dict.fromkeys(trials, "done")
    assert outcome.failures == {}
    result = planned["both"].result
    assert result.metrics == {"sum": 3.0}
    assert result.provenance["workers"] == "2"
    assert planned["single"].result.provenance["workers"] == "1"
    assert [row[:3] for row in store.rows(result)] == [["train/sum", epoch, epoch + 1.0] for epoch in range(3)]
    assert sorted(lines(tmp_path)) == sorted([f"epoch {e} rank {r}" for e in range(3) for r in range(2)])
    folder = store.fetch(result.key, tmp_path)
    assert (folder / "sum.txt").read_text() == "3.0 0"  # the first process wrote it
    assert "progressed" in {event for event, _ in events}
    assert store.names(".tune") == []
    assert_nothing_is_held()


@pytest.mark.slow
def test_more_of_them_than_the_cluster_holds_follow_one_another(run, tmp_path):
    trials = {f"t{n}": Ranks(2, number=n, log_path=tmp_path / "log") for n in range(3)}
    _, planned, _, _ = run({**trials, "single": Count(2), "another": Count(3)})
    assert {p.state.value for p in planned.values()} == {"done"}
    assert_nothing_is_held()


@pytest.mark.slow
def test_helpers_make_room_for_workers_that_have_still_to_come(run, tmp_path):
    """Two slots of four are idle until the first trial has ended, then two workers need them, long before the items
    are done; the process that waits for these workers has started at once."""
    log = tmp_path / "log"
    first = Count(6, epoch_s=1.0)
    trials = {"items": Squares(300, 1, item_s=0.5, log_path=log), "both": Ranks(2, upstream=first, log_path=log)}
    _, planned, _, _ = run(trials, cpus=0.5)
    assert {p.state.value for p in planned.values()} == {"done"}
    events = [line.split()[0] for line in log.read_text().splitlines()]
    assert "item" in events[events.index("epoch") :]
    assert (
        len({line.split()[-1] for line in log.read_text().splitlines() if line.startswith("item")}) > 2
    )  # were helped


@pytest.mark.slow
def test_an_error_of_any_rank_is_the_trial_s_with_its_class(run, tmp_path):
    _, planned, outcome, _ = run({"bad": Ranks(3, fail_rank=1, log_path=tmp_path / "log")})
    assert planned["bad"].reason == "invalid: ValueError: rank 1 cannot go on"
    assert len(outcome.failures) == 1
    assert lines(tmp_path).count("epoch 1 rank 1") == 1  # not tried again
    assert_nothing_is_held()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_costs_what_came_after_the_last_checkpoint(run, tmp_path, rank):
    store, planned, _, events = run({"t": Ranks(4, kill_rank=rank, log_path=tmp_path / "log")})
    result = planned["t"].result
    assert result.metrics == {"sum": 4.0}
    assert result.attempt == 2
    assert [row[:3] for row in store.rows(result)] == [["train/sum", epoch, epoch + 1.0] for epoch in range(4)]
    assert lines(tmp_path).count("epoch 0 rank 0") == 1
    assert [event for event, _ in events].count("started") == 2
    # The other one had lost its connection, which is not why.
    assert store.crash(result.key).message.startswith(f"RuntimeError: worker {rank} of 2 died without a word (")
    assert_nothing_is_held()


@pytest.mark.slow
def test_a_killed_controller_leaves_no_slots_occupied(run, tmp_path):
    _, planned, _, _ = run({"t": Ranks(4, kills_controller=True, log_path=tmp_path / "log")})
    result = planned["t"].result
    assert result.metrics == {"sum": 4.0}
    assert result.attempt == 2
    assert_nothing_is_held()


@pytest.mark.slow
def test_a_trial_goes_on_with_another_number_of_workers(run, tmp_path):
    ranks = Ranks(4, fail_rank=1, log_path=tmp_path / "log")
    store, planned, _, _ = run({"t": ranks})
    assert planned["t"].state.value == "failed"
    store.clear_failure(planned["t"].trial.key)
    _, planned, _, _ = run({"t": dataclasses.replace(ranks, fail_rank=None)}, workers=1)
    assert planned["t"].result.metrics == {"sum": 4.0}
    assert planned["t"].result.provenance["workers"] == "1"
    assert (tmp_path / "log").read_text().count("epoch 0") == 2  # both ranks of the first run, and never again


@pytest.mark.slow
def test_exit_in_a_rank_is_no_death_without_a_word(run, tmp_path):
    _, planned, _, _ = run({"t": Ranks(3, exit_rank=0, log_path=tmp_path / "log")})
    assert planned["t"].reason.startswith("invalid: SystemExit: 7 (it ended its process")


@pytest.mark.parametrize(("gpus", "backend"), [(0.0, None), (0.5, "gloo"), (1.0, None), (2.0, None)])
def test_workers_that_share_a_gpu_do_not_talk_by_nccl(monkeypatch, tmp_path, quick_settings, gpus, backend):
    """NCCL refuses two of them on one GPU; None is Ray Train's choice by what the workers hold."""
    store, given = Store(str(tmp_path / "results")), {}
    (trial,) = trials_of(Study("s", "?", {"t": OnGpu(1)}), Keys(FileDigests()))
    attempt = Attempt(Payload(trial, quick_settings(store, gpus=gpus, workers=2)), 1, Holding(store, "path", "token"))
    monkeypatch.setattr(processes, "TorchTrainer", lambda *what, **named: given.update(named))
    monkeypatch.setattr(ray.tune, "get_context", lambda: SimpleNamespace(get_experiment_name=lambda: "name"))
    processes._trainer(attempt, None)
    assert given["torch_config"].backend == backend
    assert given["scaling_config"].use_gpu is (gpus > 0)
