"""Asynchronous successive halving over families: which suggestion gets a longer trial (Li et al. 2020, algorithm 2).

Nothing is stopped. A suggestion is promoted, or it gets no longer trial; the longer trial goes on from the shorter one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.study import Rungs, Search
from trainables.api.identity import describe, length_of, named_parts
from trainables.api.trainable import GROWS, RECORDED_ONLY, Trainable

Values = Mapping[str, float]  # objective -> value


def promotable(
    search: Search, rungs: Rungs, values: Sequence[Mapping[int, Values]], promoted: Sequence[Collection[int]]
) -> Iterator[tuple[int, int]]:
    """(number of a suggestion, rung it rises to) of all that may be promoted, in the order of promotion.

    ``values``: for each rung, by number, the suggestions that have a value there. ``promoted``: for each rung, those
    that have been promoted to the next one. Longer ones go first, and of one rung the better ones.
    """
    for rung in reversed(range(len(rungs.lengths) - 1)):
        num_best = len(values[rung]) // rungs.reduction
        for number in ranked(search, values[rung])[:num_best]:
            if number not in promoted[rung]:
                yield number, rung + 1


def ranked(search: Search, values: Mapping[int, Values]) -> list[int]:
    """Numbers of suggestions, best first; of one objective by its value, and of equals the earlier first.

    Of several objectives by non-dominated sorting: first the front that nobody beats, then the front of the rest, and
    so on. Within a front, first the best by the first objective, then always the one that is farthest from all before
    it (Euclidean, each objective scaled to its range in the rung), so that a few of a front are spread over it as in
    Schmucker et al. 2021, "Multi-objective asynchronous successive halving"; of equals the earlier first.
    """
    numbers = np.array(sorted(values), dtype=int)
    if not len(numbers):
        return []
    signs = [1.0 if direction == "maximize" else -1.0 for direction in search.directions.values()]
    gains = np.array([[values[n][o] for o in search.directions] for n in numbers]) * signs
    if gains.shape[1] == 1:
        return [int(n) for n in numbers[np.argsort(-gains[:, 0], kind="stable")]]
    is_as_good, is_better = gains[:, None] >= gains[None], gains[:, None] > gains[None]
    beats = np.all(is_as_good, axis=-1) & np.any(is_better, axis=-1)
    left, order = np.ones(len(numbers), dtype=bool), list[int]()
    while left.any():
        front = np.flatnonzero(left & ~np.any(beats[left], axis=0))
        order += _spread(front, gains)
        left[front] = False
    return [int(n) for n in numbers[order]]


def _spread(front: np.ndarray[Any, Any], gains: np.ndarray[Any, Any]) -> list[int]:
    """The places of a front, each next one the farthest from those before it."""
    width = np.ptp(gains, axis=0)
    scaled = gains[front] / np.where(width > 0, width, 1.0)
    order = [int(np.argmax(gains[front, 0]))]
    nearest = np.full(len(front), np.inf)
    while len(order) < len(front):
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[order[-1]], axis=1))
        nearest[order] = -1.0
        order.append(int(np.argmax(nearest)))
    return [int(front[place]) for place in order]


def num_to_come(rungs: Rungs, num_at_first: int, risen: Sequence[int], failed: Sequence[int]) -> list[int]:
    """For each rung but the first, how many more suggestions will rise to it at least, if none fails from now on.

    ``num_at_first`` suggestions will have a value at the first rung. ``risen``: for each rung how many have begun
    there; ``failed``: how many of these failed there. Asynchronous promotions may be more: one of the best so
    far may be none of the best in the end.
    """
    to_come, num_with_value = [], num_at_first
    for rung in range(1, len(rungs.lengths)):
        more = max(0, num_with_value // rungs.reduction - risen[rung])
        to_come.append(more)
        num_with_value = risen[rung] - failed[rung] + more
    return to_come


def check_family(shorter: Mapping[str, Trainable], longer: Mapping[str, Trainable], where: str) -> None:
    """Raise ValueError unless trainables of two lengths differ in the lengths of trainings alone, at any depth."""
    if len(shorter) != len(longer):
        raise ValueError(f"{where}: {len(shorter)} and {len(longer)} trainables; expected as many at every length")
    for one, other in zip(shorter.values(), longer.values(), strict=True):
        grown, changed = 0, list[str]()
        for path, a, b in _differences(one, other, type(one).__name__):
            if path.endswith(_GROWN) and b > a:
                grown += 1
            else:
                changed.append(f"{path.removesuffix(_GROWN)} is {_short(a)} and {_short(b)}")
        if changed:
            raise ValueError(
                f"{where}: {'; '.join(changed)}. The longer one cannot go on from the shorter one: expected another "
                "length of a training (a field `grows()`), and nothing else; the horizon of a schedule is to be set"
            )
        if not grown:
            raise ValueError(
                f"{where}: no training of {type(one).__name__} is longer: expected that the length sets a field "
                "that is marked with `grows()`"
            )


_GROWN = " (grows)"


def _differences(one: Any, other: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Paths and values of all that differs and counts; those of lengths of trainings end with a mark."""
    if type(one) is not type(other) or not _is_made_of_parts(one):
        if describe(one) != describe(other):
            yield path, one, other
        return
    parts, others = dict(named_parts(one)), dict(named_parts(other))
    if parts.keys() != others.keys():
        yield path, one, other
        return
    marks = {f.name: f.metadata for f in dataclasses.fields(one)} if dataclasses.is_dataclass(one) else {}
    for name, part in parts.items():
        mark: Mapping[Any, Any] = marks.get(name, {})
        if mark.get(RECORDED_ONLY):
            continue
        if mark.get(GROWS) and isinstance(one, Trainable):
            if part != others[name]:
                yield f"{path}.{name}{_GROWN}", length_of(one), length_of(other)
        else:
            yield from _differences(part, others[name], f"{path}.{name}")


def _is_made_of_parts(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple) or dataclasses.is_dataclass(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
