"""What the thesis's figures of single images show, and what its claims are set against."""

import numpy as np
import pytest
import synthetic_augmentations as augmented
from charts import panels_of
from reported import small
from synthetic_curves import BLUR, ROTATION
from synthetic_hog import ANGLES, FabricatedHog
from synthetic_segmentation import CLASSES, FabricatedSegmentations
from synthetic_study import BRATS, FabricatedStudy, blur, labels, sample_maps, writer

from analysis.curves.samples import grey, heat, outlined
from analysis.exhibits import claims, samples
from analysis.exhibits.rotation import all_curves, curve_of
from analysis.exhibits.submissions import results_by_scale
from analysis.pages.evidence import judged
from analysis.results import load_study
from analysis.significance import Outcome
from trainables.api.names import (
    FROZEN,
    FULL_FIELD,
    IN_CIRCLE,
    MOCO_TRUNK,
    NO_AUGMENTATION,
    OF_MAPS,
    OF_USE,
    RANDOM_TRUNK,
    ROTATED,
    ROUND_TRIP,
    UNET,
)

CARDS = [BRATS | {"name": name} for name in ("brats", "kvasir", "mni152")]
TUMOUR, POLYP = labels("brats", "tumour"), labels("kvasir", "polyp")


def results_of(made):
    return load_study(made.store, made.manifest)


def rotations(folder, *sets, **changes):
    made = FabricatedStudy(folder, CARDS)
    for given in sets:
        made.curves(small(**changes), ROTATION, given)
    return made


# -- figures of single images --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Curves of two data sets of the thesis and of one more; their images differ."""
    made = FabricatedStudy(tmp_path_factory.mktemp("three"), CARDS)
    for place, given in enumerate((TUMOUR, POLYP, labels())):
        for (role, seed), part in small().partition_by("role", "seed", as_dict=True).items():
            shown = sample_maps(num_images=5, seed=10 * place + int(seed) + (5 if role == "untrained" else 0))
            shown["images_KHW"] = np.roll(shown["images_KHW"], 3 * place, axis=1)
            is_shown = role in ("trained", "untrained")
            made.curve(part, ROTATION, given, role, seed, samples=shown if is_shown else None)
    return made


def sample_of(place):
    """Of the first trained encoder."""
    shown = sample_maps(num_images=5, seed=10 * place)
    return shown | {"images_KHW": np.roll(shown["images_KHW"], 3 * place, axis=1)}


@pytest.mark.parametrize(("data", "place"), [("brats", 0), ("kvasir", 1)])
def test_a_sample_is_an_image_of_its_own_data_set_and_its_mask(three, data, place):
    (pictures,) = samples.image_of(data)(results_of(three))
    ((name, (image, mask)),) = pictures.rows
    assert name == "image 00"
    np.testing.assert_array_equal(image.pixels, grey(sample_of(place)["images_KHW"][0]))
    np.testing.assert_array_equal(mask.pixels, grey(sample_of(place)["masks_KHW"][0].astype(float)))
    assert pictures.name.startswith(f"sample-{data}-")
    assert samples.image_of("lung_mask")(results_of(three)) == []


def test_figure_5_2_has_four_images_of_each_data_set_with_their_maps_as_they_are(three):
    every = samples.several_maps(results_of(three))
    assert [p.name.split("-")[1] for p in every] == ["brats", "kvasir", "mni152"]
    for place, pictures in enumerate(every):
        shown = sample_of(place)
        assert [name for name, _ in pictures.rows] == [f"image {k:02d}" for k in range(4)]
        for k, (_, tiles) in enumerate(pictures.rows):
            assert [tile.title for tile in tiles] == ["image", "mask", "map"]
            expected = outlined(heat(shown["maps_KVHW"][k, 0]), shown["masks_KHW"][k])
            np.testing.assert_array_equal(tiles[2].pixels, expected)


def test_figures_5_3_to_5_5_turn_an_image_of_their_data_set(three):
    found = results_of(three)
    (pictures,) = samples.turned("kvasir")(found)
    ((_, tiles),) = pictures.rows
    assert [tile.title for tile in tiles[3:]] == [
        "view, rotation angle 95°", "map of the view", "that map, brought back",
    ]  # fmt: skip
    np.testing.assert_array_equal(tiles[4].pixels, heat(sample_of(1)["view_maps_KVHW"][0, 1]))
    assert samples.turned("lung_mask")(found) == []


def test_what_the_thesis_has_not_is_shown_apart(three):
    found = results_of(three)
    assert [p.name for p in samples.turned(None)(found)] == ["turned-mni152-white_matter-rotation"]
    assert [f.name for f in curve_of(None)(found)] == ["curve-mni152-white_matter-rotation"]
    assert [f.name for f in curve_of("brats")(found)] == ["curve-brats-tumour-rotation"]


def test_the_inscribed_circle_stands_beside_the_thesis_s_field(three):
    (figure,) = curve_of("brats")(results_of(three))
    assert [title for title, _ in panels_of(figure)][:2] == ["Full field of view", "Inscribed circle"]


def test_without_samples_nothing_is_shown(tmp_path):
    made = FabricatedStudy(tmp_path, CARDS)
    made.curves(small(), ROTATION, TUMOUR, samples=False)
    found = results_of(made)
    assert [make(found) for make in (samples.image_of("brats"), samples.several_maps, samples.turned("brats"))] == [
        [], [], [],
    ]  # fmt: skip


# -- claims --------------------------------------------------------------------------------------------------------


def said(tables):
    """(data, statistic) -> finding."""
    (table,) = tables
    return {(row["data"], row["statistic"]): row["finding"] for row in table.frame.iter_rows(named=True)}


@pytest.mark.parametrize(("moco", "word"), [(0.8, "higher"), (0.4, "lower")])
def test_claim_1_is_of_all_masks_against_the_unet_and_against_random_weights(tmp_path, moco, word):
    made = FabricatedSegmentations(tmp_path)
    made.arms({UNET: 0.6, MOCO_TRUNK: moco, RANDOM_TRUNK: 0.7})
    made.arms({UNET: 0.9, MOCO_TRUNK: 0.2, RANDOM_TRUNK: 0.1}, fraction=0.1)
    made.arms({MOCO_TRUNK + FROZEN: 0.5, RANDOM_TRUNK + FROZEN: 0.5}, seed=1)
    found = said(claims.effective(results_of(made)))
    assert list(found) == [
        ("brats · tumour_classes", "Dice against the UNet"),
        ("brats · tumour_classes", "Dice against the same network from random weights"),
    ]
    against_unet, against_random = found.values()
    assert f"With 100 % of the masks, the Dice without background of MoCo trunk is {word} than that of UNet" in (
        against_unet
    )
    assert f"MoCo trunk is {word} than that of random trunk" in against_random


def test_claims_that_rest_on_one_interval_a_curve_say_how_often_noise_does_the_same(tmp_path):
    results = results_of(rotations(tmp_path, TUMOUR))
    for claim in (claims.periodic, claims.extrema):
        (table,) = claim(results)
        assert "of curves of noise alone, 3 in 100 are said to have a wave" in table.note


def test_claims_of_which_nothing_is_measured_are_not_there(tmp_path):
    made = FabricatedSegmentations(tmp_path)
    made.scored(UNET, 0, np.full((4, len(CLASSES)), 0.5), is_done=False)
    made.scored(MOCO_TRUNK, 0, np.full((4, len(CLASSES)), 0.5), is_done=False)
    assert claims.effective(results_of(made)) == []
    nothing = results_of(FabricatedStudy(tmp_path / "none"))
    assert [claim(nothing) for claim in (claims.periodic, claims.extrema, claims.not_hog)] == [[], [], []]


def test_claim_2_says_what_the_report_says_and_tells_it_of_trained_encoders(tmp_path):
    made = rotations(tmp_path, TUMOUR, num_trained=3, num_images=12, noise=0.002)
    # Another sweep, in which nothing is learnt, shares the level of what is said.
    made.curves(blur(slopes=(-1.0, -1.1, -0.9)), BLUR, labels("brats", "tumour", "blur"))
    results = results_of(made)
    found = said(claims.periodic(results))
    wave, sizes, against = found.values()
    assert {data for data, _ in found} == {"brats · tumour · rotation"}
    assert "its smooth 90° wave has the amplitude 0.03" in wave
    assert sizes.startswith("The mean curve of the untrained encoders has a wave of 0.0"), "how large both are"
    sets = all_curves(results)
    assert len(sets) == 2
    (verdict,) = [v for place, v in judged(results, sets).items() if sets[place].sweep.is_rotation]
    assert verdict.outcome is Outcome.LEARNT
    assert against.startswith("Learnt: training changes the 90° wave")
    assert f"{verdict.p_adjusted:.3f}" in against or "p < 0.001" in against


def test_claim_2_is_not_confirmed_by_waves_that_untrained_encoders_have_too(tmp_path):
    made = rotations(tmp_path, TUMOUR, num_images=12, trained_amplitudes=(0.0205, 0.02, 0.0195), noise=0.002)
    _, _, against = said(claims.periodic(results_of(made))).values()
    assert "are not told apart" in against


@pytest.mark.parametrize(("peaks", "word"), [(("otsu",), "the curve jumps up"), ((), "the curve drops")])
def test_claim_3_tells_maxima_from_minima_and_names_the_controls(tmp_path, peaks, word):
    made = rotations(tmp_path, TUMOUR, num_trained=2, num_images=12, peaks=peaks, noise=0.002)
    (finding,) = said(claims.extrema(results_of(made))).values()
    assert word in finding
    assert "which have learnt nothing" in finding


def hill(at_deg):
    return 0.1 * np.exp(-(((ANGLES - at_deg + 180) % 360 - 180) ** 2) / 800)


@pytest.mark.parametrize(
    ("sign", "at_deg", "words"),
    [(1, 130, "at the same angles"), (-1, 130, "at opposite angles"), (1, 310, "coincide is not shown")],
)
def test_claim_4_has_a_line_a_region_and_field_and_tells_same_from_opposite_angles(tmp_path, sign, at_deg, words):
    made = FabricatedHog(tmp_path)
    for field in (FULL_FIELD, IN_CIRCLE):
        made.told(ROTATED, field, 0.8 + sign * hill(at_deg))
        made.told(ROUND_TRIP, field, np.full(len(ANGLES), 0.6))
    for seed in (0, 1):
        made.dice("trained", 0.5 + hill(130), seed)
        made.dice("untrained", np.full(len(ANGLES), 0.3), seed)
    (table,) = claims.not_hog(results_of(made))
    assert table.frame["data"].to_list() == ["brats"] * table.frame.height
    full, *rest = table.frame["finding"].to_list()
    assert full.startswith("Full")
    assert words in full
    assert len(rest) <= 1


@pytest.mark.parametrize(("own", "word"), [(0.40, "raises"), (0.20, "lowers")])
def test_the_conclusion_is_set_against_trainings_with_the_angle_of_the_maximum(tmp_path, own, word):
    levels = [(augmented.NONE, 0.5, 0.3), (augmented.STRONG, 0.7, 0.3)]
    levels += [(augmented.exact(angle), 0.5, own if angle == 60 else 0.3) for angle in (30, 60, 90)]
    curve = 0.4 + 0.05 * np.cos(np.deg2rad(augmented.CIRCLE - 60))
    table, figure = claims.optimal(results_of(augmented.made(tmp_path, levels, circle=curve)))
    found = {row["statistic"]: row["finding"] for row in table.frame.to_dicts()}
    assert "is higher with rotation up to 180°" in found["use, by what augments the training"]
    assert "not shown to change" in found["interpretability, by what augments the training"].split("lower")[0] or (
        "rotation by 60°" in found["interpretability, by what augments the training"]
    )
    assert "is not shown" in found["use, training with one angle"]
    said = found["interpretability, training with one angle"]
    assert f"at 60°, in all 3 seed(s); training with exactly that angle {word} the Dice of the encoder's maps" in said
    assert figure.name == "angles-brats-tumour"


def test_the_conclusion_needs_trainings_with_one_angle(tmp_path):
    levels = [(augmented.NONE, 0.5, 0.3), (augmented.STRONG, 0.7, 0.3)]
    assert claims.optimal(results_of(augmented.made(tmp_path, levels))) == []


# -- several submissions -------------------------------------------------------------------------------------------


def submitted(made, number, **facts):
    manifest = made.manifest | {"submitted_at": float(number)}
    manifest["facts"] = manifest["facts"] | facts
    made.store.write_document(f"studies/augmentation_types/{number}.json", manifest)


def other_setting(made, is_done):
    """The trials of the same arms with another setting, in place of those before; ``is_done``: of an entry."""
    entries = [dict(entry) for entry in made.trials]
    made.trials.clear()
    for entry in entries:
        given = {name: entry[name] for name in ("role", "seeds", "configuration")}
        key = made.add(f"other-{entry['key']}", given=entry["labels"], **given)
        made.trials[-1]["cell"] = f"other {entry['cell']}"
        if is_done(entry):
            name = "scores.parquet" if entry["labels"]["measure"] == OF_USE else "curve.parquet"
            folder = made.store.fetch(entry["key"], made.folder / "fetched" / entry["key"])
            made.publish(key, {name: writer((folder / name).read_bytes())})


@pytest.mark.parametrize(("done", "is_taken"), [((), False), ((OF_USE,), False), ((OF_USE, OF_MAPS), True)])
def test_all_ways_to_augment_are_of_one_submission(tmp_path, done, is_taken):
    """A newer one with another setting counts as a whole, once its encoders without augmentation have both measures."""
    made = augmented.made(tmp_path, [(augmented.NONE, 0.5, 0.3), (augmented.STRONG, 0.6, 0.4)])
    submitted(made, 1)
    other_setting(made, lambda entry: entry["role"] == NO_AUGMENTATION and entry["labels"]["measure"] in done)
    submitted(made, 2)
    (results,) = results_by_scale(made.store, "augmentation_types").values()
    keys = {entry["key"].startswith("other-") for entry in results.entries()}
    assert keys == {is_taken}


def test_encoders_that_are_trained_along_are_another_set(tmp_path):
    made = augmented.made(tmp_path, [(augmented.NONE, 0.5, 0.3)])
    submitted(made, 1)
    submitted(made, 2, fine_tuned="the encoder is trained along with the decoder")
    assert list(results_by_scale(made.store, "augmentation_types")) == ["laptop", "laptop, encoders trained along"]
