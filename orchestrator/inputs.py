"""What the process of a trial knows of its parts without reading a file: their keys, and the digests of their files.

A submission hashes every file once. Keys travel with the trial; the digests of a data set, which may be a hundred
thousand, lie in the store as one document named by its content.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.store import DamagedResult, Store
from trainables.api.identity import Keys, digest_of_all, parts_of
from trainables.api.trainable import ReadsFiles


@dataclass(frozen=True)
class KnownPart:
    """A part of a configuration, its key, and the document with the digests of the files that it reads itself."""

    part: Any
    key: str
    digests: str = ""


def known_parts(configuration: Any, keys: Keys) -> tuple[KnownPart, ...]:
    """All parts of a configuration at any depth, itself included."""
    return tuple(
        KnownPart(part, keys.key(part), keys.files_digest(part) if isinstance(part, ReadsFiles) else "")
        for part in _parts(configuration, set())
    )


def find(part: Any, known: Iterable[KnownPart]) -> KnownPart:
    """What is known of a part. Raises ValueError when the configuration has no part like it."""
    known = list(known)
    for entry in known:
        if entry.part is part:
            return entry
    for entry in known:
        if entry.part == part:
            return entry
    raise ValueError(
        f"{part!r} is no part of this trial's configuration: hold it in a field, so that it counts in the key"
    )


def record_digests(parts: Iterable[KnownPart], store: Store, keys: Keys) -> None:
    """Write the documents that the trials with these parts will read, unless they are there."""
    done: set[str] = set()
    for known in parts:
        if known.digests and known.digests not in done:
            done.add(known.digests)
            if read_digests(store, known.digests) is None:
                content = json.dumps(keys.files(known.part), sort_keys=True).encode()
                store.write_bytes(_path(known.digests), gzip.compress(content, compresslevel=6, mtime=0))


def recorded_digests(known: KnownPart, store: Store) -> Mapping[str, str]:
    """SHA-256 of the files of a part by name, as they were when the submission was planned.

    Raises DamagedResult when the store has lost them.
    """
    digests = read_digests(store, known.digests)
    if digests is None:
        raise DamagedResult(f"{store.uri}/{_path(known.digests)} is missing or garbled; submit again")
    return digests


def _parts(value: Any, seen: set[int]) -> Iterator[Any]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if hasattr(type(value), "__dataclass_fields__"):
        yield value
    for part in parts_of(value):
        yield from _parts(part, seen)


def read_digests(store: Store, name: str) -> dict[str, str] | None:
    """What the document with this digest says; None where it is missing or says something else."""
    content = store.read_bytes(_path(name))
    try:
        digests = json.loads(gzip.decompress(content)) if content is not None else None
        return digests if digests is not None and digest_of_all(digests) == name else None
    except (OSError, EOFError, zlib.error, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _path(name: str) -> str:
    return f"data/{name}.json.gz"
