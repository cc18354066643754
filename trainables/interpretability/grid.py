"""At which angles, and with how many noise samples, a curve has to be measured: chosen from a pilot.

What a reader needs of a curve is the coefficient of its 90° wave with its interval over images. That interval is as
wide as images differ, which no number of passes changes, and wider by what angles and samples leave of each image's
own coefficient. With σ² the variance of the images' coefficients (both axes), e² that of an image's curve about its
model, and V even angles, the variance of one image's coefficient is

    σ² + 4 e² / V

(each axis of a least-squares wave has 2 e² / V). The full grid is taken to leave as if its V angles were independent,
which they are not at steps of a degree: its interval is held to be narrower than it is, and the choice errs on the
careful side.

Fewer samples make another map, so another coefficient: a bias, which is measured on the same images of the pilot, and
has to be small beside the half-width of the full grid's interval, its own uncertainty included.

Shapes: M numbers of samples, N images, A angles, V angles of the curve.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from trainables.api.wave import NUISANCE_ORDERS, ORDER, PERIOD_DEG, design, fit_operator, max_harmonics

Floats = np.ndarray[Any, np.dtype[np.float64]]
Complexes = np.ndarray[Any, np.dtype[np.complex128]]

NUM_ANGLES = (30, 36, 45, 60, 72, 90, 120, 180)
"""How many interpolated angles a curve may get, besides all of its grid."""
MOST_BIAS = 0.2
"""Of fewer samples, as a share of the half-width of the interval: one of 95 % still covers 93 %."""
_LEVEL = 0.05
_MOST_HARMONICS = 4
_LEAST_DENSITY = 0.75
"""Of angles where the curve is straight, as a share of even ones: gaps stay narrow enough for two harmonics."""


@dataclass(frozen=True)
class GridChoice:
    """What a pilot chose, and why.

    ``widening``: the expected width of the interval, as a ratio to the full grid's. ``bias_share``: of the chosen
    number of samples, the bias with its uncertainty as a share of the full grid's half-width.
    """

    angles_deg: tuple[float, ...]
    num_samples: int
    num_interpolated: int
    widening: float
    bias_share: float
    std_of_images: float
    std_about_model: float

    def write(self, path: Path) -> None:
        """As JSON."""
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> GridChoice:
        """What ``write`` wrote."""
        record = json.loads(path.read_text())
        return cls(**record | {"angles_deg": tuple(record["angles_deg"])})


def choose_grid(
    dice_MNA: Floats,
    angles_deg_A: Floats,
    sample_counts: Sequence[int],
    full_angles_deg: Sequence[float],
    num_images: int,
    widening: float,
) -> GridChoice:
    """The cheapest grid and number of samples whose interval is hardly wider than the full grid's.

    Args:
        dice_MNA: of the pilot, for each number of samples; the last one is the full curve's.
        angles_deg_A: of the pilot: even, none a multiple of 90.
        full_angles_deg: of the full curve; those chosen are among them. Its multiples of 90 and their neighbours in it
            are always kept: the spike there is read from them.
        num_images: of the full curve.
        widening: by what factor the interval may be wider.
    """
    coefficients_MN, about_M = zip(*(_coefficients(dice_NA, angles_deg_A) for dice_NA in dice_MNA), strict=True)
    full_N, about = coefficients_MN[-1], about_M[-1]
    kept = exact_and_neighbours(full_angles_deg)
    interpolated = sorted(set(full_angles_deg) - set(kept))
    of_images = max(_variance(full_N) - 4 * about / len(angles_deg_A), 0.0)
    of_full = of_images + 4 * about / len(interpolated)
    half_width = stats.t.ppf(1 - _LEVEL / 2, num_images - 1) * math.sqrt(of_full / num_images)
    place, bias_share = _fewest_samples(coefficients_MN, half_width)
    ratio, num = 1.0, len(interpolated)
    for fewer in (num for num in NUM_ANGLES if num < len(interpolated)):
        found = math.sqrt((of_images + 4 * about_M[place] / fewer) / of_full) if of_full > 0 else 1.0
        if found <= widening:
            ratio, num = found, fewer
            break
    chosen = interpolated
    if num < len(interpolated):
        chosen = placed(dice_MNA[-1].mean(axis=0), angles_deg_A, interpolated, num)
    return GridChoice(
        tuple(sorted({*kept, *chosen})),
        sample_counts[place],
        len(chosen),
        ratio,
        bias_share,
        math.sqrt(of_images),
        math.sqrt(about),
    )


def exact_and_neighbours(angles_deg: Sequence[float]) -> list[float]:
    """The multiples of 90 of a grid, 0 and 360 included, and what of it lies a degree beside one."""
    return [a for a in angles_deg if min(a % PERIOD_DEG, -a % PERIOD_DEG) <= 1 + 1e-9]


def placed(mean_A: Floats, angles_deg_A: Floats, among: Sequence[float], num: int) -> list[float]:
    """So many of the angles, more of them where the mean curve of the pilot bends.

    Their density is even but for a quarter, which goes with the curvature of the model of the mean curve.
    """
    harmonics = _harmonics(angles_deg_A)
    terms_P = fit_operator(angles_deg_A, harmonics) @ mean_A
    fine_deg = np.arange(0.0, 360.0, 0.5)
    orders_P = np.concatenate([[0], np.repeat([*NUISANCE_ORDERS, *(ORDER * k for k in range(1, harmonics + 1))], 2)])
    bending = np.abs(design(fine_deg, harmonics) @ (terms_P * orders_P**2))
    density = np.full(len(fine_deg), 1.0)
    if bending.max() > 1e-12:
        density = _LEAST_DENSITY + (1 - _LEAST_DENSITY) * bending / bending.mean()
    cumulative = np.concatenate([[0.0], np.cumsum(density)]) / density.sum()
    wanted = np.interp((np.arange(num) + 0.5) / num, cumulative, np.append(fine_deg, 360.0))
    left = list(among)
    chosen = []
    for angle in wanted:
        nearest = min(left, key=lambda a: (abs(a - angle), a))
        left.remove(nearest)
        chosen.append(nearest)
    return sorted(chosen)


def _coefficients(dice_NA: Floats, angles_deg_A: Floats) -> tuple[Complexes, float]:
    """Of each image the coefficient of the wave [N]; and the mean variance about the model."""
    harmonics = _harmonics(angles_deg_A)
    operator_PA = fit_operator(angles_deg_A, harmonics)
    terms_NP = dice_NA @ operator_PA.T
    residual_NA = dice_NA - terms_NP @ design(angles_deg_A, harmonics).T
    freedom = len(angles_deg_A) - operator_PA.shape[0]
    first = 1 + 2 * len(NUISANCE_ORDERS)
    coefficients_N = terms_NP[:, first] + 1j * terms_NP[:, first + 1]
    return coefficients_N, float((residual_NA**2).sum(axis=1).mean()) / freedom


def _harmonics(angles_deg_A: Floats) -> int:
    return min(_MOST_HARMONICS, max_harmonics(angles_deg_A))


def _fewest_samples(coefficients_MN: Sequence[Complexes], half_width: float) -> tuple[int, float]:
    """Place of the fewest samples whose bias is small, and that bias with its uncertainty over the half-width."""
    full_N = coefficients_MN[-1]
    for place, found_N in enumerate(coefficients_MN[:-1]):
        away_N = found_N - full_N
        error = math.sqrt(_variance(away_N) / len(away_N))
        reach = abs(away_N.mean()) + float(stats.t.ppf(1 - _LEVEL / 2, len(away_N) - 1)) * error
        if half_width > 0 and reach <= MOST_BIAS * half_width:
            return place, reach / half_width
    return len(coefficients_MN) - 1, 0.0


def _variance(values_N: Complexes) -> float:
    """Over images, of both axes together."""
    return float((np.abs(values_N - values_N.mean()) ** 2).sum()) / (len(values_N) - 1)
