"""The figures of segmentations: a pure function that makes the data, one that draws; and pictures."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from analysis.render.pictures import Pictures
from analysis.render.style import Datasets, Figure, styled
from analysis.render.tile import Pixels, Tile
from analysis.segmentation.evidence import ROLES, TargetSet
from trainables.api.names import FOREGROUND_DICE, FROZEN, MOCO_TRUNK, RANDOM_TRUNK, RELEASED_TRUNK, SAMPLES_FILE, UNET

_COLOURS = {UNET: "#0072B2", MOCO_TRUNK: "#D55E00", RANDOM_TRUNK: "#7F7F7F", RELEASED_TRUNK: "#009E73"}
_DASHES = {False: [1, 0], True: [5, 4]}
# Okabe & Ito's colours; the background keeps the image's grey.
CLASS_COLOURS = (
    (0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
)  # fmt: skip
_OPACITY = 0.6
_TILE_PX = 150


def fraction_data(found: TargetSet) -> pl.DataFrame:
    """One row a seed: network, num_labelled (images with masks), dice (without the background, of validation), and over
    the seeds of the same share mean and mean_labelled."""
    rows = []
    for row in found.rows:
        values = row.values(FOREGROUND_DICE)
        if row.split != "val" or not values:
            continue
        counts = row.cell.values["num_labelled"]
        mean, mean_labelled = float(np.mean(values)), float(np.mean(counts))
        rows += [
            [row.role, row.fraction, count, value, mean, mean_labelled]
            for count, value in zip(counts, values, strict=True)
        ]
    schema = {"network": pl.String, "fraction": pl.Float64, "num_labelled": pl.Float64, "dice": pl.Float64,
              "mean": pl.Float64, "mean_labelled": pl.Float64}  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def fraction_figure(found: TargetSet) -> Figure:
    """Dice over the number of masks: a line a network through the means, a point a seed."""
    data, datasets = fraction_data(found), Datasets()
    networks = [role for role in ROLES if role in data["network"].unique().to_list()]
    named = datasets.add(data)
    x = alt.X("num_labelled:Q", title="training images with masks", scale=alt.Scale(type="log", nice=False, padding=16))
    y = alt.Y("dice:Q", title="Dice without background, validation", scale=alt.Scale(zero=False))
    colour = alt.Color(
        "network:N",
        scale=alt.Scale(domain=networks, range=[_COLOURS[role.removesuffix(FROZEN)] for role in networks]),
    )
    dash = alt.StrokeDash(
        "network:N", scale=alt.Scale(domain=networks, range=[_DASHES[role.endswith(FROZEN)] for role in networks])
    )
    tooltip = ["network:N", alt.Tooltip("num_labelled:Q", title="images"), alt.Tooltip("dice:Q", format=".4f")]
    points = alt.Chart(named).mark_point(filled=True, size=26, opacity=0.75).encode(x, y, colour, tooltip=tooltip)
    lines = (
        alt.Chart(named)
        .mark_line(strokeWidth=1.8)
        .encode(alt.X("mean_labelled:Q", title="training images with masks"), alt.Y("mean:Q"), colour, dash)
    )
    caption = (
        "Mean over the classes but the background, on validation images; a point a seed, lines through the means over "
        "seeds. Dashed: the trunk is kept as it is, the decoder alone is trained. A smaller share of the masks lies "
        "inside a larger one of the same seed."
    )
    chart = styled(alt.layer(lines, points).properties(width=700, height=300))
    return Figure("label_fractions", f"Segmentation by number of masks, {found.title}", caption, chart, datasets)


def samples(found: TargetSet) -> list[Pictures]:
    """A few validation images, the truth, and what each network with all masks makes of them; nothing without any."""
    rows = _sample_rows(found)
    classes = ", ".join(name.replace("_", " ") for name in found.class_names[1:])
    caption = (
        "Validation images with the most classes, one a row; the first seed of each network, with all masks. Colours "
        f"in the order of the classes ({classes}); the background is left grey."
    )
    return [Pictures("samples", f"Truth and predictions, {found.title}", caption, rows)] if rows else []


def _sample_rows(found: TargetSet) -> list[tuple[str, list[Tile]]]:
    samples = _published(found)
    if not samples:
        return []
    first = next(iter(samples.values()))
    rows = []
    for place, image_id in enumerate(first["image_id"].tolist()):
        image_HW = first["images_SHW"][place]
        tiles = [
            Tile("image", _large(np.repeat(image_HW[..., None], 3, axis=2))),
            Tile("truth", _large(coloured(image_HW, first["true_SHW"][place]))),
        ]
        for role, content in samples.items():
            ids = content["image_id"].tolist()
            if image_id in ids:
                predicted_HW = content["predicted_SHW"][ids.index(image_id)]
                tiles.append(Tile(role, _large(coloured(image_HW, predicted_HW))))
        rows.append((str(image_id), tiles))
    return rows


def class_pictures(found: TargetSet, role: str) -> list[Pictures]:
    """Figure 4.1: of one image, prediction and truth of each class, and input, prediction and truth as a whole.

    Nothing where the network has no result with all masks.
    """
    content = _published(found).get(role)
    if content is None:
        return []
    place = len(content["image_id"]) // 2
    image_HW = content["images_SHW"][place]
    predicted_HW, true_HW = content["predicted_SHW"][place], content["true_SHW"][place]
    names = [str(name).replace("_", " ") for name in content["class_names"]]

    def of_classes(which: str, classes_HW: NDArray[Any]) -> list[Tile]:
        return [Tile(f"{which}: {name}", _large(_black_and_white(classes_HW == k))) for k, name in enumerate(names)]

    whole = [
        Tile("input image", _large(np.repeat(image_HW[..., None], 3, axis=2))),
        Tile("prediction", _large(coloured(image_HW, predicted_HW))),
        Tile("truth", _large(coloured(image_HW, true_HW))),
    ]
    rows = [
        ("prediction", of_classes("prediction", predicted_HW)),
        ("truth", of_classes("truth", true_HW)),
        ("whole", whole),
    ]
    caption = (
        f"Validation image {content['image_id'][place]}, first seed. Top row: the prediction, class by class "
        f"({', '.join(names)}); middle row: the truth; bottom row: input image, prediction, truth."
    )
    return [Pictures("classes", f"{role}, {found.title}", caption, rows)]


def coloured(image_HW: NDArray[Any], classes_HW: NDArray[Any]) -> Pixels:
    """The image with its classes in colours [H, W, 3]; the background, class 0, as it is."""
    grey_HW3 = np.repeat(image_HW[..., None], 3, axis=2).astype(np.float64)
    colours_K3 = np.array(CLASS_COLOURS, dtype=np.float64)
    colours_HW3 = colours_K3[1 + (classes_HW.astype(np.int64) - 1) % (len(colours_K3) - 1)]
    mixed_HW3 = (1 - _OPACITY) * grey_HW3 + _OPACITY * colours_HW3
    return np.where(classes_HW[..., None] > 0, mixed_HW3, grey_HW3).round().astype(np.uint8)


def _published(found: TargetSet) -> dict[str, dict[str, NDArray[Any]]]:
    """By role, what the first seed with all masks published of validation images."""
    shown = {}
    for row in found.of("val", 1.0):
        content = found.results.samples(row.cell.done[0]["key"], SAMPLES_FILE) if row.cell.done else None
        if content is not None:
            shown[row.role] = content
    return shown


def _black_and_white(mask_HW: NDArray[Any]) -> Pixels:
    return np.repeat((mask_HW * 255).astype(np.uint8)[..., None], 3, axis=2)


def _large(pixels_HWC: Pixels) -> Pixels:
    """Enlarged without mixing classes."""
    height, width = pixels_HWC.shape[:2]
    scale = max(1, round(_TILE_PX / max(height, width)))
    return np.array(Image.fromarray(pixels_HWC).resize((width * scale, height * scale), Image.Resampling.NEAREST))
