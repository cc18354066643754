"""Reports of explanation methods: which number reaches which column and axis, what is said both ways and of noise."""

import re

import numpy as np
import polars as pl
import pytest
from charts import layers_of, panels_of
from synthetic_explanations import FabricatedExplanations, finished, maps
from synthetic_study import MNI152

from analysis.exhibits.explanations import pair, scores
from analysis.explanations import figures
from analysis.explanations.evidence import Against, judged, region_sets
from analysis.explanations.findings import answers
from analysis.explanations.report import explanation_report
from analysis.explanations.tables import cascade_table, method_table
from analysis.results import load_study
from analysis.significance import Outcome
from trainables.api.names import RANDOMISED, TRAINED, UNTRAINED


def region_of(made):
    (found,) = region_sets(load_study(made.store, made.manifest))
    return found


def said_of(made):
    found = region_of(made)
    return answers(found, {pair: verdict for (_, pair), verdict in judged([found]).items()})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("whole"))


# -- what is said --------------------------------------------------------------------------------------------------


def test_the_method_that_leads_is_named_and_told_apart(whole):
    first, second = said_of(whole)
    assert re.match(r"Smoothgrad has the highest average precision, 0\.[56]\d* \(chance 0\.100\)", first)
    assert "every other method is told apart from it" in first
    assert "maps of trained encoders fit the region better than those of untrained ones" in first
    assert "over seeds and over blocks of images" in first
    assert second.startswith("Grad CAM: whether maps of trained encoders fit the region better than those of untrained")
    assert "cannot be told" in second


def test_it_is_the_other_way_round_where_the_numbers_are(tmp_path):
    made = finished(tmp_path, grad_cam__trained=0.7, smoothgrad__trained=0.2)
    first, second = said_of(made)
    assert first.startswith("Grad CAM has the highest average precision")
    assert "Smoothgrad: maps of trained encoders fit the region worse than those of untrained ones" in second


def test_methods_alike_are_said_to_be(tmp_path):
    first, _ = said_of(finished(tmp_path, grad_cam__trained=0.601))
    assert "it is not told apart from" in first


def test_one_volume_says_so(tmp_path):
    made = FabricatedExplanations(tmp_path, MNI152)
    made.arms({("smoothgrad", TRAINED): 0.6, ("smoothgrad", UNTRAINED): 0.3, ("grad_cam", TRAINED): 0.3,
               ("grad_cam", UNTRAINED): 0.3})  # fmt: skip
    first, _ = said_of(made)
    assert "every other method is told apart from it on these images" in first
    assert "of others nothing is said: one volume has no interval for people" in first


def test_with_one_seed_nothing_is_called_alike_or_apart(tmp_path):
    made = FabricatedExplanations(tmp_path)
    made.arms({("smoothgrad", TRAINED): 0.6, ("smoothgrad", UNTRAINED): 0.3, ("grad_cam", TRAINED): 0.3,
               ("grad_cam", UNTRAINED): 0.3}, num_seeds=1)  # fmt: skip
    first, _ = said_of(made)
    assert "with grad CAM there is no test over seeds. Smoothgrad: maps of trained" in first
    assert "told apart from" not in first


@pytest.mark.parametrize("num_seeds", [2, 3])
def test_noise_is_rarely_called_a_difference(tmp_path, monkeypatch, num_seeds):
    """Four methods and encoders alike: at most one study in twenty tells any apart."""
    made = FabricatedExplanations(tmp_path)
    arms = [(method, role) for method in "abcd" for role in (TRAINED, UNTRAINED)]
    made.arms(dict.fromkeys(arms, 0.5), num_seeds=num_seeds)
    found, rng, wrong = region_of(made), np.random.default_rng(0), 0
    ids = [f"image {i:02d}" for i in range(12)]

    def draw(self, method, role):
        if (method, role) not in known:
            known[method, role] = [
                pl.DataFrame({"image_id": ids, "group": ids, "position": [0] * 12,
                              "auprc": of_images_N + rng.normal(0, 0.02) + rng.normal(0, 0.02, 12)})
                for _ in range(num_seeds)
            ]  # fmt: skip
        return known[method, role]

    monkeypatch.setattr(type(found), "scores", draw)
    for _ in range(150):
        known, of_images_N = {}, 0.5 + rng.normal(0, 0.1, 12)
        wrong += any(verdict.outcome is Outcome.LEARNT for verdict in judged([found]).values())
    assert wrong / 150 < 0.05


def test_all_pairs_of_methods_and_all_methods_share_the_level(whole):
    found = region_of(whole)
    assert found.pairs == [
        Against(("smoothgrad", TRAINED), ("smoothgrad", UNTRAINED)),
        Against(("grad_cam", TRAINED), ("grad_cam", UNTRAINED)),
        Against(("smoothgrad", TRAINED), ("grad_cam", TRAINED)),
    ]
    for verdict in judged([found]).values():
        assert verdict.interval.confidence == pytest.approx(1 - 0.05 / 3)


def test_a_method_without_a_result_is_left_to_what_is_missing(tmp_path):
    made = FabricatedExplanations(tmp_path)
    made.arms({("smoothgrad", TRAINED): 0.6})
    made.explained("smoothgrad", UNTRAINED, 0, np.full(12, 0.3), is_done=False)
    (said,) = said_of(made)
    assert "cannot be told: no result of smoothgrad on untrained" in said
    nothing = FabricatedExplanations(tmp_path / "nothing")
    nothing.explained("smoothgrad", TRAINED, 0, np.full(12, 0.3), is_done=False)
    assert said_of(nothing) == ["No method has a result on a trained encoder yet, so nothing can be said."]


# -- tables and figures --------------------------------------------------------------------------------------------


def test_scores_are_of_the_circle_and_the_first_rule(whole):
    found = region_of(whole)
    verdicts = {pair: verdict for (_, pair), verdict in judged([found]).items()}
    frame = method_table(found, verdicts).frame
    assert frame["method"].to_list() == ["smoothgrad", "grad cam"]
    assert frame["between seeds"].abs().max() < 0.3
    (row,) = frame.filter(method="smoothgrad").to_dicts()
    cell = found.cells["smoothgrad", TRAINED]
    wanted = cell.values["val/interpretability"]  # as fabricated: the mean of the images
    assert row["auprc"] == pytest.approx(np.mean(wanted))
    assert row["auprc std"] == pytest.approx(np.std(wanted, ddof=1))
    assert row["dice"] == pytest.approx(np.mean(wanted) / 2)
    assert row["relevance_mass"] == pytest.approx(np.mean(wanted) / 4)
    assert (row["pointing_game"], row["chance"], row["n"]) == (pytest.approx(0.5), pytest.approx(0.1), 3)
    untrained = found.cells["smoothgrad", UNTRAINED].values["val/interpretability"]
    assert row["untrained"] == pytest.approx(np.mean(untrained))
    assert row["difference"] == pytest.approx(np.mean(wanted) - np.mean(untrained))
    assert row["low"] < row["difference"] < row["high"]
    assert "The interval is over blocks of images" in method_table(found, verdicts).note
    assert "too few blocks of images for an interval" in method_table(found, {}).note, "where none is in the table"


def test_the_cascade_goes_from_trained_to_random_and_pairs_encoders_by_what_they_were_made_from(tmp_path):
    made = FabricatedExplanations(tmp_path)
    level = np.full(12, 0.5)
    base = {seed: maps(seed)["maps_KVHW"] for seed in (0, 1)}
    for seed in (0, 1):
        made.explained("smoothgrad", TRAINED, seed, level, maps(seed))
    # In the other order, and of seed 1 alone nearly as it was.
    made.explained("smoothgrad", f"{RANDOMISED}head", 1, level - 0.1, maps(9, base[1], mixed=0.05))
    made.explained("smoothgrad", f"{RANDOMISED}layer4", 0, level - 0.2, maps(9, base[0], mixed=1.0))
    made.explained("smoothgrad", UNTRAINED, 0, level - 0.3, maps(7))
    frame = cascade_table(region_of(made)).frame
    assert frame["encoder"].to_list() == [TRAINED, f"{RANDOMISED}head", f"{RANDOMISED}layer4", UNTRAINED]
    assert frame["step"].to_list() == [0, 1, 2, 6]
    assert frame["auprc"].to_list() == pytest.approx([0.5, 0.4, 0.3, 0.2])
    trained, head, layer4, untrained = frame["correlation"].to_list()
    assert trained == 1.0
    assert head > 0.95
    assert abs(layer4) < 0.3
    assert abs(untrained) < 0.3
    (left, right) = panels_of(figures.cascade_figure(region_of(made)))
    (lines,), (others,) = layers_of(left, "line"), layers_of(right, "line")
    assert (lines.fields["x"], lines.fields["y"], lines.fields["color"]) == ("randomised down to", "auprc", "method")
    assert others.fields["y"] == "correlation"
    assert [row["randomised down to"] for row in lines.rows] == ["trained", "head", "layer4", "all (untrained)"]


def test_the_image_itself_has_a_row_and_no_comparison(tmp_path):
    made = finished(tmp_path)
    made.explained("image itself", "intensity", 0, np.full(12, 0.55))
    found = region_of(made)
    assert found.methods == ["smoothgrad", "grad_cam"]
    verdicts = {pair: verdict for (_, pair), verdict in judged([found]).items()}
    (row,) = method_table(found, verdicts).frame.filter(method="image itself").to_dicts()
    assert row["auprc"] == pytest.approx(0.55)
    assert row["difference"] is None
    assert not any("image itself" in said.casefold() for said in answers(found, verdicts))


def test_figure_5_1_shows_both_sides_of_one_pair_for_every_method(whole):
    (pictures,) = figures.method_pictures(region_of(whole))
    (_, top), (_, bottom) = pictures.rows
    assert [tile.title for tile in top] == ["image", "smoothgrad", "grad cam"]
    assert [tile.title for tile in bottom] == ["rotated image", "smoothgrad, rotated", "grad cam, rotated"]
    assert "its view at 95°" in pictures.caption
    assert not np.array_equal(top[1].pixels, top[2].pixels)  # the anchor's maps, of each method its own
    assert (bottom[0].pixels == bottom[0].pixels[0, 0]).all()
    assert bottom[1].pixels.std() > 10  # those of the unchanged image are constant


def test_the_page_stands_alone(whole, tmp_path):
    page, drawn, tables = explanation_report(whole.store, whole.manifest, tmp_path / "out")
    html = page.read_text()
    assert page.parent.name == "brats-tumour"
    assert 'src="http' not in html
    assert "Smoothgrad has the highest average precision" in html
    assert "Nothing: every seed is here." in html
    assert "p &lt; 0.001 after Holm" in html
    assert "p = 0.000" not in html
    assert {path.stem for path in drawn.iterdir()} == {"cascade", "methods"}
    assert {path.stem for path in tables.iterdir()} == {"cascade", "methods"}


def test_the_thesis_s_exhibits_are_of_every_region(whole):
    results = load_study(whole.store, whole.manifest)
    (pictures,) = pair(results)
    assert pictures.name == "methods-brats-tumour"
    leaders, table = scores(results)
    (line,) = leaders.frame.to_dicts()
    assert line["data"] == "brats · tumour"
    assert line["finding"].startswith("Smoothgrad has the highest average precision")
    assert (table.name, table.frame["method"].to_list()) == ("methods-brats-tumour", ["smoothgrad", "grad cam"])
    assert table.frame["low"].is_not_null().all()
