"""Exactly one MLflow run a trial, however often the trial was tried or its run is published.

A run carries its key as a tag and is looked for before it is made. Journal rows keep the time at which they were
logged, and MLflow drops a metric it has with the same time: publishing twice changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.context import check_metric
from orchestrator.experiment import Experiment, Metric, Run, role_tags, source_tags
from orchestrator.parameters import parameters
from orchestrator.snapshot import Snapshot
from orchestrator.store import Store

KEY_TAG = "quarterturn.key"
STATE_TAG = "quarterturn.state"
_SEGMENT_TAG = "quarterturn.last_segment"
_DESCRIBED_TAG = "quarterturn.described"
_STATUS = {"running": "RUNNING", "done": "FINISHED", "failed": "FAILED"}


class TrialRuns:
    """The runs of a study's trials."""

    def __init__(self, experiment: Experiment, runs: Iterable[Run]) -> None:
        """``runs`` are those of kind trial that are there, oldest first."""
        self._experiment = experiment
        self._cut_short: set[str] = set()  # keys whose run says in its tags more than in its status, written last
        self._runs = self._by_key(runs)

    @property
    def newest_ms(self) -> int:
        """When the trial that began last began; 0 without any."""
        return max((int(run.info.start_time) for run in self._runs.values()), default=0)

    def publish(self, store: Store, entry: Mapping[str, Any], manifest: Mapping[str, Any], shot: Snapshot) -> None:
        """Make the run of one trial say what the store says.

        ``entry`` is the trial's part of ``manifest``. Raises ValueError for metrics that MLflow takes from nobody.
        """
        run = self._runs.get(shot.key)
        known = run.data.tags if run is not None else {}
        if known.get(STATE_TAG) == shot.token and shot.key not in self._cut_short:
            return
        if run is not None and known.get(_SEGMENT_TAG, "") not in ("", *shot.segments):
            # The trial was computed again from an earlier state than MLflow has seen: what it has is not this history.
            self._experiment.client.delete_run(run.info.run_id)
            run = None
        if run is None or shot.key in self._cut_short:
            known = {}  # all of it is written, and MLflow drops what it has
        metrics = _metrics(known.get(_SEGMENT_TAG, ""), store, shot)
        has_ended = shot.state != "running"
        tags = unsaid = _tags(shot)
        if run is None:
            # Tags cost least when a run is made. They say that all is there: of a run whose trial has ended that is
            # believed only once its status says so too (see _by_key), and its status is written last.
            run = self._create(entry, manifest, shot, tags if has_ended else {})
            unsaid = {} if has_ended else tags
        params = {}
        if _DESCRIBED_TAG not in known:
            self._experiment.log_document(run, "configuration.json", entry["configuration"])
            self._experiment.log_data(run, entry, manifest)
            params = parameters(entry["configuration"])
        # What the trial put into its ``artifacts`` folder.
        self._experiment.log_files(run, store, shot.folder, shot.files, below="artifacts/")
        self._experiment.log(run, params, metrics, unsaid)
        self._end(run, shot)
        run.data.tags.update(tags)
        self._cut_short.discard(shot.key)

    def withdraw(self, key: str) -> None:
        """Remove the run of a trial that cannot be published, or it would seem to run for ever."""
        if (run := self._runs.pop(key, None)) is not None:
            self._experiment.client.delete_run(run.info.run_id)

    def _end(self, run: Run, shot: Snapshot) -> None:
        client, status = self._experiment.client, _STATUS[shot.state]
        if shot.state == "running":
            client.update_run(run.info.run_id, status=status)
        else:
            client.set_terminated(run.info.run_id, status, end_time=_ms(shot.ended_at or 0))

    def _by_key(self, runs: Iterable[Run]) -> dict[str, Run]:
        """Runs by key. Of two runs of one key the older stays."""
        found: dict[str, Run] = {}
        for run in runs:
            key = run.data.tags[KEY_TAG]
            state = run.data.tags.get(STATE_TAG, "").partition(":")[0]
            if state and run.info.status != _STATUS[state]:
                self._cut_short.add(key)
            if key in found:
                self._experiment.client.delete_run(run.info.run_id)
            else:
                found[key] = run
        return found

    def _create(
        self, entry: Mapping[str, Any], manifest: Mapping[str, Any], shot: Snapshot, more_tags: Mapping[str, str]
    ) -> Run:
        code_version = (shot.provenance or manifest["provenance"]).get("code_version", "unknown")
        tags = {
            KEY_TAG: shot.key,
            "quarterturn.trainable": entry["class"],
            **role_tags(entry),
            "quarterturn.seeds": json.dumps(entry.get("seeds", {}), sort_keys=True),
            "quarterturn.data_fingerprint": json.dumps(entry.get("data", {}), sort_keys=True),
            **source_tags(manifest, code_version),
            **more_tags,
        }
        run = self._experiment.create(entry["name"], "trial", _ms(shot.started_at), tags)
        self._runs[shot.key] = run
        return run


def _metrics(after_segment: str, store: Store, shot: Snapshot) -> list[Metric]:
    """New rows of the journal, and the summary at the end."""
    new = list(shot.segments)
    if after_segment in new:
        new = new[new.index(after_segment) + 1 :]
    metrics = [Metric(name, value, at_ms, step) for s in new for name, step, value, at_ms in store.segment(shot.key, s)]
    # Under a name of their own: a summary of a curve would otherwise be drawn as a point of the curve.
    at_ms = _ms(shot.ended_at or 0)
    metrics += [Metric(f"{name}/summary", value, at_ms, 0) for name, value in (shot.metrics or {}).items()]
    for metric in metrics:  # results from before the context refused these
        check_metric(metric.key, metric.step)
    return metrics


def _tags(shot: Snapshot) -> dict[str, str]:
    tags = {f"quarterturn.{name}": value for name, value in (shot.provenance or {}).items()}
    return {
        **tags,
        "quarterturn.attempt": str(shot.attempt),
        "quarterturn.failure": shot.failure,
        _SEGMENT_TAG: shot.segments[-1] if shot.segments else "",
        _DESCRIBED_TAG: "yes",
        STATE_TAG: shot.token,
    }


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
