"""Drawing validation sets and labelled shares: whole groups, in the proportions of the labels, repeatable.

Groups are put into one order, in which every beginning holds each label in its proportion; a set is a
beginning of that order. So 10 % of the labels lie inside 50 % of them, whatever the seed. The order of a group hangs on
(purpose, seed, its name) and on how many groups share its label, not on a running stream of random numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Labels = Sequence[str] | Sequence[int]

LEAST_VAL = 2
"""A contrastive loss compares an image with others: it needs two."""
LEAST_TRAIN = 3


def validation_split(groups: Sequence[str], share: float, seed: int, labels: Labels | None = None) -> list[str]:
    """ "val" or "train" for each image, groups kept whole.

    Args:
        groups: of each image.
        share: of the images that shall be validation, in [0, 1). Above 0 at least ``LEAST_VAL``, and at least
            ``LEAST_TRAIN`` are left; none where the groups allow no such division.
        labels: of each image, to keep their proportions; a group counts with its most frequent one.

    Raises:
        ValueError: a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"share = {share}: use a share of the images in [0, 1)")
    order = stratified_order(groups, labels, "validation", seed)
    within = (LEAST_VAL, len(groups) - LEAST_TRAIN)
    chosen = set(order[: _beginning(order, Counter(groups), share * len(groups), within)]) if share else set()
    return ["val" if group in chosen else "train" for group in groups]


def three_splits(
    groups: Sequence[str], test_share: float, val_share: float, seed: int, labels: Labels | None = None
) -> list[str]:
    """ "test", "val" or "train" for each image, groups kept whole: test images first, then validation images of what is
    left, so that another share of these leaves the test images as they are.

    Args:
        test_share: of all images, in [0, 1).
        val_share: of those that are no test images.
        groups, seed, labels: as for ``validation_split``.
    """
    is_test = [split == "val" for split in validation_split(groups, test_share, seed, labels)]
    rest = [place for place, test in enumerate(is_test) if not test]
    of_rest = None if labels is None else [labels[place] for place in rest]
    drawn = validation_split([groups[place] for place in rest], val_share, seed, of_rest)  # type: ignore[arg-type]
    split_of = dict(zip(rest, drawn, strict=True))
    return [split_of.get(place, "test") for place in range(len(groups))]


def labelled(
    groups: Sequence[str], label_fraction: float, seed: int, labels: Labels | None = None
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which images keep their labels when only a fraction of them is to be used; a smaller one lies inside a larger.

    Args:
        groups: of each image; kept whole.
        label_fraction: in (0, 1]. At least one group.
        labels: of each image, to keep their proportions.

    Raises:
        ValueError: a fraction outside (0, 1].
    """
    if not 0 < label_fraction <= 1:
        raise ValueError(f"label_fraction = {label_fraction}: use a fraction in (0, 1]")
    order = stratified_order(groups, labels, "labels", seed)
    num_groups = max(1, _beginning(order, Counter(groups), label_fraction * len(groups)))
    chosen = set(order[:num_groups])
    return np.array([group in chosen for group in groups], dtype=bool)


def stratified_order(groups: Sequence[str], labels: Labels | None, purpose: str, seed: int) -> list[str]:
    """All groups, each once: any beginning holds of each label its proportion of groups, to within one group."""
    strata: dict[Any, list[str]] = defaultdict(list)
    for group, label in _label_of_group(groups, labels).items():
        strata[label].append(group)
    places: list[tuple[float, str, str]] = []
    for members in strata.values():
        members.sort(key=lambda group: _draw(purpose, seed, group))
        places += [((k + 0.5) / len(members), _draw(purpose, seed, group), group) for k, group in enumerate(members)]
    return [group for *_, group in sorted(places)]


def _label_of_group(groups: Sequence[str], labels: Labels | None) -> Mapping[str, Any]:
    """The most frequent label of each group, the least of equally frequent ones."""
    if labels is None:
        return dict.fromkeys(groups, 0)
    counts: dict[str, Counter[Any]] = defaultdict(Counter)
    for group, label in zip(groups, labels, strict=True):
        counts[group][label] += 1
    return {group: min(count, key=lambda label: (-count[label], label)) for group, count in counts.items()}


def _beginning(
    order: Sequence[str], sizes: Mapping[str, int], num_images: float, within: tuple[float, float] = (0, math.inf)
) -> int:
    """How many groups of the order come nearest to so many images; never fewer for more images.

    Args:
        within: least and most images that may be in them; 0 groups where no beginning has as many.
    """
    totals = np.cumsum([0, *(sizes[group] for group in order)])
    distances = np.where((totals >= within[0]) & (totals <= within[1]), np.abs(totals - num_images), np.inf)
    return int(distances.argmin())


def _draw(purpose: str, seed: int, group: str) -> str:
    return hashlib.sha256(json.dumps([purpose, int(seed), group]).encode()).hexdigest()
