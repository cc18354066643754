"""Cells of a study: trials that differ in their seeds only, and the mean of their curves."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.store import DamagedResult, Result, Store
from trainables.api.names import cell_name

Row = tuple[str, int, float, int]
"""Metric, step, value, time in ms since the epoch."""


@dataclass(frozen=True)
class Cell:
    """One configuration without its seeds, in one role of a study."""

    identity: str
    name: str
    role: str
    labels: Mapping[str, str]
    entries: tuple[Mapping[str, Any], ...]
    """The manifest's entries of its trials, each trial once."""
    position: int = 0
    """Among the cells of its study."""

    @property
    def keys(self) -> list[str]:
        """Keys of all trials that are wanted."""
        return [entry["key"] for entry in self.entries]

    def finished(self, tokens: Mapping[str, str]) -> list[str]:
        """Keys of its finished trials. ``tokens`` says of each trial what was published of it (``Snapshot.token``)."""
        return [key for key in self.keys if tokens.get(key, "").startswith("done:")]

    def token(self, tokens: Mapping[str, str]) -> str:
        """Changes whenever another trial has finished or was computed again, and when more are wanted."""
        found = sorted((key, tokens[key]) for key in self.finished(tokens))
        return hashlib.sha256(json.dumps([self.name, len(self.keys), found]).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class CellMeans:
    """What the finished trials of a cell measured: means over them, and standard deviations from two trials up."""

    keys: list[str]
    """Of the trials that are in the means."""
    rows: list[Row]
    summary: dict[str, float]
    ended_at: float


def cells_of(manifest: Mapping[str, Any]) -> list[Cell]:
    """The cells of a submission: those with a role first, in the manifest's order, then others of several seeds.

    A single trial without a role is no cell: it would only say again what its own run says.
    """
    members: dict[str, dict[str, Mapping[str, Any]]] = {}
    for entry in manifest["trials"]:
        if identity := entry.get("cell"):
            members.setdefault(identity, {}).setdefault(entry["key"], entry)
    cells = [_cell(identity, tuple(entries.values())) for identity, entries in members.items()]
    shown = sorted((c for c in cells if c.role or len(c.entries) > 1), key=lambda c: not c.role)
    return [replace(cell, position=position) for position, cell in enumerate(shown)]


def means_of(store: Store, cell: Cell, tokens: Mapping[str, str]) -> CellMeans:
    """Mean and standard deviation over the finished trials of a cell, of which there is one, from their journals.

    Raises DamagedResult when a result or journal is not what was published.
    """
    results = [_result(store, key) for key in cell.finished(tokens)]
    summaries = [{f"{name}/summary": [(0, value, 0)] for name, value in result.metrics.items()} for result in results]
    return CellMeans(
        keys=[result.key for result in results],
        rows=_means([_history(store, result) for result in results]),
        summary={name: value for name, _, value, _ in _means(summaries)},
        ended_at=max(result.ended_at for result in results),
    )


def _result(store: Store, key: str) -> Result:
    result = store.result(key)
    if result is None:
        raise DamagedResult(f"trial {key} was published to MLflow and has no result in {store.uri} any more")
    return result


def _cell(identity: str, entries: tuple[Mapping[str, Any], ...]) -> Cell:
    role, labels = entries[0].get("role", ""), entries[0].get("labels", {})
    return Cell(identity, cell_name(role or _shared_name(entries), labels), role, labels, entries)


def _shared_name(entries: Sequence[Mapping[str, Any]]) -> str:
    """The words that the names of all trials have in common, without a seed that has lost its number; without any,
    their class."""
    words = [entry["name"].split() for entry in entries]
    shared = " ".join(word for word in words[0] if all(word in others for others in words)).strip(" ,:/")
    shared = re.sub(r",? seed(?= /|$)", "", shared)
    return shared or str(entries[0]["class"])


def _history(store: Store, result: Result) -> dict[str, list[tuple[int, float, int]]]:
    """Steps, values and times by metric; of two rows for one step the later counts."""
    found: dict[str, dict[int, tuple[int, float, int]]] = {}
    for name, step, value, at_ms in store.rows(result):
        found.setdefault(name, {})[step] = (step, value, at_ms)
    return {name: list(by_step.values()) for name, by_step in found.items()}


def _means(histories: Sequence[Mapping[str, Sequence[tuple[int, float, int]]]]) -> list[Row]:
    """Rows of mean and ``std/`` at the steps that all trials have: a mean over fewer would not be the cell's."""
    gathered: dict[tuple[str, int], list[tuple[float, int]]] = {}
    for history in histories:
        for name, points in history.items():
            for step, value, at_ms in points:
                gathered.setdefault((name, step), []).append((value, at_ms))
    rows: list[Row] = []
    for (name, step), found in gathered.items():
        if len(found) < len(histories):
            continue
        at_ms = max(at for _, at in found)
        mean, std = _mean_and_std([value for value, _ in found])
        rows.append((name, step, mean, at_ms))
        if std is not None:
            rows.append((f"std/{name}", step, std, at_ms))
    return [row for row in rows if math.isfinite(row[2])]


def _mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation, None of a single value; infinite where floats do not reach."""
    try:
        mean = math.fsum(values) / len(values)
        if len(values) == 1:
            return mean, None
        return mean, math.sqrt(math.fsum((value - mean) * (value - mean) for value in values) / (len(values) - 1))
    except OverflowError:
        return math.inf, math.inf
