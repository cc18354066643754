"""Clusters as users have them: nodes that come and go, and Ray itself dying. Slow."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crowds import wait_for_jobs_api, with_token
from toy import Count, OnGpu, Squares
from world import TOY_STUDY, World, outcome, runs

from orchestrator import cluster as module
from orchestrator.resources import Amount, Capacity, Demand
from orchestrator.store import Store

RAY = str(Path(sys.executable).with_name("ray"))
# The provider of Ray's own tests: nodes are processes of this machine, which find the head at its usual port only.
FAKE_PORT = 6379
HEAD = "ray.head.default"
GROWS_FROM_ZERO = {
    "cluster_name": "fake",
    "max_workers": 2,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 1,
    "provider": {"type": "fake_multinode"},
    "auth": {},
    "head_node_type": HEAD,
    "available_node_types": {
        HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "cpu_worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
    **{
        f"{whose}_commands": []
        for whose in ("head_setup", "setup", "initialization", "worker_setup", "head_start_ray", "worker_start_ray")
    },
    "cluster_synced_files": [],
    "rsync_exclude": [],
    "rsync_filter": [],
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "can_grow"),
    [({}, False), ({"ray.io/node-id": "1"}, False), ({"ray.io/node-id": "1", "ray.io/node-group": "head"}, True)],
)
def test_a_cluster_whose_nodes_have_a_type_may_grow(monkeypatch, labels, can_grow):
    nodes = [
        {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}, "Labels": labels},
        {"Alive": True, "Resources": {"memory": 1.0}, "Labels": labels},
        {"Alive": False, "Resources": {"CPU": 8.0}, "Labels": labels},
    ]
    monkeypatch.setattr(module.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(module, "_BOOTSTRAP", Path("/nowhere"))
    module._capacity_in.cache_clear()
    assert module.capacity() == Capacity((Amount(2.0, 1.0), Amount()), can_grow)
    module._capacity_in.cache_clear()


@pytest.fixture
def growing(monkeypatch, tmp_path):
    """A function that makes a cluster of 4 CPUs that grows, by nodes of these resources if any are known."""

    def make(*resources, gpus=0.0):
        nodes = [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": gpus}, "Labels": {"ray.io/node-group": "head"}}]
        monkeypatch.setattr(module.ray, "nodes", lambda: nodes)
        types = {f"type {n}": {"resources": offered, "max_workers": 3} for n, offered in enumerate(resources)}
        types["head"] = {"resources": {"CPU": 64, "GPU": 8}, "max_workers": 0}  # of which there will be one only
        described = tmp_path / "bootstrap.yaml"
        if resources:
            described.write_text(json.dumps({"available_node_types": types}))
        monkeypatch.setattr(module, "_BOOTSTRAP", described)
        module._capacity_in.cache_clear()

    yield make
    module._capacity_in.cache_clear()


def test_whether_to_wait_for_gpus_is_not_guessed_where_a_cluster_may_grow(growing):
    growing()
    with pytest.raises(ValueError, match=r"--gpus-per-trial 1 to wait for .* --gpus-per-trial 0 to compute on CPUs"):
        module.resources_for([Count(), OnGpu()], cpus=1.0, gpus=None, workers=1)
    assert module.resources_for([Count()], cpus=1.0, gpus=None, workers=1).gpus == 0.0  # nothing computes on one
    assert module.resources_for([OnGpu()], cpus=1.0, gpus=0.0, workers=1).gpus == 0.0
    assert module.resources_for([OnGpu()], cpus=1.0, gpus=1.0, workers=1).gpus == 1.0
    growing(gpus=1.0)
    assert module.resources_for([OnGpu()], cpus=1.0, gpus=None, workers=1).gpus == 1.0


def test_what_no_node_type_has_is_refused_where_the_types_are_known(growing):
    growing({"CPU": 8}, {"CPU": 2, "GPU": 1})
    with pytest.raises(ValueError, match=r"asks for 1 CPU with 2 GPU.*grows by 8 CPU and 2 CPU with 1 GPU: lower"):
        module.resources_for([OnGpu()], cpus=1.0, gpus=2.0, workers=1)
    with pytest.raises(ValueError, match="asks for 16 CPU"):
        module.resources_for([Count()], cpus=16.0, gpus=None, workers=1)
    module.resources_for([OnGpu()], cpus=2.0, gpus=1.0, workers=1)
    module.resources_for([Squares()], cpus=8.0, gpus=None, workers=5)  # on as many nodes as it takes


def test_where_node_types_are_not_known_the_wait_says_what_is_lacking(growing):
    growing()
    module.resources_for([OnGpu()], cpus=1.0, gpus=2.0, workers=1)
    assert module.what_lacks(Demand(Amount(1.0, 2.0))) == (
        "none of the nodes that are there has the 1 CPU with 2 GPU of a trial"
    )
    assert module.what_lacks(Demand(Amount(4.0))) == ""


@pytest.fixture
def from_zero(tmp_path):
    """A head without CPUs whose autoscaler starts nodes of one CPU: its address, and the environment for drivers."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", FAKE_PORT)) == 0:
            pytest.skip(f"port {FAKE_PORT} is taken")
    (tmp_path / "cluster.yaml").write_text(json.dumps(GROWS_FROM_ZERO))
    token = with_token(tmp_path)
    environment = {
        **token, "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_NODE_TYPE_NAME": HEAD,
    }  # fmt: skip
    command = f"start --head --block --num-cpus=0 --port={FAKE_PORT} --include-dashboard=false"
    command += f" --ray-client-server-port=9499 --autoscaling-config={tmp_path / 'cluster.yaml'}"
    with (tmp_path / "head").open("w") as log:
        head = subprocess.Popen([RAY, *command.split()], env=environment, stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while "block forever" not in (tmp_path / "head").read_text():
        assert time.monotonic() < deadline, (tmp_path / "head").read_text()
        time.sleep(0.5)
    try:
        yield {**token, "RAY_ADDRESS": f"127.0.0.1:{FAKE_PORT}"}
    finally:
        head.terminate()
        head.wait(timeout=60)


@pytest.mark.slow
def test_a_cluster_grows_from_zero_for_what_waits(from_zero, tmp_path):
    (tmp_path / "undisturbed").mkdir()
    world, undisturbed = World(tmp_path, TOY_STUDY), World(tmp_path / "undisturbed", TOY_STUDY)
    assert world.start(0.1, **from_zero).wait(timeout=300) == 0, world.output
    undisturbed.finish()
    assert outcome(world) == outcome(undisturbed)


@contextlib.contextmanager
def started_nodes(folder, num_workers):
    """A head and further nodes, of one CPU each, as `ray start` makes them, with token authentication.

    An environment for clients that submit jobs, and the processes of the further nodes.
    """
    environment = with_token(folder)
    head = "start --head --block --num-cpus=1 --port=6397 --dashboard-host=127.0.0.1 --dashboard-port=8297"
    head += " --dashboard-agent-listen-port=52397 --ray-client-server-port=9397"
    started = []
    environment["RAY_ADDRESS"] = "http://127.0.0.1:8297"
    try:
        with (folder / "nodes").open("w") as log:
            started.append(subprocess.Popen([RAY, *head.split()], env=environment, stdout=log, stderr=log))
            wait_for_jobs_api(RAY, environment, started[0], folder / "nodes")
            without = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
            # One after the other; on one machine they share a folder, which one that starts empties: no job before.
            for n in range(num_workers):
                worker = (
                    f"start --block --num-cpus=1 --address=127.0.0.1:6397 --dashboard-agent-listen-port={52396 - n}"
                )
                started.append(subprocess.Popen([RAY, *worker.split()], env=without, stdout=log, stderr=log))
                wait_for_nodes(n + 2, folder / "nodes")
        yield environment, started[1:]
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=120)  # it gives each of its processes time to end


def wait_for_nodes(num_nodes, log):
    deadline = time.monotonic() + 120
    while log.read_text().count("block forever") < num_nodes:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


@pytest.fixture
def two_started_nodes(tmp_path):
    with started_nodes(tmp_path, 1) as (environment, _):
        yield environment


@pytest.fixture
def three_started_nodes(tmp_path):
    with started_nodes(tmp_path, 2) as (environment, workers):
        yield {**environment, "RAY_ADDRESS": "127.0.0.1:6397"}, workers


def lose(nodes):
    """What a preemption does to machines, all at once: no process of theirs has a say."""
    pids = [node.pid for node in nodes]
    for pid in pids:  # it grows by their children, and by theirs: the agents of a raylet would outlive it
        children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
        pids += map(int, children.stdout.split())
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_two_of_three_nodes_lost_at_once_cost_time_only(three_started_nodes, tmp_path):
    environment, workers = three_started_nodes
    (tmp_path / "undisturbed").mkdir()
    world, undisturbed = World(tmp_path, TOY_STUDY), World(tmp_path / "undisturbed", TOY_STUDY)
    undisturbed.finish()
    driver = world.start(3.0, **environment)
    assert world.wait(driver, lambda: all(world.lines(name) for name in ("base", "other", "items"))), world.output
    lose(workers)
    world.ends(driver)
    assert world.output.count("again") >= 2, "trials of both nodes"
    assert outcome(world) == outcome(undisturbed)
    assert runs(world) == runs(undisturbed)


@pytest.mark.slow
def test_a_job_trains_and_measures_with_two_workers_on_two_nodes(two_started_nodes, tmp_path):
    root = Path(__file__).parents[2]
    # Without --working-dir: nodes of one machine share the folder of its copies, and one removes it under the other.
    study = [sys.executable, str(root / "studies" / "rotation_period.py"), "--scale", "smoke", "--pretrain-seeds", "1"]
    study += [
        "--workers-per-trial",
        "2",
        "--storage",
        str(tmp_path / "results"),
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    job = [RAY, "job", "submit", "--", *study]
    done = subprocess.run(job, env=two_started_nodes, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
    store = Store(str(tmp_path / "results"))
    workers = {}
    for key in store.finished():
        kind = store.read_document(f"trials/{key}/trial.json")["class"]
        workers.setdefault(kind, set()).add(store.result(key).provenance["workers"])
    # Each node has one CPU: the two that trained together were on both.
    assert workers == {"MoCo": {"2"}, "InterpretabilityCurve": {"1"}}
    assert store.names(".tune") == []


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_ends_while_several_processes_train_leaves_nothing_behind(tmp_path, ending):
    """On a cluster that goes on: its CPUs are free again, and the same command ends the study."""
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    log = tmp_path / "log"
    command = [sys.executable, str(Path(__file__).with_name("toy_ranks_study.py")), "--storage"]
    command += [str(tmp_path / "results"), "--cache-dir", str(tmp_path / "cache"), "--log-path", str(log)]
    environment = {**os.environ, "RAY_ADDRESS": nodes.address, "QUARTERTURN_CHECKPOINT_S": "1"}
    try:
        with (tmp_path / "output").open("w") as output:
            process = subprocess.Popen([*command, "--epoch-s", "2"], env=environment, stdout=output, stderr=output)
            while not (log.exists() and log.read_text().count("epoch") >= 6):
                assert process.poll() is None, (tmp_path / "output").read_text()
                time.sleep(0.2)
            process.send_signal(ending)
            assert process.wait(timeout=90) == {signal.SIGINT: 130, signal.SIGKILL: -9}[ending]
        assert free_cpus(nodes.address) == 2.0
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = log.read_text().splitlines()
        assert sum(line.startswith("epoch 0 rank 0") for line in lines) == 1
        store = Store(str(tmp_path / "results"))
        assert {store.result(key).metrics["sum"] for key in store.finished()} == {8.0}
    finally:
        nodes.shutdown()


def free_cpus(address):
    """CPUs that nobody holds once what has ended has let go of them, asked in a process of its own."""
    code = f"""
import ray, time
ray.init({address!r}, logging_level="ERROR", log_to_driver=False)
for _ in range(60):
    groups = ray.util.placement_group_table().values()
    free = ray.available_resources().get("CPU", 0.0)
    if free == 2.0 and all(group["state"] == "REMOVED" for group in groups):
        break
    time.sleep(1)
print(free)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    return float(done.stdout.split()[-1])
