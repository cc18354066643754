"""The manifest of a search grows: what came since it was last written whole lies beside it, in parts.

studies/<study>/<submission>/000017-<random>.json   {"trials": [entries], "suggestions": [as in the whole], "digest"}
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.documents import OTHER_SHAPE, part_from, sealed
from orchestrator.storage import Storage

Part = Mapping[str, list[dict[str, Any]]]


def part_names(storage: Storage, study: str, name: str) -> list[str]:
    """Names of the parts of the manifest ``name``, in the order in which they came."""
    return storage.names(_folder(study, name))


def write_part(
    storage: Storage,
    study: str,
    name: str,
    trials: Sequence[Mapping[str, Any]],
    suggestions: Sequence[Any],
    number: int,
) -> None:
    """Add one part. Several drivers of one search may: none overwrites another's."""
    path = f"{_folder(study, name)}/{number:06d}-{uuid.uuid4().hex[:8]}.json"
    storage.write_document(path, sealed({"trials": list(trials), "suggestions": list(suggestions)}))


def read_part(storage: Storage, study: str, name: str, part: str) -> Part:
    """One part; an empty one where it is gone, or garbled."""
    found = _read(storage, f"{_folder(study, name)}/{part}")
    return {"trials": [], "suggestions": []} if found is None else found


def whole_parts(storage: Storage, study: str, name: str) -> dict[str, Part]:
    """The parts of a manifest by their names, without those that are garbled."""
    found = {part: _read(storage, f"{_folder(study, name)}/{part}") for part in part_names(storage, study, name)}
    return {part: document for part, document in found.items() if document is not None}


def garbled_parts(storage: Storage, study: str, name: str) -> Iterator[str]:
    """Paths of the parts of a manifest that cannot be read: what they said, nobody knows."""
    for part in part_names(storage, study, name):
        path = f"{_folder(study, name)}/{part}"
        if _read(storage, path) is None and storage.exists(path):
            yield path


def remove_parts(storage: Storage, study: str, name: str, parts: Collection[str]) -> None:
    """Remove parts, which the manifest has now."""
    for part in parts:
        storage.remove(f"{_folder(study, name)}/{part}")


def with_parts(storage: Storage, study: str, name: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a search with all that came since it was written whole; any other as it is."""
    if not isinstance(manifest.get("search"), dict):
        return manifest
    parts = whole_parts(storage, study, name).values()
    if not parts:
        return manifest
    entries = Entries(list(manifest["trials"]))
    entries.add(entry for part in parts for entry in part["trials"])
    search = manifest["search"]
    # The readers of a search look at its suggestions themselves.
    numbered = [s for s in search["suggestions"] if isinstance(s, dict) and isinstance(s.get("number"), int)]
    added = [suggestion for part in parts for suggestion in part["suggestions"]]
    suggestions = {suggestion["number"]: suggestion for suggestion in [*numbered, *added]}
    return {**manifest, "trials": entries.all, "search": {**search, "suggestions": list(suggestions.values())}}


class Entries:
    """The entries of a manifest, to which others are added once."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self.all = entries
        self._keys = {entry["key"] for entry in entries}
        self._named = {(entry["key"], entry["name"]) for entry in entries}

    def add(self, entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add what is new, and return it; a trial that is only held in the fields of others keeps its first name."""
        new = []
        for entry in entries:
            named = entry["key"], entry["name"]
            if entry["key"] not in self._keys or (entry["named"] and named not in self._named):
                self._keys.add(entry["key"])
                self._named.add(named)
                new.append(entry)
        self.all += new
        return new


def _folder(study: str, name: str) -> str:
    return f"studies/{study}/{name.removesuffix('.json')}"


def _read(storage: Storage, path: str) -> Part | None:
    try:
        return part_from(storage.read_document(path))
    except OTHER_SHAPE:
        return None
