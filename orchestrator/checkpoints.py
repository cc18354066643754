"""What an attempt of a trial saves on its way: journal rows, checkpoints, finished items; and where it starts from.

A checkpoint is written by the trainable into a local folder and brought to the store by a thread beside the training.
It is valid once its generation is written, which is the last thing that happens; until then the one before it is.
"""

from __future__ import annotations

import itertools
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.claims import Holding
from orchestrator.store import DamagedResult, FileEntry, Generation, Lineage, Result, SavedState, Store
from trainables.api.context import Arrays

Write = Callable[[Path], None]
# A checkpoint takes at most 3 % of the time.
_COST_SHARE = 33.0


@dataclass(frozen=True)
class Member:
    """A training that grows: its family, and how long it is to be."""

    family: str
    length: int


@dataclass
class Start:
    """Where an attempt begins."""

    generation: Generation
    older: list[Generation] = field(default_factory=list)
    checkpoint_dir: Path | None = None
    items: dict[int, Arrays] = field(default_factory=dict)


class Checkpoints:
    """The resumable state of one attempt. With an interval of 0 every offer is taken, and whole when it returns."""

    def __init__(
        self,
        store: Store,
        key: str,
        claim: Holding,
        *,
        attempt: int,
        work_dir: Path,
        interval_s: float,
        say: Callable[[str], None],
        member: Member | None = None,
        num_workers: int = 1,
    ) -> None:
        """``num_workers`` processes work all the time, of which this is one; the claim is anything with ``check``."""
        self._store, self._key, self._claim, self._work_dir = store, key, claim, work_dir
        self._num_workers = num_workers
        self._interval_s, self._cost_s, self._member = interval_s, 0.0, member
        own = f"{attempt:03d}-{uuid.uuid4().hex[:6]}"  # in the order of their time
        self._names = (f"{own}-{n:05d}" for n in itertools.count(1))
        self._started = self._saved_at = time.monotonic()
        self._rows: list[list[Any]] = []
        self._state: tuple[Path, list[str]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        start = start_of(store, key, attempt, work_dir, member, self._names, say)
        self._current, self._older = start.generation, start.older
        self.checkpoint_dir, self.items = start.checkpoint_dir, start.items
        self._busy_before_s = self._current.busy_s
        self.fraction = self._current.fraction  # how far the trial says it is

    def add_row(self, row: list[Any]) -> None:
        """One row of the journal; it becomes part of the next checkpoint."""
        self._rows.append(row)

    def add_busy(self, seconds: float) -> None:
        """Work that another process did for this attempt."""
        self._busy_before_s += seconds

    def is_due(self) -> bool:
        """Whether the last checkpoint is old enough, and what it cost small beside the time since.

        Raises what went wrong in bringing the last one to the store.
        """
        self._settle(wait=False)
        if self._pending is not None:
            return False
        pause_s = max(self._interval_s, _COST_SHARE * self._cost_s) if self._interval_s else 0.0
        return time.monotonic() - self._saved_at >= pause_s

    def offer(self, write: Write) -> bool:
        """See ``Context.offer_checkpoint``."""
        if not self.is_due():
            return False
        begun = time.monotonic()
        folder = Path(tempfile.mkdtemp(dir=self._work_dir))
        write(folder)
        self._saved_at = time.monotonic()
        self._cost_s = self._saved_at - begun
        generation, rows = self._generation(), self._take_rows()
        self._pending = self._thread.submit(self._bring, folder, generation, rows)
        if self._interval_s == 0:
            self._settle(wait=True)
        return True

    def save_items(self, unsaved: Mapping[int, Arrays]) -> None:
        """Keep finished items of ``map``."""
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(dir=self._work_dir) as folder:
            name = f"{next(self._names)}.npz"
            arrays = {f"{i}/{entry}": array for i, result in unsaved.items() for entry, array in result.items()}
            np.savez(Path(folder) / name, **arrays)  # type: ignore[arg-type]
            files = self._store.upload(Path(folder), f"trials/{self._key}/items")
        generation = self._generation()
        items, item_files = [*generation.items, name], {**generation.item_files, **files}
        self._make_valid(replace(generation, items=items, item_files=item_files), self._take_rows())
        self._saved_at = time.monotonic()
        self._cost_s = self._saved_at - begun

    def save_state(self, write: Write) -> None:
        """See ``Context.save_state``; kept here until the result is published."""
        if self._member is None:
            return
        folder = Path(tempfile.mkdtemp(dir=self._work_dir))
        write(folder)
        self._state = folder, self._flush()

    def publish(self, result: Result) -> Result | None:
        """Publish a result with the journal, the state and the times; None when another process was faster."""
        segments = self._flush()
        member, lineage = self._member, self._current.continued_from
        own = 1.0 - lineage.length / member.length if member and lineage else 1.0
        state = None
        if self._state is not None:
            folder, state_segments = self._state
            token = uuid.uuid4().hex[:12]
            state = SavedState(token, self._store.upload(folder, f"trials/{self._key}/state/{token}"), state_segments)
        result = replace(
            result,
            segments=segments,
            started_at=self._current.started_at,
            busy_s=self._busy_s(),
            attempt=self._current.attempt,
            work_flop=result.work_flop * own,
            length=member.length if member else 0,
            state=state,
            continued_from=lineage,
            ended_at=time.time(),
        )
        self._claim.check()
        return result if self._store.publish(result, member.family if member else None) else None

    @property
    def continued_from(self) -> Lineage | None:
        """The shorter training that this one went on from."""
        return self._current.continued_from

    def close(self) -> None:
        """Let the last checkpoint arrive; what went wrong with it no longer matters."""
        self._thread.shutdown(wait=True)

    # -- parts ----------------------------------------------------------------------------------------

    def _settle(self, *, wait: bool) -> None:
        if self._pending is not None and (wait or self._pending.done()):
            pending, self._pending = self._pending, None
            pending.result()

    def _bring(self, folder: Path, generation: Generation, rows: list[list[Any]]) -> None:
        """In the thread: the files, then the generation that makes them valid."""
        begun = time.thread_time()
        name = f"checkpoints/{next(self._names)}"
        files = self._store.upload(folder, f"trials/{self._key}/{name}")
        self._make_valid(replace(generation, checkpoint=name, checkpoint_files=files), rows)
        for file in folder.rglob("*"):
            if file.is_file():
                file.unlink()
        self._cost_s += time.thread_time() - begun  # hashing takes cores from the training; waiting for a disk does not

    def _generation(self) -> Generation:
        """The state to be saved now."""
        reached = round(self.fraction * self._member.length, 6) if self._member else 0.0
        return replace(self._current, fraction=self.fraction, busy_s=self._busy_s(), length=reached)

    def _make_valid(self, generation: Generation, rows: list[list[Any]]) -> None:
        """Make a new resumable state valid; the one before it is kept, older checkpoints go."""
        self._claim.check()
        if rows:
            name = self._store.write_segment(self._key, next(self._names), rows)
            generation = replace(generation, segments=[*generation.segments, name])
        kept = [replace(generation, name=next(self._names)), *self._older[:1]]
        self._store.write_generations(self._key, kept)
        for old in self._older[1:]:
            if old.checkpoint and old.checkpoint not in {g.checkpoint for g in kept}:
                self._store.remove(f"trials/{self._key}/{old.checkpoint}")
        self._older, self._current = kept, kept[0]

    def _take_rows(self) -> list[list[Any]]:
        rows, self._rows = self._rows, []
        return rows

    def _flush(self) -> list[str]:
        """Bring all rows to the journal; returns the names of its segments."""
        self._settle(wait=True)
        if rows := self._take_rows():
            name = self._store.write_segment(self._key, next(self._names), rows)
            self._current = replace(self._current, segments=[*self._current.segments, name])
        return list(self._current.segments)

    def _busy_s(self) -> float:
        return self._busy_before_s + self._num_workers * (time.monotonic() - self._started)


def start_of(
    store: Store,
    key: str,
    attempt: int,
    work_dir: Path,
    member: Member | None,
    names: Iterator[str],
    say: Callable[[str], None],
) -> Start:
    """The furthest of the trial's own last whole generation and the states of shorter members of its family."""
    own = _own_start(store, key, attempt, work_dir, say)
    if member is None:
        return own
    reached = own.generation.length if own.generation.checkpoint else 0.0
    for shorter in store.shorter(member.family, member.length):
        if shorter.length <= reached:
            break
        assert shorter.state is not None
        try:
            folder = store.download(shorter.state_folder, shorter.state.files, work_dir / f"state-{shorter.length}")
            rows = [row for segment in shorter.state.segments for row in store.segment(shorter.key, segment)]
        except DamagedResult as error:
            say(f"{error}; going on from a state before it")
            continue
        segments = [store.write_segment(key, next(names), rows)] if rows else []
        generation = Generation(
            segments=segments,
            attempt=attempt,
            started_at=time.time(),
            fraction=shorter.length / member.length,
            length=float(shorter.length),
            continued_from=Lineage(shorter.key, shorter.length),
        )
        return Start(generation, [own.generation] if own.generation.checkpoint else [], folder)
    return own


def _own_start(store: Store, key: str, attempt: int, work_dir: Path, say: Callable[[str], None]) -> Start:
    """The newest generation that is whole (a damaged one is passed over), with its checkpoint and items."""
    generations = store.generations(key)
    for position, generation in enumerate(generations):
        try:
            checkpoint_dir = None
            if generation.checkpoint is not None:
                folder = f"trials/{key}/{generation.checkpoint}"
                checkpoint_dir = store.download(folder, generation.checkpoint_files, work_dir / "checkpoint")
            items = _read_items(store, key, generation.items, generation.item_files, work_dir)
            for segment in generation.segments:
                store.segment(key, segment)
        except DamagedResult as error:
            say(f"{error}; going on from the state before it")
            continue
        return Start(replace(generation, attempt=attempt), generations[position:], checkpoint_dir, items)
    return Start(Generation(attempt=attempt, started_at=time.time()))


def _read_items(
    store: Store, key: str, names: list[str], files: Mapping[str, FileEntry], work_dir: Path
) -> dict[int, Arrays]:
    folder = store.download(f"trials/{key}/items", files, work_dir / "items")
    items: dict[int, dict[str, np.ndarray[Any, Any]]] = {}
    for name in names:
        with np.load(folder / name, allow_pickle=False) as arrays:
            for entry in arrays.files:
                position, _, array_name = entry.partition("/")
                items.setdefault(int(position), {})[array_name] = arrays[entry]
    return dict(items)
