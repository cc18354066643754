"""What studies of encoders begin with: their flags, data and sizes at a scale, and pretrainings.

Loads nothing heavy itself, so that a study may name its sizes at its top; what trains is imported where it is made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator.options import DefaultInHelp, StudyOptions
from studies.preparing import check_weights, data_context, is_decoded_at_once
from trainables.api.card import Card
from trainables.api.errors import BadData
from trainables.api.names import (
    Backbone,
    MoCoHead,
)  # fmt: skip

if TYPE_CHECKING:
    from trainables.data.annotations import PixelAnnotation, Region
    from trainables.data.datasets import Source
    from trainables.models.released import ReleasedWeights
    from trainables.segmentation.target import Target
    from trainables.ssl.moco import MoCo

A = TypeVar("A", bound="PixelAnnotation")

_LEAST_GROUP = 2  # images that batch normalisation needs to tell apart


@dataclass(frozen=True)
class EncoderStudyOptions(StudyOptions):
    """Flags of the studies that begin with pretrained encoders."""

    datasets: DefaultInHelp[tuple[str, ...]] = ()
    """Data sets: mni152 is packaged; brats, kvasir, lung_mask need --data-root; folder:PATH holds your own images/ and
    masks/ (default: brats at full scale, else mni152)."""
    pretrained: DefaultInHelp[Path | None] = None
    """Released MoCo checkpoint of the scale's encoder (full: ResNet-50) to go on from (default: a random start)."""
    released: DefaultInHelp[Path | None] = None
    """Released encoder that stands beside the trained ones: of MoCo, or a ResNet of torchvision or timm (default: that
    of --pretrained, if any)."""
    head: MoCoHead = "v2"
    """Head of the encoders, as the released weights have it: v1 is one linear layer, v2 an MLP."""
    num_epochs: DefaultInHelp[int | None] = None
    """Epochs of each pretraining (default: the scale's). Raised later, only the further epochs are trained."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_epochs is not None and self.num_epochs < 1:
            raise ValueError(f"--num-epochs {self.num_epochs}: expected at least 1")


@dataclass(frozen=True)
class PretrainingSizes:
    """The sizes of a MoCo pretraining, as wished for; ``fitted`` to what a data set has."""

    image_size_px: int
    backbone: Backbone
    num_epochs: int
    batch_size: int
    batch_norm_groups: int
    queue_size: int
    learning_rate: float
    key_momentum: float

    def fitted(self, data: str, num_train: int) -> PretrainingSizes:
        """The largest batch and queue that the training split allows, the learning rate in proportion to the batch.

        A queue is shorter than the training split (see ``MoCo``), and so is a batch, of which it holds one at least.
        Raises ValueError where not even the smallest batch is there.
        """
        most = num_train - 1
        groups = min(self.batch_norm_groups, most // _LEAST_GROUP)
        if groups < 1:
            raise ValueError(
                f"{data} has {num_train} training image(s): a pretraining needs at least {_LEAST_GROUP + 1}; add "
                "images, or move some out of validation"
            )
        batch_size = min(self.batch_size, most // groups * groups)
        queue_size = max(batch_size, min(self.queue_size, most) // batch_size * batch_size)
        learning_rate = self.learning_rate * batch_size / self.batch_size
        return replace(
            self, batch_norm_groups=groups, batch_size=batch_size, queue_size=queue_size, learning_rate=learning_rate
        )


@dataclass(frozen=True)
class CurveSizes:
    """How finely curves are measured."""

    num_images: int
    num_samples: int
    num_windows: int = 21
    """Of an occlusion, along each side."""
    num_erasures: int = 100


@dataclass(frozen=True)
class Sizes:
    """The sizes of a study of curves at one scale."""

    pretraining: PretrainingSizes
    curve: CurveSizes


SIZES: dict[str, Sizes] = {
    "smoke": Sizes(
        PretrainingSizes(
            image_size_px=32,
            backbone="resnet18",
            num_epochs=1,
            batch_size=8,
            batch_norm_groups=2,
            queue_size=32,
            learning_rate=0.03,
            key_momentum=0.99,
        ),
        CurveSizes(num_images=4, num_samples=2, num_windows=4, num_erasures=8),
    ),
    # From random weights and in 80 steps, batches of 4 learn nothing that lasts: larger batches, a faster key encoder.
    "laptop": Sizes(
        PretrainingSizes(
            image_size_px=96,
            backbone="resnet18",
            num_epochs=40,
            batch_size=32,
            batch_norm_groups=4,
            queue_size=64,
            learning_rate=0.06,
            key_momentum=0.99,
        ),
        CurveSizes(num_images=16, num_samples=5, num_windows=6, num_erasures=20),
    ),
    # The thesis: 75 images, every degree, MoCo as released (ResNet-50), 100 epochs of batches of 4, 50 noise samples.
    # Ours: Otsu's threshold and 224 px, the size of the released weights; the thesis states neither.
    "full": Sizes(
        PretrainingSizes(
            image_size_px=224,
            backbone="resnet50",
            num_epochs=100,
            batch_size=4,
            batch_norm_groups=2,
            queue_size=256,
            learning_rate=0.03,
            key_momentum=0.999,
        ),
        CurveSizes(num_images=75, num_samples=50),
    ),
}


def default_dataset(scale: str) -> str:
    """The thesis's data set at full scale, else the packaged one."""
    return "brats" if scale == "full" else "mni152"


def sources_of(options: EncoderStudyOptions, image_size_px: int) -> Iterator[Source]:
    """The data sets that were asked for; see ``sources_named``."""
    return sources_named(options.datasets or (default_dataset(options.scale),), image_size_px, options)


def sources_named(names: Sequence[str], image_size_px: int, options: StudyOptions) -> Iterator[Source]:
    """The data sets of these names, each once, bad files left out where that was asked for too.

    Raises ValueError where two folders have one name: what is said of one could not be told from the other.
    """
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        source = source_of(name, image_size_px, options)
        if source.name in found:
            raise ValueError(f"--datasets {found[source.name]} {name}: both are called {source.name}; rename a folder")
        found[source.name] = name
        yield source


def source_of(name: str, image_size_px: int, options: StudyOptions) -> Source:
    """The data set of a name on the command line, without its bad files where that was asked for."""
    from trainables.data.datasets import lookup

    source = lookup(name, image_size_px, options.data_root)
    return without_bad_files(source, options) if options.skip_bad_files else source


def regions_of(source: Source, wanted: Sequence[str], flag: str = "--regions") -> list[Region]:
    """The regions that were asked for, or the default one. Raises ValueError naming those that the data set has."""
    if not wanted:
        return [source.region]
    if unknown := [name for name in wanted if name not in source.regions]:
        raise ValueError(f"{flag} {' '.join(unknown)}: {source.name} has {', '.join(source.regions) or 'no masks'}")
    return [source.regions[name] for name in wanted]


def check_is_validated(source: Source, target: Target) -> None:
    """Raises ValueError where no validation image has a mask of what is to be segmented."""
    if not any(record.split == "val" for record in target.records()):
        raise ValueError(
            f"{source.name}: {target.name} is known for no validation image, and segmentations are scored on "
            "these: give some images the split val in labels.csv, or add their masks"
        )


def check_shows_something(source: Source, target: Target, options: StudyOptions) -> None:
    """Of a data set that is decoded at once: raises ValueError where the masks of all validation images are empty."""
    from trainables.data.cache import open_annotation

    if not is_decoded_at_once(source.images):
        return
    table = open_annotation(target, data_context(options))
    is_val = [record.split == "val" for record in source.images.records()]
    if not table.values_NHW[is_val].any():
        raise ValueError(
            f"{source.name}: {target.name} is empty in all validation images, and segmentations are compared on what "
            "these show: give images with something of it the split val in labels.csv"
        )


def without_bad_files(source: Source, options: StudyOptions) -> Source:
    """The data set without the images and masks that cannot be used; says which they are."""
    from trainables.api.trainable import changed
    from trainables.data.cache import survey

    context = data_context(options)
    bad_images = survey(source.images, context)
    _say_left_out(f"images of {source.name}", "image", bad_images, len(source.images.records()))
    kept = source.of_kept(bad_images)

    def usable(annotation: A) -> A:
        name, bad_masks = annotation.name, survey(annotation, context)
        _say_left_out(f"masks of {source.name}: {name}", f"{name} of", bad_masks, len(annotation.records()))
        return changed(annotation, excluded=tuple(sorted(bad_masks)))

    regions = {name: usable(region) for name, region in kept.regions.items()}
    return replace(kept, regions=regions, classes=usable(kept.classes) if kept.classes else None)


def _say_left_out(what: str, word: str, problems: Mapping[str, str], num_records: int) -> None:
    """Names each on stderr. Raises BadData where nothing is left."""
    if problems and len(problems) == num_records:
        raise BadData(what, dict(problems))
    for record, problem in problems.items():
        print(f"left out: {word} {record}: {problem}", file=sys.stderr)


def card_of(source: Source) -> Card:
    """What reports say of a data set, under its name on the command line."""
    return replace(source.images.card(), name=source.name)


def released_weights(checkpoint: Path | None) -> tuple[ReleasedWeights | None, str]:
    """The weights to start from, and the same in words; without a checkpoint random ones."""
    if checkpoint is None:
        return None, "random weights"
    from trainables.models.released import ReleasedWeights

    return ReleasedWeights(str(checkpoint.resolve())), f"released weights ({checkpoint.name})"


def pretrainings(source: Source, fitted: PretrainingSizes, options: EncoderStudyOptions) -> list[MoCo]:
    """One MoCo a seed, of sizes that were fitted to the data set."""
    from trainables.ssl.moco import MoCo

    init, _ = released_weights(options.pretrained)
    return [
        MoCo(
            source.images,
            backbone=fitted.backbone,
            head=options.head,
            init=init,
            num_epochs=fitted.num_epochs,
            batch_size=fitted.batch_size,
            queue_size=fitted.queue_size,
            batch_norm_groups=fitted.batch_norm_groups,
            learning_rate=fitted.learning_rate,
            key_momentum=fitted.key_momentum,
            pretrain_seed=seed,
        )
        for seed in range(options.pretrain_seeds)
    ]


def sizes_of(options: EncoderStudyOptions, num_epochs: int | None = None) -> Sizes:
    """The sizes of the scale, with the epochs that were asked for, else the study's own, else those of the scale."""
    check_weights(**{"--pretrained": options.pretrained, "--released": options.released})
    sizes = SIZES[options.scale]
    wanted = options.num_epochs or num_epochs or sizes.pretraining.num_epochs
    return replace(sizes, pretraining=replace(sizes.pretraining, num_epochs=wanted))


def facts_of(
    options: EncoderStudyOptions, sizes: PretrainingSizes, fitted: Mapping[str, PretrainingSizes]
) -> dict[str, str]:
    """What plan, report and MLflow say of a study: its scale and start, epochs that are not the scale's, and sizes that
    the data made smaller."""
    facts = {"scale": options.scale, "pretraining_start": released_weights(options.pretrained)[1]}
    if sizes.num_epochs != SIZES[options.scale].pretraining.num_epochs:
        facts["num_epochs"] = str(sizes.num_epochs)
    return facts | fitted_facts(sizes, fitted)


def fitted_facts(sizes: PretrainingSizes, fitted: Mapping[str, PretrainingSizes]) -> dict[str, str]:
    """The fact of what the data made smaller, by data set; none where all sizes are as wished for."""
    smaller = [f"{name}: {_smaller(sizes, found)}" for name, found in fitted.items() if found != sizes]
    return {"sizes_fitted_to_the_data": "; ".join(smaller)} if smaller else {}


def _smaller(wished: PretrainingSizes, found: PretrainingSizes) -> str:
    said = [f"batches of {found.batch_size}", f"a queue of {found.queue_size}"]
    if found.learning_rate != wished.learning_rate:
        said.append(f"a learning rate of {found.learning_rate:.4g}")
    if found.batch_norm_groups != wished.batch_norm_groups:
        said.append(f"{found.batch_norm_groups} normalisation group(s)")
    return ", ".join(said)
