"""Which exceptions are what kind of failure, and what is remembered of each."""

from __future__ import annotations

import errno
import os
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace

from orchestrator.graph import Trial
from orchestrator.kinds import Kind
from orchestrator.provenance import machine_provenance
from orchestrator.store import DamagedResult, Failure, Store
from trainables.api.errors import BadData, NonFiniteMetric

_LONGEST_MESSAGE = 20_000
_LONGEST_TRACE = 1_000_000
_LONGEST_LINE_SEEN = 500
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
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


class NodeLost(Exception):
    """A process of a trial was on a node that is gone."""


def note_failure(store: Store, trial: Trial, attempt: int, error: BaseException) -> None:
    """Record a failure for good, or note it and raise it again where another attempt may succeed."""
    failure = failure_from(error, attempt)
    if failure.kind == Kind.OUT_OF_MEMORY:
        failure = replace(failure, message=f"{failure.message}{_batch(trial)}")
    if failure.kind == Kind.INTERRUPTED:
        # Not this trial's fault: the next submission computes what is missing and comes back here.
        store.note_crash(trial.key, failure)
    elif failure.kind in (Kind.INVALID, Kind.TIMED_OUT):
        store.record_failure(trial.key, failure)
    else:
        store.note_crash(trial.key, failure)
        raise error


def failure_from(error: BaseException, attempt: int) -> Failure:
    """What is remembered of an exception that ended an attempt."""
    if isinstance(error, WorkerFailed):
        return replace(error.failure, attempt=attempt)
    message = _in_one_line(error)
    if isinstance(error, SystemExit):
        message += " (it ended its process; let it raise an error that says why)"
    kind = failure_kind(error)
    if kind is Kind.OUT_OF_MEMORY:
        message += f" (on {machine_provenance()['device']})"
    trace = _cut("".join(traceback.format_exception(error)))
    return Failure(kind, _storable(message)[:_LONGEST_MESSAGE], trace, attempt, time.time())


def failure_kind(error: BaseException) -> Kind:
    """The class of a failure: it decides whether the trial is tried again."""
    if isinstance(error, NonFiniteMetric):
        return Kind.INVALID
    # torch.OutOfMemoryError by name: this package does not know torch.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Kind.OUT_OF_MEMORY
    if isinstance(error, DamagedResult):
        return Kind.INTERRUPTED
    if isinstance(error, NodeLost):
        return Kind.PREEMPTED
    if any(isinstance(one, OSError) and one.errno in NO_SPACE for one in _with_causes(error)):
        return Kind.DISK_FULL
    return Kind.INVALID if isinstance(error, _DETERMINISTIC) else Kind.CRASHED


def last_crash(store: Store, key: str, *, before: int = 0) -> Failure | None:
    """What the last attempt of a trial left behind; None if its process was killed or it never ran.

    So many attempts were begun ``before`` it was to.
    """
    crash, attempts = store.crash(key), store.attempts(key)
    return crash if crash is not None and crash.attempt == attempts and attempts > before else None


def why_ended(store: Store, trial: Trial, error: str | None, *, before: int = 0) -> Failure:
    """Why an attempt has no result: what it left behind, else what Tune saw (``error``) of the end of its process.

    So many attempts were begun ``before`` it was to.
    """
    failure = store.failure(trial.key) or last_crash(store, trial.key, before=before)
    # On a full disk nothing is left behind, and what is there is of an attempt before.
    if failure is not None and seen(error) is not Kind.DISK_FULL:
        return failure
    attempt = store.attempts(trial.key)
    return _wordless(trial, error, attempt, has_begun=attempt > before)


def record(store: Store, trial: Trial, failure: Failure) -> None:
    """Remember a failure for good, unless one is; where the storage does not take it, say so."""
    try:
        if store.failure(trial.key) is None:
            store.record_failure(trial.key, failure)
    except OSError as full:
        print(f"warning: the failure of {trial.name} could not be recorded: {full}", file=sys.stderr)


def seen(error: str | None) -> Kind | None:
    """What Ray says of the end of a process, where that is clear."""
    if not error:
        return None
    if "memory" in error and "OutOfMemory" in error:
        return Kind.OUT_OF_MEMORY
    if "its node has died" in error or "preempted" in error:
        return Kind.PREEMPTED
    return Kind.DISK_FULL if any(os.strerror(code) in error for code in NO_SPACE) else None


def _wordless(trial: Trial, error: str | None, attempt: int, *, has_begun: bool) -> Failure:
    """Of a process that left nothing behind there is what Tune saw."""
    kind, last = seen(error) or Kind.CRASHED, (error or "").strip().splitlines()[-1:]
    said = last[0][:_LONGEST_LINE_SEEN] if last else ""
    if kind is Kind.OUT_OF_MEMORY:
        message = f"Ray ended it because its machine ran out of memory; lower --max-concurrent ({said})"
        return Failure(kind, f"{message} (on main memory){_batch(trial)}", error or "", attempt, time.time())
    if kind is not Kind.CRASHED:
        return Failure(kind, said, error or "", attempt, time.time())
    if not has_begun and error:
        return Failure(kind, f"it could not be started: {said}", error, attempt, time.time())
    message = "its process died without a word (killed, or out of memory); look at the memory of the machine"
    if error and "is unavailable" in error:  # so long as the cluster has not missed a node that is gone
        message = "Ray lost touch with its process: killed, or its node is gone"
    return Failure(kind, f"{message} ({said})" if said else message, error or "", attempt, time.time())


def _batch(trial: Trial) -> str:
    """The batch size of a configuration that has one: over all workers."""
    batch_size = getattr(trial.trainable, "batch_size", None)
    return f" (batch_size {batch_size})" if isinstance(batch_size, int) else ""


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    known: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in known:
        yield one
        known.append(one)
        one = one.__cause__


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
