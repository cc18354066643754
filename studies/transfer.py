"""Which additional positives make features that transfer? BYOL-TracIn's Table 2 (Zeng et al. 2023, section 4.3).

The encoders of Table 1, pretrained on one data set, are fine-tuned on all labels of another: those of ISIC 2019 on ISIC
2016, of ChestX-ray14 on the Shenzhen set, and of the packaged digits of MNIST on those of scikit-learn. No pretraining
is done anew: both studies hold the same ones.

    python studies/transfer.py                               # packaged digits
    python studies/transfer.py --scale full --data-root DATA # ISIC 2019 to ISIC 2016, ChestX-ray14 to Shenzhen
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.cli import main
from orchestrator.study import Entry, Study
from studies import recipes
from studies.positive_recipes import (
    SIZES,
    TRANSFERS,
    FineTuningOptions,
    FineTunings,
    encoders,
    facts_of,
    labels_of,
    pretraining_sets,
)
from studies.preparing import check
from trainables.api.card import Card

REPORT = "analysis.positives.report:positives_report"
QUESTION = "Which additional positives make BYOL learn features that serve another data set?"


@dataclass(frozen=True)
class TransferOptions(FineTuningOptions):
    """Flags of the study."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [name for name in self.datasets if name not in TRANSFERS]:
            pairs = ", ".join(f"{source} (to {target})" for source, target in TRANSFERS.items())
            raise ValueError(f"--datasets {' '.join(unknown)}: choose some of {pairs}")


def make_study(options: TransferOptions) -> Study:
    """Every row of every data set, fine-tuned on the one that it is transferred to."""
    sizes, sets = SIZES[options.scale], pretraining_sets(options)
    trials: dict[str, Entry] = {}
    cards: dict[str, Card] = {}
    for pretrained in sets:
        target = recipes.source_of(TRANSFERS[pretrained.source.name], sizes.image_size_px, options)
        check([(target, ())], options)
        cards |= {each.name: recipes.card_of(each) for each in (pretrained.source, target)}
        shown = {"data": target.name, "pretrained": f"pretrained on {pretrained.source.name}"}
        tunings = FineTunings(labels_of(target), shown, sizes.transfer_epochs, options)
        for seed in range(options.pretrain_seeds):
            for role, encoder in encoders(pretrained, seed, options):
                if role in options.roles():
                    trials |= tunings.of(role, encoder, 1.0, seed)
    return Study("transfer", QUESTION, trials, report=REPORT, facts=facts_of(options, sets), cards=cards)


if __name__ == "__main__":
    main(TransferOptions, make_study, __doc__)
