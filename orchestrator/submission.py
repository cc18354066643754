"""One submission of a study: plan, run what is missing, report on all of it."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import math
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator import printing
from orchestrator.feeder import Feeder
from orchestrator.manifest import ManifestWriter, entries_of, manifest_of
from orchestrator.options import StudyOptions
from orchestrator.plan import Plan, State, make_plan, trials_of
from orchestrator.provenance import provenance, without_password
from orchestrator.publishing import known_of
from orchestrator.snapshot import default_tracking_uri, report_files, snapshot
from orchestrator.store import DamagedResult, FileEntry, Store
from orchestrator.study import Manifest, Report, Study
from orchestrator.suggestions import Suggestions
from orchestrator.trial import DEFAULT_CHECKPOINT_INTERVAL_S, Settings, default_cache_dir
from orchestrator.view import View
from trainables.api.errors import BadData
from trainables.api.identity import FileDigests, Keys, sha256_of
from trainables.api.trainable import Trainable

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
        submission = _Submission(make_study(), options, console)
        plan = submission.plan(retry_failed=options.retry_failed)
        tracking_uri = "" if options.plan else options.tracking_uri or default_tracking_uri(submission.store)
    if options.plan:
        printing.show_plan(plan, console, as_json=options.json)
        return 0
    command = without_password(shlex.join(["python", *sys.argv]))
    manifest = ManifestWriter(
        submission.store, manifest_of(plan, command, provenance(), submission.keys), submission.suggestions
    )
    with contextlib.ExitStack() as fed:
        if is_running := bool(plan.runnable() or plan.to_suggest):
            if submission.run(plan, manifest, fed, tracking_uri):
                console.print("Interrupted. The same command goes on where this one stopped.")
                return EXIT_INTERRUPTED
        else:
            manifest.write()
        after = submission.plan()
        manifest.add(entries_of(after, submission.keys))  # all of it, also what another driver suggested, as it ended
        printing.show_troubles(after, console)
        printing.show_search(submission.suggestions, console)
        paths = _report(submission.study, submission.store, manifest.document, after, console)
        if not is_running:
            submission.catch_up(plan, fed, tracking_uri)
    charts = known_of(submission.store, submission.study.name, tracking_uri).charts
    printing.show_end(after, paths or [], tracking_uri, charts, console)
    is_complete = after.is_complete and not submission.suggestions.trouble
    return 0 if is_complete and paths is not None else EXIT_FAILED


class _Submission:
    """A study, its options, and where its results are."""

    def __init__(self, study: Study, options: StudyOptions, console: Console) -> None:
        self.study, self._options, self._console = study, options, console
        self.store = Store(_storage(options.storage))
        self._cache_dir = (options.cache_dir or default_cache_dir()).resolve()
        self.keys = Keys(FileDigests(self._cache_dir / "digests.json"))
        self.suggestions = Suggestions(study, self.store, self.keys)

    def plan(self, *, retry_failed: bool = False) -> Plan:
        """The plan of all that is known so far; the suggestions of a search are settled by it."""
        self.suggestions.refresh()
        plan = make_plan(
            self.suggestions.study(),
            self.store,
            self.keys,
            retry_failed=retry_failed,
            to_suggest=self.suggestions.num_left,
            examples=self.suggestions.examples,
        )
        by_state = {state: {p.trial.key for p in plan.planned if p.state is state} for state in State}
        self.suggestions.settle(done=by_state[State.DONE], lost=by_state[State.FAILED] | by_state[State.BLOCKED])
        return plan

    def run(self, plan: Plan, manifest: ManifestWriter, fed: contextlib.ExitStack, tracking_uri: str) -> bool:
        """Run what is runnable; True if the user ended it early. MLflow is fed until ``fed`` is closed."""
        # Ray is slow to load: not for --plan, not for --help, not when nothing is left to do.
        from orchestrator.launch import Cluster, launch, resources_for, slots

        options, store, console = self._options, self.store, self._console
        done = f"{plan.counts()[State.DONE]} of {len(plan.planned)} trials are done"
        said = f"{plan.study.name}: {done}, {printing.to_run_text(plan)}, {printing.estimate_text(plan)}"
        console.print(said, highlight=False)
        with usage_errors():
            cluster = Cluster(options.address)
        # The feeder loads MLflow while Ray starts, and publishes the last runs while the report is drawn.
        feeder = fed.enter_context(self._feeder(plan, tracking_uri))
        with cluster:
            with usage_errors():
                resources = resources_for(self._trainables(plan), options)
            manifest.write()
            if options.retry_failed:
                for trial in plan.runnable():
                    store.clear_failure(trial.key)
            facts = manifest.document["provenance"]
            settings = Settings(store.uri, self._cache_dir, resources, facts, _checkpoint_interval_s())
            with View(plan, console, lambda: slots(resources)) as view:

                def more(done: Collection[str], lost: Collection[str]) -> Plan | None:
                    room = min(slots(resources), options.max_concurrent or math.inf)
                    suggested = self.suggestions.next(done, lost, room)
                    return self._suggested(suggested, manifest, view) if suggested else None

                outcome = launch(plan, store, settings, view, options.max_concurrent, feeder.tell, more)
        return outcome.was_interrupted

    def catch_up(self, plan: Plan, fed: contextlib.ExitStack, tracking_uri: str) -> None:
        """Nothing ran, but MLflow may lack something from an earlier submission, or be another one."""
        known = known_of(self.store, plan.study.name, tracking_uri)
        shots = [snapshot(self.store, p.trial.key) for p in plan.planned]
        report = report_files(self.store, plan.study.name)
        is_known = all(shot is None or known.tokens.get(shot.key) == shot.token for shot in shots)
        is_known = is_known and known.report == (report.token if report else "")
        if not is_known or _is_missing_database(tracking_uri):
            fed.enter_context(self._feeder(plan, tracking_uri))

    @contextlib.contextmanager
    def _feeder(self, plan: Plan, tracking_uri: str) -> Iterator[Feeder]:
        """A feeder; at the end MLflow has everything, or it is said how to bring it the rest."""
        with Feeder(self.store.uri, tracking_uri, plan.study.name) as feeder:
            yield feeder
        if not feeder.is_up_to_date:
            printing.say_behind(self.store, tracking_uri, self._console)

    def _trainables(self, plan: Plan) -> list[Trainable]:
        """What is to run, and the like of what a search will suggest."""
        to_come = self.suggestions.examples if plan.to_suggest else []
        suggested = [trial for example in to_come for trial in trials_of(example, self.keys)]
        return [trial.trainable for trial in [*plan.runnable(), *suggested]]

    def _suggested(self, study: Study, manifest: ManifestWriter, view: View) -> Plan:
        """The plan of one more suggestion of the search, which manifest and view know from here on."""
        plan = make_plan(study, self.store, self.keys)
        manifest.add(entries_of(plan, self.keys))
        view.add(plan)
        return plan


def _is_missing_database(tracking_uri: str) -> bool:
    path = tracking_uri.removeprefix("sqlite:///").partition("?")[0]
    return tracking_uri.startswith("sqlite:///") and not Path(path).exists()


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
        names, files = _write_report(study.report, store, manifest, folder)
    except DamagedResult as error:
        console.print(f"no report: {error}", soft_wrap=True, markup=False, highlight=False)
        return None
    store.write_document(f"{folder}/made_from.json", {"token": made_from, "paths": names, "files": files})
    return [f"{store.uri}/{folder}/{name}" for name in names]


def _write_report(report: Report, store: Store, manifest: Manifest, folder: str) -> tuple[list[str], dict[str, Any]]:
    """Returns the paths worth showing, and digest and size of every file that belongs to the report."""
    if not store.is_local:
        with tempfile.TemporaryDirectory() as temporary:
            names = _paths_below(report(store, manifest, Path(temporary)), Path(temporary))
            return names, {name: asdict(entry) for name, entry in store.upload(Path(temporary), folder).items()}
    out_dir = Path(store.uri) / folder
    out_dir.mkdir(parents=True, exist_ok=True)
    names = _paths_below(report(store, manifest, out_dir), out_dir)
    files = [path for path in sorted(out_dir.rglob("*")) if path.is_file() and path != out_dir / "made_from.json"]
    entries = [FileEntry(sha256_of(path), path.stat().st_size) for path in files]
    return names, dict(zip(_paths_below(files, out_dir), map(asdict, entries), strict=True))


def _paths_below(paths: Any, folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def _token(report: Report, plan: Plan, manifest: Manifest) -> str:
    """Identifies what a report is made from: results, failures, and the code that draws it."""
    states = [(p.trial.key, p.state.value, p.reason, p.result.ended_at if p.result else 0) for p in plan.planned]
    text = json.dumps([states, _code_digest(report), manifest["facts"], manifest.get("search")])
    return hashlib.sha256(text.encode()).hexdigest()


def _code_digest(function: Callable[..., Any]) -> str:
    """Digest of the Python files of the top-level package that a function lives in, or of its file."""
    file = Path(inspect.getsourcefile(function) or "")
    package = sys.modules[function.__module__.partition(".")[0]]
    files = sorted(Path(package.__path__[0]).rglob("*.py")) if hasattr(package, "__path__") else [file]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
