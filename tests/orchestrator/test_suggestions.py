"""A search knows what its results say, whatever happened to its driver; Optuna alone is the oracle."""

import dataclasses
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from toy import Bowl, Count

from orchestrator.attempt import Payload
from orchestrator.manifest import ManifestWriter, entries_of, manifest_of
from orchestrator.options import StudyOptions
from orchestrator.plan import State, make_plan
from orchestrator.printing import make_console
from orchestrator.search.suggestions import Suggestions
from orchestrator.store import Store
from orchestrator.study import Entry, Search, Study
from orchestrator.submission import _Submission, submit
from orchestrator.trial import run_trial
from orchestrator.usage import UsageError
from orchestrator.view import View
from trainables.api.identity import FileDigests, Keys

SPACE = {"x": FloatDistribution(0.0, 1.0), "y": CategoricalDistribution(["flat", "steep"])}
GRID = {"x": [0.0, 1.0], "y": ["flat", "steep"]}
LOSS = {"val/loss": "minimize"}


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "results"))


@pytest.fixture
def run(store, quick_settings):
    """A function that runs the trials of a study here: (keys with results, keys without)."""

    def make(study):
        done, lost = set(), set()
        for trial in make_plan(study, store, Keys(FileDigests())).runnable():
            run_trial(Payload(trial, quick_settings(store)))
            (done if store.result(trial.key) else lost).add(trial.key)
        return done, lost

    return make


def bowls(num_seeds=1, **fixed):
    return lambda params: {"val/loss": [Bowl(**params, seed=seed, **fixed) for seed in range(num_seeds)]}


def suggestions_of(store, make=None, *, space=SPACE, directions=LOSS, num=20, **more):
    study = Study("s", "?", search=Search(space, make or bowls(), directions, num, **more))
    return Suggestions(study, store, Keys(FileDigests()))


def explore(suggestions, run, num):
    """Suggest and run, one after the other; returns the parameters."""
    done, lost, found = set(), set(), []
    while len(found) < num and (study := suggestions.next(done, lost)):
        found.append(suggestions.describe()["suggestions"][-1]["params"])
        more_done, more_lost = run(study)
        done, lost = done | more_done, lost | more_lost
    suggestions.update(done, lost)
    return found


def optuna_s_next(points, losses, seed, running=()):
    """What Optuna alone suggests after these: a study of its own, and a sampler that nobody has asked before."""
    number = len(points) + len(running) + 1
    study_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=study_seed, constant_liar=True))
    for point, loss in zip(points, losses, strict=True):
        study.add_trial(optuna.trial.create_trial(params=point, distributions=SPACE, value=loss))
    for point in running:
        state = optuna.trial.TrialState.RUNNING
        study.add_trial(optuna.trial.create_trial(params=point, distributions=SPACE, state=state))
    return study.ask(fixed_distributions=SPACE).params


def test_each_suggestion_is_what_optuna_suggests_to_one_who_knows_the_same(store, run):
    suggestions = suggestions_of(store, seed=3)
    points = explore(suggestions, run, 30)
    assert len(points) == 20
    assert suggestions.num_left == 0
    losses = [(p["x"] - 0.3) ** 2 + (p["y"] != "flat") for p in points]
    for number, point in enumerate(points):
        assert point == optuna_s_next(points[:number], losses[:number], seed=3)
    (best, values) = suggestions.best()[0]
    assert best.params == points[losses.index(min(losses))]
    assert values["val/loss"] == pytest.approx(min(losses))


def test_what_runs_is_known_to_run(store, run):
    suggestions = suggestions_of(store, seed=4)
    ended = explore(suggestions, run, 12)
    losses = [(p["x"] - 0.3) ** 2 + (p["y"] != "flat") for p in ended]
    running = []
    for _ in range(4):
        assert suggestions.next(set(), set())
        point = suggestions.describe()["suggestions"][-1]["params"]
        assert point == optuna_s_next(ended, losses, 4, running)
        running.append(point)


def test_a_new_driver_knows_all_of_it_and_finishes_what_was_running(store, run):
    before = suggestions_of(store, num=5)
    explored = explore(before, run, 3)
    running = before.next(set(), set())  # its driver dies now
    after = suggestions_of(store, num=5)
    assert after.num_left == 1
    plan = make_plan(after.study(), store, Keys(FileDigests()))
    assert [p.state for p in plan.planned] == [State.DONE] * 3 + [State.NEW]
    assert plan.planned[3].trial.trainable == next(iter(running.trials.values()))
    after.update({p.trial.key for p in plan.planned[:3]}, set())
    told = after.describe()["suggestions"]
    assert [s["params"] for s in told[:3]] == explored
    assert [s["state"] for s in told] == ["complete"] * 3 + ["running"]
    assert told[0]["values"]["val/loss"] == before.describe()["suggestions"][0]["values"]["val/loss"]
    after.update(*run(after.study()))
    assert len(explore(after, run, 9)) == 1  # the fifth
    assert [s["state"] for s in after.describe()["suggestions"]] == ["complete"] * 5


def test_a_new_driver_samples_from_the_results_of_the_old_one(store, run):
    seen = []

    class Spy(optuna.samplers.RandomSampler):
        def sample_relative(self, study, trial, search_space):
            seen.append([(t.state.name, t.params, t.values) for t in study.get_trials(deepcopy=False)])
            return {}

    explore(suggestions_of(store, bowls(fails_above=0.5)), run, 6)
    after = suggestions_of(store, bowls(fails_above=0.5), sampler=Spy)
    states = {p.trial.key: p.state for p in make_plan(after.study(), store, Keys(FileDigests())).planned}
    done = {key for key, state in states.items() if state is State.DONE}
    assert after.next(done, set(states) - done)
    told = after.describe()["suggestions"][:6]
    assert {s["state"] for s in told} == {"complete", "failed"}
    assert seen[-1][:6] == [
        ("COMPLETE", s["params"], [s["values"]["val/loss"]]) if s["values"] else ("FAIL", s["params"], None)
        for s in told
    ]


def test_one_more_seed_is_added_to_the_same_points(store, run):
    points = explore(suggestions_of(store), run, 4)
    more = suggestions_of(store, bowls(num_seeds=2))
    assert [s["params"] for s in more.describe()["suggestions"]] == points
    states = [p.state for p in make_plan(more.study(), store, Keys(FileDigests())).planned]
    assert sorted(states) == [State.DONE] * 4 + [State.NEW] * 4
    done, lost = run(more.study())
    more.update(done | {key for s in more.describe()["suggestions"] for key in s["trials"]["val/loss"]}, lost)
    for suggestion in more.describe()["suggestions"]:
        x, y = suggestion["params"]["x"], suggestion["params"]["y"]
        assert suggestion["values"]["val/loss"] == pytest.approx((x - 0.3) ** 2 + (y != "flat") + 0.0005)


def test_suggestions_of_another_configuration_or_outside_the_space_are_left_alone(store, run):
    explore(suggestions_of(store), run, 4)
    assert suggestions_of(store, bowls(upstream=Count(2))).num_left == 20
    narrow = {**SPACE, "x": FloatDistribution(2.0, 3.0)}
    assert suggestions_of(store, space=narrow).num_left == 20
    assert suggestions_of(store).num_left == 16


def test_two_drivers_share_one_budget_and_never_a_point(store, run):
    one, two = suggestions_of(store, num=6), suggestions_of(store, num=6)
    keys = Keys(FileDigests())
    studies = [driver.next(set(), set()) for driver in (one, two, one, two, one, two)]
    suggested = [keys.key(next(iter(study.trials.values()))) for study in studies]
    assert len(set(suggested)) == 6
    # Nothing is left: each takes over what the other has not finished, rather than end without it.
    assert keys.key(next(iter(one.next(set(), set()).trials.values()))) == suggested[1]
    run(studies[3])
    assert keys.key(next(iter(one.next(set(), set()).trials.values()))) == suggested[5]
    assert one.next(set(), set()) is None
    assert [s["state"] for s in one.describe()["suggestions"]] == ["running"] * 3 + ["complete"] + ["running"] * 2


def test_a_driver_that_loses_the_race_for_the_last_point_waits_for_it(store, monkeypatch):
    """Between its look at what runs and its own decision the other driver writes the same decision down."""
    one, other = suggestions_of(store, num=1), suggestions_of(store, num=1)
    real = Suggestions._decide

    def late(self, *given):
        if self is one:
            monkeypatch.setattr(Suggestions, "_decide", real)
            assert other.next(set(), set()) is not None
        return real(self, *given)

    monkeypatch.setattr(Suggestions, "_decide", late)
    study = one.next(set(), set())
    assert study is not None, "it runs, or replaces, what the other began"
    assert study.trials == other.study().trials


def test_a_suggestion_of_another_driver_is_not_averaged_over_fewer_seeds(store, run):
    one, two = (suggestions_of(store, bowls(num_seeds=2)) for _ in range(2))
    study = one.next(set(), set())
    two.refresh()
    run(dataclasses.replace(study, trials=dict([next(iter(study.trials.items()))])))
    two.update(set(), set())
    (told,) = two.describe()["suggestions"]
    assert (told["state"], told["values"]) == ("running", None)
    run(study)
    two.update(set(), set())
    (told,) = two.describe()["suggestions"]
    x, y = told["params"]["x"], told["params"]["y"]
    assert told["values"]["val/loss"] == pytest.approx((x - 0.3) ** 2 + (y != "flat") + 0.0005)


def test_a_small_space_is_tried_out_and_no_point_twice(store, run):
    space = {"x": IntDistribution(0, 2), "y": CategoricalDistribution(["flat", "steep"])}
    suggestions = suggestions_of(store, space=space, num=50)
    assert suggestions.num_left == 6
    points = explore(suggestions, run, 50)
    assert sorted((p["x"], p["y"]) for p in points) == [(x, y) for x in range(3) for y in ("flat", "steep")]
    assert suggestions.next(set(), set()) is None


def test_a_space_is_tried_to_the_last_point_though_the_sampler_keeps_coming_back(store, run):
    suggestions = suggestions_of(store, space={"x": IntDistribution(0, 39)}, num=100)
    assert sorted(p["x"] for p in explore(suggestions, run, 100)) == list(range(40))
    assert suggestions.num_left == 0
    assert suggestions.describe()["num_suggestions"] == 40  # a report that waits for 60 more would wait for ever


@pytest.mark.parametrize(
    "sampler", [optuna.samplers.BruteForceSampler, lambda seed: optuna.samplers.GridSampler(GRID, seed)]
)
@pytest.mark.filterwarnings("ignore:BruteForceSampler is experimental")
def test_samplers_that_want_to_stop_the_study_do_not(store, run, sampler):
    space = {name: CategoricalDistribution(choices) for name, choices in GRID.items()}
    points = explore(suggestions_of(store, space=space, sampler=sampler), run, 100)
    assert sorted(p["x"] for p in points) == [0.0, 0.0, 1.0, 1.0]


def explore_with_restarts(store, run, **search):
    """One suggestion a driver, each knowing no more than the store; returns the parameters."""
    while study := suggestions_of(store, **search).next(store.finished(), set()):
        run(study)
    return [s["params"] for s in suggestions_of(store, **search).describe()["suggestions"]]


@pytest.mark.parametrize(
    "sampler",
    [
        lambda seed: optuna.samplers.GridSampler(GRID, seed),
        lambda seed: optuna.samplers.QMCSampler(seed=seed, scramble=True),
        lambda seed: optuna.samplers.QMCSampler(qmc_type="halton", seed=seed),
    ],
    ids=["grid", "sobol", "halton"],
)
@pytest.mark.filterwarnings("ignore:QMCSampler is experimental")
def test_samplers_of_one_sequence_go_through_it_whatever_their_drivers_do(store, run, sampler):
    num = 4 if sampler(1).__class__ is optuna.samplers.GridSampler else 9
    space = SPACE if num > 4 else {n: CategoricalDistribution(choices) for n, choices in GRID.items()}
    oracle = optuna.create_study(sampler=sampler(7))
    oracle.optimize(lambda t: t._suggest("x", space["x"]) + (t._suggest("y", space["y"]) == "flat"), n_trials=num)
    assert explore_with_restarts(store, run, num=num, sampler=sampler, seed=7, space=space) == [
        trial.params for trial in oracle.trials
    ]


@pytest.mark.parametrize(
    "name", ["NSGAIISampler", "NSGAIIISampler", "TPESampler", "RandomSampler", "BruteForceSampler"]
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_samplers_are_functions_of_what_the_store_remembers(store, tmp_path, run, quick_settings, name):
    small = {"population_size": 4} if name.startswith("NSGA") else {}
    search = {"sampler": lambda seed: getattr(optuna.samplers, name)(seed=seed, **small), "seed": 2, "num": 14}
    if name == "BruteForceSampler":
        search["space"] = {"x": IntDistribution(0, 13)}
    restarted = explore_with_restarts(store, run, **search)
    undisturbed = Store(str(tmp_path / "undisturbed"))
    other = suggestions_of(undisturbed, **search)
    while study := other.next(undisturbed.finished(), set()):
        for trial in make_plan(study, undisturbed, Keys(FileDigests())).runnable():
            run_trial(Payload(trial, quick_settings(undisturbed)))
    assert [s["params"] for s in other.describe()["suggestions"]] == restarted
    if small:
        names = store.names("studies/s/suggestions")
        noted = [store.read_document(f"studies/s/suggestions/{n}")["sampler"]["trial"] for n in names]
        assert [n[f"{name}:generation"] for n in noted] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 2


def test_a_sampler_that_keeps_a_pickle_is_refused(store):
    with pytest.raises(ValueError, match=r"CmaEsSampler keeps its state as a pickle.*take TPESampler"):
        suggestions_of(store, sampler=lambda seed: optuna.samplers.CmaEsSampler(seed=seed))


def test_points_that_would_only_wait_are_not_chosen_yet(store, run):
    base = Count(2)
    suggestions = suggestions_of(store, bowls(upstream=base))
    assert all(suggestions.next(set(), set(), room=2) for _ in range(2))
    assert suggestions.next(set(), set(), room=2) is None
    assert len(store.names("studies/s/suggestions")) == 2
    done, lost = run(suggestions.study())
    assert suggestions.next(done, lost, room=2)


def test_a_lost_pretraining_costs_no_more_points(store):
    base = Count(2)
    suggestions = suggestions_of(store, bowls(upstream=base))
    lost = {Keys(FileDigests()).key(base)}
    assert suggestions.next(set(), lost) is None
    assert not store.names("studies/s/suggestions")
    assert suggestions_of(store, bowls(upstream=base)).next(set(), set())  # mended, and submitted again


def test_what_make_does_to_its_parameters_stays_there(store, run):
    def make(params):
        y = params.pop("y")
        return {"val/loss": [Bowl(params.pop("x"), y)]}

    points = explore(suggestions_of(store, make), run, 3)
    assert [s["params"] for s in suggestions_of(store, make).describe()["suggestions"]] == points
    assert set(points[0]) == {"x", "y"}


def test_remembered_parameters_stand_in_the_order_of_the_space(store, run):
    space = {"y": SPACE["y"], "x": SPACE["x"]}
    explore(suggestions_of(store, space=space), run, 1)
    (told,) = suggestions_of(store, space=space).describe()["suggestions"]
    assert list(told["params"]) == ["y", "x"]


def test_a_listing_that_lags_behind_ends_nothing(store, monkeypatch):
    late = suggestions_of(store)
    suggestions_of(store).next(set(), set())
    monkeypatch.setattr(Store, "names", lambda self, path: [])
    assert late.next(set(), set())
    assert [s["number"] for s in late.describe()["suggestions"]] == [1, 2]


def test_another_driver_may_finish_what_failed_here(store, run):
    suggestions = suggestions_of(store)
    study = suggestions.next(set(), set())
    suggestions.update(set(), {s for keys in suggestions.describe()["suggestions"][0]["trials"].values() for s in keys})
    assert suggestions.describe()["suggestions"][0]["state"] == "failed"
    suggestions.update(*run(study))
    assert suggestions.describe()["suggestions"][0]["state"] == "complete"


def test_drivers_that_write_the_manifest_by_turns_keep_each_others_trials(store):
    keys = Keys(FileDigests())
    drivers = [suggestions_of(store) for _ in range(2)]
    plans = [make_plan(Study("s", "?", {f"own {n}": Count(9)}), store, keys) for n in range(2)]
    writers = [ManifestWriter(store, manifest_of(p, "x", {}, keys), d) for p, d in zip(plans, drivers, strict=True)]
    for driver, writer in zip(drivers, writers, strict=True):
        writer.add(entries_of(make_plan(driver.next(set(), set()), store, keys), keys))
    (manifest,) = store.manifests()
    assert {entry["name"] for entry in manifest["trials"]} >= {"suggestion 1: val/loss 1", "suggestion 2: val/loss 1"}


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_part_of_another_driver_goes_only_when_the_manifest_has_its_suggestions(store, monkeypatch, moment):
    keys = Keys(FileDigests())
    own, other = (suggestions_of(store) for _ in range(2))
    plan = make_plan(Study("s", "?", {f"own {n}": Count(n + 1) for n in range(9)}), store, keys)
    writer, others = (ManifestWriter(store, manifest_of(plan, "x", {}, keys), driver) for driver in (own, other))
    for each in (writer, others):
        each.write()

    def add_a_part():
        others.add(entries_of(make_plan(other.next(set(), set()), store, keys), keys))

    def describe(**options):
        found = Suggestions.describe(own, **options)
        add_a_part()
        return found

    if moment == "before":
        add_a_part()
    else:
        monkeypatch.setattr(own, "describe", describe)
    writer.write()
    (manifest,) = store.manifests()
    assert [suggestion["number"] for suggestion in manifest["search"]["suggestions"]] == [1]
    assert "suggestion 1: val/loss 1" in {entry["name"] for entry in manifest["trials"]}


def test_a_search_leaves_the_roles_of_the_study_s_own_trials(store):
    base, keys = Count(2), Keys(FileDigests())
    own = {"base": Entry(base, "pretraining", {"data": "toy"})}
    study = Study("s", "?", own, Search(SPACE, bowls(upstream=base), LOSS, 2))
    suggestions = Suggestions(study, store, keys)
    writer = ManifestWriter(store, manifest_of(make_plan(suggestions.study(), store, keys), "x", {}, keys), suggestions)
    writer.add(entries_of(make_plan(suggestions.next(set(), set()), store, keys), keys))
    writer.add(entries_of(make_plan(suggestions.study(), store, keys), keys))
    (manifest,) = store.manifests()
    assert [(entry["name"], entry["role"], entry["labels"]) for entry in manifest["trials"]] == [
        ("base", "pretraining", {"data": "toy"}), ("suggestion 1: val/loss 1", "", {}),
    ]  # fmt: skip
    assert manifest["trials"][1]["upstream"] == [manifest["trials"][0]["key"]]


def test_starting_points_come_first_and_as_the_space_writes_them(store, run):
    start = [{"x": 0.3, "y": "steep"}, {"x": 1, "y": "flat"}]
    points = explore(suggestions_of(store, start=start), run, 3)
    assert points[:2] == start
    assert isinstance(points[1]["x"], float)
    assert points[2] not in start


def test_a_failed_trial_fails_its_suggestion_only(store, run):
    suggestions = suggestions_of(store, bowls(num_seeds=2, fails_above=0.5))
    points = explore(suggestions, run, 8)
    states = [s["state"] for s in suggestions.describe()["suggestions"]]
    assert states == ["failed" if p["x"] > 0.5 else "complete" for p in points]
    assert len(set(states)) == 2


def test_points_that_no_trainable_accepts_are_left_out(store, run, capsys):
    def make(params):
        if params["x"] > 0.5:
            raise ValueError("x is above 0.5")
        return bowls()(params)

    points = explore(suggestions_of(store, make), run, 8)
    assert len(points) == 8
    assert max(p["x"] for p in points) <= 0.5
    assert "x is above 0.5; it is left out" in capsys.readouterr().err

    def refuse(params):
        raise ValueError("never")

    with pytest.raises(ValueError, match=r"makes nothing of .*never"):
        suggestions_of(store, refuse)


@pytest.mark.parametrize(("wrong", "said"), [
    (lambda: 1 / 0, "ZeroDivisionError: division by zero"), (lambda: {"val/other": [Bowl(0.9)]}, "val/other"),
])  # fmt: skip
def test_a_make_that_is_wrong_at_some_points_ends_the_search_in_order(store, run, wrong, said):
    def make(params):
        return wrong() if params["x"] > 0.6 else bowls()(params)

    suggestions = suggestions_of(store, make, start=[{"x": 0.1, "y": "flat"}])
    points = explore(suggestions, run, 20)
    assert points[0] == {"x": 0.1, "y": "flat"}
    assert len(points) < 20
    assert said in suggestions.stopped_because
    assert "0." in suggestions.stopped_because
    assert suggestions.num_left == 0
    assert len(suggestions.best()) == 1


def test_an_objective_that_no_trial_reports_is_named(store, run):
    suggestions = suggestions_of(
        store, lambda params: {"val/dice": [Bowl(**params)]}, directions={"val/dice": "maximize"}
    )
    assert len(explore(suggestions, run, 5)) == 1  # to go on would only cost more
    assert suggestions.num_left == 0
    (told,) = suggestions.describe()["suggestions"]
    assert told["state"] == "failed"
    assert "no summary metric 'val/dice'" in told["reason"]
    assert "val/loss, val/size" in told["reason"]


def test_of_several_objectives_the_best_are_those_that_none_beats(store, run):
    def make(params):
        return {"val/loss": [Bowl(**params)], "val/size": [Bowl(**params)]}

    suggestions = suggestions_of(store, make, directions={"val/loss": "minimize", "val/size": "maximize"})
    points = explore(suggestions, run, 20)
    worth = [((p["x"] - 0.3) ** 2 + (p["y"] != "flat"), -p["x"]) for p in points]
    front = [w for w in worth if not any(o[0] <= w[0] and o[1] <= w[1] and o != w for o in worth)]
    assert [v["val/loss"] for _, v in suggestions.best()] == pytest.approx([loss for loss, _ in sorted(front)])
    assert 1 < len(front) < 20


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"start": [{"x": 2.0, "y": "flat"}]}, "lies outside the space"),
        ({"start": [{"x": 0.5}]}, "lies outside the space"),
        ({"directions": {"test/loss": "minimize"}}, "sees validation only"),
        ({"directions": {"val/loss": "smaller"}}, "expected 'maximize' or 'minimize'"),
        ({"directions": {"val/other": "minimize"}}, r"expected at least one for each of \['val/other'\]"),
        ({"make": lambda params: {"val/loss": []}}, "expected at least one for each"),
        ({"make": lambda params: {"val/loss": Bowl(**params)}}, "makes one Bowl for an objective .* expected a list"),
        ({"num": 0}, "num_suggestions = 0"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_a_search_that_cannot_be_is_refused(store, named, said):
    with pytest.raises(ValueError, match=said):
        suggestions_of(store, **named)
    assert not store.names("studies")


def test_a_suggestion_is_planned_with_what_the_study_has_measured(store, run, tmp_path):
    search = Search(SPACE, bowls(), LOSS, 3)
    study = Study("s", "?", {"measured": Bowl(0.25)}, search=search)
    run(dataclasses.replace(study, search=None))
    options = StudyOptions(storage=store.uri, cache_dir=tmp_path / "cache")
    submission = _Submission(study, options, store, tmp_path / "cache", make_console())
    plan = submission.plan()
    manifest = ManifestWriter(store, manifest_of(plan, "", {}, submission.keys), submission.suggestions)
    done = {p.trial.key for p in plan.planned}
    suggested = submission._suggested(
        submission.suggestions.next(done, set()), manifest, View(plan, make_console(), int)
    )
    (new,) = [p for p in suggested.planned if p.trial.key not in done]
    assert new.is_measured
    assert new.estimated_s == pytest.approx(store.result(*done).busy_s)


@pytest.mark.filterwarnings("ignore:Choices for a categorical")
@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ([Path("a"), Path("b")], "let `make` turn a name into an object"),
        ([1.0, float("inf")], "expected finite numbers"),
        ([0, False], "choices that are equal"),
    ],
)
def test_choices_that_cannot_be_written_down_are_refused(store, choices, said):
    with pytest.raises(ValueError, match=said):
        suggestions_of(store, space={"x": CategoricalDistribution(choices)})


def test_the_flag_of_the_lag_reaches_the_search(tmp_path):
    options = StudyOptions(storage=str(tmp_path / "results"), cache_dir=tmp_path, plan=True, lag=2)
    with pytest.raises(UsageError, match=r"--lag 2: study 's' has no search; leave it out"):
        submit(options, lambda: Study("s", "?", {"a": Count(1)}))
    assert submit(options, lambda: Study("s", "?", search=Search(SPACE, bowls(), LOSS, 3))) == 0
    with pytest.raises(ValueError, match="--lag 0: expected at least 1"):
        StudyOptions(lag=0)
