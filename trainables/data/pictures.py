"""Reading 2-D images of the usual formats, by Pillow, whose limit against decompression bombs stays on.

Pixels are taken as stored: a turn that a camera noted in EXIF is not applied, since masks are drawn on stored pixels.
Transparency is dropped. 16-bit grey is divided by 257, so that its white is 255.

Shapes: C channels (1 grey, 3 red green blue), H rows, W columns.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from trainables.api.errors import BadData
from trainables.data import reading

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
LOSSY_FORMATS = ("JPEG", "MPO", "WEBP")
MASK_THRESHOLD = 128

_WHITE_16_BIT = 257
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L")

Pixels = np.ndarray[Any, Any]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def read_picture(path: Path, name: str) -> Image.Image:
    """One image, all pixels decoded. Raises BadData naming the file."""
    content = reading.read(path, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content))
            picture.load()
    except UnidentifiedImageError as error:
        raise BadData("image", {name: f"is no image: expected {', '.join(SUFFIXES)}, copy it again"}) from error
    # Damaged files fail in many ways (OSError, SyntaxError, struct, zlib): all of them mean this file is unusable.
    except Exception as error:
        reason = " ".join((str(error) or type(error).__name__).split())
        raise BadData("image", {name: f"cannot be decoded ({reason}): expected an image, copy it again"}) from error
    num_frames = getattr(picture, "n_frames", 1)
    if num_frames > 1 and picture.format != "MPO":
        raise BadData("image", {name: f"holds {num_frames} images: expected one, save them apart"})
    if picture.mode == "F":
        raise BadData("image", {name: "has pixels of 32-bit numbers: expected 8 or 16 bits, convert it"})
    return picture


def grey(picture: Image.Image) -> Pixels:
    """pixels_1HW, 0-255; colours by ITU-R 601 luma, as Pillow weighs them."""
    if picture.mode in _DEEP_MODES:
        return (np.asarray(picture, dtype=np.float64) / _WHITE_16_BIT)[None]
    return np.asarray(picture.convert("L"))[None]


def colours(picture: Image.Image) -> Pixels:
    """pixels_3HW, 0-255; grey three times."""
    if picture.mode in _DEEP_MODES:
        return grey(picture).repeat(3, axis=0)
    return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)


def is_grey(picture: Image.Image) -> bool:
    """Whether an image is grey in fact: one channel, or three equal ones."""
    if picture.mode in (*_DEEP_MODES, "L", "LA", "1"):
        return True
    red, green, blue = colours(picture)
    return bool((red == green).all() and (green == blue).all())


def mask(picture: Image.Image) -> Mask:
    """mask_HW of a picture that may be JPEG or WebP: 128 and more is inside, as their borders are blurred by
    compression. Of a lossless one every value but 0 is inside, so masks of 0 and 1, of 0 and 255 and of labels do."""
    if picture.format in LOSSY_FORMATS:
        return bright_mask(picture)
    values = np.asarray(picture if picture.mode in (*_DEEP_MODES, "P", "1", "L") else picture.convert("RGB"))
    if values.ndim == 3:
        values = values.max(axis=-1)
    inside: Mask = values > 0
    return inside


def bright_mask(picture: Image.Image) -> Mask:
    """mask_HW: 128 and more is inside, whatever the format."""
    inside: Mask = grey(picture)[0] >= MASK_THRESHOLD
    return inside


def check_size(mask_HW: Pixels, image_size: tuple[int, int], name: str) -> None:
    """Raises BadData where a mask has other sides than its image, whose size is (width, height)."""
    height, width = mask_HW.shape
    if (width, height) != image_size:
        what = f"is {width} x {height} pixels, and its image {image_size[0]} x {image_size[1]}"
        raise BadData("mask", {name: f"{what}: make the mask on the image's own pixels"})


def picture_size(path: Path, name: str) -> tuple[int, int]:
    """(width, height) by the header alone. Raises BadData naming the file."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadData("image", {name: f"is no image that can be read ({' '.join(str(error).split())})"}) from error
