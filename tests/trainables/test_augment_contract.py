"""What every augmentation keeps to. New ones are found by themselves; each adds a neutral and a strong example here."""

import dataclasses
import importlib
import inspect
import pkgutil

import pytest
import torch

from trainables import augment, runtime
from trainables.api.trainable import Part
from trainables.augment.augmentation import Augmentation, Geometric, Photometric
from trainables.augment.combine import THESIS_AUGMENTATION, Combine, Sometimes
from trainables.augment.geometric import HorizontalFlip, RandomResizedCrop, Rotation, VerticalFlip
from trainables.augment.photometric import Brightness, ColourJitter, Contrast, GaussianBlur, GaussianNoise

NEUTRAL = {
    Rotation: Rotation(0.0),
    HorizontalFlip: HorizontalFlip(0.0),
    VerticalFlip: VerticalFlip(0.0),
    RandomResizedCrop: RandomResizedCrop(1.0, 1.0, 1.0, 1.0),
    Brightness: Brightness(0.0),
    Contrast: Contrast(0.0),
    ColourJitter: ColourJitter(0.0, 0.0, 0.0, 0.0),
    GaussianBlur: GaussianBlur(0.0, 0.0),
    GaussianNoise: GaussianNoise(0.0, 0.0),
    Combine: Combine((RandomResizedCrop(1.0, 1.0, 1.0, 1.0), Rotation(0.0), ColourJitter(0.0, 0.0, 0.0, 0.0))),
    Sometimes: Sometimes(ColourJitter(), 0.0),
}
STRONG = {
    Brightness: (Brightness(0.9),),
    Contrast: (Contrast(0.9),),
    ColourJitter: (ColourJitter(0.9, 0.9, 0.9, 0.5), ColourJitter(0.0, 0.5, 0.0, 0.2)),
    GaussianNoise: (GaussianNoise(0.5, 0.9),),
    Sometimes: (Sometimes(ColourJitter(), 0.8), Sometimes(Combine((RandomResizedCrop(), Rotation())), 0.8)),
    Combine: (
        THESIS_AUGMENTATION,
        Combine((RandomResizedCrop(), HorizontalFlip(), Rotation(), ColourJitter(), GaussianBlur(), GaussianNoise())),
        Combine((Rotation(), Combine((ColourJitter(), RandomResizedCrop())), GaussianBlur()), choose="one"),
        Combine((ColourJitter(), Rotation())),
        Combine((Rotation(), Sometimes(RandomResizedCrop()), Sometimes(GaussianBlur()))),
    ),
}


def augmentation_classes():
    for module in pkgutil.iter_modules(augment.__path__, f"{augment.__name__}."):
        for _, member in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(member, Augmentation) and not inspect.isabstract(member) and member.__module__ == module.name:
                yield member


CLASSES = list(augmentation_classes())
EXAMPLES = [example for member in CLASSES for example in STRONG.get(member) or (member(),)]


def noise(batch, channels, dtype=torch.float32):
    """Images whose extremes are black and white."""
    images = torch.rand(batch, channels, 20, 20, generator=runtime.generator("images"), dtype=torch.float64)
    return (images * 1.4 - 0.2).clamp(0, 1).to(dtype)


def draws_for(augmentation, num_samples, *parts):
    return runtime.uniforms(torch.arange(num_samples), augmentation.num_draws, "contract", *parts)


def test_all_augmentations_are_found():
    assert set(CLASSES) == set(NEUTRAL)


@pytest.mark.parametrize("augmentation", EXAMPLES, ids=repr)
def test_is_a_frozen_part_of_a_configuration(augmentation):
    assert isinstance(augmentation, Part)
    assert isinstance(augmentation, Geometric | Photometric | Combine | Sometimes)
    assert type(augmentation).__dataclass_params__.frozen
    assert dataclasses.replace(augmentation) == augmentation
    assert hash(dataclasses.replace(augmentation)) == hash(augmentation)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augmentation", EXAMPLES, ids=repr)
def test_a_sample_looks_the_same_whatever_its_batch(augmentation, channels):
    images, draws = noise(9, channels), draws_for(augmentation, 9)
    before = images.clone(), draws.clone()
    together = augmentation.apply(images, draws)
    assert torch.equal(images, before[0])
    assert torch.equal(draws, before[1])
    assert torch.equal(together, augmentation.apply(images, draws))
    assert torch.equal(together, augmentation.apply(images.flip(0), draws.flip(0)).flip(0))
    for place in range(9):
        alone = slice(place, place + 1)
        assert torch.equal(together[alone], augmentation.apply(images[alone], draws[alone]))
    assert augmentation.apply(images[:0], draws[:0]).shape == images[:0].shape


@pytest.mark.parametrize("augmentation", EXAMPLES, ids=repr)
def test_cached_chunks_change_nothing(augmentation, monkeypatch):
    images, draws = noise(7, 3), draws_for(augmentation, 7)
    together = augmentation.apply(images, draws)
    monkeypatch.setattr("trainables.augment.resample._CACHE_BYTES", 2 * images[:1].nbytes)
    assert torch.equal(together, augmentation.apply(images, draws))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augmentation", EXAMPLES, ids=repr)
def test_pixels_stay_in_range_and_in_their_type(augmentation, channels):
    for dtype in (torch.float32, torch.float64):
        images = noise(64, channels, dtype)
        images[0], images[1] = 0, 1
        changed = augmentation.apply(images, draws_for(augmentation, 64))
        assert changed.dtype == dtype
        assert changed.shape == images.shape
        assert changed.min() >= 0
        rounding = 0 if isinstance(augmentation, Photometric) else 2e-6 if dtype == torch.float32 else 1e-14
        assert changed.max() <= 1 + rounding


@pytest.mark.parametrize("augmentation", EXAMPLES, ids=repr)
def test_other_draws_give_another_image(augmentation):
    image = noise(1, 3).expand(30, -1, -1, -1)
    looks = augmentation.apply(image, draws_for(augmentation, 30))
    others = augmentation.apply(image, draws_for(augmentation, 30, "others"))
    num_looks = len({look.numpy().tobytes() for look in looks})
    assert num_looks >= (2 if isinstance(augmentation, HorizontalFlip | VerticalFlip) else 20 * 0.6)
    assert not torch.equal(looks, others)


@pytest.mark.parametrize("neutral", NEUTRAL.values(), ids=repr)
def test_neutral_parameters_change_nothing(neutral):
    for channels in (1, 3):
        images = noise(5, channels)
        assert torch.equal(neutral.apply(images, draws_for(neutral, 5)), images)
