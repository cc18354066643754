"""The password of an MLflow server is written nowhere: neither into a storage nor into MLflow itself."""

import dataclasses
import sys
from pathlib import Path

import pytest
from toy import Count, Diverge
from tracked import runs_of

from orchestrator import feeder, submission
from orchestrator.attempt import Payload
from orchestrator.options import StudyOptions
from orchestrator.plan import make_plan
from orchestrator.provenance import provenance, without_password
from orchestrator.store import Store
from orchestrator.study import Study
from orchestrator.trial import run_trial
from trainables.api.identity import FileDigests, Keys

PASSWORD = "sEcr3t"
ADDRESS = f"http://somebody:{PASSWORD}@127.0.0.1:9/mlflow"


class FeederHere:
    """Feeds a database in this process, as if it were the server of that address."""

    is_up_to_date = True

    def __init__(self, storage_uri, tracking_uri, study):
        assert tracking_uri == ADDRESS
        self.storage_uri, self.study = storage_uri, study

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        feeder.sync(Store(self.storage_uri), self.study, f"sqlite:///{self.storage_uri}/mlflow.db")


def holders(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]


def test_a_password_in_the_address_of_mlflow_is_written_nowhere(tmp_path, monkeypatch, quick_settings, capsys):
    store = Store(str(tmp_path / "results"))
    study = Study("toy", "Who reads this?", {"t": Count(2), "bad": Diverge()})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ADDRESS)
    settings = dataclasses.replace(quick_settings(store), provenance=provenance())
    for trial in make_plan(study, store, Keys(FileDigests())).runnable():
        run_trial(Payload(trial, settings))
    monkeypatch.setattr(submission, "Feeder", FeederHere)
    monkeypatch.setattr(sys, "argv", ["study.py", "--tracking-uri", ADDRESS, f"--tracking-uri={ADDRESS}?password=q"])
    options = StudyOptions(storage=store.uri, tracking_uri=ADDRESS, cache_dir=tmp_path / "cache")
    assert submission.submit(options, lambda: study) == 1  # one trial has failed
    assert holders(tmp_path) == []
    said = capsys.readouterr()
    assert PASSWORD not in said.out + said.err
    (manifest,) = store.manifests()
    assert manifest["command"].startswith("python study.py --tracking-uri http://127.0.0.1:9/mlflow")
    runs = runs_of(f"sqlite:///{store.uri}/mlflow.db", "toy")[1]
    assert set(runs) == {"t", "bad", "report of toy"}
    assert runs["report of toy"].data.tags["quarterturn.command"] == manifest["command"]


def test_the_search_for_a_password_finds_one(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "document").write_text(f"see {ADDRESS}")
    assert holders(tmp_path) == [tmp_path / "deep" / "document"]


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        ("s3://bucket/me@uni.de/results", "s3://bucket/me@uni.de/results"),
        ("sqlite:////home/me@uni.de/mlflow.db", "sqlite:////home/me@uni.de/mlflow.db"),
        ("http://me:p@ss@uni.de:5000/a@b", "http://uni.de:5000/a@b"),
        ("postgresql://me:secret@db/x?password=secret&y=1", "postgresql://db/x?password=...&y=1"),
        ("--to=http://me@a/x http://you@b?c@d", "--to=http://a/x http://b?c@d"),
    ],
)
def test_only_what_stands_before_a_host_is_taken_for_a_password(given, recorded):
    assert without_password(given) == recorded
