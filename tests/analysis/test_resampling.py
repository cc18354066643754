import numpy as np
import pytest

from analysis.blocks import blocks_of
from analysis.resampling import Bootstrap, Resampling


def test_blocks_are_contiguous_and_stay_within_a_group():
    groups = ["a"] * 7 + ["b"] * 2 + ["c"] * 4
    assert blocks_of(groups, 3).tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 3]
    assert blocks_of(groups, 1).tolist() == list(range(13))
    with pytest.raises(ValueError, match="'a' do not stand together"):
        blocks_of(["a", "b", "a"], 1)


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
