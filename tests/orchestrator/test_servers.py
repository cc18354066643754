"""A whole study on servers as a cluster has them: results in an object store, MLflow on PostgreSQL. Slow."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from mlflow import MlflowClient
from servers import PASSWORD, POSTGRES, mlflow_server, object_store, postgres, s3_environment
from world import outcome_of, runs_of

from orchestrator.store import Store
from orchestrator.trial_runs import KEY_TAG

ROOT = Path(__file__).parents[2]
STUDY = "rotation_period"
STORAGE = "s3://studies/results"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not POSTGRES, reason="there is no PostgreSQL here (Debian's package postgresql)"),
]


@pytest.fixture
def servers(tmp_path, monkeypatch):
    """The address of an MLflow server on PostgreSQL and the server, beside an object store that all processes know."""
    import s3fs

    with object_store(tmp_path) as store, postgres() as database, mlflow_server(database, tmp_path) as mlflow:
        for name, value in s3_environment(store).items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # it would know the address of another test
        s3fs.S3FileSystem().mkdir("studies")
        yield f"http://127.0.0.1:{mlflow.port}", mlflow


def start(folder, storage, tracking_uri):
    command = [
        sys.executable, ROOT / "studies" / f"{STUDY}.py", "--scale", "smoke", "--pretrain-seeds", "1", "--storage",
        storage, "--tracking-uri", tracking_uri, "--cache-dir", folder / "cache",
    ]  # fmt: skip
    with (folder / "output").open("a") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=output, cwd=folder, env={**os.environ, "QUARTERTURN_CHECKPOINT_S": "1"}
        )


def wait_until_finished(store, num_trials, process, output):
    while len(store.finished()) < num_trials:
        assert process.poll() is None, output.read_text()
        time.sleep(0.5)


def test_a_study_on_servers_that_is_killed_while_they_fail_ends_as_on_a_laptop(servers, tmp_path):
    uri, mlflow = servers
    output, store = tmp_path / "output", Store(STORAGE)
    process = start(tmp_path, STORAGE, uri)
    wait_until_finished(store, 1, process, output)
    mlflow.stop()
    process.kill()
    process.wait()
    process = start(tmp_path, STORAGE, uri)
    wait_until_finished(store, 3, process, output)
    mlflow.start()
    assert process.wait(timeout=600) == 0, output.read_text()
    said = output.read_text()
    assert "Traceback" not in said
    assert "View run" not in said, "MLflow's own lines, one for every run"
    assert PASSWORD not in said

    database = f"sqlite:///{tmp_path}/laptop.db"
    assert start(tmp_path, str(tmp_path / "laptop"), database).wait(timeout=600) == 0, output.read_text()
    assert outcome_of(store) == outcome_of(Store(str(tmp_path / "laptop")))
    assert runs_of(uri, STUDY) == runs_of(database, STUDY)
    assert_one_run_a_key_and_one_value_a_step(uri, store)


def assert_one_run_a_key_and_one_value_a_step(uri, store):
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY).experiment_id
    runs = client.search_runs([experiment], "tags.kind = 'trial'")
    assert Counter(run.data.tags[KEY_TAG] for run in runs) == Counter(store.finished())
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        for metric in run.data.metrics:
            steps = [value.step for value in client.get_metric_history(run.info.run_id, metric)]
            assert len(steps) == len(set(steps)), (run.info.run_name, metric)
