import io

import polars as pl
import pytest
from synthetic_curves import study

from analysis import statistics
from analysis.published.rotation import ROTATION_CURVES, all_ones_mask_fraction, rotation_curve
from analysis.render.table import Column, Table, number, to_csv, to_html, to_latex, to_markdown
from analysis.resampling import Bootstrap
from analysis.rotation import tables as rotation

FRAME = pl.DataFrame(
    {"name": ["a_b & 5 %", "x|y"], "value": [0.12345, None], "low": [-0.00001, 0.1], "high": [0.2, 0.3], "n": [16, 2]}
)
TABLE = Table(
    "some_name", "Caption with # and 90°", FRAME,
    [Column("na_me", "name"), Column("value", "value", 3, "low", "high"), Column("n", "n")], "Note {1}",
)  # fmt: skip


def test_latex_is_booktabs_and_escaped():
    text = to_latex(TABLE)
    assert r"\caption{Caption with \# and 90$^\circ$}" in text
    assert r"na\_me & value & n \\" in text
    assert r"a\_b \& 5 \% & 0.123 [0.000, 0.200] & 16 \\" in text
    assert r"x|y & -- & 2 \\" in text
    assert r"\begin{tabular}{lrr}" in text
    assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule")
    assert r"Note \{1\}" in text


def test_markdown_escapes_bars():
    lines = to_markdown(TABLE).splitlines()
    assert lines[2] == "| na_me | value | n |"
    assert lines[3] == "| --- | ---: | ---: |"
    assert lines[5] == r"| x\|y | – | 2 |"


def test_csv_keeps_every_digit():
    assert pl.read_csv(io.StringIO(to_csv(TABLE))).equals(FRAME)


def test_html_escapes():
    text = to_html(TABLE)
    assert "a_b &amp; 5 %" in text
    assert '<td class="number">0.123 [0.000, 0.200]</td>' in text


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [(-0.0004, False, "0.000"), (-0.0006, False, "−0.001"), (0.25, True, "+0.250"), (float("nan"), False, "–")],
)
def test_numbers(value, signed, text):
    assert number(value, 3, signed) == text


@pytest.fixture(scope="module")
def evidence():
    curves = study(num_images=6)
    bootstrap = Bootstrap(100)
    return (
        statistics.coefficients(curves, bootstrap), statistics.explained(curves, bootstrap),
        statistics.levels(curves), statistics.extrema(curves),
    )  # fmt: skip


def test_coefficient_table_holds_the_tidy_values_in_reading_order(evidence):
    table = rotation.coefficient_table(evidence[0], ["otsu"], "c", "C")
    expected = ["trained", *(f"untrained seed {k}" for k in range(3)), "untrained mean", "fixed map", "mask ceiling"]
    assert table.frame["curve"].to_list()[:7] == expected
    assert table.frame["field of view"].to_list()[0] == "full field"
    row = table.frame.filter(curve="fixed map", field_of_view="circle").row(0, named=True)
    value, low, high = statistics.look_up(evidence[0], "fixed map", "circle", "otsu", "amplitude")
    assert (row["amplitude"], row["amplitude_low"], row["amplitude_high"]) == (value, low, high)
    assert f"{value:.4f} [{low:.4f}, {high:.4f}]" in to_markdown(table)


def test_explained_table_prints_per_cent(evidence):
    table = rotation.explained_table(evidence[1], ["otsu"], "e", "E")
    value, low, high = statistics.look_up(evidence[1], "fixed map", "full", "otsu", "share_explained")
    assert f"{100 * value:.0f} [{100 * low:.0f}, {100 * high:.0f}] %" in to_markdown(table)
    assert "trained" not in table.frame["curve"]


def test_tables_over_all_binarisations_name_them(evidence):
    table = rotation.level_table(evidence[2], ["soft", "otsu"], "l", "L")
    assert table.frame["binarisation"].unique(maintain_order=True).to_list() == ["soft", "otsu"]
    assert "map made binary by" in to_markdown(table)


def test_extrema_table(evidence):
    table = rotation.extrema_table(evidence[3], ["otsu"], "x", "X")
    row = table.frame.filter(curve="mask ceiling", field_of_view="full").row(0, named=True)
    assert row["raw maximum"] == "0°, 90°, 180°, 270°"


def test_published_table_has_the_thesis_and_ours(evidence):
    table = rotation.published_table(evidence[2], evidence[3], "mni152", "trained", "otsu")
    assert table.frame["dataset"].to_list() == ["mni152", "mni152", "BraTS", "Lung Mask Image", "Kvasir-SEG"]
    assert table.frame["source"].to_list()[:2] == ["this study, full field", "this study, inscribed circle"]
    assert "Not comparable" in table.note
    assert "| 0.627 | 0.658 | 90°, 180°, 270° | 45°, 135°, 225°, 315° | 0.47 | 75 |" in to_markdown(table)
    same = rotation.published_table(evidence[2], evidence[3], "brats", "trained", "otsu")
    assert "Not comparable" not in same.note


def test_published_values():
    assert rotation_curve("BRATS") is ROTATION_CURVES[0]
    assert rotation_curve("mni152") is None
    assert all_ones_mask_fraction(2 * 0.31 / 1.31) == pytest.approx(0.31)
