"""One frame, three forms: Markdown and LaTeX for people, CSV with every number for programs."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

NOTHING = "–"
_MARKDOWN_SPECIAL = {"|": "\\|", "\n": " "}
_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "°": r"$^\circ$", "–": "--", "−": "$-$", "±": r"$\pm$",
    "<": r"\textless{}", ">": r"\textgreater{}", "θ": r"$\theta$", "≤": r"$\leq$", "≥": r"$\geq$", "\n": " ",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One printed column, from one column of the frame, or from several: a value with its interval or its spread."""

    title: str
    value: str
    decimals: int = 3
    low: str | None = None
    high: str | None = None
    scale: float = 1.0
    unit: str = ""
    signed: bool = False
    std: str | None = None
    significant_digits: int | None = None
    """Instead of ``decimals``, for what may be of any magnitude."""
    width: float | None = None
    """Share of the page's width, for long texts, which LaTeX does not break otherwise."""
    bold: str | None = None
    """A column of true and false: where it is true, the cell is printed bold. CSV has the column itself."""

    def text(self, row: Mapping[str, Any]) -> str:
        """The cell as plain text: ``0.021 [0.018, 0.024]``, ``0.021(0.003)``, ``–`` for what is not defined."""
        value = row[self.value]
        if value is None or isinstance(value, str | int):
            return NOTHING if value is None else f"{value}{self.unit}"
        if self.significant_digits is not None:
            return significant(value * self.scale, self.significant_digits) + self.unit
        if self.std is not None and row[self.std] is not None:
            spread = number(row[self.std] * self.scale, self.decimals)
            return f"{number(value * self.scale, self.decimals, self.signed)}({spread}){self.unit}"
        ends = [row[name] for name in (self.low, self.high) if name is not None]
        if len(ends) < 2 or None in ends:
            return number(value * self.scale, self.decimals, self.signed) + self.unit
        low, high = (number(end * self.scale, self.decimals, self.signed) for end in ends)
        return f"{number(value * self.scale, self.decimals, self.signed)} [{low}, {high}]{self.unit}"


@dataclass(frozen=True, eq=False)
class Table:
    """A frame with its way to print it. ``name`` is the file name without suffix; ``note`` stands under the table."""

    name: str
    caption: str
    frame: pl.DataFrame
    columns: Sequence[Column]
    note: str = ""

    def cells(self) -> list[list[str]]:
        return [[column.text(row) for column in self.columns] for row in self.frame.iter_rows(named=True)]

    def marked(self, escape: Callable[[str], str], bold: str) -> list[list[str]]:
        """The cells in a markup: escaped, and where they are to be bold put into ``bold``, such as ``**{}**``."""
        return [
            [
                bold.format(escape(column.text(row))) if column.bold and row[column.bold] else escape(column.text(row))
                for column in self.columns
            ]
            for row in self.frame.iter_rows(named=True)
        ]

    def is_numeric(self, column: Column) -> bool:
        return self.frame.schema[column.value].is_numeric()


def number(value: float, decimals: int, signed: bool = False) -> str:
    """A number with a true minus sign; rounded zeros carry no sign."""
    if not math.isfinite(value):
        return NOTHING
    rounded = round(value, decimals)
    sign = "−" if rounded < 0 else "+" if signed and rounded > 0 else ""
    return f"{sign}{abs(rounded):.{decimals}f}"


def significant(value: float, digits: int) -> str:
    """A number of any magnitude with a true minus sign: ``0.0313``, ``1.2e−07``."""
    return f"{value:.{digits}g}".replace("-", "−") if math.isfinite(value) else NOTHING


def to_markdown(table: Table) -> str:
    """GitHub-flavoured Markdown: caption, table, note."""
    escape = _escaper(_MARKDOWN_SPECIAL)
    titles = [escape(column.title) for column in table.columns]
    rules = ["---:" if table.is_numeric(column) else "---" for column in table.columns]
    lines = [titles, rules, *table.marked(escape, "**{}**")]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join(part for part in (f"**{table.caption}**", body, table.note) if part) + "\n"


def to_latex(table: Table) -> str:
    """A ``table`` float in booktabs style, every text escaped, made smaller where it is wider than the line.

    Needs ``\\usepackage[T1]{fontenc}`` and ``\\usepackage{array,booktabs,graphicx}``.
    """
    escape = _escaper(_LATEX_SPECIAL)
    alignment = "".join(_alignment(table, column) for column in table.columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(table.caption)}}}",
        rf"\label{{tab:{table.name}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        " & ".join(escape(column.title) for column in table.columns) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in table.marked(escape, r"\textbf{{{}}}")),
        r"\bottomrule",
        r"\end{tabular}%",
        "}",
    ]
    if table.note:
        lines.append(rf"\par\smallskip{{\footnotesize {escape(table.note)}}}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _alignment(table: Table, column: Column) -> str:
    if column.width is not None:
        return rf">{{\raggedright\arraybackslash}}p{{{column.width:g}\linewidth}}"
    return "r" if table.is_numeric(column) else "l"


def to_csv(table: Table) -> str:
    """The whole frame, unrounded, with its own column names."""
    return table.frame.write_csv()


def to_html(table: Table) -> str:
    """A ``table`` element with caption; numbers are right-aligned by the class ``number``."""
    classes = [' class="number"' if table.is_numeric(column) else "" for column in table.columns]
    head = "".join(
        f"<th{kind}>{html.escape(column.title)}</th>" for kind, column in zip(classes, table.columns, strict=True)
    )
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(classes, row, strict=True)) + "</tr>"
        for row in table.marked(html.escape, "<b>{}</b>")
    )
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    caption = f"<caption>{html.escape(table.caption)}</caption>"
    content = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
    return f'<div class="table">{content}{note}</div>'


FORMATS: Mapping[str, Callable[[Table], str]] = {"md": to_markdown, "tex": to_latex, "csv": to_csv}


def _escaper(special: Mapping[str, str]) -> Callable[[str], str]:
    translation = str.maketrans(dict(special))
    return lambda text: text.translate(translation)
