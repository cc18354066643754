"""Every study at scale smoke as the README's user of a cluster runs it: through `ray job submit`, with a token."""

import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.store import Store

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
JOBS_PORT = 8299
FLAGS = {
    "hog_svm": ["--without-curves"],
    "byol_positives": ["--finetune-seeds", "1", "--label-fractions", "1"],
    "transfer": ["--finetune-seeds", "1", "--ways", "byol", "tracin_pretrained"],
    "label_fractions": ["--finetune-seeds", "1", "--ways", "random", "byol"],
    "tracin_checkpoints": ["--without-training"],
    "positive_search": ["--num-suggestions", "2"],
    "augmentation_sweeps": [],
    "pretraining_search": ["--num-suggestions", "2"],
}
STUDIES = sorted(path.stem for path in (ROOT / "studies").glob("*.py") if '__name__ == "__main__"' in path.read_text())
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """A head node of two CPUs that takes jobs; the environment of its clients."""
    folder = tmp_path_factory.mktemp("head")
    start = f"start --head --block --num-cpus=2 --port=6398 --dashboard-host=127.0.0.1 --dashboard-port={JOBS_PORT}"
    start += " --dashboard-agent-listen-port=52398 --ray-client-server-port=9398"
    token = folder / "auth_token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    without = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    environment = without | {"RAY_ADDRESS": f"http://127.0.0.1:{JOBS_PORT}"}
    with (folder / "log").open("w") as log:
        head = subprocess.Popen([RAY, *start.split()], env=without, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 90
        while subprocess.run([RAY, "job", "list"], env=environment, capture_output=True).returncode != 0:
            assert head.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(1)
        yield environment
    finally:
        head.terminate()
        head.wait(timeout=60)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs_as_a_job_to_its_page(jobs, tmp_path, name):
    places = ["--storage", str(tmp_path / "results"), "--cache-dir", str(tmp_path / "cache")]
    study = [sys.executable, str(ROOT / "studies" / f"{name}.py"), "--scale", "smoke", "--pretrain-seeds", "1"]
    command = [RAY, "job", "submit", "--", *study, *FLAGS.get(name, []), *places]
    done = subprocess.run(command, env=jobs, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
    (page, *_) = re.findall(r"\S+/report\.html", done.stdout)
    html = Path(page).read_text()
    assert 'class="gap"' not in html, "nothing is missing"
    store = Store(str(tmp_path / "results"))
    (manifest,) = store.manifests()
    wanted = {entry["key"] for entry in manifest["trials"]}
    assert wanted <= set(store.finished())
    assert len(wanted) >= 2


def test_who_has_no_token_submits_nothing(jobs):
    stranger = jobs | {"RAY_AUTH_MODE": "disabled"}
    refused = subprocess.run([RAY, "job", "submit", "--", "true"], env=stranger, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "Unauthorized" in refused.stdout + refused.stderr
