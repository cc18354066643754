"""Sweeps against scipy, torchvision, NumPy and their definitions."""

import dataclasses
import inspect
import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from torchvision.transforms.v2 import functional as torchvision

from trainables import runtime, sweeps
from trainables.api.trainable import Part
from trainables.augment.resample import rotate
from trainables.sweeps import Brightness, CentreCrop, GaussianBlur, Rotation, Sweep, inscribed_circle

SIZE = 24
SWEEPS = [
    member()
    for _, member in inspect.getmembers(sweeps, inspect.isclass)
    if issubclass(member, Sweep) and not inspect.isabstract(member)
]


def noise(batch=5, channels=2, height=SIZE, width=SIZE, dtype=torch.float32):
    generator = runtime.generator("images of a sweep")
    return torch.rand(batch, channels, height, width, generator=generator, dtype=torch.float64).to(dtype)


def values_of(*values):
    return torch.tensor(values, dtype=torch.float64)


def one(sweep, images, value):
    return sweep.view(images, values_of(*[value] * len(images)))


def back(sweep, maps, value):
    return sweep.back(maps, values_of(*[value] * len(maps)))


def some_values(sweep):
    """Five of the sweep's own values, with the neutral one in the middle."""
    others = [value for value in sweep.default_values() if not sweep.is_neutral(value)]
    return [others[1], others[-1], sweep.neutral, others[2], others[len(others) // 2]]


def test_the_contract_finds_every_sweep():
    assert {type(sweep) for sweep in SWEEPS} == {Rotation, GaussianBlur, CentreCrop, Brightness}


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: type(sweep).__name__)
def test_contract_of_a_sweep(sweep):
    """Frozen; the anchor at neutral; own values whatever the batch; pure; float32 stays and nothing leaves [0, 1]."""
    assert isinstance(sweep, Part)
    assert type(sweep).__dataclass_params__.frozen
    assert dataclasses.replace(sweep) == sweep
    assert hash(sweep) == hash(dataclasses.replace(sweep))
    assert sweep.title
    assert isinstance(sweep.unit, str)
    assert sweep.allowed
    grid = sweep.default_values()
    sweep.check(grid)
    assert any(sweep.is_neutral(value) for value in grid)
    assert len(grid) >= 6
    images, maps, values = noise(), noise(channels=1)[:, 0] - 0.3, values_of(*some_values(sweep))
    before = images.clone()
    views, returned = sweep.view(images, values), sweep.back(maps, values)
    assert torch.equal(images, before)
    assert views.shape == images.shape
    assert returned.shape == maps.shape
    assert views.dtype == returned.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1
    assert torch.equal(views[2], images[2])
    assert torch.equal(returned[2], maps[2])
    for place, value in enumerate(values.tolist()):
        assert torch.equal(views[place], one(sweep, images[place : place + 1], value)[0])
        assert torch.equal(returned[place], back(sweep, maps[place : place + 1], value)[0])
        assert torch.equal(views[place], images[place]) == sweep.is_neutral(value)
    assert torch.equal(sweep.view(images.flip(0), values.flip(0)).flip(0), views)
    assert sweep.view(images.double(), values).dtype == torch.float64


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: type(sweep).__name__)
def test_inside_the_kept_pixels_a_constant_map_comes_back_whole(sweep):
    grid = sweep.default_values()
    kept = sweep.kept(SIZE, grid)
    assert kept.dtype == torch.bool
    assert kept.shape == (SIZE, SIZE)
    assert kept.any()
    for value in grid:
        returned = back(sweep, torch.full((1, SIZE, SIZE), 0.7), value)[0]
        torch.testing.assert_close(returned[kept], torch.full((int(kept.sum()),), 0.7), atol=1e-6, rtol=0)


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: type(sweep).__name__)
def test_neutral_is_bit_for_bit_also_outside_the_range(sweep):
    images = noise() * 4 - 2
    for value in (sweep.neutral, *([-360.0, 360.0, 720.0] if sweep.period else [])):
        assert sweep.is_neutral(value)
        assert torch.equal(one(sweep, images, value), images)
        assert torch.equal(back(sweep, images[:, 0], value), images[:, 0])


def test_rotation_is_the_rotation_of_images_and_comes_back_by_the_opposite_angle():
    images, angles = noise(), values_of(0.0, 33.0, 90.0, -200.5, 33.0)
    for interpolation, fill in (("bilinear", "zero"), ("nearest", "mean"), ("bilinear", "reflect")):
        sweep = Rotation(interpolation, fill)
        assert torch.equal(sweep.view(images, angles), rotate(images, angles, interpolation, fill))
        maps = images[:, 0]
        expected = rotate(maps[:, None], -angles, interpolation, fill)[:, 0]
        assert torch.equal(sweep.back(maps, angles), expected)
    assert not Rotation().is_neutral(90.0)
    assert not Rotation().is_neutral(359.0)
    assert torch.equal(Rotation().kept(31, (0.0, 17.0)), inscribed_circle(31))


def test_the_inscribed_circle_by_its_definition():
    centre = (SIZE - 1) / 2
    for y in range(SIZE):
        for x in range(SIZE):
            assert inscribed_circle(SIZE)[y, x] == (math.hypot(x - centre, y - centre) <= centre - math.sqrt(2))


@pytest.mark.parametrize("shape", [(24, 24), (40, 40)])
@pytest.mark.parametrize("value", [0.004, 0.02, 0.05, 0.21, 0.6])
def test_blur_equals_scipy(value, shape):
    """At small widths and at those whose kernel is wider than the image."""
    images = noise(height=shape[0], width=shape[1], dtype=torch.float64)
    sigma_px = value * shape[0]
    expected = scipy.ndimage.gaussian_filter(images.numpy(), (0, 0, sigma_px, sigma_px), mode="mirror")
    np.testing.assert_allclose(one(GaussianBlur(), images, value), expected, atol=1e-14, rtol=0)
    in_float32 = one(GaussianBlur(), images.float(), value)
    np.testing.assert_allclose(in_float32, expected, atol=2e-6, rtol=0)


def test_crop_equals_linear_interpolation_by_scipy():
    images = noise(batch=2, dtype=torch.float64)
    for scale in (0.97, 0.75, 0.3, 1 / SIZE):
        places = (np.arange(SIZE) + 0.5 - SIZE / 2) * scale + SIZE / 2 - 0.5
        y, x = np.meshgrid(places, places, indexing="ij")
        for view, image in zip(one(CentreCrop(), images, scale).flatten(0, 1), images.flatten(0, 1), strict=True):
            np.testing.assert_allclose(view, scipy.ndimage.map_coordinates(image, (y, x), order=1), atol=1e-12)


def test_crop_equals_torchvision_where_that_looks_at_the_same_pixels():
    """torchvision enlarges what it has cut out: at the cut's border it repeats pixels, where ours shows the next."""
    images = noise(batch=2)
    expected = torchvision.resize(torchvision.center_crop(images, [12, 12]), [SIZE, SIZE], antialias=False)
    torch.testing.assert_close(one(CentreCrop(), images, 0.5)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def by_area(map_HW, scale):
    """Each pixel's mean over what it covers of the shrunken map: sums over 60 x 60 points a pixel."""
    size, fine = len(map_HW), 60
    points = (np.arange(size * fine) + 0.5) / fine
    sources = np.floor((points - size / 2) / scale + size / 2).astype(int)
    inside = (sources >= 0) & (sources < size)
    values = map_HW[np.ix_(sources.clip(0, size - 1), sources.clip(0, size - 1))] * np.outer(inside, inside)
    return values.reshape(size, fine, size, fine).mean(axis=(1, 3))


@pytest.mark.parametrize("scale", [0.9, 0.5, 1 / 3])
def test_a_map_comes_back_into_the_place_of_the_crop(scale):
    map_HW = noise(batch=1, channels=1, height=18, width=18, dtype=torch.float64)[0, 0] - 0.4
    returned = back(CentreCrop(), map_HW[None], scale)[0]
    np.testing.assert_allclose(returned, by_area(map_HW.numpy(), scale), atol=2e-2 if scale == 0.9 else 2e-3)
    torch.testing.assert_close(returned.sum(), map_HW.sum() * scale**2)
    corner = math.floor(18 * (1 - scale) / 2)
    assert (returned[:corner] == 0).all()
    assert (returned[:, 18 - corner :] == 0).all()


def test_half_a_crop_comes_back_as_means_of_four():
    map_HW = noise(batch=1, channels=1, dtype=torch.float64)[0, 0]
    expected = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    expected[6:18, 6:18] = map_HW.view(12, 2, 12, 2).mean(dim=(1, 3))
    torch.testing.assert_close(back(CentreCrop(), map_HW[None], 0.5)[0], expected)


def test_the_crop_keeps_what_its_smallest_shows():
    expected = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    expected[6:18, 6:18] = True
    assert torch.equal(CentreCrop().kept(SIZE, (1.0, 0.5, 0.7)), expected)
    assert int(CentreCrop().kept(10, (0.65,)).sum()) == 36  # 1.75 pixels cut off: two are not whole
    assert int(CentreCrop().kept(10, (0.6,)).sum()) == 36
    assert CentreCrop().kept(10, (1.0,)).all()


def test_blur_and_brightness_keep_every_pixel_and_move_none():
    for sweep in (GaussianBlur(), Brightness()):
        maps = noise()[:, 0]
        assert sweep.kept(SIZE, sweep.default_values()).all()
        assert torch.equal(back(sweep, maps, sweep.default_values()[0]), maps)


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.7, 40.0])
def test_brightness_equals_torchvision(factor):
    images = noise(channels=3)
    torch.testing.assert_close(
        one(Brightness(), images, factor), torchvision.adjust_brightness(images, factor), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(
    ("sweep", "values", "named"),
    [
        (Rotation(), (), "at least one"),
        (Rotation(), (5.0, 5.0), "5.0"),
        (Rotation(), (0.0, math.nan), "nan"),
        (Rotation(), (0.0, -90.0), "-90.0: .*from 0 to 360"),
        (Rotation(), (0.0, 360.5), "360.5: .*from 0 to 360"),
        (GaussianBlur(), (0.0, -0.1), "-0.1"),
        (GaussianBlur(), (2.0,), "fraction"),
        (CentreCrop(), (0.0,), "0.0"),
        (CentreCrop(), (1.2,), "1.2"),
        (Brightness(), (-1.0,), "-1.0"),
        (Brightness(), (math.inf,), "inf"),
    ],
)
def test_errors_name_the_value(sweep, values, named):
    with pytest.raises(ValueError, match=named):
        sweep.check(values)
    with pytest.raises(ValueError, match=named):
        sweep.kept(8, values)


def test_a_view_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="one value for each"):
        Rotation().view(noise(), values_of(1.0))
    with pytest.raises(ValueError, match=r"1\.5"):
        one(CentreCrop(), noise(), 1.5)
    with pytest.raises(ValueError, match=r"1\.5"):
        back(CentreCrop(), noise()[:, 0], 1.5)
    with pytest.raises(ValueError, match="black"):
        Rotation(fill="black")


def test_what_rounding_made_of_the_neutral_value_is_the_neutral_value() -> None:
    assert CentreCrop().snapped(0.9999999999999999) == 1.0
    assert CentreCrop().snapped(0.999) == 0.999
    assert [Rotation().snapped(angle) for angle in (1e-12, 360 - 1e-9, 359.0, 90.0)] == [0.0, 360.0, 359.0, 90.0]
