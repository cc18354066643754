"""The command line of all studies, and ``python -m orchestrator``."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from rich.console import Console
from rich.table import Table

from orchestrator.feeder import Feeder, published_tokens
from orchestrator.plan import Plan, State, failure_text, make_plan, manifest_of
from orchestrator.provenance import provenance, without_password
from orchestrator.snapshot import default_tracking_uri, snapshot
from orchestrator.store import Store
from orchestrator.study import Manifest, Resources, Study
from orchestrator.trial import Settings, default_cache_dir
from orchestrator.view import View, duration_text
from trainables.api.errors import BadData
from trainables.api.identity import FileDigests

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
_ROWS_SHOWN = 60
_LOG_COLUMNS = 160


@dataclass(frozen=True)
class StudyOptions:
    """Flags that every study has."""

    scale: Literal["smoke", "laptop", "full"] = "laptop"
    """How large: smoke takes seconds (tests), laptop minutes on packaged real images, full is the paper's own size."""
    data_root: Path | None = None
    """Folder that holds the data sets in their published layouts; not needed for packaged images."""
    seeds: int = 3
    """How many seeds each untrained or repeated part gets."""
    storage: str | None = None
    """Where results live: a folder or URL such as s3://bucket/results (default: $QUARTERTURN_STORAGE or ./results)."""
    tracking_uri: str | None = None
    """The MLflow server or database (default: $MLFLOW_TRACKING_URI or sqlite beside local results)."""
    cache_dir: Path | None = None
    """Node-local folder for decoded images (default: $QUARTERTURN_CACHE or ~/.cache/quarterturn)."""
    address: str | None = None
    """Address of a running Ray cluster (default: $RAY_ADDRESS, or Ray on this machine for this run only)."""
    max_concurrent: int | None = None
    """Run at most this many trials at once (default: as many as the cluster holds)."""
    workers_per_trial: int = 1
    """Processes that share the items of one trial, such as the angles of a curve."""
    gpus_per_trial: float = 0.0
    """GPUs for each worker; a fraction lets several trials share one GPU."""
    plan: bool = False
    """Show the trials (done, new, resumable, blocked) and the estimated cost; run nothing."""
    json: bool = False
    """With --plan: print one JSON object for scripts."""
    retry_failed: bool = False
    """Run failed trials again, and with them the trials that wait for them."""

    cpus_per_trial: tyro.conf.Suppress[float] = 1.0

    def __post_init__(self) -> None:
        for name in ("seeds", "workers_per_trial"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected at least 1")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise ValueError(f"--max-concurrent {self.max_concurrent}: expected at least 1")
        if self.json and not self.plan:
            raise ValueError("--json goes with --plan")


Options = TypeVar("Options", bound=StudyOptions)


def main(options_type: type[Options], make_study: Callable[[Options], Study], description: str) -> None:
    """Command line of a study file: parse, plan, run, report; exits with 0, 1 (failures), 2 (usage) or 130."""
    console = _console()
    errors = Console(stderr=True, soft_wrap=True)
    try:
        options = tyro.cli(options_type, description=description)
        code = submit(options, make_study(options), console)
    except (ValueError, TypeError, BadData, FileNotFoundError) as error:
        if os.environ.get("QUARTERTURN_TRACEBACK"):
            raise
        errors.print(f"error: {error}", style="red", markup=False)
        code = EXIT_USAGE
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    sys.exit(code)


def submit(options: StudyOptions, study: Study, console: Console) -> int:
    """Do what is missing of a study and report on all of it; returns the exit status."""
    store = Store(_storage(options.storage))
    cache_dir = options.cache_dir or default_cache_dir()
    digests = FileDigests(cache_dir / "digests.json")
    plan = make_plan(study, store, digests, retry_failed=options.retry_failed)
    if options.plan:
        _show_plan(plan, console, as_json=options.json)
        return 0
    tracking_uri = options.tracking_uri or default_tracking_uri(store)
    made_with = provenance()
    command = "python " + " ".join(sys.argv)
    manifest = manifest_of(plan, without_password(command), made_with, digests)
    _write_manifest(store, manifest)
    resources = Resources(options.cpus_per_trial, options.gpus_per_trial, options.workers_per_trial)
    settings = Settings(store.uri, cache_dir.resolve(), resources, made_with)
    was_interrupted = _run(plan, store, settings, options, tracking_uri, console)
    if was_interrupted:
        console.print("Interrupted. The same command goes on where this one stopped.")
        return EXIT_INTERRUPTED
    after = make_plan(study, store, digests)
    paths = _report(study, store, manifest, after)
    _show_end(after, paths, store, tracking_uri, console)
    return 0 if after.counts()[State.DONE] == len(after.planned) else EXIT_FAILED


def _run(
    plan: Plan, store: Store, settings: Settings, options: StudyOptions, tracking_uri: str, console: Console
) -> bool:
    """Run what is runnable and bring MLflow up to date; True if the user ended it early."""
    if not plan.runnable():
        _catch_up(plan, store, tracking_uri, console)
        return False
    if options.retry_failed:
        for trial in plan.runnable():
            store.clear_failure(trial.key)
    # Ray is slow to load: not for --plan, not for --help, not when nothing is left to do.
    from orchestrator.launch import Cluster, launch, slots

    counts = plan.counts()
    console.print(
        f"{plan.study.name}: {counts[State.DONE]} of {len(plan.planned)} trials are done, {len(plan.runnable())} to "
        f"run, {_estimate_text(plan)}",
        highlight=False,
    )
    # The feeder loads MLflow while Ray starts, and publishes the last runs while Ray ends.
    cluster = Cluster(options.address)
    with (
        Feeder(store.uri, tracking_uri, plan.study.name) as feeder,
        cluster,
        View(plan, console, lambda: slots(settings.resources)) as view,
    ):
        outcome = launch(plan, store, settings, view, options.max_concurrent, feeder.tell)
        feeder.finish()
    if not feeder.is_up_to_date:
        _say_behind(store, tracking_uri, console)
    return outcome.was_interrupted


def _catch_up(plan: Plan, store: Store, tracking_uri: str, console: Console) -> None:
    """Nothing ran, but MLflow may lack something from an earlier submission, or be another one."""
    known = published_tokens(store, plan.study.name, tracking_uri)
    shots = [snapshot(store, p.trial.key) for p in plan.planned]
    if all(shot is None or known.get(shot.key) == shot.token for shot in shots):
        return
    with Feeder(store.uri, tracking_uri, plan.study.name) as feeder:
        feeder.finish()
    if not feeder.is_up_to_date:
        _say_behind(store, tracking_uri, console)


def _say_behind(store: Store, tracking_uri: str, console: Console) -> None:
    console.print(
        f"warning: MLflow at {without_password(tracking_uri)} lacks some runs; nothing is lost. Bring them with\n"
        f"  python -m orchestrator sync --storage {store.uri} --tracking-uri {without_password(tracking_uri)}",
        highlight=False,
        soft_wrap=True,
    )


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


def _report(study: Study, store: Store, manifest: Manifest, plan: Plan) -> list[str]:
    """Make the report unless it is there already for exactly these results; returns the paths worth showing."""
    if study.report is None or plan.counts()[State.DONE] == 0:
        return []
    folder = f"reports/{study.name}"
    made_from = _token(plan, manifest)
    before = store.read_document(f"{folder}/made_from.json") or {}
    if before.get("token") == made_from and all(name in store.names(folder) for name in before["paths"][:1]):
        return [f"{store.uri}/{folder}/{name}" for name in before["paths"]]
    if store.is_local:
        out_dir = Path(store.uri) / folder
        out_dir.mkdir(parents=True, exist_ok=True)
        names = _paths_below(study.report(store, manifest, out_dir), out_dir)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            names = _paths_below(study.report(store, manifest, Path(temporary)), Path(temporary))
            store.upload(Path(temporary), folder)
    store.write_document(f"{folder}/made_from.json", {"token": made_from, "paths": names})
    return [f"{store.uri}/{folder}/{name}" for name in names]


def _paths_below(paths: Any, folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def _token(plan: Plan, manifest: Manifest) -> str:
    """Identifies what a report is made from: results, failures, and the code that draws it."""
    states = [(p.trial.key, p.state.value, p.reason, p.result.ended_at if p.result else 0) for p in plan.planned]
    text = json.dumps([states, manifest["provenance"]["code_version"], manifest["facts"]])
    return hashlib.sha256(text.encode()).hexdigest()


def _console() -> Console:
    """Logs of jobs and pipes are no terminals, and are not 80 columns wide."""
    console = Console(file=sys.stdout)
    return console if console.is_terminal else Console(file=sys.stdout, width=_LOG_COLUMNS)


# -- what is printed ----------------------------------------------------------------------------------


def _show_plan(plan: Plan, console: Console, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan.to_json()))
        return
    table = Table(title=f"{plan.study.name}: {plan.study.question}", title_justify="left")
    for column in ("trial", "class", "key", "state", "estimate", "reason"):
        table.add_column(column, overflow="fold")
    for p in plan.planned[:_ROWS_SHOWN]:
        done = f" ({p.fraction:.0%} done)" if p.state is State.RESUMABLE else ""
        estimate = duration_text(p.estimated_s) if p.estimated_s is not None else ""
        table.add_row(
            p.trial.name,
            type(p.trial.trainable).__name__,
            p.trial.key[:8],
            f"{p.state.value}{done}",
            estimate,
            p.reason,
        )
    console.print(table)
    if len(plan.planned) > _ROWS_SHOWN:
        console.print(f"... and {len(plan.planned) - _ROWS_SHOWN} more trials (--json lists all)")
    said = ", ".join(f"{n} {state}" for state, n in plan.counts().items() if n)
    console.print(f"{len(plan.planned)} trials: {said}; {_estimate_text(plan)}", highlight=False)


def _estimate_text(plan: Plan) -> str:
    if not plan.runnable():
        return "nothing left to compute"
    ground = "measured on trials of the same kind" if plan.is_measured else "a guess: nothing of the kind was run here"
    return f"about {duration_text(plan.estimated_s())} of work on one worker ({ground})"


def _show_end(plan: Plan, paths: list[str], store: Store, tracking_uri: str, console: Console) -> None:
    troubled = [p for p in plan.planned if p.state is not State.DONE]
    if troubled:
        table = Table(title="Trials without a result", title_justify="left")
        for column in ("trial", "key", "state", "reason"):
            table.add_column(column, overflow="fold")
        for p in troubled[:_ROWS_SHOWN]:
            table.add_row(p.trial.name, p.trial.key[:8], p.state.value, p.reason)
        console.print(table)
        console.print("Once the cause is mended: the same command with --retry-failed")
    counts = plan.counts()
    console.print(f"{plan.study.name}: {counts[State.DONE]} of {len(plan.planned)} trials are done", highlight=False)
    for path in paths:
        console.print(f"  {path}", highlight=False, soft_wrap=True)
    shown = without_password(tracking_uri)
    if shown.startswith(("http://", "https://")):
        console.print(f"Compare the runs in MLflow: {shown}", highlight=False, soft_wrap=True)
    else:
        console.print(
            f"Compare the runs in MLflow: mlflow ui --backend-store-uri {shown}", highlight=False, soft_wrap=True
        )


# -- python -m orchestrator ---------------------------------------------------------------------------


def status(storage: str = "results", as_json: Annotated[bool, tyro.conf.arg(name="json")] = False) -> int:
    """Show every study of a storage: trials by state, and why some failed.

    Args:
        storage: Folder or URL of the results.
        as_json: Print one JSON object for scripts.
    """
    store = _existing(storage)
    studies = [_study_status(store, manifest) for manifest in _latest_manifests(store)]
    if as_json:
        print(json.dumps({"studies": studies}))
    else:
        _show_status(studies)
    return EXIT_FAILED if any(s["counts"]["failed"] for s in studies) else 0


def sync(
    storage: str = "results",
    tracking_uri: str | None = None,
    study: str | None = None,
    follow: bool = False,
) -> int:
    """Bring MLflow up to date with a storage. Safe to repeat: nothing appears twice.

    Args:
        storage: Folder or URL of the results.
        tracking_uri: The MLflow server or database (default: $MLFLOW_TRACKING_URI or sqlite beside local results).
        study: Only this study.
        follow: Publish the keys that a driver names on standard input (studies start this themselves).
    """
    from orchestrator import feeder

    store = _existing(storage)
    uri = tracking_uri or default_tracking_uri(store)
    if follow:
        assert study is not None
        return 0 if feeder.follow(store, study, uri, sys.stdin) else EXIT_FAILED
    for name in dict.fromkeys(m["study"] for m in store.manifests() if study in (None, m["study"])):
        print(f"{name}: {feeder.sync(store, name, uri)} trials are in MLflow at {without_password(uri)}")
    return 0


def gc(storage: str = "results", delete: bool = False) -> int:
    """List what no study needs any more, with sizes: unreferenced trials, damaged results, leftovers of Tune.

    Args:
        storage: Folder or URL of the results.
        delete: Remove it, instead of listing it only. Let no study run meanwhile.
    """
    store = _existing(storage)
    needed = {trial["key"] for manifest in store.manifests() for trial in manifest["trials"]}
    paths = [f"trials/{key}" for key in store.names("trials") if key not in needed]
    paths += [f"trials/{k}/{n}" for k in needed for n in store.names(f"trials/{k}") if n.startswith("result.json.")]
    paths += [f".tune/{name}" for name in store.names(".tune")]
    total = 0
    for path in paths:
        size = store.size_bytes(path)
        total += size
        print(f"{'removed' if delete else 'unneeded'} {size / 1e6:10.1f} MB  {store.uri}/{path}")
        if delete:
            store.remove(path)
    print(f"{len(paths)} things, {total / 1e6:.1f} MB{'' if delete or not paths else '; --delete removes them'}")
    return 0


def orchestrator_main() -> None:
    """Entry of ``python -m orchestrator``."""
    try:
        code = tyro.extras.subcommand_cli_from_dict({"status": status, "sync": sync, "gc": gc})
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = EXIT_USAGE
    sys.exit(code)


def _existing(storage: str) -> Store:
    store = Store(storage)
    if not store.names("studies"):
        raise FileNotFoundError(f"{store.uri} holds no study; give --storage with the folder or URL of your results")
    return store


def _latest_manifests(store: Store) -> list[Manifest]:
    latest: dict[str, Manifest] = {}
    for manifest in sorted(store.manifests(), key=lambda m: float(m["submitted_at"])):
        latest[manifest["study"]] = manifest
    return list(latest.values())


def _study_status(store: Store, manifest: Manifest) -> dict[str, Any]:
    states: dict[str, str] = {}
    trials = []
    for entry in manifest["trials"]:
        state, reason, fraction = _trial_status(store, entry, states)
        states[entry["key"]] = state
        trials.append(
            {**{n: entry[n] for n in ("key", "name", "class")}, "state": state, "reason": reason, "fraction": fraction}
        )
    names = ("done", "running", "resumable", "waiting", "failed", "blocked")
    counts = {name: list(states.values()).count(name) for name in names}
    return {"study": manifest["study"], "command": manifest["command"], "counts": counts, "trials": trials}


def _trial_status(store: Store, entry: dict[str, Any], states: dict[str, str]) -> tuple[str, str, float]:
    from orchestrator.claims import is_held

    key = entry["key"]
    if store.result(key) is not None:
        return "done", "", 1.0
    generations = store.generations(key)
    fraction = generations[0].fraction if generations else 0.0
    if holder := is_held(store, f"trials/{key}"):
        return "running", holder, fraction
    if failure := store.failure(key):
        return "failed", failure_text(failure), fraction
    stuck = [u for u in entry["upstream"] if states.get(u) in ("failed", "blocked")]
    if stuck:
        return "blocked", f"waits for failed trial {', '.join(stuck)}", fraction
    return ("resumable" if generations else "waiting"), "", fraction


def _show_status(studies: list[dict[str, Any]]) -> None:
    console = _console()
    for entry in studies:
        counts = ", ".join(f"{n} {state}" for state, n in entry["counts"].items() if n)
        console.print(f"[bold]{entry['study']}[/bold]: {counts}", highlight=False)
        console.print(f"  {entry['command']}", style="dim", highlight=False, soft_wrap=True, markup=False)
        for trial in [t for t in entry["trials"] if t["state"] != "done"][:_ROWS_SHOWN]:
            done = f" {trial['fraction']:.0%}" if trial["fraction"] else ""
            line = f"  {trial['state']}{done}  {trial['name']} ({trial['key'][:8]})  {trial['reason']}"
            console.print(line, highlight=False, soft_wrap=True, markup=False)
