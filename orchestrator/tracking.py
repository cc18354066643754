"""The only writer and reader of MLflow. It copies what the store says; nothing ever waits for it.

One experiment a study, one parent run in it, and exactly one child run a trial, however often the trial was tried or
its run is published: a run carries its key as a tag and is looked for before it is made. Journal rows keep the time
at which they were logged, and MLflow drops a metric it has with the same time: publishing twice changes nothing.
"""

from __future__ import annotations

import json
import os
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

from orchestrator.snapshot import Snapshot
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


class Tracker:
    """One study's experiment on one MLflow server or database."""

    def __init__(self, tracking_uri: str, study: str, artifact_root: str | None = None) -> None:
        """Connect, and create the experiment and the parent run if they are not there.

        ``artifact_root`` is used when the experiment is made on a database; a server has its own.
        """
        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._study = study
        self._experiment_id = self._ensure_experiment(artifact_root)
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
        if run is not None and run.data.tags.get(STATE_TAG) == shot.token:
            return
        if run is not None and run.data.tags.get(SEGMENT_TAG, "") not in ("", *shot.segments):
            # The trial was computed again from an earlier state than MLflow has seen: what it has is not this history.
            self._client.delete_run(run.info.run_id)
            run = None
        if run is None:
            run = self._create(entry, shot)
        params: list[Param] = []
        if DESCRIBED_TAG not in run.data.tags:
            self._client.log_dict(run.info.run_id, entry["configuration"], "configuration.json")
            params = [Param(name, value[:_MAX_PARAM_CHARACTERS]) for name, value in flatten(entry["configuration"])]
        at_ms = int((shot.ended_at or 0) * 1000)
        metrics = self._new_rows(run, store, shot)
        # Under a name of their own: a summary of a curve would otherwise be drawn as a point of the curve.
        metrics += [Metric(f"summary/{name}", value, at_ms, 0) for name, value in (shot.metrics or {}).items()]
        if shot.state == "done":
            self._log_artifacts(run.info.run_id, store, shot.key)
        tags = {**_state_tags(shot), SEGMENT_TAG: shot.segments[-1] if shot.segments else "", DESCRIBED_TAG: "yes"}
        self._log(run.info.run_id, params, metrics, {**tags, STATE_TAG: shot.token})
        if shot.state == "running":
            self._client.update_run(run.info.run_id, status="RUNNING")
        else:
            status = "FINISHED" if shot.state == "done" else "FAILED"
            self._client.set_terminated(run.info.run_id, status, end_time=at_ms)
        run.data.tags.update(tags)

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

    def _create(self, entry: Mapping[str, Any], shot: Snapshot) -> Run:
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

    def _new_rows(self, run: Run, store: Store, shot: Snapshot) -> list[Metric]:
        last = run.data.tags.get(SEGMENT_TAG, "")
        new = list(shot.segments)
        if last in new:
            new = new[new.index(last) + 1 :]
        return [
            Metric(name, value, at_ms, step) for s in new for name, step, value, at_ms in store.segment(shot.key, s)
        ]

    def _log_artifacts(self, run_id: str, store: Store, key: str) -> None:
        result = store.result(key)
        shown = {n: e for n, e in (result.files if result else {}).items() if n.startswith("artifacts/")}
        if not shown:
            return
        with tempfile.TemporaryDirectory() as folder:
            local = store.download(f"trials/{key}/files", shown, Path(folder))
            self._client.log_artifacts(run_id, str(local / "artifacts"))


def _state_tags(shot: Snapshot) -> dict[str, str]:
    tags = {f"quarterturn.{name}": value for name, value in (shot.provenance or {}).items()}
    return {**tags, "quarterturn.attempt": str(shot.attempt), "quarterturn.failure": shot.failure}


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
