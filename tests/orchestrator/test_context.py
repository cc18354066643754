"""What survives a crash inside a trial, and what does not."""

import dataclasses
import math
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mlflow.utils.validation import _validate_metric_name
from toy import Count, Diverge, Flaky, Grow, Misconfigured, ReadsText

from orchestrator.attempt import Payload
from orchestrator.checkpoints import Checkpoints
from orchestrator.claims import Claim, ClaimLost
from orchestrator.context import TrialContext
from orchestrator.failures import failure_kind, last_crash
from orchestrator.graph import trials_of
from orchestrator.provenance import machine_provenance
from orchestrator.store import DamagedResult, Failure, Store
from orchestrator.study import Study
from orchestrator.trial import run_trial
from trainables.api.errors import BadData, NonFiniteMetric
from trainables.api.identity import FileDigests, Keys


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "results"))


@pytest.fixture
def open_context(store, tmp_path):
    """A function that opens the context of attempt n of one trial, as its process would."""
    opened, said = [], []

    def make(attempt=1, interval_s=0.0):
        work_dir = tmp_path / f"work{len(opened)}"
        work_dir.mkdir()
        checkpoints = Checkpoints(
            store, "k", claim.holding, attempt=attempt, work_dir=work_dir, interval_s=interval_s, say=said.append
        )
        context = TrialContext(
            store, "k", checkpoints, num_cpus=1, cache_dir=tmp_path / "cache", work_dir=work_dir,
            on_progress=opened.append,
        )  # fmt: skip
        opened.append(context)
        return context

    make.said = said
    with Claim(store, "trials/k") as claim:
        yield make


def rows(store, segments):
    return [row[:3] for segment in segments for row in store.segment("k", segment)]


def test_rows_behind_the_last_checkpoint_never_reach_the_journal(store, open_context):
    context = open_context()
    context.log({"loss": 3.0}, step=0)
    context.offer_checkpoint(lambda folder: (folder / "state").write_text("1"))
    context.log({"loss": 2.5}, step=1)  # the process dies here
    context = open_context(attempt=2)
    assert (context.load_checkpoint() / "state").read_text() == "1"
    context.log({"loss": 2.0}, step=1)
    context.publish({"loss": 2.0}, work_flop=1.0, provenance={})
    result = store.result("k")
    assert rows(store, result.segments) == [["loss", 0, 3.0], ["loss", 1, 2.0]]
    assert result.attempt == 2
    assert result.started_at <= result.ended_at


def test_offers_are_taken_only_when_due(open_context):
    context = open_context(interval_s=3600.0)
    assert not context.offer_checkpoint(lambda folder: pytest.fail("must not be written"))
    assert open_context().offer_checkpoint(lambda folder: (folder / "state").write_text("1"))


def test_a_damaged_checkpoint_falls_back_to_the_one_before(store, open_context):
    context = open_context()
    for number in range(3):
        context.log({"loss": 1.0}, step=number)
        context.offer_checkpoint(lambda folder: (folder / "state").write_text(f"state {number}"))  # noqa: B023
    newest, before = store.generations("k")
    assert len(store.names("trials/k/checkpoints")) == 2
    (tmp := store._at(f"trials/k/{newest.checkpoint}/state"))
    with open(tmp, "w") as file:
        file.write("half")
    context = open_context(attempt=2)
    assert (context.load_checkpoint() / "state").read_text() == "state 1"
    assert newest.checkpoint in open_context.said[0]
    context.publish({}, work_flop=0.0, provenance={})
    assert rows(store, store.result("k").segments) == [["loss", 0, 1.0], ["loss", 1, 1.0]]
    assert before.segments == store.result("k").segments


# -- checkpoints beside the training ------------------------------------------------------------------


@pytest.fixture
def slow_upload(monkeypatch):
    """Holds every upload until it is set; an exception in ``errors`` is raised by the next one."""
    gate, real, errors = threading.Event(), Store.upload, []

    def upload(self, local, path):
        assert gate.wait(20)
        if errors:
            raise errors.pop()
        return real(self, local, path)

    monkeypatch.setattr(Store, "upload", upload)
    gate.errors = errors
    yield gate
    gate.set()


def write_state(number):
    return lambda folder: (folder / "state").write_text(f"state {number}")


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_slow_store_does_not_hold_up_the_training(store, open_context, slow_upload):
    context = open_context(interval_s=1e-6)
    context.log({"loss": 3.0}, step=0)
    begun = time.monotonic()
    assert context.offer_checkpoint(write_state(1))
    context.log({"loss": 2.0}, step=1)
    assert not context.offer_checkpoint(lambda folder: pytest.fail("the one before it is under way"))
    assert time.monotonic() - begun < 5
    assert store.generations("k") == []  # nothing is valid yet
    slow_upload.set()
    wait_until(lambda: store.generations("k"))
    assert rows(store, store.generations("k")[0].segments) == [["loss", 0, 3.0]]
    context.publish({}, work_flop=0.0, provenance={})
    assert rows(store, store.result("k").segments) == [["loss", 0, 3.0], ["loss", 1, 2.0]]


def test_a_kill_during_an_upload_leaves_the_checkpoint_before_it(store, open_context, slow_upload):
    slow_upload.set()
    context = open_context(interval_s=1e-6)
    context.offer_checkpoint(write_state(1))
    wait_until(lambda: store.generations("k"))
    slow_upload.clear()
    wait_until(lambda: context.offer_checkpoint(write_state(2)))  # and here the process ends
    assert (open_context(attempt=2).load_checkpoint() / "state").read_text() == "state 1"


@pytest.mark.parametrize("call", ["offer", "publish"])
def test_an_error_beside_the_training_surfaces_at_the_next_occasion(open_context, slow_upload, call):
    slow_upload.errors.append(OSError("disk full"))
    slow_upload.set()
    context = open_context(interval_s=1e-6)
    assert context.offer_checkpoint(write_state(1))
    wait_until(lambda: not slow_upload.errors)
    calls = {
        "publish": lambda: context.publish({}, work_flop=0.0, provenance={}),
        "offer": lambda: wait_until(lambda: context.offer_checkpoint(write_state(2))),
    }
    with pytest.raises(OSError, match="disk full"):
        calls[call]()


class AtOnce:
    """Executor whose work takes no time."""

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


def test_checkpoints_take_at_most_three_per_cent_of_the_time(open_context, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("orchestrator.checkpoints.time", SimpleNamespace(
        monotonic=lambda: now[0], thread_time=time.thread_time, time=time.time,
    ))  # fmt: skip
    context = open_context(interval_s=10.0)
    context._checkpoints._thread = AtOnce()
    taken = []

    def heavy(folder):
        now[0] += 4.0
        taken.append(now[0])

    while now[0] < 1500:
        now[0] += 1.0
        context.offer_checkpoint(heavy)
    assert taken[0] == pytest.approx(14.0)
    gaps = np.diff(taken)
    assert len(gaps) >= 9
    assert (gaps >= 33 * 4).all()
    assert (gaps <= 33 * 4 + 15).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_metric_fails_with_name_and_step(open_context, value):
    with pytest.raises(NonFiniteMetric, match=r"'train/loss'.*step 7"):
        open_context().log({"train/loss": value}, step=7)


@pytest.mark.parametrize("step", [0.5, True, "3"])
def test_steps_are_integers(open_context, step):
    with pytest.raises(TypeError, match=str(step)):
        open_context().log({"loss": 1.0}, step=step)


@pytest.mark.parametrize("name", ["acc%", "é", "", "a//b", "/a", "../a", "a/", "x" * 231, "val/dice\n"])
def test_a_metric_that_mlflow_would_refuse_is_refused_by_name(open_context, name):
    with pytest.raises(ValueError, match="val/dice") as raised:
        open_context().log({name: 1.0}, step=0)
    assert repr(name) in str(raised.value)
    with pytest.raises(ValueError, match="val/dice"):
        open_context(attempt=2).publish({name: 1.0}, work_flop=0.0, provenance={})


@pytest.mark.parametrize("name", ["val/dice", "a b:c-d_e.f/G9", "x" * 230])
def test_names_that_mlflow_takes_pass(open_context, name):
    _validate_metric_name(name)
    open_context().log({name: 1.0}, step=-(2**63))
    open_context(attempt=2).log({name: 1.0}, step=2**63 - 1)


@pytest.mark.parametrize("step", [2**63, 2**70, -(2**63) - 1])
def test_a_step_beyond_64_bits_is_refused(open_context, step):
    with pytest.raises(ValueError, match=f"step {step} of 'loss'"):
        open_context().log({"loss": 1.0}, step)


def test_a_trainable_has_to_return_metrics(open_context):
    with pytest.raises(TypeError, match="run returned None: expected the summary metrics"):
        open_context().publish(None, work_flop=0.0, provenance={})


def test_map_keeps_finished_items_and_their_order(store, open_context):
    computed = []

    def square(items):
        computed.extend(items)
        if 6 in items and len(computed) == 8:
            raise RuntimeError("killed")
        return [{"square": np.array([i * i]), "name": np.array(f"item {i}")} for i in items]

    with pytest.raises(RuntimeError, match="killed"):
        open_context().map(square, list(range(9)), batch_size=2)
    assert computed == [0, 1, 2, 3, 4, 5, 6, 7]
    computed.extend([None] * 8)
    results = open_context(attempt=2).map(square, list(range(9)), batch_size=2)
    assert computed[16:] == [6, 7, 8]
    assert [int(r["square"][0]) for r in results] == [i * i for i in range(9)]
    assert [str(r["name"]) for r in results] == [f"item {i}" for i in range(9)]


def test_map_refuses_a_wrong_number_of_results(open_context):
    with pytest.raises(ValueError, match="1 results for 2 items"):
        open_context().map(lambda items: [{}], [1, 2], batch_size=2)


@pytest.mark.parametrize("result", [
    None, np.zeros(2), {"a": None}, {"a": [1, None]}, {"a": np.array([None])}, {0: np.zeros(2)},
], ids=repr)  # fmt: skip
def test_map_refuses_what_could_not_be_read_back(open_context, result):
    with pytest.raises(TypeError, match=r"item 1 of the mapped function gave .*expected"):
        open_context().map(lambda items: [{"a": np.zeros(1)} if item == 1 else result for item in items], [1, 2])


@pytest.mark.parametrize("results", [None, 3.0])
def test_map_refuses_results_that_are_no_list(open_context, results):
    with pytest.raises(TypeError, match="expected a list of results"):
        open_context().map(lambda items: results, [1, 2])


# -- run_trial ----------------------------------------------------------------------------------------


def payload_of(trainable, settings, digests=None):
    study, keys = Study("s", "?", {"t": trainable}), Keys(FileDigests())
    if digests:
        keys.files = lambda part: digests
    return Payload(trials_of(study, keys)[-1], settings)


def test_a_trial_is_computed_once_and_reads_its_upstream(store, quick_settings, tmp_path):
    log = tmp_path / "log"
    base = Count(2, log_path=log)
    settings = quick_settings(store)
    for _ in range(2):
        run_trial(payload_of(base, settings))
    run_trial(Payload.decode(payload_of(Count(3, upstream=base), settings).encode()))
    assert log.read_text().splitlines() == ["epoch 0", "epoch 1"]
    key = payload_of(Count(3, upstream=base), settings).trial.key
    assert store.result(key).metrics == {"sum": 5.0}
    assert not list((tmp_path / "cache").glob("trial-*"))


@pytest.mark.parametrize(("trainable", "kind"), [(Diverge(), "invalid"), (Misconfigured(), "invalid")])
def test_a_deterministic_failure_is_recorded_and_not_raised(store, quick_settings, trainable, kind):
    payload = payload_of(trainable, quick_settings(store))
    run_trial(payload)
    failure = store.failure(payload.trial.key)
    assert failure.kind == kind
    assert "in run" in failure.traceback
    assert store.result(payload.trial.key) is None


def test_an_upstream_damaged_meanwhile_is_set_aside_and_blames_nobody(store, quick_settings):
    base = Count(2)
    settings = quick_settings(store)
    run_trial(payload_of(base, settings))
    base_key = payload_of(base, settings).trial.key
    with open(store._at(f"{store.result(base_key).folder}/sum.txt"), "w") as file:
        file.write("7")
    payload = payload_of(Count(3, upstream=base), settings)
    run_trial(payload)
    assert "sum.txt" in store.look(base_key).damage
    assert store.failure(payload.trial.key) is None
    assert "submit again" in last_crash(store, payload.trial.key).message
    run_trial(payload_of(base, settings))
    run_trial(payload)
    assert store.result(payload.trial.key).metrics == {"sum": 5.0}


def test_a_lost_record_of_attempts_does_not_mix_up_the_journal(store, quick_settings, monkeypatch):
    monkeypatch.setattr("orchestrator.context._PROGRESS_S", 0.0)
    payload = payload_of(Count(4), quick_settings(store))

    def die_in_epoch_2(progress):
        if progress.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(payload, die_in_epoch_2)
    with open(store._at(f"trials/{payload.trial.key}/trial.json"), "w") as file:
        file.write("{ garbled")
    run_trial(payload)
    result = store.result(payload.trial.key)
    found = [row[:3] for s in result.segments for row in store.segment(result.key, s)]
    assert found == [["train/sum", epoch, epoch + 1.0] for epoch in range(4)]
    assert result.attempt == 2


def test_a_process_that_was_replaced_touches_nothing_and_waits(store, quick_settings, monkeypatch, tmp_path):
    """Another process takes over in the middle and finishes; this one finds the result and leaves it alone."""
    payload = payload_of(Count(3), quick_settings(store))
    elsewhere = dataclasses.replace(payload.settings, cache_dir=tmp_path / "cache of another machine")
    said = []
    monkeypatch.setattr("orchestrator.context._PROGRESS_S", 0.0)

    def be_replaced(progress):
        if progress.done == 2 and not said:
            said.append("replaced")
            store.remove(f"trials/{payload.trial.key}/claim.json")
            run_trial(Payload(payload.trial, elsewhere))

    run_trial(payload, be_replaced, said.append)
    assert store.result(payload.trial.key).metrics == {"sum": 3.0}
    assert store.result(payload.trial.key).attempt == 2
    assert store.failure(payload.trial.key) is None
    assert any("taken over" in line for line in said)


def test_a_process_that_was_replaced_waits_for_the_one_that_took_over(store, quick_settings, monkeypatch, tmp_path):
    """Or its trial would seem to have ended without a result."""
    monkeypatch.setattr("orchestrator.context._PROGRESS_S", 0.0)
    payload = payload_of(Count(3), quick_settings(store))
    elsewhere = dataclasses.replace(payload.settings, cache_dir=tmp_path / "cache of another machine")
    slower = threading.Thread(target=run_trial, args=(payload_of(Count(3, epoch_s=0.4), elsewhere),))
    claim = f"trials/{payload.trial.key}/claim.json"

    def be_replaced(progress):
        if progress.done == 2 and slower.ident is None:
            store.remove(claim)
            slower.start()
            wait_until(lambda: store.exists(claim))

    run_trial(payload, be_replaced)
    assert store.result(payload.trial.key).metrics == {"sum": 3.0}
    slower.join()


def test_a_process_that_was_replaced_records_no_failure(store, quick_settings, monkeypatch, tmp_path):
    """What it runs into after that, such as a full memory of its own machine, says nothing about the trial."""
    monkeypatch.setattr("orchestrator.context._PROGRESS_S", 0.0)
    settings = dataclasses.replace(quick_settings(store), checkpoint_interval_s=3600.0)
    elsewhere = dataclasses.replace(settings, cache_dir=tmp_path / "cache of another machine")
    payload = payload_of(Grow(4, fail_at=2), settings)
    said = []

    def be_replaced(progress):
        if progress.done == 2 and not said:
            said.append("replaced")
            store.remove(f"trials/{payload.trial.key}/claim.json")
            run_trial(payload_of(Grow(4), elsewhere))

    run_trial(payload, be_replaced, said.append)
    assert store.result(payload.trial.key).metrics == {"sum": 6.0}
    assert (store.failure(payload.trial.key), store.crash(payload.trial.key)) == (None, None)
    assert any("taken over" in line for line in said)


def test_a_trial_that_failed_while_another_waited_is_not_run_again(store, quick_settings, tmp_path):
    payload = payload_of(Flaky(9, log_path=tmp_path / "tries"), quick_settings(store))
    key = payload.trial.key
    waiting = threading.Event()

    def fail(holder):
        waiting.set()

    with Claim(store, f"trials/{key}") as claim:
        thread = threading.Thread(target=run_trial, args=(payload,), kwargs={"say": fail})
        thread.start()
        assert waiting.wait(20)
        store.record_failure(key, Failure("bad configuration", "no", "", 1, 0.0))
        assert claim is not None
    thread.join(20)
    assert not (tmp_path / "tries").exists()
    run_trial(payload)  # nor by the next attempt of the same submission
    assert not (tmp_path / "tries").exists()
    store.clear_failure(key)  # as --retry-failed does
    with pytest.raises(OSError, match="share"):
        run_trial(payload)


def test_studies_of_two_storages_may_share_a_cache_folder(store, quick_settings, tmp_path, monkeypatch):
    """The work of one is not taken for abandoned by the other, whose claims are its own."""
    settings, other = quick_settings(store), Store(str(tmp_path / "other"))
    monkeypatch.setattr("orchestrator.context._PROGRESS_S", 0.0)

    def run_the_other_one(progress):
        if progress.done == 2:
            elsewhere = dataclasses.replace(settings, storage_uri=other.uri)
            run_trial(payload_of(Count(3), elsewhere))

    payload = payload_of(Count(3), settings)
    run_trial(payload, run_the_other_one)
    assert store.result(payload.trial.key).metrics == other.result(payload.trial.key).metrics == {"sum": 3.0}


@pytest.mark.parametrize("call", ["checkpoint", "items", "publish"])
def test_a_process_that_was_replaced_writes_nothing_that_counts(store, open_context, call):
    """The other one is still at work."""
    context = open_context()
    context.log({"loss": 1.0}, step=0)
    store.write_document("trials/k/claim.json", {"token": "another's", "beat": 0})
    calls = {
        "checkpoint": lambda: context.offer_checkpoint(write_state(1)),
        "items": lambda: context.map(lambda items: [{"a": np.array(i)} for i in items], [1, 2, 3]),
        "publish": lambda: context.publish({}, work_flop=0.0, provenance={}),
    }
    with pytest.raises(ClaimLost, match="taken over"):
        calls[call]()
    assert store.generations("k") == []
    assert store.finished() == set()


def test_a_garbled_journal_segment_is_found(store, quick_settings):
    payload = payload_of(Count(2), quick_settings(store))
    run_trial(payload)
    name = store.result(payload.trial.key).segments[0]
    with open(store._at(f"trials/{payload.trial.key}/journal/{name}"), "w") as file:
        file.write('[["train/sum", 0, 7.0, 0]]')
    with pytest.raises(DamagedResult, match=name):
        store.segment(payload.trial.key, name)
    store.remove(f"trials/{payload.trial.key}/journal/{name}")
    assert name in store.look(payload.trial.key).damage


def test_a_file_that_is_not_there_yet_is_no_failure_for_good(store, quick_settings, tmp_path):
    payload = payload_of(ReadsText(path=tmp_path / "late.txt"), quick_settings(store), digests={"text": "0" * 64})
    with pytest.raises(FileNotFoundError):
        run_trial(payload)
    assert store.failure(payload.trial.key) is None
    assert store.crash(payload.trial.key).kind == "crashed"
    (tmp_path / "late.txt").write_text("here")
    run_trial(payload)
    assert store.result(payload.trial.key).metrics == {"length": 4.0}


def test_a_result_tells_what_it_was_computed_on(store, quick_settings):
    payload = payload_of(Count(1), quick_settings(store))
    run_trial(payload)
    made_with = store.result(payload.trial.key).provenance
    assert made_with["code_version"] == "test"
    assert made_with["device"] == "cpu"
    assert made_with["cpu"]
    assert int(made_with["threads"]) >= 1
    assert made_with["version.numpy"] == np.__version__


def test_a_device_is_named_only_where_it_was_used(monkeypatch):
    torch = SimpleNamespace(
        get_num_threads=lambda: 3,
        cuda=SimpleNamespace(is_available=lambda: True, is_initialized=lambda: True, get_device_name=lambda: "H100"),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert {name: machine_provenance()[name] for name in ("device", "threads")} == {"device": "H100", "threads": "3"}
    torch.cuda.is_initialized = lambda: False
    assert machine_provenance()["device"] == "cpu"


def test_a_process_that_slept_while_publishing_leaves_its_successors_result(store, quick_settings, monkeypatch):
    """It wakes up between its last look at the claim and the result: both are whole, the first one stays."""
    payload = payload_of(Count(2), quick_settings(store))
    key, real, calls = payload.trial.key, Store.create_document, []

    def sleeps(self, path, document, **options):
        if path == f"results/{key}.json" and not calls:
            calls.append(path)
            self.remove(f"trials/{key}/claim.json")
            run_trial(payload)
            first.append(self.result(key))
        return real(self, path, document, **options)

    first, said = [], []
    monkeypatch.setattr(Store, "create_document", sleeps)
    run_trial(payload, say=said.append)
    assert store.result(key) == first[0]
    assert store.fetch(key, Path(payload.settings.cache_dir)).name == first[0].token
    assert len(store.names(f"trials/{key}/published")) == 2  # each wrote into a folder of its own
    assert any("published by another process" in line for line in said)


def test_classes_of_failure():
    memory = type("OutOfMemoryError", (RuntimeError,), {})
    errors = [
        NonFiniteMetric("m", math.nan, 1),
        BadData("x", {"f": "r"}),
        memory("cuda"),
        MemoryError(),
        OSError("nfs"),
    ]
    kinds = [failure_kind(error) for error in [*errors, DamagedResult("x"), RuntimeError("odd")]]
    assert kinds == [
        "invalid", "invalid", "out of memory", "out of memory", "crashed", "interrupted", "crashed",
    ]  # fmt: skip
