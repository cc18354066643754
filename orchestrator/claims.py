"""Who runs a trial now. Two drivers may share a study: a claim sees to it that a trial runs once.

A claim is a document that its holder renews. It lapses when it has not been renewed for ``LAPSE_S`` on the watcher's
own clock (clocks of two machines are never compared). On its holder's own machine a claim lapses when the process is
dead, at once, and never before.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from orchestrator.store import Store

RENEW_S = 10.0
LAPSE_S = 60.0
_POLL_S = 0.5
_LONGEST_GAP_S = 5.0  # between two looks: after a longer one this process was asleep, and the holder perhaps too


class ClaimLost(Exception):
    """Another process took over, because this one seemed dead for longer than a claim lasts."""


@dataclass(frozen=True)
class Holding:
    """Tells whether a claim is held still; in any process that works for its holder."""

    store: Store
    path: str
    token: str

    def is_mine(self) -> bool:
        """Whether no other process has taken it over."""
        return self.owns(self.store.read_document(self.path))

    def check(self) -> None:
        """Raise ClaimLost if another process took over; to be called before publishing.

        One that is gone counts as taken over: whoever did so may have ended the trial and let go.
        """
        if not self.is_mine():
            raise ClaimLost(f"{self.path} was taken over by another process while this one did not answer")

    def owns(self, document: Any) -> bool:
        """Whether this is what the claim says while it is held."""
        return isinstance(document, dict) and document.get("token") == self.token


class Claim:
    """Exclusive right to a path of the store, renewed by a thread while it is held; a context manager."""

    def __init__(self, store: Store, path: str, on_wait: Callable[[str], None] = lambda holder: None) -> None:
        """``on_wait`` is told the holder once, if another process has to be waited for."""
        self._store, self._path, self._on_wait = store, f"{path}/claim.json", on_wait
        self._token = uuid.uuid4().hex
        self.holding = Holding(store, self._path, self._token)
        self._stop = threading.Event()
        self._renewer = threading.Thread(target=self._renew, daemon=True)

    def acquire(self, may_wait: Callable[[], bool] = lambda: True) -> bool:
        """Wait for the claim as long as ``may_wait`` allows; returns whether it is held now."""
        watch = _Watch()
        while not self._store.create_document(self._path, self._document(0)):
            current = self._store.read_document(self._path)
            if self.holding.owns(current):
                break  # it arrived, and only the answer was lost
            if watch.has_lapsed(current):
                self._take_over(current)
                continue
            if watch.is_first_look:
                self._on_wait(_holder_name(current))
            if not may_wait():
                return False
            time.sleep(_POLL_S)
        self._renewer.start()
        return True

    def release(self) -> None:
        """Give the claim up, unless another process has taken it over."""
        self._stop.set()
        self._renewer.join()
        if self.holding.is_mine():
            self._store.remove(self._path)

    def __enter__(self) -> Claim:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _renew(self) -> None:
        beat = 0
        while not self._stop.wait(RENEW_S):
            beat += 1
            try:
                current = self._store.read_document(self._path)
                if isinstance(current, dict) and current.get("token") != self._token:
                    return  # another process has it
                if current is None:
                    continue  # out of sight for a moment, or being looked at by another: it comes back, or lapses
                self._store.write_document(self._path, self._document(beat), is_durable=False)
            except Exception:  # a storage that stalls now may answer at the next beat
                continue

    def _document(self, beat: int) -> dict[str, Any]:
        return {"token": self._token, "beat": beat, **_this_process()}

    def _take_over(self, lapsed: Any) -> None:
        aside = self._store.take_away(self._path)
        if aside is None:
            return
        if self._store.read_document(aside) != lapsed:
            # It was renewed or replaced between the look and the move: give it back.
            self._store.create_document(self._path, self._store.read_document(aside))
        self._store.remove(aside)


class _Watch:
    """Watches one claim of another process for signs of life."""

    def __init__(self) -> None:
        self._seen: Any = None
        self._since = self._looked_at = time.monotonic()
        self._looks = 0

    @property
    def is_first_look(self) -> bool:
        return self._looks == 1

    def has_lapsed(self, current: Any) -> bool:
        self._looks += 1
        now, paused = time.monotonic(), time.monotonic() - self._looked_at > _LONGEST_GAP_S
        self._looked_at = now
        if isinstance(current, dict) and _is_of_this_machine(current):
            return _is_dead_here(current)
        if current != self._seen or paused:
            self._seen, self._since = current, now
        return now - self._since > LAPSE_S


def is_held(store: Store, path: str) -> str | None:
    """Name of the live-looking holder of a claim, or None. A lapsed claim on another machine still looks held."""
    current = store.read_document(f"{path}/claim.json")
    if not isinstance(current, dict) or _is_dead_here(current):
        return None
    return _holder_name(current)


def _holder_name(current: Any) -> str:
    if not isinstance(current, dict) or "pid" not in current:
        return "another process"
    return f"process {current['pid']} on {current.get('host', 'another machine')}"


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "namespace": _namespace(), "pid": pid, "pid_start": _start_of(pid)}


def _is_of_this_machine(holder: dict[str, Any]) -> bool:
    return holder.get("host") == socket.gethostname() and holder.get("namespace") == _namespace()


def _is_dead_here(holder: dict[str, Any]) -> bool:
    pid = holder.get("pid")
    return _is_of_this_machine(holder) and isinstance(pid, int) and _start_of(pid) != holder.get("pid_start")


def _namespace() -> str:
    """Boot and process namespace: a process id means something only within both."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _start_of(pid: int) -> str | None:
    """When a process started (clock ticks since boot), since process ids are used again; None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ProcessLookupError):
        return _alive_without_proc(pid)
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _alive_without_proc(pid: int) -> str | None:
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return "alive"
