"""A result is there whole or not at all, on a file system and on an object store."""

import threading
import uuid
from pathlib import Path

import pytest

from orchestrator.store import DamagedResult, Generation, Result, Store


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    # fsspec's in-memory file system stands in for an object store: no rename, no links, whole puts.
    return Store(str(tmp_path / "results") if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def publish(store, tmp_path, key="k1", text="content"):
    folder = tmp_path / f"out-{key}"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.txt").write_text(text)
    (folder / "b.txt").write_text(text * 2)
    files = store.upload(folder, f"trials/{key}/files")
    segments = [store.write_segment(key, "001-00001", [["loss", 0, 1.5, 1000]])]
    result = Result(key, {"m": 1.5}, files, segments, 1.0, 2.0, 1.0, 1, 5.0, {"code_version": "x"})
    store.publish(result)
    return result


def overwrite(store, path, content):
    store._fs.pipe_file(store._at(path), content)


def test_a_published_result_comes_back_whole(store, tmp_path):
    result = publish(store, tmp_path)
    assert store.result("k1") == result
    folder = store.fetch("k1", tmp_path / "cache")
    assert (folder / "sub" / "a.txt").read_text() == "content"
    assert (folder / "b.txt").read_text() == "content" * 2


def test_files_without_their_document_are_no_result(store, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("half")
    store.upload(tmp_path / "out", "trials/k1/files")
    assert store.result("k1") is None
    with pytest.raises(DamagedResult, match="k1"):
        store.fetch("k1", tmp_path / "cache")


def test_publishing_removes_what_was_needed_only_to_resume(store, tmp_path):
    store.write_generations("k1", [Generation(fraction=0.5)])
    publish(store, tmp_path)
    assert store.generations("k1") == []


@pytest.mark.parametrize("damage", ["shorter", "missing"])
def test_a_truncated_or_missing_file_sets_the_result_aside(store, tmp_path, damage, capsys):
    publish(store, tmp_path)
    if damage == "shorter":
        overwrite(store, "trials/k1/files/b.txt", b"cont")
    else:
        store.remove("trials/k1/files/b.txt")
    assert store.result("k1") is None
    assert "k1" in capsys.readouterr().err
    assert any(name.startswith("result.json.") for name in store.names("trials/k1"))


def test_a_changed_file_of_the_same_size_is_found_by_its_digest(store, tmp_path):
    publish(store, tmp_path)
    overwrite(store, "trials/k1/files/b.txt", b"X" * 14)
    with pytest.raises(DamagedResult, match=r"b\.txt"):
        store.fetch("k1", tmp_path / "cache")
    assert store.result("k1") is None


def test_a_garbled_result_document_counts_as_absent(store, tmp_path):
    publish(store, tmp_path)
    overwrite(store, "trials/k1/result.json", b'{"key": "k1"')
    assert store.result("k1") is None
    overwrite(store, "trials/k1/result.json", b'{"files": {}}')
    assert store.result("k1") is None


def test_garbled_progress_counts_as_none(store):
    store.write_generations("k1", [Generation(fraction=0.5)])
    assert [g.fraction for g in store.generations("k1")] == [0.5]
    overwrite(store, "trials/k1/progress.json", b'[{"checkpoint": 1')
    assert store.generations("k1") == []
    overwrite(store, "trials/k1/progress.json", b'[{"unknown": 1}]')
    assert store.generations("k1") == []


def test_publish_refuses_when_files_did_not_arrive(store, tmp_path):
    result = publish(store, tmp_path)
    store.remove("trials/k1/result.json")
    store.remove("trials/k1/files/b.txt")
    with pytest.raises(OSError, match="disk full"):
        store.publish(result)
    assert store.result("k1") is None


def test_of_many_creators_exactly_one_succeeds(tmp_path):
    store = Store(str(tmp_path))
    won = []

    def create(number):
        if store.create_document("claim.json", {"by": number}):
            won.append(number)

    threads = [threading.Thread(target=create, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read_document("claim.json") == {"by": won[0]}
    assert [p.name for p in Path(tmp_path).iterdir()] == ["claim.json"]


def test_an_unknown_protocol_is_named():
    with pytest.raises(ValueError, match="nonsense://x"):
        Store("nonsense://x")
