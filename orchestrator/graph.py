"""From the object graph of a study to its trials: each once, with its key, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.inputs import KnownPart, known_parts
from orchestrator.study import Study
from trainables.api.identity import Keys, length_of, parts_of
from trainables.api.trainable import Trainable


@dataclass(frozen=True)
class Trial:
    """One trainable in a plan, with its key and the keys of the trials it waits for."""

    key: str
    name: str
    trainable: Trainable
    upstream: tuple[str, ...]
    parts: tuple[KnownPart, ...] = ()
    family: str | None = None  # of a training that grows
    length: int = 0


def trials_of(study: Study, keys: Keys) -> list[Trial]:
    """The trials of a study, each once, upstream before downstream.

    Raises TypeError naming a field that has no canonical form, and FileNotFoundError naming a missing input file.
    """
    trials: dict[str, Trial] = {}
    # A trial that the study names itself keeps that name, also where another trial holds it in a field. Of two names
    # for one configuration the first stands here; the manifest has both.
    given: dict[str, str] = {}
    for name, trainable in study.trainables.items():
        given.setdefault(keys.key(trainable), name)
    taken = set(study.trials)
    next_numbers: dict[str, int] = {}

    def visit(trainable: Trainable, name: str) -> str:
        key = keys.key(trainable)
        if key not in trials:
            upstream = {visit(part, f"{name} / {type(part).__name__}") for part in nested_trainables(trainable)}
            trials[key] = Trial(
                key,
                given.get(key) or _free_name(name, taken, next_numbers),
                trainable,
                tuple(sorted(upstream)),
                known_parts(trainable, keys),
                keys.family(trainable),
                length_of(trainable) or 0,
            )
        return key

    for name, trainable in study.trainables.items():
        visit(trainable, name)
    return list(trials.values())


def _free_name(name: str, taken: set[str], next_numbers: dict[str, int]) -> str:
    """The first of ``name``, ``name 2``, ``name 3`` ... that is not taken. ``next_numbers``: where to look on."""
    number = next_numbers.get(name, 1)
    while (free := name if number == 1 else f"{name} {number}") in taken:
        number += 1
    next_numbers[name] = number + 1
    taken.add(free)
    return free


def nested_trainables(value: Any) -> Iterator[Trainable]:
    """The trainables held directly in the fields of a configuration, also inside sources, tuples and dicts."""
    for part in parts_of(value):
        if isinstance(part, Trainable):
            yield part
        else:
            yield from nested_trainables(part)
