"""The study of HOG and SVM: what each arm is made of, and the whole of it at scale smoke as its user runs it."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from orchestrator.store import Store
from studies.curve_recipes import CurveStudyOptions
from studies.hog_svm import NUM_IMAGES, HogSvmOptions, make_study
from studies.rotation_period import ANGLES_DEG
from studies.rotation_period import make_study as make_rotation_study
from trainables.api.identity import FileDigests, Keys
from trainables.api.names import FULL_FIELD, IN_CIRCLE, ROTATED, ROUND_TRIP
from trainables.hog_svm import HogSvm

STUDY = Path(__file__).parents[2] / "studies" / "hog_svm.py"


def study_of(**options):
    return make_study(HogSvmOptions(**{"scale": "smoke", "pretrain_seeds": 2} | options))


def classifiers(study):
    return [entry for entry in study.entries.values() if isinstance(entry.trainable, HogSvm)]


def test_every_arm_is_what_its_role_and_label_say():
    found = classifiers(study_of())
    assert len(found) == 2 * 2 * 2
    for entry in found:
        assert entry.trainable.change == {ROTATED: "rotated", ROUND_TRIP: "round_trip"}[entry.role]
        assert entry.trainable.cut_to_circle is (entry.labels["field"] == IN_CIRCLE)
        assert entry.trainable.angles_deg == tuple(map(float, ANGLES_DEG["smoke"]))
    assert {entry.trainable.fold_seed for entry in found} == {0, 1}
    assert {entry.trainable.selection_seed for entry in found} == {0}, "the same images in all arms"
    full = classifiers(study_of(scale="laptop", without_curves=True))[0].trainable
    assert (full.hog.pixels_per_cell, full.num_images) == (8, NUM_IMAGES["laptop"])


def test_the_curves_are_those_of_the_rotation_study():
    keys = Keys(FileDigests())
    rotation = make_rotation_study(CurveStudyOptions(scale="smoke", pretrain_seeds=2))
    ours = {keys.key(e.trainable) for e in study_of().entries.values() if not isinstance(e.trainable, HogSvm)}
    assert ours == {keys.key(entry.trainable) for entry in rotation.entries.values()}
    assert len(study_of(without_curves=True).entries) == 8


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished study without encoders, and what its command printed."""
    folder = tmp_path_factory.mktemp("hog")
    places = ["--storage", str(folder / "results"), "--cache-dir", str(folder / "cache")]
    flags = ["--scale", "smoke", "--pretrain-seeds", "1", "--without-curves"]
    done = subprocess.run([sys.executable, str(STUDY), *flags, *places], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_the_study_ends_with_its_page(finished):
    folder, printed = finished
    page = folder / "results/reports/hog_svm/mni152/report.html"
    assert str(page) in printed
    assert "MoCo" not in printed
    html = page.read_text()
    for said in ("Rotated images are told from unrotated ones", "At quarter turns", "Nothing: every draw is here."):
        assert said in html, said
    table = pl.read_csv(page.parent / "tables/accuracy.csv")
    assert table.select("what", "field").rows() == [
        (ROTATED, FULL_FIELD), (ROUND_TRIP, FULL_FIELD), (ROTATED, IN_CIRCLE), (ROUND_TRIP, IN_CIRCLE),
    ]  # fmt: skip
    rotated, blurred = table["mean"][:2]
    assert rotated > 0.8
    assert 0.5 < blurred < rotated


def test_numbers_of_the_table_are_those_of_the_store(finished):
    folder, _ = finished
    store = Store(str(folder / "results"))
    table = pl.read_csv(folder / "results/reports/hog_svm/mni152/tables/accuracy.csv")
    for entry in next(store.manifests())["trials"]:
        frame = pl.read_parquet(store.fetch(entry["key"], folder / "fetched") / "accuracy.parquet")
        changed = frame.filter(~pl.col("value").is_in([0.0, 360.0]))
        (row,) = table.filter(what=entry["role"], field=entry["labels"]["field"]).to_dicts()
        assert row["mean"] == pytest.approx(changed["accuracy"].mean())
        assert store.result(entry["key"]).metrics["accuracy_mean"] == pytest.approx(row["mean"])
