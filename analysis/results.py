"""From a store and a manifest to the frames and arrays that statistics and figures work on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from orchestrator.store import Result, Store

Entry = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class FinishedTrial:
    """A trial's part of the manifest, its result, and where its files lie on this machine."""

    entry: Entry
    result: Result
    folder: Path


@dataclass(frozen=True, eq=False)
class StudyResults:
    """What a study has, and what it lacks and why; trials in the order of the manifest."""

    manifest: Mapping[str, Any]
    finished: Mapping[str, FinishedTrial]  # by name
    missing: Mapping[str, str]  # name -> reason


def load_study(store: Store, manifest: Mapping[str, Any]) -> StudyResults:
    """Fetch the files of every finished trial of a manifest; their digests are verified on the way.

    Raises DamagedResult when published files are not what was published.
    """
    cache_dir = Path(tempfile.gettempdir()) / f"quarterturn-analysis-{os.getuid()}"
    results, reasons = look_up(store, manifest["trials"])
    finished: dict[str, FinishedTrial] = {}
    missing: dict[str, str] = {}
    for entry in manifest["trials"]:
        name, key = entry["name"], entry["key"]
        if key in results:
            finished[name] = FinishedTrial(entry, results[key], store.fetch(key, cache_dir))
        else:
            missing[name] = reasons[key]
    return StudyResults(manifest, finished, missing)


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


def metric_history(store: Store, result: Result) -> pl.DataFrame:
    """Everything a trial logged: columns metric, step, value, in the order of logging."""
    rows = [row[:3] for row in store.rows(result)]
    schema = {"metric": pl.String, "step": pl.Int64, "value": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def curve_frame(curves: Mapping[str, FinishedTrial]) -> pl.DataFrame:
    """The rows of every ``curve.parquet``, with the curve's name in the column ``curve``."""
    frames = [
        pl.read_parquet(trial.folder / "curve.parquet")
        .rename({"value": "angle_deg"})
        .with_columns(pl.col("field_of_view").replace({"kept": "circle"}), curve=pl.lit(name))
        for name, trial in curves.items()
    ]
    return pl.concat(frames)


def samples_of(trial: FinishedTrial) -> dict[str, np.ndarray[Any, Any]] | None:
    """The arrays of ``samples.npz``; None if the trial published none."""
    path = trial.folder / "samples.npz"
    if not path.exists():
        return None
    angles = {"values": "angles_deg", "views_KVHW": "rotated_KAHW", "view_maps_KVHW": "maps_rotated_KAHW"}
    angles |= {"maps_KVHW": "maps_KAHW"}
    with np.load(path, allow_pickle=False) as arrays:
        return {angles.get(name, name): arrays[name] for name in arrays.files}


def _reason(store: Store, entry: Entry, reasons: Mapping[str, str]) -> str:
    failure = store.failure(entry["key"])
    if failure is not None:
        return f"{failure.kind}: {failure.message}"
    waits_for: Sequence[str] = [key for key in entry["upstream"] if key in reasons]
    if waits_for:
        return f"waits for a trial without result ({reasons[waits_for[0]]})"
    return "not finished"
