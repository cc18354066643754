"""Nodes that are lost, and a job of a cluster."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from fault import NewWorld, at_a_moment
from world import PATIENCE_S, World

RAY = str(Path(sys.executable).with_name("ray"))


def lose_nodes(new_world: NewWorld, moments: Random, times: int) -> None:
    """Two nodes of three, one after the other; what they computed goes on on the third."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    try:
        world = new_world(environment={"RAY_ADDRESS": cluster.address})
        driver = world.start(2.0)
        for number, worker in enumerate(workers):
            at_a_moment(world, driver, lambda n=number: len(world.running()) >= 3 - n, moments, 3.0)
            world.disturbed()
            cluster.remove_node(worker, allow_graceful=False)
        world.ends(driver)
        assert placement_groups(cluster.address) == "[]"
    finally:
        cluster.shutdown()


def placement_groups(address: str) -> str:
    """Those that a cluster still holds a minute after the study ended, asked in a process of its own."""
    code = f"""
import ray, time
ray.init({address!r}, logging_level="ERROR", log_to_driver=False)
for _ in range(60):
    held = [g["state"] for g in ray.util.placement_group_table().values() if g["state"] != "REMOVED"]
    if not held:
        break
    time.sleep(1)
print(held)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=150, check=False)
    return done.stdout.strip().splitlines()[-1]


# -- a job -----------------------------------------------------------------------------------------------------


def kill_job(new_world: NewWorld, moments: Random, times: int) -> None:
    """The driver of a Ray job, submitted with token authentication; the job is submitted again."""
    world = new_world()
    with head_node(world.folder) as environment:
        refused = subprocess.run(
            [RAY, "job", "list"], env={**environment, "RAY_AUTH_MODE": "disabled"}, capture_output=True, check=False
        )
        assert refused.returncode != 0
        job = submit_job(world, environment, 2.0)
        at_a_moment(world, job, world.num_noted, moments, 4.0)
        world.killed(job_drivers(world))
        assert job.wait(timeout=PATIENCE_S) != 0
        world.ends(submit_job(world, environment, 0.1))


def submit_job(world: World, environment: dict[str, str], epoch_s: float) -> subprocess.Popen:
    """As a person submits a study that lies in a folder of its own."""
    here = str(world.study.parent)
    variables = {"PYTHONPATH": os.environ["PYTHONPATH"], "QUARTERTURN_CHECKPOINT_S": "1"}
    runtime = json.dumps({"env_vars": variables})
    with (world.folder / "output").open("a") as output:
        return subprocess.Popen(
            [RAY, "job", "submit", "--working-dir", here, "--runtime-env-json", runtime, "--", *world.command(epoch_s)],
            env=environment, stdout=output, stderr=output,
        )  # fmt: skip


def job_drivers(world: World) -> list[int]:
    """The job's own Python, not the shell or the submitter around it."""
    done = subprocess.run(
        ["pgrep", "-f", f"^[^ ]*python {world.study}.*{world.folder}"], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in done.stdout.split()]


def with_token(folder: Path) -> dict[str, str]:
    """An environment for Ray with token authentication, the token in a file of this folder."""
    token = folder / "auth_token"
    token.write_text("f" * 64)
    token.chmod(0o600)
    return {
        **os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": "/tmp",
    }  # fmt: skip


@contextmanager
def head_node(folder: Path) -> Iterator[dict[str, str]]:
    """`ray start --head` with token authentication on ports of its own; its environment for clients."""
    environment = with_token(folder)
    ports = "--port=6399 --dashboard-port=8299 --dashboard-agent-listen-port=52399 --ray-client-server-port=9399"
    with (folder / "head").open("w") as log:
        # --block: ending this process ends its cluster; `ray stop` would end every cluster on the machine.
        head = subprocess.Popen(
            [RAY, "start", "--head", "--block", "--dashboard-host=127.0.0.1", "--num-cpus=2", *ports.split()],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    environment["RAY_ADDRESS"] = "http://127.0.0.1:8299"
    try:
        wait_for_jobs_api(RAY, environment, head, folder / "head")
        yield environment
    finally:
        head.terminate()
        head.wait(timeout=60)


def wait_for_jobs_api(ray: str, environment: dict[str, str], head: subprocess.Popen, log: Path) -> None:
    """Wait until a cluster takes jobs."""
    deadline = time.monotonic() + 90
    while subprocess.run([ray, "job", "list"], env=environment, capture_output=True, check=False).returncode != 0:
        assert head.poll() is None and time.monotonic() < deadline, log.read_text()  # noqa: PT018
        time.sleep(1)
