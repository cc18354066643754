import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from synthetic_curves import BLUR, ROTATION

from analysis.bootstrap import Bootstrap
from analysis.curves.sweep import SweepFacts
from analysis.headline import UnknownPeriod, headline
from analysis.paired import describe, explained
from analysis.resampling import Resampling
from analysis.trends import trend
from trainables.api import axis

VALUES = np.array([0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0])
PEOPLE = [f"person {i}" for i in range(16)]
RESAMPLING = Resampling(PEOPLE, Bootstrap(500))


def curves(shape, num_images=16, noise=0.01, seed=0, spread=0.1):
    """[N, V]: the shape, a level of each image, noise."""
    rng = np.random.default_rng(seed)
    return shape + rng.normal(0, spread, (num_images, 1)) + rng.normal(0, noise, (num_images, len(shape)))


# Slopes.


def test_slope_is_weighted_least_squares_without_the_neutral_value():
    scores = curves(0.6 - 0.03 * VALUES)
    scores[:, 0] = 0.95
    used, weights = VALUES[1:], np.array([0.25, 0.75, 1.0, 1.5, 2.5, 1.5]) / 7.5
    assert axis.shares(used, None) == pytest.approx(weights)
    oracle = [np.polyfit(used, row[1:], 1, w=np.sqrt(weights))[0] for row in scores]
    np.testing.assert_allclose(trend.slopes(scores, VALUES, 0.0), oracle, atol=1e-12)
    without = trend.slopes(scores[:, 1:], used, 0.0)
    np.testing.assert_allclose(trend.slopes(scores, VALUES, 0.0), without, atol=1e-15)
    assert np.mean(oracle) == pytest.approx(-0.03, abs=0.002)


def test_dense_values_do_not_move_the_slope_of_a_bent_curve():
    even = np.linspace(1, 9, 400)
    dense = np.unique(np.concatenate([np.linspace(1, 2, 60), np.linspace(2, 9, 30)]))
    truth = trend.slopes(np.sqrt(even)[None], even, 0.0)[0]
    ours = trend.slopes(np.sqrt(dense)[None], dense, 0.0)[0]
    plain = np.polyfit(dense, np.sqrt(dense), 1)[0]
    assert abs(ours - truth) < abs(plain - truth) / 10


def test_standardised_slope_is_the_correlation_of_mean_curve_and_value():
    shape = np.array([0.9, 0.5, 0.52, 0.45, 0.3, 0.33, 0.1])
    found = trend.trend(curves(shape, noise=0.0), VALUES, 0.0, RESAMPLING)
    weights = axis.shares(VALUES[1:], None)
    covariance = np.cov(VALUES[1:], shape[1:], aweights=weights, ddof=0)
    assert found.standardised.value == pytest.approx(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))
    assert -1 <= found.standardised.low <= found.standardised.value <= found.standardised.high <= 0
    assert not found.rises
    exact = trend.trend(curves(0.2 + 0.1 * VALUES, noise=0.0), VALUES, 0.0, RESAMPLING)
    assert exact.standardised == pytest.approx((1, 1, 1))
    assert exact.slope == pytest.approx((0.1, 0.1, 0.1))
    assert exact.rises


def test_slope_interval_covers_the_truth_also_from_few_people():
    rng = np.random.default_rng(1)
    for num_people in (4, 12):
        resampling = Resampling([str(i // 2) for i in range(2 * num_people)], Bootstrap(300, block_length=2))
        hits = 0
        for _ in range(500):
            own = np.repeat(rng.normal(0.02, 0.05, num_people), 2)
            slopes = trend.slopes(own[:, None] * VALUES, VALUES, 0.0)
            _, low, high = describe(slopes, resampling).real
            hits += low <= 0.02 <= high
        assert 0.92 < hits / 500 < 0.985


def test_wrong_input_is_named():
    scores = curves(VALUES)
    bad = scores.copy()
    bad[3, 2] = np.nan
    with pytest.raises(ValueError, match="score of image 3 is nan at 1"):
        trend.slopes(bad, VALUES, 0.0)
    bad = scores.copy()
    bad[3, 0] = np.nan
    assert np.isfinite(trend.slopes(bad, VALUES, 0.0)).all(), "nobody looks at the neutral value"
    with pytest.raises(ValueError, match="must increase"):
        trend.slopes(scores, VALUES[::-1], 0.0)
    with pytest.raises(trend.TooFewValues, match=r"2 values besides the neutral 1, got \[2.0\]"):
        trend.slopes(scores[:, :2], np.array([1.0, 2.0]), 1.0)
    with pytest.raises(ValueError, match=r"shape \(16, 7\) for 3 values"):
        trend.slopes(scores, VALUES[:3], 0.0)


# Monotone part.


def test_isotonic_is_sklearns():
    rng = np.random.default_rng(2)
    rows, weights = rng.normal(size=(300, 9)), rng.uniform(0.1, 1, 9)
    oracle = [IsotonicRegression().fit(np.arange(9), row, weights).predict(np.arange(9)) for row in rows]
    np.testing.assert_allclose(trend.isotonic(rows, weights), oracle, atol=1e-12)
    assert trend.isotonic(np.sort(rows, axis=1), weights) == pytest.approx(np.sort(rows, axis=1))


def test_monotone_share():
    falling = np.exp(-VALUES)
    found = trend.trend(curves(falling, noise=0.0), VALUES, 0.0, RESAMPLING)
    assert found.monotone_share == pytest.approx((1, 1, 1))
    assert not found.rises
    hill = np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    shares = trend.trend(curves(hill, noise=0.0), VALUES, 0.0, RESAMPLING)
    weights = axis.shares(VALUES[1:], None)
    fits = [
        IsotonicRegression(increasing=rises).fit(np.arange(6), hill[1:], weights).predict(np.arange(6))
        for rises in (True, False)
    ]
    whole = weights @ (hill[1:] - weights @ hill[1:]) ** 2
    explained_parts = [1 - weights @ (hill[1:] - fit) ** 2 / whole for fit in fits]
    assert shares.monotone_share.value == pytest.approx(max(explained_parts))
    flat = trend.trend(curves(np.zeros(7), noise=0.0), VALUES, 0.0, RESAMPLING)
    assert np.isnan(flat.monotone_share.value)
    assert np.isnan(flat.monotone_null)


def test_monotone_part_of_noise_is_within_its_null():
    speaks = 0
    for seed in range(200):
        scores = curves(np.zeros(7), noise=0.05, seed=seed)
        found = trend.trend(scores, VALUES, 0.0, Resampling(PEOPLE, Bootstrap(100)))
        speaks += found.monotone_share.value > found.monotone_null
    assert speaks / 200 < 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 200)
    real = trend.trend(curves(-0.1 * VALUES, noise=0.05), VALUES, 0.0, RESAMPLING)
    assert real.monotone_share.value > real.monotone_null


# Where a curve leaves its start.


def test_departure_is_the_first_value_that_stays_outside():
    shape = np.array([0.9, 0.5, 0.5, 0.5, 0.4, 0.35, 0.3])
    (found,) = trend.departures(curves(shape), VALUES, 0.0, RESAMPLING)
    assert (found.side, found.value) == ("above", 3.0)
    assert found.values_V.tolist() == VALUES[1:].tolist()
    assert found.difference_V == pytest.approx(shape[1:] - 0.5, abs=0.01)
    assert (found.low_V[0], found.high_V[0]) == (0, 0)
    back = np.array([0.9, 0.5, 0.5, 0.3, 0.5, 0.3, 0.3])
    assert trend.departures(curves(back), VALUES, 0.0, RESAMPLING)[0].value == 5.0
    returns = np.array([0.9, 0.5, 0.5, 0.3, 0.3, 0.3, 0.5])
    assert trend.departures(curves(returns), VALUES, 0.0, RESAMPLING)[0].value is None
    crosses = np.array([0.9, 0.5, 0.7, 0.7, 0.7, 0.3, 0.3])
    assert trend.departures(curves(crosses), VALUES, 0.0, RESAMPLING)[0].value == 5.0


def test_departures_on_both_sides_of_the_neutral_value_go_outwards():
    factors = np.array([0.2, 0.5, 0.8, 1.0, 1.2, 1.5, 2.0])
    shape = np.array([0.1, 0.3, 0.5, 0.9, 0.6, 0.6, 0.6])
    below, above = trend.departures(curves(shape), factors, 1.0, RESAMPLING)
    assert (below.side, below.values_V.tolist(), below.value) == ("below", [0.8, 0.5, 0.2], 0.5)
    assert (above.side, above.values_V.tolist(), above.value) == ("above", [1.2, 1.5, 2.0], None)
    (crop,) = trend.departures(curves(shape[:4]), factors[:4], 1.0, RESAMPLING)
    assert crop.side == "below"


def test_levels_of_images_do_not_hide_a_departure_and_few_blocks_have_none():
    shape = np.array([0.9, 0.5, 0.5, 0.5, 0.45, 0.45, 0.45])
    scores = curves(shape, spread=3.0)
    assert trend.departures(scores, VALUES, 0.0, RESAMPLING)[0].value == 3.0
    few = trend.departures(scores[:2], VALUES, 0.0, Resampling(PEOPLE[:2], Bootstrap(100)))[0]
    assert few.value is None
    assert np.isnan(few.low_V[1:]).all()
    assert few.difference_V[1:] == pytest.approx(scores[:2, 2:].mean(axis=0) - scores[:2, 1].mean())


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(("num_blocks", "num_values"), [(3, 12), (5, 6), (12, 6), (12, 24)])
def test_band_holds_all_of_a_flat_curve_at_once(num_blocks, num_values, smooth):
    """Of nothing, ``leaves`` is said at most 5 % of the time, and the whole band is left about as rarely."""
    rng, draws = np.random.default_rng(3), 300
    resampling = Resampling([str(i // 2) for i in range(2 * num_blocks)], Bootstrap(2000, block_length=2))
    values = np.arange(num_values + 1.0)
    leaves = outside = 0
    for _ in range(draws):
        noise = np.repeat(rng.normal(size=(num_blocks, num_values + 1)), 2, axis=0)
        scores = np.cumsum(noise, axis=1) if smooth else noise
        found = trend.departures(scores, values, 0.0, resampling)[0]
        leaves += found.value is not None
        outside += bool(((found.low_V > 0) | (found.high_V < 0)).any())
    assert leaves / draws < 0.04
    assert outside / draws < 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / draws)


def test_band_is_not_wider_than_it_has_to_be():
    rng = np.random.default_rng(4)
    resampling = Resampling([str(i) for i in range(40)], Bootstrap(4000))
    values = rng.normal(size=(40, 1)) + 1e-6 * rng.normal(size=(40, 10))
    alike = trend.simultaneous_radius(values, resampling)
    pointwise = 2.02 * values.std(axis=0, ddof=1) / np.sqrt(40)
    assert (alike / pointwise).max() < 1.27, "ten times the same number is little more than one"
    apart = trend.simultaneous_radius(rng.normal(size=(40, 10)), resampling)
    assert (apart * np.sqrt(40)).mean() == pytest.approx(2.97, rel=0.12)  # t, 39 degrees of freedom, 1 - .95^(1/10)


# Records.


def test_headline_is_complex_for_a_turn_and_real_without_period():
    angles = np.arange(0, 361, 5.0)
    turn = 0.5 + 0.02 * np.cos(4 * np.deg2rad(angles - 30)) + 0.3 * (angles % 90 == 0)
    found = headline(np.tile(turn, (3, 1)), angles, ROTATION)
    np.testing.assert_allclose(found, 0.02 * np.exp(1j * np.deg2rad(120)), atol=1e-12)
    scores = curves(-0.1 * VALUES)
    slopes = headline(scores, VALUES, BLUR)
    assert not np.iscomplexobj(slopes)
    np.testing.assert_array_equal(slopes, trend.slopes(scores, VALUES, 0.0))
    with pytest.raises(UnknownPeriod, match="over the hue, which has a period"):
        headline(scores, VALUES, SweepFacts("Hue", "hue", "", 360.0, 0.0))
    with pytest.raises(ValueError, match="no angle to fit the wave to; add angles between"):
        headline(np.zeros((1, 4)), np.array([0.0, 90.0, 180.0, 270.0]), ROTATION)


def test_what_a_control_explains_of_a_trend():
    trained, control = curves(-0.1 * VALUES, seed=5), curves(-0.04 * VALUES, seed=6)
    found = explained(
        headline(trained, VALUES, BLUR),
        headline(control, VALUES, BLUR),
        RESAMPLING,
    )
    assert found.share.low < 0.4 < found.share.high
    assert found.share.value == pytest.approx(0.4, abs=0.02)
    assert found.remainder.real.high < 0
    assert found.remainder.size.value == pytest.approx(0.06, abs=0.003)
