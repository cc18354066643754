"""The graph, what of it is done, and what a change makes run again."""

import time
from dataclasses import dataclass

import pytest
from toy import Count, Misconfigured, ReadsText

from orchestrator.manifest import manifest_of
from orchestrator.plan import State, make_plan, trials_of
from orchestrator.store import Failure, Store
from orchestrator.study import Study
from orchestrator.trial import Payload, run_trial
from trainables.api.identity import FileDigests, Keys


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "results"))


@dataclass(frozen=True)
class Pair(Count):
    first: Count = Count(1)
    second: Count = Count(1)

    def __init__(self, first, second):
        object.__setattr__(self, "first", first)
        object.__setattr__(self, "second", second)


def plan_of(store, trials, **options):
    return make_plan(Study("s", "?", trials), store, Keys(FileDigests()), **options)


def states(plan):
    return {p.trial.name: p.state.value for p in plan.planned}


def run_all(plan, settings):
    for trial in plan.runnable():
        run_trial(Payload(trial, settings))


def test_shared_upstream_appears_once_and_before_its_dependents():
    base = Count(2)
    study = Study("s", "?", {f"tune {n}": Count(n, upstream=base) for n in range(3, 8)})
    trials = trials_of(study, Keys(FileDigests()))
    assert [t.name for t in trials] == ["tune 3 / Count", "tune 3", "tune 4", "tune 5", "tune 6", "tune 7"]
    assert all(t.upstream == (trials[0].key,) for t in trials[1:])


def test_a_trial_the_study_names_keeps_its_name():
    base = Count(2)
    trials = trials_of(Study("s", "?", {"after": Count(3, upstream=base), "base": base}), Keys(FileDigests()))
    assert [t.name for t in trials] == ["base", "after"]


def test_names_are_unique_and_equal_configurations_keep_all_their_names(store):
    pair = Pair(Count(2), Count(3))
    plan = plan_of(store, {"pair": pair, "a": Count(4), "b": Count(4)})
    assert [p.trial.name for p in plan.planned] == ["pair / Count", "pair / Count 2", "pair", "a"]
    manifest = manifest_of(plan, "python x.py", {}, Keys(FileDigests()))
    assert [(t["name"], t["named"]) for t in manifest["trials"][2:]] == [("pair", True), ("a", True), ("b", True)]
    assert manifest["trials"][3]["key"] == manifest["trials"][4]["key"]


def test_only_what_depends_on_a_change_runs_again(store, quick_settings, tmp_path):
    text = tmp_path / "data.txt"
    text.write_text("one")

    def trials(increment=1):
        base = Count(2)
        return {
            "a": Count(3, upstream=base),
            "b": Count(3, increment, upstream=base),
            "c": ReadsText(path=text),
            "d": Count(4, upstream=ReadsText(path=text)),
        }

    plan = plan_of(store, trials())
    # a and b are one and the same trial as long as they are configured alike.
    assert states(plan) == {"a / Count": "new", "a": "new", "c": "new", "d": "new"}
    for trial in plan.runnable()[:3]:
        run_trial(Payload(trial, quick_settings(store)))
    assert states(plan_of(store, trials()))["c"] == "done"
    assert states(plan_of(store, trials(increment=2))) == {
        "a / Count": "done", "a": "done", "b": "new", "c": "done", "d": "new",
    }  # fmt: skip
    text.write_text("two!")
    assert states(plan_of(store, trials())) == {"a / Count": "done", "a": "done", "c": "new", "d": "new"}


def test_workers_and_storage_change_nothing(store, quick_settings, tmp_path):
    study = Study("s", "?", {"a": Count(3, log_path=tmp_path / "x")})
    other = Study("s", "?", {"a": Count(3, log_path=tmp_path / "y")})
    run_all(make_plan(study, store, Keys(FileDigests())), quick_settings(store, cpus=2, workers=3))
    assert make_plan(other, store, Keys(FileDigests())).counts()["done"] == 1


def test_failures_block_dependents_until_they_are_retried(store, quick_settings):
    bad = Misconfigured()
    trials = {
        "ok": Count(1),
        "bad": bad,
        "after": Count(3, upstream=bad),
        "later": Count(4, upstream=Count(3, upstream=bad)),
    }
    run_all(plan_of(store, {"bad": bad}), quick_settings(store))
    plan = plan_of(store, trials)
    assert states(plan) == {"ok": "new", "bad": "failed", "after": "blocked", "later": "blocked"}
    assert [t.name for t in plan.runnable()] == ["ok"]
    assert "size = -1" in plan.planned[1].reason
    assert plan.planned[2].reason == "waits for 'bad', which is failed"
    retried = plan_of(store, trials, retry_failed=True)
    assert states(retried) == {"ok": "new", "bad": "new", "after": "new", "later": "new"}


def test_an_interrupted_trial_is_resumable_and_costs_only_the_rest(store, quick_settings, monkeypatch):
    monkeypatch.setattr("orchestrator.context._PROGRESS_S", 0.0)

    class Stop(Exception):
        pass

    def stop_half_way(progress):
        if progress.done == 3:
            raise Stop

    half, whole = Count(4, increment=5), Count(4)
    run_all(plan_of(store, {"t": whole}), quick_settings(store))
    payload = Payload(plan_of(store, {"t": half}).runnable()[0], quick_settings(store))
    with pytest.raises(Stop):
        run_trial(payload, stop_half_way)
    plan = plan_of(store, {"half": half, "whole": whole, "new": Count(8)})
    assert states(plan) == {"half": "resumable", "whole": "done", "new": "new"}
    by_name = {p.trial.name: p for p in plan.planned}
    assert by_name["half"].fraction == 0.5
    assert plan.is_measured
    assert by_name["new"].estimated_s == pytest.approx(by_name["half"].estimated_s * 4)
    assert plan.estimated_s() == pytest.approx(by_name["new"].estimated_s + by_name["half"].estimated_s)
    assert plan.to_json()["resumable"] == 1


def test_a_plan_changes_nothing(store):
    store.record_failure(
        plan_of(store, {"t": Count(1)}).planned[0].trial.key, Failure("crash", "m", "", 1, time.time())
    )
    plan = plan_of(store, {"t": Count(1)}, retry_failed=True)
    assert plan.planned[0].state is State.NEW
    assert store.failure(plan.planned[0].trial.key) is not None


def test_the_manifest_tells_what_is_needed_and_with_which_data(store, tmp_path):
    (tmp_path / "data.txt").write_text("one")
    base = ReadsText(path=tmp_path / "data.txt")
    plan = plan_of(store, {"t": Count(upstream=base)})
    manifest = manifest_of(plan, "python x.py", {"code_version": "v"}, Keys(FileDigests()))
    upstream, named = manifest["trials"]
    assert (upstream["named"], named["named"]) == (False, True)
    assert named["upstream"] == [upstream["key"]]
    assert named["configuration"]["upstream"]["repeat"] == 1
    assert upstream["data"] == named["data"] == {"ReadsText": FileDigests().digest_all(base.source_files())}
