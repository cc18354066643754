"""A study's experiment on an MLflow server or database: the connection that all kinds of runs are written through."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Before mlflow is imported. Its client would repeat a POST that timed out after the commit and make a second run;
# the feeder repeats instead, after looking what is there.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
# It would print two lines for every run on a server, in the midst of the study's.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException as TrackingError
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from orchestrator import database
from orchestrator.parameters import valid_name
from orchestrator.provenance import first_line
from orchestrator.snapshot import UnusableDatabase, sqlite_path
from orchestrator.store import FileEntry, Store

# The other writers take these from here, so that what is set above holds whoever is imported first.
__all__ = ["Experiment", "Metric", "Run", "RunTag", "TrackingError"]

KIND_TAG = "kind"  # plain, to be typed into the UI's filter: trial, cell or report
STUDY_TAG = "quarterturn.study"
CELL_TAG = "quarterturn.cell"
_INSTANCE_TAG = "quarterturn.instance"
_NOTE_TAG = "mlflow.note.content"
_NOTE_MARK = "`tags.kind = 'cell'`"
# A request holds 1000 entities at most, 100 of them params and 100 tags.
_METRICS_PER_BATCH = 800
_PARAMS_PER_BATCH = 100
_MAX_TAG_CHARACTERS = 5000
_DIGEST_CHARACTERS = 12  # MLflow takes 36, and its table shows the name beside it
_PAGE = 1000


class Experiment:
    """One study's experiment, and what is written to any of its runs."""

    def __init__(self, tracking_uri: str, study: str, artifact_root: str | None = None) -> None:
        """Connect, and create the experiment if it is not there.

        ``artifact_root`` is used when the experiment is made on a database; a server has its own. Raises
        UnusableDatabase, or what MLflow raises, which waiting may mend.
        """
        database.prepare(tracking_uri)
        self._tracking_uri = tracking_uri
        self.study = study
        try:
            self.client = MlflowClient(tracking_uri=tracking_uri)
            self.id, self._tags = self._ensure(artifact_root)
        except SQLAlchemyError as error:
            if isinstance(error, OperationalError) and sqlite_path(tracking_uri) is None:  # a server that starts again
                raise TrackingError(f"the MLflow database does not answer: {first_line(error)}") from error
            raise UnusableDatabase(f"the MLflow database cannot be opened: {first_line(error)}") from error
        if _INSTANCE_TAG not in self._tags:
            self._set_tag(_INSTANCE_TAG, uuid.uuid4().hex)
        self.instance = self._tags[_INSTANCE_TAG]
        """Which experiment this is, should the same address come to be another server's."""

    def runs(self) -> Iterator[Run]:
        """The runs that this project made, oldest first."""
        token: str | None = None
        while True:
            page = self.client.search_runs(
                [self.id], max_results=_PAGE, order_by=["attributes.start_time ASC"], page_token=token
            )
            yield from (run for run in page if run.data.tags.get(STUDY_TAG) == self.study)
            token = page.token
            if not token:
                return

    def create(self, name: str, kind: str, start_ms: int, tags: Mapping[str, str]) -> Run:
        """A new run of one kind."""
        tags = {**tags, STUDY_TAG: self.study, KIND_TAG: kind}
        return self.client.create_run(self.id, start_time=start_ms, tags=_cut(tags), run_name=name)

    def log(self, run: Run, parameters: Mapping[str, str], metrics: Sequence[Metric], tags: Mapping[str, str]) -> None:
        """As few requests as MLflow's limits allow; the tags, which say that all is there, come with the last."""
        params = [Param(name, value) for name, value in parameters.items()]
        run_id, metrics = run.info.run_id, list(metrics)
        while len(params) > _PARAMS_PER_BATCH or len(metrics) > _METRICS_PER_BATCH:
            self.client.log_batch(run_id, metrics=metrics[:_METRICS_PER_BATCH], params=params[:_PARAMS_PER_BATCH])
            params, metrics = params[_PARAMS_PER_BATCH:], metrics[_METRICS_PER_BATCH:]
        run_tags = [RunTag(name, value) for name, value in _cut(tags).items()]
        self.client.log_batch(run_id, metrics=metrics, params=params, tags=run_tags)

    def log_data(self, run: Run, entry: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        """The data sets of a trial's images, where MLflow keeps them, named as on the command line. Twice is once."""
        inputs = [DatasetInput(dataset) for dataset in _datasets(entry, manifest)]
        if inputs:
            self.client.log_inputs(run.info.run_id, inputs)

    def log_document(self, run: Run, name: str, document: Any) -> None:
        """A JSON document as an artifact."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(json.dumps(document, indent=2))
            self._artifacts_of(run).log_artifact(str(path))

    def log_files(self, run: Run, store: Store, path: str, files: Mapping[str, FileEntry], *, below: str = "") -> None:
        """Files of a folder of the store as artifacts, those ``below`` one of its folders.

        Raises DamagedResult when one is not what was written.
        """
        shown = {name: entry for name, entry in files.items() if name.startswith(below)}
        with tempfile.TemporaryDirectory() as folder:
            local = store.download(path, shown, Path(folder))
            artifacts = self._artifacts_of(run)
            for name in shown:
                inside = name.removeprefix(below).rpartition("/")[0]
                artifacts.log_artifact(str(local / name), inside or None)

    def set_note(self, text: str) -> None:
        """The text above the experiment's runs; one that a person wrote stays."""
        known = self._tags.get(_NOTE_TAG, "")
        if known != text and (not known or _NOTE_MARK in known):
            self._set_tag(_NOTE_TAG, text)

    def note(self, question: str, report_run_id: str) -> str:
        """What a reader should know of the experiment."""
        return (
            f"{question}\n\nOn top the cells: means over seeds at every step (`std/<metric>` is their spread, "
            f"`n` their number), then [the report](#/experiments/{self.id}/runs/{report_run_id}), then every "
            f"trial. One kind only: {_NOTE_MARK}, `tags.kind = 'trial'` or `tags.kind = 'report'` in the search field."
        )

    def _ensure(self, artifact_root: str | None) -> tuple[str, dict[str, str]]:
        experiment = self.client.get_experiment_by_name(self.study)
        if experiment is None:
            # The UI opens runs, not traces of prompts.
            tags = {"mlflow.experimentKind": "custom_model_development", _INSTANCE_TAG: uuid.uuid4().hex}
            made = self.client.create_experiment(self.study, artifact_location=artifact_root, tags=tags)
            return str(made), tags
        if experiment.lifecycle_stage != "active":
            self.client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id), dict(experiment.tags)

    def _set_tag(self, name: str, value: str) -> None:
        self.client.set_experiment_tag(self.id, name, value[:_MAX_TAG_CHARACTERS])
        self._tags[name] = value

    def _artifacts_of(self, run: Run) -> ArtifactRepository:
        # The client would ask the server for the run again, only to learn this address.
        return get_artifact_repository(run.info.artifact_uri, tracking_uri=self._tracking_uri)


def source_tags(manifest: Mapping[str, Any], code_version: str) -> dict[str, str]:
    """Where MLflow keeps source, commit and user; what is not known is left out."""
    words = shlex.split(manifest["command"])
    files = [word for word in words if word.endswith(".py")]
    commit = code_version.partition("+")[0]
    tags = {
        "mlflow.source.name": (files or [manifest["command"]])[0],
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": "" if commit == "unknown" else commit,
        "mlflow.user": str(manifest.get("user", "")),
    }
    return {name: value for name, value in tags.items() if value}


def role_tags(entry: Mapping[str, Any]) -> dict[str, str]:
    """What a trial is to its study, under plain names: ``tags.role = 'trained'`` filters."""
    named = {"role": entry.get("role", ""), **entry.get("labels", {}), CELL_TAG: entry.get("cell", "")}
    return {valid_name(name): str(value) for name, value in named.items() if value}


def _datasets(entry: Mapping[str, Any], manifest: Mapping[str, Any]) -> Iterator[Dataset]:
    cards, names = manifest.get("cards", {}), _names_of_contents(manifest)
    for class_name in entry.get("images", []):
        for fingerprint in entry["data"][class_name].split("+"):
            name = _label_of(entry, fingerprint) or names.get(fingerprint, class_name)
            yield Dataset(
                name=name,
                digest=fingerprint[:_DIGEST_CHARACTERS],
                source_type="content",
                source=json.dumps({"uri": _place(entry["configuration"], class_name), "content": fingerprint}),
                profile=json.dumps(cards[name]) if name in cards else None,
            )


def _names_of_contents(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Names of data sets by content. Trials with a label say them, and what these share with trials without one."""
    cards, entries = list(manifest.get("cards", {})), manifest.get("trials", [])
    contents = {content for entry in entries for content in _contents(entry)}
    names = dict.fromkeys(contents, cards[0]) if len(cards) == len(contents) == 1 else {}
    return names | {c: name for entry in entries for c in _contents(entry) if (name := _label_of(entry, c))}


def _label_of(entry: Mapping[str, Any], content: str) -> str:
    """The label ``data`` of a trial, where it holds that one data set and no other."""
    return str(entry.get("labels", {}).get("data", "")) if _contents(entry) == [content] else ""


def _contents(entry: Mapping[str, Any]) -> list[str]:
    return [content for name in entry.get("images", []) for content in entry["data"][name].split("+")]


def _place(configuration: Any, class_name: str) -> str:
    """The folder or file that a part of a configuration was read from, or the part's name."""
    parts = [configuration]
    while parts:
        part = parts.pop()
        values = list(part.values()) if isinstance(part, Mapping) else part
        if isinstance(part, Mapping) and part.get("class") == class_name:
            places = [value for value in values if isinstance(value, str) and value.startswith("/")]
            return (places or [class_name])[0]
        parts += [value for value in values if isinstance(value, Mapping | list)]
    return class_name


def _cut(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:_MAX_TAG_CHARACTERS] for name, value in tags.items()}
