"""MLflow's database is made whole or not at all, and a broken one is said in one line."""

import contextlib
import io
import sqlite3
import time

import pytest
from mlflow import MlflowClient
from sqlalchemy.exc import OperationalError
from toy import Count
from tracked import runs_of

from orchestrator import database, experiment, feeder
from orchestrator.commands import sync
from orchestrator.snapshot import UnusableDatabase


def journal_mode(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]


def test_only_a_database_made_here_gets_a_write_ahead_log(submitted, tmp_path):
    new, old = tmp_path / "new" / "mlflow.db", tmp_path / "old.db"
    with contextlib.closing(sqlite3.connect(old)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    store, name = submitted({"t": Count(2)})
    for path in (new, old):
        assert feeder.sync(store, name, f"sqlite:///{path}") == (1, 0)
    assert [journal_mode(path) for path in (new, old)] == ["wal", "delete"]


def test_no_write_ahead_log_on_a_network_file_system(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "_LOCAL_FILE_SYSTEMS", frozenset())
    database.prepare(f"sqlite:///{tmp_path}/mlflow.db")
    assert journal_mode(tmp_path / "mlflow.db") == "delete"


@pytest.mark.parametrize("is_empty_there", [False, True])
def test_a_database_whose_making_broke_off_is_not_there(submitted, tmp_path, monkeypatch, is_empty_there):
    path = tmp_path / "mlflow.db"
    if is_empty_there:  # a disk was full
        path.touch()
    store, name = submitted({"t": Count(2)})

    def full(aside, **named):
        aside.write_bytes(b"SQLite format 3")
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(database, "_make", full)
        with pytest.raises(UnusableDatabase, match=r"mlflow\.db cannot be made: database or disk is full"):
            feeder.sync(store, name, f"sqlite:///{path}")
    assert path.exists() == is_empty_there
    assert not list(tmp_path.glob(".mlflow.db*"))
    assert feeder.sync(store, name, f"sqlite:///{path}") == (1, 0)
    assert "t" in runs_of(f"sqlite:///{path}", name)[1]


def test_of_two_that_make_a_database_the_first_wins(tmp_path, monkeypatch):
    path = tmp_path / "mlflow.db"

    def slower(aside, **named):
        aside.write_text("mine")
        path.write_text("theirs")

    monkeypatch.setattr(database, "_make", slower)
    real = database.Path.exists
    monkeypatch.setattr(database.Path, "exists", lambda self: self != path and real(self))
    database.prepare(f"sqlite:///{path}")
    assert path.read_text() == "theirs"


def test_what_a_killed_maker_left_goes_after_an_hour(tmp_path, monkeypatch):
    (tmp_path / ".mlflow.db.ab.new-wal").touch()
    monkeypatch.setattr(database, "_make", lambda aside, **named: aside.write_text("new"))
    database.prepare(f"sqlite:///{tmp_path}/mlflow.db")
    assert (tmp_path / ".mlflow.db.ab.new-wal").exists()
    (tmp_path / "mlflow.db").unlink()
    later = time.time() + 4000
    monkeypatch.setattr(time, "time", lambda: later)
    database.prepare(f"sqlite:///{tmp_path}/mlflow.db")
    assert not (tmp_path / ".mlflow.db.ab.new-wal").exists()


def garbled(path):
    path.write_bytes(b"no database at all" * 100)


def half_made(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE experiments (x)")


@pytest.mark.parametrize("break_it", [garbled, half_made])
def test_a_broken_database_is_said_in_one_line_and_at_once(submitted, tmp_path, capsys, break_it):
    store, name = submitted({"t": Count(2)})
    path = tmp_path / "mlflow.db"
    break_it(path)
    begin = time.monotonic()
    with pytest.raises(ValueError, match=f"{path} (cannot be read|was left half made).*move it away") as raised:
        sync(store.uri, tracking_uri=f"sqlite:///{path}")
    assert "\n" not in str(raised.value)
    assert not feeder.follow(store, name, f"sqlite:///{path}", io.StringIO(""))
    assert time.monotonic() - begin < 20
    assert capsys.readouterr().err.count("MLflow is behind") == 1


def test_a_database_that_another_process_made_meanwhile_is_kept(tmp_path, monkeypatch):
    """Making takes seconds; a driver that was faster has put its own there, and rows into it."""
    path, make = tmp_path / "mlflow.db", database._make

    def slowly(aside, **how):
        make(aside, **how)
        if not path.exists():
            monkeypatch.setattr(database, "_make", make)
            database.prepare(f"sqlite:///{path}")
            with contextlib.closing(sqlite3.connect(path)) as connection, connection:
                connection.execute("CREATE TABLE mine (x)")

    monkeypatch.setattr(database, "_make", slowly)
    database.prepare(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'mine'").fetchone() == (1,)


class _Starting:
    """MLflow's client on a database that does not answer the first times."""

    def __init__(self, num_refusals, real):
        self.num_refusals, self._real = num_refusals, real

    def __call__(self, tracking_uri):
        self.num_refusals -= 1
        if self.num_refusals >= 0:
            raise OperationalError("SELECT 1", {}, Exception("connection refused"))
        return self._real


def test_a_database_server_that_starts_again_is_waited_for(submitted, database, monkeypatch, capsys):
    store, name = submitted({"t": Count(2)})
    server = _Starting(2, MlflowClient(tracking_uri=database))
    monkeypatch.setattr(experiment, "MlflowClient", server)
    monkeypatch.setattr(feeder, "_LONGEST_PAUSE_S", 0.1)
    assert feeder.follow(store, name, "postgresql://me:secret@127.0.0.1/mlflow", io.StringIO(""))
    assert server.num_refusals < 0
    assert "t" in runs_of(database, name)[1]
    assert capsys.readouterr().err.count("MLflow is behind (MlflowException: the MLflow database does not answer") == 1


def test_a_database_server_that_does_not_answer_is_said_in_one_line(submitted, monkeypatch):
    store, _ = submitted({"t": Count(2)})
    monkeypatch.setattr(experiment, "MlflowClient", _Starting(9, None))
    with pytest.raises(
        ValueError, match=r"MLflow at postgresql://127.*does not answer: .*connection refused"
    ) as raised:
        sync(store.uri, tracking_uri="postgresql://me:secret@127.0.0.1/mlflow")
    assert "\n" not in str(raised.value)


def test_the_same_error_of_a_file_is_final(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "MlflowClient", _Starting(9, None))
    with pytest.raises(UnusableDatabase, match="cannot be opened"):
        experiment.Experiment(f"sqlite:///{tmp_path}/mlflow.db", "s")
