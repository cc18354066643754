"""What a command loads: people wait for it. Each command runs in a process of its own, which names its modules."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUDIES = [ROOT / "studies" / f"{name}.py" for name in ("rotation_period", "augmentation_sweeps", "pretraining_search")]
TOY = Path(__file__).with_name("toy_study.py")

# Runs a file as a script; what it loaded is written to the file named first, also after sys.exit.
RUN = """
import atexit, os, runpy, sys
out, sys.argv = sys.argv[1], sys.argv[2:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
atexit.register(lambda: open(out, "w").write("\\n".join(sorted(sys.modules))))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
NOT_FOR_HELP = {"torch", "ray", "mlflow", "altair", "optuna", "scipy", "torchvision", "sklearn", "skimage", "nibabel"}
NOT_FOR_HELP |= {"numpy", "polars", "rich", "fsspec"}
NOT_FOR_A_PLAN = {"ray", "ray.tune", "mlflow", "altair", "vl_convert", "scipy.signal", "scipy.stats", "torchvision"}
NOT_FOR_A_PLAN |= {"sklearn", "skimage", "optuna", "sqlalchemy"}


def loaded(folder, *command):
    """The names of all modules that a command loads."""
    out = folder / "modules"
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(out), *map(str, command)],
        capture_output=True, text=True, cwd=folder, timeout=120, env={**os.environ, "MLFLOW_TRACKING_URI": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return set(out.read_text().split())


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_help_loads_next_to_nothing(tmp_path, study):
    names = loaded(tmp_path, study, "--help")
    assert names & NOT_FOR_HELP == set()
    assert "orchestrator.options" in names


@pytest.mark.parametrize(
    ("study", "needed"), zip(STUDIES, [set(), set(), {"optuna"}], strict=True), ids=lambda x: str(x)[-18:]
)
def test_a_plan_loads_what_runs_and_draws_no_more_than_it_has_to(tmp_path, study, needed):
    places = ["--storage", tmp_path / "results", "--cache-dir", tmp_path / "cache"]
    names = loaded(tmp_path, study, "--plan", "--scale", "smoke", *places)
    assert names & (NOT_FOR_A_PLAN - needed) == set()
    assert "trainables.ssl.moco" in names


def test_a_second_run_with_nothing_to_do_loads_neither_ray_nor_mlflow_nor_its_report(tmp_path):
    command = [TOY, "--storage", tmp_path / "results", "--cache-dir", tmp_path / "cache", "--log-dir", tmp_path]
    first = loaded(tmp_path, *command)
    assert {"ray.tune", "toy_study"} <= first  # the report of the toy study lies in its own file
    second = loaded(tmp_path, *command)
    assert second & (NOT_FOR_A_PLAN | {"toy_study", "torch"}) == set()
    assert (tmp_path / "results/reports/toy/written").read_text() == "once\n"
