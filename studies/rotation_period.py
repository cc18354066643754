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

from dataclasses import dataclass

from orchestrator.cli import main
from orchestrator.study import Entry, Study
from studies import recipes
from studies.recipes import CurveSizes, CurveStudyOptions, PretrainingSizes

QUESTION = "Does the interpretability of a contrastive encoder have a period of 90 degrees, and is it learned?"


@dataclass(frozen=True)
class Scale:
    """The sizes of the study."""

    pretraining: PretrainingSizes
    curve: CurveSizes
    angles_deg: tuple[int, ...]


# Every fifth degree, and the direct neighbours of the exact multiples: there a spike parts from a smooth wave.
_FIVE_DEGREES = tuple(
    sorted({*range(0, 361, 5), *(m + d for m in (0, 90, 180, 270, 360) for d in (-1, 1))} - {-1, 361})
)

SCALES = {
    "smoke": Scale(
        PretrainingSizes(
            image_size_px=32,
            backbone="resnet18",
            num_epochs=1,
            batch_size=8,
            batch_norm_groups=2,
            queue_size=32,
            learning_rate=0.03,
            key_momentum=0.99,
        ),
        CurveSizes(num_images=4, num_samples=2),
        tuple(range(0, 361, 15)),
    ),
    # From random weights and in 80 steps, batches of 4 learn nothing that lasts: larger batches, a faster key encoder.
    "laptop": Scale(
        PretrainingSizes(
            image_size_px=96,
            backbone="resnet18",
            num_epochs=40,
            batch_size=32,
            batch_norm_groups=4,
            queue_size=64,
            learning_rate=0.06,
            key_momentum=0.99,
        ),
        CurveSizes(num_images=16, num_samples=5),
        _FIVE_DEGREES,
    ),
    # The thesis: 75 images, every degree, MoCo as released (ResNet-50), 100 epochs of batches of 4, 50 noise samples.
    # Ours: Otsu's threshold and 224 px, the size of the released weights; the thesis states neither.
    "full": Scale(
        PretrainingSizes(
            image_size_px=224,
            backbone="resnet50",
            num_epochs=100,
            batch_size=4,
            batch_norm_groups=2,
            queue_size=256,
            learning_rate=0.03,
            key_momentum=0.999,
        ),
        CurveSizes(num_images=75, num_samples=50),
        tuple(range(361)),
    ),
}


def make_study(options: CurveStudyOptions) -> Study:
    """Pretrainings and curves of every data set and region."""
    from trainables.sweeps import Rotation

    scale = SCALES[options.scale]
    trials: dict[str, Entry] = {}
    cards, fitted = {}, {}
    for source in recipes.sources_of(options, scale.pretraining.image_size_px):
        trained = recipes.pretrainings(source, scale.pretraining, options)
        cards[source.name] = recipes.card_of(source)
        fitted[source.name] = scale.pretraining.fitted(source.name, cards[source.name].counts.get("train", 0))
        for region in recipes.regions_of(source, options.regions):
            for method in recipes.methods_at(options.scale, scale.curve.num_samples).items():
                sweep = "rotation", Rotation(), scale.angles_deg
                trials |= recipes.curves(source, region, sweep, method, trained, scale.curve, options)
    facts = recipes.facts_of(options, scale.pretraining, fitted)
    return Study("rotation_period", QUESTION, trials, report=recipes.CURVE_REPORT, facts=facts, cards=cards)


if __name__ == "__main__":
    main(CurveStudyOptions, make_study, __doc__)
