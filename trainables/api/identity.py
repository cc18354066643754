"""Identity of configurations: canonical JSON, content digests of files, and the key over both.

The key of a trainable hashes its class name, its ``version``, every field, the keys of nested trainables
and the content of the files it reads. Fields made with ``recorded()`` never count.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.api.trainable import RECORDED_ONLY, UNHASHED_AT, ReadsFiles, Trainable

KEY_LENGTH = 32  # hexadecimal digits: 128 bits
_CHUNK_BYTES = 1 << 20


class FileDigests:
    """SHA-256 of files, remembered by name, size and time of change in ``memo_path``."""

    def __init__(self, memo_path: Path | None = None) -> None:
        self._memo_path = memo_path
        self._memo: dict[str, str] = _read_memo(memo_path) if memo_path else {}
        self._known = len(self._memo)

    def digest(self, path: Path) -> str:
        """Hexadecimal SHA-256 of one file. Raises FileNotFoundError naming it."""
        stat = path.stat()
        memo_key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        if memo_key not in self._memo:
            self._memo[memo_key] = sha256_of(path)
        return self._memo[memo_key]

    def digest_all(self, files: Mapping[str, Path]) -> str:
        """One digest over names and contents, whatever the order and the folders."""
        lines = [f"{name} {self.digest(files[name])}" for name in sorted(files)]
        self._save()
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _save(self) -> None:
        if self._memo_path is None or len(self._memo) == self._known:
            return
        # Another process may have written since: merge, so that neither hashes everything again.
        self._memo = {**_read_memo(self._memo_path), **self._memo}
        self._known = len(self._memo)
        self._memo_path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._memo_path.parent)
        with os.fdopen(handle, "w") as file:
            json.dump(self._memo, file)
        os.replace(temporary, self._memo_path)


def canonical(configuration: Any, digests: FileDigests) -> Any:
    """The configuration as plain JSON values in one fixed form.

    Nested trainables appear as ``{"trial": key}``. Raises TypeError naming the field and value that has no
    canonical form.
    """
    return Keys(digests).canonical(configuration)


def key_of(configuration: Any, digests: FileDigests) -> str:
    """Content hash of one configuration; ``Keys`` is faster for many that share parts."""
    return Keys(digests).key(configuration)


def describe(configuration: Any) -> Any:
    """The configuration as readable JSON for people and MLflow: whole, with paths, nothing hashed."""
    if dataclasses.is_dataclass(configuration) and not isinstance(configuration, type):
        fields = {f.name: describe(getattr(configuration, f.name)) for f in dataclasses.fields(configuration)}
        return {"class": type(configuration).__name__, **fields}
    if isinstance(configuration, Mapping):
        return {str(name): describe(value) for name, value in configuration.items()}
    if isinstance(configuration, list | tuple | range):
        return [describe(value) for value in configuration]
    if isinstance(configuration, bool | int | float | str) or configuration is None:
        return configuration
    return str(configuration)


def parts_of(value: Any) -> list[Any]:
    """What a configuration holds directly: the values of fields, mappings and sequences; nothing for plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else []


class Keys:
    """Keys of configurations that share parts: every part is visited, and its files looked at, once."""

    def __init__(self, digests: FileDigests) -> None:
        self._digests = digests
        self._keys: dict[int, str] = {}
        self._contents: dict[Any, str] = {}
        self._alive: list[Any] = []  # keeps ids valid while they serve as memo keys

    def key(self, configuration: Any) -> str:
        """Content hash of a configuration: ``KEY_LENGTH`` hexadecimal digits."""
        if id(configuration) not in self._keys:
            document = self._dataclass(configuration, type(configuration).__name__)
            text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
            self._keys[id(configuration)] = hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]
            self._alive.append(configuration)
        return self._keys[id(configuration)]

    def canonical(self, configuration: Any) -> Any:
        """See ``canonical``."""
        return self._of(configuration, type(configuration).__name__)

    def content(self, part: ReadsFiles) -> str:
        """Digest of the files that a part of a configuration reads.

        Raises FileNotFoundError naming the file and the part, when it is missing.
        """
        memo_key = _memo_key(part)
        if memo_key not in self._contents:
            try:
                self._contents[memo_key] = self._content(part)
            except FileNotFoundError as error:
                if error.filename is None:  # the part itself has said what is missing, and what to do
                    raise
                name = type(part).__name__
                raise FileNotFoundError(
                    f"{error.filename} does not exist, and {name} reads it: check the path that was given for {name}, "
                    "and that this machine sees that disk"
                ) from error
            self._alive.append(part)
        return self._contents[memo_key]

    def _content(self, part: ReadsFiles) -> str:
        files = part.source_files()
        if not hasattr(part, "content"):
            return self._digests.digest_all(files)
        rows = part.content({name: self._digests.digest(path) for name, path in files.items()})
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()

    def _of(self, value: Any, where: str, *, nested: bool = False) -> Any:
        if isinstance(value, bool | int | str) or value is None:
            return value
        if isinstance(value, float):
            return _finite(value, where)
        if isinstance(value, Trainable) and nested:
            return {"trial": self.key(value)}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._dataclass(value, where)
        if isinstance(value, list | tuple | range):
            return [self._of(v, f"{where}[{i}]", nested=True) for i, v in enumerate(value)]
        if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
            return {name: self._of(v, f"{where}[{name!r}]", nested=True) for name, v in value.items()}
        raise TypeError(
            f"{where} = {value!r} has no canonical form: use numbers, strings, tuples, dicts with string keys, "
            "frozen dataclasses, or mark the field with recorded() if it must not count"
        )

    def _dataclass(self, value: Any, where: str) -> dict[str, Any]:
        if not dataclasses.is_dataclass(value) or isinstance(value, type):
            raise TypeError(f"{where} = {value!r}: only instances of dataclasses have a key")
        document: dict[str, Any] = {"class": type(value).__name__}
        if (version := getattr(type(value), "version", None)) is not None:
            document["version"] = version
        for field in dataclasses.fields(value):
            content = getattr(value, field.name)
            if field.metadata.get(RECORDED_ONLY) or _is_unhashed(field, content):
                continue
            document[f"field:{field.name}"] = self._of(content, f"{where}.{field.name}", nested=True)
        if isinstance(value, ReadsFiles):
            document["content"] = self.content(value)
        return document


def _memo_key(part: Any) -> Any:
    """Equal parts read the same files; a part that cannot be compared stands for itself."""
    try:
        hash(part)
    except TypeError:
        return id(part)
    return part


def _is_unhashed(field: dataclasses.Field[Any], content: Any) -> bool:
    return UNHASHED_AT in field.metadata and bool(field.metadata[UNHASHED_AT] == content)


def _finite(value: float, where: str) -> float:
    if not math.isfinite(value):
        raise TypeError(f"{where} = {value}: a configuration holds finite numbers only")
    return value


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a local file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _read_memo(path: Path) -> dict[str, str]:
    """The memo, or nothing when it is absent or damaged: it only saves time."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
