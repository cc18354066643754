"""Where a submission reads and writes."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import places
from orchestrator.places import check_writable, storage_of
from orchestrator.snapshot import artifact_root, sqlite_path, tracking_uri_of
from orchestrator.store import Store
from orchestrator.usage import UsageError

STUDY = Path(__file__).with_name("toy_study.py")


def test_a_storage_is_what_was_given_else_the_variable_else_results(monkeypatch):
    monkeypatch.delenv("QUARTERTURN_STORAGE", raising=False)
    assert storage_of(None) == "results"
    monkeypatch.setenv("QUARTERTURN_STORAGE", "/elsewhere")
    assert (storage_of(None), storage_of("here")) == ("/elsewhere", "here")


def test_writable_places_are_left_as_they_were(tmp_path):
    check_writable(Store(str(tmp_path / "a" / "results")), tmp_path / "b" / "cache")
    assert list(tmp_path.iterdir()) == []
    check_writable(Store("memory://probe"), tmp_path / "cache")
    assert Store("memory://probe").names("") == []


@pytest.mark.parametrize(
    ("code", "said"), [(errno.EROFS, "Read-only file system"), (errno.ENOSPC, "No space left on device")]
)
def test_a_place_that_takes_nothing_is_named_with_its_reason(tmp_path, monkeypatch, code, said):
    (tmp_path / "cache").mkdir()
    (tmp_path / "results").mkdir()

    def refuse(dir):
        if dir == refused:
            raise OSError(code, os.strerror(code))
        return real(dir=dir)

    real = places.tempfile.TemporaryFile
    monkeypatch.setattr(places.tempfile, "TemporaryFile", refuse)
    for name, flag in [("results", "--storage"), ("cache", "--cache-dir")]:
        refused = tmp_path / name
        with pytest.raises(UsageError) as caught:
            check_writable(Store(str(tmp_path / "results")), tmp_path / "cache")
        assert str(refused) in str(caught.value)
        assert said in str(caught.value)
        assert flag in str(caught.value)


def run(tmp_path, *flags, **environment):
    """The toy study in a process whose files cannot grow, as on a full disk, unless it is told where to go."""
    limit = environment.pop("limit", None)
    return subprocess.run(
        [sys.executable, str(STUDY), "--log-dir", str(tmp_path), *flags],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, env={**os.environ, **environment},
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit is not None else None,
    )  # fmt: skip


def test_a_full_disk_a_storage_below_a_file_and_an_unusable_home_get_one_line_before_ray_starts(tmp_path):
    (tmp_path / "file").touch()
    cache = ("--cache-dir", str(tmp_path / "cache"))
    for done, named in [
        (run(tmp_path, "--storage", str(tmp_path / "results"), *cache, limit=0), tmp_path / "results"),
        (run(tmp_path, "--storage", str(tmp_path / "file" / "results"), *cache), tmp_path / "file" / "results"),
        (
            run(tmp_path, "--storage", str(tmp_path / "results"), HOME=str(tmp_path / "file")),
            tmp_path / "file" / ".cache",
        ),
        (run(tmp_path, "--storage", "/proc/results", *cache), "/proc/results"),
    ]:
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert str(named) in done.stderr
        assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# A user without a home, as in a container that was started with any number; and a storage that asks who one is.
NOBODY = """
import os, pwd, runpy, sys
import fsspec
from fsspec.implementations.memory import MemoryFileSystem

class NoCredentialsError(Exception):
    pass

class Locked(MemoryFileSystem):
    protocol = "locked"

    def ls(self, path, **how):
        raise NoCredentialsError("Unable to locate credentials")

def nobody(number):
    raise KeyError(number)

fsspec.register_implementation("locked", Locked)
pwd.getpwuid = nobody
module, sys.argv = sys.argv[1], sys.argv[1:]
if module.endswith(".py"):
    runpy.run_path(module, run_name="__main__")
else:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def run_as_nobody(tmp_path, *command, **environment):
    return subprocess.run(
        [sys.executable, "-c", NOBODY, *map(str, command)],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "HOME"} | environment,
    )  # fmt: skip


@pytest.mark.parametrize("flags", [[], ["--plan"]])
def test_a_user_without_a_home_is_told_to_name_a_cache_folder(tmp_path, monkeypatch, flags):
    for variable in ("QUARTERTURN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    study = (STUDY, "--log-dir", tmp_path, "--storage", tmp_path / "results")
    done = run_as_nobody(tmp_path, *study, *flags)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "no home folder ($HOME is not set)" in done.stderr
    assert "--cache-dir" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_user_without_a_home_runs_with_a_cache_folder(tmp_path):
    places = ("--storage", tmp_path / "results", "--cache-dir", tmp_path / "cache")
    done = run_as_nobody(tmp_path, STUDY, "--log-dir", tmp_path, *places)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 trials are done" in done.stdout
    for command in ("status", "sync"):
        assert run_as_nobody(tmp_path, "orchestrator", command, *places[:2]).returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        [STUDY, "--log-dir", "."],
        [STUDY, "--log-dir", ".", "--plan"],
        ["orchestrator", "status"],
        ["orchestrator", "gc"],
        ["orchestrator", "sync"],
        ["orchestrator", "export", "abc", "--out", "x"],
        ["orchestrator", "optuna", "--out", "x"],
        ["analysis", "report"],
    ],
    ids=lambda command: " ".join(str(word) for word in command[-2:]),
)
def test_a_storage_without_credentials_gets_one_line_whatever_the_command(tmp_path, command):
    cache = ("--cache-dir", tmp_path / "cache") if command[0] == STUDY else ()
    done = run_as_nobody(tmp_path, *command, "--storage", "locked://bucket/results", *cache, HOME=str(tmp_path))
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "error: cannot read the storage locked://bucket/results: NoCredentialsError: Unable to locate"
    )
    assert "credentials for it" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["plain", "with space", "a%20b", "what?", "50%", "a#b", "ä"])
def test_mlflow_finds_database_and_artifacts_in_any_folder(tmp_path, folder, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = Store(str(tmp_path / folder / "results"))
    store.write_document("x.json", 1)
    uri = tracking_uri_of(None, store)
    assert sqlite_path(uri) == tmp_path / folder / "results" / "mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("e", artifact_location=artifact_root(store, uri))
    run_id = client.create_run(experiment).info.run_id
    client.log_text(run_id, "text", "note.txt")
    assert (tmp_path / folder / "results" / "mlflow.db").stat().st_size > 0
    (note,) = (tmp_path / folder / "results" / "mlflow-artifacts").rglob("note.txt")
    assert note.read_text() == "text"
    assert [path.name for path in tmp_path.iterdir()] == [folder]


def test_only_sqlite_addresses_have_a_file():
    assert sqlite_path("http://server:5000") is None
    assert sqlite_path("sqlite:////a/b.db?timeout=3") == Path("/a/b.db")


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "file:mlruns", "mlruns", "/tmp/mlruns", "./a.db"])
def test_the_file_store_of_mlflow_is_refused_with_what_to_give_instead(tmp_path, monkeypatch, uri):
    store = Store(str(tmp_path))
    with pytest.raises(ValueError, match=r"folder of files.*sqlite:////path/to/mlflow\.db, or http://") as given:
        tracking_uri_of(uri, store)
    assert repr(uri) in str(given.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ValueError, match="folder of files"):
        tracking_uri_of(None, store)


@pytest.mark.parametrize("uri", ["http://a:5000", "sqlite:////a/b.db", "postgresql+psycopg2://u:p@h/db", "databricks"])
def test_servers_and_databases_are_taken_as_they_are(tmp_path, uri):
    assert tracking_uri_of(uri, Store(str(tmp_path))) == uri
