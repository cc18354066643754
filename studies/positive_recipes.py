"""What the studies of additional positives are made of: flags, sizes, and every row of the papers' tables.

Loads nothing heavy itself; what trains is imported where it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.options import DefaultInHelp, StudyOptions
from orchestrator.study import Entry
from studies import recipes
from studies.preparing import check
from trainables.api import names

if TYPE_CHECKING:
    from trainables.api.names import Backbone
    from trainables.augment.augmentation import Augmentation
    from trainables.classification.scores import ClassificationScores
    from trainables.data.annotations import Labels, MultiLabels
    from trainables.data.datasets import Source
    from trainables.data.records import Dataset
    from trainables.models.sources import EncoderSource
    from trainables.ssl.byol import BYOL
    from trainables.ssl.positives import Positives

WAYS = {
    "random": names.RANDOM_START,
    "byol": names.BYOL_ALONE,
    "fnc": names.FALSE_NEGATIVES,
    "ft": names.TRANSFORMED,
    "fs": names.BY_FEATURES,
    "fs_pretrained": names.BY_FEATURES_PRETRAINED,
    "tracin": names.BY_TRACIN,
    "tracin_pretrained": names.BY_TRACIN_PRETRAINED,
    "sup": names.BY_LABEL,
}
"""Words of the command line -> rows of the paper's tables."""
PROBE_LEARNING_RATE = 0.1
"""Of a linear layer on an encoder that stays as it is."""
_LEAST_CLASSES = 2
TRANSFERS = {"isic2019": "isic2016", "chestxray14": "shenzhen", "mnist5k": "digits", "digits": "mnist5k"}
"""Where the encoder of a data set is transferred to (Zeng et al. 2023, section 4.3); of digits ours."""


@dataclass(frozen=True)
class PositivesOptions(StudyOptions):
    """Flags of all studies of additional positives."""

    datasets: DefaultInHelp[tuple[str, ...]] = ()
    """Data sets to pretrain on: mnist5k and digits are packaged; isic2019, isic2016, chestxray14, shenzhen need
    --data-root; folder:PATH holds your own images/ and labels.csv (default: isic2019 and chestxray14 at full scale,
    else mnist5k, at scale smoke digits)."""
    pretrain_seeds: int = 1
    """How many pretrainings of each row."""
    num_epochs: DefaultInHelp[int | None] = None
    """Epochs of each pretraining (default: the scale's). With fewer, its schedule ends where the scale's does, and more
    go on from these; beyond the scale's the schedule is another one."""
    keep_transfer_images: DefaultInHelp[bool] = False
    """Pretrain on ISIC 2019 with the test images of ISIC 2016 in it, and with others of their lesions, as the paper
    does, it seems (default: without them, where ISIC 2016 lies below --data-root)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_epochs is not None and self.num_epochs < 1:
            raise ValueError(f"--num-epochs {self.num_epochs}: expected at least 1")


@dataclass(frozen=True)
class FineTuningOptions(PositivesOptions):
    """Flags of the studies that fine-tune."""

    finetune_seeds: int = 5
    """How many fine-tunings of the first pretraining. Every further pretraining has a single one."""
    ways: DefaultInHelp[tuple[str, ...]] = ()
    """Rows of the table: some of random, byol, fnc, ft, fs, fs_pretrained, tracin, tracin_pretrained, sup (default:
    all; of label_fractions random, byol, fs_pretrained, tracin_pretrained and sup)."""
    linear_probe: DefaultInHelp[bool] = False
    """Train a linear layer on the encoder as it is: quick, and another question (default: the encoder is trained
    along)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.finetune_seeds < 1:
            raise ValueError(f"--finetune-seeds {self.finetune_seeds}: expected at least 1")
        if unknown := [way for way in self.ways if way not in WAYS]:
            raise ValueError(f"--ways {' '.join(unknown)}: choose some of {', '.join(WAYS)}")

    def roles(self, default: Sequence[str] = tuple(WAYS)) -> list[str]:
        """The rows that were asked for, in the order of the paper."""
        wanted = self.ways or default
        return [role for way, role in WAYS.items() if way in wanted]

    def finetune_seeds_of(self, pretrain_seed: int) -> Sequence[int]:
        """The seeds of a pretraining's fine-tunings: both are not crossed."""
        return range(self.finetune_seeds) if pretrain_seed == 0 else (pretrain_seed,)


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
    transfer_epochs: int
    """Of the fine-tuning on another data set."""
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
        transfer_epochs=1,
        label_fractions=(0.1, 1.0),
    ),
    "laptop": Sizes(
        datasets=("mnist5k",),
        image_size_px=28,
        backbone="resnet10_16",
        num_epochs=15,
        batch_size=128,
        # With 0.1, in so few steps, it forgets what a random start has.
        learning_rate=0.03,
        hold_epochs=2,
        finetune_epochs=6,
        finetune_batch_size=64,
        finetune_learning_rate=0.02,
        transfer_epochs=6,
        label_fractions=(0.1, 0.5, 1.0),
    ),
    # The paper crops 128 px out of images of 140; here images of 128 px are taken, and a crop of the same share of them
    # is enlarged. As there: 300 epochs in batches of 256, 0.1 held for 10 epochs. Its fine-tuning
    # has 100 epochs, on another data set 50; rate and batch are ours.
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
        transfer_epochs=50,
        label_fractions=(0.1, 0.5, 1.0),
    ),
}


@dataclass(frozen=True)
class Pretrained:
    """A data set to pretrain on, with its labels, and what of it was left out."""

    source: Source
    labels: Labels | MultiLabels
    batch_size: int
    """Of a pretraining: the scale's, or all training images where there are fewer."""
    left_out: str = ""
    """What the transfer tests on, in words; empty where nobody asked."""
    is_transfer_kept: bool = False
    """Whether it may be trained on what the transfer tests on."""


def pretraining_sets(options: PositivesOptions) -> list[Pretrained]:
    """The data sets that were asked for, without the test images of where their encoders are transferred to.

    Raises ValueError where one has no labels.
    """
    sizes = SIZES[options.scale]
    from trainables.data.records import split_counts

    found = []
    for source in recipes.sources_named(options.datasets or sizes.datasets, sizes.image_size_px, options):
        kept, left_out, is_kept = _without_transfer_images(source, options)
        batch_size = min(sizes.batch_size, split_counts(kept.images)["train"])
        found.append(Pretrained(kept, labels_of(kept), batch_size, left_out, is_kept))
    check([(each.source, ()) for each in found], options)
    return found


def _without_transfer_images(source: Source, options: PositivesOptions) -> tuple[Source, str, bool]:
    """ISIC 2019 holds the images of ISIC 2016: without those that this tests on, and others of their lesions.

    Returns the data set, what was left out in words, and whether anything of it may be left.

    Raises:
        ValueError: a part of ISIC 2016 is there and cannot be read, so that what it tests on is not known.
    """
    from trainables.data.datasets import lookup
    from trainables.data.isic2019 import ISIC2019

    if not isinstance(source.images, ISIC2019):
        return source, "", False
    if options.keep_transfer_images:
        return source, "the test images of isic2016 are kept, if it holds any", True
    # Its own bad files or not: an image that cannot be used there is left out here all the same.
    target = lookup(TRANSFERS["isic2019"], source.images.image_size_px, options.data_root)
    try:
        tested = {record.id for record in target.images.records() if record.split == "test"}
    except FileNotFoundError as error:
        parts = [*Path(source.images.root).glob("ISBI2016*"), *Path(source.images.root).glob("*/ISBI2016*")]
        if parts:
            raise ValueError(
                f"{parts[0].name} is below --data-root, and ISIC 2016 cannot be read whole, so that what it tests on "
                f"could not be left out of the pretraining: {error}; or give --keep-transfer-images"
            ) from error
        return source, "isic2016 is not below --data-root, so its test images were not left out", True
    overlap = source.images.ids_of(tested)
    if not overlap:
        return source, f"none of the {len(tested)} test images of isic2016 was found by its name", True
    kept = source.of_kept({*source.images.excluded, *overlap})
    return kept, f"left out {len(overlap)} images that are test images of isic2016, or of their lesions", False


def labels_of(source: Source) -> Labels | MultiLabels:
    """What encoders are fine-tuned and tested on. Raises ValueError where there is none, or a single class."""
    from trainables.data.annotations import Labels

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
    labels = source.labels
    if isinstance(labels, Labels):
        known = labels.labels()
        classes = {known[record.id] for record in labels.records() if record.split == "train"}
        if len(classes) < _LEAST_CLASSES:
            raise ValueError(
                f"{source.name}: the labelled training images are of {len(classes)} class(es), and telling classes "
                "apart takes two: label images of another one"
            )
    return labels


def facts_of(options: PositivesOptions, sets: Sequence[Pretrained]) -> dict[str, str]:
    """What plan, report and MLflow say of a study."""
    sizes = SIZES[options.scale]
    facts: dict[str, str] = {"scale": options.scale}
    if options.num_epochs not in (None, SIZES[options.scale].num_epochs):
        facts["num_epochs"] = str(options.num_epochs)
    if isinstance(options, FineTuningOptions) and options.linear_probe:
        facts["linear_probe"] = "a linear layer is trained on the encoder as it is"
    for name, is_kept in (("transfer_images", False), ("transfer_images_kept", True)):
        said = [f"{e.source.name}: {e.left_out}" for e in sets if e.left_out and e.is_transfer_kept == is_kept]
        facts |= {name: "; ".join(said)} if said else {}
    if fitted := [f"{e.source.name}: batches of {e.batch_size}" for e in sets if e.batch_size < sizes.batch_size]:
        facts["sizes_fitted_to_the_data"] = "; ".join(fitted) + ", the learning rate in proportion"
    return facts


def byol_of(pretrained: Pretrained, seed: int, options: PositivesOptions) -> BYOL:
    """The pretraining of the row BYOL, from which all others differ in their positives alone."""
    from trainables.schedules import Hold
    from trainables.ssl.byol import BYOL

    sizes = SIZES[options.scale]
    return BYOL(
        pretrained.source.images,
        augmentation=augmentation_of(pretrained.source.images),
        labels=pretrained.labels,
        backbone=sizes.backbone,
        num_epochs=options.num_epochs or sizes.num_epochs,
        schedule_epochs=max(sizes.num_epochs, options.num_epochs or 0),
        batch_size=pretrained.batch_size,
        learning_rate=sizes.learning_rate * pretrained.batch_size / sizes.batch_size,
        schedule=Hold(sizes.hold_epochs),
        pretrain_seed=seed,
    )


def augmentation_of(images: Dataset) -> Augmentation:
    """Of pretraining and fine-tuning: the paper's. Digits are only turned a little and cropped: of one that is turned
    round or mirrored nobody knows any more which it was, and BYOL then learns less than it loses."""
    from trainables.augment.combine import BYOL_AUGMENTATION, Combine
    from trainables.augment.geometric import RandomResizedCrop, Rotation

    if images.name in _DIGITS:
        return Combine((Rotation(20.0), RandomResizedCrop(0.5, 1.0)))
    return BYOL_AUGMENTATION


_DIGITS = ("mnist5k", "digits")


def encoders(pretrained: Pretrained, seed: int, options: FineTuningOptions) -> Iterator[tuple[str, EncoderSource]]:
    """Role and encoder of every row of the table, of one seed.

    What chooses for the ``-pretrained`` rows is the encoder of the row BYOL: it is trained once.
    """
    from trainables.models.sources import Untrained

    source, labels = pretrained.source, pretrained.labels
    byol = byol_of(pretrained, seed, options)
    yield names.RANDOM_START, Untrained(source.images, byol.backbone, "byol", seed, byol.embedding_dim)
    yield names.BYOL_ALONE, byol
    for role, positives in ways(byol, labels).items():
        yield role, replace(byol, positives=positives)


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
        names.BY_FEATURES_PRETRAINED: FeatureSimilarity(model=byol),
        names.BY_TRACIN: TracIn(),
        names.BY_TRACIN_PRETRAINED: TracIn(models=(byol,)),
        names.BY_LABEL: SameLabel(labels=labels),
    }


@dataclass(frozen=True)
class FineTunings:
    """The fine-tunings of encoders on one data set, all alike."""

    labels: Labels | MultiLabels
    shown: Mapping[str, str]
    """Labels that all have: the data set and, where it is another one, what was pretrained on."""
    num_epochs: int
    options: FineTuningOptions

    def of(self, role: str, encoder: EncoderSource, fraction: float, pretrain_seed: int) -> dict[str, Entry]:
        """Test scores of an encoder's fine-tunings on a share of the labels, by their names for people."""
        trials = {}
        for seed in self.options.finetune_seeds_of(pretrain_seed):
            shown = {**self.shown, "labels": f"{100 * fraction:.4g} % of labels"}
            if self.options.linear_probe:
                shown["trained"] = names.LINEAR_PROBE
            name = " · ".join([*shown.values(), f"{role}, pretraining {pretrain_seed}, fine-tuning {seed}"])
            trials[name] = Entry(self._scored(encoder, fraction, seed), role, shown)
        return trials

    def _scored(self, encoder: EncoderSource, fraction: float, seed: int) -> ClassificationScores:
        from trainables.classification.scores import ClassificationScores
        from trainables.classification.training import Classification

        sizes = SIZES[self.options.scale]
        model = Classification(
            self.labels,
            encoder,
            is_frozen=self.options.linear_probe,
            augmentation=augmentation_of(self.labels.images),
            label_fraction=fraction,
            label_seed=seed,
            num_epochs=self.num_epochs,
            batch_size=sizes.finetune_batch_size,
            learning_rate=PROBE_LEARNING_RATE if self.options.linear_probe else sizes.finetune_learning_rate,
            finetune_seed=seed,
        )
        return ClassificationScores(model)


def fine_tuned(
    sets: Sequence[Pretrained], roles: Sequence[str], fractions: Sequence[float], options: FineTuningOptions
) -> dict[str, Entry]:
    """Every row on every data set, fine-tuned there on shares of the labels."""
    trials: dict[str, Entry] = {}
    for pretrained in sets:
        shown = {"data": pretrained.source.name}
        tunings = FineTunings(pretrained.labels, shown, SIZES[options.scale].finetune_epochs, options)
        for seed in range(options.pretrain_seeds):
            for role, encoder in encoders(pretrained, seed, options):
                if role in roles:
                    for fraction in fractions:
                        trials |= tunings.of(role, encoder, fraction, seed)
    return trials


def checked_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    """Each once, rising. Raises ValueError for what is no share."""
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise ValueError(f"--label-fractions {fraction:g}: expected shares above 0, up to 1")
    named = {f"{100 * fraction:.4g}": fraction for fraction in fractions}
    if len(named) < len(set(fractions)):
        raise ValueError(f"--label-fractions {' '.join(map(str, fractions))}: some are alike to four digits")
    return tuple(sorted(named.values()))
