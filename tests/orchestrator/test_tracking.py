"""MLflow says what the store says: one run a trial, every row once, whatever happened on the way."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from toy import Count, Diverge, Squares
from tracked import first_runnable, history, runs_of

from orchestrator import commands, feeder, printing, publishing
from orchestrator.attempt import Payload
from orchestrator.experiment import Experiment
from orchestrator.plan import make_plan
from orchestrator.provenance import without_password
from orchestrator.store import Generation
from orchestrator.study import Study
from orchestrator.trial import run_trial
from orchestrator.trial_runs import KEY_TAG
from trainables.api.identity import FileDigests, Keys


def test_a_study_is_one_run_a_trial_and_one_for_its_report(submitted, database, tmp_path):
    base = Count(3)
    store, name = submitted({"tune": Count(2, upstream=base), "bad": Diverge()})
    for _ in range(3):
        assert feeder.sync(store, name, database) == (3, 0)
    client, runs = runs_of(database, name)
    assert set(runs) == {f"report of {name}", "tune", "tune / Count", "bad"}
    report = runs.pop(f"report of {name}")
    assert {run.data.tags["kind"] for run in runs.values()} == {"trial"}
    assert not any("mlflow.parentRunId" in run.data.tags for run in [report, *runs.values()])
    assert len({run.data.tags[KEY_TAG] for run in runs.values()}) == 3
    tune = runs["tune"]
    assert tune.info.status == "FINISHED"
    assert runs["bad"].info.status == "FAILED"
    assert "'train/loss' is nan at step 2" in runs["bad"].data.tags["quarterturn.failure"]
    assert history(client, tune, "train/sum") == [(0, 4.0), (1, 5.0)]
    assert tune.data.metrics == {"train/sum": 5.0, "sum/summary": 5.0}
    assert tune.data.params["upstream.num_epochs"] == "3"
    assert tune.data.tags["quarterturn.code_version"] == "test"
    assert report.data.tags["quarterturn.scale"] == "smoke"
    assert report.data.tags["mlflow.note.content"] == "Does it track?"
    assert report.info.status == "FAILED"
    shown = client.download_artifacts(tune.info.run_id, "configuration.json", str(tmp_path))
    assert json.loads(Path(shown).read_text())["upstream"]["num_epochs"] == 3
    assert [a.path for a in client.list_artifacts(tune.info.run_id)] == ["configuration.json", "sum.csv"]


def test_rows_arrive_while_a_trial_runs_and_never_twice(submitted, database, quick_settings):
    trials = {"t": Count(4)}
    store, name = submitted(trials, n=0)

    def die_after_two(progress):
        if progress.done == 3:
            raise KeyboardInterrupt

    import orchestrator.context as context

    payload = Payload(
        make_plan(Study(name, "?", trials), store, Keys(FileDigests())).runnable()[0], quick_settings(store)
    )
    pace, context._PROGRESS_S = context._PROGRESS_S, 0.0
    try:
        with pytest.raises(KeyboardInterrupt):
            run_trial(payload, die_after_two)
    finally:
        context._PROGRESS_S = pace
    feeder.sync(store, name, database)
    client, runs = runs_of(database, name)
    assert history(client, runs["t"], "train/sum") == [(0, 1.0), (1, 2.0)]
    assert runs["t"].info.status == "RUNNING"
    run_trial(payload)
    feeder.sync(store, name, database)
    # As if nobody knew what was published, and even the tag on the run had been lost.
    store.remove(f"studies/{name}/publishers")
    client.set_tag(runs["t"].info.run_id, "quarterturn.state", "")
    client.set_tag(runs["t"].info.run_id, "quarterturn.last_segment", "")
    feeder.sync(store, name, database)
    client, runs = runs_of(database, name)
    assert history(client, runs["t"], "train/sum") == [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)]
    assert runs["t"].data.tags["quarterturn.attempt"] == "2"


def test_a_second_run_of_a_key_is_reconciled(submitted, database):
    store, name = submitted({"t": Count(2)})
    feeder.sync(store, name, database)
    client, runs = runs_of(database, name)
    tags = {**runs["t"].data.tags, "mlflow.runName": "twin"}
    twin = client.create_run(runs["t"].info.experiment_id, tags=tags)
    store.remove(f"studies/{name}/publishers")
    feeder.sync(store, name, database)
    _, runs = runs_of(database, name)
    assert set(runs) == {f"report of {name}", "t"}
    assert client.get_run(twin.info.run_id).info.lifecycle_stage == "deleted"


def test_a_new_database_is_filled_from_the_store(submitted, database, tmp_path):
    store, name = submitted({"t": Count(2)})
    feeder.sync(store, name, database)
    client, runs = runs_of(database, name)
    client.delete_run(runs["t"].info.run_id)
    # As if it were another database under the same address.
    client.set_experiment_tag(runs["t"].info.experiment_id, "quarterturn.instance", "another")
    assert feeder.follow(store, name, database, io.StringIO(""))
    client, runs = runs_of(database, name)
    assert history(client, runs["t"], "train/sum") == [(0, 1.0), (1, 2.0)]


def test_a_result_that_was_computed_again_has_one_history(submitted, database, quick_settings):
    trials = {"t": Count(2)}
    store, name = submitted(trials)
    feeder.sync(store, name, database)
    (key,) = store.names("trials")
    store.set_aside(key)
    run_trial(
        Payload(make_plan(Study(name, "?", trials), store, Keys(FileDigests())).runnable()[0], quick_settings(store))
    )
    feeder.sync(store, name, database)
    client, runs = runs_of(database, name)
    assert set(runs) == {f"report of {name}", "t"}
    assert history(client, runs["t"], "train/sum") == [(0, 1.0), (1, 2.0)]


@pytest.mark.parametrize("call", ["log_batch", "set_terminated"])
def test_an_error_in_the_middle_of_a_run_is_made_good(submitted, database, monkeypatch, call):
    store, name = submitted({"t": Count(2)})
    real, calls = getattr(MlflowClient, call), []

    def fail_once(self, *arguments, **named):
        calls.append(named)
        if len(calls) == 1:
            raise TimeoutError("gateway")
        return real(self, *arguments, **named)

    monkeypatch.setattr(MlflowClient, call, fail_once)
    with pytest.raises(TimeoutError):
        feeder.sync(store, name, database)
    feeder.sync(store, name, database)
    client, runs = runs_of(database, name)
    assert set(runs) == {f"report of {name}", "t"}
    assert runs["t"].info.status == "FINISHED"
    assert history(client, runs["t"], "train/sum") == [(0, 1.0), (1, 2.0)]
    assert runs["t"].data.params["num_epochs"] == "2"
    assert {a.path for a in client.list_artifacts(runs["t"].info.run_id)} == {"configuration.json", "sum.csv"}


@pytest.mark.parametrize("call", ["log_batch", "set_terminated"])
def test_a_publication_cut_short_and_a_result_computed_again_leave_one_history(
    submitted, database, quick_settings, monkeypatch, call
):
    trials = {"t": Count(2)}
    store, name = submitted(trials)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, timed_out)
        with pytest.raises(TimeoutError):
            feeder.sync(store, name, database)
    (key,) = store.names("trials")
    store.set_aside(key)
    run_trial(Payload(first_runnable(store, name, trials), quick_settings(store)))
    feeder.sync(store, name, database)
    client, runs = runs_of(database, name)
    assert set(runs) == {f"report of {name}", "t"}
    assert history(client, runs["t"], "train/sum") == [(0, 1.0), (1, 2.0)]


def timed_out(*arguments, **named):
    raise TimeoutError("gateway")


def test_a_damaged_journal_does_not_hold_up_the_others(submitted, database):
    store, name = submitted({"good": Count(2), "bad": Count(3)})
    entries = {t["name"]: t["key"] for t in next(store.manifests())["trials"]}
    segment = store.result(entries["bad"]).segments[0]
    with open(store._at(f"trials/{entries['bad']}/journal/{segment}"), "w") as file:
        file.write("[]")
    assert feeder.follow(store, name, database, io.StringIO(""))
    assert "good" in runs_of(database, name)[1]
    assert store.result(entries["bad"]) is None


def test_a_damaged_journal_of_an_unfinished_trial_says_nothing_of_its_result(submitted, database):
    store, name = submitted({"t": Count(2)})
    (result,) = (store.result(key) for key in store.finished())
    store.remove(f"results/{result.key}.json")  # as it is before its end
    store.write_generations(result.key, [Generation("1", segments=result.segments, started_at=1.0)])
    store.write_bytes(f"trials/{result.key}/journal/{result.segments[0]}", b"[]")
    assert feeder.follow(store, name, database, io.StringIO(""))
    assert store.names("damaged") == []
    assert "t" not in runs_of(database, name)[1]


def test_the_end_of_a_submission_names_its_work_and_the_page_with_the_charts(submitted, database, capsys, monkeypatch):
    store, name = submitted({"t": Count(2)})
    assert publishing.known_of(store, name, database).charts == ""
    feeder.sync(store, name, database)
    charts = publishing.known_of(store, name, database).charts
    number = MlflowClient(tracking_uri=database).get_experiment_by_name(name).experiment_id
    assert charts == f"/#/experiments/{number}/runs?workflowType=machine_learning&compareRunsMode=CHART"
    plan = make_plan(Study(name, "?", {"t": Count(2)}), store, Keys(FileDigests()))
    monkeypatch.setattr(type(plan), "finished_s", lambda self: 41.6)
    console = printing.make_console()
    printing.show_end(plan, ["/r/report.html"], "http://u:secret@host:5000/", charts, console)
    printing.show_end(plan, [], "sqlite:////a b.db", charts, console)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{name}: 1 of 1 trials are done, after 42 s of work, summed over workers"
    assert said[1:3] == ["  /r/report.html", f"Compare the runs in MLflow: http://host:5000{charts}"]
    assert said[4:] == [
        "Compare the runs in MLflow: mlflow ui --backend-store-uri 'sqlite:////a b.db'",
        f"  then http://127.0.0.1:5000{charts}",
    ]


def test_no_password_is_shown(submitted, monkeypatch, capsys):
    monkeypatch.setattr(feeder, "_PATIENCE_S", 0.1)
    store, name = submitted({"t": Count(2)})
    assert not feeder.follow(store, name, "http://user:sEcr@et@127.0.0.1:9", io.StringIO(""))
    assert "sEcr" not in capsys.readouterr().err
    assert without_password("see http://u:p@ss@h/x?password=q&a=1 now") == "see http://h/x?password=...&a=1 now"


def test_a_server_that_is_down_loses_nothing(submitted, database, monkeypatch, capsys):
    monkeypatch.setattr(feeder, "_PATIENCE_S", 0.5)
    monkeypatch.setattr(feeder, "_LONGEST_PAUSE_S", 0.2)
    store, name = submitted({"t": Count(2)})
    line = json.dumps(["ended", next(iter(store.names("trials")))]) + "\n"
    assert not feeder.follow(store, name, "http://127.0.0.1:9", io.StringIO(line))
    assert "MLflow is behind" in capsys.readouterr().err
    assert feeder.follow(store, name, database, io.StringIO(line))
    client, runs = runs_of(database, name)
    assert history(client, runs["t"], "train/sum") == [(0, 1.0), (1, 2.0)]


def test_long_histories_arrive_whole(submitted, database, tmp_path):
    (tmp_path / "log").touch()
    store, name = submitted({"squares": Squares(2500, 500, log_path=tmp_path / "log")})
    feeder.sync(store, name, database)
    client, runs = runs_of(database, name)
    assert history(client, runs["squares"], "square") == [(i, float(i * i)) for i in range(2500)]


def test_the_only_data_set_of_a_search_needs_no_label(submitted, database):
    data = {"data": {"LungMask": "ab" * 32}, "images": ["LungMask"], "labels": {}}
    store, name = submitted({"t": Count(2)}, fields={"t": data}, cards={"lung_mask": {"name": "lung_mask"}})
    feeder.sync(store, name, database)
    (found,) = runs_of(database, name)[1]["t"].inputs.dataset_inputs
    assert (found.dataset.name, json.loads(found.dataset.profile)) == ("lung_mask", {"name": "lung_mask"})


def test_two_data_sets_of_one_trial_keep_their_own_names(submitted, database):
    here = {"data": {"MNI152": "ab" * 32, "Folder": "cd" * 32}, "images": ["MNI152", "Folder"]}
    own = {"data": {"Folder": "cd" * 32}, "images": ["Folder"], "labels": {"data": "folder-a"}}
    fields = {"across": {**here, "labels": {"data": "mni152"}}, "own": own}
    cards = {"mni152": {"name": "mni152"}, "folder-a": {"name": "folder-a"}}
    store, name = submitted({"across": Count(2), "own": Count(3)}, fields=fields, cards=cards)
    feeder.sync(store, name, database)
    found = [one.dataset.name for one in runs_of(database, name)[1]["across"].inputs.dataset_inputs]
    assert sorted(found) == ["MNI152", "folder-a"]


def test_data_source_commit_and_user_stand_where_mlflow_keeps_them(submitted, database):
    data = {
        "data": {"Slices": "ab" * 32, "SliceMask": "cd" * 32, "ReleasedWeights": "ef" * 32},
        "images": ["Slices"],
        "labels": {"data": "folder-my scans"},
        "configuration": {"class": "Count", "data": {"class": "Slices", "root": "/d"}},
    }
    cards = {name: {"name": name, "num_groups": n} for name, n in [("mni152", 9), ("folder-my scans", 3)]}
    pretraining = {**data, "labels": {}}
    store, name = submitted({"t": Count(2), "p": Count(3)}, fields={"t": data, "p": pretraining}, cards=cards)
    feeder.sync(store, name, database)
    runs = runs_of(database, name)[1]
    for run in (runs["p"], runs["t"]):
        (dataset,) = [one.dataset for one in run.inputs.dataset_inputs]
        assert (dataset.name, dataset.digest, dataset.source_type) == ("folder-my scans", "ab" * 6, "content")
        assert json.loads(dataset.source) == {"uri": "/d", "content": "ab" * 32}
        assert json.loads(dataset.profile)["num_groups"] == 3
    assert json.loads(run.data.tags["quarterturn.data_fingerprint"]) == data["data"], "masks and weights are tags"
    source = {name: value for name, value in run.data.tags.items() if name.startswith(("mlflow.source", "mlflow.user"))}
    assert source == {
        "mlflow.source.name": "x.py", "mlflow.source.type": "LOCAL", "mlflow.source.git.commit": "test",
        "mlflow.user": "someone",
    }  # fmt: skip


@pytest.mark.parametrize("row", [["acc%", 0, 1.0, 1], ["é", 0, 1.0, 1], ["loss", 2**70, 1.0, 1]])
def test_a_trial_that_mlflow_refuses_does_not_hold_up_the_others(submitted, database, row, capsys):
    store, name = submitted({"bad": Count(3), "good": Count(2)})
    entries = {t["name"]: t["key"] for t in next(store.manifests())["trials"]}
    result = store.result(entries["bad"])
    segments = [*result.segments, store.write_segment(result.key, "x", [row])]
    store.remove(f"results/{result.key}.json")
    assert store.publish(dataclasses.replace(result, segments=segments))
    assert feeder.sync(store, name, database) == (1, 1)
    assert set(runs_of(database, name)[1]) == {f"report of {name}", "good"}
    assert f"MLflow lacks bad ({result.key[:8]}): " in capsys.readouterr().err
    assert commands.sync(store.uri, tracking_uri=database, study=name) == 1
    assert f"{name}: 1 trials are in MLflow" in capsys.readouterr().out
    store.remove(f"studies/{name}/publishers")
    assert not feeder.follow(store, name, database, io.StringIO(""))


def test_a_trial_that_fails_for_no_clear_reason_is_tried_thrice_and_passed_over(
    submitted, database, monkeypatch, capsys
):
    monkeypatch.setattr(feeder, "_LONGEST_PAUSE_S", 0.0)
    store, name = submitted({"bad": Count(3), "good": Count(2)})
    (bad,) = [t["key"] for t in next(store.manifests())["trials"] if t["name"] == "bad"]
    tries = []

    def unlucky(self, run, name, document):
        if run.data.tags[KEY_TAG] == bad:
            tries.append(run)
            raise RuntimeError("how odd")
        return real_log(self, run, name, document)

    real_log = Experiment.log_document
    monkeypatch.setattr(Experiment, "log_document", unlucky)
    assert not feeder.follow(store, name, database, io.StringIO(""))
    assert len(tries) == 3
    assert set(runs_of(database, name)[1]) == {f"report of {name}", "good"}
    assert "MLflow lacks bad" in capsys.readouterr().err


def test_two_drivers_with_an_mlflow_each_feed_both(submitted, database, tmp_path):
    store, name = submitted({"t": Count(2)})
    other = f"sqlite:///{tmp_path}/other.db"
    with feeder.Claim(store, publishing.publisher(name, database)):  # the other driver's feeder is at work
        assert feeder.follow(store, name, other, io.StringIO(""))
    assert "t" in runs_of(other, name)[1]
    feeder.sync(store, name, database)
    known = [publishing.known_of(store, name, uri) for uri in (database, other)]
    assert [list(k.tokens) for k in known] == [store.names("trials")] * 2
    assert known[0].instance != known[1].instance
