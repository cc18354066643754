"""What a submission will do with the trials of a study: what is done, what is to run, and what that will cost."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from orchestrator.claims import is_held
from orchestrator.cost_records import recorded_costs
from orchestrator.devices import Devices, devices_here
from orchestrator.estimates import Estimate, Estimates, Spent, cost_of, is_measured, spent_of
from orchestrator.graph import Trial, trials_of
from orchestrator.kinds import Kind, kind_of
from orchestrator.store import Failure, Result, Store
from orchestrator.study import Study
from orchestrator.usage import UsageError
from trainables.api.identity import Keys
from trainables.api.trainable import Trainable

_LONGEST_LINE, _LONGEST_END = 250, 100


class State(StrEnum):
    """What a submission will do with a trial."""

    DONE = "done"
    NEW = "new"
    RESUMABLE = "resumable"
    FAILED = "failed"
    BLOCKED = "blocked"
    DAMAGED = "damaged"
    """It has a result that is not whole: it is computed again."""
    UNNEEDED = "unneeded"
    """It has no result, and what waits for it is done: nobody needs it any more."""


TO_RUN = (State.NEW, State.RESUMABLE, State.DAMAGED)


@dataclass(frozen=True)
class Continuation:
    """The shorter training that one will go on from, if it ends well."""

    key: str
    name: str
    length: int
    saved_s: float = 0.0


@dataclass(frozen=True)
class PlannedTrial:
    """A trial and what the store knows of it."""

    trial: Trial
    state: State
    reason: str = ""  # why it is failed or blocked, or who runs it now
    fraction: float = 0.0  # of a resumable trial: how much is done
    result: Result | None = None
    estimated_s: float | None = None  # what is left to compute, on one worker
    is_measured: bool = False  # whether that comes from trials of the same class, on such a device, in this store
    estimate: Estimate | None = None  # the same with what it rests on
    continues: Continuation | None = None
    failed_as: Kind | None = None


@dataclass(frozen=True)
class Expected:
    """Trials that a search will add: so many, and what each will cost."""

    trainable: Trainable  # one of them
    count: int
    estimate: Estimate


@dataclass(frozen=True)
class Promoted:
    """Suggestions that a search will promote to a rung: at least so many, if none fails."""

    length: int
    count: int
    each_s: float  # work of one of them beyond what its shorter trials did, on one worker


@dataclass(frozen=True)
class Promotions:
    """Promotions to one rung that a search has still to make, and an example of what one trains before and there."""

    length: int
    count: int
    shorter: Study
    longer: Study


@dataclass(frozen=True)
class Plan:
    """All trials of a study, upstream first."""

    study: Study
    planned: tuple[PlannedTrial, ...]
    is_measured: bool  # whether the estimates come from trials of the same kind in this store
    to_suggest: int = 0  # suggestions that a search has still to make
    suggestion_s: float = 0.0  # work of one of them (with rungs, at the first), on one worker
    promoted: tuple[Promoted, ...] = ()  # by a search with rungs, from now on
    spent: Mapping[str, Spent] = field(default_factory=dict, repr=False)  # what finished trials cost, by key
    expected: tuple[Expected, ...] = ()  # what the suggestions and promotions to come will cost
    devices: Devices = field(default_factory=Devices)  # what the trials will compute on

    def counts(self) -> dict[str, int]:
        """Number of trials in every state."""
        counts = Counter(p.state.value for p in self.planned)
        return {state.value: counts[state.value] for state in State}

    def failures(self) -> dict[str, int]:
        """Number of failed trials by class of failure."""
        counts = Counter(p.failed_as.value for p in self.planned if p.failed_as is not None)
        return {kind.value: counts[kind.value] for kind in Kind if counts[kind.value]}

    def runnable(self) -> list[Trial]:
        """The trials to run, upstream first."""
        return [p.trial for p in self.planned if p.state in TO_RUN]

    @property
    def num_needed(self) -> int:
        """How many trials have a result, or should."""
        return len(self.planned) - self.counts()[State.UNNEEDED]

    @property
    def is_complete(self) -> bool:
        """Whether every trial that is needed has a result and no suggestion or promotion is to come."""
        return not self.is_to_go_on and all(p.state in (State.DONE, State.UNNEEDED) for p in self.planned)

    @property
    def is_to_go_on(self) -> bool:
        """Whether a search will add trials."""
        return self.to_suggest > 0 or bool(self.promoted)

    def to_come_s(self) -> float:
        """Seconds of work that a search will add, on one worker each."""
        return self.to_suggest * self.suggestion_s + sum(p.count * p.each_s for p in self.promoted)

    def estimated_s(self) -> float:
        """Seconds of work left over all trials, also those to be suggested, on one worker each."""
        return sum(p.estimated_s or 0.0 for p in self.planned) + self.to_come_s()

    def finished_s(self) -> float:
        """Seconds of work that the trials took that are done, summed over their workers, whenever they ran."""
        done = [p.trial.key for p in self.planned if p.state is State.DONE]
        return sum(self.spent[key].busy_s for key in done if key in self.spent)

    @property
    def spent_on_done(self) -> dict[str, Spent]:
        """What its own finished trials cost, by key."""
        done = (p.trial.key for p in self.planned if p.state is State.DONE)
        return {key: self.spent[key] for key in done if key in self.spent}

    def to_json(self) -> dict[str, Any]:
        """The plan for scripts."""
        trials = [
            {
                "key": p.trial.key,
                "name": p.trial.name,
                "class": type(p.trial.trainable).__name__,
                "state": p.state.value,
                "reason": p.reason,
                "failed_as": p.failed_as,
                "fraction": p.fraction,
                "upstream": list(p.trial.upstream),
                "estimated_s": p.estimated_s,
                "continues": dataclasses.asdict(p.continues) if p.continues else None,
            }
            for p in self.planned
        ]
        return {
            "study": self.study.name,
            "facts": dict(self.study.facts),
            **self.counts(),
            "failed_as": self.failures(),
            "to_suggest": self.to_suggest,
            "suggestion_s": self.suggestion_s,
            "promotions": [dataclasses.asdict(promoted) for promoted in self.promoted],
            "estimated_s": self.estimated_s(),
            "is_measured": self.is_measured,
            "trials": trials,
        }


def make_plan(
    study: Study,
    store: Store,
    keys: Keys,
    *,
    retry_failed: Collection[Kind] = (),
    to_suggest: int = 0,
    examples: Sequence[Study] = (),
    promotions: Sequence[Promotions] = (),
    spent: Mapping[str, Spent] | None = None,
    devices: Devices | None = None,
    one_by_one: bool = False,
) -> Plan:
    """Look up every trial of the study in the store. Runs and changes nothing.

    What failed in a way of ``retry_failed`` is to run again. The suggestions that are ``to_suggest`` cost what
    ``examples`` of them cost, and ``promotions`` what their longer example costs beyond the shorter one. ``spent`` is
    what trials of other plans cost, by key: they tell what these will; without it, what the store has recorded of any
    study does. ``devices``: what the trials will compute on; those of this machine, if not given. ``one_by_one`` asks
    for each trial by its key, and not for a list of all that the store has: for few trials.
    """
    trials = trials_of(study, keys)
    listed = None if one_by_one else store.finished().union(store.names("trials"))
    looked_up: dict[str, PlannedTrial] = {}
    for trial in trials:
        is_known = listed is None or trial.key in listed
        found = _look_up(trial, store, retry_failed) if is_known else PlannedTrial(trial, State.NEW)
        looked_up[trial.key] = _blocked(found, looked_up)
    _leave_out(looked_up, needed={keys.key(trainable) for trainable in study.trainables.values()})
    planned = list(looked_up.values())
    growing = _to_grow(planned)
    shorter = _shorter(growing, store)
    new = _Examples(tuple(examples) if to_suggest else (), to_suggest, tuple(promotions), keys)
    known = _recorded(planned, new, store) if spent is None else dict(spent)
    # What a shorter training cost, which need not be in the study, tells what the longer one will.
    results = [(p, p.result or shorter.get(p.trial.key)) for p in planned]
    for p, result in sorted(results, key=lambda found: found[0].state is State.DONE):  # its own word is the last
        if result is not None:
            known[result.key] = spent_of(p.trial.trainable, result, keys)
    costs = _Costs(known, keys, devices or devices_here())
    continuations = _continuations(growing, shorter, {trial.key: trial.name for trial in trials})
    estimated = tuple(_with_estimate(p, costs, continuations.get(p.trial.key)) for p in planned)
    is_all_measured = all(p.is_measured for p in estimated if p.state in TO_RUN)
    plan = Plan(study, estimated, is_all_measured, spent=known, devices=costs.devices)
    return new.added_to(plan, costs, looked_up)


def check_trials(trials: Iterable[Trial]) -> None:
    """Ask every trial whether its data can serve it. Raises ValueError naming all that they cannot serve."""
    problems = []
    for trial in trials:
        try:
            trial.trainable.check()
        except ValueError as error:
            problems.append(f"{trial.name}: {error}")
    if problems:
        raise ValueError("\n".join(problems))


class _Costs:
    """What trials will cost on these devices, by what finished ones did."""

    def __init__(self, spent: Mapping[str, Spent], keys: Keys, devices: Devices) -> None:
        self._estimates = Estimates(spent.values())
        self._keys = keys
        self.devices = devices.among(one.cost.device for one in spent.values())

    def estimate(self, trial: Trial) -> Estimate:
        """What the whole trial costs."""
        return self._estimates.estimate(cost_of(trial.trainable, self._keys, self.devices))

    def expected(self, trial: Trial, count: int, *, beyond_s: float = 0.0) -> Expected:
        """So many trials like this one, each beyond what shorter ones did."""
        whole = self.estimate(trial)
        estimate = whole.times(max(0.0, whole.seconds - beyond_s) / whole.seconds)
        return Expected(trial.trainable, count, estimate)


@dataclass(frozen=True)
class _Examples:
    """What a search will add, by example."""

    suggestions: tuple[Study, ...]
    count: int
    promotions: tuple[Promotions, ...]
    keys: Keys

    def trainables(self) -> Iterator[Trainable]:
        """All of the examples."""
        for example in (*self.suggestions, *(p.longer for p in self.promotions)):
            yield from (trial.trainable for trial in trials_of(example, self.keys))

    def added_to(self, plan: Plan, costs: _Costs, known: Mapping[str, Any]) -> Plan:
        """The plan with what the search will add; ``known`` are the keys of its trials."""
        suggested = self._suggested(costs, known)
        promoted = [self._promoted(rung, costs, known) for rung in self.promotions]
        each_s = [math.fsum(one.estimate.seconds for one in of_rung) for of_rung in promoted]
        rungs = zip(self.promotions, each_s, strict=True)
        return dataclasses.replace(
            plan,
            is_measured=plan.is_measured and all(is_measured(one.estimate.ground) for one in suggested),
            to_suggest=self.count,
            suggestion_s=math.fsum(one.count * one.estimate.seconds for one in suggested) / max(1, self.count),
            promoted=tuple(Promoted(rung.length, rung.count, seconds) for rung, seconds in rungs),
            expected=tuple(itertools.chain(suggested, *promoted)),
        )

    def _suggested(self, costs: _Costs, known: Mapping[str, Any]) -> list[Expected]:
        """New trials of the suggestions to come: each one's own, and those that they share."""
        if not self.suggestions:
            return []
        first, *others = [{trial.key: trial for trial in trials_of(e, self.keys)} for e in self.suggestions]
        is_shared = set(first).intersection(*others) if others else set()
        new = [trial for key, trial in first.items() if key not in known]
        return [costs.expected(trial, 1 if trial.key in is_shared else self.count) for trial in new]

    def _promoted(self, rung: Promotions, costs: _Costs, known: Mapping[str, Any]) -> list[Expected]:
        """Trials of the promotions to a rung: those that the shorter stage had not, each from where its family is."""
        before = trials_of(rung.shorter, self.keys)
        shared = {trial.key for trial in before}.union(known)
        begun_s = {trial.family or "": costs.estimate(trial).seconds for trial in before if trial.family}
        new = (trial for trial in trials_of(rung.longer, self.keys) if trial.key not in shared)
        found = [costs.expected(t, rung.count, beyond_s=begun_s.get(t.family or "", 0.0)) for t in new]
        return [one for one in found if one.estimate.seconds > 0]


def _recorded(planned: Sequence[PlannedTrial], examples: _Examples, store: Store) -> dict[str, Spent]:
    """What the store remembers of the classes that are to run; nothing is read where nothing is."""
    to_run = [p.trial.trainable for p in planned if p.state in TO_RUN]
    kinds = {type(trainable).__name__ for trainable in (*to_run, *examples.trainables())}
    return recorded_costs(store, kinds) if kinds else {}


def _look_up(trial: Trial, store: Store, retry_failed: Collection[Kind]) -> PlannedTrial:
    look = store.look(trial.key)
    if look.result is not None:
        return PlannedTrial(trial, State.DONE, result=look.result, fraction=1.0)
    if look.is_newer:
        raise UsageError(look.damage)
    if look.damage:
        return PlannedTrial(trial, State.DAMAGED, look.damage)
    failure = store.failure(trial.key)
    if failure is not None and (kind := kind_of(failure.kind)) not in retry_failed:
        return PlannedTrial(trial, State.FAILED, reason=failure_text(failure), failed_as=kind)
    holder = is_held(store, f"trials/{trial.key}")
    reason = f"run by {holder}" if holder else ""
    generations = store.generations(trial.key)
    if generations:
        return PlannedTrial(trial, State.RESUMABLE, reason, fraction=generations[0].fraction)
    return PlannedTrial(trial, State.NEW, reason)


def _blocked(planned: PlannedTrial, before: Mapping[str, PlannedTrial]) -> PlannedTrial:
    if planned.state not in TO_RUN:
        return planned
    stuck = [before[key] for key in planned.trial.upstream if before[key].state in (State.FAILED, State.BLOCKED)]
    if not stuck:
        return planned
    reason = "; ".join(f"waits for {p.trial.name!r}, which is {p.state.value}" for p in stuck)
    return PlannedTrial(planned.trial, State.BLOCKED, reason)


def _leave_out(looked_up: dict[str, PlannedTrial], needed: set[str]) -> None:
    """Mark what has no result and what nobody unfinished needs; ``needed`` are the trials that the study names."""
    for key, planned in reversed(looked_up.items()):
        if planned.state is State.DONE:
            continue
        if key not in needed:
            looked_up[key] = PlannedTrial(planned.trial, State.UNNEEDED, "what waits for it is done")
        elif planned.state is not State.FAILED:
            needed.update(planned.trial.upstream)


def _to_grow(planned: Iterable[PlannedTrial]) -> dict[str, list[PlannedTrial]]:
    """The trainings that grow and are to run, by family, the shortest first."""
    families: dict[str, list[PlannedTrial]] = {}
    for p in planned:
        if p.trial.family is not None and p.state in TO_RUN:
            families.setdefault(p.trial.family, []).append(p)
    return {family: sorted(members, key=lambda p: p.trial.length) for family, members in families.items()}


def _shorter(growing: Mapping[str, Sequence[PlannedTrial]], store: Store) -> dict[str, Result]:
    """By key of a training that is to run, the longest finished one that it may go on from, where there is any."""
    # One listing tells of all families that have no member yet.
    families = set(store.names("families")) if growing else set()
    trials = [p.trial for family, members in growing.items() if family in families for p in members]
    found = ((trial.key, next(store.shorter(trial.family or "", trial.length), None)) for trial in trials)
    return {key: result for key, result in found if result is not None}


def _continuations(
    growing: Mapping[str, Sequence[PlannedTrial]], finished: Mapping[str, Result], names: Mapping[str, str]
) -> dict[str, Continuation]:
    """By key, what a training will go on from: the longest shorter one that is ``finished`` or will run before it."""
    continuations: dict[str, Continuation] = {}
    for members in growing.values():
        for before, p in zip([None, *members[:-1]], members, strict=True):
            trial, found = p.trial, []
            if before is not None:
                found.append(Continuation(before.trial.key, before.trial.name, before.trial.length))
            if (result := finished.get(trial.key)) is not None:
                found.append(Continuation(result.key, names.get(result.key, result.key[:8]), result.length))
            furthest = max(found, key=lambda continuation: continuation.length, default=None)
            if furthest is not None and furthest.length > p.fraction * trial.length:
                continuations[trial.key] = furthest
    return continuations


def failure_text(failure: Failure) -> str:
    """One line for tables; the store has all of it."""
    line = " ".join(failure.message.split()) or "no message"
    if len(line) > _LONGEST_LINE:  # at its end stands the cause
        line = f"{line[: _LONGEST_LINE - _LONGEST_END]} ... {line[-_LONGEST_END:]}"
    return f"{kind_of(failure.kind)}: {line}"


def _with_estimate(planned: PlannedTrial, costs: _Costs, continues: Continuation | None) -> PlannedTrial:
    if planned.state not in TO_RUN:
        return planned
    whole, fraction, reason = costs.estimate(planned.trial), planned.fraction, planned.reason
    if continues is not None:
        begins_at = continues.length / planned.trial.length
        saved_s = whole.after(fraction).seconds - whole.after(begins_at).seconds
        continues = dataclasses.replace(continues, saved_s=saved_s)
        said = f"goes on from {continues.name!r} at {continues.length} of {planned.trial.length}"
        fraction, reason = begins_at, f"{reason}; {said}" if reason else said
    left = whole.after(fraction)
    return dataclasses.replace(
        planned,
        estimated_s=left.seconds,
        is_measured=is_measured(left.ground),
        estimate=left,
        reason=reason,
        continues=continues,
    )
