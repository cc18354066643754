"""Combinations of augmentations: order, choice, one resampling for neighbours; the thesis's own by golden values."""

import dataclasses
import hashlib
import math

import pytest
import torch
from torchvision.transforms.v2 import functional

from trainables import runtime, sweeps
from trainables.augment.colour import adjust_brightness_, adjust_contrast_
from trainables.augment.combine import THESIS_AUGMENTATION, Combine, Sometimes, augmented_with_classes
from trainables.augment.geometric import HorizontalFlip, RandomResizedCrop, Rotation, VerticalFlip, crop_warp
from trainables.augment.photometric import Brightness, ColourJitter, Contrast, GaussianBlur
from trainables.augment.resample import resample, rotate


def noise(batch=3, channels=2, height=21, width=21, dtype=torch.float64):
    return torch.rand(batch, channels, height, width, generator=runtime.generator("images"), dtype=dtype)


def draws_for(augmentation, num_samples):
    return runtime.uniforms(torch.arange(num_samples), augmentation.num_draws, "combine")


def test_all_applies_in_order_with_one_resampling():
    images, angle_deg = noise(batch=1), 30.0
    both = Combine((Rotation(max_deg=angle_deg, min_deg=angle_deg), HorizontalFlip(p=1.0)), choose="all")
    draws = torch.full((1, both.num_draws), 0.5, dtype=torch.float64)
    torch.testing.assert_close(both.apply(images, draws), rotate(images, angle_deg).flip(3))
    turned_twice = Combine((Rotation(30.0, 30.0), Rotation(60.0, 60.0)), choose="all")
    draws = torch.full((1, turned_twice.num_draws), 0.5, dtype=torch.float64)
    torch.testing.assert_close(turned_twice.apply(images, draws), torch.rot90(images, 1, dims=(2, 3)))


def test_one_chooses_each_equally_often_and_alone():
    images = noise(batch=1, channels=1, height=9, width=9).expand(3000, -1, -1, -1)
    changed = THESIS_AUGMENTATION.apply(images, draws_for(THESIS_AUGMENTATION, 3000))
    horizontal = (changed == images.flip(3)).flatten(1).all(dim=1)
    vertical = (changed == images.flip(2)).flatten(1).all(dim=1)
    rotated = ~horizontal & ~vertical
    for share in (horizontal, vertical, rotated):
        assert abs(share.double().mean() - 1 / 3) < 0.03


def test_interpolation_and_fill_of_the_combination_are_used():
    images = noise(batch=1)
    combined = Combine((Rotation(20.0, 20.0),), interpolation="nearest", fill="mean")
    draws = torch.zeros(1, combined.num_draws, dtype=torch.float64)
    turned = rotate(images, 20.0, "nearest", "mean")
    assert torch.equal(combined.apply(images, draws), turned)
    brighter = Combine((Rotation(20.0, 20.0), Brightness(0.5), Rotation(20.0, 20.0)), "all", "nearest", "mean")
    expected = rotate(adjust_brightness_(turned, torch.full((1,), 0.5)), 20.0, "nearest", "mean")
    draws = torch.zeros(1, brighter.num_draws, dtype=torch.float64)
    assert torch.equal(brighter.apply(images, draws), expected)


def test_the_thesis_augmentation_is_what_it_was():
    """Draws to the bit, images in float64 as projections: made by the first version of this project."""
    images = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    draws = runtime.uniforms(torch.arange(8), THESIS_AUGMENTATION.num_draws, "golden")
    assert hashlib.sha256(draws.numpy().tobytes()).hexdigest()[:16] == "8cb50806422c49ee"
    projections = THESIS_AUGMENTATION.apply(images, draws).flatten(1) @ torch.cos(
        torch.arange(256, dtype=torch.float64)
    )
    expected = [
        1.5641485202982799,
        -0.5340784149268354,
        -2.812952616452896,
        1.8303108655170295,
        2.0004704969612583,
        2.1834136387500096,
        -2.8344387945674945,
        -1.5338362945719406,
    ]
    torch.testing.assert_close(projections, torch.tensor(expected, dtype=torch.float64), atol=1e-8, rtol=0)


def test_photometric_ones_come_in_their_order_between_geometric_ones():
    images = noise(channels=3)
    both = Combine((HorizontalFlip(1.0), Brightness(0.9), Contrast(0.9), Rotation(40.0, 40.0), VerticalFlip(1.0)))
    draws = draws_for(both, 3)
    brightness, contrast = 0.1 + 1.8 * draws[:, 2], 0.1 + 1.8 * draws[:, 3]
    expected = adjust_contrast_(adjust_brightness_(images.flip(3), brightness), contrast)
    torch.testing.assert_close(both.apply(images, draws), rotate(expected, 40.0).flip(2), atol=1e-12, rtol=0)


@pytest.mark.parametrize("order", ["crop first", "rotation first", "crop between"])
def test_crop_flip_and_rotation_are_one_resampling(order, monkeypatch):
    """As the one after the other where nothing was lost between them, up to what two interpolations blur."""
    axis = torch.linspace(-3, 3, 60, dtype=torch.float64)
    image = (torch.sin(axis)[:, None] * torch.cos(axis * 0.7 + 0.4) + 0.1 * axis)[None, None]
    crop, turn, flip = RandomResizedCrop(0.5, 0.5), Rotation(25.0, 25.0), HorizontalFlip(1.0)
    parts = {
        "crop first": (crop, flip, turn), "rotation first": (turn, flip, crop), "crop between": (flip, turn, crop, turn)
    }[order]  # fmt: skip
    calls = []
    sampled = torch.nn.functional.grid_sample
    combined = Combine(parts)
    draws = draws_for(combined, 1)
    expected, place = image, 1
    for part in parts:
        expected = part.apply(expected, draws[:, place : place + part.num_draws])
        place += part.num_draws
    monkeypatch.setattr(torch.nn.functional, "grid_sample", lambda *a, **k: calls.append(1) or sampled(*a, **k))
    together = combined.apply(image, draws)
    assert len(calls) == 1
    disc = (axis[:, None] ** 2 + axis**2) < 1.3**2
    assert (together - expected).abs()[0, 0][disc].max() < 0.01
    assert (together - image).abs()[0, 0][disc].max() > 0.3


def test_a_crop_after_a_quarter_turn_is_a_crop_of_the_turned_image():
    """The crop's edge is that of the turned image, also where matrices and crops form a chain."""
    images = noise(batch=1, height=16, width=16)
    box = [torch.tensor([value], dtype=torch.float64) for value in (2, 0, 9, 7)]
    turned = torch.rot90(images, 1, dims=(2, 3))
    expected = functional.resized_crop(turned, 2, 0, 9, 7, [16, 16])
    chain = Rotation(90.0, 90.0).warp(torch.zeros(1, 1, dtype=torch.float64), 16, 16).then(crop_warp(*box, 16, 16))
    torch.testing.assert_close(resample(images, chain), expected, atol=1e-12, rtol=0)
    flipped = chain.then(HorizontalFlip(1.0).warp(torch.zeros(1, 1, dtype=torch.float64), 16, 16))
    torch.testing.assert_close(resample(images, flipped), expected.flip(3), atol=1e-12, rtol=0)
    assert len(flipped.steps) == 2


@pytest.mark.parametrize("angle_deg", [45.0, 5.0])
def test_beyond_a_crop_a_later_rotation_brings_in_the_rest_of_the_image(angle_deg):
    """A slope to the right: turned, a corner of the view lies farther right than the crop's own edge, by 5 degrees less
    than a pixel."""
    slope = torch.linspace(0, 1, 32, dtype=torch.float64).expand(1, 1, 32, 32)
    combined = Combine((RandomResizedCrop(0.25, 0.25, 1.0, 1.0), Rotation(angle_deg, angle_deg)))
    draws = torch.full((1, combined.num_draws), 0.5, dtype=torch.float64)
    turned = combined.apply(slope, draws)[0, 0]
    # A corner of the view is 15.5 pixels each way, and shown at half the scale.
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    assert float(turned[0, -1]) == pytest.approx(0.5 + 0.5 * 15.5 * (sin + cos) / 31, abs=0.003)
    assert float(turned[0, 0]) == pytest.approx(0.5 + 0.5 * 15.5 * (sin - cos) / 31, abs=0.003)


def test_a_crop_of_the_whole_image_changes_no_rotation():
    images = noise(dtype=torch.float32)
    combined = Combine((RandomResizedCrop(1.0, 1.0, 1.0, 1.0), Rotation(30.0, 30.0)))
    assert torch.equal(combined.apply(images, draws_for(combined, 3)), rotate(images, 30.0))


def test_one_of_mixed_augmentations_for_each_sample():
    images = noise(batch=40, channels=3)
    inner = Combine((HorizontalFlip(1.0), VerticalFlip(1.0)), choose="all")
    mixed = Combine((Rotation(30.0, 30.0), ColourJitter(), inner), choose="one", interpolation="nearest")
    draws = draws_for(mixed, 40)
    chosen = (draws[:, 0] * 3).long()
    changed = mixed.apply(images, draws)
    assert set(chosen.tolist()) == {0, 1, 2}
    assert torch.equal(changed[chosen == 0], rotate(images[chosen == 0], 30.0, "nearest"))
    jittered = ColourJitter().apply(images[chosen == 1], draws[chosen == 1, 2:7])
    assert torch.equal(changed[chosen == 1], jittered)
    assert torch.equal(changed[chosen == 2], images[chosen == 2].flip(2, 3))


def test_one_of_several_geometric_ones_with_a_crop_is_each_alone():
    images = noise(batch=30)
    parts = (Rotation(50.0), RandomResizedCrop(), Combine((Rotation(), RandomResizedCrop())))
    combined = Combine(parts, choose="one")
    draws = draws_for(combined, 30)
    chosen, changed, place = (draws[:, 0] * 3).long(), combined.apply(images, draws), 1
    for number, part in enumerate(parts):
        expected = part.apply(images, draws[:, place : place + part.num_draws])
        assert torch.equal(changed[chosen == number], expected[chosen == number])
        place += part.num_draws


def test_blur_between_two_rotations_parts_them():
    images = noise()
    combined = Combine((Rotation(30.0, 30.0), GaussianBlur(1.0, 1.0), Rotation(60.0, 60.0)))
    draws = draws_for(combined, 3)
    blurred = GaussianBlur(1.0, 1.0).apply(rotate(images, 30.0), draws[:, 2:3])
    torch.testing.assert_close(combined.apply(images, draws), rotate(blurred, 60.0))


def test_sometimes_is_the_augmentation_or_nothing():
    images, sometimes = noise(batch=400, channels=3, height=6, width=6), Sometimes(ColourJitter(), 0.3)
    draws = draws_for(sometimes, 400)
    changed, happens = sometimes.apply(images, draws), draws[:, 0] < 0.3
    assert torch.equal(changed[happens], ColourJitter().apply(images[happens], draws[happens, 1:]))
    assert torch.equal(changed[~happens], images[~happens])
    assert happens.double().mean() == pytest.approx(0.3, abs=0.05)
    assert not (changed == images).flatten(1).all(dim=1)[happens].any()


def test_a_geometric_one_that_happens_sometimes_is_one_resampling_with_its_neighbours(monkeypatch):
    images, calls, sampled = noise(batch=12), [], torch.nn.functional.grid_sample
    both = Combine((Rotation(30.0, 30.0), Sometimes(RandomResizedCrop(), 0.5)), interpolation="nearest")
    monkeypatch.setattr(torch.nn.functional, "grid_sample", lambda *a, **k: calls.append(1) or sampled(*a, **k))
    draws = draws_for(both, 12)
    changed, happens = both.apply(images, draws), draws[:, 2] < 0.5
    assert len(calls) == 1
    always = Combine((Rotation(30.0, 30.0), RandomResizedCrop()), interpolation="nearest")
    kept_BN = torch.cat([draws[:, :2], draws[:, 3:]], dim=1)
    assert torch.equal(changed[happens], always.apply(images, kept_BN)[happens])
    assert torch.equal(changed[~happens], rotate(images, 30.0, "nearest")[~happens])
    assert 0 < happens.sum() < 12


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Combine(()), "empty"),
        (lambda: Combine((Rotation(), sweeps.GaussianBlur())), "GaussianBlur is none; those of trainables.augment are"),
        (lambda: Combine((Rotation(),), choose="some"), "some"),
        (lambda: Combine((Rotation(),), interpolation="cubic"), "cubic"),
        (lambda: Sometimes(Rotation(), 1.2), "p = 1.2"),
        (lambda: dataclasses.replace(THESIS_AUGMENTATION, fill="black"), "black"),
    ],
)
def test_errors_name_the_value(make, named):
    with pytest.raises(ValueError, match=named):
        make()


# -- images and the classes of their pixels ------------------------------------------------------------------------


def classes_and_their_image(batch=4, side=32):
    """Blocks of classes 0 to 3, and the image that shows them as grey levels."""
    coarse = torch.randint(0, 4, (batch, side // 8, side // 8), generator=runtime.generator("classes"))
    classes_BHW = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2).to(torch.uint8)
    return classes_BHW, classes_BHW[:, None].double() / 4


@pytest.mark.parametrize(
    "augmentation",
    [
        THESIS_AUGMENTATION,
        RandomResizedCrop(),
        Sometimes(Rotation(40.0)),
        Combine((HorizontalFlip(), GaussianBlur(), Rotation(90.0))),
        Combine((Rotation(20.0), RandomResizedCrop(0.5)), fill="reflect"),
    ],
    ids=["one of three", "crop", "sometimes", "blur between", "mirrored"],
)
def test_classes_move_with_the_pixels(augmentation):
    """Where a moved image shows one class and nothing between, the moved classes say so."""
    classes_BHW, images_B1HW = classes_and_their_image()
    draws = draws_for(augmentation, len(classes_BHW))
    moved_B1HW, moved_classes_BHW = augmented_with_classes(augmentation, images_B1HW, classes_BHW, draws)
    assert moved_classes_BHW.dtype == torch.uint8
    assert torch.equal(moved_B1HW, augmentation.apply(images_B1HW, draws))
    levels_BHW = moved_B1HW[:, 0] * 4
    is_pure_BHW = (levels_BHW - levels_BHW.round()).abs() < 1e-6
    assert is_pure_BHW.double().mean() > 0.2
    agrees = (levels_BHW.round() == moved_classes_BHW)[is_pure_BHW].double().mean()
    assert agrees > 0.97  # the middle between two levels is a level, too
    assert not torch.equal(moved_classes_BHW, classes_BHW)


def test_a_change_of_values_moves_no_class():
    classes_BHW, images_B1HW = classes_and_their_image()
    both = Combine((Brightness(0.5), Contrast(0.5)))
    draws = draws_for(both, len(classes_BHW))
    moved_B1HW, moved_classes_BHW = augmented_with_classes(both, images_B1HW, classes_BHW, draws)
    assert torch.equal(moved_classes_BHW, classes_BHW)
    assert not torch.equal(moved_B1HW, images_B1HW)


@pytest.mark.parametrize("wrap", [lambda inner: inner, lambda inner: Sometimes(inner, p=1.0)])
def test_what_is_mirrored_is_mirrored_in_the_classes_too(wrap):
    classes_BHW = torch.full((1, 16, 16), 3, dtype=torch.uint8)
    turned = wrap(Combine((Rotation(45.0, 45.0),), fill="reflect"))
    _, moved_BHW = augmented_with_classes(turned, classes_BHW[:, None].double(), classes_BHW, draws_for(turned, 1))
    assert (moved_BHW == 3).all()


def test_what_comes_in_from_outside_is_background():
    classes_BHW = torch.full((1, 16, 16), 3, dtype=torch.uint8)
    turned = Combine((Rotation(45.0, 45.0),))
    _, moved_BHW = augmented_with_classes(turned, classes_BHW[:, None].double(), classes_BHW, draws_for(turned, 1))
    assert (int(moved_BHW[0, 0, 0]), int(moved_BHW[0, 8, 8])) == (0, 3)
