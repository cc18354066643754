"""Python loads this where the folder is on its path: a clock that a file of seconds sets back or forward."""

import os
import time

_FILE = os.environ.get("QUARTERTURN_TEST_CLOCK", "")
_time, _time_ns = time.time, time.time_ns


def _shift_s() -> float:
    try:
        with open(_FILE) as file:
            return float(file.read())
    except (OSError, ValueError):
        return 0.0


if _FILE:
    time.time = lambda: _time() + _shift_s()
    time.time_ns = lambda: _time_ns() + int(_shift_s() * 1e9)
