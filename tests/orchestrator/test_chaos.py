"""Kill anything, at any moment; the same command; the same results. Slow."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.store import Store

STUDY = Path(__file__).with_name("toy_study.py")
MARK = "QUARTERTURN_TEST_OF_CHAOS"
pytestmark = pytest.mark.slow


def command(folder, epoch_s):
    return [
        sys.executable, str(STUDY), "--storage", str(folder / "results"), "--log-dir", str(folder),
        "--cache-dir", str(folder / "cache"), "--epoch-s", str(epoch_s),
    ]  # fmt: skip


def start(folder, epoch_s, **environment):
    with (folder / "output").open("a") as output:
        return subprocess.Popen(
            command(folder, epoch_s),
            stdout=output,
            stderr=output,
            cwd=folder,
            env={**os.environ, MARK: str(folder), "QUARTERTURN_CHECKPOINT_S": "1", **environment},
        )


def computed(folder):
    """What the trials noted: lines by file."""
    return {name: (folder / name).read_text().splitlines() for name in ("base", "tuned", "other", "items")}


def outcome(folder):
    """The results of a study in this folder."""
    return outcome_of(Store(str(folder / "results")))


def outcome_of(store):
    """The results of the store by configuration, without what may differ: times, attempts, provenance."""
    found = {}
    for key in store.finished():
        result = store.result(key)
        rows = [row[:3] for segment in result.segments for row in store.segment(key, segment)]
        found[key] = (result.metrics, result.files, rows)
    return found


def histories(folder):
    """What MLflow says of the study in this folder."""
    return histories_of(f"sqlite:///{folder}/results/mlflow.db", "toy")


def histories_of(tracking_uri, study):
    """What MLflow says: (run name, metric) -> [(step, value)], and how many runs there are."""
    client = MlflowClient(tracking_uri=tracking_uri)
    runs = client.search_runs([client.get_experiment_by_name(study).experiment_id])
    names = [run.info.run_name for run in runs]
    return sorted(names), {
        (run.info.run_name, metric): [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric)]
        for run in runs
        for metric in run.data.metrics
    }


def leftover_processes(folder):
    """Processes that descend from a driver of this folder, by a variable that all of them inherit."""
    mark = f"{MARK}={folder}".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environ.read_bytes():
                found.append((environ.parent / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert start(folder, 0.0).wait(timeout=180) == 0, (folder / "output").read_text()
    return folder


def test_a_driver_killed_at_any_moment(undisturbed, tmp_path):
    moments = random.Random(1)
    num_kills = 0
    for _ in range(20):
        process = start(tmp_path, 1.5)
        try:
            assert process.wait(timeout=moments.uniform(3.0, 16.0)) == 0
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            num_kills += 1
    else:
        assert start(tmp_path, 0.1).wait(timeout=240) == 0
    assert num_kills >= 4
    assert outcome(tmp_path) == outcome(undisturbed)
    assert histories(tmp_path) == histories(undisturbed)
    # A kill costs a trial at most what came after its last checkpoint: one epoch, and the one that was going on.
    for name, lines in computed(undisturbed).items():
        assert len(computed(tmp_path)[name]) <= len(lines) + 2 * num_kills
    assert_no_process_is_left(tmp_path)


def assert_no_process_is_left(folder):
    deadline = time.monotonic() + 60
    while leftover_processes(folder) and time.monotonic() < deadline:
        time.sleep(1)
    assert leftover_processes(folder) == []


def test_ctrl_c_says_how_to_go_on_and_loses_nothing(undisturbed, tmp_path):
    process = start(tmp_path, 1.5)
    while not (tmp_path / "other").exists():
        time.sleep(0.2)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert "The same command goes on" in (tmp_path / "output").read_text()
    assert start(tmp_path, 0.1).wait(timeout=180) == 0
    assert outcome(tmp_path) == outcome(undisturbed)
    assert histories(tmp_path) == histories(undisturbed)


def test_two_drivers_compute_every_trial_once(undisturbed, tmp_path):
    processes = [start(tmp_path, 0.5) for _ in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0], (tmp_path / "output").read_text()
    assert computed(tmp_path)["base"] == [f"epoch {n}" for n in range(6)]
    assert computed(tmp_path)["other"] == [f"epoch {n}" for n in range(8)]
    assert [line.split()[1] for line in computed(tmp_path)["items"]] == [str(n) for n in range(10)]
    assert outcome(tmp_path) == outcome(undisturbed)
    assert histories(tmp_path) == histories(undisturbed)


@pytest.fixture
def two_nodes():
    """A cluster of two nodes with one core each on this machine, and the one that is not the head."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    worker = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    try:
        yield cluster, worker
    finally:
        cluster.shutdown()


def test_a_lost_node_costs_time_only(two_nodes, undisturbed, tmp_path):
    cluster, worker = two_nodes
    process = start(tmp_path, 1.5, RAY_ADDRESS=cluster.address)
    names = ("base", "other", "items")
    while sum((tmp_path / name).exists() for name in names) < 2:
        assert process.poll() is None, (tmp_path / "output").read_text()
        time.sleep(0.2)
    time.sleep(4)
    cluster.remove_node(worker, allow_graceful=False)
    assert process.wait(timeout=240) == 0, (tmp_path / "output").read_text()
    said = (tmp_path / "output").read_text()
    # What Ray says at first depends on whether the cluster has missed the node by then.
    assert "preempted: " in said or "Ray lost touch with its process" in said
    assert "again " in said
    assert outcome(tmp_path) == outcome(undisturbed)
    assert histories(tmp_path) == histories(undisturbed)


def start_search(folder):
    search = [
        sys.executable, str(STUDY.with_name("toy_search_study.py")), "--storage", str(folder / "results"),
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
    assert_no_process_is_left(tmp_path)


def with_token(folder):
    """An environment for Ray with token authentication, the token in a file of this folder."""
    token = folder / "auth_token"
    token.write_text("f" * 64)
    token.chmod(0o600)
    return {
        **os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": "/tmp",
    }  # fmt: skip


@pytest.fixture
def head_node(tmp_path):
    """`ray start --head` with token authentication on ports of its own; its environment for clients."""
    environment = with_token(tmp_path)
    ray = str(Path(sys.executable).with_name("ray"))
    ports = "--port=6399 --dashboard-port=8299 --dashboard-agent-listen-port=52399 --ray-client-server-port=9399"
    with (tmp_path / "head").open("w") as log:
        # --block: ending this process ends its cluster; `ray stop` would end every cluster on the machine.
        head = subprocess.Popen(
            [ray, "start", "--head", "--block", "--dashboard-host=127.0.0.1", "--num-cpus=2", *ports.split()],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    environment["RAY_ADDRESS"] = "http://127.0.0.1:8299"
    try:
        wait_for_jobs_api(ray, environment, head, tmp_path / "head")
        yield ray, environment
    finally:
        head.terminate()
        head.wait(timeout=60)


def wait_for_jobs_api(ray, environment, head, log):
    deadline = time.monotonic() + 90
    while subprocess.run([ray, "job", "list"], env=environment, capture_output=True).returncode != 0:
        assert head.poll() is None and time.monotonic() < deadline, log.read_text()  # noqa: PT018
        time.sleep(1)


def submit_job(ray, environment, folder, epoch_s):
    here = str(Path(__file__).parent)
    runtime = f'{{"env_vars": {{"PYTHONPATH": "{here}"}}}}'
    return subprocess.Popen(
        [ray, "job", "submit", "--working-dir", here, "--runtime-env-json", runtime, "--", *command(folder, epoch_s)],
        env=environment, stdout=(folder / "output").open("a"), stderr=subprocess.STDOUT,
    )  # fmt: skip


def driver_pid(folder):
    """The job's own python, not the shell or the submitter around it."""
    done = subprocess.run(["pgrep", "-f", f"^[^ ]*python {STUDY}.*{folder}"], capture_output=True, text=True)
    return [int(pid) for pid in done.stdout.split()]


def test_a_job_whose_driver_is_killed_goes_on_when_it_is_submitted_again(head_node, undisturbed, tmp_path):
    ray, environment = head_node
    refused = subprocess.run(
        [ray, "job", "list"], env={**environment, "RAY_AUTH_MODE": "disabled"}, capture_output=True, text=True
    )
    assert refused.returncode != 0
    job = submit_job(ray, environment, tmp_path, 1.5)
    while not (tmp_path / "other").exists() or len(computed_so_far(tmp_path, "other")) < 3:
        assert job.poll() is None, (tmp_path / "output").read_text()
        time.sleep(0.2)
    for pid in driver_pid(tmp_path):
        os.kill(pid, signal.SIGKILL)
    assert job.wait(timeout=120) != 0
    assert submit_job(ray, environment, tmp_path, 0.1).wait(timeout=240) == 0, (tmp_path / "output").read_text()
    assert outcome(tmp_path) == outcome(undisturbed)
    assert histories(tmp_path) == histories(undisturbed)


def computed_so_far(folder, name):
    return (folder / name).read_text().splitlines()
