import time

import numpy as np
import polars as pl
import pytest
from synthetic_curves import (
    BLUR,
    GRID_5,
    GRID_FINE,
    ROTATION,
    fit,
    frame,
    noisy,
    people,
    study,
    wave_curve,
)

from analysis.bootstrap import Bootstrap
from analysis.curves.figures import curve_data
from analysis.curves.levels import levels
from analysis.curves.panels import panels
from analysis.rotation import statistics
from analysis.rotation.figures import coefficient_data
from analysis.rotation.wave import fit_wave


def coefficients_of(curves):
    return statistics.coefficients(fit(curves))


def explained_of(curves):
    return statistics.explained(fit(curves))


def extrema_of(curves):
    return statistics.extrema(fit(curves))


def one(table, curve, quantity, fit="interpolated", binarisation="otsu"):
    return statistics.look_up(table, curve, "full", binarisation, quantity, fit)


@pytest.mark.parametrize("grid", [GRID_5, GRID_FINE])
def test_wave_and_spike_of_a_noisy_curve(grid):
    rng = np.random.default_rng(0)
    curve = wave_curve(grid, amplitude=0.02, peak_deg=30.0, spike=-0.03)
    table = coefficients_of(frame("trained", noisy(curve, 40, rng), grid))
    for quantity, truth in {"amplitude": 0.02, "spike": -0.03, "phase_deg": 30.0, "spike_at_0": -0.03}.items():
        value, low, high = one(table, "trained", quantity)
        assert low <= truth <= high
        assert value == pytest.approx(truth, rel=0.1)
    assert one(table, "trained", "share_fundamental")[0] > 0.9
    assert one(table, "trained", "amplitude")[1] > one(table, "trained", "amplitude_null")[0]
    assert table.filter(quantity="spike_to_neighbours").is_empty() == (len(grid) == len(GRID_5))
    assert table["n"].unique().to_list() == [40]


def test_a_spike_alone_is_no_wave_between_the_multiples_but_leaks_into_all_angles():
    curve = wave_curve(GRID_5, amplitude=0.0, spike=0.09)
    table = coefficients_of(frame("trained", np.tile(curve, (5, 1)), GRID_5))
    assert one(table, "trained", "amplitude")[0] == pytest.approx(0.0, abs=1e-12)
    assert one(table, "trained", "amplitude", fit="all")[0] == pytest.approx(2 * 0.09 / 18, abs=1e-12)


def test_spikes_at_0_and_at_the_other_multiples_are_read_where_they_are():
    curve = wave_curve(GRID_FINE, amplitude=0.02, spike=-0.03) + np.where(GRID_FINE % 360 == 0, 0.11, 0.0)
    table = coefficients_of(frame("trained", np.tile(curve, (5, 1)), GRID_FINE))
    assert one(table, "trained", "spike")[0] == pytest.approx(-0.03, abs=1e-9)
    assert one(table, "trained", "spike_at_0")[0] == pytest.approx(0.08, abs=1e-9)
    assert one(table, "trained", "spike_to_neighbours")[0] == pytest.approx(-0.03, abs=1e-3)


def test_angle_360_has_no_weight():
    curve = wave_curve(GRID_5)
    changed = np.where(GRID_5 == 360, 0.9, curve)
    tables = [coefficients_of(frame("trained", np.tile(c, (5, 1)), GRID_5)) for c in (curve, changed)]
    assert tables[0].equals(tables[1])


def test_control_equal_to_the_trained_curve_leaves_nothing():
    dice = noisy(wave_curve(GRID_5), 12, np.random.default_rng(1))
    both = pl.concat([frame("trained", dice, GRID_5), frame("fixed map", dice, GRID_5)])
    table = explained_of(both)
    assert one(table, "fixed map", "share_explained") == pytest.approx((1.0, 1.0, 1.0))
    assert one(table, "fixed map", "remainder") == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
    assert one(table, "fixed map", "spike_remainder") == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)


def test_share_explained_is_the_projection_and_remainder_the_distance():
    trained = np.tile(wave_curve(GRID_5, amplitude=0.04, peak_deg=10.0), (4, 1))
    control = np.tile(wave_curve(GRID_5, amplitude=0.02, peak_deg=10.0 + 90 / 6), (4, 1))
    both = pl.concat([frame("trained", trained, GRID_5), frame("fixed map", control, GRID_5)])
    table = explained_of(both)
    assert one(table, "fixed map", "share_explained")[0] == pytest.approx(0.5 * np.cos(np.deg2rad(60)))
    assert one(table, "fixed map", "remainder")[0] == pytest.approx(0.02 * np.sqrt(4 + 1 - 2 * 2 * 0.5))


def test_differences_are_paired_over_images():
    rng = np.random.default_rng(2)
    amplitude = rng.uniform(0, 0.1, (20, 1))
    cos = np.cos(np.deg2rad(4 * GRID_5))
    trained, control = 0.5 + (amplitude + 0.01) * cos, 0.5 + amplitude * cos
    both = pl.concat([frame("trained", trained, GRID_5), frame("fixed map", control[::-1][::-1], GRID_5)])
    value, low, high = one(explained_of(both), "fixed map", "remainder")
    assert value == pytest.approx(0.01)
    assert high - low < 1e-9
    low, high = one(coefficients_of(both), "trained", "amplitude")[1:]
    assert high - low > 0.02


def test_images_are_joined_by_id_not_by_order_of_rows():
    curves = study(num_images=6, noise=0.001)
    shuffled = curves.sample(fraction=1.0, shuffle=True, seed=0)
    first = explained_of(curves).sort("role", "field_of_view", "binarisation", "fit", "quantity")
    second = explained_of(shuffled).sort("role", "field_of_view", "binarisation", "fit", "quantity")
    np.testing.assert_allclose(first["value"].to_numpy(), second["value"].to_numpy(), rtol=1e-9)


def test_an_image_that_one_curve_lacks_is_left_out_of_all_and_counted():
    curves = study(num_images=6).filter(~((pl.col("role") == "intensity") & (pl.col("image_id") == "image 03")))
    panel = panels(curves)[0]
    assert "image 03" not in panel.image_ids
    assert len(panel.image_ids) == 5
    assert panel.num_left_out == 1


def test_incomplete_or_doubled_rows_name_the_curve():
    curves = study(num_images=4)
    holes = (pl.col("role") == "fixed map") & (pl.col("image_id") == "image 01") & (pl.col("value") == 90)
    with pytest.raises(ValueError, match="'fixed map 0'"):
        panels(curves.filter(~holes))
    with pytest.raises(ValueError, match="'fixed map 0'"):
        panels(pl.concat([curves, curves.filter(role="fixed map")]))


def test_a_role_is_the_mean_of_its_seeds_whose_coefficients_are_kept():
    curves = study(num_images=4, noise=0.0)
    assert one(coefficients_of(curves), "untrained", "amplitude")[0] == pytest.approx(0.02, abs=1e-9)
    untrained = fit(curves)[0].curves["untrained"]
    assert [abs(value) for value in untrained.seed_coefficients.values()] == pytest.approx([0.019, 0.02, 0.021])
    assert list(untrained.seed_coefficients) == ["0", "1", "2"]
    alone = coefficients_of(curves.filter((pl.col("role") != "untrained") | (pl.col("seed") == "2")))
    assert one(alone, "untrained", "amplitude")[0] == pytest.approx(0.021, abs=1e-9)


def test_a_coarse_grid_leaves_the_value_undefined_instead_of_failing():
    grid = np.arange(0, 361, 45.0)
    curves = study(num_images=4, angles_deg=grid)
    assert one(coefficients_of(curves), "trained", "amplitude") == (None, None, None)
    assert one(explained_of(curves), "fixed map", "remainder") == (None, None, None)


def test_extrema_of_wave_and_curve():
    curve = wave_curve(np.arange(0, 361, 1.0), amplitude=0.02, peak_deg=66.0)
    table = extrema_of(frame("trained", np.tile(curve, (3, 1)), np.arange(0, 361, 1.0)))
    found = {
        key: part["angle_deg"].to_list() for key, part in table.partition_by("source", "kind", as_dict=True).items()
    }
    assert found["wave", "maximum"] == [66.0]
    assert found["wave", "minimum"] == [21.0]
    assert found["raw", "maximum"] == [66.0, 156.0, 246.0, 336.0]
    at_zero = statistics.extrema(fit(frame("trained", np.tile(wave_curve(GRID_5, peak_deg=0.0), (3, 1)), GRID_5)))
    assert at_zero.filter(source="raw", kind="maximum")["angle_deg"].to_list() == [90.0, 180.0, 270.0, 355.0]


def test_levels():
    curve = wave_curve(GRID_5, level=0.5, amplitude=0.1, peak_deg=30.0)
    curve[[0, -1]] = 0.99  # both views are the same image there
    row = levels(frame("trained", np.tile(curve, (3, 1)), GRID_5), ROTATION).row(0, named=True)
    assert row["mean"] == pytest.approx(curve[1:-1].mean())
    assert (row["max"], row["max_at"] % 90) == (pytest.approx(0.6), 30.0)
    assert (row["min"], row["min_at"] % 90) == (pytest.approx(0.4), 75.0)
    assert (row["n"], row["num_seeds"], row["num_values"]) == (3, 1, 71)
    assert row["chance_dice"] == pytest.approx(2 * 0.12 * 0.2 / 0.32)
    assert row["all_ones_dice"] == pytest.approx(2 * 0.12 / 1.12)
    assert row["map_fraction"] == pytest.approx(0.2)
    assert row["mask_fraction"] == pytest.approx(0.12)


def test_levels_are_means_over_seeds_and_say_how_many():
    found = levels(study(num_images=4, noise=0.0, trained_amplitudes=(0.02, 0.03)), ROTATION)
    row = found.filter(role="untrained", field_of_view="full", binarisation="otsu").row(0, named=True)
    assert row["num_seeds"] == 3
    assert row["mean"] == pytest.approx(0.45, abs=0.05)
    assert found["role"].unique(maintain_order=True).to_list() == [
        "trained", "untrained", "fixed map", "mask", "intensity",
    ]  # fmt: skip


def test_levels_and_own_mean_count_angles_by_the_arc_they_stand_for():
    # 1° to both neighbours: 1/360 of the circle each; angle 0 counts for nothing
    curve = wave_curve(GRID_FINE, level=0.5, amplitude=0.0, spike=0.3)
    curves = frame("trained", np.tile(curve, (3, 1)), GRID_FINE).with_columns(
        auprc=pl.when(pl.col("value") % 90 == 0).then(0.9).otherwise(0.1)
    )
    row = levels(curves, ROTATION).row(0, named=True)
    assert row["mean"] == pytest.approx(0.5 + 0.3 * 3 / 359)
    assert row["auprc"] == pytest.approx(0.1 + 0.8 * 3 / 359)
    drawn = curve_data(panels(curves), ROTATION, people).filter(value=45)
    assert drawn["deviation"].item() == pytest.approx(-0.3 * 3 / 359)


def test_levels_count_only_values_at_which_they_are_defined():
    curves = frame("trained", np.full((3, len(GRID_5)), 0.5), GRID_5)
    no_auprc = curves.with_columns(auprc=pl.lit(None, dtype=pl.Float64))
    assert levels(no_auprc, ROTATION)["auprc"].to_list() == [None]
    nan, low, high = float("nan"), pl.col("value") < 90, pl.col("value") < 180
    half = curves.with_columns(auprc=pl.when(low).then(0.2).when(high).then(0.4).otherwise(nan))
    assert levels(half, ROTATION)["auprc"].item() == pytest.approx((17 * 0.2 + 18 * 0.4) / 35)


def test_levels_of_a_sweep_without_period_weigh_the_stretch_of_each_value():
    values = np.array([0.0, 1.0, 2.0, 4.0])
    row = levels(frame("trained", np.tile([0.9, 0.5, 0.4, 0.2], (2, 1)), values), BLUR).row(0, named=True)
    weights = np.array([1.0, 1.5, 1.0]) / 3.5  # half the way to both neighbours, the neutral 0 among them
    assert row["mean"] == pytest.approx(weights @ [0.5, 0.4, 0.2])
    assert (row["max"], row["max_at"], row["min_at"]) == (0.5, 1.0, 4.0)


def test_every_wave_is_fitted_once(monkeypatch):
    calls = []

    def counting(dice_NA, *others):
        calls.append(len(dice_NA))
        return fit_wave(dice_NA, *others)

    monkeypatch.setattr("analysis.rotation.wave.fit_wave", counting)
    found = fit(study(num_images=4))
    for table in (statistics.coefficients, statistics.explained, statistics.extrema, coefficient_data):
        assert len(table(found)) > 0
    means, of_seeds = calls.count(4), len(calls) - calls.count(4)
    assert means == 2 * 3 * 5 * 2, "fields of view x binarisations x roles x fits"
    assert of_seeds == 2 * 3 * 5, "the seeds of a role at once"


@pytest.mark.parametrize("amplitude", [0.02, 0.05])
def test_phase_interval_is_as_wide_as_the_phases_scatter(amplitude):
    rng = np.random.default_rng(7)
    noise, num_images = 0.06, 30
    dice = noisy(wave_curve(GRID_5, amplitude=amplitude, peak_deg=20.0), num_images, rng, noise=noise)
    value, low, high = one(coefficients_of(frame("trained", dice, GRID_5)), "trained", "phase_deg")
    # each part of a mean coefficient has variance 2 noise² / (angles images); the phase is that over 4 amplitudes
    expected = np.rad2deg(np.sqrt(2 / (68 * num_images)) * noise / amplitude / 4)
    assert value == pytest.approx(20.0, abs=4 * expected)
    assert (high - low) / (2 * 1.96 * expected) == pytest.approx(1.0, abs=0.35)


def test_paper_scale_takes_seconds():
    rng = np.random.default_rng(5)
    angles = np.arange(0, 361, 1.0)
    curves = pl.concat(
        frame(role, noisy(wave_curve(angles), 75, rng), angles) for role in ("trained", "untrained", "fixed map")
    )
    start = time.perf_counter()
    found = fit(curves, Bootstrap(1000))
    statistics.coefficients(found)
    statistics.explained(found)
    assert time.perf_counter() - start < 10


def test_noise_of_extrema_leaves_out_where_both_views_are_one_image():
    rng = np.random.default_rng(0)
    dice = wave_curve(GRID_5) + rng.normal(0, 0.01, (6, len(GRID_5)))
    noise = extrema_of(frame("trained", dice, GRID_5)).filter(source="raw")["noise"].unique().to_list()
    dice[:, [0, -1]] = rng.uniform(0, 1, (6, 2))
    assert extrema_of(frame("trained", dice, GRID_5)).filter(source="raw")["noise"].unique().to_list() == noise


@pytest.mark.parametrize(("amplitude", "may_be_noise"), [(0.02, False), (0.0, True)])
def test_extrema_of_a_wave_that_cannot_be_told_from_none_may_be_noise(amplitude, may_be_noise):
    rng = np.random.default_rng(1)
    dice = wave_curve(GRID_5, amplitude=amplitude) + rng.normal(0, 0.01, (8, len(GRID_5)))
    for source in ("wave", "raw"):
        rows = extrema_of(frame("trained", dice, GRID_5)).filter(source=source)
        assert rows["may_be_noise"].to_list() == [may_be_noise] * rows.height
        assert rows.height
