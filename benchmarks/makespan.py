"""How much longer than necessary does a study take, in the order in which its trials start?

Simulated time through the real queue (``orchestrator.queue``), on the graphs of the two papers and on made-up ones.
What a trial truly takes is log-normal around its estimate, with a factor of 2 (sigma = ln 2), and nobody knows it
before it ends. Slots: a quarter to one times work / critical path, from where on the critical path alone rules.

    python benchmarks/makespan.py                  # two minutes
    python benchmarks/makespan.py --draws 20 --json figures.json

Every makespan is divided by the best known one: the best of 1,000 list schedules that know the true durations, with
priorities of the true longest path times a random factor (or the best of those that are compared, if that is better).
``bound`` is how far that lies above max(work / slots, critical path), which nothing can beat.

- ``ours``: the queue.
- ``helped``: the queue, and slots that would idle take items of running trials that spread (in equal shares).
- ``told``: the queue where the estimates are true. What ``ours`` lies above it is the price of not knowing.
- ``before``: the first ready trial in the order of the plan, which is how trials started before there was the queue.

Variants: ``wide``: trainings take two slots. ``kinds``: nine tenths of the error's variance are common to all trials of
a kind, as where a class computes at another rate than was assumed: finished trials correct the estimates of the others.

Where the order before comes within 5 % in the median, any order will do: such a row says nothing ("any order").
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.forecast import Simulated, makespan_s
from orchestrator.order import QueuedTrial
from orchestrator.resources import Amount, Capacity, Demand

SIGMA = math.log(2)
SHARES = (0.25, 0.5, 0.75, 1.0)  # slots, in units of work / critical path
GOAL_MEDIAN, GOAL_WORST = 1.1, 1.3
ANY_ORDER = 1.05
PAPERS = ("thesis", "BYOL-TracIn")
COLUMNS = ("ours", "helped", "told", "before", "bound")
_CLOSE = 1.001  # to the bound: nothing better is to be found


@dataclass(frozen=True)
class Work:
    """A trial of a simulated study."""

    kind: str
    seconds: float
    """Estimated, on its own slots."""
    upstream: tuple[int, ...] = ()
    spreads: bool = False
    width: int = 1
    """Slots."""


Graph = list[Work]


# -- graphs -----------------------------------------------------------------------------------------------


def thesis(seeds: int = 3) -> Graph:
    """The rotation study at scale full for three data sets, and the chapters on segmentation and on HOG + SVM.

    Seconds are the trainables' ``work_flop`` at 1e13 a second: ResNet-50 at 224 px, batches as in the thesis, 75 images
    at 361 angles, 50 noise samples. The methods beside SmoothGrad are drawn at every fifth angle.
    """
    forward_s = 8.2e9 / 1e13
    curve_s = 2 * forward_s * 75
    passes = {"smoothgrad": 50, "transforms": 50, "conditional": 200, "pairwise": 800, "grad_cam": 1}
    passes |= {f"interaction_{form}": 2 for form in ("mean", "max", "attention")}
    graph: Graph = []

    def add(kind: str, seconds: float, upstream: tuple[int, ...] = (), spreads: bool = False) -> int:
        graph.append(Work(kind, seconds, upstream, spreads))
        return len(graph) - 1

    for num_images in (329, 150, 880):
        training_s = forward_s * num_images * 100
        pretrained = []
        for form in (1, 2):  # the sound form of SmoothGrad, and the tool's with noise on both images
            for seed in range(seeds):
                if form == 1:
                    pretrained.append(add("MoCo", 4 * training_s))
                add("Curve", form * curve_s * 50 * 361, (pretrained[seed],), True)
            for _ in range(seeds + 1):  # untrained ones, and the released one
                add("Curve", form * curve_s * 50 * 361, (), True)
            add("FixedMap", curve_s * 100, (pretrained[0],), True)
            add("Ceiling", 20.0, (), True)
            add("Ceiling", 20.0, (), True)
        for seed in range(seeds):
            supervised = add("Segmentation", 6 * training_s)
            add("Evaluation", 10.0, (supervised,))
            tuned = add("Segmentation", 6 * training_s, (pretrained[seed],))
            add("Evaluation", 10.0, (tuned,))
            for method, count in passes.items():
                add(f"Curve of {method}", curve_s * count * 73, (tuned,), True)
        add("HogSvm", 361 * 4.0, (), True)
    return graph


def byol_tracin(seeds: int = 5) -> Graph:
    """BYOL-TracIn at full scale: nine rows on two data sets, 300 epochs of ResNet-18 at 128 px, fine-tunings of three
    label fractions and five seeds, and the transfer to two small data sets. Two rows select by the trained BYOL."""
    second_of = 1.2e9 / 1e13
    rows = {"Random": None, "BYOL": 1.0, "FNC": 1.3, "FT": 1.05, "FS": 1.15, "FS-pretrained": 1.4, "TracIn": 1.25}
    rows |= {"TracIn-pretrained": 1.5, "Sup": 1.25}
    graph: Graph = []
    for num_train, num_test, num_transfer in ((20_000, 5_000, 900), (78_000, 25_000, 600)):
        byol = None
        for row, factor in rows.items():
            before: tuple[int, ...] = ()
            if factor is not None:
                selects_by = (byol,) if row.endswith("-pretrained") and byol is not None else ()
                graph.append(Work("Byol", factor * 8 * 300 * num_train * second_of, selects_by))
                before = (len(graph) - 1,)
                byol = len(graph) - 1 if row == "BYOL" else byol
            for fraction in (0.1, 0.5, 1.0):
                for _ in range(seeds):
                    graph.append(Work("FineTuning", 3 * 100 * fraction * num_train * second_of, before))
                    graph.append(Work("Evaluation", 5 + num_test * second_of, (len(graph) - 1,), True))
            for _ in range(seeds):
                graph.append(Work("Transfer", 5 + 3 * 50 * num_transfer * second_of, before))
                graph.append(Work("Evaluation", 5.0, (len(graph) - 1,), True))
    return graph


def fan_in(rng: random.Random) -> Graph:
    """Twenty groups of eight trials with a summary each that begins a chain of one to six, and an end."""
    graph: Graph = []
    ends = []
    for _ in range(20):
        members = tuple(range(len(graph), len(graph) + 8))
        graph += [Work("Member", rng.lognormvariate(4, 0.8)) for _ in members]
        graph.append(Work("Summary", 60.0, members))
        for _ in range(rng.randint(0, 5)):
            graph.append(Work("Next", 60.0, (len(graph) - 1,)))
        ends.append(len(graph) - 1)
    graph.append(Work("End", 10.0, tuple(ends)))
    return graph


def chains(rng: random.Random) -> Graph:
    """Forty chains of one to twelve trials, the kinds of a chain in turn."""
    graph: Graph = []
    for _ in range(40):
        for place in range(rng.randint(1, 12)):
            before = (len(graph) - 1,) if place else ()
            graph.append(Work("ABC"[place % 3], rng.lognormvariate(4, 0.5), before, spreads=place % 3 == 2))
    return graph


def layers(rng: random.Random) -> Graph:
    """Three hundred trials in ten layers; each waits for one to three of any layer before."""
    graph: Graph = []
    for layer in range(10):
        known = len(graph)
        for _ in range(30):
            before = tuple(sorted({rng.randrange(known) for _ in range(rng.randint(1, 3))})) if layer else ()
            graph.append(Work(f"Layer {layer}", rng.lognormvariate(4, 1.0), before, spreads=rng.random() < 0.3))
    return graph


def widened(graph: Graph) -> Graph:
    """What trains before others takes two slots, for half as long."""
    wide = {"MoCo", "Segmentation", "Byol", "Summary", "A", "Layer 0", "Layer 3"}
    return [replace(w, width=2, seconds=w.seconds / 2) if w.kind in wide else w for w in graph]


# -- schedules --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A graph with what its trials truly take, and the slots."""

    graph: Graph
    true_s: Sequence[float]
    num_slots: int

    @property
    def bound(self) -> float:
        """No schedule is shorter."""
        work = sum(w.width * s for w, s in zip(self.graph, self.true_s, strict=True))
        return max(work / self.num_slots, max(longest_paths(self.graph, self.true_s)))


def longest_paths(graph: Graph, seconds: Sequence[float]) -> list[float]:
    """From the start of every trial to the end of what waits for it."""
    after = [0.0] * len(graph)
    for i in reversed(range(len(graph))):
        path = seconds[i] + after[i]
        after[i] = path
        for before in graph[i].upstream:
            after[before] = max(after[before], path)
    return after


def list_schedule(world: World, rank: Sequence[float], stop_at: float = math.inf) -> float:
    """The makespan where the ready trial of the lowest rank that fits starts; infinite as soon as it reaches
    ``stop_at``."""
    graph, true_s = world.graph, world.true_s
    missing = [len(w.upstream) for w in graph]
    dependents: dict[int, list[int]] = defaultdict(list)
    for i, w in enumerate(graph):
        for before in w.upstream:
            dependents[before].append(i)
    paths = longest_paths(graph, true_s)
    ready = {
        width: [(rank[i], i) for i, w in enumerate(graph) if not w.upstream and w.width == width] for width in (1, 2)
    }
    for heap in ready.values():
        heapq.heapify(heap)
    free, now, running = world.num_slots, 0.0, [(0.0, -1)]
    while running:
        now, ended = heapq.heappop(running)
        if ended >= 0:
            free += graph[ended].width
            for i in dependents[ended]:
                missing[i] -= 1
                if not missing[i]:
                    heapq.heappush(ready[graph[i].width], (rank[i], i))
        while (heap := min((h for width, h in ready.items() if h and width <= free), default=None)) is not None:
            _, i = heapq.heappop(heap)
            if now + paths[i] >= stop_at:
                return math.inf
            free -= graph[i].width
            heapq.heappush(running, (now + true_s[i], i))
    return now


def best_known(world: World, num_tries: int, rng: random.Random) -> float:
    """The best of list schedules that know the true durations."""
    paths, bound = longest_paths(world.graph, world.true_s), world.bound
    best = list_schedule(world, [-path for path in paths])
    for attempt in range(num_tries - 1):
        if best <= bound * _CLOSE:
            break
        spread = (0.03, 0.1, 0.3)[attempt % 3]
        best = min(best, list_schedule(world, [-path * rng.lognormvariate(0, spread) for path in paths], best))
    return best


def by_queue(world: World, *, helps: bool = False, is_told: bool = False) -> float:
    """The makespan through the real queue, which sees estimates, and durations when they are over.

    With ``is_told`` the estimates are true. With ``helps`` idle slots join the running trials that spread, in equal
    shares.
    """
    estimates = world.true_s if is_told else [w.seconds for w in world.graph]
    trials = [
        Simulated(
            QueuedTrial(_key(i), Demand(Amount(1.0), w.width), tuple(map(_key, w.upstream)), estimate, w.kind, True),
            true_s,
            w.spreads,
        )
        for i, (w, estimate, true_s) in enumerate(zip(world.graph, estimates, world.true_s, strict=True))
    ]
    return makespan_s(trials, Capacity((Amount(float(world.num_slots)),)), helps=helps)


def _key(place: int) -> str:
    return f"{place:06}"


# -- the table --------------------------------------------------------------------------------------------


def worlds(graph: Graph, shared: float, rng: random.Random) -> Iterator[World]:
    """One draw of what trials take, for every number of slots; kinds have a share of the error's variance in common."""
    of_kind = {kind: rng.gauss(0, SIGMA * math.sqrt(shared)) for kind in sorted({w.kind for w in graph})}
    true_s = [w.seconds * rng.lognormvariate(of_kind[w.kind], SIGMA * math.sqrt(1 - shared)) for w in graph]
    work = sum(w.width * s for w, s in zip(graph, true_s, strict=True))
    most = work / max(longest_paths(graph, true_s))
    for num_slots in sorted({max(2, round(share * most)) for share in SHARES}):
        yield World(graph, true_s, num_slots)


@dataclass(frozen=True)
class Variant:
    """Graphs to draw, and how much of the error kinds have in common."""

    make: Callable[[random.Random], Graph]
    is_wide: bool = False
    shared: float = 0.0

    def measure(self, num_draws: int, num_tries: int, seed: int) -> dict[str, list[float]]:
        """Ratios to the best known makespan, over draws and numbers of slots."""
        rng = random.Random(seed)
        ratios: dict[str, list[float]] = defaultdict(list)
        for _ in range(num_draws):
            graph = self.make(rng)
            for world in worlds(widened(graph) if self.is_wide else graph, self.shared, rng):
                found = {
                    "ours": by_queue(world),
                    "told": by_queue(world, is_told=True),
                    "before": list_schedule(world, range(len(world.graph))),
                }
                best = min(best_known(world, num_tries, rng), *found.values())
                found["helped"] = by_queue(world, helps=True)
                for name, makespan in found.items():
                    ratios[name].append(makespan / best)
                ratios["bound"].append(best / world.bound)
        return dict(ratios)


GRAPHS: dict[str, Callable[[random.Random], Graph]] = {
    "thesis": lambda rng: thesis(),
    "BYOL-TracIn": lambda rng: byol_tracin(),
    "fan-in": fan_in,
    "chains": chains,
    "random layers": layers,
}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=3, help="draws of what trials take, a graph")
    parser.add_argument("--tries", type=int, default=1000, help="list schedules of which the best is the best known")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    variants = {}
    for name, make in GRAPHS.items():
        variants[name] = Variant(make)
        variants[f"{name}, wide"] = Variant(make, is_wide=True)
        variants[f"{name}, kinds"] = Variant(make, shared=0.9)
    print(" " * 22 + "".join(f"{which:>14}" for which in COLUMNS) + "   median and worst ratio to the best known")
    figures = {}
    for name, variant in variants.items():
        figures[name] = variant.measure(arguments.draws, arguments.tries, seed=len(figures))
        print(row_of(name, figures[name]), flush=True)
    print(f"goal on the papers' graphs: {GOAL_MEDIAN} in the median, {GOAL_WORST} at worst")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


def row_of(name: str, ratios: dict[str, list[float]]) -> str:
    """A line of the table."""
    median = {which: statistics.median(values) for which, values in ratios.items()}
    worst = {which: max(values) for which, values in ratios.items()}
    said = "any order" if median["before"] < ANY_ORDER else ""
    if name.split(",")[0] in PAPERS and not said:
        met = [which for which in ("ours", "helped") if median[which] <= GOAL_MEDIAN and worst[which] <= GOAL_WORST]
        said = "goal missed" if not met else "goal met" if "ours" in met else "goal met where slots help"
    return f"{name:22}" + "".join(f"{median[which]:8.3f}{worst[which]:6.2f}" for which in COLUMNS) + f"   {said}"


if __name__ == "__main__":
    main()
