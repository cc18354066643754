"""At which angles a curve is measured: against curves whose coefficient is known."""

import numpy as np
import pytest
from scipy import stats

from trainables.api.wave import fit_operator
from trainables.interpretability.grid import (
    NUM_ANGLES,
    PILOT_ANGLES_DEG,
    SUBGRID_SIZES,
    _noise_of,
    _Pilot,
    _Variance,
    choose_grid,
    multiples_of_90,
    spread_evenly,
)

FULL = tuple(map(float, range(361)))
TRUE = 0.02 + 0.01j
GOLDEN = (120, 125, 1.0369586112653268, 0.02037584770948162, 0.028081398460585064)
GOLDEN_ANGLES = (0.0, 1.0, 4.0, 7.0, 10.0, 13.0, 16.0, 19.0)


def curves(
    rng, num_images, angles_deg, *, of_images=0.02, noise=0.03, like=None, bumps=(), unequal=False, other_axis=1.0
):
    """Curves [N, A] of images whose coefficients vary about one, with a standard deviation of ``of_images`` on one axis
    and ``other_axis`` times it on the other, or are ``like``; and the coefficients.

    ``noise``: standard deviation at each angle, of ``unequal`` images of another size each. ``bumps``: orders of waves
    of each image's own, of a standard deviation of 0.05 on each axis."""
    theta = np.deg2rad(np.asarray(angles_deg))
    if like is None:
        like = TRUE + of_images * (rng.normal(size=num_images) + 1j * other_axis * rng.normal(size=num_images))
    wave = np.real(like[:, None] * np.exp(-4j * theta))
    level = 0.5 + 0.05 * rng.normal(size=(num_images, 1)) + 0.03 * np.cos(theta - 1)
    for order in bumps:
        own = 0.05 * (rng.normal(size=(num_images, 1)) + 1j * rng.normal(size=(num_images, 1)))
        level = level + np.real(own * np.exp(-1j * order * theta))
    sizes = np.sqrt(rng.gamma(1.1, 1 / 1.1, size=(num_images, 1))) if unequal else 1.0
    return level + wave + noise * sizes * rng.normal(size=wave.shape), like


def chosen(rng, *, num_images=12, widening=1.05, **changes):
    return choose_grid(curves(rng, num_images, PILOT_ANGLES_DEG, **changes)[0][None], FULL, widening)


def interval(dice_NA, angles_deg):
    """Of the real part of the coefficient: middle and half-width of Student's interval over images."""
    places = np.asarray(angles_deg) % 90 > 1e-9
    terms = dice_NA[:, places] @ fit_operator(np.asarray(angles_deg)[places], 2).T
    real = terms[:, 7]
    return real.mean(), stats.t.ppf(0.975, len(real) - 1) * real.std(ddof=1) / np.sqrt(len(real))


def test_interval_and_coverage_are_those_of_the_full_grid_with_a_fifth_of_the_angles():
    rng = np.random.default_rng(0)
    widths, covers, full_covers, counts = [], [], [], []
    for _ in range(300):
        grid = chosen(rng, noise=0.02)
        seen = [a for a in grid.angles_deg if a < 360]
        like = TRUE + 0.02 * (rng.normal(size=75) + 1j * rng.normal(size=75))
        few, _ = curves(rng, 75, seen, like=like, noise=0.02)
        full, _ = curves(rng, 75, FULL[:-1], like=like, noise=0.02)
        (middle, half), (full_middle, full_half) = interval(few, seen), interval(full, FULL[:-1])
        widths.append(half / full_half)
        covers.append(abs(middle - TRUE.real) <= half)
        full_covers.append(abs(full_middle - TRUE.real) <= full_half)
        counts.append(len(seen))
    assert np.mean(widths) < 1.05
    assert np.mean(covers) > 0.92
    assert np.mean(covers) == pytest.approx(np.mean(full_covers), abs=0.03)
    assert np.median(counts) <= 361 / 5 + 4


@pytest.mark.parametrize(
    "changes",
    [{}, {"noise": 0.015}, {"of_images": 0.01, "noise": 0.06}, {"other_axis": 0.0}, {"unequal": True}],
    ids=["white", "little", "much", "one axis", "unequal"],
)
def test_a_pilot_of_few_images_seldom_widens_more_than_was_asked(changes):
    """By the variances that the curves are made of: nine of ten pilots keep to it (of 200, two standard errors below),
    and all but few to twice as much."""
    rng = np.random.default_rng(9)
    of_images, noise = changes.get("of_images", 0.02), changes.get("noise", 0.03)
    variance = of_images**2 * (1 + changes.get("other_axis", 1.0) ** 2)
    true = []
    for _ in range(200):
        num = chosen(rng, **changes).num_interpolated
        sides = [variance + 4 * noise**2 / angles for angles in (num, 356)]
        true.append(np.sqrt(sides[0] / sides[1]))
    assert np.mean(np.array(true) > 1.051) < 0.1 + 2 * 0.021
    assert np.mean(np.array(true) > 1.102) < 0.02


def test_pilots_of_curves_that_are_noise_alone_take_the_full_grid():
    """Then passes alone make the interval narrow."""
    rng = np.random.default_rng(2)
    full = [chosen(rng, of_images=0.0, noise=0.05).num_interpolated == 356 for _ in range(40)]
    assert np.mean(full) > 0.9
    # Of images that do not differ at all there is no interval to widen.
    alike = np.zeros((1, 12, len(PILOT_ANGLES_DEG)))
    assert choose_grid(alike, FULL, 1.05).num_interpolated == min(NUM_ANGLES)


def test_the_width_follows_from_the_variances():
    """With so many images that the bound is the estimate: 4 e² / V beside σ², on both sides."""
    many = 1e9
    pilot = _Pilot(
        _Variance(0.0008 + 4 * 0.0009 / 72, many), [_Variance(0.0012, many)] * 2 + [_Variance(0.0009, many)], 356
    )
    assert pilot.image_variance == pytest.approx(0.0008)
    full = 0.0008 + 4 * 0.0009 / 356
    for num, noise in ((18, 0.0012), (24, 0.0012), (36, 0.0009), (72, 0.0009), (120, 0.0009)):
        assert pilot.widening(num) ** 2 == pytest.approx((0.0008 + 4 * noise / num) / full, rel=1e-4)
    assert pilot.widening(356) == 1.0


def test_few_degrees_of_freedom_make_the_bound_that_of_f():
    pilot = _Pilot(_Variance(0.001, 22.0), [_Variance(0.001, 72.0)] * 3, 356)
    ratio = stats.f.ppf(0.9, 22, 72)
    of_images = 1 - 4 * ratio / 72
    expected = (of_images + 4 * ratio / 36) / (of_images + 4 * ratio / 356)
    assert pilot.widening(36) ** 2 == pytest.approx(expected)


def test_noise_of_angles_is_measured_without_bias_and_counts_images_that_differ():
    rng = np.random.default_rng(4)
    equal, unequal = (
        [
            [_noise_of(curves(rng, 12, PILOT_ANGLES_DEG, unequal=u)[0], size) for size in SUBGRID_SIZES]
            for _ in range(100)
        ]
        for u in (False, True)
    )
    for place, size in enumerate(SUBGRID_SIZES):
        assert np.mean([row[place].variance for row in equal]) == pytest.approx(0.0009, rel=0.05)
        most = 2 * (72 // size - 1) * 12
        assert 0.75 * most < np.median([row[place].freedom for row in equal]) <= most
        assert np.median([row[place].freedom for row in unequal]) < 0.75 * most


def test_waves_that_even_angles_do_not_mistake_for_the_90_degree_wave_cost_no_angles():
    """Of what the model does not explain only the orders V ± 4 and their like reach the coefficient."""
    counts = {
        bumps: chosen(np.random.default_rng(11), noise=0.01, bumps=bumps).num_interpolated
        for bumps in ((), (5, 7, 9), (26, 34, 41), (14,), (14, 20), (14, 20, 32))
    }
    assert counts[()] == counts[(5, 7, 9)] == counts[(26, 34, 41)] == 18
    assert counts[(14,)] == 24  # 14 is 18 - 4
    assert counts[(14, 20)] == 36  # 20 is 24 - 4
    assert counts[(14, 20, 32)] > 72  # 32 is 36 - 4


@pytest.mark.parametrize("order", [14, 20, 26, 32, 34, 41, 56])
def test_a_line_of_the_spectrum_seldom_widens_more_than_was_asked(order):
    """Found by the coefficients of the images themselves on the chosen grid, not by the rule's own formula."""
    rng = np.random.default_rng(order)
    wide = []
    for _ in range(30):
        seen = [a for a in chosen(rng, noise=0.01, bumps=(order,)).angles_deg if a < 360]
        state = rng.bit_generator.state
        found = []
        for angles in (seen, FULL[:-1]):
            rng.bit_generator.state = state
            dice, _ = curves(rng, 2000, angles, noise=0.0, bumps=(order,))
            found.append(interval(dice, angles)[1])
        wide.append(found[0] / found[1] > 1.1)
    assert np.mean(wide) < 0.1


def test_angles_are_of_the_full_grid_each_once_and_keep_the_multiples():
    grid = chosen(np.random.default_rng(5))
    assert set(grid.angles_deg) <= set(FULL)
    assert list(grid.angles_deg) == sorted(set(grid.angles_deg))
    assert multiples_of_90(FULL) == [0.0, 90.0, 180.0, 270.0, 360.0]
    assert set(multiples_of_90(FULL)) <= set(grid.angles_deg)
    assert len(grid.angles_deg) == grid.num_interpolated + 5


@pytest.mark.parametrize("num", [num for num in NUM_ANGLES if 360 % num == 0])
def test_interpolated_angles_are_even(num):
    angles = spread_evenly([a for a in FULL if a % 90], num)
    assert {*np.diff(angles)} == {360 / num}


def test_a_grid_of_fewer_angles_than_any_number_is_kept():
    coarse = tuple(map(float, range(0, 361, 30)))
    assert choose_grid(np.random.default_rng(0).random((1, 4, 72)), coarse, 1.05).angles_deg == coarse
    assert spread_evenly([1.0, 2.0], 5) == [1.0, 2.0]


def test_the_grid_serves_every_encoder_of_the_pilot():
    """One whose images hardly differ takes more angles."""
    rng = np.random.default_rng(8)
    easy, alike = (curves(rng, 12, PILOT_ANGLES_DEG, of_images=size, noise=0.015)[0] for size in (0.04, 0.012))
    alone, other, both = (choose_grid(np.array(each), FULL, 1.05) for each in ([easy], [alike], [easy, alike]))
    assert other.num_interpolated > alone.num_interpolated
    assert both == other


def test_the_pilots_angles_part_into_even_grids():
    assert {*np.diff(PILOT_ANGLES_DEG)} == {5.0}
    assert not any(angle % 90 == 0 for angle in PILOT_ANGLES_DEG)
    assert all(len(PILOT_ANGLES_DEG) % size == 0 for size in SUBGRID_SIZES)
    assert all(num in SUBGRID_SIZES or num > max(SUBGRID_SIZES) for num in NUM_ANGLES)


def test_the_rule_is_as_it_was():
    """A change of the rule changes grids under keys that stay: raise the version of CurvePilot with it."""
    grid = chosen(np.random.default_rng(10))
    assert (grid.num_interpolated, len(grid.angles_deg)) == GOLDEN[:2]
    assert (grid.widening, grid.std_of_images, grid.std_of_noise) == pytest.approx(GOLDEN[2:], rel=1e-9)
    assert grid.angles_deg[:8] == GOLDEN_ANGLES


def test_the_choice_is_a_function_of_what_was_measured():
    assert chosen(np.random.default_rng(6)) == chosen(np.random.default_rng(6))
    assert chosen(np.random.default_rng(6)) != chosen(np.random.default_rng(7))
