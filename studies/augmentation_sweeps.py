"""How does interpretability change as an image is rotated, blurred, cropped or brightened, and is any of it learned?

The thesis (chapter 8) leaves other transformations than rotation to future work. Here four of them are swept over
their values by one trainable, each with its inverse map and the field of view that all its values keep, and each with
the controls of the rotation study. The value at which nothing is done is measured and left out of every conclusion.

    python studies/augmentation_sweeps.py                             # under 15 minutes on 2 cores, packaged T1 slices
    python studies/augmentation_sweeps.py --sweeps blur brightness    # only these
    python studies/augmentation_sweeps.py --regions white_matter grey_matter    # the same pretrainings serve both
    python studies/augmentation_sweeps.py --scale full --data-root DATA --pretrained moco_v2_800ep_pretrain.pth.tar

The pretrainings are those of the rotation study at the same scale, so after it only curves are computed. Expected:
"Learnt" is rarely said, as three seeds an arm tell differences of three seed-SDs in about half of the cases, and four
sweeps share the level. Its rotation has fewer angles than the rotation study's, so verdicts on it may differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.cli import main
from orchestrator.options import DefaultInHelp
from orchestrator.study import Study
from studies import curve_recipes
from studies.curve_recipes import CurveStudyOptions

QUESTION = "How does interpretability change over rotation, blur, crop and brightness, and what of it is learned?"

SweepName = Literal["rotation", "blur", "crop", "brightness"]

# Angles; standard deviations and crops as fractions of the side; factors. The value that changes nothing is in each.
VALUES: dict[str, dict[SweepName, tuple[float, ...]]] = {
    "smoke": {
        "rotation": tuple(range(0, 361, 15)),
        "blur": (0.0, 0.01, 0.02, 0.04),
        "crop": (0.5, 0.7, 0.9, 1.0),
        "brightness": (0.5, 1.0, 1.5, 2.0),
    },
    "laptop": {
        "rotation": tuple(range(0, 361, 15)),
        "blur": (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06),
        "crop": (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        "brightness": (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
    },
    "full": {
        "rotation": tuple(range(361)),
        "blur": tuple(i / 400 for i in range(41)),
        "crop": tuple(i / 100 for i in range(30, 101, 2)),
        "brightness": tuple(i / 20 for i in range(41)),
    },
}


@dataclass(frozen=True)
class AugmentationSweepsOptions(CurveStudyOptions):
    """Flags of the sweeps."""

    sweeps: DefaultInHelp[tuple[SweepName, ...]] = ()
    """Which sweeps (default: all four)."""


def make_study(options: AugmentationSweepsOptions) -> Study:
    """Pretrainings and curves of every data set, region and sweep."""
    from trainables.sweeps import Brightness, CentreCrop, GaussianBlur, Rotation, Sweep

    changes: dict[SweepName, Sweep] = {
        "rotation": Rotation(),
        "blur": GaussianBlur(),
        "crop": CentreCrop(),
        "brightness": Brightness(),
    }
    values = VALUES[options.scale]
    sweeps = {str(name): (changes[name], values[name]) for name in options.sweeps or changes}
    return curve_recipes.curve_study("augmentation_sweeps", QUESTION, options, sweeps)


if __name__ == "__main__":
    main(AugmentationSweepsOptions, make_study, __doc__)
