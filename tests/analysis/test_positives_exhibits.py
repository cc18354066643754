"""The exhibits of BYOL-TracIn: what bears the table's number, and what is listed as missing."""

import html

import pytest
from charts import layers_of, panels_of
from synthetic_choices import FabricatedChoices
from synthetic_positives import FabricatedPositives, levels

from analysis import paper
from analysis.exhibits import positives as exhibits
from analysis.exhibits.submissions import results_by_scale
from analysis.positives.evidence import LabelledSet
from analysis.positives.report import positives_report
from analysis.positives.tables import score_table
from analysis.published.positives import TABLE_2, published_score
from analysis.render import page
from analysis.results import load_study
from trainables.api.names import CHOSEN_BY_TRACIN


def test_full_scale_bears_the_tables_number_although_it_starts_from_random_weights(tmp_path):
    made = FabricatedPositives(tmp_path)
    made.table(levels())
    made.submit(1)
    made.submit(2, num_epochs="2")
    made.submit(3, "laptop")
    assert set(results_by_scale(made.store, "byol_positives")) == {"full", "full, 2 epochs", "laptop"}


def test_what_is_only_asked_for_replaces_nothing(tmp_path):
    made = FabricatedPositives(tmp_path)
    made.table(levels(FS=0.7))
    made.submit(1)
    entries = [entry | {"key": f"new-{entry['key']}", "cell": f"new {entry['cell']}"} for entry in made.trials]
    made.trials[:] = entries
    made.submit(2)
    (table, _) = exhibits.scores_of("isic2019")(results_by_scale(made.store, "byol_positives")["full"])
    assert table.frame.filter(way="FS")["100"].to_list() == pytest.approx([0.7])


@pytest.fixture
def sections(tmp_path, monkeypatch):
    """A function that writes the paper without drawing: its page as text."""
    monkeypatch.setattr(page, "_library", lambda: "")
    monkeypatch.setattr(paper, "write_figures", lambda figures, folder: {f.name: "<svg/>" for f in figures})
    return lambda made: html.unescape(paper.write_paper(made.store, tmp_path / "paper").read_text())


ISIC = "BYOL-TracIn, Table 1: Additional positives by share of the labels, ISIC 2019"
CHESTS = "BYOL-TracIn, Table 1: Additional positives by share of the labels, ChestX-ray14"


def test_exhibits_are_there_where_their_data_set_was_measured_and_else_missing(tmp_path, sections):
    made = FabricatedPositives(tmp_path)
    made.table(levels(), num_pretrainings=3)
    made.submit(1)
    text = sections(made)
    assert f"<h2>{ISIC}</h2>" in text
    assert "<h2>BYOL-TracIn, claims: What additional positives do, over pretrainings</h2>" in text
    assert f"<h2>{CHESTS}</h2>" not in text
    missing = text.partition(f"<h2>{paper.MISSING}</h2>")[2]
    assert f"<li>{CHESTS}</li>" in missing
    assert f"--scale full --data-root DATA --datasets chestxray14 --storage {made.store.uri}" in missing
    assert ISIC not in missing
    names = {path.name for path in (tmp_path / "paper/tables").glob("*.csv")}
    assert names == {"positives-isic2019.csv", "byol-tracin-claims.csv"}


def test_other_scales_and_data_sets_do_not_bear_the_number(tmp_path, sections):
    made = FabricatedPositives(tmp_path, "mnist5k")
    made.table(levels())
    made.submit(1, "laptop")
    text = sections(made)
    other = "BYOL-TracIn, Table 1: Additional positives by share of the labels, other data sets"
    assert f"<h2>At scale laptop, not {other}</h2>" in text
    missing = text.partition(f"<h2>{paper.MISSING}</h2>")[2]
    assert f"<li>{ISIC}</li>" in missing
    assert "BYOL-TracIn, claims" in missing
    assert other not in missing


# -- Table 2 -------------------------------------------------------------------------------------------------------

TRANSFER = "BYOL-TracIn, Table 2: Transfer from ISIC 2019 to ISIC 2016"


def test_a_transfer_is_held_against_table_2_and_its_score(tmp_path, sections):
    made = FabricatedPositives(tmp_path, "isic2016", "test/precision", study="transfer", pretrained_on="isic2019")
    made.table(levels(FS=0.7))
    found = made.found()
    assert (found.title, found.metric, found.score) == (
        "isic2016, pretrained on isic2019", "test/precision", "precision",
    )  # fmt: skip
    made.submit(1)
    (table, figure) = exhibits.scores_of("isic2016 after isic2019")(results_by_scale(made.store, "transfer")["full"])
    printed = dict(zip(table.frame["way"], table.frame["100 published"], strict=True))
    assert (printed["Random"], printed["BYOL-TracIn-pretrained"], printed["BYOL-Sup"]) == (0.400, 0.565, 0.592)
    assert table.frame.filter(way="FS")["100"].to_list() == pytest.approx([0.7])
    assert "isic2016, pretrained on isic2019" in figure.title
    text = sections(made)
    assert f"<h2>{TRANSFER}</h2>" in text
    assert f"<h2>{ISIC}</h2>" not in text


def test_the_same_data_set_without_a_transfer_is_not_table_2(tmp_path):
    made = FabricatedPositives(tmp_path, "isic2016")
    made.table(levels())
    made.submit(1)
    results = results_by_scale(made.store, "byol_positives")["full"]
    assert exhibits.scores_of("isic2016 after isic2019")(results) == []
    (table, _) = exhibits.scores_of(None)(results)
    assert "100 published" not in table.frame.columns


@pytest.mark.parametrize(
    ("data", "role", "score"),
    [
        ("isic2016 after isic2019", "BYOL", (0.541, 0.008)),
        ("isic2016 after isic2019", "FT", (0.559, 0.011)),
        ("shenzhen after chestxray14", "FS", (0.877, 0.004)),
        ("shenzhen after chestxray14", "BYOL-TracIn", (0.880, 0.007)),
    ],
)
def test_table_2_as_published(data, role, score):
    assert published_score(data, role, 1.0) == score
    assert published_score(data, role, 0.5) is None


# -- what checkpoints choose ---------------------------------------------------------------------------------------


def test_figure_2_and_what_is_told_of_choices_come_from_the_checkpoints(tmp_path):
    made = FabricatedChoices(tmp_path)
    made.choices()
    results = load_study(made.store, made.manifest)
    (pictures,) = exhibits.choices_of(None)(results)
    assert exhibits.choices_of("isic2019")(results) == []
    assert pictures.name == "choices-digits"
    said, table, *figures = exhibits.checkpoints(results)
    assert any("is lower than that by features" in text for text in said.frame["finding"])
    assert table.frame.height == 6
    assert [figure.name for figure in figures] == ["choices-precision-digits", "choices-top_k-digits"]
    empty = FabricatedChoices(tmp_path / "empty")
    empty.add("one", CHOSEN_BY_TRACIN, {"data": "digits", "checkpoint": "epoch 3"}, {"choice_seed": 0})
    assert exhibits.checkpoints(load_study(empty.store, empty.manifest)) == []


def test_linear_probes_are_no_table_1(tmp_path):
    made = FabricatedPositives(tmp_path)
    made.table(levels())
    made.submit(1, linear_probe="a linear layer is trained on the encoder as it is")
    assert set(results_by_scale(made.store, "byol_positives")) == {"full, linear probes"}


def test_many_shares_are_an_axis(tmp_path):
    made = FabricatedPositives(tmp_path, study="label_fractions")
    for fraction, level in ((0.01, 0.2), (0.1, 0.4), (0.5, 0.6), (1.0, 0.8)):
        made.table(levels(BYOL=level), fraction)
    figure, table = exhibits.every_share(load_study(made.store, made.manifest))
    assert (figure.name, table.name) == ("shares-fine_tunings-isic2019", "shares-isic2019")
    (panel,) = panels_of(figure)
    (points,), (lines,) = layers_of(panel, "point"), layers_of(panel, "line")
    assert (points.fields["x"], points.fields["y"], points.fields["color"]) == ("share", "score", "way")
    assert (lines.fields["x"], lines.fields["y"], lines.fields["color"]) == ("share", "mean", "way")
    assert points.encoding["x"]["scale"]["type"] == "log"
    of_byol = {row["share"]: row["mean"] for row in lines.rows if row["way"] == "BYOL"}
    assert of_byol == pytest.approx({1.0: 0.2, 10.0: 0.4, 50.0: 0.6, 100.0: 0.8})
    few = FabricatedPositives(tmp_path / "few")
    for fraction in (0.1, 0.5, 1.0):
        few.table(levels(), fraction)
    assert len(panels_of(exhibits.every_share(load_study(few.store, few.manifest))[0])) == 3


def test_a_later_submission_of_one_row_takes_no_other_row_away(tmp_path):
    made = FabricatedPositives(tmp_path)
    made.table(levels(FS=0.7))
    made.submit(1)
    made.trials[:] = [entry for entry in made.trials if entry["role"] in ("", "BYOL")]
    made.submit(2)
    (table, _) = exhibits.scores_of("isic2019")(results_by_scale(made.store, "byol_positives")["full"])
    assert table.frame.filter(way="FS")["100"].to_list() == pytest.approx([0.7])
    assert table.frame["100 n"].to_list() == [5] * 9


def test_pretrainings_on_what_the_transfer_tests_on_are_apart(tmp_path):
    made = FabricatedPositives(tmp_path)
    made.table(levels())
    made.submit(1, transfer_images_kept="isic2019: kept")
    made.submit(2, transfer_images="isic2019: left out 4 images")
    assert set(results_by_scale(made.store, "byol_positives")) == {
        "full, test images of the transfer not left out", "full",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "metric"),
    [("isic2016 after isic2019", "test/precision"), ("shenzhen after chestxray14", "test/auc")],
)
def test_every_data_set_of_table_2_has_the_papers_score(name, metric):
    assert set(TABLE_2) == {"isic2016 after isic2019", "shenzhen after chestxray14"}
    data, pretrained_on = name.split(" after ")
    found = LabelledSet(data, [], None, pretrained_on)
    assert (found.published_as, found.metric) == (name, metric)
    assert found.tested == "test/auc", "a precision is shown, and not tested"


def test_a_linear_probe_is_called_one_and_stands_beside_no_published_number(tmp_path):
    made = FabricatedPositives(tmp_path)
    made.shown["trained"] = "linear probe"
    made.table(levels())
    table = score_table(made.found())
    assert table.caption.startswith("Linear probes on a share of the labels")
    assert "n linear probes of the first pretraining" in table.note
    assert "100 published" not in table.frame.columns
    page, *_ = positives_report(made.store, made.manifest, tmp_path / "out")
    assert page.parent.name == "isic2019-linear_probe"
