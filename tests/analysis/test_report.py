import dataclasses
import json
import re
from html.parser import HTMLParser

import altair as alt
import numpy as np
import polars as pl
import pytest
from synthetic_curves import GRID_5, study
from synthetic_report import inputs

from analysis.render import files, page
from analysis.render.style import Datasets, Figure
from analysis.resampling import Bootstrap
from analysis.rotation import findings
from analysis.rotation import page as report
from analysis.statistics import look_up

SEEDS = [f"untrained seed {k}" for k in range(3)]


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
    folder = tmp_path_factory.mktemp("report")
    given = inputs(study(num_images=8), missing=[("intensity", "killed <twice>")])
    return given, report.write_report(given, folder)


@pytest.fixture(scope="module")
def html(written):
    return written[1].report_html.read_text()


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
    assert [name for name, _ in charts] == ["rotation_curve", "pretraining", "binarisations", "coefficients"]
    for name, content in charts:
        specification = json.loads(content)
        assert specification["datasets"], name
        assert "http" not in content
        assert f'id="chart-{name}"' in html
    assert html.count("window.vegaEmbed=") == 1


def test_the_page_holds_the_numbers_of_the_statistics(written, html):
    evidence = report.gather(written[0])
    value, low, high = look_up(evidence.explained, "untrained mean", "full", "otsu", "remainder")
    assert f"{value:.4f} [{low:.4f}, {high:.4f}]" in html
    value, low, high = look_up(evidence.coefficients, "trained", "circle", "otsu", "amplitude")
    assert f"{value:.4f} [{low:.4f}, {high:.4f}]" in html
    assert "0.627" in html
    assert "thesis 5.3, Fig. 5.8" in html


def test_the_page_says_what_it_is_about(written, html):
    for text in (
        written[0].setup.question, "ICBM licence &lt;free &amp; open&gt;", "random weights", "0123abc",
        "python studies/rotation_period.py --scale laptop", "killed &lt;twice&gt;", "Not comparable in level",
        "&quot;num_samples&quot;: 10", "rotated by 95°",
    ):  # fmt: skip
        assert text in html, text


def test_data_cannot_end_the_script_element():
    datasets = Datasets()
    chart = alt.Chart(datasets.add(pl.DataFrame({"x": ["</script><script>alert(1)"]}))).mark_point().encode(x="x:N")
    html = page.figure(1, Figure("name", "Title", "Caption", chart, datasets), "<svg/>")
    assert html.count("<script") == html.count("</script>") == 1
    content = re.search(r"<script[^>]*>(.*)</script>", html)[1]
    assert json.loads(content)["datasets"]["data-0"][0]["x"] == "</script><script>alert(1)"


def test_a_smoke_study_of_two_images_and_eight_angles_still_gets_its_report(tmp_path):
    curves = study(num_images=2, angles_deg=np.arange(0, 361, 45.0))
    given = inputs(curves)
    only_0 = {name: content | {"angles_deg": np.array([0.0])} for name, content in given.samples.items()}
    given = dataclasses.replace(given, samples=only_0)
    html = report.write_report(given, tmp_path).report_html.read_text()
    assert "the grid of angles is too coarse" in html
    assert "published none at 0° and at another angle" in html
    assert "–" in (tmp_path / "tables" / "coefficients.md").read_text()


def test_figures_and_tables_lie_beside_the_page(written):
    paths = written[1]
    names = {path.name for path in paths.figures.iterdir()}
    assert names == {f"{n}.{s}" for n in ("rotation_curve", "binarisations", "coefficients", "pretraining")
                     for s in ("svg", "png")} | {"samples.png"}  # fmt: skip
    assert {path.suffix for path in paths.tables.iterdir()} == {".md", ".tex", ".csv"}
    explained = pl.read_csv(paths.tables / "explained.csv")
    assert "share_explained" in explained.columns


def test_missing_curves_samples_and_history_are_listed(tmp_path):
    curves = study(num_images=4, leave_out=[*SEEDS, "intensity"])
    given = inputs(curves, samples=False, missing=[("trained / MoCo", "still running")], history=pl.DataFrame(
        schema={"metric": pl.String, "step": pl.Int64, "value": pl.Float64}))  # fmt: skip
    html = report.write_report(given, tmp_path).report_html.read_text()
    missing = html[html.index("<h2>What is missing</h2>") : html.index("<h2>Caveats</h2>")]
    for name in (*SEEDS, "intensity", "trained / MoCo", "still running", "sample maps", "history of the pretraining"):
        assert name in missing, name
    assert "no untrained encoder was measured" in html
    assert "fixed map" not in missing


def test_a_report_without_any_curve(tmp_path):
    html = report.write_report(inputs(pl.DataFrame(), samples=False), tmp_path).report_html.read_text()
    assert "No curve has been measured yet" in html
    assert "mask ceiling" in html[html.index("<h2>What is missing</h2>") :]


def test_unknown_binarisation_is_refused():
    with pytest.raises(ValueError, match=r"'mean' was not measured; the curves hold \['otsu'"):
        report.gather(inputs(study(num_images=3), binarisation="mean"))


def test_an_interrupted_write_leaves_the_former_page(tmp_path, monkeypatch):
    given = inputs(study(num_images=3, angles_deg=GRID_5), samples=False)
    monkeypatch.setattr(page, "_library", lambda: "")
    monkeypatch.setattr(report, "_figures", lambda *_: [])
    path = report.write_report(given, tmp_path).report_html
    before = path.read_bytes()

    def interrupted(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        report.write_report(given, tmp_path)
    assert path.read_bytes() == before
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")], "a temporary file was left behind"


def said(**changes):
    evidence = report.gather(inputs(study(num_images=16, noise=0.004, **changes), bootstrap=Bootstrap(200)))
    found = [line for lines in findings.sentences(evidence).values() for line in lines]
    return findings.headline(evidence), " ".join(found)


def test_headline_when_nothing_is_left():
    headline, found = said()
    assert headline.startswith("Nothing distinguishable is left to training")
    # The draws of the three synthetic untrained curves differ a little; a difference within theirs is no finding.
    assert headline.endswith("one untrained seed lies as far from the others: this may be the luck of a seed.")
    assert "is not above the null" in found
    assert "a peak for otsu (full) and otsu (circle); a dip for top_area (full)" in found
    assert "decided by how the map is made binary" in found


def test_headline_when_training_enlarges_or_removes_the_wave():
    headline, found = said(trained_amplitude=0.04)
    assert headline.startswith("Training changes the 90° wave")
    assert re.search(r"the trained wave being larger \(0\.0(39|40)\d against 0\.0(19|20)\d\)", headline)
    assert "is above the null" in found
    headline, found = said(trained_amplitude=0.0)
    assert "training takes the wave away" in headline
    assert "which cannot be told from none" in found
    assert "controls have at the same phase" not in found, "shares of nothing must not be quoted"


def test_signs_agree_with_all_binarisations():
    _, found = said(peaks=())
    assert "a peak for" not in found
    assert "decided by" not in found
    assert "the curve drops: −0.0" in found
