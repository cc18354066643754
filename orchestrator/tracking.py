"""The only writer and reader of MLflow. It copies what the store says; nothing ever waits for it.

One experiment a study, one parent run in it, and exactly one child run a trial, however often the trial was tried or
its run is published: a run carries its key as a tag and is looked for before it is made. Journal rows keep the time
at which they were logged, and MLflow drops a metric it has with the same time: publishing twice changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Before mlflow is imported. Its client would repeat a POST that timed out after the commit and make a second run;
# the feeder repeats instead, after looking what is there.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException as TrackingError
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sqlalchemy import event
from sqlalchemy.engine import Engine

from orchestrator.snapshot import Snapshot, sqlite_path
from orchestrator.store import Store

__all__ = ["Tracker", "TrackingError", "flatten"]

KEY_TAG = "quarterturn.key"
STUDY_TAG = "quarterturn.study"
KIND_TAG = "quarterturn.kind"
STATE_TAG = "quarterturn.state"
SEGMENT_TAG = "quarterturn.last_segment"
DESCRIBED_TAG = "quarterturn.described"
# A request holds 1000 entities at most, 100 of them params and 100 tags.
_METRICS_PER_BATCH = 800
_PARAMS_PER_BATCH = 100
_MAX_TAG_CHARACTERS = 5000
_MAX_PARAM_CHARACTERS = 6000
_PAGE = 1000
_LOCAL_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay"})
_STATUS = {"running": "RUNNING", "done": "FINISHED", "failed": "FAILED"}


class Tracker:
    """One study's experiment on one MLflow server or database."""

    def __init__(self, tracking_uri: str, study: str, artifact_root: str | None = None) -> None:
        """Connect, and create the experiment and the parent run if they are not there.

        ``artifact_root`` is used when the experiment is made on a database; a server has its own.
        """
        _prepare_database(tracking_uri)
        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._tracking_uri = tracking_uri
        self._study = study
        self._experiment_id = self._ensure_experiment(artifact_root)
        self._cut_short: set[str] = set()  # keys whose run says in its tags more than in its status, written last
        self._runs = self._find_runs()
        self.parent_id = self._ensure_parent()

    def describe_study(self, manifest: Mapping[str, Any], counts: Mapping[str, int], *, has_ended: bool) -> None:
        """Bring the parent run up to date with a submission, which may have ended."""
        tags = {
            "mlflow.note.content": manifest["question"],
            "quarterturn.command": manifest["command"],
            **{f"quarterturn.{name}": str(value) for name, value in manifest["facts"].items()},
            **{f"quarterturn.trials_{state}": str(n) for state, n in counts.items()},
        }
        self._client.log_batch(
            self.parent_id, tags=[RunTag(name, value[:_MAX_TAG_CHARACTERS]) for name, value in tags.items()]
        )
        if not has_ended:
            self._client.update_run(self.parent_id, status="RUNNING")
        elif counts["failed"]:
            self._client.set_terminated(self.parent_id, "FAILED")
        else:
            is_complete = counts["done"] == sum(counts.values())
            self._client.set_terminated(self.parent_id, "FINISHED" if is_complete else "KILLED")

    def publish(self, store: Store, entry: Mapping[str, Any], shot: Snapshot) -> None:
        """Make the run of one trial say what the store says. ``entry`` is the trial's part of the manifest."""
        run = self._runs.get(shot.key)
        known = run.data.tags if run is not None else {}
        if known.get(STATE_TAG) == shot.token and shot.key not in self._cut_short:
            return
        if run is not None and known.get(SEGMENT_TAG, "") not in ("", *shot.segments):
            # The trial was computed again from an earlier state than MLflow has seen: what it has is not this history.
            self._client.delete_run(run.info.run_id)
            run = None
        if run is None or shot.key in self._cut_short:
            known = {}  # all of it is written, and MLflow drops what it has
        has_ended = shot.state != "running"
        tags = unsaid = _tags(shot)
        if run is None:
            # Tags cost least when a run is made. They say that all is there: of a run whose trial has ended that is
            # believed only once its status says so too (see _find_runs), and its status is written last.
            run = self._create(entry, shot, tags if has_ended else {})
            unsaid = {} if has_ended else tags
        params: list[Param] = []
        artifacts = self._artifacts_of(run)
        if DESCRIBED_TAG not in known:
            _log_document(artifacts, "configuration.json", entry["configuration"])
            params = [Param(name, value[:_MAX_PARAM_CHARACTERS]) for name, value in flatten(entry["configuration"])]
        at_ms = int((shot.ended_at or 0) * 1000)
        metrics = _rows_after(known.get(SEGMENT_TAG, ""), store, shot)
        # Under a name of their own: a summary of a curve would otherwise be drawn as a point of the curve.
        metrics += [Metric(f"summary/{name}", value, at_ms, 0) for name, value in (shot.metrics or {}).items()]
        _log_files(artifacts, store, shot)
        self._log(run.info.run_id, params, metrics, unsaid)
        if has_ended:
            self._client.set_terminated(run.info.run_id, _STATUS[shot.state], end_time=at_ms)
        else:
            self._client.update_run(run.info.run_id, status=_STATUS[shot.state])
        run.data.tags.update(tags)
        self._cut_short.discard(shot.key)

    # -- parts ----------------------------------------------------------------------------------------

    def _ensure_experiment(self, artifact_root: str | None) -> str:
        experiment = self._client.get_experiment_by_name(self._study)
        if experiment is None:
            tags = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens runs, not traces of prompts
            return str(self._client.create_experiment(self._study, artifact_location=artifact_root, tags=tags))
        if experiment.lifecycle_stage != "active":
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _find_runs(self) -> dict[str, Run]:
        """Runs by key (the parent's key is empty). Of two runs of one key the older stays."""
        runs: dict[str, Run] = {}
        for run in self._all_runs():
            if run.data.tags.get(STUDY_TAG) != self._study:
                continue
            key = run.data.tags.get(KEY_TAG, "")
            state = run.data.tags.get(STATE_TAG, "").partition(":")[0]
            if state and run.info.status != _STATUS[state]:
                self._cut_short.add(key)
            if key in runs:
                self._client.delete_run(run.info.run_id)
            else:
                runs[key] = run
        return runs

    def _all_runs(self) -> Iterator[Run]:
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id], max_results=_PAGE, order_by=["attributes.start_time ASC"], page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _ensure_parent(self) -> str:
        if "" not in self._runs:
            tags = {STUDY_TAG: self._study, KIND_TAG: "study"}
            self._runs[""] = self._client.create_run(self._experiment_id, tags=tags, run_name=self._study)
        return str(self._runs[""].info.run_id)

    def _create(self, entry: Mapping[str, Any], shot: Snapshot, more_tags: Mapping[str, str]) -> Run:
        configuration = entry["configuration"]
        seeds = {name: value for name, value in flatten(configuration) if name.rpartition(".")[2].endswith("seed")}
        tags = {
            "mlflow.parentRunId": self.parent_id,
            STUDY_TAG: self._study,
            KIND_TAG: "trial",
            KEY_TAG: shot.key,
            "quarterturn.trainable": entry["class"],
            "quarterturn.seeds": json.dumps(seeds, sort_keys=True),
            "quarterturn.dataset": ",".join(sorted(entry.get("data", {}))),
            "quarterturn.data_fingerprint": json.dumps(entry.get("data", {}), sort_keys=True),
            **more_tags,
        }
        run = self._client.create_run(
            self._experiment_id, start_time=int(shot.started_at * 1000), tags=tags, run_name=entry["name"]
        )
        self._runs[shot.key] = run
        return run

    def _log(self, run_id: str, params: list[Param], metrics: list[Metric], tags: Mapping[str, str]) -> None:
        """As few requests as MLflow's limits allow; the tags, which say that all is there, come with the last."""
        while len(params) > _PARAMS_PER_BATCH or len(metrics) > _METRICS_PER_BATCH:
            self._client.log_batch(run_id, metrics=metrics[:_METRICS_PER_BATCH], params=params[:_PARAMS_PER_BATCH])
            params, metrics = params[_PARAMS_PER_BATCH:], metrics[_METRICS_PER_BATCH:]
        run_tags = [RunTag(name, value[:_MAX_TAG_CHARACTERS]) for name, value in tags.items()]
        self._client.log_batch(run_id, metrics=metrics, params=params, tags=run_tags)

    def _artifacts_of(self, run: Run) -> ArtifactRepository:
        # The client would ask the server for the run again, only to learn this address.
        return get_artifact_repository(run.info.artifact_uri, tracking_uri=self._tracking_uri)


def _rows_after(segment: str, store: Store, shot: Snapshot) -> list[Metric]:
    new = list(shot.segments)
    if segment in new:
        new = new[new.index(segment) + 1 :]
    return [Metric(name, value, at_ms, step) for s in new for name, step, value, at_ms in store.segment(shot.key, s)]


def _log_document(artifacts: ArtifactRepository, name: str, document: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(json.dumps(document, indent=2))
        artifacts.log_artifact(str(path))


def _log_files(artifacts: ArtifactRepository, store: Store, shot: Snapshot) -> None:
    """What the trial put into its ``artifacts`` folder."""
    shown = {name: entry for name, entry in shot.files.items() if name.startswith("artifacts/")}
    if not shown:
        return
    with tempfile.TemporaryDirectory() as folder:
        local = store.download(shot.folder, shown, Path(folder))
        artifacts.log_artifacts(str(local / "artifacts"))


def _tags(shot: Snapshot) -> dict[str, str]:
    tags = {f"quarterturn.{name}": value for name, value in (shot.provenance or {}).items()}
    return {
        **tags,
        "quarterturn.attempt": str(shot.attempt),
        "quarterturn.failure": shot.failure[:_MAX_TAG_CHARACTERS],
        SEGMENT_TAG: shot.segments[-1] if shot.segments else "",
        DESCRIBED_TAG: "yes",
        STATE_TAG: shot.token,
    }


def _prepare_database(tracking_uri: str) -> None:
    """Make an SQLite database that is not there yet with a write-ahead log: a tenth of the writes to disk.

    Not where other machines may open it: the log works on one machine only.
    """
    path = sqlite_path(tracking_uri)
    if path is None or path.exists() or not _is_on_local_disk(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _is_on_local_disk(path: Path) -> bool:
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return False
    folders = {str(folder) for folder in path.resolve().parents}
    inside = [(len(point), kind) for point, kind in mounts if point in folders]
    return max(inside, default=(0, ""))[1] in _LOCAL_FILE_SYSTEMS


@event.listens_for(Engine, "connect")
def _sync_less(connection: Any, record: Any) -> None:
    """With a write-ahead log a loss of power may cost the last rows (``sync`` brings them), never the database."""
    if isinstance(connection, sqlite3.Connection):
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode == "wal":
            connection.execute("PRAGMA synchronous=NORMAL")


def flatten(configuration: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A described configuration as (dotted name, text) pairs; lists of plain values stay together."""
    if isinstance(configuration, Mapping):
        return [
            pair
            for name, value in configuration.items()
            for pair in flatten(value, f"{prefix}.{name}" if prefix else str(name))
        ]
    if isinstance(configuration, list) and any(isinstance(value, Mapping | list) for value in configuration):
        return [pair for i, value in enumerate(configuration) for pair in flatten(value, f"{prefix}.{i}")]
    return [(prefix, configuration if isinstance(configuration, str) else json.dumps(configuration))]
