"""Reading 2-D images of the usual formats, by Pillow, whose limit against decompression bombs stays on.

Pixels are taken as stored: a turn that a camera noted in EXIF is not applied, since masks are drawn on stored pixels.
Transparency of an image is dropped; a mask may be drawn in it. 16-bit grey is divided by 257, so that its white is 255.

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
MOST_SIDE_PX = 2**14  # the square around a longer one takes gigabytes, however thin the image is

# Others that Pillow knows run programs or read further files. GIFs have been taken under the name of another format.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")

_WHITE_16_BIT = 257
_SIGNED_MODE = "I"  # 32 bits or signed: which of its values is white, nothing says
_DEEP_MODES = ("I;16", "I;16B", "I;16L")
_MODES = (*_DEEP_MODES, _SIGNED_MODE, "1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_CONTRADICTION = (
    "shows one shape in its colours and another in its transparency: expected one, save it without transparency"
)

# Every image is held against the limit here; what Pillow warns of beside it is said once, by name.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

Pixels = np.ndarray[Any, Any]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def read_picture(path: Path, name: str, *, is_mask: bool = False) -> Image.Image:
    """One image, all pixels decoded.

    Args:
        is_mask: whether pixels of 32-bit whole numbers will do, of which only 0 has a meaning.

    Raises:
        BadData: naming the file.
    """
    content = reading.read(path, name)
    try:
        picture = Image.open(io.BytesIO(content), formats=_FORMATS)
        _check_pixels(picture, name)
        picture.load()
        num_frames = getattr(picture, "n_frames", 1)
    except BadData:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name) from error
    except UnidentifiedImageError as error:
        raise BadData("image", {name: f"is no image: expected {', '.join(SUFFIXES)}, copy it again"}) from error
    # Damaged files fail in many ways (OSError, SyntaxError, struct, zlib): all of them mean this file is unusable.
    except Exception as error:
        reason = " ".join((str(error) or type(error).__name__).split())
        raise BadData("image", {name: f"cannot be decoded ({reason}): expected an image, copy it again"}) from error
    if num_frames > 1 and picture.format != "MPO":
        raise BadData("image", {name: f"holds {num_frames} images: expected one, save them apart"})
    if picture.mode == "F" or (picture.mode == _SIGNED_MODE and not is_mask):
        reason = "has pixels of 32-bit or signed numbers: expected 8 or 16 bits without sign, convert it"
        raise BadData("image", {name: reason})
    if picture.mode not in _MODES:
        raise BadData("image", {name: f"has colours of the kind {picture.mode}: expected grey or RGB, convert it"})
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


def mask(picture: Image.Image, name: str) -> Mask:
    """mask_HW of a picture that may be JPEG or WebP: 128 and more is inside, as their borders are blurred by
    compression. Of a lossless one every colour but black is inside, so masks of 0 and 1, of 0 and 255 and of labels do.

    Where all pixels have one colour and their transparency differs, the mask is what is opaque by the same rule.

    Raises:
        BadData: colours and transparency contradict each other, or a palette shows its classes in one colour.
    """
    is_lossy = picture.format in LOSSY_FORMATS
    by_colour = _coloured(picture, name, is_lossy)
    if not picture.has_transparency_data or picture.mode in (*_DEEP_MODES, _SIGNED_MODE):
        return by_colour
    pixels_HW4 = np.asarray(picture.convert("RGBA"))
    opaque: Mask = pixels_HW4[..., 3] >= (MASK_THRESHOLD if is_lossy else 1)
    if _is_constant(pixels_HW4[..., 3]) or (opaque == by_colour).all():
        return by_colour
    if not _is_constant(pixels_HW4[..., :3]):
        raise BadData("mask", {name: _CONTRADICTION})
    return opaque


def bright_mask(picture: Image.Image) -> Mask:
    """mask_HW: 128 and more is inside, whatever the format."""
    inside: Mask = grey(picture)[0] >= MASK_THRESHOLD
    return inside


def _coloured(picture: Image.Image, name: str, is_lossy: bool) -> Mask:
    """mask_HW by colour alone."""
    if is_lossy:
        return bright_mask(picture)
    if picture.mode in (*_DEEP_MODES, _SIGNED_MODE, "1", "L"):
        values = np.asarray(picture)
    else:
        pixels_HW3 = np.asarray(picture.convert("RGB"))
        is_opaque_palette = picture.mode == "P" and not picture.has_transparency_data
        if is_opaque_palette and _is_constant(pixels_HW3) and not _is_constant(np.asarray(picture)):
            raise BadData("mask", {name: "has a palette that shows all classes in one colour: save it as grey"})
        values = pixels_HW3.max(axis=-1)
    inside: Mask = values > 0
    return inside


def _is_constant(pixels: Pixels) -> bool:
    """Whether all pixels of an HW or HWC array are equal."""
    return bool((pixels == pixels[0, 0]).all())


def check_size(mask_HW: Pixels, image_size: tuple[int, int], name: str) -> None:
    """Raises BadData where a mask has other sides than its image, whose size is (width, height)."""
    height, width = mask_HW.shape
    if (width, height) != image_size:
        what = f"is {width} x {height} pixels, and its image {image_size[0]} x {image_size[1]}"
        raise BadData("mask", {name: f"{what}: make the mask on the image's own pixels"})


def _check_pixels(picture: Image.Image, name: str) -> None:
    """Raises BadData for an image that claims too many pixels, or too long a side, before one of them is decoded."""
    width, height = picture.size
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise _too_large(name, f"{width} x {height} = ")
    if max(width, height) > MOST_SIDE_PX:
        reason = f"is {width} x {height} pixels: expected at most {MOST_SIDE_PX} a side, make it smaller, or cut it"
        raise BadData("image", {name: reason})


def _too_large(name: str, claimed: str = "") -> BadData:
    most = Image.MAX_IMAGE_PIXELS
    return BadData("image", {name: f"claims {claimed}more than {most} pixels: make it smaller, or cut it into tiles"})


def picture_size(path: Path, name: str) -> tuple[int, int]:
    """(width, height) by the header alone. Raises BadData naming the file."""
    reading.check_regular(path, name)
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            _check_pixels(picture, name)
            return picture.size
    except BadData:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name) from error
    except Exception as error:  # damaged headers fail in as many ways as damaged pixels
        raise BadData("image", {name: f"is no image that can be read ({' '.join(str(error).split())})"}) from error
