"""What a researcher writes down: one question, the trials or the search that answer it, and the report over them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainables.api.card import Card
from trainables.api.trainable import Trainable

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

    from orchestrator.store import Store

Manifest = dict[str, Any]
Params = Mapping[str, Any]
Direction = Literal["maximize", "minimize"]
Report = Callable[["Store", Manifest, Path], Sequence[Path]]


@dataclass(frozen=True)
class Resources:
    """What one worker of a trial occupies on the cluster."""

    cpus: float = 1.0
    gpus: float = 0.0
    workers: int = 1

    def __post_init__(self) -> None:
        if self.cpus <= 0 or self.gpus < 0 or self.workers < 1:
            raise ValueError(f"{self} is impossible: expected cpus > 0, gpus >= 0 and workers >= 1")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus = {self.gpus:g}: expected a whole number, or less than 1, where trials share a GPU")


@dataclass(frozen=True)
class Rungs:
    """The lengths at which the suggestions of a search are compared: asynchronous successive halving.

    A suggestion begins at the first length. It is promoted to the next one when it is among the best
    ``1 / reduction`` of all that have a value at its length (Li et al. 2020, "A system for massively parallel
    hyperparameter tuning", algorithm 2): a longer trial, which goes on from the shorter one. The others stay as they
    are, and may be promoted later.
    """

    lengths: tuple[int, ...]
    reduction: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", tuple(self.lengths))
        is_rising = all(shorter < longer for shorter, longer in itertools.pairwise(self.lengths))
        if len(self.lengths) < 2 or self.lengths[0] < 1 or not is_rising:
            raise ValueError(
                f"rungs of the lengths {self.lengths}: expected at least two, from 1 up, each above the one before"
            )
        if self.reduction < 2:
            raise ValueError(
                f"rungs that keep 1 of {self.reduction} suggestions: expected a reduction of at least 2; to train all "
                "of them to the end, give no rungs"
            )


@dataclass(frozen=True)
class Search:
    """A search of a space of parameters by one of Optuna's samplers.

    ``make(params)`` turns parameters into trainables, for each objective one a seed; with rungs, ``make(params,
    length)``, where the length sets the ``grows`` field of a training, at any depth of the trainables, and nothing
    else. An objective is the mean of the summary metric of its name over its trainables; with rungs, at the longest
    length that the suggestion has reached. Whatever two suggestions share, such as a pretraining, runs once.
    """

    space: Mapping[str, BaseDistribution]
    make: Callable[..., Mapping[str, Sequence[Trainable]]]
    directions: Mapping[str, Direction]
    """Objective -> direction; of several, the best are those that no other suggestion beats in all of them."""
    num_suggestions: int
    """How many points are tried; promotions to longer trials come on top."""
    start: Sequence[Params] = ()
    """Points to try first: the defaults, published values."""
    sampler: Callable[[int], BaseSampler] | None = None
    """From a seed; None is TPE. See ``orchestrator.search.sampling`` for how each kind of sampler is used."""
    seed: int = 0
    """Every suggestion is sampled with a seed of its own, made from this one and its number."""
    rungs: Rungs | None = None
    """None trains every suggestion to the end."""

    def __post_init__(self) -> None:
        if not self.space or not self.directions:
            raise ValueError("a search needs a space of parameters and at least one objective with its direction")
        if self.num_suggestions < 1:
            raise ValueError(f"num_suggestions = {self.num_suggestions}: expected at least 1")
        for objective, direction in self.directions.items():
            if not objective.startswith("val/"):
                raise ValueError(f"objective {objective!r}: a search sees validation only; expected such as 'val/dice'")
            if direction not in ("maximize", "minimize"):
                raise ValueError(f"direction {direction!r} of {objective}: expected 'maximize' or 'minimize'")


@dataclass(frozen=True)
class Entry:
    """A trainable and what it is to its study: exhibits select by these, never by a name that people read."""

    trainable: Trainable
    role: str = ""
    """``trained``, ``untrained``, ``released``, ``fixed map``, ``mask``, ``intensity``, ..."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Such as ``{"data": "mni152", "region": "white_matter", "sweep": "rotation"}``."""


@dataclass(frozen=True)
class Study:
    """One research question.

    ``trials`` names the trainables the answer needs, with their roles where they have some; what they depend on is
    found in their fields; ``search`` finds more. ``report`` names a function as ``package.module:function``, loaded
    when there is something to draw: it gets the store, the manifest of the submission and an output folder, and returns
    the paths worth showing, the main one first.
    """

    name: str
    question: str
    trials: Mapping[str, Trainable | Entry] = field(default_factory=dict)
    search: Search | None = None
    report: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)  # said in report and MLflow: scale, kind of start, ...
    cards: Mapping[str, Card] = field(default_factory=dict)  # its data sets by name

    def __post_init__(self) -> None:
        if not self.name.replace("_", "").replace("-", "").isalnum():
            raise ValueError(f"study name {self.name!r}: expected letters, digits, '_' and '-' (it names folders)")
        if not self.trials and not self.search:
            raise ValueError(f"study {self.name!r} has no trials: give at least one trainable, or a search")

    @property
    def entries(self) -> dict[str, Entry]:
        """The named trials with role and labels."""
        return {n: given if isinstance(given, Entry) else Entry(given) for n, given in self.trials.items()}

    @property
    def trainables(self) -> dict[str, Trainable]:
        """The named trainables."""
        return {name: entry.trainable for name, entry in self.entries.items()}
