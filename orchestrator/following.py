"""What a feeder knows of its study while it follows it: each event costs what is new, however large the study is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.cells import Cell, cells_of
from orchestrator.documents import submission_order
from orchestrator.manifest_parts import part_names, read_part
from orchestrator.store import Store

STATES = ("done", "running", "failed", "waiting")


class Manifests:
    """The manifests of a study, each read once unless all are to be read again."""

    def __init__(self, store: Store, study: str) -> None:
        self._store, self._study = store, study
        self._read: dict[str, Mapping[str, Any]] = {}  # by name, as they were when last read
        self._parts: set[tuple[str, str]] = set()  # those that were taken up, with the name of their manifest
        self.entries: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
        """Of all trials of the study by key: their entry and its manifest; those of the latest submission win."""
        self.in_order: list[Mapping[str, Any]] = []
        """The latest submission last."""

    def reread(self) -> None:
        """Read all of them again."""
        self._read.clear()
        self.refresh()

    def grow(self) -> None:
        """Take up what searches have added."""
        for name, manifest in self._read.items():
            names = part_names(self._store, self._study, name) if "search" in manifest else []
            for part in [part for part in names if (name, part) not in self._parts]:
                self._parts.add((name, part))
                for entry in read_part(self._store, self._study, name, part)["trials"]:
                    if entry["key"] not in self.entries:
                        manifest["trials"].append(entry)
                        self.entries[entry["key"]] = (entry, manifest)

    def refresh(self) -> None:
        """Read those that are new."""
        unread = [name for name in self._store.names(f"studies/{self._study}") if name not in self._read]
        found = {name: self._store.manifest(self._study, name) for name in unread}
        new = {name: manifest for name, manifest in found.items() if manifest is not None}
        if not new and self._read:
            return
        self._read.update(new)
        self.in_order = sorted(self._read.values(), key=submission_order)
        self.entries = {entry["key"]: (entry, m) for m in self.in_order for entry in m["trials"]}


class Described:
    """The cells of a submission and how many of its trials are in which state, kept up with what MLflow has of them."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self.manifest, self._size = manifest, len(manifest["trials"])
        self.cells = cells_of(manifest)
        self._places: dict[str, list[int]] = {}  # by key, of the cells that it is in
        for place, cell in enumerate(self.cells):
            for key in cell.keys:
                self._places.setdefault(key, []).append(place)
        self._states = dict.fromkeys((entry["key"] for entry in manifest["trials"]), "waiting")
        self._counts = Counter(self._states.values())

    def is_of(self, manifest: Mapping[str, Any]) -> bool:
        """Whether it is of this manifest as it is now."""
        return self.manifest is manifest and self._size == len(manifest["trials"])

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials by state."""
        return {state: self._counts[state] for state in STATES}

    def learn(self, tokens: Mapping[str, str], news: Iterable[str]) -> list[Cell]:
        """Take up what MLflow has of the trials with these keys; returns the cells that they are in, in their order."""
        places: set[int] = set()
        for key in news:
            if (before := self._states.get(key)) is not None:
                self._states[key] = tokens.get(key, "waiting").partition(":")[0]
                self._counts[before] -= 1
                self._counts[self._states[key]] += 1
                places.update(self._places.get(key, ()))
        return [self.cells[place] for place in sorted(places)]
