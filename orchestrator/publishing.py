"""What one MLflow is to have of one study, what it has, and the way from the one to the other."""

from __future__ import annotations

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.following import Manifests
from orchestrator.provenance import first_line, without_password
from orchestrator.snapshot import Snapshot, artifact_root, report_files, snapshot
from orchestrator.store import DamagedResult, Store

if TYPE_CHECKING:
    from orchestrator.tracking import Tracker

TICK_S = 3.0
# What is not remembered is looked up in MLflow the next time: no need to write all of it again for a few trials.
_MOST_UNRECORDED = 0.05
_MAX_TRIES = 3  # of a trial that fails for no clear reason while MLflow answers
_REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST"})


@dataclass(frozen=True)
class Known:
    """What an MLflow is known to have."""

    instance: str = ""
    """Of which experiment; empty: of none."""
    tokens: dict[str, str] = field(default_factory=dict)
    """What was published of each trial (``Snapshot.token``), by key."""
    report: str = ""
    """Token of the report that was published."""
    experiment_id: str = ""
    """Its number in MLflow's addresses."""
    has_cells: bool = False

    @property
    def charts(self) -> str:
        """Where MLflow draws the study's curves, to be put behind a server's address; empty without an experiment.

        Without it a new browser opens MLflow's pages for traces of prompts.
        """
        query = "workflowType=machine_learning&compareRunsMode=CHART"
        if self.has_cells:  # or trials would fill what is left of the ten curves
            query += "&searchFilter=tags.kind%20%3D%20%22cell%22"
        return f"/#/experiments/{self.experiment_id}/runs?{query}" if self.experiment_id else ""


def known_of(store: Store, study: str, tracking_uri: str) -> Known:
    """What is remembered of earlier publishing to this URI."""
    return store.read_as(Known, _record(study, tracking_uri)) or Known()


def publisher(study: str, tracking_uri: str) -> str:
    """Path in the store for who feeds one MLflow with one study; another MLflow has a feeder of its own."""
    digest = hashlib.sha256(without_password(tracking_uri).encode()).hexdigest()
    return f"studies/{study}/publishers/{digest[:16]}"


class Publishing:
    """One connection's worth of publishing; the connection is made anew after an error, and looks what is there."""

    def __init__(self, store: Store, study: str, tracking_uri: str, *, forget: bool = False) -> None:
        """With ``forget``, look at every run, whatever is remembered."""
        self._store, self._study, self._tracking_uri = store, study, tracking_uri
        self._tracker: Tracker | None = None
        known = Known() if forget else known_of(store, study, tracking_uri)
        self._instance, self.tokens = known.instance, dict(known.tokens)
        self.refused: dict[str, str] = {}
        """Trials that MLflow does not take as they are, by key, with their token."""
        self._tries: Counter[str] = Counter()
        self._manifests = Manifests(store, study)
        self._described_at = 0.0
        self._undescribed: set[str] = set()  # keys of the tokens that are new since then
        self._unrecorded: set[str] = set()  # and since the record was written

    def wanted(self) -> list[str]:
        """Keys of all trials that any submission of the study needs, as the store has it now."""
        self._manifests.reread()
        return list(self._manifests.entries)

    def reconnect(self) -> None:
        """After an error: look again what is there."""
        self._tracker = None

    def publish(self, keys: Iterable[str], *, has_ended: bool) -> None:
        """Publish the trials of these keys and the state of the study, whose submission may have ended.

        A trial that MLflow does not take is said and passed over. Raises what else goes wrong, after the other trials
        where MLflow answers at all.
        """
        tracker = self._connect()
        keys, found = list(keys), self._manifests
        found.refresh()
        if not found.entries.keys() >= set(keys):
            found.grow()
        if not found.entries.keys() >= set(keys):
            found.reread()
        if not found.in_order:
            return
        entries = found.entries
        shots = [snapshot(self._store, key) for key in keys if key in entries]
        news = [shot for shot in shots if shot is not None and self._known(shot.key) != shot.token]
        if not news and not has_ended:
            return
        trouble = [error for shot in news if (error := self._publish_trial(tracker, *entries[shot.key], shot))]
        if has_ended or time.monotonic() - self._described_at > TICK_S:
            self._describe(tracker, found.in_order[-1], has_ended=has_ended and not trouble, is_last=has_ended)
        if trouble:
            raise trouble[0]

    def _known(self, key: str) -> str | None:
        return self.refused.get(key, self.tokens.get(key))

    def _describe(self, tracker: Tracker, manifest: Mapping[str, Any], *, has_ended: bool, is_last: bool) -> None:
        """Bring MLflow's word of the whole study up to date, and what is remembered if this is the last time."""
        report = report_files(self._store, self._study)
        tracker.describe_study(
            self._store, manifest, self.tokens, report, has_ended=has_ended, news=None if is_last else self._undescribed
        )
        self._undescribed.clear()
        if is_last or len(self._unrecorded) > _MOST_UNRECORDED * len(self.tokens):
            report_token = report.token if report and has_ended else ""
            known = Known(self._instance, self.tokens, report_token, tracker.experiment_id, tracker.has_cells)
            self._store.write_document(_record(self._study, self._tracking_uri), asdict(known))
            self._unrecorded.clear()
        self._described_at = time.monotonic()

    def _publish_trial(
        self, tracker: Tracker, entry: Mapping[str, Any], manifest: Mapping[str, Any], shot: Snapshot
    ) -> Exception | None:
        """Returns what went wrong where another try may succeed; raises it when MLflow does not answer."""
        try:
            tracker.publish(self._store, entry, manifest, shot)
        except DamagedResult as error:
            if shot.state == "done":  # of an unfinished trial its own process finds out, and goes on from before it
                self._store.report_damage(shot.key, shot.published, str(error))
        except Exception as error:
            self._tries[shot.key] += 1
            if not _is_refusal(error) and self._tries[shot.key] < _MAX_TRIES:
                if not tracker.is_answering():
                    raise
                return error
            name = entry["name"]
            print(f"warning: MLflow lacks {name} ({shot.key[:8]}): {first_line(error)}", file=sys.stderr)
            self.refused[shot.key] = shot.token
            tracker.withdraw(shot.key)
        else:
            self.tokens[shot.key] = shot.token
            self._undescribed.add(shot.key)
            self._unrecorded.add(shot.key)
        return None

    def _connect(self) -> Tracker:
        # MLflow takes seconds to load: not before it is needed.
        from orchestrator.tracking import Tracker

        if self._tracker is None:
            root = artifact_root(self._store, self._tracking_uri)
            self._tracker = Tracker(self._tracking_uri, self._study, root)
            if self._tracker.instance != self._instance:
                # Another database than the one that is remembered, perhaps under the same address.
                self._instance, self.tokens = self._tracker.instance, {}
        return self._tracker


def _is_refusal(error: Exception) -> bool:
    """Whether the same request would be refused again, as MLflow or its client says."""
    return isinstance(error, ValueError) or getattr(error, "error_code", None) in _REFUSALS


def _record(study: str, tracking_uri: str) -> str:
    return f"{publisher(study, tracking_uri)}.json"
