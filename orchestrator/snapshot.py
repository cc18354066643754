"""What MLflow is to be told of trials and report, read from the store; and where MLflow is. Does not load MLflow."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, unquote

from orchestrator.kinds import kind_of
from orchestrator.storage import check_inside
from orchestrator.store import DamagedResult, FileEntry, Result, Store

_SQLITE = "sqlite:///"


class UnusableDatabase(Exception):
    """MLflow's database cannot be opened or made; waiting will not mend it."""


@dataclass(frozen=True)
class Snapshot:
    """What the store holds of one trial, as far as MLflow is concerned."""

    key: str
    state: str  # "running", "done" or "failed"
    attempt: int
    segments: Sequence[str]
    started_at: float
    ended_at: float | None = None
    metrics: Mapping[str, float] | None = None
    provenance: Mapping[str, str] | None = None
    folder: str = ""
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    failure: str = ""
    published: str = ""
    """Token of its result."""

    @property
    def token(self) -> str:
        """Changes whenever there is something new to publish."""
        return f"{self.state}:{self.attempt}:{len(self.segments)}:{self.segments[-1] if self.segments else ''}"


def snapshot(store: Store, key: str, known: Result | None = None) -> Snapshot | None:
    """The state of a trial in the store, whose result may be ``known``; None before its first checkpoint."""
    result = known or store.result(key)
    if result is not None:
        return Snapshot(
            key,
            "done",
            result.attempt,
            result.segments,
            result.started_at,
            result.ended_at,
            result.metrics,
            result.provenance,
            result.folder,
            result.files,
            published=result.token,
        )
    generations = store.generations(key)
    segments = generations[0].segments if generations else []
    started_at = generations[0].started_at if generations else 0.0
    failure = store.failure(key)
    if failure is not None:
        text = f"{kind_of(failure.kind)}: {failure.message}"
        return Snapshot(key, "failed", failure.attempt, segments, started_at or failure.at, failure.at, failure=text)
    if not generations:
        return None
    return Snapshot(key, "running", generations[0].attempt, segments, started_at)


@dataclass(frozen=True)
class ReportFiles:
    """The newest report of a study, as it lies in the store."""

    token: str
    """Changes whenever the report is made anew."""
    paths: list[str]
    """Of what is worth showing, below the folder."""
    files: dict[str, FileEntry]
    folder: str = ""


def report_files(store: Store, study: str) -> ReportFiles | None:
    """The files of a study's newest report; None without one."""
    folder = f"reports/{study}"
    found = store.read_as(ReportFiles, f"{folder}/made_from.json")
    if found is None or not found.files:
        return None
    try:
        for path in found.paths:
            check_inside(path, folder)
    except DamagedResult:
        return None
    return replace(found, folder=folder)


def record_report(store: Store, report: ReportFiles) -> None:
    """Remember what the report in a folder was made from."""
    document = {"token": report.token, "paths": report.paths, "files": {n: asdict(f) for n, f in report.files.items()}}
    store.write_document(f"{report.folder}/made_from.json", document)


def tracking_uri_of(given: str | None, store: Store) -> str:
    """The address of MLflow that was given, else MLflow's own variable, else a database beside local results.

    Raises ValueError where none is possible, and for MLflow's file store.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return _database_beside(store)
    # Of all addresses with a scheme only `file:` is a folder; of those without, only MLflow's own word is none.
    if uri.startswith("file:") or ("://" not in uri and uri != "databricks"):
        raise ValueError(
            f"MLflow at {uri!r} would be a folder of files, which MLflow advises against: give --tracking-uri "
            "sqlite:////path/to/mlflow.db, or http://<mlflow server>"
        )
    return uri


def _database_beside(store: Store) -> str:
    if not store.is_local:
        raise ValueError(
            f"the storage {store.uri!r} cannot hold the MLflow database: give --tracking-uri http://<mlflow server>"
        )
    return sqlite_uri(Path(store.uri) / "mlflow.db")


def sqlite_uri(path: Path) -> str:
    """The address of an SQLite database. It is unquoted by whoever opens it, and ends at a question mark.

    Where something has to be quoted, slashes are too: MLflow would make the folders of an address as it stands.
    """
    text = str(path)
    return _SQLITE + (quote(text, safe=" #") if "%" in text or "?" in text else text)


def sqlite_path(tracking_uri: str) -> Path | None:
    """The file behind the address of an SQLite database; None for any other address."""
    if not tracking_uri.startswith(_SQLITE):
        return None
    return Path(unquote(tracking_uri.removeprefix(_SQLITE).partition("?")[0]))


def artifact_root(store: Store, tracking_uri: str) -> str | None:
    """Where artifacts go when this process writes the database itself; a server decides on its own."""
    if tracking_uri.startswith(("http://", "https://")):
        return None
    # MLflow unquotes a plain path too.
    return (Path(store.uri) / "mlflow-artifacts").as_uri() if store.is_local else f"{store.uri}/mlflow-artifacts"
