"""A search under any order of endings and any kills: a fake clock, and Optuna and a plain rule as oracles."""

import dataclasses
import itertools
import random

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from toy import Climb

from orchestrator.plan import make_plan
from orchestrator.resources import Amount, Capacity, Demand
from orchestrator.scheduler import GraphSearcher
from orchestrator.search.suggestions import Suggestions
from orchestrator.store import Failure, Result, Store
from orchestrator.study import Rungs, Search, Study
from trainables.api.identity import FileDigests, Keys

SPACE = {"x": FloatDistribution(0.0, 1.0)}
RUNGS = Rungs((2, 6, 18), 3)
NUM_POINTS = 14
SEED = 5


def make(params, length=18):
    return {"val/loss": [Climb(params["x"], length, seed, fails_above=0.9) for seed in range(2)]}


def study_of(rungs=RUNGS, direction="minimize"):
    return Study("s", "?", search=Search(SPACE, make, {"val/loss": direction}, NUM_POINTS, seed=SEED, rungs=rungs))


class Driver:
    """One life of a driver: the real planning, choosing and ordering; trials end when the clock says so."""

    def __init__(self, store, study, slots, lag):
        self.store, self.keys, self.slots, self.num_asked = store, Keys(FileDigests()), slots, 0
        self.suggestions = Suggestions(study, store, self.keys, lag)
        self.running = {}  # id -> trial
        self.searcher = GraphSearcher(
            make_plan(self.suggestions.study(), store, self.keys),
            encode=lambda trial: {"trial": trial},
            finished=self._finished,
            demand=lambda trial: Demand(Amount(1.0)),
            capacity=lambda: Capacity((Amount(float(slots)),)),
            more=self._more,
            usual=Demand(Amount(1.0)),
        )

    def _more(self, done, lost):
        study = self.suggestions.next(done, lost, self.slots)
        return make_plan(study, self.store, self.keys) if study else None

    def _finished(self, trial, error):
        return self.store.result(trial.key) is not None

    def fill(self):
        """Ask for trials until there is none for now; False at the end."""
        while True:
            self.num_asked += 1
            given = self.searcher.suggest(str(self.num_asked))
            if not isinstance(given, dict):
                return given is None
            self.running[str(self.num_asked)] = given["trial"]

    def end_one(self, rng):
        """Any of the running trials ends."""
        name = rng.choice(sorted(self.running))
        trial = self.running.pop(name)
        publish(self.store, trial.key, trial.trainable)
        self.searcher.on_trial_complete(name)


def publish(store, key, trainable):
    if trainable.x > trainable.fails_above:
        store.record_failure(key, Failure("bad configuration", "x is too large", "", 1, 0.0))
    elif store.result(key) is None:
        store.publish(Result(key, {"val/loss": trainable.loss()}, {}, [], 0.0, 1.0, 1.0, 1, 0.0, {}))


def explore(store, *, rng, slots=1, lag=None, kills=0.0, study=None, num_drivers=1):
    """Search to the end; returns the documents of all decisions."""
    study = study or study_of()
    drivers = [Driver(store, study, slots, lag) for _ in range(num_drivers)]
    while drivers:
        place = rng.randrange(len(drivers))
        if rng.random() < kills:
            drivers[place] = Driver(store, study, slots, lag)
        if not drivers[place].fill():
            drivers.pop(place)
        elif rng.random() < 0.8:  # else it is killed, or its sibling goes on, with its slots full
            drivers[place].end_one(rng)
    folder = "studies/s/suggestions"
    return [store.read_document(f"{folder}/{name}") for name in store.names(folder)]


@pytest.fixture
def new_store(tmp_path):
    """A function that makes an empty store."""
    return lambda name: Store(str(tmp_path / name))


# -- what it decides, told again without its code ------------------------------------------------------


def loss_at(document, length):
    return np.mean([trainable.loss() for trainable in make(document["params"], length)["val/loss"]])


def promotion(documents, saw, before, direction=min, lengths=RUNGS.lengths):
    """(document to promote, length) by the rule, in words: a plain loop over rungs from the top."""
    for low, high in reversed(list(itertools.pairwise(lengths))):
        of_length = [n for n in saw if documents[n]["length"] == low]
        point = {n: documents[n]["promotes"] or n for n in of_length}
        sign = 1 if direction is min else -1
        by_worth = sorted(of_length, key=lambda n: (sign * loss_at(documents[n], low), point[n]))
        gone = {d["promotes"] for d in before if d["length"] == high}
        for n in by_worth[: len(of_length) // 3]:
            if point[n] not in gone:
                return point[n], high
    return None


def optuna_s_point(documents, saw, failed, before):
    """What Optuna suggests to one who knows the same."""
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(
        seed=int(np.random.SeedSequence([SEED, 1 + sum(d["promotes"] is None for d in before)]).generate_state(1)[0]),
        constant_liar=True,
    ))  # fmt: skip
    for number, document in enumerate(before, start=1):
        if document["promotes"] is not None:
            continue
        mine = [n for n, d in enumerate(before, start=1) if number in (n, d["promotes"])]
        values = {documents[n]["length"]: loss_at(document, documents[n]["length"]) for n in mine if n in saw}
        state = optuna.trial.TrialState.RUNNING
        if set(mine) & set(failed):
            state = optuna.trial.TrialState.FAIL
        elif values:
            state = optuna.trial.TrialState.COMPLETE if 18 in values else optuna.trial.TrialState.PRUNED
        study.add_trial(optuna.trial.create_trial(
            state=state, params=document["params"], distributions=SPACE, intermediate_values=values,
            value=values[18] if state is optuna.trial.TrialState.COMPLETE else None,
        ))  # fmt: skip
    return study.ask(fixed_distributions=SPACE).params


def check_decisions(found, direction=min):
    """Hold every document against what it says that it saw."""
    documents = dict(enumerate(found, start=1))
    for number, document in documents.items():
        before = found[: number - 1]
        saw, failed = document["saw"], document["failed"]
        assert max([0, *saw, *failed]) < number
        due = promotion(documents, saw, before, direction)
        if document["promotes"] is not None:
            assert (document["promotes"], document["length"]) == due
            assert document["params"] == documents[document["promotes"]]["params"]
        else:
            assert due is None
            assert document["length"] == 2
            assert document["params"] == optuna_s_point(documents, saw, failed, before)
    points = [d for d in found if d["promotes"] is None]
    assert len(points) == NUM_POINTS
    ended = [n for n, d in documents.items() if d["params"]["x"] <= 0.9]
    assert promotion(documents, ended, found, direction) is None  # it did not end before its time
    assert len({(d["promotes"], d["length"]) for d in found if d["promotes"]}) == len(found) - NUM_POINTS


@pytest.mark.parametrize("schedule", range(12))
def test_in_any_order_every_decision_follows_from_what_it_saw(new_store, schedule):
    rng = random.Random(schedule)
    found = explore(new_store("a"), rng=rng, slots=1 + schedule % 4, kills=0.15 * (schedule % 3), num_drivers=1)
    check_decisions(found)
    assert {d["length"] for d in found} == {2, 6, 18}


def test_two_drivers_decide_as_one_would(new_store):
    for schedule in range(3):
        found = explore(new_store(f"s{schedule}"), rng=random.Random(schedule), slots=2, kills=0.1, num_drivers=2)
        check_decisions(found)


def test_what_is_maximized_rises_when_it_is_large(new_store):
    study = study_of(direction="maximize")
    found = explore(new_store("a"), rng=random.Random(1), slots=2, study=study)
    documents = dict(enumerate(found, start=1))
    for number, document in documents.items():
        due = promotion(documents, document["saw"], found[: number - 1], direction=max)
        assert due == ((document["promotes"], document["length"]) if document["promotes"] else None)


@pytest.mark.parametrize("lag", [1, 2, 4])
@pytest.mark.parametrize("rungs", [RUNGS, None], ids=["rungs", "no rungs"])
def test_with_a_lag_nothing_depends_on_kills_order_and_slots(new_store, lag, rungs):
    study = study_of(rungs)
    undisturbed = explore(new_store("undisturbed"), rng=random.Random(0), slots=lag, lag=lag, study=study)
    for n, document in enumerate(undisturbed, start=1):
        seen = sorted(document["saw"] + document["failed"])
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) >= n - lag
        if n <= NUM_POINTS - lag:
            assert len(seen) == max(0, n - lag)
    if rungs:
        check_decisions(undisturbed)
    for schedule in range(4):
        rng = random.Random(schedule)
        store = new_store(f"lag{schedule}")
        drivers = 1 + (schedule == 3)
        found = explore(store, rng=rng, slots=1 + schedule, lag=lag, kills=0.2, study=study, num_drivers=drivers)
        assert found == undisturbed


def test_without_a_lag_it_depends_on_the_order(new_store):
    """Or the test above would say nothing."""
    found = [explore(new_store(str(n)), rng=random.Random(n), slots=4) for n in range(2)]
    assert [d["params"] for d in found[0]] != [d["params"] for d in found[1]]


def test_a_lag_waits_for_the_very_decision(new_store):
    store = new_store("a")
    suggestions = Suggestions(study_of(None), store, Keys(FileDigests()), lag=3)
    studies = [suggestions.next(set(), set()) for _ in range(3)]
    assert all(studies)
    assert suggestions.next(set(), set()) is None  # the fourth waits for the first

    def end(study):
        for trainable in study.trainables.values():
            publish(store, Keys(FileDigests()).key(trainable), trainable)
        return {Keys(FileDigests()).key(t) for s in studies for t in s.trainables.values()
                if store.result(Keys(FileDigests()).key(t))}  # fmt: skip

    assert suggestions.next(end(studies[1]), set()) is None
    assert suggestions.next(end(studies[0]), set())
    assert store.read_document("studies/s/suggestions/000004.json")["saw"] == [1]
    assert suggestions.next(end(studies[0]), set())  # the second has ended before
    assert store.read_document("studies/s/suggestions/000005.json")["saw"] == [1, 2]
    assert suggestions.next(end(studies[0]), set()) is None


def test_a_lag_without_a_search_is_refused(new_store):
    with pytest.raises(ValueError, match="--lag 2: study 's' has no search"):
        Suggestions(dataclasses.replace(study_of(), search=None, trials={"a": Climb(0.1)}), new_store("a"),
                    Keys(FileDigests()), lag=2)  # fmt: skip
