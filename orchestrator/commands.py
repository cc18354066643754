"""``python -m orchestrator``: what a store holds, MLflow brought up to date, what nobody needs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from orchestrator.claims import is_held
from orchestrator.leftovers import claimed, unneeded_in_cache, unneeded_paths
from orchestrator.options import DefaultInHelp
from orchestrator.places import existing, opened
from orchestrator.plan import failure_text
from orchestrator.printing import ROWS_SHOWN, make_console
from orchestrator.provenance import first_line, without_password
from orchestrator.snapshot import UnusableDatabase, tracking_uri_of
from orchestrator.store import Store, garbled_manifests
from orchestrator.study import Manifest
from orchestrator.usage import EXIT_FAILED, EXIT_OK


def status(
    storage: DefaultInHelp[str | None] = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json", help_behavior_hint="")] = False,
) -> int:
    """Show every study of a storage: trials by state, and why some failed.

    Args:
        storage: Folder or URL of the results (default: $QUARTERTURN_STORAGE or ./results).
        as_json: Print one JSON object for scripts.
    """
    store = existing(storage)
    garbled = list(garbled_manifests(store))
    for path in garbled:
        print(f"warning: {path} is garbled; remove it, and submit its study again", file=sys.stderr)
    studies = [_study_status(store, manifest) for manifest in _latest(store.manifests()).values()]
    if as_json:
        print(json.dumps({"studies": studies}))
    else:
        _show_status(studies)
    return EXIT_FAILED if garbled or any(s["counts"]["failed"] for s in studies) else EXIT_OK


def sync(
    storage: DefaultInHelp[str | None] = None,
    tracking_uri: DefaultInHelp[str | None] = None,
    study: DefaultInHelp[str | None] = None,
    follow: DefaultInHelp[bool] = False,
) -> int:
    """Bring MLflow up to date with a storage. Safe to repeat: nothing appears twice.

    Args:
        storage: Folder or URL of the results (default: $QUARTERTURN_STORAGE or ./results).
        tracking_uri: The MLflow server or database (default: $MLFLOW_TRACKING_URI or sqlite beside local results).
        study: Only this study (default: all).
        follow: Publish the keys that a driver names on standard input (studies start this themselves).
    """
    from orchestrator import feeder
    from orchestrator.tracking import TrackingError

    if follow:
        # Its driver is about to write the first manifest of this storage.
        store = opened(storage)
        assert study is not None
        uri = tracking_uri_of(tracking_uri, store)
        return EXIT_OK if feeder.follow(store, study, uri, sys.stdin) else EXIT_FAILED
    store = existing(storage)
    uri, code = tracking_uri_of(tracking_uri, store), EXIT_OK
    for name in dict.fromkeys(m["study"] for m in store.manifests() if study in (None, m["study"])):
        try:
            published, refused = feeder.sync(store, name, uri)
        except (UnusableDatabase, TrackingError, OSError) as error:
            raise ValueError(f"MLflow at {without_password(uri)}: {first_line(error)}") from error
        print(f"{name}: {published} trials are in MLflow at {without_password(uri)}")
        code = EXIT_FAILED if refused else code
    return code


def gc(
    storage: DefaultInHelp[str | None] = None,
    delete: DefaultInHelp[bool] = False,
    latest_only: DefaultInHelp[bool] = False,
    even_claimed: DefaultInHelp[bool] = False,
    cache_dir: DefaultInHelp[Path | None] = None,
) -> int:
    """List what no study needs any more, with sizes: unreferenced trials, damaged results, states, leftovers.

    Args:
        storage: Folder or URL of the results (default: $QUARTERTURN_STORAGE or ./results).
        delete: Remove it, instead of listing it only. Let no study run meanwhile.
        latest_only: Only the latest submission of each study counts as a need; earlier ones are forgotten.
        even_claimed: Remove it although a process seems to run a study, as one of a machine that is gone does.
        cache_dir: Also what no trial reads again of this cache folder, as --cache-dir of the studies.
    """
    store = existing(storage)
    _refuse_garbled_manifests(store)
    everything = list(store.manifests())
    manifests = list(_latest(everything).values()) if latest_only else everything
    forgotten = [manifest for manifest in everything if not any(manifest is kept for kept in manifests)]
    found = [(store, path) for path in unneeded_paths(store, manifests, forgotten)]
    if delete and not even_claimed and (held := claimed(store, {path for _, path in found})):
        raise ValueError(
            f"{held[0]} is run by {held[1]}: nothing is removed; wait for the end of its study, or give "
            "--even-claimed if that machine is gone"
        )
    if cache_dir is not None:
        cache = Store(str(cache_dir.absolute()))
        found += [(cache, path) for path in unneeded_in_cache(store, cache, manifests, forgotten)]
    total = 0
    for place, path in found:
        size = place.size_bytes(path)
        total += size
        print(f"{'removed' if delete else 'unneeded'} {size / 1e6:10.1f} MB  {place.uri}/{path}")
        if delete:
            place.remove(path)
    print(f"{len(found)} things, {total / 1e6:.1f} MB{'' if delete or not found else '; --delete removes them'}")
    return EXIT_OK


def _latest(manifests: Iterable[Manifest]) -> dict[str, Manifest]:
    """The last submission of each study, by its name."""
    return {manifest["study"]: manifest for manifest in manifests}


def _refuse_garbled_manifests(store: Store) -> None:
    """What they name would look unneeded."""
    for path in garbled_manifests(store):
        raise ValueError(f"{path} is garbled, and nobody knows what it needs: remove it, and submit its study again")


def _study_status(store: Store, manifest: Manifest) -> dict[str, Any]:
    states: dict[str, str] = {}
    trials = []
    for entry in manifest["trials"]:
        state, reason, fraction = _trial_status(store, entry, states)
        states[entry["key"]] = state
        trials.append(
            {**{n: entry[n] for n in ("key", "name", "class")}, "state": state, "reason": reason, "fraction": fraction}
        )
    for key in _unneeded(manifest["trials"], states):
        states[key] = "unneeded"
    for trial in trials:
        trial["state"] = states[trial["key"]]
    names = ("done", "running", "resumable", "waiting", "damaged", "failed", "blocked", "unneeded")
    counts = {name: list(states.values()).count(name) for name in names}
    search = manifest.get("search") or {"suggestions": []}
    return {
        "study": manifest["study"],
        "command": manifest["command"],
        "counts": counts,
        "suggestions": len(search["suggestions"]),
        "num_suggestions": search.get("num_suggestions", 0),
        "trials": trials,
    }


def _trial_status(store: Store, entry: dict[str, Any], states: dict[str, str]) -> tuple[str, str, float]:
    key = entry["key"]
    look = store.look(key)
    if look.result is not None:
        return "done", "", 1.0
    generations = store.generations(key)
    fraction = generations[0].fraction if generations else 0.0
    if holder := is_held(store, f"trials/{key}"):
        return "running", holder, fraction
    if look.damage:
        return "damaged", look.damage, 0.0
    if failure := store.failure(key):
        return "failed", failure_text(failure), fraction
    stuck = [key[:8] for key in entry["upstream"] if states.get(key) in ("failed", "blocked")]
    if stuck:
        return "blocked", f"waits for {', '.join(stuck)}, which failed or is blocked", fraction
    return ("resumable" if generations else "waiting"), "", fraction


def _unneeded(entries: Sequence[dict[str, Any]], states: Mapping[str, str]) -> set[str]:
    """Trials without a result that the study does not name, and that no unfinished one waits for."""
    needed = {entry["key"] for entry in entries if entry["named"]}
    unneeded = set()
    for entry in reversed(entries):
        if states[entry["key"]] in ("done", "running"):
            continue
        if entry["key"] not in needed:
            unneeded.add(entry["key"])
        elif states[entry["key"]] != "failed":
            needed.update(entry["upstream"])
    return unneeded


def _show_status(studies: list[dict[str, Any]]) -> None:
    console = make_console()
    for entry in studies:
        counts = ", ".join(f"{n} {state}" for state, n in entry["counts"].items() if n)
        if entry["num_suggestions"]:
            counts += f"; {entry['suggestions']} of {entry['num_suggestions']} suggestions made"
        console.print(f"[bold]{entry['study']}[/bold]: {counts}", highlight=False)
        console.print(f"  {entry['command']}", style="dim", highlight=False, soft_wrap=True, markup=False)
        for trial in [t for t in entry["trials"] if t["state"] not in ("done", "unneeded")][:ROWS_SHOWN]:
            done = f" {trial['fraction']:.0%}" if trial["fraction"] else ""
            line = f"  {trial['state']}{done}  {trial['name']} ({trial['key'][:8]})  {trial['reason']}"
            console.print(line, highlight=False, soft_wrap=True, markup=False)
