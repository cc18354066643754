"""The order in which the graph is handed out."""

import dataclasses

from toy import Count, Grow, Squares
from toy_ranks import Ranks

from orchestrator.graph import trials_of
from orchestrator.plan import Plan, PlannedTrial, State
from orchestrator.resources import Amount, Capacity, Demand, demand_of
from orchestrator.retries import Again
from orchestrator.scheduler import GraphSearcher
from orchestrator.study import Resources, Study
from trainables.api.identity import FileDigests, Keys


def searcher_of(trials, *, succeeds=lambda trial: True, done=(), max_concurrent=None, slots=10, workers=1, **more):
    plan = plan_of(trials, done=done)
    return GraphSearcher(
        plan,
        lambda t: {"payload": t.name},
        lambda t, error: succeeds(t),
        lambda t: demand_of(t.trainable, Resources(workers=workers)),
        lambda: Capacity((Amount(float(slots)),)),
        max_concurrent=max_concurrent,
        usual=Demand(Amount(1.0)),
        **more,
    )


def plan_of(trials, *, done=(), failed=()):
    study = Study("s", "?", trials)
    states = {**dict.fromkeys(done, State.DONE), **dict.fromkeys(failed, State.FAILED)}
    planned = [PlannedTrial(t, states.get(t.name, State.NEW)) for t in trials_of(study, Keys(FileDigests()))]
    return Plan(study, tuple(planned), is_measured=False)


def names(searcher, ids):
    suggestions = [searcher.suggest(i) for i in ids]
    return [s["payload"] if isinstance(s, dict) else s for s in suggestions]


def chain(*epochs):
    upstream = None
    for n in epochs:
        upstream = Count(n, upstream=upstream)
    return upstream


def test_a_trial_is_handed_out_the_moment_its_own_upstream_is_done():
    a, b = chain(1), chain(2)
    searcher = searcher_of({"a": a, "b": b, "after a": Count(3, upstream=a), "after b": Count(3, upstream=b)})
    assert names(searcher, "123") == ["a", "b", None]
    searcher.on_trial_complete("2")
    assert names(searcher, "45") == ["after b", None]
    searcher.on_trial_complete("1")
    assert names(searcher, "67") == ["after a", None]
    for i in "46":
        searcher.on_trial_complete(i)
    assert names(searcher, "8") == ["FINISHED"]


def test_slots_are_waited_for_until_workers_are_there():
    searcher = searcher_of({"ranks": Ranks(), "count": Count(1)}, workers=2)
    keys = {trial.name: key for key, trial in searcher.trials.items()}
    names(searcher, "12")
    searcher.started(keys["count"])
    searcher.started(keys["ranks"])  # its process; the workers have still to be placed
    assert searcher.is_anyone_waiting
    searcher.spoke(keys["ranks"])
    assert not searcher.is_anyone_waiting


def test_a_failure_blocks_its_descendants_only():
    base = chain(1)
    middle = Count(2, upstream=base)
    searcher = searcher_of(
        {"base": base, "middle": middle, "leaf": Count(3, upstream=middle), "other": Count(9)},
        succeeds=lambda t: t.name != "base",
    )
    assert names(searcher, "12") == ["base", "other"]
    searcher.on_trial_complete("1", error=True)
    searcher.on_trial_complete("2")
    assert names(searcher, "3") == ["FINISHED"]
    assert len(searcher.blocked) == 2


def test_finished_upstream_counts_and_concurrency_is_limited():
    base = chain(1)
    searcher = searcher_of(
        {"base": base, **{f"t{n}": Count(n, upstream=base) for n in (2, 3, 4)}}, done=["base"], max_concurrent=2
    )
    assert names(searcher, "123") == ["t2", "t3", None]
    searcher.on_trial_complete("2")
    assert names(searcher, "4") == ["t4"]


def test_more_is_asked_for_only_while_there_is_room():
    told, plans = [], [plan_of({"c": Count(3)}), plan_of({"d": Count(4)})]

    def more(done, lost):
        told.append((len(done), len(lost)))
        return plans.pop(0) if plans else None

    searcher = searcher_of({"a": Count(1), "b": Count(2)}, more=more, slots=2)
    assert names(searcher, "123") == ["a", "b", None]  # both slots are taken: nobody was asked
    searcher.on_trial_complete("1")
    assert names(searcher, "45") == ["c", None]
    searcher.on_trial_complete("2")
    searcher.on_trial_complete("4")
    assert names(searcher, "67") == ["d", None]
    searcher.on_trial_complete("6")
    assert names(searcher, "8") == ["FINISHED"]
    assert told == [(1, 0), (3, 0), (3, 0), (4, 0)]


def test_what_is_known_already_does_not_run_again_and_what_waits_for_a_lost_trial_is_blocked():
    base, lost = chain(1), chain(5)
    plans = [plan_of({"base": base, "tune": Count(2, upstream=base), "hopeless": Count(6, upstream=lost)})]
    searcher = searcher_of(
        {"base": base, "lost": lost},
        succeeds=lambda t: t.name != "lost",
        more=lambda done, lost: plans.pop() if plans else None,
        slots=4,
    )
    assert names(searcher, "12") == ["base", "lost"]
    searcher.on_trial_complete("2", error=True)
    assert names(searcher, "3") == [None]  # tune waits for base
    assert len(searcher.blocked) == 1
    searcher.on_trial_complete("1")
    assert names(searcher, "4") == ["tune"]
    searcher.on_trial_complete("4")
    assert names(searcher, "5") == ["FINISHED"]


def test_a_longer_training_waits_for_the_shorter_ones_of_its_family():
    trials = {"9": Grow(9), "other": Grow(5, factor=2), "4": Grow(4), "2": Grow(2)}
    searcher = searcher_of(trials, succeeds=lambda trial: trial.name != "4")
    assert names(searcher, "123") == ["2", "other", None]  # three in a row go before one
    searcher.on_trial_complete("1")
    assert names(searcher, "45") == ["4", None]
    searcher.on_trial_complete("4", error=True)  # a failure keeps nobody from starting
    assert names(searcher, "67") == ["9", None]
    searcher.on_trial_complete("2")
    searcher.on_trial_complete("6")
    assert names(searcher, "8") == ["FINISHED"]
    assert searcher.blocked == {}


def test_the_search_and_the_queue_see_the_demand_of_each_trial():
    """Four CPUs and two workers a trial that spreads: estimates are work on one worker."""
    trials = {"one": Count(1), "spread": Squares(), "two": Count(2)}
    work_s = {"one": 30.0, "spread": 50.0, "two": 20.0}
    plan = plan_of(trials)
    planned = tuple(dataclasses.replace(p, estimated_s=work_s[p.trial.name]) for p in plan.planned)
    searcher = GraphSearcher(
        dataclasses.replace(plan, planned=planned),
        lambda t: {"payload": t.name},
        lambda t, error: True,
        lambda t: demand_of(t.trainable, Resources(workers=2)),
        lambda: Capacity((Amount(3.0),)),
        usual=Demand(Amount(1.0)),
        clock=lambda: 0.0,
    )
    assert names(searcher, "123") == ["one", "spread", None]  # 30 s, then 25 s on two workers; all CPUs are taken
    searcher.on_trial_complete("1")
    assert names(searcher, "4") == ["two"]


def test_the_clock_and_the_plan_tell_what_estimates_are_worth():
    """The first of a kind took a hundredth of its estimate: the other kind, which was measured too, is longer now."""
    now = [0.0]
    plan = plan_of({"a": Count(1), "b": Count(2), "c": Squares()})
    estimated = {"a": 30.0, "b": 20.0, "c": 3.0}
    planned = tuple(dataclasses.replace(p, estimated_s=estimated[p.trial.name], is_measured=True) for p in plan.planned)
    searcher = GraphSearcher(
        dataclasses.replace(plan, planned=planned),
        lambda t: {"payload": t.name},
        lambda t, error: True,
        lambda t: Demand(Amount(1.0)),
        lambda: Capacity((Amount(1.0),)),
        usual=Demand(Amount(1.0)),
        clock=lambda: now[0],
    )
    assert names(searcher, "1") == ["a"]
    now[0] = 0.3
    searcher.on_trial_complete("1")
    assert names(searcher, "2") == ["c"]


def test_a_trial_is_tried_again_when_it_is_time_and_its_slot_is_another_s_until_then():
    now, ends = [0.0], [Again(8.0), Again(), True]
    base = chain(1)
    searcher = searcher_of(
        {"base": base, "after": Count(3, upstream=base), "other": Count(2)},
        succeeds=lambda t: ends.pop(0) if t.name == "base" else True,
        slots=1,
        clock=lambda: now[0],
    )
    assert names(searcher, "1") == ["base"]
    searcher.on_trial_complete("1", error=True)
    assert names(searcher, "2") == ["other"]
    searcher.on_trial_complete("2")
    assert names(searcher, "3") == [None]  # not FINISHED: something is to come
    now[0] = 8.0
    assert names(searcher, "4") == ["base"]
    searcher.on_trial_complete("4", error=True)
    assert names(searcher, "5") == ["base"]
    searcher.on_trial_complete("5")
    assert names(searcher, "6") == ["after"]
    searcher.on_trial_complete("6")
    assert names(searcher, "7") == ["FINISHED"]


def test_nothing_starts_and_nothing_is_over_while_nothing_may_start():
    may = [False]
    searcher = searcher_of({"a": Count(1)}, may_start=lambda: may[0])
    assert names(searcher, "1") == [None]
    assert searcher.next_demand() is None
    may[0] = True
    assert names(searcher, "2") == ["a"]
    searcher.on_trial_complete("2")
    may[0] = False
    assert names(searcher, "3") == ["FINISHED"]


def test_a_search_that_cannot_be_written_down_now_is_asked_again_and_not_over(capsys):
    now, answers = [0.0], [OSError(28, "No space left on device"), OSError(28, "No space"), plan_of({"b": Count(2)})]

    def more(done, lost):
        answer = answers.pop(0) if answers else None
        if isinstance(answer, OSError):
            raise answer
        return answer

    searcher = searcher_of({"a": Count(1)}, more=more, slots=1, clock=lambda: now[0])
    assert names(searcher, "1") == ["a"]
    searcher.on_trial_complete("1")
    assert names(searcher, "234") == [None, None, None]
    assert len(answers) == 2  # asked once: the next time is later
    now[0] = 10.0
    assert names(searcher, "5") == [None]
    now[0] = 20.0
    assert names(searcher, "6") == ["b"]
    searcher.on_trial_complete("6")
    assert names(searcher, "7") == ["FINISHED"]
    assert capsys.readouterr().err.count("the search cannot go on now, and tries again: [Errno 28]") == 1
