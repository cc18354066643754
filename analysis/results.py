"""From a store and a manifest to one frame of all trials, and to the files of those that are done.

A trial is known by what it is: its role, its labels, its seeds and its configuration, all of them data in the
manifest. Names are for people; nothing here reads them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from orchestrator.kinds import kind_of
from orchestrator.store import Result, Store

Entry = Mapping[str, Any]

WAITS_FOR = "waits for a trial without result"


@dataclass(frozen=True, eq=False)
class StudyResults:
    """What a study has, and what it lacks and why; trials in the order of the manifest."""

    store: Store
    manifest: Mapping[str, Any]
    results: Mapping[str, Result]  # by key
    reasons: Mapping[str, str]  # key -> why there is no result
    _folders: dict[str, Path] = field(default_factory=dict)

    def entries(self, *, role: str | None = None, **labels: str) -> list[Entry]:
        """The trials that the study names, of a role and with these labels; one that is only held in a field of
        another has no role."""
        return [
            entry
            for entry in self.manifest["trials"]
            if entry["named"]
            and role in (None, entry.get("role", ""))
            and all(entry.get("labels", {}).get(name) == value for name, value in labels.items())
        ]

    def card(self, data: str) -> Mapping[str, Any]:
        """What the study says of a data set; empty where it says nothing."""
        card: Mapping[str, Any] = self.manifest.get("cards", {}).get(data, {})
        return card

    def finished(self, entries: Iterable[Entry]) -> list[Entry]:
        """Those that have a result."""
        return [entry for entry in entries if entry["key"] in self.results]

    def labels(self, name: str) -> list[str]:
        """The values of a label, in the order of the manifest."""
        values = [entry.get("labels", {}).get(name) for entry in self.entries()]
        return list(dict.fromkeys(value for value in values if value is not None))

    def folder(self, key: str) -> Path:
        """The files of a finished trial on this machine, fetched when first asked for; digests are verified.

        Raises DamagedResult when they are not what was published.
        """
        if key not in self._folders:
            self._folders[key] = self.store.fetch(key, cache_dir())
        return self._folders[key]

    def history(self, key: str) -> pl.DataFrame:
        """Everything a finished trial logged: columns metric, step, value, in the order of logging."""
        rows = [row[:3] for row in self.store.rows(self.results[key])]
        return pl.DataFrame(rows, schema=HISTORY_SCHEMA, orient="row")

    def samples(self, key: str, file: str) -> dict[str, np.ndarray[Any, Any]] | None:
        """The arrays of an ``.npz`` file; None if the trial published none."""
        path = self.folder(key) / file
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def frame(self) -> pl.DataFrame:
        """One row a named trial. Columns: key, name, class, role, cell, state ("done" or "missing"), reason,
        ``label.NAME``, ``seed.PATH``, ``config.PATH`` (every plain leaf of the configuration, as text),
        ``metric.NAME`` and ``made.NAME`` (device, cpu, threads, versions: how it was computed)."""
        return pl.DataFrame([self._row(entry) for entry in self.entries()], infer_schema_length=None)

    def _row(self, entry: Entry) -> dict[str, Any]:
        result = self.results.get(entry["key"])
        columns: dict[str, Any] = {name: entry.get(name, "") for name in ("key", "name", "class", "role", "cell")}
        columns |= {"state": "missing" if result is None else "done", "reason": self.reasons.get(entry["key"], "")}
        columns |= {f"label.{name}": value for name, value in entry.get("labels", {}).items()}
        columns |= {f"seed.{path}": value for path, value in entry.get("seeds", {}).items()}
        columns |= {f"config.{path}": text for path, text in leaves(entry["configuration"])}
        if result is not None:
            columns |= {f"metric.{name}": value for name, value in result.metrics.items()}
            columns |= {f"made.{name}": value for name, value in result.provenance.items()}
        return columns


HISTORY_SCHEMA = {"metric": pl.String, "step": pl.Int64, "value": pl.Float64}


def latest_manifests(store: Store) -> dict[str, Mapping[str, Any]]:
    """The newest submission of every study."""
    latest: dict[str, Mapping[str, Any]] = {}
    for manifest in store.manifests():
        latest[manifest["study"]] = manifest
    return latest


def load_study(store: Store, manifest: Mapping[str, Any]) -> StudyResults:
    """Look up every trial of a manifest; files are fetched when something asks for them."""
    results, reasons = look_up(store, manifest["trials"])
    return StudyResults(store, manifest, results, reasons)


def look_up(store: Store, entries: Iterable[Entry]) -> tuple[dict[str, Result], dict[str, str]]:
    """Results by key, and by key why a trial has none; of ``entries``, upstream first, their key and upstream count."""
    results: dict[str, Result] = {}
    reasons: dict[str, str] = {}
    for entry in entries:
        result = store.result(entry["key"])
        if result is None:
            reasons[entry["key"]] = _reason(store, entry, reasons)
        else:
            results[entry["key"]] = result
    return results, reasons


def leaves(configuration: Any, path: str = "") -> list[tuple[str, str]]:
    """(dotted path, text) of every plain value of a described configuration; lists of plain values stay together."""
    if isinstance(configuration, Mapping):
        return [leaf for name, value in configuration.items() for leaf in leaves(value, f"{path}.{name}".strip("."))]
    if isinstance(configuration, list):
        if any(isinstance(value, Mapping | list) for value in configuration):
            return [leaf for i, value in enumerate(configuration) for leaf in leaves(value, f"{path}.{i}")]
        return [(path, ", ".join(map(str, configuration)))]
    return [(path, str(configuration))]


def cache_dir() -> Path:
    """Where this machine keeps what was read from stores; it may be removed at any time."""
    return Path(tempfile.gettempdir()) / f"quarterturn-analysis-{os.getuid()}"


def _reason(store: Store, entry: Entry, reasons: Mapping[str, str]) -> str:
    failure = store.failure(entry["key"])
    if failure is not None:
        return f"{kind_of(failure.kind)}: {failure.message}"
    waits_for: Sequence[str] = [key for key in entry["upstream"] if key in reasons]
    if waits_for:
        return f"{WAITS_FOR} ({reasons[waits_for[0]]})"
    return "not finished"
