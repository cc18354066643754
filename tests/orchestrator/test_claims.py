"""A trial runs once, whoever else wants to run it."""

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest

from orchestrator import claims
from orchestrator.claims import Claim, ClaimLost, is_held
from orchestrator.store import Store


def hold_for_ever(uri):
    Claim(Store(uri), "trials/k").__enter__()
    time.sleep(600)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def test_holders_follow_one_another(store):
    inside, most = [], []

    def work(number):
        with Claim(store, "trials/k"):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.05)
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]
    assert is_held(store, "trials/k") is None


def test_a_claim_of_a_killed_process_is_taken_over_at_once(store):
    process = multiprocessing.get_context("spawn").Process(target=hold_for_ever, args=(store.uri,))
    process.start()
    while is_held(store, "trials/k") is None:
        time.sleep(0.05)
    assert str(process.pid) in is_held(store, "trials/k")
    waited_for = []
    os.kill(process.pid, signal.SIGSTOP)  # alive, but silent: nobody may take over yet
    opened = threading.Event()

    def take():
        with Claim(store, "trials/k", waited_for.append):
            opened.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not opened.wait(1.5)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert opened.wait(10)
    thread.join()
    assert waited_for == [f"process {process.pid} on {os.uname().nodename}"]


def test_a_silent_claim_of_another_machine_lapses(store, monkeypatch):
    monkeypatch.setattr(claims, "LAPSE_S", 1.0)
    store.create_document("trials/k/claim.json", {"token": "t", "beat": 3, "host": "elsewhere", "pid": 1})
    begun = time.monotonic()
    with Claim(store, "trials/k"):
        assert time.monotonic() - begun >= 1.0


def test_a_renewed_claim_of_another_machine_does_not_lapse(store, monkeypatch):
    monkeypatch.setattr(claims, "LAPSE_S", 1.0)
    opened, stop = threading.Event(), threading.Event()

    def renew():
        beat = 0
        while not stop.wait(0.2):
            beat += 1
            store.write_document("trials/k/claim.json", {"token": "t", "beat": beat, "host": "elsewhere", "pid": 1})

    def take():
        with Claim(store, "trials/k"):
            opened.set()

    store.create_document("trials/k/claim.json", {"token": "t", "beat": 0, "host": "elsewhere", "pid": 1})
    threads = [threading.Thread(target=f) for f in (renew, take)]
    for thread in threads:
        thread.start()
    assert not opened.wait(2.5)
    stop.set()
    assert opened.wait(5)
    for thread in threads:
        thread.join()


def test_a_watcher_that_slept_begins_to_watch_anew(monkeypatch):
    """The holder perhaps slept too, behind the same frozen file system."""
    now = [0.0]
    monkeypatch.setattr(claims, "time", SimpleNamespace(monotonic=lambda: now[0]))
    watch, silent = claims._Watch(), {"token": "t", "beat": 0, "host": "elsewhere"}
    assert not watch.has_lapsed(silent)
    now[0] = 1000.0
    assert not watch.has_lapsed(silent)
    while not watch.has_lapsed(silent):
        now[0] += 1.0
        assert now[0] < 1100
    assert now[0] == 1000.0 + claims.LAPSE_S + 1


def test_a_claim_that_is_renewed_between_the_look_and_the_move_is_given_back(store, monkeypatch):
    monkeypatch.setattr(claims, "LAPSE_S", 0.2)
    path, beats, real = "trials/k/claim.json", [0], Store.take_away

    def renewed():
        return {"token": "t", "beat": beats[-1], "host": "elsewhere", "pid": 1}

    def take_away(self, path, aside=None):
        beats.append(beats[-1] + 1)
        self.write_document(path, renewed())
        return real(self, path, aside)

    store.create_document(path, renewed())
    monkeypatch.setattr(Store, "take_away", take_away)
    deadline = time.monotonic() + 5
    assert not Claim(store, "trials/k").acquire(lambda: len(beats) < 2 and time.monotonic() < deadline)
    assert len(beats) == 2
    assert store.read_document(path) == renewed()
    assert store.names("trials/k") == ["claim.json"]


def test_a_process_with_the_number_of_a_dead_one_is_not_the_holder(store):
    store.create_document("trials/k/claim.json", {"token": "t", "beat": 0, **claims._this_process(), "pid_start": "1"})
    assert is_held(store, "trials/k") is None
    claim = Claim(store, "trials/k")
    assert claim.acquire(lambda: False)
    claim.release()


def test_a_dead_process_that_nobody_waited_for_holds_nothing(store):
    process = subprocess.Popen(["sleep", "60"])
    holder = {**claims._this_process(), "pid": process.pid, "pid_start": claims._start_of(process.pid)}
    store.create_document("trials/k/claim.json", {"token": "t", "beat": 0, **holder})
    assert str(process.pid) in is_held(store, "trials/k")
    process.kill()
    deadline = time.monotonic() + 10
    while is_held(store, "trials/k") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.wait()


def test_a_garbled_claim_lapses(store, monkeypatch):
    monkeypatch.setattr(claims, "LAPSE_S", 1.0)
    store.create_document("trials/k/claim.json", {})
    with open(store._at("trials/k/claim.json"), "w") as file:
        file.write("{ half")
    with Claim(store, "trials/k"):
        assert is_held(store, "trials/k") == f"process {os.getpid()} on {os.uname().nodename}"


def test_a_silent_process_of_this_machine_keeps_its_claim(store, monkeypatch):
    monkeypatch.setattr(claims, "LAPSE_S", 0.5)
    with Claim(store, "trials/k"):
        deadline = time.monotonic() + 2.0
        assert not Claim(store, "trials/k").acquire(lambda: time.monotonic() < deadline)


def test_a_holder_that_was_replaced_may_not_publish(store):
    with Claim(store, "trials/k") as claim:
        claim.holding.check()
        store.write_document("trials/k/claim.json", {"token": "another's", "beat": 0})
        with pytest.raises(ClaimLost, match="trials/k"):
            claim.holding.check()
    assert store.read_document("trials/k/claim.json")["token"] == "another's"


def test_a_claim_that_is_out_of_sight_for_a_moment_is_renewed_again(store, monkeypatch):
    monkeypatch.setattr(claims, "RENEW_S", 0.05)
    with Claim(store, "trials/k") as claim:
        document = store.read_document("trials/k/claim.json")
        store.remove("trials/k/claim.json")  # as while another process looks at it aside
        time.sleep(0.3)
        store.write_document("trials/k/claim.json", document)
        deadline = time.monotonic() + 10
        while store.read_document("trials/k/claim.json") == document:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        claim.holding.check()
    assert is_held(store, "trials/k") is None


@pytest.mark.parametrize("document", [[1], "text", {"pid": "x", "host": 3}, {}])
def test_a_claim_of_another_shape_is_nobodys_process(store, document):
    store.write_document("trials/k/claim.json", document)
    is_held(store, "trials/k")
    assert not Claim(store, "trials/k").acquire(lambda: False)
