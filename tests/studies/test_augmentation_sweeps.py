"""The study of four sweeps as its user runs it, at scale smoke with two of them, on the packaged real images."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from orchestrator.store import Store
from studies.augmentation_sweeps import VALUES

STUDY = Path(__file__).parents[2] / "studies" / "augmentation_sweeps.py"


def run(folder, *flags):
    places = ["--storage", str(folder / "results"), "--cache-dir", str(folder / "cache")]
    command = [sys.executable, str(STUDY), "--scale", "smoke", "--pretrain-seeds", "1", *places, *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished study of blur and crop, and what its command printed."""
    folder = tmp_path_factory.mktemp("sweeps")
    done = run(folder, "--sweeps", "blur", "crop")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_one_pretraining_serves_all_sweeps_of_one_page(finished):
    folder, printed = finished
    manifest = next(Store(str(folder / "results")).manifests())
    kinds = [entry["class"] for entry in manifest["trials"]]
    assert (kinds.count("MoCo"), kinds.count("InterpretabilityCurve")) == (1, 10)
    pages = list((folder / "results/reports/augmentation_sweeps").rglob("report.html"))
    assert [page.parent.name for page in pages] == ["mni152-white_matter"]
    assert str(pages[0]) in printed


@pytest.mark.parametrize(
    ("sweep", "title", "moves"), [("blur", "Standard deviation of the blur", False), ("crop", "Side of the crop", True)]
)
def test_every_sweep_has_its_values_its_fields_and_its_answer(finished, sweep, title, moves):
    folder = finished[0] / "results/reports/augmentation_sweeps/mni152-white_matter"
    page = (folder / "report.html").read_text()
    assert f"<h2>{title}</h2>" in page
    assert f'<p class="answer">{title}: ' in page
    assert f"slope of Dice over the {title[0].lower()}{title[1:]}" in page
    table = pl.read_csv(folder / f"tables/{sweep}_levels.csv")
    assert set(table["field_of_view"]) == ({"full", "kept"} if moves else {"full"})
    assert set(table["num_values"]) == {len(VALUES["smoke"][sweep]) - 1}, "without the neutral one"
    trends = pl.read_csv(folder / f"tables/{sweep}_trends.csv")
    assert trends.filter(field_of_view="full")["role"].to_list() == [
        "trained", "untrained", "fixed map", "mask", "intensity",
    ]  # fmt: skip
    mask = table.filter(role="mask", field_of_view="full").row(0, named=True)
    assert (mask["mean"] == pytest.approx(1.0)) is not moves, "a blur moves no mask, a crop brings it back"


def test_no_published_curve_and_no_wave_is_shown(finished):
    page = (finished[0] / "results/reports/augmentation_sweeps/mni152-white_matter/report.html").read_text()
    assert "thesis 5.3" not in page
    assert "90° wave" not in page


def test_more_sweeps_are_a_matter_of_curves_only(finished):
    plan = json.loads(run(finished[0], "--plan", "--json").stdout)
    assert (plan["done"], plan["new"]) == (11, 10)
    new = {trial["name"].split(" · ")[2] for trial in plan["trials"] if trial["state"] == "new"}
    assert new == {"rotation", "brightness"}
    assert not any("MoCo" in trial["name"] for trial in plan["trials"] if trial["state"] == "new")


def test_an_unknown_sweep_or_region_is_refused_with_what_there_is(tmp_path):
    done = run(tmp_path, "--sweeps", "shear")
    assert done.returncode == 2
    assert "brightness" in done.stdout + done.stderr
    done = run(tmp_path, "--regions", "tumour", "--plan")
    assert done.returncode == 2
    assert "--regions tumour: mni152 has white_matter, grey_matter" in done.stderr
    assert not (tmp_path / "results").exists()


def test_full_scale_is_even_and_reaches_as_far_as_the_laptops():
    for sweep, values in VALUES["full"].items():
        steps = np.diff(values)
        np.testing.assert_allclose(steps, steps[0])
        assert max(values) >= max(VALUES["laptop"][sweep])
        assert min(values) <= min(VALUES["laptop"][sweep])
