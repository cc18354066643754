"""The manifest of a submission: what its study needs and how it was called, for those who read the store later."""

from __future__ import annotations

import getpass
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from orchestrator.documents import sealed
from orchestrator.graph import Trial
from orchestrator.manifest_parts import Entries, Part, remove_parts, whole_parts, write_part
from orchestrator.plan import Plan
from orchestrator.provenance import data_fingerprints, file_fingerprints, image_data_sets
from orchestrator.search.suggestions import Suggestions
from orchestrator.store import Store
from orchestrator.study import Entry, Manifest
from trainables.api.identity import Keys, describe, seeds_of, versions_of

# It is written whole again when it has grown by so much.
_GROWN = 1.25


def manifest_of(plan: Plan, command: str, provenance: Mapping[str, str], keys: Keys) -> Manifest:
    """The manifest of a plan that was made by a command."""
    return {
        "study": plan.study.name,
        "question": plan.study.question,
        "facts": dict(plan.study.facts),
        "report": plan.study.report,
        "cards": {name: asdict(card) for name, card in plan.study.cards.items()},
        "command": command,
        "user": _user(),
        "provenance": dict(provenance),
        "submitted_at": time.time(),
        "trials": entries_of(plan, keys),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return ""


def entries_of(plan: Plan, keys: Keys) -> list[dict[str, Any]]:
    """The trials of a plan for a manifest; one that the study names twice is there twice."""
    given: dict[str, list[str]] = {}
    for name, trainable in plan.study.trainables.items():
        given.setdefault(keys.key(trainable), []).append(name)
    entries = plan.study.entries
    return [
        _entry(p.trial, name, entries.get(name), keys)
        for p in plan.planned
        for name in given.get(p.trial.key, [p.trial.name])
    ]


def _entry(trial: Trial, name: str, given: Entry | None, keys: Keys) -> dict[str, Any]:
    role, labels = (given.role, dict(given.labels)) if given else ("", {})
    return {
        "key": trial.key,
        "name": name,
        "class": type(trial.trainable).__name__,
        "upstream": list(trial.upstream),
        "named": given is not None,
        "role": role,
        "labels": labels,
        "cell": keys.cell(trial.trainable, role, labels),
        "seeds": seeds_of(trial.trainable),
        "family": trial.family,
        "length": trial.length,
        "data": data_fingerprints(trial.trainable, keys),
        "files": file_fingerprints(trial.trainable, keys),
        "images": image_data_sets(trial.trainable),
        "meaning": versions_of(trial.trainable),
        "configuration": describe(trial.trainable),
    }


class ManifestWriter:
    """Writes the manifest of one submission; while a search goes on, what is new in parts, and all of it now and then.

    So what is written for a search is some times what its manifest holds in the end, however many suggestions it makes.
    """

    def __init__(self, store: Store, manifest: Manifest, suggestions: Suggestions) -> None:
        self._store, self._suggestions, self._study = store, suggestions, manifest["study"]
        self.document = manifest
        self._entries = Entries(manifest["trials"])
        self._num_whole: int | None = None  # entries when it was last written whole
        self._has_search = suggestions.describe(news_only=True) is not None
        # The same submission again has the same name; where its trials are others, the earlier one stays.
        self._name = f"{suggestions.identity[:16]}.json"
        # Times are for people: the last submission is the one with the highest number.
        names = store.names(f"studies/{self._study}")
        before = (store.manifest(self._study, name) or {} for name in names)
        manifest["number"] = 1 + max((earlier.get("number", 0) for earlier in before), default=0)

    def add(self, entries: Sequence[dict[str, Any]]) -> None:
        """Add trials that are not there yet, and write what is new of them and of the suggestions, if anything is."""
        new = self._entries.add(entries)
        if self._num_whole is None or len(self._entries.all) >= _GROWN * self._num_whole:
            self.write()
            return
        search = self._suggestions.describe(news_only=True)
        if search is None:  # only a search has parts
            if new:
                self.write()
        elif new or search["suggestions"]:
            write_part(self._store, self._study, self._name, new, search["suggestions"], len(self._entries.all))

    def write(self) -> None:
        """Write the whole manifest as things stand."""
        parts: dict[str, Part] = {}
        if self._has_search:
            # Another driver of the same search writes here too: what it added stays, and what cannot be read. Its
            # suggestions are read after its parts, of which only those that were read go.
            parts = whole_parts(self._store, self._study, self._name)
            self._entries.add(self._there())
            self._entries.add(entry for part in parts.values() for entry in part["trials"])
            self._suggestions.refresh()
            self.document["search"] = self._suggestions.describe()
        self._store.write_document(f"studies/{self._study}/{self._name}", sealed(self.document))
        remove_parts(self._store, self._study, self._name, parts)
        self._num_whole = len(self._entries.all)

    def _there(self) -> list[dict[str, Any]]:
        """The trials of the manifest that lies there."""
        manifest = self._store.manifest(self._study, self._name)
        return [] if manifest is None else [entry for entry in manifest["trials"] if isinstance(entry, dict)]
