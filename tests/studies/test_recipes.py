"""What studies are made of: sizes that fit the data, and of what each role is made, for both studies of curves."""

import itertools
import re
from dataclasses import dataclass, fields, replace

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from orchestrator.graph import trials_of
from orchestrator.manifest import entries_of
from orchestrator.plan import make_plan
from orchestrator.store import Store
from orchestrator.study import Study
from studies import augmentation_sweeps, curve_recipes, recipes, rotation_period
from studies.augmentation_sweeps import VALUES, AugmentationSweepsOptions
from studies.curve_recipes import CurveStudyOptions, MapStudyOptions
from studies.hog_svm import HogSvmOptions
from studies.recipes import SIZES, CurveSizes, PretrainingSizes
from trainables.api.errors import BadData
from trainables.api.identity import FileDigests, Keys
from trainables.data.annotations import Region
from trainables.data.brats import BraTS, write_brats
from trainables.data.datasets import Source, lookup
from trainables.data.folder import write_folder
from trainables.data.folder_volumes import FolderVolumes, write_volumes
from trainables.data.kvasir import write_kvasir
from trainables.data.mni152 import MNI152, MNI152Tissue
from trainables.interpretability.two_stage import CurvePilot, TwoStageCurve
from trainables.models.released import ReleasedWeights
from trainables.models.sources import Released, Untrained
from trainables.saliency.cam import GradCAM, InteractionCAM
from trainables.saliency.controls import FixedMap, ImageIntensity, MaskRoundTrip
from trainables.saliency.gradients import SmoothGrad
from trainables.saliency.occlusion import ConditionalOcclusion, PairwiseOcclusion
from trainables.saliency.transforms import AveragedTransforms
from trainables.ssl.moco import MoCo
from trainables.sweeps import Brightness, CentreCrop, GaussianBlur, Rotation

WISHED = PretrainingSizes(64, "resnet18", 40, 32, 4, 64, 0.06, 0.99)
SWEEPS = {"rotation": Rotation(), "blur": GaussianBlur(), "crop": CentreCrop(), "brightness": Brightness()}
STUDIES = {
    "rotation": (rotation_period.make_study, CurveStudyOptions),
    "sweeps": (augmentation_sweeps.make_study, AugmentationSweepsOptions),
}


@pytest.fixture(params=STUDIES)
def made(request):
    """A function that makes one of the two studies at scale smoke from its flags."""
    make, options = STUDIES[request.param]
    return lambda **flags: make(options(**({"scale": "smoke"} | flags)))


def of(study, role):
    """The curves of a role."""
    return [entry.trainable for entry in study.entries.values() if entry.role == role]


def checkpoint(tmp_path):
    path = tmp_path / "released.pth.tar"
    torch.save({"state_dict": {"fc.weight": torch.zeros(1)}}, path)
    return path


# -- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_train", [*range(3, 12), 31, 32, 33, 64, 65, 96, 1000])
@pytest.mark.parametrize("wished", [WISHED, SIZES["smoke"].pretraining, SIZES["full"].pretraining])
def test_sizes_fit_what_a_data_set_has_and_use_as_much_of_it_as_they_can(wished, num_train):
    found = wished.fitted("data", num_train)
    assert 1 <= found.batch_norm_groups <= wished.batch_norm_groups
    assert found.batch_size % found.batch_norm_groups == 0
    assert found.batch_size >= 2 * found.batch_norm_groups, "batch normalisation tells two images apart"
    assert found.batch_size <= min(num_train - 1, wished.batch_size)
    assert found.queue_size % found.batch_size == 0
    assert found.batch_size <= found.queue_size <= wished.queue_size
    assert found.queue_size + found.batch_size > min(num_train - 1, wished.queue_size), "no longer queue would fit"
    assert found.learning_rate == pytest.approx(wished.learning_rate * found.batch_size / wished.batch_size)
    assert replace(
        found, batch_norm_groups=wished.batch_norm_groups, batch_size=wished.batch_size, queue_size=wished.queue_size,
        learning_rate=wished.learning_rate,
    ) == wished  # fmt: skip
    larger = found.batch_size + found.batch_norm_groups
    assert larger > min(num_train - 1, wished.batch_size), "no larger batch would fit"
    if num_train > wished.queue_size:
        assert found == wished
    moco = MoCo(
        MNI152(image_size_px=32), backbone=found.backbone, batch_size=found.batch_size, queue_size=found.queue_size,
        batch_norm_groups=found.batch_norm_groups,
    )  # fmt: skip
    moco.check_counts(num_train, 2)


@pytest.mark.parametrize("num_train", [0, 1, 2])
def test_fewer_than_three_images_cannot_be_trained_on(num_train):
    with pytest.raises(
        ValueError, match=rf"folder-x has {num_train} training image\(s\): a pretraining needs at least 3"
    ):
        WISHED.fitted("folder-x", num_train)


def test_ten_patients_of_brats_are_enough_at_full_scale(small_brats):
    study = rotation_period.make_study(small_brats(10))
    (card,) = study.cards.values()
    assert card.counts == {"train": 8, "val": 2}
    for curve in of(study, "trained"):
        assert (curve.encoder.batch_size, curve.encoder.queue_size) == (4, 4)
        assert curve.images.num == 8, "two of ten have no tumour in the slice that is used"
    assert study.facts["sizes_fitted_to_the_data"] == "brats: batches of 4, a queue of 4"
    for trial in trials_of(study, Keys(FileDigests())):
        trial.trainable.check()


def test_a_few_images_of_ones_own_are_enough(tmp_path, made):
    root = write_folder(tmp_path / "kvasir", num_images=6)
    study = made(datasets=(f"folder:{root}",))
    (curve, *_) = of(study, "trained")
    card = study.cards["folder-kvasir"]
    num_train, name = card.counts["train"], card.name
    assert name == "folder-kvasir", "as it is called on the command line"
    assert (num_train, curve.encoder.batch_size, curve.encoder.queue_size) == (4, 3, 3)
    curve.encoder.check()
    assert curve.images.num == 4
    assert study.facts["sizes_fitted_to_the_data"] == (
        "folder-kvasir: batches of 3, a queue of 3, a learning rate of 0.01125, 1 normalisation group(s)"
    )


def test_one_volume_has_no_validation_and_its_curves_go_over_the_training_images(tmp_path, made):
    root = write_volumes(tmp_path / "one", num_volumes=1)
    study = made(datasets=(f"folder:{root}",))
    assert study.cards["folder-one"].counts == {"train": len(FolderVolumes(root, 128).records())}
    assert {curve.images.splits for curve in of(study, "trained")} == {("train",)}
    for trial in trials_of(study, Keys(FileDigests())):
        trial.trainable.check()


def test_a_region_that_no_validation_volume_shows_has_its_curves_over_the_others(tmp_path, made):
    root = write_volumes(tmp_path / "own", num_volumes=5)
    healthy = {record.file for record in FolderVolumes(root, 128).records() if record.split == "val"}
    for file in healthy:
        path = root / file.replace("images", "masks")
        mask = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.zeros(mask.shape, np.uint8), mask.affine), path)
    study = made(datasets=(f"folder:{root}",))
    assert healthy
    assert {curve.images.splits for curve in of(study, "trained")} == {("train",)}
    for trial in trials_of(study, Keys(FileDigests())):
        trial.trainable.check()


def test_sizes_that_fit_are_no_word_worth(made):
    assert "sizes_fitted_to_the_data" not in made().facts


def test_epochs_that_are_not_the_scales_are_a_fact(made):
    assert made(num_epochs=7).facts["num_epochs"] == "7"
    assert "num_epochs" not in made().facts
    assert "num_epochs" not in made(num_epochs=SIZES["smoke"].pretraining.num_epochs).facts


# -- roles ------------------------------------------------------------------------------------------------------------


def test_every_role_is_made_of_what_it_says(made):
    study = made(pretrain_seeds=3)
    num_sweeps = len({entry.labels["sweep"] for entry in study.entries.values()})
    roles = [entry.role for entry in study.entries.values()]
    assert {role: roles.count(role) // num_sweeps for role in roles} == {
        "trained": 3, "untrained": 3, "fixed map": 1, "mask": 1, "intensity": 1,
    }  # fmt: skip
    for curve in of(study, "trained"):
        assert isinstance(curve.encoder, MoCo)
        assert isinstance(curve.method, SmoothGrad)
    assert {curve.encoder.pretrain_seed for curve in of(study, "trained")} == {0, 1, 2}
    for curve in of(study, "untrained"):
        assert isinstance(curve.encoder, Untrained)
        assert (curve.encoder.backbone, curve.encoder.head) == ("resnet18", "v2")
        assert curve.encoder.data == of(study, "trained")[0].encoder.data
    assert {curve.encoder.init_seed for curve in of(study, "untrained")} == {0, 1, 2}
    first = of(study, "trained")[0].encoder
    assert first.pretrain_seed == 0
    for curve in of(study, "fixed map"):
        assert curve.encoder == first, "the fixed map is that of the first trained encoder"
        assert curve.method == FixedMap(of(study, "trained")[0].method)
    assert {type(curve.method) for curve in of(study, "mask")} == {MaskRoundTrip}
    assert {type(curve.method) for curve in of(study, "intensity")} == {ImageIntensity}
    assert {curve.encoder for curve in of(study, "mask") + of(study, "intensity")} == {None}


def test_pretrainings_differ_in_their_seed_only(made):
    first, second = sorted({c.encoder for c in of(made(pretrain_seeds=2), "trained")}, key=lambda m: m.pretrain_seed)
    assert first != second
    assert replace(second, pretrain_seed=0) == first


def test_the_curves_of_a_set_are_measured_on_equal_images_and_values(made):
    study = made(pretrain_seeds=2)
    for _, group in itertools.groupby(study.entries.values(), key=lambda entry: entry.labels):
        curves = [entry.trainable for entry in group]
        assert len(curves) == 7
        for name in ("region", "sweep", "values", "images", "scoring", "explains"):
            assert len({getattr(curve, name) for curve in curves}) == 1, name


def test_released_weights_reach_the_pretraining_and_a_role_of_their_own(tmp_path, made):
    path = checkpoint(tmp_path)
    study = made(pretrained=path, pretrain_seeds=2)
    assert {curve.encoder.init for curve in of(study, "trained")} == {ReleasedWeights(str(path))}
    released = of(study, "released")
    assert {curve.encoder for curve in released} == {
        Released(str(path), of(study, "trained")[0].encoder.data, "resnet18")
    }
    assert {curve.method for curve in released} == {curve.method for curve in of(study, "trained")}
    assert study.facts["pretraining_start"] == "released weights (released.pth.tar)"
    without = made()
    assert of(without, "released") == []
    assert {curve.encoder.init for curve in of(without, "trained")} == {None}
    assert without.facts["pretraining_start"] == "random weights"


def test_a_released_encoder_may_be_another_than_the_one_that_training_starts_from(tmp_path, made):
    other = tmp_path / "resnet18.pth"
    torch.save({"fc.weight": torch.zeros(1)}, other)
    study = made(released=other)
    assert {curve.encoder.path for curve in of(study, "released")} == {str(other)}
    assert {curve.encoder.init for curve in of(study, "trained")} == {None}
    both = made(released=other, pretrained=checkpoint(tmp_path))
    assert {curve.encoder.path for curve in of(both, "released")} == {str(other)}


@pytest.mark.parametrize("flag", ["pretrained", "released"])
def test_weights_that_cannot_be_read_are_named_before_anything_runs(tmp_path, made, flag):
    path = tmp_path / "notes.txt"
    path.write_text("# Notes")
    with pytest.raises(ValueError, match=rf"--{flag} {re.escape(str(path))}: .*notes.txt"):
        made(**{flag: path})
    with pytest.raises(ValueError, match=rf"--{flag} .*nowhere.pth: no released weights at"):
        made(**{flag: tmp_path / "nowhere.pth"})
    with pytest.raises(ValueError, match=rf"--{flag} {re.escape(str(tmp_path))}: "):
        made(**{flag: tmp_path})


@pytest.mark.parametrize("head", ["v1", "v2"])
def test_the_head_reaches_trained_and_untrained_encoders(made, head):
    study = made(head=head)
    assert {curve.encoder.head for curve in of(study, "trained") + of(study, "untrained")} == {head}


def test_labels_say_data_region_and_sweep(made):
    study = made(regions=("white_matter", "grey_matter"))
    for name, entry in study.entries.items():
        assert entry.labels["data"] == "mni152"
        assert entry.labels["region"] == entry.trainable.region.name
        assert entry.trainable.sweep == SWEEPS[entry.labels["sweep"]]
        assert name.startswith(f"mni152 · {entry.labels['region']} · {entry.labels['sweep']} · ")
        assert "method" not in entry.labels
    assert {entry.labels["region"] for entry in study.entries.values()} == {"white_matter", "grey_matter"}
    card = study.cards["mni152"]
    assert (card.name, card.groups) == ("mni152", "slabs of one volume")
    assert card.counts == MNI152(image_size_px=32).card().counts


def test_of_what_is_read_the_images_are_data_sets_and_masks_and_weights_are_not(tmp_path, made):
    keys, store = Keys(FileDigests()), Store(str(tmp_path / "results"))
    study = made(pretrained=checkpoint(tmp_path))
    for entry in entries_of(make_plan(study, store, keys), keys):
        assert entry["images"] == ["MNI152"], entry["name"]
        if entry["role"] == "trained":
            assert set(entry["data"]) == {"MNI152", "MNI152Tissue", "ReleasedWeights"}


def test_two_regions_share_their_pretrainings(made):
    one, two = made(pretrain_seeds=2), made(pretrain_seeds=2, regions=("white_matter", "grey_matter"))
    keys = Keys(FileDigests())

    def pretrainings(study):
        return {trial.key for trial in trials_of(study, keys) if isinstance(trial.trainable, MoCo)}

    assert len(pretrainings(one)) == 2
    assert pretrainings(two) == pretrainings(one)


def test_the_sweeps_of_the_second_study_are_trained_once_and_for_the_first_too():
    keys, first, second = Keys(FileDigests()), *(make(options(scale="smoke")) for make, options in STUDIES.values())
    assert {keys.key(c.encoder) for c in of(second, "trained")} == {keys.key(c.encoder) for c in of(first, "trained")}
    assert {keys.key(trial) for trial in first.trainables.values()} <= {keys.key(t) for t in second.trainables.values()}


def test_the_sweeps_are_those_that_were_asked_for_with_their_values():
    study = augmentation_sweeps.make_study(AugmentationSweepsOptions(scale="smoke", sweeps=("blur", "crop")))
    found = {entry.labels["sweep"]: entry.trainable.values for entry in study.entries.values()}
    assert found == {name: tuple(map(float, VALUES["smoke"][name])) for name in ("blur", "crop")}
    everything = augmentation_sweeps.make_study(AugmentationSweepsOptions(scale="smoke"))
    assert {entry.labels["sweep"] for entry in everything.entries.values()} == set(SWEEPS)


@pytest.mark.parametrize("scale", VALUES)
@pytest.mark.parametrize("name", SWEEPS)
def test_the_values_of_every_scale_rise_and_hold_the_neutral_one(scale, name):
    values = [float(value) for value in VALUES[scale][name]]
    assert values == sorted(set(values))
    SWEEPS[name].check(values)
    assert sum(SWEEPS[name].is_neutral(value) for value in values) == (2 if name == "rotation" else 1)
    assert len(values) >= 4


def test_full_scale_has_both_forms_of_smoothgrad(small_brats):
    study = rotation_period.make_study(small_brats(5))
    methods = {entry.labels.get("method", ""): entry.trainable.method for entry in study.entries.values()
               if entry.role == "trained"}  # fmt: skip
    assert methods == {
        "": SmoothGrad(50),
        "smoothgrad_of_the_tool": SmoothGrad(50, noise_on="both", times_input=True, guided=True, blur_map=True),
    }
    keys = Keys(FileDigests())
    for role in ("mask", "intensity"):
        assert len({keys.key(curve) for curve in of(study, role)}) == 1, "no method, so one trial serves both"


# -- data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["mni152", "brats", "kvasir"])
def test_the_size_of_the_scale_reaches_the_images_of_every_role(small_brats, made, data):
    root = small_brats(5).data_root
    write_kvasir(root / "Kvasir-SEG", 8)
    study = made(datasets=(data,), data_root=root)
    for entry in study.entries.values():
        assert entry.trainable.region.images.image_size_px == SIZES["smoke"].pretraining.image_size_px
        if entry.role in ("trained", "fixed map"):
            assert entry.trainable.encoder.data is entry.trainable.region.images
    assert list(study.cards) == [data]


def test_several_data_sets_have_pretrainings_of_their_own(tmp_path, made):
    root = write_folder(tmp_path / "mine", num_images=8)
    study = made(datasets=("mni152", f"folder:{root}", "mni152"))
    assert list(study.cards) == ["mni152", "folder-mine"]
    for entry in study.entries.values():
        if entry.role == "trained":
            data = {"mni152": "MNI152", "folder-mine": "Folder"}[entry.labels["data"]]
            assert type(entry.trainable.encoder.data).__name__ == data


def test_two_folders_of_one_name_are_refused(tmp_path, made):
    roots = [write_folder(tmp_path / parent / "scans", num_images=8) for parent in "ab"]
    with pytest.raises(ValueError, match=r"a/scans folder:.*b/scans: both are called folder-scans; rename a folder"):
        made(datasets=tuple(f"folder:{root}" for root in roots))


def test_an_unknown_region_names_those_that_are_there(made):
    with pytest.raises(ValueError, match="--regions tumour: mni152 has white_matter, grey_matter"):
        made(regions=("white_matter", "tumour"))


def test_a_folder_without_masks_says_what_to_do(tmp_path, made):
    root = write_folder(tmp_path / "bare", num_images=8)
    for path in (root / "masks").iterdir():
        path.unlink()
    (root / "masks").rmdir()
    with pytest.raises(ValueError, match=r"folder-bare has images only.*put masks"):
        made(datasets=(f"folder:{root}",))
    with pytest.raises(ValueError, match="--regions mask: folder-bare has no masks"):
        made(datasets=(f"folder:{root}",), regions=("mask",))


def test_bad_files_are_left_out_where_that_is_asked_for_and_said(tmp_path, made, capsys):
    root = write_folder(tmp_path / "mine", num_images=10)
    (root / "images" / "picture 3.png").write_bytes(b"")
    (root / "masks" / "picture 5.png").write_text("no image")
    name, places = f"folder:{root}", {"cache_dir": tmp_path / "cache"}
    study = made(datasets=(name,), skip_bad_files=True, **places)
    said = capsys.readouterr().err
    assert "left out: image picture 3: " in said
    assert "left out: mask of picture 5: " in said
    assert said.count("left out") == 2
    for entry in study.entries.values():
        region: Region = entry.trainable.region
        assert region.images.excluded == ("picture 3",)
        assert region.excluded == ("picture 5",)
        assert "picture 3" not in {record.id for record in region.images.records()}
    assert sum(study.cards["folder-mine"].counts.values()) == 9
    with pytest.raises(BadData, match=r"images/picture 3\.png"):
        made(datasets=(name,), **places)


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_where_every_file_is_bad_each_is_named(tmp_path, made, kind):
    root = write_folder(tmp_path / "mine", num_images=6)
    for path in (root / kind).iterdir():
        path.write_text("no image")
    with pytest.raises(BadData) as caught:
        made(datasets=(f"folder:{root}",), skip_bad_files=True, cache_dir=tmp_path / "cache")
    assert len(caught.value.problems) == 6
    assert all("is no image" in problem for problem in caught.value.problems.values())


def test_a_region_outside_what_all_values_keep_is_said_before_anything_runs(tmp_path, made):
    root = write_folder(tmp_path / "mine", num_images=8)
    for path in (root / "masks").iterdir():
        mask = np.zeros_like(np.asarray(Image.open(path)))
        mask[:3, :3] = 1
        Image.fromarray(mask).save(path)
    for path in (root / "images").iterdir():  # square, so that a corner of the picture is one of the image
        Image.fromarray(np.asarray(Image.open(path))[:36, :36]).save(path)
        mask = root / "masks" / path.name
        Image.fromarray(np.asarray(Image.open(mask))[:36, :36]).save(mask)
    with pytest.raises(ValueError, match="folder: mask lies outside the pixels that all values of the Rotation sweep"):
        made(datasets=(f"folder:{root}",), cache_dir=tmp_path / "cache")


def test_default_data_is_the_thesiss_at_full_scale_and_packaged_otherwise():
    assert [recipes.default_dataset(scale) for scale in ("smoke", "laptop", "full")] == ["mni152", "mni152", "brats"]


# -- many curves ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part(MNI152Tissue):
    """A region of its own for each number."""

    number: int = 0

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"part {self.number}"


def test_eight_regions_three_methods_and_four_sweeps_need_one_pretraining_a_seed(tmp_path):
    images = MNI152(image_size_px=32)
    source = Source("mni152", images)
    methods = {"smoothgrad": SmoothGrad(2), "finer": SmoothGrad(3), "times_input": SmoothGrad(2, times_input=True)}
    options = CurveStudyOptions(scale="smoke", pretrain_seeds=2)
    trained = recipes.pretrainings(source, SIZES["smoke"].pretraining, options)
    trials = {}
    for number, method, name in itertools.product(range(8), methods.items(), SWEEPS):
        sweep, region = (name, SWEEPS[name], VALUES["smoke"][name]), Part(images, number=number)
        trials |= curve_recipes.curves(source, region, sweep, method, trained, CurveSizes(4, 2), options)
    study, keys = Study("many", "Many?", trials), Keys(FileDigests())
    plan = make_plan(study, Store(str(tmp_path / "results")), keys)
    kinds = [type(planned.trial.trainable).__name__ for planned in plan.planned]
    assert kinds.count("MoCo") == 2
    # two trained, two untrained and a fixed map for each method; mask and intensity have none
    assert kinds.count("InterpretabilityCurve") == 8 * 4 * (3 * 5 + 2)
    entries = [entry for entry in entries_of(plan, keys) if entry["named"]]
    assert len(entries) == len(trials) == 8 * 3 * 4 * 7
    assert len({entry["cell"] for entry in entries}) == 8 * 3 * 4 * 5, "a cell a role, whatever its seeds"


def test_brats_is_found_below_the_data_root(tmp_path):
    write_brats(tmp_path, 3, modalities=["flair"], volume_shape=(16, 16, 12))
    source = lookup("brats", 48, tmp_path)
    assert isinstance(source.images, BraTS)
    assert next(iter(source.regions)) == "tumour"


def test_controls_without_an_encoder_hold_no_gpu(made):
    study = made()
    roles = {entry.role: entry.trainable for entry in study.entries.values()}
    assert {role for role, trainable in roles.items() if not trainable.uses_gpu} == {"mask", "intensity"}
    assert roles["trained"].encoder.uses_gpu


@pytest.mark.parametrize(
    ("scale", "samples", "windows", "erasures"), [("smoke", 2, 4, 8), ("laptop", 5, 6, 20), ("full", 50, 21, 100)]
)
def test_methods_are_chosen_by_name_and_each_is_what_it_says(scale, samples, windows, erasures):
    made = curve_recipes.methods_of(CurveStudyOptions(scale=scale, methods=curve_recipes.METHODS), SIZES[scale].curve)
    assert list(made) == list(curve_recipes.METHODS)
    assert made == {
        "smoothgrad": SmoothGrad(samples),
        "smoothgrad_of_the_tool": SmoothGrad(samples, noise_on="both", times_input=True, guided=True, blur_map=True),
        "averaged_transforms": AveragedTransforms(9, "sweep"),
        "conditional_occlusion": ConditionalOcclusion(2 / 7, windows, "coverage"),
        "pairwise_occlusion": PairwiseOcclusion(erasures, credit="coverage"),
        "grad_cam": GradCAM("map"),
        "interaction_cam_mean": InteractionCAM("mean", scale_attention=True, interact_gradients=False),
        "interaction_cam_max": InteractionCAM("max", scale_attention=True, interact_gradients=False),
        "interaction_cam_attention": InteractionCAM("attention", scale_attention=True, interact_gradients=False),
    }


def test_methods_that_were_not_asked_for():
    assert list(curve_recipes.methods_of(CurveStudyOptions(scale="laptop"), SIZES["laptop"].curve)) == ["smoothgrad"]
    assert list(curve_recipes.methods_of(CurveStudyOptions(scale="full"), SIZES["full"].curve)) == [
        "smoothgrad", "smoothgrad_of_the_tool",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="--methods lime: choose some of smoothgrad, "):
        CurveStudyOptions(methods=("grad_cam", "lime"))


def test_a_method_without_a_map_of_the_unchanged_image_has_no_fixed_map():
    study = rotation_period.make_study(
        CurveStudyOptions(scale="smoke", pretrain_seeds=1, methods=("grad_cam", "pairwise_occlusion"))
    )
    roles = {
        method: {e.role for e in study.entries.values() if e.labels.get("method") == method}
        for method in ("grad_cam", "pairwise_occlusion")
    }
    assert roles["pairwise_occlusion"] - roles["grad_cam"] == {"fixed map"}
    assert {"trained", "untrained", "mask", "intensity"} <= roles["grad_cam"]


# -- curves in two stages ------------------------------------------------------------------------------------------


def test_in_two_stages_all_curves_of_a_rotation_share_one_pilot_and_others_none():
    whole = augmentation_sweeps.make_study(
        AugmentationSweepsOptions(scale="full", data_root=None, datasets=("mni152",))
    )
    staged = augmentation_sweeps.make_study(
        AugmentationSweepsOptions(scale="full", data_root=None, datasets=("mni152",), two_stage=True)
    )
    assert list(whole.entries) == list(staged.entries)
    pilots = {"smoothgrad": set(), "smoothgrad_of_the_tool": set()}
    for name, entry in staged.entries.items():
        without = whole.entries[name]
        assert (entry.role, entry.labels) == (without.role, without.labels)
        if entry.labels["sweep"] != "rotation" or entry.role in ("fixed map", "mask", "intensity"):
            assert entry == without, "a control takes no passes"
            continue
        assert isinstance(entry.trainable, TwoStageCurve)
        method = entry.labels.get("method", "smoothgrad")
        pilots[method].add(entry.trainable.pilot)
        assert entry.trainable == TwoStageCurve.of(without.trainable, entry.trainable.pilot)
    (pilot,), (of_tool,) = pilots.values()
    first = [next(c for c in of(whole, role) if c.method == SmoothGrad(50)) for role in ("trained", "untrained")]
    assert pilot == CurvePilot.of(*first), "one grid for what is told apart"
    assert of_tool != pilot
    assert "a pilot chose the angles" in staged.facts["angles_of_rotations"]
    assert "angles_of_rotations" not in whole.facts


def test_a_pilot_that_costs_more_than_it_saves_is_refused():
    with pytest.raises(ValueError, match=r"--two-stage: the pilot takes \d+ passes, .* at 25 angles .* leave it out"):
        rotation_period.make_study(CurveStudyOptions(scale="smoke", two_stage=True))
    study = rotation_period.make_study(CurveStudyOptions(scale="laptop", two_stage=True))
    assert any(isinstance(entry.trainable, TwoStageCurve) for entry in study.entries.values())


def test_a_study_offers_the_flags_that_it_understands():
    offered = {
        kind: {field.name for field in fields(kind)} & {"regions", "methods", "two_stage"}
        for kind in (CurveStudyOptions, AugmentationSweepsOptions, MapStudyOptions, HogSvmOptions)
    }
    everything = {"regions", "methods", "two_stage"}
    assert offered == {
        CurveStudyOptions: everything,
        AugmentationSweepsOptions: everything,
        MapStudyOptions: everything - {"two_stage"},  # a few angles
        HogSvmOptions: {"regions"},  # held against SmoothGrad's curves, on an even grid
    }
