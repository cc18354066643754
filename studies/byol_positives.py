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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.cli import main
from orchestrator.options import DefaultInHelp, StudyOptions
from orchestrator.study import Entry, Study
from studies import recipes
from trainables.api import names

if TYPE_CHECKING:
    from trainables.api.names import Backbone
    from trainables.data.annotations import Labels, MultiLabels
    from trainables.data.datasets import Source
    from trainables.models.sources import EncoderSource
    from trainables.ssl.byol import BYOL
    from trainables.ssl.positives import Positives

REPORT = "analysis.positives.report:positives_report"
QUESTION = "Which additional positives make BYOL learn the better encoder, with what share of the labels?"


@dataclass(frozen=True)
class ByolPositivesOptions(StudyOptions):
    """Flags of the study."""

    datasets: DefaultInHelp[tuple[str, ...]] = ()
    """Data sets with labels: mnist5k and digits are packaged; isic2019, isic2016, chestxray14, shenzhen need
    --data-root; folder:PATH holds your own images/ and labels.csv (default: isic2019 and chestxray14 at full scale,
    else mnist5k)."""
    pretrain_seeds: int = 1
    """How many pretrainings of each row. The first has all fine-tunings, every further one a single one."""
    finetune_seeds: int = 5
    """How many fine-tunings of the first pretraining."""
    label_fractions: DefaultInHelp[tuple[float, ...]] = ()
    """Shares of the labels, such as 0.1 0.5 1 (default: the scale's)."""
    num_epochs: DefaultInHelp[int | None] = None
    """Epochs of each pretraining (default: the scale's). Its schedule ends where the scale's does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.finetune_seeds < 1:
            raise ValueError(f"--finetune-seeds {self.finetune_seeds}: expected at least 1")
        for fraction in self.label_fractions:
            if not 0 < fraction <= 1:
                raise ValueError(f"--label-fractions {fraction:g}: expected shares above 0, up to 1")
        if self.num_epochs is not None and self.num_epochs < 1:
            raise ValueError(f"--num-epochs {self.num_epochs}: expected at least 1")


@dataclass(frozen=True)
class Sizes:
    """What depends on the scale."""

    datasets: tuple[str, ...]
    image_size_px: int
    backbone: Backbone
    num_epochs: int
    batch_size: int
    learning_rate: float
    hold_epochs: int
    finetune_epochs: int
    finetune_batch_size: int
    finetune_learning_rate: float
    label_fractions: tuple[float, ...]


SIZES = {
    "smoke": Sizes(
        datasets=("digits",),
        image_size_px=16,
        backbone="resnet10_16",
        num_epochs=2,
        batch_size=64,
        learning_rate=0.05,
        hold_epochs=1,
        finetune_epochs=1,
        finetune_batch_size=64,
        finetune_learning_rate=0.01,
        label_fractions=(0.1, 1.0),
    ),
    "laptop": Sizes(
        datasets=("mnist5k",),
        image_size_px=28,
        backbone="resnet10_16",
        num_epochs=24,
        batch_size=128,
        learning_rate=0.1,
        hold_epochs=2,
        finetune_epochs=20,
        finetune_batch_size=64,
        finetune_learning_rate=0.02,
        label_fractions=(0.1, 0.5, 1.0),
    ),
    # The paper: images of 140 px cropped to 128; 300 epochs in batches of 256, 0.1 held for 10 epochs. Its fine-tuning
    # has 100 epochs; rate and batch are ours.
    "full": Sizes(
        datasets=("isic2019", "chestxray14"),
        image_size_px=128,
        backbone="resnet18",
        num_epochs=300,
        batch_size=256,
        learning_rate=0.1,
        hold_epochs=10,
        finetune_epochs=100,
        finetune_batch_size=256,
        finetune_learning_rate=0.01,
        label_fractions=(0.1, 0.5, 1.0),
    ),
}


def make_study(options: ByolPositivesOptions) -> Study:
    """Every way to choose positives on every data set, fine-tuned on every share of the labels."""
    sizes = SIZES[options.scale]
    trials: dict[str, Entry] = {}
    cards = {}
    for wanted in dict.fromkeys(options.datasets or sizes.datasets):
        source = recipes.source_of(wanted, sizes.image_size_px, options)
        labels = _labels_of(source)
        cards[source.name] = recipes.card_of(source)
        for seed in range(options.pretrain_seeds):
            finetune_seeds = range(options.finetune_seeds) if seed == 0 else (seed,)
            for role, encoder in encoders(source, labels, seed, sizes, options):
                for fraction in sorted(set(options.label_fractions or sizes.label_fractions)):
                    for finetune_seed in finetune_seeds:
                        trials |= _scored(source, labels, role, encoder, fraction, (seed, finetune_seed), sizes)
    facts: dict[str, str] = {"scale": options.scale}
    if options.num_epochs not in (None, sizes.num_epochs):
        facts["num_epochs"] = str(options.num_epochs)
    return Study("byol_positives", QUESTION, trials, report=REPORT, facts=facts, cards=cards)


def _labels_of(source: Source) -> Labels | MultiLabels:
    if source.labels is None:
        raise ValueError(
            f"the data set {source.name} has no labels, and encoders are fine-tuned on these: give it a labels.csv "
            "with a column label, or choose one of mnist5k, digits, isic2019, isic2016, chestxray14, shenzhen"
        )
    if not any(record.split == "test" for record in source.labels.records()):
        raise ValueError(
            f"{source.name}: no test image is labelled, and encoders are scored on these: give some images the split "
            "test in labels.csv"
        )
    return source.labels


def encoders(
    source: Source, labels: Labels | MultiLabels, seed: int, sizes: Sizes, options: ByolPositivesOptions
) -> Iterator[tuple[str, EncoderSource]]:
    """Role and encoder of every row of the table, of one seed.

    What chooses for the ``-pretrained`` rows is the encoder of the row BYOL: it is trained once.
    """
    from trainables.models.sources import Untrained
    from trainables.schedules import Hold
    from trainables.ssl.byol import BYOL

    byol = BYOL(
        source.images,
        backbone=sizes.backbone,
        num_epochs=options.num_epochs or sizes.num_epochs,
        schedule_epochs=max(sizes.num_epochs, options.num_epochs or 0),
        batch_size=sizes.batch_size,
        learning_rate=sizes.learning_rate,
        schedule=Hold(sizes.hold_epochs),
        pretrain_seed=seed,
    )
    yield names.RANDOM_START, Untrained(source.images, sizes.backbone, "byol", seed, byol.embedding_dim)
    yield names.BYOL_ALONE, byol
    for role, positives in ways(byol, labels).items():
        yield role, replace(byol, positives=positives, labels=labels)


def ways(byol: BYOL, labels: Labels | MultiLabels) -> Mapping[str, Positives]:
    """The ways to choose positives, by their rows in the paper."""
    from trainables.ssl.positives import (
        FalseNegatives,
        FeatureSimilarity,
        FeatureTransformation,
        SameLabel,
        TracIn,
    )

    return {
        names.FALSE_NEGATIVES: FalseNegatives(),
        names.TRANSFORMED: FeatureTransformation(),
        names.BY_FEATURES: FeatureSimilarity(),
        names.BY_FEATURES_PRETRAINED: FeatureSimilarity(model=byol, views="plain"),
        names.BY_TRACIN: TracIn(),
        names.BY_TRACIN_PRETRAINED: TracIn(models=(byol,)),
        names.BY_LABEL: SameLabel(labels=labels),
    }


def _scored(
    source: Source,
    labels: Labels | MultiLabels,
    role: str,
    encoder: EncoderSource,
    fraction: float,
    seeds: tuple[int, int],
    sizes: Sizes,
) -> dict[str, Entry]:
    from trainables.classification.scores import ClassificationScores
    from trainables.classification.training import Classification

    pretrain_seed, finetune_seed = seeds
    model = Classification(
        labels,
        encoder,
        label_fraction=fraction,
        label_seed=finetune_seed,
        num_epochs=sizes.finetune_epochs,
        batch_size=sizes.finetune_batch_size,
        learning_rate=sizes.finetune_learning_rate,
        finetune_seed=finetune_seed,
    )
    shown = {"data": source.name, "labels": f"{100 * fraction:.4g} % of labels"}
    name = " · ".join([*shown.values(), f"{role}, pretraining {pretrain_seed}, fine-tuning {finetune_seed}"])
    return {name: Entry(ClassificationScores(model), role, shown)}


if __name__ == "__main__":
    main(ByolPositivesOptions, make_study, __doc__)
