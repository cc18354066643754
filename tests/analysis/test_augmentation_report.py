"""The report of a study of augmentation types: what is measured, what is compared, what is said."""

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from charts import layers_of, panels_of
from scipy import stats
from synthetic_augmentations import (
    ANGLES,
    BLUR,
    BOTH,
    CIRCLE,
    MILD,
    NONE,
    RANDOM,
    STRONG,
    THESIS,
    FabricatedAugmentations,
    exact,
    made,
)
from synthetic_study import MNI152

from analysis.augmentations.effects import ALONE, BESIDE, BEST_ANGLE, INTERACTION, OF_RANGE, OF_TYPE
from analysis.augmentations.evidence import Measured, expected_front_size, judged, num_tests, region_sets
from analysis.augmentations.figures import angle_figure, effect_figure, pareto_figure
from analysis.augmentations.findings import answers, caveats
from analysis.augmentations.report import augmentation_report
from analysis.augmentations.tables import arm_table, effect_table
from analysis.exhibits.augmentations import use_and_maps
from analysis.results import load_study
from analysis.significance import Outcome
from trainables.api.names import OF_MAPS, OF_USE, RELEASED, THESIS_CURVE

PEAK_AT_60, PEAK_AT_30 = (0.4 + 0.05 * np.cos(np.deg2rad(CIRCLE - peak)) for peak in (60, 30))
ALL = [
    (NONE, 0.50, 0.30), (THESIS, 0.55, 0.33), (MILD, 0.52, 0.31), (STRONG, 0.60, 0.34), (BLUR, 0.50, 0.38),
    (exact(30), 0.51, 0.30), (exact(60), 0.51, 0.36), (exact(90), 0.53, 0.30), (BOTH, 0.70, 0.42),
    (RANDOM, 0.40, 0.25),
]  # fmt: skip


def found_of(study):
    (found,) = region_sets(load_study(study.store, study.manifest))
    return found


def verdicts_of(found):
    return {(effect, measure): verdict for (_, effect, measure), verdict in judged([found]).items()}


def said_of(study):
    found = found_of(study)
    return answers(found, verdicts_of(found))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Every role, with levels far apart."""
    return made(tmp_path_factory.mktemp("whole"), ALL, circle=PEAK_AT_60)


def rows_of(table, **where):
    return table.frame.filter(**where).to_dicts()


# -- what is measured ----------------------------------------------------------------------------------------------


def test_measures_of_an_arm_are_those_of_its_published_rows(tmp_path):
    study = FabricatedAugmentations(tmp_path)
    study.arm(STRONG, 0.6, 0.3, num_seeds=2, wave=0.1)
    (row,) = arm_table(found_of(study)).frame.to_dicts()
    use, maps, spread = [], [], []
    for entry in study.trials:
        folder = study.store.fetch(entry["key"], tmp_path / "fetched" / entry["key"])
        if entry["labels"]["measure"] == OF_USE:
            scores = pl.read_parquet(folder / "scores.parquet").filter(pl.col("class") != "background")
            use.append(scores["dice"].mean())
        else:
            rows = pl.read_parquet(folder / "curve.parquet").filter(field_of_view="full", binarisation="otsu")
            maps.append(rows["dice"].mean())
            spread.append(rows.group_by("value").agg(pl.col("dice").mean())["dice"].to_numpy().std())
    assert row["augmentation"] == "rotation up to 180°"
    for name, values in (("use", use), ("interpretability", maps), ("anisotropy", spread)):
        assert row[name] == pytest.approx(np.mean(values))
        assert row[f"{name} std"] == pytest.approx(np.std(values, ddof=1))
    assert row["anisotropy"] == pytest.approx(0.1 / np.sqrt(2), rel=0.35), "of a wave sampled at 12 angles"
    assert row["n"] == 2


def test_the_unchanged_image_counts_in_no_level(tmp_path):
    study = made(tmp_path, [(exact(30), 0.5, 0.3), (exact(60), 0.5, 0.3)], circle=PEAK_AT_60)
    curve = found_of(study).circle(THESIS_CURVE)
    assert 0.0 not in curve
    assert 360.0 not in curve
    assert curve[60.0] == pytest.approx(0.45)


def test_a_seed_without_one_measure_counts_in_the_other(tmp_path):
    study = made(tmp_path, [(NONE, 0.5, 0.3)])
    study.arm(STRONG, 0.6, 0.4, done=(OF_USE,))
    found = found_of(study)
    assert set(found.levels("rotation up to 180°", OF_USE)) == {0, 1, 2}
    assert found.levels("rotation up to 180°", OF_MAPS) == {}
    assert list(found.points()) == ["no augmentation"]
    said = " ".join(said_of(study))
    assert "What becomes of the Dice of the encoder's maps with rotation up to 180° (no result of" in said


# -- what is compared ----------------------------------------------------------------------------------------------


def test_every_effect_is_the_difference_that_it_says(whole):
    found = found_of(whole)
    levels = {arm.name: np.mean([*found.levels(arm.name, OF_USE).values()]) for arm in found.arms}
    table = effect_table(found, verdicts_of(found))

    def effect(title, kind):
        ((row,),) = [rows_of(table, effect=title, what=kind)]
        return row["use"]

    none, mild, strong, blur = (levels[n] for n in ("no augmentation", "rotation up to 30°", "rotation up to 180°",
                                                    "blur up to 2 %"))  # fmt: skip
    both = levels["rotation up to 180° and blur up to 2 %"]
    assert effect("rotation up to 180°", ALONE) == pytest.approx(strong - none)
    assert effect("untrained", ALONE) == pytest.approx(levels["untrained"] - none)
    assert effect("rotation", OF_TYPE) == pytest.approx((mild + strong) / 2 - none)
    assert effect("rotation", OF_RANGE) == pytest.approx(strong - mild)
    assert effect("blur up to 2 %", BESIDE) == pytest.approx(both - strong)
    assert effect("rotation up to 180°", BESIDE) == pytest.approx(both - blur)
    assert effect("rotation up to 180° and blur up to 2 %", INTERACTION) == pytest.approx(both - strong - blur + none)
    # At 90 degrees nothing is interpolated: it is neither the maximum nor what that is held against.
    assert effect("rotation by 60°", BEST_ANGLE) == pytest.approx(levels["rotation by 60°"] - levels["rotation by 30°"])
    assert "blur" not in table.frame.filter(what=OF_TYPE)["effect"].to_list(), "it has one range"


def test_intervals_are_students_over_the_pairs_of_seeds(whole):
    found = found_of(whole)
    ((row,),) = [rows_of(effect_table(found, verdicts_of(found)), effect="blur up to 2 %", what=ALONE)]
    ours, none = (found.levels(name, OF_MAPS) for name in ("blur up to 2 %", "no augmentation"))
    expected = stats.ttest_rel([ours[s] for s in range(3)], [none[s] for s in range(3)]).confidence_interval(0.95)
    assert (row["interpretability low"], row["interpretability high"]) == pytest.approx((expected.low, expected.high))
    assert row["interpretability n"] == 3


def test_what_was_not_trained_here_is_no_pair(whole):
    found = found_of(whole)
    ((row,),) = [rows_of(effect_table(found, verdicts_of(found)), effect="untrained", what=ALONE)]
    ours, none = ([*found.levels(name, OF_USE).values()] for name in ("untrained", "no augmentation"))
    expected = stats.ttest_ind(ours, none, equal_var=False).confidence_interval(0.95)
    assert (row["use low"], row["use high"]) == pytest.approx((expected.low, expected.high))


def test_pairs_of_seeds_are_those_of_the_same_number(tmp_path):
    study = made(tmp_path, [(NONE, 0.5, 0.3)])
    study.arm(STRONG, 0.6, 0.4, num_seeds=2)
    found = found_of(study)
    (effect,) = found.effects()
    none = found.levels("no augmentation", OF_USE)
    ours = found.levels("rotation up to 180°", OF_USE)
    first, second = found.sides(effect, lambda name: found.levels(name, OF_USE))
    assert (first, second) == (pytest.approx([ours[0], ours[1]]), pytest.approx([none[0], none[1]]))


def test_a_comparison_is_of_the_seeds_that_both_sides_have(tmp_path):
    """The levels that are printed are those that were compared."""
    study = FabricatedAugmentations(tmp_path)
    study.arm(exact(60), 0.5, 0.40, seeds=(0, 1, 2))
    study.arm(exact(30), 0.5, 0.30, seeds=(0, 1, 2))
    study.arm(exact(30), 0.5, 0.60, seeds=(5, 6, 7), seed=1)
    study.circle(*[PEAK_AT_60] * 3)
    found = found_of(study)
    (effect,) = found.effects()
    comparison = found.comparison(effect, OF_MAPS)
    ours, other = (found.levels(name, OF_MAPS) for name in ("rotation by 60°", "rotation by 30°"))
    assert comparison.trained_SN.mean(axis=1) == pytest.approx([ours[seed] for seed in (0, 1, 2)])
    assert comparison.untrained_SN.mean(axis=1) == pytest.approx([other[seed] for seed in (0, 1, 2)])
    (sentence,) = [text for text in said_of(study) if "encoder's maps" in text and "raises" in text]
    assert (
        f"({np.mean([ours[s] for s in range(3)]):.3f} against {np.mean([other[s] for s in range(3)]):.3f}" in sentence
    )


def test_seeds_are_found_by_their_number_and_not_by_their_place(tmp_path):
    study = FabricatedAugmentations(tmp_path)
    study.arm(NONE, 0.2, 0.3, seeds=(0,))
    study.arm(NONE, 0.5, 0.3, seeds=(1, 2), seed=1)
    study.arm(STRONG, 0.6, 0.4, seeds=(1, 2, 5))
    found = found_of(study)
    comparison = found.comparison(found.effects()[0], OF_USE)
    assert comparison.untrained_SN.mean(axis=1) == pytest.approx([0.5, 0.5], abs=0.05)
    assert found.front_seeds == [1, 2]
    assert found.points()["no augmentation"][0] == pytest.approx(0.5, abs=0.05)


def test_images_of_a_patient_are_one_block(tmp_path):
    study = made(tmp_path, [(NONE, 0.5, 0.3), (STRONG, 0.6, 0.4)], images_a_group=4)
    verdict = next(iter(verdicts_of(found_of(study)).values()))
    assert verdict.blocks.num_groups == 3
    assert verdict.interval.radius > 0


def test_two_regions_of_one_data_set_stay_apart(tmp_path):
    study = made(tmp_path, [(NONE, 0.5, 0.3), (STRONG, 0.6, 0.4)])
    study.region = "core"
    study.arm(NONE, 0.1, 0.05, seed=2)
    found = region_sets(load_study(study.store, study.manifest))
    assert [each.title for each in found] == ["brats · tumour", "brats · core"]
    assert [arm.name for arm in found[1].arms] == ["no augmentation"]


def test_the_front_is_of_means_and_leaves_the_untrained_out(tmp_path):
    levels = [(NONE, 0.5, 0.3), (STRONG, 0.6, 0.2), (BLUR, 0.55, 0.25), (MILD, 0.5, 0.1), (RANDOM, 0.9, 0.9)]
    found = found_of(made(tmp_path, levels, spread=0.001, noise=0.001))
    assert sorted(found.front()) == ["blur up to 2 %", "no augmentation", "rotation up to 180°"]
    table = arm_table(found)
    assert dict(table.frame.select("augmentation", "front").rows()) == {
        "no augmentation": "yes", "rotation up to 180°": "yes", "blur up to 2 %": "yes", "rotation up to 30°": "no",
        "untrained": None,
    }  # fmt: skip
    assert table.frame["augmentation"][0] == "untrained", "the most useful first"
    assert rows_of(table, augmentation="blur up to 2 %")[0]["front seeds"] == "3 of 3"
    assert rows_of(table, augmentation="rotation up to 30°")[0]["front seeds"] == "0 of 3"


def test_the_size_of_a_front_of_luck_is_what_luck_makes():
    rng = np.random.default_rng(0)
    sizes = []
    for _ in range(4000):
        points = rng.normal(size=(12, 2))
        sizes.append(sum(not any((other > point).all() for other in points) for point in points))
    assert np.mean(sizes) == pytest.approx(expected_front_size(12), rel=0.03)


# -- what is said --------------------------------------------------------------------------------------------------


def test_what_raises_and_what_lowers_is_said_in_both_directions(tmp_path):
    said = said_of(made(tmp_path, [(NONE, 0.5, 0.3), (STRONG, 0.7, 0.1), (BLUR, 0.3, 0.5), (MILD, 0.5, 0.3)]))
    use, maps = said[:2]
    assert "the Dice of a decoder on the encoder is higher with rotation up to 180° (+0." in use
    assert ", and is lower with blur up to 2 % (−0." in use
    assert "No difference is shown for rotation up to 30°." in use
    assert "over seeds and over patients like these" in use
    assert "the Dice of the encoder's maps is higher with blur up to 2 % (+0." in maps
    assert ", and is lower with rotation up to 180° (−0." in maps


def test_of_augmentations_that_are_alike_nothing_is_said_to_change(tmp_path):
    said = said_of(made(tmp_path, [(NONE, 0.5, 0.3), (STRONG, 0.5, 0.3), (BLUR, 0.5, 0.3)]))
    for sentence in said[:2]:
        assert "is not shown to change with rotation up to 180° and blur up to 2 %" in sentence
        assert "higher" not in sentence
        assert "lower" not in sentence


def test_one_seed_says_nothing_of_others(tmp_path):
    said = said_of(made(tmp_path, [(NONE, 0.5, 0.3), (STRONG, 0.7, 0.1)], num_seeds=1))
    assert "what becomes of the Dice of a decoder on the encoder with rotation up to 180° is not told" in said[0]
    assert not any(word in " ".join(said) for word in ("higher", "lower", "raises", "lowers", "Pareto", "interaction"))


def test_one_seed_and_pairs_without_a_result_have_no_test_of_an_interaction(tmp_path):
    levels = [(NONE, 0.5, 0.3), (STRONG, 0.6, 0.3), (BLUR, 0.55, 0.3)]
    one = " ".join(said_of(made(tmp_path / "one", [*levels, (BOTH, 0.9, 0.3)], num_seeds=1)))
    study = made(tmp_path / "none", levels)
    study.arm(BOTH, 0.9, 0.3, done=())
    for said in (one, " ".join(said_of(study))):
        assert "1 of 1 pairs have no test of an interaction in the Dice of a decoder on the encoder." in said
        assert "No interaction" not in said


def test_of_one_volume_nothing_is_said_of_others(tmp_path):
    said = said_of(made(tmp_path, [(NONE, 0.5, 0.3), (STRONG, 0.7, 0.3)], card=MNI152))
    assert "is higher with rotation up to 180°" in said[0]
    assert "over seeds, on these images; of others nothing is said: one volume has no interval for people" in said[0]


@pytest.mark.parametrize(("level", "word"), [(0.45, "higher"), (0.2, "lower")])
def test_untrained_encoders_are_set_against_those_without_augmentation(tmp_path, level, word):
    said = said_of(made(tmp_path, [(NONE, 0.5, 0.3), (STRONG, 0.5, 0.3), (RANDOM, 0.5, level)]))
    assert f"It is {word} for untrained encoders than for those without augmentation" in said[1]
    assert "That it differs for untrained encoders from those without augmentation is not shown." in said[0]


def test_the_released_encoder_is_a_control_where_all_start_from_it(tmp_path):
    study = made(tmp_path, [(NONE, 0.5, 0.3), (STRONG, 0.5, 0.3), ((RELEASED, {}), 0.2, 0.3)])
    assert "It is lower for the released encoder that all of them start from than for" in said_of(study)[0]
    assert "released" not in found_of(study).points()


@pytest.mark.parametrize(("own", "words"), [(0.40, "raises"), (0.20, "lowers"), (0.30, "is not shown")])
def test_the_angle_of_the_maximum_is_said_to_matter_where_it_does(tmp_path, own, words):
    levels = [(NONE, 0.5, 0.3), (exact(30), 0.5, 0.3), (exact(60), 0.5, own), (exact(90), 0.5, 0.9)]
    study = made(tmp_path, levels, circle=PEAK_AT_60)
    (sentence,) = [text for text in said_of(study) if "untrained ones at 60°, in all 3 seed" in text and "maps" in text]
    assert words in sentence
    numbers = re.search(r"\((0\.\d+) against (0\.\d+) with other exact angles", sentence)
    assert [float(n) for n in numbers.groups()] == pytest.approx([own, 0.3], abs=0.02)


def test_which_angle_is_best_is_read_from_the_curve_and_not_from_the_trainings(tmp_path):
    levels = [(NONE, 0.5, 0.3), (exact(30), 0.9, 0.9), (exact(60), 0.5, 0.3), (exact(90), 0.5, 0.3)]
    assert found_of(made(tmp_path, levels, circle=PEAK_AT_60)).best_angle_deg == 60.0


def test_what_untrained_encoders_have_too_is_no_maximum(tmp_path):
    """Both curves are highest at 30 degrees; the distance is largest at 60."""
    study = FabricatedAugmentations(tmp_path)
    for angle in (30, 60):
        study.arm(exact(angle), 0.5, 0.3)
    common = 0.3 * np.exp(-(((CIRCLE - 30) / 15) ** 2))
    study.circle(*[PEAK_AT_60 + common] * 3, untrained=0.2 + common)
    found = found_of(study)
    assert max((30.0, 60.0), key=found.circle(THESIS_CURVE).get) == 30.0
    assert found.best_angle_deg == 60.0


def test_a_spike_where_nothing_is_interpolated_is_no_maximum(tmp_path):
    study = FabricatedAugmentations(tmp_path)
    for angle in (30, 60, 90):
        study.arm(exact(angle), 0.5, 0.3)
    study.circle(*[PEAK_AT_60 + 0.4 * (CIRCLE % 90 == 0)] * 3)
    assert found_of(study).best_angle_deg == 60.0


def test_seeds_that_do_not_agree_have_no_maximum(tmp_path):
    study = FabricatedAugmentations(tmp_path)
    for angle in (30, 60):
        study.arm(exact(angle), 0.5, 0.3 if angle == 30 else 0.6)
    study.circle(PEAK_AT_60, PEAK_AT_60, PEAK_AT_30)
    found, said = found_of(study), said_of(study)
    assert (found.best_angles_deg, found.best_angle_deg) == ([60.0, 60.0, 30.0], None)
    assert not any(effect.kind == BEST_ANGLE for effect in found.effects())
    assert [
        text
        for text in said
        if "There is no angle of the maximum to train with" in text
        and "(30° in 1 of 3 seeds and 60° in 2 of 3 seeds)" in text
    ]
    assert "raises" not in " ".join(said)


def test_without_another_exact_angle_or_a_curve_the_question_stays_open(tmp_path):
    levels = [(NONE, 0.5, 0.3), (exact(60), 0.5, 0.3), (exact(90), 0.5, 0.3)]
    one = said_of(made(tmp_path / "one", levels, circle=PEAK_AT_60))
    assert len([text for text in one if "so none can be the better one" in text]) == 1
    none = said_of(made(tmp_path / "none", [(NONE, 0.5, 0.3), (exact(30), 0.5, 0.3), (exact(60), 0.5, 0.3)]))
    assert len([text for text in none if "cannot be told yet" in text]) == 1


def test_the_angle_needs_no_pretraining_without_augmentation(tmp_path):
    study = made(tmp_path, [(exact(30), 0.5, 0.3), (exact(60), 0.5, 0.5)], circle=PEAK_AT_60)
    said = " ".join(said_of(study))
    assert "cannot be told: no pretraining without augmentation is in the study" in said
    assert "training with exactly that angle raises the Dice of the encoder's maps" in said


def test_the_caveats_name_what_can_be_shown_at_all(whole):
    found = found_of(whole)
    verdicts = verdicts_of(found)
    planned = num_tests([found])
    (said,) = [text for text in caveats(found, verdicts, planned) if "standard deviations of a seed" in text]
    needed = stats.t.ppf(1 - 0.025 / planned, 4) * np.sqrt(2 / 3)
    assert f"With 3 seeds and {planned} tests that share the level, a difference has to be about {needed:.1f} " in said
    assert planned == len(verdicts) == 2 * (9 - 1 + 1 + 1), "arms but none and the pair, the interaction, the angle"


@pytest.mark.parametrize(("together", "word"), [(0.8, "more"), (0.5, "less"), (0.65, None)])
def test_interactions_are_said_in_both_directions(tmp_path, together, word):
    said = said_of(made(tmp_path, [(NONE, 0.5, 0.3), (STRONG, 0.6, 0.3), (BLUR, 0.55, 0.3), (BOTH, together, 0.3)]))
    use, maps = [text for text in said if "interaction" in text.lower()]
    assert maps == "No interaction of two augmentations is shown in the Dice of the encoder's maps."
    if word is None:
        assert use.startswith("No interaction")
    else:
        assert f"rotation up to 180° and blur up to 2 % ({word} than the sum of both" in use


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_noise_is_rarely_called_an_effect(tmp_path, num_seeds):
    """Encoders alike, seeds and patients vary: at most one study in twenty says anything of any augmentation, of any
    interaction or of the angle of the maximum, which is any of them."""
    found = found_of(made(tmp_path, [(arm, 0.5, 0.3) for arm, *_ in ALL], num_seeds=num_seeds, circle=PEAK_AT_60))
    rng, num_studies, wrong = np.random.default_rng(0), 200, 0
    groups = tuple(f"patient {i:02d}" for i in range(12))
    for _ in range(num_studies):
        drawn = replace(found)
        of_images = {measure: rng.normal(0.5, 0.1, 12) for measure in (OF_USE, OF_MAPS)}
        drawn.__dict__["_measured"] = {
            (arm.name, measure): Measured(
                tuple(range(num_seeds)),
                of_images[measure] + rng.normal(0, 0.02, (num_seeds, 1)) + rng.normal(0, 0.02, (num_seeds, 12)),
                groups,
            )
            for arm in found.arms
            for measure in (OF_USE, OF_MAPS)
        }
        drawn.__dict__["best_angles_deg"] = [float(rng.choice([30.0, 60.0]))] * num_seeds
        wrong += any(verdict.outcome is Outcome.LEARNT for verdict in judged([drawn]).values())
    assert wrong / num_studies < 0.05


def test_tests_that_are_planned_count_before_they_are_there(tmp_path):
    study = made(tmp_path, [(NONE, 0.5, 0.3), (STRONG, 0.5, 0.3)])
    for angle in (30, 60):
        study.arm(exact(angle), 0.5, 0.3, done=())
    assert num_tests([found_of(study)]) == 2 * (3 + 1)


def test_measured_arms_without_anything_to_compare_are_not_called_unfinished(tmp_path):
    study = FabricatedAugmentations(tmp_path)
    for arm in (NONE, STRONG):
        study.arm(arm, float("nan"), 0.3)
    assert "(no image has something of the region or of a class in all results)" in said_of(study)[0]


def test_all_that_is_planned_shares_the_level(tmp_path):
    """Ten more arms that are not there yet leave less for those that are."""
    levels = [(NONE, 0.5, 0.3), (STRONG, 0.55, 0.32)]
    few = verdicts_of(found_of(made(tmp_path / "few", levels)))
    study = made(tmp_path / "many", levels)
    for angle in range(10, 60, 10):
        study.arm(exact(angle), 0.5, 0.3, done=())
    many = verdicts_of(found_of(study))

    def p(verdicts):
        return next(v.p_adjusted for (e, m), v in verdicts.items() if e.title == "rotation up to 180°" and m == OF_USE)

    # Six arms in two measures, and the angle of the maximum, which is not known yet, in two.
    assert p(few) * 14 / 2 < 1
    assert p(many) == pytest.approx(p(few) * 14 / 2)


# -- figures and page ----------------------------------------------------------------------------------------------


def test_the_front_figure_draws_use_against_interpretability(whole):
    panel = panels_of(pareto_figure(found_of(whole)))[0]
    seeds, means = layers_of(panel, "point")
    assert (means.fields["x"], means.fields["y"]) == ("use", "interpretability")
    by_name = {row["augmentation"]: row for row in means.rows}
    assert by_name["rotation up to 180° and blur up to 2 %"]["use"] == pytest.approx(0.70, abs=0.04)
    assert by_name["blur up to 2 %"]["interpretability"] == pytest.approx(0.38, abs=0.04)
    assert len(seeds.rows) == 3 * len(ALL)
    (line,) = layers_of(panel, "line")
    assert {row["augmentation"] for row in line.rows} == set(found_of(whole).front())


def test_the_effect_figure_has_a_panel_a_measure(whole):
    panels = panels_of(effect_figure(found_of(whole)))
    assert [title for title, _ in panels] == ["use", "interpretability"]
    for panel, name in zip(panels, ("use", "interpretability"), strict=True):
        (points,) = layers_of(panel, "point")
        assert (points.fields["x"], points.fields["y"]) == ("difference", "augmentation")
        assert {row["measure"] for row in points.rows} == {name}
        bars = layers_of(panel, "rule")[1]
        assert (bars.fields["x"], bars.fields["x2"]) == ("low", "high")
        assert all(row["low"] < row["difference"] < row["high"] for row in bars.rows)


def test_the_angle_figure_draws_trainings_by_their_angle_and_the_curve_beside(whole):
    use, maps, curve = panels_of(angle_figure(found_of(whole)))
    for panel, name in ((use, "use"), (maps, "interpretability")):
        (points,) = layers_of(panel, "point")
        assert (points.fields["x"], points.fields["y"]) == ("angle_deg", "value")
        assert {row["measure"] for row in points.rows} == {name}
        assert {row["angle_deg"] for row in points.rows} == {0.0, 30.0, 60.0, 90.0}
    at_60 = [row["value"] for row in layers_of(maps, "point")[0].rows if row["angle_deg"] == 60.0]
    assert np.mean(at_60) == pytest.approx(0.36, abs=0.04)
    (line,) = layers_of(curve, "line")
    assert (line.fields["x"], line.fields["y"], line.fields["color"]) == ("angle_deg", "dice", "encoder")
    trained = [row for row in line.rows if row["encoder"] == "rotation or flip (thesis)"]
    assert max(trained, key=lambda row: row["dice"])["angle_deg"] == 60.0
    assert max(row["angle_deg"] for row in line.rows) == 90.0
    assert all(row["dice"] == pytest.approx(0.2) for row in line.rows if row["encoder"] == "untrained")


def test_the_angle_figure_warns_of_a_quarter_turn_that_it_shows(whole, tmp_path):
    assert "At 90° nothing is interpolated" in angle_figure(found_of(whole)).caption
    study = made(tmp_path, [(NONE, 0.5, 0.3), (exact(30), 0.5, 0.3), (exact(60), 0.5, 0.5)], circle=PEAK_AT_60)
    assert "90°" not in angle_figure(found_of(study)).caption


def test_the_paper_has_the_front_of_every_region(whole):
    (figure,) = use_and_maps(load_study(whole.store, whole.manifest))
    means = layers_of(panels_of(figure)[0], "point")[1]
    assert (means.fields["x"], means.fields["y"]) == ("use", "interpretability")
    assert figure.name.startswith("front-")


def test_the_page_says_it_all_and_what_is_missing(whole, tmp_path):
    study = made(tmp_path / "study", ALL[:3], circle=PEAK_AT_60)
    study.arm(BLUR, 0.5, 0.3, done=())
    page, figures, tables = augmentation_report(study.store, study.manifest, tmp_path / "out")
    html = page.read_text()
    assert re.search(r"blur · up to 2 % · interpretability · [^:<]*: 0 of 3 seeds", html)
    assert {path.stem for path in tables.glob("*.csv")} == {"augmentations", "effects"}
    assert {path.stem for path in figures.glob("*.svg")} == {"pareto", "effects"}
    page, figures, _ = augmentation_report(whole.store, whole.manifest, tmp_path / "whole")
    assert {path.stem for path in figures.glob("*.svg")} == {"pareto", "effects", "angles"}
    assert "Nothing: every seed is here." in page.read_text()


def test_a_study_without_any_result_says_so(tmp_path):
    study = FabricatedAugmentations(tmp_path / "study")
    study.arm(NONE, 0.5, 0.3, done=())
    page, tables = augmentation_report(study.store, study.manifest, tmp_path / "out")
    assert tables.name == "tables", "no folder of figures is named that is not there"
    assert "No encoder has been measured yet, so nothing can be said." in page.read_text()


def test_angles_are_spread_evenly_so_that_their_mean_is_the_published_one(whole):
    """``val/interpretability`` weighs angles with the share of the circle that they stand for."""
    assert len({*np.diff(ANGLES)}) == 1
    found = found_of(whole)
    cell = found.arm("blur up to 2 %").cells[OF_MAPS]
    levels = found.levels("blur up to 2 %", OF_MAPS)
    assert list(levels.values()) == pytest.approx(cell.values["val/interpretability"])
