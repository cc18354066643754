"""A study of augmentation types, with wanted levels of use and interpretability, published through the store's own
methods."""

from __future__ import annotations

import numpy as np
import polars as pl
from synthetic_curves import frame
from synthetic_segmentation import CLASSES, scores
from synthetic_study import BRATS, FabricatedStudy

from trainables.api.names import (
    CURVE_FILE,
    EXACT_ANGLE,
    NO_AUGMENTATION,
    OF_MAPS,
    OF_USE,
    ONE_AUGMENTATION,
    SCORES_FILE,
    THESIS_AUGMENTATIONS,
    THESIS_CURVE,
    TWO_AUGMENTATIONS,
    UNTRAINED,
    UNTRAINED_CURVE,
)

ANGLES = np.arange(15.0, 360.0, 30.0)
CIRCLE = np.arange(0.0, 361.0, 5.0)
NUM_IMAGES = 12


def one(kind, given):
    return ONE_AUGMENTATION, {"augmentation": kind, "range": given}


def exact(angle_deg):
    return EXACT_ANGLE, {"augmentation": "rotation", "range": f"by {angle_deg:g}°"}


def two(first, second):
    return TWO_AUGMENTATIONS, {
        "augmentation": first[1]["augmentation"], "range": first[1]["range"],
        "second": second[1]["augmentation"], "second_range": second[1]["range"],
    }  # fmt: skip


NONE, THESIS, RANDOM = (NO_AUGMENTATION, {}), (THESIS_AUGMENTATIONS, {}), (UNTRAINED, {})
MILD, STRONG, BLUR = one("rotation", "up to 30°"), one("rotation", "up to 180°"), one("blur", "up to 2 %")
BOTH = two(STRONG, BLUR)


class FabricatedAugmentations(FabricatedStudy):
    """Publishes both measures of encoders as trials do."""

    def __init__(self, folder, card=BRATS, region="tumour", images_a_group=1):
        super().__init__(folder, [card])
        self.card, self.region, self.images_a_group = card["name"], region, images_a_group
        self.manifest |= {"study": "augmentation_types", "question": "Which augmentation?"}

    def arm(self, arm, use, maps, *, num_seeds=3, spread=0.004, noise=0.02, seed=0, wave=0.0, done=(OF_USE, OF_MAPS),
            num_images=NUM_IMAGES, seeds=None):  # fmt: skip
        """Both measures of one arm over its seeds; ``spread`` is that of seeds, ``noise`` that of images, ``wave`` the
        size of a wave of the maps over the angles."""
        role, labels = arm
        rng = np.random.default_rng([seed, *f"{role}{sorted(labels.items())}".encode()])
        for number in seeds or range(num_seeds):
            shared = np.random.default_rng(99)  # images are harder or easier for every encoder
            hard_N = shared.normal(0, 0.05, num_images)
            noisy = [np.repeat(rng.normal(0, noise, num_images), self.images_a_group)[:num_images] for _ in range(2)]
            use_N = use + rng.normal(0, spread) + hard_N + noisy[0]
            maps_N = maps + rng.normal(0, spread) + hard_N + noisy[1]
            self._use(role, labels, number, use_N, is_done=OF_USE in done)
            dice_NV = maps_N[:, None] + wave * np.cos(4 * np.deg2rad(ANGLES - 15))
            self._maps(role, labels, number, dice_NV, ANGLES, is_done=OF_MAPS in done)

    def circle(self, *dice_SV, untrained=0.2):
        """Curves over the whole circle of encoders trained as in the thesis, a seed each, and of untrained ones; of the
        unchanged image 0.9."""
        for role, curves in ((THESIS_CURVE, dice_SV), (UNTRAINED_CURVE, [untrained + 0.0 * CIRCLE] * 2)):
            for number, dice_V in enumerate(curves):
                curve_V = np.where(CIRCLE % 360 == 0, 0.9, dice_V)
                self._maps(role, {}, number, np.tile(curve_V, (NUM_IMAGES, 1)), CIRCLE)

    @property
    def groups(self):
        return [f"patient {i // self.images_a_group:02d}" for i in range(200)]

    def _use(self, role, labels, seed, dice_N, *, is_done):
        # The background of every image would lift a mean that it took part in.
        dice_NK = np.stack([np.full_like(dice_N, 0.99), dice_N - 0.01, dice_N + 0.01], axis=1)
        rows = scores(dice_NK, self.groups[: len(dice_N)])
        files = {SCORES_FILE: rows.write_parquet} if is_done else None
        path = "model.network.encoder." + ("init_seed" if role == UNTRAINED else "pretrain_seed")
        seeds = {"model.label_seed": seed, path: seed, "model.finetune_seed": seed}
        given = {"data": self.card, "region": self.region, **labels, "measure": OF_USE}
        encoder = {"model": {"network": {"encoder": _encoder(role, labels)}}}
        self.add(_key(role, labels, seed, f"use-{self.region}"), role, given, seeds, files=files, configuration=encoder,
                 metrics={"val/dice": float(np.nan_to_num(dice_NK).mean())})  # fmt: skip

    def _maps(self, role, labels, seed, dice_NV, angles, *, is_done=True):
        rows = pl.concat(
            [
                frame(role, dice_NV + shift, angles, str(seed), (field,), (rule,), self.groups[: len(dice_NV)])
                for field in ("full", "kept")
                for rule, shift in (("otsu", 0.0 if field == "full" else 0.3), ("soft", 0.4))
            ]
        )
        files = {CURVE_FILE: rows.drop("role", "seed").write_parquet} if is_done else None
        path = "encoder." + ("init_seed" if role in (UNTRAINED, UNTRAINED_CURVE) else "pretrain_seed")
        given = {"data": self.card, "region": self.region, **labels, "measure": OF_MAPS}
        seeds = {"images.selection_seed": 0, path: seed}
        self.add(_key(role, labels, seed, f"maps-{self.region}"), role, given, seeds, files=files,
                 configuration={"encoder": _encoder(role, labels)},
                 metrics={"val/interpretability": float(dice_NV.mean())})  # fmt: skip


def _key(role, labels, seed, measure):
    return "-".join([role, *labels.values(), str(seed), measure]).replace(" ", "_").replace("%", "p")


def _encoder(role, labels):
    if role in (UNTRAINED, UNTRAINED_CURVE):
        return {"class": "Untrained"}
    angle = float(labels["range"].removeprefix("by ").rstrip("°")) if role == EXACT_ANGLE else 0.0
    return {"class": "MoCo", "augmentation": {"class": "Rotation", "max_deg": angle, "min_deg": angle}}


def made(folder, levels, *, circle=None, card=BRATS, images_a_group=1, **changes):
    """``levels``: (arm, use, interpretability)."""
    found = FabricatedAugmentations(folder, card, images_a_group=images_a_group)
    for arm, use, maps in levels:
        found.arm(arm, use, maps, **changes)
    if circle is not None:
        found.circle(*[circle] * 3)
    return found


assert CLASSES[0] == "background"
