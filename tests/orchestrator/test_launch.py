"""The whole graph through one real Ray Tune run."""

import dataclasses
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_scheduler import names, plan_of, searcher_of
from toy import BadItems, Count, Diverge, Fills, Flaky, OnGpu, ReadsText, Squares, Starves
from toy_hang import Hangs

from orchestrator import launch as launch_module
from orchestrator import retries, retrying
from orchestrator.claims import is_held
from orchestrator.cluster import resources_for
from orchestrator.launch import Outcome, _Ends, _Events, _is_unfinished, _tuner, launch
from orchestrator.leftovers import claimed
from orchestrator.plan import make_plan
from orchestrator.resources import Amount, Capacity, Demand
from orchestrator.store import Result, Store
from orchestrator.study import Resources, Study
from trainables.api.identity import FileDigests, Keys


class Heard:
    """A listener that writes down (event, key, what comes with it)."""

    def __init__(self):
        self.events = []
        self.then = lambda event, key, what: None

    def __getattr__(self, event):
        def hear(key, what=None):
            self.events.append((event, key, what))
            self.then(event, key, what)

        return hear


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    monkeypatch.setattr(retries, "CRASH_WAITS_S", (0.1, 0.2, 0.3))


@pytest.fixture
def run(cluster, tmp_path, quick_settings):
    """A function that runs trials on the cluster: (store, outcome, states by name, what its listener heard)."""

    def make(trials, **resources):
        store = Store(str(tmp_path / "results"))
        plan = make_plan(Study("s", "?", trials), store, Keys(FileDigests()))
        heard = Heard()
        outcome = launch(plan, store, quick_settings(store, **resources), heard)
        states = {p.trial.name: p.state.value for p in make_plan(plan.study, store, Keys(FileDigests())).planned}
        return store, outcome, states, heard.events

    return make


def test_the_driver_does_not_load_mlflow(run, monkeypatch):
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    assert run({"t": Count(1)})[2] == {"t": "done"}
    assert "mlflow" not in sys.modules


def test_a_study_with_every_fate(run, tmp_path):
    killed = Count(4, increment=7, die_in_epoch=2, log_path=tmp_path / "killed")
    trials = {
        "killed": killed,
        "after killed": Count(2, upstream=killed),
        "flaky": Flaky(1, log_path=tmp_path / "flaky"),
        "hopeless": Flaky(99, log_path=tmp_path / "hopeless"),
        "diverges": Diverge(),
        "blocked": Count(1, upstream=Diverge()),
    }
    store, outcome, states, heard = run(trials)
    assert states == {
        "killed": "done", "after killed": "done", "flaky": "done", "hopeless": "failed", "diverges": "failed",
        "blocked": "blocked",
    }  # fmt: skip
    # SIGKILL in epoch 2: epochs 0 and 1 lie in the checkpoint, 2 is computed again, and its row is there once.
    lines = (tmp_path / "killed").read_text().splitlines()
    assert lines == ["epoch 0", "epoch 1", "epoch 2", "died", "epoch 2", "epoch 3"]
    plan = make_plan(Study("s", "?", trials), store, Keys(FileDigests()))
    result = next(p.result for p in plan.planned if p.trial.name == "killed")
    assert [row[:3] for s in result.segments for row in store.segment(result.key, s)] == [
        ["train/sum", epoch, 7.0 * (epoch + 1)] for epoch in range(4)
    ]
    assert result.attempt == 2
    assert not outcome.was_interrupted
    assert {f.kind for f in outcome.failures.values()} == {"crashed", "invalid"}
    assert (tmp_path / "hopeless").read_text().count("try") == 4
    hopeless = next(p.trial.key for p in plan.planned if p.trial.name == "hopeless")
    told = [event for event, key, _ in heard if key == hopeless]
    assert told == ["started", "noted", "waits"] * 3 + ["started", "failed"]
    keys = {p.trial.name: p.trial.key for p in plan.planned}
    counts = Counter((event, key) for event, key, _ in heard)
    assert {name: counts["started", key] for name, key in keys.items()} == {
        "killed": 2, "after killed": 1, "flaky": 2, "hopeless": 4, "diverges": 1, "blocked": 0,
    }  # fmt: skip
    ends = {(event, key): what for event, key, what in heard if event in ("done", "failed")}
    assert set(ends) == {
        ("done", keys["killed"]), ("done", keys["after killed"]), ("done", keys["flaky"]),
        ("failed", keys["hopeless"]), ("failed", keys["diverges"]),
    }  # fmt: skip
    assert ends["failed", keys["hopeless"]] == "crashed: OSError: the network share went away"
    assert ends["failed", keys["diverges"]].startswith("invalid: ")
    told = [what for event, key, what in heard if event == "progressed" and key == keys["killed"]]
    assert {(p.total, p.unit) for p in told} == {(4, "epochs")}
    assert set(outcome.blocked) == {keys["blocked"]}
    assert store.names(".tune") == []


def test_gc_keeps_off_also_while_the_only_trial_waits_to_be_tried_again(cluster, tmp_path, quick_settings):
    store, heard, seen = Store(str(tmp_path / "results")), Heard(), {}
    heard.then = lambda event, key, what: seen.setdefault(event, (is_held(store, f"trials/{key}"), claimed(store, ())))
    plan = make_plan(Study("s", "?", {"t": Flaky(1, log_path=tmp_path / "log")}), store, Keys(FileDigests()))
    launch(plan, store, quick_settings(store), heard)
    of_trial, (what, holder) = seen["noted"]
    assert of_trial is None
    assert what.startswith("the launch s-")
    assert holder.startswith("process ")
    assert claimed(store, ()) is None
    assert store.names(".tune") == []


def test_a_disk_that_is_full_in_mid_study_is_waited_for_and_charged_to_nobody(
    cluster, tmp_path, quick_settings, monkeypatch
):
    store, full = Store(str(tmp_path / "results")), tmp_path / "full"
    monkeypatch.setattr(launch_module, "full_place", lambda *places: str(full) if full.exists() else "")
    monkeypatch.setattr(retrying, "_LOOKS_EVERY_S", 0.1)
    monkeypatch.setattr(retries, "_FULL_FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(retries, "CRASH_WAITS_S", ())  # a crash would be the end
    study = Study("s", "?", {"a": Fills(1, full), "b": Fills(2, full), "after": Count(2, upstream=Count(1))})
    heard = Heard()

    def freed_when_said(event, key, what):
        if event == "noted" and what.startswith("disk full at"):
            full.unlink()

    full.touch()
    heard.then = freed_when_said
    outcome = launch(make_plan(study, store, Keys(FileDigests())), store, quick_settings(store), heard)
    assert outcome.failures == {}
    assert {p.state.value for p in make_plan(study, store, Keys(FileDigests())).planned} == {"done"}
    assert [what for event, _, what in heard.events if event == "noted"][:1] == [
        f"disk full at {full}; waiting for space"
    ]


def test_out_of_memory_is_tried_once_more_with_a_node_of_its_own(run, tmp_path):
    store, outcome, states, heard = run({"starves": Starves(log_path=tmp_path / "log")})
    assert states == {"starves": "failed"}
    assert (tmp_path / "log").read_text().count("try") == 2
    ((key, failure),) = outcome.failures.items()
    assert failure.kind == store.failure(key).kind == "out of memory"
    assert failure.message == "MemoryError: too many images (on cpu) (batch_size 64)"
    said = f"out of memory: {failure.message}; again at once, with a node of its own"
    assert [what for event, _, what in heard if event == "noted"] == [said]


def test_a_node_of_its_own_is_one_that_is_there(tmp_path, quick_settings, monkeypatch):
    nodes = [Amount(64.0)]
    monkeypatch.setattr(launch_module, "capacity", lambda: Capacity(tuple(nodes)))
    monkeypatch.setattr(launch_module, "nodes_alive", lambda: ())
    store = Store(str(tmp_path / "results"))
    events = _Events(Heard(), store, may_lend=False, time_limit_s=None)
    ends = _Ends(store, quick_settings(store), Heard(), events, Outcome())
    trial = plan_of({"t": Count(1)}).planned[0].trial
    events.errors[trial.key] = "OutOfMemoryError: Task was killed due to the node running low on memory."
    ends.finished(trial, error=True)
    assert ends.demand(trial) == Demand(Amount(64.0))
    nodes[:] = [Amount(8.0), Amount(4.0)]
    assert ends.demand(trial) == Demand(Amount(1.0))  # better beside others than never
    events.errors[trial.key] = "The actor died because its node has died. Node Id: 7"
    ends.finished(trial, error=True)
    assert ends.demand(trial) == Demand(Amount(4.0))
    nodes[:] = [Amount(64.0)]
    ends.finished(trial, error=True)
    assert ends.demand(trial) == Demand(Amount(64.0))


def test_items_are_shared_among_workers_and_kept_through_a_kill(run, tmp_path):
    log = tmp_path / "log"
    squares = Squares(12, 1, item_s=0.3, die_at_item=9, log_path=log)
    _, _, states, _ = run({"squares": squares}, cpus=1, workers=2)
    assert states == {"squares": "done"}
    lines = [line.split() for line in log.read_text().splitlines() if line.startswith("item")]
    assert len({pid for *_, pid in lines}) >= 2
    counts = [sum(int(line[1]) == item for line in lines) for item in range(12)]
    assert min(counts) == 1
    assert counts[:6] == [1] * 6


def test_an_idle_slot_helps_the_last_trial_and_is_nobody_s_before(run, tmp_path):
    trials = {
        "items": Squares(60, 1, item_s=0.4, log_path=tmp_path / "log"),
        "long": Count(5, epoch_s=1.0, log_path=tmp_path / "epochs"),
    }
    store, _, states, _ = run(trials, cpus=1, workers=1)
    assert set(states.values()) == {"done"}
    pids = [line.split()[-1] for line in (tmp_path / "log").read_text().splitlines()]
    assert len(set(pids[:8])) == 1  # the other slot was taken
    assert len(set(pids)) >= 2
    result = next(r for key in store.finished() if (r := store.result(key)).metrics.get("total"))
    assert result.busy_s >= 60 * 0.4  # of all workers together


def test_an_error_in_a_shared_item_keeps_its_class(run, tmp_path):
    (tmp_path / "log").touch()
    _, outcome, states, _ = run({"bad": BadItems(8, 1, log_path=tmp_path / "log")}, cpus=1, workers=2)
    assert states == {"bad": "failed"}
    (failure,) = outcome.failures.values()
    assert failure.kind == "invalid"
    assert failure.message.startswith("ValueError: item ")


def test_what_hangs_in_code_that_records_nothing_hangs_once(cluster, tmp_path, quick_settings):
    store = Store(str(tmp_path / "results"))
    study = Study(
        "s", "?", {"hangs": Hangs(tmp_path / "log"), "killed": Count(4, die_in_epoch=2, log_path=tmp_path / "k")}
    )
    settings = dataclasses.replace(quick_settings(store), time_limit_s=8.0)
    outcome = launch(make_plan(study, store, Keys(FileDigests())), store, settings, Heard())
    (failure,) = outcome.failures.values()
    assert failure.kind == "timed out"
    assert "longer than the time limit of 0.133333 min" in failure.message
    assert failure.attempt == 1
    assert (tmp_path / "log").read_text() == "began\n"
    killed = make_plan(study, store, Keys(FileDigests())).planned[1]
    assert (killed.state.value, killed.result.attempt) == ("done", 2)  # a death in time is tried again


@pytest.mark.parametrize(("said_at_s", "is_hung"), [(None, True), (95.0, False), (60.0, True)])
def test_a_death_counts_as_hanging_only_by_the_time_since_the_attempt_began(tmp_path, monkeypatch, said_at_s, is_hung):
    """Not while it waited for another driver's claim: it says when that has ended."""
    store, clock = Store(str(tmp_path)), [0.0]
    monkeypatch.setattr("orchestrator.launch.time.monotonic", lambda: clock[0])
    events = _Events(Heard(), store, may_lend=False, time_limit_s=20.0)
    trial = SimpleNamespace(config={"key": "k"})
    events.on_trial_start(0, [], trial)
    if said_at_s is not None:
        clock[0] = said_at_s
        events.on_trial_result(0, [], trial, {"message": "goes on: the other driver has let it go"})
    clock[0] = 100.0
    events.saw("k", RuntimeError("the actor died"))
    failure = store.failure("k")
    assert (failure is not None and failure.kind == "timed out") is is_hung


def test_tune_keeps_no_payload_of_a_trial_that_has_ended(run, monkeypatch):
    """It keeps every trial to its own end, and writes all of them down from time to time."""
    fits = []

    def tuner(*given):
        made = _tuner(*given)
        return SimpleNamespace(fit=lambda: fits.append(made.fit()))

    monkeypatch.setattr("orchestrator.launch._tuner", tuner)
    assert run({"one": Count(2), "two": Diverge()})[2] == {"one": "done", "two": "failed"}
    (fit,) = fits
    trials = fit._experiment_analysis.trials
    assert len(trials) == 2
    for trial in trials:
        assert trial.status == "TERMINATED"
        assert set(trial.config) == {"key", "bundles"}
        kept = [repr(vars(trial)), repr(vars(trial.run_metadata)), *trial.get_json_state()]
        assert not any("payload" in text for text in kept)


def test_relative_paths_mean_the_same_in_trials(run):
    here = Path("relative-input.txt")
    here.write_text("abc")
    try:
        assert run({"t": ReadsText(path=here)})[2] == {"t": "done"}
    finally:
        here.unlink()


def test_what_no_machine_of_the_cluster_can_hold_is_refused(cluster, tmp_path):
    with pytest.raises(ValueError, match=r"asks for 8 times 1 CPU, and the cluster has \d+ CPU"):
        resources_for([Count(), Squares()], cpus=1.0, gpus=None, workers=8)
    with pytest.raises(ValueError, match="asks for 1 CPU with 1 GPU"):
        resources_for([OnGpu()], cpus=1.0, gpus=1.0, workers=1)
    resources_for([Squares()], cpus=1.0, gpus=1.0, workers=1)  # it uses none
    assert resources_for([Squares()], cpus=0.5, gpus=None, workers=2) == Resources(0.5, 0.0, 2)
    assert resources_for([Count()], cpus=1.0, gpus=None, workers=8).workers == 8  # nothing of it is shared


def test_the_result_does_not_depend_on_how_it_was_run(run, tmp_path):
    (tmp_path / "log").touch()
    squares = Squares(5, 2, log_path=tmp_path / "log")
    store, *_ = run({"squares": squares}, cpus=1, workers=2)
    again = dataclasses.replace(squares, log_path=tmp_path / "other")
    plan = make_plan(Study("s", "?", {"squares": again}), store, Keys(FileDigests()))
    assert plan.planned[0].result.metrics == {"total": 30.0}


def test_what_another_driver_saw_fail_is_no_interruption(tmp_path):
    """It waits here while it fails there; the next plan of a search says so."""
    other, base = Count(9), Count(1)
    searcher = searcher_of({"other": other, "base": base}, slots=1)
    assert names(searcher, "1") == ["other"]
    searcher._add(plan_of({"base": base, "tune": Count(2, upstream=base)}, failed=["base"]))
    searcher.on_trial_complete("1")
    assert names(searcher, "2") == ["FINISHED"]
    store = Store(str(tmp_path / "results"))
    keys = {trial.name: key for key, trial in searcher.trials.items()}
    store.publish(Result(keys["other"], {}, {}, [], 0.0, 1.0, 1.0, 1, 0.0, {}))
    assert not _is_unfinished(searcher, Outcome(), store)
