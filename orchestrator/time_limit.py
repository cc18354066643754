"""A way out for an attempt that hangs: after so many minutes it is recorded as failed, and its process ends."""

from __future__ import annotations

import faulthandler
import os
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from orchestrator.kinds import Kind
from orchestrator.store import Failure

# A thread of Python cannot act while C code holds the interpreter; what needs no interpreter ends it so much later.
C_CODE_MARGIN_S = 30.0
_EXIT_STATUS = 1
_STDERR = 2
_LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


@contextmanager
def time_limit(limit_s: float | None, attempt: int, record: Callable[[Failure], None]) -> Iterator[None]:
    """End this process when the block takes longer than ``limit_s``, having recorded where it was; None is no limit."""
    if limit_s is None:
        yield
        return
    is_over, watched = threading.Event(), threading.get_ident()

    def watch() -> None:
        if is_over.wait(limit_s):
            return
        try:
            record(timed_out(limit_s, attempt, watched))
        finally:
            os._exit(_EXIT_STATUS)

    faulthandler.dump_traceback_later(limit_s + C_CODE_MARGIN_S, exit=True, file=_STDERR)
    threading.Thread(target=watch, name="time limit", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()
        faulthandler.cancel_dump_traceback_later()


def ended_without_a_word(limit_s: float, attempt: int, ran_s: float) -> Failure | None:
    """The failure of an attempt whose process died after ``ran_s``; None where it was not the limit that ended it."""
    if ran_s < limit_s + C_CODE_MARGIN_S:
        return None
    message = (
        f"it ran longer than the time limit of {limit_s / 60:g} min, in code that kept Python from saying where "
        "(the log of its process has the line)"
    )
    return Failure(Kind.TIMED_OUT, message, "", attempt, time.time())


def timed_out(limit_s: float, attempt: int, thread: int | None = None) -> Failure:
    """The failure of an attempt that took too long, with the place where a thread of this process is now."""
    frame = sys._current_frames().get(thread) if thread is not None else None
    message = f"it ran longer than the time limit of {limit_s / 60:g} min"
    if frame is None:
        return Failure(Kind.TIMED_OUT, message, "", attempt, time.time())
    stack, own = "".join(traceback.format_stack(frame)), _own_frame(frame)
    where = f"{own.f_code.co_filename}:{own.f_lineno} in {own.f_code.co_name}"
    return Failure(Kind.TIMED_OUT, f"{message}, and was at {where}", stack, attempt, time.time())


def _own_frame(innermost: FrameType) -> FrameType:
    """Where a project's code was last, not a library that it called."""
    frame: FrameType | None = innermost
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((*_LIBRARIES, "<")):
            return frame
        frame = frame.f_back
    return innermost
