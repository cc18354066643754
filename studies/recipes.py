"""What studies are made of: data at a scale, pretrainings, and curves with every control.

Loads nothing heavy itself, so that a study may name its sizes at its top; what trains is imported where it is made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator.options import DefaultInHelp, StudyOptions
from orchestrator.study import Entry, Study
from studies.preparing import check, check_weights, data_context, is_decoded_at_once
from trainables.api.card import Card
from trainables.api.errors import BadData
from trainables.api.names import (
    AVERAGED_TRANSFORMS,
    CONDITIONAL_OCCLUSION,
    GRAD_CAM,
    INTERACTION_CAM,
    PAIRWISE_OCCLUSION,
    SMOOTHGRAD,
    SMOOTHGRAD_OF_TOOL,
    Backbone,
    MoCoHead,
)  # fmt: skip

if TYPE_CHECKING:
    from trainables.data.annotations import PixelAnnotation, Region
    from trainables.data.datasets import Source
    from trainables.interpretability.curve import InterpretabilityCurve
    from trainables.interpretability.selection import ImageChoice
    from trainables.models.released import ReleasedWeights
    from trainables.models.sources import EncoderSource
    from trainables.saliency.base import SaliencyMethod
    from trainables.segmentation.target import Target
    from trainables.ssl.moco import MoCo
    from trainables.sweeps import Sweep

A = TypeVar("A", bound="PixelAnnotation")

CURVE_REPORT = "analysis.pages.report:curve_report"
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
class CurveStudyOptions(EncoderStudyOptions):
    """Flags of the studies that draw curves of interpretability."""

    regions: DefaultInHelp[tuple[str, ...]] = ()
    """Regions that maps are compared with, such as white_matter grey_matter (default: the first of each data set)."""
    methods: DefaultInHelp[tuple[str, ...]] = ()
    """How pairs are explained: smoothgrad, smoothgrad_of_the_tool, averaged_transforms, conditional_occlusion,
    pairwise_occlusion, grad_cam, interaction_cam_mean, _max or _attention (default: smoothgrad, at full scale also the
    tool's; of saliency_methods all but the tool's)."""
    two_stage: DefaultInHelp[bool] = False
    """Let a pilot of a few images choose the angles of a rotation, for an interval that is hardly wider: fewer passes,
    how many depends on how much images differ (default: all angles)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise ValueError(f"--methods {' '.join(unknown)}: choose some of {', '.join(METHODS)}")


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
    """The data sets that were asked for, each once, bad files left out where that was asked for too.

    Raises ValueError where two folders have one name: what is said of one could not be told from the other.
    """
    found: dict[str, str] = {}
    for name in dict.fromkeys(options.datasets or (default_dataset(options.scale),)):
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


def methods_of(options: CurveStudyOptions, sizes: CurveSizes) -> dict[str, SaliencyMethod]:
    """The methods that were asked for; by default the sound form of SmoothGrad, at full scale also that of the thesis's
    tool."""
    names = options.methods or ((SMOOTHGRAD, SMOOTHGRAD_OF_TOOL) if options.scale == "full" else (SMOOTHGRAD,))
    return {name: method(name, sizes) for name in dict.fromkeys(names)}


def method(name: str, sizes: CurveSizes) -> SaliencyMethod:
    """A method by its name, of the sound form where that is not the name's.

    The thesis's tool divides SmoothGrad's noise by the range of the image, where the paper multiplies: on images that
    span [0, 1] both are the same.
    """
    from trainables.saliency.cam import GradCAM, InteractionCAM
    from trainables.saliency.gradients import SmoothGrad
    from trainables.saliency.occlusion import ConditionalOcclusion, PairwiseOcclusion
    from trainables.saliency.transforms import AveragedTransforms

    made: dict[str, Callable[[], SaliencyMethod]] = {
        SMOOTHGRAD: lambda: SmoothGrad(sizes.num_samples),
        SMOOTHGRAD_OF_TOOL: lambda: SmoothGrad(
            sizes.num_samples, noise_on="both", times_input=True, guided=True, blur_map=True
        ),
        AVERAGED_TRANSFORMS: AveragedTransforms,
        CONDITIONAL_OCCLUSION: lambda: ConditionalOcclusion(num_windows=sizes.num_windows),
        PAIRWISE_OCCLUSION: lambda: PairwiseOcclusion(sizes.num_erasures),
        GRAD_CAM: GradCAM,
        f"{INTERACTION_CAM}_mean": lambda: InteractionCAM("mean"),
        f"{INTERACTION_CAM}_max": lambda: InteractionCAM("max"),
        f"{INTERACTION_CAM}_attention": lambda: InteractionCAM("attention"),
    }
    return made[name]()


METHODS = (
    SMOOTHGRAD, SMOOTHGRAD_OF_TOOL, AVERAGED_TRANSFORMS, CONDITIONAL_OCCLUSION, PAIRWISE_OCCLUSION, GRAD_CAM,
    *(f"{INTERACTION_CAM}_{reduction}" for reduction in ("mean", "max", "attention")),
)  # fmt: skip


def curve_study(
    name: str, question: str, options: CurveStudyOptions, sweeps: Mapping[str, tuple[Sweep, Sequence[float]]]
) -> Study:
    """A study of curves: pretrainings of every data set, and every curve of each region and sweep.

    ``sweeps``: by label, what is done to the images and at which values.
    """
    sizes = sizes_of(options)
    trials: dict[str, Entry] = {}
    cards, fitted = {}, {}
    wanted = [(s, regions_of(s, options.regions)) for s in sources_of(options, sizes.pretraining.image_size_px)]
    check(wanted, options)
    for source, regions in wanted:
        cards[source.name] = card_of(source)
        fitted[source.name] = sizes.pretraining.fitted(source.name, cards[source.name].counts.get("train", 0))
        trained = pretrainings(source, fitted[source.name], options)
        for region in regions:
            for explains in methods_of(options, sizes.curve).items():
                for label, (sweep, values) in sweeps.items():
                    change = label, sweep, values
                    trials |= curves(source, region, change, explains, trained, sizes.curve, options)
    facts = facts_of(options, sizes.pretraining, fitted)
    if options.two_stage:
        facts["angles_of_rotations"] = "in two stages: a pilot chose the angles (artifacts/grid.json)"
    return Study(name, question, trials, report=CURVE_REPORT, facts=facts, cards=cards)


def sizes_of(options: EncoderStudyOptions, num_epochs: int | None = None) -> Sizes:
    """The sizes of the scale, with the epochs that were asked for, else the study's own, else those of the scale."""
    check_weights(**{"--pretrained": options.pretrained, "--released": options.released})
    sizes = SIZES[options.scale]
    wanted = options.num_epochs or num_epochs or sizes.pretraining.num_epochs
    return replace(sizes, pretraining=replace(sizes.pretraining, num_epochs=wanted))


def curves(
    source: Source,
    region: Region,
    sweep: tuple[str, Sweep, Sequence[float]],
    method: tuple[str, SaliencyMethod],
    trained: Sequence[MoCo],
    sizes: CurveSizes,
    options: CurveStudyOptions,
) -> dict[str, Entry]:
    """Every curve of one region and sweep by its name for people: trained and untrained encoders, one a seed, the
    released one where weights are given, and the controls without training."""
    from trainables.interpretability.curve import InterpretabilityCurve
    from trainables.models.sources import Released, Untrained
    from trainables.saliency.controls import FixedMap, ImageIntensity, MaskRoundTrip
    from trainables.sweeps import Rotation

    (sweep_name, change, values), (method_name, explains) = sweep, method
    values = tuple(map(float, values))
    images = images_of(region, change, values, sizes.num_images, options)
    labels = {"data": source.name, "region": region.name, "sweep": sweep_name}
    if method_name != SMOOTHGRAD:
        labels["method"] = method_name
    backbone = trained[0].backbone

    def curve(method: SaliencyMethod, encoder: EncoderSource | None = None) -> InterpretabilityCurve:
        return InterpretabilityCurve(region, encoder, method, change, values, images)

    made = {f"trained, seed {moco.pretrain_seed}": ("trained", curve(explains, moco)) for moco in trained}
    for seed in range(options.pretrain_seeds):
        untrained = Untrained(source.images, backbone, options.head, seed)
        made[f"untrained, seed {seed}"] = "untrained", curve(explains, untrained)
    if path := options.released or options.pretrained:
        made["released"] = "released", curve(explains, Released(str(path.resolve()), source.images, backbone))
    fixed_of = explains if explains.is_defined_at_neutral else None
    if fixed_of is not None:
        made["fixed map"] = "fixed map", curve(FixedMap(fixed_of), trained[0])
    made |= {"mask": ("mask", curve(MaskRoundTrip())), "intensity": ("intensity", curve(ImageIntensity()))}
    if options.two_stage and isinstance(change, Rotation):
        made = _in_two_stages(made)
    prefix = " · ".join(labels.values())
    return {f"{prefix} · {name}": Entry(trainable, role, labels) for name, (role, trainable) in made.items()}


def _in_two_stages(
    made: Mapping[str, tuple[str, InterpretabilityCurve]],
) -> dict[str, tuple[str, InterpretabilityCurve]]:
    """The curves of encoders on a grid that a pilot chooses; controls, which take no passes, on all of theirs.

    The grid has to serve the trained and the untrained: what is told is their difference.

    Raises:
        ValueError: the pilot costs more than it can save.
    """
    from trainables.interpretability.two_stage import CurvePilot, TwoStageCurve, most_saved, passes

    dear = {name: whole for name, (_, whole) in made.items() if whole.method.passes_per_map > 0}
    pilot = CurvePilot.of(dear["trained, seed 0"], dear["untrained, seed 0"])
    if most_saved(pilot, list(dear.values())) <= 0:
        raise ValueError(
            f"--two-stage: the pilot takes {sum(map(passes, pilot.measured)):.0f} passes, and of the curves' "
            f"{sum(map(passes, dear.values())):.0f} at {len(pilot.values)} angles it saves no more: leave it out"
        )
    staged = {name: TwoStageCurve.of(whole, pilot) for name, whole in dear.items()}
    return {name: (role, staged.get(name, whole)) for name, (role, whole) in made.items()}


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


def images_of(
    region: Region, sweep: Sweep, values: Sequence[float], num_wanted: int, options: StudyOptions
) -> ImageChoice:
    """As many as are wanted, or as the data set has with a region inside what all values keep.

    A small data set is decoded. In a large one, which its trials prepare, the records of the region have
    to do, whatever of it the values keep.
    """
    from trainables.data.cache import open_annotation
    from trainables.interpretability.selection import ImageChoice, num_with_region

    shown = [record.split for record in region.records()]
    # A data set too small to be parted has no validation images, or the region is in none of them.
    choice = ImageChoice(splits=tuple(set(shown).intersection(ImageChoice().splits)) or ImageChoice().splits)
    if not is_decoded_at_once(region.images):
        return replace(choice, num=max(1, min(num_wanted, sum(split in choice.splits for split in shown))))
    splits = [record.split for record in region.images.records()]
    masks = open_annotation(region, data_context(options))
    kept_HW = sweep.kept(region.images.image_size_px, values).numpy()
    there = num_with_region(choice, splits, masks, kept_HW)
    if not there:
        raise ValueError(
            f"{region.images.name}: {region.name} lies outside the pixels that all values of the "
            f"{type(sweep).__name__} sweep keep, in every image of {', '.join(choice.splits)}: "
            "choose another region, or move images with the region inside into validation"
        )
    return replace(choice, num=min(num_wanted, there))
