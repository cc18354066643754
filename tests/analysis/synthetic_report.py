"""Report inputs over synthetic curves, with sample maps, history and missing trials."""

from __future__ import annotations

import numpy as np
import polars as pl
from synthetic_curves import study

from analysis.resampling import Bootstrap
from analysis.rotation.page import DatasetDescription, MissingTrial, ReportInputs, Setup


def sample_maps(num_images=3, size=48, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5
    disc = (x**2 + y**2 < 0.16).astype(float)
    mask = ((x - 0.1) ** 2 + (y + 0.05) ** 2 < 0.02).astype(np.uint8)
    images = np.stack([np.clip((disc * 0.6 + mask * 0.3 + 0.05 * k) * 255, 0, 255) for k in range(num_images)])
    maps = np.stack([[(mask + disc * 0.3) * rng.random((size, size)) for _ in range(2)] for _ in range(num_images)])
    rotated = np.stack([[image / 255, np.rot90(image) / 255] for image in images])
    return {
        "image_id": np.array([f"image {i:02d}" for i in range(num_images)]),
        "images_KHW": images.astype(np.uint8),
        "masks_KHW": np.stack([mask] * num_images),
        "angles_deg": np.array([0.0, 95.0]),
        "rotated_KAHW": rotated.astype(np.float32),
        "maps_rotated_KAHW": np.stack([[m[0], np.rot90(m[1])] for m in maps]).astype(np.float32),
        "maps_KAHW": maps.astype(np.float32),
    }


def history(num_epochs=12):
    steps = np.arange(1, num_epochs + 1)
    series = {
        "train/loss": 5.4 * np.exp(-steps / 9) + 0.8,
        "train/embedding_std": 0.088 - 0.02 * np.exp(-steps / 3),
        "train/effective_rank": 20 + 30 * (1 - np.exp(-steps / 4)),
        "train/learning_rate": 0.03 / steps,
    }
    return pl.concat(
        pl.DataFrame({"metric": name, "step": steps.astype(np.int64), "value": values})
        for name, values in series.items()
    )


def inputs(curves=None, samples=True, missing=(), **changes):
    setup = {
        "study": "rotation_period",
        "question": "Is the 90° period of the Dice of saliency maps learnt by the encoder, or made by the rotation?",
        "scale": "laptop",
        "dataset": DatasetDescription(
            "mni152", {"train": 96, "val": 16}, "contiguous slabs of slices with gaps", "ICBM licence <free & open>"
        ),
        "pretraining_start": "random weights",
        "configurations": {"trained": {"class": "RotationCurve", "num_samples": 10}},
        "history": history(),
        "provenance": {"git": "0123abc", "date": "2025-01-01", "python": "3.11"},
        "missing": [MissingTrial(*pair) for pair in missing],
        "commands": ["python studies/rotation_period.py --scale laptop"],
        "bootstrap": Bootstrap(200, block_length=2),
    } | changes
    maps = {"trained": sample_maps(), "untrained seed 0": sample_maps(seed=1)} if samples else {}
    return ReportInputs(Setup(**setup), study() if curves is None else curves, maps)
