"""Augmentations against torch, torchvision and the definitions."""

import dataclasses
import inspect

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate as torchvision_rotate

from trainables import runtime
from trainables.augment import combine, geometric
from trainables.augment.augmentation import Augmentation
from trainables.augment.combine import THESIS_AUGMENTATION, Combine
from trainables.augment.geometric import HorizontalFlip, Rotation, VerticalFlip
from trainables.augment.resample import resample, rotate


def noise(batch=3, channels=2, height=21, width=21, dtype=torch.float64):
    return torch.rand(batch, channels, height, width, generator=runtime.generator("images"), dtype=dtype)


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
    matrices = HorizontalFlip(p=0.3).matrices(runtime.uniforms(torch.arange(4000), 1, "flip"))
    assert abs((matrices[:, 0, 0] < 0).double().mean() - 0.3) < 0.03


def test_rotation_angles_fill_their_range():
    matrices = Rotation(max_deg=40.0, min_deg=10.0).matrices(runtime.uniforms(torch.arange(2000), 1, "angle"))
    angles = torch.rad2deg(torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert angles.min() == pytest.approx(10.0, abs=0.1)
    assert angles.max() == pytest.approx(40.0, abs=0.1)
    assert angles.mean() == pytest.approx(25.0, abs=0.7)


def test_all_applies_in_order_with_one_resampling():
    images, angle_deg = noise(batch=1), 30.0
    both = Combine((Rotation(max_deg=angle_deg, min_deg=angle_deg), HorizontalFlip(p=1.0)), choose="all")
    draws = torch.full((1, both.num_draws), 0.5, dtype=torch.float64)
    torch.testing.assert_close(both.apply(images, draws), rotate(images, angle_deg).flip(3))
    turned_twice = Combine((Rotation(30.0, 30.0), Rotation(60.0, 60.0)), choose="all")
    draws = torch.full((1, turned_twice.num_draws), 0.5, dtype=torch.float64)
    torch.testing.assert_close(turned_twice.apply(images, draws), torch.rot90(images, 1, dims=(2, 3)))


def test_one_chooses_each_equally_often_and_alone():
    matrices = THESIS_AUGMENTATION.matrices(runtime.uniforms(torch.arange(3000), THESIS_AUGMENTATION.num_draws, "one"))
    linear = matrices[:, :2, :2]
    horizontal = (linear == torch.tensor([[-1.0, 0.0], [0.0, 1.0]])).all(dim=(1, 2))
    vertical = (linear == torch.tensor([[1.0, 0.0], [0.0, -1.0]])).all(dim=(1, 2))
    rotated = torch.linalg.det(linear) > 0
    assert (horizontal | vertical | rotated).all()
    for share in (horizontal, vertical, rotated):
        assert abs(share.double().mean() - 1 / 3) < 0.03


def test_interpolation_and_fill_of_the_combination_are_used():
    images = noise(batch=1)
    combined = Combine((Rotation(20.0, 20.0),), interpolation="nearest", fill="mean")
    draws = torch.zeros(1, combined.num_draws, dtype=torch.float64)
    assert torch.equal(combined.apply(images, draws), rotate(images, 20.0, "nearest", "mean"))


EXAMPLES = {
    "Rotation": Rotation(),
    "HorizontalFlip": HorizontalFlip(),
    "VerticalFlip": VerticalFlip(),
    "Combine": THESIS_AUGMENTATION,
}


def augmentation_classes():
    return [
        member
        for module in (geometric, combine)
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Augmentation) and not inspect.isabstract(member) and member.__module__ == module.__name__
    ]


@pytest.mark.parametrize("augmentation_class", augmentation_classes())
def test_contract_of_an_augmentation(augmentation_class):
    """Every augmentation: frozen, float64 affine matrices, and a sample that ignores its batch."""
    example = EXAMPLES.get(augmentation_class.__name__) or augmentation_class()
    assert augmentation_class.__dataclass_params__.frozen
    assert dataclasses.replace(example) == example
    draws = runtime.uniforms(torch.arange(6), example.num_draws, "contract")
    matrices = example.matrices(draws)
    assert matrices.dtype == torch.float64
    assert torch.equal(matrices[:, 2], torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(6, 3))
    assert torch.linalg.det(matrices).abs().min() > 1e-3
    images = noise(batch=6, dtype=torch.float32)
    together = example.apply(images, draws)
    reversed_batch = example.apply(images.flip(0), draws.flip(0)).flip(0)
    assert torch.equal(together, reversed_batch)
    assert torch.equal(together[4:5], example.apply(images[4:5], draws[4:5]))
    assert not torch.equal(together, images)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: HorizontalFlip(p=1.5), "1.5"),
        (lambda: VerticalFlip(p=-0.1), "-0.1"),
        (lambda: Rotation(max_deg=10.0, min_deg=20.0), "20.0"),
        (lambda: Combine(()), "empty"),
        (lambda: Combine((Rotation(),), choose="some"), "some"),
        (lambda: Combine((Rotation(),), interpolation="cubic"), "cubic"),
        (lambda: rotate(torch.zeros(1, 1, 4, 4), 1.0, fill="black"), "black"),
        (lambda: resample(torch.zeros(2, 1, 4, 4), torch.eye(3)[None]), "do not fit"),
    ],
)
def test_errors_name_the_value(make, named):
    with pytest.raises(ValueError, match=named):
        make()
