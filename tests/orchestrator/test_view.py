"""What is printed while a study runs."""

import io
import re
import signal

import pytest
from rich.console import Console
from toy import Count, Diverge

from orchestrator.context import Progress
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
    lines = [re.sub(r"^\[\d\d:\d\d:\d\d\] ", "", line) for line in shown.getvalue().splitlines()]
    assert lines == [
        "started first",
        "first: waits for [bold] somebody",
        "started second",
        "again   second",
        "failed  second: non-finite: train/loss is nan",
        "done    first (0 s)",
    ]


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
