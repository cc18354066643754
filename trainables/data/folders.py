"""Finding files in folders: what lies there, by name, with nothing left out silently."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal
from unicodedata import normalize

from trainables.api.errors import BadData
from trainables.data import pictures, reading

_NOT_TEXT = "its name is not UTF-8 or holds control characters: rename the file, or the folder"
_NOT_OURS = ("thumbs.db", "desktop.ini")  # what systems put into folders by themselves
_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")


def files_below(folder: Path) -> list[str]:
    """Names of all files below a folder, relative to it, in order; links that lead nowhere included, hidden files not.

    Linked folders are followed, each once. Empty where there is no such folder.

    Raises:
        BadData: names that are not UTF-8 or hold control characters, which no table and no result can hold.
    """
    names = sorted(_walk(folder, "", set()))
    if problems := {shown: _NOT_TEXT for name in names if (shown := reading.printable(name)) != name}:
        raise BadData(f"folder {reading.printable(str(folder))}", problems)
    return names


def stem(name: str) -> str:
    """A name without its suffix: ``a/b.c`` of ``a/b.c.png``, ``v`` of ``v.nii.gz``."""
    path = PurePosixPath(name)
    if path.name.lower().endswith(".nii.gz"):
        return str(path.with_name(path.name[: -len(".nii.gz")]))
    return str(path.with_suffix(""))


def by_stem(folder: Path, wanted: str, suffixes: Sequence[str]) -> str:
    """The file of a stem in a folder, with one of the suffixes in either case; the first suffix where none is there."""
    return next(_of_stem(folder, wanted, suffixes), wanted + suffixes[0])


def check_one_of_stem(folder: Path, wanted: str, suffixes: Sequence[str], what: str) -> None:
    """Raises BadData where several files have a stem: which of them is meant, nothing says."""
    if is_ambiguous(folder, wanted, suffixes):
        name, *others = _of_stem(folder, wanted, suffixes)
        raise BadData(what, {name: f"lies beside {', '.join(others)}: expected one of them, remove the others"})


def is_ambiguous(folder: Path, wanted: str, suffixes: Sequence[str], known: Container[str] | None = None) -> bool:
    """Whether several files have a stem.

    Args:
        known: names of all files of the folder, where they have been listed.
    """
    found = list(_of_stem(folder, wanted, suffixes, known))
    return len(found) > 1 and len({_identity(folder / name) for name in found}) > 1


def _identity(path: Path) -> object:
    """What two names of one file share: a system may tell capitals apart or not."""
    try:
        found = path.stat()
    except OSError:
        return path
    return found.st_dev, found.st_ino


def _of_stem(folder: Path, wanted: str, suffixes: Sequence[str], known: Container[str] | None = None) -> Iterator[str]:
    """Systems write an accented letter as one character or as two, so archives bring both forms of a name."""
    forms = (wanted,) if wanted.isascii() else dict.fromkeys((wanted, *(normalize(form, wanted) for form in _FORMS)))
    for form in forms:
        for suffix in suffixes:
            for ending in (suffix, suffix.upper()):
                name = form + ending
                if os.path.lexists(folder / name) if known is None else name in known:
                    yield name


def check_stems(names: Sequence[str], what: str, *, any_case: bool = False) -> None:
    """Raises BadData naming the files that differ by their suffix only, so that they would share an id.

    Args:
        any_case: whether names that differ in capitals are the same, too.
    """
    by: dict[str, list[str]] = defaultdict(list)
    for name in names:
        same = normalize("NFC", stem(name))
        by[same.lower() if any_case else same].append(name)
    problems = {
        name: f"has the same name as {', '.join(_told_apart(other, name) for other in same if other != name)}: "
        "rename or remove one"
        for same in by.values()
        if len(same) > 1
        for name in same
    }
    if problems:
        raise BadData(what, problems)


def _told_apart(other: str, name: str) -> str:
    looks_alike = normalize("NFC", other) == normalize("NFC", name)
    return f"{other} (whose accents are written in another form)" if looks_alike else other


def check_suffix(name: str, suffixes: Sequence[str], what: str) -> None:
    """Raises BadData for a file of another kind."""
    if not name.lower().endswith(tuple(suffixes)):
        raise BadData(what, {name: f"expected {', '.join(suffixes)}: convert it, or move it out of the folder"})


def check_file(folder: Path, name: str, what: str, expected: Sequence[str] = ()) -> Path:
    """The path of a file that is there and may be read. Raises BadData that says what was found instead."""
    path = folder / name
    if not reading.is_usable(path):
        raise BadData(what, {name: reading.why_unusable(path, expected=expected)})
    return path


def check_same_size(mask_HW: pictures.Mask, mask_name: str, image: Path) -> None:
    """Raises BadData where a mask has other sides than its image; says nothing of an image that cannot be read."""
    try:
        size = pictures.picture_size(image, image.name)
    except BadData:
        return
    pictures.check_size(mask_HW, size, mask_name)


def _walk(folder: Path, below: str, seen: set[str]) -> Iterator[str]:
    """Files before folders and folders before links to them, each by name: so a folder is met under its own name."""
    real = os.path.realpath(folder)
    if real in seen or not folder.is_dir():
        return
    seen.add(real)
    entries = [e for e in os.scandir(folder) if not e.name.startswith(".") and e.name.lower() not in _NOT_OURS]
    for entry in sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name)):
        name = f"{below}{entry.name}"
        if os.path.isdir(entry.path):
            yield from _walk(Path(entry.path), f"{name}/", seen)
        else:
            yield name
