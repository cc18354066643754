"""Table 1 of additional positives: which trials are in which number, and what is said of them."""

from types import SimpleNamespace

import pytest

from analysis.positives.evidence import ROLES, LabelledSet, Row, mean_std
from analysis.positives.report import answers, pretraining_table, score_table
from analysis.published.positives import TABLE_1, published_score

SEEDS = [(0, 0), (0, 1), (0, 2), (1, 1), (2, 2)]  # pretraining, fine-tuning


def row(role, fraction, values, metric="test/bma"):
    path = "init_seed" if role == "Random" else "pretrain_seed"
    done = [{"seeds": {f"model.encoder.{path}": p, "model.finetune_seed": f}} for p, f in SEEDS[: len(values)]]
    return Row(role, fraction, SimpleNamespace(done=done, missing=[], values={metric: values} if values else {}))


def found(data="mnist5k", metric="test/bma"):
    rows = [row(role, 0.5, [0.3 + 0.01 * k + 0.1 * s for s in range(5)], metric) for k, role in enumerate(ROLES)]
    rows += [row(role, 1.0, [0.5 + 0.01 * k], metric) for k, role in enumerate(ROLES)]
    return LabelledSet(data, rows, SimpleNamespace())


def test_fine_tunings_are_of_the_first_pretraining_and_pretrainings_have_one_each():
    byol = row("BYOL", 0.5, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert byol.of_fine_tunings("test/bma") == [0.1, 0.2, 0.3]
    assert byol.of_pretrainings("test/bma") == [0.1, 0.4, 0.5]
    assert row("Random", 0.5, [0.1, 0.2, 0.3, 0.4, 0.5]).of_pretrainings("test/bma") == [0.1, 0.4, 0.5]
    assert row("BYOL", 0.5, []).of_fine_tunings("test/bma") == []


def test_the_table_has_mean_std_and_n_of_each_way_and_share():
    table = score_table(found())
    assert table.frame["way"].to_list() == list(ROLES)
    assert table.frame["50"].to_list() == pytest.approx([0.4 + 0.01 * k for k in range(9)])
    assert table.frame["50 std"].to_list() == pytest.approx([0.1] * 9)
    assert table.frame["50 n"].to_list() == [3] * 9
    assert table.frame["100"].to_list() == pytest.approx([0.5 + 0.01 * k for k in range(9)])
    assert table.frame["100 std"].to_list() == [None] * 9
    assert "published" not in " ".join(table.frame.columns)
    over = pretraining_table(found())
    assert over.frame["50"].to_list() == pytest.approx([0.3 + 0.01 * k + 0.7 / 3 for k in range(9)])
    assert over.frame["n"].to_list() == [1] * 9, "the share that has fewest"


def test_the_papers_numbers_stand_beside_those_of_its_data_sets():
    table = score_table(found("isic2019"))
    assert table.frame["50 published"].to_list() == [0.558, 0.58, 0.584, 0.588, 0.591, 0.596, 0.594, 0.602, 0.608]
    assert table.frame["100 published"][1] == 0.692
    assert published_score("chestxray14", "BYOL-Sup", 0.1) == 0.714
    assert published_score("isic2019", "BYOL", 0.3) is None
    assert published_score("mnist5k", "BYOL", 0.5) is None
    assert all(set(rows) == set(ROLES) for rows in TABLE_1.values())


def test_findings_are_compared_by_their_auc():
    chests = found("chestxray14", "test/auc")
    assert chests.metric == "test/auc"
    assert score_table(chests).frame["50"][0] == pytest.approx(0.4)
    assert found().metric == "test/bma"


def test_that_one_way_is_better_is_not_said():
    rule, *sentences = answers(found())
    assert "does not follow from them, and is not said" in rule
    assert [sentence.split(" of the labels")[0] for sentence in sentences] == ["With 100 %", "With 50 %"]
    assert "that of BYOL-Sup, 0.580, and the lowest 0.500" in sentences[0]
    empty = LabelledSet("mnist5k", [row("BYOL", 1.0, [])], SimpleNamespace())
    assert answers(empty)[0] == "No fine-tuning is finished yet."
    assert mean_std([]) == (None, None)
