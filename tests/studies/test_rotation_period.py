"""The main study as its user runs it, at scale smoke, on the packaged real images."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from orchestrator.plan import trials_of
from orchestrator.store import Store
from studies.rotation_period import RotationPeriodOptions, make_study
from trainables.api.identity import FileDigests, Keys
from trainables.data.brats import write_brats

STUDY = Path(__file__).parents[2] / "studies" / "rotation_period.py"
CURVES = [
    "trained", "untrained seed 0", "untrained seed 1", "untrained seed 2", "fixed map", "mask ceiling", "intensity",
]  # fmt: skip


def command(folder, *flags):
    places = ["--storage", str(folder / "results"), "--cache-dir", str(folder / "cache")]
    return [sys.executable, str(STUDY), "--scale", "smoke", *places, *flags]


def run(folder, *flags):
    return subprocess.run(command(folder, *flags), capture_output=True, text=True, timeout=400, cwd=folder)


def results(folder):
    """Name -> (trial key, folder of its files) of a finished study."""
    store = Store(str(folder / "results"))
    manifest = next(store.manifests())
    return {t["name"]: (t["key"], store.fetch(t["key"], folder / "fetched")) for t in manifest["trials"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished study, and what its command printed."""
    folder = tmp_path_factory.mktemp("rotation")
    done = run(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_every_curve_is_there_with_all_its_rows(finished):
    found = results(finished[0])
    assert set(found) == {f"mni152: {curve}" for curve in CURVES} | {"mni152: trained / MoCo"}
    frames = {curve: pl.read_parquet(found[f"mni152: {curve}"][1] / "curve.parquet") for curve in CURVES}
    for frame in frames.values():
        assert sorted(frame["value"].unique()) == [float(angle) for angle in range(0, 361, 15)]
        assert set(frame["field_of_view"]) == {"full", "kept"}
        assert frame["image_id"].n_unique() == 4
        assert frame["image_id"].unique().sort().equals(frames["trained"]["image_id"].unique().sort())
        assert np.isfinite(frame["dice"].to_numpy()).all()
    exact = pl.col("value") % 90 == 0
    ceiling = frames["mask ceiling"].filter(pl.col("binarisation") == "otsu")
    assert ceiling.filter(exact)["dice"].min() > 0.999
    assert ceiling.filter(~exact)["dice"].max() < 0.999
    # The encoder matters: the trained one and the three untrained ones all differ.
    curves = [frames[curve]["dice"].to_numpy() for curve in CURVES[:4]]
    assert all(np.abs(curves[a] - curves[b]).max() > 0.01 for a in range(4) for b in range(a))


def test_the_report_stands_alone_and_shows_every_curve(finished):
    folder, printed = finished
    report = folder / "results/reports/rotation_period/mni152/report.html"
    assert str(report) in printed
    page = report.read_text()
    for said in (
        *[c for c in CURVES if not c.startswith("untrained")],
        "random",
        "within one volume",
        "How to reproduce",
    ):
        assert said in page
    assert 'src="http' not in page
    assert 'href="http' not in page
    suffixes = {path.suffix for path in report.parent.rglob("*") if path.is_file()}
    assert {".html", ".svg", ".png", ".md", ".tex", ".csv"} <= suffixes


def test_a_second_submission_computes_nothing(finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "results" / "trials").rglob("*") if path.is_file()}
    plan = json.loads(run(folder, "--plan", "--json").stdout)
    assert (plan["done"], plan["new"]) == (8, 0)
    done = run(folder)
    assert done.returncode == 0
    assert "8 of 8 trials are done" in done.stdout
    after = {path: path.stat().st_mtime_ns for path in (folder / "results" / "trials").rglob("*") if path.is_file()}
    assert after == before


def test_a_second_submission_loads_neither_what_runs_nor_what_draws(finished):
    watched = {"ray", "mlflow", "altair", "vl_convert", "scipy.signal", "torchvision", "analysis.report"}
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
    plan = json.loads(run(finished[0], "--pretrain-seeds", "5", "--plan", "--json").stdout)
    assert (plan["done"], plan["new"]) == (8, 2)
    assert {t["name"] for t in plan["trials"] if t["state"] == "new"} == {
        "mni152: untrained seed 3", "mni152: untrained seed 4",
    }  # fmt: skip


def test_full_scale_is_the_thesis(tmp_path):
    write_brats(tmp_path, 42, modalities=["flair"], volume_shape=(8, 8, 155), suffix=".nii")
    study = make_study(RotationPeriodOptions(scale="full", data_root=tmp_path))
    trained = study.trials["brats: trained"]
    assert trained.values == tuple(range(361))
    assert trained.images.num == 75
    assert (trained.method.num_samples, trained.method.times_input) == (50, True)
    encoder = trained.encoder
    assert (encoder.backbone, encoder.num_epochs, encoder.batch_size, encoder.learning_rate) == (
        "resnet50",
        100,
        4,
        0.03,
    )
    assert encoder.augmentation.choose == "one"
    assert len(trials_of(study, Keys(FileDigests()))) == 8
    assert json.loads(study.facts["brats.counts"]) == {"train": 37, "val": 5}
    assert study.facts["brats.block_length"] == "2"  # 75 images of 42 patients


def test_data_that_is_not_packaged_has_to_be_named(tmp_path):
    done = run(tmp_path, "--datasets", "brats")
    assert done.returncode == 2
    assert "--data-root" in done.stderr
    done = run(tmp_path, "--datasets", "brats", "--data-root", str(tmp_path / "none"))
    assert done.returncode == 2
    assert str(tmp_path / "none") in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_killed_and_resumed_equals_undisturbed(finished, tmp_path):
    """SIGKILL of the driver in the middle of pretraining and curves: every published byte is the same."""
    for pause_s in (20, 30, 40):
        process = subprocess.Popen(
            command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path
        )
        time.sleep(pause_s)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert run(tmp_path).returncode == 0
    disturbed, undisturbed = results(tmp_path), results(finished[0])
    for name, (key, _) in undisturbed.items():
        stores = [Store(str(folder / "results")) for folder in (tmp_path, finished[0])]
        assert disturbed[name][0] == key
        assert stores[0].result(key).files == stores[1].result(key).files, name
        assert stores[0].result(key).metrics == stores[1].result(key).metrics, name
