"""How often the verdict "learnt" is said of nothing, and how often of something: simulation of analysis.significance.

    python benchmarks/verdicts.py                    # the whole grid, 500 studies a case; some minutes on one core
    python benchmarks/verdicts.py --draws 20         # seconds: does it run at all
    python benchmarks/verdicts.py --json figures.json

The coefficient of encoder s on image i is

    c[s, i] = image[i] + arm[i] + seed[s] + own[s, i]

``image`` is shared by all encoders, ``arm`` by the trained ones, ``own`` is one encoder's; all three are correlated
along the slices of a volume. In units of the standard deviation (on each axis) of an encoder's mean over images, which
``seed`` and the mean of ``own`` make up by halves.

Three questions:

- ``alike``: trained and untrained encoders are exchangeable (no ``arm``); the spreads of the two may differ 1:2.
- ``images``: the trained encoders agree on a difference that these images have and people on the whole do not: ``arm``
  is large, its expectation 0. The test over seeds calls it real, and is right; the interval has to hold it back.
  One volume (1x30, 1x75) never says "learnt"; the column ``interval`` shows whether its own interval holds. The same
  series as images whose patients are not known may say it.
- ``effect``: the trained encoders lie ``effect`` seed-SDs away on every image.

The rates are those of the whole verdict, as ``verdicts`` gives it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.significance import Comparison, Outcome, verdicts
from trainables.api.card import Groups

RANDOM_WALK = 1.0  # a correlation of 1: slices drift through the volume


@dataclass(frozen=True)
class Case:
    """``kind``: what is known of the groups; of ``images`` one series, neighbours alike, no patients.

    ``correlation`` of neighbouring slices; ``spread`` of the trained seeds over that of the untrained ones;
    ``ellipse``: the axes of all spreads in the plane, 0 for a real coefficient; ``effect`` in seed-SDs."""

    question: str
    num_trained: int
    num_untrained: int
    num_groups: int
    images_a_group: int
    correlation: float
    spread: float = 1.0
    ellipse: float = 1.0
    effect: float = 0.0
    kind: Groups = "patients"
    num_sets: int = 1
    """Data sets and sweeps of the study, alike and independent; what is said of any counts."""


@dataclass(frozen=True)
class Rates:
    """Shares of all draws: said "learnt", the test over seeds alone, the interval alone (also that of one volume)."""

    learnt: float
    seed_test: float
    interval: float


def slices(case: Case, rows: int, rng: np.random.Generator) -> NDArray[np.complex128]:
    """Unit-variance values along the slices, [rows, N]: AR(1) within each volume, or a random walk."""
    shape = (rows, case.num_groups, case.images_a_group)
    steps = _points(case, shape, rng)
    if case.correlation == RANDOM_WALK:
        return (np.cumsum(steps, axis=2) / np.sqrt((case.images_a_group + 1) / 2)).reshape(rows, -1)
    values = np.empty_like(steps)
    values[:, :, 0] = steps[:, :, 0]
    for i in range(1, case.images_a_group):
        rest = np.sqrt(1 - case.correlation**2)
        values[:, :, i] = case.correlation * values[:, :, i - 1] + rest * steps[:, :, i]
    return values.reshape(rows, -1)


def draw(case: Case, rng: np.random.Generator) -> Comparison:
    """One study."""
    scale = np.repeat([case.spread, 1.0], [case.num_trained, case.num_untrained])[:, None]
    own = slices(case, len(scale), rng)
    own *= np.sqrt(0.5) / _sd_of_mean(case)
    seeds = np.sqrt(0.5) * _points(case, (len(scale), 1), rng)
    values = slices(case, 1, rng) * 3 + scale * (seeds + own)
    if case.question == "images":
        values[: case.num_trained] += slices(case, 1, rng) * 10 / _sd_of_mean(case)
    values[: case.num_trained] += case.effect
    found = values.real if case.ellipse == 0 else values
    numbers = np.arange(found.shape[1]) // (1 if case.kind == "images" else case.images_a_group)
    groups = [f"{number:03d}" for number in numbers]
    return Comparison(found[: case.num_trained], found[case.num_trained :], groups, case.kind)


def rates(case: Case, num_draws: int, seed: int = 0) -> Rates:
    """Rates of the verdict over ``num_draws`` studies."""
    rng = np.random.default_rng(seed)
    counts: Counter[str] = Counter()
    for _ in range(num_draws):
        found = verdicts({place: draw(case, rng) for place in range(case.num_sets)}).values()
        counts["learnt"] += any(v.outcome is Outcome.LEARNT for v in found)
        counts["seed_test"] += any(v.p_adjusted is not None and v.p_adjusted < 0.05 for v in found)
        counts["interval"] += any(v.interval is not None and v.interval.leaves_out_zero for v in found)
    return Rates(*(counts[name] / num_draws for name in ("learnt", "seed_test", "interval")))


def _points(case: Case, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.complex128]:
    return rng.normal(size=shape) * max(case.ellipse, 1.0) + 1j * rng.normal(size=shape) * (case.ellipse > 0)


def _sd_of_mean(case: Case) -> float:
    """Standard deviation of the mean over all images of unit-variance slices."""
    n = case.images_a_group
    if case.correlation == RANDOM_WALK:
        weights = np.arange(n, 0, -1) / n
        return float(np.sqrt((weights**2).sum() / ((n + 1) / 2) / case.num_groups))
    lags = np.arange(1, n)
    return float(np.sqrt((n + 2 * ((n - lags) * case.correlation**lags).sum()) / n**2 / case.num_groups))


def grid() -> Iterator[Case]:
    """Nothing to be found (exchangeable encoders; images that agree by chance), then something to be found."""
    layouts = [(8, 1), (4, 4), (3, 10), (10, 3), (15, 5), (75, 1)]
    for (groups, images), correlation in itertools.product(layouts, (0.0, 0.5, 0.9, RANDOM_WALK)):
        if images == 1 and correlation > 0:
            continue
        layout = (groups, images, correlation)
        for seeds, spread, ellipse in itertools.product((3, 5, 10), (1.0, 2.0), (0.0, 1.0, 3.0)):
            yield Case("alike", seeds, seeds, *layout, spread, ellipse)
        for ellipse in (0.0, 1.0, 3.0):
            yield Case("images", 5, 5, *layout, ellipse=ellipse)
        for seeds, effect in ((3, 3.0), (5, 2.0), (10, 2.0)):
            for ellipse in (0.0, 1.0):
                yield Case("effect", seeds, seeds, *layout, ellipse=ellipse, effect=effect)
    for question, num_sets, ellipse in itertools.product(("alike", "images"), (4, 8), (0.0, 1.0)):
        yield Case(question, 5, 5, 15, 5, 0.5, ellipse=ellipse, num_sets=num_sets)
    for images, correlation in itertools.product((30, 75), (0.0, 0.5, 0.9, RANDOM_WALK)):
        for ellipse in (0.0, 1.0, 3.0):
            yield Case("images", 5, 5, 1, images, correlation, ellipse=ellipse, kind="slabs of one volume")
            yield Case("images", 5, 5, 1, images, correlation, ellipse=ellipse, kind="images")
    for images, ellipse in itertools.product((8, 30, 75), (0.0, 1.0)):
        yield Case("effect", 5, 5, 1, images, 0.0, ellipse=ellipse, effect=2.0, kind="images")
    for numbers, spread in itertools.product(((3, 6), (6, 3), (3, 10)), (0.5, 1.0, 2.0)):
        for ellipse in (0.0, 1.0, 3.0):
            yield Case("alike", *numbers, 15, 5, 0.5, spread, ellipse)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=500, help="studies a case")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    start = time.perf_counter()
    print(f"{arguments.draws} studies a case; standard error of 5 % is {(0.05 * 0.95 / arguments.draws) ** 0.5:.2%}")
    print(f"{'question':9}{'seeds':>7}{'images':>8}{'corr.':>7}{'groups are':>21}{'sets':>5}{'spread':>8}"
          f"{'axes':>6}{'effect':>8}{'learnt':>9}{'test':>8}{'interval':>10}")  # fmt: skip
    found = []
    for number, case in enumerate(grid()):
        result = rates(case, arguments.draws, seed=number)
        found.append(asdict(case) | asdict(result))
        axes = "real" if case.ellipse == 0 else f"{case.ellipse:g}:1"
        correlation = "walk" if case.correlation == RANDOM_WALK else f"{case.correlation:g}"
        print(f"{case.question:9}{case.num_trained:>4}+{case.num_untrained:<2}{case.num_groups:>5}x{case.images_a_group:<2}"
              f"{correlation:>7}{case.kind:>21}{case.num_sets:>5}{case.spread:>8g}{axes:>6}{case.effect:>8g}{result.learnt:>9.1%}{result.seed_test:>8.1%}"
              f"{result.interval:>10.1%}", flush=True)  # fmt: skip
    for question in ("alike", "images", "effect"):
        shares = [row["learnt"] for row in found if row["question"] == question]
        print(f"{question}: learnt {min(shares):.1%} to {max(shares):.1%} in {len(shares)} cases")
    print(f"{time.perf_counter() - start:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps({"draws": arguments.draws, "cases": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
