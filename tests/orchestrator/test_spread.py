"""Items of one trial over several workers: who does what, who helps, and what happens to those that die."""

import os
import pickle
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from orchestrator import idle, spread
from orchestrator.failures import WorkerFailed, failure_from
from orchestrator.resources import Amount, Demand
from orchestrator.spread import over_workers

ONE = Amount(1.0)


class Noted:
    """A function on items that leaves a line at the begin and the end of each, with its process."""

    def __init__(self, path, seconds=0.05, **special):
        self.path, self.seconds, self.special = str(path), seconds, special

    def __call__(self, items):
        for item in items:
            self.note(f"begin {item} {os.getpid()}")
            self.disturb(item)
            self.note(f"end {item} {os.getpid()}")
        return [{"square": np.array(item * item)} for item in items]

    def disturb(self, item):
        time.sleep(self.special.get("slow", {}).get(item, self.seconds))
        if item == self.special.get("bad"):
            raise ValueError(f"item {item} is bad")
        if self.special.get("dies_once") and os.getpid() != self.special["driver"] and "died" not in self.lines():
            self.note(f"died {item}")
            os.kill(os.getpid(), signal.SIGKILL)

    def note(self, line):
        with open(self.path, "a") as file:
            file.write(line + "\n")

    def lines(self):
        return Path(self.path).read_text()

    def processes(self):
        return {int(line.split()[2]) for line in self.lines().splitlines() if line.startswith("end")}


@pytest.fixture
def run(cluster, tmp_path):
    """A function that spreads ``num`` items, one a batch: (results by item, the function with its notes)."""

    def make(num, demand, **special):
        function = Noted(tmp_path / "notes", driver=os.getpid(), **special)
        results = {}

        def finished(batch, arrays, elsewhere_s):
            for position, array in zip(batch, arrays, strict=True):
                assert position not in results
                results[position] = (int(array["square"]), elsewhere_s)

        over_workers(demand)(function, [[i] for i in range(num)], list(range(num)), finished)
        return results, function

    return make


@pytest.fixture
def announced(cluster):
    """Whether slots are idle is said for one test."""
    yield idle.announce
    idle.announce(False)


def no_longer_there(pid):
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not Path(f"/proc/{pid}").exists()


def test_each_item_is_done_once_and_its_seconds_are_counted_where_they_were_spent(run):
    results, function = run(40, Demand(ONE, 2), seconds=0.2)
    assert {item: square for item, (square, _) in results.items()} == {i: i * i for i in range(40)}
    own, other = sorted(function.processes(), key=lambda pid: pid != os.getpid())
    assert own == os.getpid()
    assert no_longer_there(other)
    elsewhere = [seconds for _, seconds in results.values() if seconds]
    assert len(elsewhere) == sum(
        line.endswith(str(other)) and line.startswith("end") for line in function.lines().splitlines()
    )
    assert all(seconds >= 0.2 for seconds in elsewhere)


def test_one_worker_alone_stays_alone_while_others_wait(run, announced, monkeypatch):
    monkeypatch.setattr(spread, "_WORTH_STARTING_S", 0.0)
    announced(False)
    _, function = run(20, Demand(ONE, 1), seconds=0.2)
    assert function.processes() == {os.getpid()}


def test_idle_slots_help(run, announced, monkeypatch):
    monkeypatch.setattr(spread, "_WORTH_STARTING_S", 0.0)
    announced(True)
    results, function = run(60, Demand(ONE, 1), seconds=0.2)
    assert len(results) == 60
    assert len(function.processes()) >= 2


def test_a_slot_that_somebody_asks_for_is_given_back(run, announced, monkeypatch):
    monkeypatch.setattr(spread, "_WORTH_STARTING_S", 0.0)
    announced(True)
    answers = iter([True] * 12)
    monkeypatch.setattr(idle.Word, "is_idle", lambda self: next(answers, False))
    results, function = run(80, Demand(ONE, 1), seconds=0.2)
    assert len(results) == 80
    last = [line.split()[2] for line in function.lines().splitlines() if line.startswith("end")][-10:]
    assert set(last) == {str(os.getpid())}
    assert all(no_longer_there(pid) for pid in function.processes() - {os.getpid()})


def test_no_help_where_no_slot_is_free(run, announced, monkeypatch):
    monkeypatch.setattr(spread, "_WORTH_STARTING_S", 0.0)
    announced(True)
    _, function = run(20, Demand(Amount(1e6), 1), seconds=0.2)
    assert function.processes() == {os.getpid()}


def test_an_error_in_a_worker_keeps_its_class_and_ends_all(run):
    with pytest.raises((ValueError, WorkerFailed), match="item 1 is bad") as raised:  # it goes to either of the two
        run(200, Demand(ONE, 2), seconds=0.2, bad=1)
    assert failure_from(raised.value, 3).kind == "invalid"
    assert failure_from(raised.value, 3).attempt == 3


class Unsendable(ValueError):
    """An error that no pickle takes."""

    def __init__(self):
        super().__init__("it has a lock")
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (Unsendable, "invalid", "Unsendable: it has a lock"),
        (lambda: SystemExit(3), "invalid", "SystemExit: 3 (it ended its process"),
        (lambda: OSError("gone"), "crashed", "OSError: gone"),
    ],
)
def test_any_error_of_another_worker_is_what_it_is(cluster, error, kind, said):
    driver = os.getpid()

    def function(items):
        if os.getpid() != driver:
            raise error()
        time.sleep(0.2)
        return [{"item": np.array(0)}]

    with pytest.raises(WorkerFailed) as raised:
        over_workers(Demand(ONE, 2))(function, [[i] for i in range(500)], list(range(500)), lambda *what: None)
    assert raised.value.failure.kind == kind
    assert raised.value.failure.message.startswith(said)
    assert str(pickle.loads(pickle.dumps(raised.value))) == raised.value.failure.message


def test_what_cannot_be_sent_is_done_here(run, announced, monkeypatch, cluster):
    monkeypatch.setattr(spread, "_WORTH_STARTING_S", 0.0)
    announced(True)
    lock, done = threading.Lock(), []

    def function(items):
        with lock:
            time.sleep(0.1)
            return [{"item": np.array(item)} for item in items]

    items = list(range(30))
    over_workers(Demand(ONE, 1))(function, [[i] for i in items], items, lambda batch, *what: done.extend(batch))
    assert done == items


def test_what_a_worker_still_does_is_cancelled(run, tmp_path):
    """This process fails while the other one is at an item that would take ten minutes."""
    slow = dict.fromkeys(range(1, 200), 600.0)
    function = Noted(tmp_path / "notes")

    def fail_once_the_other_is_at_it(items):
        deadline = time.monotonic() + 60
        while "begin" not in (Path(function.path).read_text() if Path(function.path).exists() else ""):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        raise ValueError("item 0 is bad")

    class Both:
        def __init__(self, path, driver):
            self.path, self.driver = path, driver

        def __call__(self, items):
            if os.getpid() == self.driver:
                return fail_once_the_other_is_at_it(items)
            return Noted(self.path, slow=slow)(items)

        def __getstate__(self):
            return {"path": self.path, "driver": self.driver}

    with pytest.raises(ValueError, match="item 0 is bad"):
        over_workers(Demand(ONE, 2))(Both(function.path, os.getpid()), [[i] for i in range(9)], list(range(9)), print)
    (line,) = Path(function.path).read_text().splitlines()
    assert line.startswith("begin")
    assert no_longer_there(int(line.split()[2]))


def test_a_worker_that_dies_is_replaced_and_its_item_done_again(run):
    results, function = run(60, Demand(ONE, 2), seconds=0.2, dies_once=True)
    assert {item: square for item, (square, _) in results.items()} == {i: i * i for i in range(60)}
    lines = function.lines().splitlines()
    (died,) = [line.split()[1] for line in lines if line.startswith("died")]
    assert sum(line.startswith(f"begin {died} ") for line in lines) == 2
    assert sum(line.startswith(f"end {died} ") for line in lines) == 1
    assert len(function.processes()) >= 2  # another one came in its place


@pytest.mark.slow
def test_helpers_that_die_again_and_again_are_let_be(cluster, announced, monkeypatch):
    """As where memory suffices for one process: what works alone must not fail because slots were idle."""
    monkeypatch.setattr(spread, "_WORTH_STARTING_S", 0.0)
    announced(True)
    driver, hired, results = os.getpid(), [], []
    hire = spread._Spreading._hire
    monkeypatch.setattr(
        spread._Spreading,
        "_hire",
        lambda self, *, is_helper: hired.append(is_helper) or hire(self, is_helper=is_helper),
    )

    def dies_elsewhere(items):
        if os.getpid() != driver:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)
        return [{"square": np.array(0)} for _ in items]

    spread_ = over_workers(Demand(ONE, 1))
    spread_(dies_elsewhere, [[i] for i in range(200)], list(range(200)), lambda batch, *what: results.extend(batch))
    assert sorted(results) == list(range(200))
    assert 1 <= len(hired) <= 6  # two may be at it when the last one that counts dies


def test_workers_that_die_again_and_again_fail_the_trial(cluster, tmp_path):
    class Dies:
        def __init__(self, driver):
            self.driver = driver

        def __call__(self, items):
            if os.getpid() != self.driver:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.2)
            return [{"square": np.array(0)}]

    with pytest.raises(RuntimeError, match="4 workers died, the last with"):
        over_workers(Demand(ONE, 2))(Dies(os.getpid()), [[i] for i in range(500)], list(range(500)), lambda *what: None)


@pytest.fixture
def said(monkeypatch):
    """What drivers have said, by key, and the clock of who hears it: (store, clock)."""
    store, clock = {}, [0.0]
    monkeypatch.setattr(idle, "_internal_kv_list", lambda prefix, namespace: list(store))
    monkeypatch.setattr(idle, "_internal_kv_get", lambda key, namespace: store.get(key))
    monkeypatch.setattr(idle, "_own_key", lambda: b"idle-own")
    monkeypatch.setattr(idle.time, "monotonic", lambda: clock[0])
    return store, clock


def test_slots_are_idle_when_every_driver_that_is_there_says_so(said):
    store, clock = said
    word = idle.Word()
    assert not word.is_idle()  # nobody has said anything
    store[b"idle-own"] = b"0 1"
    assert word.is_idle()
    store[b"idle-other"] = b"0 0"
    assert not word.is_idle()
    store[b"idle-other"] = b"1 1"
    assert word.is_idle()
    store[b"idle-own"] = b"1 0"
    assert not word.is_idle()
    store.update({b"idle-own": b"2 1", b"idle-other": b"2 0"})
    assert not word.is_idle()
    for beat in range(3, 12):  # the other one does not say it again: it is gone
        clock[0] += 5.0
        store[b"idle-own"] = f"{beat} 1".encode()
        assert word.is_idle() is (clock[0] >= 30.0)
    clock[0] += 31.0  # nor does the own one
    assert not word.is_idle()
