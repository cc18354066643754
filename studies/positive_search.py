"""Search for the way to choose positives: which similarity, how many, with what weight, and from which epoch.

Every setting pretrains BYOL with its positives at rising lengths (the better ones go on) and scores a linear layer on
the encoder by the balanced accuracy of validation images, of findings by their mean AUC; test images are not looked at:

    python studies/positive_search.py
    python studies/positive_search.py --num-suggestions 30 --all-epochs
    python studies/positive_search.py --scale full --data-root DATA --datasets isic2019

What chooses for the pretrained ways is plain BYOL of the whole length, which is trained once a seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.cli import main
from orchestrator.options import DefaultInHelp
from orchestrator.study import Rungs, Search, Study
from studies import recipes
from studies.positive_recipes import PROBE_LEARNING_RATE, SIZES, PositivesOptions, byol_of, facts_of, pretraining_sets

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from trainables.classification.scores import ClassificationScores
    from trainables.ssl.byol import BYOL
    from trainables.ssl.positives import Positives

QUESTION = "Which way to choose positives, how many of them and with what weight, make BYOL learn the better encoder?"
STRATEGIES = ("fnc", "fs", "fs_pretrained", "tracin", "tracin_pretrained")
BEGINNING = {"strategy": "tracin_pretrained", "top_k": 1, "weight": 1.0, "start": 0.0, "normalize": "none"}
"""BYOL-TracIn-pretrained as in Table 1."""
RUNGS = {"smoke": (1, 2), "laptop": (4, 8, 15), "full": (33, 100, 300)}
"""Epochs at which settings are compared."""
NUM_SUGGESTIONS = {"smoke": 3, "laptop": 10, "full": 60}
PROBE_EPOCHS = {"smoke": 1, "laptop": 10, "full": 30}


@dataclass(frozen=True)
class PositiveSearchOptions(PositivesOptions):
    """Flags of the search."""

    num_suggestions: DefaultInHelp[int | None] = None
    """How many settings to try (default: the scale's)."""
    all_epochs: DefaultInHelp[bool] = False
    """Train every setting to the end, instead of the better ones only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_suggestions is not None and self.num_suggestions < 1:
            raise ValueError(f"--num-suggestions {self.num_suggestions}: expected at least 1")
        if len(set(self.datasets)) > 1:
            raise ValueError(f"--datasets {' '.join(self.datasets)}: a search is of one data set")
        if self.num_epochs is not None:
            raise ValueError("--num-epochs: the lengths of a search are the scale's; leave it out")


def space() -> dict[str, BaseDistribution]:
    """What is searched. ``normalize`` is of TracIn alone; settings that differ in nothing else are the same trials."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    return {
        "strategy": CategoricalDistribution(STRATEGIES),
        "top_k": CategoricalDistribution([1, 2, 3, 5]),
        "weight": FloatDistribution(0.1, 2.0, log=True),
        "start": FloatDistribution(0.0, 0.5, step=0.25),
        "normalize": CategoricalDistribution(["none", "cosine"]),
    }


def positives_of(params: Mapping[str, Any], chooser: BYOL, first_rung: int) -> Positives:
    """The way to choose that a point of the space is.

    Args:
        chooser: of the pretrained ways.
        first_rung: its epochs, of which ``start`` is a share: later, settings would be compared before they differ.
    """
    from trainables.ssl.positives import FalseNegatives, FeatureSimilarity, TracIn

    shared = {
        "top_k": params["top_k"],
        "weight": params["weight"],
        "start_epoch": round(params["start"] * first_rung),
    }
    normalize = params["normalize"]
    made: dict[str, Positives] = {
        "fnc": FalseNegatives(**shared),
        "fs": FeatureSimilarity(**shared),
        "fs_pretrained": FeatureSimilarity(**shared, model=chooser),
        "tracin": TracIn(**shared, normalize=normalize),
        "tracin_pretrained": TracIn(**shared, normalize=normalize, models=(chooser,)),
    }
    return made[params["strategy"]]


def make_study(options: PositiveSearchOptions) -> Study:
    """A search over ways to choose, each with every seed."""
    from trainables.data.annotations import MultiLabels

    if not options.datasets:
        options = replace(options, datasets=SIZES[options.scale].datasets[:1])
    sets = pretraining_sets(options)
    (pretrained,) = sets
    if not any(record.split == "val" for record in pretrained.labels.records()):
        raise ValueError(
            f"{pretrained.source.name}: no validation image is labelled, and settings are compared on these: give some "
            "images the split val in labels.csv"
        )
    lengths, whole = RUNGS[options.scale], SIZES[options.scale].num_epochs
    objective = "val/auc" if isinstance(pretrained.labels, MultiLabels) else "val/bma"

    def make(params: Mapping[str, Any], length: int = whole) -> dict[str, Sequence[ClassificationScores]]:
        scores = []
        for seed in range(options.pretrain_seeds):
            byol = byol_of(pretrained, seed, options)
            positives = positives_of(params, byol, lengths[0])
            encoder = replace(byol, num_epochs=length, positives=positives)
            scores.append(_probed(encoder, seed, options))
        return {objective: scores}

    search = Search(
        space(),
        make,
        {objective: "maximize"},
        options.num_suggestions or NUM_SUGGESTIONS[options.scale],
        start=[BEGINNING],
        rungs=None if options.all_epochs else Rungs(lengths, 2),
    )
    facts = facts_of(options, sets) | {"search_begins": "BYOL-TracIn-pretrained as in Table 1: one positive, weight 1"}
    cards = {pretrained.source.name: recipes.card_of(pretrained.source)}
    report = "analysis.search.report:search_report"
    return Study("positive_search", QUESTION, search=search, report=report, facts=facts, cards=cards)


def _probed(encoder: BYOL, seed: int, options: PositiveSearchOptions) -> ClassificationScores:
    """Validation scores of a linear layer on the encoder."""
    from trainables.classification.scores import ClassificationScores
    from trainables.classification.training import Classification

    sizes = SIZES[options.scale]
    assert encoder.labels is not None
    model = Classification(
        encoder.labels,
        encoder,
        is_frozen=True,
        augmentation=encoder.augmentation,
        label_seed=seed,
        num_epochs=PROBE_EPOCHS[options.scale],
        batch_size=sizes.finetune_batch_size,
        learning_rate=PROBE_LEARNING_RATE,
        finetune_seed=seed,
    )
    return ClassificationScores(model, "val")


if __name__ == "__main__":
    main(PositiveSearchOptions, make_study, __doc__)
