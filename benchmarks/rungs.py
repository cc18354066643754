"""Does a search with rungs find as good a setting for the same epochs as Optuna's own successive halving?

Ours promotes asynchronously and stops nothing: what waited at a rung may go on later. Optuna's SuccessiveHalvingPruner
decides once, when a trial reaches a rung. Both get the same sampler (TPE), rungs, reduction and number of points, on
simulated trainings whose loss falls with every epoch towards a value of Branin's or Hartmann's function, with noise:
``even`` curves fall alike, ``crossing`` ones the slower the smaller the first parameter, so that early ranks mislead.
Workers train one segment between two rungs at a time. After so many epochs in all, a contender's choice is the setting
with the best loss at the longest length that any has reached; shown is what that setting is worth without noise at the
full length, above the best there is (regret, mean over the repeats), and the mean paired difference with its 95 %
interval (bootstrap over the repeats; below 0, ours is better). ``all full length`` trains every point to the end.

    python benchmarks/rungs.py [--repeats 20] [--points 60] [--json FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import FloatDistribution

from orchestrator.graph import trials_of
from orchestrator.search.suggestions import Suggestions
from orchestrator.store import Result, Store
from orchestrator.study import Rungs, Search, Study
from trainables.api.identity import FileDigests, Keys
from trainables.api.trainable import Trainable, grows

RUNGS = Rungs((4, 12, 36), 3)
BUDGETS = (200, 400, 600)  # epochs, over all trainings
OBJECTIVE = "val/loss"
# (epochs used in all, length, loss with noise, worth without noise at the full length), in the order of ending
Trace = list[tuple[int, int, float, float]]


def branin(x: tuple[float, ...]) -> float:
    """Branin's function above its minimum, on a log scale, in [0, 1]; two numbers in [0, 1]."""
    a, b = 15 * x[0] - 5, 15 * x[1]
    value = (b - 5.1 / (4 * math.pi**2) * a**2 + 5 / math.pi * a - 6) ** 2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(a)
    return math.log1p(max(0.0, value + 10 - 0.397887)) / math.log1p(308)


_A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann6(x: tuple[float, ...]) -> float:
    """Hartmann's function of six numbers in [0, 1] above its minimum, in [0, 1]."""
    inner = np.exp(-np.sum(_A * (np.array(x) - _P) ** 2, axis=1))
    return float(1 - np.array([1.0, 1.2, 3.0, 3.2]) @ inner / 3.32237)


@dataclass(frozen=True)
class Problem:
    """A function to be found the minimum of, by trainings of some length."""

    name: str
    function: Callable[[tuple[float, ...]], float]
    num_parameters: int
    is_crossing: bool

    @property
    def space(self) -> dict[str, FloatDistribution]:
        return {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(self.num_parameters)}

    def loss(self, params: dict[str, float], length: int) -> float:
        """Without noise, after so many epochs."""
        x = tuple(params.values())
        pace = 2 + 16 * (1 - x[0]) if self.is_crossing else 8.0
        return self.function(x) + 0.8 * math.exp(-length / pace)

    def seen(self, params: dict[str, float], length: int, seed: int) -> float:
        """With noise that belongs to training and length."""
        digest = hashlib.sha256(f"{sorted(params.items())} {length} {seed}".encode()).digest()
        return self.loss(params, length) + 0.02 * float(np.random.default_rng(list(digest[:8])).standard_normal())


PROBLEMS = [
    Problem(f"{name}, {'crossing' if is_crossing else 'even'}", function, num_parameters, is_crossing)
    for name, function, num_parameters in (("Branin", branin, 2), ("Hartmann6", hartmann6, 6))
    for is_crossing in (False, True)
]


@dataclass(frozen=True)
class Curve(Trainable):
    """A simulated training: what the search sees of it is its key."""

    params: dict[str, float]
    num_epochs: int = grows(36)

    def run(self, context):
        raise NotImplementedError("it is simulated")


class MemoryStore(Store):
    """What a search asks a store, in memory."""

    def __init__(self) -> None:
        self.documents: dict[str, dict] = {}
        self.results: dict[str, Result] = {}

    def names(self, path):
        return sorted(name.rpartition("/")[2] for name in self.documents)

    def read_document(self, path):
        return self.documents.get(path)

    def create_document(self, path, document, *, is_durable=False):
        return path not in self.documents and self.documents.setdefault(path, document) is document

    def result(self, key):
        return self.results.get(key)


def ours(problem: Problem, num_points: int, num_workers: int, seed: int, rungs: Rungs | None = RUNGS) -> Trace:
    """The project's search; a promotion is a new trial that pays for the difference of the lengths."""

    def make(params, length=RUNGS.lengths[-1]):
        return {OBJECTIVE: [Curve(params, length)]}

    store, keys = MemoryStore(), Keys(FileDigests())
    search = Search(problem.space, make, {OBJECTIVE: "minimize"}, num_points, seed=seed, rungs=rungs)
    suggestions = Suggestions(Study("s", "?", search=search), store, keys)
    before = dict(zip(RUNGS.lengths, (0, *RUNGS.lengths), strict=False)) if rungs else {RUNGS.lengths[-1]: 0}

    def jobs() -> Iterator[tuple[int, Callable[[], tuple[int, float, float]]] | None]:
        while True:
            study = suggestions.next(store.results.keys(), set(), num_workers)
            if study is None:
                yield None
                continue
            (trial,) = trials_of(study, keys)

            def end(trial=trial):
                params, length = trial.trainable.params, trial.trainable.num_epochs
                loss = problem.seen(params, length, seed)
                store.results[trial.key] = Result(trial.key, {OBJECTIVE: loss}, {}, [], 0.0, 1.0, 1.0, 1, 0.0, {})
                return length, loss, problem.loss(params, RUNGS.lengths[-1])

            yield trial.trainable.num_epochs - before[trial.trainable.num_epochs], end

    return simulate(jobs(), num_workers)


def optuna_s(problem: Problem, num_points: int, num_workers: int, seed: int) -> Trace:
    """Optuna alone, with its pruner; a worker keeps a trial until it is pruned or done."""
    first, *_ = RUNGS.lengths
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=RUNGS.reduction)
    sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    study = optuna.create_study(sampler=sampler, pruner=pruner)
    going_on: list[tuple[optuna.Trial, int]] = []  # trials that their workers keep, with the rung they are to reach

    def jobs() -> Iterator[tuple[int, Callable[[], tuple[int, float, float]]] | None]:
        num_asked = 0
        while True:
            if going_on:
                trial, rung = going_on.pop()
            elif num_asked < num_points:
                trial, rung, num_asked = study.ask(problem.space), 0, num_asked + 1
            else:
                yield None
                continue

            def end(trial=trial, rung=rung):
                length = RUNGS.lengths[rung]
                loss = problem.seen(trial.params, length, seed)
                trial.report(loss, length)
                if rung == len(RUNGS.lengths) - 1:
                    study.tell(trial, loss)
                elif trial.should_prune():
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                else:
                    going_on.append((trial, rung + 1))
                return length, loss, problem.loss(trial.params, RUNGS.lengths[-1])

            yield RUNGS.lengths[rung] - (RUNGS.lengths[rung - 1] if rung else 0), end

    return simulate(jobs(), num_workers)


def simulate(jobs: Iterator[tuple[int, Callable] | None], num_workers: int) -> Trace:
    """Workers take jobs of some epochs; all epochs take equally long."""
    running: list[tuple[int, int, int, Callable]] = []  # end, number, epochs, what happens then
    trace: Trace = []
    now = num_epochs = number = 0
    while True:
        while len(running) < num_workers and (job := next(jobs)) is not None:
            number += 1
            heapq.heappush(running, (now + job[0], number, *job))
        if not running:
            return trace
        now, _, epochs, end = heapq.heappop(running)
        num_epochs += epochs
        trace.append((num_epochs, *end()))


def regret(problem: Problem, trace: Trace, budget: int) -> float:
    """What the choice after so many epochs is worth, above the best there is."""
    known = [entry for entry in trace if entry[0] <= budget]
    longest = max(length for _, length, _, _ in known)
    _, worth = min((loss, worth) for _, length, loss, worth in known if length == longest)
    return worth - best_of(problem)


def best_of(problem: Problem) -> float:
    """The least loss at the full length, by a dense search."""
    if problem.name not in _BEST:
        rng = np.random.default_rng(0)
        points = [
            dict(zip(problem.space, x, strict=True)) for x in rng.random((20_000, problem.num_parameters)).tolist()
        ]
        losses = [problem.loss(point, RUNGS.lengths[-1]) for point in points]
        best = np.array(list(points[int(np.argmin(losses))].values()))
        least, width = min(losses), 0.1
        for _ in range(4000):
            near = np.clip(best + rng.normal(0, width, best.shape), 0, 1)
            loss = problem.loss(dict(zip(problem.space, near.tolist(), strict=True)), RUNGS.lengths[-1])
            least, best, width = (loss, near, width) if loss < least else (least, best, max(1e-4, width * 0.998))
        _BEST[problem.name] = least
    return _BEST[problem.name]


_BEST: dict[str, float] = {}


def interval(differences: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval."""
    rng, values = np.random.default_rng(0), np.array(differences)
    means = rng.choice(values, (4000, len(values))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def main() -> None:
    """Print the table, and leave its figures in a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows, all_differences = list[dict](), list[list[float]]()
    print(
        f"{arguments.points} points, lengths {RUNGS.lengths}, reduction {RUNGS.reduction}, {arguments.repeats} repeats"
    )
    print(f"{'problem':22}{'workers':>8}{'epochs':>8}{'ours':>8}{'Optuna':>8}{'full':>8}   difference (95 % interval)")
    begun_s = time.perf_counter()
    for problem in PROBLEMS:
        for num_workers in (1, 4):
            seeds = range(arguments.repeats)
            traces = {
                "ours": [ours(problem, arguments.points, num_workers, seed) for seed in seeds],
                "optuna": [optuna_s(problem, arguments.points, num_workers, seed) for seed in seeds],
                "full": [ours(problem, BUDGETS[-1] // RUNGS.lengths[-1] + 4, num_workers, s, None) for s in seeds],
            }
            for budget in BUDGETS:
                at = {who: [regret(problem, trace, budget) for trace in of] for who, of in traces.items()}
                differences = [a - b for a, b in zip(at["ours"], at["optuna"], strict=True)]
                all_differences.append(differences)
                mean, low, high = interval(differences)
                means = {who: float(np.mean(of)) for who, of in at.items()}
                rows.append({"problem": problem.name, "workers": num_workers, "epochs": budget, **means,
                             "difference": mean, "low": low, "high": high})  # fmt: skip
                print(
                    f"{problem.name:22}{num_workers:8}{budget:8}{means['ours']:8.3f}{means['optuna']:8.3f}"
                    f"{means['full']:8.3f}   {mean:+.3f} ({low:+.3f} to {high:+.3f})",
                    flush=True,
                )
            used = {who: float(np.mean([trace[-1][0] for trace in of])) for who, of in traces.items()}
            print(
                f"{'':30}   all {arguments.points} points: {used['ours']:.0f} epochs ours, "
                f"{used['optuna']:.0f} Optuna's; {arguments.points * RUNGS.lengths[-1]} at full length"
            )
            rows[-1]["epochs_of_all_points"] = used
    mean, low, high = interval(np.mean(all_differences, axis=0).tolist())  # rows share their seeds
    print(f"over all rows: {mean:+.4f} ({low:+.4f} to {high:+.4f}); {time.perf_counter() - begun_s:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "difference": mean, "low": low, "high": high}, indent=2))


if __name__ == "__main__":
    main()
