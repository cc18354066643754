"""Figures of curves: the data that they are made of, and which column of it stands on which axis."""

import json

import numpy as np
import polars as pl
import pytest
import vl_convert
from charts import layers_of, panels_of
from synthetic_curves import BLUR, BRIGHTNESS, GRID_5, ROTATION, fit, frame, people, study

from analysis.bootstrap import Bootstrap
from analysis.curves import figures
from analysis.curves.panels import panels
from analysis.curves.sweep import SweepFacts
from analysis.health import pretraining_data, pretraining_figure
from analysis.published.rotation import rotation_curve
from analysis.rotation import statistics
from analysis.rotation.figures import coefficient_data, coefficient_figure
from trainables.sweeps import Brightness, CentreCrop, GaussianBlur, Rotation

BOOTSTRAP = Bootstrap(100)
BRATS = rotation_curve({"data": "brats", "region": "tumour"})


def resampled(panel):
    return people(panel, BOOTSTRAP)


def data_of(curves, sweep=ROTATION):
    return figures.curve_data(panels(curves), sweep, resampled)


@pytest.fixture(scope="module")
def curves():
    return study(num_images=6, trained_amplitudes=(0.02, 0.03))


@pytest.fixture(scope="module")
def data(curves):
    return data_of(curves)


@pytest.fixture(scope="module")
def plane(curves):
    return coefficient_data(fit(curves, BOOTSTRAP))


# -- the sweep's axis -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sweep", "title", "text"),
    [
        (Rotation(), "rotation angle (°)", "90°"),
        (GaussianBlur(), "standard deviation of the blur (fraction of the side)", "90 of the side"),
        (CentreCrop(), "side of the crop (fraction of the side)", "90 of the side"),
        (Brightness(), "brightness factor", "90"),
    ],
)
def test_units_stand_behind_numbers_and_on_the_axis(sweep, title, text):
    facts = SweepFacts(type(sweep).__name__, sweep.title, sweep.unit, sweep.period, sweep.neutral)
    assert (facts.axis_title(), facts.text(90.0)) == (title, text)


def test_neutral_values_repeat_with_the_period_only():
    values = np.array([0.0, 1.0, 90.0, 360.0])
    assert ROTATION.is_neutral(values).tolist() == [True, False, False, True]
    assert BLUR.is_neutral(values).tolist() == [True, False, False, False]
    assert BRIGHTNESS.is_neutral(values).tolist() == [False, True, False, False]
    assert ROTATION.is_repeated(values).tolist() == [False, False, False, True]
    assert not BLUR.is_repeated(values).any()


def test_level_weights_are_shares_of_the_axis_without_the_neutral_value():
    np.testing.assert_allclose(ROTATION.level_weights(np.array([0.0, 90.0, 270.0, 360.0])), [0, 0.5, 0.5, 0])
    np.testing.assert_allclose(BLUR.level_weights(np.array([0.0, 1.0, 2.0, 4.0])), np.array([0, 1, 1.5, 1]) / 3.5)
    np.testing.assert_allclose(BRIGHTNESS.level_weights(np.array([2.0])), [1.0])
    # 360 is neutral, also without 0, and so is what rounding left of 1.
    np.testing.assert_allclose(ROTATION.level_weights(np.array([90.0, 180.0, 270.0, 360.0])), [1 / 3, 1 / 3, 1 / 3, 0])
    np.testing.assert_allclose(BRIGHTNESS.level_weights(np.array([0.5, 0.1 * 3 / 0.3, 1.5])), [0.5, 0, 0.5])


# -- data -----------------------------------------------------------------------------------------------------------


def test_curve_data_is_the_mean_over_images_and_seeds(curves, data):
    rows = curves.filter(role="trained", field_of_view="kept", binarisation="soft")
    drawn = data.filter(role="trained", seed="", field_of_view="kept", binarisation="soft")
    at_45 = drawn.filter(value=45.0).row(0, named=True)
    assert at_45["dice"] == pytest.approx(rows.filter(value=45.0)["dice"].mean())
    assert at_45["n"] == 6
    assert at_45["dice_low"] < at_45["dice"] < at_45["dice_high"]
    changed = (pl.col("value") > 0) & (pl.col("value") < 360)
    own_mean = drawn.filter(changed)["dice"].mean()
    assert at_45["deviation"] == pytest.approx(at_45["dice"] - own_mean), "neither 0 nor 360 is in its own mean"
    assert at_45["deviation_low"] < at_45["deviation"] < at_45["deviation_high"]
    assert at_45["deviation_high"] - at_45["deviation_low"] < at_45["dice_high"] - at_45["dice_low"]


def test_every_seed_is_drawn_beside_the_mean(curves, data):
    part = data.filter(field_of_view="full", binarisation="otsu", value=90.0, role="untrained")
    assert part["seed"].to_list() == ["", "0", "1", "2"]
    single = curves.filter(field_of_view="full", binarisation="otsu", value=90.0, role="untrained", seed="1")
    assert part.filter(seed="1")["dice"].item() == pytest.approx(single["dice"].mean())
    assert part.filter(seed="")["dice"].item() == pytest.approx(part.filter(pl.col("seed") != "")["dice"].mean())
    assert part.filter(pl.col("seed") != "")["dice_low"].null_count() == 3
    assert data.filter(role="mask")["seed"].unique().to_list() == [""], "one seed is its own mean"


def test_labels_stand_at_their_curves_but_do_not_touch(data):
    part = data.filter(field_of_view="full", binarisation="otsu")
    labels = figures.label_data(part, 0.2, 1.0).sort("label_at")
    assert set(labels["role"]) == {"trained", "untrained", "fixed map", "mask", "intensity"}
    assert np.diff(labels["label_at"]).min() >= 0.055 * 0.8 - 1e-9
    alone = part.filter(role="intensity")
    assert figures.label_data(alone, 0.2, 1.0)["label_at"].item() == alone.filter(value=360.0)["dice"].item()


def test_coefficient_data_agrees_with_the_statistics(curves, plane):
    drawn = plane.filter(field_of_view="full", binarisation="otsu")
    centre = drawn.filter(role="trained", kind="centre", seed="").row(0, named=True)
    table = statistics.coefficients(fit(curves, BOOTSTRAP))
    for part in ("cos", "sin"):
        assert centre[part] == pytest.approx(statistics.look_up(table, "trained", "full", "otsu", part)[0])
    ellipse = drawn.filter(role="trained", kind="ellipse")
    assert ellipse["cos"].min() < centre["cos"] < ellipse["cos"].max()
    nearest = np.hypot(ellipse["cos"], ellipse["sin"]).min()
    assert nearest == pytest.approx(statistics.look_up(table, "trained", "full", "otsu", "amplitude")[1], rel=0.01)
    seeds = drawn.filter(role="trained", kind="centre").filter(pl.col("seed") != "")
    assert seeds["seed"].to_list() == ["0", "1"]
    assert seeds["cos"].mean() == pytest.approx(centre["cos"])


def test_pretraining_data_keeps_what_shows_a_collapse_of_every_seed():
    steps = list(range(1, 4))
    names = ["train/loss", "train/embedding_std", "train/effective_rank", "train/learning_rate"]
    history = pl.DataFrame([{"metric": n, "step": s, "value": 0.1 * s} for n in names for s in reversed(steps)])
    found = pretraining_data({"0": history, "1": history})
    assert found["panel"].unique(maintain_order=True).to_list() == ["loss", "embedding std", "effective rank"]
    assert "train/learning_rate" not in found["metric"]
    assert found.filter(panel="loss").select("seed", "step").rows() == [(s, k) for s in "01" for k in steps]
    figure = pretraining_figure(found)
    for _, layers in panels_of(figure):
        assert (layers[0].fields["x"], layers[0].fields["y"], layers[0].fields["detail"]) == ("step", "value", "seed")
    assert "<svg" in figure.svg()
    assert pretraining_data({}).is_empty()


# -- which column stands on which axis --------------------------------------------------------------------------------


def test_levels_stand_above_deviations_in_every_field_of_view(data):
    figure = figures.curve_figure(data, ROTATION, "otsu", None)
    found = panels_of(figure)
    assert [title for title, _ in found[:2]] == ["Full field of view", "Inscribed circle"]
    assert len(found) == 6, "levels, deviations, controls without an encoder; two fields"
    for place, panel in enumerate(found):
        quantity = "dice" if place < 2 else "deviation"
        lines = layers_of(panel, "line")
        assert len(lines) == 3
        assert {(line.fields["x"], line.fields["y"]) for line in lines} == {("value", quantity)}
        assert {line.encoding["y"]["title"] for line in lines} == {"Dice" if place < 2 else "Dice − own mean"}
    full = data.filter(field_of_view="full", binarisation="otsu", role="trained", seed="", value=45.0)
    for panel in found[:2]:
        rows = layers_of(panel, "line")[0].rows
        kept = [r for r in rows if (r["role"], r["seed"], r["value"]) == ("trained", "", 45.0)]
        assert kept[0]["dice"] == pytest.approx(full["dice"].item(), abs=1e-6) or panel is found[1]
    assert {row["role"] for row in layers_of(found[2], "line")[0].rows} == {"trained", "untrained", "fixed map"}
    assert {row["role"] for row in layers_of(found[4], "line")[0].rows} == {"mask", "intensity", "fixed map"}


def test_seeds_are_thin_and_the_trained_mean_lies_on_top(data):
    panel = panels_of(figures.curve_figure(data, ROTATION, "otsu", None))[0]
    filters = [line.filters for line in layers_of(panel, "line")]
    assert filters == [
        ("datum.seed != ''",),
        ("!(datum.seed != '') && !(datum.role == 'trained')",),
        ("!(datum.seed != '') && datum.role == 'trained'",),
    ]


def test_the_band_is_that_of_the_trained_mean_from_its_low_to_its_high_end(data):
    for figure in (figures.curve_figure(data, ROTATION, "otsu", None), figures.binarisation_figure(data, ROTATION)):
        bands = [band for panel in panels_of(figure) for band in layers_of(panel, "area")]
        assert bands
        for band in bands:
            assert (band.fields["x"], band.fields["y"], band.fields["y2"]) == (
                "value", "deviation_low", "deviation_high",
            )  # fmt: skip
            assert {(row["role"], row["seed"]) for row in band.rows} == {("trained", "")}
            assert all(row["deviation_low"] < row["deviation"] < row["deviation_high"] for row in band.rows)


def test_the_hover_lists_the_quantity_of_its_panel(data):
    found = panels_of(figures.curve_figure(data, ROTATION, "otsu", None))
    for panel, quantity in ((found[0], "dice"), (found[2], "deviation")):
        (rule,) = [layer for layer in layers_of(panel, "rule") if "tooltip" in layer.encoding]
        assert rule.encoding["tooltip"][0]["title"] == "rotation angle (°)"
        (row,) = [row for row in rule.rows if row["value"] == 45.0]
        mean = data.filter(field_of_view="full", binarisation="otsu", role="trained", value=45.0)
        assert row["trained"] == pytest.approx(mean.filter(seed="")[quantity].item(), abs=1e-6)
        assert row["trained 1"] == pytest.approx(mean.filter(seed="1")[quantity].item(), abs=1e-6)


def test_binarisations_are_small_multiples_of_deviations(data):
    found = panels_of(figures.binarisation_figure(data, ROTATION))
    assert [title for title, _ in found] == [
        f"{rule}, {field}" for field in ("full", "kept") for rule in ("otsu", "top_area", "soft")
    ]
    for title, layers in found:
        (line,) = layers_of((title, layers), "line")
        assert (line.fields["x"], line.fields["y"]) == ("value", "deviation")
        assert {row["binarisation"] for row in line.rows} == {title.split(", ")[0]}
        assert {row["field_of_view"] for row in line.rows} == {title.split(", ")[1]}
        assert {row["role"] for row in line.rows} == {"trained", "untrained", "fixed map"}


def test_the_cosine_is_on_the_horizontal_axis_and_the_sine_on_the_vertical_one(plane):
    figure = coefficient_figure(plane, "otsu", figures.ROTATION_FIELD_TITLES)
    found = panels_of(figure)
    assert [title for title, _ in found] == ["Full field of view", "Inscribed circle"]
    for _, layers in found:
        for layer in layers:
            assert (layer.fields["x"], layer.fields["y"]) == ("cos", "sin")
            assert (layer.encoding["x"]["title"], layer.encoding["y"]["title"]) == ("cos 4θ", "sin 4θ")
    domains = [layers_of(found[0], "circle")[0].encoding[axis]["scale"]["domain"] for axis in "xy"]
    assert np.ptp(domains[0]) == pytest.approx(np.ptp(domains[1])), "an amplitude looks the same in every direction"


def test_published_extrema_are_drawn_as_rules(data):
    def marked(marks):
        rules = [r for panel in panels_of(figures.curve_figure(data, ROTATION, "otsu", marks))
                 for r in layers_of(panel, "rule")]  # fmt: skip
        return {tuple(row["value"] for row in r.rows) for r in rules if set(r.rows[0]) == {"value"}}

    drawn = figures.curve_figure(data, ROTATION, "otsu", BRATS).specification
    dashes = {}
    for panel in drawn["concat"]:
        for layer in panel["layer"]:
            if layer["mark"]["type"] == "rule" and "strokeDash" in layer["mark"]:
                values = tuple(row["value"] for row in drawn["datasets"][layer["data"]["name"]])
                dashes.setdefault(values, set()).add(tuple(layer["mark"]["strokeDash"]))
    assert dashes == {(90.0, 180.0, 270.0): {(1, 0)}, (45.0, 135.0, 225.0, 315.0): {(3, 3)}}, "solid: maxima"
    assert marked(BRATS) == {(90.0, 180.0, 270.0), (45.0, 135.0, 225.0, 315.0)}
    assert marked(None) == set()
    assert "extrema published for BraTS" in figures.curve_figure(data, ROTATION, "otsu", BRATS).caption


def test_every_legend_selects(data, plane):
    for figure in (
        figures.curve_figure(data, ROTATION, "otsu", BRATS),
        figures.binarisation_figure(data, ROTATION),
        coefficient_figure(plane, "otsu", figures.ROTATION_FIELD_TITLES),
    ):
        legends = vl_convert.vegalite_to_vega(figure.specification)["legends"]
        assert len(legends) == 1
        assert legends[0]["encode"]["labels"]["interactive"], figure.name
        assert "n = 6" in figure.caption
        assert "http" not in json.dumps(figure.specification)


def test_captions_count_the_seeds(data):
    caption = figures.curve_figure(data, ROTATION, "otsu", None).caption
    assert "Thin lines: each of 2 trained and of 3 untrained encoders." in caption
    alone = data.filter((pl.col("role") != "trained") | (pl.col("seed") == ""))
    assert "Thin lines: each of 3 untrained encoders." in figures.curve_figure(alone, ROTATION, "otsu", None).caption


def test_captions_speak_of_bands_only_where_one_is_drawn(data):
    assert "band: pointwise" in figures.curve_figure(data, ROTATION, "otsu", None).caption
    assert "Band: 95 %" in figures.binarisation_figure(data, ROTATION).caption
    bare = data.with_columns(pl.lit(None, pl.Float64).alias(column) for column in ("deviation_low", "deviation_high"))
    said = figures.curve_figure(bare, ROTATION, "otsu", None).caption
    assert "band" not in said
    assert "no interval: too few or too similar images" in said
    untrained = bare.filter(pl.col("role") != "trained")
    assert "interval" not in figures.curve_figure(untrained, ROTATION, "otsu", None).caption
    assert "Band" not in figures.binarisation_figure(bare, ROTATION).caption


def test_the_plane_speaks_of_regions_only_where_they_are_drawn(plane):
    assert "Ellipses: 95 %" in coefficient_figure(plane, "otsu", figures.ROTATION_FIELD_TITLES).caption
    bare = plane.filter(pl.col("kind") != "ellipse")
    caption = coefficient_figure(bare, "otsu", figures.ROTATION_FIELD_TITLES).caption
    assert "Ellipses" not in caption
    assert "too few independent blocks" in caption


def test_small_panels_have_room_for_the_numbers_of_their_axis():
    values = np.array([0.25, 0.5, 1.0, 1.5, 2.0])
    curves = frame("trained", 0.5 + np.zeros((8, 5)) + values / 10, values)
    found = figures.binarisation_figure(data_of(curves, BRIGHTNESS), BRIGHTNESS)
    for _, layers in panels_of(found):
        assert all(layer.encoding["x"]["axis"]["tickCount"] <= 4 for layer in layers)


def test_a_sweep_without_period_has_its_own_axis_and_field():
    values = np.array([0.0, 0.01, 0.02, 0.04])
    rng = np.random.default_rng(0)
    curves = pl.concat(
        frame(role, 0.5 - 3 * values + rng.normal(0, 0.01, (5, 4)), values, fields=("full", "kept"))
        for role in ("trained", "untrained", "released")
    )
    figure = figures.curve_figure(data_of(curves, BLUR), BLUR, "otsu", None)
    found = panels_of(figure)
    assert [title for title, _ in found[:2]] == ["Full field of view", "Pixels that every value keeps"]
    x = layers_of(found[2], "line")[0].encoding["x"]
    assert (x["axis"]["title"], x["scale"]["domain"]) == (BLUR.axis_title(), [0.0, 0.04])
    assert "released" in {row["role"] for row in layers_of(found[0], "line")[0].rows}
    assert "At 0 of the side both views are the same image" in figure.caption


def test_figures_draw_with_few_images_and_few_curves():
    few = study(num_images=2, leave_out=["trained", "untrained", "intensity"])
    data = data_of(few)
    assert data["dice_low"].null_count() == data.height
    assert figures.curve_figure(data, ROTATION, "otsu", None).png().startswith(b"\x89PNG")


def test_figures_carry_means_only(data):
    rows = figures.curve_figure(data, ROTATION, "otsu", None).specification["datasets"].values()
    assert max(len(part) for part in rows) <= 10 * len(GRID_5)
