"""At which angles, and with how many noise samples, a curve has to be measured: chosen from a pilot.

What a reader needs of a curve is the coefficient of its 90° wave with its interval over images. That interval is as
wide as images differ, which no number of passes changes, and wider by what angles and samples leave of each image's
own coefficient. With σ² the variance of the images' coefficients (both axes), the variance of one image's coefficient
from V even angles is

    σ² + 4 e² / V

where e² is what noise of that variance, independent from angle to angle, would leave. A curve is smooth for the most
part, and of what no wave of the model explains only the orders V ± 4, 2V ± 4, … reach the coefficient. So e² is not
taken from residuals but measured as what it does: the pilot's angles are parted into interleaved even grids of V
angles, and the coefficients that these give of one image differ by it. It falls with V; of a V that the pilot's grid
cannot be parted into, that of the next coarser one is taken. Even angles are the best for the coefficient, so the
curve gets even ones.

The ratio of e² to σ² comes from a few images: it is taken at the upper end of its one-sided interval of 90 % (F). The
full grid is taken to leave as if its V angles were independent, which they are not at steps of a degree: its interval
is held to be narrower than it is. Both err on the careful side.

Fewer samples make another map, so another coefficient. Its mean over the images of the pilot is a bias, which has to be
small beside the half-width of the full grid's interval, its own uncertainty included; its variance adds to e². Of what
serves, the least angles times samples are taken.

Shapes: E encoders, M numbers of samples but the full one, N images, A angles, B angles of fewer samples, V angles of
the curve.
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

from trainables.api.wave import NUISANCE_ORDERS, PERIOD_DEG, fit_operator, max_harmonics

Floats = np.ndarray[Any, np.dtype[np.float64]]
Complexes = np.ndarray[Any, np.dtype[np.complex128]]

PILOT_ANGLES_DEG = tuple(2.5 + 5.0 * step for step in range(72))
"""Of the pilot with all samples: even, none a multiple of 90 degrees."""
FEWER_EVERY = 3
"""Fewer samples are measured at every third of them, from the second on: 24 angles, even and no multiples likewise."""
FEWER_ANGLES_DEG = PILOT_ANGLES_DEG[1::FEWER_EVERY]
PARTS = (18, 24, 36)
"""Numbers of angles of the even grids into which the pilot's are parted."""
NUM_ANGLES = (18, 24, 30, 36, 45, 60, 72, 90, 120, 180)
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
    full grid's half-width (0 where all samples are kept). ``std_of_images`` and ``std_of_angles``: σ and e of that
    encoder for the chosen number of angles, the estimates themselves.
    """

    angles_deg: tuple[float, ...]
    num_samples: int
    num_interpolated: int
    widening: float
    bias_share: float
    std_of_images: float
    std_of_angles: float

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
    dice_ENA: Floats,
    fewer_EMNB: Floats,
    sample_counts: Sequence[int],
    full_angles_deg: Sequence[float],
    num_images: int,
    widening: float,
) -> GridChoice:
    """The cheapest grid and number of samples whose interval is hardly wider than the full grid's, for all encoders.

    Args:
        dice_ENA: of each encoder of the pilot, at ``PILOT_ANGLES_DEG`` with all samples.
        fewer_EMNB: likewise at ``FEWER_ANGLES_DEG``, for each smaller number of samples; M may be 0.
        sample_counts: the M smaller numbers, rising, and that of the full curve.
        full_angles_deg: of the full curve; those chosen are among them. Its multiples of 90 and their neighbours in it
            are always kept: the spike there is read from them.
        num_images: of the full curve.
        widening: by what factor the interval may be wider.
    """
    kept = exact_and_neighbours(full_angles_deg)
    interpolated = sorted(set(full_angles_deg) - set(kept))
    pilots = [
        _Pilot.of(dice_NA, fewer_MNB, len(interpolated))
        for dice_NA, fewer_MNB in zip(dice_ENA, fewer_EMNB, strict=True)
    ]
    unbiased = [p for p in range(len(sample_counts)) if all(pilot.is_unbiased(p, num_images) for pilot in pilots)]
    options = [
        (place, num)
        for place in unbiased
        for num in (*(num for num in NUM_ANGLES if num < len(interpolated)), len(interpolated))
        if all(pilot.widening(num, place) <= widening for pilot in pilots)
    ]
    place, num = min(options, key=lambda option: sample_counts[option[0]] * (len(kept) + option[1]))
    widest = max(pilots, key=lambda pilot: pilot.widening(num, place))
    return GridChoice(
        tuple(sorted({*kept, *spread_evenly(interpolated, num)})),
        sample_counts[place],
        num,
        widest.widening(num, place),
        max(pilot.bias_share(place, num_images) for pilot in pilots),
        math.sqrt(widest.of_images),
        math.sqrt(widest.of_angles(num)),
    )


@dataclass(frozen=True, eq=False)
class _Pilot:
    """What the pilot of one encoder knows.

    ``away_MN``: by how much the coefficient of each image is another with fewer samples; ``of_parts``: for each of
    ``PARTS``, e²; ``of_images``: σ²; ``num_full``: interpolated angles of the full grid.
    """

    away_MN: Sequence[Complexes]
    of_parts: Sequence[float]
    of_images: float
    num_images: int
    num_full: int

    @classmethod
    def of(cls, dice_NA: Floats, fewer_MNB: Floats, num_full: int) -> _Pilot:
        compared_N = _coefficients(dice_NA[:, 1::FEWER_EVERY], FEWER_ANGLES_DEG)
        away_MN = [_coefficients(fewer_NB, FEWER_ANGLES_DEG) - compared_N for fewer_NB in fewer_MNB]
        of_parts = [_variance_of_parts(dice_NA, part) * part / 4 for part in PARTS]
        total = _variance(_coefficients(dice_NA, PILOT_ANGLES_DEG))
        of_images = max(total - 4 * of_parts[-1] / len(PILOT_ANGLES_DEG), 0.0)
        return cls(away_MN, of_parts, of_images, len(dice_NA), num_full)

    def of_angles(self, num: int) -> float:
        """e² of so many angles."""
        return self.of_parts[_part_below(num)]

    def widening(self, num: int, place: int) -> float:
        """Of the interval on so many angles with that number of samples, over the full grid's."""
        part = _part_below(num)
        freedom = 2 * self.num_images * (len(PILOT_ANGLES_DEG) // PARTS[part] - 1)
        careful = float(special.fdtri(2 * (self.num_images - 1), freedom, _CONFIDENCE))
        # What fewer samples add is noise of the angles, too.
        of_samples = 0.0 if self.has_all_samples(place) else _variance(self.away_MN[place]) * len(FEWER_ANGLES_DEG) / 4
        full = self.of_images + 4 * careful * self.of_parts[-1] / self.num_full
        if full == 0 or (num == self.num_full and self.has_all_samples(place)):
            return 1.0
        return math.sqrt((self.of_images + 4 * careful * (self.of_parts[part] + of_samples) / num) / full)

    def has_all_samples(self, place: int) -> bool:
        """The last number of samples is the full curve's."""
        return place == len(self.away_MN)

    def is_unbiased(self, place: int, num_images: int) -> bool:
        """Whether the bias of a number of samples is small."""
        return self.bias_share(place, num_images) <= MOST_BIAS

    def bias_share(self, place: int, num_images: int) -> float:
        """The bias of a number of samples, its uncertainty included, over the half-width of the full grid's interval on
        one axis."""
        if self.has_all_samples(place):
            return 0.0
        away_N = self.away_MN[place]
        error = math.sqrt(_variance(away_N) / len(away_N))
        reach = abs(away_N.mean()) + _student(len(away_N)) * error
        full = self.of_images + 4 * self.of_parts[-1] / self.num_full
        half_width = _student(num_images) * math.sqrt(full / 2 / num_images)
        return float(reach / half_width) if half_width > 0 else math.inf


def _part_below(num: int) -> int:
    """Place in ``PARTS`` of the finest grid that is no finer than so many angles."""
    return max(place for place, part in enumerate(PARTS) if part <= num)


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


def _coefficients(dice_NA: Floats, angles_deg: Sequence[float]) -> Complexes:
    """Of each image that of the 90° wave [N]."""
    angles_deg_A = np.array(angles_deg)
    operator_PA = fit_operator(angles_deg_A, min(_MOST_HARMONICS, max_harmonics(angles_deg_A)))
    first = 1 + 2 * len(NUISANCE_ORDERS)
    terms_NP = dice_NA @ operator_PA.T
    return np.asarray(terms_NP[:, first] + 1j * terms_NP[:, first + 1])


def _variance_of_parts(dice_NA: Floats, part: int) -> float:
    """Of an image's coefficients from the interleaved even grids of so many angles, both axes together; the mean over
    images."""
    every = len(PILOT_ANGLES_DEG) // part
    found_GN = np.stack(
        [_coefficients(dice_NA[:, first::every], PILOT_ANGLES_DEG[first::every]) for first in range(every)]
    )
    return float(np.mean([_variance(of_image_G) for of_image_G in found_GN.T]))


def _student(num: int) -> float:
    return float(special.stdtrit(num - 1, 1 - _LEVEL / 2))


def _variance(values_N: Complexes) -> float:
    """Of both axes together."""
    return float((np.abs(values_N - values_N.mean()) ** 2).sum()) / (len(values_N) - 1)
