"""Which additional positives make BYOL learn the better encoder? BYOL-TracIn's Table 1 (Zeng et al. 2023).

BYOL pulls the two views of an image together. This study adds another image of the batch, chosen in each of the ways
that the paper compares, fine-tunes every encoder on shares of the labels (nested, whole groups), and scores it on test
images:

    python studies/byol_positives.py                               # packaged digits
    python studies/byol_positives.py --plan                        # what would run, and what it costs
    python studies/byol_positives.py --scale full --data-root DATA # ISIC 2019 and ChestX-ray14

As in the paper one pretraining has five fine-tunings, whose spread is that of the fine-tuning alone. ``--pretrain-seeds
N`` adds pretrainings, each with one fine-tuning: what can be tested is told from these.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.cli import main
from orchestrator.options import DefaultInHelp
from orchestrator.study import Study
from studies import recipes
from studies.positive_recipes import (
    SIZES,
    FineTuningOptions,
    checked_fractions,
    facts_of,
    fine_tuned,
    pretraining_sets,
)

REPORT = "analysis.positives.report:positives_report"
QUESTION = "Which additional positives make BYOL learn the better encoder, with what share of the labels?"


@dataclass(frozen=True)
class ByolPositivesOptions(FineTuningOptions):
    """Flags of the study."""

    label_fractions: DefaultInHelp[tuple[float, ...]] = ()
    """Shares of the labels, such as 0.1 0.5 1 (default: the scale's)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_fractions(self.label_fractions)


def make_study(options: ByolPositivesOptions) -> Study:
    """Every way to choose positives on every data set, fine-tuned on every share of the labels."""
    sets = pretraining_sets(options)
    fractions = checked_fractions(options.label_fractions or SIZES[options.scale].label_fractions)
    trials = fine_tuned(sets, options.roles(), fractions, options)
    cards = {each.source.name: recipes.card_of(each.source) for each in sets}
    return Study("byol_positives", QUESTION, trials, report=REPORT, facts=facts_of(options, sets), cards=cards)


if __name__ == "__main__":
    main(ByolPositivesOptions, make_study, __doc__)
