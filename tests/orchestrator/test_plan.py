"""The graph, what of it is done, and what a change makes run again."""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console
from toy import Count, Misconfigured, ReadsText, Squares

from orchestrator import commands
from orchestrator.attempt import Payload
from orchestrator.graph import trials_of
from orchestrator.kinds import Kind
from orchestrator.manifest import manifest_of
from orchestrator.plan import State, check_trials, make_plan
from orchestrator.printing import show_plan
from orchestrator.store import Failure, Store
from orchestrator.study import Entry, Study
from orchestrator.trial import run_trial
from trainables.api.card import Card
from trainables.api.identity import FileDigests, Keys, digest_of_all
from trainables.api.trainable import Trainable, seed


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
    retried = plan_of(store, trials, retry_failed=tuple(Kind))
    assert states(retried) == {"ok": "new", "bad": "new", "after": "new", "later": "new"}


def test_only_the_classes_that_are_named_run_again_and_the_plan_counts_each(store, capsys):
    trials = {name: Count(n) for n, name in enumerate(("crash", "invalid", "non-finite", "timed out", "fine"), 1)}
    keys = {p.trial.name: p.trial.key for p in plan_of(store, trials).planned}
    for name in ("crash", "invalid", "non-finite", "timed out"):  # two of them by the names of earlier versions
        store.record_failure(keys[name], Failure(name, "why", "", 1, 0.0))
    plan = plan_of(store, trials)
    assert plan.failures() == plan.to_json()["failed_as"] == {"crashed": 1, "invalid": 2, "timed out": 1}
    assert [entry["failed_as"] for entry in plan.to_json()["trials"]][:2] == ["crashed", "invalid"]
    show_plan(plan, Console(width=200), as_json=False)
    assert "1 new, 4 failed (1 crashed, 2 invalid, 1 timed out);" in capsys.readouterr().out
    retried = states(plan_of(store, trials, retry_failed=[Kind.CRASHED, Kind.TIMED_OUT]))
    assert [retried[name] for name in trials] == ["new", "failed", "failed", "new", "new"]


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


def test_another_seed_of_the_same_cell_is_the_best_estimate(store, quick_settings, monkeypatch):
    one, two, other = SeededWork(3, 1), SeededWork(3, 2), SeededWork(6, 1)
    for trainable, busy_s in ((one, 8.0), (other, 1.0)):
        monkeypatch.setattr("orchestrator.checkpoints.Checkpoints._busy_s", lambda self, busy_s=busy_s: busy_s)
        run_all(plan_of(store, {"t": trainable}), quick_settings(store))
    trials = {"one": one, "other": other, "two": two}
    plan = plan_of(store, {**trials, "unlike": Squares()})
    by_name = {p.trial.name: p for p in plan.planned}
    assert by_name["two"].estimated_s == pytest.approx(8.0)
    assert (by_name["two"].is_measured, by_name["unlike"].is_measured) == (True, False)
    assert not plan.is_measured
    assert plan_of(store, trials).is_measured


def test_what_another_plan_knows_tells_what_a_trial_costs(store, quick_settings, monkeypatch):
    monkeypatch.setattr("orchestrator.checkpoints.Checkpoints._busy_s", lambda self: 8.0)
    run_all(plan_of(store, {"t": SeededWork(3, 1)}), quick_settings(store))
    known = plan_of(store, {"t": SeededWork(3, 1)}).spent
    (alone,) = plan_of(store, {"new": SeededWork(6, 5)}).planned
    plan = plan_of(store, {"new": SeededWork(6, 5)}, spent=known)
    assert not alone.is_measured
    assert plan.is_measured
    assert plan.planned[0].estimated_s == pytest.approx(16.0)
    assert plan.spent == known
    assert plan.finished_s() == 0.0, "those of other plans are not this one's work"


def test_a_plan_knows_what_its_finished_trials_took_whenever_they_ran(store, quick_settings, monkeypatch):
    for first, busy_s in ((1, 8.0), (2, 3.0)):
        monkeypatch.setattr("orchestrator.checkpoints.Checkpoints._busy_s", lambda self, busy_s=busy_s: busy_s)
        run_all(plan_of(store, {"t": SeededWork(3, first)}), quick_settings(store))
    trials = {str(own): SeededWork(3, own) for own in (1, 2, 3)}
    assert plan_of(store, trials).finished_s() == pytest.approx(11.0)
    assert plan_of(store, {"one": SeededWork(3, 2)}).finished_s() == pytest.approx(3.0)


def test_a_plan_changes_nothing(store):
    store.record_failure(
        plan_of(store, {"t": Count(1)}).planned[0].trial.key, Failure("crash", "m", "", 1, time.time())
    )
    plan = plan_of(store, {"t": Count(1)}, retry_failed=tuple(Kind))
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
    assert (
        upstream["data"]
        == named["data"]
        == {"ReadsText": digest_of_all(FileDigests().digest_files(base.source_files()))}
    )
    assert named["images"] == [], "what reads files and has no card is no data set of images"


# -- what is needed, and what is not whole ------------------------------------------------------------


def remove(store, key):
    store.remove(f"results/{key}.json")
    store.remove(f"trials/{key}")


def test_what_nobody_unfinished_needs_is_not_run(store, quick_settings):
    base, middle = Count(2), Count(3, upstream=Count(2))
    trials = {"a": Count(4, upstream=middle), "b": Count(5, upstream=middle)}
    run_all(plan_of(store, trials), quick_settings(store))
    keys = Keys(FileDigests())
    remove(store, keys.key(base))
    remove(store, keys.key(middle))
    plan = plan_of(store, trials)
    assert sorted(states(plan).values()) == ["done", "done", "unneeded", "unneeded"]
    assert plan.runnable() == []
    assert plan.is_complete
    assert plan.to_json()["unneeded"] == 2
    assert plan.estimated_s() == 0
    # One more that needs the middle needs also what the middle needs.
    more = plan_of(store, {**trials, "c": Count(6, upstream=middle)})
    assert [t.key for t in more.runnable()] == [keys.key(base), keys.key(middle), keys.key(Count(6, upstream=middle))]
    # And what the study names is asked for.
    assert states(plan_of(store, {**trials, "base": base}))["base"] == "new"


def test_a_failure_that_is_not_retried_needs_nothing(store, quick_settings):
    trials = {"bad": Misconfigured(upstream=Count(2))}
    run_all(plan_of(store, trials), quick_settings(store))
    remove(store, Keys(FileDigests()).key(Count(2)))
    assert sorted(states(plan_of(store, trials)).values()) == ["failed", "unneeded"]
    assert sorted(states(plan_of(store, trials, retry_failed=tuple(Kind))).values()) == ["new", "new"]


def test_a_damaged_result_is_a_state_of_its_own_and_runs_again(store, quick_settings):
    trials = {"t": Count(3), "after": Count(1, upstream=Count(3))}
    run_all(plan_of(store, {"t": Count(3)}), quick_settings(store))
    key = plan_of(store, {"t": Count(3)}).planned[0].trial.key
    store.write_bytes(f"{store.result(key).folder}/sum.txt", b"")
    before = {path.relative_to(store.uri) for path in Path(store.uri).rglob("*")}
    plan = plan_of(store, trials)
    assert states(plan) == {"t": "damaged", "after": "new"}
    assert plan.to_json()["damaged"] == 1
    assert "sum.txt is missing or not whole" in plan.planned[0].reason
    assert {path.relative_to(store.uri) for path in Path(store.uri).rglob("*")} == before
    run_all(plan, quick_settings(store))
    assert states(plan_of(store, trials)) == {"t": "done", "after": "done"}
    assert len(store.names(f"trials/{key}/damaged")) == 1


def test_every_trial_that_would_run_is_asked_before_anything_runs():
    trials = {"good": Sized(3), "small": Sized(0), "tiny": Sized(-1), "after": Count(1, upstream=Sized(-2))}
    plan = plan_of(Store("memory://checks"), trials)
    with pytest.raises(ValueError, match="small: size = 0: expected at least 1") as caught:
        check_trials(plan.runnable())
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["small", "tiny", "after / Sized"]
    check_trials(plan.runnable()[:1])


@dataclass(frozen=True)
class Sized(Trainable):
    size: int

    def check(self):
        if self.size < 1:
            raise ValueError(f"size = {self.size}: expected at least 1")

    def run(self, context):
        return {}


def test_status_tells_what_a_plan_tells(store, quick_settings, capsys):
    trials = {"t": Count(3), "after": Count(1, upstream=Count(2)), "bad": Misconfigured()}
    run_all(plan_of(store, trials), quick_settings(store))
    keys = Keys(FileDigests())
    store.write_document("studies/s/a.json", manifest_of(plan_of(store, trials), "python x.py", {}, keys))
    store.write_bytes(f"{store.result(keys.key(Count(3))).folder}/sum.txt", b"")
    remove(store, keys.key(Count(2)))
    commands.status(store.uri, as_json=True)
    (study,) = json.loads(capsys.readouterr().out)["studies"]
    assert {name: n for name, n in study["counts"].items() if n} == {
        "done": 1, "damaged": 1, "failed": 1, "unneeded": 1,
    }  # fmt: skip
    planned = plan_of(store, trials).counts()
    assert {name: n for name, n in planned.items() if n} == {"done": 1, "damaged": 1, "failed": 1, "unneeded": 1}


# -- manifests ----------------------------------------------------------------------------------------


def test_a_manifest_tells_roles_cells_seeds_and_cards(store):
    def pretraining(number):
        return Seeded(number)

    trials = {
        "one": Entry(Count(upstream=pretraining(1)), "trained", {"data": "toy"}),
        "two": Entry(Count(upstream=pretraining(2)), "trained", {"data": "toy"}),
        "else": Entry(Count(9, upstream=pretraining(1)), "trained", {"data": "toy"}),
        "bare": Count(2),
        "as a control": Entry(Count(upstream=pretraining(3)), "untrained", {"data": "toy"}),
        "elsewhere": Entry(Count(upstream=pretraining(4)), "trained", {"data": "other"}),
    }
    card = Card("toy", {"train": 3}, 2, "by group", "CC0", groups="images")
    plan = make_plan(Study("s", "?", trials, cards={"toy": card}), store, Keys(FileDigests()))
    manifest = json.loads(json.dumps(manifest_of(plan, "python x.py", {}, Keys(FileDigests()))))
    entries = {entry["name"]: entry for entry in manifest["trials"]}
    one, two, other, bare, control, elsewhere = (entries[name] for name in trials)
    assert len({entry["cell"] for entry in (one, other, bare, control, elsewhere)}) == 5
    assert (one["role"], one["labels"], one["seeds"]) == ("trained", {"data": "toy"}, {"upstream.toy_seed": 1})
    assert two["seeds"] == {"upstream.toy_seed": 2}
    assert one["cell"] == two["cell"] != other["cell"]
    assert (bare["role"], bare["labels"], bare["seeds"]) == ("", {}, {})
    assert manifest["cards"] == {"toy": dataclasses.asdict(card)}
    upstream = [entry for entry in manifest["trials"] if not entry["named"]]
    assert [(entry["role"], entry["seeds"]) for entry in upstream] == [("", {"toy_seed": n}) for n in (1, 2, 3, 4)]


@dataclass(frozen=True)
class Seeded(Trainable):
    toy_seed: int = seed()

    def run(self, context):
        return {}


@dataclass(frozen=True)
class SeededWork(Trainable):
    size: int
    toy_seed: int = seed()

    def run(self, context):
        return {}

    def work_flop(self):
        return 1e6 * self.size
