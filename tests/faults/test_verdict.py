"""What is held after every fault would notice what may go wrong."""

import json
import shutil
from pathlib import Path

import pytest
from fault import ALL
from files import NAME, finish
from matrix import FAULTS
from mlflow import MlflowClient
from verdict import check
from world import World

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("undisturbed"), name=NAME)
    finish(world)
    return world


@pytest.fixture
def world(undisturbed, tmp_path):
    """A world of the same study in which nothing went wrong yet."""
    shutil.copytree(undisturbed.folder, tmp_path, dirs_exist_ok=True)
    return World(tmp_path, name=NAME)


def finished_key(world):
    (key,) = (key for key in world.finished() if world.log_of(key) == "base")
    return key


def test_an_undisturbed_study_is_good(world, undisturbed):
    world.disturbed()
    verdict = check(world, undisturbed)
    assert verdict.wrong == []
    assert verdict.uncleaned == []


def test_a_changed_and_a_lost_result_are_lost(world, undisturbed):
    key = finished_key(world)
    (world.storage / "results" / f"{key}.json").unlink()
    assert f"result {key}" in check(world, undisturbed).lost


def test_what_ran_again_is_doubled(world, undisturbed):
    key = finished_key(world)
    world.disturbed()
    with (world.folder / "base").open("a") as file:
        file.write("epoch 2\n")
    assert check(world, undisturbed).doubled == [f"finished trial {key} ran again"]


def test_more_work_than_a_fault_may_cost_is_told(world, undisturbed):
    (world.folder / "base").write_text("epoch 0\n" * 6)
    assert len(check(world, undisturbed).doubled) == 1


def test_a_second_run_and_a_point_twice_in_mlflow_are_doubled(world, undisturbed):
    key, client = finished_key(world), MlflowClient(tracking_uri=world.mlflow)
    experiment = client.get_experiment_by_name(NAME).experiment_id
    (run,) = client.search_runs([experiment], f"tags.`quarterturn.key` = '{key}'")
    client.log_metric(run.info.run_id, "train/sum", 1.0, step=0)
    assert f"step 0 of train/sum in trial {key}" in check(world, undisturbed).doubled
    client.create_run(experiment, tags={"quarterturn.key": key, "kind": "trial"})
    assert f"2 MLflow runs of trial {key}" in check(world, undisturbed).doubled


def test_claims_and_half_files_are_left(world, undisturbed):
    key = finished_key(world)
    (world.storage / "trials" / key / "claim.json").write_text(json.dumps({}))
    (world.storage / "trials" / key / ".x.json.0123").touch()
    verdict = check(world, undisturbed)
    assert len(verdict.left) == len(verdict.uncleaned) == 1


def test_the_readme_promises_what_the_table_has_and_no_more():
    rows = [line.strip("| \n").split(" | ") for line in README.read_text().splitlines() if line.startswith("| ")]
    begin = rows.index(["fault", "times", "the user reads"]) + 2
    promised = [tuple(row[:2]) for row in rows[begin : begin + len(FAULTS)]]
    assert promised == [(fault.name, "all" if fault.full_times == ALL else str(fault.full_times)) for fault in FAULTS]
