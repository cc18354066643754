"""The studies beside Table 1 of additional positives: what they share with it, and what their roles are made of."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.store import Store
from studies import byol_positives, label_fractions, positive_search, tracin_checkpoints, transfer
from studies.positive_recipes import WAYS, byol_of, pretraining_sets
from trainables.api import names
from trainables.api.errors import BadData
from trainables.api.identity import FileDigests, Keys
from trainables.augment.combine import BYOL_AUGMENTATION, Combine
from trainables.augment.geometric import RandomResizedCrop, Rotation
from trainables.data.chest_xray14 import write_chest_xray14
from trainables.data.isic2016 import write_isic2016
from trainables.data.isic2019 import write_isic2019
from trainables.data.shenzhen import write_shenzhen
from trainables.ssl.byol import UntrainedBYOL
from trainables.ssl.choosing import ChoiceScores
from trainables.ssl.positives import FalseNegatives, FeatureSimilarity, TracIn

STUDIES = Path(__file__).parents[2] / "studies"
ALL_ROWS = list(WAYS.values())


def table_1(**options):
    return byol_positives.make_study(byol_positives.ByolPositivesOptions(scale="smoke", **options))


def models(study, role=None):
    return [entry.trainable.model for entry in study.entries.values() if role in (None, entry.role)]


def keys_of(encoders):
    keys = Keys(FileDigests())
    return {keys.key(encoder) for encoder in encoders if hasattr(encoder, "num_epochs")}


# -- transfer ------------------------------------------------------------------------------------------------------


def transferred(**options):
    return transfer.make_study(transfer.TransferOptions(**{"scale": "smoke"} | options))


def test_a_transfer_trains_no_encoder_that_table_1_does_not():
    there = transferred(finetune_seeds=2)
    assert list(dict.fromkeys(entry.role for entry in there.entries.values())) == ALL_ROWS
    assert keys_of(model.encoder for model in models(there)) == keys_of(m.encoder for m in models(table_1()))
    assert len(there.entries) == 9 * 2
    for entry in there.entries.values():
        model = entry.trainable.model
        assert (model.labels.images.name, model.encoder.data.name if hasattr(model.encoder, "data") else "") in (
            ("mnist5k", "digits"), ("mnist5k", ""),
        )  # fmt: skip
        assert (model.label_fraction, entry.trainable.split) == (1.0, "test")
        assert entry.labels == {
            "data": "mnist5k", "pretrained": "pretrained on digits", "labels": "100 % of labels",
        }  # fmt: skip
    assert set(there.cards) == {"digits", "mnist5k"}


def test_at_full_scale_transfers_are_the_papers(tmp_path):
    write_isic2019(tmp_path, 600)
    write_isic2016(tmp_path, 8, 4)
    write_chest_xray14(tmp_path, 600)
    write_shenzhen(tmp_path, 12)
    study = transferred(scale="full", data_root=tmp_path)
    targets = {(e.labels["pretrained"], e.labels["data"]) for e in study.entries.values()}
    assert targets == {("pretrained on isic2019", "isic2016"), ("pretrained on chestxray14", "shenzhen")}
    assert {model.num_epochs for model in models(study)} == {50}
    assert len(study.entries) == 9 * 2 * 5


def test_only_what_has_a_partner_can_be_transferred():
    with pytest.raises(ValueError, match="--datasets mni152: choose some of isic2019"):
        transfer.TransferOptions(datasets=("mni152",))


def isic_images(folder, **options):
    options = byol_positives.ByolPositivesOptions(scale="full", data_root=folder, datasets=("isic2019",), **options)
    (pretrained,) = pretraining_sets(options)
    return {record.id for record in pretrained.source.images.records()}, pretrained


def test_images_that_the_transfer_tests_on_are_left_out_with_their_lesions_and_the_plan_says_so(tmp_path):
    write_isic2019(tmp_path, 600)
    everything, without = isic_images(tmp_path)
    assert without.left_out == "isic2016 is not below --data-root, so its test images were not left out"
    write_isic2016(tmp_path, 8, 4)
    kept, pretrained = isic_images(tmp_path)
    # Its test images are 8 to 11. 8 and 9, and 10 and its neighbour 11, share a lesion, but that 11 has none.
    left_out = {"ISIC_0000008", "ISIC_0000009_downsampled", "ISIC_0000010", "ISIC_0000011"}
    assert everything - kept == left_out == set(pretrained.source.images.excluded)
    assert pretrained.left_out == "left out 4 images that are test images of isic2016, or of their lesions"
    assert {record.id for record in pretrained.labels.records()} == kept
    again, as_published = isic_images(tmp_path, keep_transfer_images=True)
    assert again == everything
    assert "are kept" in as_published.left_out
    study = table_1_at_full(tmp_path)
    assert study.facts["transfer_images"] == f"isic2019: {pretrained.left_out}"


def test_isic_2016_that_is_there_in_part_stops_the_plan(tmp_path):
    write_isic2019(tmp_path, 600)
    write_isic2016(tmp_path, 8, 4)
    shutil.rmtree(tmp_path / "ISBI2016_ISIC_Part3_Test_Data")
    assert isic_images(tmp_path, skip_bad_files=True)[1].left_out.startswith("left out 4"), "the table says which"
    next(tmp_path.glob("ISBI2016*Test*.csv")).unlink()
    with pytest.raises(ValueError, match=r"could not be left out of the pretraining.*or give --keep-transfer-images"):
        isic_images(tmp_path)


def test_kept_transfer_images_are_a_scale_of_their_own_in_the_paper(tmp_path):
    write_isic2019(tmp_path, 600)
    write_isic2016(tmp_path, 8, 4)
    study = table_1_at_full(tmp_path, keep_transfer_images=True)
    assert "transfer_images_kept" in study.facts
    assert "transfer_images" not in study.facts
    assert "transfer_images_kept" not in table_1_at_full(tmp_path).facts


def own_images(folder, labels):
    """A folder of images with labels.csv: rows of (split, label)."""
    (folder / "images").mkdir(parents=True)
    lines = ["image,split,label"]
    for number, (split, label) in enumerate(labels):
        pixels = np.add.outer(np.arange(20) * number, np.arange(20) * 3).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        lines.append(f"{number}.png,{split},{label}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return f"folder:{folder}"


SMALL = [("train", "a"), ("train", "b")] * 6 + [("val", "a"), ("val", "b"), ("test", "a"), ("test", "b")]


def test_a_small_folder_has_smaller_batches_and_the_plan_says_so(tmp_path):
    name = own_images(tmp_path / "mine", SMALL)
    study = table_1(datasets=(name,), label_fractions=(1.0,))
    (byol,) = {model.encoder for model in models(study, "BYOL")}
    assert (byol.batch_size, byol.learning_rate) == (12, pytest.approx(0.05 * 12 / 64))
    assert study.facts["sizes_fitted_to_the_data"] == "folder-mine: batches of 12, the learning rate in proportion"
    assert "sizes_fitted_to_the_data" not in table_1().facts


@pytest.mark.parametrize(
    ("labels", "study", "said"),
    [
        ([(split, "a") for split, _ in SMALL], table_1, r"labelled training images are of 1 class\(es\)"),
        ([row for row in SMALL if row[0] != "test"], table_1, "no test image is labelled"),
        ([row for row in SMALL if row[0] != "val"], lambda **o: searched(scale="smoke", **o), "no validation image is"),
    ],
)
def test_labels_that_tell_nothing_are_refused_at_once(tmp_path, labels, study, said):
    with pytest.raises(ValueError, match=said):
        study(datasets=(own_images(tmp_path / "mine", labels),))


def test_a_garbled_image_and_two_folders_of_one_name_are_named_before_anything_runs(tmp_path):
    first, second = (own_images(tmp_path / place / "mine", SMALL) for place in "xy")
    with pytest.raises(ValueError, match="both are called folder-mine"):
        table_1(datasets=(first, second))
    (tmp_path / "x" / "mine" / "images" / "3.png").write_bytes(b"nothing")
    with pytest.raises(BadData, match=re.escape("3.png")):
        table_1(datasets=(first,))


def test_shares_that_are_printed_alike_are_refused():
    with pytest.raises(ValueError, match="alike to four digits"):
        fractions(label_fractions=(0.1, 0.10000001))


def table_1_at_full(folder, **options):
    return byol_positives.make_study(
        byol_positives.ByolPositivesOptions(
            scale="full", data_root=folder, datasets=("isic2019",), finetune_seeds=1, **options
        )
    )


def test_digits_are_not_turned_round_and_all_of_a_data_set_is_augmented_alike(tmp_path):
    every = models(transferred(ways=("byol", "sup"), finetune_seeds=1))
    of_digits = {model.augmentation for model in every} | {model.encoder.augmentation for model in every}
    assert of_digits == {Combine((Rotation(20.0), RandomResizedCrop(0.5, 1.0)))}
    write_chest_xray14(tmp_path, 600)
    study = table_1(data_root=tmp_path, datasets=("chestxray14",), ways=("byol",), finetune_seeds=1)
    assert {model.augmentation for model in models(study)} == {BYOL_AUGMENTATION}
    assert {model.encoder.augmentation for model in models(study)} == {BYOL_AUGMENTATION}


# -- shares of the labels ------------------------------------------------------------------------------------------


def fractions(**options):
    return label_fractions.make_study(label_fractions.LabelFractionsOptions(**{"scale": "smoke"} | options))


def test_a_share_that_table_1_has_too_is_the_same_trial():
    study = fractions(label_fractions=(0.1, 1.0), ways=tuple(WAYS))
    keys = Keys(FileDigests())
    assert {keys.key(e.trainable) for e in study.entries.values()} == {
        keys.key(e.trainable) for e in table_1().entries.values()
    }
    assert list(dict.fromkeys(e.role for e in fractions().entries.values())) == [
        "Random", "BYOL", "FS-pretrained", "BYOL-TracIn-pretrained", "BYOL-Sup",
    ]  # fmt: skip
    laptop = fractions(scale="laptop", ways=("byol",), finetune_seeds=1)
    assert sorted(model.label_fraction for model in models(laptop)) == [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]


def test_a_linear_probe_keeps_the_encoder_as_it_is():
    probe, whole = fractions(linear_probe=True), fractions()
    assert all(model.is_frozen for model in models(probe))
    assert not any(model.is_frozen for model in models(whole))
    assert {e.labels.get("trained") for e in probe.entries.values()} == {"linear probe"}
    assert {e.labels.get("trained") for e in whole.entries.values()} == {None}


@pytest.mark.parametrize(
    ("options", "said"),
    [({"ways": ("lime",)}, "--ways lime: choose some of random, byol"), ({"label_fractions": (2.0,)}, "fractions 2")],
)
def test_flags_that_cannot_be_meant_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        fractions(**options)


# -- checkpoints ---------------------------------------------------------------------------------------------------


def checkpoints(**options):
    return tracin_checkpoints.make_study(
        tracin_checkpoints.TracInCheckpointsOptions(**{"scale": "laptop", "datasets": ("digits",)} | options)
    )


def by_checkpoint(study, role):
    return {e.labels["checkpoint"]: e.trainable for e in study.entries.values() if e.role == role}


def test_checkpoints_are_members_of_one_family_that_ends_with_table_1s_byol():
    study = checkpoints()
    untrained, *by_features = by_checkpoint(study, names.CHOSEN_BY_FEATURES).values()
    assert isinstance(untrained.positives.model, UntrainedBYOL)
    members = [scores.positives.model for scores in by_features]
    control = untrained.positives.model.of
    assert (control.data, control.backbone, control.head, control.embedding_dim) == (
        members[0].data, members[0].backbone, members[0].head, members[0].embedding_dim,
    )  # fmt: skip
    assert [member.num_epochs for member in members] == [2, 4, 8, 15]
    keys = Keys(FileDigests())
    assert len({keys.family(member) for member in members}) == 1
    options = byol_positives.ByolPositivesOptions(scale="laptop", datasets=("digits",))
    (pretrained,) = pretraining_sets(options)
    assert members[-1] == byol_of(pretrained, 0, options)


def test_every_checkpoint_chooses_in_each_way_and_all_together_too():
    study = checkpoints(pretrain_seeds=2)
    plain, cosine = by_checkpoint(study, names.CHOSEN_BY_TRACIN), by_checkpoint(study, names.CHOSEN_BY_COSINE)
    named = ["epoch 0", "epoch 2", "epoch 4", "epoch 8", "epoch 15", "all summed"]
    assert list(plain) == list(cosine) == named
    assert list(by_checkpoint(study, names.CHOSEN_BY_FEATURES)) == named[:-1]
    for name, scores in plain.items():
        epochs = [2, 4, 8, 15] if name == "all summed" else [int(name.split()[1])]
        assert [getattr(model, "num_epochs", 0) for model in scores.positives.models] == epochs
        assert scores.positives == TracIn(models=scores.positives.models)
        assert cosine[name].positives == replace(scores.positives, normalize="cosine")
    choices = [e.trainable for e in study.entries.values() if isinstance(e.trainable, ChoiceScores)]
    for scores in choices:
        chosen_by = scores.positives
        models = chosen_by.models if isinstance(chosen_by, TracIn) else (chosen_by.model,)
        seeds = {m.of.init_seed if isinstance(m, UntrainedBYOL) else m.pretrain_seed for m in models}
        assert seeds == {scores.choice_seed}
        assert isinstance(chosen_by, TracIn) or chosen_by == FeatureSimilarity(model=models[0], views="light")
    assert {scores.choice_seed for scores in choices} == {0, 1}


def test_trainings_take_the_choices_of_a_checkpoint_or_of_none():
    study = checkpoints(finetune_seeds=2)
    trained = by_checkpoint(study, names.BY_TRACIN_PRETRAINED)
    assert list(trained) == ["epoch 2", "epoch 4", "epoch 8", "epoch 15", "all summed"]
    for name, scores in trained.items():
        encoder = scores.model.encoder
        assert (encoder.num_epochs, scores.model.label_fraction) == (15, 0.1)
        epochs = [model.num_epochs for model in encoder.positives.models]
        assert epochs == ([2, 4, 8, 15] if name == "all summed" else [int(name.split()[1])])
    (alone,) = by_checkpoint(study, names.BYOL_ALONE).values()
    assert alone.model.encoder.positives is None
    assert not any(
        e.role in (names.BYOL_ALONE, names.BY_TRACIN_PRETRAINED)
        for e in checkpoints(without_training=True).entries.values()
    )
    last = table_1_row(names.BY_TRACIN_PRETRAINED, "laptop")
    assert keys_of([trained["epoch 15"].model.encoder]) == keys_of([last])


def table_1_row(role, scale):
    options = byol_positives.ByolPositivesOptions(scale=scale, datasets=("digits",), ways=("tracin_pretrained",))
    (encoder,) = {model.encoder for model in models(byol_positives.make_study(options), role)}
    return encoder


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"checkpoints": (0, 3)}, "--checkpoints 0: expected epochs from 1 to 15"),
        ({"checkpoints": (21,)}, "--checkpoints 21: expected epochs from 1 to 15"),
        ({"ways": ("byol",)}, "--ways: this study compares checkpoints"),
    ],
)
def test_checkpoints_lie_within_the_training(options, said):
    with pytest.raises(ValueError, match=said):
        checkpoints(**options)


def test_checkpoints_can_be_named():
    study = checkpoints(checkpoints=(4,), without_training=True)
    assert list(by_checkpoint(study, names.CHOSEN_BY_FEATURES)) == ["epoch 0", "epoch 4", "epoch 15"]


# -- the search ----------------------------------------------------------------------------------------------------


def searched(**options):
    return positive_search.make_study(positive_search.PositiveSearchOptions(**{"scale": "laptop"} | options))


def test_the_search_begins_with_table_1_and_looks_at_validation_only():
    search = searched(datasets=("digits",), pretrain_seeds=2).search
    ((objective, scores),) = search.make(search.start[0]).items()
    assert objective == "val/bma"
    assert [s.split for s in scores] == ["val", "val"]
    assert [s.model.encoder.pretrain_seed for s in scores] == [0, 1]
    assert keys_of([scores[0].model.encoder]) == keys_of([table_1_row(names.BY_TRACIN_PRETRAINED, "laptop")])
    assert all(s.model.is_frozen for s in scores)
    (short,) = search.make(search.start[0], 4)[objective][:1]
    assert short.model.encoder == replace(scores[0].model.encoder, num_epochs=4)
    assert search.rungs.lengths == (4, 8, 15)
    assert searched(all_epochs=True).search.rungs is None


@pytest.mark.parametrize("strategy", positive_search.STRATEGIES)
def test_a_point_is_the_way_that_it_names(strategy):
    options = positive_search.PositiveSearchOptions(scale="laptop", datasets=("digits",))
    (pretrained,) = pretraining_sets(options)
    byol = byol_of(pretrained, 0, options)
    params = {"strategy": strategy, "top_k": 3, "weight": 0.5, "start": 0.25, "normalize": "cosine"}
    shared = {"top_k": 3, "weight": 0.5, "start_epoch": 1}
    expected = {
        "fnc": FalseNegatives(**shared),
        "fs": FeatureSimilarity(**shared),
        "fs_pretrained": FeatureSimilarity(**shared, model=byol, views="light"),
        "tracin": TracIn(**shared, normalize="cosine"),
        "tracin_pretrained": TracIn(**shared, normalize="cosine", models=(byol,)),
    }
    assert positive_search.positives_of(params, byol, 5) == expected[strategy]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_suggestions": 0}, "--num-suggestions 0"),
        ({"datasets": ("digits", "mnist5k")}, "a search is of one data set"),
        ({"num_epochs": 3}, "--num-epochs: the lengths of a search are the scale's"),
    ],
)
def test_what_a_search_cannot_be_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        positive_search.PositiveSearchOptions(**options)


def test_findings_are_searched_by_their_auc(tmp_path):
    write_chest_xray14(tmp_path, 600)
    search = searched(scale="full", data_root=tmp_path, datasets=("chestxray14",)).search
    assert list(search.directions) == ["val/auc"]


# -- as their user runs them ---------------------------------------------------------------------------------------


def run(study, folder, *flags):
    places = ["--storage", str(folder / "results"), "--cache-dir", str(folder / "cache"), "--scale", "smoke"]
    command = [sys.executable, str(STUDIES / f"{study}.py"), *flags, *places]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_transfer_checkpoints_and_fractions_go_on_from_one_pretraining(tmp_path):
    few = ("--finetune-seeds", "1")
    run("label_fractions", tmp_path, "--ways", "byol", *few)
    plan = json.loads(run("transfer", tmp_path, "--ways", "byol", *few, "--plan", "--json"))
    assert (plan["done"], plan["new"]) == (1, 2), "the pretraining is there"
    run("transfer", tmp_path, "--ways", "byol", *few)
    run("tracin_checkpoints", tmp_path, "--without-training", "--checkpoints", "2")
    store = Store(str(tmp_path / "results"))
    (manifest,) = [each for each in store.manifests() if each["study"] == "tracin_checkpoints"]
    chosen = [store.result(entry["key"]).metrics for entry in manifest["trials"] if entry["role"]]
    assert len(chosen) == 3 * 2
    for metrics in chosen:
        assert 0 < metrics["precision/top_1"] <= 1
        assert 0.08 < metrics["chance"] < 0.12
        assert metrics["num_anchors"] == 3 * (metrics["num_anchors"] // 3) > 2000
    html = (tmp_path / "results/reports/tracin_checkpoints/digits/report.html").read_text()
    assert "the same choices dealt out to other anchors" in html
    assert 'id="figure-choices"' in html
    assert (tmp_path / "results/reports/transfer/mnist5k/report.html").is_file()
    assert (tmp_path / "results/reports/label_fractions/digits/report.html").is_file()
