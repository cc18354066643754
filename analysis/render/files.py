"""How the files of a report are written: each whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from analysis.render.pictures import Pictures
from analysis.render.style import Figure
from analysis.render.table import FORMATS, Table


@dataclass(frozen=True)
class ReportPaths:
    """Where the parts of a report lie."""

    report_html: Path
    figures: Path
    tables: Path

    @classmethod
    def below(cls, out_dir: Path) -> ReportPaths:
        return cls(out_dir / "report.html", out_dir / "figures", out_dir / "tables")


def file_name(*parts: str) -> str:
    """A name of a file or folder for what these parts name, joined by hyphens; other parts have another one.

    What a name cannot hold becomes an underscore. Then, and where a hyphen could be taken for the join, eight digits of
    a hash tell what would otherwise share the name.
    """
    plain = ["".join(c if c.isalnum() or c in "_.-" else "_" for c in part) for part in parts]
    name = "-".join(plain)
    if name.startswith("."):
        name = f"_{name[1:]}"
    is_sure = name == "-".join(parts) and not any("-" in part for part in parts[1:])
    return name if is_sure else f"{name}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]}"


def write_figures(figures: Iterable[Figure], folder: Path) -> dict[str, str]:
    """``NAME.svg`` and ``NAME.png`` of every figure; returns the SVGs by name, which the page shows without scripts."""
    drawings = {}
    for figure in figures:
        drawings[figure.name] = figure.svg()
        write_file(folder / f"{figure.name}.svg", drawings[figure.name].encode())
        write_file(folder / f"{figure.name}.png", figure.png())
    return drawings


def write_pictures(pictures: Iterable[Pictures], folder: Path) -> None:
    """``NAME.png`` of each."""
    for each in pictures:
        write_file(folder / f"{each.name}.png", each.png())


def write_tables(tables: Iterable[Table], folder: Path) -> None:
    """``NAME.md``, ``NAME.tex`` and ``NAME.csv`` of every table."""
    for table in tables:
        for suffix, render in FORMATS.items():
            write_file(folder / f"{table.name}.{suffix}", render(table).encode())


def write_file(path: Path, content: bytes) -> None:
    """All of the file or nothing: write aside in the same folder, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
