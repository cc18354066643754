"""What of a store nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from orchestrator.store import Store
from orchestrator.study import Manifest


def unneeded_paths(store: Store, manifests: Iterable[Manifest]) -> list[str]:
    """Paths that may be removed while no study runs: whatever no manifest names, and what has served its purpose.

    The state of a training stays as long as it is the longest of its family, or a longer one of a manifest is to go on
    from it.
    """
    entries = [entry for manifest in manifests for entry in manifest["trials"]]
    origins = _origins(store, entries)
    needed = {entry["key"] for entry in entries} | origins
    known = set(store.names("trials")) | store.finished()
    paths = [f"{folder}/{key}{end}" for key in sorted(known - needed) for folder, end in _PLACES]
    paths = [path for path in paths if store.exists(path)]
    for key in sorted(known & needed):
        paths += _leftovers(store, key, keeps_state=key in origins)
    paths += [f"families/{family}" for family in store.names("families") if not _is_family(store, family, needed)]
    # Written anew by every submission that has something to run.
    paths += [f"data/{name}" for name in store.names("data")]
    return [*paths, *(f".tune/{name}" for name in store.names(".tune"))]


_PLACES = (("trials", ""), ("results", ".json"), ("damaged", ".json"))


def _leftovers(store: Store, key: str, *, keeps_state: bool) -> Iterator[str]:
    """Of a trial that is needed: what attempts left that did not publish, and what was set aside."""
    folder, result = f"trials/{key}", store.look(key).result
    if store.exists(f"{folder}/damaged"):
        yield f"{folder}/damaged"
    if result is None:
        return
    yield from (f"{folder}/published/{t}" for t in store.names(f"{folder}/published") if t != result.token)
    kept = result.state.token if result.state and keeps_state else None
    yield from (f"{folder}/state/{token}" for token in store.names(f"{folder}/state") if token != kept)


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


def _is_family(store: Store, family: str, needed: set[str]) -> bool:
    documents = (store.read_document(f"families/{family}/{name}") for name in store.names(f"families/{family}"))
    return any(isinstance(document, dict) and document.get("key") in needed for document in documents)
