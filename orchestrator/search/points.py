"""The points of a search and what its study makes of them: trainables, with their keys."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from orchestrator.graph import trials_of
from orchestrator.plan import check_trials
from orchestrator.search.rungs import check_family
from orchestrator.search.sampling import any_point
from orchestrator.study import Params, Search, Study
from trainables.api.identity import Keys
from trainables.api.trainable import Trainable

# A point that trainables accept is looked for so often.
_PATIENCE = 30


@dataclass(frozen=True)
class Stage:
    """What tells the worth of a suggestion at one rung, or at all where the search has no rungs."""

    length: int | None
    trainables: Mapping[str, Mapping[str, Trainable]]  # objective -> name -> trainable
    keys: Mapping[str, tuple[str, ...]]  # objective -> keys of its trainables

    @property
    def trials(self) -> dict[str, Trainable]:
        """Its trainables by name, for a plan."""
        return {name: trainable for named in self.trainables.values() for name, trainable in named.items()}

    @property
    def all_keys(self) -> set[str]:
        """The keys of all its trainables."""
        return {key for keys in self.keys.values() for key in keys}


@dataclass(frozen=True)
class Suggestion:
    """One point of a search, with a stage a rung; one stage where the search has no rungs."""

    number: int  # from 1, in the order of suggestion
    params: Params
    stages: tuple[Stage, ...]


class Impossible(ValueError):
    """The trainables do not accept the parameters of a point."""


class WrongMake(Exception):
    """``make`` has a fault that shows at some points only: the search cannot go on, and trials are running."""


@dataclass(frozen=True)
class Points:
    """Turns the parameters of one study's search into suggestions."""

    study: str
    search: Search
    keys: Keys
    _warned: set[str] = field(default_factory=set)

    def made(self, number: int, params: Params) -> Suggestion:
        """The suggestion of a point.

        Raises Impossible where the trainables refuse the parameters, ValueError where ``make`` gives other objectives
        than the search has, no trainables for one, or other trainables than longer ones for another length.
        """
        rungs = self.search.rungs
        stages = tuple(self._stage(number, params, length) for length in (rungs.lengths if rungs else (None,)))
        for shorter, longer in itertools.pairwise(stages):
            where = f"study {self.study!r}: make({dict(params)}, length) at {shorter.length} and {longer.length}"
            for objective in self.search.directions:
                check_family(shorter.trainables[objective], longer.trainables[objective], f"{where}, {objective}")
        return Suggestion(number, params, stages)

    def _stage(self, number: int, params: Params, length: int | None) -> Stage:
        given = dict(params)  # `make` may change what it is given
        try:
            made = self.search.make(given) if length is None else self.search.make(given, length)
        except (ValueError, TypeError) as error:
            raise Impossible(f"the search of {self.study!r} makes nothing of {dict(params)}: {error}") from error
        if set(made) != set(self.search.directions) or not all(made.values()):
            raise ValueError(
                f"study {self.study!r}: its search makes trainables for {sorted(made)} from {dict(params)}; "
                f"expected at least one for each of {sorted(self.search.directions)}"
            )
        at = "" if length is None else f" at {length}"
        wrong = [given for given in made.values() if isinstance(given, Trainable)]
        if wrong:
            raise ValueError(
                f"study {self.study!r}: its search makes one {type(wrong[0]).__name__} for an objective from "
                f"{dict(params)}; expected a list of trainables: put it in [ ]"
            )
        named = {
            objective: {f"suggestion {number}{at}: {objective} {i}": t for i, t in enumerate(trainables, start=1)}
            for objective, trainables in made.items()
        }
        keys = {objective: tuple(self.keys.key(t) for t in trainables) for objective, trainables in made.items()}
        return Stage(length, named, keys)

    def examples(self) -> list[Suggestion]:
        """Suggestions at up to two points that the trainables accept, other in all parameters."""
        made: list[Suggestion] = []
        refused: Impossible | None = None
        for seed in range(_PATIENCE):
            params = any_point(self.search, seed)
            if made and any(params[n] == made[0].params[n] for n, d in self.search.space.items() if not d.single()):
                continue
            try:
                made.append(self.made(0, params))
            except Impossible as error:
                refused = error
            if len(made) == 2:
                break
        if refused and not made:
            raise refused
        return made

    def accepted(self, points: list[Params] | None) -> list[Params] | None:
        """Those of some points that the trainables accept; None for None."""
        accepted = []
        for point in points or ():
            with contextlib.suppress(Impossible):
                self.made(0, point)
                accepted.append(point)
        return None if points is None else accepted

    def possible(self, number: int, params: Params, study: Study, lost: Collection[str]) -> Suggestion | None:
        """The suggestion of a point, unless its trainables refuse it or a trial that it begins with cannot be.

        Raises WrongMake where ``make`` itself fails, or gives something else than the search has.
        """
        try:
            suggestion = self.made(number, params)
        except Impossible as error:
            self._warn(f"{error}; it is left out")
            return None
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise WrongMake(
                f"make is wrong at {dict(params)}: {type(error).__name__}: {error} ({where.filename}:{where.lineno})"
            ) from error
        return suggestion if self.can_run(suggestion, 0, study, lost) else None

    def can_run(self, suggestion: Suggestion, rung: int, study: Study, lost: Collection[str]) -> bool:
        """Whether the trials of a stage can run: their data serve them, and none of them, or of those that they wait
        for, is lost."""
        trials = trials_of(dataclasses.replace(study, trials=suggestion.stages[rung].trials), self.keys)
        try:
            check_trials(trials)
        except ValueError as error:
            self._warn(f"{dict(suggestion.params)} is left out: {error}")
            return False
        return not any(trial.key in lost for trial in trials)

    def _warn(self, message: str) -> None:
        """Once: a sampler may come back to a point."""
        if message not in self._warned:
            self._warned.add(message)
            print(f"warning: {message}", file=sys.stderr)
