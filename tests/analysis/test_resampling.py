import numpy as np
import pytest
from scipy import stats

from analysis.bootstrap import Bootstrap
from analysis.resampling import Resampling


def test_same_seed_same_intervals_other_seed_other_ones():
    values = np.random.default_rng(0).normal(size=20)

    def interval(seed):
        resampling = Resampling(["v"] * 20, Bootstrap(300, seed=seed))
        return resampling.interval(values.mean(), resampling.weights_BN @ values)

    assert interval(1) == interval(1)
    assert interval(1) != interval(2)


def test_block_bootstrap_is_wider_on_neighbours_that_resemble_each_other():
    rng = np.random.default_rng(0)
    smooth = np.repeat(rng.normal(size=15), 5) + 0.1 * rng.normal(size=75)

    def width(length):
        resampling = Resampling(["v"] * 75, Bootstrap(2000, block_length=length))
        low, high = resampling.interval(smooth.mean(), resampling.weights_BN @ smooth)
        return high - low

    assert width(5) > 1.7 * width(1)


@pytest.mark.parametrize("num_images", [8, 30])
def test_intervals_cover_the_truth(num_images):
    rng = np.random.default_rng(2)
    resampling = Resampling([str(i) for i in range(num_images)], Bootstrap(500))
    mean_hits = magnitude_hits = 0
    for _ in range(400):
        values = rng.normal(0.3, 1.0, num_images)
        low, high = resampling.interval(values.mean(), resampling.weights_BN @ values)
        mean_hits += low <= 0.3 <= high
        points = 0.5 + rng.normal(0, 1, num_images) + 1j * rng.normal(0, 1, num_images)
        low, high = resampling.magnitude_interval(points.mean(), resampling.weights_BN @ points)
        magnitude_hits += low <= 0.5 <= high
    assert 0.92 <= mean_hits / 400 <= 0.985
    assert magnitude_hits / 400 >= 0.93


@pytest.mark.parametrize("num_blocks", [3, 4, 5])
def test_intervals_from_few_blocks_cover_the_truth(num_blocks):
    rng = np.random.default_rng(5)
    resampling = Resampling([str(i) for i in range(num_blocks)], Bootstrap(400))
    draws = 1200
    hits = narrow = in_plane = 0
    for values in rng.normal(0.3, 1.0, (draws, num_blocks)):
        samples = resampling.weights_BN @ values
        low, high = resampling.interval(values.mean(), samples)
        hits += low <= 0.3 <= high
        narrow += np.quantile(samples, 0.025) <= 0.3 <= np.quantile(samples, 0.975)
    for values in rng.normal(size=(draws, num_blocks, 2)) @ np.array([1, 1j]):
        in_plane += resampling.magnitude_interval(values.mean(), resampling.weights_BN @ values)[0] == 0
    assert 0.925 < hits / draws < 0.975
    assert in_plane / draws > 0.925
    assert narrow / draws < 0.88, "or the test could not notice that the widening is lost"


def test_widening_is_student_over_normal_and_the_lost_degree_of_freedom():
    """From 10 blocks on a normal bootstrap distribution gives mean ± t s / sqrt(m), s² with m - 1."""
    values = np.random.default_rng(6).normal(size=10)
    resampling = Resampling([str(i) for i in range(10)], Bootstrap(40_000))
    low, high = resampling.interval(values.mean(), resampling.weights_BN @ values)
    expected = 2 * stats.t.ppf(0.975, 9) * values.std(ddof=1) / np.sqrt(10)
    assert high - low == pytest.approx(expected, rel=0.025)
    points = values + 1j * np.random.default_rng(7).normal(size=10)
    boundary = resampling.region(points.mean(), resampling.weights_BN @ points) - points.mean()
    cov = np.cov(points.real, points.imag) / 10
    axes = np.stack([boundary.real, boundary.imag])
    hotelling = (axes * np.linalg.solve(cov, axes)).sum(axis=0)
    assert hotelling == pytest.approx(2 * 9 / 8 * stats.f.ppf(0.95, 2, 8), rel=0.06)


def test_a_real_coefficient_has_an_interval_on_the_line_and_a_null_of_signs():
    rng = np.random.default_rng(8)
    values = rng.normal(0.8, 1.0, 24)
    resampling = Resampling([str(i) for i in range(24)], Bootstrap(4000))
    samples = resampling.weights_BN @ values
    low, high = resampling.interval(values.mean(), samples)
    assert low > 0
    assert resampling.magnitude_interval(values.mean(), samples) == (low, high)
    assert resampling.magnitude_interval(-values.mean(), -samples) == pytest.approx((low, high))
    assert resampling.magnitude_interval(0.0, samples - values.mean())[0] == 0
    assert resampling.null_magnitude(values) == pytest.approx(1.96 * np.sqrt((values**2).sum()) / 24, rel=0.05)
    blocks = Resampling(["v"] * 24, Bootstrap(4000, block_length=4))
    assert blocks.null_magnitude(np.ones(24)) > 1.5 * resampling.null_magnitude(np.ones(24))


def test_magnitude_of_pure_noise_is_rarely_called_significant():
    rng = np.random.default_rng(3)
    resampling = Resampling([str(i) for i in range(20)], Bootstrap(400))
    lows, nulls, naive = [], [], []
    for _ in range(300):
        points = rng.normal(size=20) + 1j * rng.normal(size=20)
        samples = resampling.weights_BN @ points
        lows.append(resampling.magnitude_interval(points.mean(), samples)[0])
        nulls.append(abs(points.mean()) > resampling.null_magnitude(points))
        naive.append(np.quantile(np.abs(samples), 0.025) > 0)
    assert np.mean(np.array(lows) > 0) < 0.08
    assert np.mean(nulls) < 0.09
    assert np.mean(naive) == 1.0


def test_debiased_magnitude_is_near_the_truth_where_the_plain_one_is_not():
    rng = np.random.default_rng(4)
    resampling = Resampling([str(i) for i in range(20)], Bootstrap(400))
    plain, debiased = [], []
    for _ in range(300):
        points = 0.2 + rng.normal(size=20) + 1j * rng.normal(size=20)
        plain.append(abs(points.mean()) ** 2)
        debiased.append(resampling.debiased_magnitude(points.mean(), resampling.weights_BN @ points) ** 2)
    assert np.mean(plain) == pytest.approx(0.04 + 2 / 20, abs=0.02)
    assert np.mean(debiased) < 0.08


def test_null_shifts_images_of_a_block_together():
    values = np.ones(12, dtype=complex)
    single = Resampling(["v"] * 12, Bootstrap(2000)).null_magnitude(values)
    blocked = Resampling(["v"] * 12, Bootstrap(2000, block_length=4)).null_magnitude(values)
    assert single == pytest.approx(np.sqrt(-np.log(0.05) / 12), rel=0.1)  # Rayleigh
    assert blocked > 1.5 * single


def test_few_blocks_give_no_interval():
    resampling = Resampling(["v"] * 6, Bootstrap(100, block_length=3))
    assert resampling.num_blocks == 2
    assert np.isnan(resampling.interval(0.0, np.zeros(100))).all()
    assert np.isnan(resampling.magnitude_interval(1j, np.full(100, 1j))).all()


def test_no_variation_gives_a_point():
    resampling = Resampling(["v"] * 6, Bootstrap(50))
    assert resampling.magnitude_interval(0j, np.zeros(50, dtype=complex)) == (0.0, 0.0)
    assert resampling.magnitude_interval(3 + 4j, np.full(50, 3 + 4j)) == pytest.approx((5.0, 5.0))
