import time

import numpy as np
import polars as pl
import pytest
from synthetic_curves import GRID_5, GRID_FINE, frame, noisy, study, wave_curve

from analysis import statistics
from analysis.resampling import Bootstrap
from analysis.rotation import panels

BOOTSTRAP = Bootstrap(300)


def one(table, curve, quantity, fit="interpolated", binarisation="otsu"):
    return statistics.look_up(table, curve, "full", binarisation, quantity, fit)


@pytest.mark.parametrize("grid", [GRID_5, GRID_FINE])
def test_wave_and_spike_of_a_noisy_curve(grid):
    rng = np.random.default_rng(0)
    curve = wave_curve(grid, amplitude=0.02, peak_deg=30.0, spike=-0.03)
    table = statistics.coefficients(frame("trained", noisy(curve, 40, rng), grid), BOOTSTRAP)
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
    table = statistics.coefficients(frame("trained", np.tile(curve, (5, 1)), GRID_5), BOOTSTRAP)
    assert one(table, "trained", "amplitude")[0] == pytest.approx(0.0, abs=1e-12)
    assert one(table, "trained", "amplitude", fit="all")[0] == pytest.approx(2 * 0.09 / 18, abs=1e-12)


def test_angle_360_has_no_weight():
    curve = wave_curve(GRID_5)
    changed = np.where(GRID_5 == 360, 0.9, curve)
    tables = [
        statistics.coefficients(frame("trained", np.tile(c, (5, 1)), GRID_5), BOOTSTRAP) for c in (curve, changed)
    ]
    assert tables[0].equals(tables[1])


def test_control_equal_to_the_trained_curve_leaves_nothing():
    dice = noisy(wave_curve(GRID_5), 12, np.random.default_rng(1))
    both = pl.concat([frame("trained", dice, GRID_5), frame("fixed map", dice, GRID_5)])
    table = statistics.explained(both, BOOTSTRAP)
    assert one(table, "fixed map", "share_explained") == pytest.approx((1.0, 1.0, 1.0))
    assert one(table, "fixed map", "remainder") == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
    assert one(table, "fixed map", "spike_remainder") == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)


def test_share_explained_is_the_projection_and_remainder_the_distance():
    trained = np.tile(wave_curve(GRID_5, amplitude=0.04, peak_deg=10.0), (4, 1))
    control = np.tile(wave_curve(GRID_5, amplitude=0.02, peak_deg=10.0 + 90 / 6), (4, 1))
    both = pl.concat([frame("trained", trained, GRID_5), frame("fixed map", control, GRID_5)])
    table = statistics.explained(both, BOOTSTRAP)
    assert one(table, "fixed map", "share_explained")[0] == pytest.approx(0.5 * np.cos(np.deg2rad(60)))
    assert one(table, "fixed map", "remainder")[0] == pytest.approx(0.02 * np.sqrt(4 + 1 - 2 * 2 * 0.5))


def test_differences_are_paired_over_images():
    rng = np.random.default_rng(2)
    amplitude = rng.uniform(0, 0.1, (20, 1))
    cos = np.cos(np.deg2rad(4 * GRID_5))
    trained, control = 0.5 + (amplitude + 0.01) * cos, 0.5 + amplitude * cos
    both = pl.concat([frame("trained", trained, GRID_5), frame("fixed map", control[::-1][::-1], GRID_5)])
    value, low, high = one(statistics.explained(both, BOOTSTRAP), "fixed map", "remainder")
    assert value == pytest.approx(0.01)
    assert high - low < 1e-9
    low, high = one(statistics.coefficients(both, BOOTSTRAP), "trained", "amplitude")[1:]
    assert high - low > 0.02


def test_images_are_joined_by_id_not_by_order_of_rows():
    curves = study(num_images=6, noise=0.001)
    shuffled = curves.sample(fraction=1.0, shuffle=True, seed=0)
    first = statistics.explained(curves, BOOTSTRAP).sort("curve", "field_of_view", "binarisation", "fit", "quantity")
    second = statistics.explained(shuffled, BOOTSTRAP).sort("curve", "field_of_view", "binarisation", "fit", "quantity")
    np.testing.assert_allclose(first["value"].to_numpy(), second["value"].to_numpy(), rtol=1e-9)


def test_an_image_that_one_curve_lacks_is_left_out_of_all_and_counted():
    curves = study(num_images=6).filter(~((pl.col("curve") == "intensity") & (pl.col("image_id") == "image 03")))
    panel = panels.panels(curves)[0]
    assert "image 03" not in panel.image_ids
    assert len(panel.image_ids) == 5
    assert panel.num_left_out == 1


def test_incomplete_or_doubled_rows_name_the_curve():
    curves = study(num_images=4)
    holes = (pl.col("curve") == "fixed map") & (pl.col("image_id") == "image 01") & (pl.col("angle_deg") == 90)
    with pytest.raises(ValueError, match="'fixed map'"):
        panels.panels(curves.filter(~holes))
    with pytest.raises(ValueError, match="'fixed map'"):
        panels.panels(pl.concat([curves, curves.filter(curve="fixed map")]))


@pytest.mark.parametrize(
    ("trained_amplitude", "expected"), [(0.02, "nothing"), (0.04, "left"), (0.0, "left"), (0.0225, "within seeds")]
)
def test_verdict(trained_amplitude, expected):
    curves = study(num_images=20, trained_amplitude=trained_amplitude, noise=0.004, seed=3)
    if expected == "within seeds":
        odd = pl.when(pl.col("curve") == "untrained seed 2").then(0.01 * (4 * pl.col("angle_deg").radians()).cos())
        curves = curves.with_columns(dice=pl.col("dice") + odd.otherwise(0.0))
        wave = pl.when(pl.col("curve") == "trained").then(0.005 * (4 * pl.col("angle_deg").radians()).cos())
        curves = curves.with_columns(dice=pl.col("dice") + wave.otherwise(0.0))
    tables = statistics.coefficients(curves, BOOTSTRAP), statistics.explained(curves, BOOTSTRAP)
    assert statistics.verdict(*tables, "full", "otsu") == expected


def test_verdict_without_untrained_or_with_too_few_images_is_unknown():
    curves = study(num_images=6, leave_out=[f"untrained seed {k}" for k in range(3)])
    tables = statistics.coefficients(curves, BOOTSTRAP), statistics.explained(curves, BOOTSTRAP)
    assert statistics.verdict(*tables, "full", "otsu") == "unknown"
    few = study(num_images=2)
    tables = statistics.coefficients(few, BOOTSTRAP), statistics.explained(few, BOOTSTRAP)
    assert statistics.verdict(*tables, "full", "otsu") == "unknown"


def test_untrained_mean_and_seed_distance():
    curves = study(num_images=4, noise=0.0)
    table = statistics.coefficients(curves, BOOTSTRAP)
    assert one(table, "untrained mean", "amplitude")[0] == pytest.approx(0.02, abs=1e-9)
    left = statistics.explained(curves, BOOTSTRAP)
    assert one(left, "untrained mean", "seed_distance")[0] == pytest.approx(0.0015, abs=1e-9)


def test_a_coarse_grid_leaves_the_value_undefined_instead_of_failing():
    grid = np.arange(0, 361, 45.0)
    curves = study(num_images=4, angles_deg=grid)
    assert one(statistics.coefficients(curves, BOOTSTRAP), "trained", "amplitude") == (None, None, None)
    assert one(statistics.explained(curves, BOOTSTRAP), "fixed map", "remainder") == (None, None, None)


def test_extrema_of_wave_and_curve():
    curve = wave_curve(np.arange(0, 361, 1.0), amplitude=0.02, peak_deg=66.0)
    table = statistics.extrema(frame("trained", np.tile(curve, (3, 1)), np.arange(0, 361, 1.0)))
    found = {
        key: part["angle_deg"].to_list() for key, part in table.partition_by("source", "kind", as_dict=True).items()
    }
    assert found["wave", "maximum"] == [66.0]
    assert found["wave", "minimum"] == [21.0]
    assert found["raw", "maximum"] == [66.0, 156.0, 246.0, 336.0]
    at_zero = statistics.extrema(frame("trained", np.tile(wave_curve(GRID_5, peak_deg=0.0), (3, 1)), GRID_5))
    assert at_zero.filter(source="raw", kind="maximum")["angle_deg"].to_list() == [0.0, 90.0, 180.0, 270.0]


def test_levels():
    curve = wave_curve(GRID_5, level=0.5, amplitude=0.1, peak_deg=30.0)
    table = statistics.levels(frame("trained", np.tile(curve, (3, 1)), GRID_5))
    row = table.row(0, named=True)
    assert row["mean"] == pytest.approx(0.5)
    assert (row["max"], row["max_deg"] % 90) == (pytest.approx(0.6), 30.0)
    assert (row["n"], row["num_angles"]) == (3, 72)
    assert row["chance_dice"] == pytest.approx(2 * 0.12 * 0.2 / 0.32)


def test_missing_curves():
    curves = study(num_images=3, leave_out=["intensity", "untrained seed 1"])
    assert panels.missing_curves(curves) == ["untrained seed 1", "intensity"]
    assert len(panels.missing_curves(pl.DataFrame())) == 7


def test_paper_scale_takes_seconds():
    rng = np.random.default_rng(5)
    angles = np.arange(0, 361, 1.0)
    curves = pl.concat(
        frame(name, noisy(wave_curve(angles), 75, rng), angles) for name in ("trained", "untrained seed 0", "fixed map")
    )
    start = time.perf_counter()
    statistics.coefficients(curves, Bootstrap(1000))
    statistics.explained(curves, Bootstrap(1000))
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("value", "low", "null", "expected"),
    [
        (0.010, 0.002, 0.006, "left"),  # the interval leaves out 0; that it reaches below the null is no objection
        (0.010, 0.000, 0.006, "nothing"),
        (0.010, 0.007, 0.011, "nothing"),
        (0.003, 0.002, 0.001, "within seeds"),
    ],
)
def test_a_difference_counts_by_its_interval_and_its_null(value, low, null, expected):
    where = {"field_of_view": "full", "binarisation": "otsu", "fit": "interpolated"}
    rows = [("remainder", value, low, 0.02), ("remainder_null", null, None, None), ("seed_distance", 0.004, None, None)]
    explained = pl.DataFrame(
        [
            {"curve": "untrained mean", **where, "quantity": q, "value": v, "low": lo, "high": hi}
            for q, v, lo, hi in rows
        ]
    )
    own = {"curve": "trained", **where, "quantity": "amplitude", "value": 0.02, "low": 0.01, "high": 0.03}
    assert statistics.verdict(pl.DataFrame([own]), explained, "full", "otsu") == expected
