"""What holds after every fault: nothing is lost, nothing doubled, nothing left behind."""

import functools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from world import RANKS_STUDY, World, outcome, runs

from orchestrator.leftovers import unneeded_paths

# An attempt that is killed loses what came after its last checkpoint: one epoch, and the one that was going on.
_REPEATED_EACH = 2
_RESUMES = {"progress", "checkpoints", "items", "failure.json"}  # of a trial that has no result


@dataclass
class Verdict:
    """What is wrong, in words; of a fault that costs time only all of it is empty but ``for_gc`` and ``uncleaned``."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    for_gc: list[str] = field(default_factory=list)
    """What `gc` lists, and so removes."""
    uncleaned: list[str] = field(default_factory=list)
    """What a kill may leave behind that nothing lists: half-written files, folders in the cache."""

    @property
    def wrong(self) -> list[str]:
        """Empty where the fault cost time only."""
        return [*self.lost, *self.doubled, *self.left]


def check(world: World, undisturbed: World) -> Verdict:
    """Hold a world whose study has ended against one that nothing happened to."""
    verdict = Verdict()
    _check_results(world, undisturbed, verdict)
    _check_work(world, undisturbed, verdict)
    _check_mlflow(world, undisturbed, verdict)
    _check_leftovers(world, verdict)
    return verdict


def _check_results(world: World, undisturbed: World, verdict: Verdict) -> None:
    expected, found = outcome(undisturbed), outcome(world)
    verdict.lost += [f"result {key}" for key in expected if found.get(key) != expected[key]]
    verdict.doubled += [f"result {key} is of no trial of the study" for key in found.keys() - expected.keys()]


def _check_work(world: World, undisturbed: World, verdict: Verdict) -> None:
    """Nothing finished ran again, and of the rest only what came after the last checkpoint."""
    now = world.finished()
    for before in world.finished_before:
        verdict.doubled += [f"finished trial {key} ran again" for key in before if now.get(key) != before[key]]
    repeated = _REPEATED_EACH * max(1, len(world.finished_before)) * (2 if world.study == RANKS_STUDY else 1)
    for key in undisturbed.finished():
        most = len(undisturbed.noted(key)) + repeated
        if len(world.noted(key)) > most:
            verdict.doubled.append(f"trial {key} noted {len(world.noted(key))} lines, at most {most} were expected")


def _check_mlflow(world: World, undisturbed: World, verdict: Verdict) -> None:
    """One run a key, no (metric, step) twice, and ends and histories as in the undisturbed one."""
    found, expected = runs(world), _expected_runs(undisturbed)
    for (kind, identity), number in Counter(run[:2] for run in found).items():
        if number > 1:
            verdict.doubled.append(f"{number} MLflow runs of {kind} {identity}")
        if (kind, identity) not in expected:
            verdict.doubled.append(f"MLflow run of {kind} {identity}, which is of no trial")
    for kind, identity, _, history in found:
        for metric, points in history.items():
            twice = [step for step, number in Counter(step for step, _ in points).items() if number > 1]
            verdict.doubled += [f"step {step} of {metric} in {kind} {identity}" for step in twice]
    told = {run[:2]: run[2:] for run in found}
    for (kind, identity), said in expected.items():
        if (is_said := told.get((kind, identity))) != said:
            verdict.lost.append(f"the MLflow run of {kind} {identity}: {is_said} instead of {said}")


@functools.cache
def _expected_runs(undisturbed: World) -> dict[tuple[str, str], tuple]:
    return {run[:2]: run[2:] for run in runs(undisturbed)}


def _check_leftovers(world: World, verdict: Verdict) -> None:
    verdict.left += [f"process {line}" for line in world.left_running()]
    verdict.for_gc += [path for path in unneeded_paths(world.store, world.store.manifests()) if path[:5] != "data/"]
    finished = world.store.finished()
    known = tuple(str(world.storage / path) for path in verdict.for_gc)
    for path in (path for path in sorted(world.storage.rglob("*")) if not path.is_dir()):
        if str(path).startswith(known):
            continue
        if path.name == "claim.json":
            verdict.left.append(f"claim {path}")
        elif path.name.startswith("."):
            verdict.uncleaned.append(str(path))
        elif finished & set(path.parts) and _RESUMES & set(path.parts):
            verdict.left.append(f"what served its purpose: {path}")
    verdict.uncleaned += [str(path) for kind in ("trial-*", "rank-*") for path in _cache(world).glob(kind)]


def _cache(world: World) -> Path:
    return world.folder / "cache"
