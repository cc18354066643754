"""The tables of a search."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from analysis.render.table import Column, Table
from analysis.search.suggestions import Objective, SearchResults, Suggestion


def suggestion_table(results: SearchResults) -> Table:
    """All suggestions: the front first if there are several objectives, then the best first, then those without value.

    Columns of the frame: suggestion, the parameters (choices as text), for each objective ``NAME``, ``NAME std`` and
    ``NAME n``, with several objectives ``on the front``, and state.
    """
    front = {suggestion.number for suggestion in results.front()}
    is_single = len(results.objectives) == 1
    ranked = results.ranked(results.objectives[0])
    if not is_single:
        ranked.sort(key=lambda suggestion: suggestion.number not in front)
    ordered = [*ranked, *(s for s in results.suggestions if s.state != "complete")]
    schema = _schema(results)
    frame = pl.DataFrame([_row(results, s, front) for s in ordered], schema=schema, orient="row")
    columns = [Column("suggestion", "suggestion")]
    columns += [Column(parameter.name, parameter.name, significant_digits=3) for parameter in results.space]
    for objective in results.objectives:
        decimals = decimals_of(results, objective)
        columns.append(Column(_title(objective), objective.name, decimals, std=f"{objective.name} std"))
        columns.append(Column("n", f"{objective.name} n"))
    if not is_single:
        columns.append(Column("on the front", "on the front"))
    note = "mean(std) over n seeds, of validation; a suggestion without a value is not averaged over fewer seeds."
    return Table("suggestions", "All suggestions", frame, [*columns, Column("state", "state")], note)


def decimals_of(results: SearchResults, objective: Objective) -> int:
    """Decimals that tell the means of a search apart: two digits beyond their range, 3 where they are all equal."""
    means = [suggestion.mean(objective) for suggestion in results.complete]
    width = max(means) - min(means) if means else 0.0
    return min(8, max(0, 2 - math.floor(math.log10(width)))) if width > 0 else 3


def _title(objective: Objective) -> str:
    return f"{objective.name} ({objective.direction})"


def _schema(results: SearchResults) -> dict[str, Any]:
    schema: dict[str, Any] = {"suggestion": pl.Int64}
    schema |= {parameter.name: pl.String if parameter.choices else pl.Float64 for parameter in results.space}
    for objective in results.objectives:
        schema |= {objective.name: pl.Float64, f"{objective.name} std": pl.Float64, f"{objective.name} n": pl.Int64}
    if len(results.objectives) > 1:
        schema["on the front"] = pl.String
    return schema | {"state": pl.String}


def _row(results: SearchResults, suggestion: Suggestion, front: set[int]) -> list[Any]:
    row: list[Any] = [suggestion.number, *(parameter.place(suggestion.params) for parameter in results.space)]
    is_complete = suggestion.state == "complete"
    for objective in results.objectives:
        if is_complete:
            row += [suggestion.mean(objective), suggestion.std(objective), suggestion.num_seeds(objective)]
        else:
            row += [None, None, None]
    if len(results.objectives) > 1:
        row.append("yes" if suggestion.number in front else "no" if is_complete else None)
    return [*row, suggestion.state]
