"""What does the whole path cost a trial that does nothing?

Plan, claim, Ray Tune, journal, atomic publication and the MLflow run of ``--trials`` trials, against what a user
would pay for less: bare Tune with actor reuse (no results kept, no MLflow), bare Tune without it, and the bare writing
of such runs to MLflow (no Tune). Every contender is a process of its own, timed from its start to its end, so that
each pays for its imports, its Ray and its database. A small round before warms the files; then rounds alternate, and
the table shows medians.

    python benchmarks/orchestration.py [--trials 200] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from trainables.api.trainable import Trainable

GOAL = 1.25


@dataclass(frozen=True)
class Nothing(Trainable):
    """A trial whose work is to log one number."""

    number: int
    seed: int = 0

    def run(self, context):
        context.log({"val/dice": 0.5}, step=0)
        return {"dice": 0.5}


def whole_path(num_trials: int, folder: str) -> None:
    """A study as a user submits it."""
    from orchestrator.options import StudyOptions
    from orchestrator.study import Study
    from orchestrator.submission import submit

    study = Study("nothing", "What does a trial cost?", {f"trial {n}": Nothing(n) for n in range(num_trials)})
    options = StudyOptions(storage=folder, cache_dir=Path(folder) / "cache")
    with contextlib.redirect_stdout(io.StringIO()):
        code = submit(options, lambda: study)
    assert code == 0, f"the study ended with {code}"
    with contextlib.closing(sqlite3.connect(f"{folder}/mlflow.db")) as database:
        (finished,) = database.execute(
            "SELECT count(*) FROM runs JOIN tags USING (run_uuid) "
            "WHERE runs.status = 'FINISHED' AND tags.key = 'kind' AND tags.value = 'trial'"
        ).fetchone()
    assert finished == num_trials, f"MLflow has {finished} finished runs of {num_trials} trials"


def bare_tune(num_trials: int, folder: str, *, reuse_actors: bool) -> None:
    """The same number of empty functions through Ray Tune; nothing is kept."""
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "16"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    import ray
    from ray import tune

    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    tune.Tuner(
        tune.with_resources(_nothing, {"cpu": 1}),
        param_space={"number": tune.grid_search(list(range(num_trials)))},
        tune_config=tune.TuneConfig(reuse_actors=reuse_actors),
        run_config=tune.RunConfig(storage_path=folder, verbose=0),
    ).fit()
    ray.shutdown()


def _nothing(config: dict) -> None:
    return None


def bare_mlflow(num_trials: int, folder: str) -> None:
    """The runs that the whole path leaves in MLflow, written one after the other."""
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_LOGGING_LEVEL="WARNING")
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment("nothing", artifact_location=f"{folder}/artifacts")
    for number in range(num_trials):
        configuration = {"class": "Nothing", "number": number, "seed": 0}
        tags = {f"quarterturn.tag_{n}": "0" * 32 for n in range(8)}
        run = client.create_run(experiment, tags=tags, run_name=f"trial {number}").info.run_id
        client.log_dict(run, configuration, "configuration.json")
        at_ms = time.time_ns() // 1_000_000
        client.log_batch(
            run,
            metrics=[Metric("val/dice", 0.5, at_ms, 0), Metric("summary/dice", 0.5, at_ms, 0)],
            params=[Param(name, str(value)) for name, value in configuration.items()],
            tags=[RunTag(f"quarterturn.later_{n}", "0" * 16) for n in range(18)],
        )
        client.set_terminated(run, "FINISHED")


CONTENDERS = {
    "whole path": whole_path,
    "bare Tune, actors reused": lambda n, folder: bare_tune(n, folder, reuse_actors=True),
    "bare Tune, a process a trial": lambda n, folder: bare_tune(n, folder, reuse_actors=False),
    "bare MLflow writes": bare_mlflow,
}


def seconds_a_trial(contender: str, num_trials: int) -> float:
    """Wall time of one contender in a fresh process, over its trials."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--contender", contender, "--trials", str(num_trials), "--folder", folder]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - began) / num_trials


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--slow-trials", type=int, default=24, help="trials for Tune without actor reuse")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        CONTENDERS[arguments.contender](arguments.trials, arguments.folder)
        return
    counts = {c: arguments.slow_trials if "process" in c else arguments.trials for c in CONTENDERS}
    times: dict[str, list[float]] = {c: [] for c in CONTENDERS}
    for contender in CONTENDERS:
        seconds_a_trial(contender, 2)
    for _ in range(arguments.rounds):
        for contender, count in counts.items():
            times[contender].append(seconds_a_trial(contender, count))
    medians = {contender: statistics.median(values) for contender, values in times.items()}
    bound = max(medians["bare Tune, actors reused"], medians["bare MLflow writes"])
    ratio = medians["whole path"] / bound
    for contender, seconds in medians.items():
        rounds = ", ".join(f"{value:.3f}" for value in times[contender])
        print(f"{contender:30} {counts[contender]:5} trials {seconds:8.3f} s a trial ({rounds})")
    print(f"whole path / larger of (Tune with reuse, MLflow writes): {ratio:.2f} (goal: at most {GOAL})")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"seconds_a_trial": medians, "rounds": times, "trials": counts, "ratio": ratio}, indent=1)
        )


if __name__ == "__main__":
    main()
