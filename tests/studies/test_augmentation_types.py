"""The study of augmentation types: what every arm is made of, what is searched, and both at scale smoke as run."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from orchestrator.store import Store
from studies import recipes, rotation_period
from studies.augmentation_types import (
    BEGINNING,
    SIZES,
    USE,
    AugmentationTypesOptions,
    arms,
    combined,
    make_study,
    sampler_of,
    space,
)
from studies.curve_recipes import CurveStudyOptions
from studies.rotation_period import make_study as make_rotation_study
from trainables.api.identity import FileDigests, Keys
from trainables.api.names import (
    EXACT_ANGLE,
    INTERPRETABILITY,
    NO_AUGMENTATION,
    OF_MAPS,
    OF_USE,
    ONE_AUGMENTATION,
    RELEASED,
    THESIS_AUGMENTATIONS,
    THESIS_CURVE,
    TWO_AUGMENTATIONS,
    UNTRAINED,
    UNTRAINED_CURVE,
)
from trainables.augment.combine import THESIS_AUGMENTATION, Combine
from trainables.augment.geometric import HorizontalFlip, RandomResizedCrop, Rotation, VerticalFlip
from trainables.augment.photometric import Brightness, ColourJitter, GaussianBlur
from trainables.data.folder import write_folder
from trainables.interpretability.curve import InterpretabilityCurve
from trainables.models.sources import Released, Untrained
from trainables.segmentation.networks import UNet
from trainables.segmentation.scores import SegmentationScores

STUDY = Path(__file__).parents[2] / "studies" / "augmentation_types.py"


def study_of(**options):
    return make_study(AugmentationTypesOptions(**{"scale": "laptop", "pretrain_seeds": 2} | options))


def encoder_of(trainable):
    return trainable.encoder if isinstance(trainable, InterpretabilityCurve) else trainable.model.network.encoder


# -- the factorial -------------------------------------------------------------------------------------------------


def test_each_arm_is_augmented_as_its_labels_say():
    found = {(arm.role, *arm.labels.values()): arm.augmentation for arm in arms(SIZES["laptop"], 96)}
    assert found == {
        (NO_AUGMENTATION,): Rotation(0.0, 0.0),
        (THESIS_AUGMENTATIONS,): THESIS_AUGMENTATION,
        (ONE_AUGMENTATION, "rotation", "up to 30°"): Rotation(30.0),
        (ONE_AUGMENTATION, "rotation", "up to 180°"): Rotation(180.0),
        (ONE_AUGMENTATION, "flips", "p = 0.5"): Combine((HorizontalFlip(0.5), VerticalFlip(0.5))),
        (ONE_AUGMENTATION, "crop", "at least 20 %"): RandomResizedCrop(min_area=0.2),
        (ONE_AUGMENTATION, "blur", "up to 2 % of the side"): GaussianBlur(0.0, 1.92),
        (ONE_AUGMENTATION, "brightness", "±40 %"): Brightness(0.4),
        (EXACT_ANGLE, "rotation", "by 30°"): Rotation(30.0, 30.0),
        (EXACT_ANGLE, "rotation", "by 60°"): Rotation(60.0, 60.0),
    }


def test_no_augmentation_leaves_an_image_as_it_is():
    images = torch.rand(3, 1, 17, 17)
    none = next(arm for arm in arms(SIZES["smoke"], 17) if arm.role == NO_AUGMENTATION).augmentation
    draws = torch.rand(3, none.num_draws, dtype=torch.float64)
    assert torch.equal(none.apply(images, draws), images)


def test_pairs_at_full_scale_are_of_the_strongest_ranges_of_two_types():
    found = [arm for arm in arms(SIZES["full"], 224) if arm.role == TWO_AUGMENTATIONS]
    strongest = {**{(a.labels["augmentation"]): a for a in arms(SIZES["full"], 224) if a.role == ONE_AUGMENTATION}}
    assert strongest["jitter"].augmentation == ColourJitter(0.8, 0.8, 0.8, 0.2)
    assert strongest["crop"].augmentation == RandomResizedCrop(min_area=0.08)
    assert len(found) == 15
    both = next(arm for arm in found if arm.labels["augmentation"] == "rotation" and arm.labels["second"] == "blur")
    assert both.augmentation == Combine((Rotation(180.0), GaussianBlur(0.0, 0.02 * 224)))
    assert both.labels["second_range"] == "up to 2 % of the side"
    angles = [arm.augmentation.max_deg for arm in arms(SIZES["full"], 224) if arm.role == EXACT_ANGLE]
    assert angles == [15.0, 30.0, 45.0, 60.0, 75.0, 90.0]


def test_all_encoders_are_measured_in_one_way():
    """Only the encoder and the seed differ: no measure sees the augmentation of the training."""
    measured, entries = {OF_USE: set(), OF_MAPS: set()}, study_of().entries
    some = encoder_of(next(iter(entries.values())).trainable)
    for entry in entries.values():
        if entry.role in (THESIS_CURVE, UNTRAINED_CURVE):
            continue
        measure, trainable = entry.labels["measure"], entry.trainable
        if measure == OF_USE:
            assert isinstance(trainable, SegmentationScores)
            assert trainable.model.network.is_frozen
            assert trainable.model.augmentation is None
            same = replace(trainable.model, network=UNet(), label_seed=0, finetune_seed=0)
        else:
            same = replace(trainable, encoder=some)
            assert not any(angle % 90 == 0 for angle in trainable.values)
        measured[measure].add(same)
    assert [len(measured[name]) for name in (OF_USE, OF_MAPS)] == [1, 1]


def test_each_role_has_the_encoders_that_it_says_and_their_seeds():
    found = {}
    for entry in study_of().entries.values():
        encoder = encoder_of(entry.trainable)
        key = entry.role, entry.labels.get("augmentation"), entry.labels.get("range"), entry.labels["measure"]
        found.setdefault(key, []).append(encoder)
        if entry.role in (UNTRAINED, UNTRAINED_CURVE):
            assert isinstance(encoder, Untrained)
            seed = encoder.init_seed
        else:
            seed = encoder.pretrain_seed
        if entry.labels["measure"] == OF_USE:
            model = entry.trainable.model
            assert (model.label_seed, model.finetune_seed) == (seed, seed)
    for key, encoders in found.items():
        assert len(encoders) == 2, key
        assert len({*encoders}) == 2, key
    mild = found[ONE_AUGMENTATION, "rotation", "up to 30°", OF_MAPS]
    assert mild == found[ONE_AUGMENTATION, "rotation", "up to 30°", OF_USE]
    assert {encoder.augmentation for encoder in mild} == {Rotation(30.0)}


def test_encoders_with_the_thesiss_augmentation_and_their_curve_are_the_rotation_studys():
    keys = Keys(FileDigests())
    rotation = make_rotation_study(CurveStudyOptions(scale="laptop", pretrain_seeds=2))
    for role, theirs in ((THESIS_CURVE, "trained"), (UNTRAINED_CURVE, "untrained")):
        expected = {keys.key(entry.trainable) for entry in rotation.entries.values() if entry.role == theirs}
        ours = [entry.trainable for entry in study_of(num_epochs=40).entries.values() if entry.role == role]
        assert {keys.key(trainable) for trainable in ours} == expected
    assert ours[0].values == tuple(map(float, rotation_period.ANGLES_DEG["laptop"]))


def test_pretrainings_have_epochs_of_their_own_which_the_report_says():
    study = study_of()
    mocos = {e for e in map(encoder_of, study.trainables.values()) if not isinstance(e, Untrained)}
    assert {moco.num_epochs for moco in mocos} == {10}
    assert study.facts["num_epochs"] == "10"
    assert "num_epochs" not in study_of(num_epochs=40).facts


def test_the_encoder_can_be_trained_along():
    study = study_of(fine_tune=True)
    scores = [e.trainable for e in study.entries.values() if isinstance(e.trainable, SegmentationScores)]
    assert not any(trainable.model.network.is_frozen for trainable in scores)
    assert study.facts["fine_tuned"] == "the encoder is trained along with the decoder"
    assert "fine_tuned" not in study_of().facts


def test_with_released_weights_their_encoder_is_a_control(tmp_path):
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "released.pth.tar")
    study = study_of(pretrained=tmp_path / "released.pth.tar")
    found = [entry for entry in study.entries.values() if entry.role == RELEASED]
    assert [entry.labels["measure"] for entry in found] == [OF_USE, OF_MAPS, OF_USE], "it has one map"
    assert all(isinstance(encoder_of(entry.trainable), Released) for entry in found)
    assert [e.trainable.model.finetune_seed for e in found if e.labels["measure"] == OF_USE] == [0, 1]
    assert not any(entry.role == RELEASED for entry in study_of().entries.values())


def test_a_search_explains_the_objectives_that_it_has():
    of_use = study_of(search=True, objectives=("dice",)).facts
    of_maps = study_of(search=True, objectives=("interpretability",)).facts
    assert of_use["val/dice"].startswith("the background included")
    assert "val/dice" not in of_maps


def test_a_region_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="--region liver: mni152 has"):
        study_of(region="liver")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampler": "gp"}, "--sampler: for a search; add --search"),
        ({"num_suggestions": 3}, "--num-suggestions: for a search"),
        ({"objectives": ("dice",)}, "--objectives: for a search"),
        ({"search": True, "objectives": ()}, "--objectives : name dice"),
        ({"search": True, "num_suggestions": 0}, "--num-suggestions 0: expected at least 1"),
        ({"released": Path("w.pth")}, "--released: this study compares encoders that it pretrains"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        AugmentationTypesOptions(**options)


# -- the search ----------------------------------------------------------------------------------------------------


def test_a_point_is_the_combination_that_its_strengths_say():
    assert combined(BEGINNING, 96) == Combine((Rotation(180.0), Combine((HorizontalFlip(0.5), VerticalFlip(0.5)))))
    nothing = dict.fromkeys(BEGINNING, 0.0) | {"least_crop": 1.0}
    assert combined(nothing, 96) == Rotation(0.0, 0.0)
    everything = nothing | {"least_crop": 0.4, "blur_of_side": 0.01, "jitter": 0.2}
    assert combined(everything, 100) == Combine(
        (RandomResizedCrop(min_area=0.4), GaussianBlur(0.0, 1.0), ColourJitter(0.2, 0.2, 0.2, 0.05))
    )


def test_objectives_are_measured_as_in_the_factorial_whatever_a_point_augments_with():
    study = study_of(search=True)
    made = study.search.make(BEGINNING, 10)
    assert list(made) == [USE, INTERPRETABILITY]
    factorial = [entry.trainable for entry in study_of().entries.values() if entry.role == NO_AUGMENTATION]
    scores, curve = factorial[0], factorial[1]
    for seed, (ours, maps) in enumerate(zip(made[USE], made[INTERPRETABILITY], strict=True)):
        moco = maps.encoder
        assert (moco.num_epochs, moco.pretrain_seed) == (10, seed)
        assert moco.augmentation == combined(BEGINNING, 96)
        assert replace(maps, encoder=curve.encoder) == curve
        network = replace(scores.model.network, encoder=moco)
        assert ours.model == replace(scores.model, network=network, label_seed=seed, finetune_seed=seed)


def test_points_that_differ_in_the_segmentation_alone_share_a_pretraining():
    search = study_of(search=True).search
    one, two = (search.make(BEGINNING | {"segmentation_learning_rate": rate}, 10) for rate in (0.001, 0.003))
    assert one[USE] != two[USE]
    assert one[INTERPRETABILITY] == two[INTERPRETABILITY]
    assert [encoder_of(t) for t in one[USE]] == [encoder_of(t) for t in two[USE]]


def test_lengths_are_members_of_one_family():
    search, keys = study_of(search=True).search, Keys(FileDigests())
    families = {keys.family(encoder_of(t)) for n in search.rungs.lengths for t in search.make(BEGINNING, n)[USE][:1]}
    assert search.rungs.lengths == (5, 10)
    assert len(families) == 1
    assert study_of(search=True, all_epochs=True).search.rungs is None
    assert study_of(search=True, num_epochs=5).search.rungs is None, "no length is below all of them"


@pytest.mark.parametrize("objectives", [("dice",), ("interpretability",), ("interpretability", "dice")])
def test_a_search_has_the_objectives_that_were_asked_for_and_no_idle_parameter(objectives):
    search = study_of(search=True, objectives=objectives).search
    names = {"dice": USE, "interpretability": INTERPRETABILITY}
    assert list(search.directions) == [names[name] for name in objectives]
    assert set(search.make(search.start[0], 10)) == set(search.directions)
    assert ("segmentation_learning_rate" in search.space) == ("dice" in objectives)
    assert search.start[0].keys() == search.space.keys() == space(objectives).keys()


def test_searches_that_decide_otherwise_have_other_names():
    """One would take up the decisions of the other."""
    options = [
        {},
        {"sampler": "gp"},
        {"objectives": ("dice",)},
        {"sampler": "nsga2", "objectives": ("interpretability",)},
    ]
    assert [study_of(search=True, **given).name for given in options] == [
        "augmentation_search",
        "augmentation_search_gp",
        "augmentation_search_dice",
        "augmentation_search_interpretability_nsga2",
    ]
    assert study_of(search=True, sampler="gp").facts["sampler"] == "gp"


def test_validation_masks_that_are_all_empty_are_named_before_anything_runs(tmp_path):
    write_folder(tmp_path / "own", 12)
    for mask in sorted((tmp_path / "own/masks").iterdir())[-2:]:
        Image.fromarray(np.zeros_like(np.asarray(Image.open(mask)))).save(mask)
    names = [path.name for path in sorted((tmp_path / "own/images").iterdir())]
    rows = [f"{name},{name},{'val' if place >= 10 else 'train'}" for place, name in enumerate(names)]
    (tmp_path / "own/labels.csv").write_text("\n".join(["image,group,split", *rows]))
    with pytest.raises(ValueError, match="mask is empty in all validation images"):
        study_of(datasets=(f"folder:{tmp_path / 'own'}",), cache_dir=tmp_path / "cache", scale="smoke")


@pytest.mark.parametrize(("name", "kind"), [("tpe", "TPESampler"), ("gp", "GPSampler"), ("nsga2", "NSGAIISampler")])
def test_samplers_are_optunas(name, kind):
    assert type(sampler_of(name, 8)(3)).__name__ == kind


@pytest.mark.parametrize(("num", "generation"), [(4, 2), (8, 2), (24, 6), (100, 10)])
def test_nsga2_has_several_generations(num, generation):
    assert sampler_of("nsga2", num)(0)._population_size == generation


def test_a_search_is_of_one_data_set():
    with pytest.raises(ValueError, match="a search is of one data set"):
        study_of(search=True, datasets=("mni152", "kvasir"))


# -- as its user runs it -------------------------------------------------------------------------------------------


def run(folder, *flags):
    places = ["--storage", str(folder / "results"), "--cache-dir", str(folder / "cache")]
    command = [sys.executable, str(STUDY), "--scale", "smoke", "--pretrain-seeds", "1", *places, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_study_ends_with_its_page(tmp_path):
    printed = run(tmp_path)
    page = tmp_path / "results/reports/augmentation_types/mni152-white_matter/report.html"
    assert str(page) in printed
    assert "Nothing: every seed is here." in page.read_text()
    table = pl.read_csv(page.parent / "tables/augmentations.csv")
    assert sorted(table["role"]) == sorted(
        [NO_AUGMENTATION, THESIS_AUGMENTATIONS, ONE_AUGMENTATION, EXACT_ANGLE, UNTRAINED]
    )
    store = Store(str(tmp_path / "results"))
    for entry in next(store.manifests())["trials"]:
        if (
            entry["named"]
            and entry["labels"]["measure"] == OF_MAPS
            and entry["role"] not in (THESIS_CURVE, UNTRAINED_CURVE)
        ):
            (row,) = table.filter(role=entry["role"]).to_dicts()
            assert row["interpretability"] == pytest.approx(store.result(entry["key"]).metrics[INTERPRETABILITY])


@pytest.mark.slow
def test_the_search_ends_with_its_front(tmp_path):
    printed = run(tmp_path, "--search", "--num-suggestions", "2")
    page = tmp_path / "results/reports/augmentation_search/report.html"
    assert str(page) in printed
    html = page.read_text()
    assert "Pareto front of val/dice and val/interpretability" in html
    assert "rotation up to 180° and flips, each with p = 0.5, of every image" in html
    table = pl.read_csv(page.parent / "tables/suggestions.csv")
    assert sorted(table["epochs"]) == [1, 2], "one of two goes on"
    assert recipes.default_dataset("smoke") in html
