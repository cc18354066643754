"""A disk that is full in mid study, and has space again: a small one of its own, under a real study. Slow."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.store import Store

STUDY = Path(__file__).with_name("toy_study.py")
MOUNTED = """
mount -t tmpfs -o size=24m none "$1/disk" && shift && exec "$@"
"""
pytestmark = pytest.mark.slow


def own_mounts(*command, **how):
    """A process that sees mounts of its own, which go with it."""
    return subprocess.Popen(["unshare", "--mount", *map(str, command)], **how)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "disk").mkdir()
    try:
        may = own_mounts("sh", "-c", MOUNTED, "sh", tmp_path, "true", stderr=subprocess.DEVNULL).wait(timeout=30) == 0
    except OSError:
        may = False
    if not may:
        pytest.skip("this user may mount nothing")
    return tmp_path


def fill_up(disk):
    with (disk / "fill").open("wb", buffering=0) as fill, contextlib.suppress(OSError):
        while fill.write(bytes(1 << 16)):
            pass


def test_a_disk_that_is_full_in_mid_study_and_free_again(folder):
    study = [sys.executable, STUDY, "--storage", folder / "disk" / "results", "--log-dir", folder, "--epoch-s", "1.0"]
    study += ["--cache-dir", folder / "cache", "--tracking-uri", f"sqlite:///{folder}/mlflow.db"]
    said = folder / "output"
    with said.open("w") as output:
        process = own_mounts(
            "sh", "-c", MOUNTED, "sh", folder, *study,
            stdout=output, stderr=output, cwd=folder, env={**os.environ, "QUARTERTURN_CHECKPOINT_S": "1"},
        )  # fmt: skip

    def wait_until(holds):
        deadline = time.monotonic() + 120
        while not holds():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.2)

    disk = Path(f"/proc/{process.pid}/root{folder}/disk")  # as the study sees it
    wait_until((folder / "other").exists)
    fill_up(disk)
    wait_until(lambda: "waiting for space" in said.read_text())
    (disk / "fill").unlink()
    wait_until(lambda: "4 of 4 trials are done" in said.read_text())
    assert process.wait(timeout=60) == 0, said.read_text()
    text = said.read_text()
    assert text.count("waiting for space") == 1
    assert "Traceback" not in text
    assert "crashed: " not in text
    assert "failed" not in text
    assert Store(str(folder / "disk" / "results")).finished() == set()  # this process never saw that disk
