"""A store with the curves of a study of explanation methods, with a wanted average precision for each arm and image."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import polars as pl
from synthetic_curves import ROTATION
from synthetic_study import BRATS, FabricatedStudy, writer

from trainables.api.names import ANCHOR, CURVE_FILE, SAMPLES_FILE, SWEEP_FILE, TRAINED, UNTRAINED

ANGLES_DEG = (40.0, 95.0)
REGION = {"data": "brats", "region": "tumour"}


def curve(auprc_N, groups):
    """``curve.parquet``: the wanted average precision is the mean over the angles, inside the circle and by Otsu."""
    rows = []
    for value, step in zip(ANGLES_DEG, (-0.01, 0.01), strict=True):
        for field, rule, shift in (("kept", "otsu", 0.0), ("kept", "soft", 0.3), ("full", "otsu", 0.4)):
            for i, (auprc, group) in enumerate(zip(auprc_N, groups, strict=True)):
                rows.append({
                    "image_id": f"image {i:02d}", "group": group, "position": 0, "value": value,
                    "field_of_view": field, "binarisation": rule, "dice": auprc / 2 + shift, "mask_fraction": 0.1,
                    "auprc": auprc + step + (field == "full") * 0.2, "pointing_game": float(i % 2),
                    "relevance_mass": auprc / 4,
                })  # fmt: skip
    return pl.DataFrame(rows)


def maps(seed, base=None, mixed=0.0, size=16):
    """``samples.npz`` of two images, unchanged and at a far angle; ``mixed``: share of another map in ``base``."""
    rng = np.random.default_rng(seed)
    own = rng.random((2, 2, size, size)).astype(np.float32)
    own[:, 0] = 1.0  # of the unchanged image: in no figure and no correlation
    found = own if base is None else (1 - mixed) * base + mixed * own
    images = np.stack([np.full((size, size), 90 + 30 * k) for k in range(2)]).astype(np.uint8)
    mask = np.zeros((size, size), np.uint8)
    mask[4:8, 4:8] = 1
    return {
        "image_id": np.array(["image 00", "image 01"]), "images_KHW": images, "masks_KHW": np.stack([mask] * 2),
        "values": np.array([0.0, 95.0]), "views_KVHW": np.stack([images / 255, images / 510], axis=1),
        "view_maps_KVHW": found, "maps_KVHW": found,
    }  # fmt: skip


class FabricatedExplanations(FabricatedStudy):
    """Publishes curves as trials do."""

    def __init__(self, folder, card=BRATS):
        super().__init__(folder, [card])
        self.manifest |= {"study": "saliency_methods", "question": "Which method?"}
        self.region = REGION | {"data": card["name"]}

    def explained(self, method, role, seed, auprc_N, samples=None, *, is_done=True):
        groups = [f"patient {i:02d}" for i in range(len(auprc_N))]
        key = f"{method}-{role}-{seed}".replace(" ", "_").replace(",", "")
        files = {
            CURVE_FILE: curve(auprc_N, groups).write_parquet,
            SWEEP_FILE: writer(json.dumps(asdict(ROTATION)).encode()),
        }
        if samples is not None:
            files[SAMPLES_FILE] = lambda path: np.savez(path, **samples)
        upstream = [] if role == UNTRAINED else [self.pretraining(seed)]
        self.add(
            key, role, self.region | {"method": method}, {"encoder.seed": seed}, upstream=upstream,
            files=files if is_done else None, metrics={"val/interpretability": float(np.mean(auprc_N))},
        )  # fmt: skip

    def arms(self, levels, *, num_seeds=3, num_images=12, noise=0.01, seed=0):
        """(method, role) -> mean average precision; images differ alike for all."""
        rng = np.random.default_rng(seed)
        of_images_N = rng.normal(0, 0.03, num_images)
        for (method, role), level in levels.items():
            for number in range(num_seeds):
                own = level + rng.normal(0, noise) + of_images_N + rng.normal(0, noise, num_images)
                self.explained(method, role, number, np.clip(own, 0, 1), maps(number))


def finished(folder, **levels):
    """Two methods, trained and untrained, and the anchor's maps of the first seed."""
    made = FabricatedExplanations(folder)
    wanted = {("smoothgrad", TRAINED): 0.6, ("smoothgrad", UNTRAINED): 0.3,
              ("grad_cam", TRAINED): 0.4, ("grad_cam", UNTRAINED): 0.4}  # fmt: skip
    made.arms(wanted | {tuple(name.split("__")): level for name, level in levels.items()})
    for place, method in enumerate(("smoothgrad", "grad_cam")):
        made.explained(method, ANCHOR, 0, np.full(12, 0.5), maps(50 + place))
    return made
