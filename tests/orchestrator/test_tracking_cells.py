"""A cell has one run in MLflow, newer than its trials', with the mean of what they measured; so has the report."""

import dataclasses
import io
import statistics
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from toy import Count, Squares
from tracked import history, runs_of, submit

from orchestrator import feeder, summary_runs
from orchestrator.attempt import Payload
from orchestrator.cells import cells_of, means_of
from orchestrator.plan import make_plan
from orchestrator.publishing import known_of
from orchestrator.store import DamagedResult, FileEntry
from orchestrator.study import Study
from orchestrator.tracking import Tracker
from orchestrator.trial import run_trial
from trainables.api.identity import FileDigests, Keys, sha256_of
from trainables.api.names import cell_name


def in_cell(cell, role, seed, **labels):
    return {"cell": cell, "role": role, "labels": labels, "seeds": {"increment": seed, "num_epochs": 2}}


THREE = {f"t{i}": Count(2, i) for i in (1, 2, 6)}
CELLS = {f"t{i}": in_cell("c1", "trained", i, data="brats", region="white_matter") for i in (1, 2, 6)}
CELL = "trained · brats · white matter"
ONE = {"u": Count(3)}
CELLS_WITH_ONE = {**CELLS, "u": in_cell("c2", "untrained", 0, data="brats")}


def run_rest(store, settings, name, trials):
    for trial in make_plan(Study(name, "?", trials), store, Keys(FileDigests())).runnable():
        run_trial(Payload(trial, settings))


def newest_first(database, name):
    client = MlflowClient(tracking_uri=database)
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
    return [run.info.run_name for run in runs]


def test_a_cell_shows_mean_and_std_of_its_trials_at_every_step(submitted, database):
    store, name = submitted(THREE, fields=CELLS)
    for _ in range(3):
        feeder.sync(store, name, database)
    client, runs = runs_of(database, name)
    assert set(runs) == {CELL, "t1", "t2", "t6", f"report of {name}"}
    assert known_of(store, name, database).charts.endswith("&searchFilter=tags.kind%20%3D%20%22cell%22")
    cell = runs[CELL]
    assert history(client, cell, "train/sum") == [(0, 3.0), (1, 6.0)]
    std = statistics.stdev([1, 2, 6])
    assert history(client, cell, "std/train/sum") == [(0, pytest.approx(std)), (1, pytest.approx(2 * std))]
    assert cell.data.metrics["sum/summary"] == 6.0
    assert cell.data.metrics["std/sum/summary"] == pytest.approx(2 * std)
    assert cell.data.metrics["n"] == 3
    assert cell.data.params == {"class": "Count", "num_epochs": "2", "epoch_s": "0.0"}  # without the seed
    wanted = {"kind": "cell", "role": "trained", "data": "brats", "region": "white_matter", "mlflow.user": "someone"}
    assert wanted.items() <= cell.data.tags.items()
    assert cell.data.tags["mlflow.note.content"] == "Mean of 3 trials over increment."
    assert cell.info.status == "FINISHED"


def test_a_cell_is_made_anew_when_another_trial_has_finished(submitted, database, quick_settings):
    store, name = submitted(THREE, n=2, fields=CELLS)
    feeder.sync(store, name, database)
    client, runs = runs_of(database, name)
    first = runs[CELL]
    assert (first.data.metrics["n"], first.data.tags["quarterturn.wanted"]) == (2, "3")
    assert first.data.tags["mlflow.note.content"] == (
        'Mean of 2 of 3 trials over increment; missing: {"increment": 6}.'
    )
    assert history(client, first, "train/sum") == [(0, 1.5), (1, 3.0)]
    feeder.sync(store, name, database)
    assert runs_of(database, name)[1][CELL].info.run_id == first.info.run_id
    run_rest(store, quick_settings(store), name, THREE)
    assert feeder.follow(store, name, database, io.StringIO(""))
    client, runs = runs_of(database, name)
    assert runs[CELL].data.metrics["n"] == 3
    assert history(client, runs[CELL], "train/sum") == [(0, 3.0), (1, 6.0)]
    assert client.get_run(first.info.run_id).info.lifecycle_stage == "deleted"
    assert len(newest_first(database, name)) == 5


def test_cells_stand_above_the_report_and_that_above_the_trials(submitted, database, quick_settings):
    store, name = submitted({**THREE, **ONE}, fields=CELLS_WITH_ONE)
    feeder.sync(store, name, database)
    top = [CELL, "untrained · brats", f"report of {name}"]
    assert newest_first(database, name)[:3] == top
    # A later submission adds a trial, which began after all that.
    more = {**THREE, **ONE, "late": Squares(2, log_path=Path(store.uri) / "log")}
    submit(store, quick_settings(store), name, more, fields=CELLS_WITH_ONE, file="later")
    feeder.sync(store, name, database)
    assert newest_first(database, name)[:4] == [*top, "late"]
    before = runs_of(database, name)[1]
    feeder.sync(store, name, database)
    after = runs_of(database, name)[1]
    assert {n: run.info.run_id for n, run in before.items()} == {n: run.info.run_id for n, run in after.items()}


def test_the_order_of_cells_holds_within_one_tick_of_a_slow_clock(submitted, database, monkeypatch):
    monkeypatch.setattr(summary_runs, "_now_ms", lambda: 1)
    store, name = submitted({**THREE, **ONE}, fields=CELLS_WITH_ONE)
    feeder.sync(store, name, database)
    assert newest_first(database, name)[:3] == [CELL, "untrained · brats", f"report of {name}"]


def test_a_cell_that_was_not_ended_is_made_anew(submitted, database):
    store, name = submitted(THREE, fields=CELLS)
    feeder.sync(store, name, database)
    client, runs = runs_of(database, name)
    client.update_run(runs[CELL].info.run_id, status="RUNNING")
    feeder.sync(store, name, database)
    assert runs_of(database, name)[1][CELL].info.status == "FINISHED"


def test_cells_have_colours_that_can_be_told_apart(submitted, database):
    store, name = submitted({**THREE, **ONE}, fields=CELLS_WITH_ONE)
    feeder.sync(store, name, database)
    runs = runs_of(database, name)[1]
    colours = [runs[cell].data.tags["mlflow.runColor"] for cell in (CELL, "untrained · brats")]
    assert colours == ["#4e79a7", "#f28e2b"]


def test_a_single_trial_is_a_cell_where_it_has_a_role(submitted, database):
    fields = {"u": in_cell("c2", "fixed map", 0, data="brats"), "v": in_cell("c3", "", 0)}
    store, name = submitted({"u": Count(3), "v": Count(4)}, fields=fields)
    feeder.sync(store, name, database)
    client, runs = runs_of(database, name)
    assert set(runs) == {"fixed map · brats", "u", "v", f"report of {name}"}
    cell = runs["fixed map · brats"]
    assert history(client, cell, "train/sum") == [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert cell.data.metrics == {"train/sum": 3.0, "sum/summary": 3.0, "n": 1.0}
    assert cell.data.tags["mlflow.note.content"] == "One trial: no spread is known."


def test_cells_without_a_role_come_last_under_what_their_names_share():
    def entry(key, name, cell, role=""):
        return {"key": key, "name": name, "class": "MoCo", "cell": cell, "role": role, "labels": {}}

    entries = [
        entry("a", "pretraining, seed 0", "p"), entry("b", "pretraining, seed 1", "p"), entry("c", "x", "q"),
        entry("d", "y", "r", "trained"), entry("d", "z", "r", "trained"), {"key": "e", "name": "old", "class": "MoCo"},
    ]  # fmt: skip
    cells = cells_of({"trials": entries})
    assert [(cell.name, cell.keys) for cell in cells] == [("trained", ["d"]), ("pretraining", ["a", "b"])]
    held = [entry(key, f"mni152 · trained, seed {n} / MoCo", "p") for n, key in enumerate("ab")]
    assert [cell.name for cell in cells_of({"trials": held})] == ["mni152 · trained / MoCo"]
    assert cell_name("fixed map", {"data": "mni152", "region": "", "sweep": "a_b"}) == "fixed map · a b · mni152"


def test_a_step_that_one_trial_lacks_has_no_mean(submitted):
    store, _ = submitted({"a": Count(2), "b": Count(3)}, fields={n: in_cell("c", "r", n) for n in "ab"})
    (cell,) = cells_of(next(store.manifests()))
    means = means_of(store, cell, dict.fromkeys(cell.keys, "done:"))
    assert [row[:3] for row in means.rows if not row[0].startswith("std/")] == [
        ("train/sum", 0, 1.0), ("train/sum", 1, 2.0),
    ]  # fmt: skip
    assert means.summary["sum/summary"] == 2.5


@pytest.mark.parametrize("call", ["create_run", "log_batch", "set_terminated", "delete_run"])
def test_a_cell_that_was_cut_short_has_one_whole_run_afterwards(submitted, database, quick_settings, monkeypatch, call):
    store, name = submitted(THREE, n=2, fields=CELLS)
    feeder.sync(store, name, database)
    run_rest(store, quick_settings(store), name, THREE)
    real = getattr(MlflowClient, call)
    calls = []

    def times_out_after_the_commit(self, *arguments, **named):
        done = real(self, *arguments, **named)
        calls.append(call)
        if len(calls) == 2 or call == "delete_run":  # the first is the trial's own run
            raise TimeoutError("gateway")
        return done

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, times_out_after_the_commit)
        with pytest.raises(TimeoutError):
            feeder.sync(store, name, database)
    feeder.sync(store, name, database)
    client, runs = runs_of(database, name)
    assert sorted(newest_first(database, name)) == sorted([CELL, "t1", "t2", "t6", f"report of {name}"])
    assert history(client, runs[CELL], "train/sum") == [(0, 3.0), (1, 6.0)]
    assert runs[CELL].data.params["num_epochs"] == "2"


def test_a_damaged_member_does_not_hold_up_other_cells(submitted, database, capsys):
    store, name = submitted({**THREE, **ONE}, fields=CELLS_WITH_ONE)
    (cell, _) = cells_of(next(store.manifests()))
    store.remove(f"results/{cell.keys[0]}.json")
    with pytest.raises(DamagedResult, match=cell.keys[0]):
        means_of(store, cell, dict.fromkeys(cell.keys, "done:"))
    feeder.sync(store, name, database)
    runs = runs_of(database, name)[1]
    assert runs[CELL].data.metrics["n"] == 2
    assert runs["untrained · brats"].data.metrics["n"] == 1


def test_a_mean_that_cannot_be_shown_is_said_once_and_its_trial_is_to_run_again(
    submitted, database, quick_settings, capsys
):
    store, name = submitted({**THREE, **ONE}, fields=CELLS_WITH_ONE)
    manifest = next(store.manifests())
    cell, other = cells_of(manifest)
    damaged = store.result(cell.keys[0])
    store.write_bytes(f"trials/{damaged.key}/journal/{damaged.segments[0]}", b"[]")
    tracker, tokens = Tracker(database, name), dict.fromkeys([*cell.keys, *other.keys], "done:1:")
    for _ in range(2):
        tracker.describe_study(store, manifest, tokens, None, has_ended=False)
    said = capsys.readouterr().err
    assert said.count(f"the mean of {CELL} cannot be shown") == 1
    assert damaged.segments[0] in store.look(damaged.key).damage
    assert set(runs_of(database, name)[1]) == {"untrained · brats", f"report of {name}"}
    store.settle_damage(damaged.key)
    run_rest(store, quick_settings(store), name, THREE)
    tokens[damaged.key] = "done:2:"
    tracker.describe_study(store, manifest, tokens, None, has_ended=False)
    assert runs_of(database, name)[1][CELL].data.metrics["n"] == 3


def write_report(store, name, text):
    folder = Path(store.uri) / "reports" / name
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    files = {"report.html": text, "figures/wave.svg": "<svg/>"}
    for file, content in files.items():
        (folder / file).write_text(content)
    entries = {f: FileEntry(sha256_of(folder / f), (folder / f).stat().st_size) for f in files}
    document = {
        "token": text,
        "paths": ["report.html"],
        "files": {f: dataclasses.asdict(e) for f, e in entries.items()},
    }
    store.write_document(f"reports/{name}/made_from.json", document)


def test_the_newest_report_is_an_artifact_of_its_run(submitted, database, tmp_path):
    store, name = submitted(ONE, fields=CELLS_WITH_ONE)
    for text in ("first", "second"):
        write_report(store, name, text)
        feeder.sync(store, name, database)
        client, runs = runs_of(database, name)
        run = runs[f"report of {name}"]
        assert run.data.tags["kind"] == "report"
        shown = client.download_artifacts(run.info.run_id, "", str(tmp_path))
        assert (Path(shown) / "report.html").read_text() == text
        assert (Path(shown) / "figures" / "wave.svg").read_text() == "<svg/>"
        assert newest_first(database, name) == ["untrained · brats", f"report of {name}", "u"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["quarterturn.trials_done"] == "1"
    experiment = client.get_experiment_by_name(name)
    note = experiment.tags["mlflow.note.content"]
    assert note.startswith("Does it track?")
    assert f"#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}" in note
    all_runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY)
    assert len(all_runs) == 3


def test_a_note_that_a_person_wrote_stays(submitted, database):
    store, name = submitted(ONE)
    feeder.sync(store, name, database)
    client = MlflowClient(tracking_uri=database)
    experiment_id = client.get_experiment_by_name(name).experiment_id
    client.set_experiment_tag(experiment_id, "mlflow.note.content", "Mine.")
    submitted({**ONE, **THREE})
    feeder.sync(store, name, database)
    assert client.get_experiment(experiment_id).tags["mlflow.note.content"] == "Mine."


def test_an_unfinished_study_says_so_in_its_report_run(submitted, database):
    store, name = submitted(THREE, n=1, fields=CELLS)
    feeder.sync(store, name, database)
    run = runs_of(database, name)[1][f"report of {name}"]
    assert run.info.status == "KILLED"
    counts = {n: run.data.tags[f"quarterturn.trials_{n}"] for n in ("done", "running", "failed", "waiting")}
    assert counts == {"done": "1", "running": "0", "failed": "0", "waiting": "2"}
