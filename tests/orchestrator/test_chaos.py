"""Two drivers of one study, and a search that is killed or shared. Slow. Other faults are rows in `tests/faults`."""

import os
import random
import subprocess
import sys

import pytest
from mlflow import MlflowClient
from verdict import check
from world import MARK, SEARCH_STUDY, TOY_STUDY, World

from orchestrator.store import Store

pytestmark = pytest.mark.slow


def test_two_drivers_compute_every_trial_once(tmp_path):
    (tmp_path / "undisturbed").mkdir()
    world, undisturbed = World(tmp_path, TOY_STUDY), World(tmp_path / "undisturbed", TOY_STUDY)
    undisturbed.finish()
    drivers = [world.start(0.5) for _ in range(2)]
    for driver in drivers:
        world.ends(driver)
    assert world.lines("base") == [f"epoch {n}" for n in range(6)]
    assert world.lines("other") == [f"epoch {n}" for n in range(8)]
    assert [line.split()[1] for line in world.lines("items")] == [str(n) for n in range(10)]
    assert check(world, undisturbed).wrong == []


def start_search(folder):
    search = [
        sys.executable, str(SEARCH_STUDY), "--storage", str(folder / "results"),
        "--log-dir", str(folder), "--cache-dir", str(folder / "cache"), "--pretrain-seeds", "2", "--wait-s", "1.0",
        "--num-suggestions", "16",
    ]  # fmt: skip
    return subprocess.Popen(search, cwd=folder, env={**os.environ, MARK: str(folder)})


def test_two_drivers_share_a_search(tmp_path):
    drivers = [start_search(tmp_path) for _ in range(2)]
    assert [driver.wait(timeout=300) for driver in drivers] == [0, 0]
    lines = (tmp_path / "bowls").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 32
    (manifest,) = Store(str(tmp_path / "results")).manifests()
    assert [s["state"] for s in manifest["search"]["suggestions"]] == ["complete"] * 16
    assert len(manifest["trials"]) == 33
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/results/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("toy_search").experiment_id], "tags.kind = 'trial'")
    assert len(runs) == 33
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_search_whose_driver_is_killed_makes_no_more_suggestions_than_it_should(tmp_path):
    moments, num_kills = random.Random(0), 0
    while True:
        process = start_search(tmp_path)
        try:
            assert process.wait(timeout=moments.uniform(8.0, 16.0) if num_kills < 8 else 240) == 0
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            num_kills += 1
    assert num_kills >= 2
    lines = (tmp_path / "bowls").read_text().splitlines()
    assert len(set(lines)) == 32
    assert len(lines) <= 32 + 2 * num_kills
    (manifest,) = Store(str(tmp_path / "results")).manifests()
    told = manifest["search"]["suggestions"]
    assert [s["number"] for s in told] == list(range(1, 17))
    assert len({tuple(s["params"].items()) for s in told}) == 16
    for params, values in ((s["params"], s["values"]) for s in told):
        assert values["val/loss"] == pytest.approx((params["x"] - 0.3) ** 2 + (params["y"] != "flat") + 0.0005)
    assert World(tmp_path).left_running() == []
