"""The study of additional positives: what each row is made of, what is shared, and the whole of it at scale smoke."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from orchestrator.store import Store
from studies.byol_positives import ByolPositivesOptions, make_study
from studies.positive_recipes import SIZES
from trainables.api import names
from trainables.api.identity import FileDigests, Keys
from trainables.data.chest_xray14 import write_chest_xray14
from trainables.data.isic2019 import write_isic2019
from trainables.models.sources import Untrained
from trainables.ssl.byol import BYOL
from trainables.ssl.positives import FalseNegatives, FeatureSimilarity, FeatureTransformation, SameLabel, TracIn

STUDY = Path(__file__).parents[2] / "studies" / "byol_positives.py"
ROWS = [
    "Random", "BYOL", "FNC", "FT", "FS", "FS-pretrained", "BYOL-TracIn", "BYOL-TracIn-pretrained", "BYOL-Sup",
]  # fmt: skip


def study_of(**options):
    return make_study(ByolPositivesOptions(**{"scale": "smoke", "datasets": ("digits",)} | options))


def encoders(study, role):
    return {entry.trainable.model.encoder for entry in study.entries.values() if entry.role == role}


def test_each_row_is_what_its_name_says():
    study = study_of(finetune_seeds=2)
    assert list(dict.fromkeys(entry.role for entry in study.entries.values())) == ROWS
    (random,), (byol,) = encoders(study, names.RANDOM_START), encoders(study, names.BYOL_ALONE)
    assert isinstance(random, Untrained)
    assert (random.backbone, random.head, random.embedding_dim) == (byol.backbone, byol.head, byol.embedding_dim)
    assert byol.positives is None
    labels = next(iter(study.entries.values())).trainable.model.labels
    expected = {
        names.FALSE_NEGATIVES: FalseNegatives(top_k=10, threshold=0.7),
        names.TRANSFORMED: FeatureTransformation(per="dimension"),
        names.BY_FEATURES: FeatureSimilarity(top_k=1, model=None, views="light"),
        names.BY_FEATURES_PRETRAINED: FeatureSimilarity(top_k=1, model=byol, views="light"),
        names.BY_TRACIN: TracIn(top_k=1, models=(), views="light"),
        names.BY_TRACIN_PRETRAINED: TracIn(top_k=1, models=(byol,), views="light"),
        names.BY_LABEL: SameLabel(labels=labels),
    }
    for role, positives in expected.items():
        (encoder,) = encoders(study, role)
        assert encoder.positives == positives
        assert encoder.labels == labels, "so that the precision of the choice is logged"
        assert encoder == BYOL(**vars(byol) | {"positives": positives}), "all else is as in BYOL"


def test_one_pretraining_serves_all_its_fine_tunings_and_those_that_it_chooses_for():
    study = study_of()
    trained = [encoder for role in ROWS[1:] for encoder in encoders(study, role)]
    assert len(trained) == len(set(trained)) == 8
    fine_tunings = Counter(
        (e.role, e.labels["labels"], e.trainable.model.finetune_seed) for e in study.entries.values()
    )
    assert len(fine_tunings) == 9 * 2 * 5
    assert set(fine_tunings.values()) == {1}


def test_further_pretrainings_have_one_fine_tuning_each():
    study = study_of(pretrain_seeds=3, finetune_seeds=4, label_fractions=(1.0,))
    seeds = Counter()
    for entry in study.entries.values():
        encoder, model = entry.trainable.model.encoder, entry.trainable.model
        seed = encoder.init_seed if isinstance(encoder, Untrained) else encoder.pretrain_seed
        assert model.label_seed == model.finetune_seed
        seeds[entry.role, seed, model.finetune_seed] += 1
        if isinstance(encoder, BYOL) and isinstance(encoder.positives, TracIn) and encoder.positives.models:
            assert {model.pretrain_seed for model in encoder.positives.models} == {seed}
    expected = {(row, 0, f) for row in ROWS for f in range(4)} | {(row, s, s) for row in ROWS for s in (1, 2)}
    assert set(seeds) == expected
    assert set(seeds.values()) == {1}


def test_at_full_scale_table_1_takes_sixteen_pretrainings(tmp_path):
    write_isic2019(tmp_path, 600)
    write_chest_xray14(tmp_path, 600)
    study = make_study(ByolPositivesOptions(scale="full", data_root=tmp_path))
    pretrainings = {e.trainable.model.encoder for e in study.entries.values() if e.role != names.RANDOM_START}
    assert len(pretrainings) == 8 * 2
    assert len(study.entries) == 9 * 2 * 3 * 5
    for byol in pretrainings:
        assert (byol.backbone, byol.num_epochs, byol.schedule_epochs, byol.batch_size) == ("resnet18", 300, 300, 256)
        assert (byol.learning_rate, byol.schedule.hold_epochs, byol.target_momentum) == (0.1, 10, 0.99)
    model = next(iter(study.entries.values())).trainable.model
    assert (model.num_epochs, model.augmentation) == (100, byol.augmentation)
    assert {e.labels["labels"] for e in study.entries.values()} == {
        "10 % of labels", "50 % of labels", "100 % of labels",
    }  # fmt: skip


def test_more_epochs_go_on_from_fewer():
    keys = Keys(FileDigests())
    families = {keys.family(next(iter(encoders(study_of(num_epochs=epochs), names.BYOL_ALONE)))) for epochs in (1, 2)}
    assert len(families) == 1
    assert study_of(num_epochs=1).facts["num_epochs"] == "1"
    assert "num_epochs" not in study_of(num_epochs=SIZES["smoke"].num_epochs).facts


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"finetune_seeds": 0}, "--finetune-seeds 0"),
        ({"label_fractions": (0.0,)}, "--label-fractions 0"),
        ({"num_epochs": 0}, "--num-epochs 0"),
        ({"datasets": ("mni152",)}, "the data set mni152 has no labels"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        study_of(**options)


def test_the_whole_study_as_its_user_runs_it(tmp_path):
    places = ["--storage", str(tmp_path / "results"), "--cache-dir", str(tmp_path / "cache")]
    command = [
        sys.executable,
        str(STUDY),
        "--scale",
        "smoke",
        "--finetune-seeds",
        "1",
        "--label-fractions",
        "1",
        *places,
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    again = subprocess.run([*command, "--plan", "--json"], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    plan = json.loads(again.stdout)
    assert (plan["done"], plan["new"]) == (8 + 9 + 9, 0)
    store = Store(str(tmp_path / "results"))
    by_class = Counter()
    for trial in plan["trials"]:
        metrics = store.result(trial["key"]).metrics
        by_class["test/bma" in metrics] += 1
        if "BYOL-Sup" in trial["name"] and trial["name"].endswith("BYOL"):
            assert metrics["train/selection_precision"] == 1.0
        if "test/bma" in metrics:
            assert 0 < metrics["test/bma"] <= 1
            assert metrics["num_images"] == 359
    assert by_class[True] == 9
    (manifest,) = store.manifests()
    of_role = {entry["role"]: store.result(entry["key"]).metrics for entry in manifest["trials"] if entry["role"]}
    table = pl.read_csv(tmp_path / "results/reports/byol_positives/digits/tables/scores.csv")
    assert dict(zip(table["way"], table["100"], strict=True)) == pytest.approx(
        {role: of_role[role]["test/bma"] for role in ROWS}
    )
    assert set(table["100 n"]) == {1}
