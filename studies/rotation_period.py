"""Does the interpretability of a contrastive encoder really have a period of 90 degrees?

The thesis (chapter 5) rotates images by every angle from 0 to 360 degrees, draws a SmoothGrad map of the pair (image,
rotated image), rotates it back and measures its Dice against the region of interest: a curve with a period of 90
degrees. This study draws that curve together with the controls that tell what of the period an encoder learned:
untrained encoders, the round trip of a fixed map, the ceiling of a rotated mask, the image itself as map, and
everything again within the inscribed circle. Pretrainings have seeds, as many as there are untrained encoders.

    python studies/rotation_period.py                                 # minutes on 2 cores, real T1 slices of a package
    python studies/rotation_period.py --plan                          # what would run, and what it costs
    python studies/rotation_period.py --datasets folder:/path         # your own images/ and masks/
    python studies/rotation_period.py --scale full --data-root DATA --pretrained moco_v2_800ep_pretrain.pth.tar

Expected: the controls show a 90 degree period without any training, mostly as a spike at the exact multiples, where
nothing is interpolated. What is left to the trained encoders stands in the report, with a test over seeds.
"""

from __future__ import annotations

from orchestrator.cli import main
from orchestrator.study import Study
from studies import curve_recipes
from studies.curve_recipes import CurveStudyOptions

QUESTION = "Does the interpretability of a contrastive encoder have a period of 90 degrees, and is it learned?"


# Every fifth degree, and the direct neighbours of the exact multiples: there a spike parts from a smooth wave.
_FIVE_DEGREES = tuple(
    sorted({*range(0, 361, 5), *(m + d for m in (0, 90, 180, 270, 360) for d in (-1, 1))} - {-1, 361})
)

ANGLES_DEG = {"smoke": tuple(range(0, 361, 15)), "laptop": _FIVE_DEGREES, "full": tuple(range(361))}


def make_study(options: CurveStudyOptions) -> Study:
    """Pretrainings and curves of every data set and region."""
    from trainables.sweeps import Rotation

    return curve_recipes.curve_study(
        "rotation_period", QUESTION, options, {"rotation": (Rotation(), ANGLES_DEG[options.scale])}
    )


if __name__ == "__main__":
    main(CurveStudyOptions, make_study, __doc__)
