"""What a fresh machine relies on: packages, lock, Makefile, and a repository without large files."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import nibabel
import numpy as np
import pytest
from in_halves import halves
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from analysis.paper import EXHIBITS
from trainables.data.datasets import lookup
from trainables.data.mni152 import FILES, packaged_folder

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAX_FILE_BYTES = 1_000_000
TARGETS = ["help", "setup", "demo", "paper", "test", "test-slow", "check", "check-gpu", "bench", "clean"]
# Stands for python3.11 and for .venv/bin/python: notes what it is asked, and fails to install while ./broken exists.
STAND_IN = """#!/bin/bash
echo "$1 $2 $3" >> calls
if [ "$1" = -c ] && [ -e old ] && [[ "$2" = *version_info* ]]; then exit 1; fi
if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
if [ "$2" = pip ] && [ -e broken ]; then exit 1; fi
"""


@pytest.fixture(scope="module")
def pins():
    """{name: version} of the lock."""
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in requirements}


def declared_requirements():
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(line) for line in [*project["dependencies"], *(line for lines in extras for line in lines)]]


def tracked_files(*patterns):
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    lines = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [Path(line) for line in lines if (ROOT / line).exists()]


def make(*arguments, folder=ROOT):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_every_folder_with_code_is_installed():
    folders = {path.parent for path in tracked_files("*.py") if path.parts[0] not in ("tests", "benchmarks")}
    assert {".".join(folder.parts) for folder in folders} == set(PROJECT["tool"]["setuptools"]["packages"])


def test_the_lock_keeps_to_the_declared_versions(pins):
    wrong = [
        f"{requirement} but locked at {pins.get(canonicalize_name(requirement.name))}"
        for requirement in [*declared_requirements(), *map(Requirement, PROJECT["build-system"]["requires"])]
        if not requirement.specifier.contains(pins.get(canonicalize_name(requirement.name), "0"))
    ]
    assert wrong == []


def test_the_lock_pins_everything_that_is_needed_down_to_the_last_dependency(pins):
    waiting = [(requirement, "pyproject.toml") for requirement in declared_requirements()]
    seen, unpinned = set(), []
    while waiting:
        requirement, wanted_by = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extras := frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, extras))
        if name not in pins:
            unpinned.append(f"{requirement} (needed by {wanted_by})")
            continue
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras | {""}):
                waiting.append((needed, name))
    assert unpinned == []


def test_the_lock_names_no_place_but_packages(pins):
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if "://" in line or " @ " in line or line.startswith("-")] == []
    assert all(version and version[0].isdigit() for version in pins.values()), "each line is name==version"


def test_no_large_file_is_tracked():
    large = [str(path) for path in tracked_files() if (ROOT / path).stat().st_size > MAX_FILE_BYTES]
    assert large == []


def test_the_targets_exist_and_help_names_them():
    assert [line.split()[0] for line in make("help").stdout.split("\n\n")[0].splitlines()] == TARGETS
    for target in TARGETS:
        dry_run = make("--dry-run", target)
        assert dry_run.returncode == 0, dry_run.stderr


def test_the_paper_runs_every_study_that_has_an_exhibit_and_draws_what_they_computed(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/.installed").touch()
    python = tmp_path / ".venv/bin/python"
    python.write_text('#!/bin/bash\nfor word in "$@"; do printf "<%s>" "$word"; done >> calls; echo >> calls\n')
    python.chmod(0o755)

    def calls(*given):
        (tmp_path / "calls").unlink(missing_ok=True)
        assert make("paper", *given, folder=tmp_path).returncode == 0
        return [re.findall("<(.*?)>", line) for line in (tmp_path / "calls").read_text().splitlines()]

    small, last = calls("STORAGE=my results")[:-1], calls("STORAGE=my results")[-1]
    assert {Path(script).stem for script, *_ in small} == {exhibit.study for exhibit in EXHIBITS if exhibit.command}
    alone = ["--without-training"]
    for script, *words in small:  # scale laptop, on packaged images
        assert words == ["--storage", "my results", *(alone if "checkpoints" in script else [])]
    assert last == ["-m", "analysis", "paper", "--storage", "my results"]
    whole = calls("DATA=/my data", "PRETRAINED=moco.pth.tar", "STORAGE=here")[:-1]
    for script, *words in whole:
        of_thesis = Path(script).stem not in ("byol_positives", "transfer", "tracin_checkpoints")
        sets = ["brats"] if "segmentation" in script else ["brats", "lung_mask", "kvasir"]
        if not of_thesis:
            sets = ["isic2019"] if "checkpoints" in script else ["isic2019", "chestxray14"]
        assert words == [
            "--scale", "full", "--data-root", "/my data", "--datasets", *sets, "--storage", "here",
            *(["--pretrained", "moco.pth.tar"] if of_thesis else alone if "checkpoints" in script else []),
        ]  # fmt: skip
    one, other = (calls(f"WORKS={work}")[:-1] for work in ("thesis", "byol_tracin"))
    assert (len(one), len(other)) == (5, 3)
    assert one + other == calls()[:-1]
    # What the page tells to run for a missing exhibit is what is run here.
    named = {Path(e.command.split()[1]).stem for e in EXHIBITS if e.command}
    assert named == {Path(script).stem for script, *_ in whole}


def test_ci_checks_and_tests_on_its_own():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert [line for line in script.read_text().splitlines() if line.startswith("make ")] == ["make check", "make test"]


def test_an_interrupted_installation_does_not_count_and_a_whole_one_is_kept(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)

    said = []

    def setup():
        (tmp_path / "calls").write_text("")
        answer = make("setup", "PYTHON=./python", folder=tmp_path)
        said.append([line for line in answer.stderr.splitlines() if not line.startswith("make: ***")])
        return answer.returncode == 0, [
            call for call in (tmp_path / "calls").read_text().splitlines() if call.startswith("-m")
        ]

    (tmp_path / "broken").touch()
    assert setup() == (False, ["-m venv .venv", "-m pip install"])
    (tmp_path / "broken").unlink()
    assert setup() == (True, ["-m venv .venv", "-m pip install", "-m pip install"]), "starts over"
    assert setup() == (True, []), "nothing left to do"
    later = (tmp_path / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(tmp_path / "requirements.lock", (later, later))
    assert setup() == (True, ["-m pip install", "-m pip install"]), "a new lock is installed into the same environment"
    (failed,), (starts_over,) = said[:2]
    assert "did not finish (" in failed
    assert "are free here, it takes about 7 GB). Once the cause above is gone, the same command starts over." in failed
    assert starts_over == "make: the last installation was interrupted; this one starts over"


def test_an_interpreter_that_is_too_old_is_named_before_anything_is_made(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "old").touch()
    answer = make("setup", "PYTHON=./python", folder=tmp_path)
    assert answer.returncode != 0
    assert "'./python' is older than Python 3.11, or lacks venv" in answer.stderr
    assert not (tmp_path / ".venv").exists()


def test_an_absent_interpreter_is_named(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    answer = make("setup", "PYTHON=python0.0", folder=tmp_path)
    assert answer.returncode != 0
    assert "'python0.0' was not found" in answer.stderr


def test_the_readmes_own_images_can_be_written_as_it_says(tmp_path):
    """The lines that a reader copies make a folder that is a data set."""
    (lines,) = re.findall(r"```python\n(from pathlib.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    source = lookup(f"folder:{tmp_path / 'my_images'}", 32, None)
    assert source.images.card().counts == {"train": 27, "val": 7}
    assert list(source.regions) == ["mask"]
    assert len(source.region.records()) == 34
    probability = nibabel.load(packaged_folder() / FILES["grey_matter"]).get_fdata()
    mask = np.asarray(Image.open(tmp_path / "my_images" / "masks" / "slice_100.png"))
    np.testing.assert_array_equal(mask > 0, probability[:, :, 100].T[::-1] / probability.max() >= 0.5)


def test_every_file_of_tests_is_in_one_of_the_halves():
    tests = ROOT / "tests"
    with_ray, others = halves()
    named = [Path(path) for path in (*with_ray, *others)]
    assert len(set(named)) == len(named)
    assert set(named) == set(tests.rglob("test_*.py"))
    first, second = ({Path(path).name for path in half} for half in (with_ray, others))
    assert first >= {"test_launch.py", "test_cli.py", "test_rotation_period.py", "test_ray_cluster.py"}
    assert second >= {"test_wave.py", "test_moco_workers.py", "test_tracking.py", "test_recipes.py"}


def test_no_two_files_of_tests_have_one_name():
    """pytest would import the first for both."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
