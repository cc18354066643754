"""MLflow runs over many trials: one a cell, with its mean curves, and one with the report.

MLflow's first view shows the newest runs, and draws the ten newest. So a cell's run is made anew when another of its
trials has finished, and when a submission ends, all that younger trials have pushed down are made anew.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.cells import Cell, CellMeans, means_of
from orchestrator.experiment import CELL_TAG, Experiment, Metric, Run, RunTag, role_tags, source_tags
from orchestrator.parameters import parameters
from orchestrator.snapshot import ReportFiles
from orchestrator.store import DamagedResult, Store
from trainables.api.names import differing_seeds

TOKEN_TAG = "quarterturn.made_from"
# As many as MLflow draws at first; its own choice by run id gives neighbours the same. Tableau 10.
_COLOURS = (
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#bab0ac",
)  # fmt: skip


class CellRuns:
    """The runs of a study's cells."""

    def __init__(self, experiment: Experiment, runs: Iterable[Run]) -> None:
        """``runs`` are those of kind cell that are there, oldest first."""
        self._experiment = experiment
        self._runs = _newest_whole(experiment, runs)
        self._damaged: set[str] = set()  # tokens of cells whose mean cannot be shown, which was said

    def publish(self, store: Store, cell: Cell, manifest: Mapping[str, Any], tokens: Mapping[str, str]) -> None:
        """Make a cell's run anew if there is news of its trials. ``tokens`` is what MLflow has of each trial."""
        run = self._runs.get(cell.identity)
        if cell.finished(tokens) and (run is None or run.data.tags[TOKEN_TAG] != cell.token(tokens)):
            self._replace(store, cell, manifest, tokens, _now_ms())

    def bring_to_top(
        self,
        store: Store,
        cells: Sequence[Cell],
        manifest: Mapping[str, Any],
        tokens: Mapping[str, str],
        newer_than_ms: int,
    ) -> None:
        """Let the runs of cells be newer than all others, the first cell's newest."""
        for cell in reversed(cells):
            run = self._runs.get(cell.identity)
            if run is None:
                continue
            if run.info.start_time <= newer_than_ms:
                self._replace(store, cell, manifest, tokens, max(_now_ms(), newer_than_ms + 1))
            newer_than_ms = max(newer_than_ms, int(self._runs[cell.identity].info.start_time))

    def _replace(
        self, store: Store, cell: Cell, manifest: Mapping[str, Any], tokens: Mapping[str, str], start_ms: int
    ) -> None:
        token = cell.token(tokens)
        if token in self._damaged:
            return
        try:
            means, entry = means_of(store, cell, tokens), cell.entries[0]
        except DamagedResult as error:  # the other cells go on
            self._damaged.add(token)
            print(f"warning: the mean of {cell.name} cannot be shown: {error}", file=sys.stderr)
            return
        seeds = sorted(differing_seeds([one.get("seeds", {}) for one in cell.entries]))
        tags = {
            CELL_TAG: cell.identity,
            "mlflow.runColor": _COLOURS[cell.position % len(_COLOURS)],
            **role_tags(entry),
            "quarterturn.trainable": entry["class"],
            "quarterturn.n": str(len(means.keys)),
            "quarterturn.wanted": str(len(cell.entries)),
            "quarterturn.keys": ",".join(cell.finished(tokens)),
            "mlflow.note.content": _note(cell, means, seeds),
            **source_tags(manifest, manifest["provenance"].get("code_version", "unknown")),
        }
        run = self._experiment.create(cell.name, "cell", start_ms, tags)
        self._experiment.log_data(run, entry, manifest)
        shown = parameters(entry["configuration"], without=seeds)
        self._experiment.log(run, shown, _metrics(means), {TOKEN_TAG: token})
        self._experiment.client.set_terminated(run.info.run_id, "FINISHED", end_time=start_ms)
        run.data.tags[TOKEN_TAG] = token
        if (before := self._runs.get(cell.identity)) is not None:
            self._experiment.client.delete_run(before.info.run_id)
        self._runs[cell.identity] = run


class ReportRun:
    """The run with the report; while a study runs, it says how far it is."""

    def __init__(self, experiment: Experiment, runs: Iterable[Run]) -> None:
        """``runs`` are those of kind report that are there, oldest first."""
        self._experiment = experiment
        *older, self._run = [*runs] or [None]
        for run in older:
            experiment.client.delete_run(run.info.run_id)

    @property
    def id(self) -> str:
        """Address of the run, empty before the first ``describe``."""
        return "" if self._run is None else str(self._run.info.run_id)

    @property
    def start_ms(self) -> int:
        """The run's place among the others."""
        return 0 if self._run is None else int(self._run.info.start_time)

    def describe(self, manifest: Mapping[str, Any], counts: Mapping[str, int], *, has_ended: bool) -> None:
        """Say what the study asks and how far it is; its submission may have ended."""
        if self._run is None:
            self._run = self._create(_now_ms(), manifest)
        tags = {
            "mlflow.note.content": manifest["question"],
            "quarterturn.command": manifest["command"],
            **{f"quarterturn.{name}": str(value) for name, value in manifest.get("facts", {}).items()},
            **{f"quarterturn.trials_{state}": str(n) for state, n in counts.items()},
            **source_tags(manifest, manifest["provenance"].get("code_version", "unknown")),
        }
        self._experiment.log(self._run, {}, [], tags)
        client = self._experiment.client
        if not has_ended:
            client.update_run(self.id, status="RUNNING")
        elif counts["failed"]:
            client.set_terminated(self.id, "FAILED")
        else:
            client.set_terminated(self.id, "FINISHED" if counts["done"] == sum(counts.values()) else "KILLED")

    def publish(
        self, store: Store, manifest: Mapping[str, Any], report: ReportFiles | None, newer_than_ms: int
    ) -> None:
        """Let the run have the files of the newest report, and be newer than the trials'."""
        token = "" if report is None else report.token
        known = "" if self._run is None else self._run.data.tags.get(TOKEN_TAG, "")
        if self._run is not None and known == token and self.start_ms > newer_than_ms:
            return
        before, self._run = self._run, self._create(max(_now_ms(), newer_than_ms + 1), manifest)
        if report is not None:
            self._experiment.log_files(self._run, store, report.folder, report.files)
            self._experiment.client.log_batch(self.id, tags=[RunTag(TOKEN_TAG, token)])
            self._run.data.tags[TOKEN_TAG] = token
        if before is not None:
            self._experiment.client.delete_run(before.info.run_id)

    def _create(self, start_ms: int, manifest: Mapping[str, Any]) -> Run:
        return self._experiment.create(f"report of {manifest['study']}", "report", start_ms, {})


def _newest_whole(experiment: Experiment, runs: Iterable[Run]) -> dict[str, Run]:
    """The newest whole run of each cell. Others were cut short, or replaced just before something broke: they go."""
    found: dict[str, Run] = {}
    for run in runs:
        identity = run.data.tags[CELL_TAG]
        is_whole = TOKEN_TAG in run.data.tags and run.info.status == "FINISHED"
        superseded = found.get(identity) if is_whole else run
        if is_whole:
            found[identity] = run
        if superseded is not None:
            experiment.client.delete_run(superseded.info.run_id)
    return found


def _metrics(means: CellMeans) -> list[Metric]:
    at_ms = int(means.ended_at * 1000)
    metrics = [Metric(name, value, at_ms, step) for name, step, value, at_ms in means.rows]
    metrics += [Metric(name, value, at_ms, 0) for name, value in means.summary.items()]
    # Without a prefix: MLflow draws it last.
    return [*metrics, Metric("n", len(means.keys), at_ms, 0)]


def _note(cell: Cell, means: CellMeans, seeds: Sequence[str]) -> str:
    over = f" over {', '.join(seeds)}" if seeds else ""
    if len(means.keys) == len(cell.entries):
        return f"Mean of {len(means.keys)} trials{over}." if len(means.keys) > 1 else "One trial: no spread is known."
    lacking = [entry.get("seeds", {}) for entry in cell.entries if entry["key"] not in means.keys]
    missing = [json.dumps({path: value for path, value in found.items() if path in seeds}) for found in lacking]
    return f"Mean of {len(means.keys)} of {len(cell.entries)} trials{over}; missing: {', '.join(missing)}."


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
