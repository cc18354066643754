"""The report of a study of curves, from a store and a manifest to its pages."""

import json
import re
from html.parser import HTMLParser

import altair as alt
import polars as pl
import pytest
from reported import ANGLES, only, reported, section, small
from synthetic_curves import ROTATION
from synthetic_study import MADE, FabricatedStudy, labels, rotation_and_blur, sample_maps

from analysis.bootstrap import Bootstrap
from analysis.pages import report
from analysis.pages.evidence import curve_sets
from analysis.render import files, page
from analysis.render.style import Datasets, Figure
from analysis.results import load_study
from analysis.significance import Outcome
from trainables.api.names import START_FILE


class Addresses(HTMLParser):
    """Every address that an element of the page would load, and the scripts and styles."""

    def __init__(self):
        super().__init__()
        self.loaded, self.links, self.inside, self.texts = [], [], None, []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "srcset", "data", "poster") or (name == "href" and tag == "link"):
                self.loaded.append((tag, value))
            elif name == "href":
                self.links.append(value)
        self.inside = tag if tag in ("script", "style") else None

    def handle_data(self, content):
        if self.inside:
            self.texts.append((self.inside, content))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A whole report with everything drawn: a rotation and a blur sweep of twelve people."""
    folder = tmp_path_factory.mktemp("report")
    made = rotation_and_blur(folder, angles_deg=ANGLES)
    return made, report.curve_report(made.store, made.manifest, folder / "out")


@pytest.fixture(scope="module")
def html(written):
    return written[1][0].read_text()


# -- the whole page -------------------------------------------------------------------------------------------------


def test_the_page_loads_nothing_from_outside(html):
    parser = Addresses()
    parser.feed(html)
    assert parser.loaded
    assert all(tag == "img" and value.startswith("data:image/") for tag, value in parser.loaded)
    assert all(link.startswith("#section-") for link in parser.links)
    styles = [content for kind, content in parser.texts if kind == "style"]
    assert styles
    assert not any("url(" in content or "@import" in content for content in styles)


def test_charts_hold_their_data_and_the_library_stands_once(html):
    charts = re.findall(r'<script type="application/json" data-chart="chart-(\w+)">(.*?)</script>', html, re.S)
    assert [name for name, _ in charts] == [
        "rotation_curve", "rotation_binarisations", "rotation_coefficients", "blur_curve", "blur_binarisations",
        "pretraining",
    ]  # fmt: skip
    for name, content in charts:
        assert json.loads(content)["datasets"], name
        assert "http" not in content
        assert f'id="chart-{name}"' in html
    assert html.count("window.vegaEmbed=") == 1
    numbers = [int(number) for number in re.findall(r"Figure (\d+)\.", html)]
    assert numbers == list(range(1, 9)), "two pictures of sample maps among them"


def test_figures_and_tables_lie_beside_the_page(written):
    html_path, figures, tables = written[1]
    assert html_path.parent.name == "brats-tumour"
    charts = ["rotation_curve", "rotation_binarisations", "rotation_coefficients", "blur_curve", "blur_binarisations"]
    drawn = {f"{name}.{suffix}" for name in [*charts, "pretraining"] for suffix in ("svg", "png")}
    assert {path.name for path in figures.iterdir()} == drawn | {"samples-rotation.png", "samples-blur.png"}
    assert {path.suffix for path in tables.iterdir()} == {".md", ".tex", ".csv"}
    explained = pl.read_csv(tables / "rotation_explained.csv")
    assert explained.filter(role="untrained", field_of_view="full")["share_explained"].item() == pytest.approx(
        0.5, abs=0.02
    )
    trends = pl.read_csv(tables / "blur_trends.csv")
    assert trends.filter(role="trained", field_of_view="full")["slope"].item() == pytest.approx(-3.0, abs=0.05)


def test_the_answer_is_the_verdict_of_every_sweep(written, html):
    first, second = re.findall(r'<p class="answer">(.*?)</p>', section(html, "Answer"))
    assert first.startswith("Rotation angle: Learnt: training changes the 90° wave between the exact multiples of 90°")
    assert "by 0.02" in first
    assert second.startswith("Standard deviation of the blur: Learnt: training changes the slope of Dice over the ")
    assert "by −2.0" in second
    assert "3 pretraining(s) against 3 untrained encoder(s), p &lt; 0.001 after Holm" in first
    assert "Incomplete" not in html
    assert "Nothing: every seed is in this report." in section(html, "What is missing")


def test_the_page_says_what_it_is_about(written, html):
    for text in (
        "&lt;90°&gt; period", "brats · tumour: train 37, val 5", "by patient", "BraTS 2020", "0123abc", "scale laptop",
        "python studies/toy_curves.py --scale laptop", "&quot;num_samples&quot;: 10", "rotation angle 95°",
        "standard deviation of the blur 0.06 of the side", "they speak of patients like these 12",
        "thesis 5.3, Fig. 5.6",
    ):  # fmt: skip
        assert text in html, text


def test_the_numbers_of_the_findings_are_those_of_the_curves(written, html):
    frame = load_study(written[0].store, written[0].manifest)
    (found, _) = curve_sets(frame, Bootstrap(50))
    trained = found.frame.filter(role="trained", field_of_view="full", binarisation="otsu")
    by_angle = (
        trained.filter((pl.col("value") > 0) & (pl.col("value") < 360)).group_by("value").agg(pl.col("dice").mean())
    )
    (low, low_at), (high, high_at) = (by_angle.sort("dice").select("dice", "value").row(place) for place in (0, -1))
    said = f"over 12 images and 3 seed(s) lies between {low:.3f} (at {low_at:g}°) and {high:.3f} (at {high_at:g}°). "
    assert said in section(html, "Rotation angle")
    assert "Chance for maps of this size is 0.150, a map of ones everywhere has 0.214" in html


# -- starts, seeds, what is missing ---------------------------------------------------------------------------------


def test_the_page_says_how_pretrainings_really_started(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    made.curves(small(), ROTATION, labels())
    setup = section(only(reported(made, tmp_path / "out")), "Set-up")
    assert "random start, pretrain_seed 0: no pretrained weights were used; random start, pretrain_seed 1" in setup
    assert "asked_for.pth.tar" not in setup
    released = FabricatedStudy(tmp_path / "released")
    released.pretraining(0, "continued from released.pth.tar (321 tensors)")
    released.curves(small(1), ROTATION, labels())
    html = only(reported(released, tmp_path / "out2"))
    assert "continued from released.pth.tar (321 tensors)" in section(html, "Set-up")
    assert "started from random weights" not in html
    assert "started from random weights" in only(reported(made, tmp_path / "out"))


def test_missing_seeds_are_counted_and_asked_for(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    made.curves(small(), ROTATION, labels())
    made.pretraining(2, is_done=False)
    made.add("t2", "trained", labels(), {"encoder.pretrain_seed": 2}, upstream=["moco-2"])
    made.add("u3", "untrained", labels(), {"encoder.init_seed": 3})
    made.fail("u3", "bad configuration", "killed <twice>")
    html = only(reported(made, tmp_path / "out"))
    rows = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", section(html, "What is missing"))
    assert [name for name, _ in rows] == [
        "trained · rotation · mni152 · white matter: 2 of 3 seeds",
        "untrained · rotation · mni152 · white matter: 3 of 4 seeds",
    ]
    assert "pretrain_seed 2 (waits for a trial without result (not finished))" in rows[0][1]
    assert "init_seed 3 (invalid: killed &lt;twice&gt;)" in rows[1][1]
    assert "--retry-failed" in rows[1][1]
    assert "Incomplete: trained · rotation · mni152 · white matter: 2 of 3 seeds;" in section(html, "Answer")
    assert "2 seed(s)" in html


def test_every_page_speaks_of_its_own_data_only(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    grey = labels(region="grey_matter")
    for given in (labels(), grey):
        made.curves(small(1), ROTATION, given, samples=False)
    made.add("t7", "trained", grey, {"encoder.pretrain_seed": 7})
    pages = reported(made, tmp_path / "out")
    white, grey_page = pages["mni152-white_matter"], pages["mni152-grey_matter"]
    assert "Nothing: every seed is in this report." in white
    assert "grey_matter" not in white
    assert "trained · rotation · mni152 · grey matter: 1 of 2 seeds" in grey_page
    assert "white_matter" not in grey_page


def test_seeds_of_different_machines_are_a_caveat(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    made.curves(small(1), ROTATION, labels())
    rows = small().filter(role="trained", seed="1")
    made.curve(rows, ROTATION, labels(), "trained", "1", upstream=[made.pretraining(1)], made=MADE | {"device": "H100"})
    caveats = section(only(reported(made, tmp_path / "out")), "Caveats")
    assert "rotation · mni152 · white matter: its seeds were computed with different device (H100, cpu)" in caveats


# -- how it is written ----------------------------------------------------------------------------------------------


def test_data_cannot_end_the_script_element():
    datasets = Datasets()
    chart = alt.Chart(datasets.add(pl.DataFrame({"x": ["</script><script>alert(1)"]}))).mark_point().encode(x="x:N")
    html = page.figure(1, Figure("name", "Title", "Caption", chart, datasets), "<svg/>")
    assert html.count("<script") == html.count("</script>") == 1
    content = re.search(r"<script[^>]*>(.*)</script>", html)[1]
    assert json.loads(content)["datasets"]["data-0"][0]["x"] == "</script><script>alert(1)"


def test_an_interrupted_write_leaves_the_former_page(plain, tmp_path, monkeypatch):
    made = FabricatedStudy(tmp_path)
    made.curves(small(1), ROTATION, labels(), samples=False)
    before = reported(made, tmp_path / "out")

    def interrupted(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reported(made, tmp_path / "out")
    assert (tmp_path / "out/mni152-white_matter/report.html").read_text() == only(before)
    left = [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")]
    assert left == [], "a temporary file was left behind"


def test_verdicts_know_every_outcome():
    assert {outcome.name for outcome in Outcome} == {
        "LEARNT",
        "NOT_TOLD_APART",
        "THIS_ENCODER",
        "NO_INTERVAL",
        "UNKNOWN",
    }


def test_the_file_of_the_start_is_the_one_that_pretrainings_write():
    assert START_FILE == "artifacts/provenance.json"
    assert set(sample_maps()) == {
        "image_id",
        "images_KHW",
        "masks_KHW",
        "values",
        "views_KVHW",
        "view_maps_KVHW",
        "maps_KVHW",
    }
