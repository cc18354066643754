"""The main study as its user runs it, at scale smoke, on the packaged real images."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from orchestrator.graph import trials_of
from orchestrator.store import Store
from studies.rotation_period import make_study
from trainables.api.identity import FileDigests, Keys

STUDY = Path(__file__).parents[2] / "studies" / "rotation_period.py"
SET = "mni152 · white_matter · rotation"
ROLES = [
    "trained, seed 0",
    "trained, seed 1",
    "untrained, seed 0",
    "untrained, seed 1",
    "fixed map",
    "mask",
    "intensity",
]
REPORT = "results/reports/rotation_period/mni152-white_matter/report.html"


def command(folder, *flags):
    places = ["--storage", str(folder / "results"), "--cache-dir", str(folder / "cache")]
    return [sys.executable, str(STUDY), "--scale", "smoke", "--pretrain-seeds", "2", *places, *flags]


def run(folder, *flags):
    return subprocess.run(command(folder, *flags), capture_output=True, text=True, timeout=400, cwd=folder)


def results(folder):
    """Name -> (trial key, folder of its files) of a finished study; without the set of the curve."""
    store = Store(str(folder / "results"))
    manifest = next(store.manifests())
    return {
        t["name"].removeprefix(f"{SET} · "): (t["key"], store.fetch(t["key"], folder / "fetched"))
        for t in manifest["trials"]
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished study, and what its command printed."""
    folder = tmp_path_factory.mktemp("rotation")
    done = run(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_every_curve_is_there_with_all_its_rows(finished):
    found = results(finished[0])
    assert set(found) == {*ROLES, "trained, seed 0 / MoCo", "trained, seed 1 / MoCo"}
    frames = {role: pl.read_parquet(found[role][1] / "curve.parquet") for role in ROLES}
    for frame in frames.values():
        assert sorted(frame["value"].unique()) == [float(angle) for angle in range(0, 361, 15)]
        assert set(frame["field_of_view"]) == {"full", "kept"}
        assert frame["image_id"].n_unique() == 4
        assert frame["image_id"].unique().sort().equals(frames["mask"]["image_id"].unique().sort())
        assert np.isfinite(frame["dice"].to_numpy()).all()
    exact = pl.col("value") % 90 == 0
    ceiling = frames["mask"].filter(pl.col("binarisation") == "otsu")
    assert ceiling.filter(exact)["dice"].min() > 0.999
    assert ceiling.filter(~exact)["dice"].max() < 0.999
    # The encoder matters: trained and untrained ones all differ.
    curves = [frames[role]["dice"].to_numpy() for role in ROLES[:4]]
    assert all(np.abs(curves[a] - curves[b]).max() > 0.01 for a in range(4) for b in range(a))


def test_the_report_stands_alone_and_has_the_numbers_of_the_store(finished):
    folder, printed = finished
    report = folder / REPORT
    assert str(report) in printed
    page = report.read_text()
    for said in (
        "Rotation angle: ", "2 pretraining(s) against 2 untrained encoder(s)", "random start, pretrain_seed 0",
        "within one volume", "Nothing: every seed is in this report.", "How to reproduce", "4 images from",
        "trained · rotation · mni152 · white matter",
    ):  # fmt: skip
        assert said in page, said
    assert re.search(r"lies between 0\.\d+ \(at \d+°\) and 0\.\d+ \(at \d+°\)", page)
    assert 'src="http' not in page
    assert 'href="http' not in page
    suffixes = {path.suffix for path in report.parent.rglob("*") if path.is_file()}
    assert {".html", ".svg", ".png", ".md", ".tex", ".csv"} <= suffixes
    table = pl.read_csv(report.parent / "tables/rotation_levels.csv")
    assert table.filter(field_of_view="full")["role"].to_list() == [
        "trained", "untrained", "fixed map", "mask", "intensity",
    ]  # fmt: skip
    seeds = [pl.read_parquet(results(folder)[f"trained, seed {k}"][1] / "curve.parquet") for k in (0, 1)]
    changed = (
        pl.col("value").is_between(1, 359) & (pl.col("field_of_view") == "full") & (pl.col("binarisation") == "otsu")
    )
    mean = pl.concat(seeds).filter(changed)["dice"].mean()
    row = table.filter(role="trained", field_of_view="full").row(0, named=True)
    assert row["mean"] == pytest.approx(mean)
    assert (row["n"], row["num_seeds"], row["num_values"]) == (4, 2, 23)


def test_roles_cells_and_seeds_stand_in_the_manifest(finished):
    manifest = next(Store(str(finished[0] / "results")).manifests())
    named = [entry for entry in manifest["trials"] if entry["named"]]
    assert sorted(entry["role"] for entry in named) == sorted(role.partition(",")[0] for role in ROLES)
    for entry in named:
        assert entry["labels"] == {"data": "mni152", "region": "white_matter", "sweep": "rotation"}
    trained = [entry for entry in named if entry["role"] == "trained"]
    assert len({entry["cell"] for entry in trained}) == 1
    assert sorted(entry["seeds"]["encoder.pretrain_seed"] for entry in trained) == [0, 1]
    assert len({entry["cell"] for entry in named}) == 5
    assert manifest["cards"]["mni152"]["groups"] == "slabs of one volume"


def test_a_second_submission_computes_nothing(finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "results" / "trials").rglob("*") if path.is_file()}
    plan = json.loads(run(folder, "--plan", "--json").stdout)
    assert (plan["done"], plan["new"]) == (9, 0)
    done = run(folder)
    assert done.returncode == 0
    assert "9 of 9 trials are done" in done.stdout
    after = {path: path.stat().st_mtime_ns for path in (folder / "results" / "trials").rglob("*") if path.is_file()}
    assert after == before


def test_a_second_submission_loads_neither_what_runs_nor_what_draws(finished):
    watched = {"ray", "mlflow", "altair", "vl_convert", "scipy.signal", "torchvision", "analysis.pages.report"}
    script = (
        "import atexit, runpy, sys; sys.argv = sys.argv[1:]; "
        f"atexit.register(lambda: print(sorted({watched} & sys.modules.keys()), file=sys.stderr)); "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    _, *study = command(finished[0])
    done = subprocess.run([sys.executable, "-c", script, *study], capture_output=True, text=True, cwd=finished[0])
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert "report.html" in done.stdout


def test_another_seed_count_shares_what_is_the_same(finished):
    plan = json.loads(run(finished[0], "--pretrain-seeds", "3", "--plan", "--json").stdout)
    assert (plan["done"], plan["new"], plan["blocked"]) == (9, 3, 0)
    assert {t["name"] for t in plan["trials"] if t["state"] == "new"} == {
        f"{SET} · trained, seed 2", f"{SET} · trained, seed 2 / MoCo", f"{SET} · untrained, seed 2",
    }  # fmt: skip


def test_full_scale_is_the_thesis(small_brats):
    study = make_study(small_brats(96))
    trained = study.trials["brats · tumour · rotation · trained, seed 0"].trainable
    assert trained.values == tuple(range(361))
    assert trained.images.num == 75
    assert trained.method.num_samples == 50
    encoder = trained.encoder
    sizes = encoder.backbone, encoder.num_epochs, encoder.batch_size, encoder.learning_rate
    assert sizes == ("resnet50", 100, 4, 0.03)
    assert encoder.augmentation.choose == "one"
    # three pretrainings; trained and untrained for both forms of SmoothGrad, a fixed map for the one that has a map of
    # the unchanged image; mask and intensity
    assert len(trials_of(study, Keys(FileDigests()))) == 3 + 2 * (3 + 3) + 1 + 2
    assert study.cards["brats"].counts == {"train": 86, "val": 10}


def test_data_that_is_not_packaged_has_to_be_named(tmp_path):
    done = run(tmp_path, "--datasets", "brats")
    assert done.returncode == 2
    assert "--data-root" in done.stderr
    done = run(tmp_path, "--datasets", "brats", "--data-root", str(tmp_path / "none"))
    assert done.returncode == 2
    assert str(tmp_path / "none") in done.stderr
    assert not (tmp_path / "results").exists()
