"""Reports of HOG and SVM: what reaches which column and axis, and when curves are said to coincide."""

import numpy as np
import pytest
from charts import layers_of, panels_of
from synthetic_hog import ANGLES, NUM, FabricatedHog, made, wave

from analysis.exhibits.hog import curves, histograms
from analysis.hog import figures
from analysis.hog.coincidence import Coincidence, coincidence, regular_grid
from analysis.hog.evidence import data_sets
from analysis.hog.findings import answers, coincidence_sentence
from analysis.hog.report import accuracy_table, hog_report
from analysis.results import load_study
from trainables.api.names import (
    FULL_FIELD,
    IN_CIRCLE,
    ROTATED,
    ROUND_TRIP,
)  # fmt: skip


def data_set(found):
    (one,) = data_sets(load_study(found.store, found.manifest))
    return one


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return made(tmp_path_factory.mktemp("whole"))


# -- coincidence ---------------------------------------------------------------------------------------------------


def bump(at_deg, num=72, width=25.0):
    angles = np.arange(num) * 360 / num
    away = (angles - at_deg + 180) % 360 - 180
    return np.exp(-((away / width) ** 2))


def test_curves_with_their_extrema_at_the_same_angles_coincide_and_others_do_not():
    same, other = coincidence(bump(40), bump(40)), coincidence(bump(40), bump(110))
    assert same.correlation == pytest.approx(1)
    assert same.p == pytest.approx(1 / 72)
    assert same.best_shift_deg == 0
    assert other.p > 0.05
    assert other.best_shift_deg == -70
    opposite = coincidence(bump(40), -bump(40))
    assert opposite.correlation == pytest.approx(-1)
    assert opposite.p == pytest.approx(1 / 72)


def test_four_equal_extrema_say_less_and_the_grid_says_how_much():
    angles = np.arange(72) * 5.0
    quarter = np.cos(4 * np.deg2rad(angles))
    found = coincidence(quarter, quarter)
    assert found.p == found.least_p == pytest.approx(8 / 72)
    fine = np.cos(4 * np.deg2rad(np.arange(360)))
    assert coincidence(fine, fine).p == pytest.approx(8 / 360)


def test_curves_that_have_nothing_to_do_with_one_another_rarely_coincide():
    rng, found = np.random.default_rng(0), []
    for _ in range(500):
        curves = []
        for _ in range(2):
            phases = rng.uniform(0, 2 * np.pi, 6)
            sizes = rng.normal(0, 1, 6) / np.arange(1, 7)
            angles = np.arange(72) * 2 * np.pi / 72
            curves.append(
                sum(s * np.cos(k * angles + f) for k, (s, f) in enumerate(zip(sizes, phases, strict=True), 1))
            )
        found.append(coincidence(*curves).p < 0.05)
    assert 0.01 < np.mean(found) < 0.08


def test_a_constant_curve_coincides_with_nothing():
    assert coincidence(np.ones(72), bump(0)) is None


def test_the_grid_is_the_finest_regular_one():
    with_neighbours = np.array(sorted({*range(0, 361, 5), 1, 89, 91, 359}), dtype=float)
    np.testing.assert_allclose(regular_grid(with_neighbours), np.arange(0, 360, 5))
    np.testing.assert_allclose(regular_grid(np.arange(361.0)), np.arange(360))
    np.testing.assert_allclose(regular_grid(np.arange(0, 361, 15.0)), np.arange(0, 360, 15))
    assert len(regular_grid(np.array([0.0, 10, 20, 30]))) == 0
    assert len(regular_grid(np.array([7.0, 97, 187, 277]))) == 0


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (Coincidence(0.9, 0.01, 0.01, 0.0, 72), "lie at the same angles (r = 0.90, p = 0.010 among 72 shifts)"),
        (Coincidence(-0.9, 0.01, 0.01, 45.0, 72), "lie at opposite angles: where one is high the other is low"),
        (Coincidence(0.2, 0.4, 0.01, -30.0, 72), "is not shown (r = 0.20, p = 0.400 among 72 shifts); they correlate "
                                                "most when the accuracy is turned by −30°"),
        (Coincidence(0.9, 0.11, 0.11, 0.0, 72), "cannot be shown on this grid, where p is 0.110 at least"),
    ],
)  # fmt: skip
def test_only_what_is_rare_among_shifts_is_said(measured, said):
    text = coincidence_sentence(measured)
    assert said in text
    assert ("same angles" in text) is (measured.p < 0.05 and measured.correlation > 0)


# -- what is said and shown ----------------------------------------------------------------------------------------


def test_levels_are_of_changed_images_and_of_both_fields(whole):
    found = data_set(whole)
    first, quarters, *coincidences = answers(found)
    keep = np.mod(ANGLES, 360) != 0
    rotated = found.accuracies[ROTATED, FULL_FIELD].mean_V[keep].mean()
    cut = found.accuracies[ROTATED, IN_CIRCLE].mean_V[keep].mean()
    assert f"with an accuracy of {rotated:.3f}, and {cut:.3f} without the corners" in first
    assert "which differ by the blur of two interpolations alone, with 0.60" in first
    assert "(inside the circle 0.5" in first
    assert "It is 0.9 or more first at 5°." in first
    assert quarters.startswith("At quarter turns, against the angles beside them: 90°: 0.9")
    assert len(coincidences) == 2
    assert coincidences[0].startswith("Full field, tumour: ")
    assert coincidences[1].startswith("Inscribed circle, tumour: ")


def test_what_is_compared_is_trained_less_untrained_and_rotated_less_round_trip(tmp_path):
    found = FabricatedHog(tmp_path)
    shared = bump(200, 72)
    shared = np.append(shared, shared[0])
    found.told(ROTATED, FULL_FIELD, 0.7 + 0.1 * np.append(bump(40), bump(40)[0]) + 0.2 * shared, seed=1)
    found.told(ROUND_TRIP, FULL_FIELD, 0.5 + 0.2 * shared, seed=2)
    found.dice("trained", 0.5 + 0.1 * np.append(bump(40), bump(40)[0]) - 0.3 * shared, 0)
    found.dice("untrained", 0.4 - 0.3 * shared, 0)
    one = data_set(found)
    measured = one.coincidence(one.curves[0], FULL_FIELD)
    assert measured.correlation > 0.9
    assert measured.best_shift_deg == 0
    assert one.coincidence(one.curves[0], IN_CIRCLE) is None


def test_the_table_has_a_row_an_arm(whole):
    found = data_set(whole)
    rows = accuracy_table(found).frame
    assert rows.select("what", "field").rows() == [
        (ROTATED, FULL_FIELD), (ROUND_TRIP, FULL_FIELD), (ROTATED, IN_CIRCLE), (ROUND_TRIP, IN_CIRCLE),
    ]  # fmt: skip
    row = rows.row(0, named=True)
    mean_V = found.accuracies[ROTATED, FULL_FIELD].mean_V
    keep = np.mod(ANGLES, 360) != 0
    assert row["mean"] == pytest.approx(mean_V[keep].mean())
    assert row["least"] == pytest.approx(mean_V[keep].min())
    assert row["at"] == ANGLES[keep][mean_V[keep].argmin()]
    assert (row["images"], row["draws"]) == (NUM, 2)


def test_accuracy_and_dice_stand_above_one_another_by_angle(whole):
    found = data_set(whole)
    data = figures.accuracy_data(found)
    part = data.filter(field=FULL_FIELD, what=ROTATED)
    np.testing.assert_allclose(part["accuracy"], found.accuracies[ROTATED, FULL_FIELD].mean_V)
    assert (part["low"] <= part["accuracy"]).all()
    assert (part["high"] >= part["accuracy"]).all()
    dice = figures.dice_data(found)
    assert dice.filter(field=IN_CIRCLE, what="untrained")["dice"].to_list() == pytest.approx([0.4] * len(ANGLES))
    specification = figures.angle_figure(found).specification
    assert len(specification["vconcat"]) == 2
    bottom = specification["vconcat"][1]["hconcat"]
    titles = [{layer.get("title") for layer in panel["layer"]} - {None} for panel in bottom]
    assert titles == [{FULL_FIELD}, {IN_CIRCLE}]


def test_without_encoders_the_accuracy_stands_alone(tmp_path):
    found = FabricatedHog(tmp_path)
    found.told(ROTATED, FULL_FIELD, wave(0))
    figure = figures.angle_figure(data_set(found))
    (panel, other) = panels_of(type("F", (), {"specification": figure.specification["vconcat"][0] | {
        "datasets": figure.specification["datasets"]}})())  # fmt: skip
    (lines,) = layers_of(panel, "line")
    assert (lines.fields["x"], lines.fields["y"], lines.fields["color"]) == ("angle_deg", "accuracy", "what")
    assert layers_of(other, "line")[0].rows == []
    assert answers(data_set(found))[0].startswith("Rotated images are told")
    assert (figure.title.startswith("Accuracy over"), "Dice" in figure.caption) == (True, False)


def test_the_page_names_what_is_missing(tmp_path):
    found = made(tmp_path)
    found.told(ROTATED, FULL_FIELD, wave(0), 7, is_done=False)
    page, drawn, tables = hog_report(found.store, found.manifest, tmp_path / "out")
    html = page.read_text()
    assert page.parent.name == "brats"
    assert "rotated · full field · brats: 2 of 3 seeds" in html
    assert {path.name for path in drawn.iterdir()} == {"angles.svg", "angles.png", "histograms.png"}
    assert {path.stem for path in tables.iterdir()} == {"accuracy"}
    nothing = FabricatedHog(tmp_path / "nothing")
    nothing.told(ROTATED, FULL_FIELD, wave(0), is_done=False)
    html = hog_report(nothing.store, nothing.manifest, tmp_path / "none")[0].read_text()
    assert "No classifier is finished yet" in html


def test_the_thesis_s_exhibits_are_of_every_data_set(whole):
    results = load_study(whole.store, whole.manifest)
    (pictures,) = histograms(results)
    ((name, (image, histogram)),) = pictures.rows
    assert (name, image.title, histogram.title) == ("image 00", "image", "histogram of oriented gradients")
    assert (np.diagonal(histogram.pixels[..., 0]) == 255).all()
    figure, table = curves(results)
    assert figure.title.startswith("Accuracy and Dice over")
    assert (figure.name, table.name, pictures.name) == ("angles-brats", "accuracy-brats", "histograms-brats")
