"""Searches as a database for Optuna, which is read back with Optuna itself."""

import os
import subprocess
import sys
import warnings

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from toy import Bowl, Climb

from orchestrator.attempt import Payload
from orchestrator.manifest import ManifestWriter, manifest_of
from orchestrator.optuna_export import optuna as export
from orchestrator.plan import State, make_plan
from orchestrator.search.suggestions import Suggestions
from orchestrator.store import Store
from orchestrator.study import Rungs, Search, Study
from orchestrator.trial import run_trial
from trainables.api.identity import FileDigests, Keys

SPACE = {
    "x": FloatDistribution(0.001, 1.0, log=True), "n": IntDistribution(1, 9, step=2),
    "y": CategoricalDistribution(["flat", "steep", None, True]),
}  # fmt: skip
STATES = optuna.trial.TrialState


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "results"))


@pytest.fixture
def searched(store, quick_settings):
    """A function that searches with ``num`` decisions, and leaves the last ``num_open`` of them unfinished."""

    def run(search, num=1000, num_open=0, name="s"):
        study, keys = Study(name, "Which?", search=search), Keys(FileDigests())
        suggestions, done, lost = Suggestions(study, store, keys), set(), set()
        for position in range(num):
            if (suggested := suggestions.next(done, lost)) is None:
                break
            plan = make_plan(suggested, store, keys)
            for trial in plan.runnable() if position < num - num_open else ():
                run_trial(Payload(trial, quick_settings(store)))
            for p in make_plan(suggested, store, keys).planned:
                if p.state in (State.DONE, State.FAILED):
                    (done if p.state is State.DONE else lost).add(p.trial.key)
        suggestions.update(done, lost)
        manifest = manifest_of(make_plan(suggestions.study(), store, keys), "python a_study.py", {}, keys)
        ManifestWriter(store, manifest, suggestions).write()
        return suggestions.describe()["suggestions"]

    return run


def bowls(params):
    return {"val/loss": [Bowl(params["x"], str(params["y"]), seed=seed, fails_above=0.5) for seed in range(2)]}


def climbs(params, length):
    return {"val/loss": [Climb(params["x"], length, seed, fails_above=0.5) for seed in range(2)]}


def loaded(path, name="s"):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{path}")


def test_optuna_reads_what_the_search_did(store, searched, tmp_path, capsys):
    told = searched(Search(SPACE, bowls, {"val/loss": "minimize"}, 12, sampler=optuna.samplers.RandomSampler))
    assert export(tmp_path / "a.db", store.uri) == 0
    assert "a.db: 12 suggestions of s" in capsys.readouterr().out
    study = loaded(tmp_path / "a.db")
    assert study.direction is optuna.study.StudyDirection.MINIMIZE
    assert study.user_attrs["question"] == "Which?"
    assert study.metric_names == ["val/loss"]
    trials = study.trials
    assert [t.params for t in trials] == [s["params"] for s in told]
    assert all(t.distributions == SPACE for t in trials)
    assert {t.state for t in trials} == {STATES.COMPLETE, STATES.FAIL}
    for trial, suggestion in zip(trials, told, strict=True):
        assert trial.user_attrs["suggestion"] == suggestion["number"] == trial.number + 1
        assert trial.user_attrs["trials"] == suggestion["trials"]
        assert (trial.state is STATES.COMPLETE) == (suggestion["state"] == "complete")
        assert trial.value == (suggestion["values"] or {}).get("val/loss")
        assert trial.intermediate_values == {}
        results = [r for key in suggestion["trials"]["val/loss"] if (r := store.result(key))]
        if results:
            assert trial.datetime_start.timestamp() == pytest.approx(min(r.started_at for r in results), abs=1e-3)
            assert trial.datetime_complete.timestamp() == pytest.approx(max(r.ended_at for r in results), abs=1e-3)
    assert study.best_trial.value == min(s["values"]["val/loss"] for s in told if s["values"])


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_rungs_are_intermediate_values_and_what_stays_behind_is_pruned(store, searched, tmp_path, direction):
    search = Search(SPACE, climbs, {"val/loss": direction}, 14, rungs=Rungs((2, 6, 18), 3), seed=1)
    told = searched(search)
    export(tmp_path / "a.db", store.uri)
    study = loaded(tmp_path / "a.db")
    assert study.direction.name.lower() == direction
    assert {t.state for t in study.trials} == {STATES.COMPLETE, STATES.PRUNED, STATES.FAIL}
    for trial, suggestion in zip(study.trials, told, strict=True):
        values = {rung["length"]: rung["values"]["val/loss"] for rung in suggestion["rungs"] if rung["values"]}
        assert trial.intermediate_values == values
        state = STATES.COMPLETE if 18 in values else STATES.PRUNED if values else STATES.FAIL
        assert trial.state is state
        assert trial.value == (values[max(values)] if values else None)
        assert trial.user_attrs["trials at 2"] == suggestion["rungs"][0]["trials"]
    assert len([t for t in study.trials if t.state is STATES.COMPLETE]) >= 1


def test_what_is_under_way_runs(store, searched, tmp_path):
    search = Search(SPACE, climbs, {"val/loss": "minimize"}, 14, rungs=Rungs((2, 6), 2), seed=1)
    told = searched(search, num=6, num_open=2)
    export(tmp_path / "a.db", store.uri)
    trials = loaded(tmp_path / "a.db").trials
    running = [s["number"] - 1 for s in told if s["rungs"][-1]["state"] == "running"]
    assert len(running) == 2
    assert [t.number for t in trials if t.state is STATES.RUNNING] == running
    assert all(t.datetime_complete is None and t.value is None for t in trials if t.state is STATES.RUNNING)


def test_several_objectives_keep_their_order_and_their_values_on_the_way(store, searched, tmp_path):
    def make(params, length):
        return {"val/size": [Climb(params["x"], length)], "val/loss": [Climb(params["x"], length)]}

    directions = {"val/size": "maximize", "val/loss": "minimize"}
    told = searched(Search(SPACE, make, directions, 12, rungs=Rungs((2, 6), 3)))
    export(tmp_path / "a.db", store.uri)
    study = loaded(tmp_path / "a.db")
    assert study.metric_names == ["val/loss", "val/size"]  # by name, as manifests have them
    assert [d.name.lower() for d in study.directions] == ["minimize", "maximize"]
    for trial, suggestion in zip(study.trials, told, strict=True):
        assert trial.user_attrs["values at 2"] == suggestion["rungs"][0]["values"]
        if len(suggestion["rungs"]) == 2:
            assert trial.values == [suggestion["rungs"][1]["values"][o] for o in sorted(directions)]
        else:
            assert trial.state is STATES.PRUNED
    assert study.best_trials


def test_all_searches_of_a_storage_or_the_one_that_is_named(store, searched, tmp_path):
    for name in ("one", "two"):
        searched(Search(SPACE, bowls, {"val/loss": "minimize"}, 2), name=name)
    export(tmp_path / "both.db", store.uri)
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path / 'both.db'}") == ["one", "two"]
    export(tmp_path / "new" / "two.db", store.uri, "two")
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path / 'new' / 'two.db'}") == ["two"]
    with pytest.raises(ValueError, match="holds no search of a study 'three'"):
        export(tmp_path / "c.db", store.uri, "three")
    assert sorted(p.name for p in tmp_path.glob("*")) == ["both.db", "cache", "new", "results"]


def test_a_manifest_of_before_has_no_rungs(store, searched, tmp_path):
    searched(Search(SPACE, bowls, {"val/loss": "minimize"}, 2))
    (path,) = (f"studies/s/{name}" for name in store.names("studies/s") if name.endswith(".json"))
    manifest = store.read_document(path)
    del manifest["search"]["rungs"], manifest["digest"]
    store.write_document(path, manifest)
    export(tmp_path / "a.db", store.uri)
    assert len(loaded(tmp_path / "a.db").trials) == 2
    store.write_document(path, manifest | {"search": {"space": {}, "directions": {}, "suggestions": [3]}})
    with pytest.raises(ValueError, match="is written down in another way"):
        export(tmp_path / "b.db", store.uri)


def command(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", "optuna", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, cwd=cwd, env=dict(os.environ),
    )  # fmt: skip


def test_a_file_that_is_there_is_left_alone_in_one_line(store, searched, tmp_path):
    searched(Search(SPACE, bowls, {"val/loss": "minimize"}, 2))
    done = command("--storage", store.uri, "--out", "a ?%20.db", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = (tmp_path / "a ?%20.db").read_bytes()
    again = command("--storage", store.uri, "--out", "a ?%20.db", cwd=tmp_path)
    assert again.returncode == 2
    assert "is there already: nothing is overwritten" in again.stderr
    assert len(again.stderr.strip().splitlines()) == 1
    assert (tmp_path / "a ?%20.db").read_bytes() == content
    nothing = command("--storage", tmp_path / "elsewhere", "--out", "b.db", cwd=tmp_path)
    assert nothing.returncode == 2
    assert "holds no search" in nothing.stderr
    assert not (tmp_path / "b.db").exists()


def test_no_study_file_is_loaded(store, searched, tmp_path, monkeypatch):
    searched(Search(SPACE, bowls, {"val/loss": "minimize"}, 2))
    (path,) = (f"studies/s/{name}" for name in store.names("studies/s") if name.endswith(".json"))
    manifest = store.read_document(path)
    del manifest["digest"]
    for entry in manifest["trials"]:
        entry["class"] = "Nowhere"
    store.write_document(path, manifest)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(tmp_path / "a.db", store.uri)
