import numpy as np
import pytest

from analysis.bootstrap import Bootstrap
from analysis.noise import noise_curves, noise_range
from analysis.resampling import Resampling

ANGLES = np.arange(0, 360, 5.0)
ORDERS = np.arange(1, 9)


def smooth(num, rng, orders=ORDERS):
    """[N, V]: random curves of some harmonics."""
    phase = np.deg2rad(ANGLES) * orders[:, None]
    parts = rng.normal(size=(num, len(orders), 2)) / orders[:, None]
    return parts[:, :, 0] @ np.cos(phase) + parts[:, :, 1] @ np.sin(phase)


NOISE = {
    "eight harmonics": smooth,
    "a 90° wave of any phase": lambda num, rng: smooth(num, rng, np.array([4])),
    "slopes": lambda num, rng: rng.normal(size=(num, 1)) * (ANGLES / 180 - 1),
    "white": lambda num, rng: rng.normal(size=(num, len(ANGLES))),
}


@pytest.mark.parametrize(("num_groups", "size"), [(3, 4), (8, 1), (16, 1)])
@pytest.mark.parametrize("kind", NOISE)
def test_noise_seldom_goes_further_than_it_says_and_what_is_there_does(kind, num_groups, size):
    rng = np.random.default_rng(0)
    groups = [f"person {i}" for i in range(num_groups) for _ in range(size)]
    further = through = 0
    for draw in range(200):
        own = np.repeat(NOISE[kind](num_groups, rng), size, axis=0) + NOISE[kind](len(groups), rng) / 2
        levels = rng.normal(0, 5, (len(groups), 1))
        resampling = Resampling(groups, Bootstrap(200, block_length=size, seed=draw))
        within = noise_range(own + levels, resampling)
        further += np.ptp(own.mean(axis=0)) > within
        through += np.ptp((own + 20 * np.cos(np.deg2rad(ANGLES * 4))).mean(axis=0)) > within
    assert further <= 18  # 9 %: 200 draws of 5 % reach it once in a hundred times
    assert through > 150


def test_noise_is_that_between_blocks_and_not_that_of_the_curve():
    resampling = Resampling(["a", "b", "c", "d"], Bootstrap(300))
    alike = np.tile(np.cos(np.deg2rad(ANGLES)), (4, 1))
    assert noise_range(alike, resampling) == pytest.approx(0, abs=1e-12)
    assert noise_range(alike + np.arange(4.0)[:, None], resampling) == pytest.approx(0, abs=1e-12)
    assert np.abs(noise_curves(alike + np.arange(4.0)[:, None], resampling)).max() > 1
    assert np.isnan(noise_range(alike, Resampling(["a", "a", "b", "b"], Bootstrap(300, block_length=2))))
