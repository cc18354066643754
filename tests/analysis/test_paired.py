import numpy as np
import pytest

from analysis.bootstrap import Bootstrap
from analysis.paired import describe, explained
from analysis.resampling import Resampling

RESAMPLING = Resampling([f"{i // 2}" for i in range(24)], Bootstrap(2000, block_length=2))


def correlated(seed):
    rng = np.random.default_rng(seed)
    return np.repeat(rng.normal(size=12), 2) + 0.1 * rng.normal(size=24)


def test_a_real_and_a_complex_coefficient_make_the_same_kind_of_record():
    real = 1.5 + 0.3 * correlated(0)
    wave = real * np.exp(1j) + 0.3j * correlated(1)
    slope, coefficient = describe(real, RESAMPLING), describe(wave, RESAMPLING)
    assert slope.imaginary is None
    assert slope.real == slope.size
    assert slope.size.value == pytest.approx(real.mean())
    assert coefficient.size.value == pytest.approx(abs(wave.mean()))
    assert coefficient.real.value == pytest.approx(wave.mean().real)
    assert coefficient.imaginary.value == pytest.approx(wave.mean().imag)
    for found in (slope, coefficient):
        assert 0 < found.size.low < found.debiased < found.size.value < found.size.high
        assert found.size.value > found.null


def test_a_negative_trend_keeps_its_sign_and_its_size_is_positive():
    values = -1.5 + 0.3 * correlated(0)
    found = describe(values, RESAMPLING)
    assert found.real.high < 0
    assert found.size == pytest.approx((-found.real.value, -found.real.high, -found.real.low))


def test_noise_is_not_called_something():
    found = describe(correlated(2) - correlated(2).mean() + 0.05, RESAMPLING)
    assert found.size.low == 0
    assert found.size.value < found.null
    assert found.debiased < found.size.value


@pytest.mark.parametrize("turn", [1.0, np.exp(0.7j)])
def test_share_and_remainder(turn):
    shared, own = correlated(3), 0.2 * correlated(4)
    reference = (2 + shared) * turn
    half = (1 + shared / 2) * turn
    found = explained(reference, half, RESAMPLING)
    assert found.share == pytest.approx((0.5, 0.5, 0.5))
    assert found.remainder.size.value == pytest.approx(abs(reference.mean()) / 2)
    against = explained(reference, -half, RESAMPLING)
    assert against.share.value == pytest.approx(-0.5)
    noisy = explained(reference, half + own, RESAMPLING)
    assert noisy.share.low < 0.5 < noisy.share.high
    nothing = explained(reference - 0.99 * reference.mean(), half, RESAMPLING)
    assert nothing.share.value > 1
    assert np.isnan(nothing.share[1:]).all(), "a share of what may be 0 has no interval"
    assert np.isnan(explained(0 * reference, half, RESAMPLING).share.value)


def test_shares_are_paired_over_images():
    """Levels of the images that both share cancel in the remainder."""
    shared = 5 * correlated(5)
    found = explained(3 + shared, 2 + shared, RESAMPLING)
    assert found.remainder.real == pytest.approx((1.0, 1.0, 1.0))
    assert describe(3 + shared, RESAMPLING).real.high - describe(3 + shared, RESAMPLING).real.low > 2


def test_few_blocks_have_values_and_no_intervals():
    few = Resampling(["a", "b"], Bootstrap(50))
    found = describe(np.array([1.0, 2.0]), few)
    assert found.size.value == 1.5
    assert np.isnan(found.size[1:]).all()
    assert np.isnan(explained(np.array([1.0, 2.0]), np.array([1.0, 1.0]), few).share[1:]).all()
