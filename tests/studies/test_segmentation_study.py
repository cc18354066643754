"""The study of segmentations: what each row is made of, and the whole of it at scale smoke as its user runs it."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

from orchestrator.plan import make_plan
from orchestrator.store import Store
from studies.curve_recipes import CurveStudyOptions
from studies.rotation_period import make_study as make_rotation_study
from studies.segmentation import SIZES, SegmentationOptions, make_study
from trainables.api.identity import FileDigests, Keys
from trainables.api.names import FROZEN, MOCO_TRUNK, RANDOM_TRUNK, RELEASED_TRUNK, UNET
from trainables.data.folder import write_folder
from trainables.data.kvasir import write_kvasir
from trainables.models.sources import Released, Untrained
from trainables.segmentation.networks import TrunkUNet
from trainables.segmentation.networks import UNet as UNetNetwork
from trainables.ssl.moco import MoCo

STUDY = Path(__file__).parents[2] / "studies" / "segmentation.py"
ROLES = [UNET, MOCO_TRUNK, MOCO_TRUNK + FROZEN, RANDOM_TRUNK, RANDOM_TRUNK + FROZEN]


def study_of(**options):
    return make_study(SegmentationOptions(**{"scale": "smoke", "pretrain_seeds": 2} | options))


def entries_of(study, **labels):
    return [
        entry for entry in study.entries.values() if all(entry.labels[name] == value for name, value in labels.items())
    ]


def models(study, role):
    return [entry.trainable.model for entry in study.entries.values() if entry.role == role]


def test_every_row_is_what_its_role_says():
    study = study_of()
    assert list(dict.fromkeys(entry.role for entry in study.entries.values())) == ROLES
    assert all(isinstance(model.network, UNetNetwork) for model in models(study, UNET))
    for role, kind in ((MOCO_TRUNK, MoCo), (RANDOM_TRUNK, Untrained)):
        for ending in ("", FROZEN):
            for model in models(study, role + ending):
                assert isinstance(model.network, TrunkUNet)
                assert isinstance(model.network.encoder, kind)
                assert model.network.is_frozen is (ending == FROZEN)


def test_seed_s_is_pretrained_fine_tuned_and_given_its_masks_by_s():
    for role in ROLES:
        for model in models(study_of(pretrain_seeds=3), role):
            assert model.label_seed == model.finetune_seed
            seeds = {getattr(model.network, "encoder", None) and _seed_of(model.network.encoder), model.finetune_seed}
            assert len(seeds - {None}) == 1
        found = {model.finetune_seed for model in models(study_of(pretrain_seeds=3), role)}
        assert found == {0, 1, 2}


def _seed_of(encoder):
    return encoder.pretrain_seed if isinstance(encoder, MoCo) else encoder.init_seed


def test_shares_are_scored_on_validation_and_all_masks_on_training_data_too():
    study = study_of(label_fractions=(0.2, 1.0))
    assert {entry.labels["masks"] for entry in study.entries.values()} == {"20 % of masks", "100 % of masks"}
    assert {e.labels["split"] for e in entries_of(study, masks="20 % of masks")} == {"val"}
    assert {e.labels["split"] for e in entries_of(study, masks="100 % of masks")} == {"train", "val"}
    for entry in study.entries.values():
        assert entry.trainable.split == entry.labels["split"]
        assert f"{100 * entry.trainable.model.label_fraction:g} % of masks" == entry.labels["masks"]
        assert entry.trainable.model.target.name == entry.labels["region"] == "tissues"


def test_one_training_serves_both_splits_and_one_pretraining_all_rows(tmp_path):
    plan = make_plan(study_of(label_fractions=(1.0,)), Store(str(tmp_path)), Keys(FileDigests()))
    kinds = [type(p.trial.trainable).__name__ for p in plan.planned]
    assert (kinds.count("MoCo"), kinds.count("Segmentation"), kinds.count("SegmentationScores")) == (2, 10, 20)


def test_pretrainings_are_those_of_the_rotation_study():
    ours = {model.network.encoder for model in models(study_of(), MOCO_TRUNK)}
    rotation = make_rotation_study(CurveStudyOptions(scale="smoke", pretrain_seeds=2))
    assert ours == {e.trainable.encoder for e in rotation.entries.values() if e.role == "trained"}


def test_full_scale_is_the_thesis_s():
    sizes = SIZES["full"]
    assert (sizes.num_epochs, sizes.batch_size, sizes.label_fractions) == (100, 64, (0.01, 0.05, 0.1, 0.5, 1.0))
    assert len(sizes.widths) == 4
    model = models(study_of(), UNET)[0]
    assert (model.learning_rate, model.schedule.power, model.augmentation) == (0.001, 0.9, None)


def test_released_weights_wait_for_their_file(tmp_path):
    said = study_of().facts["released_trunk"]
    assert "--pretrained FILE or --released FILE adds it" in said
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "moco.pth.tar")
    study = study_of(released=tmp_path / "moco.pth.tar")
    assert "released_trunk" not in study.facts
    for ending in ("", FROZEN):
        (encoder,) = {model.network.encoder for model in models(study, RELEASED_TRUNK + ending)}
        assert isinstance(encoder, Released)
        assert encoder.path == str(tmp_path / "moco.pth.tar")
    continued = study_of(pretrained=tmp_path / "moco.pth.tar")
    assert all(m.network.encoder.init.path.endswith("moco.pth.tar") for m in models(continued, MOCO_TRUNK))
    assert models(continued, RELEASED_TRUNK)


def test_regions_are_segmented_each_by_itself_and_a_data_set_without_classes_by_its_region(tmp_path):
    study = study_of(regions=("white_matter", "grey_matter"), label_fractions=(1.0,))
    assert {entry.labels["region"] for entry in study.entries.values()} == {"white_matter", "grey_matter"}
    write_kvasir(tmp_path / "Kvasir-SEG", 8)
    study = study_of(datasets=("kvasir",), data_root=tmp_path, label_fractions=(1.0,))
    assert {entry.labels["region"] for entry in study.entries.values()} == {"polyp"}
    assert study.cards["kvasir"].counts["train"] > 0


def test_a_data_set_without_validation_masks_is_named_once(tmp_path):
    write_folder(tmp_path / "mine", 6)
    (tmp_path / "mine/labels.csv").write_text(
        "image,split\n" + "".join(f"{path.name},train\n" for path in (tmp_path / "mine/images").iterdir())
    )
    with pytest.raises(ValueError, match=r"folder-mine: mask is known for no validation image, .*labels\.csv"):
        study_of(datasets=(f"folder:{tmp_path / 'mine'}",))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"label_fractions": (0.0,)}, "--label-fractions 0"),
        ({"label_fractions": (1.5,)}, "--label-fractions 1.5"),
        ({"segmentation_epochs": 0}, "--segmentation-epochs 0"),
        ({"num_epochs": 0}, "--num-epochs 0"),
    ],
)
def test_what_cannot_be_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        SegmentationOptions(**wrong)


def test_other_epochs_are_a_fact_and_leave_the_pretrainings():
    study, usual = study_of(segmentation_epochs=7), study_of()
    assert study.facts["segmentation_epochs"] == "7"
    assert "segmentation_epochs" not in study_of(segmentation_epochs=1).facts
    assert {m.num_epochs for m in models(study, UNET)} == {7}
    assert {m.network for m in models(study, MOCO_TRUNK)} == {m.network for m in models(usual, MOCO_TRUNK)}


def command(folder, *flags):
    places = ["--storage", str(folder / "results"), "--cache-dir", str(folder / "cache")]
    small = ["--scale", "smoke", "--pretrain-seeds", "1", "--label-fractions", "1"]
    return [sys.executable, str(STUDY), *small, *places, *flags]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished study, and what its command printed."""
    folder = tmp_path_factory.mktemp("segmentation")
    done = subprocess.run(command(folder), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_the_study_ends_with_its_page(finished):
    folder, printed = finished
    page = folder / "results/reports/segmentation/mni152-tissues/report.html"
    assert str(page) in printed
    html = page.read_text()
    for said in (
        "With 100 % of the masks", "Nothing: every seed is here.",
        "one volume", "background, fluid, grey_matter, white_matter", "not among the rows",
    ):  # fmt: skip
        assert said in html, said
    table = pl.read_csv(page.parent / "tables/scores.csv")
    assert set(table["network"]) == set(ROLES)
    assert table.height == 10
    assert table["dice"].is_between(0, 1).all()


def test_scores_of_the_table_are_those_of_the_store(finished):
    folder, _ = finished
    store = Store(str(folder / "results"))
    manifest = next(store.manifests())
    table = pl.read_csv(folder / "results/reports/segmentation/mni152-tissues/tables/scores.csv")
    words = {"train": "training", "val": "validation"}
    for entry in (entry for entry in manifest["trials"] if entry["named"]):
        split = entry["labels"]["split"]
        (row,) = table.filter(network=entry["role"], split=words[split]).to_dicts()
        frame = pl.read_parquet(store.fetch(entry["key"], folder / "fetched") / "scores.parquet")
        by_class = frame.group_by("class", maintain_order=True).agg(pl.col("dice", "iou").mean())
        assert row["dice"] == pytest.approx(by_class["dice"].mean())
        assert row["iou"] == pytest.approx(by_class["iou"].mean())
        assert row["n"] == 1


def test_a_second_submission_computes_nothing(finished):
    done = subprocess.run(command(finished[0]), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0
    assert "16 of 16 trials are done" in done.stdout
    assert "started" not in done.stdout


def test_options_reach_the_plan(finished):
    plan = subprocess.run(
        command(finished[0], "--plan", "--segmentation-epochs", "2"), capture_output=True, text=True, timeout=100
    )
    assert plan.returncode == 0
    assert "15 new" in plan.stdout  # all but the pretraining
