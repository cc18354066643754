"""A study of checkpoints that choose, published through the store's own methods."""

from __future__ import annotations

import numpy as np
from synthetic_study import MNI152, FabricatedStudy

from analysis.positives.choices import checkpoint_sets
from analysis.results import load_study
from trainables.api.names import (
    BY_TRACIN_PRETRAINED,
    BYOL_ALONE,
    CHOSEN_BY_COSINE,
    CHOSEN_BY_FEATURES,
    CHOSEN_BY_TRACIN,
    SAMPLES_FILE,
    SUMMED,
)

DIGITS = MNI152 | {"name": "digits"}
LEVELS = {
    (CHOSEN_BY_TRACIN, "epoch 0"): 0.25,
    (CHOSEN_BY_TRACIN, "epoch 3"): 0.3,
    (CHOSEN_BY_TRACIN, "epoch 12"): 0.6,
    (CHOSEN_BY_TRACIN, SUMMED): 0.5,
    (CHOSEN_BY_COSINE, "epoch 12"): 0.62,
    (CHOSEN_BY_FEATURES, "epoch 12"): 0.7,
}


class FabricatedChoices(FabricatedStudy):
    def __init__(self, folder):
        super().__init__(folder, [DIGITS])

    def choices(self, levels=LEVELS, num_seeds=4, noise=0.01, drop=0.1):
        rng = np.random.default_rng(0)
        for (role, checkpoint), level in levels.items():
            for seed in range(num_seeds):
                first = level + rng.normal(0, noise)
                metrics = {f"precision/top_{k}": first - drop * (k - 1) / 2 for k in (1, 2, 3)}
                metrics |= {"largest_hub/top_1": 0.2, "chance": 0.1, "shuffled/top_1": 0.15}
                files = {SAMPLES_FILE: lambda path, role=role, seed=seed: np.savez(path, **shown(role, seed))}
                given = {"data": "digits", "checkpoint": checkpoint}
                key = f"{role}-{checkpoint}-{seed}".replace(" ", "_")
                self.add(key, role, given, {"choice_seed": seed}, files=files, metrics=metrics)

    def trained(self, levels, num_seeds=4, noise=0.004):
        rng = np.random.default_rng(1)
        for checkpoint, level in levels.items():
            role = BYOL_ALONE if checkpoint == "none" else BY_TRACIN_PRETRAINED
            for seed in range(num_seeds):
                for tuning in range(2) if seed == 0 else (seed,):
                    # A second fine-tuning of the first pretraining is far away: it is no pretraining.
                    value = level + rng.normal(0, noise) + (0.3 if seed == 0 and tuning == 1 else 0)
                    seeds = {"model.encoder.pretrain_seed": seed, "model.finetune_seed": tuning}
                    given = {"data": "digits", "checkpoint": checkpoint}
                    key = f"{role}-{checkpoint}-{seed}-{tuning}".replace(" ", "_")
                    self.add(key, role, given, seeds, files={}, metrics={"test/bma": value})

    def found(self):
        (only,) = checkpoint_sets(load_study(self.store, self.manifest))
        return only


def shown(role, seed):
    """Two anchors, of which features choose wrongly."""
    is_right = np.full((2, 3), role == CHOSEN_BY_TRACIN)
    tiles = np.zeros((2, 4, 6, 6, 3), dtype=np.uint8)
    tiles[:, 1:] = np.where(is_right[:, :, None, None, None], 100, 200) + seed
    return {
        "image_id": np.array([f"one {seed}", f"two {seed}"]),
        "labels_A": np.array(["7", "4"]),
        "chosen_labels_AR": np.array([["7", "7", "7"], ["4", "4", "4"]] if is_right.all() else [["1"] * 3, ["9"] * 3]),
        "is_right_AR": is_right,
        "tiles_ATHWC": tiles,
    }
