"""The report of a study: made anew when its results or the code that draws it are others, and found otherwise."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.entry import code_digest, load_entry
from orchestrator.plan import Plan, State
from orchestrator.snapshot import ReportFiles, record_report, report_files
from orchestrator.store import DamagedResult, FileEntry, Store
from orchestrator.study import Manifest, Report, Study
from trainables.api.identity import sha256_of


def report_on(
    study: Study, store: Store, manifest: Manifest, plan: Plan, say: Callable[[str], None]
) -> list[str] | None:
    """Make the report unless it is there already for exactly these results.

    Returns the paths worth showing; None, having said why, when a result turned out to be damaged.
    """
    if study.report is None or plan.counts()[State.DONE] == 0:
        return []
    folder = f"reports/{study.name}"
    made_from = _token(study.report, plan, manifest)
    report = report_files(store, study.name)
    if report is None or report.token != made_from or not all(store.exists(f"{folder}/{p}") for p in report.paths):
        try:
            report = ReportFiles(made_from, *_write_report(study.report, store, manifest, folder), folder)
        except DamagedResult as error:
            say(f"no report: {error}")
            return None
        record_report(store, report)
    return [f"{store.uri}/{folder}/{path}" for path in report.paths]


def _write_report(entry: str, store: Store, manifest: Manifest, folder: str) -> tuple[list[str], dict[str, FileEntry]]:
    """Returns the paths worth showing, and digest and size of every file that belongs to the report."""
    report: Report = load_entry(entry)
    if not store.is_local:
        with tempfile.TemporaryDirectory() as temporary:
            names = _paths_below(report(store, manifest, Path(temporary)), Path(temporary))
            return names, store.upload(Path(temporary), folder)
    out_dir = Path(store.uri) / folder
    out_dir.mkdir(parents=True, exist_ok=True)
    names = _paths_below(report(store, manifest, out_dir), out_dir)
    files = [path for path in sorted(out_dir.rglob("*")) if path.is_file() and path != out_dir / "made_from.json"]
    entries = [FileEntry(sha256_of(path), path.stat().st_size) for path in files]
    return names, dict(zip(_paths_below(files, out_dir), entries, strict=True))


def _paths_below(paths: Any, folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def _token(report: str, plan: Plan, manifest: Manifest) -> str:
    """Identifies what a report is made from: results, failures, what it says of the study, and the code."""
    states = [(p.trial.key, p.state.value, p.reason, p.result.ended_at if p.result else 0) for p in plan.planned]
    said = [manifest.get(name) for name in ("question", "facts", "cards", "command", "search")]
    trials = [[entry[name] for name in ("key", "name", "role", "labels", "seeds")] for entry in manifest["trials"]]
    text = json.dumps([states, code_digest(report), said, trials], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
