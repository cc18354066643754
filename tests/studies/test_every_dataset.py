"""The rotation study on every data set, from its layout on disk to its page, in one submission at scale smoke."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.render.files import file_name
from orchestrator.store import Store
from trainables.data.brats import write_brats
from trainables.data.folder import write_folder
from trainables.data.folder_volumes import write_volumes
from trainables.data.kvasir import write_kvasir
from trainables.data.lung_mask import write_lung_mask

STUDY = Path(__file__).parents[2] / "studies" / "rotation_period.py"


def submit(folder, *flags):
    places = ["--storage", str(folder / "results"), "--cache-dir", str(folder / "cache"), "--pretrain-seeds", "1"]
    return subprocess.run(
        [sys.executable, str(STUDY), "--scale", "smoke", *places, *flags], capture_output=True, text=True, timeout=400
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished study of five data sets; one mask of the user's own images cannot be read."""
    folder = tmp_path_factory.mktemp("every data set")
    write_brats(folder / "data", 5, modalities=["flair"], suffix=".nii")
    write_kvasir(folder / "data" / "Kvasir-SEG", 8)
    write_lung_mask(folder / "data", {"train": 6, "val": 2, "test": 2})
    write_folder(folder / "my images", 10)
    write_volumes(folder / "volumes", 4)
    (folder / "my images" / "masks" / "picture 5.png").write_bytes(b"")
    own = [f"folder:{folder / 'my images'}", f"folder:{folder / 'volumes'}"]
    flags = ["--datasets", "brats", "kvasir", "lung_mask", *own, "--data-root", str(folder / "data")]
    return folder, flags, submit(folder, *flags, "--skip-bad-files")


def test_every_data_set_runs_from_its_layout_to_its_page(finished):
    folder, _, done = finished
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted((folder / "results" / "reports" / "rotation_period").glob("*/report.html"))
    own = file_name("folder-my images", "mask")
    assert own.startswith("folder-my_images-mask-")
    names = ["brats-tumour", own, "folder-volumes-mask", "kvasir-polyp", "lung_mask-lungs"]
    assert [page.parent.name for page in pages] == names
    manifest = next(Store(str(folder / "results")).manifests())
    counts = {name: card["counts"] for name, card in manifest["cards"].items()}
    assert counts["brats"] == {"train": 3, "val": 2}
    assert counts["lung_mask"] == {"train": 6, "val": 2, "test": 2}
    assert sum(counts["folder-my images"].values()) == 10, "a bad mask takes no image from the pretraining"
    assert "left out: mask of picture 5: " in done.stderr


def test_without_being_asked_to_skip_it_a_bad_file_is_named_before_anything_runs(finished):
    folder, flags, _ = finished
    done = submit(folder, *flags[:4], flags[4], *flags[6:])
    assert done.returncode == 2
    assert "masks/picture 5.png" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_more_epochs_go_on_from_what_is_there(finished):
    folder, _, _ = finished
    kvasir = ["--datasets", "kvasir", "--data-root", str(folder / "data"), "--num-epochs", "3"]
    plan = json.loads(submit(folder, *kvasir, "--plan", "--json").stdout)
    (moco,) = [trial for trial in plan["trials"] if trial["class"] == "MoCo"]
    assert (moco["state"], moco["continues"]["length"]) == ("new", 1)
    curves = [trial for trial in plan["trials"] if trial["class"] == "InterpretabilityCurve"]
    states = {trial["name"].rpartition(" · ")[2]: trial["state"] for trial in curves}
    assert states == {
        "trained, seed 0": "new", "fixed map": "new", "untrained, seed 0": "done", "mask": "done", "intensity": "done",
    }  # fmt: skip
    assert submit(folder, *kvasir).returncode == 0
    store = Store(str(folder / "results"))
    result = store.result(moco["key"])
    assert result.continued_from is not None
    epochs = [step for name, step, *_ in store.rows(result) if name == "train/loss"]
    assert epochs == [1, 2, 3]
