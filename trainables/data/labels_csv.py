"""``labels.csv`` beside a folder of images: what its owner knows of them.

A header and one row an image, in any order; separated by commas or semicolons::

    image,group,split,label
    a.png,patient 1,train,polyp

``image`` (or ``id``) is the name below ``images/``, with or without its suffix, and has to be there. ``group`` is what
a split keeps together (default: the image itself), ``split`` is train, val or test, for every image or for none,
``label`` is the class, and may be empty. Other columns are ignored, unless their name looks like one of these.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from trainables.api.errors import BadData
from trainables.data import folders, nifti, pictures, reading
from trainables.data.records import SPLITS

NAME = "labels.csv"
_ID_COLUMNS = ("image", "id")
_COLUMNS = ("group", "split", "label")
_SYNONYMS = {
    "group": ("grp", "pid", "patient", "patientid", "subject", "subjectid", "case", "caseid"),
    "split": ("fold", "set"),
    "label": ("class", "target"),
}
_LEAST_ALIKE = 0.8
_MOST_NAMED = 5
_MOST_SHOWN = 80
_BEYOND = "\n"  # no column has this name: what a row holds beyond the last one


@dataclass(frozen=True)
class Row:
    """What is said of one image."""

    group: str
    split: str
    """Empty where the table gives no splits."""
    label: str
    """Empty where there is none."""
    has_group: bool = False
    """Whether the table names the group; else it is the image itself."""


def read_rows(root: Path, ids: Sequence[str]) -> dict[str, Row]:
    """What the table says of each image, in the order of ``ids``; without a table every image is its own group.

    Args:
        ids: names of the images without suffix.

    Raises:
        BadData: lists every row that cannot be used, with what was expected.
    """
    path = Path(root) / NAME
    if not path.exists() and not path.is_symlink():
        _check_no_other_case(Path(root))
        return {id_: Row(id_, "", "") for id_ in ids}
    try:
        text = reading.read(path, NAME).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadData(NAME, {NAME: f"is no UTF-8 text ({error.reason}): save it as UTF-8"}) from error
    known, rows, problems = {normalize("NFC", id_): id_ for id_ in ids}, {}, {}
    for line, cells in _lines(text):
        id_ = _id_of(cells, known)
        if cells[_BEYOND]:
            problems[f"{NAME} line {line}"] = (
                f"has more cells than the header has columns ({_shown(cells[_BEYOND])} is beyond the last): "
                "put quotation marks round a cell with a comma, or remove what is too much"
            )
        elif id_ is None:
            problems[f"{NAME} line {line}"] = _unknown(_name_in(cells))
        elif id_ in rows:
            problems[f"{NAME} line {line}"] = f"a second row for {id_!r}: remove one"
        elif cells.get("split", "") not in ("", *SPLITS):
            problems[f"{NAME} line {line}"] = f"split {_shown(cells['split'])}: use one of {', '.join(SPLITS)}"
        else:
            rows[id_] = Row(
                cells.get("group") or id_, cells.get("split", ""), cells.get("label", ""), bool(cells.get("group"))
            )
    every = {id_: rows.get(id_, Row(id_, "", "")) for id_ in ids}
    problems |= _split_problems(every)
    if problems:
        raise BadData(NAME, problems)
    return every


def _check_no_other_case(root: Path) -> None:
    """A table that is not read would let patients onto both sides of a split."""
    if root.is_dir() and (others := [name for name in os.listdir(root) if name.lower() == NAME]):
        raise BadData(NAME, {others[0]: f"is not read under this name: rename it to {NAME}, or to something else"})


def gives_groups(root: Path, ids: Sequence[str]) -> bool:
    """Whether the table says of every image which patient it is of, so that groups are patients.

    Where it leaves one out, that image may be of any patient, and nothing is known of patients on the whole.

    Raises:
        BadData: as ``read_rows``.
    """
    return bool(ids) and all(row.has_group for row in read_rows(root, ids).values())


def _lines(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Number of the line and cells by column, stripped; lines end in CR, LF or both.

    Raises:
        BadData: for a header that names no image or misspells a column, and for what is no table.
    """
    lines = io.StringIO(text, newline=None)
    header = lines.readline()
    lines.seek(0)
    reader = csv.DictReader(lines, delimiter="," if "," in header or ";" not in header else ";")
    try:
        columns = _columns(reader.fieldnames or ())
        reader.fieldnames = columns
        for cells in reader:
            named = {name: (value or "").strip() for name, value in cells.items() if isinstance(name, str)}
            named[_BEYOND] = ", ".join(cell.strip() for cell in cells.get(None) or () if cell.strip())
            yield reader.line_num, named
    except csv.Error as error:
        where = f"{NAME} line {reader.line_num + 1}"
        reason = f"is no row of a table ({error}): look for a quotation mark without its pair, or save it as CSV again"
        raise BadData(NAME, {where: reason}) from error


def _columns(names: Sequence[str]) -> list[str]:
    """Names of the columns in lower case. Raises BadData where none names the image, or one is misspelt."""
    columns = [(name or "").strip().lower() for name in names]
    if not set(_ID_COLUMNS) & set(columns):
        found = ", ".join(columns) or "nothing"
        raise BadData(NAME, {f"{NAME} line 1": f"expected a column image or id, found {found}: name the columns"})
    if twice := sorted({name for name in columns if name in (*_ID_COLUMNS, *_COLUMNS) and columns.count(name) > 1}):
        reason = f"names the column {', '.join(twice)} more than once: expected each once, rename or remove the others"
        raise BadData(NAME, {f"{NAME} line 1": reason})
    asked = {name: meant for name in columns if (meant := _meant(name)) and meant not in columns}
    if asked:
        reason = "; ".join(f"column {name!r}: did you mean {meant!r}?" for name, meant in asked.items())
        raise BadData(NAME, {f"{NAME} line 1": f"{reason} Rename it, or remove it if it is something else"})
    return columns


def _meant(column: str) -> str | None:
    """The known column that an unknown one may stand for: a usual synonym of it, or nearly its name."""
    if column in (*_ID_COLUMNS, *_COLUMNS):
        return None
    plain = "".join(character for character in column if character.isalnum())
    for known, synonyms in _SYNONYMS.items():
        if plain in synonyms or plain.removesuffix("s") in synonyms:
            return known
    return next(iter(difflib.get_close_matches(plain, _COLUMNS, n=1, cutoff=_LEAST_ALIKE)), None)


def _name_in(cells: Mapping[str, str]) -> str:
    return next(cells[column] for column in _ID_COLUMNS if column in cells)


def _unknown(name: str) -> str:
    if not name:
        return f"names no image: expected one in the column {' or '.join(_ID_COLUMNS)}, fill it in or remove the row"
    return f"there is no image {_shown(name)} in images/: correct or remove the row"


def _shown(cell: str) -> str:
    return repr(cell if len(cell) <= _MOST_SHOWN else f"{cell[:_MOST_SHOWN]}...")


def _id_of(cells: Mapping[str, str], known: Mapping[str, str]) -> str | None:
    """The image of a row; ``known`` by name with accents as one character, as which they may stand on either side."""
    name = normalize("NFC", _name_in(cells)).replace("\\", "/").removeprefix("images/")
    try:
        ids = [name, folders.stem(name)]
        if name.lower().endswith((*pictures.SUFFIXES, *nifti.SUFFIXES)):
            ids.reverse()  # a.png is the file of that name, and not a.png.png without its suffix
        return next((known[id_] for id_ in ids if id_ in known), None)
    except ValueError:  # a name without a stem: empty, ".", ".nii.gz"
        return None


def _split_problems(rows: Mapping[str, Row]) -> dict[str, str]:
    """Images without a split where others have one, and groups on two sides."""
    if not any(row.split for row in rows.values()):
        return {}
    problems = {}
    without = [id_ for id_, row in rows.items() if not row.split]
    if without:
        shown = ", ".join(without[:_MOST_NAMED]) + (", ..." if len(without) > _MOST_NAMED else "")
        problems[NAME] = f"{len(without)} images have no split, and others have one ({shown}): give all or none"
    sides: dict[str, set[str]] = defaultdict(set)
    for row in rows.values():
        sides[row.group].add(row.split)
    for group, of_group in sides.items():
        if len(of_group) > 1:
            found = " and ".join(sorted(of_group))
            problems[f"{NAME} group {group}"] = f"is in {found}: a group has to stay in one split"
    return problems
