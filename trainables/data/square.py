"""Bringing an image into a centred square of a given side without distorting it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from trainables.data.records import ImageArray

Image = np.ndarray[Any, Any]


def pad_to_square(image_HW: Image) -> Image:
    """Zeros around the shorter side, the image in the middle (an odd rest goes to the bottom or right)."""
    side = max(image_HW.shape)
    margins = [(side - length) // 2 for length in image_HW.shape]
    padding = [(margin, side - length - margin) for margin, length in zip(margins, image_HW.shape, strict=True)]
    return np.pad(image_HW, padding)


def resize(image_SS: Image, side_px: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A square image at another size: bilinear, antialiased when it shrinks, unchanged at its own size."""
    image_11SS = torch.from_numpy(np.ascontiguousarray(image_SS, dtype=np.float64))[None, None]
    resized = torch.nn.functional.interpolate(image_11SS, size=(side_px, side_px), mode="bilinear", antialias=True)
    return resized[0, 0].numpy()


def grey_levels(image_CHW: Image, side_px: int) -> ImageArray:
    """An image of any sides and of values in [0, 255], in the square: padded, resized, rounded."""
    channels = [to_grey_levels(resize(pad_to_square(image_HW), side_px)) for image_HW in image_CHW]
    return np.stack(channels)


def mask(mask_HW: Image, side_px: int) -> ImageArray:
    """A mask in the square: 1 where more than half of a pixel belongs to the region, else 0."""
    return to_mask(resize(pad_to_square(mask_HW), side_px))


def largest_class(classes_HW: Image, num_classes: int, side_px: int) -> ImageArray:
    """Class indices in the square: each class resized as a share of the pixels, and the largest share wins.

    Of equal shares, the class with the lower index; what padding brings in is class 0.
    """
    classes_SS = pad_to_square(classes_HW)
    shares = [resize(classes_SS == index, side_px) for index in range(num_classes)]
    largest: ImageArray = np.argmax(np.stack(shares), axis=0).astype(np.uint8)
    return largest


def to_grey_levels(image_HW: Image) -> ImageArray:
    """Values of [0, 255] to the nearest of the 256 grey levels; what lies outside is clipped."""
    return np.clip(np.rint(image_HW), 0, 255).astype(np.uint8)


def to_mask(fraction_HW: Image) -> ImageArray:
    """1 where more than half of a pixel belongs to the region, else 0."""
    return (fraction_HW > 0.5).astype(np.uint8)
