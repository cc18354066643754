"""Brightness to noise, against torchvision for each image, colorsys, scipy and the definitions."""

import colorsys
import itertools

import numpy as np
import pytest
import scipy.ndimage
import torch
from torchvision.transforms.v2 import functional

from trainables import runtime
from trainables.augment.blur import gaussian_blur
from trainables.augment.colour import adjust_brightness_, adjust_contrast_, adjust_hue_, adjust_saturation_
from trainables.augment.photometric import Brightness, ColourJitter, Contrast, GaussianBlur, GaussianNoise

FACTORS = torch.tensor([0.0, 0.3, 0.8, 1.0, 1.4, 2.5, 1.1, 0.6], dtype=torch.float64)
SHIFTS = torch.tensor([0.0, -0.5, 0.5, 0.1, -0.1, 0.25, -0.37, 1 / 3], dtype=torch.float64)


def noise(channels=3, batch=8, height=18, width=23, dtype=torch.float32):
    """Also with grey pixels, pure colours, black, white, and equal channels."""
    shape = (batch, channels, height, width)
    images = torch.rand(shape, generator=runtime.generator("images"), dtype=torch.float64)
    images[:, :, :4] = images[:, :, :4].round()
    images[:, :, 4:8] = (images[:, :, 4:8] * 3).round() / 3
    images[:, :, 8:10] = images[:, :1, 8:10]
    return images.to(dtype)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("ours", "theirs", "values"),
    [
        (adjust_brightness_, functional.adjust_brightness, FACTORS),
        (adjust_contrast_, functional.adjust_contrast, FACTORS),
        (adjust_saturation_, functional.adjust_saturation, FACTORS),
        (adjust_hue_, functional.adjust_hue, SHIFTS),
    ],
)
def test_colours_equal_torchvision(ours, theirs, values, channels):
    images = noise(channels)
    expected = [theirs(image, float(value)) for image, value in zip(images, values, strict=True)]
    torch.testing.assert_close(ours(images.clone(), values), torch.stack(expected), atol=1e-6, rtol=0)


def test_hue_equals_colorsys():
    images = noise(height=11, width=6, dtype=torch.float64)
    shifted = adjust_hue_(images.clone(), SHIFTS)
    for image, result, shift in zip(images, shifted, SHIFTS.tolist(), strict=True):
        for rgb, turned in zip(image.flatten(1).T.tolist(), result.flatten(1).T.tolist(), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
            assert turned == pytest.approx(colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value), abs=1e-9)


def test_factors_lie_around_one_and_not_below_zero():
    white = torch.full((2000, 1, 1, 1), 0.25, dtype=torch.float64)
    for strength, lowest, highest in ((0.4, 0.6, 1.4), (1.5, 0.0, 2.5)):
        factors = Brightness(strength).apply(white, runtime.uniforms(torch.arange(2000), 1, "factors")) / 0.25
        assert factors.min() == pytest.approx(lowest, abs=0.01)
        assert factors.max() == pytest.approx(highest, abs=0.01)
        assert factors.mean() == pytest.approx((lowest + highest) / 2, abs=0.03)


def test_contrast_takes_its_factor_from_its_draw():
    images, draws = noise(), torch.linspace(0, 0.99, 8, dtype=torch.float64)[:, None]
    assert torch.equal(Contrast(0.7).apply(images, draws), adjust_contrast_(images.clone(), 0.3 + 1.4 * draws[:, 0]))


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_equals_torchvision_in_every_order(channels):
    """One image an order, each with factors of its own."""
    jitter = ColourJitter(0.4, 0.6, 0.8, 0.3)
    draws = runtime.uniforms(torch.arange(24), jitter.num_draws, "jitter")
    draws[:, 4] = (torch.arange(24) + 0.5) / 24
    images = noise(channels, batch=24)
    functions = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    for image, result, draw, order in zip(
        images, jitter.apply(images, draws), draws.tolist(), itertools.permutations(range(4)), strict=True
    ):
        values = (0.6 + 0.8 * draw[0], 0.4 + 1.2 * draw[1], 0.2 + 1.6 * draw[2], 0.6 * draw[3] - 0.3)
        for change in order:
            image = functions[change](image, values[change])
        # Each of four clipped steps rounds; contrast and saturation enlarge what came in.
        torch.testing.assert_close(result, image, atol=3e-6, rtol=0)


def test_jitter_draws_every_order():
    jitter = ColourJitter(0.9, 0.9, 0.9, 0.5)
    draws = runtime.uniforms(torch.arange(400), jitter.num_draws, "orders")
    draws[:, :4] = 0.9
    looks = jitter.apply(noise(batch=1).expand(400, -1, -1, -1), draws)
    assert len({tuple(look.flatten()[::97].mul(1e4).round().tolist()) for look in looks}) >= 20


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(18, 23), (24, 24)])
def test_blur_equals_torchvision(channels, shape):
    images = noise(channels, height=shape[0], width=shape[1])
    draws = torch.linspace(0, 0.99, 8, dtype=torch.float64)[:, None]
    blurred = GaussianBlur(0.1, 3.0, 13).apply(images, draws)
    sigmas = (0.1 + 2.9 * draws[:, 0]).tolist()
    expected = [functional.gaussian_blur(image, 13, sigma) for image, sigma in zip(images, sigmas, strict=True)]
    torch.testing.assert_close(blurred, torch.stack(expected), atol=1e-6, rtol=0)


def test_each_image_has_its_own_width_and_radius_also_beyond_the_border():
    images = noise(channels=1, batch=5, dtype=torch.float64)
    sigmas, radii = torch.tensor([0.0, 0.5, 3.0, 40.0, 2.0]), torch.tensor([3, 2, 12, 160, 8])
    blurred = gaussian_blur(images, sigmas, radii)
    assert torch.equal(blurred[0], images[0])
    for place in range(5):
        alone = slice(place, place + 1)
        assert torch.equal(gaussian_blur(images[alone], sigmas[alone], radii[alone]), blurred[alone])
    for image, result, sigma, radius in zip(images[1:], blurred[1:], sigmas[1:], radii[1:], strict=True):
        expected = scipy.ndimage.gaussian_filter(image[0], float(sigma), mode="mirror", radius=int(radius))
        np.testing.assert_allclose(result[0], expected, atol=1e-13)


def test_noise_is_the_sample_s_own():
    images = torch.full((2, 3, 40, 40), 0.5)
    draws = torch.tensor([[0.5, 0.123], [1 / 3, 0.456]], dtype=torch.float64)
    noisy = GaussianNoise(0.0, 0.12).apply(images, draws)
    for result, std, draw in zip(noisy, (0.06, 0.04), (0.123, 0.456), strict=True):
        generator = torch.Generator().manual_seed(int(draw * 2**53))
        expected = 0.5 + std * torch.randn((3, 40, 40), generator=generator)
        torch.testing.assert_close(result, expected.clamp(0, 1), atol=1e-6, rtol=0)
        assert float((result - 0.5).std()) == pytest.approx(std, rel=0.05)
    assert abs(float(torch.corrcoef(torch.stack([look.flatten() for look in noisy]))[0, 1])) < 0.05


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Brightness(-0.1), "-0.1"),
        (lambda: Contrast(float("nan")), "nan"),
        (lambda: ColourJitter(saturation=-2.0), "saturation = -2.0"),
        (lambda: ColourJitter(hue=0.6), "0.6"),
        (lambda: GaussianBlur(3.0, 2.0), "3.0"),
        (lambda: GaussianBlur(kernel_px=4), "4"),
        (lambda: GaussianNoise(-1.0), "-1.0"),
        (lambda: Contrast().apply(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1)), "2 channels"),
        (lambda: adjust_hue_(torch.zeros(1, 4, 4, 4), torch.zeros(1)), "4 channels"),
    ],
)
def test_errors_name_the_value(make, named):
    with pytest.raises(ValueError, match=named):
        make()
