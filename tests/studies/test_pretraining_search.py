"""The search of the pretraining: what it tries, and the whole of it at scale smoke on the packaged real images."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from orchestrator.store import Store
from studies.curve_recipes import CurveStudyOptions
from studies.pretraining_search import OBJECTIVE, SCALES, PretrainingSearchOptions, make_study, space
from studies.rotation_period import make_study as make_rotation_study
from trainables.api.identity import FileDigests, Keys
from trainables.augment.combine import THESIS_AUGMENTATION
from trainables.models.released import ReleasedWeights

STUDY = Path(__file__).parents[2] / "studies" / "pretraining_search.py"
PARAMS = {"learning_rate": 0.05, "temperature": 0.1, "key_momentum": 0.9}


def study_of(**options):
    return make_study(PretrainingSearchOptions(**{"scale": "smoke"} | options))


def trained_encoder(study):
    """The first pretraining of a study of curves."""
    return next(entry.trainable.encoder for entry in study.entries.values() if entry.role == "trained")


def test_every_seed_is_trained_with_the_suggested_parameters():
    encoders = study_of(pretrain_seeds=4).search.make(PARAMS, 2)[OBJECTIVE]
    assert [encoder.pretrain_seed for encoder in encoders] == [0, 1, 2, 3]
    for encoder in encoders:
        assert {name: getattr(encoder, name) for name in PARAMS} == PARAMS
        assert replace(encoder, pretrain_seed=0) == encoders[0]


def test_three_seeds_are_the_default():
    assert len(study_of().search.make(PARAMS, 2)[OBJECTIVE]) == 3


@pytest.mark.parametrize(
    "changed", [{"learning_rate": 0.06}, {"temperature": 0.2}, {"key_momentum": 0.99}], ids=lambda c: next(iter(c))
)
def test_another_parameter_is_another_trial_and_the_same_is_the_same(changed):
    keys, search = Keys(FileDigests()), study_of(pretrain_seeds=2).search

    def keys_of(params):
        return {keys.key(encoder) for encoder in search.make(params, 2)[OBJECTIVE]}

    assert len(keys_of(PARAMS)) == 2
    assert keys_of(PARAMS) == keys_of(dict(PARAMS))
    assert keys_of(PARAMS).isdisjoint(keys_of(PARAMS | changed))


def test_all_suggestions_are_measured_under_the_same_augmentation():
    search = study_of().search
    low = {name: getattr(d, "low", None) or d.choices[0] for name, d in space().items()}
    high = {name: getattr(d, "high", None) or d.choices[-1] for name, d in space().items()}
    for params in (low, high):
        assert all(encoder.augmentation == THESIS_AUGMENTATION for encoder in search.make(params, 2)[OBJECTIVE])


def test_the_objective_is_maximized_and_the_budget_is_the_scales_or_the_flags():
    assert study_of().search.directions == {"val/retrieval_accuracy": "maximize"}
    assert study_of().search.num_suggestions == 4
    assert study_of(num_suggestions=7).search.num_suggestions == 7
    with pytest.raises(ValueError, match="--num-suggestions 0: expected at least 1"):
        study_of(num_suggestions=0)


@pytest.mark.parametrize("head", ["v1", "v2"])
@pytest.mark.parametrize("scale", ["smoke", "laptop"])
def test_the_search_begins_inside_the_space_with_the_setting_of_the_rotation_study(scale, head):
    search = study_of(scale=scale, head=head).search
    (beginning,) = search.start
    for name, distribution in space().items():
        assert distribution._contains(distribution.to_internal_repr(beginning[name])), name
    trained = trained_encoder(make_rotation_study(CurveStudyOptions(scale=scale, head=head)))
    first = search.make(beginning, SCALES[scale].lengths[-1])[OBJECTIVE][0]
    for name in ("learning_rate", "temperature", "key_momentum", "backbone", "head"):
        assert getattr(first, name) == getattr(trained, name), name


def test_full_scale_begins_with_the_pretraining_of_the_thesis(small_brats):
    options = small_brats(42)
    study = study_of(scale="full", data_root=options.data_root)
    first = study.search.make(study.search.start[0], 100)[OBJECTIVE][0]
    rotation = make_rotation_study(options)
    assert first == trained_encoder(rotation)  # one trial serves both studies
    assert study.search.num_suggestions == 50
    assert study.cards["brats"].counts == {"train": 37, "val": 5}


@pytest.mark.parametrize("scale", ["smoke", "laptop", "full"])
def test_the_rungs_are_lengths_of_one_training_that_ends_as_the_scale_says(scale, small_brats):
    study = study_of(scale=scale, data_root=small_brats(42).data_root)
    rungs = study.search.rungs
    keys = Keys(FileDigests())
    trained = [study.search.make(PARAMS, length)[OBJECTIVE] for length in rungs.lengths]
    for of_one_seed in zip(*trained, strict=True):
        assert [encoder.num_epochs for encoder in of_one_seed] == list(rungs.lengths)
        assert len({keys.family(encoder) for encoder in of_one_seed}) == 1
    whole = study_of(scale=scale, data_root=small_brats(42).data_root, all_epochs=True).search
    assert whole.rungs is None
    assert whole.make(PARAMS)[OBJECTIVE] == trained[-1]


def test_data_that_is_not_packaged_has_to_be_named():
    with pytest.raises(ValueError, match="--data-root"):
        study_of(dataset="brats")


def test_released_weights_head_and_size_reach_every_pretraining(tmp_path, small_brats):
    path = tmp_path / "released.pth.tar"
    torch.save({"fc.weight": torch.zeros(1)}, path)
    study = study_of(pretrained=path, head="v1")
    for encoder in study.search.make(PARAMS, 2)[OBJECTIVE]:
        assert encoder.init == ReleasedWeights(str(path))
        assert encoder.head == "v1"
        assert encoder.data.image_size_px == SCALES["smoke"].image_size_px
    assert study.facts["pretraining_start"] == "released weights (released.pth.tar)"
    (encoder, *_) = study_of(dataset="brats", data_root=small_brats(12).data_root).search.make(PARAMS, 2)[OBJECTIVE]
    assert encoder.data.image_size_px == SCALES["smoke"].image_size_px
    encoder.check()


def test_the_report_says_that_the_packaged_images_are_one_volume(finished):
    page = (finished[0] / "results/reports/pretraining_search/report.html").read_text()
    assert "The images of mni152 are slices of one volume: they say nothing about other people." in page
    assert "<dt>Data</dt><dd>mni152: train " in page


def run(folder, *flags):
    places = ["--storage", str(folder / "results"), "--cache-dir", str(folder / "cache")]
    command = [sys.executable, str(STUDY), "--scale", "smoke", "--pretrain-seeds", "2", *places, *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished search, and what its command printed."""
    folder = tmp_path_factory.mktemp("search")
    done = run(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_every_suggestion_has_the_mean_of_its_seeds(finished):
    store = Store(str(finished[0] / "results"))
    manifest = next(store.manifests())
    suggestions = manifest["search"]["suggestions"]
    assert [s["number"] for s in suggestions] == [1, 2, 3, 4]
    assert suggestions[0]["params"] == {"learning_rate": 0.03, "temperature": 0.2, "key_momentum": 0.99}
    assert sum(len(suggestion["rungs"]) == 2 for suggestion in suggestions) >= 2
    for suggestion, rung in ((s, rung) for s in suggestions for rung in s["rungs"]):
        keys = rung["trials"][OBJECTIVE]
        assert len(set(keys)) == 2
        assert rung["state"] == "complete"
        values = [store.result(key).metrics[OBJECTIVE] for key in keys]
        assert rung["values"][OBJECTIVE] == pytest.approx(sum(values) / 2)
        configurations = [entry["configuration"] for entry in manifest["trials"] if entry["key"] in keys]
        assert sorted(configuration["pretrain_seed"] for configuration in configurations) == [0, 1]
        assert all(c["learning_rate"] == suggestion["params"]["learning_rate"] for c in configurations)
        assert all(c["num_epochs"] == rung["length"] for c in configurations)


def test_a_promoted_setting_trains_the_missing_epochs_only(finished):
    store = Store(str(finished[0] / "results"))
    suggestions = next(store.manifests())["search"]["suggestions"]
    long = [s["rungs"] for s in suggestions if len(s["rungs"]) == 2]
    for first, second in long:
        continued = [store.result(key).continued_from.key for key in second["trials"][OBJECTIVE]]
        assert continued == first["trials"][OBJECTIVE]


def test_the_report_names_the_best_of_the_store(finished):
    folder, printed = finished
    report = folder / "results/reports/pretraining_search/report.html"
    assert str(report) in printed
    table = pl.read_csv(report.parent / "tables/suggestions.csv")
    suggestions = next(Store(str(folder / "results")).manifests())["search"]["suggestions"]
    values = {suggestion["number"]: suggestion["values"][OBJECTIVE] for suggestion in suggestions}
    assert dict(zip(table["suggestion"], table[OBJECTIVE], strict=True)) == pytest.approx(values)
    whole = {suggestion["number"] for suggestion in suggestions if suggestion["length"] == 2}
    best = min(whole, key=lambda number: (-round(values[number], 9), number))
    assert table["suggestion"][0] == best
    page = report.read_text()
    assert f"suggestion {best} (learning_rate" in page
    assert "optimistic: the best of 4" in page
    assert 'src="http' not in page


def test_a_second_submission_computes_nothing_and_a_larger_budget_goes_on(finished):
    folder, _ = finished
    store = Store(str(folder / "results"))
    trials = store.names("trials")
    assert run(folder).returncode == 0
    assert store.names("trials") == trials
    done = run(folder, "--num-suggestions", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(store.names("trials")) > set(trials)
