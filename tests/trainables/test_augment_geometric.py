"""Geometry of augmentations against torch, torchvision and the definitions."""

import math

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate as torchvision_rotate
from torchvision.transforms.v2 import functional

from trainables import runtime
from trainables.augment.geometric import HorizontalFlip, RandomResizedCrop, Rotation, VerticalFlip, crop_warp
from trainables.augment.resample import resample, rotate


def noise(batch=3, channels=2, height=21, width=21, dtype=torch.float64):
    return torch.rand(batch, channels, height, width, generator=runtime.generator("images"), dtype=dtype)


def matrices_of(augmentation, num_samples):
    draws = runtime.uniforms(torch.arange(num_samples), augmentation.num_draws, "matrices")
    return augmentation.warp(draws, 21, 21).product()


def smooth(size=64):
    axis = torch.linspace(-3, 3, size, dtype=torch.float64)
    return (torch.sin(axis * 1.3)[:, None] * torch.cos(axis * 0.7 + 0.4) + 0.2 * axis)[None, None]


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("angle_deg", [17.0, -63.5, 95.0, 181.0, 359.0])
@pytest.mark.parametrize("shape", [(21, 21), (20, 32)])
def test_rotate_equals_torchvision(angle_deg, interpolation, shape):
    images = noise(height=shape[0], width=shape[1], dtype=torch.float32)
    expected = torchvision_rotate(images, angle_deg, InterpolationMode(interpolation))
    torch.testing.assert_close(rotate(images, angle_deg, interpolation), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("quarter_turns", [-5, -1, 0, 1, 2, 3, 4])
def test_multiples_of_90_are_exactly_rot90(quarter_turns):
    images = noise()
    assert torch.equal(rotate(images, 90.0 * quarter_turns), torch.rot90(images, quarter_turns, dims=(2, 3)))


def test_a_quarter_turn_of_an_oblong_image_is_interpolated_about_its_centre():
    images = noise(height=11, width=17, dtype=torch.float32)
    torch.testing.assert_close(rotate(images, 90.0), torchvision_rotate(images, 90.0, InterpolationMode.BILINEAR))


def test_the_exact_path_continues_the_interpolated_one():
    images = noise()
    for angle_deg in (0.0, 90.0, 180.0, 270.0):
        torch.testing.assert_close(rotate(images, angle_deg + 1e-7), rotate(images, angle_deg), atol=1e-6, rtol=0)


def test_each_image_has_its_own_angle_whatever_its_batch():
    images = noise(batch=5, dtype=torch.float32)
    angles = torch.tensor([0.0, 33.0, 90.0, 200.5, 33.0])
    together = rotate(images, angles)
    for place, angle_deg in enumerate(angles):
        assert torch.equal(together[place : place + 1], rotate(images[place : place + 1], float(angle_deg)))


def test_round_trip_returns_the_inner_disc():
    image = smooth()
    axis = torch.linspace(-1, 1, image.shape[-1], dtype=torch.float64)
    disc = (axis[:, None] ** 2 + axis**2) < 0.9**2
    for angle_deg in (13.0, 95.0, 222.0):
        back = rotate(rotate(image, angle_deg, "bicubic"), -angle_deg, "bicubic")
        assert (back - image).abs()[0, 0][disc].max() < 0.02  # bicubic interpolation twice
        assert (rotate(image, 2 * angle_deg) - image).abs()[0, 0][disc].max() > 0.1


def test_corners_are_filled_as_asked():
    image = noise(batch=1) + 1.0
    corner = (0, slice(None), 0, 0)
    assert torch.equal(rotate(image, 45.0)[corner], torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(rotate(image, 45.0, fill="mean")[corner], image.mean(dim=(2, 3))[0])
    assert rotate(image, 45.0, fill="reflect").min() >= image.min()
    constant = torch.full((1, 1, 16, 16), 0.7, dtype=torch.float64)
    for fill in ("mean", "reflect"):
        torch.testing.assert_close(rotate(constant, 30.0, fill=fill), constant)


def test_flips_are_exact():
    images = noise(height=9, width=14)
    draws = torch.zeros(3, 1, dtype=torch.float64)
    assert torch.equal(HorizontalFlip(p=1.0).apply(images, draws), images.flip(3))
    assert torch.equal(VerticalFlip(p=1.0).apply(images, draws), images.flip(2))
    assert torch.equal(HorizontalFlip(p=0.0).apply(images, draws), images)


def test_a_flip_happens_with_its_probability():
    matrices = matrices_of(HorizontalFlip(p=0.3), 4000)
    assert abs((matrices[:, 0, 0] < 0).double().mean() - 0.3) < 0.03


def test_rotation_angles_fill_their_range():
    matrices = matrices_of(Rotation(max_deg=40.0, min_deg=10.0), 2000)
    angles = torch.rad2deg(torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert angles.min() == pytest.approx(10.0, abs=0.1)
    assert angles.max() == pytest.approx(40.0, abs=0.1)
    assert angles.mean() == pytest.approx(25.0, abs=0.7)


def crop_of(images, top, left, height, width):
    """Each image's own rectangle, by ours and by torchvision's functional."""
    boxes = [torch.tensor(values, dtype=torch.float64) for values in (top, left, height, width)]
    ours = resample(images, crop_warp(*boxes, *images.shape[2:]))
    pairs = zip(images, top, left, height, width, strict=True)
    theirs = [functional.resized_crop(image, *box, list(images.shape[2:])) for image, *box in pairs]
    return ours, torch.stack(theirs)


@pytest.mark.parametrize("shape", [(24, 24), (20, 32), (31, 17)])
def test_a_crop_equals_torchvision(shape):
    """At the image's edges, inside, a single pixel, a whole axis."""
    height, width = shape
    images = noise(batch=5, height=height, width=width)
    ours, theirs = crop_of(
        images, (0, height - 7, 3, 5, 0), (0, width - 9, 4, 2, 2), (11, 7, 1, 10, height), (8, 9, 1, 10, 5)
    )
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    ours, theirs = crop_of(images.float(), (0, 1, 3, 5, 0), (0, 8, 4, 2, 2), (11, 7, 1, 10, height), (8, 9, 1, 10, 5))
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_the_whole_image_is_cropped_to_itself_bit_for_bit():
    images = noise(dtype=torch.float32)
    whole = RandomResizedCrop(1.0, 1.0, 1.0, 1.0)
    assert torch.equal(whole.apply(images, runtime.uniforms(torch.arange(3), whole.num_draws, "crop")), images)


def slow_box(crop, draws, height, width):
    """torchvision.transforms.RandomResizedCrop.get_params, with the uniform numbers handed in."""
    areas, ratios = draws[:10], draws[10:20]
    for area, ratio in zip(areas, ratios, strict=True):
        target_area = height * width * (crop.min_area + area * (crop.max_area - crop.min_area))
        lowest, highest = math.log(crop.min_ratio), math.log(crop.max_ratio)
        aspect_ratio = math.exp(lowest + ratio * (highest - lowest))
        w, h = round(math.sqrt(target_area * aspect_ratio)), round(math.sqrt(target_area / aspect_ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(draws[20] * (height - h + 1)), int(draws[21] * (width - w + 1)), h, w
    w, h = width, height
    if width / height < crop.min_ratio:
        h = round(w / crop.min_ratio)
    elif width / height > crop.max_ratio:
        w = round(h * crop.max_ratio)
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(
    ("crop", "shape"),
    [
        (RandomResizedCrop(), (24, 24)),
        (RandomResizedCrop(0.08, 1.0), (20, 32)),
        (RandomResizedCrop(0.9, 1.0), (33, 12)),  # nothing fits: the centre
        (RandomResizedCrop(0.9, 1.0), (12, 33)),
        (RandomResizedCrop(0.3, 0.6, 0.8, 1.9), (24, 24)),
        (RandomResizedCrop(0.95, 1.0, 0.5, 2.0), (24, 24)),  # some fit after some proposals
    ],
)
def test_crops_are_chosen_as_torchvision_does(crop, shape):
    draws = runtime.uniforms(torch.arange(300), crop.num_draws, "crops")
    boxes = torch.stack(crop.boxes(draws, *shape), dim=1)
    assert boxes.long().tolist() == [list(slow_box(crop, row, *shape)) for row in draws.tolist()]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: HorizontalFlip(p=1.5), "1.5"),
        (lambda: VerticalFlip(p=-0.1), "-0.1"),
        (lambda: Rotation(max_deg=10.0, min_deg=20.0), "20.0"),
        (lambda: RandomResizedCrop(0.0, 1.0), "0.0"),
        (lambda: RandomResizedCrop(0.5, 1.5), "1.5"),
        (lambda: RandomResizedCrop(min_ratio=2.0), "2.0"),
        (lambda: rotate(torch.zeros(1, 1, 4, 4), 1.0, fill="black"), "black"),
        (lambda: resample(torch.zeros(2, 1, 4, 4), torch.eye(3)[None]), "do not fit"),
    ],
)
def test_errors_name_the_value(make, named):
    with pytest.raises(ValueError, match=named):
        make()
