import io

import numpy as np
import polars as pl
import pytest
from synthetic_curves import BLUR, BRIGHTNESS, GRID_5, ROTATION, fit, frame, people, study, wave_curve
from synthetic_study import labels

from analysis.bootstrap import Bootstrap
from analysis.curves.figures import FIELD_TITLES, ROTATION_FIELD_TITLES
from analysis.curves.levels import level_table, levels
from analysis.curves.panels import panels
from analysis.published.rotation import ROTATION_CURVES, all_ones_mask_fraction, rotation_curve
from analysis.render.table import Column, Table, number, to_csv, to_html, to_latex, to_markdown
from analysis.rotation import statistics
from analysis.rotation import tables as rotation
from analysis.rotation.published_table import published_table
from analysis.trends.statistics import look_up, trend_frame
from analysis.trends.tables import trend_table

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
    assert text.index(r"\resizebox") < text.index(r"\begin{tabular}") < text.index(r"\end{tabular}")
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_latex_breaks_the_lines_of_long_texts():
    long = Table("t", "c", FRAME, [Column("first", "name", width=0.5), Column("n", "n")])
    assert r"\begin{tabular}{>{\raggedright\arraybackslash}p{0.5\linewidth}r}" in to_latex(long)


def test_markdown_escapes_bars():
    lines = to_markdown(TABLE).splitlines()
    assert lines[2] == "| na_me | value | n |"
    assert lines[3] == "| --- | ---: | ---: |"
    assert lines[5] == r"| x\|y | – | 2 |"


def test_csv_keeps_every_digit():
    assert pl.read_csv(io.StringIO(to_csv(TABLE))).equals(FRAME)


def test_a_cell_is_bold_where_its_column_says_so_in_each_form():
    frame = FRAME.with_columns(is_best=pl.Series([True, None]), is_last=pl.Series([False, True]))
    columns = [Column("name", "name", bold="is_last"), Column("value", "value", 3, bold="is_best"), Column("n", "n")]
    table = Table("t", "c", frame, columns)
    assert to_markdown(table).splitlines()[4:] == ["| a_b & 5 % | **0.123** | 16 |", r"| **x\|y** | – | 2 |"]
    assert r"a\_b \& 5 \% & \textbf{0.123} & 16 \\" in to_latex(table)
    assert r"\textbf{x|y} & -- & 2 \\" in to_latex(table)
    assert '<td>a_b &amp; 5 %</td><td class="number"><b>0.123</b></td><td class="number">16</td>' in to_html(table)
    assert pl.read_csv(io.StringIO(to_csv(table))).equals(frame)


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
    panels = fit(curves, Bootstrap(100))
    return (
        statistics.coefficients(panels), statistics.explained(panels), levels(curves, ROTATION),
        statistics.extrema(panels),
    )  # fmt: skip


def printed(table):
    """Rows of a table as they are printed: column title -> text; of two columns of one title, the first."""
    titles = [column.title for column in table.columns]
    return [dict(reversed(list(zip(titles, cells, strict=True)))) for cells in table.cells()]


def test_coefficient_table_holds_the_tidy_values_in_reading_order(evidence):
    table = rotation.coefficient_table(evidence[0], ["otsu"], "c", "C")
    assert table.frame["role"].unique(maintain_order=True).to_list() == [
        "trained", "untrained", "fixed map", "mask", "intensity",
    ]  # fmt: skip
    assert table.frame["field of view"].to_list() == ["full field of view"] * 5 + ["inscribed circle"] * 5
    (row,) = [r for r in printed(table) if (r["curve"], r["field of view"]) == ("fixed map", "inscribed circle")]

    def own(quantity):
        return statistics.look_up(evidence[0], "fixed map", "kept", "otsu", quantity)

    value, low, high = own("amplitude")
    assert row["amplitude of the 90° wave"] == f"{value:.4f} [{low:.4f}, {high:.4f}]"
    assert row["null"] == f"{own('amplitude_null')[0]:.4f}"
    assert row["share of variance"] == f"{100 * own('share_fundamental')[0]:.0f} %"
    assert row["with harmonics"] == f"{100 * own('share_wave')[0]:.0f} %"
    value, low, high = own("spike")
    text = " ".join(f"{number(v, 4, signed=True)}" for v in (value, low, high))
    assert row["spike at 90°, 180°, 270°"] == "{} [{}, {}]".format(*text.split())
    assert row["at 0°"] == number(own("spike_at_0")[0], 4, signed=True)
    assert row["first maximum"].startswith(f"{own('phase_deg')[0]:.1f} [")
    assert row["first maximum"].endswith("]°")
    assert row["n"] == "6"


def test_explained_table_prints_per_cent_and_what_is_left(evidence):
    table = rotation.explained_table(evidence[1], ["otsu"], "e", "E")
    (row,) = [r for r in printed(table) if (r["curve"], r["field of view"]) == ("fixed map", "full field of view")]

    def of(quantity):
        return statistics.look_up(evidence[1], "fixed map", "full", "otsu", quantity)

    value, low, high = of("share_explained")
    assert row["explained"] == f"{100 * value:.0f} [{100 * low:.0f}, {100 * high:.0f}] %"
    value, low, high = of("remainder")
    assert row["left: |c trained − c control|"] == f"{value:.4f} [{low:.4f}, {high:.4f}]"
    assert row["debiased"] == f"{of('remainder_debiased')[0]:.4f}"
    assert row["null"] == f"{of('remainder_null')[0]:.4f}"
    assert row["left of the spike"].startswith(number(of("spike_remainder")[0], 4, signed=True))
    assert "trained" not in table.frame["role"]


def test_level_table_has_each_level_in_its_own_column():
    curves = frame("trained", np.array([[0.9, 0.5, 0.3]] * 2), [0.0, 90.0, 200.0])
    distinct = {"mask_fraction": 0.11, "map_fraction": 0.22, "chance_dice": 0.33, "all_ones_dice": 0.44, "auprc": 0.55}
    curves = curves.with_columns(**{name: pl.lit(value) for name, value in distinct.items()})
    titles = ["mask fraction", "map fraction", "chance", "all ones", "AUPRC"]
    table = level_table(levels(curves, ROTATION), ROTATION, ROTATION_FIELD_TITLES, ["otsu"], "l", "L")
    (row,) = printed(table)
    assert [row[title] for title in titles] == ["0.110", "0.220", "0.330", "0.440", "0.550"]
    assert (row["least"], row["at"], row["largest"]) == ("0.300", "200°", "0.500")
    assert table.cells()[0][-2:] == ["2", "1"]
    assert "leave out 0°" in table.note


def test_tables_over_all_binarisations_name_them(evidence):
    table = level_table(evidence[2], ROTATION, ROTATION_FIELD_TITLES, ["soft", "otsu"], "l", "L")
    assert table.frame["binarisation"].unique(maintain_order=True).to_list() == ["soft", "otsu"]
    assert "map made binary by" in to_markdown(table)
    alone = level_table(evidence[2], ROTATION, ROTATION_FIELD_TITLES, ["soft"], "l", "L")
    assert "map made binary by" not in to_markdown(alone)


def test_extrema_table():
    curve = wave_curve(GRID_5, amplitude=0.02, peak_deg=30.0)
    found = statistics.extrema(fit(frame("mask", np.tile(curve, (3, 1)), GRID_5), Bootstrap(20)))
    (row,) = printed(rotation.extrema_table(found, ["otsu"], "x", "X"))
    assert row["maxima of the curve"] == "30°, 120°, 210°, 300°"
    assert row["minima of the curve"] == "75°, 165°, 255°, 345°"
    assert (row["maxima of the wave"], row["minima of the wave"]) == ("30°", "75°")
    assert row["largest prominence"] == "0.0400"
    higher = found.with_columns(pl.when(source="wave").then(1.0).otherwise("prominence").alias("prominence"))
    (row,) = printed(rotation.extrema_table(higher, ["otsu"], "x", "X"))
    assert row["largest prominence"] == "0.0400", "of the curve, not of the fitted wave"


def test_trend_table_prints_its_own_numbers():
    values = np.array([0.5, 0.8, 1.0, 1.2, 1.5])
    rng = np.random.default_rng(0)
    curves = pl.concat(
        frame(role, 0.5 + slope * (values - 1) + rng.normal(0, 0.001, (8, 5)), values)
        for role, slope in (("trained", -0.2), ("untrained", -0.1))
    )
    noise = frame("intensity", 0.5 + rng.normal(0, 0.05, (8, 5)), values)
    trends = trend_frame(panels(pl.concat([curves, noise])), BRIGHTNESS, people)
    table = trend_table(trends, BRIGHTNESS, FIELD_TITLES, ["otsu"], "t", "T")
    trained, untrained, intensity = printed(table)
    value, low, high = look_up(trends, "untrained", "full", "otsu", "slope")
    assert untrained["slope"] == "{} [{}, {}]".format(*(number(v, 4, signed=True) for v in (value, low, high)))
    assert trained["explained of the trained slope"] == "–"
    assert untrained["explained of the trained slope"] == "50 %"
    assert untrained["left of the slope"].startswith("−0.10")
    assert (trained["correlation with the value"][:5], trained["monotone part"]) == ("−1.00", "100 %")
    part, null = (look_up(trends, "intensity", "full", "otsu", f"monotone_{name}")[0] for name in ("share", "null"))
    assert (intensity["monotone part"], intensity["null"]) == (f"{100 * part:.0f} %", f"{100 * null:.0f} %")
    assert intensity["monotone part"] != intensity["null"]
    # at 0.8 and at 1.2 the curve starts; it has left there at the next value
    assert (trained["leaves its start at, below 1"], trained["leaves its start at, above 1"]) == ("0.5", "1.5")
    assert "Leaves its start: " in table.note
    never = trends.filter(~pl.col("quantity").str.starts_with("leaves_"))
    assert "Leaves its start" not in trend_table(never, BRIGHTNESS, FIELD_TITLES, ["otsu"], "t", "T").note
    one_sided = trend_frame(panels(curves.filter(pl.col("value") >= 1)), BLUR, people)
    titles = [c.title for c in trend_table(one_sided, BLUR, FIELD_TITLES, ["otsu"], "t", "T").columns]
    assert "leaves its start at, above 0 of the side" in titles
    assert not any("below" in title for title in titles)


def test_two_people_have_neither_intervals_nor_a_null(evidence):
    two = statistics.coefficients(fit(study(num_images=2), Bootstrap(100)))
    table = rotation.coefficient_table(two, ["otsu"], "c", "C")
    assert {row["null"] for row in printed(table)} == {"–"}
    assert "too few independent blocks" in table.note
    assert "Brackets" not in table.note
    enough = rotation.coefficient_table(evidence[0], ["otsu"], "c", "C").note
    assert "Brackets: 95 %" in enough
    assert "too few" not in enough


def test_published_table_has_the_thesis_and_ours(evidence):
    table = published_table(evidence[2], evidence[3], labels(), FULL, "otsu")
    assert table.frame["dataset"].to_list() == ["mni152", "mni152", "BraTS", "Lung Mask Image", "Kvasir-SEG"]
    assert table.frame["source"].to_list()[:2] == ["this study, full field of view", "this study, inscribed circle"]
    assert "Not comparable" in table.note
    assert "| 0.627 | 0.658 | 90°, 180°, 270° | 45°, 135°, 225°, 315° | 0.47 | 75 |" in to_markdown(table)
    ours = evidence[2].filter(role="trained", field_of_view="full", binarisation="otsu").row(0, named=True)
    row = table.frame.row(0, named=True)
    assert (row["min"], row["max"], row["n"]) == (ours["min"], ours["max"], 6)
    assert row["all_ones_fraction"] == pytest.approx(0.12)
    assert set(row["maxima"].split(", ")) - {"5°", "355°"} == {"90°", "180°", "270°"}  # 0° is left out


THESIS = labels("brats", "tumour", method="smoothgrad_of_the_tool")
FULL = {"scale": "full", "pretraining_start": "released weights (moco.pth.tar)"}


@pytest.mark.parametrize(
    ("given", "changes", "says"),
    [
        (THESIS, {}, "there are other than 75 images."),
        (THESIS, {"scale": "laptop"}, "not comparable: the scale is laptop and not full and there are"),
        (THESIS, {"scale": ""}, "the scale is not recorded and not full and"),
        (THESIS, {"pretraining_start": "random weights"}, "pretrainings start from random weights and"),
        (THESIS, {"num_epochs": "1"}, "pretrainings have 1 epochs and"),
        (THESIS, {"sizes_fitted_to_the_data": "brats: batches of 2"}, "sizes were fitted to the data and"),
        (labels("brats", "tumour"), {}, "and the maps are not made as by the thesis's tool."),
        (labels("brats", "core"), {}, "Not comparable in level: brats · core is none of the thesis's curves"),
        (labels("brats", "tumour", method="occlusion"), {}, "brats · tumour · occlusion is none of the thesis's"),
    ],
)
def test_what_of_a_curve_differs_from_the_thesiss_is_said(evidence, given, changes, says):
    note = published_table(evidence[2], evidence[3], given, FULL | changes, "otsu").note
    assert says in note
    assert "may be compared, as far as" not in note


def test_levels_are_comparable_where_everything_that_is_published_agrees(evidence):
    of_75 = evidence[2].with_columns(n=pl.lit(75, pl.Int64))
    assert "The BraTS row may be compared, as far as" in published_table(of_75, evidence[3], THESIS, FULL, "otsu").note


def test_published_values_are_found_by_the_labels_of_a_curve():
    own = [("brats", "tumour"), ("lung_mask", "lungs"), ("kvasir", "polyp")]
    assert [rotation_curve(labels(*names)) for names in own] == list(ROTATION_CURVES)
    assert rotation_curve(THESIS) == ROTATION_CURVES[0]
    others = [("mni152", "white_matter"), ("folder-brats", "mask"), ("folder-kvasir", "polyp"), ("BraTS", "tumour"),
              ("brats", "core"), ("kvasir", "tumour"), ("", "")]  # fmt: skip
    for names in others:
        assert rotation_curve(labels(*names)) is None
    assert rotation_curve(labels("brats", "tumour", method="occlusion")) is None
    kvasir = rotation_curve(labels("kvasir", "polyp"))
    assert (kvasir.dataset, kvasir.maxima_deg, kvasir.figure) == ("Kvasir-SEG", (45, 135, 225, 315), "5.8")
    assert all_ones_mask_fraction(2 * 0.31 / 1.31) == pytest.approx(0.31)
