"""The whole graph through one real Ray Tune run."""

import dataclasses
import io
import sys
from pathlib import Path

import pytest
from rich.console import Console
from toy import BadItems, Count, Diverge, Flaky, ReadsText, Squares

from orchestrator.launch import launch, resources_for
from orchestrator.options import StudyOptions
from orchestrator.plan import make_plan
from orchestrator.store import Store
from orchestrator.study import Study
from orchestrator.view import View
from trainables.api.identity import FileDigests, Keys


@pytest.fixture
def run(cluster, tmp_path, quick_settings):
    """A function that runs trials on the cluster: (store, outcome, states by name, what was shown, what was told)."""

    def make(trials, **resources):
        store = Store(str(tmp_path / "results"))
        plan = make_plan(Study("s", "?", trials), store, Keys(FileDigests()))
        shown, told = io.StringIO(), []
        with View(plan, Console(file=shown, width=200), lambda: 2) as view:
            settings = quick_settings(store, **resources)
            outcome = launch(plan, store, settings, view, None, lambda key, event: told.append((key, event)))
        states = {p.trial.name: p.state.value for p in make_plan(plan.study, store, Keys(FileDigests())).planned}
        return store, outcome, states, shown.getvalue(), told

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
    store, outcome, states, shown, told = run(trials)
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
    assert {f.kind for f in outcome.failures.values()} == {"crash", "non-finite"}
    assert (tmp_path / "hopeless").read_text().count("try") == 4
    assert "failed  hopeless: crash: OSError: the network share went away" in shown
    assert {key for key, event in told if event == "ended"} == {
        p.trial.key for p in plan.planned if p.state != "blocked"
    }
    assert store.names(".tune") == []


def test_items_are_shared_among_workers_and_kept_through_a_kill(run, tmp_path):
    log = tmp_path / "log"
    squares = Squares(12, 1, item_s=0.3, die_at_item=9, log_path=log)
    _, _, states, _, _ = run({"squares": squares}, cpus=1, workers=2)
    assert states == {"squares": "done"}
    lines = [line.split() for line in log.read_text().splitlines() if line.startswith("item")]
    assert len({pid for *_, pid in lines}) >= 2
    counts = [sum(int(line[1]) == item for line in lines) for item in range(12)]
    assert min(counts) == 1
    assert counts[:6] == [1] * 6


def test_an_error_in_a_shared_item_keeps_its_class(run, tmp_path):
    (tmp_path / "log").touch()
    _, outcome, states, _, _ = run({"bad": BadItems(8, 1, log_path=tmp_path / "log")}, cpus=1, workers=2)
    assert states == {"bad": "failed"}
    (failure,) = outcome.failures.values()
    assert failure.kind == "bad configuration"
    assert failure.message.startswith("ValueError: item ")


def test_relative_paths_mean_the_same_in_trials(run):
    here = Path("relative-input.txt")
    here.write_text("abc")
    try:
        assert run({"t": ReadsText(path=here)})[2] == {"t": "done"}
    finally:
        here.unlink()


def test_what_no_machine_of_the_cluster_can_hold_is_refused(cluster, tmp_path):
    with pytest.raises(ValueError, match=r"asks for 8 CPU.*--workers-per-trial"):
        resources_for([Count(), Squares()], StudyOptions(workers_per_trial=8))
    with pytest.raises(ValueError, match="asks for 1 GPU"):
        resources_for([Squares()], StudyOptions(gpus_per_trial=1.0))
    assert resources_for([Squares()], StudyOptions(workers_per_trial=2)).workers == 2
    assert resources_for([Count()], StudyOptions(workers_per_trial=8)).workers == 8  # nothing of it is shared


def test_the_result_does_not_depend_on_how_it_was_run(run, tmp_path):
    (tmp_path / "log").touch()
    squares = Squares(5, 2, log_path=tmp_path / "log")
    store, *_ = run({"squares": squares}, cpus=1, workers=2)
    again = dataclasses.replace(squares, log_path=tmp_path / "other")
    plan = make_plan(Study("s", "?", {"squares": again}), store, Keys(FileDigests()))
    assert plan.planned[0].result.metrics == {"total": 30.0}
