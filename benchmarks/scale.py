"""What does a study cost as it grows?

Studies of ``--trials`` trials that do nothing, each number a process of its own, through the whole path as a user
submits them: seconds a trial, the driver's peak memory, requests to the store and writes to MLflow (of all processes),
the seconds to plan the study, to submit it again when all is done, to show its status and to make the frames of its
results and histories, first and again, and the lines of its log. All but the run and the plan are wall times of
commands, with their imports. Beside each stands the power of the number of trials with which it grew since the number
before: 1 is the same cost a trial.

``--planned N`` writes the results of N trials directly, and tells what planning them takes.

    python benchmarks/scale.py [--trials 100 1000 10000] [--planned 100000] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainables.api.trainable import Trainable

COUNTING = Path(__file__).resolve().parent / "parts" / "counting"
# Measure -> what it shall be at most: of the largest number of trials, 10,000.
GOALS = {"resume s": 5.0, "frame s": 5.0, "planned s": 30.0, "planned peak MB": 2000.0}
MEASURES = (
    "run s", "driver peak MB", "store requests", "MLflow writes", "plan s", "resume s", "status s", "first frame s",
    "frame s", "log lines",
)  # fmt: skip


@dataclass(frozen=True)
class Nothing(Trainable):
    """A trial whose work is to log one number."""

    number: int
    seed: int = 0

    def run(self, context):
        context.log({"val/dice": 0.5}, step=0)
        return {"dice": 0.5}


def study_of(num_trials: int):
    """A study of so many trials."""
    from orchestrator.study import Study

    return Study("nothing", "What does a trial cost?", {f"trial {n}": Nothing(n) for n in range(num_trials)})


def submit(num_trials: int, folder: Path) -> str:
    """Submit the study as a user does; returns what was printed."""
    from orchestrator import submission
    from orchestrator.options import StudyOptions

    options, printed = StudyOptions(storage=str(folder), cache_dir=folder / "cache"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = submission.submit(options, lambda: study_of(num_trials))
    assert code == 0, f"the study ended with {code}: {printed.getvalue()[-2000:]}"
    return printed.getvalue()


def run(num_trials: int, folder: Path) -> dict[str, float]:
    """Plan and run the study."""
    plan_s = plan(num_trials, folder)["planned s"]
    began = time.perf_counter()
    printed = submit(num_trials, folder)
    return {
        "run s": time.perf_counter() - began,
        "driver peak MB": _peak_mb(),
        "plan s": plan_s,
        "log lines": len(printed.splitlines()),
    }


def resume(num_trials: int, folder: Path) -> dict[str, float]:
    """Submit the study again: all is done."""
    submit(num_trials, folder)
    return {}


def frame(num_trials: int, folder: Path) -> dict[str, float]:
    """Make the frames of all results and of all that the trials logged."""
    from analysis.histories import histories
    from analysis.results import latest_manifests, load_study
    from orchestrator.store import Store

    store = Store(str(folder))
    results = load_study(store, latest_manifests(store)["nothing"])
    assert results.frame()["metric.dice"].sum() == 0.5 * num_trials
    assert len(histories(results)) == num_trials
    return {}


def plan(num_trials: int, folder: Path) -> dict[str, float]:
    """Plan the study."""
    from orchestrator.plan import make_plan
    from orchestrator.store import Store
    from trainables.api.identity import FileDigests, Keys

    began = time.perf_counter()
    made = make_plan(study_of(num_trials), Store(str(folder)), Keys(FileDigests()))
    done = made.counts()["done"]
    return {"planned s": time.perf_counter() - began, "planned peak MB": _peak_mb(), "planned done": done}


def write_results(num_trials: int, folder: Path) -> dict[str, float]:
    """Results of all trials, as if they had run; not one by one to the disk, which takes most of the time."""
    from orchestrator.store import Result, Store
    from trainables.api.identity import FileDigests, Keys

    os.fsync = lambda file: None
    store, keys = Store(str(folder)), Keys(FileDigests())
    for trainable in study_of(num_trials).trainables.values():
        store.publish(Result(keys.key(trainable), {"dice": 0.5}, {}, [], 0.0, 1.0, 1.0, 1, 1.0, {}))
    return {}


PARTS = {part.__name__: part for part in (run, resume, frame, plan, write_results)}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_a_process(
    part: str, num_trials: int, folder: Path, environment: Mapping[str, str] | None = None
) -> tuple[float, dict]:
    """One part in a fresh process, with more in its environment: its wall time, and what it measured itself."""
    command = [sys.executable, __file__, "--part", part, "--trials", str(num_trials), "--folder", str(folder)]
    began = time.perf_counter()
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    )
    return time.perf_counter() - began, json.loads(done.stdout.splitlines()[-1])


def _counting_in(folder: Path) -> dict[str, str]:
    """The environment in which every process counts into files of this folder."""
    paths = [str(COUNTING), str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "QUARTERTURN_COUNTS": str(folder)}


def measure(num_trials: int) -> dict[str, float]:
    """All measures of a study of so many trials."""
    with tempfile.TemporaryDirectory() as place:
        folder, counts = Path(place) / "results", Path(place) / "counts"
        counts.mkdir()
        _, measured = in_a_process("run", num_trials, folder, _counting_in(counts))
        measured |= _counted(counts)
        measured["resume s"], _ = in_a_process("resume", num_trials, folder)
        command = [sys.executable, "-m", "orchestrator", "status", "--storage", str(folder), "--json"]
        began = time.perf_counter()
        shown = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        measured["status s"] = time.perf_counter() - began
        assert shown["studies"][0]["counts"]["done"] == num_trials
        for name in ("first frame s", "frame s"):  # the analysis keeps what it has read below TMPDIR
            measured[name], _ = in_a_process("frame", num_trials, folder, {"TMPDIR": place})
        return measured


def measure_planned(num_trials: int) -> dict[str, float]:
    """What planning so many finished trials takes."""
    with tempfile.TemporaryDirectory() as place:
        in_a_process("write_results", num_trials, Path(place))
        _, measured = in_a_process("plan", num_trials, Path(place))
    assert measured.pop("planned done") == num_trials
    return measured


def _counted(folder: Path) -> dict[str, int]:
    # By its path: Python may have a module of this name of its own.
    spec = importlib.util.spec_from_file_location("counting", COUNTING / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    counting = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(counting)
    return counting.counted(folder)


def growth(before: tuple[int, float], after: tuple[int, float]) -> float:
    """The power of the number of trials with which a measure grew between two (trials, value)."""
    return math.log(after[1] / before[1]) / math.log(after[0] / before[0])


def table(points: dict[int, dict[str, float]]) -> list[str]:
    """A line a measure: its value at every number of trials, how it grew since the one before, and its goal."""
    counts = sorted(points)
    lines = [f"{'trials':18}" + "".join(f"{count:>20,}" for count in counts)]
    for name in MEASURES:
        line = f"{name:18}"
        for before, count in zip([None, *counts[:-1]], counts, strict=True):
            value = points[count][name]
            grew = "" if before is None else f"^{growth((before, points[before][name]), (count, value)):.2f}"
            line += f"{value:>14,.{2 if name.endswith(' s') else 0}f}{grew:>6}"
        lines.append(line + (f"  (goal at 10,000: {GOALS[name]:g})" if name in GOALS else ""))
    each = "".join(f"{points[count]['run s'] / count:>14,.3f}{'':6}" for count in counts)
    lines.append(f"{'run s a trial':18}{each}  (goal: the same)")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="*", default=[100, 1000, 10_000])
    parser.add_argument("--planned", type=int, help="so many finished trials are planned")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](arguments.trials[0], arguments.folder)))
        return
    points = {count: measure(count) for count in sorted(arguments.trials)}
    print("\n".join(table(points) if points else []))
    planned = measure_planned(arguments.planned) if arguments.planned else {}
    for name, value in planned.items():
        print(f"{arguments.planned:,} done trials, {name}: {value:,.1f} (goal at 100,000: {GOALS[name]:g})")
    if arguments.json:
        arguments.json.write_text(json.dumps({"points": points, "planned": planned}, indent=1))


if __name__ == "__main__":
    main()
