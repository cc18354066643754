"""How a command ends where files and disks fail it: one line, and no traceback."""

import errno
import os
import sys

import pytest
from toy import Count

from orchestrator import submission
from orchestrator.attempt import Payload
from orchestrator.manifest import ManifestWriter
from orchestrator.options import StudyOptions
from orchestrator.plan import make_plan
from orchestrator.store import Store
from orchestrator.study import Study
from orchestrator.trial import run_trial
from orchestrator.usage import exit_with
from trainables.api.identity import FileDigests, Keys

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/results/x")


class NoFeeder:
    """MLflow is not what is tested here."""

    is_up_to_date = True

    def __init__(self, *where):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


def fail(*arguments, **named):
    raise FULL


@pytest.mark.parametrize(
    "broken",
    [
        (ManifestWriter, "write"),
        (ManifestWriter, "add"),
        (submission, "report_on"),
        (submission._Submission, "catch_up"),
    ],
    ids=lambda broken: broken[1],
)
def test_a_disk_that_is_full_while_a_study_ends_is_said_in_one_line(
    tmp_path, quick_settings, monkeypatch, capsys, broken
):
    store, study = Store(str(tmp_path / "results")), Study("s", "?", {"t": Count(1)})
    for trial in make_plan(study, store, Keys(FileDigests())).runnable():
        run_trial(Payload(trial, quick_settings(store)))
    monkeypatch.setattr(submission, "Feeder", NoFeeder)
    monkeypatch.setattr(sys, "argv", ["study.py"])
    options = StudyOptions(storage=store.uri, cache_dir=tmp_path / "cache")
    monkeypatch.delenv("QUARTERTURN_TRACEBACK", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(*broken, fail)
        with pytest.raises(SystemExit) as ended:
            exit_with(lambda: submission.submit(options, lambda: study))
    assert ended.value.code == 1
    said = "What is done is kept: once that is mended, the same command goes on"
    assert capsys.readouterr().err == f"error: No space left on device: /results/x. {said}\n"
    assert submission.submit(options, lambda: study) == 0


def test_a_traceback_is_there_for_who_asks_for_it(monkeypatch):
    monkeypatch.setenv("QUARTERTURN_TRACEBACK", "1")
    with pytest.raises(OSError, match="No space left"):
        exit_with(fail)
