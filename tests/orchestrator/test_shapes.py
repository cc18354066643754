"""A document of any other shape gives no command a traceback."""

import contextlib
import json
import re
from pathlib import Path

import pytest
from stored import filled

from orchestrator import commands
from orchestrator.export import export
from orchestrator.options import StudyOptions
from orchestrator.store import Store
from orchestrator.submission import submit
from orchestrator.usage import UsageError
from orchestrator.verify import verify

OTHERS = [[1], "x", {}, None]


@pytest.fixture
def store(tmp_path, quick_settings):
    return filled(Store(str(tmp_path / "results")), quick_settings, tmp_path)


def in_one_line(command):
    """Run a command; what a user gets for an error of these kinds is one line."""
    with contextlib.suppress(UsageError, ValueError, OSError):
        command()


def documents(store):
    """One of each kind."""
    paths = [path for path in store._sizes("") if path.endswith(".json")]
    return list({re.sub(r"[0-9a-f-]{5,}", "", path): path for path in paths}.values())


def test_no_command_has_a_traceback_for_a_document_of_another_shape(store, tmp_path, capsys):
    store, study = store
    options = StudyOptions(storage=store.uri, cache_dir=tmp_path / "cache", plan=True)
    key = next(path.split("/")[1] for path in documents(store) if path.endswith("/trial.json"))
    assert len(documents(store)) >= 11
    calls = [
        lambda: commands.status(store.uri),
        lambda: commands.status(store.uri, as_json=True),
        lambda: commands.gc(store.uri),
        lambda: commands.gc(store.uri, latest_only=True, cache_dir=tmp_path / "cache"),
        lambda: submit(options, lambda: study),
        lambda: export(key, tmp_path / "out", store.uri),
    ]
    for path in documents(store):
        content = Path(store.uri, path).read_bytes()
        for document in OTHERS:
            store.write_document(path, document)
            for call in calls:
                in_one_line(call)
            capsys.readouterr()
            verify(store.uri)
            is_named = f"{path}: expected" in capsys.readouterr().out
            # An MLflow that nothing is known of has no other document than this.
            assert is_named or ("/publishers/" in path and document == {}), (path, document)
        Path(store.uri, path).write_bytes(content)
    assert verify(store.uri) == 0


FIELDS = [{"trials": [{}]}, {"trials": [[1]]}, {"trials": [], "search": {"suggestions": [], "num_suggestions": 3}}, {}]


@pytest.mark.parametrize("fields", FIELDS, ids=json.dumps)
def test_no_command_has_a_traceback_for_a_manifest_with_little_in_it(tmp_path, fields, capsys):
    store = Store(str(tmp_path))
    store.write_document("studies/s/a.json", {"trials": [], "submitted_at": 1.0, "study": "s", **fields})
    for call in (commands.status, commands.gc, verify):
        in_one_line(lambda call=call: call(store.uri))
    is_one = list(store.manifests())
    said = capsys.readouterr()
    assert is_one or re.search(r"a\.json is garbled", said.err)


@pytest.mark.slow
def test_sync_has_no_traceback_for_a_document_of_another_shape(store, database, capsys):
    store, _ = store
    for path in documents(store):
        content = Path(store.uri, path).read_bytes()
        for document in OTHERS:
            store.write_document(path, document)
            in_one_line(lambda: commands.sync(store.uri, database))
        Path(store.uri, path).write_bytes(content)
    assert commands.sync(store.uri, database) == 0
    capsys.readouterr()
