"""Everything that a storage holds is read against its digests."""

import json
from pathlib import Path

import pytest
from stored import filled

from orchestrator.documents import sealed
from orchestrator.store import Store
from orchestrator.verify import verify


@pytest.fixture
def store(tmp_path, quick_settings):
    return filled(Store(str(tmp_path / "results")), quick_settings, tmp_path)[0]


def contents(store):
    return {
        path.relative_to(store.uri).as_posix(): path.read_bytes()
        for path in Path(store.uri).rglob("*")
        if path.is_file()
    }


def verified(store, capsys):
    """Exit status, damaged paths, and what was read."""
    capsys.readouterr()
    code = verify(store.uri, as_json=True)
    said = json.loads(capsys.readouterr().out)
    return code, {finding["path"] for finding in said["findings"] if finding["is_damage"]}, said["read"]


def test_a_flipped_byte_is_named_wherever_it_is_and_nothing_is_changed(store, capsys):
    before = contents(store)
    code, damaged, read = verified(store, capsys)
    assert (code, damaged) == (0, set())
    assert read["results"] == 3
    assert min(read[kind] for kind in ("files", "journal segments", "resumable states", "manifests", "documents")) > 0
    kinds = {path.split("/")[2 if path.startswith("trials/") else 0] for path in before}
    assert {"published", "state", "journal", "trial.json", "progress", "checkpoints", "items", "failure.json"} < kinds
    for path, content in before.items():
        if not content:
            continue
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 0x80]) + content[middle + 1 :]
        Path(store.uri, path).write_bytes(flipped)
        assert verified(store, capsys)[:2] == (1, {path})
        assert contents(store) == before | {path: flipped}
        Path(store.uri, path).write_bytes(content)


def test_what_is_missing_or_of_another_trial_is_named(store, capsys):
    before = contents(store)
    results = sorted(path for path in before if path.startswith("results/"))
    Path(store.uri, results[0]).write_bytes(before[results[1]])
    assert verified(store, capsys)[:2] == (1, {results[0]})
    Path(store.uri, results[0]).write_bytes(before[results[0]])
    missing = next(path for path in before if "/published/" in path or "/journal/" in path)
    Path(store.uri, missing).unlink()
    assert verified(store, capsys)[:2] == (1, {missing})


def test_findings_are_said_in_a_line_each_with_what_to_do(store, capsys):
    before = contents(store)
    path = next(path for path in before if path.endswith("sum.txt"))
    Path(store.uri, path).write_bytes(b"9" * len(before[path]))
    assert verify(store.uri) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{store.uri}/{path}: expected the {len(before[path])} bytes with the SHA-256 ")
    key = path.split("/")[1]
    assert f"; remove {store.uri}/results/{key}.json and submit its study again" in first
    assert last.startswith("read ")
    assert last.endswith("1 damaged")


def test_what_a_killed_process_left_is_no_damage(store, capsys):
    store.write_document("families/f/3.json", {"key": "0123"})
    assert verified(store, capsys)[:2] == (0, set())
    assert verify(store.uri) == 0
    assert "families/f/3.json: expected a result of trial 0123" in capsys.readouterr().out


def test_a_result_of_a_newer_version_and_word_of_damage_are_named(store, capsys):
    first, second = sorted(store.finished())[:2]
    document = store.read_document(f"results/{first}.json")
    del document["digest"]
    store.write_document(f"results/{first}.json", sealed(document | {"metrics": []}))
    store.report_damage(second, store.result(second).token, "it looks bad")
    assert verified(store, capsys)[:2] == (1, {f"results/{first}.json", f"results/{second}.json"})
    verify(store.uri)
    said = capsys.readouterr().out
    assert "update the code" in said
    assert "it looks bad" in said


def test_where_nothing_is_there_is_nothing_to_verify(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no study"):
        verify(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
