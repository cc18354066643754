"""The cluster files: taken by Ray, closed to strangers, on the shared storage; free of charge while idle if they scale.

What the start commands really hand to `ray` and `mlflow` is seen by running them in bash with stand-ins of these names.
"""

import json
import os
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


def prepared(name):
    """A cluster file as Ray understands it. Raises what Ray says against it."""
    config = prepare_config(yaml.safe_load((ROOT / name).read_text()))
    validate_config(config)
    return config


@pytest.fixture(scope="module", params=["ray_cluster.yaml", "clusters/on_premises.yaml"])
def config(request):
    return prepared(request.param)


@pytest.fixture(scope="module")
def on_spot():
    return prepared("ray_cluster.yaml")


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


def test_no_worker_exists_before_a_trial_asks_for_it(on_spot):
    config = on_spot
    workers = {name: kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]}
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in workers.values())
    assert [name for name, kind in workers.items() if kind["resources"].get("GPU", 0) >= 1] == ["gpu_worker"]
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}, "trials on the head would crowd out the driver, and delay the workers"


def test_workers_are_spot_machines_and_the_head_is_none(on_spot):
    kinds = {name: kind["node_config"] for name, kind in on_spot["available_node_types"].items()}
    is_spot = {name: config.get("InstanceMarketOptions") == {"MarketType": "spot"} for name, config in kinds.items()}
    assert is_spot == {"head": False, "gpu_worker": True, "cpu_worker": True}


def test_all_of_ones_own_machines_work_and_the_head_keeps_a_cpu_for_the_driver(tmp_path):
    config = prepared("clusters/on_premises.yaml")
    workers = config["provider"]["worker_ips"]
    (kind,) = config["available_node_types"].values()
    assert config["max_workers"] == kind["min_workers"] == kind["max_workers"] == len(workers)
    calls = run_with_stand_ins(config["head_start_ray_commands"], tmp_path)
    assert f"--num-cpus={os.cpu_count() - 1}" in the_start(calls)["arguments"]
    assert not [command for command in all_commands(config) if "sudo" in command], "who has no right to it, needs none"


def test_the_storage_is_there_on_every_node_and_the_same_for_all(config, started):
    places = {the_start(calls)["environment"]["QUARTERTURN_STORAGE"] for calls in started.values()}
    assert len(places) == 1
    (mount,) = {word for line in config["initialization_commands"] for word in re.findall(r"mountpoint -q (\S+)", line)}
    assert places.pop().startswith(mount + "/")


def test_a_machine_without_the_storage_is_refused():
    (command,) = prepared("clusters/on_premises.yaml")["initialization_commands"]
    elsewhere = command.replace("/mnt/quarterturn", "/nowhere")
    refused = subprocess.run(["bash", "-c", elsewhere], capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("/nowhere is not mounted here")


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


# What KubeRay 1.6 knows and asks for, by kind: ray-operator/apis/ray/v1/rayjob_types.go and raycluster_types.go of
# github.com/ray-project/kuberay (a field without `omitempty` is required). What it does not know is dropped silently.
KUBERAY = {
    "RayJobSpec": (
        {"rayClusterSpec"},
        {"activeDeadlineSeconds", "backoffLimit", "entrypoint", "submissionMode", "shutdownAfterJobFinishes",
         "ttlSecondsAfterFinished", "runtimeEnvYAML", "submitterPodTemplate", "submitterConfig", "jobId", "suspend"},
    ),
    "RayClusterSpec": (
        {"headGroupSpec"},
        {"authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "rayVersion", "workerGroupSpecs", "suspend"},
    ),
    "AuthOptions": ({"mode"}, {"secretName"}),
    "AutoscalerOptions": (set(), {"idleTimeoutSeconds", "upscalingMode", "resources", "env", "envFrom"}),
    "HeadGroupSpec": ({"rayStartParams", "template"}, {"serviceType"}),
    "WorkerGroupSpec": (
        {"groupName", "rayStartParams", "template", "minReplicas", "maxReplicas"},
        {"replicas", "numOfHosts", "idleTimeoutSeconds"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def job():
    return yaml.safe_load((ROOT / "clusters" / "rayjob.yaml").read_text())


def groups_of(job):
    """The head and the groups of workers."""
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_the_rayjob_has_the_fields_that_kuberay_knows_and_asks_for(job):
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster, (head, *workers) = job["spec"]["rayClusterSpec"], groups_of(job)
    found = [("RayJobSpec", job["spec"]), ("RayClusterSpec", cluster), ("AuthOptions", cluster["authOptions"])]
    found += [("AutoscalerOptions", cluster["autoscalerOptions"]), ("HeadGroupSpec", head)]
    for kind, fields in [*found, *(("WorkerGroupSpec", group) for group in workers)]:
        required, optional = KUBERAY[kind]
        assert required <= set(fields) <= required | optional, kind
    assert all(type(value) is str for group in groups_of(job) for value in group["rayStartParams"].values())


def test_kubernetes_takes_the_pods_of_the_rayjob(job):
    import kubernetes_validate

    for group in groups_of(job):
        assert set(group["template"]) <= {"metadata", "spec"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}
        kubernetes_validate.validate(pod, "1.34", strict=True)
        mounted = {mount["name"] for container in pod["spec"]["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_the_rayjob_asks_for_the_token_out_of_a_secret_and_opens_nothing_to_the_outside(job):
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token", "secretName": "quarterturn-token"}
    head, *_ = groups_of(job)
    assert head["serviceType"] == "ClusterIP"
    text = (ROOT / "clusters" / "rayjob.yaml").read_text()
    assert "secret generic quarterturn-token --from-file=auth_token=" in text
    variables = [v for group in groups_of(job) for c in group["template"]["spec"]["containers"] for v in c["env"]]
    assert not [v["name"] for v in variables if re.search("TOKEN|SECRET|PASSWORD|KEY", v["name"])]


def test_the_rayjob_is_of_the_locked_ray_and_runs_a_study_on_an_object_store(job, pinned_ray):
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == pinned_ray
    places = {
        variable["value"]
        for group in groups_of(job)
        for variable in group["template"]["spec"]["containers"][0]["env"]
        if variable["name"] == "QUARTERTURN_STORAGE"
    }
    assert len(places) == 1
    assert places.pop().startswith("s3://")
    program, script, *_ = shlex.split(job["spec"]["entrypoint"])
    assert program == "python"
    assert (ROOT / Path(script).relative_to("/quarterturn")).is_file()


@pytest.fixture
def pinned_ray():
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    return next(line.partition("==")[2] for line in lock if line.startswith("ray=="))


def test_no_pod_of_the_rayjob_works_before_a_trial_asks_for_it(job):
    head, *workers = groups_of(job)
    assert head["rayStartParams"] == {"num-cpus": "0"}
    assert all(group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"] for group in workers)
    gpus = [g["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for g in workers]
    assert gpus == ["1", None]
