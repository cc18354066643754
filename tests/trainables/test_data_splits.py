"""Splits and labelled shares by their properties."""

import itertools
from collections import Counter

import numpy as np
import pytest

from trainables.data.splits import labelled, stratified_order, validation_split

SEEDS = range(5)


@pytest.fixture(params=[(40, 1), (40, 3), (7, 9), (200, 2)])
def images(request):
    """Groups and labels of images: groups of 1 to n images, labels in proportions of 6, 3 and 1."""
    num_groups, largest = request.param
    random = np.random.default_rng(num_groups)
    groups, labels = [], []
    for number in range(num_groups):
        size = int(random.integers(1, largest + 1))
        groups += [f"patient {number}"] * size
        labels += ["aaaaaabbbc"[number % 10]] * size
    order = random.permutation(len(groups))
    return [groups[i] for i in order], [labels[i] for i in order]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_validation_keeps_groups_whole_and_its_share(images, share, seed):
    groups, labels = images
    splits = validation_split(groups, share, seed, labels)
    sides = {group: {split for other, split in zip(groups, splits, strict=True) if other == group} for group in groups}
    assert all(len(side) == 1 for side in sides.values())
    largest = max(Counter(groups).values())
    assert abs(splits.count("val") - share * len(groups)) <= largest
    assert 0 < splits.count("val") < len(groups)


@pytest.mark.parametrize("seed", SEEDS)
def test_smaller_fractions_lie_in_larger_ones(images, seed):
    groups, labels = images
    kept = [labelled(groups, fraction, seed, labels) for fraction in (0.01, 0.1, 0.25, 0.5, 0.9, 1.0)]
    for smaller, larger in itertools.pairwise(kept):
        assert not (smaller & ~larger).any()
    assert kept[0].sum() >= 1
    assert kept[-1].all()
    for fraction, which in zip((0.1, 0.25, 0.5, 0.9), kept[1:-1], strict=True):
        assert abs(which.sum() - fraction * len(groups)) <= max(Counter(groups).values())


@pytest.mark.parametrize("seed", SEEDS)
def test_every_beginning_of_the_order_holds_the_labels_in_proportion(images, seed):
    groups, labels = images
    label_of = dict(zip(groups, labels, strict=True))
    order = stratified_order(groups, labels, "validation", seed)
    assert sorted(order) == sorted(set(groups))
    counts = Counter(label_of.values())
    for length in range(1, len(order) + 1):
        share = length / len(order)
        found = Counter(label_of[group] for group in order[:length])
        for label, count in counts.items():
            assert abs(found[label] - share * count) <= 1 + 1e-9 + share


def test_seeds_and_purposes_draw_differently_and_repeatably():
    groups = [str(number) for number in range(60)]
    draws = {tuple(validation_split(groups, 0.3, seed)) for seed in SEEDS}
    assert len(draws) == len(SEEDS)
    assert len({tuple(labelled(groups, 0.3, seed).tolist()) for seed in SEEDS}) == len(SEEDS)
    assert validation_split(groups, 0.3, 4) == validation_split(groups, 0.3, 4)
    assert stratified_order(groups, None, "labels", 0) != stratified_order(groups, None, "validation", 0)
    # Fixed for ever: another draw is another data set.
    assert stratified_order(list("abcdefgh"), None, "validation", 0) == list("gcfeabdh")


def test_the_order_of_images_does_not_matter(images):
    groups, labels = images
    splits = dict(zip(groups, validation_split(groups, 0.3, 1, labels), strict=True))
    again = dict(zip(groups[::-1], validation_split(groups[::-1], 0.3, 1, labels[::-1]), strict=True))
    assert splits == again


def test_a_group_counts_with_its_most_frequent_label():
    groups = ["a"] * 3 + ["b"] * 3 + ["c"] * 2 + ["d"] * 2
    labels = ["x", "y", "y", "x", "x", "y", "y", "y", "x", "x"]
    order = stratified_order(groups, labels, "validation", 0)
    assert {frozenset(order[:2])} <= {frozenset(pair) for pair in ("ab", "ad", "cb", "cd")}


@pytest.mark.parametrize("share", [0.01, 0.2, 0.3, 0.99])
@pytest.mark.parametrize("num_images", range(1, 13))
def test_of_few_images_two_or_more_are_validation_or_none(num_images, share):
    for seed in SEEDS:
        num_val = validation_split([str(number) for number in range(num_images)], share, seed).count("val")
        wanted = min(max(round(share * num_images), 2), num_images - 3)
        assert num_val == (wanted if num_images >= 5 else 0)


@pytest.mark.parametrize(
    ("sizes", "share", "expected"),
    [
        ([1, 1], 0.2, {0}),
        ([2, 2], 0.2, {0}),
        ([2, 3], 0.2, {0, 2}),  # the other way round too few would be left for training
        ([3, 3], 0.2, {3}),
        ([1, 9], 0.2, {0}),
        ([1, 1, 1, 1, 1], 0.2, {2}),
    ],
)
def test_both_sides_of_few_groups_have_images_enough(sizes, share, expected):
    groups = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    assert {validation_split(groups, share, seed).count("val") for seed in range(20)} == expected


def test_single_groups_and_no_share():
    assert validation_split(["a", "a"], 0.5, 0) == ["train", "train"]
    assert validation_split(["a", "b"], 0.0, 0) == ["train", "train"]
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"share = {share}"):
            validation_split(["a"], share, 0)
    for fraction in (0.0, 1.1):
        with pytest.raises(ValueError, match=f"label_fraction = {fraction}"):
            labelled(["a"], fraction, 0)
