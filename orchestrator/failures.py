"""Which exceptions are what kind of failure, and what is remembered of each."""

from __future__ import annotations

import sys
import time
import traceback
from dataclasses import replace

from orchestrator.kinds import Kind
from orchestrator.plan import Trial
from orchestrator.store import DamagedResult, Failure, Store
from trainables.api.errors import BadData, NonFiniteMetric

_LONGEST_MESSAGE = 20_000
_LONGEST_TRACE = 1_000_000
# The same input fails the same way again, so none of these is retried. A file that is not found is none of them: a
# network share may be late on a fresh node. Who calls sys.exit means it.
_DETERMINISTIC = (
    BadData,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ImportError,
    SystemExit,
)


class WorkerFailed(Exception):
    """One of several processes of a trial failed; what it said of it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return self.failure.message


def note_failure(store: Store, trial: Trial, attempt: int, error: BaseException) -> None:
    """Record a failure for good, or note it and raise it again where another attempt may succeed."""
    failure = failure_from(error, attempt)
    if failure.kind == Kind.INTERRUPTED:
        # Not this trial's fault: the next submission computes what is missing and comes back here.
        store.note_crash(trial.key, failure)
    elif failure.kind == Kind.CRASHED:
        store.note_crash(trial.key, failure)
        raise error
    else:
        store.record_failure(trial.key, failure)


def failure_from(error: BaseException, attempt: int) -> Failure:
    """What is remembered of an exception that ended an attempt."""
    if isinstance(error, WorkerFailed):
        return replace(error.failure, attempt=attempt)
    message = _in_one_line(error)
    if isinstance(error, SystemExit):
        message += " (it ended its process; let it raise an error that says why)"
    trace = _cut("".join(traceback.format_exception(error)))
    return Failure(failure_kind(error), _storable(message)[:_LONGEST_MESSAGE], trace, attempt, time.time())


def failure_kind(error: BaseException) -> Kind:
    """The class of a failure: it decides whether the trial is tried again."""
    if isinstance(error, NonFiniteMetric):
        return Kind.INVALID
    # torch.OutOfMemoryError by name: this package does not know torch.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Kind.OUT_OF_MEMORY
    if isinstance(error, DamagedResult):
        return Kind.INTERRUPTED
    return Kind.INVALID if isinstance(error, _DETERMINISTIC) else Kind.CRASHED


def last_crash(store: Store, key: str) -> Failure | None:
    """What the last attempt of a trial left behind; None if its process was killed or it never ran."""
    crash = store.crash(key)
    return crash if crash is not None and crash.attempt == store.attempts(key) else None


def failure_of(store: Store, trial: Trial, error: str | None, *, is_final: bool) -> Failure:
    """Why a trial has no result. A crash that Tune gave up on (``is_final``) becomes a failure for good."""
    failure = store.failure(trial.key)
    if failure is not None:
        return failure
    crash = last_crash(store, trial.key) or _wordless(error, store.attempts(trial.key))
    if is_final:
        try:
            store.record_failure(trial.key, crash)
        except OSError as full:
            print(f"warning: the failure of {trial.name} could not be recorded: {full}", file=sys.stderr)
    return crash


def _wordless(error: str | None, attempt: int) -> Failure:
    """Of a process that left nothing behind there is what Tune saw."""
    if error and "memory" in error and "OutOfMemory" in error:
        message = f"Ray ended it because its machine ran out of memory; lower --max-concurrent ({error})"
        return Failure(Kind.OUT_OF_MEMORY, message, "", attempt, time.time())
    if attempt == 0 and error:
        return Failure(Kind.CRASHED, f"it could not be started: {error}", "", attempt, time.time())
    message = "its process died without a word (killed, or out of memory); look at the memory of the machine"
    return Failure(Kind.CRASHED, f"{message} ({error})" if error else message, "", attempt, time.time())


def _in_one_line(error: BaseException, above: tuple[BaseException, ...] = ()) -> str:
    """``TypeName: text (caused by OtherType: text)``, as deep as the causes go."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    cause = error.__cause__
    if cause is None or cause in (*above, error):
        return text
    return f"{text} (caused by {_in_one_line(cause, (*above, error))})"


def _cut(trace: str) -> str:
    """The end of a trace that is too long, where the error is, having said so."""
    trace = _storable(trace)
    if len(trace) <= _LONGEST_TRACE:
        return trace
    said = f"[the first of {len(trace)} characters are left out]\n"
    return said + trace[len(said) - _LONGEST_TRACE :]


def _storable(text: str) -> str:
    """A text that every file and terminal takes: no half characters."""
    return text.encode("utf-8", "backslashreplace").decode()
