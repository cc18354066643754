"""One submission of a study: plan, run what is missing, report on all of it."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator import printing
from orchestrator.feeder import Feeder, published_tokens
from orchestrator.options import StudyOptions
from orchestrator.plan import Plan, State, make_plan, manifest_of
from orchestrator.provenance import provenance, without_password
from orchestrator.snapshot import default_tracking_uri, snapshot
from orchestrator.store import DamagedResult, Store
from orchestrator.study import Manifest, Report, Study
from orchestrator.trial import DEFAULT_CHECKPOINT_INTERVAL_S, Settings, default_cache_dir
from orchestrator.view import View
from trainables.api.errors import BadData
from trainables.api.identity import FileDigests, Keys

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130


class UsageError(Exception):
    """What the user typed, or the files it names, cannot be used; nothing has run."""


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Before anything runs, these mean bad input and say what; later they would be bugs, and are not caught."""
    try:
        yield
    except (ValueError, TypeError, BadData, FileNotFoundError) as error:
        if os.environ.get("QUARTERTURN_TRACEBACK"):
            raise
        raise UsageError(str(error)) from error


def submit(options: StudyOptions, make_study: Callable[[], Study], console: Console) -> int:
    """Do what is missing of a study and report on all of it; returns the exit status.

    Raises UsageError, having changed nothing, for input that cannot be used.
    """
    with usage_errors():
        study = make_study()
        store = Store(_storage(options.storage))
        cache_dir = (options.cache_dir or default_cache_dir()).resolve()
        keys = Keys(FileDigests(cache_dir / "digests.json"))
        plan = make_plan(study, store, keys, retry_failed=options.retry_failed)
        tracking_uri = "" if options.plan else options.tracking_uri or default_tracking_uri(store)
    if options.plan:
        printing.show_plan(plan, console, as_json=options.json)
        return 0
    manifest = manifest_of(plan, without_password(shlex.join(["python", *sys.argv])), provenance(), keys)
    if plan.runnable():
        if _run(plan, store, manifest, cache_dir, options, tracking_uri, console):
            console.print("Interrupted. The same command goes on where this one stopped.")
            return EXIT_INTERRUPTED
    else:
        _write_manifest(store, manifest)
        _catch_up(plan, store, tracking_uri, console)
    after = make_plan(study, store, keys)
    printing.show_troubles(after, console)
    paths = _report(study, store, manifest, after, console)
    printing.show_end(after, paths or [], store, tracking_uri, console)
    is_complete = after.counts()[State.DONE] == len(after.planned) and paths is not None
    return 0 if is_complete else EXIT_FAILED


def _run(
    plan: Plan,
    store: Store,
    manifest: Manifest,
    cache_dir: Path,
    options: StudyOptions,
    tracking_uri: str,
    console: Console,
) -> bool:
    """Run what is runnable and bring MLflow up to date; True if the user ended it early."""
    # Ray is slow to load: not for --plan, not for --help, not when nothing is left to do.
    from orchestrator.launch import Cluster, launch, resources_for, slots

    counts = plan.counts()
    console.print(
        f"{plan.study.name}: {counts[State.DONE]} of {len(plan.planned)} trials are done, {len(plan.runnable())} to "
        f"run, {printing.estimate_text(plan)}",
        highlight=False,
    )
    with usage_errors():
        cluster = Cluster(options.address)
    # The feeder loads MLflow while Ray starts, and publishes the last runs while Ray ends.
    with Feeder(store.uri, tracking_uri, plan.study.name) as feeder, cluster:
        with usage_errors():
            resources = resources_for(plan, options)
        _write_manifest(store, manifest)
        if options.retry_failed:
            for trial in plan.runnable():
                store.clear_failure(trial.key)
        settings = Settings(store.uri, cache_dir, resources, manifest["provenance"], _checkpoint_interval_s())
        with View(plan, console, lambda: slots(resources)) as view:
            outcome = launch(plan, store, settings, view, options.max_concurrent, feeder.tell)
        feeder.finish()
    if not feeder.is_up_to_date:
        printing.say_behind(store, tracking_uri, console)
    return outcome.was_interrupted


def _catch_up(plan: Plan, store: Store, tracking_uri: str, console: Console) -> None:
    """Nothing ran, but MLflow may lack something from an earlier submission, or be another one."""
    known = published_tokens(store, plan.study.name, tracking_uri)
    shots = [snapshot(store, p.trial.key) for p in plan.planned]
    is_known = all(shot is None or known.get(shot.key) == shot.token for shot in shots)
    if is_known and not _is_missing_database(tracking_uri):
        return
    with Feeder(store.uri, tracking_uri, plan.study.name) as feeder:
        feeder.finish()
    if not feeder.is_up_to_date:
        printing.say_behind(store, tracking_uri, console)


def _is_missing_database(tracking_uri: str) -> bool:
    path = tracking_uri.removeprefix("sqlite:///")
    return path != tracking_uri and not Path(path).exists()


def _checkpoint_interval_s() -> float:
    """Seconds between two checkpoints of a trial: ``QUARTERTURN_CHECKPOINT_S``, else 15."""
    return float(os.environ.get("QUARTERTURN_CHECKPOINT_S") or DEFAULT_CHECKPOINT_INTERVAL_S)


def _storage(given: str | None) -> str:
    storage = given or os.environ.get("QUARTERTURN_STORAGE") or "results"
    is_relative = "://" not in storage and not Path(storage).is_absolute()
    if is_relative and os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        raise ValueError(
            f"storage {storage!r} is relative, and the folder of a Ray job is a copy that is new with every change of "
            "the code: give --storage with an absolute path or URL that all nodes reach, or set QUARTERTURN_STORAGE"
        )
    return storage


def _write_manifest(store: Store, manifest: Manifest) -> None:
    keys = "".join(sorted(trial["key"] for trial in manifest["trials"]))
    submission = hashlib.sha256(keys.encode()).hexdigest()[:16]
    store.write_document(f"studies/{manifest['study']}/{submission}.json", manifest)


def _report(study: Study, store: Store, manifest: Manifest, plan: Plan, console: Console) -> list[str] | None:
    """Make the report unless it is there already for exactly these results.

    Returns the paths worth showing; None, having said why, when a result turned out to be damaged.
    """
    if study.report is None or plan.counts()[State.DONE] == 0:
        return []
    folder = f"reports/{study.name}"
    made_from = _token(study.report, plan, manifest)
    before = store.read_document(f"{folder}/made_from.json") or {}
    if before.get("token") == made_from and all(store.exists(f"{folder}/{name}") for name in before["paths"]):
        return [f"{store.uri}/{folder}/{name}" for name in before["paths"]]
    try:
        names = _write_report(study.report, store, manifest, folder)
    except DamagedResult as error:
        console.print(f"no report: {error}", soft_wrap=True, markup=False, highlight=False)
        return None
    store.write_document(f"{folder}/made_from.json", {"token": made_from, "paths": names})
    return [f"{store.uri}/{folder}/{name}" for name in names]


def _write_report(report: Report, store: Store, manifest: Manifest, folder: str) -> list[str]:
    if store.is_local:
        out_dir = Path(store.uri) / folder
        out_dir.mkdir(parents=True, exist_ok=True)
        return _paths_below(report(store, manifest, out_dir), out_dir)
    with tempfile.TemporaryDirectory() as temporary:
        names = _paths_below(report(store, manifest, Path(temporary)), Path(temporary))
        store.upload(Path(temporary), folder)
    return names


def _paths_below(paths: Any, folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def _token(report: Report, plan: Plan, manifest: Manifest) -> str:
    """Identifies what a report is made from: results, failures, and the code that draws it."""
    states = [(p.trial.key, p.state.value, p.reason, p.result.ended_at if p.result else 0) for p in plan.planned]
    text = json.dumps([states, _code_digest(report), manifest["facts"]])
    return hashlib.sha256(text.encode()).hexdigest()


def _code_digest(function: Callable[..., Any]) -> str:
    """Digest of the Python files of the top-level package that a function lives in, or of its file."""
    file = Path(inspect.getsourcefile(function) or "")
    package = sys.modules[function.__module__.partition(".")[0]]
    files = sorted(Path(package.__path__[0]).rglob("*.py")) if hasattr(package, "__path__") else [file]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
