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
from collections.abc import Iterable, Mapping
from typing import IO, Any, Self

from orchestrator.claims import Claim
from orchestrator.provenance import without_password
from orchestrator.snapshot import artifact_root, snapshot
from orchestrator.store import DamagedResult, Store

_TICK_S = 3.0
_PATIENCE_S = 30.0  # without any success, once the input has ended
_LONGEST_PAUSE_S = 20.0


class Feeder:
    """The driver's handle on its feeder process. Leaving the context waits until MLflow has everything, or cannot."""

    def __init__(self, storage_uri: str, tracking_uri: str, study: str) -> None:
        command = [sys.executable, "-m", "orchestrator", "sync", "--storage", storage_uri, "--study", study, "--follow"]
        # The URI may hold a password: the environment is not shown in the process list.
        environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    def tell(self, key: str, event: str) -> None:
        """``event`` is "started" or "ended"."""
        stream = self._process.stdin
        assert stream is not None
        with contextlib.suppress(BrokenPipeError):
            stream.write(json.dumps([event, key]) + "\n")
            stream.flush()

    def finish(self) -> None:
        """No more keys will come: let it publish what is left and end."""
        stream = self._process.stdin
        assert stream is not None
        with contextlib.suppress(BrokenPipeError):
            stream.close()

    @property
    def is_up_to_date(self) -> bool:
        """Whether MLflow has everything; to be asked after the context."""
        return self._process.returncode == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.finish()
        self._process.wait()


def published_tokens(store: Store, study: str, tracking_uri: str) -> dict[str, str]:
    """What MLflow is known to have: the token of every key published to this URI."""
    return _recorded(store, study, tracking_uri)[1]


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
    claim = Claim(store, f"studies/{study}/publisher", _say_waiting)
    if not claim.acquire(patience.lasts):
        # The other driver's feeder publishes the keys of every submission, also this one's, before it ends.
        print("MLflow will have the runs of this study when the other driver's feeder ends", file=sys.stderr)
        return True
    try:
        return _Publishing(store, study, tracking_uri).run(events)
    finally:
        claim.release()


def sync(store: Store, study: str, tracking_uri: str) -> int:
    """Publish everything the store has of a study, once; returns the number of trials that MLflow has.

    Looks at every run, whatever is remembered of earlier times. Raises what MLflow raises: the caller is a person.
    """
    with Claim(store, f"studies/{study}/publisher", _say_waiting):
        publishing = _Publishing(store, study, tracking_uri, forget=True)
        keys = publishing.entries()
        publishing.publish(keys, has_ended=True)
        return sum(publishing.is_published(key) for key in keys)


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


class _Publishing:
    """One connection's worth of publishing; made anew after an error, so that it looks again what is there."""

    def __init__(self, store: Store, study: str, tracking_uri: str, *, forget: bool = False) -> None:
        self._store, self._study, self._tracking_uri = store, study, tracking_uri
        self._tracker: Any = None
        self._parent_id, self._tokens = ("", {}) if forget else _recorded(store, study, tracking_uri)
        self._read: dict[str, dict[str, Any]] = {}  # manifests by name, as they were when last read
        self._described_at = 0.0

    def entries(self) -> dict[str, Mapping[str, Any]]:
        """Manifest entries of all trials of the study, by key; those of the latest submission win."""
        found: dict[str, Mapping[str, Any]] = {}
        for manifest in self._manifests():
            found.update({trial["key"]: trial for trial in manifest["trials"]})
        return found

    def run(self, events: queue.Queue[list[str] | None]) -> bool:
        """Follow the events to their end."""
        watched: set[str] = set()
        dirty: set[str] = set()
        is_open, pause_s, gave_up_at = True, 0.0, float("inf")
        # MLflow takes seconds to load and to make its database: the seconds in which Ray starts.
        self._try(set(), has_ended=False)
        while True:
            is_open = _drain(events, watched, dirty, timeout_s=max(_TICK_S, pause_s)) if is_open else False
            if not is_open:
                gave_up_at = min(gave_up_at, time.monotonic() + _PATIENCE_S)
                self._read.clear()
                dirty |= set(self.entries())
            published = self._try(watched | dirty, has_ended=not is_open)
            if published:
                dirty.clear()
                pause_s = 0.0
                if not is_open:
                    return True
            elif time.monotonic() > gave_up_at:
                return False
            else:
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s + 1)
                time.sleep(0 if is_open else pause_s)

    def is_published(self, key: str) -> bool:
        """Whether MLflow has a run of this trial."""
        return key in self._tokens

    def publish(self, keys: Iterable[str], *, has_ended: bool) -> None:
        """Publish the trials of these keys and the state of the study, whose submission may have ended."""
        tracker = self._connect()
        keys, entries = list(keys), self.entries()
        if not entries.keys() >= set(keys):
            self._read.clear()  # the manifest of a search grows
            entries = self.entries()
        manifests = self._manifests()
        if not manifests:
            return
        shots = [snapshot(self._store, key) for key in keys if key in entries]
        news = [shot for shot in shots if shot is not None and self._tokens.get(shot.key) != shot.token]
        if not news and not has_ended:
            return
        for shot in news:
            try:
                tracker.publish(self._store, entries[shot.key], shot)
            except DamagedResult as error:
                self._store.report_damage(shot.key, str(error))
                continue
            self._tokens[shot.key] = shot.token
        if has_ended or time.monotonic() - self._described_at > _TICK_S:
            tracker.describe_study(manifests[-1], self._counts(manifests[-1]), has_ended=has_ended)
            self._remember()
            self._described_at = time.monotonic()

    def _connect(self) -> Any:
        from orchestrator.tracking import Tracker

        if self._tracker is None:
            root = artifact_root(self._store, self._tracking_uri)
            self._tracker = Tracker(self._tracking_uri, self._study, root)
            if self._tracker.parent_id != self._parent_id:
                # Another database than the one that is remembered, perhaps under the same address.
                self._parent_id, self._tokens = self._tracker.parent_id, {}
        return self._tracker

    def _try(self, keys: Iterable[str], *, has_ended: bool) -> bool:
        try:
            self.publish(keys, has_ended=has_ended)
        except Exception as error:
            # Whatever goes wrong with MLflow must not end the feeder: it tries again until its patience ends.
            print(f"warning: MLflow is behind ({type(error).__name__}: {_first_line(error)})", file=sys.stderr)
            self._tracker = None
            return False
        return True

    def _manifests(self) -> list[dict[str, Any]]:
        for name in self._store.names(f"studies/{self._study}"):
            manifest = None if name in self._read else self._store.read_document(f"studies/{self._study}/{name}")
            if isinstance(manifest, dict) and "trials" in manifest:
                self._read[name] = manifest
        return sorted(self._read.values(), key=lambda m: float(m["submitted_at"]))

    def _counts(self, manifest: Mapping[str, Any]) -> dict[str, int]:
        keys = {trial["key"] for trial in manifest["trials"]}
        states = [self._tokens.get(key, "waiting").partition(":")[0] for key in keys]
        return {state: states.count(state) for state in ("done", "running", "failed", "waiting")}

    def _remember(self) -> None:
        document = self._store.read_document(_record(self._study)) or {}
        document[without_password(self._tracking_uri)] = {"parent": self._parent_id, "tokens": self._tokens}
        self._store.write_document(_record(self._study), document)


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


def _recorded(store: Store, study: str, tracking_uri: str) -> tuple[str, dict[str, str]]:
    """The parent run and the published tokens that are remembered for a tracking URI."""
    document = store.read_document(_record(study)) or {}
    try:
        entry = document[without_password(tracking_uri)]
        return str(entry["parent"]), dict(entry["tokens"])
    except (KeyError, TypeError, ValueError):
        return "", {}


def _record(study: str) -> str:
    return f"studies/{study}/published.json"


def _first_line(error: Exception) -> str:
    return without_password((str(error).splitlines() or [""])[0])[:200]
