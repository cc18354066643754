"""What of a store nobody needs any more."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.claims import is_held
from orchestrator.documents import Look, Result, said_of
from orchestrator.storage import is_name, storage_mark
from orchestrator.store import OF_ATTEMPTS, Store
from orchestrator.study import Manifest

_PLACES = (("trials", ""), ("results", ".json"), ("damaged", ".json"))
_ABANDONED_AFTER_S = 3600.0
# A document, a fetched file or MLflow's database beside the place where it was to go.
_ASIDE = re.compile(r"\..+\.[0-9a-f]{32}(\.new.*)?")


def unneeded_paths(store: Store, manifests: Sequence[Manifest], forgotten: Sequence[Manifest] = ()) -> list[str]:
    """Paths that may be removed while no study runs: whatever no manifest names, and what has served its purpose.

    The state of a training stays as long as it is the longest of its family, or a longer one of a manifest is to go on
    from it. What a search decided on is needed whether or not a manifest names it, unless only ``forgotten`` ones do.
    Raises ValueError naming a document of a search that cannot be read.
    """
    named, unnamed = _named(manifests), _unnamed(store, manifests, forgotten)
    entries = [entry for manifest in manifests for entry in manifest["trials"]]
    origins = _origins(store, entries) | unnamed  # of what no manifest describes the family is not known
    needed = named | origins
    known = set(store.names("trials")) | store.finished()
    paths = [f"{folder}/{key}{end}" for key in sorted(known - needed) for folder, end in _PLACES]
    paths = [path for path in paths if store.exists(path)]
    for key in sorted(known & needed):
        paths += _leftovers(store, key, keeps_state=key in origins)
    for family in store.names("families"):
        paths += _of_family(store, family, needed)
    # Written anew by every submission that has something to run.
    paths += [f"data/{name}" for name in store.names("data")]
    return [*paths, *(f".tune/{name}" for name in store.names(".tune")), *_half_written(store)]


def unneeded_in_cache(
    store: Store, cache: Store, manifests: Sequence[Manifest], forgotten: Sequence[Manifest] = ()
) -> list[str]:
    """Paths below a cache folder that no trial of this storage will read again.

    Files of results that nobody needs, and folders of processes that were killed. What other storages left there, and
    decoded images, which storages share, stay.
    """
    needed = _named(manifests) | _unnamed(store, manifests, forgotten)
    paths, fetched = [], f"fetched/{storage_mark(store)}"
    for key in cache.names(fetched):
        result = store.result(key) if key in needed else None
        if result is None:
            paths.append(f"{fetched}/{key}")
        else:
            paths += [f"{fetched}/{key}/{token}" for token in cache.names(f"{fetched}/{key}") if token != result.token]
    work = re.compile(rf"(?:trial|rank-[0-9]+)-{storage_mark(store)}-(.+)-[^-]+")
    dead = ((name, match[1]) for name in cache.names("") if (match := work.fullmatch(name)))
    paths += [name for name, key in dead if is_held(store, f"trials/{key}") is None]
    return [*paths, *_half_written(cache)]


def claimed(store: Store, paths: Collection[str]) -> tuple[str, str] | None:
    """What a process seems to run, and which: a launch, or a trial that has no result or is to be removed."""
    finished = {key for key in store.finished() if f"trials/{key}" not in paths}
    # A trial that waits for its next attempt holds nothing: its launch does.
    places = [(f"the launch {name}", f".tune/{name}") for name in store.names(".tune")]
    places += [(f"trial {key}", f"trials/{key}") for key in store.names("trials") if key not in finished]
    held = ((what, is_held(store, place)) for what, place in places)
    return next(((what, holder) for what, holder in held if holder is not None), None)


def _named(manifests: Iterable[Manifest]) -> set[str]:
    return {entry["key"] for manifest in manifests for entry in manifest["trials"]}


def _unnamed(store: Store, manifests: Iterable[Manifest], forgotten: Iterable[Manifest]) -> set[str]:
    """What searches decided on and no manifest names, and all that it rests on."""
    named = _named(manifests)
    return _with_upstream(store, _suggested(store) - named - _named(forgotten)) - named


def _suggested(store: Store) -> set[str]:
    """Keys of all trials that searches decided on."""
    found: set[str] = set()
    for study in store.names("studies"):
        folder = f"studies/{study}/suggestions"
        for name in store.names(folder):
            keys = suggested_keys(store.read_document(f"{folder}/{name}"))
            if keys is None:
                raise ValueError(
                    f"{store.uri}/{folder}/{name} is garbled, and nobody knows what it needs: remove it, and submit "
                    "its study again"
                )
            found.update(keys)
    return found


def suggested_keys(document: Any) -> list[str] | None:
    """The trials that a document of a search names; None where it is of another shape."""
    keys = document.get("keys") if isinstance(document, dict) else None
    is_one = isinstance(keys, list) and all(isinstance(key, str) and is_name(key) for key in keys)
    return keys if is_one else None


def _with_upstream(store: Store, keys: Iterable[str]) -> set[str]:
    """These trials and all that they rest on, as their own documents tell."""
    found: set[str] = set()
    left = list(keys)
    while left:
        key = left.pop()
        if key not in found:
            found.add(key)
            document = store.read_document(f"trials/{key}/trial.json")
            upstream = document.get("upstream") if isinstance(document, dict) else None
            left += [k for k in upstream if isinstance(k, str) and is_name(k)] if isinstance(upstream, list) else []
    return found


def _leftovers(store: Store, key: str, *, keeps_state: bool) -> Iterator[str]:
    """Of a trial that is needed: what attempts left that did not publish, and what was set aside."""
    folder, look = f"trials/{key}", store.look(key)
    names = set(store.names(folder))
    if "damaged" in names:
        yield f"{folder}/damaged"
    if "claim.json" not in names or is_held(store, folder) is None:
        # Of processes that were killed while they held it, let go or took over.
        yield from (f"{folder}/{name}" for name in sorted(names) if name.startswith("claim.json"))
        unused = _of_unfinished(store, key) if look == Look() else ()
        yield from (f"{folder}/{name}" for name in unused)
    if look.result is not None:
        yield from (f"{folder}/{name}" for name in _of_finished(store, look.result, names, keeps_state=keeps_state))
        word = store.read_bytes(f"damaged/{key}.json")
        if word is not None and not said_of(store.read_document(f"damaged/{key}.json"), look.result.token):
            yield f"damaged/{key}.json"


def _of_finished(store: Store, result: Result, names: Collection[str], *, keeps_state: bool) -> Iterator[str]:
    folder, state = f"trials/{result.key}", result.state
    yield from (name for name in OF_ATTEMPTS if name in names)
    kept = {
        "state": {state.token} if state and keeps_state else set(),
        "journal": {*result.segments, *(state.segments if state else ())},
    }
    if result.token:  # the files of the first results have no folder of their own
        kept["published"] = {result.token}
    yield from _others(store, folder, kept)


def _of_unfinished(store: Store, key: str) -> Iterator[str]:
    """What no resumable state names; only while nobody runs the trial."""
    generations = store.generations(key)
    checkpoints = {(generation.checkpoint or "").partition("/")[2] for generation in generations}
    kept = {
        "progress": {f"{generation.name}.json" for generation in generations},
        "checkpoints": checkpoints,
        "items": {name for generation in generations for name in generation.items},
        "journal": {name for generation in generations for name in generation.segments},
        "published": set(),
        "state": set(),
    }
    yield from _others(store, f"trials/{key}", kept)


def _others(store: Store, folder: str, kept: Mapping[str, Collection[str]]) -> Iterator[str]:
    for place, own in kept.items():
        yield from (f"{place}/{name}" for name in store.names(f"{folder}/{place}") if name not in own)


def _half_written(store: Store) -> list[str]:
    """Files whose writer was killed before it gave them their name; those of the last hour may get it still."""
    if not store.is_local:
        return []  # a put is whole or not at all
    found = []
    for folder, below, names in os.walk(store.uri):
        below[:] = [name for name in below if name not in (".tune", "mlflow-artifacts")]
        for path in (Path(folder, name) for name in names if _ASIDE.fullmatch(name)):
            with contextlib.suppress(OSError):  # given its name just now
                if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                    found.append(path.relative_to(store.uri).as_posix())
    return sorted(found)


def _origins(store: Store, entries: Iterable[dict[str, Any]]) -> set[str]:
    """Trials whose state is still of use: the longest of each family, and where unfinished longer ones begin."""
    lengths: dict[str, set[int]] = {}
    for entry in entries:
        if entry.get("family"):
            is_open = store.result(entry["key"]) is None
            lengths.setdefault(entry["family"], set()).update({int(entry["length"])} if is_open else ())
    found = set()
    for family, wanted in lengths.items():
        members = list(store.shorter(family, 1 << 62))
        for limit in [*wanted, 1 << 62]:
            found.update([next((m.key for m in members if m.length < limit), "")])
    return found - {""}


def _of_family(store: Store, family: str, needed: Collection[str]) -> list[str]:
    """The entries of trainings that nobody needs; the whole family where there are no others."""
    folder = f"families/{family}"
    documents = {f"{folder}/{name}": store.read_document(f"{folder}/{name}") for name in store.names(folder)}
    gone = [p for p, found in documents.items() if not isinstance(found, dict) or found.get("key") not in needed]
    return [folder] if len(gone) == len(documents) else gone
