"""What trials of one study tell another of their cost."""

from dataclasses import dataclass, replace

import pytest
from toy import Count

from orchestrator.attempt import Payload
from orchestrator.cost_records import record_costs, recorded_costs
from orchestrator.devices import Devices
from orchestrator.estimates import Cost, Spent
from orchestrator.plan import make_plan
from orchestrator.store import Result, SavedState, Store
from orchestrator.study import Study
from orchestrator.trial import run_trial
from trainables.api.identity import FileDigests, Keys
from trainables.api.trainable import Trainable, grows, seed


@dataclass(frozen=True)
class Train(Trainable):
    uses_gpu = True

    width: int = 1
    num_epochs: int = grows(3)
    toy_seed: int = seed()

    def run(self, context):
        return {}

    def work_flop(self):
        return 1e6 * self.width * self.num_epochs


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "results"))


def plan_of(store, trials, **options):
    return make_plan(Study("s", "?", trials), store, Keys(FileDigests()), **options)


def run_all(plan, settings):
    for trial in plan.runnable():
        run_trial(Payload(trial, settings))


def test_a_smoke_study_teaches_the_full_one(store, quick_settings, monkeypatch):
    monkeypatch.setattr("orchestrator.checkpoints.Checkpoints._busy_s", lambda self: 8.0)
    smoke, full = {"t": Train(1)}, {"t": Train(20)}
    run_all(plan_of(store, smoke), quick_settings(store))
    assert plan_of(store, full).planned[0].estimate.ground == "guess"
    record_costs(store, plan_of(store, smoke).spent_on_done)
    (told,) = plan_of(store, full).planned
    assert (told.estimate.ground, told.estimate.num) == ("kin", 1)
    assert told.estimated_s == pytest.approx(160.0)
    (longer,) = plan_of(store, {"t": Train(1, num_epochs=6, toy_seed=4)}).planned
    assert longer.estimate.ground == "measured"


def test_what_a_longer_training_cost_is_told_under_its_own_key(store):
    keys = Keys(FileDigests())
    short, long = Train(1, num_epochs=3), Train(1, num_epochs=6)
    state = SavedState("t", {}, [])
    result = Result(keys.key(short), {}, {}, [], 0.0, 1.0, 9.0, 1, 3e6, {}, "t", 3, state)
    store.publish(result, keys.family(short))
    plan = plan_of(store, {"long": long})
    assert (set(plan.spent), plan.spent_on_done) == ({keys.key(short)}, {})
    both = plan_of(store, {"short": short, "long": long})
    assert set(both.spent_on_done) == {keys.key(short)}
    assert both.spent[keys.key(short)].cost.work_flop == 3e6
    record_costs(store, both.spent_on_done)
    store.publish(replace(result, key=keys.key(long), length=6, busy_s=11.0))
    record_costs(store, plan_of(store, {"long": long}).spent_on_done)
    assert {key: one.busy_s for key, one in recorded_costs(store, ["Train"]).items()} == {
        keys.key(short): 9.0, keys.key(long): 11.0,
    }  # fmt: skip


def test_on_another_device_it_is_a_guess(store, quick_settings, monkeypatch):
    monkeypatch.setattr("orchestrator.checkpoints.Checkpoints._busy_s", lambda self: 8.0)
    run_all(plan_of(store, {"t": Train(toy_seed=1)}), quick_settings(store))
    trials = {"t": Train(toy_seed=1), "u": Train(toy_seed=2)}
    on_gpu = plan_of(store, trials, devices=Devices("CPU x", "NVIDIA H100"))
    assert not on_gpu.is_measured
    assert on_gpu.planned[1].estimate.ground == "guess"
    assert plan_of(store, trials).is_measured


def test_nothing_is_read_where_nothing_is_to_run(store, quick_settings, monkeypatch):
    run_all(plan_of(store, {"t": Count(2)}), quick_settings(store))
    record_costs(store, plan_of(store, {"t": Count(2)}).spent)
    read = []
    monkeypatch.setattr(Store, "read_document", lambda self, path: read.append(path))
    monkeypatch.setattr(Store, "names", lambda self, path, names=Store.names: read.append(path) or names(self, path))
    assert plan_of(store, {"t": Count(2)}).counts()["done"] == 1
    assert not [path for path in read if path.startswith("costs")]
    plan_of(store, {"t": Count(4)})
    assert [path for path in read if path.startswith("costs")] == ["costs", "costs/Count.json"]


def test_of_every_shape_the_last_fifty_stay(store):
    def spent(number, shape):
        return Spent(Cost("K", f"{shape} {number % 3}", False, 1e6, shape, "CPU x"), 1.0 + number, 1e6)

    record_costs(store, {f"a{n}": spent(n, "a") for n in range(3)})
    for first in range(0, 80, 20):
        record_costs(store, {f"b{n}": spent(n, "b") for n in range(first, first + 20)})
    found = recorded_costs(store, ["K", "Unknown"])
    assert {key for key in found if key.startswith("a")} == {"a0", "a1", "a2"}
    assert sum(key.startswith("b") for key in found) == 50
    assert {f"b{n}" for n in range(60, 80)} <= set(found)
    assert found["b79"] == spent(79, "b")
    before = (store.read_bytes("costs/K.json"), store.names("costs"))
    record_costs(store, {"b79": spent(79, "b"), "c": Spent(spent(1, "c").cost, 0.0, 0.0)})
    assert (store.read_bytes("costs/K.json"), store.names("costs")) == before, "nothing new"


def test_a_garbled_record_is_no_record(store):
    store.write_document("costs/K.json", [{"key": "a"}, 3, {"key": "b", "nonsense": 1}])
    assert recorded_costs(store, ["K"]) == {}
    store.write_bytes("costs/K.json", b"[")
    assert recorded_costs(store, ["K"]) == {}
