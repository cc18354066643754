import json

import numpy as np
import polars as pl
import pytest
import vl_convert
from synthetic_curves import GRID_5, study
from synthetic_report import history, sample_maps

from analysis import statistics
from analysis.published.rotation import rotation_curve
from analysis.resampling import Bootstrap
from analysis.rotation import figures as rotation
from analysis.rotation import pretraining, samples

BOOTSTRAP = Bootstrap(100)
BRATS = rotation_curve("brats")


@pytest.fixture(scope="module")
def curves():
    return study(num_images=6)


@pytest.fixture(scope="module")
def data(curves):
    return rotation.curve_data(curves, BOOTSTRAP)


def test_curve_data_is_the_mean_over_images(curves, data):
    rows = curves.filter(curve="trained", field_of_view="circle", binarisation="soft", angle_deg=45.0)
    drawn = data.filter(curve="trained", field_of_view="circle", binarisation="soft")
    at_45 = drawn.filter(angle_deg=45.0).row(0, named=True)
    assert at_45["dice"] == pytest.approx(rows["dice"].mean())
    assert at_45["n"] == 6
    assert at_45["dice_low"] < at_45["dice"] < at_45["dice_high"]
    own_mean = drawn.filter(pl.col("angle_deg") < 360)["dice"].mean()
    assert at_45["deviation"] == pytest.approx(at_45["dice"] - own_mean), "360 must not enter the curve's own mean"
    assert at_45["deviation_high"] - at_45["deviation_low"] < at_45["dice_high"] - at_45["dice_low"]


def test_untrained_seeds_and_their_mean_share_a_family(data):
    part = data.filter(field_of_view="full", binarisation="otsu", angle_deg=90.0)
    seeds = part.filter(pl.col("curve").str.starts_with("untrained seed"))
    assert seeds.height == 3
    assert part.filter(curve="untrained mean")["dice"].item() == pytest.approx(seeds["dice"].mean())
    assert set(part.filter(pl.col("curve").str.starts_with("untrained"))["family"]) == {"untrained"}


def test_labels_stand_at_their_curves_but_do_not_touch(data):
    part = data.filter(field_of_view="full", binarisation="otsu")
    labels = rotation.label_data(part, 0.2, 1.0).sort("label_at")
    assert set(labels["family"]) == {"trained", "untrained", "fixed map", "mask ceiling", "intensity"}
    assert np.diff(labels["label_at"]).min() >= 0.055 * 0.8 - 1e-9
    alone = part.filter(family="intensity")
    assert rotation.label_data(alone, 0.2, 1.0)["label_at"].item() == alone.filter(angle_deg=360.0)["dice"].item()


def test_coefficient_data_agrees_with_the_statistics(curves):
    drawn = rotation.coefficient_data(curves, BOOTSTRAP).filter(field_of_view="full", binarisation="otsu")
    centre = drawn.filter(curve="trained", kind="centre").row(0, named=True)
    table = statistics.coefficients(curves, BOOTSTRAP)
    assert centre["cos"] == pytest.approx(statistics.look_up(table, "trained", "full", "otsu", "cos")[0])
    ellipse = drawn.filter(curve="trained", kind="ellipse")
    assert ellipse["cos"].min() < centre["cos"] < ellipse["cos"].max()
    nearest = np.hypot(ellipse["cos"], ellipse["sin"]).min()
    assert nearest == pytest.approx(statistics.look_up(table, "trained", "full", "otsu", "amplitude")[1], rel=0.01)


def figures(curves, data):
    return [
        rotation.rotation_figure(data, "otsu", BRATS),
        rotation.binarisation_figure(data),
        rotation.coefficient_figure(rotation.coefficient_data(curves, BOOTSTRAP), "otsu"),
    ]


def test_every_legend_selects(curves, data):
    for figure in figures(curves, data):
        legends = vl_convert.vegalite_to_vega(figure.specification)["legends"]
        assert len(legends) == 1
        assert legends[0]["encode"]["labels"]["interactive"], figure.name


def test_figures_carry_means_only_and_their_captions_say_n(curves, data):
    rotation_figure, *others = figures(curves, data)
    rows = rotation_figure.specification["datasets"].values()
    assert max(len(part) for part in rows) <= 8 * len(GRID_5)
    for figure in (rotation_figure, *others):
        assert "n = 6" in figure.caption
        assert "http" not in json.dumps(figure.specification)


def test_published_extrema_are_drawn_as_rules(data):
    def marked(marks):
        datasets = rotation.rotation_figure(data, "otsu", marks).specification["datasets"].values()
        return [[row["angle_deg"] for row in rows] for rows in datasets if set(rows[0]) == {"angle_deg"}]

    assert [90.0, 180.0, 270.0] in marked(BRATS)
    assert [45.0, 135.0, 225.0, 315.0] in marked(BRATS)
    assert marked(None) == []


def test_figures_draw_with_few_images_and_few_curves():
    few = study(num_images=2, leave_out=["trained", *(f"untrained seed {k}" for k in range(3)), "intensity"])
    data = rotation.curve_data(few, BOOTSTRAP)
    assert data["dice_low"].null_count() == data.height
    assert rotation.rotation_figure(data, "otsu", None).png().startswith(b"\x89PNG")


def test_pretraining_data_keeps_what_shows_a_collapse():
    data = pretraining.pretraining_data(history().sample(fraction=1.0, shuffle=True, seed=0))
    assert data["panel"].unique(maintain_order=True).to_list() == ["loss", "embedding std", "effective rank"]
    assert "train/learning_rate" not in data["metric"]
    assert data.filter(panel="loss")["step"].to_list() == list(range(1, 13))
    assert "<svg" in pretraining.pretraining_figure(data).svg()


def test_sample_tiles_show_the_right_array():
    maps = sample_maps()
    rows = samples.sample_rows(maps, None, max_images=2)
    assert [name for name, _ in rows] == ["image 00", "image 01"]
    tiles = {tile.title: tile.pixels for tile in rows[1][1]}
    np.testing.assert_array_equal(tiles["rotated by 95°"], samples.grey(maps["rotated_KAHW"][1, 1]))
    np.testing.assert_array_equal(tiles["map of the rotated"], samples.heat(maps["maps_rotated_KAHW"][1, 1]))
    expected = samples.outlined(samples.heat(maps["maps_KAHW"][1, 1]), maps["masks_KHW"][1])
    np.testing.assert_array_equal(tiles["map, rotated back"], expected)
    np.testing.assert_array_equal(
        tiles["map"], samples.outlined(samples.heat(maps["maps_KAHW"][1, 0]), maps["masks_KHW"][1])
    )


def test_untrained_maps_are_joined_by_image():
    trained, untrained = sample_maps(), sample_maps(seed=1)
    shuffled = {k: v if k == "angles_deg" else v[::-1] for k, v in untrained.items()}
    first, second = samples.sample_rows(trained, untrained), samples.sample_rows(trained, shuffled)
    np.testing.assert_array_equal(first[0][1][6].pixels, second[0][1][6].pixels)
    others = untrained | {"image_id": np.array(["other 0", "other 1", "other 2"])}
    assert len(samples.sample_rows(trained, others)[0][1]) == 6


def test_samples_need_angle_0_and_another():
    with pytest.raises(ValueError, match="one other angle"):
        samples.sample_rows(sample_maps() | {"angles_deg": np.array([0.0, 360.0])})


def test_colours_of_maps():
    values = np.array([[0.0, 1.0], [0.5, np.nan]])
    assert samples.heat(values)[0, 0].tolist() == [0, 0, 4]
    assert samples.heat(values)[0, 1].tolist() == [252, 253, 191]
    assert samples.grey(values)[1].tolist() == [[128] * 3, [0] * 3]
    assert samples.grey(np.full((2, 2), 7.0)).max() == 0
    light = samples.heat(np.linspace(0, 1, 64)[None]).astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light[0]) > -0.5).all(), "brighter must mean more"


def test_outline_surrounds_the_mask_and_leaves_it_visible():
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[10:30, 10:30] = 1
    drawn = samples.outlined(samples.grey(mask), mask)
    assert drawn.shape == (320, 320, 3)
    line = (drawn == (64, 224, 208)).all(axis=2)
    assert line[79, 160]
    assert not line[85:235, 85:235].any()
    assert line.sum() < 0.02 * line.size


def test_composed_panel_has_a_place_for_every_tile():
    rows = samples.sample_rows(sample_maps(), sample_maps(seed=1))
    panel = samples.composed(rows)
    assert panel.shape == (3 * 166 - 6, 8 * 166 - 6, 3)
    assert (panel[:, 160:166] == 255).all()
