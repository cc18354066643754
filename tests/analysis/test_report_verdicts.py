"""What a report says of training, of the thesis and of noise, each both ways."""

import re

import numpy as np
import polars as pl
import pytest
from reported import ANGLES, answer_of, only, reported, section, small
from synthetic_curves import BLUR, ROTATION, frame, study
from synthetic_study import BRATS, MNI152, FabricatedStudy, blur, labels

from analysis.curves.sweep import SweepFacts
from analysis.pages import evidence
from analysis.significance import Comparison, holm, seed_test

# -- verdicts, both ways --------------------------------------------------------------------------------------------


WAVE = {"angles_deg": ANGLES, "num_images": 8, "noise": 0.002, "binarisations": ["otsu"]}


def test_encoders_alike_cannot_be_told_apart(plain, tmp_path):
    said, _ = answer_of(tmp_path, study(**WAVE, trained_amplitudes=(0.019, 0.02, 0.0212)))
    assert "are not told apart" in said
    assert "Learnt" not in said
    said, _ = answer_of(tmp_path / "blur", blur(8, (-3.0, -1.0, 1.0), (-2.5, -0.4, 0.9)), BLUR)
    assert "encoders are not told apart by the slope of Dice over the standard deviation of the blur" in said


def test_training_that_makes_the_wave_smaller_is_learnt_too(plain, tmp_path):
    said, html = answer_of(tmp_path, study(**WAVE, trained_amplitudes=(0.0, 0.0005, -0.0005)))
    assert "Learnt: training changes the 90° wave" in said
    assert "which cannot be told from none" in html
    assert "controls have at the same phase" not in html, "shares of nothing must not be quoted"


def test_a_slope_that_training_raises_has_its_sign(plain, tmp_path):
    said, html = answer_of(tmp_path, blur(8, (1.0, 1.1, 0.9), (-1.0, -1.1, -0.9)), BLUR)
    assert re.search(r"by \+(1\.9|2\.0)\d+ \(\d+\.?\d* % interval \+", said)
    assert "it rises." in html


def test_one_volume_is_no_people(plain, tmp_path):
    slabs = [f"slab {i // 2}" for i in range(8)]
    rows = study(**WAVE, trained_amplitudes=(0.039, 0.04, 0.041), groups=slabs)
    said, html = answer_of(tmp_path, rows, cards=[MNI152], data="mni152")
    assert "On these images training changes the 90° wave" in said
    assert "of others nothing is said: one volume has no interval for people" in said
    assert "8 images from 4 slab(s) of one volume" in section(html, "Caveats")
    assert "ICBM licence &lt;free &amp; open&gt;" in section(html, "Set-up")


def test_images_whose_patients_are_not_known_have_a_verdict_that_says_so(plain, tmp_path):
    rows = study(**WAVE, trained_amplitudes=(0.039, 0.04, 0.041))
    said, html = answer_of(tmp_path, rows, cards=[BRATS | {"name": "kvasir", "groups": "images"}], data="kvasir")
    assert "Learnt" in said
    assert "over blocks of images (images like these; patients are not known)." in said
    caveat = "8 images; which of them are of one patient is not known. Intervals speak of images like these."
    assert caveat in section(html, "Caveats")
    assert "patients or volumes" not in html


@pytest.mark.parametrize(
    ("kind", "groups", "said"),
    [("patients", "abcd", "from 4 patients. Intervals speak of patients like these, not of other data sets."),
     ("volumes", "abcd", "from 4 volumes. Intervals speak of volumes like these"),
     ("patients", "ab", "from 2 patients: fewer than 3 say nothing about others."),
     ("volumes", "a", "from 1 volume: fewer than 3")],
)  # fmt: skip
def test_a_caveat_says_what_the_groups_are(plain, tmp_path, kind, groups, said):
    names = [groups[i * len(groups) // 8] for i in range(8)]
    rows = study(**WAVE, trained_amplitudes=(0.039, 0.04, 0.041), groups=names)
    _, html = answer_of(tmp_path, rows, cards=[BRATS | {"groups": kind}])
    assert f"8 images {said}" in section(html, "Caveats")


def test_one_pretraining_is_said_of_this_encoder(plain, tmp_path):
    said, html = answer_of(tmp_path, study(**WAVE, trained_amplitudes=(0.04,)))
    assert "This encoder's 90° wave" in said.replace("&#x27;", "'")
    assert "One pretraining: what is said is said of this encoder. --pretrain-seeds varies it." in section(
        html, "Caveats"
    )


def test_the_family_of_holm_is_every_set_of_the_study(plain, tmp_path, monkeypatch):
    made = FabricatedStudy(tmp_path, [BRATS, MNI152])
    noisy = (-3.0, -2.0, -2.5)
    for given in (labels("brats", "tumour", "blur"), labels("brats", "core", "blur"), labels("mni152", sweep="blur")):
        made.curves(blur(6, noisy, seed=len(made.trials)), BLUR, given, samples=False)
    made.curves(small(), ROTATION, labels("brats", "tumour"), samples=False)
    seen, sizes = [], []

    def watched(family, size, num_intervals):
        seen.append(family)
        sizes.append((size, num_intervals))
        return original(family, size, num_intervals)

    monkeypatch.setattr(evidence, "verdicts", watched)
    pages = reported(made, tmp_path / "out")
    assert list(pages) == ["brats-tumour", "brats-core", "mni152-white_matter"]
    (family,) = seen
    assert len(family) == 4
    assert all(isinstance(comparison, Comparison) for comparison in family.values())
    tests = [seed_test(c.trained_SN.mean(axis=1), c.untrained_SN.mean(axis=1)) for c in family.values()]
    adjusted = holm([test.p for test in tests])
    assert sizes == [(4, 4)]
    assert adjusted[1] > tests[1].p
    assert f"p = {adjusted[1]:.3f} after Holm" in pages["brats-core"]
    assert [c.kind for c in family.values()] == ["patients", "patients", "slabs of one volume", "patients"]


def test_sets_that_are_planned_count_in_the_family_before_they_are_there(plain, tmp_path, monkeypatch):
    made = FabricatedStudy(tmp_path, [BRATS])
    made.curves(blur(6, (-3.0, -2.0, -2.5)), BLUR, labels("brats", "tumour", "blur"), samples=False)
    for number in range(2):
        for role in ("trained", "untrained"):
            made.add(f"{role}-later-{number}", role, labels("brats", "core"), {"seed": number})
    made.add("mask-later", "mask", labels("brats", "oedema"))
    for role in ("trained", "untrained"):
        made.add(f"one-{role}-later", role, labels("brats", "oedema"))
    sizes = []
    monkeypatch.setattr(
        evidence, "verdicts", lambda family, *size: sizes.append((len(family), *size)) or original(family)
    )
    reported(made, tmp_path / "out")
    assert sizes == [(1, 2, 3)], "a set of one seed has no test, and an interval"


original = evidence.verdicts


# -- published curves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "region", "published"),
    [("brats", "tumour", "BraTS"), ("kvasir", "polyp", "Kvasir-SEG"), ("lung_mask", "lungs", "Lung Mask Image"),
     ("mni152", "white_matter", None), ("folder-kvasir", "mask", None), ("brats", "core", None)],
)  # fmt: skip
def test_published_extrema_are_worn_by_the_thesiss_images_and_regions_only(plain, tmp_path, data, region, published):
    made = FabricatedStudy(tmp_path, [BRATS | {"name": data}])
    made.curves(small(1), ROTATION, labels(data, region), samples=False)
    html = only(reported(made, tmp_path / "out"))
    assert re.findall(r"extrema published for ([\w -]+) \(", html) == ([published] if published else [])
    assert html.count("Not comparable in level") == (published is None)
    assert (f"The {published} row is of this data set and region, but its level is not" in html) is (
        published is not None
    )


def test_no_published_extrema_on_a_blur(plain, tmp_path):
    _, html = answer_of(tmp_path, blur(4), BLUR)
    assert "published" not in html


# -- what noise would give ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("amplitude", "is_more"), [(0.05, True), (0.0, False)])
def test_a_range_is_told_from_that_of_noise_and_extrema_of_noise_stand_in_brackets(plain, tmp_path, amplitude, is_more):
    made = FabricatedStudy(tmp_path, [BRATS])
    angles = np.arange(0, 361, 10.0)
    rows = small(1, 8, trained_amplitudes=(amplitude,), angles_deg=angles, noise=0.01, peaks=())
    spike = pl.when(pl.col("value") % 90 == 0).then(-0.02).otherwise(0.0)
    rows = rows.with_columns(pl.col("dice") - spike)
    made.curves(rows, ROTATION, labels("brats", "tumour"), samples=False)
    html = only(reported(made, tmp_path / "out"))
    assert ("Noise between blocks of images gives less" in html) is is_more
    assert ("alone may give such a range" in html) is not is_more
    published = html.split("Published rotation curves beside ours")[1].split("<tbody>")[1].split("</tr>")[0]
    assert ("(" in published) is not is_more
    assert "In brackets stand extrema of the curve that are no more prominent, and those of a wave" in html


def test_nothing_is_said_of_noise_from_too_few_blocks(plain, tmp_path):
    made = FabricatedStudy(tmp_path, [BRATS])
    made.curves(small(1, 2), ROTATION, labels("brats", "tumour"), samples=False)
    html = only(reported(made, tmp_path / "out"))
    assert "too few independent blocks of images to say what of this range noise alone would give" in html
    assert "too few independent blocks of images to tell extrema from those of noise" in html


def test_a_sweep_with_another_period_is_shown_and_nothing_is_concluded(plain, tmp_path):
    hue = SweepFacts("Hue", "hue", "", 1.0, 0.0)
    made = FabricatedStudy(tmp_path, [BRATS])
    rows = small(2).with_columns(pl.col("value") / 360)
    made.curves(rows, hue, labels("brats", "tumour", "hue"), samples=False)
    html = only(reported(made, tmp_path / "out"))
    assert "no coefficient is known to conclude on over the hue, which has a period" in html
    assert "over 4 images and 2 seed(s) lies between" in html
    for word in ("90°", "ublished", "Learnt", "nscribed circle", "slope"):
        assert word not in section(html, "Hue")


def test_noise_is_that_of_the_field_itself_and_not_where_both_views_are_one_image(plain, tmp_path):
    """In one field a wave and little noise, in the other noise alone; wild scores at 0 and 360 change no sentence."""
    rng, angles = np.random.default_rng(0), np.arange(0, 361, 10.0)
    wave = 0.5 + 0.05 * np.cos(np.deg2rad(4 * angles))
    quiet, loud = (base + rng.normal(0, sd, (8, len(angles))) for base, sd in ((wave, 0.01), (0.5, 0.1)))

    def said(name, **fields):
        made = FabricatedStudy(tmp_path / name, [BRATS])
        rows = pl.concat(frame("trained", dice, angles, fields=(field,)) for field, dice in fields.items())
        made.curves(rows, ROTATION, labels("brats", "tumour"), samples=False)
        html = only(reported(made, tmp_path / name / "out"))
        return re.findall(r"Noise between blocks of images (gives less|alone may give) .*?within ([\d.]+)\)", html)

    found = said("as it is", full=quiet, kept=loud)
    assert [words for words, _ in found] == ["gives less", "alone may give"]
    assert [words for words, _ in said("swapped", full=loud, kept=quiet)] == ["alone may give", "gives less"]
    for dice in (quiet, loud):
        dice[:, [0, -1]] = rng.uniform(0, 1, (8, 2))
    assert said("wild ends", full=quiet, kept=loud) == found
