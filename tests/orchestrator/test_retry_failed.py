"""Failed trials run again where the command says so: from the flag to results, through a whole submission."""

import contextlib
import sys
from typing import get_args

import pytest
from toy import Count, Mended

from orchestrator import cluster as cluster_module
from orchestrator import submission
from orchestrator.kinds import Kind
from orchestrator.options import RetriedClass, StudyOptions
from orchestrator.plan import make_plan
from orchestrator.printing import make_console, show_troubles
from orchestrator.retries import after
from orchestrator.store import Failure, Store
from orchestrator.study import Study
from trainables.api.identity import FileDigests, Keys


class NoFeeder:
    """MLflow is not what is tested here."""

    is_up_to_date = True

    def __init__(self, *where):
        pass

    def tell(self, key, event):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


@pytest.fixture
def submit(cluster, tmp_path, monkeypatch):
    """A function that submits a study on the tests' cluster with flags: the exit status, and states by name."""
    monkeypatch.setattr(cluster_module, "Cluster", lambda address: contextlib.nullcontext())
    monkeypatch.setattr(submission, "Feeder", NoFeeder)
    monkeypatch.setattr(sys, "argv", ["study.py"])

    def make(trials, **flags):
        study = Study("s", "?", trials)
        options = StudyOptions(storage=str(tmp_path / "results"), cache_dir=tmp_path / "cache", **flags)
        code = submission.submit(options, lambda: study)
        plan = make_plan(study, Store(options.storage), Keys(FileDigests()))
        return code, {p.trial.name: p.state.value for p in plan.planned}

    return make


def test_a_failed_trial_runs_again_when_its_class_is_named_and_frees_what_waited(submit, tmp_path, capsys):
    bad = Mended(tmp_path / "cure")
    trials = {"bad": bad, "after": Count(2, upstream=bad), "other": Count(4)}
    store = Store(str(tmp_path / "results"))
    other = make_plan(Study("s", "?", {"other": Count(4)}), store, Keys(FileDigests())).planned[0].trial.key
    store.record_failure(other, Failure("crash", "the node was odd", "", 4, 0.0))
    failed = {"bad": "failed", "after": "blocked", "other": "failed"}
    assert submit(trials) == (1, failed)
    assert "--retry-failed (here crashed invalid)" in capsys.readouterr().out
    (tmp_path / "cure").touch()
    assert submit(trials) == (1, failed)  # nobody said so
    assert submit(trials, retry_failed=("crashed",)) == (1, {**failed, "other": "done"})
    assert submit(trials, retry_failed=()) == (0, dict.fromkeys(trials, "done"))
    assert store.failure(other) is None


def test_the_flag_takes_each_class_that_ends_a_trial_and_no_other():
    # What is interrupted is no failure: the next submission computes it.
    final = {kind for kind in Kind if after([kind] * 100) is None} - {Kind.INTERRUPTED}
    assert {Kind(name.replace("-", " ")) for name in get_args(RetriedClass)} == final


def test_the_hint_names_only_what_the_flag_takes(tmp_path, capsys):
    store = Store(str(tmp_path / "results"))
    study = Study("s", "?", {"a": Count(1), "b": Count(2)})
    a, b = (p.trial.key for p in make_plan(study, store, Keys(FileDigests())).planned)
    store.record_failure(a, Failure("disk full", "why", "", 1, 0.0))
    store.record_failure(b, Failure("preempted", "why", "", 1, 0.0))
    show_troubles(make_plan(study, store, Keys(FileDigests())), make_console())
    assert capsys.readouterr().out.endswith("with --retry-failed (here disk-full)\n")


def test_the_flag_without_classes_means_all_of_them():
    assert StudyOptions().kinds_to_retry == ()
    assert set(StudyOptions(retry_failed=()).kinds_to_retry) == set(Kind)
    assert StudyOptions(retry_failed=("out-of-memory", "timed-out")).kinds_to_retry == (
        Kind.OUT_OF_MEMORY,
        Kind.TIMED_OUT,
    )
