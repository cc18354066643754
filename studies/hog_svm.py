"""Does a rotation that a simple classifier tells well make an encoder more or less interpretable?

The thesis (chapter 6) trains a support vector machine on histograms of oriented gradients to tell images rotated by an
angle from the same images unrotated, plots its accuracy against the angle, and compares the plot by eye with the Dice
curve. This study adds what tells gradients from side effects: the round trip (rotated and rotated back, which leaves
the blur of two interpolations) and the inscribed circle (no corners); and tests whether the two curves' extrema
coincide.

    python studies/hog_svm.py                       # packaged T1 slices; shares the curves of the rotation study
    python studies/hog_svm.py --without-curves      # the classifier alone: no encoder is trained
    python studies/hog_svm.py --scale full --data-root DATA --datasets brats lung_mask kvasir --pretrained MOCO.pth.tar
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.cli import main
from orchestrator.options import DefaultInHelp
from orchestrator.study import Entry, Study
from studies import curve_recipes, recipes
from studies.curve_recipes import RegionStudyOptions
from studies.preparing import check
from studies.rotation_period import ANGLES_DEG
from trainables.api.names import FULL_FIELD, IN_CIRCLE, ROTATED, ROUND_TRIP, SMOOTHGRAD

if TYPE_CHECKING:
    from trainables.data.datasets import Source

QUESTION = (
    "At which angles does a classifier of gradient histograms tell rotated from unrotated images, and do the extrema "
    "of its accuracy coincide with those of the encoder's interpretability?"
)
REPORT = "analysis.hog.report:hog_report"


@dataclass(frozen=True)
class HogSvmOptions(RegionStudyOptions):
    """Flags of the study."""

    without_curves: DefaultInHelp[bool] = False
    """Leave out the rotation study's curves, which the accuracy is held against: no encoder is trained."""


NUM_IMAGES = {"smoke": 12, "laptop": 60, "full": 75}
CELL_PX = {"smoke": 4, "laptop": 8, "full": 8}
"""Side of a cell of the histograms: scikit-image's default where the image is large enough for it."""


def make_study(options: HogSvmOptions) -> Study:
    """The classifier and its controls on every data set, over as many draws of the folds as there are pretrainings."""
    sizes, angles_deg = recipes.sizes_of(options), tuple(map(float, ANGLES_DEG[options.scale]))
    trials: dict[str, Entry] = {}
    cards, fitted = {}, {}
    sources = list(recipes.sources_of(options, sizes.pretraining.image_size_px))
    wanted = [(s, [] if options.without_curves else recipes.regions_of(s, options.regions)) for s in sources]
    check(wanted, options)
    for source, regions in wanted:
        cards[source.name] = recipes.card_of(source)
        trials |= _classifiers(source, angles_deg, options)
        if options.without_curves:
            continue
        num_train = cards[source.name].counts.get("train", 0)
        fitted[source.name] = sizes.pretraining.fitted(source.name, num_train)
        trained = recipes.pretrainings(source, fitted[source.name], options)
        method = SMOOTHGRAD, curve_recipes.method(SMOOTHGRAD, sizes.curve)
        for region in regions:
            from trainables.sweeps import Rotation

            change = "rotation", Rotation(), angles_deg
            trials |= curve_recipes.curves(source, region, change, method, trained, sizes.curve, options)
    facts: dict[str, str] = {"scale": options.scale}
    if not options.without_curves:
        facts = recipes.facts_of(options, sizes.pretraining, fitted)
    return Study("hog_svm", QUESTION, trials, report=REPORT, facts=facts, cards=cards)


def _classifiers(source: Source, angles_deg: tuple[float, ...], options: HogSvmOptions) -> dict[str, Entry]:
    from trainables.hog_svm import Change, Hog, HogSvm

    changes: dict[str, Change] = {ROTATED: "rotated", ROUND_TRIP: "round_trip"}
    trials = {}
    for field, cut_to_circle in ((FULL_FIELD, False), (IN_CIRCLE, True)):
        labels = {"data": source.name, "field": field}
        for role, change in changes.items():
            for seed in range(options.pretrain_seeds):
                classifier = HogSvm(
                    source.images,
                    change,
                    cut_to_circle,
                    angles_deg,
                    NUM_IMAGES[options.scale],
                    hog=Hog(pixels_per_cell=CELL_PX[options.scale]),
                    fold_seed=seed,
                )
                name = " · ".join([*labels.values(), f"{role}, folds {seed}"])
                trials[name] = Entry(classifier, role, labels)
    return trials


if __name__ == "__main__":
    main(HogSvmOptions, make_study, __doc__)
