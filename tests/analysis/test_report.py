"""The report of a study of curves, from a store and a manifest to its pages."""

import json
import re
from html.parser import HTMLParser

import altair as alt
import numpy as np
import polars as pl
import pytest
from synthetic_curves import BLUR, ROTATION, frame, study
from synthetic_study import BRATS, MADE, MNI152, FabricatedStudy, blur, labels, rotation_and_blur, sample_maps

from analysis import health
from analysis.bootstrap import Bootstrap
from analysis.curves import figures as curve_figures
from analysis.curves.sweep import SweepFacts
from analysis.pages import page as curve_page
from analysis.pages import report
from analysis.pages.evidence import curve_sets
from analysis.render import files, page
from analysis.render.style import Datasets, Figure
from analysis.results import load_study
from analysis.rotation import figures as wave_figures
from analysis.significance import Comparison, Outcome, holm, seed_test
from trainables.api.names import START_FILE

ANGLES = np.arange(0, 361, 15.0)


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


@pytest.fixture
def plain(monkeypatch):
    """Pages without drawings and with few resamples: what is said, in a second."""
    for module, name in ((curve_figures, "_small"), (wave_figures, "_plane"), (health, "_panel")):
        monkeypatch.setattr(module, name, lambda *_: alt.Chart(alt.NamedData("none")).mark_point())
    monkeypatch.setattr(curve_figures, "_column", lambda *_: [alt.Chart(alt.NamedData("none")).mark_point()])
    monkeypatch.setattr(curve_page, "write_figures", lambda figures, folder: {f.name: "<svg/>" for f in figures})
    monkeypatch.setattr(page, "_library", lambda: "")
    monkeypatch.setattr(report, "Bootstrap", lambda: Bootstrap(100))


def reported(made, folder):
    """Name of the page's folder -> its HTML."""
    paths = report.curve_report(made.store, made.manifest, folder)
    return {path.parent.name: path.read_text() for path in paths if path.name == "report.html"}


def only(pages):
    (html,) = pages.values()
    return html


def section(html, name):
    return re.search(rf"<h2>{name}</h2>\n(.*?)</section>", html, re.S)[1]


def small(num_trained=2, num_images=4, **changes):
    """A rotation on a coarse grid, quickly made."""
    amplitudes = tuple(0.03 + 0.001 * k for k in range(num_trained))
    shape = {
        "num_images": num_images,
        "angles_deg": ANGLES,
        "trained_amplitudes": amplitudes,
        "binarisations": ["otsu"],
    }
    return study(**(shape | changes))


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
    low, high = by_angle["dice"].min(), by_angle["dice"].max()
    assert f"over 12 images and 3 seed(s) lies between {low:.3f} (at " in section(html, "Rotation angle")
    assert f" and {high:.3f} (at " in section(html, "Rotation angle")
    assert "chance for maps of this size is 0.150, a map of ones everywhere has 0.214" in html


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
        "trained · mni152 · white matter · rotation: 2 of 3 seeds",
        "untrained · mni152 · white matter · rotation: 3 of 4 seeds",
    ]
    assert "pretrain_seed 2 (waits for a trial without result (not finished))" in rows[0][1]
    assert "init_seed 3 (bad configuration: killed &lt;twice&gt;)" in rows[1][1]
    assert "--retry-failed" in rows[1][1]
    assert "Incomplete: trained · mni152 · white matter · rotation: 2 of 3 seeds;" in section(html, "Answer")
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
    assert "trained · mni152 · grey matter · rotation: 1 of 2 seeds" in grey_page
    assert "white_matter" not in grey_page


def test_seeds_of_different_machines_are_a_caveat(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    made.curves(small(1), ROTATION, labels())
    rows = small().filter(role="trained", seed="1")
    made.curve(rows, ROTATION, labels(), "trained", "1", upstream=[made.pretraining(1)], made=MADE | {"device": "H100"})
    caveats = section(only(reported(made, tmp_path / "out")), "Caveats")
    assert "rotation: its seeds were computed with different device (H100, cpu)" in caveats


# -- verdicts, both ways --------------------------------------------------------------------------------------------


def answer_of(folder, rows, sweep=ROTATION, cards=(BRATS,), data="brats"):
    made = FabricatedStudy(folder, list(cards))
    made.curves(rows, sweep, labels(data, "tumour", sweep.name.lower()), samples=False)
    html = only(reported(made, folder / "out"))
    return re.search(r'<p class="answer">(.*?)</p>', html)[1], html


WAVE = {"angles_deg": ANGLES, "num_images": 8, "noise": 0.002, "binarisations": ["otsu"]}


def test_encoders_alike_cannot_be_told_apart(plain, tmp_path):
    said, _ = answer_of(tmp_path, study(**WAVE, trained_amplitudes=(0.019, 0.02, 0.0212)))
    assert "cannot be told apart" in said
    assert "Learnt" not in said
    said, _ = answer_of(tmp_path / "blur", blur(8, (-3.0, -1.0, 1.0), (-2.5, -0.4, 0.9)), BLUR)
    assert (
        "slope of Dice over the standard deviation of the blur of trained and untrained encoders cannot be told" in said
    )


def test_training_that_makes_the_wave_smaller_is_learnt_too(plain, tmp_path):
    said, html = answer_of(tmp_path, study(**WAVE, trained_amplitudes=(0.0, 0.0005, -0.0005)))
    assert "Learnt: training changes the 90° wave" in said
    assert "which cannot be told from none" in html
    assert "controls have at the same phase" not in html, "shares of nothing must not be quoted"


def test_a_slope_that_training_raises_has_its_sign(plain, tmp_path):
    said, html = answer_of(tmp_path, blur(8, (1.0, 1.1, 0.9), (-1.0, -1.1, -0.9)), BLUR)
    assert re.search(r"by \+(1\.9|2\.0)\d+ \[\+", said)
    assert "it rises." in html


def test_one_volume_is_no_people(plain, tmp_path):
    slabs = [f"slab {i // 2}" for i in range(8)]
    rows = study(**WAVE, trained_amplitudes=(0.039, 0.04, 0.041), groups=slabs)
    said, html = answer_of(tmp_path, rows, cards=[MNI152], data="mni152")
    assert "On these images training changes the 90° wave" in said
    assert "of others nothing is said: one volume has no interval for people" in said
    assert "8 images from 4 slab(s) of one volume" in section(html, "Caveats")
    assert "ICBM licence &lt;free &amp; open&gt;" in section(html, "Set-up")


def test_images_whose_patients_are_not_known_have_a_verdict_that_says_so(plain, tmp_path):
    rows = study(**WAVE, trained_amplitudes=(0.039, 0.04, 0.041))
    said, html = answer_of(tmp_path, rows, cards=[BRATS | {"name": "kvasir", "groups": "images"}], data="kvasir")
    assert "Learnt" in said
    assert "over blocks of images (images like these; patients are not known)." in said
    caveat = "8 images; which of them are of one patient is not known. Intervals speak of images like these."
    assert caveat in section(html, "Caveats")
    assert "patients or volumes" not in html


@pytest.mark.parametrize(
    ("kind", "groups", "said"),
    [("patients", "abcd", "from 4 patients. Intervals speak of patients like these, not of other data sets."),
     ("volumes", "abcd", "from 4 volumes. Intervals speak of volumes like these"),
     ("patients", "ab", "from 2 patients: fewer than 3 say nothing about others."),
     ("volumes", "a", "from 1 volume: fewer than 3")],
)  # fmt: skip
def test_a_caveat_says_what_the_groups_are(plain, tmp_path, kind, groups, said):
    names = [groups[i * len(groups) // 8] for i in range(8)]
    rows = study(**WAVE, trained_amplitudes=(0.039, 0.04, 0.041), groups=names)
    _, html = answer_of(tmp_path, rows, cards=[BRATS | {"groups": kind}])
    assert f"8 images {said}" in section(html, "Caveats")


def test_one_pretraining_is_said_of_this_encoder(plain, tmp_path):
    said, html = answer_of(tmp_path, study(**WAVE, trained_amplitudes=(0.04,)))
    assert "This encoder's 90° wave" in said.replace("&#x27;", "'")
    assert "One pretraining: what is said is said of this encoder. --pretrain-seeds varies it." in section(
        html, "Caveats"
    )


def test_the_family_of_holm_is_every_set_of_the_study(plain, tmp_path, monkeypatch):
    made = FabricatedStudy(tmp_path, [BRATS, MNI152])
    noisy = (-3.0, -2.0, -2.5)
    for given in (labels("brats", "tumour", "blur"), labels("brats", "core", "blur"), labels("mni152", sweep="blur")):
        made.curves(blur(6, noisy, seed=len(made.trials)), BLUR, given, samples=False)
    made.curves(small(), ROTATION, labels("brats", "tumour"), samples=False)
    seen, sizes = [], []

    def watched(family, size):
        seen.append(family)
        sizes.append(size)
        return original(family, size)

    monkeypatch.setattr(report, "verdicts", watched)
    pages = reported(made, tmp_path / "out")
    assert list(pages) == ["brats-tumour", "brats-core", "mni152-white_matter"]
    (family,) = seen
    assert len(family) == 4
    assert all(isinstance(comparison, Comparison) for comparison in family.values())
    tests = [seed_test(c.trained_SN.mean(axis=1), c.untrained_SN.mean(axis=1)) for c in family.values()]
    adjusted = holm([test.p for test in tests])
    assert sizes == [4]
    assert adjusted[1] > tests[1].p
    assert f"p = {adjusted[1]:.3f} after Holm" in pages["brats-core"]
    assert [c.kind for c in family.values()] == ["patients", "patients", "slabs of one volume", "patients"]


def test_sets_that_are_planned_count_in_the_family_before_they_are_there(plain, tmp_path, monkeypatch):
    made = FabricatedStudy(tmp_path, [BRATS])
    made.curves(blur(6, (-3.0, -2.0, -2.5)), BLUR, labels("brats", "tumour", "blur"), samples=False)
    for number in range(2):
        for role in ("trained", "untrained"):
            made.add(f"{role}-later-{number}", role, labels("brats", "core"), {"seed": number})
    made.add("mask-later", "mask", labels("brats", "oedema"))
    made.add("one-later", "trained", labels("brats", "oedema"))
    sizes = []
    monkeypatch.setattr(report, "verdicts", lambda family, size: sizes.append((len(family), size)) or original(family))
    reported(made, tmp_path / "out")
    assert sizes == [(1, 2)], "a set of one seed has no test"


original = report.verdicts


# -- published curves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "region", "published"),
    [("brats", "tumour", "BraTS"), ("kvasir", "polyp", "Kvasir-SEG"), ("lung_mask", "lungs", "Lung Mask Image"),
     ("mni152", "white_matter", None), ("folder-kvasir", "mask", None), ("brats", "core", None)],
)  # fmt: skip
def test_published_extrema_are_worn_by_the_thesiss_images_and_regions_only(plain, tmp_path, data, region, published):
    made = FabricatedStudy(tmp_path, [BRATS | {"name": data}])
    made.curves(small(1), ROTATION, labels(data, region), samples=False)
    html = only(reported(made, tmp_path / "out"))
    assert re.findall(r"extrema published for ([\w -]+) \(", html) == ([published] if published else [])
    assert html.count("Not comparable in level") == (published is None)
    assert (f"The {published} row is of these images, but its level is not" in html) is (published is not None)


def test_no_published_extrema_on_a_blur(plain, tmp_path):
    _, html = answer_of(tmp_path, blur(4), BLUR)
    assert "published" not in html


# -- odd studies ----------------------------------------------------------------------------------------------------


def test_two_methods_of_one_sweep_stand_on_one_page_with_files_of_their_own(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    made.curves(small(1), ROTATION, labels())
    made.curves(small(1, trained_amplitudes=(0.06,)), ROTATION, labels(method="smoothgrad_of_the_tool"))
    pages = reported(made, tmp_path / "out")
    html = only(pages)
    for heading in ("Rotation angle", "Rotation angle, smoothgrad_of_the_tool"):
        assert f"<h2>{heading}</h2>" in html
        assert f'<p class="answer">{heading}: ' in html
    tables = tmp_path / "out" / "mni152-white_matter" / "tables"
    amplitudes = []
    for name in ("rotation", "rotation-smoothgrad_of_the_tool"):
        table = pl.read_csv(tables / f"{name}_coefficients.csv")
        amplitudes.append(table.filter(role="trained", field_of_view="full")["amplitude"].item())
    assert amplitudes == pytest.approx([0.03, 0.06], abs=0.005)


def test_labels_that_were_written_and_read_again_change_nothing(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    made.curves(small(1), ROTATION, labels(method="other"), samples=False)
    first = reported(made, tmp_path / "out")
    made.manifest = json.loads(json.dumps(made.manifest, sort_keys=True))
    assert reported(made, tmp_path / "again") == first


def test_only_untrained_curves_are_finished(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    made.curves(small(leave_out=("trained", "fixed map", "mask", "intensity")), ROTATION, labels())
    made.add("t0", "trained", labels(), {"encoder.pretrain_seed": 0}, upstream=[made.pretraining(0, is_done=False)])
    html = only(reported(made, tmp_path / "out"))
    assert "cannot be answered from what is there: no trained encoder was measured" in html
    assert "No trained encoder was measured." in html
    assert "no pretraining is finished" in html
    assert "rotation: 0 of 1 seeds" in html


def test_only_a_mask_is_finished(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    made.curves(small().filter(role="mask"), ROTATION, labels())
    html = only(reported(made, tmp_path / "out"))
    assert "no trained encoder was measured; no untrained encoder was measured" in html


def test_a_region_and_a_sweep_without_any_finished_curve_are_said_to_be_missing(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    made.add("t0", "trained", labels(region="grey_matter"), {"encoder.pretrain_seed": 0})
    made.curves(small(1), ROTATION, labels(), samples=False)
    made.add("t1", "trained", labels(sweep="blur"), {"encoder.pretrain_seed": 0})
    pages = reported(made, tmp_path / "out")
    assert list(pages) == ["mni152-grey_matter", "mni152-white_matter"], "in the order of the manifest"
    grey, white = pages.values()
    assert "cannot be answered yet: no curve of mni152 · grey_matter is finished" in section(grey, "Answer")
    assert "trained · mni152 · grey matter · rotation: 0 of 1 seeds" in section(grey, "What is missing")
    assert "images from" not in section(grey, "Caveats")
    assert "trained · mni152 · white matter · blur: 0 of 1 seeds" in section(white, "What is missing")
    assert "blur: 0 of 1 seeds" in section(white, "Answer")


def test_folders_whose_names_are_nearly_alike_have_pages_of_their_own(plain, tmp_path):
    names = ["folder-a b", "folder-a_b", "folder-a/b"]
    made = FabricatedStudy(tmp_path, [MNI152 | {"name": name} for name in names])
    for name in names:
        made.add(f"t{name}", "trained", labels(name, "mask"), {"encoder.pretrain_seed": 0})
    pages = reported(made, tmp_path / "out")
    assert len(pages) == 3
    assert "folder-a_b-mask" in pages, "a name that can be kept is kept"
    for name, html in zip(names, pages.values(), strict=True):
        assert f"no curve of {name} · mask is finished" in html


def test_names_of_files_tell_their_parts_apart():
    assert files.file_name("mni152", "white_matter") == "mni152-white_matter"
    alike = [("a b", "c"), ("a_b", "c"), ("a/b", "c"), ("a", "b-c"), ("a-b", "c"), ("..", "c"), ("_.", "c")]
    names = [files.file_name(*parts) for parts in alike]
    assert len(set(names)) == len(alike)
    assert not any("/" in name or name.startswith(".") for name in names)
    assert files.file_name("a b", "c") == names[0]


def test_one_image_has_no_intervals(plain, tmp_path):
    html = only(reported_one(tmp_path, small(num_images=1), ROTATION))
    assert "too few independent blocks of images for an interval" in html
    assert "over 1 images and 2 seed(s)" in html
    html = only(reported_one(tmp_path / "blur", blur(1), BLUR))
    assert "too few independent blocks of images for an interval" in html


def reported_one(folder, rows, sweep):
    made = FabricatedStudy(folder)
    made.curves(rows, sweep, labels(sweep=sweep.name), samples=False)
    return reported(made, folder / "out")


def test_one_value_carries_neither_trend_nor_wave(plain, tmp_path):
    html = only(reported_one(tmp_path, blur(4).filter(pl.col("value").is_in([0.0, 0.04])), BLUR))
    assert "cannot be answered from what is there: a trend needs 2 values besides the neutral 0, got [0.04]" in html
    html = only(reported_one(tmp_path / "wave", small().filter(pl.col("value").is_in([0.0, 90.0])), ROTATION))
    assert "there is no angle to fit the wave to; add angles between the multiples of 90°" in html
    alone = only(reported_one(tmp_path / "alone", blur(4).filter(value=0.04), BLUR))
    assert "got [0.04]" in alone


def test_coarse_angles_are_said(plain, tmp_path):
    html = only(reported_one(tmp_path, study(2, np.arange(0, 361, 45.0)), ROTATION))
    assert "this grid resolves 0" in section(html, "Answer")
    assert "The grid of angles is too coarse" in html


def test_curves_of_different_values_are_refused_by_name(tmp_path):
    made = FabricatedStudy(tmp_path)
    rows = small(1)
    made.curves(
        rows.filter((pl.col("role") != "mask") | (pl.col("value") % 30 == 0)), ROTATION, labels(), samples=False
    )
    said = (
        "mni152 · white_matter · rotation: trained was measured at 23 values from 15 to 345 and mask at 11 values from"
    )
    with pytest.raises(ValueError, match=said):
        report.curve_report(made.store, made.manifest, tmp_path / "out")
    seeds = FabricatedStudy(tmp_path / "seeds")
    odd = (pl.col("role") == "untrained") & (pl.col("seed") == "1") & (pl.col("value") == 45)
    seeds.curves(rows.filter(~odd), ROTATION, labels(), samples=False)
    with pytest.raises(
        ValueError, match=r"the seeds \['0', '1', '2'\] of 'untrained' were measured at different values"
    ):
        report.curve_report(seeds.store, seeds.manifest, tmp_path / "out")


def test_a_method_that_has_no_map_at_the_neutral_value_may_lack_it(plain, tmp_path):
    rows = small(1).filter((pl.col("role") == "mask") | ~pl.col("value").is_in([0.0, 360.0]))
    assert "This encoder" in only(reported_one(tmp_path, rows, ROTATION))


def test_a_released_encoder_is_shown_and_no_control(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    made.curves(small(1), ROTATION, labels())
    values = np.tile(0.5 + 0.01 * np.cos(4 * np.deg2rad(ANGLES)), (4, 1))
    rows = frame("released", values, ANGLES, fields=("full", "kept"))
    made.curve(rows, ROTATION, labels(), "released", "0")
    html = only(reported(made, tmp_path / "out"))
    table = pl.read_csv(tmp_path / "out/mni152-white_matter/tables/rotation_levels.csv")
    assert table["role"].unique(maintain_order=True).to_list()[:4] == ["trained", "untrained", "released", "fixed map"]
    assert "released · mni152 · white matter · rotation" in section(html, "Set-up")
    assert "one training (n = 1): its curve has no spread over seeds" in section(html, "Caveats")


def test_seeds_that_differ_in_several_fields_are_all_counted(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    rows = small(1)
    made.curves(rows.filter(pl.col("role") != "untrained"), ROTATION, labels())
    one = rows.filter(role="untrained", seed="0")
    for place, (init, choice) in enumerate([(0, 0), (0, 1), (1, 0), (10, 1)]):
        part = one.with_columns(pl.col("dice") + 0.001 * place)
        made.curve(part, ROTATION, labels(), "untrained", str(place))
        made.trials[-1]["seeds"] = {"encoder.init_seed": init, "images.selection_seed": choice, "split_seed": 5}
    (found,) = curve_sets(load_study(made.store, made.manifest), Bootstrap(20))
    assert found.headline_panel.curves["untrained"].seeds == ("0,0", "0,1", "1,0", "10,1")
    assert len(found.comparison.untrained_SN) == 4
    assert "2 untrained" not in only(reported(made, tmp_path / "out"))


def test_images_that_one_curve_lacks_are_left_out_of_all_and_said(plain, tmp_path):
    rows = small(1).filter((pl.col("role") != "mask") | (pl.col("image_id") != "image 02"))
    html = only(reported_one(tmp_path, rows, ROTATION))
    assert "over 3 images" in html
    assert "1 image(s) without finite Dice in every curve were left out" in section(html, "Caveats")
    other = pl.when(pl.col("role") == "mask").then(pl.lit("x")).otherwise("image_id").alias("image_id")
    with pytest.raises(ValueError, match="must measure the same images"):
        reported_one(tmp_path / "none", rows.with_columns(other), ROTATION)


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


# -- what noise would give ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("amplitude", "is_more"), [(0.05, True), (0.0, False)])
def test_a_range_is_told_from_that_of_noise_and_extrema_of_noise_stand_in_brackets(plain, tmp_path, amplitude, is_more):
    made = FabricatedStudy(tmp_path, [BRATS])
    angles = np.arange(0, 361, 10.0)
    rows = small(1, 8, trained_amplitudes=(amplitude,), angles_deg=angles, noise=0.01, peaks=())
    spike = pl.when(pl.col("value") % 90 == 0).then(-0.02).otherwise(0.0)
    rows = rows.with_columns(pl.col("dice") - spike)
    made.curves(rows, ROTATION, labels("brats", "tumour"), samples=False)
    html = only(reported(made, tmp_path / "out"))
    assert ("more than noise between blocks of images alone gives" in html) is is_more
    assert ("alone may give such a range" in html) is not is_more
    published = html.split("Published rotation curves beside ours")[1].split("<tbody>")[1].split("</tr>")[0]
    assert ("(" in published) is not is_more
    assert "of cases; extrema of the curve that are no more prominent stand in brackets" in html


def test_nothing_is_said_of_noise_from_too_few_blocks(plain, tmp_path):
    made = FabricatedStudy(tmp_path, [BRATS])
    made.curves(small(1, 2), ROTATION, labels("brats", "tumour"), samples=False)
    html = only(reported(made, tmp_path / "out"))
    assert "too few independent blocks of images to say what of this range noise alone would give" in html
    assert "too few independent blocks of images to tell extrema from those of noise" in html


def test_a_sweep_with_another_period_is_shown_and_nothing_is_concluded(plain, tmp_path):
    hue = SweepFacts("Hue", "hue", "", 1.0, 0.0)
    made = FabricatedStudy(tmp_path, [BRATS])
    rows = small(2).with_columns(pl.col("value") / 360)
    made.curves(rows, hue, labels("brats", "tumour", "hue"), samples=False)
    html = only(reported(made, tmp_path / "out"))
    assert "no coefficient is known to conclude on over the hue, which has a period" in html
    assert "over 4 images and 2 seed(s) lies between" in html
    for word in ("90°", "ublished", "Learnt", "nscribed circle", "slope"):
        assert word not in section(html, "Hue")
