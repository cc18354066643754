"""The study of explanation methods: what each arm is made of, and the whole at scale smoke as its user runs it."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from orchestrator.store import Store
from studies import curve_recipes, recipes
from studies.curve_recipes import CurveStudyOptions, MapStudyOptions
from studies.rotation_period import make_study as make_rotation_study
from studies.saliency_methods import ANGLES_DEG, make_study
from trainables.api.names import ANCHOR, RANDOMISED, RANDOMISED_LAYERS, TRAINED, UNTRAINED
from trainables.models.sources import Randomised, Untrained
from trainables.ssl.moco import MoCo

STUDY = Path(__file__).parents[2] / "studies" / "saliency_methods.py"
CASCADE = [RANDOMISED + layer for layer in RANDOMISED_LAYERS[:-1]]


def study_of(**options):
    return make_study(MapStudyOptions(**{"scale": "smoke", "pretrain_seeds": 2} | options))


def entries_of(study, role):
    return [entry for entry in study.entries.values() if entry.role == role]


def test_every_arm_is_what_its_role_says():
    study = study_of(methods=("grad_cam",))
    roles = list(dict.fromkeys(entry.role for entry in study.entries.values()))
    assert roles == [TRAINED, UNTRAINED, *CASCADE, ANCHOR, "intensity"]
    (itself,) = entries_of(study, "intensity")
    assert (itself.trainable.encoder, itself.labels["method"]) == (None, "image itself")
    assert itself.trainable.images == entries_of(study, TRAINED)[0].trainable.images
    trained = {entry.trainable.encoder.pretrain_seed: entry.trainable.encoder for entry in entries_of(study, TRAINED)}
    assert all(isinstance(encoder, MoCo) for encoder in trained.values())
    assert {entry.trainable.encoder.init_seed for entry in entries_of(study, UNTRAINED)} == {0, 1}
    assert all(isinstance(entry.trainable.encoder, Untrained) for entry in entries_of(study, UNTRAINED))
    for layer, role in zip(RANDOMISED_LAYERS, CASCADE, strict=False):
        for entry in entries_of(study, role):
            encoder = entry.trainable.encoder
            assert isinstance(encoder, Randomised)
            assert (encoder.down_to, encoder.of) == (layer, trained[encoder.init_seed])
    (shown,) = entries_of(study, ANCHOR)
    assert (shown.trainable.explains, shown.trainable.encoder) == ("anchor", trained[0])
    assert {entry.trainable.explains for entry in entries_of(study, TRAINED)} == {"view"}


def test_eight_methods_are_the_default_and_all_are_scored_without_a_threshold_too():
    study = study_of(pretrain_seeds=1)
    methods = list(dict.fromkeys(e.labels["method"] for e in study.entries.values() if e.role != "intensity"))
    assert methods == [name for name in curve_recipes.METHODS if name != "smoothgrad_of_the_tool"]
    assert len(methods) == 8
    for entry in study.entries.values():
        assert entry.trainable.scoring.localises
        assert entry.trainable.values == ANGLES_DEG["smoke"]
        if entry.role != "intensity":
            assert entry.trainable.method == curve_recipes.method(entry.labels["method"], recipes.SIZES["smoke"].curve)


def test_a_released_encoder_is_not_taken_in_silence(tmp_path):
    with pytest.raises(ValueError, match="--released: this study explains encoders that it pretrains"):
        study_of(released=tmp_path / "resnet.pth")


def test_pretrainings_are_those_of_the_rotation_study():
    ours = {entry.trainable.encoder for entry in entries_of(study_of(methods=("grad_cam",)), TRAINED)}
    rotation = make_rotation_study(CurveStudyOptions(scale="smoke", pretrain_seeds=2))
    assert ours == {e.trainable.encoder for e in rotation.entries.values() if e.role == "trained"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished study of two methods."""
    folder = tmp_path_factory.mktemp("methods")
    places = ["--storage", str(folder / "results"), "--cache-dir", str(folder / "cache")]
    flags = ["--scale", "smoke", "--pretrain-seeds", "1", "--methods", "grad_cam", "smoothgrad"]
    done = subprocess.run([sys.executable, str(STUDY), *flags, *places], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_the_study_ends_with_its_page(finished):
    folder, printed = finished
    page = folder / "results/reports/saliency_methods/mni152-white_matter/report.html"
    assert str(page) in printed
    html = page.read_text()
    for said in ("has the highest average precision", "Nothing: every seed is here.", "Explanations of one pair"):
        assert said in html, said
    table = pl.read_csv(page.parent / "tables/methods.csv")
    assert set(table["method"]) == {"grad cam", "smoothgrad", "image itself"}
    cascade = pl.read_csv(page.parent / "tables/cascade.csv")
    assert cascade.filter(method="smoothgrad")["encoder"].to_list() == [TRAINED, *CASCADE, UNTRAINED]
    assert cascade.filter(pl.col("encoder") == TRAINED)["correlation"].to_list() == [1.0, 1.0]


def test_scores_of_the_table_are_those_of_the_store(finished):
    folder, _ = finished
    store = Store(str(folder / "results"))
    manifest = next(store.manifests())
    table = pl.read_csv(folder / "results/reports/saliency_methods/mni152-white_matter/tables/methods.csv")
    for entry in manifest["trials"]:
        if entry["role"] == TRAINED:
            frame = pl.read_parquet(store.fetch(entry["key"], folder / "fetched") / "curve.parquet")
            frame = frame.filter(field_of_view="kept", binarisation="otsu")
            (row,) = table.filter(method=entry["labels"]["method"].replace("_", " ")).to_dicts()
            for score in ("auprc", "dice", "pointing_game", "relevance_mass"):
                assert row[score] == pytest.approx(frame[score].mean())
            assert row["chance"] == pytest.approx(frame["mask_fraction"].mean())
