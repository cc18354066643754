"""The side of a search that Optuna sees: the space, and a study in memory that is told what is known."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from orchestrator.study import Params, Search

# A sampler may come back to the same points; after so many in a row there is nothing to learn before a trial ends.
_PATIENCE = 30
# A space of no more points is tried out to the last.
_FEW_POINTS = 1000


class SuggestionState(StrEnum):
    """What became of a suggestion."""

    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"


class Sampling:
    """Optuna's study in memory, made from what is known."""

    def __init__(self, search: Search, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._search = search
        # As Optuna would write them: 1 is 1.0 where the parameter is a float.
        self._start = [
            {name: d.to_external_repr(d.to_internal_repr(point[name])) for name, d in search.space.items()}
            for point in search.start
        ]
        # The liar keeps suggestions apart that run at the same time.
        sampler = search.sampler(seed) if search.sampler else optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self._study = optuna.create_study(directions=list(search.directions.values()), sampler=sampler)
        # Grid and brute-force samplers call it after their last point, which is an error outside of `optimize`.
        self._study.stop = lambda: None
        self._random = random.Random(seed)
        self._learned: dict[int, Any] = {}  # number -> Optuna's trial; None once it has ended
        self._asked: Any = None
        self._refused: list[Params] = []
        self._is_fruitless = False

    def learn(self, number: int, params: Params, state: SuggestionState, values: Mapping[str, float] | None) -> None:
        """Take a suggestion into Optuna's study unless it is there."""
        import optuna

        if number in self._learned:
            return
        if state is SuggestionState.RUNNING:
            trial, self._asked = self._asked, None
            if trial is not None and trial.params != dict(params):
                self._tell(trial, None)  # another driver was faster than what was asked for
                trial = None
            if trial is None:
                self._study.enqueue_trial(dict(params))
                trial = self._study.ask(fixed_distributions=dict(self._search.space))
            self._learned[number] = trial
            return
        is_complete = state is SuggestionState.COMPLETE
        state = optuna.trial.TrialState.COMPLETE if is_complete else optuna.trial.TrialState.FAIL
        trial = optuna.trial.create_trial(
            state=state,
            params=dict(params),
            distributions=dict(self._search.space),
            values=self._ordered(values) if values else None,
        )
        self._study.add_trial(trial)
        self._learned[number] = None

    def end(self, number: int, values: Mapping[str, float] | None) -> None:
        """Tell Optuna how a suggestion ended."""
        self._is_fruitless = False
        if (trial := self._learned.get(number)) is not None:
            self._tell(trial, values)
            self._learned[number] = None

    def ask(self, tried: list[Params], untried: list[Params] | None) -> Params | None:
        """A point that was not tried; None if the sampler has none before something ends.

        ``untried`` are all points that are left, where they can be counted.
        """
        tried = tried + self._refused
        for point in self._start:
            if point not in tried:
                return point
        if self._is_fruitless:
            return None
        for _ in range(_PATIENCE):
            trial = self._study.ask(fixed_distributions=dict(self._search.space))
            if trial.params not in tried:
                self._asked = trial
                return dict(trial.params)
            self._tell(trial, None)
        left = [point for point in untried or () if point not in tried]
        if left:
            return self._random.choice(left)
        self._is_fruitless = True
        return None

    def refuse(self, params: Params) -> None:
        """Do not come back to a point that cannot be."""
        self._refused.append(dict(params))
        self._is_fruitless = len(self._refused) % _PATIENCE == 0
        if (trial := self._asked) is not None:
            self._asked = None
            self._tell(trial, None)

    def _tell(self, trial: Any, values: Mapping[str, float] | None) -> None:
        import optuna

        if values is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, self._ordered(values))

    def _ordered(self, values: Mapping[str, float]) -> list[float]:
        return [values[objective] for objective in self._search.directions]


def check(search: Search) -> None:
    """Raise ValueError for a point outside the space, and for choices that the store cannot write down."""
    for name, distribution in search.space.items():
        for choice in getattr(distribution, "choices", ()):
            if not isinstance(choice, str | int | float | None):
                raise ValueError(
                    f"parameter {name!r} has the choice {choice!r}: expected text, a number, True, False or None; "
                    "let `make` turn a name into an object"
                )
            if isinstance(choice, float) and not math.isfinite(choice):
                raise ValueError(f"parameter {name!r} has the choice {choice}: expected finite numbers")
        choices = list(getattr(distribution, "choices", ()))
        if len(set(choices)) < len(choices):
            raise ValueError(
                f"parameter {name!r} has choices that are equal: {choices} (0 is False, 1 is True and 1.0)"
            )
    for point in search.start:
        if not fits(point, search):
            raise ValueError(f"the starting point {dict(point)} lies outside the space {dict(search.space)}")


def fits(params: Any, search: Search) -> bool:
    """Whether a point has the space's parameters, each within its bounds."""
    from optuna.trial import TrialState, create_trial

    try:
        create_trial(state=TrialState.FAIL, params=dict(params), distributions=dict(search.space))
    except (ValueError, TypeError):
        return False
    return True


def any_point(search: Search, seed: int) -> Params:
    """A random point of the space."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return dict(study.ask(fixed_distributions=dict(search.space)).params)


def grid(search: Search) -> list[Params] | None:
    """All points of a space of choices and whole numbers; None where they are too many, or there are others."""
    values = [_values_of(distribution) for distribution in search.space.values()]
    if not all(values) or math.prod(len(of_one) for of_one in values) > _FEW_POINTS:
        return None
    return [dict(zip(search.space, point, strict=True)) for point in itertools.product(*values)]


def _values_of(distribution: Any) -> Sequence[Any]:
    if hasattr(distribution, "choices"):
        return tuple(distribution.choices)
    if distribution.single():
        return (distribution.low,)
    return (
        range(distribution.low, distribution.high + 1, distribution.step) if isinstance(distribution.low, int) else ()
    )
