"""Contenders of a benchmark: each in a process of its own, as it would be in use, taking turns with the others.

A round asks every one of them once, and a ratio is the median over rounds of the ratio within a round, so what slows
the whole machine for a while cancels. With one thread on a CPU a contender's time is the CPU seconds of its process,
for which other work on the machine counts little; otherwise it is the time that passes.

Memory is what a contender adds to its process from its first turn to its last: what the process held when it was ready
is not counted (resident memory on Linux, of which a process that keeps freed memory may have had some to spare;
allocated memory on a GPU).
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import torch

from trainables import runtime

Work = Callable[..., Any]


@dataclass(frozen=True)
class Turn:
    """What a contender says of one turn."""

    seconds: float
    peak_memory_mb: float
    """From the first turn to this one."""
    value: Any
    """What its work gave."""


class Contender:
    """A process that works when it is asked.

    Args:
        build: called in the process with ``arguments``; makes what is to be timed.
        keeps_memory: whether the process keeps freed memory, as this project's trainings do.
    """

    def __init__(self, build: Callable[..., Work], *arguments: Any, num_threads: int, keeps_memory: bool) -> None:
        # Not forked: a child shall have an allocator and threads of its own.
        spawn = multiprocessing.get_context("spawn")
        self._connection, there = spawn.Pipe()
        self._process = spawn.Process(
            target=_serve, args=(there, build, arguments, num_threads, keeps_memory), daemon=True
        )
        self._process.start()
        there.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()
        self._process.join()

    def turn(self, *asked: Any) -> Turn:
        """Work once, on what is asked. Raises EOFError where the process died; it has said why."""
        self._connection.send(asked)
        turn: Turn = self._connection.recv()
        return turn


def rounds_of(contenders: Mapping[str, Contender], num_rounds: int) -> tuple[dict[str, Any], list[dict[str, Turn]]]:
    """The values of a first turn, which warms up, and the rounds after it. The contenders are ended."""
    with ExitStack() as stack:
        for contender in contenders.values():
            stack.enter_context(contender)
        first = {name: contender.turn().value for name, contender in contenders.items()}
        rounds = [{name: contender.turn() for name, contender in contenders.items()} for _ in range(num_rounds)]
    return first, rounds


def times(rounds: Sequence[Mapping[str, Turn]], slow: str, fast: str) -> tuple[float, float, float]:
    """By how much ``fast`` is faster: median, lowest and highest over rounds."""
    ratios = [turns[slow].seconds / turns[fast].seconds for turns in rounds]
    return statistics.median(ratios), min(ratios), max(ratios)


def _serve(
    connection: Connection, build: Callable[..., Work], arguments: Sequence[Any], num_threads: int, keeps_memory: bool
) -> None:
    """The life of a contender's process."""
    runtime.use_cores(num_threads)
    if keeps_memory:
        runtime.keep_freed_memory()
    work = build(*arguments)
    held_mb = memory_mb(peak=False)
    while True:
        try:
            asked = connection.recv()
        except EOFError:
            return
        seconds, value = timed(work, *asked)
        connection.send(Turn(seconds, memory_mb(peak=True) - held_mb, value))


def timed(work: Work, *asked: Any) -> tuple[float, Any]:
    """Seconds and what it gave; which clock is said at the top of the file."""
    is_alone = torch.get_num_threads() == 1 and runtime.device().type == "cpu"
    clock = time.process_time if is_alone else time.perf_counter
    synchronise()
    start = clock()
    value = work(*asked)
    synchronise()
    return clock() - start, value


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    if runtime.device().type == "cuda":
        torch.cuda.synchronize()


def memory_mb(*, peak: bool) -> float:
    """Memory of this process now, or the most since it was last asked for what it is now; NaN where unknown."""
    if runtime.device().type == "cuda":
        if not peak:
            torch.cuda.reset_peak_memory_stats()
        return (torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()) / 1e6
    try:
        if not peak:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    name = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6
