"""A result as a file for other programs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy import Count, Squares

import orchestrator.export
from orchestrator.attempt import Payload
from orchestrator.export import export
from orchestrator.graph import Trial, trials_of
from orchestrator.inputs import record_digests
from orchestrator.store import Store
from orchestrator.study import Study
from orchestrator.trial import run_trial
from trainables.api.identity import FileDigests, Keys, key_of


@pytest.fixture
def store(tmp_path, quick_settings):
    """A storage with the results of three trials, and their keys."""
    store = Store(str(tmp_path / "results"))
    keys = []
    (tmp_path / "log").touch()
    for trainable in [Count(3, 2), Count(2, 5), Squares(2, log_path=tmp_path / "log")]:
        key = key_of(trainable, FileDigests())
        run_trial(Payload(Trial(key, "t", trainable, ()), quick_settings(store)))
        keys.append(key)
    return store, keys


def exported(key, out, store, folder):
    """The command, as it ended."""
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", "export", key, "--storage", store.uri, "--out", out],
        capture_output=True, text=True, timeout=60, cwd=folder, env=dict(os.environ),
    )  # fmt: skip


@pytest.fixture
def toys_are_ours(monkeypatch):
    """As if the toy trainables lay among the project's."""
    monkeypatch.setattr(orchestrator.export, "_PACKAGES", ("trainables", "toy", "toy_exporter"))


def test_what_the_class_exports_of_the_trial_that_is_named_is_written(store, tmp_path, toys_are_ours, capsys):
    store, (first, second, _) = store
    for key, total in [(first[:8], 6), (second, 10)]:
        assert export(key, tmp_path / "sum.txt", store.uri) == 0
        assert (tmp_path / "sum.txt").read_text() == f"sum = {total}"
        said = capsys.readouterr().out
        assert "open('sum.txt') holds the sum" in said
        assert key[:8] in said


def test_a_pretraining_in_a_store_becomes_an_encoder_of_torchvision(tmp_path, quick_settings, monkeypatch):
    """A real result, from the command line: a strict load gives the features of the published encoder."""
    import torch
    import torchvision
    from safetensors.torch import load_file

    from trainables.models.encoder import load_encoder
    from trainables.ssl.moco import MoCo

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "trainables"))
    from tiny_shapes import TinyShapes

    data = TinyShapes(num_train=12, num_val=4)
    moco = MoCo(data, backbone="resnet18", num_epochs=1, batch_size=4, queue_size=8, embedding_dim=16)
    store = Store(str(tmp_path / "results"))
    keys = Keys(FileDigests())
    (trial,) = trials_of(Study("s", "?", {"pretraining": moco}), keys)
    record_digests(trial.parts, store, keys)
    run_trial(Payload(trial, quick_settings(store)))
    assert store.failure(trial.key) is None
    done = exported(trial.key[:12], "encoder.safetensors", store, tmp_path)
    assert done.returncode == 0, done.stderr
    code = done.stdout[done.stdout.index("import ") :]
    said = subprocess.run([sys.executable, "-c", f"{code}\nprint(network.fc)"], cwd=tmp_path, capture_output=True)
    assert said.stdout == b"Identity()\n", said.stderr
    encoder = load_encoder(store.fetch(trial.key, tmp_path) / "encoder.pt").eval()
    network = torchvision.models.resnet18()
    network.fc = torch.nn.Identity()
    network.load_state_dict(load_file(tmp_path / "encoder.safetensors"), strict=True)
    images_BCHW = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    standardised_BCHW = ((images_BCHW - encoder.mean) / encoder.std).expand(-1, 3, -1, -1)
    with torch.inference_mode():
        features_BD = network.eval()(standardised_BCHW)
        torch.testing.assert_close(features_BD, encoder.features(images_BCHW), atol=1e-5, rtol=1e-3)


def test_what_cannot_be_exported_is_said(store, tmp_path, toys_are_ours):
    store, (first, _, squares) = store
    with pytest.raises(ValueError, match=r"no trial begins so in .*results; .*status"):
        export("nope", tmp_path / "x", store.uri)
    with pytest.raises(ValueError, match=f"3 finished trials of .* begin so: .*{first}"):
        export("", tmp_path / "x", store.uri)
    with pytest.raises(ValueError, match="a Squares has nothing to export"):
        export(squares, tmp_path / "x", store.uri)
    store.remove(f"results/{first}.json")
    with pytest.raises(ValueError, match="that trial is not done"):
        export(first, tmp_path / "x", store.uri)


def test_a_storage_cannot_name_what_is_called(store, tmp_path, toys_are_ours):
    """The documents of a storage that somebody gave us choose among trainables, not among all functions of Python."""
    store, (first, *_) = store
    path = f"trials/{first}/trial.json"
    wrong = [
        ("os", "rename"),
        ("no_such_module", "Count"),
        ("", "Count"),
        ("toy", "nothing"),
        ("toy_exporter", "Impostor"),
        ("trainables.no_such_module", "Count"),
        ("trainables.runtime", "use_cores"),
    ]
    for module, name in wrong:
        document = {**store.read_document(path), "module": module, "class": name, "exporter": "os:rename"}
        store.write_document(path, document)
        with pytest.raises(ValueError, match=f"trial {first}"):
            export(first, tmp_path / "x", store.uri)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("module", ["planted", "trainables_of_mine", "trainables/../planted", ".planted", "os.path"])
def test_no_module_but_our_own_is_imported(store, tmp_path, monkeypatch, module):
    """What lies on the path is not run because a storage names it."""
    store, (first, *_) = store
    for name in ("planted", "trainables_of_mine"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w')\nCount = None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = f"trials/{first}/trial.json"
    store.write_document(path, {**store.read_document(path), "module": module})
    with pytest.raises(ValueError, match=f"trial {first}: .* nothing is loaded|not among the code here"):
        export(first, tmp_path / "x", store.uri)
    assert not (tmp_path / "was run").exists()
