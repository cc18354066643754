"""A store with the scores of a study of segmentations, with a wanted Dice for each network and image."""

from __future__ import annotations

import numpy as np
import polars as pl
from synthetic_study import BRATS, FabricatedStudy

from trainables.api.names import MOCO_TRUNK, RANDOM_TRUNK, SAMPLES_FILE, SCORES_FILE, UNET

CLASSES = ("background", "core", "oedema")
NUM_LABELLED = {0.1: 12, 0.5: 60, 1.0: 120}
TARGET = {"data": "brats", "region": "tumour_classes"}


def scores(dice_NK, groups, absent=()):
    """``scores.parquet`` of images whose classes have these Dice (NaN: undefined, as the class is not there);
    ``absent``: (image, class) that is not there either, where a network finds it."""
    rows = [
        {
            "image_id": f"image {i:02d}",
            "group": group,
            "position": 0,
            "class": name,
            "dice": None if np.isnan(d) else d,
            "num_true": 0 if np.isnan(d) or (i, name) in absent else 9,
        }
        for i, (dice_K, group) in enumerate(zip(dice_NK, groups, strict=True))
        for name, d in zip(CLASSES, dice_K, strict=True)
    ]
    return pl.DataFrame(rows, schema_overrides={"dice": pl.Float64})


def samples(offset=0, size=24):
    """``samples.npz``: two images, true classes in stripes, predicted ones moved by ``offset``."""
    images = np.stack([np.full((size, size), 80 + 40 * k) for k in range(2)]).astype(np.uint8)
    true = np.tile(np.repeat(np.arange(3), size // 3), (2, size, 1)).astype(np.uint8)
    return {
        "image_id": np.array(["image 00", "image 01"]),
        "images_SHW": images,
        "true_SHW": true,
        "predicted_SHW": np.roll(true, offset, axis=2),
        "class_names": np.array(CLASSES),
    }


class FabricatedSegmentations(FabricatedStudy):
    """Publishes scores as trials do."""

    def __init__(self, folder, card=BRATS):
        super().__init__(folder, [card])
        self.manifest |= {"study": "segmentation", "question": "Which network is better?"}
        self.target = TARGET | {"data": card["name"]}

    def scored(self, role, seed, dice_NK, *, fraction=1.0, split="val", groups=None, is_done=True,
               absent=()):  # fmt: skip
        """One trial; ``dice_NK``: Dice of each image and class."""
        groups = groups or [f"patient {i:02d}" for i in range(len(dice_NK))]
        given = self.target | {"masks": f"{100 * fraction:g} % of masks", "split": split}
        key = f"{role}-{seed}-{fraction}-{split}".replace(" ", "_").replace(",", "")
        by_class = [float(np.mean(column[np.isfinite(column)])) for column in dice_NK.T if np.isfinite(column).any()]
        steps = {"dice": 0.0, "iou": -0.1, "sensitivity": 0.01, "specificity": 0.02}
        metrics = {f"{split}/{name}": float(np.mean(by_class)) + step for name, step in steps.items()}
        metrics |= {f"{split}/dice/{name}": dice for name, dice in zip(CLASSES, by_class, strict=False)}
        metrics |= {
            f"{split}/foreground_dice": float(np.mean(by_class[1:] or [0.0])),
            "num_images": float(len(dice_NK)),
        }
        metrics["num_labelled"] = float(NUM_LABELLED[fraction] + seed)
        files = {
            SCORES_FILE: scores(dice_NK, groups, absent).write_parquet,
            SAMPLES_FILE: lambda path: np.savez(path, **samples(offset=len(role))),
        }
        self.add(
            key, role, given, {"model.finetune_seed": seed}, files=files if is_done else None, metrics=metrics,
            configuration={"class": "SegmentationScores", "model": {"label_fraction": fraction}},
        )  # fmt: skip
        return key

    def arms(self, levels, *, num_seeds=3, num_images=12, spread=0.02, noise=0.01, fraction=1.0, seed=0, split="val"):
        """Networks with these mean Dice; images differ alike for all, seeds and images by noise."""
        rng = np.random.default_rng(seed)
        of_images_N1 = rng.normal(0, spread, (num_images, 1))
        for role, level in levels.items():
            for number in range(num_seeds):
                own = level + rng.normal(0, noise) + of_images_N1 + rng.normal(0, noise, (num_images, len(CLASSES)))
                self.scored(role, number, np.clip(own, 0, 1), fraction=fraction, split=split)


def finished(folder, unet=0.6, moco=0.8, random=0.62, **changes):
    """All shares of the masks, three networks, training data too."""
    made = FabricatedSegmentations(folder)
    levels = {UNET: unet, MOCO_TRUNK: moco, RANDOM_TRUNK: random}
    for place, fraction in enumerate(NUM_LABELLED):
        lowered = {role: level - 0.1 * (1 - fraction) for role, level in levels.items()}
        made.arms(lowered, fraction=fraction, seed=place, **changes)
    made.arms({role: level + 0.05 for role, level in levels.items()}, split="train", seed=9, **changes)
    return made
