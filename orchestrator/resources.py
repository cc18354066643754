"""What a trial holds while it runs, and what a cluster has: whether one more trial fits beside those that run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.study import Resources
from trainables.api.trainable import Trainable

_ROUNDING = 1e-9  # ten times 0.1 CPUs are one


@dataclass(frozen=True)
class Amount:
    """Some CPUs and GPUs."""

    cpus: float = 0.0
    gpus: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.cpus + other.cpus, self.gpus + other.gpus)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.cpus - other.cpus, self.gpus - other.gpus)

    def __mul__(self, times: float) -> Amount:
        return Amount(self.cpus * times, self.gpus * times)

    def holds(self, other: Amount) -> bool:
        """Whether there is as much here as ``other`` asks for."""
        return other.cpus <= self.cpus + _ROUNDING and other.gpus <= self.gpus + _ROUNDING


@dataclass(frozen=True)
class Demand:
    """What one trial holds: the same for each of its workers."""

    worker: Amount
    num_workers: int = 1
    in_processes: bool = False
    """Whether the workers are processes of Ray Train, in a placement group of their own beside the trial's."""

    @property
    def total(self) -> Amount:
        """Over all workers."""
        return self.worker * self.num_workers


def demand_of(trainable: Trainable, resources: Resources) -> Demand:
    """What a trial asks for: a GPU only where it computes on one, workers only where it spreads."""
    most = trainable.most_workers
    shared = resources.workers if most is None else max(1, min(resources.workers, most))
    num_workers = 1 if trainable.spreads == "no" else shared
    worker = Amount(resources.cpus, resources.gpus if trainable.uses_gpu else 0.0)
    return Demand(worker, num_workers, trainable.spreads == "processes" and num_workers > 1)


def usual_demand(trainables: Iterable[Trainable], resources: Resources) -> Demand:
    """What most of these trials ask for: it tells how many run at once."""
    demands = Counter(demand_of(trainable, resources) for trainable in trainables)
    return demands.most_common(1)[0][0] if demands else Demand(Amount(resources.cpus, resources.gpus))


@dataclass(frozen=True)
class Capacity:
    """The nodes of a cluster."""

    nodes: tuple[Amount, ...]
    can_grow: bool = False
    """Whether nodes come when something waits for them."""

    @property
    def total(self) -> Amount:
        """Over all nodes."""
        return sum(self.nodes, Amount())

    def can_hold(self, demand: Demand) -> bool:
        """Whether the trial would fit on these nodes if it were alone."""
        return self._num_workers(demand.worker) >= demand.num_workers

    def num_at_once(self, demand: Demand) -> int:
        """How many such trials run at once, at least 1: for estimates."""
        return max(1, self._num_workers(demand.worker) // demand.num_workers)

    def _num_workers(self, worker: Amount) -> int:
        return sum(_times(node, worker) for node in self.nodes)

    def left_by(self, running: Iterable[Demand]) -> Amount:
        """What is free beside these, over all nodes."""
        return self.total - sum((demand.total for demand in running), Amount())


def alone_on_a_node(demand: Demand, has: Capacity) -> Demand:
    """The same with all CPUs of the smallest node that can hold it: nothing runs beside it there.

    What has several workers stays as it is.
    """
    fitting = [node.cpus for node in has.nodes if Capacity((node,)).can_hold(demand)]
    if demand.num_workers > 1 or not fitting:
        return demand
    return Demand(Amount(min(fitting), demand.worker.gpus))


def _times(node: Amount, worker: Amount) -> int:
    by_cpu = node.cpus / worker.cpus if worker.cpus else float("inf")
    by_gpu = float("inf")
    if worker.gpus >= 1:
        by_gpu = node.gpus / worker.gpus
    elif worker.gpus:  # a share is one of one GPU
        by_gpu = int(node.gpus) * int(1 / worker.gpus + _ROUNDING)
    return int(min(by_cpu, by_gpu) + _ROUNDING)
