"""The thesis's claims (chapter 7, 1 to 4, and what it concludes from them), each beside what our numbers say of it.

The sentences are those of the reports, so that they say it under the same tests, with the same corrections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from analysis.augmentations import evidence as augmentations
from analysis.augmentations.figures import angle_figure
from analysis.augmentations.findings import angle_sentence, measure_sentence
from analysis.exhibits.rotation import all_curves, rotations
from analysis.hog.evidence import data_sets
from analysis.hog.findings import coincidence_sentences
from analysis.pages.evidence import HEADLINE_FIELD, CurveSet, judged
from analysis.pages.findings import verdict_sentence
from analysis.render.files import file_name
from analysis.render.style import Figure
from analysis.render.table import Column, Table
from analysis.results import StudyResults
from analysis.rotation.findings import WaveEvidence, sizes_sentence, spike_sentence, wave_sentence
from analysis.rotation.fitted import fitted
from analysis.segmentation import evidence as segmentation
from analysis.segmentation.findings import verdict_sentence as segmentation_sentence
from trainables.api.names import EXACT_ANGLE, MOCO_TRUNK, RANDOM_TRUNK, UNET, label_values

Row = tuple[str, str, str]
"""Data set and region, statistic, what it says."""


def effective(results: StudyResults) -> list[Table]:
    """Claim 1: representations of a fine-tuned self-supervised model improve segmentation."""
    found = segmentation.target_sets(results)
    rows = []
    for (place, pair), verdict in segmentation.judged(found).items():
        target = found[place]
        with_all_masks = pair.first == MOCO_TRUNK and pair.fraction == max(target.fractions)
        if with_all_masks and target.compared_levels(pair):
            what = {UNET: "Dice against the UNet", RANDOM_TRUNK: "Dice against the same network from random weights"}
            rows.append((target.title, what[pair.second], segmentation_sentence(target, pair, verdict)))
    claim = "Representations of a fine-tuned self-supervised model are highly effective in improving segmentation"
    return _claim(1, claim, rows, _NOT_SHOWN)


def periodic(results: StudyResults) -> list[Table]:
    """Claim 2: the similarity of maps and masks has a period of 90 degrees."""
    sets = all_curves(results)
    verdicts = judged(results, sets)  # of all sweeps, as in the report: they share the level
    rows: list[Row] = []
    for place, curve_set in enumerate(sets):
        if not curve_set.sweep.is_rotation:
            continue
        wave = wave_sentence(_evidence(curve_set), HEADLINE_FIELD)
        rows.append((curve_set.title, "90° wave of trained encoders", wave))
        if sizes := sizes_sentence(_evidence(curve_set), HEADLINE_FIELD):
            rows.append((curve_set.title, "size of both waves", sizes))
        rows.append((curve_set.title, "the same against untrained encoders",
                     verdict_sentence(curve_set.sweep, verdicts[place])))  # fmt: skip
    return _claim(2, "Interpretability over rotation is periodic, with a period of 90°", rows, _ONE_INTERVAL)


def extrema(results: StudyResults) -> list[Table]:
    """Claim 3: some data sets have minima at multiples of 90 degrees, others maxima."""
    rows = [
        (found.title, "curve at 90°, 180°, 270° against its wave", sentence)
        for found in rotations(results)
        if (sentence := spike_sentence(_evidence(found), HEADLINE_FIELD))
    ]
    return _claim(3, "Some data sets have their minima at multiples of 90°, others their maxima", rows, _ONE_INTERVAL)


def not_hog(results: StudyResults) -> list[Table]:
    """Claim 4: angles of low interpretability are not those at which an SVM on HOG features fails."""
    rows = [
        (found.name, "circular correlation of Dice and accuracy", sentence)
        for found in data_sets(results)
        for sentence in coincidence_sentences(found)
    ]
    return _claim(4, "Where interpretability is least, an SVM on HOG features need not struggle", rows, _TWO_WAVES)


def optimal(results: StudyResults) -> list[Table | Figure]:
    """What the thesis concludes (chapter 7): there are optimal augmentations when training for interpretability."""
    found = augmentations.region_sets(results)
    verdicts = augmentations.judged(found)
    rows, figures = list[Row](), list[Figure]()
    for place, of_region in enumerate(found):
        if not (of_region.points() and of_region.of(EXACT_ANGLE)):
            continue
        own = {(effect, measure): v for (where, effect, measure), v in verdicts.items() if where == place}
        sentences = []
        for measure, name in augmentations.MEASURES.items():
            rows.append(
                (of_region.title, f"{name}, by what augments the training", measure_sentence(of_region, measure, own))
            )
            sentences.append((f"{name}, training with one angle", angle_sentence(of_region, measure, own)))
        if len({sentence for _, sentence in sentences}) == 1:  # of the angle, whatever is measured
            sentences = [("training with one angle", sentences[0][1])]
        rows += [(of_region.title, *sentence) for sentence in sentences]
        figure = angle_figure(of_region)
        figures.append(replace(figure, name=file_name("angles", *label_values(of_region.labels))))
    claim = "There are optimal augmentations when training for interpretability"
    return [*_table("conclusion", f"Conclusion: {claim}", rows, _NOT_SHOWN), *figures]


def _evidence(found: CurveSet) -> WaveEvidence:
    return WaveEvidence.of(fitted([found.headline_panel], found.resampling_of), found.binarisation)


_ONE_INTERVAL = (
    "What is said of a wave or a jump of one curve rests on one 95 % interval over its images, and nothing corrects "
    "for the number of data sets: of curves of noise alone, 3 in 100 are said to have a wave and 4 to 10 in 100 a jump "
    "(100 simulated curves each of 8, 16 and 75 images). What is said against untrained encoders is corrected."
)


_NOT_SHOWN = (
    "What is not told apart, or not shown, may differ: from few seeds only differences of several times the standard "
    "deviation of a seed can be shown. Levels, effects and intervals stand in the report of the study."
)
_TWO_WAVES = (
    "Two waves of period 90° are alike at eight of the turns of one against the other, so of such curves nothing can "
    "be said where there are fewer than 160 angles. At which turn they correlate most is shown, and no test."
)


def _claim(number: int, claim: str, rows: Sequence[Row], note: str = "") -> list[Table]:
    return _table(f"claim-{number}", f"Claim {number}: {claim}", rows, note)


def _table(name: str, caption: str, rows: Sequence[Row], note: str = "") -> list[Table]:
    """Nothing where nothing is measured that bears on the claim."""
    if not rows:
        return []
    frame = pl.DataFrame(rows, schema=["data", "statistic", "finding"], orient="row")
    columns = [Column("data", "data", width=0.18), Column("statistic", "statistic", width=0.22),
               Column("what it says here", "finding", width=0.5)]  # fmt: skip
    return [Table(name, caption, frame, columns, note)]
