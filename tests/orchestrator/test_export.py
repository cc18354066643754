"""A result as a file for other programs."""

import os
import subprocess
import sys

import pytest
from toy import Count, Squares

from orchestrator.export import export
from orchestrator.plan import Trial
from orchestrator.store import Store
from orchestrator.trial import Payload, run_trial
from trainables.api.identity import FileDigests, key_of


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


def test_the_command_writes_what_the_class_exports_of_the_trial_that_is_named(store, tmp_path):
    store, (first, second, _) = store
    for key, total in [(first[:8], 6), (second, 10)]:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", "export", key, "--storage", store.uri, "--out", "sum.txt"],
            capture_output=True, text=True, timeout=60, cwd=tmp_path, env=dict(os.environ),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "sum.txt").read_text() == f"sum = {total}"
        assert "open('sum.txt') holds the sum" in done.stdout
        assert key[:8] in done.stdout


def test_what_cannot_be_exported_is_said(store, tmp_path):
    store, (first, _, squares) = store
    with pytest.raises(ValueError, match=r"no trial begins so in .*results; .*status"):
        export("nope", tmp_path / "x", store.uri)
    with pytest.raises(ValueError, match=f"3 finished trials of .* begin so: .*{first}"):
        export("", tmp_path / "x", store.uri)
    with pytest.raises(ValueError, match="a Squares has nothing to export"):
        export(squares, tmp_path / "x", store.uri)
    store.remove(f"trials/{first}/result.json")
    with pytest.raises(ValueError, match="that trial is not done"):
        export(first, tmp_path / "x", store.uri)


def test_a_storage_cannot_name_what_is_called(store, tmp_path):
    """The documents of a storage that somebody gave us choose among trainables, not among all functions of Python."""
    store, (first, *_) = store
    path = f"trials/{first}/trial.json"
    wrong = [
        ("os", "rename"),
        ("no_such_module", "Count"),
        ("", "Count"),
        ("toy", "nothing"),
        ("toy_exporter", "Impostor"),
    ]
    for module, name in wrong:
        document = {**store.read_document(path), "module": module, "class": name, "exporter": "os:rename"}
        store.write_document(path, document)
        with pytest.raises(ValueError, match=f"trial {first}"):
            export(first, tmp_path / "x", store.uri)
    assert not (tmp_path / "x").exists()
