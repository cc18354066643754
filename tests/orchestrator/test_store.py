"""A result is there whole or not at all, on a file system and on an object store."""

import dataclasses
import os
import re
import threading
import uuid
from pathlib import Path

import pytest

from orchestrator.claims import is_held
from orchestrator.publishing import Known, known_of, publisher
from orchestrator.snapshot import report_files
from orchestrator.store import DamagedResult, Failure, FileEntry, Generation, Result, Store


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    # fsspec's in-memory file system stands in for an object store: no rename, no links, whole puts.
    return Store(str(tmp_path / "results") if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def publish(store, tmp_path, key="k1", text="content"):
    folder = tmp_path / f"out-{key}"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.txt").write_text(text)
    (folder / "b.txt").write_text(text * 2)
    files = store.upload(folder, f"trials/{key}/published/t")
    segments = [store.write_segment(key, "001-00001", [["loss", 0, 1.5, 1000]])]
    result = Result(key, {"m": 1.5}, files, segments, 1.0, 2.0, 1.0, 1, 5.0, {"code_version": "x"}, "t")
    assert store.publish(result)
    return result


def overwrite(store, path, content):
    store.write_bytes(path, content)


def test_a_published_result_comes_back_whole(store, tmp_path):
    result = publish(store, tmp_path)
    assert store.result("k1") == result
    folder = store.fetch("k1", tmp_path / "cache")
    assert (folder / "sub" / "a.txt").read_text() == "content"
    assert (folder / "b.txt").read_text() == "content" * 2


def test_files_without_their_document_are_no_result(store, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("half")
    store.upload(tmp_path / "out", "trials/k1/published/t")
    assert store.result("k1") is None
    with pytest.raises(DamagedResult, match="k1"):
        store.fetch("k1", tmp_path / "cache")


def test_publishing_removes_what_was_needed_only_to_resume(store, tmp_path):
    store.write_generations("k1", [Generation("1", fraction=0.5)])
    publish(store, tmp_path)
    assert store.generations("k1") == []


@pytest.mark.parametrize("damage", ["shorter", "missing"])
def test_a_reader_reports_a_truncated_or_missing_file_and_changes_nothing(store, tmp_path, damage):
    publish(store, tmp_path)
    if damage == "shorter":
        overwrite(store, "trials/k1/published/t/b.txt", b"cont")
    else:
        store.remove("trials/k1/published/t/b.txt")
    before = store.names(""), store.names("trials/k1"), store.names("results")
    assert store.result("k1") is None
    assert "b.txt is missing or not whole" in store.look("k1").damage
    assert (store.names(""), store.names("trials/k1"), store.names("results")) == before
    assert store.finished() == {"k1"}


def test_who_holds_the_claim_sets_a_damaged_result_aside(store, tmp_path, capsys):
    result = publish(store, tmp_path)
    store.settle_damage("k1")
    assert store.result("k1") == result
    overwrite(store, "trials/k1/published/t/b.txt", b"cont")
    store.settle_damage("k1")
    assert (store.look("k1").damage, store.finished()) == ("", set())
    assert len(store.names("trials/k1/damaged")) == 1
    assert "set aside" in capsys.readouterr().err


def test_a_file_that_was_out_of_sight_for_a_moment_costs_nothing(store, tmp_path):
    """As a network file system does it: a reader raised the alarm, and the claimant finds all of it whole."""
    result = publish(store, tmp_path)
    store.report_damage("k1", result.token, "b.txt is missing")
    assert store.look("k1").damage == "b.txt is missing"
    store.settle_damage("k1")
    assert store.result("k1") == result


def test_a_changed_file_of_the_same_size_is_found_by_its_digest(store, tmp_path):
    publish(store, tmp_path)
    overwrite(store, "trials/k1/published/t/b.txt", b"X" * 14)
    assert store.result("k1") is not None
    with pytest.raises(DamagedResult, match=r"b\.txt"):
        store.fetch("k1", tmp_path / "cache")
    assert "b.txt" in store.look("k1").damage
    store.settle_damage("k1")
    assert store.finished() == set()


def test_a_garbled_journal_is_reported_by_its_reader(store, tmp_path):
    result = publish(store, tmp_path)
    assert store.rows(result) == [["loss", 0, 1.5, 1000]]
    overwrite(store, f"trials/k1/journal/{result.segments[0]}", b'[["loss", 0, 9.5, 1000]]')
    with pytest.raises(DamagedResult):
        store.rows(result)
    assert result.segments[0] in store.look("k1").damage
    store.settle_damage("k1")
    assert store.finished() == set()


def test_a_changed_number_in_a_result_is_noticed(store, tmp_path):
    publish(store, tmp_path)
    document = store.read_document("results/k1.json")
    store.write_document("results/k1.json", {**document, "metrics": {"m": 1.25}})
    assert "garbled" in store.look("k1").damage


@pytest.mark.parametrize("content", [b'{"key": "k1"', b'{"files": {}}', b"[]", b'"text"', b"{}", b"[" * 100_000])
def test_a_garbled_result_document_is_damage(store, tmp_path, content):
    publish(store, tmp_path)
    overwrite(store, "results/k1.json", content)
    assert store.result("k1") is None
    assert "garbled" in store.look("k1").damage
    store.settle_damage("k1")
    assert store.finished() == set()


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc/elsewhere", "a/../../b"])
def test_names_are_not_followed_out_of_the_storage(store, tmp_path, name):
    with pytest.raises(DamagedResult, match="outside"):
        store.download("trials/k1/published/t", {name: FileEntry("0" * 64, 1)}, tmp_path / "cache")
    assert not (tmp_path / "elsewhere").exists()


def test_a_slow_process_does_not_overwrite_the_result_of_its_successor(store, tmp_path):
    result = publish(store, tmp_path)
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "b.txt").write_text("late")
    files = store.upload(tmp_path / "late", "trials/k1/published/late")
    assert not store.publish(dataclasses.replace(result, files=files, token="late"))
    assert store.result("k1") == result
    assert (store.fetch("k1", tmp_path / "cache") / "b.txt").read_text() == "contentcontent"


@pytest.mark.parametrize("content", [b"[1]", b'{"attempt": "x"}', b'"text"', b"3", b'{"kind": 1}', b"null", b"{ half"])
def test_documents_of_another_shape_count_as_absent(store, content):
    names = ("failure.json", "crash.json", "trial.json", "progress/1.json", "claim.json")
    for name in names:
        overwrite(store, f"trials/k1/{name}", content)
    assert (store.failure("k1"), store.crash("k1"), store.attempts("k1")) == (None, None, 0)
    assert store.generations("k1") == []
    is_held(store, "trials/k1")


@pytest.mark.parametrize(
    "document", [[1], "text", None, {"trials": {}}, {"trials": []}, {"trials": [], "submitted_at": "x"}]
)
def test_a_manifest_of_another_shape_is_none(store, document):
    whole = {"study": "s", "trials": [], "submitted_at": 1.5}
    whole |= {"question": "?", "command": "c", "provenance": {}, "facts": {}}
    store.write_document("studies/s/a.json", document)
    store.write_document("studies/s/b.json", whole)
    store.write_document("studies/s/suggestions/000001.json", whole)
    store.write_document("studies/s/publishers/ab.json", whole)
    assert list(store.manifests()) == [whole]


@pytest.mark.parametrize("document", [[1], "text", {"token": "t"}, {"token": "t", "paths": [], "files": {"a": 1}}])
def test_what_is_remembered_in_another_shape_is_forgotten(store, document):
    store.write_document("reports/s/made_from.json", document)
    assert report_files(store, "s") is None
    store.write_document(f"{publisher('s', 'sqlite:///x')}.json", document)
    assert known_of(store, "s", "sqlite:///x") == Known()


def test_one_garbled_state_leaves_the_one_before_it(store):
    first, second = Generation("001", fraction=0.25), Generation("002", fraction=0.5)
    store.write_generations("k1", [first])
    store.write_generations("k1", [second, first])
    assert store.generations("k1") == [second, first]
    store.write_generations("k1", [Generation("003", fraction=0.75), second])
    assert [g.fraction for g in store.generations("k1")] == [0.75, 0.5]
    overwrite(store, "trials/k1/progress/003.json", b'[{"checkpoint": 1')
    assert [g.fraction for g in store.generations("k1")] == [0.5]


def test_publish_refuses_when_files_did_not_arrive(store, tmp_path):
    result = publish(store, tmp_path)
    store.remove("results/k1.json")
    store.remove("trials/k1/published/t/b.txt")
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


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    store.write_document("a.json", 1)

    def full(handle):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.write_document("a.json", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert store.read_document("a.json") == 1


def test_a_document_is_never_seen_half_written(tmp_path, monkeypatch):
    """The process ends before the rename: the document is the one before."""
    store = Store(str(tmp_path))
    store.write_document("a.json", {"is": "whole"})

    def end(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", end)
    with pytest.raises(KeyboardInterrupt):
        store.write_document("a.json", {"is": "new"})
    assert store.read_document("a.json") == {"is": "whole"}


def test_all_that_a_result_rests_on_is_on_the_disk_before_it(tmp_path, monkeypatch):
    """Or a loss of power could leave a finished trial without its files."""
    synced = []
    monkeypatch.setattr("os.fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    store = Store(str(tmp_path / "results"))
    result = publish(store, tmp_path)
    store.write_generations("k2", [Generation("1")])
    store.record_failure("k3", Failure("crash", "", "", 1, 0.0))
    places = [Path(path).relative_to(store.uri) for path in synced]
    # A document is written beside its place, under its name with a dot and a number.
    named = [str(place.with_name(re.sub(r"^\.(.*)\.[0-9a-f]{32}$", r"\1", place.name))) for place in places]
    assert named == [
        "trials/k1/published/t/b.txt", "trials/k1/published/t/sub/a.txt", f"trials/k1/journal/{result.segments[0]}",
        "results/k1.json", "trials/k2/progress/1.json", "trials/k3/failure.json",
    ]  # fmt: skip


def test_a_result_takes_away_what_only_its_attempts_needed(tmp_path):
    store = Store(str(tmp_path / "results"))
    for path in ("progress/1.json", "checkpoints/1/a.pt", "items/1.npz", "failure.json", "crash.json", "trial.json"):
        store.write_bytes(f"trials/k1/{path}", b"{}")
    store.write_document("damaged/k1.json", "of an earlier result")
    publish(store, tmp_path)
    assert store.names("trials/k1") == ["journal", "published", "trial.json"]
    assert store.names("damaged") == []


def test_an_unknown_protocol_is_named():
    with pytest.raises(ValueError, match="nonsense://x"):
        Store("nonsense://x")
