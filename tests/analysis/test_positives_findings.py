"""What is said of additional positives over pretrainings: the test, its family, the sentences, and of noise."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from synthetic_positives import FabricatedPositives, levels

from analysis.positives.differences import (
    COMPARED,
    MIN_PAIRS,
    Outcome,
    differences,
    least_difference,
    num_planned,
    paired,
)
from analysis.positives.evidence import ROLES, LabelledSet, Row
from analysis.positives.findings import (
    LABELS_ARE_THE_BOUND,
    POSITIVES_HELP,
    PRETRAINING_HELPS,
    TRACIN_IS_BETTER,
    answers,
    caveats,
    claims,
    told_of,
)
from analysis.positives.tables import claim_table, difference_table

TRACIN, FEATURES = "BYOL-TracIn-pretrained", "FS-pretrained"


def entry(role, pretrain_seed, finetune_seed):
    path = "init_seed" if role == "Random" else "pretrain_seed"
    return {"seeds": {f"model.encoder.{path}": pretrain_seed, "model.finetune_seed": finetune_seed}}


def row(role, of_seeds, fraction=1.0, missing=(), fine_tunings=()):
    """A way with one fine-tuning of each pretraining (seed -> score); ``fine_tunings``: more of the first."""
    done = [entry(role, seed, seed) for seed in of_seeds]
    done += [entry(role, 0, number) for number in range(1, len(fine_tunings) + 1)]
    values = {"test/bma": [*of_seeds.values(), *fine_tunings]} if done else {}
    cell = SimpleNamespace(
        labels={}, done=done, missing=[(entry(role, seed, seed), "") for seed in missing], values=values
    )
    return Row(role, fraction, cell)


def study(scores, data="isic2019", **more):
    """One share of the labels; ``scores``: role -> a score a pretraining."""
    return LabelledSet(data, [row(role, dict(enumerate(s)), **more) for role, s in scores.items()], SimpleNamespace())


def noisy(changes=None, num_seeds=5, spread=0.002, seed=0, fraction=1.0):
    rng = np.random.default_rng(seed)
    of_levels = levels(**(changes or {}))
    rows = [
        row(role, dict(enumerate((level + spread * rng.normal(size=num_seeds)).tolist())), fraction)
        for role, level in of_levels.items()
    ]
    return LabelledSet("isic2019", rows, SimpleNamespace())


def of(found, first, second, fraction=1.0):
    (difference,) = [d for d in differences(found, fraction) if (d.first, d.second) == (first, second)]
    return difference


def said(found, claim):
    (text,) = [text for name, share, _, text in claims(found, told_of(found)) if name == claim and share != "all"]
    return text


# -- the test ------------------------------------------------------------------------------------------------------


def test_the_test_and_its_interval_are_students_of_pairs():
    found = noisy({"FS": 0.503})
    first, second = (list(found.row(role, 1.0).of_pretrainings("test/bma").values()) for role in ("FS", "BYOL"))
    theirs = stats.ttest_rel(first, second)
    ours = of(found, "FS", "BYOL")
    assert (ours.value, ours.p, ours.n) == (
        pytest.approx(np.mean(first) - np.mean(second)), pytest.approx(theirs.pvalue), 5,
    )  # fmt: skip
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval()))
    assert ours.std == pytest.approx(np.std(np.array(first) - second, ddof=1))


def test_pairs_are_of_one_seed_whatever_their_order_and_one_without_partner_drops():
    byol = row("BYOL", {3: 0.53, 0: 0.50, 2: 0.52, 1: 0.51, 7: 0.9})
    fs = row("FS", {0: 0.511, 1: 0.520, 2: 0.531, 3: 0.542, 9: 0.1})
    found = LabelledSet("isic2019", [byol, fs], SimpleNamespace())
    theirs = stats.ttest_1samp([0.011, 0.010, 0.011, 0.012], 0)
    ours = of(found, "FS", "BYOL")
    assert (ours.n, ours.value, ours.p) == (4, pytest.approx(0.011), pytest.approx(theirs.pvalue))


def test_fine_tunings_of_one_pretraining_are_never_tested():
    found = LabelledSet(
        "isic2019",
        [row("BYOL", {0: 0.5}, fine_tunings=[0.501, 0.499, 0.5, 0.502]),
         row("FS", {0: 0.7}, fine_tunings=[0.701, 0.702, 0.699, 0.7])],
        SimpleNamespace(),
    )  # fmt: skip
    difference = of(found, "FS", "BYOL")
    assert (difference.n, difference.p, difference.low, difference.outcome) == (1, None, None, Outcome.UNKNOWN)
    assert difference.why == "one pretraining"


def test_no_test_where_there_is_nothing_to_test():
    assert paired({0: 0.5, 1: 0.6}, {0: 0.4, 1: 0.3})[3] is None, "two are too few"
    assert paired({s: 0.1 * s + 0.2 for s in range(5)}, {s: 0.1 * s for s in range(5)})[3] is None
    with pytest.raises(ValueError, match=r"no seed is in both \[0\] and \[1\]"):
        paired({0: 0.5}, {1: 0.5})
    found = LabelledSet("isic2019", [row("BYOL", {}, missing=[0]), row("FS", {0: 0.5})], SimpleNamespace())
    assert of(found, "FS", "BYOL").why == "no pretraining of one seed is finished on both sides"


def test_holm_goes_over_the_rows_of_one_share_and_not_over_shares():
    found = noisy({"FS": 0.504, "FT": 0.502})
    family = differences(found, 1.0)
    assert [(d.first, d.second) for d in family] == list(COMPARED)
    ordered, largest = sorted(family, key=lambda d: d.p), 0.0
    for rank, difference in enumerate(ordered):
        largest = max(largest, min(1.0, (len(family) - rank) * difference.p))
        assert difference.p_adjusted == pytest.approx(largest)
    both = LabelledSet("isic2019", [*found.rows, *noisy({"FS": 0.9}, fraction=0.1, seed=1).rows], SimpleNamespace())
    assert differences(both, 1.0) == family, "another share changes nothing"


def test_tests_that_are_planned_count_before_they_are_there():
    scores = {"BYOL": [0.5, 0.51, 0.49], "FS": [0.52, 0.531, 0.511]}
    alone = study(scores)
    assert num_planned(alone, 1.0) == 1
    planned = LabelledSet("isic2019", [*alone.rows, row("FNC", {}, missing=[0, 1, 2])], SimpleNamespace())
    assert num_planned(planned, 1.0) == 2
    assert of(planned, "FS", "BYOL").p_adjusted == pytest.approx(2 * of(alone, "FS", "BYOL").p_adjusted)
    with_two = LabelledSet("isic2019", [*alone.rows, row("FNC", {}, missing=[0, 1])], SimpleNamespace())
    assert num_planned(with_two, 1.0) == 1, "two pretrainings are no test"


# -- the sentences -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "word", "other"), [(0.53, "higher", "lower"), (0.47, "lower", "higher")])
def test_ways_are_said_to_be_above_or_below_byol(level, word, other):
    text = said(noisy({"FS": level}), POSITIVES_HELP)
    assert f"With 100 % of the labels, the balanced accuracy with additional positives is {word} than that" in text
    sign = "+" if word == "higher" else "−"
    assert f"than that with BYOL alone for FS ({sign}0.0" in text
    assert "p < 0.001 after Holm, n = 5)" in text or "p = 0.00" in text
    assert other not in text
    assert "is not told apart from that with BYOL alone for FNC, FT, FS-pretrained, BYOL-TracIn, " in text


def test_both_directions_stand_in_one_sentence():
    text = said(noisy({"FS": 0.53, "FT": 0.47}), POSITIVES_HELP)
    assert text.index("is higher than that with BYOL alone for FS (+") < text.index(
        "is lower than that with BYOL alone for FT (−"
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"BYOL_TracIn_pretrained": 0.53}, "is higher than that of FS-pretrained (+"),
        ({"BYOL_TracIn_pretrained": 0.47}, "is lower than that of FS-pretrained (−"),
        ({}, "is not told apart from that of FS-pretrained ("),
    ],
)
def test_tracin_against_features(changes, says):
    text = said(noisy(changes), TRACIN_IS_BETTER)
    assert f"the balanced accuracy of BYOL-TracIn-pretrained {says}" in text
    assert ("higher" in text, "lower" in text) == ("higher" in says, "lower" in says)


@pytest.mark.parametrize(
    ("changes", "says", "not_said"),
    [
        ({"BYOL_Sup": 0.55}, "It is above every way here that chooses without labels.", "not told apart"),
        ({"BYOL_Sup": 0.55, "FT": 0.551}, "That it is the upper bound is not shown.", "lower"),
        ({"FT": 0.55}, "is lower than that of FT (−0.0", "upper bound is not shown"),
        ({"FT": 0.55}, "So it is no upper bound.", "above every way"),
    ],
)
def test_whether_labels_are_the_upper_bound(changes, says, not_said):
    text = said(noisy(changes), LABELS_ARE_THE_BOUND)
    assert says in text
    assert not_said not in text


@pytest.mark.parametrize(("level", "word"), [(0.4, "is higher than"), (0.6, "is lower than")])
def test_byol_against_a_random_start(level, word):
    text = said(noisy({"Random": level}), PRETRAINING_HELPS)
    assert f"the balanced accuracy of BYOL {word} that of Random (" in text


@pytest.mark.parametrize(
    ("num_seeds", "why"), [(1, "one pretraining"), (2, f"2 pretrainings, and a test takes {MIN_PAIRS}")]
)
def test_too_few_pretrainings_tell_nothing(num_seeds, why):
    found = noisy({"FS": 0.9, "BYOL_Sup": 0.95}, num_seeds)
    for claim in (POSITIVES_HELP, TRACIN_IS_BETTER, LABELS_ARE_THE_BOUND, PRETRAINING_HELPS):
        text = said(found, claim)
        assert "cannot be told against" in text
        assert text.split(".")[0].endswith(f": {why}")
        assert not {"higher", "lower"} & set(text.split())
    first, *highest = answers(found, told_of(found))
    assert first.endswith("does not follow from them, and is not said.")
    assert "highest mean balanced accuracy over fine-tunings is that of BYOL-Sup, 0.9" in highest[0]
    assert any("--pretrain-seeds 3" in caveat for caveat in caveats(found, told_of(found)))


def test_settings_are_counted():
    rows = [*noisy({"BYOL_TracIn_pretrained": 0.53}, fraction=0.1).rows, *noisy({}, fraction=0.5).rows,
            *noisy({"BYOL_TracIn_pretrained": 0.47}, num_seeds=1).rows]  # fmt: skip
    found = LabelledSet("isic2019", rows, SimpleNamespace())
    (counted,) = [text for _, share, _, text in claims(found, told_of(found)) if share == "all"]
    assert "is higher in 1, lower in 0, not told apart in 1; it cannot be told in 1 (against FS-pretrained)." in counted
    shares = [share for claim, share, _, _ in claims(found, told_of(found)) if claim == TRACIN_IS_BETTER]
    assert shares == ["10 %", "50 %", "100 %", "all"]


def test_the_published_differences_stand_with_the_claim():
    statistics = {name: statistic for name, _, statistic, _ in claims(noisy(), told_of(noisy()))}
    assert "(published, of one pretraining each: +0.002 to +0.013)" in statistics[POSITIVES_HELP]
    assert "(published, of one pretraining each: +0.042)" in statistics[PRETRAINING_HELPS]
    other = LabelledSet("mnist5k", noisy().rows, SimpleNamespace())
    assert all("published" not in statistic for _, _, statistic, _ in claims(other, told_of(other)))


def test_answers_say_what_is_told_and_what_nothing_finished_leaves():
    found = noisy({"FS": 0.53})
    first, second, rule, highest = answers(found, told_of(found))
    assert "is higher than that with BYOL alone for FS" in first
    assert "BYOL-TracIn-pretrained is not told apart" in second
    assert "does not follow from them" in rule
    assert "that of FS, 0.5" in highest
    empty = LabelledSet("mnist5k", [row("BYOL", {}, missing=[0])], SimpleNamespace())
    assert answers(empty, told_of(empty))[0] == "No fine-tuning is finished yet."
    assert claim_table([empty]) == []


def test_caveats_say_how_many_classes_a_share_of_the_labels_leaves_out():
    rows = {share: noisy({}, fraction=share).rows for share in (0.01, 0.1, 1.0)}
    for share, counts in ((0.01, (0, 2, 1)), (0.1, (1, 0, 0)), (1.0, (0, 0, 0))):
        for each in rows[share]:
            each.cell.values["num_unseen_classes"] = list(counts)
    found = LabelledSet("isic2019", [row for of_share in rows.values() for row in of_share], SimpleNamespace())
    (sentence,) = [c for c in caveats(found, told_of(found)) if "no labelled training image" in c]
    assert "up to 2 with 1 % and 1 with 10 % of the labels" in sentence
    whole = LabelledSet("isic2019", rows[1.0], SimpleNamespace())
    assert not any("no labelled training image" in c for c in caveats(whole, told_of(whole)))


def test_caveats_say_how_large_a_difference_shows():
    least = least_difference(5, 19)
    assert stats.t.sf(least * np.sqrt(5), 4) * 2 * 19 == pytest.approx(0.05)
    found = noisy({"FS": 0.53})
    stds = [difference.std for difference in differences(found, 1.0)]
    (sentence,) = [c for c in caveats(found, told_of(found)) if c.startswith("The strictest test")]
    assert f"5 pretrainings and 19 tests, of {least:.1f} standard deviations" in sentence
    assert f"here about {least * np.median(stds):.3f}" in sentence


def test_the_table_of_differences_has_every_number_in_its_column(tmp_path):
    made = FabricatedPositives(tmp_path)
    made.table(levels(FS=0.6), 0.1, num_pretrainings=4)
    made.table(levels(), 1.0, num_pretrainings=4)
    found = made.found()
    told = told_of(found)
    table = difference_table(found, told)
    (shown,) = table.frame.filter(way="FS", against="BYOL").iter_rows(named=True)
    difference = of(found, "FS", "BYOL", 0.1)
    expected = {"10": difference.value, "10 low": difference.low, "10 high": difference.high,
                "10 p": difference.p_adjusted, "10 n": 4, "10 told": True, "10 published": 0.004,
                "100 told": False, "100 published": 0.002}  # fmt: skip
    assert {name: shown[name] for name in expected} == pytest.approx(expected)
    assert difference.value == pytest.approx(0.1, abs=0.01)
    titles = [column.title for column in table.columns]
    assert titles == ["positives", "against", "10 % of labels", "p", "n", "published", "100 % of labels", "p", "n",
                      "published"]  # fmt: skip
    (claims_made,) = claim_table([found])
    assert claims_made.frame.filter(claim=POSITIVES_HELP)["labels"].to_list() == ["10 %", "100 %"]
    assert set(claims_made.frame["data"]) == {"isic2019"}


# -- of nothing but noise ------------------------------------------------------------------------------------------


def normal(rng, num_seeds):
    return 0.5 + 0.01 * rng.normal(size=(len(ROLES), num_seeds))


def shared_and_uneven(rng, num_seeds):
    """Ways rise and fall together with the seed, and some vary ten times as much as others."""
    own = rng.normal(size=(len(ROLES), num_seeds)) * np.geomspace(0.002, 0.02, len(ROLES))[:, None]
    return 0.5 + own + 0.02 * rng.normal(size=num_seeds)


def of_few_images(rng, num_seeds):
    """Balanced accuracy on four classes of 90 or 91 images, so that differences are often almost the same."""
    hits = [rng.binomial(num, 0.5, size=(len(ROLES), num_seeds)) / num for num in (90, 91, 90, 90)]
    return np.mean(hits, axis=0)


@pytest.mark.parametrize(
    ("draw", "num_seeds"),
    [(normal, 5), (normal, 3), (shared_and_uneven, 5), (of_few_images, 3), (of_few_images, 5)],
)
def test_something_is_said_of_noise_in_one_study_of_twenty(draw, num_seeds):
    """Of 2000 studies, each one data set at one share of the labels."""
    rng, num_studies, num_wrong = np.random.default_rng(0), 2000, 0
    for _ in range(num_studies):
        found = study(dict(zip(ROLES, draw(rng, num_seeds).tolist(), strict=True)))
        outcomes = {difference.outcome for difference in differences(found, 1.0)}
        num_wrong += bool(outcomes & {Outcome.HIGHER, Outcome.LOWER})
    print(f"{draw.__name__}, {num_seeds} pretrainings: {num_wrong / num_studies:.3f}")
    assert 0.02 < num_wrong / num_studies < 0.065
