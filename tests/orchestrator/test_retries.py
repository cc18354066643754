"""Which failure is followed by another attempt, and when; and how the end of an attempt is told."""

import dataclasses
import errno
import os
from pathlib import Path

import pytest
from toy import Count

from orchestrator import places
from orchestrator.failures import NodeLost, failure_from, failure_kind, note_failure
from orchestrator.graph import trials_of
from orchestrator.kinds import Kind
from orchestrator.places import full_place
from orchestrator.resources import Amount, Capacity, Demand, alone_on_a_node
from orchestrator.retries import Again, after
from orchestrator.retrying import Retrying, Space
from orchestrator.store import Failure, Store
from orchestrator.study import Study
from trainables.api.identity import FileDigests, Keys

PREEMPTED, CRASHED, MEMORY, FULL = Kind.PREEMPTED, Kind.CRASHED, Kind.OUT_OF_MEMORY, Kind.DISK_FULL
NODE_DIED = "The actor died unexpectedly\n\tip: 10.0.0.7\nThe actor died because its node has died. Node Id: 7"
KILLED = "The actor died unexpectedly before finishing this task.\nWorker exit type: SYSTEM_ERROR"
KILLED_FOR_MEMORY = "OutOfMemoryError: Task was killed due to the node running low on memory."


@pytest.mark.parametrize(
    ("kinds", "again"),
    [
        ([CRASHED], Again(2.0)),
        ([CRASHED, CRASHED], Again(8.0)),
        ([CRASHED] * 3, Again(32.0)),
        ([CRASHED] * 4, None),
        ([PREEMPTED] * 3, Again()),
        ([PREEMPTED] * 4, Again(10.0)),
        ([PREEMPTED] * 50, Again(300.0)),  # it may be the trial that takes its node down
        ([PREEMPTED] * 4 + [CRASHED, PREEMPTED], Again()),
        ([MEMORY] + [PREEMPTED] * 5, Again(20.0, is_alone=True)),
        ([CRASHED, CRASHED, CRASHED, PREEMPTED], Again()),
        ([PREEMPTED, PREEMPTED, CRASHED], Again(2.0)),  # a lost node is not charged
        ([MEMORY], Again(0.0, is_alone=True)),
        ([MEMORY, PREEMPTED], Again(0.0, is_alone=True)),
        ([MEMORY, MEMORY], None),
        ([FULL], Again(10.0)),
        ([FULL] * 9, Again(300.0)),
        ([FULL, FULL, CRASHED], Again(2.0)),
        ([FULL] * 21, None),
        ([Kind.INVALID], None),
        ([Kind.TIMED_OUT], None),
    ],
)
def test_what_follows_a_failure(kinds, again):
    assert after(kinds) == again


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "results"))


@dataclasses.dataclass(frozen=True)
class Batched(Count):
    batch_size: int = 256


@pytest.fixture
def trial():
    return trials_of(Study("s", "?", {"t": Batched()}), Keys(FileDigests()))[0]


class Attempts:
    """The attempts of a trial, one after the other, as processes on nodes would make them."""

    def __init__(self, store, trial):
        self.store, self.trial, self.alive, self.full, self.number = store, trial, {"1", "2"}, "", 0
        self.space = Space(lambda: self.full)
        self.retrying = Retrying(store, self.space, lambda: self.alive)

    def end(self, error, *, node="1", said=None):
        """An attempt on a node ends with what Tune saw, having ``said`` an error itself or not."""
        self.retrying.hands_out(self.trial)
        self.number += 1
        self.store.write_document(f"trials/{self.trial.key}/trial.json", {"attempt": self.number, "node": node})
        if said is not None:
            with pytest.raises(type(said)):
                note_failure(self.store, self.trial, self.number, said)
        failure, again = self.retrying.next(self.trial, error)
        return failure.kind, again


@pytest.fixture
def attempts(store, trial):
    return Attempts(store, trial)


def test_crashes_are_tried_three_times_later_and_later_and_then_recorded(attempts, store, trial):
    share = OSError("the network share went away")
    found = [attempts.end("RayTaskError(OSError)", said=share) for _ in range(4)]
    assert found == [(CRASHED, Again(2.0)), (CRASHED, Again(8.0)), (CRASHED, Again(32.0)), (CRASHED, None)]
    assert store.failure(trial.key).kind == "crashed"
    assert store.failure(trial.key).message == "OSError: the network share went away"


def test_a_lost_node_is_not_charged_also_where_it_is_missed_later(attempts, store, trial):
    assert attempts.end(NODE_DIED) == (PREEMPTED, Again())
    attempts.alive = {"2"}
    assert attempts.end(KILLED, node="1") == (PREEMPTED, Again())  # without a word, on a node that is gone
    assert attempts.end(KILLED, node="2") == (CRASHED, Again(2.0))  # the cluster has not missed this one yet
    attempts.alive = {"3"}
    assert attempts.end(KILLED, node="3") == (CRASHED, Again(2.0))  # the first one, therefore
    assert attempts.end("RayActorError (preempted)", node="3") == (PREEMPTED, Again())
    assert store.failure(trial.key) is None


def test_a_process_that_dies_before_its_attempt_begins_is_not_on_the_node_of_an_earlier_one(attempts, store, trial):
    store.write_document(f"trials/{trial.key}/trial.json", {"attempt": 7, "node": "of another cluster"})
    store.note_crash(trial.key, Failure("preempted", "of an earlier submission", "", 7, 0.0))
    found = []
    for _ in range(4):
        attempts.retrying.hands_out(trial)
        found.append(attempts.retrying.next(trial, "ModuleNotFoundError: No module named 'mine'")[1])
    assert found == [Again(2.0), Again(8.0), Again(32.0), None]
    failure = store.failure(trial.key)
    assert failure.kind == "crashed"
    assert failure.message == "it could not be started: ModuleNotFoundError: No module named 'mine'"


def test_what_said_why_it_failed_is_charged_wherever_it_was(attempts):
    attempts.alive = set()
    assert attempts.end("RayTaskError(OSError)", said=OSError("odd")) == (CRASHED, Again(2.0))


def test_a_lost_node_of_a_worker_is_one(attempts):
    assert attempts.end("RayTaskError(NodeLost)", said=NodeLost("worker 1 of 2 died")) == (PREEMPTED, Again())


def test_out_of_memory_is_tried_once_more_alone_and_says_batch_size_and_device(attempts, store, trial):
    error = type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory")
    assert attempts.end("RayTaskError(OutOfMemoryError)", said=error) == (MEMORY, Again(0.0, is_alone=True))
    assert attempts.end(KILLED_FOR_MEMORY) == (MEMORY, None)
    assert store.crash(trial.key).message == "OutOfMemoryError: CUDA out of memory (on cpu) (batch_size 256)"
    assert "ran out of memory" in store.failure(trial.key).message
    assert store.failure(trial.key).message.endswith("(on main memory) (batch_size 256)")


def test_a_full_disk_is_no_crash_whatever_the_process_could_say(attempts, store, trial):
    attempts.full = "/results"
    assert attempts.end("RayTaskError(OSError)\nOSError: [Errno 28] No space left on device") == (FULL, Again(10.0))
    assert attempts.end(KILLED) == (FULL, Again(20.0))
    assert not attempts.space.is_there()
    attempts.full = ""
    assert attempts.end(KILLED) == (CRASHED, Again(2.0))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/elsewhere")
    assert attempts.end("RayTaskError(OSError)", said=full) == (FULL, Again(40.0))  # a disk that is not seen from here
    assert store.failure(trial.key) is None


def test_the_errors_of_a_full_disk_are_one_class_also_as_causes():
    for code in (errno.ENOSPC, errno.EDQUOT):
        error = RuntimeError("cannot save")
        error.__cause__ = OSError(code, "no")
        assert failure_kind(error) is FULL
        assert failure_from(error, 1).message.startswith("RuntimeError: cannot save (caused by OSError: ")


def test_space_is_looked_for_every_few_seconds_until_it_is_there():
    now, full, looks = [0.0], ["/results"], []
    space = Space(lambda: looks.append(now[0]) or full[0], clock=lambda: now[0])
    assert space.is_there()
    assert looks == []  # nobody said that it was full
    assert space.look() == "/results"
    for now[0] in (1.0, 4.9, 5.0, 6.0):
        assert not space.is_there()
    full[0] = ""
    now[0] = 10.0
    assert space.is_there()
    assert looks == [0.0, 5.0, 10.0]


def test_the_place_without_space_is_named(store, tmp_path, monkeypatch):
    assert full_place(store, tmp_path / "cache") == ""
    full = []

    def probe(folder):
        if folder in full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise OSError(errno.EIO, "another trouble")

    monkeypatch.setattr(places, "_probe", probe)
    assert full_place(store, tmp_path / "cache") == ""
    for full in ([tmp_path / "cache"], [Path(store.uri)]):
        assert full_place(store, tmp_path / "cache") == str(full[0])


def test_a_failure_that_was_recorded_by_the_trial_is_final(attempts, store, trial):
    store.record_failure(trial.key, Failure("invalid", "nan", "", 1, 0.0))
    assert attempts.end(KILLED) == ("invalid", None)


def test_alone_is_with_all_cpus_of_the_smallest_node_that_holds_it():
    has = Capacity((Amount(64.0, 8.0), Amount(16.0, 1.0), Amount(4.0)))
    assert alone_on_a_node(Demand(Amount(1.0, 0.5)), has) == Demand(Amount(16.0, 0.5))
    assert alone_on_a_node(Demand(Amount(1.0)), has) == Demand(Amount(4.0))
    assert alone_on_a_node(Demand(Amount(1.0), 2), has) == Demand(Amount(1.0), 2)
    assert alone_on_a_node(Demand(Amount(100.0)), has) == Demand(Amount(100.0))
