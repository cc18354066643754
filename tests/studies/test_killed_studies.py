"""Studies as their user runs them, killed with SIGKILL and submitted again: every published byte is the same. Slow."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.store import Store

STUDIES = Path(__file__).parents[2] / "studies"
pytestmark = pytest.mark.slow


def command(study, folder, flags):
    places = ["--storage", str(folder / "results"), "--cache-dir", str(folder / "cache")]
    return [sys.executable, str(STUDIES / f"{study}.py"), "--scale", "smoke", *places, *flags]


def results(folder):
    """What is published: key -> digests of the files, and the numbers."""
    store = Store(str(folder / "results"))
    found = {key: store.result(key) for key in store.finished()}
    return {key: (result.files, result.metrics) for key, result in found.items()}


def kill_when(process, folder, num_results):
    """SIGKILL to the driver once so many trials are finished; how many are then."""
    while process.poll() is None and len(results(folder)) < num_results:
        time.sleep(0.1)
    process.kill()
    process.wait()
    return len(results(folder))


@pytest.mark.parametrize(
    ("study", "flags"),
    [
        ("rotation_period", ("--pretrain-seeds", "2")),
        ("tracin_checkpoints", ()),
        # One point after the other, so that a search tries the same ones whenever it is killed.
        ("positive_search", ("--lag", "1")),
    ],
)
def test_killed_and_resumed_equals_undisturbed(study, flags, tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    for folder in (undisturbed, disturbed):
        folder.mkdir()
    whole = subprocess.run(command(study, undisturbed, flags), capture_output=True, text=True, timeout=600)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    wanted = results(undisturbed)
    at_kills = []
    for share in (0.1, 0.4, 0.7):
        with (disturbed / "output").open("a") as output:
            process = subprocess.Popen(command(study, disturbed, flags), stdout=output, stderr=output)
        at_kills.append(kill_when(process, disturbed, max(1, int(share * len(wanted)))))
    assert at_kills[1] < len(wanted), f"two kills came too late to disturb anything: {at_kills} of {len(wanted)} trials"
    done = subprocess.run(command(study, disturbed, flags), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(disturbed) == wanted
    assert list((disturbed / "results/reports" / study).rglob("report.html"))
