"""What is printed while a study runs."""

import dataclasses
import io
import re
import signal

import pytest
from rich.console import Console
from toy import Count, Diverge

from orchestrator.context import Progress
from orchestrator.durations import Durations
from orchestrator.plan import make_plan
from orchestrator.store import Store
from orchestrator.study import Study
from orchestrator.view import View, progress_text
from trainables.api.identity import FileDigests, Keys


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(3, 40, "epochs"), "3/40 epochs"),
        (Progress(0.888889, 1, "epochs"), "0.8/1 epochs"),
        (Progress(0.999, 1, "epochs"), "0.9/1 epochs"),
        (Progress(12.0, 40, "epochs"), "12/40 epochs"),
        (Progress(12.34, 40, "epochs"), "12.3/40 epochs"),
        (Progress(1_250_000, 2_000_000, "items"), "1250000/2000000 items"),
    ],
)
def test_progress_is_short_and_never_more_than_there_is(progress, text):
    assert progress_text(progress) == text


@pytest.fixture
def plan(tmp_path):
    study = Study("s", "?", {"first": Count(1), "second": Diverge()})
    return make_plan(study, Store(str(tmp_path / "results")), Keys(FileDigests()))


def test_a_plain_log_has_a_line_an_event(plan):
    shown = io.StringIO()
    first, second = (p.trial.key for p in plan.planned)
    with View(plan, Console(file=shown, width=200), lambda: 2) as view:
        view.started(first)
        view.progressed(first, Progress(1, 3, "epochs"))
        view.noted(first, "waits for [bold] somebody")
        view.started(second)
        view.started(second)
        view.failed(second, "non-finite: train/loss is nan")
        view.done(first)
    assert unstamped(shown.getvalue()) == [
        "started first",
        "first: waits for [bold] somebody",
        "started second",
        "again   second",
        "failed  second: non-finite: train/loss is nan",
        "done    first (0 s)",
    ]


@pytest.fixture
def clock(monkeypatch):
    """The view's clock, to be set."""
    now = [0.0]
    monkeypatch.setattr("orchestrator.view.time.monotonic", lambda: now[0])
    return now


class Ticks:
    """Stands for the event that ends the ticker: so many seconds pass before it is set."""

    def __init__(self, clock, seconds):
        self._clock, self._left = clock, seconds

    def wait(self, timeout):
        if self._left == 0:
            return True
        self._clock[0] += timeout
        self._left -= 1
        return False


def unstamped(text):
    return [re.sub(r"^\[\d\d:\d\d:\d\d\] ", "", line) for line in text.splitlines()]


def log_of(tmp_path, clock, num_trials):
    """The lines of a study that takes a second a trial; trial 60 crashes once, 61 has to say something, 62 fails."""
    study = Study("s", "?", {f"trial {n}": Count(1, increment=n) for n in range(1, num_trials + 1)})
    shown = io.StringIO()
    plan = make_plan(study, Store(str(tmp_path / "results")), Keys(FileDigests()))
    view = View(plan, Console(file=shown, width=200), lambda: 2)
    for number, planned in enumerate(plan.planned, start=1):
        view.started(planned.trial.key)
        if number == 60:
            view.started(planned.trial.key)
        if number == 61:
            view.noted(planned.trial.key, "waits for somebody")
        view._ended = Ticks(clock, 1)
        view._tick()
        if number == 62:
            view.failed(planned.trial.key, "non-finite: train/loss is nan")
        else:
            view.done(planned.trial.key)
    return unstamped(shown.getvalue())


def test_the_log_of_a_large_study_grows_with_its_time_and_not_with_its_trials(tmp_path, clock):
    lines = log_of(tmp_path, clock, 1200)
    own = [line for line in lines if line.startswith(("started", "done "))]
    assert own == [
        f"{said} trial {n}{took}" for n in range(1, 51) for said, took in (("started", ""), ("done   ", " (1 s)"))
    ]
    after = lines[len(own) :]
    assert after.pop(0) == "from here on a line every 30 s, and one for each failure and note"
    assert [line for line in after if not line[0].isdigit()] == [
        "again   trial 60",
        "trial 61: waits for somebody",
        "failed  trial 62: non-finite: train/loss is nan",
    ]
    summaries = [line for line in after if line[0].isdigit()]
    assert summaries[0] == "79/1,200 done, 1 running, 1 failed, about 9 min left"
    assert len(summaries) == 1150 // 31  # a second late, as the ticker looks once a second
    assert summaries[-1].startswith("1,195/1,200 done, 1 running, 1 failed, about")


def test_fifty_trials_have_lines_of_their_own(tmp_path, clock):
    assert len(log_of(tmp_path, clock, 50)) == 100


def test_without_a_reader_the_study_is_interrupted_as_by_ctrl_c(plan):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    class Strict(Console):
        def on_broken_pipe(self):
            raise BrokenPipeError

    heard = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with View(plan, Strict(file=Gone()), lambda: 2) as view:
            view.started(plan.planned[0].trial.key)
            view.done(plan.planned[0].trial.key)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]


def summary_after(view, clock, key, steps, silent_s):
    """What is said after steps ahead at these seconds, and then a silence."""
    view.started(key)
    for number, seconds in enumerate(steps, start=1):
        clock[0] = seconds
        view.progressed(key, Progress(number, 100, "epochs"))
    clock[0] += silent_s
    view.progressed(key, Progress(len(steps), 100, "epochs"))  # a word that is no step ahead
    return view._summary()


@pytest.mark.parametrize(
    ("steps", "silent_s", "is_said"),
    [
        ([10.0, 20.0, 30.0], 590.0, False),  # ten minutes are nothing
        ([10.0, 20.0, 30.0], 610.0, True),
        ([10.0, 1210.0, 2410.0], 5900.0, False),  # epochs of twenty minutes
        ([10.0, 1210.0, 2410.0], 6100.0, True),
        ([5000.0, 5010.0], 610.0, True),  # before its first word it loaded
    ],
)
def test_a_trial_that_stands_still_is_named_with_the_way_out(plan, clock, steps, silent_s, is_said):
    view = View(plan, Console(file=io.StringIO(), width=200), lambda: 2)
    said = summary_after(view, clock, plan.planned[0].trial.key, steps, silent_s)
    minutes = {610.0: "10 min", 6100.0: "1.7 h"}.get(silent_s)
    expected = f"nothing moves in 'first' for {minutes} (--time-limit MIN ends what hangs)"
    assert (expected in said) is is_said
    assert ("left" in said) is not is_said


def test_what_waits_to_start_again_neither_runs_nor_hangs(plan, clock):
    shown, lacks = io.StringIO(), "no node is there"
    first, second = (p.trial.key for p in plan.planned)
    view = View(plan, Console(file=shown, width=200), lambda: 2, lambda: lacks)
    view.started(first)
    view.progressed(first, Progress(1, 100, "epochs"))
    view.waits(first)
    assert view._summary().startswith("0/2 done, 0 running, 1 to start again, about")
    clock[0] = 1000.0
    others = "1 waiting for free CPUs or GPUs of the cluster"
    assert view._summary() == f"0/2 done, 0 running, 1 to start again, {others} ({lacks})"
    view.started(second)
    view.done(second)
    clock[0] = 2000.0
    assert view._summary() == f"1/2 done, 0 running, 1 to start again ({lacks})"
    view.started(first)
    assert view._summary().startswith("1/2 done, 1 running, about")
    view.waits(first)
    view.failed(first, "crashed: it could not be started")
    assert view._summary().startswith("1/2 done, 0 running, 1 failed, about")
    assert [line for line in unstamped(shown.getvalue()) if "first" in line] == [
        "started first", "again   first", "failed  first: crashed: it could not be started",
    ]  # fmt: skip


def test_the_time_left_learns_from_what_trials_took(tmp_path, clock):
    """Estimates of a first run are guesses: three trials of one kind, guessed alike, of which one took a minute."""
    study = Study("s", "?", {f"{n}": Count(1, increment=n) for n in (1, 2, 3)})
    plan = make_plan(study, Store(str(tmp_path / "results")), Keys(FileDigests()))
    guessed_s = plan.planned[0].estimated_s
    view = View(plan, Console(file=io.StringIO(), width=200), lambda: 1)
    assert view._left_s() == pytest.approx(3 * guessed_s)
    first, second, _ = (p.trial.key for p in plan.planned)
    view.started(first)
    clock[0] = 60.0
    view.done(first)
    corrected_s = guessed_s**0.25 * 60.0**0.75  # not all the way after one trial (`Durations`)
    assert view._left_s() == pytest.approx(2 * corrected_s)
    view.started(second)
    clock[0] = 120.0
    view.done(second)
    assert view._left_s() == pytest.approx(60.0)


def test_a_guess_that_was_wrong_says_nothing_of_what_is_measured():
    durations = Durations()
    for _ in range(3):
        durations.learn("MoCo", 1.0, False, 50.0)
    assert durations.seconds("MoCo", 2.0, is_measured=False) == pytest.approx(100.0)
    assert durations.seconds("MoCo", 2.0, is_measured=True) == pytest.approx(2.0)
    durations.learn("MoCo", 2.0, True, 8.0)
    assert durations.seconds("MoCo", 2.0, is_measured=True) == pytest.approx(4.0)
    assert durations.seconds("MoCo", 2.0, is_measured=False) == pytest.approx(100.0)


def test_what_a_search_adds_is_corrected_by_other_guesses_only_if_it_is_one(tmp_path, clock):
    plan = make_plan(Study("s", "?", {"one": Count(1)}), Store(str(tmp_path / "results")), Keys(FileDigests()))
    for is_measured, expected_s in ((False, 50.0 * (60.0 / plan.planned[0].estimated_s) ** 0.5), (True, 50.0)):
        clock[0] = 0.0
        searching = dataclasses.replace(plan, to_suggest=5, suggestion_s=10.0, is_measured=is_measured)
        view = View(searching, Console(file=io.StringIO(), width=200), lambda: 1)
        view.started(plan.planned[0].trial.key)
        clock[0] = 60.0
        view.done(plan.planned[0].trial.key)
        assert view._left_s() == pytest.approx(expected_s)


def test_a_study_that_waits_on_and_on_says_what_the_cluster_lacks(plan, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("orchestrator.view.time.monotonic", lambda: now[0])
    lacks = [""]
    view = View(plan, Console(file=io.StringIO(), width=200), lambda: 1, lambda: lacks[0])
    now[0] = 60.0
    assert view._summary() == "0/2 done, 0 running, 2 waiting for free CPUs or GPUs of the cluster"
    lacks[0] = "none of the nodes that are there has the 1 CPU with 1 GPU of a trial"
    assert view._summary().endswith(f"of the cluster ({lacks[0]})")
