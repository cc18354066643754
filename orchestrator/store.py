"""Where results live: what trials leave behind, finished and unfinished, under one root.

Layout below the root:

    results/<key>.json                   a finished trial, whole or not at all; names its publish folder
    trials/<key>/published/<token>/...   its files, in a folder of each attempt's own
    trials/<key>/state/<token>/...       the state after its last epoch, from which longer trainings go on
    trials/<key>/journal/...             segments of its metric history
    trials/<key>/trial.json              what the trial is: name, class, configuration
    trials/<key>/progress/...            the last two resumable states: checkpoint, items, journal segments
    trials/<key>/{checkpoints,items}/...
    trials/<key>/failure.json            why the trial failed for good
    trials/<key>/crash.json              what the last crash left, which may not be the end of the trial
    trials/<key>/claim.json              who runs it now (claims.py)
    trials/<key>/damaged/...             results that were set aside
    damaged/<key>.json                   word of a reader that a result is damaged
    families/<family>/<length>.json      which trial trained so long
    data/<digest>.json.gz                digests of the files that a data set reads (inputs.py)
    costs/<class>.json                   what finished trials took (cost_records.py)
    studies/<study>/<submission>.json    manifests: the keys a submission needs, and its command
    studies/<study>/<submission>/...     what a search has added since (manifest_parts.py)
    studies/<study>/suggestions/...      what a search decided on (search/decisions.py)
    studies/<study>/publishers/...       what each MLflow has of the study (publishing.py)
    reports/<study>/...                  the files of its newest report, and what they were made from (snapshot.py)
    .tune/<launch>/...                   what Ray Tune keeps while a study runs, and the claim of its driver (launch.py)

Readers change nothing: they report damage. Who holds the claim of a trial verifies it and sets it aside.
"""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, cast

from orchestrator.documents import (
    OTHER_SHAPE,
    Failure,
    Generation,
    Lineage,
    Look,
    NewerResult,
    Result,
    SavedState,
    is_state,
    manifest_from,
    parsed,
    result_from,
    said_of,
    sealed,
    submission_order,
)
from orchestrator.journals import Journals, word_path
from orchestrator.manifest_parts import garbled_parts, with_parts
from orchestrator.storage import DamagedResult, FileEntry, is_name, storage_mark

__all__ = ["DamagedResult", "Failure", "FileEntry", "Generation", "Lineage", "Look", "Result", "SavedState", "Store"]

Document = TypeVar("Document")

# Of a trial that has a result: what only its attempts needed.
OF_ATTEMPTS = ("progress", "checkpoints", "items", "failure.json", "crash.json")


class Store(Journals):
    """Results under one root. Cheap to open; safe to use from many processes."""

    def look(self, key: str) -> Look:
        """The result of a trial, or what is wrong with it. Reads no file but its document, and changes nothing."""
        content = self.read_bytes(_result_path(key))
        if content is None:
            return Look()
        try:
            result = result_from(content, key)
        except NewerResult as error:
            return Look(damage=f"{self.uri}/{_result_path(key)} {error}", is_newer=True)
        except OTHER_SHAPE:
            return Look(damage=f"{self.uri}/{_result_path(key)} is garbled")
        name = self.unwhole(result.folder, result.files)
        if name is not None:
            return Look(damage=f"{self.uri}/{result.folder}/{name} is missing or not whole")
        if result.segments and (lost := set(result.segments) - set(self.names(f"trials/{key}/journal"))):
            return Look(damage=f"{self.uri}/trials/{key}/journal/{min(lost)} is missing")
        said = said_of(self.read_document(word_path(key)), result.token)
        return Look(damage=said) if said else Look(result)

    def result(self, key: str) -> Result | None:
        """The result of a trial if it is there and nothing is known to be wrong with it."""
        return self.look(key).result

    def finished(self) -> set[str]:
        """Keys of all trials that have a result, whole or damaged: one listing."""
        return {name.removesuffix(".json") for name in self.names("results") if name.endswith(".json")}

    def publish(self, result: Result, family: str | None = None) -> bool:
        """Make a result valid; False, having changed nothing, where there is one already.

        Its files were uploaded before; what was only needed to resume goes. Raises OSError when they did not arrive.
        """
        if self.unwhole(result.folder, result.files) is not None:
            raise OSError(
                f"the files of trial {result.key} did not arrive whole in {self.uri}: is the disk full? "
                "The trial is not done; submit again when there is space"
            )
        if family is not None and result.state is not None:
            # Before the result: an entry without a result says nothing, a result without an entry is not found.
            self.write_document(f"families/{family}/{result.length}.json", {"key": result.key})
        document, path = sealed(asdict(result)), _result_path(result.key)
        if not self.create_document(path, document, is_durable=True):
            there = self.read_document(path)
            if not isinstance(there, dict) or there.get("digest") != document["digest"]:
                return False  # else it is this one, of which only the answer was lost
        self._clear_up(result.key)
        return True

    def _clear_up(self, key: str) -> None:
        """Remove what was only needed to resume. Its result is there: what cannot be removed costs space alone."""
        there: set[str] = set()
        with contextlib.suppress(OSError):
            there.update(self.names(f"trials/{key}"))
        leftovers = [f"trials/{key}/{name}" for name in OF_ATTEMPTS if name in there]
        for path in [word_path(key), *leftovers]:
            with contextlib.suppress(OSError):
                self.remove(path)

    def fetch(self, key: str, cache_dir: Path) -> Path:
        """Local folder with the verified files of a finished trial.

        Raises DamagedResult, after reporting it, when its files are not what was published.
        """
        look = self.look(key)
        if look.result is None:
            raise DamagedResult(f"{look.damage or f'trial {key} has no result in {self.uri}'}; submit again")
        local = cache_dir / "fetched" / storage_mark(self) / key / look.result.token
        try:
            return self.download(look.result.folder, look.result.files, local)
        except DamagedResult as error:
            self.report_damage(key, look.result.token, str(error))
            raise DamagedResult(f"{error}; submit again to compute it anew") from error

    # -- damage ---------------------------------------------------------------------------------------

    def settle_damage(self, key: str) -> Look:
        """Verify a result that looks damaged and set it aside if it is; returns how the trial looks then.

        Only for who holds the trial's claim. Raises NewerResult, having changed nothing, where only a newer version of
        the program can tell.
        """
        look = self.look(key)
        if look.is_newer:
            raise NewerResult(look.damage)
        if not look.damage:
            return look
        try:
            result = result_from(self.read_bytes(_result_path(key)) or b"", key)
            self.verify(result.folder, result.files)
            for name in result.segments:
                self.segment(key, name)
        except NewerResult:  # which appeared just now
            raise
        except (DamagedResult, *OTHER_SHAPE):
            self.set_aside(key)
        self.remove(word_path(key))
        return self.look(key)

    def set_aside(self, key: str) -> None:
        """Take a result out of use, keeping it for a look. Only for who holds the trial's claim."""
        aside = self.take_away(_result_path(key), f"trials/{key}/damaged/{uuid.uuid4().hex}.json")
        if aside is not None:
            message = f"warning: the result of trial {key} is damaged; set aside as {self.uri}/{aside}"
            print(message, file=sys.stderr, flush=True)

    # -- unfinished trials ----------------------------------------------------------------------------

    def failure(self, key: str) -> Failure | None:
        """Why a trial failed for good, or None."""
        return self.read_as(Failure, f"trials/{key}/failure.json")

    def record_failure(self, key: str, failure: Failure) -> None:
        """Remember that a trial failed for good."""
        self.write_document(f"trials/{key}/failure.json", asdict(failure))

    def clear_failure(self, key: str) -> None:
        """Give a failed trial another chance."""
        self.remove(f"trials/{key}/failure.json")

    def note_crash(self, key: str, failure: Failure) -> None:
        """Leave word of a crash that may not be the end of the trial, if the storage still takes it."""
        with contextlib.suppress(OSError):
            self.write_document(f"trials/{key}/crash.json", asdict(failure))

    def crash(self, key: str) -> Failure | None:
        """What the last crash of a trial left behind."""
        return self.read_as(Failure, f"trials/{key}/crash.json")

    def attempts(self, key: str) -> int:
        """How many attempts of a trial were begun, as far as is known."""
        document = self.read_document(f"trials/{key}/trial.json")
        attempt = document.get("attempt") if isinstance(document, dict) else None
        return attempt if isinstance(attempt, int) else 0

    def generations(self, key: str) -> list[Generation]:
        """The resumable states of a trial, newest first; without those that are garbled."""
        folder = f"trials/{key}/progress"
        names = [name.removesuffix(".json") for name in reversed(self.names(folder))]
        found = ((self.read_as(Generation, f"{folder}/{name}.json"), name) for name in names)
        return [generation for generation, name in found if is_state(generation, name)]

    def write_generations(self, key: str, kept: list[Generation]) -> None:
        """Add the first of ``kept`` to the resumable states; others than these go."""
        folder = f"trials/{key}/progress"
        self.write_document(f"{folder}/{kept[0].name}.json", asdict(kept[0]))
        for old in set(self.names(folder)) - {f"{generation.name}.json" for generation in kept}:
            self.remove(f"{folder}/{old}")

    # -- families and studies -------------------------------------------------------------------------

    def shorter(self, family: str, length: int) -> Iterator[Result]:
        """Finished members of a family that are shorter than ``length`` and left a state, the longest first."""
        stems = (name.removesuffix(".json") for name in self.names(f"families/{family}"))
        for number in sorted((int(stem) for stem in stems if stem.isdigit()), reverse=True):
            if number < length:
                document = self.read_document(f"families/{family}/{number}.json")
                key = document.get("key") if isinstance(document, dict) else None
                result = self.result(key) if isinstance(key, str) and is_name(key) else None
                if result is not None and result.state is not None and result.length == number:
                    yield result

    def manifests(self) -> Iterator[dict[str, Any]]:
        """All manifests, study by study, those of a study in the order of their submissions."""
        for study in self.names("studies"):
            found = (self.manifest(study, name) for name in self.names(f"studies/{study}"))
            yield from sorted((manifest for manifest in found if manifest is not None), key=submission_order)

    def manifest(self, study: str, name: str) -> dict[str, Any] | None:
        """The manifest of this name among what lies in a study's folder; None for everything else."""
        if not name.endswith(".json"):
            return None
        try:
            whole = manifest_from(self.read_document(f"studies/{study}/{name}"), study)
            return with_parts(self, study, name, whole)
        except OTHER_SHAPE:
            return None

    def read_as(self, kind: type[Document], path: str) -> Document | None:
        """A document as a dataclass; None when it is absent or of another shape."""
        document = self.read_document(path)
        try:
            return None if document is None else cast(Document, parsed(kind, document))
        except OTHER_SHAPE:
            return None


def _result_path(key: str) -> str:
    return f"results/{key}.json"


def garbled_manifests(store: Store) -> Iterator[str]:
    """Paths of documents among the manifests and their parts that are none: what they said, nobody knows."""
    for study in store.names("studies"):
        for name in (name for name in store.names(f"studies/{study}") if name.endswith(".json")):
            manifest = store.manifest(study, name)
            if manifest is None:
                yield f"{store.uri}/studies/{study}/{name}"
            elif "search" in manifest:
                yield from (f"{store.uri}/{path}" for path in garbled_parts(store, study, name))
