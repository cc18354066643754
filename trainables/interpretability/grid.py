"""At which angles, and with how many noise samples, a curve has to be measured: chosen from a pilot.

What a reader needs of a curve is the coefficient of its 90° wave with its interval over images. That interval is as
wide as images differ, which no number of passes changes, and wider by what angles and samples leave of each image's
own coefficient. With σ² the variance of the images' coefficients (both axes), e² that of an image's curve about its
model, and V even angles, the variance of one image's coefficient is

    σ² + 4 e² / V

(each axis of a least-squares wave has 2 e² / V). Even angles are the best for it, so the curve gets even ones. The full
grid is taken to leave as if its V angles were independent, which they are not at steps of a degree: its interval is
held to be narrower than it is. σ² comes from a few images, and the smaller it is the more angles it takes: it is taken
at the lower end of its one-sided interval of 90 % (chi-square, of two axes). Both err on the careful side.

Fewer samples make another map, so another coefficient: a bias, which is measured on the same images of the pilot, and
has to be small beside the half-width of the full grid's interval, its own uncertainty included.

Shapes: E encoders, M numbers of samples, N images, A angles, V angles of the curve.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from trainables.api.wave import NUISANCE_ORDERS, PERIOD_DEG, design, fit_operator, max_harmonics

Floats = np.ndarray[Any, np.dtype[np.float64]]
Complexes = np.ndarray[Any, np.dtype[np.complex128]]

NUM_ANGLES = (30, 36, 45, 60, 72, 90, 120, 180)
"""How many interpolated angles a curve may get, besides all of its grid."""
MOST_BIAS = 0.2
"""Of fewer samples, as a share of the half-width of the interval on one axis: one of 95 % still covers 93 %."""
_LEVEL = 0.05
_CONFIDENCE = 0.9
_MOST_HARMONICS = 4


@dataclass(frozen=True)
class GridChoice:
    """What a pilot chose, and why.

    ``widening``: the expected width of the interval, as a ratio to the full grid's, of the encoder for which it is
    largest; ``bias_share``: likewise, of the chosen number of samples, the bias with its uncertainty as a share of the
    full grid's half-width (0 where all samples are kept). ``std_of_images`` and ``std_about_model``: σ (the estimate
    itself) and e of that encoder.
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
    dice_EMNA: Floats,
    angles_deg_A: Floats,
    sample_counts: Sequence[int],
    full_angles_deg: Sequence[float],
    num_images: int,
    widening: float,
) -> GridChoice:
    """The cheapest grid and number of samples whose interval is hardly wider than the full grid's, for all encoders.

    Args:
        dice_EMNA: of the pilot, for each encoder and number of samples; the last number is the full curve's.
        angles_deg_A: of the pilot: even, none a multiple of 90.
        full_angles_deg: of the full curve; those chosen are among them. Its multiples of 90 and their neighbours in it
            are always kept: the spike there is read from them.
        num_images: of the full curve.
        widening: by what factor the interval may be wider.
    """
    kept = exact_and_neighbours(full_angles_deg)
    interpolated = sorted(set(full_angles_deg) - set(kept))
    pilots = [_Pilot.of(dice_MNA, angles_deg_A, len(interpolated)) for dice_MNA in dice_EMNA]
    place = max(pilot.fewest_samples(num_images) for pilot in pilots)
    num = max(pilot.fewest_angles(place, widening) for pilot in pilots)
    widest = max(pilots, key=lambda pilot: pilot.widening(num, place))
    return GridChoice(
        tuple(sorted({*kept, *spread_evenly(interpolated, num)})),
        sample_counts[place],
        num,
        widest.widening(num, place),
        max(pilot.bias_share(place, num_images) for pilot in pilots),
        math.sqrt(widest.of_images),
        math.sqrt(widest.about_M[-1]),
    )


@dataclass(frozen=True, eq=False)
class _Pilot:
    """What the pilot of one encoder knows.

    ``about_M``: e² for each number of samples; ``of_images``: σ², and ``least_of_images`` the lower end of its
    interval; ``num_full``: interpolated angles of the full grid.
    """

    coefficients_MN: Sequence[Complexes]
    about_M: Sequence[float]
    of_images: float
    least_of_images: float
    num_full: int

    @classmethod
    def of(cls, dice_MNA: Floats, angles_deg_A: Floats, num_full: int) -> _Pilot:
        coefficients_MN, about_M = zip(*(_coefficients(dice_NA, angles_deg_A) for dice_NA in dice_MNA), strict=True)
        total, of_angles = _variance(coefficients_MN[-1]), 4 * about_M[-1] / len(angles_deg_A)
        freedom = 2 * (len(coefficients_MN[-1]) - 1)
        least = total * freedom / float(special.chdtri(freedom, 1 - _CONFIDENCE))
        return cls(coefficients_MN, about_M, max(total - of_angles, 0.0), max(least - of_angles, 0.0), num_full)

    def widening(self, num: int, place: int) -> float:
        """Of the interval on so many angles with that number of samples, over the full grid's."""
        full = self.least_of_images + 4 * self.about_M[-1] / self.num_full
        if num == self.num_full or full == 0:
            return 1.0
        return math.sqrt((self.least_of_images + 4 * self.about_M[place] / num) / full)

    def fewest_angles(self, place: int, widening: float) -> int:
        """All of the grid where no smaller number serves."""
        enough = (num for num in NUM_ANGLES if num < self.num_full and self.widening(num, place) <= widening)
        return next(enough, self.num_full)

    def fewest_samples(self, num_images: int) -> int:
        """Place of the smallest number of samples whose bias is small; the last where none is."""
        places = range(len(self.coefficients_MN) - 1)
        return next((p for p in places if self.bias_share(p, num_images) <= MOST_BIAS), len(self.coefficients_MN) - 1)

    def bias_share(self, place: int, num_images: int) -> float:
        """The bias of a number of samples, its uncertainty included, over the half-width of the full grid's interval on
        one axis."""
        if place == len(self.coefficients_MN) - 1:
            return 0.0
        away_N = self.coefficients_MN[place] - self.coefficients_MN[-1]
        error = math.sqrt(_variance(away_N) / len(away_N))
        reach = abs(away_N.mean()) + _student(len(away_N)) * error
        full = self.of_images + 4 * self.about_M[-1] / self.num_full
        half_width = _student(num_images) * math.sqrt(full / 2 / num_images)
        return float(reach / half_width) if half_width > 0 else math.inf


def exact_and_neighbours(angles_deg: Sequence[float]) -> list[float]:
    """The multiples of 90 of a grid, 0 and 360 included, and what of it lies a degree beside one."""
    return [a for a in angles_deg if min(a % PERIOD_DEG, -a % PERIOD_DEG) <= 1 + 1e-9]


def spread_evenly(among: Sequence[float], num: int) -> list[float]:
    """So many of the angles, as evenly round the circle as they allow, each once."""
    if num >= len(among):
        return list(among)
    left, chosen = list(among), []
    for place in range(num):
        wanted = (place + 0.5) * 360 / num
        nearest = min(left, key=lambda angle: (abs(angle - wanted), angle))
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


def _student(num: int) -> float:
    return float(special.stdtrit(num - 1, 1 - _LEVEL / 2))


def _variance(values_N: Complexes) -> float:
    """Over images, of both axes together."""
    return float((np.abs(values_N - values_N.mean()) ** 2).sum()) / (len(values_N) - 1)
