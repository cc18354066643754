"""The guide to where studies run: its commands are what the programs take, and no place takes more than five lines."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from orchestrator import submission
from orchestrator.cli import orchestrator_main

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "docs" / "where.md").read_text()
NOT_OURS = {"docker", "kubectl", "nohup", "sbatch", "squeue", "sudo", "export"}
BLOCKS = re.findall(r"(?:^    \S.*\n)+", GUIDE, re.MULTILINE)
COMMANDS = [part for block in BLOCKS for line in block.splitlines() for part in line.strip().split(" && ")]


def words_of(command):
    """What the shell would hand over, without what it keeps for itself."""
    words = shlex.split(command)
    return [word for word in words if word not in ("&", "2>&1", ">")]


def python_of(command):
    """The arguments of python in a command that runs it, through whatever else; None without."""
    words = words_of(command.replace("clusters/slurm.sh", "python").replace("> study.log", ""))
    at = next((n for n, word in enumerate(words) if word.rpartition("/")[2] == "python"), None)
    return None if at is None else words[at + 1 :]


@pytest.mark.parametrize("command", sorted({c for c in COMMANDS if (python_of(c) or [""])[0].startswith("studies/")}))
def test_a_study_takes_its_flags(command, monkeypatch):
    script, *flags = python_of(command)
    seen = []
    monkeypatch.setattr(submission, "submit", lambda options, make_study: seen.append(options) or 0)
    monkeypatch.setattr(sys, "argv", [script, *flags])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert ended.value.code == 0
    assert len(seen) == 1


@pytest.mark.parametrize("command", sorted({c for c in COMMANDS if "-m orchestrator" in c and "s3://" not in c}))
def test_the_orchestrator_takes_its_flags(command, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["orchestrator", *python_of(command)[2:]])
    with pytest.raises(SystemExit):
        orchestrator_main()
    assert "holds no study" in capsys.readouterr().err, "it was understood, and looked"


def options_of(command, group):
    """What a click program makes of a command. Raises click.UsageError for what it does not take."""
    context, words = click.Context(group), words_of(command)[1:]
    while isinstance(group, click.Group):
        group, words = group.get_command(context, words[0]), words[1:]
    return group.make_context(group.name, words).params


@pytest.mark.parametrize("command", sorted({c for c in COMMANDS if c.startswith(".venv/bin/ray ")}))
def test_ray_takes_its_flags(command, monkeypatch):
    from ray.scripts.scripts import cli

    monkeypatch.chdir(ROOT)
    options = options_of(command, cli)
    assert all((ROOT / value).exists() for value in options.values() if str(value).endswith(".yaml"))


@pytest.mark.slow  # MLflow takes long to load
@pytest.mark.parametrize("command", sorted({c for c in COMMANDS if c.startswith(".venv/bin/mlflow ")}))
def test_mlflow_takes_its_flags(command):
    from mlflow.cli import cli

    assert options_of(command, cli)


def test_the_other_commands_name_files_and_targets_that_are_there():
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in COMMANDS:
        program, *words = words_of(command)
        if program == "make":
            assert set(words) <= set(targets)
        elif program not in NOT_OURS:
            assert program.startswith(".venv/bin/")
        for word in words:
            if word.startswith("clusters/"):
                assert (ROOT / word).is_file()


def test_every_place_takes_five_lines_at_most():
    sections = GUIDE.split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections][:3] == ["Laptop", "GPU server", "SLURM allocation"]
    assert len(BLOCKS) == len(sections) + 1
    assert [len(block.splitlines()) for block in BLOCKS[: len(sections)]] == [5] * len(sections)


def test_what_the_container_copies_is_there():
    lines = (ROOT / "clusters" / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert {"requirements.lock", "pyproject.toml", "README.md"} < set(copied)
    assert all((ROOT / name).exists() for name in copied)


def test_a_slurm_allocation_is_one_cluster_with_a_token_that_runs_the_study(tmp_path):
    """The script as SLURM runs it, in bash, with stand-ins for SLURM's programs and Ray's."""
    binaries, calls = tmp_path / ".venv" / "bin", tmp_path / "calls"
    binaries.mkdir(parents=True)
    stand_ins = {
        "scontrol": "printf 'node07\\nnode08\\n'",
        "srun": f'echo "srun $*" >> {calls}; shift; exec "$@"',
        "ray": f'echo "$RAY_AUTH_MODE ray $*" >> {calls}',
    }
    for name, body in stand_ins.items():
        (binaries / name).write_text(f"#!/bin/bash\n{body}\n")
        (binaries / name).chmod(0o755)
    environment = {
        "PATH": "/usr/bin:/bin", "SLURM_JOB_NODELIST": "node[07-08]", "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "64",
    }  # fmt: skip
    command = [ROOT / "clusters" / "slurm.sh", "studies/rotation_period.py", "--storage", "/shared/my results"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)
    token, _, start = calls.read_text().splitlines()
    assert token == "token ray get-auth-token --generate"
    assert start == (
        "token ray symmetric-run --address node07:24567 --min-nodes 2 --num-cpus=64 "
        "-- python studies/rotation_period.py --storage /shared/my results --address node07:24567"
    )
    from ray.scripts.scripts import start as ray_start
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args as left_for_ray_start

    arguments = left_for_ray_start(start.split(" -- ")[0].split()[3:])
    assert ray_start.make_context("start", arguments).params["num_cpus"] == 64
