"""What the user sees while a study runs: one compact live view, or plain lines where there is no terminal."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.context import Progress
from orchestrator.durations import Durations
from orchestrator.plan import Plan, PlannedTrial, State

_PLAIN_EVERY_S = 30.0
# Where there is no live view, so many trials have lines of their own; of the others a summary tells.
_TRIALS_TOLD = 50
_PATIENCE_S = 30.0
# Nothing moves for so long, and for so many times the longest pause of the trial before: it may hang.
_STALLED_S = 600.0
_STALLED_TIMES = 5.0


@dataclass
class _Running:
    since: float
    progress: Progress = field(default_factory=lambda: Progress(0, 0, ""))
    first_fraction: float | None = None  # a resumed trial does not start at nothing
    moved_at: float = field(default_factory=time.monotonic)
    longest_pause_s: float = 0.0  # between two steps ahead

    def move(self, progress: Progress) -> None:
        """It told how far it is; of nothing in all it only says that it runs."""
        if not progress.total:
            return
        now = time.monotonic()
        if self.first_fraction is None:
            self.first_fraction = progress.fraction
        if progress.fraction > self.progress.fraction:
            if self.progress.total:  # the first word comes after loading, which says nothing of the pace
                self.longest_pause_s = max(self.longest_pause_s, now - self.moved_at)
            self.moved_at = now
        self.progress = progress

    def stalled_s(self, now: float) -> float:
        """Seconds without a step ahead, where that is much longer than any before; else 0."""
        pause_s = now - self.moved_at
        return pause_s if pause_s > max(_STALLED_S, _STALLED_TIMES * self.longest_pause_s) else 0.0

    def left_s(self, estimated_s: float, now: float) -> float:
        """Seconds left, from its own pace once there is one, else from the plan's estimate."""
        gained = self.progress.fraction - (self.first_fraction or 0.0)
        if gained < 0.02:
            return max(0.0, estimated_s - (now - self.since))
        return (now - self.since) * (1.0 - self.progress.fraction) / gained


class View:
    """Collects the events of a submission and shows them."""

    def __init__(
        self, plan: Plan, console: Console, slots: Callable[[], int], lacks: Callable[[], str] = lambda: ""
    ) -> None:
        """``slots`` tells how many trials run at once, for the time that is left; ``lacks`` why none can, if so."""
        self._study, self._console, self._slots, self._lacks = plan.study.name, console, slots, lacks
        self._names = {p.trial.key: p.trial.name for p in plan.planned}
        self._planned = {p.trial.key: p for p in plan.planned}
        self._durations = Durations()
        self._waiting = {trial.key for trial in plan.runnable()}
        self._running: dict[str, _Running] = {}
        self._again: set[str] = set()  # of those that wait, the keys of the ones that ran before
        counts = plan.counts()
        self._total = plan.num_needed
        self._to_suggest, self._to_come_s, self._is_measured = plan.to_suggest, plan.to_come_s(), plan.is_measured
        self._done = counts[State.DONE]
        self._failed = counts[State.FAILED]
        self._blocked = counts[State.BLOCKED]
        self._told: set[str] = set()  # keys of the trials that have lines of their own
        self._is_summarising = False  # of trials without lines, whatever else is said
        self._has_reader = True
        self._lock = threading.RLock()
        self._said_at = self._moved_at = time.monotonic()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._live = Live(
            get_renderable=self._render, console=console, refresh_per_second=4, transient=True, redirect_stdout=False
        )

    def add(self, plan: Plan) -> None:
        """A search decided on these trials, some of which may be known, and has now so much to come."""
        with self._lock:
            self._to_suggest, self._to_come_s, self._is_measured = plan.to_suggest, plan.to_come_s(), plan.is_measured
            for p in plan.planned:
                if p.trial.key not in self._names:
                    self._total += 1
                    self._done += p.state is State.DONE
                    self._failed += p.state is State.FAILED
                    self._blocked += p.state is State.BLOCKED
                self._names.setdefault(p.trial.key, p.trial.name)
                self._planned[p.trial.key] = p
            self._waiting |= {trial.key for trial in plan.runnable()} - self._running.keys()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        else:
            self._ticker.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._console.is_terminal:
            self._live.stop()
        else:
            self._ended.set()
            self._ticker.join()

    def _tick(self) -> None:
        """Where there is no live view, a line now and then shows that the study is alive."""
        while not self._ended.wait(1.0):
            if time.monotonic() - self._said_at > _PLAIN_EVERY_S:
                self._say(self._summary())
                self._said_at = time.monotonic()

    def started(self, key: str) -> None:
        """A trial began, or began again after a crash."""
        with self._lock:
            again = key in self._running or key in self._again
            self._waiting.discard(key)
            self._again.discard(key)
            self._moved_at = time.monotonic()
            self._running[key] = _Running(time.monotonic())
        if again:
            self._say(f"again   {self._names[key]}")
        elif self._is_told(key):
            self._say(f"started {self._names[key]}")

    def waits(self, key: str) -> None:
        """A trial has no process any more, and waits to start again."""
        with self._lock:
            self._end(key)
            self._waiting.add(key)
            self._again.add(key)

    def progressed(self, key: str, progress: Progress) -> None:
        """A trial told how far it is."""
        with self._lock:
            self._running.setdefault(key, _Running(time.monotonic())).move(progress)

    def noted(self, key: str, message: str) -> None:
        """A trial has something to tell."""
        with self._lock:
            self._print(f"{self._names[key]}: {message}")

    def done(self, key: str) -> None:
        """A trial published its result."""
        took_s = self._end(key)
        self._done += 1
        with self._lock:
            planned = self._planned[key]
            self._durations.learn(_kind(planned), planned.estimated_s, planned.is_measured, took_s)
        if self._is_told(key):
            self._say(f"done    {self._names[key]} ({duration_text(took_s)})")

    def failed(self, key: str, reason: str) -> None:
        """A trial failed for good."""
        self._end(key)
        self._failed += 1
        self._say(f"failed  {self._names[key]}: {reason}")

    def _end(self, key: str) -> float:
        with self._lock:
            running = self._running.pop(key, None)
            self._waiting.discard(key)  # it may never have had a process
            self._again.discard(key)
            self._moved_at = time.monotonic()
            return time.monotonic() - running.since if running else 0.0

    def _is_told(self, key: str) -> bool:
        """Whether a trial has lines of its own for its start and its end: so many have, those that start first."""
        with self._lock:
            if len(self._told) < _TRIALS_TOLD:
                self._told.add(key)
            elif key not in self._told and not self._is_summarising:
                self._say(f"from here on a line every {_PLAIN_EVERY_S:.0f} s, and one for each failure and note")
                self._is_summarising = True
            return key in self._told

    def _say(self, line: str) -> None:
        with self._lock:
            if not self._console.is_terminal:
                if not self._is_summarising:  # else only a summary puts the next one off
                    self._said_at = time.monotonic()
                self._print(f"[{time.strftime('%H:%M:%S')}] {line}")

    def _print(self, line: str) -> None:
        if self._has_reader:
            try:
                self._console.print(Text(line), soft_wrap=True)
            except BrokenPipeError:
                # As by `| head`. Tune ends in order on one SIGINT, and not on an exception from here.
                self._has_reader = False
                os.kill(os.getpid(), signal.SIGINT)

    def _summary(self) -> str:
        parts = [f"{self._done:,}/{self._total:,} done", f"{len(self._running):,} running"]
        parts += [f"{self._failed:,} failed"] if self._failed else []
        parts += [f"{self._blocked:,} blocked"] if self._blocked else []
        parts += [f"{len(self._again):,} to start again"] if self._again else []
        parts += [f"{self._to_suggest:,} suggestions to come"] if self._to_suggest else []
        if not self._running and self._waiting and time.monotonic() - self._moved_at > _PATIENCE_S:
            others = len(self._waiting) - len(self._again)
            parts += [f"{others:,} waiting for free CPUs or GPUs of the cluster"] if others else []
            return ", ".join(parts) + (f" ({lacks})" if (lacks := self._lacks()) else "")
        parts.append(self._stalled() or f"about {duration_text(self._left_s())} left")
        return ", ".join(parts)

    def _stalled(self) -> str:
        """Word of the trial that has not moved for longest, if one hangs, as it seems; no time is left to tell then."""
        now = time.monotonic()
        with self._lock:
            stalled = [(running.stalled_s(now), key) for key, running in self._running.items()]
        pause_s, key = max(stalled, default=(0.0, ""))
        if not pause_s:
            return ""
        return f"nothing moves in {self._names[key]!r} for {duration_text(pause_s)} (--time-limit MIN ends what hangs)"

    def _left_s(self) -> float:
        now = time.monotonic()
        with self._lock:
            running = [r.left_s(self._seconds(key), now) for key, r in self._running.items()]
            waiting = sum(map(self._seconds, self._waiting))
            if self._to_come_s:  # of no kind in particular, so corrected by what all guesses were wrong by
                waiting += self._durations.seconds("", self._to_come_s, self._is_measured)
        return max(max(running, default=0.0), (sum(running) + waiting) / max(1, self._slots()))

    def _seconds(self, key: str) -> float:
        """What a trial takes: the plan's estimate, corrected by what those of its kind took since."""
        planned = self._planned[key]
        if planned.estimated_s is None:
            return 0.0
        return self._durations.seconds(_kind(planned), planned.estimated_s, planned.is_measured)

    def _render(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        with self._lock:
            for key, running in list(self._running.items())[:12]:
                progress = running.progress
                said = progress_text(progress) if progress.total else "starting"
                bar = ProgressBar(total=1.0, completed=progress.fraction, width=30)
                table.add_row("", self._names[key], bar, said)
        return Group(Text(f"{self._study}: {self._summary()}", style="bold"), table)


def _kind(planned: PlannedTrial) -> str:
    return type(planned.trial.trainable).__name__


def progress_text(progress: Progress) -> str:
    """How far a trial is: ``3/40 epochs``, ``0.9/1 epochs`` within the first; never more than there is."""
    done = progress.done if progress.done == int(progress.done) else math.floor(progress.done * 10) / 10
    return f"{done:.12g}/{progress.total:.12g} {progress.unit}"


def duration_text(seconds: float) -> str:
    """A duration for people: ``45 s``, ``12 min``, ``3.5 h``, ``2.1 days``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
