"""InfoNCE against loops in NumPy, and the numbers a collapse shows."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from trainables import runtime
from trainables.ssl import losses


def directions(count, dim, name):
    embeddings = torch.randn(count, dim, generator=runtime.generator(name), dtype=torch.float64)
    return functional.normalize(embeddings, dim=1)


def slow_info_nce(queries, keys, negatives, temperature):
    """He et al. 2020, Eq. 1, one query and one key at a time."""
    total = 0.0
    for query, key in zip(queries, keys, strict=True):
        positive = math.exp(sum(q * k for q, k in zip(query, key, strict=True)) / temperature)
        others = sum(math.exp(sum(q * k for q, k in zip(query, n, strict=True)) / temperature) for n in negatives)
        total -= math.log(positive / (positive + others))
    return total / len(queries)


@pytest.mark.parametrize("temperature", [0.07, 0.2])
def test_info_nce_equals_the_slow_one(temperature):
    queries, keys, negatives = directions(5, 8, "q"), directions(5, 8, "k"), directions(12, 8, "n")
    loss = losses.info_nce(losses.contrast_logits(queries, keys, negatives, temperature))
    expected = slow_info_nce(queries.tolist(), keys.tolist(), negatives.tolist(), temperature)
    assert float(loss) == pytest.approx(expected, abs=1e-12)


def test_info_nce_at_chance_is_the_log_of_the_choices():
    same = directions(1, 8, "one").expand(4, 8)
    logits = losses.contrast_logits(same, same, same[:1].expand(31, 8), 0.2)
    assert float(losses.info_nce(logits)) == pytest.approx(math.log(32))


def test_contrast_accuracy_counts_wins_and_no_ties():
    logits = torch.tensor([[3.0, 1.0, 2.0], [1.0, 2.0, 0.0], [2.0, 2.0, 1.0], [0.5, -1.0, 0.4]])
    assert float(losses.contrast_accuracy(logits)) == 0.5
    assert float(losses.contrast_accuracy(torch.ones(4, 9))) == 0.0


def test_embedding_std_of_collapse_and_of_the_sphere():
    dim = 64
    assert float(losses.embedding_std(directions(1, dim, "one").expand(50, dim))) == pytest.approx(0.0, abs=1e-12)
    spread = float(losses.embedding_std(directions(4000, dim, "many").float()))
    assert spread == pytest.approx(1 / math.sqrt(dim), rel=0.02)


def test_effective_rank_counts_directions():
    dim = 16
    assert float(losses.effective_rank(directions(1, dim, "one").expand(50, dim))) == pytest.approx(1.0, abs=1e-4)
    assert float(losses.effective_rank(torch.eye(dim)[:5].repeat(7, 1))) == pytest.approx(5.0)
    assert float(losses.effective_rank(directions(4000, dim, "many"))) == pytest.approx(dim, rel=0.01)


def test_effective_rank_equals_its_definition():
    embeddings = directions(30, 10, "some") * np.linspace(0.1, 2, 10)
    values = np.linalg.svd(embeddings.numpy(), compute_uv=False)
    shares = values / values.sum()
    assert float(losses.effective_rank(embeddings)) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))
