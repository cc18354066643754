"""The process that feeds MLflow may die; another one takes its place, and knows what it has to."""

import subprocess
import sys
import time

import pytest

from orchestrator import feeder
from orchestrator.feeder import Feeder

# Notes that it began and what it is told, in a file of its own each time, and dies at the word "die".
PROCESS = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
number = len(list(folder.iterdir()))
with (folder / str(number)).open("w") as file:
    for line in sys.stdin:
        print(line.strip(), file=file, flush=True)
        if "die" in line and number < int(sys.argv[2]):
            sys.exit(3)
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A function that makes a feeder whose first ``n`` processes die when they are told to; what each was told."""
    folder = tmp_path / "told"
    folder.mkdir()
    monkeypatch.setattr(feeder, "_LOOK_S", 0.05)
    monkeypatch.setattr(feeder, "_FIRST_PAUSE_S", 0.01)

    def make(num_deaths):
        command = [sys.executable, "-c", PROCESS, str(folder), str(num_deaths)]
        monkeypatch.setattr(feeder, "_command", lambda storage_uri, study: command)
        return Feeder("storage", "sqlite:///x.db", "s"), folder

    return make


def told(folder):
    return [path.read_text().splitlines() for path in sorted(folder.iterdir(), key=lambda path: int(path.name))]


def until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_another_process_takes_over_and_is_told_all_that_counts(start, capfd):
    handle, folder = start(2)
    with handle:
        for key, event in [("a", "started"), ("b", "started"), ("a", "ended"), ("die", "started")]:
            handle.tell(key, event)
        until(lambda: len(told(folder)) == 3 and len(told(folder)[2]) == 3)
        handle.tell("b", "ended")
    lines = ['["ended", "a"]', '["started", "b"]', '["started", "die"]']
    assert told(folder)[1:] == [lines, [*lines, '["ended", "b"]']]
    assert handle.is_up_to_date
    assert capfd.readouterr().err.count("the process that feeds MLflow died (status 3); starting another") == 1


def test_five_take_over_and_no_more_and_nobody_waits(start, capfd):
    handle, folder = start(99)
    with handle:
        handle.tell("die", "started")
        until(lambda: handle._num_deaths == 6)
        for number in range(3):
            handle.tell(str(number), "started")
    assert len(told(folder)) == 6
    assert not handle.is_up_to_date
    said = capfd.readouterr().err
    assert said.count("starting another") == 1
    assert said.count("MLflow stands still, and nothing is lost") == 1


def test_one_that_is_dead_at_the_end_is_replaced_to_publish_the_rest(start):
    handle, folder = start(1)
    handle._process.kill()
    handle._process.wait()
    handle.tell("a", "ended")
    handle.finish()
    assert handle._process.wait(timeout=60) == 0
    assert told(folder)[-1] == ['["ended", "a"]']


def test_nobody_waits_for_a_process_that_does_not_read(monkeypatch):
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(feeder, "_command", lambda storage_uri, study: command)
    handle = Feeder("storage", "sqlite:///x.db", "s")
    for number in range(20_000):  # a pipe holds 64 KB
        handle.tell(f"{number:064}", "started")
    process: subprocess.Popen = handle._process
    process.kill()
    handle._num_deaths = 99
    handle.finish()
