"""Clusters as users have them: nodes that come and go, and Ray itself dying. Slow."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_chaos import computed, outcome, start, undisturbed  # noqa: F401

from orchestrator import cluster as module
from orchestrator.resources import Amount, Capacity

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


@pytest.mark.slow
def test_a_dead_raylet_ends_the_study_which_goes_on_when_it_is_submitted_again(undisturbed, tmp_path):  # noqa: F811
    process = start(tmp_path, 8.0)  # an epoch: it takes up to 20 s until a node counts as dead
    while not (tmp_path / "other").exists():
        assert process.poll() is None, (tmp_path / "output").read_text()
        time.sleep(0.2)
    time.sleep(3)
    children = subprocess.run(["pgrep", "-P", str(process.pid), "raylet"], capture_output=True, text=True)
    os.kill(int(children.stdout), signal.SIGKILL)
    assert process.wait(timeout=120) == 130
    assert "Ray on this machine is gone" in (tmp_path / "output").read_text()
    assert start(tmp_path, 0.1).wait(timeout=240) == 0
    assert outcome(tmp_path) == outcome(undisturbed)
    for name, lines in computed(undisturbed).items():
        assert len(computed(tmp_path)[name]) <= len(lines) + 2


@pytest.fixture
def from_zero(tmp_path):
    """A head without CPUs whose autoscaler starts nodes of one CPU: its address, and the environment for drivers."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", FAKE_PORT)) == 0:
            pytest.skip(f"port {FAKE_PORT} is taken")
    (tmp_path / "cluster.yaml").write_text(json.dumps(GROWS_FROM_ZERO))
    environment = {
        **os.environ, "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_AUTH_MODE": "disabled",
        "RAY_NODE_TYPE_NAME": HEAD, "RAY_USAGE_STATS_ENABLED": "0",
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
        yield {"RAY_ADDRESS": f"127.0.0.1:{FAKE_PORT}", "RAY_AUTH_MODE": "disabled"}
    finally:
        head.terminate()
        head.wait(timeout=60)


@pytest.mark.slow
def test_a_cluster_grows_from_zero_for_what_waits(from_zero, undisturbed, tmp_path):  # noqa: F811
    assert start(tmp_path, 0.1, **from_zero).wait(timeout=300) == 0, (tmp_path / "output").read_text()
    assert outcome(tmp_path) == outcome(undisturbed)
