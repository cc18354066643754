"""Keeps MLflow up to date from a process of its own, so that neither trials nor the driver ever wait for it.

The driver names keys on the feeder's standard input; the end of the input, also by the driver's death, means: publish
what is left and go. What could not be published stays in the store, and ``sync`` brings it later.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from typing import IO, Self

from orchestrator.claims import Claim
from orchestrator.provenance import first_line
from orchestrator.publishing import TICK_S, Publishing, publisher
from orchestrator.snapshot import UnusableDatabase
from orchestrator.store import Store

_PATIENCE_S = 30.0  # without any success, once the input has ended
_LONGEST_PAUSE_S = 20.0
_LOOK_S = 2.0  # between two looks whether the process lives
_MOST_DEATHS = 6  # the first process, and five in its place
_FIRST_PAUSE_S = 2.0  # before the second process; twice as long before each further one


class Feeder:
    """The driver's handle on its feeder process. Leaving the context waits until MLflow has everything, or cannot.

    A thread talks to the process, so that nobody waits for it, and starts it again when it dies.
    """

    def __init__(self, storage_uri: str, tracking_uri: str, study: str) -> None:
        self._command = _command(storage_uri, study)
        # The URI may hold a password: the environment is not shown in the process list.
        self._environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri}
        self._events: queue.Queue[tuple[str, str] | None] = queue.Queue()
        self._told: dict[str, str] = {}  # by key: the last event, for a process that takes over
        self._num_deaths = 0
        self._is_over = threading.Event()
        self._process = self._start()
        self._talker = threading.Thread(target=self._talk, name="feeder", daemon=True)
        self._talker.start()

    def tell(self, key: str, event: str) -> None:
        """``event`` is "started" or "ended"."""
        self._events.put((key, event))

    def finish(self) -> None:
        """No more keys will come: let it publish what is left and end."""
        if not self._is_over.is_set():
            self._is_over.set()
            self._events.put(None)
        self._talker.join()

    @property
    def is_up_to_date(self) -> bool:
        """Whether MLflow has everything; to be asked after the context."""
        return self._process.returncode == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.finish()
        self._process.wait()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command, stdin=subprocess.PIPE, text=True, env=self._environment, start_new_session=True
        )

    def _talk(self) -> None:
        """Pass on what is told, to a new process where the last one died; then close its input."""
        while True:
            try:
                event = self._events.get(timeout=_LOOK_S)
            except queue.Empty:
                event = ("", "")
            if self._process.poll() is not None and self._num_deaths < _MOST_DEATHS:
                self._replace()
            if event is None:
                break
            key, what = event
            if key:
                self._told[key] = what
                self._write(key, what)
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _replace(self) -> None:
        """Start a new process in place of one that died, a while later, and tell it all that the others were told."""
        self._num_deaths += 1
        if self._num_deaths == 1:
            status = self._process.returncode
            print(f"warning: the process that feeds MLflow died (status {status}); starting another", file=sys.stderr)
        if self._num_deaths == _MOST_DEATHS:
            print("warning: it died again and again: MLflow stands still, and nothing is lost", file=sys.stderr)
            return
        self._is_over.wait(_FIRST_PAUSE_S * 2 ** (self._num_deaths - 1))
        self._process = self._start()
        for key, what in self._told.items():
            self._write(key, what)

    def _write(self, key: str, event: str) -> None:
        stream = self._process.stdin
        assert stream is not None
        with contextlib.suppress(OSError, ValueError):  # it died: the next one is told
            stream.write(json.dumps([event, key]) + "\n")
            stream.flush()


def _command(storage_uri: str, study: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator", "sync", "--storage", storage_uri, "--study", study, "--follow"]


def follow(store: Store, study: str, tracking_uri: str, lines: IO[str]) -> bool:
    """Publish what the driver names on ``lines`` until they end; True if everything reached MLflow."""
    events: queue.Queue[list[str] | None] = queue.Queue()

    def read() -> None:
        for line in lines:
            with contextlib.suppress(ValueError):
                events.put(json.loads(line))
        events.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    patience = _Patience(reader)
    claim = Claim(store, publisher(study, tracking_uri), _say_waiting)
    if not claim.acquire(patience.lasts):
        # The other driver's feeder publishes the keys of every submission, also this one's, before it ends.
        print("MLflow will have the runs of this study when the other driver's feeder ends", file=sys.stderr)
        return True
    try:
        return _Following(Publishing(store, study, tracking_uri)).run(events)
    finally:
        claim.release()


def sync(store: Store, study: str, tracking_uri: str) -> tuple[int, int]:
    """Publish everything the store has of a study, once.

    Looks at every run, whatever is remembered of earlier times. Returns how many trials MLflow has, and how many it
    refused, each of which was said. Raises UnusableDatabase and what MLflow raises: the caller is a person.
    """
    with Claim(store, publisher(study, tracking_uri), _say_waiting):
        publishing = Publishing(store, study, tracking_uri, forget=True)
        keys = publishing.wanted()
        publishing.publish(keys, has_ended=True)
        return sum(key in publishing.tokens for key in keys), len(publishing.refused)


class _Patience:
    """Waits for another publisher as long as the driver runs, and a while longer."""

    def __init__(self, reader: threading.Thread) -> None:
        self._reader, self._ended_at = reader, float("inf")

    def lasts(self) -> bool:
        if not self._reader.is_alive():
            self._ended_at = min(self._ended_at, time.monotonic())
        return time.monotonic() - self._ended_at < _PATIENCE_S


def _say_waiting(holder: str) -> None:
    print(f"MLflow is fed by {holder} just now; waiting", file=sys.stderr)


class _Following:
    """Publishes what a driver names, as long as it runs and a while longer."""

    def __init__(self, publishing: Publishing) -> None:
        self._publishing = publishing
        self._last_word = ""
        self._is_hopeless = False

    def run(self, events: queue.Queue[list[str] | None]) -> bool:
        """Follow the events to their end; True if everything reached MLflow."""
        watched: set[str] = set()
        dirty: set[str] = set()
        is_open, pause_s, gave_up_at = True, 0.0, float("inf")
        # MLflow takes seconds to load and to make its database: the seconds in which Ray starts.
        self._try(set(), has_ended=False)
        while True:
            is_open = _drain(events, watched, dirty, timeout_s=max(TICK_S, pause_s)) if is_open else False
            if not is_open:
                gave_up_at = min(gave_up_at, time.monotonic() + _PATIENCE_S)
                dirty.update(self._publishing.wanted())
            published = self._try(watched | dirty, has_ended=not is_open)
            if published:
                dirty.clear()
                pause_s = 0.0
                if not is_open:
                    return not self._publishing.refused
            elif time.monotonic() > gave_up_at or (self._is_hopeless and not is_open):
                return False
            else:
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s + 1)
                time.sleep(0 if is_open else pause_s)

    def _try(self, keys: Iterable[str], *, has_ended: bool) -> bool:
        try:
            self._publishing.publish(keys, has_ended=has_ended)
        except Exception as error:
            # Whatever goes wrong with MLflow must not end the feeder: it tries again until its patience ends.
            word = f"warning: MLflow is behind ({type(error).__name__}: {first_line(error)})"
            if word != self._last_word:
                print(word, file=sys.stderr)
            self._last_word, self._is_hopeless = word, isinstance(error, UnusableDatabase)
            self._publishing.reconnect()
            return False
        return True


def _drain(events: queue.Queue[list[str] | None], watched: set[str], dirty: set[str], timeout_s: float) -> bool:
    """Take all events there are, waiting for the first; False when the input has ended."""
    while True:
        try:
            event = events.get(timeout=timeout_s)
        except queue.Empty:
            return True
        timeout_s = 0.0
        if event is None:
            return False
        name, key = event
        if name == "started":
            watched.add(key)
        else:
            watched.discard(key)
            dirty.add(key)
