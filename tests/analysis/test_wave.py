import numpy as np
import pytest
from synthetic_curves import GRID_5, GRID_FINE, wave_curve

from analysis.rotation import wave
from trainables.api import axis

HARMONICS = ((2, 0.007, 10.0), (3, 0.003, 5.0))
FOUR = (*HARMONICS, (4, 0.005, 7.0))


@pytest.mark.parametrize("grid", [GRID_5, GRID_FINE, np.arange(0, 361, 1.0), np.arange(0, 360, 7.0)])
def test_recovers_amplitude_phase_and_harmonics_exactly(grid):
    angles = grid[grid < 360]
    curve = wave_curve(angles, amplitude=0.02, peak_deg=66.0, harmonics=HARMONICS)
    slow = (
        0.05 * np.cos(np.deg2rad(angles))
        - 0.02 * np.sin(2 * np.deg2rad(angles))
        + 0.01 * np.cos(3 * np.deg2rad(angles))
    )
    fit = wave.fit_wave((curve + slow)[None], angles, 3)
    assert abs(fit.coefficients()[0]) == pytest.approx(0.02, abs=1e-12)
    assert wave.phase_deg(fit.coefficients()[0]) == pytest.approx(66.0, abs=1e-9)
    assert abs(fit.coefficients(2)[0]) == pytest.approx(0.007, abs=1e-12)
    assert wave.phase_deg(fit.coefficients(2)[0], 2) == pytest.approx(10.0, abs=1e-9)
    assert abs(fit.coefficients(3)[0]) == pytest.approx(0.003, abs=1e-12)
    np.testing.assert_allclose(fit.predict(angles)[0], curve + slow, atol=1e-12)
    np.testing.assert_allclose(fit.wave(angles)[0], curve - 0.5, atol=1e-12)


def test_each_harmonic_is_read_from_its_own_terms():
    angles = GRID_FINE[GRID_FINE < 360]
    curve = wave_curve(angles, amplitude=0.02, peak_deg=66.0, harmonics=FOUR)
    fit = wave.fit_wave(curve[None], angles, 4)
    for harmonic, amplitude, peak in ((1, 0.02, 66.0), *FOUR):
        coefficient = fit.coefficients(harmonic)[0]
        assert abs(coefficient) == pytest.approx(amplitude, abs=1e-12)
        assert wave.phase_deg(coefficient, harmonic) == pytest.approx(peak, abs=1e-9)
        part = fit.wave(angles, harmonic)[0] - (fit.wave(angles, harmonic - 1)[0] if harmonic > 1 else 0)
        np.testing.assert_allclose(part, amplitude * np.cos(4 * harmonic * np.deg2rad(angles - peak)), atol=1e-12)
    for absent in (0, 5):
        with pytest.raises(ValueError, match="fitted are 1 to 4"):
            fit.coefficients(absent)


def test_the_fit_of_the_mean_curve_is_the_mean_of_the_fits():
    angles = GRID_FINE[GRID_FINE < 360]
    dice = np.random.default_rng(3).normal(size=(5, len(angles)))
    direct = wave.fit_wave(dice.mean(axis=0, keepdims=True), angles, 3)
    np.testing.assert_allclose(wave.fit_wave(dice, angles, 3).of_mean().terms_NP, direct.terms_NP, atol=1e-12)


def test_mean_over_angles_is_that_of_the_circle_and_leaves_out_the_full_turn():
    angles = np.array([0.0, 1.0, 5.0, 359.0, 360.0])
    values = np.array([[1.0, 2.0, 3.0, 4.0, 100.0]])
    expected = (1 * 1.0 + 2 * 2.5 + 3 * 179.0 + 4 * 177.5) / 360
    assert wave.mean_over_angles(values, angles) == pytest.approx(expected)


def test_even_grid_gives_the_discrete_fourier_coefficient():
    dice = np.random.default_rng(0).normal(size=(3, 72))
    spectrum = np.fft.rfft(dice, axis=1)[:, 4] * 2 / 72
    fit = wave.fit_wave(dice, np.arange(0, 360, 5.0), 2)
    np.testing.assert_allclose(fit.coefficients(), np.conj(spectrum), atol=1e-12)


def test_the_fit_is_a_weighted_least_squares_solution():
    angles = GRID_FINE[GRID_FINE < 360]
    curve = np.random.default_rng(1).normal(size=len(angles))
    fit = wave.fit_wave(curve[None], angles, 2)
    root = np.sqrt(axis.shares(angles, 360))
    oracle, *_ = np.linalg.lstsq(wave.design(angles, 2) * root[:, None], curve * root, rcond=None)
    np.testing.assert_allclose(fit.terms_NP[0], oracle, atol=1e-10)


def test_dense_sampling_near_multiples_does_not_move_the_coefficient_of_a_kinked_curve():
    def kinked(angles):
        return np.abs(np.mod(angles + 45, 90) - 45) / 45

    dense = np.arange(0, 360, 0.5)
    truth = wave.fit_wave(kinked(dense)[None], dense, 1).coefficients()[0]
    angles = GRID_FINE[GRID_FINE < 360]
    ours = wave.fit_wave(kinked(angles)[None], angles, 1).coefficients()[0]
    plain, *_ = np.linalg.lstsq(wave.design(angles, 1), kinked(angles), rcond=None)
    assert abs(ours - truth) < abs(plain[7] + 1j * plain[8] - truth) / 3


def test_arc_weights_are_half_the_way_to_both_neighbours():
    np.testing.assert_allclose(axis.shares(np.array([0.0, 1.0, 5.0, 359.0]), 360) * 360, [1.0, 2.5, 179.0, 177.5])


@pytest.mark.parametrize(("step", "most"), [(5, 8), (15, 2), (30, 1), (45, 0), (1, 44), (90, 0)])
def test_nyquist_limit(step, most):
    angles = np.arange(0, 360, float(step))
    assert wave.max_harmonics(angles) == most
    with pytest.raises(wave.CoarseGrid, match=f"resolves {most}"):
        wave.fit_wave(np.zeros((1, len(angles))), angles, most + 1)


def test_leaving_out_the_multiples_widens_the_gap():
    angles = GRID_5[GRID_5 < 360]
    between = angles[~wave.is_multiple_of_90(angles)]
    assert wave.max_harmonics(between) == 4
    fine = GRID_FINE[(GRID_FINE < 360) & ~wave.is_multiple_of_90(GRID_FINE)]
    assert wave.max_harmonics(fine) == 8


def test_rejects_the_full_turn_and_bad_values():
    with pytest.raises(ValueError, match="360 is angle 0 again"):
        wave.fit_wave(np.zeros((1, 73)), GRID_5)
    bad = np.zeros((2, 72))
    bad[1, 3] = np.nan
    with pytest.raises(ValueError, match="image 1 is nan at 15°"):
        wave.fit_wave(bad, GRID_5[:-1])
    with pytest.raises(ValueError, match="twice"):
        wave.fit_wave(np.zeros((1, 73)), np.append(GRID_5[:-1], 5.0))


@pytest.mark.parametrize("grid", [GRID_5, GRID_FINE])
def test_spike_is_separated_from_the_wave(grid):
    angles = grid[grid < 360]
    curve = wave_curve(angles, amplitude=0.03, peak_deg=0.0, spike=-0.04, harmonics=HARMONICS)
    between = ~wave.is_multiple_of_90(angles)
    fit = wave.fit_wave(curve[None, between], angles[between], 3)
    assert wave.spike(curve[None], angles, fit, (90.0, 180.0, 270.0)) == pytest.approx(-0.04, abs=1e-12)
    curve[0] += 0.5
    spikes = wave.spike(curve[None], angles, fit, (90.0, 180.0, 270.0))
    assert spikes == pytest.approx(-0.04, abs=1e-12), "angle 0 must not enter the spike at 90, 180, 270"
    assert wave.spike(curve[None], angles, fit, (0.0,)) == pytest.approx(0.46, abs=1e-12)
    with pytest.raises(wave.CoarseGrid, match="none of the angles"):
        wave.spike(curve[None], angles, fit, (12.3,))


def test_spike_against_neighbours_needs_them():
    angles = GRID_FINE[GRID_FINE < 360]
    curve = wave_curve(angles, amplitude=0.0, spike=0.1)
    assert curve @ wave.neighbour_operator(angles, (90.0, 180.0)) == pytest.approx(0.1)
    assert curve @ wave.neighbour_operator(angles, (0.0,)) == pytest.approx(0.1), "359 and 1 are the neighbours of 0"
    with pytest.raises(wave.CoarseGrid, match="neighbours"):
        wave.neighbour_operator(np.arange(0, 360, 5.0), (90.0,))


def test_share_of_variance():
    angles = np.arange(0, 360, 5.0)
    curve = np.cos(np.deg2rad(4 * angles)) + np.cos(np.deg2rad(angles))
    fit = wave.fit_wave(curve[None], angles, 2)
    share = wave.share_of_variance(curve[None], fit.wave(angles), fit.weights_A)
    assert share[0] == pytest.approx(0.5)
    assert np.isnan(wave.share_of_variance(np.ones((1, 72)), np.zeros((1, 72)), fit.weights_A)[0])
