"""What the documents of a store say, as plain types; and the digests that tell whether they still say it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator.storage import FileEntry
from trainables.api.canonical import declared_types

# What JSON of another shape raises when it is read as one of these.
OTHER_SHAPE = (AttributeError, KeyError, TypeError, ValueError, RecursionError)


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


@dataclass(frozen=True)
class Failure:
    """A trial that failed for good: its class of failure and what to tell the user."""

    kind: str  # "non-finite", "bad configuration", "out of memory" or "crash"
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


def parsed(declared: Any, value: Any) -> Any:
    """A value of a JSON document as what was written: dataclasses, mappings and lists of them.

    Raises TypeError, ValueError or AttributeError for JSON of another shape.
    """
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if origin in (typing.Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else parsed(inner, value)
    if dataclasses.is_dataclass(declared) and isinstance(declared, type):
        kinds = declared_types(declared)
        return declared(**{name: parsed(kinds.get(name, Any), entry) for name, entry in value.items()})
    if origin is dict:
        return {str(name): parsed(arguments[1], entry) for name, entry in value.items()}
    if origin is list:
        if not isinstance(value, list):
            raise TypeError(f"{value!r} is no list")
        return [parsed(arguments[0], entry) for entry in value]
    accepted: Any = {float: (int, float), int: int, str: str}.get(declared, object)
    if not isinstance(value, accepted) or (isinstance(value, bool) and declared in (int, float)):
        raise TypeError(f"{value!r} is no {declared.__name__}")
    return value


def sealed(result: Result) -> dict[str, Any]:
    """The document of a result, with a digest of all of it: a changed number is noticed."""
    document = asdict(result)
    return {**document, "digest": _document_digest(document)}


def unsealed(content: bytes) -> Result:
    """The result that a document tells. Raises one of OTHER_SHAPE where it is not what was sealed."""
    document = json.loads(content)
    if document.pop("digest") != _document_digest(document):
        raise ValueError("the document does not match its digest")
    result = parsed(Result, document)
    assert isinstance(result, Result)
    return result


def _document_digest(document: Any) -> str:
    return short_digest(json.dumps(document, sort_keys=True).encode())


def short_digest(content: bytes) -> str:
    """Twelve hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:12]
