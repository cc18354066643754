"""The tables of a search."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from analysis.render.table import Column, Table
from analysis.search.suggestions import Objective, SearchResults, State, Suggestion


def suggestion_table(results: SearchResults) -> Table:
    """All suggestions: the front first if there are several objectives, then the best first, then those without value.

    Columns of the frame: suggestion, the parameters (choices as text), with rungs ``epochs``, for each objective
    ``NAME``, ``NAME std`` and ``NAME n``, with several objectives ``on the front``, and state.
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
    columns += [Column("epochs", "epochs")] if results.lengths else []
    for objective in results.objectives:
        decimals = decimals_of(results, objective)
        columns.append(Column(_title(objective), objective.name, decimals, std=f"{objective.name} std"))
        columns.append(Column("n", f"{objective.name} n"))
    if not is_single:
        columns.append(Column("on the front", "on the front"))
    note = "mean(std) over n seeds, of validation; a suggestion without a value is not averaged over fewer seeds."
    if results.lengths:
        note += " Values after different numbers of epochs are not compared."
    return Table("suggestions", "All suggestions", frame, [*columns, Column("state", "state")], note)


def rung_table(results: SearchResults) -> Table:
    """One row a rung. Columns of the frame: epochs, suggestions (begun there), and how many of these have a value,
    failed, run, or are lost."""
    rows = []
    for length in results.lengths:
        states = [stage.state for s in results.suggestions for stage in s.stages if stage.length == length]
        rows.append([length, len(states), *(states.count(state) for state in _STATES)])
    schema = dict.fromkeys(["epochs", "suggestions", *_STATES.values()], pl.Int64)
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    shown = [name for name in schema if name in ("epochs", "suggestions", "with a value") or frame[name].sum() > 0]
    trained, whole = results.epochs()
    note = (
        f"{trained} epochs were trained, over all seeds; all {len(results.suggestions)} suggestions to the end would "
        f"have taken {whole}. One of {results.reduction} with a value goes on to the next length, as far as that was "
        "known when it was decided: it may be more of them."
    )
    return Table("rungs", "Rungs", frame, [Column(name, name) for name in shown], note)


_STATES: dict[State, str] = {"complete": "with a value", "failed": "failed", "running": "running", "lost": "lost"}


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
    if results.lengths:
        schema["epochs"] = pl.Int64
    for objective in results.objectives:
        schema |= {objective.name: pl.Float64, f"{objective.name} std": pl.Float64, f"{objective.name} n": pl.Int64}
    if len(results.objectives) > 1:
        schema["on the front"] = pl.String
    return schema | {"state": pl.String}


def _row(results: SearchResults, suggestion: Suggestion, front: set[int]) -> list[Any]:
    row: list[Any] = [suggestion.number, *(parameter.place(suggestion.params) for parameter in results.space)]
    is_complete = suggestion.state == "complete"
    if results.lengths:
        row.append(suggestion.length if is_complete else None)
    for objective in results.objectives:
        if is_complete:
            row += [suggestion.mean(objective), suggestion.std(objective), suggestion.num_seeds(objective)]
        else:
            row += [None, None, None]
    if len(results.objectives) > 1:
        is_compared = is_complete and suggestion.length == results.longest
        row.append("yes" if suggestion.number in front else "no" if is_compared else None)
    return [*row, suggestion.state]
