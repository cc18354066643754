"""The items of one trial spread over workers: its own, and slots of the cluster that nobody else uses.

The trial's own process works along; each other worker is an actor that keeps the function (and what it holds on a
device) between two batches. Whoever is free takes the next batch, so nobody waits for a slower one.
"""

from __future__ import annotations

import contextlib
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle

from orchestrator import idle
from orchestrator.context import Finished, Function, Spread
from orchestrator.failures import WorkerFailed, failure_from
from orchestrator.resources import Demand
from orchestrator.store import Failure
from trainables.api.context import Arrays

_LOOK_S = 1.0
# Of its own workers, before the trial itself fails and is tried again; of helpers, before none is asked for any more.
_MOST_DEATHS = 3
_WORTH_STARTING_S = 10.0  # of work left: a process and its libraries take some seconds to start
_PLACED_WITHIN_S = 30.0  # a helper that is not up by then has lost its slot to another trial


def over_workers(demand: Demand) -> Spread:
    """Spread over the other workers of a trial's placement group, and over idle slots of the cluster."""

    def spread(function: Function, batches: list[list[int]], items: Sequence[Any], finished: Finished) -> None:
        if batches:
            _Spreading(function, batches, items, finished, demand).run()

    return spread


class _Applier:
    """Applies one function, of which it keeps a copy."""

    def __init__(self, function: Function) -> None:
        self._function = function

    def is_up(self) -> bool:
        return True

    def apply(self, items: list[Any]) -> tuple[Sequence[Arrays], float] | Failure:
        """Results and the seconds that they took; or what went wrong, in words: not every error can be sent."""
        begun = time.monotonic()
        try:
            return self._function(items), time.monotonic() - begun
        except BaseException as error:
            return failure_from(error, attempt=0)


_Worker: Any = ray.remote(_Applier)


@dataclass
class _Hand:
    """A worker, and what it is doing."""

    actor: ActorHandle
    waits_for: Any  # the reference of its answer
    is_helper: bool  # in a slot that belongs to nobody, to be given back when somebody asks for it
    batch: list[int] | None = None  # None: it is starting
    since: float = field(default_factory=time.monotonic)


class _Spreading:
    """One call of ``map``: batches that wait, and who works on which."""

    def __init__(
        self, function: Function, batches: list[list[int]], items: Sequence[Any], finished: Finished, demand: Demand
    ) -> None:
        self._function, self._items, self._finished, self._demand = function, items, finished, demand
        self._waiting = deque(batches)
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._hands: list[_Hand] = []
        self._shipped: Any = None
        self._word = idle.Word()
        self._deaths = self._helper_deaths = self._num_done = 0
        self._begun = time.monotonic()
        self._is_over = threading.Event()

    def run(self) -> None:
        """Until all batches are done. Raises what went wrong first, having ended what still ran."""
        feeder = threading.Thread(target=self._guarded, args=(self._feed,), name="spread", daemon=True)
        feeder.start()
        try:
            self._guarded(self._work_along)
        finally:
            self._is_over.set()
            feeder.join()
        if self._error is not None:
            raise self._error

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # also what ends a process: both threads have to hear of it
            self._error = self._error or error

    def _work_along(self) -> None:
        """In the trial's own thread: a batch after the other, and the last ones of the others back if they are lost."""
        while self._error is None:
            batch = self._next_batch()
            if batch is not None:
                self._note(batch, self._function([self._items[i] for i in batch]), 0.0)
            elif not self._is_anyone_busy():
                return
            else:
                time.sleep(0.02)

    def _next_batch(self) -> list[int] | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _is_anyone_busy(self) -> bool:
        with self._lock:
            return bool(self._waiting) or any(hand.batch is not None for hand in self._hands)

    def _note(self, batch: list[int], results: Sequence[Arrays], elsewhere_s: float) -> None:
        with self._lock:
            self._num_done += 1
            self._finished(batch, results, elsewhere_s)

    # -- the other workers, in a thread of their own --------------------------------------------------

    def _feed(self) -> None:
        try:
            own = min(self._demand.num_workers, len(self._waiting) + 1) - 1
            self._hands = [self._hire(is_helper=False) for _ in range(own)]
            while self._error is None and not self._is_over.is_set():
                self._look_for_help()
                if not self._hands:
                    self._is_over.wait(_LOOK_S)
                    continue
                ready, _ = ray.wait([hand.waits_for for hand in self._hands], num_returns=1, timeout=_LOOK_S)
                for hand in [hand for hand in self._hands if hand.waits_for in ready]:
                    self._take_answer(hand)
        finally:
            for hand in self._hands:
                ray.kill(hand.actor)

    def _hire(self, *, is_helper: bool) -> _Hand:
        if self._shipped is None:
            self._shipped = ray.put(self._function)
        amount = self._demand.worker
        # Without a strategy of its own an actor lives in the trial's placement group.
        strategy = {"scheduling_strategy": "DEFAULT"} if is_helper else {}
        actor = _Worker.options(num_cpus=amount.cpus, num_gpus=amount.gpus, **strategy).remote(self._shipped)
        return _Hand(actor, actor.is_up.remote(), is_helper)

    def _take_answer(self, hand: _Hand) -> None:
        try:
            answer = ray.get(hand.waits_for)
        except ray.exceptions.RayError as error:  # killed, or lost with its node
            self._bury(hand, error)
            return
        if isinstance(answer, Failure):
            raise WorkerFailed(answer)
        if hand.batch is not None:
            self._note(hand.batch, *answer)
        self._give_work(hand)

    def _give_work(self, hand: _Hand) -> None:
        is_wanted = not hand.is_helper or self._word.is_idle()
        with self._lock:  # at once, or between two hands a batch would look done
            hand.batch = self._waiting.popleft() if is_wanted and self._waiting else None
        if hand.batch is None:
            self._dismiss(hand)
        else:
            hand.waits_for = hand.actor.apply.remote([self._items[i] for i in hand.batch])

    def _dismiss(self, hand: _Hand) -> None:
        with self._lock:
            self._hands.remove(hand)
            if hand.batch is not None:
                self._waiting.appendleft(hand.batch)
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(hand.actor)

    def _bury(self, hand: _Hand, error: ray.exceptions.RayError) -> None:
        """Its batch goes to the next; a worker that dies again and again fails the trial, which starts anew.

        A helper does not: a trial that its own workers can do must not fail because a slot was idle.
        """
        self._dismiss(hand)
        if hand.is_helper:
            self._helper_deaths += 1
            return
        self._deaths += 1
        if self._deaths > _MOST_DEATHS:
            raise RuntimeError(f"{self._deaths} workers died, the last with: {error}") from error
        self._hands.append(self._hire(is_helper=False))

    def _look_for_help(self) -> None:
        """One more helper, while slots are idle and there is more to do than hands that are coming."""
        late = time.monotonic() - _PLACED_WITHIN_S
        for hand in [h for h in self._hands if h.is_helper and h.batch is None and h.since < late]:
            self._dismiss(hand)
        with self._lock:
            is_anyone_coming = any(hand.batch is None for hand in self._hands)
            left_s = (time.monotonic() - self._begun) / max(1, self._num_done) * len(self._waiting)
        if is_anyone_coming or left_s < _WORTH_STARTING_S or self._helper_deaths > _MOST_DEATHS:
            return
        if self._word.is_idle() and idle.has_room(self._demand.worker):
            try:
                self._hands.append(self._hire(is_helper=True))
            except (TypeError, AttributeError, pickle.PicklingError):  # it cannot be sent: it can be done here
                self._helper_deaths = _MOST_DEATHS + 1
