"""A study of HOG and SVM with Dice curves, published through the store's own methods."""

import json
from dataclasses import asdict

import numpy as np
import polars as pl
from synthetic_curves import ROTATION, frame
from synthetic_study import BRATS, FabricatedStudy, writer

from trainables.api.names import (
    ACCURACY_FILE,
    CURVE_FILE,
    FULL_FIELD,
    IN_CIRCLE,
    ROTATED,
    ROUND_TRIP,
    SAMPLES_FILE,
    SWEEP_FILE,
)

ANGLES = np.arange(0, 361, 5.0)
NUM = 12


def wave(peak_deg, size=0.05, level=0.9):
    return level + size * np.cos(4 * np.deg2rad(ANGLES - peak_deg))


class FabricatedHog(FabricatedStudy):
    """Publishes accuracies and Dice curves as trials do."""

    def __init__(self, folder):
        super().__init__(folder, [BRATS])
        self.manifest |= {"study": "hog_svm", "question": "Which angles?"}

    def told(self, role, field, accuracy_V, draw=0, *, is_done=True, seed=0):
        rng = np.random.default_rng([seed, draw])
        of_images = [
            pl.DataFrame({
                "value": ANGLES, "image_id": f"image {i:02d}", "group": f"patient {i:02d}", "position": 0,
                "accuracy": accuracy_V + rng.normal(0, 0.01, len(ANGLES)),
            })
            for i in range(NUM)
        ]  # fmt: skip
        table = pl.concat(of_images).with_columns(pl.col("position").cast(pl.Int64)).sort("value", "image_id")
        key = f"{role}-{field}-{draw}".replace(" ", "_")
        shown = {"image_id": np.array(["image 00"]), "images_KHW": np.full((1, 8, 8), 90, np.uint8),
                 "histograms_KHW": np.eye(8)[None]}  # fmt: skip
        files = {ACCURACY_FILE: table.write_parquet, SAMPLES_FILE: lambda path: np.savez(path, **shown)}
        files = files if is_done else None
        self.add(key, role, {"data": "brats", "field": field}, {"fold_seed": draw}, files=files,
                 metrics={"accuracy_mean": float(accuracy_V.mean())})  # fmt: skip

    def dice(self, role, dice_V, seed):
        rows = pl.concat(
            [
                frame(role, np.tile(dice_V + shift, (NUM, 1)), ANGLES, str(seed), (field,))
                for field, shift in (("full", 0.0), ("kept", 0.1))
            ]
        )
        files = {
            CURVE_FILE: rows.drop("role", "seed").write_parquet,
            SWEEP_FILE: writer(json.dumps(asdict(ROTATION)).encode()),
        }
        given = {"data": "brats", "region": "tumour", "sweep": "rotation"}
        upstream = [self.pretraining(seed)] if role == "trained" else []
        self.add(f"{role}-dice-{seed}", role, given, {"encoder.seed": seed}, files=files, upstream=upstream)


def made(folder, *, accuracy_peak=0.0, dice_peak=0.0):
    found = FabricatedHog(folder)
    for draw in (0, 1):
        found.told(ROTATED, FULL_FIELD, wave(accuracy_peak), draw)
        found.told(ROUND_TRIP, FULL_FIELD, np.full(len(ANGLES), 0.6), draw)
        found.told(ROTATED, IN_CIRCLE, wave(accuracy_peak, level=0.8), draw)
        found.told(ROUND_TRIP, IN_CIRCLE, np.full(len(ANGLES), 0.55), draw)
    # One extremum alone: a wave of four equal ones cannot be placed on 72 angles.
    for seed in (0, 1):
        bump = 0.5 + 0.1 * np.exp(-(((ANGLES - dice_peak + 180) % 360 - 180) ** 2) / 800)
        found.dice("trained", bump, seed)
        found.dice("untrained", np.full(len(ANGLES), 0.3), seed)
    return found
