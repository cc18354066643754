"""Drivers and processes of trials that die at any change of the store, and go on at once as others.

Everything but Ray is the real thing: plan, search, queue, claims, attempts, checkpoints, store. One process acts at a
time. What befalls it is drawn: at the n-th change of the store it dies, before the change or after, alone or with its
driver; or others go on first, and take it for dead, as a machine that is cut off for a while, or not.
"""

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from test_search_schedules import Driver

from orchestrator import attempt, claims, storage, trial
from orchestrator.attempt import Payload, Settings
from orchestrator.failures import why_ended
from orchestrator.retrying import Retrying, Space
from orchestrator.store import Store
from orchestrator.study import Resources, Study
from trainables.api.trainable import Trainable, grows

BEFORE, AFTER = "before", "after"
PROCESS, DRIVER, STALL, PAUSE = "process", "driver", "stall", "pause"
_NEVER_S = 1e6
_MOST_STEPS = 2_000


class Killed(BaseException):
    """This process is no more: whatever it still tries fails."""


class Waits(BaseException):
    """This process waits for another one, and others go on meanwhile."""


@dataclass(frozen=True)
class Blow:
    """What befalls whoever makes the n-th change of the store after the last blow."""

    after_changes: int
    what: str
    when: str = BEFORE


@dataclass
class World:
    """All processes on one store, of which one acts."""

    folder: Path
    blows: list[Blow] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None
    """What others do while a process stands still."""
    acting: int = 0
    too_late: set[int] = field(default_factory=set)
    """Processes whose trial had failed for good when they began; each driver gives up for itself."""
    computed: Counter = field(default_factory=Counter)  # (family, epoch or item) -> how often
    at_work: dict[str, int] = field(default_factory=dict)  # key -> the last process that computed it
    tries: Counter = field(default_factory=Counter)  # key -> attempts, as the world outside of the store remembers
    num_blows: int = 0
    _alive: dict[int, bool] = field(default_factory=dict)
    _changes: int = 0

    @property
    def store(self) -> Store:
        """As one sees it who changes nothing."""
        return Store(str(self.folder / "store"))

    def born(self) -> int:
        """A process that is alive."""
        self._alive[number := len(self._alive) + 1] = True
        return number

    def is_alive(self, process: int) -> bool:
        """Or is taken to be."""
        return self._alive[process]

    @contextlib.contextmanager
    def acts(self, process: int) -> Iterator[None]:
        """In the block this process is the acting one."""
        before, self.acting = self.acting, process
        try:
            yield
        finally:
            self.acting = before

    def kill(self, *processes: int) -> None:
        """None of them does anything from here on."""
        self._alive.update(dict.fromkeys(processes, False))

    def falls_due(self) -> Blow | None:
        """The blow that befalls this change, if one does."""
        self._changes += 1
        if not self.blows or self._changes < self.blows[0].after_changes:
            return None
        self._changes, self.num_blows = 0, self.num_blows + 1
        return self.blows.pop(0)

    def stand_still(self, process: int, *, seems_dead: bool) -> None:
        """Others go on."""
        self._alive[process] = not seems_dead
        self.meanwhile()
        self._alive[process] = True


class DyingStore(Store):
    """A store as one process sees it: every change may be its last."""

    def __init__(self, world: World, process: int, driver: int) -> None:
        super().__init__(world.store.uri)
        self._world, self._process, self._driver = world, process, driver

    def _change(self, change: Callable[[], object]) -> object:
        if not self._world.is_alive(self._process):
            raise Killed
        blow = self._world.falls_due()
        if blow is None:
            return change()
        if blow.what in (STALL, PAUSE):
            if self._process != self._driver:
                self._world.stand_still(self._process, seems_dead=blow.what == STALL)
            return change()
        if blow.when == AFTER:
            change()
        self._world.kill(*((self._process,) if blow.what == PROCESS else (self._process, self._driver)))
        raise Killed

    def write_bytes(self, *arguments, **options):
        return self._change(lambda: super(DyingStore, self).write_bytes(*arguments, **options))

    def create_document(self, *arguments, **options):
        return self._change(lambda: super(DyingStore, self).create_document(*arguments, **options))

    def take_away(self, *arguments, **options):
        return self._change(lambda: super(DyingStore, self).take_away(*arguments, **options))

    def remove(self, *arguments, **options):
        return self._change(lambda: super(DyingStore, self).remove(*arguments, **options))

    def _put(self, *arguments, **options):
        return self._change(lambda: super(DyingStore, self)._put(*arguments, **options))


class MortalDriver(Driver):
    """One life of a driver, whose trials run in processes of their own, in whatever order."""

    def __init__(self, world: World, study: Study, slots: int, lag: int | None) -> None:
        self.world, self.process = world, world.born()
        cache = world.folder / f"cache-{self.process}"
        self.settings = Settings(world.store.uri, cache, Resources(), {"code_version": "test"}, 0.0)
        with world.acts(self.process):
            super().__init__(DyingStore(world, self.process, self.process), study, slots, lag)
        self.retrying = Retrying(self.store, Space(lambda: ""), lambda: ())

    def go_on(self, rng: random.Random) -> bool:
        """Start what fits, and let one trial run; False at the end. Raises Killed."""
        with self.world.acts(self.process):
            if not self.fill():
                return False
            if self.running:
                self._run(rng.choice(sorted(self.running)))
        return True

    def _run(self, name: str) -> None:
        planned = self.running[name]
        process = self.world.born()
        if self.store.failure(planned.key) is not None:
            self.world.too_late.add(process)
        self.retrying.hands_out(planned)
        try:
            with self.world.acts(process), _in_process(self.world, process, self.process):
                trial.run_trial(Payload(planned, self.settings), say=lambda message: None)
        except Waits:
            return  # nothing was changed: it goes on waiting at its next turn
        except (Killed, Exception):
            if not self.world.is_alive(self.process):
                raise Killed from None
            _, again = self.retrying.next(planned, None)
            if again is not None:
                return  # at its next turn: nobody has a clock here
        finally:
            self.world.kill(process)
        if self.store.result(planned.key) is None:
            why_ended(self.store, planned, None)
        self.running.pop(name)
        self.searcher.on_trial_complete(name)


@contextlib.contextmanager
def _in_process(world: World, process: int, driver: int) -> Iterator[None]:
    """What is imported once sees the store as this process does."""
    before = trial.Store
    trial.Store = lambda uri: DyingStore(world, process, driver)
    try:
        yield
    finally:
        trial.Store = before


@contextlib.contextmanager
def on_no_disk() -> Iterator[Callable[[World], None]]:
    """Processes are those of a world, to be given; nothing waits for a disk or a clock."""
    worlds: list[World] = []

    def wait(seconds: float) -> None:
        raise Waits

    def start_of(process: int) -> str | None:
        return "alive" if worlds[-1].is_alive(process) else None

    def this_process() -> dict[str, object]:
        holder = {"host": claims.socket.gethostname(), "namespace": claims._namespace()}
        return {**holder, "pid": worlds[-1].acting, "pid_start": "alive"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "_start_of", start_of)
        patch.setattr(claims, "_this_process", this_process)
        patch.setattr(claims, "RENEW_S", _NEVER_S)
        patch.setattr(claims.time, "sleep", wait)
        patch.setattr(storage.os, "fsync", lambda file: None)
        patch.setattr(attempt, "machine_provenance", dict)
        yield worlds.append


def explore(
    world: World, study: Study, rng: random.Random, *, slots: int = 1, num_drivers: int = 1, lag: int | None = None
) -> None:
    """Run a study to its end, whatever befalls whom."""
    drivers: dict[int, MortalDriver | None] = dict.fromkeys(range(num_drivers))
    going_on: set[int] = set()

    def step(place: int) -> None:
        going_on.add(place)
        try:
            if drivers[place] is None:
                drivers[place] = MortalDriver(world, study, slots, lag)
            if not drivers[place].go_on(rng):
                del drivers[place]
        except Killed:
            drivers[place] = None  # the same command again
        finally:
            going_on.discard(place)

    def meanwhile() -> None:
        for _ in range(rng.randrange(7)):
            if others := sorted(set(drivers) - going_on):
                step(rng.choice(others))

    world.meanwhile = meanwhile
    for _ in range(_MOST_STEPS):
        if not drivers:
            return
        step(rng.choice(sorted(drivers)))
    raise AssertionError(f"it does not end: {world.folder}")


# -- what is computed --------------------------------------------------------------------------------

WORLD: list[World] = []


def _begin(trainable: Trainable, context) -> World:
    """What holds of every attempt that computes."""
    world, key = WORLD[-1], context.key(trainable)
    assert world.store.result(key) is None, "what was finished runs again"
    assert world.acting not in world.too_late, "what failed for good runs again"
    if (other := world.at_work.get(key)) not in (None, world.acting):  # itself, when it had lost its claim
        assert not world.is_alive(other), "two compute the same"
    world.at_work[key] = world.acting
    world.tries[key] += 1
    return world


def _sum_of(upstream: Sequence[Trainable], context) -> int:
    return sum(int((context.result_dir(part) / "sum.txt").read_text()) for part in upstream)


@dataclass(frozen=True)
class Sum(Trainable):
    """Adds up what is upstream, epoch by epoch; a longer one goes on from a shorter one."""

    number: int
    num_epochs: int = grows(2)
    upstream: tuple[Trainable, ...] = ()
    num_crashes: int = 0
    """So often an attempt ends with an error that another may not meet."""
    is_wrong: bool = False

    def run(self, context):
        world = _begin(self, context)
        if self.is_wrong:
            raise ValueError(f"{self.number} is wrong")
        start, total = 0, 0
        if (folder := context.load_checkpoint()) is not None:
            start, total = (int(v) for v in (folder / "state.txt").read_text().split())
        given, crashes = _sum_of(self.upstream, context), world.tries[context.key(self)] <= self.num_crashes
        for epoch in range(start, self.num_epochs):
            world.computed[self.number, epoch] += 1
            total += given + self.number + epoch
            context.log({"train/sum": total, "val/loss": 1 / (1 + total)}, step=epoch)
            context.report_progress(epoch + 1, self.num_epochs, "epochs")
            context.offer_checkpoint(lambda folder: (folder / "state.txt").write_text(f"{epoch + 1} {total}"))  # noqa: B023
            if crashes:
                break
        if crashes:
            raise OSError("the network share went away")
        context.save_state(lambda folder: (folder / "state.txt").write_text(f"{self.num_epochs} {total}"))
        context.log({"val/end": total}, step=self.num_epochs)
        (context.output_dir / "sum.txt").write_text(str(total))
        return {"val/loss": 1 / (1 + total)}

    def work_flop(self):
        return 1e6 * self.num_epochs


@dataclass(frozen=True)
class Items(Trainable):
    """Squares items, each of which is kept once it is finished."""

    spreads = "items"

    number: int
    num_items: int = 3
    upstream: tuple[Trainable, ...] = ()

    def run(self, context):
        _begin(self, context)
        given = _sum_of(self.upstream, context)
        squares = context.map(self.square, list(range(self.num_items)))
        total = given + sum(int(each["square"]) for each in squares)
        for item, each in enumerate(squares):
            context.log({"square": float(each["square"])}, step=item)
        (context.output_dir / "sum.txt").write_text(str(total))
        return {"total": float(total)}

    def square(self, items):
        WORLD[-1].computed.update((self.number, item) for item in items)
        return [{"square": np.array(item * item + self.number)} for item in items]
