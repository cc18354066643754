"""Drawing validation sets and labelled shares: whole groups, in the proportions of the labels, repeatable.

Groups are put into one order, in which every beginning holds each label in its proportion; a set is a
beginning of that order. So 10 % of the labels lie inside 50 % of them, whatever the seed. The order of a group hangs on
(purpose, seed, its name) and on how many groups share its label, not on a running stream of random numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Labels = Sequence[str] | Sequence[int]


def validation_split(groups: Sequence[str], share: float, seed: int, labels: Labels | None = None) -> list[str]:
    """ "val" or "train" for each image, groups kept whole.

    Args:
        groups: of each image.
        share: of the images that shall be validation, in [0, 1). Above 0 at least one group, if there are two or more;
            never all.
        labels: of each image, to keep their proportions; a group counts with its most frequent one.

    Raises:
        ValueError: a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"share = {share}: use a share of the images in [0, 1)")
    order = stratified_order(groups, labels, "validation", seed)
    num_groups = _beginning(order, Counter(groups), share * len(groups)) if share else 0
    if share:
        num_groups = min(max(num_groups, 1), len(order) - 1) if len(order) > 1 else 0
    chosen = set(order[:num_groups])
    return ["val" if group in chosen else "train" for group in groups]


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


def _beginning(order: Sequence[str], sizes: Mapping[str, int], num_images: float) -> int:
    """How many groups of the order come nearest to so many images; never fewer for more images."""
    totals = np.cumsum([0, *(sizes[group] for group in order)])
    return int(np.abs(totals - num_images).argmin())


def _draw(purpose: str, seed: int, group: str) -> str:
    return hashlib.sha256(json.dumps([purpose, int(seed), group]).encode()).hexdigest()
