"""What waits for what, and the order in which the ready ones go: longest remaining path first.

The priority of a trial is what it will take plus the largest priority among what waits for it: a pretraining on which
chains of others hang goes before a long measurement on which nothing does. Ties go in the order of the plan.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from orchestrator.durations import Durations
from orchestrator.resources import Demand

# Priorities are made anew, all at once, when this many steps an event have been saved up: at every event while ten
# trials wait, at every thousandth while ten thousand do.
_STEPS_AN_EVENT = 10


@dataclass(frozen=True)
class QueuedTrial:
    """What the queue has to know of a trial."""

    key: str
    demand: Demand
    upstream: tuple[str, ...] = ()
    estimated_s: float | None = None
    """What is left of it, in seconds between its start and its end; None or 0 where nothing is known."""
    kind: str = ""
    """Estimates of a kind are wrong by the same factor."""
    is_measured: bool = False
    """Whether trials of its kind were measured before: else the estimate is a guess."""
    family: str | None = None
    """A longer one waits for the shorter ones of its family to end, well or not. They have equal ``upstream``."""
    length: int = 0


@dataclass(slots=True, eq=False)
class Node:
    """A trial in the graph."""

    trial: QueuedTrial
    number: int  # in the order of the plan
    upstream: list[Node] = field(default_factory=list)  # without those that had ended when it came
    dependents: list[Node] = field(default_factory=list)
    num_missing: int = 0  # upstream without a result yet
    is_waiting: bool = True  # has not been handed out, and is not lost
    is_released: bool = False  # its result is there, and its dependents know
    priority: float = 0.0
    listed_at: float | None = None  # the priority under which it stands among the ready ones
    visit: int = 0


class Ready:
    """The ready trials of one demand, by priority."""

    def __init__(self, demand: Demand) -> None:
        self.demand = demand
        self._listed: list[tuple[float, int, Node]] = []  # the next one last

    def __len__(self) -> int:
        return len(self._listed)

    @property
    def best(self) -> Node:
        """The one with the longest remaining path."""
        return self._listed[-1][2]

    @property
    def rank(self) -> tuple[float, int]:
        """That of the best: the larger, the earlier."""
        return self._listed[-1][:2]

    def best_first(self) -> Iterator[Node]:
        """All of them in their order."""
        return (node for _, _, node in reversed(self._listed))

    def add(self, node: Node) -> None:
        """List a node that is not listed."""
        node.listed_at = node.priority
        bisect.insort(self._listed, (node.priority, -node.number, node))

    def remove(self, node: Node) -> None:
        """Take a listed node out."""
        assert node.listed_at is not None
        del self._listed[bisect.bisect_left(self._listed, (node.listed_at, -node.number))]
        node.listed_at = None

    def sort(self) -> None:
        """All priorities may be others."""
        nodes = [node for _, _, node in self._listed]
        for node in nodes:
            node.listed_at = node.priority
        self._listed = sorted((node.priority, -node.number, node) for node in nodes)


class Order:
    """The graph of all trials that were to run: which are ready, in their order, and which are lost."""

    def __init__(self) -> None:
        self.done: set[str] = set()
        self.lost: set[str] = set()  # without a result, now and later
        self.blocked: dict[str, str] = {}  # key -> key of an upstream trial that failed or is blocked itself
        self.waiting: dict[str, Node] = {}  # by key, those that have not been handed out and are not lost
        self._nodes: dict[str, Node] = {}
        self._families: dict[str, list[tuple[int, int, Node]]] = {}  # those that have not ended, the shortest first
        self._ready: dict[Demand, Ready] = {}
        self._durations = Durations()
        self._is_stale, self._saved_up, self._visit = False, 0.0, 0

    def add(self, trials: Sequence[QueuedTrial], done: Collection[str] = (), lost: Collection[str] = ()) -> None:
        """Further trials, upstream first, and what is known of others. Known trials stay as they are."""
        unknown = (trial for trial in trials if trial.key not in self._nodes)
        new = [Node(trial, number) for number, trial in enumerate(unknown, start=len(self._nodes))]
        self._nodes.update((node.trial.key, node) for node in new)
        self.waiting.update((node.trial.key, node) for node in new)
        self._learn_ends(done, lost)
        for node in new:
            self._connect(node)
        self._prioritise(new)
        for node in new:
            self._raise_before(node)
        for node in new:
            self._list_if_ready(node)
        for node in new:
            if gone := self.lost.intersection(node.trial.upstream):
                self._lose(node, min(gone))

    def by_priority(self) -> list[Ready]:
        """The ready trials by demand, that with the best one first."""
        self._renew()
        return sorted((ready for ready in self._ready.values() if ready), key=lambda ready: ready.rank, reverse=True)

    def seconds(self, trial: QueuedTrial) -> float:
        """What a trial takes from its start to its end, always positive."""
        return self._durations.seconds(trial.kind, trial.estimated_s, trial.is_measured)

    def start(self, node: Node) -> None:
        """A ready trial is handed out."""
        self._withdraw(node)

    def end(self, key: str, took_s: float, has_result: bool) -> None:
        """A trial that was handed out has ended, with or without a result: free or give up what waits for it."""
        node = self._nodes[key]
        if has_result:
            self._durations.learn(node.trial.kind, node.trial.estimated_s, node.trial.is_measured, took_s)
            self.done.add(key)
            self._release(node)
        else:
            self.lost.add(key)
            for dependent in node.dependents:
                self._lose(dependent, key)
        self._leave_family(node)
        self._is_stale = True
        self._saved_up += _STEPS_AN_EVENT

    # -- what waits for what --------------------------------------------------------------------------

    def _learn_ends(self, done: Collection[str], lost: Collection[str]) -> None:
        """What others finished or lost meanwhile counts for what waits here."""
        self.done.update(done)
        self.lost.update(lost)
        for key in done:
            if key in self._nodes:
                self._release(self._nodes[key])
        for key in lost:
            if (node := self.waiting.get(key)) is not None:
                self._give_up(node)
                for dependent in node.dependents:
                    self._lose(dependent, key)

    def _connect(self, node: Node) -> None:
        trial = node.trial
        for key in trial.upstream:
            if key in self.done:
                continue
            node.num_missing += 1
            if (before := self._nodes.get(key)) is not None:
                node.upstream.append(before)
                before.dependents.append(node)
        if trial.family is not None:
            members = self._families.setdefault(trial.family, [])
            bisect.insort(members, (trial.length, node.number, node))
            for _, _, other in members[1:2]:  # was the shortest until now, perhaps
                self._unlist(other)

    def _release(self, node: Node) -> None:
        if not node.is_released:
            node.is_released = True
            for dependent in node.dependents:
                dependent.num_missing -= 1
                self._list_if_ready(dependent)

    def _lose(self, node: Node, because_of: str) -> None:
        """Give up a trial that waits for a lost one, and all its descendants."""
        lost = [(node, because_of)]
        while lost:
            node, because_of = lost.pop()
            if node.is_waiting:
                self.lost.add(node.trial.key)
                self.blocked[node.trial.key] = because_of
                self._give_up(node)
                lost += [(dependent, node.trial.key) for dependent in node.dependents]

    def _give_up(self, node: Node) -> None:
        self._withdraw(node)
        self._leave_family(node)
        self._is_stale = True

    def _withdraw(self, node: Node) -> None:
        """It waits no longer."""
        self._unlist(node)
        node.is_waiting = False
        del self.waiting[node.trial.key]

    def _leave_family(self, node: Node) -> None:
        if node.trial.family is None:
            return
        members = self._families[node.trial.family]
        members.remove((node.trial.length, node.number, node))
        if members:
            self._list_if_ready(members[0][2])

    def _is_preceded(self, node: Node) -> bool:
        """Whether a shorter training of its family, from which it can go on, is still to end, well or not."""
        family = node.trial.family
        return family is not None and self._families[family][0][0] < node.trial.length

    # -- which are ready, in their order --------------------------------------------------------------

    def _list_if_ready(self, node: Node) -> None:
        if node.is_waiting and node.listed_at is None and not node.num_missing and not self._is_preceded(node):
            demand = node.trial.demand
            self._ready.setdefault(demand, Ready(demand)).add(node)

    def _unlist(self, node: Node) -> None:
        if node.listed_at is not None:
            self._ready[node.trial.demand].remove(node)

    def _after(self, node: Node) -> Iterable[Node]:
        """What waits for a node: its dependents, and the next longer one of its family."""
        if node.trial.family is None:
            return node.dependents
        members, place = self._place_in_family(node)
        return [*node.dependents, *(member for _, _, member in members[place + 1 : place + 2])]

    def _before(self, node: Node) -> Iterable[Node]:
        """What a node waits for, likewise."""
        if node.trial.family is None:
            return node.upstream
        members, place = self._place_in_family(node)
        return [*node.upstream, *(member for _, _, member in members[max(0, place - 1) : place])]

    def _place_in_family(self, node: Node) -> tuple[list[tuple[int, int, Node]], int]:
        members = self._families[node.trial.family or ""]
        return members, bisect.bisect_left(members, (node.trial.length, node.number))

    def _priority(self, node: Node) -> float:
        longest = max((after.priority for after in self._after(node) if after.is_waiting), default=0.0)
        return self.seconds(node.trial) + longest

    def _prioritise(self, nodes: Iterable[Node]) -> None:
        """Priorities of these and of all that waits for them, from the last ones on."""
        self._visit += 1
        for start in nodes:
            stack = [start] if start.visit != self._visit else []
            while stack:
                node = stack[-1]
                if node.visit == self._visit:  # all that waits for it has its priority
                    node.priority = self._priority(node)
                    stack.pop()
                else:
                    node.visit = self._visit
                    stack += [after for after in self._after(node) if after.is_waiting and after.visit != self._visit]

    def _raise_before(self, node: Node) -> None:
        """What a new node waits for has a longer path now, perhaps."""
        raised = [node]
        while raised:
            node = raised.pop()
            for before in self._before(node):
                priority = self.seconds(before.trial) + node.priority
                if before.is_waiting and priority > before.priority:
                    self._unlist(before)
                    before.priority = priority
                    self._list_if_ready(before)
                    raised.append(before)

    def _renew(self) -> None:
        """Priorities by what has been measured meanwhile, and without what was lost."""
        if not self._is_stale or self._saved_up < len(self.waiting):
            return
        self._prioritise(self.waiting.values())
        for ready in self._ready.values():
            ready.sort()
        self._is_stale, self._saved_up = False, 0.0


def put_back(order: Order, node: Node) -> None:
    """A trial that was handed out, and has not ended, is ready again."""
    node.is_waiting = True
    order.waiting[node.trial.key] = node
    order._list_if_ready(node)
