"""Of several creators exactly one succeeds, whatever the file system says and whatever is lost on the way."""

import errno
import os

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

from orchestrator.claims import Claim, is_held
from orchestrator.places import check_writable
from orchestrator.store import Result, Store
from orchestrator.usage import UsageError


class ObjectStore(MemoryFileSystem):
    """Conditional puts as S3 and its like answer them; ``trouble`` says what goes wrong, once each."""

    protocol = "objects"
    store = {}
    pseudo_dirs = [""]
    trouble = []

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        if mode != "create":
            super().pipe_file(path, value, **kwargs)
            return
        trouble = self.trouble.pop(0) if self.trouble else ""
        if trouble == "refused":
            raise PermissionError(errno.EACCES, "no credentials")
        if self.exists(path):
            raise OSError(errno.EBUSY, "At least one of the pre-conditions you specified did not hold")
        super().pipe_file(path, value, **kwargs)
        if trouble == "answer lost":  # the client tried again by itself, and met its own object
            raise OSError(errno.EBUSY, "At least one of the pre-conditions you specified did not hold")


class Overwriting(ObjectStore):
    """Knows no conditional puts, and takes them as puts."""

    protocol = "overwriting"

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        super().pipe_file(path, value, **kwargs)


class LookThenWrite(ObjectStore):
    """Has what every file system of fsspec has."""

    protocol = "lookthenwrite"
    pipe_file = AbstractFileSystem.pipe_file


for kind in (ObjectStore, Overwriting, LookThenWrite):
    fsspec.register_implementation(kind.protocol, kind, clobber=True)


@pytest.fixture
def store():
    ObjectStore.store.clear()
    ObjectStore.trouble.clear()
    yield Store("objects://results")
    ObjectStore.trouble.clear()


def test_a_condition_that_did_not_hold_means_that_another_was_faster(store):
    assert store.create_document("a.json", 1)
    assert not store.create_document("a.json", 2)
    assert store.read_document("a.json") == 1


def test_what_goes_wrong_otherwise_is_an_error(store):
    store._fs.trouble.append("refused")
    with pytest.raises(PermissionError, match="no credentials"):
        store.create_document("a.json", 1)
    assert store.read_document("a.json") is None


def test_a_claim_whose_answer_was_lost_is_held(store):
    store._fs.trouble.append("answer lost")
    waited_for = []
    claim = Claim(store, "trials/k", waited_for.append)
    assert claim.acquire(lambda: False)
    assert waited_for == []
    claim.holding.check()
    claim.release()
    assert is_held(store, "trials/k") is None


def test_a_link_whose_answer_was_lost_is_held(tmp_path, monkeypatch):
    """As NFS does it: the link is there, its answer was not, and the client asked again."""
    real = os.link

    def link(source, target):
        real(source, target)
        raise FileExistsError(errno.EEXIST, "File exists", target)

    monkeypatch.setattr("os.link", link)
    store = Store(str(tmp_path))
    claim = Claim(store, "trials/k")
    assert claim.acquire(lambda: False)
    claim.release()
    assert store.publish(Result("k", {}, {}, [], 1.0, 2.0, 1.0, 1, 5.0, {}, "t"))


def test_a_result_whose_answer_was_lost_is_published(store):
    result = Result("k", {"m": 0.1}, {}, [], 1.0, 2.0, 1.0, 1, 5.0, {}, "t")
    store.write_document("trials/k/failure.json", {})
    store._fs.trouble.append("answer lost")
    assert store.publish(result)
    assert store.result("k") == result
    assert not store.exists("trials/k/failure.json")
    assert not store.publish(Result("k", {"m": 0.1}, {}, [], 1.0, 2.0, 1.0, 1, 5.0, {}, "another"))


def test_a_storage_that_refuses_no_second_creation_is_no_storage(store, tmp_path):
    check_writable(store, tmp_path)
    assert store.names("") == []
    assert list(store._sizes("")) == []
    with pytest.raises(UsageError, match=r"overwriting://results.*twice.*--storage") as caught:
        check_writable(Store("overwriting://results"), tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert list(store._sizes("")) == []


def test_a_folder_without_hard_links_is_no_storage(tmp_path, monkeypatch):
    def link(source, target):
        raise PermissionError(errno.EPERM, "Operation not permitted", source, None, target)

    monkeypatch.setattr("os.link", link)
    with pytest.raises(UsageError, match=r"results: it has no hard links.*--storage"):
        check_writable(Store(str(tmp_path / "results")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_looks_and_then_writes_is_said_to_be_for_one_at_a_time(store, tmp_path, capsys):
    check_writable(Store("lookthenwrite://results"), tmp_path)
    said = capsys.readouterr().err
    assert "warning: lookthenwrite://results" in said
    assert "one driver at a time" in said
    check_writable(store, tmp_path)
    assert capsys.readouterr().err == ""
