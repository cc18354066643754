"""Tables that data sets bring with them, as CSV: rows by column, and what is wrong with a table said by its name."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from trainables.api.errors import BadData
from trainables.data import reading

_MOST_SHOWN = 80
_LONGEST_NAME_BYTES = 200  # file systems take 255, and an ending comes behind


def read_rows(path: Path, columns: Sequence[str], *, has_header: bool = True) -> list[dict[str, str]]:
    """The rows, each with its cells by column, stripped; rows without any cell are left out.

    A table is parsed once a process as long as its file stays as it is: some have a hundred thousand rows.

    Args:
        columns: that have to be there, of a table without header all of them in order; others are kept, too.

    Raises:
        FileNotFoundError: no such file; says what columns were expected in it.
        BadData: no text, a column that is missing, or rows of another length.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected the table with the columns {', '.join(columns)}")
    state = path.stat()
    return _read(str(path), tuple(columns), has_header, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _read(path: str, columns: tuple[str, ...], has_header: bool, *_state: int) -> list[dict[str, str]]:
    name = Path(path).name
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadData("table", {name: reading.why_unusable(Path(path), error)}) from error
    except UnicodeDecodeError as error:
        raise BadData("table", {name: f"is no UTF-8 text ({error.reason}): download it again"}) from error
    lines = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [cell.strip() for cell in next(lines, [])] if has_header else list(columns)
        if missing := [column for column in columns if column not in header]:
            raise BadData("table", {name: f"has no column {', '.join(missing)}; its first row is {', '.join(header)}"})
        rows, problems = [], {}
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) < len(header) and len(cells) <= max(header.index(column) for column in columns):
                problems[f"{name} line {lines.line_num}"] = (
                    f"has {len(cells)} of {len(header)} cells: download it again"
                )
            rows.append(dict(zip(header, (cell.strip() for cell in cells), strict=False)))
    except csv.Error as error:
        raise BadData("table", {name: f"is no table ({error}): download it again"}) from error
    if problems:
        raise BadData("table", problems)
    return rows


def by_id(rows: Sequence[dict[str, str]], column: str, name: str) -> dict[str, dict[str, str]]:
    """The rows by the id that stands in a column, which names a file. Raises BadData naming ids that cannot, and those
    with two rows."""
    if astray := [row[column] for row in rows if not _names_a_file(row[column])]:
        shown = reading.printable(astray[0][:_MOST_SHOWN])
        raise BadData("table", {name: f"has the id {shown!r}: expected the name of a file, without its folder"})
    found: dict[str, dict[str, str]] = {}
    twice = []
    for row in rows:
        if row[column] in found:
            twice.append(row[column])
        found[row[column]] = row
    if twice:
        raise BadData(
            "table", {name: f"has two rows of {', '.join(twice[:3])}{', ...' * (len(twice) > 3)}: remove one"}
        )
    return found


def _names_a_file(id_: str) -> bool:
    """Whether it may be the name of a file, which lies in the folder where it is looked for."""
    is_plain = not {"/", "\\"} & set(id_) and reading.printable(id_) == id_
    return is_plain and len(id_.encode()) <= _LONGEST_NAME_BYTES
