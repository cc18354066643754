"""Which epoch's model chooses positives best: the last, an early one, or all of them together?

BYOL-TracIn (Zeng et al. 2023, section 3.2) says that choosing well takes "careful selection of model checkpoints", and
chooses with one trained model. TracIn as it was proposed (Pruthi et al. 2020, section 3.2) sums over checkpoints. This
study trains BYOL once, with the trainings that end earlier on the same schedule as its checkpoints, and measures of
each how often its choice has the label of its anchor, by TracIn and by features, one and several, beside an untrained
network; and what BYOL makes of it when it trains with these positives:

    python studies/tracin_checkpoints.py                               # packaged digits
    python studies/tracin_checkpoints.py --without-training            # the choices alone
    python studies/tracin_checkpoints.py --scale full --data-root DATA # ISIC 2019 and ChestX-ray14
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.cli import main
from orchestrator.options import DefaultInHelp
from orchestrator.study import Entry, Study
from studies import recipes
from studies.positive_recipes import (
    SIZES,
    FineTuningOptions,
    FineTunings,
    Pretrained,
    byol_of,
    facts_of,
    pretraining_sets,
)
from trainables.api.names import (
    BY_TRACIN_PRETRAINED,
    BYOL_ALONE,
    CHOSEN_BY_COSINE,
    CHOSEN_BY_FEATURES,
    CHOSEN_BY_TRACIN,
    SUMMED,
)

if TYPE_CHECKING:
    from trainables.ssl.byol import BYOL
    from trainables.ssl.positives import TopK
    from trainables.ssl.selection import BYOLSource

REPORT = "analysis.positives.checkpoints:checkpoints_report"
QUESTION = "Which checkpoint of BYOL chooses the positives that have the right label, and that help most?"
CHECKPOINTS = {"smoke": (1, 2), "laptop": (2, 4, 8, 15), "full": (10, 30, 100, 200, 300)}
"""Epochs; the last is the whole training."""
FRACTION = {"smoke": 1.0, "laptop": 0.1, "full": 0.1}
"""Share of the labels in the fine-tunings: with few, pretraining matters most."""


@dataclass(frozen=True)
class TracInCheckpointsOptions(FineTuningOptions):
    """Flags of the study."""

    finetune_seeds: int = 1
    """How many fine-tunings of the first pretraining. Every further pretraining has a single one."""
    checkpoints: DefaultInHelp[tuple[int, ...]] = ()
    """Epochs at which models choose (default: the scale's)."""
    without_training: DefaultInHelp[bool] = False
    """Measure the choices alone; train nothing with them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ways:
            raise ValueError("--ways: this study compares checkpoints, of BYOL-TracIn-pretrained alone: leave it out")
        whole = self.num_epochs or SIZES[self.scale].num_epochs
        if wrong := [epoch for epoch in self.checkpoints if not 1 <= epoch <= whole]:
            raise ValueError(f"--checkpoints {' '.join(map(str, wrong))}: expected epochs from 1 to {whole}")

    def epochs(self) -> list[int]:
        """The checkpoints, rising, the whole training among them."""
        whole = self.num_epochs or SIZES[self.scale].num_epochs
        wanted = self.checkpoints or [epoch for epoch in CHECKPOINTS[self.scale] if epoch < whole]
        return sorted({*wanted, whole})


def make_study(options: TracInCheckpointsOptions) -> Study:
    """Of each data set and seed the choices of every checkpoint, and trainings with some of them."""
    sets = pretraining_sets(options)
    trials: dict[str, Entry] = {}
    for pretrained in sets:
        for seed in range(options.pretrain_seeds):
            byol = byol_of(pretrained, seed, options)
            members = {epoch: replace(byol, num_epochs=epoch) for epoch in options.epochs()}
            trials |= _choices(pretrained, members, seed, options)
            if not options.without_training:
                trials |= _trained(pretrained, byol, members, seed, options)
    cards = {each.source.name: recipes.card_of(each.source) for each in sets}
    facts = facts_of(options, sets)
    return Study("tracin_checkpoints", QUESTION, trials, report=REPORT, facts=facts, cards=cards)


def selectors(members: Sequence[BYOL], seed: int) -> Iterator[tuple[str, str, TopK]]:
    """Way to choose, checkpoint in words, and what chooses; ``epoch 0`` is an untrained network, as control."""
    from trainables.models.sources import Untrained
    from trainables.ssl.byol import UntrainedBYOL
    from trainables.ssl.positives import FeatureSimilarity, TracIn

    last = members[-1]
    untrained = UntrainedBYOL(Untrained(last.data, last.backbone, last.head, seed, last.embedding_dim))
    models: dict[int, BYOLSource] = {0: untrained} | {member.num_epochs: member for member in members}
    for epoch, member in models.items():
        name = f"epoch {epoch}"
        yield CHOSEN_BY_TRACIN, name, TracIn(models=(member,))
        yield CHOSEN_BY_COSINE, name, TracIn(models=(member,), normalize="cosine")
        yield CHOSEN_BY_FEATURES, name, FeatureSimilarity(model=member)
    if len(members) > 1:
        yield CHOSEN_BY_TRACIN, SUMMED, TracIn(models=tuple(members))
        yield CHOSEN_BY_COSINE, SUMMED, TracIn(models=tuple(members), normalize="cosine")


def _choices(
    pretrained: Pretrained, members: dict[int, BYOL], seed: int, options: TracInCheckpointsOptions
) -> dict[str, Entry]:
    from trainables.ssl.choosing import ChoiceScores

    last, batch_size = members[max(members)], pretrained.batch_size
    trials = {}
    for role, checkpoint, positives in selectors(list(members.values()), seed):
        shown = {"data": pretrained.source.name, "checkpoint": checkpoint}
        scores = ChoiceScores(
            last,
            positives,
            pretrained.labels,
            batch_size=batch_size,
            augmentation=last.augmentation,
            choice_seed=seed,
        )
        trials[" · ".join([*shown.values(), f"{role}, pretraining {seed}"])] = Entry(scores, role, shown)
    return trials


def _trained(
    pretrained: Pretrained, byol: BYOL, members: dict[int, BYOL], seed: int, options: TracInCheckpointsOptions
) -> dict[str, Entry]:
    """Fine-tunings of plain BYOL, and of BYOL with positives that a checkpoint chooses."""
    from trainables.ssl.positives import TracIn

    trials: dict[str, Entry] = {}
    models: dict[str, tuple[BYOL, ...]] = {"none": ()} | {
        f"epoch {epoch}": (member,) for epoch, member in members.items()
    }
    if len(members) > 1:
        models[SUMMED] = tuple(members.values())
    for checkpoint, chosen_by in models.items():
        encoder = replace(byol, positives=TracIn(models=chosen_by)) if chosen_by else byol
        shown = {"data": pretrained.source.name, "checkpoint": checkpoint}
        tunings = FineTunings(pretrained.labels, shown, SIZES[options.scale].finetune_epochs, options)
        role = BY_TRACIN_PRETRAINED if chosen_by else BYOL_ALONE
        trials |= tunings.of(role, encoder, FRACTION[options.scale], seed)
    return trials


if __name__ == "__main__":
    main(TracInCheckpointsOptions, make_study, __doc__)
