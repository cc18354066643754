"""Sample maps: which array stands in which tile, and how it is coloured."""

import numpy as np
import pytest
from synthetic_curves import BLUR, ROTATION
from synthetic_study import sample_maps

from analysis.curves import samples
from analysis.render.pictures import composed


def test_sample_tiles_show_the_right_array():
    maps = sample_maps()
    rows = samples.sample_rows(maps, None, ROTATION, max_images=2)
    assert [name for name, _ in rows] == ["image 00", "image 01"]
    tiles = {tile.title: tile.pixels for tile in rows[1][1]}
    assert list(tiles) == [
        "image", "mask", "map", "view, rotation angle 95°", "map of the view", "that map, brought back",
    ]  # fmt: skip
    np.testing.assert_array_equal(tiles["image"], samples.grey(maps["images_KHW"][1]))
    np.testing.assert_array_equal(tiles["view, rotation angle 95°"], samples.grey(maps["views_KVHW"][1, 1]))
    np.testing.assert_array_equal(tiles["map of the view"], samples.heat(maps["view_maps_KVHW"][1, 1]))
    expected = samples.outlined(samples.heat(maps["maps_KVHW"][1, 1]), maps["masks_KHW"][1])
    np.testing.assert_array_equal(tiles["that map, brought back"], expected)
    np.testing.assert_array_equal(
        tiles["map"], samples.outlined(samples.heat(maps["maps_KVHW"][1, 0]), maps["masks_KHW"][1])
    )


def test_untrained_maps_are_joined_by_image():
    trained, untrained = sample_maps(), sample_maps(seed=1)
    shuffled = {k: v if k == "values" else v[::-1] for k, v in untrained.items()}
    first, second = (samples.sample_rows(trained, other, ROTATION) for other in (untrained, shuffled))
    assert first[0][1][6].title == "untrained map"
    for place in (6, 7):
        np.testing.assert_array_equal(first[0][1][place].pixels, second[0][1][place].pixels)
        drawn = samples.outlined(samples.heat(untrained["maps_KVHW"][0, place - 6]), trained["masks_KHW"][0])
        np.testing.assert_array_equal(first[0][1][place].pixels, drawn)
    others = untrained | {"image_id": np.array(["other 0", "other 1", "other 2"])}
    assert len(samples.sample_rows(trained, others, ROTATION)[0][1]) == 6


def test_samples_need_the_neutral_value_and_another():
    for values in ([0.0, 360.0], [90.0, 95.0]):
        given = sample_maps() | {"values": np.array(values)}
        assert not samples.can_be_shown(given, ROTATION)
        with pytest.raises(ValueError, match="the neutral value and another are needed"):
            samples.sample_rows(given, None, ROTATION)
    assert samples.can_be_shown(sample_maps() | {"values": np.array([0.0, 360.0])}, BLUR)


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
    rows = samples.sample_rows(sample_maps(), sample_maps(seed=1), ROTATION)
    panel = composed(rows)
    assert panel.shape == (3 * 166 - 6, 8 * 166 - 6, 3)
    assert (panel[:, 160:166] == 255).all()
