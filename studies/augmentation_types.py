"""Which augmentation of a contrastive pretraining makes the most useful and the most interpretable encoder?

The thesis ends with the claim that there are optimal augmentations to train with, and varies them for the explained
images alone. This study varies them in the training: rotation of several ranges, flips, crops, blur, brightness and
jitter, each by itself (at scale full also pairs of them), and rotation by exactly one angle. How useful an encoder is
is the Dice of a decoder trained on it; how interpretable, the mean Dice of its maps with the region. Both are measured
in one way for all encoders: the segmentation sees no augmentation, and the maps are those of the same rotations.

    python studies/augmentation_types.py                            # packaged T1 slices
    python studies/augmentation_types.py --plan                     # what would run, and what it costs
    python studies/augmentation_types.py --scale full --data-root DATA --pretrained moco_v2_800ep_pretrain.pth.tar
    python studies/augmentation_types.py --search                   # combinations of all types, both objectives
    python studies/augmentation_types.py --search --objectives interpretability --sampler gp

One type after the other, then pairs: no full factorial. Encoders without augmentation are what all are held against,
untrained ones the control; with --pretrained also the released encoder that all start from. The search tries
combinations of all types together, each with a strength; pretrainings go on from rung to rung, and settings that differ
in the segmentation alone share them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.cli import main
from orchestrator.options import DefaultInHelp
from orchestrator.study import Entry, Rungs, Search, Study
from studies import curve_recipes, recipes, rotation_period
from studies.preparing import check
from studies.recipes import EncoderStudyOptions
from trainables.api.names import (
    EXACT_ANGLE,
    INTERPRETABILITY,
    NO_AUGMENTATION,
    OF_MAPS,
    OF_USE,
    ONE_AUGMENTATION,
    RELEASED,
    SMOOTHGRAD,
    THESIS_AUGMENTATIONS,
    THESIS_CURVE,
    TWO_AUGMENTATIONS,
    UNTRAINED,
    UNTRAINED_CURVE,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

    from trainables.augment.augmentation import Augmentation
    from trainables.data.annotations import Region
    from trainables.data.datasets import Source
    from trainables.interpretability.curve import InterpretabilityCurve
    from trainables.interpretability.selection import ImageChoice
    from trainables.models.sources import EncoderSource
    from trainables.segmentation.scores import SegmentationScores
    from trainables.segmentation.target import Target
    from trainables.ssl.moco import MoCo

QUESTION = (
    "Which augmentation of the pretraining makes the most useful and the most interpretable encoder, and is it the "
    "angle at which the thesis's curve is highest?"
)
SEARCH_QUESTION = "Which combination of augmentations makes the most useful and the most interpretable encoder?"
USE = "val/dice"
OBJECTIVES = {"dice": USE, "interpretability": INTERPRETABILITY}


@dataclass(frozen=True)
class AugmentationTypesOptions(EncoderStudyOptions):
    """Flags of the study."""

    region: DefaultInHelp[str | None] = None
    """Region that maps are compared with, and segmented where there are no classes (default: the data set's first)."""
    fine_tune: DefaultInHelp[bool] = False
    """Train the encoder along with the decoder (default: the decoder alone, so that only what the pretraining left is
    told apart)."""
    search: DefaultInHelp[bool] = False
    """Search combinations of all types, instead of one type after the other."""
    objectives: tuple[Literal["dice", "interpretability"], ...] = ("dice", "interpretability")
    """Of the search: one, or both, and then their Pareto front."""
    sampler: Literal["tpe", "gp", "nsga2"] = "tpe"
    """Of the search: Optuna's TPE, Gaussian process or NSGA-II."""
    num_suggestions: DefaultInHelp[int | None] = None
    """Of the search: how many combinations to try (default: the scale's)."""
    all_epochs: DefaultInHelp[bool] = False
    """Of the search: train every combination to the end, instead of the better ones only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {
            "--objectives": self.objectives != ("dice", "interpretability"),
            "--sampler": self.sampler != "tpe",
            "--num-suggestions": self.num_suggestions is not None,
            "--all-epochs": self.all_epochs,
        }
        if not self.search and (idle := [flag for flag, is_given in given.items() if is_given]):
            raise ValueError(f"{', '.join(idle)}: for a search; add --search")
        if not self.objectives or len(set(self.objectives)) != len(self.objectives):
            raise ValueError(
                f"--objectives {' '.join(self.objectives)}: name dice, interpretability or both, each once"
            )
        if self.num_suggestions is not None and self.num_suggestions < 1:
            raise ValueError(f"--num-suggestions {self.num_suggestions}: expected at least 1")
        if self.search and len(set(self.datasets)) > 1:
            raise ValueError(f"--datasets {' '.join(self.datasets)}: a search is of one data set")
        if self.released is not None:
            raise ValueError(
                "--released: this study compares encoders that it pretrains; --pretrained starts them from weights"
            )

    @property
    def search_name(self) -> str:
        """A search with other objectives, or by another sampler, decides by itself: it has a name of its own."""
        said = [
            *(self.objectives if len(self.objectives) == 1 else ()),
            *([self.sampler] if self.sampler != "tpe" else []),
        ]
        return "_".join(["augmentation_search", *said])


@dataclass(frozen=True)
class Sizes:
    """What depends on the scale. Pretrainings have the sizes of the rotation study, but for their epochs."""

    pretrain_epochs: int
    angles_deg: tuple[float, ...]
    """At which maps are measured. None is a multiple of 90 degrees, where nothing is interpolated and any map fits
    better."""
    ranges: Mapping[str, tuple[float, ...]]
    """Type -> its ranges: of the angle in degrees, of everything else as ``augmentation`` says."""
    exact_deg: tuple[float, ...]
    """Rotations by exactly one angle."""
    has_pairs: bool
    num_epochs: int
    """Of the segmentation."""
    batch_size: int
    lengths: tuple[int, ...]
    """Epochs of the pretraining at which the settings of a search are compared."""
    reduction: int
    num_suggestions: int


SIZES = {
    "smoke": Sizes(
        pretrain_epochs=2,
        angles_deg=(45.0, 135.0),
        ranges={"rotation": (180.0,)},
        exact_deg=(90.0,),
        has_pairs=False,
        num_epochs=1,
        batch_size=16,
        lengths=(1, 2),
        reduction=2,
        num_suggestions=3,
    ),
    # A quarter of the rotation study's epochs: 30 pretrainings on 2 cores.
    "laptop": Sizes(
        pretrain_epochs=10,
        angles_deg=tuple(range(15, 360, 30)),
        ranges={
            "rotation": (30.0, 180.0),
            "flips": (0.5,),
            "crop": (0.2,),
            "blur": (0.02,),
            "brightness": (0.4,),
        },
        exact_deg=(30.0, 60.0),
        has_pairs=False,
        num_epochs=3,
        batch_size=8,
        lengths=(5, 10),
        reduction=2,
        num_suggestions=8,
    ),
    # As many epochs as in the rotation study, which has trained those with the thesis's augmentation then.
    "full": Sizes(
        pretrain_epochs=100,
        angles_deg=tuple(angle + 7.5 for angle in range(0, 360, 15)),
        ranges={
            "rotation": (15.0, 45.0, 90.0, 180.0),
            "flips": (0.5,),
            "crop": (0.5, 0.2, 0.08),
            "blur": (0.005, 0.01, 0.02),
            "brightness": (0.2, 0.4, 0.8),
            "jitter": (0.2, 0.4, 0.8),
        },
        exact_deg=(15.0, 30.0, 45.0, 60.0, 75.0, 90.0),
        has_pairs=True,
        num_epochs=100,
        batch_size=64,
        lengths=(11, 33, 100),
        reduction=3,
        num_suggestions=50,
    ),
}


def augmentation(kind: str, strength: float, image_size_px: int) -> tuple[str, Augmentation]:
    """A type of augmentation of some range: what the range is called, and the augmentation.

    Rotation by any angle up to ``strength`` degrees either way. Flips, horizontal and vertical, each with that
    probability. Crops that keep at least that share of the area. Blur of up to that share of the image's side
    (SimCLR's 2 px of 224 are 0.009). Brightness, and for jitter brightness, contrast and, of colours, saturation and a
    quarter of it in hue, changed by up to that share.
    """
    from trainables.augment.combine import Combine
    from trainables.augment.geometric import HorizontalFlip, RandomResizedCrop, Rotation, VerticalFlip
    from trainables.augment.photometric import Brightness, ColourJitter, GaussianBlur

    made: dict[str, Callable[[], tuple[str, Augmentation]]] = {
        "rotation": lambda: (f"up to {strength:g}°", Rotation(strength)),
        "flips": lambda: (f"p = {strength:g}", Combine((HorizontalFlip(strength), VerticalFlip(strength)))),
        "crop": lambda: (f"at least {100 * strength:g} %", RandomResizedCrop(min_area=strength)),
        "blur": lambda: (f"up to {100 * strength:g} % of the side", GaussianBlur(0.0, strength * image_size_px)),
        "brightness": lambda: (f"±{100 * strength:g} %", Brightness(strength)),
        "jitter": lambda: (
            f"±{100 * strength:g} %",
            ColourJitter(strength, strength, strength, min(0.5, strength / 4)),
        ),
    }
    return made[kind]()


@dataclass(frozen=True)
class Arm:
    """One way to augment a pretraining, with its role and what tells it from others of that role."""

    role: str
    augmentation: Augmentation
    labels: Mapping[str, str] = field(default_factory=dict)


def arms(sizes: Sizes, image_size_px: int) -> Iterator[Arm]:
    """Every way that the study compares."""
    from trainables.augment.combine import THESIS_AUGMENTATION, Combine

    # Rotated by exactly 0 degrees: no view differs from its image.
    yield Arm(NO_AUGMENTATION, _exactly(0.0))
    yield Arm(THESIS_AUGMENTATIONS, THESIS_AUGMENTATION)
    for kind, ranges in sizes.ranges.items():
        for strength in ranges:
            name, made = augmentation(kind, strength, image_size_px)
            yield Arm(ONE_AUGMENTATION, made, {"augmentation": kind, "range": name})
    for angle_deg in sizes.exact_deg:
        yield Arm(EXACT_ANGLE, _exactly(angle_deg), {"augmentation": "rotation", "range": f"by {angle_deg:g}°"})
    for first, second in combinations(sizes.ranges, 2) if sizes.has_pairs else ():
        of_first = augmentation(first, sizes.ranges[first][-1], image_size_px)
        of_second = augmentation(second, sizes.ranges[second][-1], image_size_px)
        labels = {"augmentation": first, "range": of_first[0], "second": second, "second_range": of_second[0]}
        yield Arm(TWO_AUGMENTATIONS, Combine((of_first[1], of_second[1])), labels)


def _exactly(angle_deg: float) -> Augmentation:
    from trainables.augment.geometric import Rotation

    return Rotation(angle_deg, angle_deg)


@dataclass(frozen=True)
class Measures:
    """How encoders of one data set are measured, all in the same way."""

    target: Target
    region: Region
    sizes: Sizes
    curve: recipes.CurveSizes
    options: AugmentationTypesOptions

    def use(self, encoder: EncoderSource, seed: int, **changes: Any) -> SegmentationScores:
        """The Dice on validation images of a decoder that is trained on the encoder."""
        from trainables.segmentation.networks import TrunkUNet
        from trainables.segmentation.scores import SegmentationScores
        from trainables.segmentation.training import Segmentation

        network = TrunkUNet(encoder, is_frozen=not self.options.fine_tune)
        model = Segmentation(
            self.target,
            network,
            label_seed=seed,
            num_epochs=self.sizes.num_epochs,
            batch_size=self.sizes.batch_size,
            finetune_seed=seed,
        )
        return SegmentationScores(replace(model, **changes))

    def interpretability(self, encoder: EncoderSource) -> InterpretabilityCurve:
        """Maps over the study's angles."""
        return self._curve(encoder, self.sizes.angles_deg, self._images)

    def circle(self, encoder: EncoderSource) -> InterpretabilityCurve:
        """Maps over the angles of the rotation study: its curve."""
        return self._curve(encoder, rotation_period.ANGLES_DEG[self.options.scale], self._images_of_circle)

    def _curve(self, encoder: EncoderSource, angles_deg: Sequence[float], images: ImageChoice) -> InterpretabilityCurve:
        from trainables.interpretability.curve import InterpretabilityCurve
        from trainables.sweeps import Rotation

        method, values = curve_recipes.method(SMOOTHGRAD, self.curve), tuple(map(float, angles_deg))
        return InterpretabilityCurve(self.region, encoder, method, Rotation(), values, images)

    # Found once: it looks at every mask.
    @cached_property
    def _images(self) -> ImageChoice:
        return self._choice(self.sizes.angles_deg)

    @cached_property
    def _images_of_circle(self) -> ImageChoice:
        return self._choice(rotation_period.ANGLES_DEG[self.options.scale])

    def _choice(self, angles_deg: Sequence[float]) -> ImageChoice:
        from trainables.sweeps import Rotation

        return curve_recipes.images_of(self.region, Rotation(), angles_deg, self.curve.num_images, self.options)


def make_study(options: AugmentationTypesOptions) -> Study:
    """Every augmentation on every data set and seed, measured for use and interpretability; or the search."""
    sizes = SIZES[options.scale]
    encoder_sizes = recipes.sizes_of(options, sizes.pretrain_epochs)
    sources = list(recipes.sources_of(options, encoder_sizes.pretraining.image_size_px))
    wanted = []
    for source in sources:
        (region,) = recipes.regions_of(source, [options.region] if options.region else [], "--region")
        target = region if source.classes is None else source.classes
        recipes.check_is_validated(source, target)
        wanted.append((source, Measures(target, region, sizes, encoder_sizes.curve, options)))
    check([(source, tuple(dict.fromkeys((m.target, m.region)))) for source, m in wanted], options)
    for source, measures in wanted:
        recipes.check_shows_something(source, measures.target, options)
    cards = {source.name: recipes.card_of(source) for source in sources}
    fitted = {name: encoder_sizes.pretraining.fitted(name, card.counts.get("train", 0)) for name, card in cards.items()}
    trained = {source.name: recipes.pretrainings(source, fitted[source.name], options) for source in sources}
    facts = recipes.facts_of(options, encoder_sizes.pretraining, fitted)
    facts |= {"fine_tuned": "the encoder is trained along with the decoder"} if options.fine_tune else {}
    if options.search:
        ((source, measures),) = wanted
        search = _search(source, measures, trained[source.name], options)
        facts |= {"search_begins": "rotation up to 180° and flips, each with p = 0.5, of every image"}
        report = "analysis.search.report:search_report"
        facts |= {"sampler": options.sampler}
        if "dice" in options.objectives:
            facts |= {USE: "the background included; the factorial's use leaves it out"}
        return Study(options.search_name, SEARCH_QUESTION, search=search, report=report, facts=facts, cards=cards)
    trials: dict[str, Entry] = {}
    for source, measures in wanted:
        trials |= _factorial(source, measures, trained[source.name])
    return Study("augmentation_types", QUESTION, trials, report=REPORT, facts=facts, cards=cards)


REPORT = "analysis.augmentations.report:augmentation_report"


def _factorial(source: Source, measures: Measures, trained: Sequence[MoCo]) -> dict[str, Entry]:
    """Both measures of every arm and seed, and of encoders that are not trained here; curves over the circle of the
    thesis's augmentation and of untrained encoders."""
    from trainables.models.sources import Released, Untrained

    trials: dict[str, Entry] = {}

    def add(role: str, labels: Mapping[str, str], seed: int, **measured: Any) -> None:
        for measure, trainable in measured.items():
            given = {"data": source.name, "region": measures.region.name, **labels, "measure": measure}
            name = " · ".join([*given.values(), f"{role}, seed {seed}"])
            trials[name] = Entry(trainable, role, given)

    def both(role: str, labels: Mapping[str, str], seed: int, encoder: EncoderSource) -> None:
        segmentation, curve = measures.use(encoder, seed), measures.interpretability(encoder)
        add(role, labels, seed, **{OF_USE: segmentation, OF_MAPS: curve})

    for moco in trained:
        seed = moco.pretrain_seed
        for arm in arms(measures.sizes, source.images.image_size_px):
            both(arm.role, arm.labels, seed, replace(moco, augmentation=arm.augmentation))
        untrained = Untrained(source.images, moco.backbone, moco.head, seed)
        both(UNTRAINED, {}, seed, untrained)
        if moco.init is not None:
            released = Released(moco.init.path, source.images, moco.backbone)
            add(RELEASED, {}, seed, **{OF_USE: measures.use(released, seed)})
            if moco is trained[0]:  # it has one map, whatever the seed of a decoder
                add(RELEASED, {}, seed, **{OF_MAPS: measures.interpretability(released)})
        # The curves of the rotation study: at which angle does that of trained encoders lie highest above the other?
        add(THESIS_CURVE, {}, seed, **{OF_MAPS: measures.circle(moco)})
        add(UNTRAINED_CURVE, {}, seed, **{OF_MAPS: measures.circle(untrained)})
    return trials


def space(objectives: Sequence[str]) -> dict[str, BaseDistribution]:
    """What is searched: a strength of every type, in steps, so that settings meet; 0, or a crop of 1, is none of it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    strengths: dict[str, BaseDistribution] = {
        "rotation_deg": FloatDistribution(0.0, 180.0, step=15.0),
        "flip_probability": FloatDistribution(0.0, 0.5, step=0.25),
        "least_crop": FloatDistribution(0.2, 1.0, step=0.2),
        "blur_of_side": FloatDistribution(0.0, 0.02, step=0.005),
        "jitter": FloatDistribution(0.0, 0.8, step=0.2),
    }
    # Of the later trial alone: settings that differ in it share a pretraining.
    later = {"segmentation_learning_rate": CategoricalDistribution([0.0003, 0.001, 0.003])}
    return strengths | (later if "dice" in objectives else {})


BEGINNING = {
    "rotation_deg": 180.0, "flip_probability": 0.5, "least_crop": 1.0, "blur_of_side": 0.0, "jitter": 0.0,
    "segmentation_learning_rate": 0.001,
}  # fmt: skip
"""As near as the space comes to the thesis's augmentation, which takes one of rotation and flips for an image."""


def combined(params: Mapping[str, Any], image_size_px: int) -> Augmentation:
    """All types together, each with the strength of a point of the space; what has none is left out."""
    from trainables.augment.combine import Combine

    strengths = {
        "rotation": params["rotation_deg"],
        "flips": params["flip_probability"],
        "crop": params["least_crop"],
        "blur": params["blur_of_side"],
        "jitter": params["jitter"],
    }
    parts = [
        augmentation(kind, strength, image_size_px)[1]
        for kind, strength in strengths.items()
        if strength != (1.0 if kind == "crop" else 0.0)
    ]
    return Combine(tuple(parts)) if parts else _exactly(0.0)


def sampler_of(name: str, num_suggestions: int) -> Callable[[int], BaseSampler]:
    """One of Optuna's samplers, from a seed. Generations of NSGA-II are a quarter of the search, of 10 at most: its
    default of 50 would be the whole search, and no generation would learn from one before."""
    from optuna.samplers import GPSampler, NSGAIISampler, TPESampler

    population = min(10, max(2, num_suggestions // 4))
    made: dict[str, Callable[[int], BaseSampler]] = {
        "tpe": lambda seed: TPESampler(seed=seed, multivariate=True),
        "gp": lambda seed: GPSampler(seed=seed),
        "nsga2": lambda seed: NSGAIISampler(population_size=population, seed=seed),
    }
    return made[name]


def _search(source: Source, measures: Measures, trained: Sequence[MoCo], options: AugmentationTypesOptions) -> Search:
    sizes = measures.sizes
    whole = trained[0].num_epochs
    lengths = (*(length for length in sizes.lengths if length < whole), whole)

    def make(params: Mapping[str, Any], length: int = whole) -> dict[str, Sequence[Any]]:
        augmentation = combined(params, source.images.image_size_px)
        made = [replace(moco, augmentation=augmentation, num_epochs=length) for moco in trained]
        found: dict[str, Sequence[Any]] = {}
        if "dice" in options.objectives:
            rate = params["segmentation_learning_rate"]
            found[USE] = [measures.use(moco, moco.pretrain_seed, learning_rate=rate) for moco in made]
        if "interpretability" in options.objectives:
            found[INTERPRETABILITY] = [measures.interpretability(moco) for moco in made]
        return found

    searched, num_suggestions = space(options.objectives), options.num_suggestions or sizes.num_suggestions
    return Search(
        searched,
        make,
        {OBJECTIVES[name]: "maximize" for name in options.objectives},
        num_suggestions,
        start=[{name: value for name, value in BEGINNING.items() if name in searched}],
        sampler=sampler_of(options.sampler, num_suggestions),
        rungs=Rungs(lengths, sizes.reduction) if len(lengths) > 1 and not options.all_epochs else None,
    )


if __name__ == "__main__":
    main(AugmentationTypesOptions, make_study, __doc__)
