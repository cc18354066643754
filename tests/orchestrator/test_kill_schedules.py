"""Any graph or search, under any kills of drivers and processes, ends as if nothing had been (see ``dying``)."""

import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import dying
import pytest
from dying import AFTER, BEFORE, DRIVER, PAUSE, PROCESS, STALL, Blow, Items, Sum, World, explore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution

from orchestrator.kinds import Kind
from orchestrator.plan import make_plan
from orchestrator.retries import CRASH_WAITS_S
from orchestrator.search.suggestions import Suggestions
from orchestrator.study import Rungs, Search, Study
from trainables.api.identity import FileDigests, Keys

# The same examples every time: whoever changes something else meets no failure that is not theirs.
QUICK = settings(
    derandomize=True, max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
LONG = settings(QUICK, derandomize=False, max_examples=2_000, print_blob=True)

NUM_RETRIES = len(CRASH_WAITS_S)


@pytest.fixture(scope="module", autouse=True)
def give_world():
    with dying.on_no_disk() as give:
        yield give


# -- what is drawn -----------------------------------------------------------------------------------

when = st.integers(1, 25)
kills = st.builds(Blow, when, st.just(DRIVER), st.sampled_from((BEFORE, AFTER)))
waits = st.builds(Blow, when, st.sampled_from((STALL, PAUSE)))
# One of a process alone: each counts against its trial, and four are its end.
blows = st.lists(kills | waits, max_size=10).flatmap(
    lambda drawn: st.tuples(st.just(drawn), st.none() | st.integers(0, len(drawn)), when)
)


def with_one_of_a_process(drawn):
    several, place, after_changes = drawn
    one = [] if place is None else [Blow(after_changes, PROCESS, AFTER)]
    return several if place is None else [*several[:place], *one, *several[place:]]


@st.composite
def graphs(draw):
    """A few trials, each on some of those before it; lengths of a family, crashes, and failures for good."""
    made = []
    for number in range(draw(st.integers(1, 4))):
        upstream = tuple(draw(st.lists(st.sampled_from(made), max_size=2, unique=True))) if made else ()
        if draw(st.integers(0, 3)) == 0:
            made.append(Items(number, draw(st.integers(1, 4)), upstream))
            continue
        how = draw(st.sampled_from(("", "", "", "crashes", "wrong", "hopeless")))
        crashes = {"crashes": 2, "hopeless": 99}.get(how, 0)
        lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=2, unique=True))
        made += [Sum(number, length, upstream, crashes, how == "wrong") for length in lengths]
    return Study("s", "?", {f"t{place}": trainable for place, trainable in enumerate(made)})


def make(params, length):
    return {"val/loss": [Sum(int(params["x"] * 1000), length), Sum(2000 + int(params["x"] * 1000), length)]}


searches = st.builds(
    lambda n: Study(
        "s",
        "?",
        search=Search({"x": FloatDistribution(0, 1)}, make, {"val/loss": "minimize"}, n, rungs=Rungs((1, 3), 2)),
    ),
    st.integers(1, 5),
)


# -- what has to hold --------------------------------------------------------------------------------


def ended(world, study, lag):
    """What is left of a study: results, journals, states, failures and decisions, without times and places."""
    keys, store = Keys(FileDigests()), world.store
    plan = make_plan(Suggestions(study, store, keys, lag).study(), store, keys)
    found = {}
    for planned in plan.planned:
        key, result = planned.trial.key, planned.result
        failure = store.failure(key)
        found[key] = planned.state, failure and failure.kind
        if result is not None:
            rows = [row[:3] for row in store.rows(result)]
            assert max(Counter((metric, step) for metric, step, _ in rows).values()) == 1, "a row stands there twice"
            found[key] += result.metrics, result.files, rows, result.length, result.state and result.state.files
    names = store.names("studies/s/suggestions")
    return found, [store.read_document(f"studies/s/suggestions/{name}") for name in names]


def run(study, give_world, rng, lag=None, blows=(), **how):
    """The world in which a study has ended, and what is left of it."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
    world = World(folder, list(blows))
    give_world(world)
    dying.WORLD[:] = [world]
    try:
        explore(world, study, rng, lag=lag, **how)
        left = ended(world, study, lag)
        for name in world.store.names("trials"):
            claim = world.store.read_document(f"trials/{name}/claim.json")
            assert claim is None or not world.is_alive(claim["pid"]), "the living left a claim"
        return world, left
    finally:
        shutil.rmtree(folder)


def check(study, give_world, rng, blows, slots, num_drivers, lag=None):
    undisturbed, expected = run(study, give_world, random.Random(0), lag, slots=lag or 1)
    world, found = run(study, give_world, rng, lag, blows, slots=slots, num_drivers=num_drivers)
    assert found == expected
    hopeless = {t.number for t in study.trainables.values() if getattr(t, "num_crashes", 0) > NUM_RETRIES}
    for (number, part), times in world.computed.items():
        if number not in hopeless:
            assert undisturbed.computed[number, part] == 1, "with nothing in the way it was computed again"
            assert times <= 1 + world.num_blows, "a blow cost more than what had not been kept yet"


disturbed = {
    "rng": st.integers(0, 2**32 - 1).map(random.Random),
    "blows": blows.map(with_one_of_a_process),
    "slots": st.integers(1, 3),
    "num_drivers": st.sampled_from((2, 1)),
}


def test_an_undisturbed_crash_is_tried_so_often(give_world):
    study = Study("s", "?", {"a": Sum(1, 6, (), 99), "b": Sum(2, 6, (), NUM_RETRIES)})
    world, (found, _) = run(study, give_world, random.Random(0))
    assert sorted(world.tries.values()) == [NUM_RETRIES + 1, NUM_RETRIES + 1]
    assert sorted(kind or "" for _, kind, *_ in found.values()) == ["", Kind.CRASHED]


@QUICK
@given(study=graphs(), **disturbed)
def test_a_graph_ends_as_if_nothing_had_been(give_world, study, **how):
    check(study, give_world, **how)


@settings(QUICK, max_examples=10)
@given(study=searches, lag=st.integers(1, 3), **disturbed)
def test_a_search_ends_as_if_nothing_had_been(give_world, study, **how):
    check(study, give_world, **how)


@pytest.mark.slow
@LONG
@given(study=graphs(), **disturbed)
def test_thousands_of_graphs_end_as_if_nothing_had_been(give_world, study, **how):
    check(study, give_world, **how)


@pytest.mark.slow
@settings(LONG, max_examples=500)
@given(study=searches, lag=st.integers(1, 3), **disturbed)
def test_hundreds_of_searches_end_as_if_nothing_had_been(give_world, study, **how):
    check(study, give_world, **how)
