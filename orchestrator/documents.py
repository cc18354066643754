"""What the documents of a store say, as plain types; and the digests that tell whether they still say it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from orchestrator.storage import FileEntry, is_name
from trainables.api.canonical import declared_types

# What JSON of another shape raises when it is read as one of these.
OTHER_SHAPE = (AttributeError, KeyError, TypeError, ValueError, RecursionError)


class NewerResult(ValueError):
    """A result is what was published, and says it in a way that this version of the program does not know."""


@dataclass(frozen=True)
class Lineage:
    """The shorter training that one went on from."""

    key: str
    length: int


@dataclass(frozen=True)
class SavedState:
    """The state after the last epoch, and the journal up to it."""

    token: str
    files: dict[str, FileEntry]
    segments: list[str]


@dataclass(frozen=True)
class Result:
    """A finished trial, as its document tells."""

    key: str
    metrics: dict[str, float]
    files: dict[str, FileEntry]
    segments: list[str]
    started_at: float  # seconds since the epoch
    ended_at: float
    busy_s: float  # seconds of work over all attempts, without what a shorter training did
    attempt: int
    work_flop: float  # likewise
    provenance: dict[str, str]
    token: str = ""  # of its publish folder
    length: int = 0  # of a training that grows
    state: SavedState | None = None
    continued_from: Lineage | None = None

    @property
    def folder(self) -> str:
        """Where its files lie."""
        return f"trials/{self.key}/published/{self.token}"

    @property
    def state_folder(self) -> str:
        """Where its state lies, if it left one."""
        return f"trials/{self.key}/state/{self.state.token if self.state else ''}"


@dataclass(frozen=True)
class Look:
    """What a look at a finished trial tells: its result, or what is wrong with it, or neither."""

    result: Result | None = None
    damage: str = ""
    is_newer: bool = False
    """Nothing is wrong with it: another version of the program wrote it (``NewerResult``)."""


@dataclass(frozen=True)
class Failure:
    """A trial that failed for good: its class of failure and what to tell the user."""

    kind: str  # see kinds.py, and read it by kind_of: earlier versions had other names
    message: str
    traceback: str
    attempt: int
    at: float


@dataclass(frozen=True)
class Generation:
    """One resumable state. All files it names were whole before it was written."""

    name: str = ""  # sorts behind those of the states before it
    checkpoint: str | None = None
    checkpoint_files: dict[str, FileEntry] = field(default_factory=dict)
    items: list[str] = field(default_factory=list)
    item_files: dict[str, FileEntry] = field(default_factory=dict)
    segments: list[str] = field(default_factory=list)
    fraction: float = 0.0
    attempt: int = 1
    started_at: float = 0.0
    busy_s: float = 0.0
    length: float = 0.0  # of a training that grows: how far its checkpoint is
    continued_from: Lineage | None = None


def parsed(declared: Any, value: Any, *, drops_unknown: bool = False) -> Any:
    """A value of a JSON document as what was written: dataclasses, mappings and lists of them.

    Raises TypeError, ValueError or AttributeError for JSON of another shape, such as a field that the dataclass does
    not have, unless ``drops_unknown``.
    """
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    part = functools.partial(parsed, drops_unknown=drops_unknown)
    if origin in (typing.Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else part(inner, value)
    if dataclasses.is_dataclass(declared) and isinstance(declared, type):
        kinds = declared_types(declared)
        given = {name: entry for name, entry in value.items() if name in kinds or not drops_unknown}
        return declared(**{name: part(kinds.get(name, Any), entry) for name, entry in given.items()})
    if origin is dict:
        return {str(name): part(arguments[1], entry) for name, entry in value.items()}
    if origin is list:
        if not isinstance(value, list):
            raise TypeError(f"{value!r} is no list")
        return [part(arguments[0], entry) for entry in value]
    accepted: Any = {float: (int, float), int: int, str: str}.get(declared, object)
    if not isinstance(value, accepted) or (isinstance(value, bool) and declared in (int, float)):
        raise TypeError(f"{value!r} is no {declared.__name__}")
    return value


def is_a(kind: type) -> Callable[[Any], bool]:
    """A function that tells whether JSON is a dataclass of this kind."""

    def is_one(value: Any) -> bool:
        try:
            parsed(kind, value)
        except OTHER_SHAPE:
            return False
        return True

    return is_one


def is_state(generation: Generation | None, name: str) -> TypeGuard[Generation]:
    """Whether this is the resumable state with this name, and all that it names lies where attempts leave it."""
    if generation is None or generation.name != name:
        return False
    folder, _, checkpoint = (generation.checkpoint or "checkpoints/none").partition("/")
    return folder == "checkpoints" and all(map(is_name, [checkpoint, *generation.items, *generation.segments]))


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document with a digest of all of it: a changed number is noticed."""
    return {**document, "digest": _document_digest(document)}


def unsealed(document: Any) -> dict[str, Any]:
    """What was sealed. Raises one of OTHER_SHAPE where this is not it."""
    content = dict(document)
    if content.pop("digest") != _document_digest(content):
        raise ValueError("the document does not match its digest")
    return content


def result_from(content: bytes, key: str) -> Result:
    """The result of a trial as its document tells it, without what a newer version may have added.

    Raises one of OTHER_SHAPE where it is not what was published for this trial; of them NewerResult where it is, in
    another shape.
    """
    document = unsealed(json.loads(content))
    if document["key"] != key:
        raise ValueError(f"it is the result of trial {document['key']}")
    try:
        result = parsed(Result, document, drops_unknown=True)
    except OTHER_SHAPE as error:
        raise NewerResult("was written by a newer version of this program: update the code") from error
    assert isinstance(result, Result)
    state = result.state or SavedState("", {}, [])
    tokens = [token for token in (result.token, state.token) if token]  # the first results had none
    if not all(map(is_name, [*tokens, *result.segments, *state.segments])):
        raise ValueError("it names what lies outside of its folder")
    return result


_MANIFEST = {"study": str, "question": str, "command": str, "trials": list, "provenance": dict, "facts": dict}
_EMPTY = {"question": "", "command": "", "provenance": {}, "facts": {}}
_ENTRY = {"key": str, "name": str, "class": str, "upstream": list, "named": bool, "configuration": dict}
_ENTRY_MAY = {"role": str, "cell": str, "labels": dict, "seeds": dict, "data": dict, "images": list}


def manifest_from(document: Any, study: str) -> dict[str, Any]:
    """The manifest of a study as its document tells it. Raises one of OTHER_SHAPE where it is none.

    One without a digest is of before there was one.
    """
    manifest = _EMPTY | (unsealed(document) if "digest" in document else dict(document))
    _check_fields(manifest, _MANIFEST, {"cards": dict, "number": int})
    if manifest["study"] != study or not _is_number(manifest["submitted_at"]):
        raise ValueError(f"it is no manifest of {study}")
    _check_entries(manifest["trials"])
    if "search" in manifest:
        _check_fields(manifest["search"], {"suggestions": list}, {"num_suggestions": int})
    return manifest


def part_from(document: Any) -> dict[str, list[dict[str, Any]]]:
    """Trials and suggestions that a search has added, as their document tells them. Raises one of OTHER_SHAPE where it
    is none.

    One without a digest is of before there was one.
    """
    part = unsealed(document) if "digest" in document else dict(document)
    _check_fields(part, {"trials": list, "suggestions": list}, {})
    _check_entries(part["trials"])
    for suggestion in part["suggestions"]:
        _check_fields(suggestion, {"number": int}, {})
    return part


def _check_entries(entries: list[Any]) -> None:
    """Raise one of OTHER_SHAPE where one of these is no trial of a manifest."""
    for entry in entries:
        _check_fields(entry, _ENTRY, _ENTRY_MAY)
        if not all(map(is_name, [entry["key"], *entry["upstream"]])):
            raise ValueError("it names what is no key")
        if entry.get("family") is not None and not (is_name(entry["family"]) and _is_number(entry["length"])):
            raise ValueError("a training that grows has a family and a length")


def submission_order(manifest: Mapping[str, Any]) -> tuple[int, float]:
    """By which the manifests of a study are sorted, the last submission last: clocks are set back."""
    return manifest.get("number", 0), manifest["submitted_at"]


def _check_fields(document: dict[str, Any], required: Mapping[str, type], others: Mapping[str, type]) -> None:
    """Raise TypeError for a field of another kind, KeyError for a required one that is not there."""
    for name, kind in {**required, **others}.items():
        value = document[name] if name in required else document.get(name)
        if type(value) is not kind and (name in required or name in document):
            raise TypeError(f"{name} = {value!r} is no {kind.__name__}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def said_of(report: Any, token: str) -> str:
    """What word of damage says of the result with this token: nothing where it spoke of another one, or is none."""
    if isinstance(report, dict):
        return str(report.get("message", "damaged")) if report.get("token", token) == token else ""
    return "" if report is None else str(report)


def _document_digest(document: Any) -> str:
    return short_digest(json.dumps(document, sort_keys=True).encode())


def short_digest(content: bytes) -> str:
    """Twelve hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:12]
