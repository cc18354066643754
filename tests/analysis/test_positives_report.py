"""Additional positives: which trials are in which number, what is printed bold, and what a report makes of it."""

import html
from types import SimpleNamespace

import pytest
from charts import layers_of, panels_of
from synthetic_positives import GPU, FabricatedPositives, levels

from analysis.positives.evidence import ROLES, LabelledSet, Row, mean_std
from analysis.positives.figures import published_data, score_data, score_figure
from analysis.positives.findings import told_of
from analysis.positives.report import figures, positives_report, tables
from analysis.positives.tables import pretraining_table, score_table
from analysis.published.positives import TABLE_1, published_difference, published_score
from analysis.render import page
from analysis.render.table import to_html, to_latex

SEEDS = [(0, 0), (0, 1), (0, 2), (1, 1), (2, 2)]  # pretraining, fine-tuning


def row(role, fraction, values, metric="test/bma"):
    path = "init_seed" if role == "Random" else "pretrain_seed"
    done = [
        {"seeds": {f"model.encoder.{path}": p, "model.finetune_seed": f}, "upstream": []}
        for p, f in SEEDS[: len(values)]
    ]
    return Row(
        role, fraction, SimpleNamespace(labels={}, done=done, missing=[], values={metric: values} if values else {})
    )


def found(data="mnist5k", metric="test/bma"):
    rows = [row(role, 0.5, [0.3 + 0.01 * k + 0.1 * s for s in range(5)], metric) for k, role in enumerate(ROLES)]
    rows += [row(role, 1.0, [0.5 + 0.01 * k], metric) for k, role in enumerate(ROLES)]
    return LabelledSet(data, rows, SimpleNamespace(manifest={"trials": []}))


def bold_ways(table, column="100"):
    """The ways whose cell of a column is bold in HTML."""
    place = [c.value for c in table.columns].index(column)
    rows = to_html(table).partition("<tbody>")[2].split("<tr>")[1:]
    return [way for way, cells in zip(table.frame["way"], rows, strict=True) if "<b>" in cells.split("</td>")[place]]


# -- Table 1 -------------------------------------------------------------------------------------------------------


def test_fine_tunings_are_of_the_first_pretraining_and_pretrainings_have_one_each():
    byol = row("BYOL", 0.5, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert byol.of_fine_tunings("test/bma") == [0.1, 0.2, 0.3]
    assert byol.of_pretrainings("test/bma") == {0: 0.1, 1: 0.4, 2: 0.5}
    assert row("Random", 0.5, [0.1, 0.2, 0.3, 0.4, 0.5]).of_pretrainings("test/bma") == {0: 0.1, 1: 0.4, 2: 0.5}
    assert row("BYOL", 0.5, []).of_fine_tunings("test/bma") == []
    assert mean_std([]) == (None, None)


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


def test_the_papers_mean_and_std_stand_beside_those_of_its_data_sets():
    table = score_table(found("isic2019"))
    assert table.frame["50 published"].to_list() == [0.558, 0.58, 0.584, 0.588, 0.591, 0.596, 0.594, 0.602, 0.608]
    assert table.frame["100 published"][1] == 0.692
    titles = [column.title for column in table.columns]
    assert table.cells()[2][titles.index("published")] == "0.584(0.004)"
    assert published_score("chestxray14", "BYOL-Sup", 0.1) == (0.714, 0.001)
    assert published_score("isic2019", "BYOL", 0.3) is None
    assert published_score("mnist5k", "BYOL", 0.5) is None
    assert published_difference("isic2019", "BYOL-TracIn-pretrained", "FS-pretrained", 0.5) == 0.006
    assert published_difference("mnist5k", "FS", "BYOL", 0.5) is None
    assert all(set(rows) == set(ROLES) for rows in TABLE_1.values())


def test_findings_are_compared_by_their_auc():
    chests = found("chestxray14", "test/auc")
    assert (chests.metric, chests.score) == ("test/auc", "mean AUC")
    assert score_table(chests).frame["50"][0] == pytest.approx(0.4)
    assert found().metric == "test/bma"


@pytest.mark.parametrize(
    ("changes", "bold"),
    [
        ({"FT": 0.7, "BYOL_Sup": 0.9}, ["FT"]),
        ({"Random": 0.7}, ["Random"]),
        ({"FS": 0.7, "BYOL_TracIn": 0.7004}, ["FS", "BYOL-TracIn"]),  # printed alike
        ({"FS": 0.7, "BYOL_TracIn": 0.7006}, ["BYOL-TracIn"]),
    ],
)
def test_the_best_of_those_that_see_no_label_is_bold(tmp_path, changes, bold):
    made = FabricatedPositives(tmp_path)
    made.table(levels(**changes), 0.1)
    made.table(levels(FNC=0.6), 1.0)
    table = score_table(made.found())
    assert (bold_ways(table, "10"), bold_ways(table, "100")) == (bold, ["FNC"]), "each column has its own"
    assert bold_ways(table, "100 published") == []
    assert "all but BYOL-Sup" in table.note
    assert to_latex(table).count(r"\textbf") == len(bold) + 1
    assert table.frame.filter("10 best")["way"].to_list() == bold


def test_what_is_missing_is_not_bold_and_what_is_short_says_its_n(tmp_path):
    made = FabricatedPositives(tmp_path)
    for number in range(3):
        made.scored("BYOL", 1.0, 0, number, 0.6)
    made.scored("FS", 1.0, 0, 0, 0.99, is_done=False)
    table = score_table(made.found())
    assert bold_ways(table) == ["BYOL"]
    assert table.frame.select("way", "100 n").rows() == [("BYOL", 3), ("FS", 0)], "rows that were asked for"
    assert bold_ways(score_table(nothing_finished(tmp_path / "none"))) == []


def nothing_finished(folder):
    made = FabricatedPositives(folder)
    made.scored("BYOL", 1.0, 0, 0, 0.5, is_done=False)
    return made.found()


# -- what a pretraining cost ---------------------------------------------------------------------------------------


def test_work_is_that_of_the_first_pretraining_and_in_all_that_of_what_chooses_as_well(tmp_path):
    made = FabricatedPositives(tmp_path)
    made.pretrained("BYOL", 0, busy_s=100.0)
    made.pretrained("BYOL", 1, busy_s=7777.0)
    made.pretrained("FS", 0, busy_s=30.0, made={"device": "cpu", "threads": "4"})
    made.pretrained("BYOL-TracIn-pretrained", 0, busy_s=120.0)
    made.table(levels(), num_pretrainings=2)
    frame = score_table(made.found()).frame
    own = dict(zip(ROLES, frame["core-seconds"], strict=True))
    assert own == {"Random": None, "BYOL": 100.0, "FNC": 100.0, "FT": 100.0, "FS": 120.0, "FS-pretrained": 100.0,
                   "BYOL-TracIn": 100.0, "BYOL-TracIn-pretrained": 120.0, "BYOL-Sup": 100.0}  # fmt: skip
    in_all = dict(zip(ROLES, frame["core-seconds in all"], strict=True))
    assert (in_all["BYOL-TracIn-pretrained"], in_all["FS"], in_all["Random"]) == (220.0, 120.0, None)
    assert "GPU-seconds" not in frame.columns


def test_work_says_whether_it_is_a_gpus_and_takes_the_shorter_training_that_it_went_on_from(tmp_path):
    made = FabricatedPositives(tmp_path)
    made.finished("shorter", 11.0, GPU)
    made.pretrained("BYOL", 0, busy_s=40.0, made=GPU, continued_from="shorter")
    made.pretrained("FS", 0, busy_s=50.0, made=GPU, continued_from="gone")
    made.pretrained("FT", 0, is_done=False)
    for role in ("BYOL", "FS", "FT", "FNC"):
        made.scored(role, 1.0, 0, 0, 0.5)
    table = score_table(made.found())
    by_way = {row["way"]: row for row in table.frame.iter_rows(named=True)}
    assert (by_way["BYOL"]["GPU-seconds"], by_way["BYOL"]["core-seconds"]) == (51.0, None)
    assert by_way["FS"]["GPU-seconds"] is None, "what is not known is no number"
    assert by_way["FT"]["core-seconds"] is None
    assert by_way["FNC"]["core-seconds"] == 100.0
    assert [c.title for c in table.columns if "seconds" in c.title] == [
        "pretraining, core-seconds", "pretraining, GPU-seconds",
    ]  # fmt: skip


# -- figures -------------------------------------------------------------------------------------------------------


@pytest.fixture
def several(tmp_path):
    made = FabricatedPositives(tmp_path)
    for place, fraction in enumerate((0.1, 0.5)):
        made.table(levels(FS=0.6 + 0.1 * place), fraction, num_pretrainings=3, num_finetunings=2)
    return made


def test_a_figure_has_points_means_and_the_printed_means_on_one_axis(several):
    figure = score_figure(several.found(), "fine-tunings")
    panels = panels_of(figure)
    assert [title for title, _ in panels] == ["10 % of labels", "50 % of labels"]
    for panel, level, printed in zip(panels, (0.6, 0.7), (0.403, 0.591), strict=True):
        points, diamonds = layers_of(panel, "point")
        (means,) = layers_of(panel, "tick")
        assert (points.fields["x"], means.fields["x"], diamonds.fields["x"]) == ("score", "mean", "published")
        assert {points.fields["y"], means.fields["y"], diamonds.fields["y"]} == {"way"}
        assert {points.fields["color"], means.fields["color"]} == {"way"}
        assert points.encoding["y"]["scale"]["domain"] == list(ROLES)
        of_fs = [row for row in points.rows if row["way"] == "FS"]
        assert [row["score"] for row in of_fs] == pytest.approx([level - 0.005, level + 0.005])
        assert [row["mean"] for row in of_fs] == pytest.approx([level] * 2)
        assert [row["published"] for row in diamonds.rows if row["way"] == "FS"] == [printed]
    assert "Diamond: the mean that the paper printed" in figure.caption
    assert figure.svg().startswith("<svg")


def test_pretrainings_have_a_figure_of_their_own_without_printed_means(several):
    first, second = figures(several.found())
    assert (first.name, second.name) == ("fine_tunings", "pretrainings")
    (points,) = layers_of(panels_of(second)[0], "point")
    assert sorted(row["seed"] for row in points.rows if row["way"] == "BYOL") == [0, 1, 2]
    assert "Diamond" not in second.caption
    data = score_data(several.found(), "pretrainings")
    assert data.filter(way="BYOL", share="10", seed=0)["score"].to_list() == pytest.approx([0.495])
    fine = score_data(several.found(), "fine-tunings").filter(way="BYOL", share="10")
    assert fine["score"].to_list() == pytest.approx([0.495, 0.505]), "of the first pretraining"


def test_other_data_sets_have_no_printed_means_and_nothing_finished_no_figure(tmp_path):
    made = FabricatedPositives(tmp_path, "mnist5k")
    made.table(levels())
    assert published_data(made.found()).is_empty()
    (figure,) = figures(made.found())
    assert "Diamond" not in figure.caption
    assert len(layers_of(panels_of(figure)[0], "point")) == 1
    assert figures(nothing_finished(tmp_path / "none")) == []


# -- page ---------------------------------------------------------------------------------------------------------


def test_the_page_has_the_figures_the_tables_and_what_is_missing(several, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_library", lambda: "")
    several.scored("FT", 0.5, 3, 3, 0.5, is_done=False)
    written = positives_report(several.store, several.manifest, tmp_path / "out")
    text = html.unescape(written[0].read_text())
    assert [path.name for path in written] == ["report.html", "figures", "tables"]
    assert {path.stem for path in written[2].glob("*.csv")} == {"scores", "pretrainings", "differences", "claims"}
    assert "With 50 % of the labels, the balanced accuracy with additional positives is higher" in text
    assert 'id="figure-fine_tunings"' in text
    assert "FT · 50 % of labels · isic2019: 4 of 5 seeds" in text


def test_one_pretraining_has_neither_a_table_of_differences_nor_one_of_pretrainings(tmp_path):
    made = FabricatedPositives(tmp_path)
    made.table(levels())
    assert [table.name for table in tables(made.found(), told_of(made.found()))] == ["scores", "claims"]
