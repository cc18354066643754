"""``python -m orchestrator optuna``: the searches of a storage as a database that Optuna and its dashboard open.

Made from manifests and results alone; no code of a study is loaded. Objectives and parameters stand by name. A
suggestion is a trial: complete with a value at the last rung (or without rungs), pruned with a value at an earlier one
and no longer trial so far; its values by length are intermediate values. Of several objectives, which Optuna gives no
intermediate values, they are user attributes.
"""

from __future__ import annotations

import datetime
import json
import os
import statistics
import tempfile
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

from orchestrator.options import DefaultInHelp
from orchestrator.places import opened
from orchestrator.snapshot import sqlite_uri
from orchestrator.store import Result, Store
from orchestrator.study import Manifest
from orchestrator.usage import EXIT_OK

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, TrialState


def optuna(out: Path, storage: DefaultInHelp[str | None] = None, study: DefaultInHelp[str | None] = None) -> int:
    """Write the searches of a storage into a new Optuna database, such as `optuna-dashboard sqlite:///FILE` shows.

    Args:
        out: The file to write. It must not be there.
        storage: Folder or URL of the results (default: $QUARTERTURN_STORAGE or ./results).
        study: Only this study (default: all that have a search).
    """
    if out.exists():
        raise ValueError(f"--out {out} is there already: nothing is overwritten; remove it, or name another file")
    store = opened(storage)
    manifests = _searches(store, study)
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder) / "optuna.db"
        counts = _write(aside, [(manifest, _trials(store, manifest)) for manifest in manifests])
        _put(aside, out)
    for name, count in counts.items():
        print(f"{out}: {count} suggestions of {name}")
    return EXIT_OK


def _searches(store: Store, study: str | None) -> list[Manifest]:
    """The latest manifest of each study with a search. Raises ValueError when there is none."""
    found = [m for m in store.manifests() if isinstance(m.get("search"), dict) and study in (None, m["study"])]
    if not found:
        what = "holds no search" if study is None else f"holds no search of a study {study!r}"
        raise ValueError(f"{store.uri} {what}; give --storage with the folder or URL of its results")
    return list({m["study"]: m for m in found}.values())


@dataclass(frozen=True)
class _Stage:
    """What the storage says of a suggestion at one length."""

    length: int | None
    keys: Mapping[str, Sequence[str]]
    values: Mapping[str, float] | None
    has_failed: bool
    results: Sequence[Result]


def _stage(store: Store, document: Mapping[str, Any], objectives: Sequence[str]) -> _Stage:
    keys = {objective: list(document["trials"][objective]) for objective in objectives}
    found = {key: store.result(key) for of_one in keys.values() for key in of_one}
    results = {key: result for key, result in found.items() if result is not None}
    is_whole = len(results) == len(found)
    is_told = all(o in results[key].metrics for o in objectives for key in keys[o] if key in results)
    values = None
    if is_whole and is_told:
        values = {o: statistics.fmean(results[key].metrics[o] for key in keys[o]) for o in objectives}
    has_failed = not is_told or any(store.failure(key) is not None for key in found if key not in results)
    has_failed = has_failed or (values is None and document["state"] == "failed")
    return _Stage(document.get("length"), keys, values, has_failed, list(results.values()))


def _trials(store: Store, manifest: Manifest) -> list[FrozenTrial]:
    """The suggestions of a manifest as trials of Optuna. Raises ValueError where it is of another shape."""
    from optuna.distributions import json_to_distribution

    search = manifest["search"]
    try:
        space = {name: json_to_distribution(json.dumps(d)) for name, d in search["space"].items()}
        last = search["rungs"]["lengths"][-1] if search.get("rungs") else None
        return [_trial(store, manifest, document, space, last) for document in search["suggestions"]]
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"the search of {manifest['study']!r} in {store.uri} is written down in another way ({error!r}): "
            "submit the study again"
        ) from error


def _trial(
    store: Store,
    manifest: Manifest,
    document: Mapping[str, Any],
    space: Mapping[str, BaseDistribution],
    last: int | None,
) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    objectives = list(manifest["search"]["directions"])
    stages = [_stage(store, rung, objectives) for rung in document.get("rungs") or [document]]
    state = _state(stages[-1], last)
    reached = [(stage.length, stage.values) for stage in stages if stage.values is not None]
    is_single = len(objectives) == 1
    by_length = {int(length): values for length, values in reached if length is not None}
    ordered = [reached[-1][1][o] for o in objectives] if reached else None
    shows_value = state is TrialState.COMPLETE or (state is TrialState.PRUNED and is_single)
    trial = create_trial(
        state=state,
        params=dict(document["params"]),
        distributions=dict(space),
        values=ordered if shows_value else None,
        intermediate_values={n: values[objectives[0]] for n, values in by_length.items()} if is_single else None,
        user_attrs=_attributes(document, stages, {} if is_single else by_length),
    )
    results = [result for stage in stages for result in stage.results]
    begun_at = min((result.started_at for result in results), default=float(manifest["submitted_at"]))
    trial.datetime_start = datetime.datetime.fromtimestamp(begun_at)
    if state.is_finished():
        ended_at = max((result.ended_at for result in results), default=begun_at)
        trial.datetime_complete = datetime.datetime.fromtimestamp(ended_at)
    return trial


def _state(stage: _Stage, last: int | None) -> TrialState:
    """Of the last stage that was begun: pruned is what has a value and no longer trial, so far."""
    from optuna.trial import TrialState

    if stage.has_failed:
        return TrialState.FAIL
    if stage.values is None:
        return TrialState.RUNNING
    return TrialState.COMPLETE if stage.length == last else TrialState.PRUNED


def _attributes(
    document: Mapping[str, Any], stages: Sequence[_Stage], by_length: Mapping[int, Mapping[str, float]]
) -> dict[str, Any]:
    """What people look for beside the values: the suggestion's number, and keys of its trials."""
    attributes: dict[str, Any] = {"suggestion": document["number"]}
    for stage in stages:
        at = "" if stage.length is None else f" at {stage.length}"
        attributes[f"trials{at}"] = dict(stage.keys)
    attributes |= {f"values at {length}": dict(values) for length, values in by_length.items()}
    if document.get("reason"):
        attributes["reason"] = document["reason"]
    return attributes


def _write(path: Path, searches: Sequence[tuple[Manifest, Sequence[FrozenTrial]]]) -> dict[str, int]:
    import optuna as library

    library.logging.set_verbosity(library.logging.WARNING)
    storage = library.storages.RDBStorage(sqlite_uri(path))
    try:
        for manifest, trials in searches:
            directions = manifest["search"]["directions"]
            study = library.create_study(
                study_name=manifest["study"], storage=storage, directions=list(directions.values())
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", library.exceptions.ExperimentalWarning)
                study.set_metric_names(list(directions))
            for name in ("question", "command"):
                study.set_user_attr(name, manifest.get(name, ""))
            study.add_trials(trials)
    finally:
        storage.remove_session()
        storage.engine.dispose()
    return {manifest["study"]: len(trials) for manifest, trials in searches}


def _put(made: Path, out: Path) -> None:
    """Give a whole database its name: what is killed before leaves nothing under it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        copyfile(made, aside)
        os.link(aside, out)  # fails where the name was taken meanwhile
    except FileExistsError as error:
        raise ValueError(f"--out {out} is there already: nothing is overwritten") from error
    finally:
        aside.unlink(missing_ok=True)
