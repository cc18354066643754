"""At which angles, and with how many noise samples, a curve is measured: against curves whose coefficient is known."""

import numpy as np
import pytest
from scipy import stats

from trainables.api.wave import fit_operator
from trainables.interpretability.grid import (
    FEWER_ANGLES_DEG,
    FEWER_EVERY,
    NUM_ANGLES,
    PARTS,
    PILOT_ANGLES_DEG,
    choose_grid,
    exact_and_neighbours,
    spread_evenly,
)

FULL = tuple(map(float, range(361)))
COUNTS = (10, 25, 50)
TRUE = 0.02 + 0.01j


GOLDEN = (10, 72, 85, 1.0417473069250436, 0.1476246007142152, 0.024275569066746553, 0.02696479049019189)
GOLDEN_ANGLES = (0.0, 1.0, 2.0, 7.0, 12.0, 17.0, 22.0, 27.0)


def curves(rng, num_images, angles_deg, *, of_images=0.02, about=0.03, coefficient=TRUE, like=None, bumps=()):
    """Curves [N, A] with noise at each angle, of images whose coefficients vary about one, with a standard deviation of
    ``of_images`` on each axis, or are ``like``; and the coefficients. ``bumps``: orders of waves of each image's own,
    of a standard deviation of 0.05 on each axis."""
    theta = np.deg2rad(np.asarray(angles_deg))
    if like is None:
        like = coefficient + of_images * (rng.normal(size=num_images) + 1j * rng.normal(size=num_images))
    wave = np.real(like[:, None] * np.exp(-4j * theta))
    level = 0.5 + 0.05 * rng.normal(size=(num_images, 1)) + 0.03 * np.cos(theta - 1)
    for order in bumps:
        own = 0.05 * (rng.normal(size=(num_images, 1)) + 1j * rng.normal(size=(num_images, 1)))
        level = level + np.real(own * np.exp(-1j * order * theta))
    return level + wave + about * rng.normal(size=wave.shape), like


def chosen(rng, *, bias=(0.0, 0.0), num_images=16, widening=1.05, **changes):
    """The choice of a pilot whose smaller numbers of samples are off by ``bias``."""
    return chosen_for(fewer(rng, curves(rng, num_images, PILOT_ANGLES_DEG, **changes)[0], bias), widening=widening)


def fewer(rng, dice_NA, bias):
    """Curves with all samples, and with fewer: off by so much, with little noise."""
    shown = dice_NA[:, 1::FEWER_EVERY]
    waves = [b * np.cos(4 * np.deg2rad(FEWER_ANGLES_DEG)) for b in bias]
    return dice_NA, [shown + wave + 0.002 * rng.normal(size=shown.shape) for wave in waves]


def chosen_for(*pilots, counts=COUNTS, num_images=75, widening=1.05):
    """Of (curves with all samples, curves with fewer) of each encoder."""
    every, smaller = zip(*pilots, strict=True)
    return choose_grid(np.array(every), np.array(smaller), counts, FULL, num_images, widening)


def interval(dice_NA, angles_deg):
    """Of the real part of the coefficient: middle and half-width of Student's interval over images."""
    places = np.asarray(angles_deg) % 90 > 1e-9
    terms = dice_NA[:, places] @ fit_operator(np.asarray(angles_deg)[places], 2).T
    real = terms[:, 7]
    return real.mean(), stats.t.ppf(0.975, len(real) - 1) * real.std(ddof=1) / np.sqrt(len(real))


def test_interval_and_coverage_are_those_of_the_full_grid_with_a_quarter_of_the_angles():
    rng = np.random.default_rng(0)
    widths, covers, full_covers, counts = [], [], [], []
    for _ in range(300):
        grid = chosen(rng)
        seen = [a for a in grid.angles_deg if a < 360]
        like = TRUE + 0.02 * (rng.normal(size=75) + 1j * rng.normal(size=75))
        few, _ = curves(rng, 75, seen, like=like)
        full, _ = curves(rng, 75, FULL[:-1], like=like)
        (middle, half), (full_middle, full_half) = interval(few, seen), interval(full, FULL[:-1])
        widths.append(half / full_half)
        covers.append(abs(middle - TRUE.real) <= half)
        full_covers.append(abs(full_middle - TRUE.real) <= full_half)
        counts.append(len(seen))
    assert np.mean(widths) < 1.06
    assert np.mean(covers) > 0.92
    assert np.mean(covers) == pytest.approx(np.mean(full_covers), abs=0.03)
    assert np.median(counts) <= 85


def test_the_expected_width_is_the_one_that_comes():
    rng = np.random.default_rng(1)
    grid = chosen(rng, num_images=4000, of_images=0.01, about=0.05, widening=1.2)
    assert grid.std_of_images == pytest.approx(0.01 * np.sqrt(2), rel=0.1)
    assert grid.std_of_angles == pytest.approx(0.05, rel=0.05)
    ratios = []
    seen = [a for a in grid.angles_deg if a < 360]
    for _ in range(200):
        like = TRUE + 0.01 * (rng.normal(size=75) + 1j * rng.normal(size=75))
        few, full = (curves(rng, 75, angles, like=like, about=0.05)[0] for angles in (seen, FULL[:-1]))
        ratios.append(interval(few, seen)[1] / interval(full, FULL[:-1])[1])
    # Neighbours of the multiples come on top of the interpolated angles that were counted.
    assert 1.0 < np.mean(ratios) < grid.widening * 1.02


def test_images_that_do_not_differ_get_the_full_grid():
    """Then passes alone make the interval narrow."""
    grid = chosen(np.random.default_rng(2), of_images=0.0, about=0.05, num_images=64)
    assert len(grid.angles_deg) > 180


@pytest.mark.parametrize(
    ("bias", "expected"), [((0.0, 0.0), 10), ((0.01, 0.0), 25), ((0.01, 0.01), 50), ((0.0, 0.01), 10)]
)
def test_the_fewest_samples_without_a_bias_are_taken(bias, expected):
    grid = chosen(np.random.default_rng(3), bias=bias)
    assert grid.num_samples == expected
    assert grid.bias_share <= 0.2


def test_a_bias_that_a_small_pilot_cannot_exclude_keeps_the_samples():
    """Four images whose maps differ with the samples: that the mean differs little says nothing."""
    rng = np.random.default_rng(4)
    first, _ = curves(rng, 4, PILOT_ANGLES_DEG)
    odd = 0.02 * np.array([1, -1, 1, -1])[:, None] * np.cos(4 * np.deg2rad(FEWER_ANGLES_DEG))
    grid = chosen_for((first, [first[:, 1::FEWER_EVERY] + odd]), counts=(10, 50))
    assert grid.num_samples == 50


def test_waves_that_even_angles_do_not_mistake_for_the_90_degree_wave_cost_no_angles():
    """Of what the model does not explain only the orders V ± 4 reach the coefficient."""
    counts = {
        bumps: chosen(np.random.default_rng(11), about=0.01, bumps=bumps).num_interpolated
        for bumps in ((), (5, 7, 9), (14,), (14, 20), (14, 20, 32))
    }
    assert counts[()] == counts[(5, 7, 9)] == 18
    assert counts[(14,)] == 24  # 14 is 18 - 4
    assert counts[(14, 20)] == 36  # 20 is 24 - 4
    assert counts[(14, 20, 32)] > 72  # 32 is 36 - 4


def test_samples_that_make_the_maps_noisier_are_paid_for_in_angles():
    rng = np.random.default_rng(12)
    first, _ = curves(rng, 4000, PILOT_ANGLES_DEG, about=0.02)
    noisier = [first[:, 1::FEWER_EVERY] + noise * rng.normal(size=(4000, 24)) for noise in (0.005, 0.04)]
    found = [chosen_for((first, [smaller]), counts=(5, 50)) for smaller in noisier]
    assert [grid.num_samples for grid in found] == [5, 5]
    assert found[1].num_interpolated > found[0].num_interpolated
    # Where samples cost hardly more, they are taken instead of angles.
    assert chosen_for((first, [noisier[1]]), counts=(45, 50)).num_samples == 50


def test_a_method_without_samples_has_angles_alone_to_choose():
    first, _ = curves(np.random.default_rng(13), 16, PILOT_ANGLES_DEG)
    alone = choose_grid(first[None], np.zeros((1, 0)), [0], FULL, 75, 1.05)
    assert alone.num_samples == 0
    assert alone.num_interpolated == chosen_for((first, [first[:, 1::FEWER_EVERY]]), counts=(49, 50)).num_interpolated


def test_the_pilots_angles_part_into_even_grids():
    assert {*np.diff(PILOT_ANGLES_DEG)} == {5.0}
    assert {*np.diff(FEWER_ANGLES_DEG)} == {15.0}
    assert not any(angle % 90 == 0 for angle in PILOT_ANGLES_DEG)
    assert all(len(PILOT_ANGLES_DEG) % part == 0 for part in PARTS)
    assert min(PARTS) == min(NUM_ANGLES)


def test_angles_are_of_the_full_grid_each_once_and_keep_what_a_spike_is_read_from():
    grid = chosen(np.random.default_rng(5))
    assert set(grid.angles_deg) <= set(FULL)
    assert list(grid.angles_deg) == sorted(set(grid.angles_deg))
    spikes = {0.0, 1.0, 89.0, 90.0, 91.0, 179.0, 180.0, 181.0, 269.0, 270.0, 271.0, 359.0, 360.0}
    assert set(exact_and_neighbours(FULL)) == spikes
    assert spikes <= set(grid.angles_deg)
    assert grid.num_interpolated == len(set(grid.angles_deg) - spikes)


def test_interpolated_angles_are_even():
    among = [a for a in FULL if a % 90 > 1 and -a % 90 > 1]
    angles = spread_evenly(among, 60)
    assert len({*angles}) == 60
    assert {*np.diff(angles)} <= {5.0, 6.0, 7.0}
    assert spread_evenly(among[:3], 5) == among[:3]


def test_the_grid_serves_every_encoder_of_the_pilot():
    """One whose images hardly differ takes more angles, one whose maps change takes more samples."""
    rng = np.random.default_rng(8)
    easy = fewer(rng, curves(rng, 16, PILOT_ANGLES_DEG)[0], [0.0])
    alike = fewer(rng, curves(rng, 16, PILOT_ANGLES_DEG, of_images=0.015)[0], [0.0])
    shifted = fewer(rng, easy[0], [0.01])

    def of(*pilots):
        return chosen_for(*pilots, counts=(25, 50))

    alone, other, biased, both = of(easy), of(alike), of(shifted), of(easy, alike)
    assert other.num_interpolated > alone.num_interpolated
    assert (both.num_interpolated, both.num_samples) == (other.num_interpolated, 25)
    assert biased.num_samples == 50
    assert of(alike, shifted).num_samples == 50


def test_a_pilot_of_few_images_seldom_widens_more_than_was_asked():
    """What differs between images is known from 16 of them: it is taken at its lower end."""
    rng = np.random.default_rng(9)
    over = []
    for of_images, about in ((0.02, 0.03), (0.01, 0.03), (0.02, 0.06)):
        for _ in range(100):
            grid = chosen(rng, of_images=of_images, about=about)
            sides = [2 * of_images**2 + 4 * about**2 / num for num in (grid.num_interpolated, 348)]
            over.append(np.sqrt(sides[0] / sides[1]) > 1.05)
    assert np.mean(over) < 0.15


def test_the_rule_is_as_it_was():
    """A change of the rule changes grids under keys that stay: raise the version of CurvePilot with it."""
    grid = chosen(np.random.default_rng(10))
    assert (grid.num_samples, grid.num_interpolated, len(grid.angles_deg)) == GOLDEN[:3]
    assert (grid.widening, grid.bias_share, grid.std_of_images, grid.std_of_angles) == pytest.approx(
        GOLDEN[3:], rel=1e-9
    )
    assert grid.angles_deg[:8] == GOLDEN_ANGLES


def test_the_choice_is_a_function_of_what_was_measured():
    assert chosen(np.random.default_rng(6)) == chosen(np.random.default_rng(6))
    assert chosen(np.random.default_rng(6)) != chosen(np.random.default_rng(7))
