"""A longer training goes on from a shorter one, as if it had run through."""

import dataclasses
import json

import pytest
from toy import Count, Grow

from orchestrator import commands, printing
from orchestrator.attempt import Payload
from orchestrator.leftovers import unneeded_paths
from orchestrator.manifest import manifest_of
from orchestrator.plan import State, make_plan
from orchestrator.store import Lineage, Store
from orchestrator.study import Study
from orchestrator.trial import run_trial
from trainables.api.identity import FileDigests, Keys


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "results"))


@pytest.fixture
def train(store, quick_settings):
    """A function that runs trainables of one study, and returns the keys."""

    def run(*trainables, into=store):
        study = Study("s", "?", {f"t{i}": t for i, t in enumerate(trainables)})
        plan = make_plan(study, into, Keys(FileDigests()))
        for trial in plan.runnable():
            run_trial(Payload.decode(Payload(trial, quick_settings(into)).encode()))
        return [p.trial.key for p in plan.planned]

    return run


def outcome(store, key):
    result = store.result(key)
    return result.metrics, result.files, [row[:3] for row in store.rows(result)]


def state_path(store, key):
    return f"{store.result(key).state_folder}/state.txt"


def plan_of(store, trials):
    return make_plan(Study("s", "?", trials), store, Keys(FileDigests()))


def test_three_epochs_and_then_five_are_five_at_once(store, train, tmp_path):
    log = tmp_path / "log"
    (short,) = train(Grow(3, log_path=log))
    (long,) = train(Grow(5, log_path=log))
    assert log.read_text().splitlines() == [f"3: epoch {i}" for i in range(3)] + ["5: epoch 3", "5: epoch 4"]
    whole = Store(str(tmp_path / "whole"))
    (at_once,) = train(Grow(5), into=whole)
    assert at_once == long
    assert outcome(store, long) == outcome(whole, long)
    assert outcome(store, long)[2] == [["train/sum", e, float(sum(range(e + 1)))] for e in range(5)] + [
        ["val/end", 5, 10.0]
    ]
    result = store.result(long)
    assert result.continued_from == Lineage(short, 3)
    assert result.provenance["continued_from"] == f"{short} at 3"
    assert result.work_flop == pytest.approx(2e6)
    assert whole.result(long).work_flop == 5e6
    assert result.busy_s < 60
    assert "continued_from" not in whole.result(long).provenance


def test_the_furthest_of_checkpoint_and_family_is_where_a_start_begins(store, train, tmp_path):
    log = tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        train(Grow(6, stop_at=2, log_path=log))  # its own checkpoint stands at 2
    train(Grow(1), Grow(4))
    with pytest.raises(KeyboardInterrupt):
        train(Grow(6, stop_at=5, log_path=log))  # from the family's 4; its own checkpoint stands at 5
    train(Grow(3))
    (long,) = train(Grow(6, log_path=log))
    assert log.read_text().splitlines() == [f"6: epoch {e}" for e in (0, 1, 4, 5)]
    assert store.result(long).continued_from.length == 4
    assert [row[:2] for row in store.rows(store.result(long))] == [["train/sum", e] for e in range(6)] + [
        ["val/end", 6]
    ]
    assert store.result(long).attempt == 3


def test_others_are_no_family(store, train, tmp_path):
    log = tmp_path / "log"
    train(Grow(3, factor=2))
    train(Grow(4, log_path=log))
    assert len(log.read_text().splitlines()) == 4


def test_a_longer_one_gives_nothing_to_a_shorter_one(store, train, tmp_path):
    log = tmp_path / "log"
    train(Grow(5))
    (short,) = train(Grow(3, log_path=log))
    assert len(log.read_text().splitlines()) == 3
    assert store.result(short).continued_from is None


@pytest.mark.parametrize("damage", ["changed", "missing", "journal"])
def test_a_damaged_state_is_no_damage(store, train, tmp_path, damage):
    log = tmp_path / "log"
    (one,) = train(Grow(1))
    (three,) = train(Grow(3))
    if damage == "changed":
        store.write_bytes(state_path(store, three), b"3 9")
    elif damage == "missing":
        store.remove(store.result(three).state_folder)
    else:
        segment = store.result(three).state.segments[0]
        store.write_bytes(f"trials/{three}/journal/{segment}", b"[]")
    assert plan_of(store, {"t": Grow(3)}).counts()["done"] == 1
    (five,) = train(Grow(5, log_path=log))
    assert log.read_text().splitlines() == [f"5: epoch {e}" for e in range(1, 5)]
    assert store.result(five).continued_from == Lineage(one, 1)
    assert outcome(store, five)[0] == {"sum": 10.0}


def test_a_shorter_one_that_fails_does_not_block(store, train, tmp_path):
    log = tmp_path / "log"
    short, long = train(Grow(2, fail_at=1), Grow(4, log_path=log))
    assert store.failure(short) is not None
    assert len(log.read_text().splitlines()) == 4
    assert store.result(long).metrics == {"sum": 6.0}


def test_a_plan_tells_what_goes_on_from_what_and_what_it_saves(store, train):
    (short,) = train(Grow(1))  # measures the kind, though it is not in the study
    plan = plan_of(store, {"8": Grow(8), "2": Grow(2), "after": Count(1, upstream=Grow(8)), "other": Grow(5, 7)})
    by_name = {p.trial.name: p for p in plan.planned}
    assert (by_name["8"].continues.name, by_name["8"].continues.length) == ("2", 2)
    assert by_name["2"].continues.length == 1
    assert by_name["other"].continues is None
    an_epoch_s = store.result(short).busy_s
    assert all(p.is_measured for p in plan.planned if p.trial.family)
    assert by_name["other"].estimated_s == pytest.approx(5 * an_epoch_s)
    assert by_name["8"].estimated_s == pytest.approx(6 * an_epoch_s)
    assert by_name["8"].continues.saved_s == pytest.approx(2 * an_epoch_s)
    assert by_name["2"].estimated_s == pytest.approx(1 * an_epoch_s)
    entry = next(t for t in plan.to_json()["trials"] if t["name"] == "8")
    assert entry["continues"] == dataclasses.asdict(by_name["8"].continues)
    assert "goes on from '2' at 2 of 8" in by_name["8"].reason
    assert "upstream" in entry


def test_the_printed_plan_says_facts_and_what_going_on_saves(store, train, capsys, monkeypatch):
    monkeypatch.setattr(printing, "_LOG_COLUMNS", 300)
    train(Grow(10, factor=3))
    facts = {"scale": "smoke", "sizes_fitted_to_the_data": "brats: batches of [3]"}
    plan = make_plan(Study("s", "?", {"8": Grow(8), "2": Grow(2)}, facts=facts), store, Keys(FileDigests()))
    (saved_s,) = [p.continues.saved_s for p in plan.planned if p.continues]
    long = dataclasses.replace(plan, planned=tuple(
        dataclasses.replace(p, continues=p.continues and dataclasses.replace(p.continues, saved_s=7200.0))
        for p in plan.planned
    ))  # fmt: skip
    assert saved_s > 0
    printing.show_plan(long, printing.make_console(), as_json=False)
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "at 2 of 8, which saves about 2.0 h" in said
    assert said.count("which saves") == 1
    assert "scale: smoke sizes fitted to the data: brats: batches of [3] 2 trials" in said
    printing.show_plan(plan, printing.make_console(), as_json=True)
    assert json.loads(capsys.readouterr().out)["facts"] == facts


def test_a_plan_counts_on_nothing_that_will_not_be(store, train):
    train(Grow(2, fail_at=1))
    with pytest.raises(KeyboardInterrupt):
        train(Grow(6, factor=2, stop_at=4))
    trials = {"after a failure": Grow(5), "failed": Grow(2), "own": Grow(6, factor=2), "behind": Grow(3, factor=2)}
    by_name = {p.trial.name: p for p in plan_of(store, trials).planned}
    assert by_name["failed"].state is State.FAILED
    assert by_name["after a failure"].continues is None
    assert by_name["own"].continues is None  # its own checkpoint stands further than the other one will
    assert by_name["own"].fraction == pytest.approx(4 / 6)


def test_a_member_that_is_done_needs_no_shorter_one(store, train):
    train(Grow(4))
    plan = plan_of(store, {"long": Grow(4)})
    assert [p.state for p in plan.planned] == [State.DONE]
    assert plan_of(store, {"long": Grow(4), "short": Grow(2)}).counts()["new"] == 1


def test_the_state_lies_apart_from_the_files(store, train, tmp_path):
    (key,) = train(Grow(2))
    assert set(store.result(key).files) == {"sum.txt"}
    assert not (store.fetch(key, tmp_path) / "state.txt").exists()
    assert store.read_bytes(state_path(store, key)) == b"2 1"


def test_gc_keeps_the_longest_state_and_what_an_unfinished_training_needs(store, train, capsys):
    keys = {n: train(Grow(n))[0] for n in (2, 4, 6)}
    open_study = Study("s", "?", {"2": Grow(2), "3": Grow(3), "4": Grow(4), "6": Grow(6)})
    manifest = manifest_of(make_plan(open_study, store, Keys(FileDigests())), "c", {}, Keys(FileDigests()))
    store.write_document("studies/s/a.json", manifest)
    assert unneeded_paths(store, [manifest]) == [store.result(keys[4]).state_folder]
    commands.gc(store.uri, delete=True)
    assert store.read_bytes(state_path(store, keys[6])) is not None
    train(Grow(3))
    gone = unneeded_paths(store, [manifest])
    assert len(gone) == 2
    assert store.result(keys[2]).state_folder in gone
    assert plan_of(store, open_study.trials).is_complete
    assert unneeded_paths(store, [])[:1] != []
    capsys.readouterr()


def test_gc_removes_nothing_beside_a_manifest_that_cannot_be_read(store, train):
    (key,) = train(Grow(2))
    store.write_document("studies/other/a.json", {"study": "other", "trials": [], "submitted_at": 1.0})
    store.write_bytes("studies/s/b.json", b'{"trials": [')
    with pytest.raises(ValueError, match=r"studies/s/b\.json is garbled"):
        commands.gc(store.uri, delete=True)
    assert store.result(key) is not None


def test_gc_takes_what_attempts_left_that_did_not_publish(store, train):
    (key,) = train(Grow(2))
    manifest = {"trials": [{"key": key, "family": None, "length": 0}]}
    store.write_bytes(f"trials/{key}/published/abandoned/half.bin", b"x")
    store.write_bytes(f"trials/{key}/damaged/old.json", b"x")
    paths = unneeded_paths(store, [manifest])
    assert f"trials/{key}/published/abandoned" in paths
    assert f"trials/{key}/damaged" in paths
    assert store.result(key).folder not in paths
    forgotten = unneeded_paths(store, [])
    assert {f"trials/{key}", f"results/{key}.json"} <= set(forgotten)
