"""``python -m orchestrator verify``: everything that a storage holds, read against its digests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeGuard

import tyro

from orchestrator.cost_records import are_records
from orchestrator.documents import (
    OTHER_SHAPE,
    Failure,
    Generation,
    NewerResult,
    Result,
    is_a,
    is_state,
    result_from,
)
from orchestrator.inputs import read_digests
from orchestrator.leftovers import suggested_keys
from orchestrator.manifest_parts import garbled_parts, part_names
from orchestrator.options import DefaultInHelp
from orchestrator.places import no_study, opened
from orchestrator.publishing import Known
from orchestrator.snapshot import report_files
from orchestrator.storage import FileEntry, is_name
from orchestrator.store import DamagedResult, Store
from orchestrator.usage import EXIT_FAILED, EXIT_OK

Whole = Callable[[Any], bool]
_NOTHING = "nothing is to be done: "


@dataclass(frozen=True)
class Finding:
    """Something that is not what was written."""

    path: str
    """Below the storage."""
    expected: str
    to_do: str
    is_damage: bool = True
    """Else it is what a process left that was killed between two writes."""


def verify(
    storage: DefaultInHelp[str | None] = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json", help_behavior_hint="")] = False,
) -> int:
    """Read everything that a storage holds against its digests, and change nothing; exit status 1 if it is damaged.

    Args:
        storage: Folder or URL of the results (default: $QUARTERTURN_STORAGE or ./results).
        as_json: Print one JSON object for scripts.
    """
    store = opened(storage)
    if not store.names("studies") and not store.finished():
        raise no_study(store)
    verification = Verification(store)
    found = []
    for finding in verification.findings():
        found.append(finding)
        if not as_json:
            print(f"{store.uri}/{finding.path}: expected {finding.expected}; {finding.to_do}")
    num_damaged = sum(finding.is_damage for finding in found)
    if as_json:
        print(json.dumps({"read": verification.read, "findings": [asdict(finding) for finding in found]}))
    else:
        read = ", ".join(f"{count} {kind}" for kind, count in sorted(verification.read.items()) if kind != "bytes")
        print(f"read {read or 'nothing'}, {verification.read['bytes'] / 1e6:.1f} MB of files: {num_damaged} damaged")
    return EXIT_FAILED if num_damaged else EXIT_OK


class Verification:
    """One reading of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.read: Counter[str] = Counter()
        """How many of each kind were read, and bytes of files."""

    def findings(self) -> Iterator[Finding]:
        """All that is not what was written, as it is found."""
        finished = self._store.finished()
        for key in sorted(finished):
            yield from self._result(key)
        for key in self._store.names("trials"):
            yield from self._trial(key, is_finished=key in finished)
        yield from self._documents("damaged", lambda found: isinstance(found, dict | str), "remove it")
        for family in self._store.names("families"):
            yield from self._family(family)
        for name in self._store.names("data"):
            self.read["documents"] += 1
            if read_digests(self._store, name.removesuffix(".json.gz")) is None:
                to_do = _NOTHING + "the next submission that reads this data set writes it anew"
                yield Finding(f"data/{name}", "digests of files that have the digest in its name", to_do)
        again = _NOTHING + "the next submission with something to run writes it anew"
        yield from self._documents("costs", are_records, again)
        for study in self._store.names("studies"):
            yield from self._study(study)
        for study in self._store.names("reports"):
            yield from self._report(study)

    # -- trials ---------------------------------------------------------------------------------------

    def _result(self, key: str) -> Iterator[Finding]:
        path = f"results/{key}.json"
        self.read["results"] += 1
        try:
            result = result_from(self._store.read_bytes(path) or b"", key)
        except NewerResult:
            yield Finding(path, "a shape that this version of the program knows", "update the code")
            return
        except OTHER_SHAPE:
            yield Finding(path, f"the result of trial {key} with its digest", "submit its study again")
            return
        look = self._store.look(key)
        to_do = "submit its study again: the trial is computed anew"
        if not look.damage:  # a plan looks at names and sizes only
            to_do = f"remove {self._store.uri}/{path} and " + to_do
        found = [*self._files(result.folder, result.files, to_do), *self._segments(key, result.segments, to_do)]
        yield from found
        if look.damage and not found:
            yield Finding(path, f"no word of damage ({look.damage})", to_do)
        yield from self._state(result)

    def _state(self, result: Result) -> Iterator[Finding]:
        to_do = _NOTHING + "longer trainings go on from a shorter one"
        if result.state is not None and self._store.names(result.state_folder):  # or gc has removed it
            yield from self._files(result.state_folder, result.state.files, to_do)
            own = set(result.state.segments) - set(result.segments)
            yield from self._segments(result.key, sorted(own), to_do)

    def _trial(self, key: str, *, is_finished: bool) -> Iterator[Finding]:
        folder = f"trials/{key}"
        again = _NOTHING + "the next attempt writes it anew"
        if is_finished:
            again = "only export misses it: to have it again, remove the result and submit its study again"
        names = self._store.names(folder)
        for name, is_whole, to_do in (
            ("trial.json", lambda found: isinstance(found, dict) and found.get("key") == key, again),
            ("claim.json", lambda found: isinstance(found, dict), _NOTHING + "it lapses"),
            ("failure.json", is_a(Failure), _NOTHING + "the next submission tries the trial again"),
            ("crash.json", is_a(Failure), _NOTHING + "the next attempt writes its own"),
        ):
            if name in names:
                yield from self._document(f"{folder}/{name}", is_whole, to_do)
        if not is_finished:
            for name in self._store.names(f"{folder}/progress"):
                yield from self._generation(key, f"{folder}/progress/{name}")

    def _generation(self, key: str, path: str) -> Iterator[Finding]:
        self.read["resumable states"] += 1
        to_do = _NOTHING + "its trial goes on from the state before it"
        generation = self._store.read_as(Generation, path)
        if not is_state(generation, path.rsplit("/", 1)[1].removesuffix(".json")):
            found = [Finding(path, "a resumable state", to_do)]
        else:
            checkpoint = f"trials/{key}/{generation.checkpoint}"
            found = [
                *self._files(checkpoint, generation.checkpoint_files, to_do),
                *self._files(f"trials/{key}/items", generation.item_files, to_do),
                *self._segments(key, generation.segments, to_do),
            ]
        if found and self._store.exists(path):  # a trial that runs replaces its states
            yield from found

    def _files(self, folder: str, files: Mapping[str, FileEntry], to_do: str) -> Iterator[Finding]:
        for name, entry in files.items():
            self.read["files"] += 1
            self.read["bytes"] += entry.size_bytes
            try:
                self._store.verify(folder, {name: entry})
            except (DamagedResult, OSError):
                expected = f"the {entry.size_bytes} bytes with the SHA-256 {entry.sha256}"
                yield Finding(f"{folder}/{name}", expected, to_do)

    def _segments(self, key: str, names: Iterable[str], to_do: str) -> Iterator[Finding]:
        for name in names:
            self.read["journal segments"] += 1
            try:
                self._store.segment(key, name)
            except (DamagedResult, OSError):
                yield Finding(f"trials/{key}/journal/{name}", "rows that have the digest in its name", to_do)

    # -- what names them ------------------------------------------------------------------------------

    def _family(self, family: str) -> Iterator[Finding]:
        folder = f"families/{family}"
        for name in self._store.names(folder):
            path = f"{folder}/{name}"
            yield from self._document(path, _names_a_key, "remove it: trainings go on from others")
            entry = self._store.read_document(path)
            result = self._store.result(entry["key"]) if _names_a_key(entry) else None
            if _names_a_key(entry) and (result is None or f"{result.length}.json" != name):
                expected = f"a result of trial {entry['key']} with the length in its name"
                yield Finding(path, expected, _NOTHING + "gc removes it where nobody needs it", is_damage=False)

    def _study(self, study: str) -> Iterator[Finding]:
        folder, remedy = f"studies/{study}", "remove it, and submit its study again"
        for name in self._store.names(folder):
            if name.endswith(".json"):
                self.read["manifests"] += 1
                if self._store.manifest(study, name) is None:
                    yield Finding(f"{folder}/{name}", "a manifest with its digest", remedy)
                self.read["documents"] += len(part_names(self._store, study, name))
                for path in garbled_parts(self._store, study, name):
                    yield Finding(path, "a part of a manifest with its digest", remedy)
        yield from self._documents(f"{folder}/suggestions", lambda found: suggested_keys(found) is not None, remedy)
        forgotten = _NOTHING + "the next sync looks at every run"
        yield from self._documents(f"{folder}/publishers", is_a(Known), forgotten)

    def _report(self, study: str) -> Iterator[Finding]:
        made_from = f"reports/{study}/made_from.json"
        to_do = f"remove {self._store.uri}/{made_from} and submit its study again: the report is drawn anew"
        report = report_files(self._store, study)
        if report is not None:
            yield from self._files(report.folder, report.files, to_do)
        elif self._store.exists(made_from):
            yield Finding(made_from, "the files of a report", "submit its study again: the report is drawn anew")

    # -- documents ------------------------------------------------------------------------------------

    def _documents(self, folder: str, is_whole: Whole, to_do: str) -> Iterator[Finding]:
        for name in self._store.names(folder):
            if name.endswith(".json"):
                yield from self._document(f"{folder}/{name}", is_whole, to_do)

    def _document(self, path: str, is_whole: Whole, to_do: str) -> Iterator[Finding]:
        self.read["documents"] += 1
        if not is_whole(self._store.read_document(path)) and self._store.exists(path):
            yield Finding(path, "a document of its kind", to_do)


def _names_a_key(found: Any) -> TypeGuard[dict[str, str]]:
    return isinstance(found, dict) and isinstance(found.get("key"), str) and is_name(found["key"])
