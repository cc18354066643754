"""What studies of maps are made of: ways to explain a pair, and curves with every control.

Loads nothing heavy itself; what computes is imported where it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from orchestrator.options import DefaultInHelp, StudyOptions
from orchestrator.study import Entry, Study
from studies import recipes
from studies.preparing import check, data_context, is_decoded_at_once
from studies.recipes import CurveSizes, EncoderStudyOptions
from trainables.api.names import (
    AVERAGED_TRANSFORMS,
    CONDITIONAL_OCCLUSION,
    GRAD_CAM,
    INTERACTION_CAM,
    PAIRWISE_OCCLUSION,
    SMOOTHGRAD,
    SMOOTHGRAD_OF_TOOL,
    TRAINED,
    UNTRAINED,
)  # fmt: skip

if TYPE_CHECKING:
    from trainables.data.annotations import Region
    from trainables.data.datasets import Source
    from trainables.interpretability.curve import InterpretabilityCurve
    from trainables.interpretability.selection import ImageChoice
    from trainables.models.sources import EncoderSource
    from trainables.saliency.base import SaliencyMethod
    from trainables.ssl.moco import MoCo
    from trainables.sweeps import Sweep

CURVE_REPORT = "analysis.pages.report:curve_report"


@dataclass(frozen=True)
class RegionStudyOptions(EncoderStudyOptions):
    """Flags of the studies that compare maps with regions."""

    regions: DefaultInHelp[tuple[str, ...]] = ()
    """Regions that maps are compared with, such as white_matter grey_matter (default: the first of each data set)."""


@dataclass(frozen=True)
class MapStudyOptions(RegionStudyOptions):
    """Flags of the studies that explain in several ways."""

    methods: DefaultInHelp[tuple[str, ...]] = ()
    """How pairs are explained: smoothgrad, smoothgrad_of_the_tool, averaged_transforms, conditional_occlusion,
    pairwise_occlusion, grad_cam, interaction_cam_mean, _max or _attention (default: smoothgrad, at full scale also the
    tool's; of saliency_methods all but the tool's)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise ValueError(f"--methods {' '.join(unknown)}: choose some of {', '.join(METHODS)}")


@dataclass(frozen=True)
class CurveStudyOptions(MapStudyOptions):
    """Flags of the studies that draw curves of interpretability."""

    two_stage: DefaultInHelp[bool] = False
    """Let a pilot of a few images choose the angles of a rotation, for an interval that is hardly wider: fewer passes,
    how many depends on how much images differ (default: all angles)."""


def methods_of(options: MapStudyOptions, sizes: CurveSizes) -> dict[str, SaliencyMethod]:
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
    from trainables.sweeps import Rotation

    sizes = recipes.sizes_of(options)
    trials: dict[str, Entry] = {}
    cards, fitted = {}, {}
    wanted = [
        (s, recipes.regions_of(s, options.regions))
        for s in recipes.sources_of(options, sizes.pretraining.image_size_px)
    ]
    check(wanted, options)
    for source, regions in wanted:
        cards[source.name] = recipes.card_of(source)
        fitted[source.name] = sizes.pretraining.fitted(source.name, cards[source.name].counts.get("train", 0))
        trained = recipes.pretrainings(source, fitted[source.name], options)
        for region in regions:
            for explains in methods_of(options, sizes.curve).items():
                for label, (sweep, values) in sweeps.items():
                    change = label, sweep, values
                    made = curves(source, region, change, explains, trained, sizes.curve, options)
                    trials |= _in_two_stages(made) if options.two_stage and isinstance(sweep, Rotation) else made
    facts = recipes.facts_of(options, sizes.pretraining, fitted)
    if options.two_stage:
        facts["angles_of_rotations"] = "in two stages: a pilot chose the angles (artifacts/grid.json)"
    return Study(name, question, trials, report=CURVE_REPORT, facts=facts, cards=cards)


def curves(
    source: Source,
    region: Region,
    sweep: tuple[str, Sweep, Sequence[float]],
    method: tuple[str, SaliencyMethod],
    trained: Sequence[MoCo],
    sizes: CurveSizes,
    options: RegionStudyOptions,
) -> dict[str, Entry]:
    """Every curve of one region and sweep by its name for people: trained and untrained encoders, one a seed, the
    released one where weights are given, and the controls without training."""
    from trainables.interpretability.curve import InterpretabilityCurve
    from trainables.models.sources import Released, Untrained
    from trainables.saliency.controls import FixedMap, ImageIntensity, MaskRoundTrip

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
    prefix = " · ".join(labels.values())
    return {f"{prefix} · {name}": Entry(trainable, role, labels) for name, (role, trainable) in made.items()}


def _in_two_stages(made: Mapping[str, Entry]) -> dict[str, Entry]:
    """The curves of encoders on a grid that a pilot chooses; controls, which take no passes, on all of theirs.

    The grid has to serve the trained and the untrained: what is told is their difference.

    Raises:
        ValueError: the pilot costs more than it can save.
    """
    from trainables.interpretability.two_stage import CurvePilot, TwoStageCurve, most_saved, passes

    whole = {name: cast("InterpretabilityCurve", entry.trainable) for name, entry in made.items()}
    dear = {name: curve for name, curve in whole.items() if curve.method.passes_per_map > 0}
    first = {role: next(whole[n] for n, entry in made.items() if entry.role == role) for role in (TRAINED, UNTRAINED)}
    pilot = CurvePilot.of(first[TRAINED], first[UNTRAINED])
    if most_saved(pilot, list(dear.values())) <= 0:
        raise ValueError(
            f"--two-stage: the pilot takes {sum(map(passes, pilot.measured)):.0f} passes, and of the curves' "
            f"{sum(map(passes, dear.values())):.0f} at {len(pilot.values)} angles it saves no more: leave it out"
        )
    staged = {name: replace(made[name], trainable=TwoStageCurve.of(curve, pilot)) for name, curve in dear.items()}
    return {**made, **staged}


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
