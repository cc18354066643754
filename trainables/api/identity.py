"""Identity of configurations: digests of files, and the key over canonical JSON.

The key of a trainable hashes its class name, the versions of its class and bases, every field in its declared type,
the keys of nested trainables and the content of the files it reads. Fields made with ``recorded()`` never count.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from trainables.api.canonical import canonical_form, declared_types
from trainables.api.trainable import GROWS, RECORDED_ONLY, SEED, UNHASHED_AT, ReadsFiles, Trainable

KEY_LENGTH = 32  # hexadecimal digits: 128 bits
_CHUNK_BYTES = 1 << 20
_CHECK_LENGTH = 16
_THREADS = 8  # hashing releases the interpreter; disks and network shares answer several readers at once
_BATCH = 64
_PROGRESS_S = 1.0

OnDigests = Callable[[int, int], None]
"""Told now and then how many of how many files are hashed."""


class FileDigests:
    """SHA-256 of files, remembered by name, size and time of change in ``memo_path``.

    Every entry of the memo carries a check over itself: one that does not hold is computed again.
    """

    def __init__(self, memo_path: Path | None = None, on_progress: OnDigests = lambda done, total: None) -> None:
        self._memo_path, self._on_progress = memo_path, on_progress
        self._memo: dict[str, str] = _read_memo(memo_path) if memo_path else {}
        self._has_news = False

    def digest(self, path: Path) -> str:
        """Hexadecimal SHA-256 of one file. Raises FileNotFoundError naming it."""
        stat = path.stat()
        memo_key = f"{os.path.abspath(path)}|{stat.st_size}|{stat.st_mtime_ns}"
        remembered, _, check = self._memo.get(memo_key, "").partition(":")
        if remembered and check == _check(memo_key, remembered):
            return remembered
        digest = sha256_of(path)
        self._memo[memo_key] = f"{digest}:{_check(memo_key, digest)}"
        self._has_news = True
        return digest

    def digest_files(self, files: Mapping[str, Path]) -> dict[str, str]:
        """SHA-256 of every file by its name, several at a time."""
        names = sorted(files)
        batches = [names[i : i + _BATCH] for i in range(0, len(names), _BATCH)]
        digests: dict[str, str] = {}
        said_at = time.monotonic()
        with ThreadPoolExecutor(_THREADS) as pool:
            for done in pool.map(lambda batch: {name: self.digest(files[name]) for name in batch}, batches):
                digests.update(done)
                if time.monotonic() - said_at >= _PROGRESS_S:
                    said_at = time.monotonic()
                    self._on_progress(len(digests), len(names))
        self._save()
        return digests

    def _save(self) -> None:
        if self._memo_path is None or not self._has_news:
            return
        # Another process may have written since: merge, so that neither hashes everything again.
        self._memo = {**_read_memo(self._memo_path), **self._memo}
        self._has_news = False
        with contextlib.suppress(OSError):  # it only saves time
            self._memo_path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._memo_path.parent)
            with os.fdopen(handle, "w") as file:
                json.dump(self._memo, file)
            os.replace(temporary, self._memo_path)


def digest_of_all(digests: Mapping[str, str]) -> str:
    """One digest over the names and digests of files, whatever their order."""
    lines = [f"{name} {digests[name]}" for name in sorted(digests)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def canonical(configuration: Any, digests: FileDigests) -> Any:
    """The configuration as plain JSON values in one fixed form.

    Nested trainables appear as ``{"trial": key}``. Raises TypeError naming the field and value that has no
    canonical form.
    """
    return Keys(digests).canonical(configuration)


def key_of(configuration: Any, digests: FileDigests) -> str:
    """Content hash of one configuration; ``Keys`` is faster for many that share parts."""
    return Keys(digests).key(configuration)


def identity_name(owner: type) -> str:
    """How a class is named in keys.

    Inside ``trainables`` by its own name, after that of its ``family`` where its base has one; elsewhere with its
    module, so that two studies may have classes of one name.
    """
    if owner.__module__.partition(".")[0] == "trainables":
        family = getattr(owner, "family", "")
        return f"{family}.{owner.__qualname__}" if family else owner.__qualname__
    return f"{_module_name(owner.__module__)}.{owner.__qualname__}"


def describe(configuration: Any) -> Any:
    """The configuration as readable JSON for people and MLflow: whole, with paths, nothing hashed."""
    if dataclasses.is_dataclass(configuration) and not isinstance(configuration, type):
        fields = {f.name: describe(getattr(configuration, f.name)) for f in dataclasses.fields(configuration)}
        return {"class": type(configuration).__name__, **fields}
    if isinstance(configuration, Mapping):
        return {str(name): describe(value) for name, value in configuration.items()}
    if isinstance(configuration, list | tuple | range):
        return [describe(value) for value in configuration]
    if isinstance(configuration, np.generic):
        return configuration.item()
    if isinstance(configuration, bool | int | float | str) or configuration is None:
        return configuration
    return str(configuration)


def named_parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a configuration holds directly, by name: fields, entries of mappings and sequences; nothing for plain
    values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    elif isinstance(value, Mapping):
        yield from ((str(name), entry) for name, entry in value.items())
    elif isinstance(value, list | tuple):
        yield from ((str(i), entry) for i, entry in enumerate(value))


def parts_of(value: Any) -> list[Any]:
    """What a configuration holds directly: the values of fields, mappings and sequences; nothing for plain values."""
    return [part for _, part in named_parts(value)]


def seeds_of(configuration: Any, prefix: str = "") -> dict[str, Any]:
    """The seeds of a configuration at any depth, by dotted path."""
    marked = {f.name for f in _fields(configuration) if f.metadata.get(SEED)}
    found: dict[str, Any] = {}
    for name, value in named_parts(configuration):
        path = f"{prefix}.{name}" if prefix else name
        found |= {path: describe(value)} if name in marked else seeds_of(value, path)
    return found


def versions_of(configuration: Any) -> dict[str, list[int]]:
    """The versions that count in a key, of all classes that a configuration is made of, by their names in keys.

    What nested trainables are made of is theirs.
    """
    found = {identity_name(type(configuration)): _versions(type(configuration))} if _fields(configuration) else {}
    for part in parts_of(configuration):
        if not isinstance(part, Trainable):
            found |= versions_of(part)
    return found


def left_out_of(configuration: Any, prefix: str = "") -> dict[str, bool]:
    """Fields that do not count in a key, at any depth, by dotted path: whether they never do, or not at their value."""
    fields = {field.name: field for field in _fields(configuration)}
    found: dict[str, bool] = {}
    for name, value in named_parts(configuration):
        path = f"{prefix}.{name}" if prefix else name
        if name in fields and _is_left_out(fields[name], value, Form.KEY):
            found[path] = bool(fields[name].metadata.get(RECORDED_ONLY))
        else:
            found |= left_out_of(value, path)
    return found


def length_of(trainable: Trainable) -> int | None:
    """How long a training is, by its field marked with ``grows()``; None for what does not grow."""
    lengths = [int(getattr(trainable, field.name)) for field in _fields(trainable) if field.metadata.get(GROWS)]
    return lengths[0] if lengths else None


class Form(Enum):
    """What a digest of a configuration leaves out."""

    KEY = "nothing"
    CELL = "seeds, at any depth"
    SHAPE = "seeds and lengths, at any depth"
    FAMILY = "the length of the training itself"


class Keys:
    """Keys of configurations that share parts: every part is visited, and its files looked at, once."""

    def __init__(self, digests: FileDigests) -> None:
        self._digests = digests
        self._known: dict[tuple[Form, int], str] = {}
        self._files: dict[Any, dict[str, str]] = {}
        self._files_digests: dict[Any, str] = {}
        self._contents: dict[Any, str] = {}
        self._alive: list[Any] = []  # keeps ids valid while they serve as memo keys

    def key(self, configuration: Any) -> str:
        """Content hash of a configuration: ``KEY_LENGTH`` hexadecimal digits."""
        return self._digest(configuration, Form.KEY)

    def family(self, trainable: Trainable) -> str | None:
        """Key of what a trainable is but for its length; None for what does not grow."""
        return None if length_of(trainable) is None else self._digest(trainable, Form.FAMILY)

    def cell(self, configuration: Any, *more: Any) -> str:
        """Hash of a configuration without its seeds at any depth; ``more`` (JSON) counts with it."""
        return _hash([self._digest(configuration, Form.CELL), *more])

    def shape(self, configuration: Any) -> str:
        """Hash of a configuration without seeds and lengths at any depth: a step of it always costs the same."""
        return self._digest(configuration, Form.SHAPE)

    def canonical(self, configuration: Any) -> Any:
        """See ``canonical``."""
        return self._document(configuration, type(configuration).__name__, Form.KEY)

    def files(self, part: ReadsFiles) -> Mapping[str, str]:
        """SHA-256 of every file that a part of a configuration reads, by name.

        Raises FileNotFoundError naming the file and the part, when it is missing.
        """
        memo_key = _memo_key(part)
        if memo_key not in self._files:
            try:
                self._files[memo_key] = self._digests.digest_files(part.source_files())
            except FileNotFoundError as error:
                if error.filename is None:  # the part itself has said what is missing, and what to do
                    raise
                name = type(part).__name__
                raise FileNotFoundError(
                    f"{error.filename} does not exist, and {name} reads it: check the path that was given for {name}, "
                    "and that this machine sees that disk"
                ) from error
            self._alive.append(part)
        return self._files[memo_key]

    def files_digest(self, part: ReadsFiles) -> str:
        """One digest over the names and digests of all files that a part reads."""
        memo_key = _memo_key(part)
        if memo_key not in self._files_digests:
            self._files_digests[memo_key] = digest_of_all(self.files(part))
        return self._files_digests[memo_key]

    def content(self, part: ReadsFiles) -> str:
        """Digest of what counts of the files that a part reads: its ``content``, else all names and digests.

        Raises FileNotFoundError naming the file and the part, when it is missing.
        """
        memo_key = _memo_key(part)
        if memo_key not in self._contents:
            own = getattr(part, "content", None)
            digest = self.files_digest(part) if own is None else _sha256(_json(own(self.files(part))))
            self._contents[memo_key] = digest
        return self._contents[memo_key]

    def _digest(self, configuration: Any, form: Form) -> str:
        memo_key = (form, id(configuration))
        if memo_key not in self._known:
            document = self._document(configuration, type(configuration).__name__, form)
            self._known[memo_key] = _hash(document)
            self._alive.append(configuration)
        return self._known[memo_key]

    def _document(self, value: Any, where: str, form: Form) -> dict[str, Any]:
        if not dataclasses.is_dataclass(value) or isinstance(value, type):
            raise TypeError(f"{where} = {value!r}: only instances of dataclasses have a key")
        owner: Any = type(value)
        if not owner.__dataclass_params__.frozen:
            name = owner.__name__
            raise TypeError(f"{where}: {name} can change after it was hashed; decorate it with @dataclass(frozen=True)")
        inner = Form.KEY if form is Form.FAMILY else form

        def part_form(part: Any, place: str) -> Any:
            if isinstance(part, Trainable):
                return {"trial": self._digest(part, inner)}
            return self._document(part, place, inner)

        document: dict[str, Any] = {"class": identity_name(owner), "versions": _versions(owner)}
        types = declared_types(owner)
        for field in dataclasses.fields(value):
            content = getattr(value, field.name)
            if _is_left_out(field, content, form):
                continue
            place = f"{where}.{field.name}"
            document[f"field:{field.name}"] = canonical_form(content, types.get(field.name, Any), place, part_form)
        if isinstance(value, ReadsFiles):
            document["content"] = self.content(value)
        return document


def _fields(value: Any) -> tuple[dataclasses.Field[Any], ...]:
    is_instance = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return dataclasses.fields(value) if is_instance else ()


def _is_left_out(field: dataclasses.Field[Any], content: Any, form: Form) -> bool:
    metadata = field.metadata
    if metadata.get(RECORDED_ONLY) or (UNHASHED_AT in metadata and bool(metadata[UNHASHED_AT] == content)):
        return True
    is_seed = bool(metadata.get(SEED) and form in (Form.CELL, Form.SHAPE))
    return is_seed or bool(metadata.get(GROWS) and form in (Form.FAMILY, Form.SHAPE))


def _versions(owner: type) -> list[int]:
    """Versions of a class and its bases that were raised: a base's counts also where the class has one of its own."""
    own = [vars(base).get("version", 1) for base in owner.__mro__]
    return [version for version in own if version != 1]


def _module_name(module: str) -> str:
    """The name of a module as others import it, also while it runs as ``__main__``."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if module != "__main__" or file is None:
        return module
    path = Path(file).resolve()
    names = [path.stem]
    for folder in path.parents:
        if not (folder / "__init__.py").exists():
            break
        names.insert(0, folder.name)
    return ".".join(names)


def _memo_key(part: Any) -> Any:
    """Equal parts read the same files; a part that cannot be compared stands for itself."""
    try:
        hash(part)
    except TypeError:
        return id(part)
    return part


def _json(document: Any) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _hash(document: Any) -> str:
    return _sha256(_json(document))[:KEY_LENGTH]


def _check(memo_key: str, digest: str) -> str:
    return _sha256(f"{memo_key} {digest}")[:_CHECK_LENGTH]


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
    return {k: v for k, v in content.items() if isinstance(v, str)} if isinstance(content, dict) else {}
