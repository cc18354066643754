"""The manifest of a search grows: what came since it was last written whole lies beside it, in parts.

studies/<study>/<submission>/000017-<random>.json   {"trials": [entries], "suggestions": [as in the whole]}
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from orchestrator.storage import Storage

Part = Mapping[str, list[dict[str, Any]]]

_FIELDS = {"trials": ("key", "name", "named"), "suggestions": ("number",)}


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
    storage.write_document(path, {"trials": list(trials), "suggestions": list(suggestions)})


def read_part(storage: Storage, study: str, name: str, part: str) -> Part:
    """One part; an empty one where it is gone, or garbled."""
    found = storage.read_document(f"{_folder(study, name)}/{part}")
    document = found if isinstance(found, dict) else {}
    return {kind: _documents(document.get(kind), fields) for kind, fields in _FIELDS.items()}


def remove_parts(storage: Storage, study: str, name: str, parts: Collection[str]) -> None:
    """Remove parts, which the manifest has now."""
    for part in parts:
        storage.remove(f"{_folder(study, name)}/{part}")


def with_parts(storage: Storage, study: str, name: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a search with all that came since it was written whole; any other as it is."""
    if not isinstance(manifest.get("search"), dict):
        return manifest
    parts = [read_part(storage, study, name, part) for part in part_names(storage, study, name)]
    if not parts:
        return manifest
    entries = Entries(list(manifest["trials"]))
    entries.add(entry for part in parts for entry in part["trials"])
    search = manifest["search"]
    suggestions = {
        suggestion["number"]: suggestion for suggestion in _documents(search.get("suggestions"), ("number",))
    }
    suggestions |= {suggestion["number"]: suggestion for part in parts for suggestion in part["suggestions"]}
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


def _documents(value: Any, fields: Iterable[str]) -> list[dict[str, Any]]:
    found = value if isinstance(value, list) else []
    return [entry for entry in found if isinstance(entry, dict) and all(field in entry for field in fields)]
