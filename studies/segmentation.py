"""Does contrastive pretraining make a better segmentation than a supervised network, and with how few masks?

The thesis (chapter 4) trains a UNet from scratch, and the same kind of decoder on the trunk of a MoCo that was
fine-tuned on the images without their masks. This study trains both, on shares of the masks (nested, whole patients),
and adds what tells where a difference comes from: the same trunk from random weights, and trunks that are kept as they
are, so that the decoder alone learns.

    python studies/segmentation.py                                  # packaged T1 slices, four classes of tissue
    python studies/segmentation.py --plan                           # what would run, and what it costs
    python studies/segmentation.py --datasets folder:/path          # your own images/ and masks/
    python studies/segmentation.py --scale full --data-root DATA --pretrained moco_v2_800ep_pretrain.pth.tar

Every pretraining has one fine-tuning: seed s of each row is pretrained, fine-tuned and given its masks by s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli import main
from orchestrator.options import DefaultInHelp
from orchestrator.study import Entry, Study
from studies import recipes
from studies.preparing import check
from studies.recipes import EncoderStudyOptions
from trainables.api.names import FROZEN, MOCO_TRUNK, RANDOM_TRUNK, RELEASED_TRUNK, UNET

if TYPE_CHECKING:
    from trainables.data.datasets import Source
    from trainables.models.sources import EncoderSource
    from trainables.segmentation.networks import SegmentationNetwork
    from trainables.segmentation.target import Target
    from trainables.ssl.moco import MoCo

QUESTION = (
    "Is a segmentation on the trunk of a contrastively pretrained encoder better than a supervised UNet and than the "
    "same network from random weights, and with what share of the masks?"
)


@dataclass(frozen=True)
class SegmentationOptions(EncoderStudyOptions):
    """Flags of the study."""

    regions: DefaultInHelp[tuple[str, ...]] = ()
    """Regions to segment, each by itself (default: all classes of pixels at once, or the first region where there are
    no classes)."""
    label_fractions: DefaultInHelp[tuple[float, ...]] = ()
    """Shares of the training images whose masks are used, such as 0.01 0.1 1 (default: the scale's)."""
    segmentation_epochs: DefaultInHelp[int | None] = None
    """Epochs of each segmentation (default: the scale's). Raised later, its learning rate decays more slowly: all
    segmentations are trained anew, the pretrainings are not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for fraction in self.label_fractions:
            if not 0 < fraction <= 1:
                raise ValueError(f"--label-fractions {fraction:g}: expected shares above 0, up to 1")
        if self.segmentation_epochs is not None and self.segmentation_epochs < 1:
            raise ValueError(f"--segmentation-epochs {self.segmentation_epochs}: expected at least 1")


@dataclass(frozen=True)
class SegmentationSizes:
    """The sizes of the segmentations; pretrainings have those of the rotation study at the same scale."""

    widths: tuple[int, ...]
    """Of the UNet's encoder."""
    num_epochs: int
    batch_size: int
    label_fractions: tuple[float, ...]


SIZES = {
    "smoke": SegmentationSizes(widths=(4, 8, 16, 32), num_epochs=1, batch_size=16, label_fractions=(0.5, 1.0)),
    # Batches of 64 would be one or two steps an epoch on 72 slices.
    "laptop": SegmentationSizes(widths=(16, 32, 64, 128), num_epochs=5, batch_size=8, label_fractions=(0.1, 0.3, 1.0)),
    # The thesis: 100 epochs of batches of 64, all masks. It states no widths: Ronneberger's.
    "full": SegmentationSizes(
        widths=(64, 128, 256, 512), num_epochs=100, batch_size=64, label_fractions=(0.01, 0.05, 0.1, 0.5, 1.0)
    ),
}


def make_study(options: SegmentationOptions) -> Study:
    """Every network of each data set, target and share of the masks, scored on validation; with all masks also on
    training data, as in the thesis."""
    encoder_sizes, sizes = recipes.sizes_of(options), SIZES[options.scale]
    trials: dict[str, Entry] = {}
    cards, fitted = {}, {}
    sources = list(recipes.sources_of(options, encoder_sizes.pretraining.image_size_px))
    wanted = [(source, _targets(source, options.regions)) for source in sources]
    check(wanted, options)
    for source, targets in wanted:
        for target in targets:
            recipes.check_shows_something(source, target, options)
        cards[source.name] = recipes.card_of(source)
        num_train = cards[source.name].counts.get("train", 0)
        fitted[source.name] = encoder_sizes.pretraining.fitted(source.name, num_train)
        trained = recipes.pretrainings(source, fitted[source.name], options)
        for target in targets:
            trials |= _scores(source, target, trained, sizes, options)
    facts = recipes.facts_of(options, encoder_sizes.pretraining, fitted) | _facts(options, sizes)
    return Study("segmentation", QUESTION, trials, report=REPORT, facts=facts, cards=cards)


REPORT = "analysis.segmentation.report:segmentation_report"


def _facts(options: SegmentationOptions, sizes: SegmentationSizes) -> dict[str, str]:
    facts = {}
    if options.segmentation_epochs not in (None, sizes.num_epochs):
        facts["segmentation_epochs"] = str(options.segmentation_epochs)
    if not (options.released or options.pretrained):
        facts["released_trunk"] = (
            "not among the rows: no weights were given; --pretrained FILE or --released FILE adds it"
        )
    return facts


def _targets(source: Source, regions: Sequence[str]) -> list[Target]:
    """What is to be segmented. Raises ValueError where no validation image has a mask."""
    is_by_region = regions or source.classes is None
    targets: list[Target] = [*recipes.regions_of(source, regions)] if is_by_region else []
    if source.classes is not None and not is_by_region:
        targets = [source.classes]
    for target in targets:
        recipes.check_is_validated(source, target)
    return targets


def _networks(
    source: Source, moco: MoCo, sizes: SegmentationSizes, options: SegmentationOptions
) -> Iterator[tuple[str, SegmentationNetwork]]:
    """Role and network of every row, of one seed."""
    from trainables.models.sources import Released, Untrained
    from trainables.segmentation.networks import TrunkUNet, UNet

    yield UNET, UNet(sizes.widths)
    untrained = Untrained(source.images, moco.backbone, moco.head, moco.pretrain_seed)
    encoders: dict[str, EncoderSource] = {MOCO_TRUNK: moco, RANDOM_TRUNK: untrained}
    weights: Path | None = options.released or options.pretrained
    if weights is not None:
        encoders[RELEASED_TRUNK] = Released(str(weights.resolve()), source.images, moco.backbone)
    for role, encoder in encoders.items():
        yield role, TrunkUNet(encoder)
        yield role + FROZEN, TrunkUNet(encoder, is_frozen=True)


def _scores(
    source: Source, target: Target, trained: Sequence[MoCo], sizes: SegmentationSizes, options: SegmentationOptions
) -> dict[str, Entry]:
    from trainables.segmentation.scores import SegmentationScores
    from trainables.segmentation.training import Segmentation

    trials = {}
    for fraction in sorted(set(options.label_fractions or sizes.label_fractions)):
        for moco in trained:
            for role, network in _networks(source, moco, sizes, options):
                model = Segmentation(
                    target,
                    network,
                    label_fraction=fraction,
                    label_seed=moco.pretrain_seed,
                    num_epochs=options.segmentation_epochs or sizes.num_epochs,
                    batch_size=sizes.batch_size,
                    finetune_seed=moco.pretrain_seed,
                )
                for split in ("train", "val") if fraction == 1 else ("val",):
                    share = f"{100 * fraction:.4g} % of masks"
                    labels = {"data": source.name, "region": target.name, "masks": share, "split": split}
                    name = " · ".join([*labels.values(), f"{role}, seed {moco.pretrain_seed}"])
                    trials[name] = Entry(SegmentationScores(model, split), role, labels)
    return trials


if __name__ == "__main__":
    main(SegmentationOptions, make_study, __doc__)
