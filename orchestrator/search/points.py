"""The points of a search and what its study makes of them: trainables, with their keys."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from orchestrator.plan import check_trials, trials_of
from orchestrator.search.sampling import any_point
from orchestrator.study import Params, Search, Study
from trainables.api.identity import Keys
from trainables.api.trainable import Trainable

# A point that trainables accept is looked for so often.
_PATIENCE = 30


@dataclass(frozen=True)
class Suggestion:
    """One point of a search and the trainables that tell its worth."""

    number: int  # from 1, in the order of suggestion
    params: Params
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


class Impossible(ValueError):
    """The trainables do not accept the parameters of a point."""


@dataclass(frozen=True)
class Points:
    """Turns the parameters of one study's search into suggestions."""

    study: str
    search: Search
    keys: Keys

    def made(self, number: int, params: Params) -> Suggestion:
        """The suggestion of a point.

        Raises Impossible where the trainables refuse the parameters, ValueError where ``make`` gives other objectives
        than the search has, or no trainables for one.
        """
        try:
            made = self.search.make(dict(params))  # `make` may change what it is given
        except (ValueError, TypeError) as error:
            raise Impossible(f"the search of {self.study!r} makes nothing of {dict(params)}: {error}") from error
        if set(made) != set(self.search.directions) or not all(made.values()):
            raise ValueError(
                f"study {self.study!r}: its search makes trainables for {sorted(made)} from {dict(params)}; "
                f"expected at least one for each of {sorted(self.search.directions)}"
            )
        named = {
            objective: {f"suggestion {number}: {objective} {i}": t for i, t in enumerate(trainables, start=1)}
            for objective, trainables in made.items()
        }
        keys = {objective: tuple(self.keys.key(t) for t in trainables) for objective, trainables in made.items()}
        return Suggestion(number, params, named, keys)

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
        """The suggestion of a point, unless its trainables refuse it or a trial that they wait for is lost."""
        try:
            suggestion = self.made(number, params)
        except Impossible as error:
            print(f"warning: {error}; it is left out", file=sys.stderr)
            return None
        trials = trials_of(dataclasses.replace(study, trials=suggestion.trials), self.keys)
        try:
            check_trials(trials)
        except ValueError as error:
            print(f"warning: {dict(params)} is left out: {error}", file=sys.stderr)
            return None
        return None if any(trial.key in lost for trial in trials) else suggestion
