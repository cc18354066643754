"""Every sentence in each of its directions: what is said must follow from the numbers."""

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from synthetic_curves import BLUR, BRIGHTNESS, ROTATION, fit, frame, people, study

from analysis.blocks import Blocks
from analysis.bootstrap import Bootstrap
from analysis.curves.panels import panels
from analysis.curves.words import listed, percent, with_interval
from analysis.pages.findings import blocks_sentence, verdict_sentence
from analysis.rotation import statistics
from analysis.rotation.findings import WaveEvidence, binarisation_sentence, wave_sentences
from analysis.significance import Interval, Outcome, SeedTest, Verdict
from analysis.trends.findings import trend_sentences
from analysis.trends.statistics import trend_frame

TITLES = {"full": "Full field of view", "kept": "Inscribed circle"}
WAVE, SLOPE = "90° wave between the exact multiples of 90°", "slope of Dice over the standard deviation of the blur"


def verdict(outcome, difference=0.012 + 0.016j, radius=0.005, p=0.0123, why=(), seeds=(3, 4)):
    test = None if p is None else SeedTest(9.0, 4.0, p / 2)
    interval = None if radius is None else Interval(difference, radius)
    return Verdict(outcome, *seeds, difference, test, p, interval, None, why)


# -- verdicts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sweep", "what", "difference", "size"),
    [
        (ROTATION, WAVE, 0.012 + 0.016j, "0.0200 (95 % interval 0.0150 to 0.0250)"),
        (ROTATION, WAVE, -0.012 - 0.016j, "0.0200 (95 % interval 0.0150 to 0.0250)"),
        (BLUR, SLOPE, 0.02, "+0.0200 (95 % interval +0.0150 to +0.0250)"),
        (BLUR, SLOPE, -0.02, "−0.0200 (95 % interval −0.0250 to −0.0150)"),
    ],
)
def test_learnt_gives_what_changed_by_how_much_and_over_what(sweep, what, difference, size):
    of_what = " (its size, its phase or both)" if sweep is ROTATION else ""
    assert verdict_sentence(sweep, verdict(Outcome.LEARNT, difference)) == (
        f"Learnt: training changes the {what}{of_what}, by {size}. It holds over seeds (3 pretraining(s) "
        "against 4 untrained encoder(s), p = 0.012 after Holm) and over blocks of images."
    )


@pytest.mark.parametrize(("p", "text"), [(0.0004, "p < 0.001 after Holm"), (0.001, "p = 0.001"), (0.049, "p = 0.049")])
def test_a_small_p_is_not_called_0(p, text):
    assert text in verdict_sentence(BLUR, verdict(Outcome.LEARNT, 0.02, p=p))


def test_the_adjusted_p_is_said_not_the_raw_one():
    assert "0.006" not in verdict_sentence(BLUR, verdict(Outcome.LEARNT, 0.02, p=0.0123))


@pytest.mark.parametrize(
    ("sweep", "difference", "size"),
    [(ROTATION, 0.012 + 0.016j, "0.0200"), (BLUR, 0.02, "+0.0200"), (BLUR, -0.02, "−0.0200")],
)
def test_one_volume_speaks_of_these_images_only(sweep, difference, size):
    said = verdict_sentence(
        sweep, verdict(Outcome.NO_INTERVAL, difference, None, why=("one volume has no interval for people",))
    )
    assert said.startswith("On these images training changes the ")
    assert f", by {size} (3 pretraining(s) against 4 untrained encoder(s), p = 0.012 after Holm); of others " in said
    assert said.endswith("of others nothing is said: one volume has no interval for people.")
    assert "Learnt" not in said


@pytest.mark.parametrize(("sweep", "difference", "size"), [(ROTATION, 0.02j, "0.0200"), (BLUR, -0.02, "−0.0200")])
def test_one_pretraining_speaks_of_this_encoder(sweep, difference, size):
    why = ("one trained encoder: no test over seeds",)
    said = verdict_sentence(sweep, verdict(Outcome.THIS_ENCODER, difference, p=None, why=why, seeds=(1, 3)))
    assert said.startswith("This encoder's ")
    assert (
        f"is {size} away from that of the untrained ones; it says nothing about training: one trained encoder" in said
    )


@pytest.mark.parametrize(("sweep", "what", "difference"), [(ROTATION, WAVE, 0.02j), (BLUR, SLOPE, -0.02)])
def test_what_cannot_be_told_apart_is_the_coefficient_only(sweep, what, difference):
    why = ("the test over seeds finds no difference",)
    said = verdict_sentence(sweep, verdict(Outcome.NOT_TOLD_APART, difference, p=0.3, why=why))
    assert said == (
        f"Trained and untrained encoders are not told apart by the {what} (3 pretraining(s) against 4 untrained "
        "encoder(s), p = 0.300 after Holm: the test over seeds finds no difference). Only this coefficient is "
        "compared; levels and shapes may differ."
    )
    untested = verdict_sentence(sweep, verdict(Outcome.NOT_TOLD_APART, difference, p=None, why=why, seeds=(1, 4)))
    assert "(1 pretraining(s) against 4 untrained encoder(s): the test over seeds" in untested


def test_what_is_unknown_says_why():
    said = verdict_sentence(ROTATION, Verdict(Outcome.UNKNOWN, why=("no untrained encoder was measured",)))
    assert said == (
        f"Whether training changes the {WAVE} cannot be answered from what is there: no untrained encoder was measured."
    )


def blocks(**changes):
    known = {"length": 4, "num_blocks": 9, "correlation": 0.42, "kind": "slabs of one volume", "num_groups": 1}
    return Blocks((), **(known | changes))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "Intervals draw 9 blocks of up to 4 neighbouring image(s), as long as the correlation that is seen asks "
             "(r = 0.42); they speak of this volume only, not of other people."),
        ({"kind": "volumes"}, "they speak of this volume only, not of other people."),
        ({"kind": "patients"}, "they speak of the 1 patient that there are, not of others."),
        ({"kind": "patients", "num_groups": 2}, "they speak of the 2 patients that there are, not of others."),
        ({"kind": "images", "num_groups": 36}, "they speak of images like these; patients are not known."),
        ({"kind": "patients", "num_groups": 9}, "Intervals draw 9 blocks, whole patients of up to 4 image(s) "
             "(neighbouring images: r = 0.42); they speak of patients like these 9."),
        ({"kind": "volumes", "num_groups": 9}, "whole volumes of up to 4 image(s)"),
        ({"correlation": float("nan")}, "(no neighbours)"),
        ({"num_blocks": 2, "length": 8}, "Neighbouring images are alike (r = 0.42): 2 block(s) of 8 images are left, "
                                         "too few for intervals."),
        ({"num_blocks": 1, "length": 4, "correlation": -0.18},
         "Neighbouring images may be alike, which so few do not show (r = −0.18): 1 block(s) of 4 images are left"),
    ],
)  # fmt: skip
def test_blocks_sentence(given, said):
    text = blocks_sentence(Verdict(Outcome.UNKNOWN, blocks=blocks(**given)))
    assert said in text
    assert ("Intervals draw" in text) is (given.get("num_blocks") not in (1, 2))
    whole = given.get("kind") in ("patients", "volumes") and given.get("num_groups", 1) > 2
    assert ("as long as the correlation" not in text) is (whole or given.get("num_blocks") in (1, 2))
    assert ("this volume" in text) is (not whole and "num_blocks" not in given
                                       and given.get("kind") not in ("patients", "images"))  # fmt: skip


@pytest.mark.parametrize("outcome", [Outcome.LEARNT, Outcome.THIS_ENCODER])
def test_of_images_the_verdict_says_that_patients_are_not_known(outcome):
    for kind in ("images", "patients"):
        found = replace(verdict(outcome), blocks=blocks(kind=kind, num_groups=9))
        said = verdict_sentence(ROTATION, found)
        assert ("(images like these; patients are not known)" in said) is (kind == "images")


def test_without_blocks_nothing_is_said_of_them():
    assert blocks_sentence(Verdict(Outcome.UNKNOWN)) == ""


# -- waves -----------------------------------------------------------------------------------------------


def wave_evidence(own=(), against=()):
    """Evidence of hand-made numbers: (role, quantity, value, low, high) of curves and of what controls explain."""
    schema = ["role", "quantity", "value", "low", "high"]

    def tidy(rows):
        typed = pl.DataFrame(rows, schema=schema, orient="row", schema_overrides=dict.fromkeys(schema[2:], pl.Float64))
        return typed.with_columns(
            pl.lit("full").alias("field_of_view"), pl.lit("otsu").alias("binarisation"),
            pl.lit("interpolated").alias("fit"), pl.lit(8).alias("n"),
        )  # fmt: skip

    return WaveEvidence(tidy(own), tidy(against), pl.DataFrame(), "otsu")


def said_of_wave(own=(), against=()):
    return " ".join(wave_sentences(wave_evidence(own, against), "full"))


AMPLITUDE = ("trained", "amplitude", 0.02, 0.015, 0.025)


@pytest.mark.parametrize("low", [0.0, 0.001])
def test_what_is_left_is_said_of_these_encoders_and_is_no_verdict(low):
    said = said_of_wave([AMPLITUDE], [("untrained", "remainder", 0.01, low, 0.02),
                                      ("untrained", "remainder_debiased", 0.009, None, None)])  # fmt: skip
    assert (
        f"Of these encoders, |c trained − c untrained| over images is 0.0100 [{low:.4f}, 0.0200] (0.0090 without what "
        "noise adds); other seeds may give another." in said
    )
    assert "not 0" not in said


@pytest.mark.parametrize("untrained", [0.03, 0.01])
def test_the_sizes_of_the_two_waves_stand_side_by_side_without_a_verdict(untrained):
    phase = ("untrained", "phase_deg", 44.4, 40.0, 49.0)
    own = [AMPLITUDE, ("untrained", "amplitude", untrained, 0.005, 0.05), phase]
    assert (
        f"The mean curve of the untrained encoders has a wave of {untrained:.4f}, with its first maximum at "
        "44.4° [40.0, 49.0]; that of the trained ones has one of 0.0200." in said_of_wave(own)
    )
    for low in (0.0, None):  # what may be noise peaks nowhere
        said = said_of_wave([AMPLITUDE, ("untrained", "amplitude", untrained, low, low and 0.05), phase])
        assert f"a wave of {untrained:.4f}; that of the trained" in said
    assert not re.search("larger|smaller", said_of_wave(own))
    assert "mean curve of the untrained" not in said_of_wave([AMPLITUDE])


def test_a_spike_without_interval_is_neither_a_jump_nor_none():
    said = said_of_wave([AMPLITUDE, ("trained", "spike", -0.0076, None, None)])
    assert "the curve lies −0.0076 from the wave; there are too few independent blocks for an interval." in said
    assert "neither" not in said


def test_what_a_fixed_map_leaves_is_not_said_of_untrained_encoders():
    assert "Of these encoders" not in said_of_wave([AMPLITUDE], [("fixed map", "remainder", 0.01, 0.005, 0.02)])


def test_a_wave_is_told_from_none_by_its_interval_and_its_null():
    more = [("trained", "phase_deg", 12.34, 11.0, 13.0), ("trained", "share_fundamental", 0.8, 0.7, 0.9)]
    said = said_of_wave([AMPLITUDE, ("trained", "amplitude_null", 0.01, None, None), *more])
    assert "has the amplitude 0.0200 [0.0150, 0.0250] and makes up 80 % of the curve's variance there" in said
    assert "with its first maximum at 12.3° [11.0, 13.0]." in said
    below_null = said_of_wave([AMPLITUDE, ("trained", "amplitude_null", 0.021, None, None), *more])
    at_zero = said_of_wave([("trained", "amplitude", 0.02, 0.0, 0.03), *more])
    few = said_of_wave([("trained", "amplitude", 0.02, None, None), *more])
    for text in (below_null, at_zero):
        assert "which cannot be told from none" in text
        assert "maximum" not in text
    assert "too few independent blocks of images for an interval" in few
    assert "too coarse" in said_of_wave([("trained", "amplitude", None, None, None)])


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.01, 0.03, "the curve jumps up"), (-0.03, -0.01, "the curve drops"),
     (-0.01, 0.03, "the curve neither clearly jumps up nor drops")],
)  # fmt: skip
def test_the_spike_goes_up_or_down_and_so_do_controls(low, high, words):
    middle = (low + high) / 2
    trained = ("trained", "spike", middle, low, high)
    alike, other = ("fixed map", "spike", middle, low, high), ("mask", "spike", -middle, -high, -low)
    said = said_of_wave([AMPLITUDE, trained, alike, other])
    assert f"where rotation needs no interpolation, {words}: {with_interval(trained[2:], signed=True)}" in said
    expected = "; so it does for the round trip of a fixed map, a trained encoder's."
    assert (expected in said) is (low * high > 0)
    assert "mask itself" not in said
    assert "learnt nothing" not in said, "a fixed map is the map of a trained encoder"
    alone = said_of_wave([AMPLITUDE, trained, ("intensity", "spike", middle, low, high)])
    assert ("so it does for image intensity as the map, which have learnt nothing." in alone) is (low * high > 0)
    both = said_of_wave([AMPLITUDE, trained, alike, ("untrained", "spike", middle, low, high)])
    assert (
        "; so it does for untrained encoders, which have learnt nothing; so it does for the round trip of a fixed map, "
        "a trained encoder's." in both
    ) is (low * high > 0)


def test_shares_of_controls_are_named_in_words_and_without_interval_not_at_all():
    shares = [("untrained", "share_explained", 0.52, 0.4, 0.63), ("mask", "share_explained", -0.1, -0.2, 0.05),
              ("fixed map", "share_explained", 0.9, None, None)]  # fmt: skip
    said = said_of_wave([AMPLITUDE], shares)
    assert (
        "at the same phase: untrained encoders 52 % [40 %, 63 %]; the round trip of the mask itself −10 % [−20 %, "
        in said
    )
    assert "fixed map" not in said


def test_sentences_of_a_whole_study_follow_its_shape():
    found = fit(study(num_images=12, noise=0.004, trained_amplitudes=(0.04,), peaks=("otsu",)), Bootstrap(200))
    tables = statistics.coefficients(found), statistics.explained(found), statistics.extrema(found)
    evidence = WaveEvidence(*tables, "otsu")
    assert "the curve jumps up: +0.0" in " ".join(wave_sentences(evidence, "full"))
    assert binarisation_sentence(evidence, TITLES) == (
        "The exact multiples of 90° are a peak for otsu (full field of view) and otsu (inscribed circle); a dip for "
        "top_area (full field of view), soft (full field of view), top_area (inscribed circle) and soft (inscribed "
        "circle). Whether 90° looks best or worst is thus decided by how the map is made binary."
    )
    spikes = [("full", "otsu", 0.02), ("full", "soft", 0.01), ("kept", "otsu", -0.02)]
    for third in (-0.01, 0.01):
        rows = [("trained", "spike", v, v - 0.005, v + 0.005, f, b) for f, b, v in [*spikes, ("kept", "soft", third)]]
        schema = ["role", "quantity", "value", "low", "high", "field_of_view", "binarisation"]
        frames = pl.DataFrame(rows, schema=schema, orient="row"), pl.DataFrame(), pl.DataFrame()
        decided = binarisation_sentence(WaveEvidence(*frames, "otsu"), TITLES)
        assert "a peak for otsu (full field of view)" in decided
        assert ("decided by" in decided) is (third > 0), "rules are compared within one field of view"
    dips = fit(study(num_images=12, noise=0.004, peaks=()), Bootstrap(200))
    tables = statistics.coefficients(dips), statistics.explained(dips), statistics.extrema(dips)
    text = binarisation_sentence(WaveEvidence(*tables, "otsu"), TITLES)
    assert "a dip for otsu" in text
    assert "peak" not in text
    assert "decided by" not in text


# -- trends ----------------------------------------------------------------------------------------------


def said_of_trend(shape, values, sweep, num_images=8, noise=0.001, control=None):
    rng = np.random.default_rng(1)

    def dice(curve):
        return curve + rng.normal(0, 0.05, (num_images, 1)) + rng.normal(0, noise, (num_images, len(values)))

    values = np.asarray(values, dtype=float)
    parts = [frame("trained", dice(shape(values)), values)]
    if control is not None:
        parts.append(frame("untrained", dice(control(values)), values))
    trends = trend_frame(panels(pl.concat(parts)), sweep, people)
    return " ".join(trend_sentences(trends, sweep, "full", "otsu"))


FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5, 1.75, 2.0)


@pytest.mark.parametrize(
    ("slope", "words"), [(0.2, "+0.2000 [+0.2000, +0.2000]"), (-0.2, "−0.2000 [−0.2000, −0.2000]")]
)
def test_a_slope_rises_or_falls(slope, words):
    said = said_of_trend(lambda v: 0.5 + slope * v, FACTORS, BRIGHTNESS, noise=1e-6)
    assert f"Over the brightness factor its Dice changes by {words} per unit: it " in said
    assert ("it rises." in said) is (slope > 0)
    assert ("it falls." in said) is (slope < 0)
    assert "100 % of its variance over the axis is monotone, more than images that agree on nothing would show" in said


def test_a_slope_of_noise_cannot_be_told_from_none():
    said = said_of_trend(lambda v: 0.5 + 0 * v, FACTORS, BRIGHTNESS, noise=0.02)
    assert "a slope that cannot be told from none" in said
    assert "rises" not in said
    assert "falls" not in said
    assert "which images that agree on nothing may show as well" in said
    assert "more than images" not in said


def test_few_people_have_no_interval_of_a_slope():
    said = said_of_trend(lambda v: 0.5 + 0.1 * v, FACTORS, BRIGHTNESS, num_images=2)
    assert "there are too few independent blocks of images for an interval" in said
    assert "monotone" not in said, "two blocks show nothing of noise"
    assert "Going away" not in said, "without a band nothing is known of leaving it"


def test_a_side_of_a_single_value_has_no_start_to_leave():
    said = said_of_trend(lambda v: 0.5 + 0 * v, (0.5, 1.0, 1.5, 2.0), BRIGHTNESS)
    assert "image, above 1 it never surely leaves its level at the start." in said
    assert "below" not in said


@pytest.mark.parametrize(("num_images", "smooth"), [(2, True), (3, False), (3, True), (8, True)])
def test_a_monotone_part_is_rarely_said_of_noise(num_images, smooth):
    rng, draws, said = np.random.default_rng(5), 150, 0
    values = np.linspace(0.1, 1.0, 6)
    for _ in range(draws):
        noise = rng.normal(0, 0.02, (num_images, 6))
        dice = 0.5 + (np.cumsum(noise, axis=1) if smooth else noise)
        trends = trend_frame(panels(frame("trained", dice, values)), BLUR, few_draws)
        said += "more than images" in " ".join(trend_sentences(trends, BLUR, "full", "otsu"))
    assert said / draws < 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / draws)
    assert num_images > 2 or said == 0


@pytest.mark.parametrize("num_images", [3, 8])
def test_a_monotone_part_is_said_of_a_trend(num_images):
    said = said_of_trend(lambda v: 0.5 + 0.2 * v, FACTORS, BRIGHTNESS, num_images=num_images)
    assert "is monotone, more than images that agree on nothing would show" in said


def few_draws(panel):
    return people(panel, Bootstrap(500))


def test_leaving_the_start_is_said_of_each_side_with_its_value_and_unit():
    said = said_of_trend(lambda v: np.where(v < 0.5, 0.2, 0.5), FACTORS, BRIGHTNESS)
    assert said.endswith(
        "Going away from the unchanged image, below 1 it leaves its level at the start from 0.25 on; above 1 it never "
        "surely leaves its level at the start."
    )
    said = said_of_trend(lambda v: np.where(v > 0.03, 0.2, 0.5), (0, 0.01, 0.02, 0.04, 0.06), BLUR)
    assert "above 0 of the side it leaves its level at the start from 0.04 of the side on." in said
    assert "below" not in said


def test_what_controls_have_of_the_slope():
    said = said_of_trend(lambda v: 0.5 + 0.2 * v, FACTORS, BRIGHTNESS, control=lambda v: 0.4 + 0.1 * v)
    assert "Of the trained encoders' slope, the controls have: untrained encoders 50 % [" in said


def test_one_value_carries_no_trend():
    assert said_of_trend(lambda v: 0.5 + v, (1.0, 2.0), BRIGHTNESS) == ""


def test_words():
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert percent(0.126) == "13 %"
    assert with_interval((0.0102, 0.0034, 0.0171)) == "0.0102 [0.0034, 0.0171]"
    assert with_interval((-1.0, None, None), 1, "°", signed=True) == "−1.0°"
    assert with_interval((None, None, None)) == "undefined"


@pytest.mark.parametrize(
    ("low", "null", "is_told"), [(0.01, 0.015, True), (0.01, None, True), (0.01, 0.025, False), (0.0, 0.015, False)]
)
def test_where_the_untrained_wave_peaks_is_said_of_a_wave_and_not_of_noise(low, null, is_told):
    untrained = [("untrained", "amplitude", 0.02, low, 0.03), ("untrained", "phase_deg", 47.8, 41.2, 54.8)]
    said = said_of_wave([AMPLITUDE, *untrained, ("untrained", "amplitude_null", null, None, None)])
    assert "The mean curve of the untrained encoders has a wave of 0.0200" in said
    assert ("with its first maximum at 47.8°" in said) is is_told
