"""Padding and resizing: nothing moves off centre, nothing is distorted, nothing is made up."""

import numpy as np
import pytest

from trainables.data.square import pad_to_square, resize, to_grey_levels, to_mask


def test_padding_centres_the_image():
    padded = pad_to_square(np.ones((2, 5)))
    np.testing.assert_array_equal(padded.sum(axis=1), [0, 5, 5, 0, 0])
    padded = pad_to_square(np.ones((6, 2)))
    np.testing.assert_array_equal(padded.sum(axis=0), [0, 0, 6, 6, 0, 0])


def test_a_size_kept_is_an_image_kept():
    image = np.random.default_rng(0).uniform(0, 255, (13, 13))
    np.testing.assert_array_equal(resize(image, 13), image)


def test_shrinking_averages_instead_of_picking_pixels():
    stripes = np.zeros((64, 64))
    stripes[:, ::4] = 200
    np.testing.assert_allclose(resize(stripes, 16)[:, 1:-1], 50, atol=1)


@pytest.mark.parametrize("side_px", [16, 21, 50])
def test_resizing_keeps_quarter_turns_and_the_centre_of_mass(side_px):
    y, x = np.mgrid[:33, :33]
    blob = 255 * np.exp(-((x - 20) ** 2 + (y - 12) ** 2) / 18)
    resized = resize(blob, side_px)
    np.testing.assert_allclose(resize(np.rot90(blob), side_px), np.rot90(resized), atol=1e-9)
    rows, columns = np.mgrid[:side_px, :side_px] + 0.5
    weights = resized / resized.sum()
    assert (rows * weights).sum() / side_px == pytest.approx(12.5 / 33, abs=0.005)
    assert (columns * weights).sum() / side_px == pytest.approx(20.5 / 33, abs=0.005)


def test_rounding_and_thresholds():
    np.testing.assert_array_equal(to_grey_levels(np.array([[-3.0, 0.4, 0.6, 254.6, 300.0]])), [[0, 0, 1, 255, 255]])
    np.testing.assert_array_equal(to_mask(np.array([[0.0, 0.5, 0.51, 1.0]])), [[0, 0, 1, 1]])
