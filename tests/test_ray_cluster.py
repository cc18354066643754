"""The cluster file: accepted by Ray, closed to strangers, free of charge while idle, and on the shared storage.

What the start commands really hand to `ray` and `mlflow` is seen by running them in bash with stand-ins of these names.
"""

import json
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray._private.runtime_env import packaging
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[1]
STAND_IN = """#!{python}
import json, os, sys
call = {{"program": os.path.basename(sys.argv[0]), "arguments": sys.argv[1:], "environment": dict(os.environ)}}
with open(os.path.join(os.environ["HOME"], "calls.jsonl"), "a") as calls:
    calls.write(json.dumps(call) + "\\n")
"""


@pytest.fixture(scope="module")
def config():
    loaded = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    prepared = prepare_config(loaded)
    validate_config(prepared)
    return prepared


@pytest.fixture(scope="module")
def started(config, tmp_path_factory):
    """The calls that the start commands make, by role: {"head": [call, ...], "worker": [...]}."""
    return {
        role: run_with_stand_ins(config[f"{role}_start_ray_commands"], tmp_path_factory.mktemp(role))
        for role in ("head", "worker")
    }


def run_with_stand_ins(commands, home):
    binaries = home / "quarterturn" / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for program in ("ray", "mlflow"):
        path = binaries / program
        path.write_text(STAND_IN.format(python=sys.executable))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "RAY_HEAD_IP": "10.0.0.7"}
    for command in commands:
        # `wait` for what a command leaves in the background.
        subprocess.run(["bash", "-c", f"{command}\nwait"], env=environment, check=True, timeout=60)
    return [json.loads(line) for line in (home / "calls.jsonl").read_text().splitlines()]


def the_start(calls):
    starts = [call for call in calls if call["program"] == "ray" and call["arguments"][0] == "start"]
    assert len(starts) == 1
    return starts[0]


def all_commands(config):
    return [command for name, commands in config.items() if name.endswith("_commands") for command in commands]


def test_every_ray_process_asks_for_the_token(started):
    for calls in started.values():
        assert the_start(calls)["environment"]["RAY_AUTH_MODE"] == "token"


def test_the_token_reaches_every_node_at_rays_default_place_and_stays_private(config):
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for role in ("head", "worker"):
        assert "chmod 600 ~/.ray/auth_token" in config[f"{role}_setup_commands"]
    # A token in the environment would beat the file, and one written here would be in git.
    assert not re.search(r"RAY_AUTH_TOKEN\b", "\n".join(all_commands(config)))


def test_dashboard_and_mlflow_listen_on_loopback_only(config, started):
    assert "--dashboard-host=127.0.0.1" in the_start(started["head"])["arguments"]
    servers = [call["arguments"] for call in started["head"] if call["program"] == "mlflow"]
    assert len(servers) == 1
    assert servers[0][servers[0].index("--host") + 1] == "127.0.0.1"
    assert not [command for command in all_commands(config) if "0.0.0.0" in command or "[::]" in command]


def test_no_worker_exists_before_a_trial_asks_for_it(config):
    workers = {name: kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]}
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in workers.values())
    assert [name for name, kind in workers.items() if kind["resources"].get("GPU", 0) >= 1] == ["gpu_worker"]
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}, "trials on the head would crowd out the driver, and delay the workers"


def test_the_storage_is_mounted_on_every_node_and_the_same_for_all(config, started):
    places = {the_start(calls)["environment"]["QUARTERTURN_STORAGE"] for calls in started.values()}
    assert len(places) == 1
    mounts = [shlex.split(command)[-1] for command in config["initialization_commands"] if " mount " in command]
    assert len(mounts) == 1
    assert places.pop().startswith(mounts[0] + "/")


def test_the_driver_finds_the_mlflow_server_that_the_head_started(started):
    server = next(call["arguments"] for call in started["head"] if call["program"] == "mlflow")
    address = f"http://{server[server.index('--host') + 1]}:{server[server.index('--port') + 1]}"
    assert the_start(started["head"])["environment"]["MLFLOW_TRACKING_URI"] == address
    database = server[server.index("--backend-store-uri") + 1]
    assert database.startswith("sqlite:////"), "an absolute path"
    assert "/mnt/" not in database, "sqlite is not safe on NFS"


def test_every_node_installs_the_lock_and_jobs_run_in_that_environment(config, started):
    mounted = next(remote for remote, local in config["file_mounts"].items() if local == "./requirements.lock")
    for role, calls in started.items():
        commands = [command for command in config[f"{role}_setup_commands"] if "pip install" in command]
        assert [command for command in commands if shlex.split(command)[-2:] == ["-r", mounted]]
        start = the_start(calls)["environment"]
        assert start["PATH"].split(":")[0] == f"{start['HOME']}/quarterturn/.venv/bin"


def test_a_job_uploads_the_code_and_neither_tests_nor_images_nor_weights(tmp_path):
    kept = {"studies/study.py", "trainables/data/mni152.py", "pyproject.toml"}
    left = {
        "tests/test_a.py",
        "benchmarks/b.py",
        "data/scan.nii.gz",
        "moco_v2_800ep_pretrain.pth.tar",
        "results/r.json",
    }
    tree = tmp_path / "tree"
    for name in kept | left:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("content")
    for name in (".rayignore", ".gitignore"):
        (tree / name).write_text((ROOT / name).read_text())
    uploaded = set()
    packaging._dir_travel(
        tree, [], lambda path: uploaded.add(path.relative_to(tree).as_posix()) if path.is_file() else None, True
    )
    assert uploaded - {".rayignore", ".gitignore"} == kept
