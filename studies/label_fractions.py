"""How few labels does an encoder need? Scores over the share of the labels, down to 1 %.

BYOL-TracIn (Zeng et al. 2023, Table 1) fine-tunes on 10, 50 and 100 % of the labels. Where pretraining matters most,
with fewer, it does not look. The same trainings as those of Table 1, on more shares:

    python studies/label_fractions.py                               # packaged digits
    python studies/label_fractions.py --ways byol tracin_pretrained # two curves
    python studies/label_fractions.py --scale full --data-root DATA # ISIC 2019 and ChestX-ray14

A share is of whole groups (patients, lesions), in the proportions of the classes: of a rare class a small share may
hold no image, which then counts as never found.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.cli import main
from orchestrator.options import DefaultInHelp
from orchestrator.study import Study
from studies import recipes
from studies.positive_recipes import FineTuningOptions, checked_fractions, facts_of, fine_tuned, pretraining_sets

REPORT = "analysis.positives.report:positives_report"
QUESTION = "How do scores rise with the share of the labels, and down to which share does pretraining help?"
FRACTIONS = {
    "smoke": (0.05, 0.5),
    "laptop": (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
    "full": (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
}
ROWS = ("random", "byol", "fs_pretrained", "tracin_pretrained", "sup")


@dataclass(frozen=True)
class LabelFractionsOptions(FineTuningOptions):
    """Flags of the study."""

    label_fractions: DefaultInHelp[tuple[float, ...]] = ()
    """Shares of the labels, such as 0.01 0.1 1 (default: the scale's)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_fractions(self.label_fractions)


def make_study(options: LabelFractionsOptions) -> Study:
    """Some ways to choose positives on every data set, fine-tuned on many shares of the labels."""
    sets = pretraining_sets(options)
    fractions = checked_fractions(options.label_fractions or FRACTIONS[options.scale])
    trials = fine_tuned(sets, options.roles(ROWS), fractions, options)
    cards = {each.source.name: recipes.card_of(each.source) for each in sets}
    return Study("label_fractions", QUESTION, trials, report=REPORT, facts=facts_of(options, sets), cards=cards)


if __name__ == "__main__":
    main(LabelFractionsOptions, make_study, __doc__)
