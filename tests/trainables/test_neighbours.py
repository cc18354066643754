"""Votes of the nearest training images, against scikit-learn and from their definition, and in a training."""

import dataclasses

import numpy as np
import pytest
import torch
from fake_context import FakeContext
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from test_byol import TINY, started
from tiny_shapes import TinyFindings, TinyLabels, TinyShapes

from trainables.data.cache import open_images
from trainables.ssl.neighbours import NeighbourProbe, neighbour_votes

DATA = TinyShapes(num_train=10, num_val=7)
unit = torch.nn.functional.normalize


def drawn(num, seed):
    return unit(torch.randn(num, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


def test_votes_are_scikit_learns_with_the_weights_of_the_paper():
    queries, embeddings, labels = drawn(40, 1), drawn(90, 2), np.arange(90) % 3
    peer = KNeighborsClassifier(20, metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.07))
    expected = peer.fit(embeddings.numpy(), labels).predict_proba(queries.numpy())
    votes = neighbour_votes(queries, embeddings, torch.nn.functional.one_hot(torch.from_numpy(labels)))
    np.testing.assert_allclose(votes.numpy(), expected, rtol=1e-9)


def test_of_fewer_than_twenty_all_vote():
    votes = neighbour_votes(drawn(5, 1), drawn(2, 2), torch.tensor([[1, 0], [1, 1]]))
    assert torch.allclose(votes[:, 0], torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize(("labels", "metric"), [(TinyLabels(DATA), "val/knn_bma"), (TinyFindings(DATA), "val/knn_auc")])
def test_a_training_with_labels_logs_them_and_moves_as_without(tmp_path, labels, metric):
    config = dataclasses.replace(TINY, data=DATA, num_epochs=2)
    plain, known = FakeContext(tmp_path / "plain"), FakeContext(tmp_path / "known")
    config.run(plain)
    dataclasses.replace(config, labels=labels).run(known)
    assert [set(row) ^ set(other) for (_, row), (_, other) in zip(known.rows, plain.rows, strict=True)] == [
        {metric}
    ] * 2
    assert all(0 <= row[metric] <= 1 for _, row in known.rows)
    encoders = [torch.load(c.output_dir / "encoder.pt", weights_only=True)["state_dict"] for c in (plain, known)]
    assert all(torch.equal(encoders[0][name], encoders[1][name]) for name in encoders[0])


def test_the_score_is_that_of_the_epochs_embeddings_and_the_labels(tmp_path):
    labels = TinyLabels(DATA)
    training = started(dataclasses.replace(TINY, data=DATA, labels=labels), tmp_path)
    training.train_epoch(0, FakeContext(tmp_path / "other"))
    positions, embeddings = training._probe._embedded
    assert len(positions) == 8, "two batches of four"
    training.encoder.eval()
    # The last validation image has no label.
    queries = training.unit_embeddings(training.val_images.images(torch.arange(6))).detach()
    weights = torch.exp(queries @ embeddings.T / 0.07)
    known = labels.labels()
    of_positions = [known[f"{int(position):03d}"] for position in positions]
    votes = np.stack([weights[:, [label == c for label in of_positions]].sum(1).numpy() for c in range(3)], axis=1)
    truth = [known[f"{10 + i:03d}"] for i in range(6)]
    expected = balanced_accuracy_score(truth, votes.argmax(axis=1))
    assert training.validate()["val/knn_bma"] == pytest.approx(expected)


class SomeLabels(TinyLabels):
    """Two training images have none."""

    def labels(self):
        return {id_: label for id_, label in super().labels().items() if id_ not in ("003", "007")}


def test_training_images_without_a_label_do_not_vote(tmp_path):
    table = open_images(DATA, FakeContext(tmp_path))
    probe = NeighbourProbe(SomeLabels(DATA), table, torch.device("cpu"), FakeContext(tmp_path / "labels"))
    embedded = drawn(10, 3)
    probe.remember(torch.arange(10), embedded)
    positions, embeddings = probe._embedded
    assert positions.tolist() == [0, 1, 2, 4, 5, 6, 8, 9]
    assert torch.equal(embeddings, embedded[positions])
