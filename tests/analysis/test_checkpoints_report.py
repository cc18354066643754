"""The report of checkpoints that choose: which trials are in which number, and both directions of what is said."""

import re

import numpy as np
import pytest
from charts import layers_of, panels_of
from synthetic_choices import LEVELS, FabricatedChoices

from analysis.positives.checkpoints import answers as answers_of
from analysis.positives.checkpoints import (
    checkpoints_report,
    choice_table,
    k_figure,
    precision_figure,
    score_table,
    verdicts,
)
from analysis.positives.choices import choice_pictures
from trainables.api.names import (
    CHOSEN_BY_COSINE,
    CHOSEN_BY_FEATURES,
    CHOSEN_BY_TRACIN,
    SUMMED,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    made = FabricatedChoices(tmp_path_factory.mktemp("choices"))
    made.choices()
    made.trained({"none": 0.8, "epoch 12": 0.85, SUMMED: 0.8})
    return made


def test_the_last_model_is_told_apart_from_features_and_from_more_choices_in_both_directions(whole, tmp_path):
    said = verdicts(whole.found())
    (features,) = [text for text in said if "features" in text]
    assert features.startswith(
        "The share of right choices by TracIn is lower than that by features of the same model (difference −0."
    )
    assert "after Holm, n = 4)" in features
    (three,) = [text for text in said if "three" in text]
    assert "that of the three" in three
    made = FabricatedChoices(tmp_path)
    made.choices(LEVELS | {(CHOSEN_BY_FEATURES, "epoch 12"): 0.4}, drop=-0.1)
    other = verdicts(made.found())
    assert any("by TracIn is higher than that by features of the same model (difference +0." in text for text in other)


def test_differences_that_are_the_same_in_all_seeds_have_no_test(whole):
    """First and first three of one model differ by the fabricated drop, exactly."""
    (three,) = [text for text in verdicts(whole.found()) if "three" in text]
    assert three.endswith("difference +0.100 in 4 pretraining(s), too few or too alike to test.")


def test_trainings_are_compared_over_pretrainings_and_not_over_fine_tunings(whole):
    said = verdicts(whole.found())
    (last,) = [text for text in said if "chosen by the model of epoch 12" in text]
    assert "is higher than that of BYOL alone (difference +0.05" in last
    (summed,) = [text for text in said if "all checkpoints together" in text]
    assert "is not told apart from that of BYOL alone" in summed
    frame = score_table(whole.found()).frame
    assert frame["n"].to_list() == [4, 4, 4]
    assert frame["score"].to_list() == pytest.approx([0.8, 0.85, 0.8], abs=0.01)


def test_one_pretraining_tells_nothing(tmp_path):
    made = FabricatedChoices(tmp_path)
    made.choices(num_seeds=1)
    said = " ".join(verdicts(made.found()))
    assert "higher than" not in said
    assert "lower than" not in said
    assert "in 1 pretraining(s), too few or too alike to test" in said


def test_of_nothing_little_is_said(tmp_path_factory):
    """All ways choose equally well: in 300 studies one in twenty says anything."""
    from analysis.positives import checkpoints
    from analysis.positives.choices import Checkpoint, CheckpointSet

    rng = np.random.default_rng(5)
    num_saying = 0
    for _ in range(300):
        made = []
        for role, name in LEVELS:
            values = {k: rng.normal(0.5, 0.02, 5).tolist() for k in ("precision/top_1", "precision/top_3")}
            done = [{"seeds": {"choice_seed": seed}} for seed in range(5)]
            made.append(Checkpoint(role, name, type("Cell", (), {"done": done, "values": values})()))
        said = checkpoints.verdicts(CheckpointSet("digits", made, None))
        num_saying += any("higher than" in text or "lower than" in text for text in said)
    assert num_saying / 300 < 0.085


def test_answers_give_the_share_beside_chance_and_where_the_largest_stands(whole):
    first, best, *_ = answers_of(whole.found())
    assert "with the model of epoch 12 has its anchor's label in 60." in first or "in 59." in first
    assert "the same choices dealt out to other anchors in 15.0 %, what is drawn from the batch in 10.0 %" in first
    assert re.search(r"what an untrained network chooses so in 2[45]\.\d %\.$", first)
    assert best.endswith("is of what was chosen by features, epoch 12.")


def test_without_a_result_nothing_is_said(tmp_path):
    made = FabricatedChoices(tmp_path)
    made.add("one", CHOSEN_BY_TRACIN, {"data": "digits", "checkpoint": "epoch 3"}, {"choice_seed": 0})
    assert answers_of(made.found()) == ["No choice of the whole training's model is finished yet."]
    page, _ = checkpoints_report(made.store, made.manifest, tmp_path / "out")
    assert "No choice of the whole" in page.read_text()


def test_the_table_has_a_row_a_way_and_checkpoint_the_summed_last(whole):
    frame = choice_table(whole.found()).frame
    assert frame.select("way", "checkpoint").rows() == [
        (CHOSEN_BY_TRACIN, "epoch 0"), (CHOSEN_BY_TRACIN, "epoch 3"), (CHOSEN_BY_TRACIN, "epoch 12"),
        (CHOSEN_BY_TRACIN, SUMMED),
        (CHOSEN_BY_COSINE, "epoch 12"), (CHOSEN_BY_FEATURES, "epoch 12"),
    ]  # fmt: skip
    assert frame["top_1"].to_list() == pytest.approx([0.25, 0.3, 0.6, 0.5, 0.62, 0.7], abs=0.02)
    assert frame["shuffled"].to_list() == pytest.approx([0.15] * 6)
    assert (frame["top_1"] - frame["top_3"]).to_list() == pytest.approx([0.1] * 6)
    assert frame["n"].to_list() == [4] * 6


def test_the_figures_draw_precision_over_the_epoch_and_over_k(whole):
    (panel,) = panels_of(precision_figure(whole.found()))
    (points,), (lines,) = layers_of(panel, "point"), layers_of(panel, "line")
    assert (points.fields["x"], points.fields["y"], points.fields["color"]) == ("epoch", "precision", "way")
    assert (lines.fields["x"], lines.fields["y"]) == ("epoch", "mean")
    assert {(row["way"], row["epoch"]) for row in points.rows} == {
        (CHOSEN_BY_TRACIN, 0), (CHOSEN_BY_TRACIN, 3), (CHOSEN_BY_TRACIN, 12),
        (CHOSEN_BY_COSINE, 12), (CHOSEN_BY_FEATURES, 12),
    }  # fmt: skip
    summed, chance = layers_of(panel, "rule")
    assert summed.fields["y"] == "mean"
    assert [row["mean"] for row in summed.rows] == pytest.approx([0.5], abs=0.02)
    assert [row["chance"] for row in chance.rows] == pytest.approx([0.1])
    (panel,) = panels_of(k_figure(whole.found()))
    (points,) = layers_of(panel, "point")
    assert (points.fields["x"], points.fields["y"], points.fields["color"]) == ("k", "precision", "way")
    assert {row["k"] for row in points.rows} == {1, 2, 3}


def test_pictures_show_both_ways_for_the_same_anchors_of_one_pretraining(whole):
    (pictures,) = choice_pictures(whole.found())
    assert [name for name, _ in pictures.rows] == [
        "one 0, by TracIn", "one 0, by features", "two 0, by TracIn", "two 0, by features",
    ]  # fmt: skip
    assert "above by TracIn, below by features" in pictures.caption
    _, tiles = pictures.rows[0]
    assert [tile.title for tile in tiles] == ["anchor: 7", "1. by TracIn: 7", "2. by TracIn: 7", "3. by TracIn: 7"]
    assert tiles[1].pixels[0, 0, 0] == 100
    assert pictures.rows[1][1][1].pixels[0, 0, 0] == 200


def test_the_page_holds_it_all(whole, tmp_path):
    page, figures, tables = checkpoints_report(whole.store, whole.manifest, tmp_path)
    html = page.read_text()
    assert page.parent.name == "digits"
    assert "is lower than that by features" in html
    assert {path.stem for path in figures.iterdir()} == {"precision", "top_k", "choices"}
    assert {path.stem for path in tables.iterdir()} == {"choices", "trained"}
