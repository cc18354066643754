"""The only writer of MLflow. It copies what the store says; nothing ever waits for it.

One experiment a study; in it one run a trial (trial_runs.py), one a cell and one with the report (summary_runs.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from orchestrator.experiment import KIND_TAG, Experiment, Run, TrackingError
from orchestrator.following import Described
from orchestrator.snapshot import ReportFiles, Snapshot
from orchestrator.store import Store
from orchestrator.summary_runs import CellRuns, ReportRun
from orchestrator.trial_runs import TrialRuns

__all__ = ["Tracker", "TrackingError"]


class Tracker:
    """One study's experiment on one MLflow server or database."""

    def __init__(self, tracking_uri: str, study: str, artifact_root: str | None = None) -> None:
        """Connect, and look which runs are there.

        ``artifact_root`` is used when the experiment is made on a database; a server has its own. Raises
        UnusableDatabase, or what MLflow raises.
        """
        self._experiment = Experiment(tracking_uri, study, artifact_root)
        runs: dict[str, list[Run]] = {"trial": [], "cell": [], "report": []}
        for run in self._experiment.runs():
            runs[run.data.tags[KIND_TAG]].append(run)
        self._trials = TrialRuns(self._experiment, runs["trial"])
        self._cells = CellRuns(self._experiment, runs["cell"])
        self._report = ReportRun(self._experiment, runs["report"])
        self._described: Described | None = None

    @property
    def instance(self) -> str:
        """Which experiment this is, should the same address come to be another server's."""
        return self._experiment.instance

    @property
    def experiment_id(self) -> str:
        """Its number in MLflow's addresses."""
        return self._experiment.id

    @property
    def has_cells(self) -> bool:
        """Whether the submission that was described last has cells."""
        return self._described is not None and bool(self._described.cells)

    def is_answering(self) -> bool:
        """Whether MLflow answers at all."""
        try:
            self._experiment.client.get_experiment(self._experiment.id)
        except Exception:  # of any kind: that is the question
            return False
        return True

    def publish(self, store: Store, entry: Mapping[str, Any], manifest: Mapping[str, Any], shot: Snapshot) -> None:
        """Make the run of one trial say what the store says. ``entry`` is the trial's part of ``manifest``."""
        self._trials.publish(store, entry, manifest, shot)

    def withdraw(self, key: str) -> None:
        """Remove the run of a trial that cannot be published."""
        self._trials.withdraw(key)

    def describe_study(
        self,
        store: Store,
        manifest: Mapping[str, Any],
        tokens: Mapping[str, str],
        report: ReportFiles | None,
        *,
        has_ended: bool,
        news: Collection[str] | None = None,
    ) -> None:
        """Bring cells and report up to date with a submission, which may have ended.

        ``tokens`` is what MLflow has of each trial; ``news`` are the keys for which that is other than at the last call
        for this manifest, None where nobody knows.
        """
        if self._described is None or not self._described.is_of(manifest):
            self._described, news = Described(manifest), None
        described = self._described
        touched = described.learn(tokens, tokens if news is None else news)
        for cell in reversed(touched):  # of those that are new at once the first becomes the newest
            self._cells.publish(store, cell, manifest, tokens)
        if has_ended:
            self._report.publish(store, manifest, report, self._trials.newest_ms)
            self._cells.bring_to_top(store, described.cells, manifest, tokens, self._report.start_ms)
        self._report.describe(manifest, described.counts, has_ended=has_ended)
        self._experiment.set_note(self._experiment.note(manifest["question"], self._report.id))
