"""The command line as its user meets it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console

from orchestrator.printing import show_search
from orchestrator.search.points import Suggestion

STUDY = Path(__file__).with_name("toy_study.py")
SEARCH = Path(__file__).with_name("toy_search_study.py")
STUDIES = [(str(path),) for path in sorted((Path(__file__).parents[2] / "studies").glob("[!_]*.py"))]
STUDIES = [study for study in STUDIES if not study[0].endswith(("sources.py", "recipes.py"))]


@pytest.fixture
def call(tmp_path):
    """A function that runs the toy study with flags: (exit status, standard output, standard error)."""

    def make(*flags, command=(str(STUDY),), **environment):
        own = command in [(str(STUDY),), (str(SEARCH),)]
        places = ["--storage", str(tmp_path / "results"), "--log-dir", str(tmp_path)] if own else []
        places += ["--cache-dir", str(tmp_path / "cache")] if own else []
        done = subprocess.run(
            [sys.executable, *command, *places, *flags],
            capture_output=True, text=True, timeout=180, cwd=tmp_path, env={**os.environ, **environment},
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return make


def test_a_study_from_plan_to_report_and_nothing_the_second_time(call, tmp_path):
    code, out, _ = call("--plan", "--json", "--with-failure")
    plan = json.loads(out)
    assert code == 0
    assert {k: plan[k] for k in ("done", "new", "resumable", "blocked", "failed")} == {
        "done": 0, "new": 6, "resumable": 0, "blocked": 0, "failed": 0,
    }  # fmt: skip
    assert {t["name"]: t["state"] for t in plan["trials"]}["tuned / Count"] == "new"
    assert not (tmp_path / "results").exists()

    code, out, err = call("--with-failure")
    assert code == 1, err
    assert "invalid: NonFiniteMetric" in out
    assert "waits for 'diverges', which is failed" in out
    assert "4 of 6 trials are done" in out
    assert "MLflow" not in out.partition("Compare the runs")[0], "MLflow is behind"
    assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/results/mlflow.db" in out
    assert str(tmp_path / "results" / "reports" / "toy" / "part" / "report.html") in out
    first = {path.name: path.read_text() for path in tmp_path.glob("*") if path.is_file()}

    code, out, _ = call("--with-failure")
    assert code == 1
    assert {path.name: path.read_text() for path in tmp_path.glob("*") if path.is_file()} == first
    assert (tmp_path / "results/reports/toy/written").read_text() == "once\n"
    plan = json.loads(call("--plan", "--json", "--with-failure")[1])
    assert (plan["done"], plan["failed"], plan["blocked"]) == (4, 1, 1)
    plan = json.loads(call("--plan", "--json", "--with-failure", "--retry-failed")[1])
    assert (plan["done"], plan["new"]) == (4, 2)
    plan = json.loads(call("--plan", "--json", "--with-failure", "--retry-failed", "crashed", "timed-out")[1])
    assert (plan["done"], plan["failed"], plan["failed_as"]) == (4, 1, {"invalid": 1})
    assert call()[0] == 0

    code, out, _ = call("--storage", str(tmp_path / "results"), command=("-m", "orchestrator", "status"))
    assert "3 done" in out or "4 done" in out
    code, out, _ = call("--storage", str(tmp_path / "results"), "--json", command=("-m", "orchestrator", "status"))
    assert json.loads(out)["studies"][0]["study"] == "toy"


def test_a_search_from_plan_to_best_and_on_from_there(call, tmp_path):
    def search(*flags):
        return call("--pretrain-seeds", "2", "--fails-above", "0.95", *flags, command=(str(SEARCH),))

    plan = json.loads(search("--plan", "--json")[1])
    assert (plan["new"], plan["to_suggest"]) == (1, 8)  # the shared base, and what the search will suggest
    assert plan["estimated_s"] == pytest.approx(
        sum(t["estimated_s"] for t in plan["trials"]) + 8 * plan["suggestion_s"]
    )
    assert not (tmp_path / "results").exists()

    code, out, err = search()
    assert code == 0, out + err
    assert "17 of 17 trials are done" in out
    assert (tmp_path / "base").read_text().splitlines() == ["epoch 0", "epoch 1", "epoch 2"]  # once, for all of them
    lines = (tmp_path / "bowls").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 16
    points = {tuple(line.split()[:2]) for line in lines}
    assert len(points) == 8
    assert ("0.9", "flat") in points
    best = min(points, key=lambda p: (float(p[0]) - 0.3) ** 2 + (p[1] != "flat"))
    assert re.search(rf"Best suggestion\b.*{float(best[0]):.4g} +│ {best[1]}", out, re.DOTALL)

    code, out, _ = search()  # nothing to do
    assert code == 0
    assert (tmp_path / "bowls").read_text().splitlines() == lines

    code, out, _ = search("--num-suggestions", "10", "--plan")
    assert "2 suggestions of the search to come" in out
    code, _, _ = search("--num-suggestions", "10")
    assert code == 0
    more = (tmp_path / "bowls").read_text().splitlines()
    assert more[:16] == lines
    assert len(set(more)) == 20
    _, out, _ = call("--storage", str(tmp_path / "results"), "--json", command=("-m", "orchestrator", "status"))
    (status,) = json.loads(out)["studies"]
    assert status["counts"]["done"] == len(status["trials"]) == 21
    assert (status["suggestions"], status["num_suggestions"]) == (10, 10)
    client = MlflowClient(f"sqlite:///{tmp_path}/results/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("toy_search").experiment_id])
    assert len(runs) == 22
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_search_for_what_no_trial_reports_stops_and_says_so(call, tmp_path):
    for _ in range(2):
        code, out, _ = call("--pretrain-seeds", "1", "--objective", "val/dice", command=(str(SEARCH),))
        assert code == 1
        assert "The search stopped" in out
        assert "no summary metric 'val/dice' (it reports: test/loss, val/loss, val/size)" in out
    assert len((tmp_path / "bowls").read_text().splitlines()) <= 3  # not the eight of its budget


def test_gc_lists_and_removes_only_what_no_study_needs_in_a_folder_of_any_name(call, tmp_path):
    results = tmp_path / "what? 50%20 of #1"
    code, out, err = call("--max-concurrent", "2", "--storage", str(results))
    assert code == 0, err
    assert "warning" not in out + err
    code, out, _ = call("--storage", str(results), command=("-m", "orchestrator", "sync"))
    assert (code, out.split(" at ")[0]) == (0, "toy: 4 trials are in MLflow")
    assert {path.name for path in tmp_path.iterdir()} == {results.name, "cache", "base", "tuned", "other", "items"}
    (results / "trials" / "forgotten").mkdir()
    (results / "trials" / "forgotten" / "big").write_text("x" * 1000)
    needed = {p.name for p in (results / "trials").iterdir()} - {"forgotten"}
    _, out, _ = call("--storage", str(results), command=("-m", "orchestrator", "gc"))
    assert "forgotten" in out
    assert (results / "trials" / "forgotten").exists()
    call("--storage", str(results), "--delete", command=("-m", "orchestrator", "gc"))
    assert {p.name for p in (results / "trials").iterdir()} == needed
    assert json.loads(call("--plan", "--json", "--storage", str(results))[1])["done"] == 4


@pytest.mark.parametrize(
    ("flags", "environment", "said"),
    [
        (["--json"], {}, "--json goes with --plan"),
        (["--plan", "--retry-failed", "crashed", "sometimes"], {}, "sometimes"),
        (["--pretrain-seeds", "0"], {}, "--pretrain-seeds 0"),
        (["--workers-per-trial", "1000"], {}, "CPU: lower --workers-per-trial or --gpus-per-trial"),
        (["--gpus-per-trial", "nan"], {}, "--gpus-per-trial nan: expected 0, a share"),
        (["--gpus-per-trial", "-1"], {}, "--gpus-per-trial -1: expected 0, a share"),
        (["--time-limit", "0"], {}, "--time-limit 0: expected minutes"),
        (["--time-limit", "nan"], {}, "--time-limit nan: expected minutes"),
        (["--address", "http://127.0.0.1:8265"], {}, "ray job submit"),
        (["--address", "nowhere"], {}, "no Ray cluster answers at 'nowhere': Invalid address format: nowhere"),
        (["--storage", "nonsense://x", "--plan"], {}, "nonsense://x"),
        (["--storage", "results"], {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}, "QUARTERTURN_STORAGE"),
        (["--storage", "memory://x"], {"MLFLOW_TRACKING_URI": ""}, "--tracking-uri"),
        (["--tracking-uri", "file:///tmp/mlruns"], {}, "give --tracking-uri sqlite:////path/to/mlflow.db, or http://"),
    ],
)
def test_bad_input_gets_one_clear_line(call, flags, environment, said):
    code, _, err = call(*flags, **environment)
    assert code == 2
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "flags", [["--methods"], ["--methods", "--scale", "smoke"], ["--regions=", "--scale", "smoke"]]
)
def test_a_flag_for_several_values_takes_one_at_least(call, flags):
    code, _, err = call("--plan", *flags, command=(str(STUDY.parents[2] / "studies" / "rotation_period.py"),))
    assert code == 2
    assert re.search("--(methods|regions)", err)
    assert "Traceback" not in err


class FinishedSearch:
    """What is left to say of a search without lengths that has come to its end."""

    stopped_because, num_left, promotions, highest_length = "", 0, (), None

    def __init__(self, *values):
        self._best = [(Suggestion(number, {"x": 0.5}, ()), of_one) for number, of_one in enumerate(values)]

    def best(self):
        return self._best


@pytest.mark.parametrize(
    ("values", "title"),
    [
        ([{"val/dice": 0.5}], "Best suggestion "),
        ([{"val/dice": 0.5}, {"val/dice": 0.5}], "Best suggestions "),
        ([{"val/dice": 0.5, "val/loss": 0.25}], "Pareto front "),
    ],
)
def test_the_best_of_a_search_are_called_what_they_are(values, title, capsys):
    show_search(FinishedSearch(*values), Console(width=80))
    assert capsys.readouterr().out.startswith(title)


def test_status_says_which_manifest_is_garbled_and_takes_the_storage_of_the_environment(call, tmp_path):
    assert call("--storage", str(tmp_path / "results"))[0] == 0
    (manifest,) = (tmp_path / "results" / "studies").glob("*/*.json")
    where = {"QUARTERTURN_STORAGE": str(tmp_path / "results")}
    assert call(command=("-m", "orchestrator", "status"), **where)[0] == 0
    manifest.write_text("{")
    code, _, err = call(command=("-m", "orchestrator", "status"), **where)
    assert code == 1
    assert f"{manifest} is garbled" in err


def test_status_without_results_says_where_it_looked(call, tmp_path):
    code, _, err = call("--storage", str(tmp_path / "none"), command=("-m", "orchestrator", "status"))
    assert code == 2
    assert str(tmp_path / "none") in err
    assert not (tmp_path / "none").exists()


def test_every_flag_has_a_sentence_of_help(call):
    code, out, _ = call("--help")
    assert code == 0
    flags = (
        "--scale --data-root --pretrain-seeds --skip-bad-files --storage --tracking-uri --cache-dir --address "
        "--max-concurrent --workers-per-trial --gpus-per-trial --plan --json --retry-failed"
    )
    for flag in flags.split():
        entry = re.search(rf"{flag}[ ,].*?(?=\n│ --|\n╰)", out, re.DOTALL)
        assert entry, f"{flag} is missing"
        words = re.findall(r"[a-z]{2,}", entry.group().partition("\n")[2] + entry.group()[len(flag) :])
        assert len(words) >= 6, f"{flag} has no help: {entry.group()}"


def test_help_names_no_none_and_no_default_twice(call):
    for command in [(str(STUDY),), ("-m", "orchestrator", "sync"), ("-m", "orchestrator", "gc"), *STUDIES]:
        code, out, _ = call("--help", command=command)
        assert code == 0
        assert "None" not in out
        assert "--no-" not in out
        for entry in re.split(r"\n│ (?=-)", out)[1:]:
            assert len(re.findall(r"\(default:", entry)) <= 1, entry
            assert "(default: False)" not in re.sub(r"[│\s]+", " ", entry)


def without_reader(*command, lines=0, folder):
    """The exit status and standard error of a command whose output nobody reads, or only its first lines."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
    )
    for _ in range(lines):
        process.stdout.readline()
    process.stdout.close()
    _, error = process.communicate(timeout=180)
    return process.returncode, error


def test_a_reader_that_leaves_gets_no_traceback(call, tmp_path):
    study = [STUDY, "--storage", tmp_path / "results", "--log-dir", tmp_path, "--cache-dir", tmp_path / "cache"]
    # In mid run: it ends as after Ctrl-C, and goes on from there.
    assert without_reader(*study, "--epoch-s", "0.5", lines=2, folder=tmp_path) == (141, "")
    assert call("--epoch-s", "0.5")[0] == 0
    lines = [line for name in ("base", "tuned", "other") for line in (tmp_path / name).read_text().splitlines()]
    assert len(lines) < 2 * (6 + 4 + 8)
    where = ["--storage", tmp_path / "results"]
    for command in [
        [STUDY, "--help"],
        [*study, "--plan", "--json"],
        [*study, "--plan"],
        study,
        ["-m", "orchestrator", "--help"],
        ["-m", "orchestrator", "status", *where],
        ["-m", "orchestrator", "status", "--json", *where],
        ["-m", "orchestrator", "gc", *where],
        ["-m", "orchestrator", "sync", *where],
    ]:
        assert without_reader(*command, folder=tmp_path) == (141, ""), command
