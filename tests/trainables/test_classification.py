"""Classification: what is trained on what, how it is scored, and what one class or another does to a score."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
import torch
from fake_context import FakeContext
from sklearn import metrics as peer
from tiny_shapes import TinyFindings, TinyLabels, TinyShapes
from torch.nn import functional

from trainables.api.errors import NonFiniteMetric
from trainables.augment.geometric import HorizontalFlip
from trainables.classification.predicting import stratum_of
from trainables.classification.scores import ClassificationScores
from trainables.classification.training import Classification, ClassificationTraining
from trainables.data.cache import open_annotation, open_images
from trainables.data.splits import labelled
from trainables.metrics.classification import finding_scores, mean_of_defined, one_class_scores
from trainables.models.sources import Untrained

DATA = TinyShapes(num_train=12, num_val=6)
ENCODER = Untrained(DATA, "resnet18")
TINY = Classification(
    TinyLabels(DATA), ENCODER, augmentation=None, num_epochs=2, batch_size=6, schedule_epochs=4, learning_rate=0.02
)
FINDINGS = dataclasses.replace(TINY, labels=TinyFindings(DATA))


def started(config, root):
    context = FakeContext(root)
    images, table = open_images(DATA, context), open_annotation(config.labels, context)
    return ClassificationTraining(config, images, table, context)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    context = FakeContext(tmp_path_factory.mktemp("classification"))
    return context, TINY.run(context)


# -- scores --------------------------------------------------------------------------------------------------------


def test_scores_of_one_class_are_scikit_learns():
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4), size=60), rng.integers(0, 4, 60)
    found = one_class_scores(probabilities, labels)
    predicted = probabilities.argmax(axis=1)
    assert mean_of_defined(found["sensitivity"]) == pytest.approx(peer.balanced_accuracy_score(labels, predicted))
    assert mean_of_defined(found["precision"]) == pytest.approx(
        peer.precision_score(labels, predicted, average="macro")
    )
    auc = peer.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert mean_of_defined(found["auc"]) == pytest.approx(auc)


def test_scores_of_findings_are_scikit_learns():
    rng = np.random.default_rng(1)
    probabilities, truth = rng.random((50, 3)), rng.integers(0, 2, (50, 3))
    found = finding_scores(probabilities, truth)
    assert mean_of_defined(found["auc"]) == pytest.approx(peer.roc_auc_score(truth, probabilities, average="macro"))
    precision = peer.average_precision_score(truth, probabilities, average="macro")
    assert mean_of_defined(found["average_precision"]) == pytest.approx(precision)
    assert found["precision"][1] == pytest.approx(peer.precision_score(truth[:, 1], probabilities[:, 1] >= 0.5))


def test_a_class_that_does_not_occur_has_no_score_and_no_say():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])
    found = one_class_scores(probabilities, np.array([0, 1, 1]))
    assert np.isnan(found["auc"]).tolist() == np.isnan(found["sensitivity"]).tolist() == [False, False, True]
    assert mean_of_defined(found["sensitivity"]) == 0.75
    always = finding_scores(probabilities, np.array([[1, 0, 1], [1, 1, 0], [1, 0, 0]]))
    assert np.isnan(always["auc"]).tolist() == [True, False, False]
    assert always["sensitivity"][0] == pytest.approx(2 / 3)
    assert np.isnan(mean_of_defined(np.array([np.nan])))


# -- which images --------------------------------------------------------------------------------------------------


def test_the_rarest_finding_is_kept_in_proportion():
    truth = np.zeros((100, 2))
    truth[:50, 0], truth[:10, 1] = 1, 1
    strata = stratum_of(truth)
    assert [strata[0], strata[20], strata[80]] == [0, 1, -1], "the second is the rarer one"
    groups = [str(place) for place in range(100)]
    for fraction in (0.1, 0.5):
        chosen = labelled(groups, fraction, 3, strata)
        assert truth[chosen].sum(axis=0) == pytest.approx(fraction * truth.sum(axis=0), abs=1)


def test_smaller_fractions_lie_inside_larger_ones_and_another_seed_draws_others(tmp_path):
    ids = {
        (fraction, seed): set(
            started(
                dataclasses.replace(TINY, label_fraction=fraction, label_seed=seed), tmp_path / f"{fraction} {seed}"
            ).ids
        )
        for fraction in (0.25, 0.5, 1.0)
        for seed in (0, 1)
    }
    assert [len(ids[fraction, 0]) for fraction in (0.25, 0.5, 1.0)] == [3, 6, 12]
    assert ids[0.25, 0] < ids[0.5, 0] < ids[1.0, 0]
    assert ids[0.5, 0] != ids[0.5, 1]
    assert sorted(int(id_) % 3 for id_ in ids[0.25, 0]) == [0, 1, 2]
    assert dataclasses.replace(TINY, label_fraction=0.25).num_labelled() == 3


# -- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [TINY, FINDINGS], ids=["class", "findings"])
def test_the_loss_of_an_epoch_is_the_cross_entropy(tmp_path, config):
    training = started(dataclasses.replace(config, batch_size=12, learning_rate=1e-12), tmp_path)
    images = training.train_images.images(torch.arange(12))
    with torch.no_grad():
        logits = training.classifier.train()(images.contiguous(memory_format=torch.channels_last))
    labels = [config.labels.labels()[id_] for id_ in training.ids]
    if config is TINY:
        expected = functional.cross_entropy(logits, torch.tensor(labels))
    else:
        expected = functional.binary_cross_entropy_with_logits(logits, torch.tensor(np.stack(labels)).float())
    found = training.train_epoch(0, FakeContext(tmp_path / "epoch"))["train/loss"]
    assert found == pytest.approx(float(expected), rel=1e-4)


def test_a_probe_leaves_the_encoder_as_it_is(tmp_path):
    training = started(dataclasses.replace(TINY, is_frozen=True), tmp_path)
    before = {name: values.clone() for name, values in training.classifier.state_dict().items()}
    training.train_epoch(0, FakeContext(tmp_path / "epoch"))
    changed = {
        name for name, values in training.classifier.state_dict().items() if not torch.equal(values, before[name])
    }
    assert changed == {"last.weight", "last.bias"}
    whole = started(TINY, tmp_path / "whole")
    whole.train_epoch(0, FakeContext(tmp_path / "whole epoch"))
    assert not torch.equal(whole.classifier.encoder.trunk.conv1.weight, before["encoder.trunk.conv1.weight"])


def test_images_are_augmented_anew_each_epoch(tmp_path):
    training = started(dataclasses.replace(TINY, augmentation=HorizontalFlip()), tmp_path)
    shown = [training.batch(torch.arange(12), epoch)[0] for epoch in (0, 0, 1)]
    plain = training.train_images.images(torch.arange(12))
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])
    flipped = [not torch.equal(one, other) for one, other in zip(shown[0], plain, strict=True)]
    assert 1 < sum(flipped) < 11


def test_it_learns_its_own_images(tmp_path):
    """By heart: the labels are not in the images."""
    context = FakeContext(tmp_path)
    dataclasses.replace(TINY, num_epochs=15, schedule_epochs=15, learning_rate=0.003).run(context)
    loss = context.metric("train/loss")
    assert loss[-1] < 0.3 * loss[0]


def test_what_is_published(trained):
    context, metrics = trained
    assert set(metrics) == {"train/loss", "learning_rate", "val/bma"}
    labelled_ = json.loads((context.output_dir / "artifacts/labelled.json").read_text())
    assert (labelled_["num_images"], len(labelled_["ids"])) == (12, 12)


@pytest.mark.parametrize("split", ["val", "train"])
def test_scores_of_a_split_follow_from_its_predictions(trained, tmp_path, split):
    context, _ = trained
    scores = ClassificationScores(TINY, split)
    later = FakeContext(tmp_path, upstream=[(TINY, context.output_dir)])
    metrics = scores.run(later)
    rows = pl.read_parquet(later.output_dir / "predictions.parquet")
    of_image = rows.group_by("image_id", maintain_order=True).agg("probability", "is_of_class")
    probabilities = np.stack(of_image["probability"].to_list())
    labels = np.stack(of_image["is_of_class"].to_list()).argmax(axis=1)
    known = TINY.labels.labels()
    assert labels.tolist() == [known[id_] for id_ in of_image["image_id"]]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    bma = peer.balanced_accuracy_score(labels, probabilities.argmax(axis=1))
    assert metrics[f"{split}/bma"] == pytest.approx(bma)
    assert metrics["num_images"] == len(of_image)
    assert metrics["num_labelled"] == 12
    table = pl.read_csv(later.output_dir / "artifacts/classes.csv")
    assert table["class"].to_list() == ["a", "b", "c"]
    assert table["num_images"].sum() == len(of_image)


def test_classes_that_no_label_teaches_are_counted_and_named(trained, tmp_path):
    few = dataclasses.replace(TINY, label_fraction=2 / 12, learning_rate=1e-4)
    ids = {record.id for record in DATA.records() if record.split == "train"}
    context = FakeContext(tmp_path / "training")
    few.run(context)
    shown = json.loads((context.output_dir / "artifacts/labelled.json").read_text())["ids"]
    taught = {TINY.labels.labels()[id_] for id_ in shown}
    assert (len(shown), len(taught), len(ids)) == (2, 2, 12)
    for config, folder, unseen in [(few, context.output_dir, 1), (TINY, trained[0].output_dir, 0)]:
        later = FakeContext(tmp_path / f"scores-{unseen}", upstream=[(config, folder)])
        assert ClassificationScores(config, "val").run(later)["num_unseen_classes"] == unseen
        table = pl.read_csv(later.output_dir / "artifacts/classes.csv")
        assert table["num_labelled"].sum() == config.num_labelled()
        assert [name for name, count in zip("abc", table["num_labelled"], strict=True) if not count] == [
            "abc"[k] for k in range(3) if unseen and k not in taught
        ]


@pytest.mark.parametrize(("config", "metric"), [(TINY, "val/bma"), (FINDINGS, "val/auc")])
def test_predictions_of_a_diverged_training_are_named_and_not_scored(config, metric, tmp_path, monkeypatch):
    training = started(config, tmp_path)
    assert metric in training.validate()
    with torch.no_grad():
        training.classifier.last.bias[0] = torch.nan
    assert np.isnan(training.validate()[metric])
    context = FakeContext(tmp_path / "training")
    config.run(context)
    monkeypatch.setattr(Classification, "load", lambda self, context: training.classifier)
    scores = ClassificationScores(config, "val")
    with pytest.raises(NonFiniteMetric, match="probability"):
        scores.run(FakeContext(tmp_path / "scores", upstream=[(config, context.output_dir)]))


def test_findings_are_scored_by_their_mean_auc(tmp_path):
    context = FakeContext(tmp_path / "training")
    assert "val/auc" in FINDINGS.run(context)
    metrics = ClassificationScores(FINDINGS, "train").run(
        FakeContext(tmp_path / "scores", upstream=[(FINDINGS, context.output_dir)])
    )
    assert "train/bma" not in metrics
    assert 0 <= metrics["train/auc"] <= 1
    assert metrics["num_undefined"] == 0


def test_what_cannot_be_meant_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is known for no training image"):
        dataclasses.replace(TINY, labels=TinyLabels(TinyShapes(num_train=0, num_val=4))).check()
    with pytest.raises(ValueError, match="is known for no image of split 'test'"):
        ClassificationScores(TINY).check()
    with pytest.raises(ValueError, match="sgd_momentum"):
        dataclasses.replace(TINY, sgd_momentum=1.0)
    colours = dataclasses.replace(TINY, encoder=Untrained(TinyShapes(channels=3), "resnet18"))
    with pytest.raises(ValueError, match="the encoder takes 3 channels and the images have 1"):
        started(colours, tmp_path)
