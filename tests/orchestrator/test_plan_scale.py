"""A plan of many trials costs so much a trial, however many there are."""

from dataclasses import asdict, dataclass

import pytest
from counting import CountedStore, steps_in
from toy import Count, Grow

from orchestrator import plan as planning
from orchestrator import submission
from orchestrator.graph import trials_of
from orchestrator.options import StudyOptions
from orchestrator.plan import make_plan
from orchestrator.publishing import Known, publisher
from orchestrator.snapshot import snapshot
from orchestrator.store import Result
from orchestrator.study import Study
from trainables.api.identity import FileDigests, Keys
from trainables.api.trainable import Trainable


@dataclass(frozen=True)
class Mean(Trainable):
    of: tuple[Trainable, ...]

    def run(self, context):
        return {}


def independent(count):
    return {f"trial {n}": Count(1, increment=n) for n in range(count)}


def pairs_that_grow(count):
    return {f"trial {n} of {epochs}": Grow(epochs, factor=n) for n in range(count // 2) for epochs in (2, 5)}


def one_family(count):
    return {f"{n} epochs": Grow(n) for n in range(1, count + 1)}


def many_below_one(count):
    return {"mean": Mean(tuple(Count(1, increment=n) for n in range(count)))}


def planned(trials, store):
    return make_plan(Study("s", "?", trials), store, Keys(FileDigests()))


@pytest.mark.parametrize("trials", [independent, pairs_that_grow, one_family, many_below_one])
def test_twice_as_many_trials_are_twice_as_many_steps(tmp_path, trials):
    store = CountedStore(str(tmp_path / "results"))
    steps = {n: steps_in([planning], lambda n=n: planned(trials(n), store)) for n in (50, 100, 200)}
    assert steps[200] - steps[100] == pytest.approx(2 * (steps[100] - steps[50]), rel=0.1)


@pytest.mark.parametrize("trials", [independent, pairs_that_grow, one_family])
def test_new_trials_cost_no_request_each(tmp_path, trials):
    requests = []
    for count in (10, 40):
        store = CountedStore(str(tmp_path / "results"))
        planned(trials(count), store)
        requests.append(store.requests.total())
    assert requests[0] == requests[1] <= 4  # results, trials, families, and what the class cost


def test_trials_of_one_name_are_numbered_in_their_order():
    names = [trial.name for trial in trials_of(Study("s", "?", many_below_one(4)), Keys(FileDigests()))]
    assert sorted(names) == ["mean", "mean / Count", "mean / Count 2", "mean / Count 3", "mean / Count 4"]


def test_a_number_that_a_name_has_taken_is_passed_over():
    study = Study("s", "?", {**many_below_one(3), "mean / Count 2": Count(7)})
    names = [trial.name for trial in trials_of(study, Keys(FileDigests()))]
    assert sorted(names) == ["mean", "mean / Count", "mean / Count 2", "mean / Count 3", "mean / Count 4"]


def test_a_study_that_is_done_is_looked_up_once(tmp_path, monkeypatch):
    """Not once more for what is said at the end, and again for MLflow."""
    requests, uri = [], "http://127.0.0.1:9"
    for count in (10, 20):
        store = CountedStore(str(tmp_path / f"{count}"))
        keys = [p.trial.key for p in planned(independent(count), store).planned]
        for key in keys:
            store.publish(Result(key, {"sum": 1.0}, {}, [], 0.0, 1.0, 1.0, 1, 0.0, {}))
        tokens = {key: snapshot(store, key).token for key in keys}
        store.write_document(f"{publisher('s', uri)}.json", asdict(Known("i", tokens)))
        store.requests.clear()
        monkeypatch.setattr(submission, "opened", lambda given, store=store: store)
        options = StudyOptions(storage=store.uri, cache_dir=tmp_path / "cache", tracking_uri=uri)
        assert submission.submit(options, lambda count=count: Study("s", "?", independent(count))) == 0
        requests.append(store.requests["read"])
    assert requests[1] - requests[0] == 2 * 10  # its result, and whether a reader found it damaged
