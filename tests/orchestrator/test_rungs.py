"""Rungs: what is promoted, what it costs, and what cannot be."""

import dataclasses
import itertools
import json
import random

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from toy import Climb, Count, Judge

from orchestrator import printing
from orchestrator.attempt import Payload
from orchestrator.plan import State, make_plan
from orchestrator.search.rungs import num_to_come, promotable, ranked
from orchestrator.search.suggestions import Suggestions
from orchestrator.store import Lineage, Store
from orchestrator.study import Rungs, Search, Study
from orchestrator.trial import run_trial
from trainables.api.identity import FileDigests, Keys

SPACE = {"x": FloatDistribution(0.0, 1.0)}
LOSS = {"val/loss": "minimize"}
RUNGS = Rungs((2, 6, 18), 3)


def climbs(params, length):
    return {"val/loss": [Climb(**params, num_epochs=length, seed=seed) for seed in range(2)]}


def search_of(make=climbs, directions=LOSS, num=9, rungs=RUNGS, **more):
    return Search(SPACE, make, directions, num, rungs=rungs, **more)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "results"))


@pytest.fixture
def suggestions_of(store):
    """A function that makes the suggestions of a search."""
    return lambda *given, **more: Suggestions(
        Study("s", "?", search=search_of(*given, **more)), store, Keys(FileDigests())
    )


@pytest.fixture
def explore(store, quick_settings):
    """A function that searches to the end, one trial after the other, or for ``num`` decisions."""

    def run(suggestions, num=1000):
        keys, done, lost = Keys(FileDigests()), store.finished(), set()
        while num > 0 and (study := suggestions.next(done, lost)):
            for trial in make_plan(study, store, keys).runnable():
                run_trial(Payload(trial, quick_settings(store)))
            for trial in make_plan(study, store, keys).planned:
                (done if trial.state is State.DONE else lost).add(trial.trial.key)
            num -= 1
        suggestions.update(done, lost)
        return suggestions.describe()

    return run


def mean_loss(suggestion, length):
    return np.mean([t.loss() for t in climbs(suggestion["params"], length)["val/loss"]])


# -- the rule ------------------------------------------------------------------------------------------


def values_of(**of_rungs):
    return [{n: {"val/loss": v} for n, v in of.items()} for of in of_rungs.values()]


def test_the_best_third_of_what_has_a_value_rises_and_the_highest_rung_goes_first():
    values = values_of(a={1: 0.5, 2: 0.1, 3: 0.9, 4: 0.3, 5: 0.7, 6: 0.2, 7: 0.8}, b={4: 0.5, 6: 0.2, 9: 0.1}, c={})
    assert list(promotable(search_of(), RUNGS, values, [{6}, set(), set()])) == [(9, 2), (2, 1)]
    assert list(promotable(search_of(), RUNGS, values, [{2, 6}, {9}, set()])) == []
    upwards = search_of(directions={"val/loss": "maximize"})
    assert list(promotable(upwards, RUNGS, values, [{6}, set(), set()])) == [(4, 2), (3, 1), (7, 1)]


@pytest.mark.parametrize("num", [0, 1, 2])
def test_fewer_than_the_reduction_promote_nobody(num):
    values = values_of(a=dict.fromkeys(range(num), 0.1), b={}, c={})
    assert list(promotable(search_of(), RUNGS, values, [set()] * 3)) == []


def test_equal_values_rise_in_their_order():
    values = values_of(a=dict.fromkeys([5, 3, 4, 9, 7, 8], 0.1), b={}, c={})
    assert list(promotable(search_of(), RUNGS, values, [set()] * 3)) == [(3, 1), (4, 1)]


def test_several_objectives_rise_front_by_front_and_spread_over_a_front():
    both = {"val/loss": "minimize", "val/size": "maximize"}
    points = {
        1: (0.0, 0.0),
        2: (1.0, 10.0),
        3: (0.1, 1.0),
        4: (0.5, 5.5),
        5: (0.5, 5.0),
        6: (2.0, -1.0),
        7: (1.1, 10.0),
    }
    values = {n: {"val/loss": a, "val/size": b} for n, (a, b) in points.items()}
    assert ranked(search_of(directions=both), values) == [1, 2, 4, 3, 5, 7, 6]


def test_fronts_of_many_points_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    values = {n: {"a": float(a), "b": float(b)} for n, (a, b) in enumerate(rng.integers(0, 9, (60, 2)), start=1)}
    search = dataclasses.replace(search_of(), directions={"val/a": "minimize", "val/b": "maximize"})
    named = {n: {f"val/{o}": v for o, v in of.items()} for n, of in values.items()}
    order, left = ranked(search, named), dict(values)
    assert sorted(order) == sorted(values)
    while left:
        beaten = {n for n, v in left.items() for w in left.values()
                  if w != v and w["a"] <= v["a"] and w["b"] >= v["b"]}  # fmt: skip
        front = set(left) - beaten
        assert set(order[: len(front)]) == front
        assert left[order[0]]["a"] == min(left[n]["a"] for n in front)
        order, left = order[len(front) :], {n: left[n] for n in beaten}


def test_what_is_to_come_is_a_third_of_a_third():
    assert num_to_come(RUNGS, 27, [0, 0, 0], [0, 0, 0]) == [9, 3]
    assert num_to_come(RUNGS, 27, [27, 4, 1], [0, 0, 0]) == [5, 2]
    assert num_to_come(RUNGS, 27, [27, 11, 3], [0, 0, 0]) == [0, 0]
    assert num_to_come(RUNGS, 25, [27, 8, 0], [2, 3, 0]) == [0, 1]


@pytest.mark.parametrize(
    ("lengths", "reduction", "said"),
    [((4,), 3, "at least two"), ((4, 4), 3, "above"), ((0, 4), 3, "from 1 up"), ((9, 4), 3, "above"), ((2, 4), 1, "2")],
)
def test_rungs_that_cannot_be_are_refused(lengths, reduction, said):
    with pytest.raises(ValueError, match=said):
        Rungs(lengths, reduction)


# -- families ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p, n: {"val/loss": [Climb(**p, num_epochs=n, horizon=n)]}, r"Climb\.horizon is 2 and 6.*cannot go on"),
        (lambda p, n: {"val/loss": [Climb(**p, num_epochs=9)]}, "no training of Climb is longer"),
        (lambda p, n: {"val/loss": [Climb(**p, num_epochs=20 - n)]}, r"num_epochs is 18 and 14"),
        (lambda p, n: {"val/loss": [Climb(**p, num_epochs=n, seed=s) for s in range(n // 2)]}, "1 and 3 trainables"),
        (lambda p, n: {"val/loss": [Judge(Climb(**p, num_epochs=n), 1.0 / n)]}, r"Judge\.strictness is 0\.5 and 0\.1"),
        (lambda p, n: {"val/loss": [Count(n)]}, r"Count\.num_epochs is 2 and 6"),
        (lambda p, n: {"val/loss": [Count(n) if n == 2 else Climb(**p, num_epochs=n)]}, "cannot go on"),
        (lambda p: {"val/loss": [Climb(**p)]}, "makes nothing of"),
    ],
    ids=["horizon", "same length", "falling", "seeds", "measure", "does not grow", "another class", "no length"],
)  # fmt: skip
def test_lengths_that_are_no_family_are_refused(suggestions_of, store, make, said):
    with pytest.raises(ValueError, match=said):
        suggestions_of(make)
    assert not store.names("studies")


def test_the_length_may_lie_deep_in_what_is_measured(suggestions_of, explore, store):
    def make(params, length):
        return {"val/loss": [Judge(Climb(**params, num_epochs=length))]}

    told = explore(suggestions_of(make))
    reached = [s for s in told["suggestions"] if len(s["rungs"]) == 3]
    assert reached
    for suggestion in reached:
        long = Climb(suggestion["params"]["x"], 18)
        assert store.result(Keys(FileDigests()).key(long)).continued_from.length == 6


# -- a whole search ------------------------------------------------------------------------------------


def test_a_promoted_suggestion_goes_on_and_its_value_is_the_mean_at_its_longest_length(suggestions_of, explore, store):
    suggestions = suggestions_of()
    told = explore(suggestions)
    assert told["rungs"] == {"lengths": (2, 6, 18), "reduction": 3}
    assert [s["number"] for s in told["suggestions"]] == list(range(1, 10))
    for suggestion in told["suggestions"]:
        lengths = [rung["length"] for rung in suggestion["rungs"]]
        assert lengths == [2, 6, 18][: len(lengths)]
        assert suggestion["length"] == lengths[-1]
        assert suggestion["values"]["val/loss"] == pytest.approx(mean_loss(suggestion, lengths[-1]))
        for rung in suggestion["rungs"]:
            assert rung["values"]["val/loss"] == pytest.approx(mean_loss(suggestion, rung["length"]))
        for shorter, longer in itertools.pairwise(suggestion["rungs"]):
            for one, other in zip(shorter["trials"]["val/loss"], longer["trials"]["val/loss"], strict=True):
                assert store.result(other).continued_from == Lineage(one, shorter["length"])
    num_reached = [sum(len(s["rungs"]) > rung for s in told["suggestions"]) for rung in range(3)]
    assert num_reached[0] == 9
    assert num_reached[1] >= 3
    assert num_reached[2] >= 1
    at_first = sorted(told["suggestions"], key=lambda s: mean_loss(s, 2))
    assert all(len(s["rungs"]) > 1 for s in at_first[:3])
    assert suggestions.num_left == 0
    assert suggestions.promotions == []


def test_the_best_are_those_of_the_highest_rung(suggestions_of, explore):
    suggestions = suggestions_of(num=20)
    told = explore(suggestions)
    ((best, values),) = suggestions.best()
    at_the_top = [s for s in told["suggestions"] if s["length"] == 18]
    assert best.number == min(at_the_top, key=lambda s: mean_loss(s, 18))["number"]
    assert values["val/loss"] == min(s["values"]["val/loss"] for s in at_the_top)


def test_a_value_at_a_shorter_length_is_never_the_best(suggestions_of, explore):
    start = [{"x": n / 100} for n in range(9)]  # here the loss falls with the length, and is to be large
    suggestions = suggestions_of(directions={"val/loss": "maximize"}, num=9, start=start)
    told = explore(suggestions)
    ((best, values),) = suggestions.best()
    at_the_top = [s for s in told["suggestions"] if s["length"] == 18]
    assert best.number in {s["number"] for s in at_the_top}
    assert values["val/loss"] == max(s["values"]["val/loss"] for s in at_the_top)
    assert all(s["values"]["val/loss"] > values["val/loss"] for s in told["suggestions"] if s["length"] == 2)


def test_the_best_before_the_top_is_reached_are_those_of_the_rung_below(suggestions_of, explore):
    suggestions = suggestions_of()
    told = explore(suggestions, num=4)
    ((best, values),) = suggestions.best()
    assert [len(s["rungs"]) for s in told["suggestions"]].count(2) == 1
    assert len(told["suggestions"][best.number - 1]["rungs"]) == 2
    assert values["val/loss"] == pytest.approx(mean_loss(told["suggestions"][best.number - 1], 6))
    assert suggestions.highest_length == 6


def test_a_failure_leaves_its_rung_only(suggestions_of, explore, store):
    def fragile(params, length):
        return {"val/loss": [Fragile(**params, num_epochs=length)]}

    told = explore(suggestions_of(fragile, num=12))
    by_state = {state: [s for s in told["suggestions"] if s["rungs"][-1]["state"] == state] for state in
                ("complete", "failed")}  # fmt: skip
    assert by_state["failed"]
    for suggestion in by_state["failed"]:
        assert [rung["length"] for rung in suggestion["rungs"]] == [2, 6]
        assert (suggestion["length"], suggestion["state"]) == (2, "complete")
        assert suggestion["params"]["x"] > 0.4
    assert all(rung["values"] for s in by_state["complete"] for rung in s["rungs"])


@dataclasses.dataclass(frozen=True)
class Fragile(Climb):
    """Fails when it is trained for long with a large x."""

    def run(self, context):
        if self.num_epochs > 2 and self.x > 0.4:
            raise ValueError("it broke")
        return super().run(context)


def test_a_promotion_survives_its_driver(suggestions_of, explore, store):
    explore(suggestions_of(), num=3)
    one = suggestions_of()
    one.update({key for s in one.describe()["suggestions"] for key in s["trials"]["val/loss"]}, set())
    assert "at 6" in next(iter(one.next(set(), set()).trials))  # its driver dies now
    other = suggestions_of()
    assert [p.trial.length for p in make_plan(other.study(), store, Keys(FileDigests())).planned if
            p.state is State.NEW] == [6, 6]  # fmt: skip
    told = explore(other)
    promoted = [d for d in documents(store) if d["promotes"]]
    assert len({(d["promotes"], d["length"]) for d in promoted}) == len(promoted)
    assert len(told["suggestions"]) == 9


def documents(store):
    return [store.read_document(f"studies/s/suggestions/{n}") for n in store.names("studies/s/suggestions")]


def test_other_lengths_keep_the_points_and_leave_the_promotions_alone(suggestions_of, explore):
    told = explore(suggestions_of())
    other = suggestions_of(rungs=Rungs((2, 8), 3)).describe()
    assert [s["params"] for s in other["suggestions"]] == [s["params"] for s in told["suggestions"]]
    assert all(len(s["rungs"]) == 1 for s in other["suggestions"])
    assert suggestions_of(rungs=Rungs((3, 6, 18), 3)).num_left == 9
    without = suggestions_of(lambda params: climbs(params, 2), rungs=None).describe()
    assert [s["params"] for s in without["suggestions"]] == [s["params"] for s in told["suggestions"]]
    assert "rungs" not in without["suggestions"][0]


def test_a_document_of_before_is_a_point_of_the_first_rung(suggestions_of, explore, store):
    explore(suggestions_of(), num=2)
    for name in store.names("studies/s/suggestions"):
        document = store.read_document(f"studies/s/suggestions/{name}")
        store.write_document(f"studies/s/suggestions/{name}", {n: document[n] for n in ("params", "keys")})
    told = explore(suggestions_of())
    assert len(told["suggestions"]) == 9
    assert {rung["length"] for s in told["suggestions"] for rung in s["rungs"]} == {2, 6, 18}


@pytest.mark.parametrize("garbage", [
    [], {"params": 3}, {"params": {"x": 0.1}, "keys": [], "promotes": "a", "length": 6},
    {"params": {"x": 0.1}, "keys": [], "promotes": 77, "length": 6}, {"params": {"x": 0.1}, "keys": [], "promotes": 1},
    {"params": {"x": 0.1}, "keys": 3}, {"params": {"x": 0.1}, "keys": None}, {"params": {"x": 0.1}, "keys": [[1]]},
])  # fmt: skip
def test_a_document_of_another_shape_is_left_alone(suggestions_of, explore, store, garbage):
    explore(suggestions_of(), num=1)
    store.write_document("studies/s/suggestions/000002.json", garbage)
    assert len(explore(suggestions_of())["suggestions"]) == 9


def test_a_search_that_was_interrupted_between_two_promotions_is_not_complete(suggestions_of, explore, store):
    suggestions = suggestions_of()
    explore(suggestions)
    last = store.names("studies/s/suggestions")[-1]
    store.remove(f"studies/s/suggestions/{last}")  # a promotion: nothing else can be last
    again = suggestions_of()
    again.update({key for s in again.describe()["suggestions"] for r in s["rungs"] for key in r["trials"]["val/loss"]},
                 set())  # fmt: skip
    assert sum(p.count for p in again.promotions) >= 1
    explore(again)
    assert store.names("studies/s/suggestions")[-1] == last
    assert again.promotions == []


def test_a_promotion_beyond_the_expected_number_is_due_after_an_interruption(suggestions_of, explore, store):
    better_and_better = [{"x": x} for x in (0.0, 0.05, 0.9, 0.5, 0.55)]
    search = {"num": 5, "rungs": Rungs((2, 6), 3), "start": better_and_better}
    explore(suggestions_of(**search), num=7)  # the third and the fourth rose; the fifth, now the best, has its value
    again = suggestions_of(**search)
    again.update(store.finished(), set())
    assert again.num_left == 0
    assert [(p.length, p.count) for p in again.promotions] == [(6, 1)]
    assert not plan_of(again, store).is_complete
    told = explore(again)
    assert [len(s["rungs"]) for s in told["suggestions"]] == [1, 1, 2, 2, 2]
    assert plan_of(again, store).is_complete


def test_promotions_that_can_no_longer_be_leave_the_search_incomplete(suggestions_of, explore, store):
    suggestions = suggestions_of(num=3, rungs=Rungs((2, 6), 3))
    told = explore(suggestions, num=3)
    best = min(told["suggestions"], key=lambda s: mean_loss(s, 2))
    lost = {Keys(FileDigests()).key(t) for t in climbs(best["params"], 6)["val/loss"]}
    done = {key for s in told["suggestions"] for key in s["trials"]["val/loss"]}
    assert suggestions.next(done, lost) is None
    assert [p.count for p in suggestions.promotions] == [1]
    assert suggestions.next(done, set())


# -- the plan ------------------------------------------------------------------------------------------


def plan_of(suggestions, store):
    return make_plan(suggestions.study(), store, Keys(FileDigests()), to_suggest=suggestions.num_left,
                     examples=suggestions.examples, promotions=suggestions.promotions)  # fmt: skip


def test_a_plan_tells_what_promotions_cost(suggestions_of, store, capsys):
    plan = plan_of(suggestions_of(num=27), store)
    flop_s, start_s = 1 / 1e11, 2.0
    assert plan.to_suggest == 27
    assert plan.suggestion_s == pytest.approx(2 * (start_s + 2e6 * flop_s))
    told = plan.to_json()["promotions"]
    assert [(p["length"], p["count"]) for p in told] == [(6, 9), (18, 3)]
    assert [p["each_s"] for p in told] == pytest.approx([2 * 4e6 * flop_s, 2 * 12e6 * flop_s])
    epochs = 27 * 2 + 9 * 4 + 3 * 12
    assert plan.estimated_s() == pytest.approx(27 * 2 * start_s + 2 * epochs * 1e6 * flop_s)
    assert not plan.is_complete
    assert json.loads(json.dumps(plan.to_json())) == plan.to_json()
    printing.show_plan(plan, printing.make_console(), as_json=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "27 suggestions of the search to come" in said
    assert "at least 9 of them will be promoted to length 6, if none fails: about 0 s more of work each" in said
    assert "at least 3 of them will be promoted to length 18" in said
    assert printing.to_run_text(plan) == "0 to run, 27 suggestions and at least 12 promotions to come"


def test_what_is_measured_anew_at_every_length_costs_anew(suggestions_of, store):
    plan = plan_of(suggestions_of(lambda p, n: {"val/loss": [Judge(Climb(**p, num_epochs=n))]}), store)
    flop_s, start_s = 1 / 1e11, 2.0  # of what is measured; the training goes on
    expected = [start_s + (4e6 + 5e6) * flop_s, start_s + (12e6 + 5e6) * flop_s]
    assert [p.each_s for p in plan.promoted] == pytest.approx(expected, rel=1e-9)


def test_a_plan_at_the_end_is_complete(suggestions_of, explore, store):
    suggestions = suggestions_of()
    explore(suggestions)
    plan = plan_of(suggestions, store)
    assert plan.is_complete
    assert plan.promoted == ()


def test_at_any_time_the_promotions_to_come_are_at_most_those_that_come(suggestions_of, explore, store):
    """Unless something fails, and none once the search has ended."""
    suggestions, expected = suggestions_of(num=20), []
    rng = random.Random(0)
    while True:
        count, before = sum(p.count for p in suggestions.promotions), len(store.names("studies/s/suggestions"))
        expected.append((count, before - len(suggestions.describe()["suggestions"])))
        explore(suggestions, num=rng.randint(1, 3))
        if len(store.names("studies/s/suggestions")) == before:
            break
    total = len(store.names("studies/s/suggestions")) - 20
    assert all(count + promoted <= total for count, promoted in expected)
    assert expected[-1][0] == 0


# -- several objectives, samplers ----------------------------------------------------------------------


def test_several_objectives_go_to_the_end(suggestions_of, explore):
    def make(params, length):
        return {"val/loss": [Climb(**params, num_epochs=length)], "val/size": [Climb(**params, num_epochs=length)]}

    suggestions = suggestions_of(make, {"val/loss": "minimize", "val/size": "maximize"}, num=20)
    told = explore(suggestions)
    assert len(told["suggestions"]) == 20
    assert any(len(s["rungs"]) == 3 for s in told["suggestions"])
    assert all(values.keys() == {"val/loss", "val/size"} for _, values in suggestions.best())


def test_a_small_space_gets_its_rungs(store, explore):
    def make(params, length):
        return {"val/loss": [Climb(params["x"], length)]}

    space = {"x": CategoricalDistribution([i / 10 for i in range(10)])}
    suggestions = Suggestions(
        Study("s", "?", search=Search(space, make, LOSS, 50, rungs=RUNGS)), store, Keys(FileDigests())
    )
    told = explore(suggestions)
    assert sorted(s["params"]["x"] for s in told["suggestions"]) == [i / 10 for i in range(10)]
    assert any(len(s["rungs"]) == 3 for s in told["suggestions"])
