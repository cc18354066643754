"""At which angles a curve has to be measured: chosen from a pilot.

What a reader needs of a curve is the coefficient of its 90° wave with its interval over images. That interval is as
wide as images differ, which no number of passes changes, and wider by what the choice of angles leaves of each image's
own coefficient. Of V even angles it is

    variance of a coefficient = σ² + 4 e² / V

with σ² the variance over images (both axes), and e² that of a noise which, drawn for each angle by itself, would leave
as much. A curve is smooth for the most part, and of what no wave of the model explains only the orders V ± 4, 2V ± 4,
... reach the coefficient. So e² is not taken from residuals: the pilot's angles are parted into interleaved even grids
of V angles, whose coefficients of one image differ by just that. Only numbers of angles into which the pilot's can be
parted are chosen, and beyond them such as are finer than all of these, for which the finest one's e² is taken. Even
angles are the best for the coefficient, so the curve gets even ones, and the multiples of 90° beside them.

The ratio of e² to σ² comes from a few images: it is taken at the upper end of its one-sided interval of 90 % (F, with
Satterthwaite's degrees of freedom, as the axes and the images differ in their variances). The full grid is taken to
leave as if its angles were independent, which they are not at steps of a degree, and so to give a narrower interval
than it does.

What is not seen: features that the pilot's own grid mistakes for the wave (orders 68 and 76), and features of all
images alike that are narrower than a step of the chosen grid. A peak of 0.02 within 1.5° of every multiple of 90° is a
quarter of a half-width of 75 images whose coefficients have σ = 0.028.

Noise samples are not chosen: fewer make another map, so another coefficient, by more than a small pilot can rule out.

Shapes: E encoders, N images, A angles of the pilot, G interleaved grids, V angles of the curve.
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
"""Even, none a multiple of 90 degrees."""
SUBGRID_SIZES = (18, 24, 36)
"""Numbers of angles of the even grids into which the pilot's are parted."""
NUM_ANGLES = (*SUBGRID_SIZES, 72, 120, 180)
"""How many interpolated angles a curve may get, besides all of its grid."""
_CONFIDENCE = 0.9
_MOST_HARMONICS = 4


@dataclass(frozen=True)
class GridChoice:
    """What a pilot chose, and why.

    ``widening``: how much wider the interval is than the full grid's at most (a bound of 90 %), as a ratio, of the
    encoder for which that is largest. ``std_of_images`` and ``std_of_noise``: σ and e of that encoder for the chosen
    number of angles, the estimates themselves.
    """

    angles_deg: tuple[float, ...]
    num_interpolated: int
    widening: float
    std_of_images: float
    std_of_noise: float

    def write(self, path: Path) -> None:
        """As JSON."""
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> GridChoice:
        """What ``write`` wrote."""
        record = json.loads(path.read_text())
        return cls(**record | {"angles_deg": tuple(record["angles_deg"])})


def choose_grid(dice_ENA: Floats, full_angles_deg: Sequence[float], widening: float) -> GridChoice:
    """The fewest angles whose interval is hardly wider than the full grid's, for all encoders.

    Args:
        dice_ENA: of each encoder of the pilot, at ``PILOT_ANGLES_DEG``.
        full_angles_deg: of the full curve; those chosen are among them. Its multiples of 90 are always kept.
        widening: by what factor the interval may be wider.
    """
    multiples = multiples_of_90(full_angles_deg)
    interpolated = sorted(set(full_angles_deg) - set(multiples))
    pilots = [_Pilot.of(dice_NA, len(interpolated)) for dice_NA in dice_ENA]
    numbers = (*(num for num in NUM_ANGLES if num < len(interpolated)), len(interpolated))
    num = next(num for num in numbers if all(pilot.widening(num) <= widening for pilot in pilots))
    widest = max(pilots, key=lambda pilot: pilot.widening(num))
    return GridChoice(
        tuple(sorted({*multiples, *spread_evenly(interpolated, num)})),
        num,
        widest.widening(num),
        math.sqrt(widest.image_variance),
        math.sqrt(widest.noise_of(num).variance),
    )


@dataclass(frozen=True)
class _Variance:
    """An estimate, and its degrees of freedom."""

    variance: float
    freedom: float


@dataclass(frozen=True)
class _Pilot:
    """What the pilot of one encoder knows.

    ``of_coefficients``: their variance over images on the pilot's grid, which is σ² + 4 e² / A; ``of_noise``: e² for
    each of ``SUBGRID_SIZES``; ``num_full``: interpolated angles of the full grid.
    """

    of_coefficients: _Variance
    of_noise: Sequence[_Variance]
    num_full: int

    @classmethod
    def of(cls, dice_NA: Floats, num_full: int) -> _Pilot:
        coefficients_N = _coefficients(dice_NA, PILOT_ANGLES_DEG)
        return cls(_variance_over(coefficients_N), [_noise_of(dice_NA, size) for size in SUBGRID_SIZES], num_full)

    @property
    def image_variance(self) -> float:
        """σ²."""
        of_angles = 4 * self.of_noise[-1].variance / len(PILOT_ANGLES_DEG)
        return max(self.of_coefficients.variance - of_angles, 0.0)

    def noise_of(self, num: int) -> _Variance:
        """e² of so many angles: of the same number, or of the finest subgrid where they are finer than it."""
        return self.of_noise[SUBGRID_SIZES.index(num) if num in SUBGRID_SIZES else -1]

    def widening(self, num: int) -> float:
        """Upper bound of the interval on so many angles, over the full grid's."""
        if num == self.num_full or self.of_coefficients.variance == 0:
            return 1.0
        noise, total = self.noise_of(num), self.of_coefficients
        bound = float(special.fdtri(total.freedom, noise.freedom, _CONFIDENCE)) if noise.variance else 1.0

        def relative(noise: _Variance, num_angles: int) -> float:
            return 4 * bound * noise.variance / total.variance / num_angles

        # What is left of the whole for the images themselves.
        of_images = max(1 - relative(self.of_noise[-1], len(PILOT_ANGLES_DEG)), 0.0)
        full = of_images + relative(self.of_noise[-1], self.num_full)
        return math.sqrt((of_images + relative(noise, num)) / full)


def multiples_of_90(angles_deg: Sequence[float]) -> list[float]:
    """Those of a grid, 0 and 360 included."""
    return [a for a in angles_deg if min(a % PERIOD_DEG, -a % PERIOD_DEG) <= 1e-9]


def spread_evenly(among: Sequence[float], num: int) -> list[float]:
    """So many of the angles, as evenly round the circle as they allow, each once."""
    if num >= len(among):
        return list(among)
    left, chosen = list(among), []
    for place in range(num):
        # Begun where no even grid of ``NUM_ANGLES`` meets a multiple of 90, nor halves of a degree.
        wanted = (place + 0.4) * 360 / num
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


def _variance_over(coefficients_N: Complexes) -> _Variance:
    """Over images, of both axes together."""
    axes_N2 = np.stack([coefficients_N.real, coefficients_N.imag], axis=1)
    of_axes_22 = np.cov(axes_N2.T)
    trace = float(np.trace(of_axes_22))
    share = trace**2 / float((of_axes_22**2).sum()) if trace else 2.0
    return _Variance(trace, share * (len(coefficients_N) - 1))


def _noise_of(dice_NA: Floats, size: int) -> _Variance:
    """e² for even grids of so many angles, from the coefficients that interleaved ones give of each image."""
    num_grids = len(PILOT_ANGLES_DEG) // size
    found_GN = np.stack(
        [_coefficients(dice_NA[:, g::num_grids], PILOT_ANGLES_DEG[g::num_grids]) for g in range(num_grids)]
    )
    away_GN = found_GN - found_GN.mean(axis=0)
    variances_N = (np.abs(away_GN) ** 2).sum(axis=0) / (num_grids - 1)
    mean = float(variances_N.mean())
    freedom = 2.0 * (num_grids - 1) * len(variances_N)
    if mean:
        # The mean over images that differ in their noise varies by these, too.
        spread = float(variances_N.var(ddof=1)) / mean**2
        freedom = min(freedom, 2 * len(variances_N) / spread) if spread else freedom
    return _Variance(mean * size / 4, freedom)
