"""What is remembered of a failure, and the ways out of a trial that hangs."""

import contextlib
import dataclasses
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
import traceback

import cloudpickle
import pytest
from toy import Count

from orchestrator import attempt
from orchestrator.attempt import Attempt, Payload
from orchestrator.claims import Claim, Holding
from orchestrator.failures import WorkerFailed, failure_from, record, why_ended
from orchestrator.graph import trials_of
from orchestrator.kinds import kind_of
from orchestrator.plan import failure_text
from orchestrator.snapshot import snapshot
from orchestrator.store import Failure, Store
from orchestrator.study import Study
from orchestrator.time_limit import time_limit, timed_out
from orchestrator.trial import run_in_tune, run_trial
from trainables.api.identity import FileDigests, Keys


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "results"))


def trial_of(trainable):
    return trials_of(Study("s", "?", {"t": trainable}), Keys(FileDigests()))[0]


class Ends(Count):
    """Ends its process in one of the ways that are no Exception."""

    how = SystemExit(3)

    def run(self, context):
        raise self.how


class Presses(Ends):
    how = KeyboardInterrupt()


def test_who_ends_its_process_has_failed_for_good_and_is_told_so(store, quick_settings):
    trial = trial_of(Ends())
    run_trial(Payload(trial, quick_settings(store)))
    failure = store.failure(trial.key)
    assert failure.kind == "invalid"
    assert failure.message.startswith("SystemExit: 3 (it ended its process")
    assert "raise self.how" in failure.traceback


def test_an_interruption_of_any_kind_leaves_word_and_may_be_tried_again(store, quick_settings):
    trial = trial_of(Presses())
    with pytest.raises(KeyboardInterrupt):
        run_trial(Payload(trial, quick_settings(store)))
    assert store.failure(trial.key) is None
    assert store.crash(trial.key).message == "KeyboardInterrupt: "


def test_half_characters_and_megabytes_do_not_reach_a_document_or_a_terminal():
    failure = failure_from(ValueError("a lone surrogate \ud800 and " + "x" * 5_000_000), 1)
    assert failure.message.startswith("ValueError: a lone surrogate \\ud800 and xxx")
    assert len(failure.message) == len(failure.message.encode()) <= 20_000
    assert len(failure.traceback) <= 1_000_000
    assert re.match(r"\[the first of 50\d+ characters are left out\]\nx", failure.traceback)
    assert len(failure_text(failure)) <= 300


def error_with_causes():
    """An error of three lines, that came of one that came of another."""
    try:
        try:
            raise OSError(5, "Input/output error", "/nfs/x")
        except OSError as error:
            raise KeyError("inner") from error
    except KeyError as error:
        try:
            raise RuntimeError("Ray is sorry\n  to say\tthis\n") from error
        except RuntimeError as outer:
            return outer


def test_a_message_is_one_line_with_its_causes_and_the_trace_is_whole():
    error = error_with_causes()
    failure = failure_from(error, 1)
    assert failure.message == (
        "RuntimeError: Ray is sorry to say this (caused by KeyError: 'inner' "
        "(caused by OSError: [Errno 5] Input/output error: '/nfs/x'))"
    )
    assert failure.traceback == "".join(traceback.format_exception(error))
    assert failure_text(failure) == f"crashed: {failure.message}"


def test_a_long_message_keeps_its_beginning_and_its_cause_in_a_table():
    try:
        raise ValueError("x" * 1000) from KeyError("the cause")
    except ValueError as error:
        text = failure_text(failure_from(error, 1))
    assert text.startswith("invalid: ValueError: xxx")
    assert text.endswith("xxx (caused by KeyError: 'the cause')")
    assert len(text) < 300


def test_a_circle_of_causes_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert failure_from(first, 1).message == "ValueError: a (caused by ValueError: b)"


@pytest.mark.parametrize(
    ("stored", "kind"),
    [("crash", "crashed"), ("non-finite", "invalid"), ("bad configuration", "invalid"), ("preempted", "preempted")],
)
def test_failures_of_earlier_storages_are_of_the_classes_of_today(store, stored, kind):
    trial = trial_of(Count())
    store.record_failure(trial.key, Failure(stored, "why", "", 1, 0.0))
    assert kind_of(store.failure(trial.key).kind) == kind
    assert failure_text(store.failure(trial.key)) == f"{kind}: why"
    assert snapshot(store, trial.key).failure == f"{kind}: why"


def test_what_a_worker_said_is_what_is_remembered():
    said = Failure("invalid", "loss is nan", "", 2, 1.0)
    assert failure_from(WorkerFailed(said), 9) == dataclasses.replace(said, attempt=9)


KILLED_FOR_MEMORY = "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory."
NO_MODULE = "ModuleNotFoundError: No module named 'mine'"


@pytest.mark.parametrize(
    ("error", "attempts", "kind", "message"),
    [
        (KILLED_FOR_MEMORY, 1, "out of memory", "ran out of memory; lower --max-concurrent"),
        (NO_MODULE, 0, "crashed", f"it could not be started: {NO_MODULE}"),
        ("The actor died unexpectedly", 1, "crashed", "died without a word"),
        ("The actor 9 is unavailable: RPC error: Socket closed", 1, "crashed", "Ray lost touch with its process"),
        ("The actor died because its node has died. Node Id: 7", 1, "preempted", "its node has died"),
        (None, 1, "crashed", "died without a word"),
    ],
)
def test_a_process_without_a_word_is_judged_by_what_ray_saw(store, monkeypatch, error, attempts, kind, message):
    monkeypatch.setattr(Store, "attempts", lambda self, key: attempts)
    trial = trial_of(Count())
    failure = why_ended(store, trial, error)
    record(store, trial, failure)
    assert failure.kind == kind
    assert message in failure.message
    assert store.failure(trial.key) == failure


def hang(tmp_path, limit_s, how):
    """Run a block that hangs under a limit, in a process of its own: its exit status and what was recorded."""
    code = f"""
        import ctypes, time
        from pathlib import Path
        from orchestrator import time_limit
        time_limit.C_CODE_MARGIN_S = 0.5
        def stuck():
            {how}
        with time_limit.time_limit({limit_s}, 4, lambda f: Path({str(tmp_path / "said")!r}).write_text(repr(f))):
            stuck()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    said = tmp_path / "said"
    return done, said.read_text() if said.exists() else ""


def test_an_attempt_that_takes_too_long_ends_and_says_where_it_was(tmp_path):
    done, said = hang(tmp_path, 0.3, "time.sleep(600)")
    assert done.returncode == 1
    assert "kind='timed out'" in said
    assert "time limit of 0.005 min, and was at" in said
    assert "in stuck" in said
    assert "<string>" in said  # the only code of its own that it has
    assert "attempt=4" in said


def test_code_that_never_lets_go_of_the_interpreter_ends_too(tmp_path):
    done, _ = hang(tmp_path, 0.3, "ctypes.PyDLL(None).sleep(600)")  # PyDLL keeps the lock
    assert done.returncode == 1
    assert "Timeout" in done.stderr


@pytest.mark.parametrize("is_published", [False, True])
def test_a_process_beside_the_first_has_a_time_limit_too(store, quick_settings, tmp_path, is_published):
    """It may hang when the first has published, and nobody waits for it but Ray Train."""
    trial = trial_of(Count(epoch_s=600.0))
    if is_published:
        run_trial(Payload(trial_of(Count()), quick_settings(store)))
    settings = dataclasses.replace(quick_settings(store), time_limit_s=0.2)
    store.write_document("claim", {"token": "token"})
    (tmp_path / "attempt").write_bytes(
        cloudpickle.dumps(Attempt(Payload(trial, settings), 1, Holding(store, "claim", "token")))
    )
    code = f"""
        import pickle
        from pathlib import Path
        from orchestrator import attempt
        attempt._FOLLOWS_WITHIN_S = 0.1
        attempt.follow(pickle.loads(Path({str(tmp_path / "attempt")!r}).read_bytes()), 1)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 1
    failure = store.failure(trial.key)
    assert (failure is None) if is_published else (failure.kind == "timed out")
    assert list(settings.cache_dir.iterdir()) == []


def test_what_ends_in_time_is_left_alone(tmp_path):
    done, said = hang(tmp_path, 30.0, "pass")
    assert (done.returncode, said) == (0, "")
    num_threads = threading.active_count()
    with time_limit(None, 1, lambda failure: None):
        assert threading.active_count() == num_threads


def test_the_place_is_that_of_the_thread_that_hangs():
    inside, leave = threading.Event(), threading.Event()

    def waits_here():
        inside.set()
        leave.wait()

    thread = threading.Thread(target=waits_here)
    thread.start()
    inside.wait()
    failure = timed_out(60.0, 1, thread.ident)
    leave.set()
    thread.join()
    assert "waits_here" in failure.traceback
    assert failure.message.startswith(f"it ran longer than the time limit of 1 min, and was at {__file__}:")
    assert failure.message.endswith("in waits_here")  # not in the library that it waits in


def test_a_trial_that_tune_stops_has_not_failed(store, quick_settings, monkeypatch):
    def stop(said):
        raise SystemExit(0)  # as Tune ends the thread of a trial, at its next report

    monkeypatch.setattr("ray.tune.report", stop)
    trial = trial_of(Count())
    with pytest.raises(SystemExit):
        run_in_tune({"payload": Payload(trial, quick_settings(store)).encode()})
    assert store.failure(trial.key) is None
    assert store.crash(trial.key) is None
    assert store.generations(trial.key) == []  # it was stopped before its first checkpoint
    assert not store.exists(f"trials/{trial.key}/claim.json")


@pytest.mark.parametrize("is_mine", [True, False])
def test_only_who_holds_the_claim_says_that_the_time_is_over(store, monkeypatch, tmp_path, quick_settings, is_mine):
    """A process that stood still wakes up over its limit: by then another one may have the trial."""

    @contextlib.contextmanager
    def over_at_once(limit_s, attempt, record):
        record(Failure("timed out", "too long", "", attempt, 1.0))
        raise TimeoutError  # where the process would end
        yield

    monkeypatch.setattr(attempt, "time_limit", over_at_once)
    trial = trial_of(Count(1))
    with Claim(store, f"trials/{trial.key}") as claim:
        holding = claim.holding if is_mine else dataclasses.replace(claim.holding, token="another")
        with contextlib.suppress(TimeoutError):
            attempt.compute(attempt.Attempt(attempt.Payload(trial, quick_settings(store)), 1, holding), print, print)
    assert (store.failure(trial.key) is not None) is is_mine


def test_whoever_waited_for_a_claim_says_when_it_goes_on(store, quick_settings):
    """There the clock of a time limit starts."""
    trial = trial_of(Count())
    said, holds = [], Claim(store, f"trials/{trial.key}")
    holds.__enter__()
    payload = Payload(trial, quick_settings(store))
    waiter = threading.Thread(target=run_trial, args=(payload,), kwargs={"say": said.append})
    waiter.start()
    deadline = time.monotonic() + 30
    while not said and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [text.split(" ")[0] for text in said] == ["waits"]
    holds.__exit__(None, None, None)
    waiter.join(30)
    assert [text.split(" ")[0] for text in said] == ["waits", "goes"]
    assert store.result(trial.key) is not None
