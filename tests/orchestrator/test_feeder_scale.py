"""What an event costs the feeder does not grow with the study."""

import types

import pytest
from counting import CountedStore, steps_in

from orchestrator import cells, following, publishing, tracking
from orchestrator.publishing import Known, Publishing, known_of
from orchestrator.snapshot import Snapshot

URI = "http://mlflow"


class Experiment:
    """Takes whatever is written to it."""

    instance, id, study = "i", "1", "s"
    note = staticmethod(lambda question, report_id: "")
    set_note = staticmethod(lambda text: None)


class Runs:
    """Takes runs of any kind, and counts how often a cell is looked at."""

    id, start_ms, newest_ms = "r", 0, 0

    def __init__(self):
        self.looked_at, self.counts = 0, {}

    def publish(self, store, what, *given):
        self.looked_at += 1

    def describe(self, manifest, counts, *, has_ended):
        self.counts = counts

    def bring_to_top(self, *given):
        pass


@pytest.fixture
def fed(tmp_path, monkeypatch):
    """A function that makes a study of n trials, two a cell, and gives its feeder's publishing, and what was written.

    Between two events the description of the study falls due.
    """
    clock = [0.0]

    def tick():
        clock[0] += 10.0
        return clock[0]

    monkeypatch.setattr(publishing, "time", types.SimpleNamespace(monotonic=tick))
    monkeypatch.setattr(publishing, "snapshot", lambda store, key: Snapshot(key, "done", 1, [], 0.0, 1.0))

    def make(count):
        store = CountedStore(str(tmp_path / f"{count}"))
        entries = [
            {
                "key": f"k{n:063d}",
                "name": f"trial {n}",
                "class": "C",
                "cell": f"c{n // 2}",
                "role": "r",
                "labels": {},
                "upstream": [],
                "named": True,
                "configuration": {},
            }
            for n in range(count)
        ]
        store.write_document("studies/s/a.json", {"study": "s", "question": "?", "submitted_at": 1, "trials": entries})
        made = Publishing(store, "s", URI)
        tracker = object.__new__(tracking.Tracker)
        tracker._experiment, tracker._described = Experiment(), None
        tracker._trials, tracker._cells, tracker._report = Runs(), Runs(), Runs()
        made._tracker = tracker
        made.publish([entries[0]["key"]], has_ended=False)
        store.requests.clear()
        store.bytes_written = tracker._cells.looked_at = 0
        return made, store, [entry["key"] for entry in entries]

    return make


def test_an_event_costs_the_same_in_a_large_study(fed):
    steps, looked_at, requests = [], [], []
    for count in (50, 400):
        made, store, keys = fed(count)

        def events(made=made, keys=keys):
            for key in keys[1:30]:
                made.publish([key], has_ended=False)

        steps.append(steps_in([publishing, following, tracking, cells], events))
        looked_at.append(made._tracker._cells.looked_at)
        requests.append(store.requests["list"] + store.requests["read"])
        assert made._tracker._report.counts == {"done": 30, "running": 0, "failed": 0, "waiting": count - 30}
    assert steps[1] == pytest.approx(steps[0], rel=0.05)
    assert looked_at == [29, 29]
    assert requests[0] == requests[1]


def test_what_is_remembered_is_written_so_often_as_it_grows(fed):
    written = []
    for count in (200, 400, 800):
        made, store, keys = fed(count)
        for key in keys[1:]:
            made.publish([key], has_ended=False)
        written.append(store.bytes_written)
        made.publish([], has_ended=True)
        assert known_of(store, "s", URI).tokens == dict.fromkeys(keys, "done:1:0:")
    assert written[2] < 2.5 * written[1]
    assert written[2] - written[1] < 2.5 * (written[1] - written[0])


def test_of_a_killed_feeder_all_is_remembered_but_its_last_trials(fed):
    made, store, keys = fed(400)
    for key in keys[1:390]:
        made.publish([key], has_ended=False)
    known = known_of(store, "s", URI)
    assert known != Known()
    assert 0.95 * 390 - 1 <= len(known.tokens) <= 390


def test_the_latest_submission_is_last_whatever_the_clock_said(tmp_path):
    store = CountedStore(str(tmp_path / "results"))
    for number, submitted_at in ((1, 9.0), (2, 5.0)):
        document = {"study": "s", "question": "?", "submitted_at": submitted_at, "trials": [], "number": number}
        store.write_document(f"studies/s/{number}.json", document)
    manifests = following.Manifests(store, "s")
    manifests.refresh()
    assert [manifest["number"] for manifest in manifests.in_order] == [1, 2]
