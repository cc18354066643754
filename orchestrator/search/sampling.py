"""The side of a search that Optuna sees: the space, and a study in memory that is made anew for every suggestion.

A suggestion is a function of the search, its number, the suggestions before it and what is seen of them: sampler and
study are made anew, the sampler from a seed that follows from the search's seed and the number. What a driver did
before it was killed is nowhere but in the documents of its suggestions.

Kinds of samplers. TPE, GP, random and brute-force sampling are functions of seed and trials, and need no more. Genetic
samplers (NSGA-II, NSGA-III) note generations and parents as attributes of trials and study: every document keeps those
that its suggestion got, and the next study is given them. Grid and quasi-Monte Carlo samplers take places of one fixed
sequence, so their seed is the search's own for all numbers. CMA-ES keeps a pickled optimizer, and nothing is unpickled
here: it is refused. A sampler that keeps a state of its own, in none of these ways, begins with every suggestion anew.
With rungs, TPE uses suggestions that have not come to the last rung as it uses Optuna's pruned trials; GP and genetic
samplers learn from the last rung alone.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from orchestrator.study import Params, Search

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

T = TypeVar("T")

# A sampler may come back to the same points; after so many in a row there is nothing to learn before a trial ends.
_PATIENCE = 30
# A space of no more points is tried out to the last.
_FEW_POINTS = 1000
# Optuna's step of the only value of a suggestion without rungs.
NO_RUNGS = 0


class SuggestionState(StrEnum):
    """What became of a suggestion, or of what was decided on one."""

    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True)
class Attributes:
    """What a sampler noted while it made a suggestion, of the trial and of the study, as JSON."""

    trial: Mapping[str, Any] = field(default_factory=dict)
    study: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """A suggestion as a later one sees it: its values by length (``NO_RUNGS`` without rungs)."""

    params: Params
    values: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    has_failed: bool = False
    attributes: Attributes = Attributes()


def sample(
    search: Search,
    number: int,
    before: Sequence[Seen],
    untried: Sequence[Params] | None,
    accept: Callable[[Params], T | None],
) -> tuple[T, Attributes] | None:
    """Suggestion ``number``: the first new point that ``accept`` makes something of, and what the sampler noted.

    ``before`` are all suggestions of smaller numbers. ``untried`` are all points that are left, where they can be
    counted. None if there is no point before more is seen.
    """
    tried = [dict(seen.params) for seen in before]
    for point in _start(search):
        if point not in tried:
            if (made := accept(point)) is not None:
                return made, Attributes()
            tried.append(dict(point))
    study = _study(search, number, before)
    for _ in range(_PATIENCE):
        trial = study.ask(fixed_distributions=dict(search.space))
        params = dict(trial.params)
        if params not in tried and (made := accept(params)) is not None:
            return made, _noted(study, trial)
        tried.append(params)
        _refuse(study, trial)
    left = [point for point in untried or () if point not in tried]
    random.Random(_seed(search, number)).shuffle(left)
    found = (accept(point) for point in left)
    return next(((made, Attributes()) for made in found if made is not None), None)


def frozen_trial(search: Search, seen: Seen) -> FrozenTrial:
    """A suggestion as a trial of Optuna: complete with a value at the last rung, pruned with one at an earlier rung.

    Of several objectives Optuna knows no values on the way: such a suggestion is running until it has come to the end.
    """
    from optuna.trial import TrialState, create_trial

    last = search.rungs.lengths[-1] if search.rungs else NO_RUNGS
    ordered = {length: [values[o] for o in search.directions] for length, values in seen.values.items()}
    state = TrialState.RUNNING
    if seen.has_failed:
        state = TrialState.FAIL
    elif last in ordered:
        state = TrialState.COMPLETE
    elif ordered and len(search.directions) == 1:
        state = TrialState.PRUNED
    reports = search.rungs is not None and len(search.directions) == 1
    return create_trial(
        state=state,
        params=dict(seen.params),
        distributions=dict(search.space),
        values=ordered[last] if state is TrialState.COMPLETE else None,
        intermediate_values={length: values[0] for length, values in ordered.items()} if reports else None,
        system_attrs=dict(seen.attributes.trial),
    )


def _start(search: Search) -> list[Params]:
    """The starting points as Optuna would write them: 1 is 1.0 where the parameter is a float."""
    space = search.space.items()
    return [{name: d.to_external_repr(d.to_internal_repr(point[name])) for name, d in space} for point in search.start]


def _study(search: Search, number: int, before: Sequence[Seen]) -> Any:
    """Optuna's study in memory, before it is asked for suggestion ``number``."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=list(search.directions.values()), sampler=_sampler(search, number))
    # Grid and brute-force samplers call it after their last point, which is an error outside of `optimize`.
    study.stop = lambda: None  # type: ignore[method-assign]
    for seen in before:
        study.add_trial(frozen_trial(search, seen))
        for name, value in seen.attributes.study.items():
            study._storage.set_study_system_attr(study._study_id, name, value)
    return study


def _sampler(search: Search, number: int) -> Any:
    from optuna.samplers import GridSampler, QMCSampler, TPESampler

    if search.sampler is None:
        # The liar keeps suggestions apart that run at the same time.
        return TPESampler(seed=_seed(search, number), constant_liar=True)
    sampler = search.sampler(search.seed)
    return sampler if isinstance(sampler, GridSampler | QMCSampler) else search.sampler(_seed(search, number))


def _seed(search: Search, number: int) -> int:
    return int(np.random.SeedSequence([search.seed, number]).generate_state(1)[0])


def _noted(study: Any, trial: Any) -> Attributes:
    """What the sampler noted, without what is no JSON."""
    storage = study._storage
    of_trial = storage.get_trial(trial._trial_id).system_attrs
    of_study = storage.get_study_system_attrs(study._study_id)
    return Attributes(*({name: value for name, value in of.items() if _is_json(value)} for of in (of_trial, of_study)))


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False


def _refuse(study: Any, trial: Any) -> None:
    from optuna.trial import TrialState

    study.tell(trial, state=TrialState.FAIL)


def check(search: Search) -> None:
    """Raise ValueError for a point outside the space, for choices that the store cannot write down, and for CMA-ES."""
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
    if search.seed < 0:
        raise ValueError(f"seed = {search.seed} of a search: expected at least 0")
    if search.sampler is not None:
        from optuna.samplers import CmaEsSampler

        if isinstance(search.sampler(search.seed), CmaEsSampler):
            raise ValueError(
                "CmaEsSampler keeps its state as a pickle, which no storage of results holds, and would begin anew "
                "with every suggestion: take TPESampler, GPSampler or NSGAIISampler"
            )


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
