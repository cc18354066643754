"""Which way of explaining a contrastive encoder finds the region, and does it explain what the encoder learnt?

The thesis (section 5.1) looks at eight methods on rotated pairs and goes on with the one whose map looks like the mask.
This study measures that: Dice with the mask, and three scores that need no threshold (average precision, whether the
highest pixel lies in the mask, the share of the map inside), for trained and for untrained encoders, and for trained
ones whose layers are randomised one after the other from the output down (Adebayo et al. 2018).

    python studies/saliency_methods.py                                 # eight methods on packaged T1 slices
    python studies/saliency_methods.py --methods smoothgrad grad_cam
    python studies/saliency_methods.py --scale full --data-root DATA --datasets brats kvasir --pretrained MOCO.pth.tar

Occlusion needs hundreds of passes a map; --plan says what it costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.cli import main
from orchestrator.study import Entry, Study
from studies import curve_recipes, recipes
from studies.curve_recipes import MapStudyOptions
from studies.preparing import check
from trainables.api.names import (
    ANCHOR,
    INTENSITY,
    RANDOMISED,
    RANDOMISED_LAYERS,
    SMOOTHGRAD_OF_TOOL,
    TRAINED,
    UNTRAINED,
)  # fmt: skip

if TYPE_CHECKING:
    from trainables.data.annotations import Region
    from trainables.data.datasets import Source
    from trainables.interpretability.curve import InterpretabilityCurve
    from trainables.models.sources import EncoderSource
    from trainables.saliency.base import SaliencyMethod
    from trainables.ssl.moco import MoCo

QUESTION = "Which explanation of a pair agrees best with the region, and does it depend on what the encoder learnt?"
REPORT = "analysis.explanations.report:explanation_report"

# 95 degrees as in the thesis's pictures; the others over the circle, none at a multiple of 90 degrees but one, at which
# nothing is interpolated.
ANGLES_DEG = {
    "smoke": (40.0, 95.0),
    "laptop": (40.0, 95.0, 180.0),
    "full": (20.0, 45.0, 70.0, 95.0, 135.0, 180.0, 225.0, 290.0),
}

# As many as of a curve, but on a laptop: eight methods on seven encoders of each seed take their time.
NUM_IMAGES = {"smoke": 4, "laptop": 12, "full": 75}


def make_study(options: MapStudyOptions) -> Study:
    """Every method on every encoder of each data set and region."""
    if options.released is not None:
        raise ValueError(
            "--released: this study explains encoders that it pretrains; --pretrained starts them from weights"
        )
    sizes = recipes.sizes_of(options)
    trials: dict[str, Entry] = {}
    cards, fitted = {}, {}
    sources = list(recipes.sources_of(options, sizes.pretraining.image_size_px))
    wanted = [(source, recipes.regions_of(source, options.regions)) for source in sources]
    check(wanted, options)
    for source, regions in wanted:
        cards[source.name] = recipes.card_of(source)
        num_train = cards[source.name].counts.get("train", 0)
        fitted[source.name] = sizes.pretraining.fitted(source.name, num_train)
        trained = recipes.pretrainings(source, fitted[source.name], options)
        for region in regions:
            trials |= _explained(source, region, trained, sizes.curve, options)
    facts = recipes.facts_of(options, sizes.pretraining, fitted)
    return Study("saliency_methods", QUESTION, trials, report=REPORT, facts=facts, cards=cards)


def _explained(
    source: Source, region: Region, trained: Sequence[MoCo], sizes: recipes.CurveSizes, options: MapStudyOptions
) -> dict[str, Entry]:
    """Every method on every encoder of one region, by its name for people."""
    from trainables.interpretability.curve import InterpretabilityCurve
    from trainables.interpretability.scoring import Scoring
    from trainables.saliency.controls import ImageIntensity
    from trainables.sweeps import Rotation

    angles_deg = ANGLES_DEG[options.scale]
    images = curve_recipes.images_of(region, Rotation(), angles_deg, NUM_IMAGES[options.scale], options)
    methods = options.methods or tuple(name for name in curve_recipes.METHODS if name != SMOOTHGRAD_OF_TOOL)
    trials = {}
    for name in dict.fromkeys(methods):
        explains = curve_recipes.method(name, sizes)

        def curve(encoder: EncoderSource, explains: SaliencyMethod = explains) -> InterpretabilityCurve:
            scoring = Scoring(localises=True)
            return InterpretabilityCurve(region, encoder, explains, Rotation(), angles_deg, images, scoring)

        labels = {"data": source.name, "region": region.name, "method": name}
        for seed, (role, encoder) in _encoders(source, trained):
            trials[" · ".join([*labels.values(), f"{role}, seed {seed}"])] = Entry(curve(encoder), role, labels)
        shown = replace(curve(trained[0]), explains="anchor")
        trials[" · ".join([*labels.values(), ANCHOR])] = Entry(shown, ANCHOR, labels)
    labels = {"data": source.name, "region": region.name, "method": "image itself"}
    scoring = Scoring(localises=True)
    itself = InterpretabilityCurve(region, None, ImageIntensity(), Rotation(), angles_deg, images, scoring)
    return trials | {" · ".join(labels.values()): Entry(itself, INTENSITY, labels)}


def _encoders(source: Source, trained: Sequence[MoCo]) -> list[tuple[int, tuple[str, EncoderSource]]]:
    """(seed, (role, encoder)): trained, untrained, and trained ones randomised from the output down."""
    from trainables.models.sources import Randomised, Untrained

    found: list[tuple[int, tuple[str, EncoderSource]]] = []
    for moco in trained:
        seed = moco.pretrain_seed
        found.append((seed, (TRAINED, moco)))
        found.append((seed, (UNTRAINED, Untrained(source.images, moco.backbone, moco.head, seed))))
        # Down to the stem is the untrained encoder.
        found += [
            (seed, (RANDOMISED + layer, Randomised(moco, source.images, layer, seed)))
            for layer in RANDOMISED_LAYERS[:-1]
        ]
    return found


if __name__ == "__main__":
    main(MapStudyOptions, make_study, __doc__)
