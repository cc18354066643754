"""The figures of a search. Each is a pure function that makes its data, and one that draws it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from analysis.render.style import Datasets, Figure, styled
from analysis.search.suggestions import Objective, Parameter, SearchResults, Suggestion

_BEST, _OTHER, _SHORTER, _SEED = "#D55E00", "#0072B2", "#A6CBE3", "#9A9A9A"
_WIDTH, _HEIGHT, _SMALL_WIDTH, _SMALL_HEIGHT = 760, 260, 250, 200
_PANELS_A_ROW = 3
_WHOLE_STEPS = alt.Axis(tickMinStep=1, format="d", grid=False)


def progress_data(results: SearchResults) -> pl.DataFrame:
    """One row a suggestion and objective: objective, number, mean, low and high (extremes of the seeds), best_so_far.

    Also state, epochs (null without rungs) and kind: ``best`` (or on the front), ``compared``, or ``shorter`` (it did
    not reach the longest rung). Without a value, the numbers are null; best_so_far is of those compared only.
    """
    schema = {"objective": pl.String, "number": pl.Int64, "state": pl.String, "epochs": pl.Int64, "kind": pl.String,
              "mean": pl.Float64, "low": pl.Float64, "high": pl.Float64, "best_so_far": pl.Float64}  # fmt: skip
    rows = []
    for objective in results.objectives:
        best = iter(results.best_so_far(objective))
        for suggestion in results.suggestions:
            numbers: tuple[float | None, ...] = (None,) * 4
            if suggestion.state == "complete":
                values = suggestion.seed_values[objective.name]
                so_far = next(best) if suggestion.length == results.longest else None
                numbers = (suggestion.mean(objective), min(values), max(values), so_far)
            kind = _kind(results, suggestion)
            rows.append([objective.name, suggestion.number, suggestion.state, suggestion.length, kind, *numbers])
    return pl.DataFrame(rows, schema=schema, orient="row")


def seed_data(results: SearchResults) -> pl.DataFrame:
    """One row a value of a single seed: objective, number, seed (position among the suggestion's seeds), value."""
    rows = [
        [objective.name, suggestion.number, seed, value]
        for objective in results.objectives
        for suggestion in results.complete
        for seed, value in enumerate(suggestion.seed_values[objective.name])
    ]
    schema = {"objective": pl.String, "number": pl.Int64, "seed": pl.Int64, "value": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def curve_data(results: SearchResults) -> pl.DataFrame:
    """With rungs, one row a suggestion, objective and length with a value: objective, number, epochs, mean, kind."""
    rows = [
        [objective.name, s.number, stage.length, s.at(stage.length).mean(objective), _kind(results, s)]
        for objective in results.objectives
        for s in results.complete
        for stage in s.stages
        if stage.state == "complete"
    ]
    schema = {"objective": pl.String, "number": pl.Int64, "epochs": pl.Int64, "mean": pl.Float64, "kind": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def place_data(results: SearchResults, parameter: Parameter) -> pl.DataFrame:
    """Where each suggestion lies on one axis of the space: number, place (a number, or the choice as text)."""
    schema = {"number": pl.Int64, "place": pl.String if parameter.choices else pl.Float64}
    rows = [[suggestion.number, parameter.place(suggestion.params)] for suggestion in results.suggestions]
    return pl.DataFrame(rows, schema=schema, orient="row")


def front_data(results: SearchResults) -> pl.DataFrame:
    """One row a suggestion that is compared: number, x and y (means of the first two objectives), kind (``best`` is on
    the front)."""
    first, second = results.objectives[:2]
    rows = [[s.number, s.mean(first), s.mean(second), _kind(results, s)] for s in results.compared]
    schema = {"number": pl.Int64, "x": pl.Float64, "y": pl.Float64, "kind": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def progress_figure(results: SearchResults) -> Figure:
    """The objective against the number of the suggestion, with the best so far; one panel an objective."""
    data, seeds, datasets = progress_data(results), seed_data(results), Datasets()
    last = max(results.num_suggestions, results.suggestions[-1].number)
    panels = [
        _progress_panel(datasets, data.filter(objective=o.name), seeds.filter(objective=o.name), o, last)
        for o in results.objectives
    ]
    caption = (
        f"Mean over the seeds of each suggestion (large points; orange: {_chosen_name(results)}), the values of its "
        "seeds (grey, joined by a line), and the best mean so far (orange line). A cross at the bottom is a "
        "suggestion without a value."
    )
    caption += _shorter_note(results)
    return Figure("progress", "The search, suggestion by suggestion", caption, styled(alt.vconcat(*panels)), datasets)


def _progress_panel(
    datasets: Datasets, data: pl.DataFrame, seeds: pl.DataFrame, objective: Objective, last: int
) -> Any:
    x = alt.X("number:Q", title="suggestion", axis=_WHOLE_STEPS, scale=alt.Scale(domain=[0.5, last + 0.5], nice=False))
    scale = _value_scale(seeds)
    with_value = data.drop_nulls("mean")
    compared = with_value.drop_nulls("best_so_far")
    steps = alt.Chart(datasets.add(compared, None)).mark_line(interpolate="step-after", color=_BEST, strokeWidth=1.4)
    lacking = (
        alt.Chart(datasets.add(data.filter(pl.col("mean").is_null()), None))
        .mark_point(shape="cross", angle=45, size=55, filled=True, color="#555555", opacity=1)
        .encode(x, y=alt.value(_HEIGHT - 9), tooltip=[alt.Tooltip("number:Q", title="suggestion"), "state:N"])
    )
    layers = [
        steps.encode(x, alt.Y("best_so_far:Q", scale=scale, title=objective.name)),
        *_values(datasets, with_value, seeds, x, scale, objective),
        lacking,
    ]
    return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT)


def parameter_figure(results: SearchResults) -> Figure:
    """The objective against each parameter; one row of panels an objective."""
    data, seeds, datasets = progress_data(results).drop_nulls("mean"), seed_data(results), Datasets()
    panels = []
    for objective in results.objectives:
        for parameter in results.space:
            places = place_data(results, parameter)
            rows = [part.filter(objective=objective.name).join(places, on="number") for part in (data, seeds)]
            panels.append(_parameter_panel(datasets, rows[0], rows[1], parameter, objective))
    columns = min(_PANELS_A_ROW, len(results.space))
    chart = alt.concat(*panels, columns=columns, spacing={"row": 24, "column": 28})
    caption = (
        f"Mean (large; orange: {_chosen_name(results)}) and single seeds (grey) of every suggestion against each "
        "parameter, over the range that was searched. Other parameters vary along with the one shown, and the "
        "sampler tries more where it found good values: a trend here is no effect of one parameter alone. Point at a "
        "suggestion for its number."
    )
    caption += _shorter_note(results)
    return Figure("parameters", "The objective against each parameter", caption, styled(chart), datasets)


def _parameter_panel(
    datasets: Datasets, data: pl.DataFrame, seeds: pl.DataFrame, parameter: Parameter, objective: Objective
) -> Any:
    x = _place_axis(parameter)
    # Suggestions of the same choice would cover each other: they stand side by side, in their order.
    offset = [alt.XOffset("number:O", scale=alt.Scale(paddingOuter=0.3))] if parameter.choices else []
    layers = _values(datasets, data, seeds, x, _value_scale(seeds), objective, offset)
    return alt.layer(*layers).properties(width=_SMALL_WIDTH, height=_SMALL_HEIGHT)


def curve_figure(results: SearchResults) -> Figure:
    """With rungs, the objective against the length of the training, a line a suggestion; one panel an objective."""
    data, datasets = curve_data(results), Datasets()
    panels = []
    for objective in results.objectives:
        points = data.filter(objective=objective.name)
        lines = points.filter(pl.len().over("number") > 1)
        axis = alt.Axis(values=list(results.lengths), format="d", grid=False)
        x = alt.X("epochs:Q", title="epochs", axis=axis, scale=alt.Scale(type="log", nice=False, padding=16))
        y = alt.Y("mean:Q", title=objective.name, scale=alt.Scale(zero=False))
        tooltip = [alt.Tooltip("number:Q", title="suggestion"), "epochs:Q", alt.Tooltip("mean:Q", format=".4g")]
        drawn_lines = alt.Chart(datasets.add(lines, None)).mark_line(strokeWidth=1.4)
        drawn_points = alt.Chart(datasets.add(points, None)).mark_point(filled=True, size=36, opacity=1)
        layers = [
            drawn_lines.encode(x, y, detail="number:N", color=_colour()),
            drawn_points.encode(x, y, color=_colour(), tooltip=tooltip),
        ]
        panels.append(alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT))
    caption = (
        f"Mean over the seeds of every suggestion at each length that it was trained for. Orange: "
        f"{_chosen_name(results)}; blue: reached the longest length; light: went no further than its last point."
    )
    return Figure("rungs", "How the suggestions fared at the rungs", caption, styled(alt.vconcat(*panels)), datasets)


def _shorter_note(results: SearchResults) -> str:
    if results.longest is None:
        return ""
    return f" Light: not trained to {results.longest} epochs; its value is that of where it stopped."


def _place_axis(parameter: Parameter) -> alt.X:
    if parameter.choices:
        scale = alt.Scale(domain=list(parameter.choices))
        return alt.X("place:N", title=parameter.name, scale=scale, sort=None, axis=alt.Axis(labelAngle=0, grid=False))
    kind: Any = "log" if parameter.is_log else "linear"
    domain = [parameter.low, parameter.high] if parameter.low < parameter.high else alt.Undefined
    axis = alt.Axis(grid=False, tickCount=4, format="~r", labelOverlap=True)
    scale = alt.Scale(type=kind, domain=domain, nice=False, padding=8)
    return alt.X("place:Q", title=parameter.name, scale=scale, axis=axis)


def front_figure(results: SearchResults) -> Figure:
    """The means of the first two objectives against each other; the suggestions on the front stand out."""
    first, second = results.objectives[:2]
    data, datasets = front_data(results), Datasets()
    base = alt.Chart(datasets.add(data, None), width=_WIDTH // 2, height=_HEIGHT + 60)
    x = alt.X("x:Q", title=f"{first.name} ({first.direction})", scale=alt.Scale(zero=False), axis=alt.Axis(grid=False))
    y = alt.Y("y:Q", title=f"{second.name} ({second.direction})", scale=alt.Scale(zero=False))
    tooltip = [alt.Tooltip("number:Q", title="suggestion"), alt.Tooltip("x:Q", title=first.name),
               alt.Tooltip("y:Q", title=second.name)]  # fmt: skip
    points = base.mark_point(filled=True, size=80, opacity=1).encode(x, y, color=_colour(), tooltip=tooltip)
    names = base.mark_text(align="left", dx=7, dy=-5, fontSize=10.5, color="#444444").encode(x, y, alt.Text("number:Q"))
    caption = (
        "Means over the seeds, each point with the number of its suggestion. Orange: on the Pareto front, which no "
        "other suggestion beats"
        + (f" in all {len(results.objectives)} objectives; the first two are drawn." if len(results.objectives) > 2
           else " in both objectives.")
    )  # fmt: skip
    return Figure("front", "What one objective costs the other", caption, styled(points + names), datasets)


def _values(
    datasets: Datasets,
    data: pl.DataFrame,
    seeds: pl.DataFrame,
    x: alt.X,
    scale: alt.Scale,
    objective: Objective,
    offset: Sequence[alt.XOffset] = (),
) -> list[Any]:
    """Range of the seeds as a line, seeds as small points, means as large ones on top."""
    axis = alt.Axis(tickCount=5)
    means, single = alt.Chart(datasets.add(data, None)), alt.Chart(datasets.add(seeds, None))
    tooltip = [alt.Tooltip("number:Q", title="suggestion"), alt.Tooltip("mean:Q", title="mean", format=".4g"),
               alt.Tooltip("low:Q", format=".4g"), alt.Tooltip("high:Q", format=".4g")]  # fmt: skip
    y = alt.Y("mean:Q", scale=scale, title=objective.name, axis=axis)
    return [
        means.mark_rule(color=_SEED, strokeWidth=1).encode(
            x, alt.Y("low:Q", scale=scale, title=objective.name, axis=axis), alt.Y2("high:Q"), *offset
        ),
        single.mark_point(size=16, filled=True, color=_SEED, opacity=1).encode(
            x, alt.Y("value:Q", scale=scale, title=objective.name, axis=axis), *offset
        ),
        means.mark_point(filled=True, size=44, opacity=1).encode(x, y, *offset, color=_colour(), tooltip=tooltip),
    ]


def _colour() -> Any:
    kinds = alt.Scale(domain=["best", "compared", "shorter"], range=[_BEST, _OTHER, _SHORTER])
    return alt.Color("kind:N", scale=kinds, legend=None)


def _value_scale(seeds: pl.DataFrame) -> alt.Scale:
    """The range of all seeds, a twentieth wider at both ends, so that the panels of an objective can be compared."""
    values: list[float] = seeds["value"].to_list()
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return alt.Scale(domain=[low - margin, high + margin], nice=False)


def _chosen(results: SearchResults) -> set[int]:
    """The numbers of the suggestions that stand out: the best one, or the front of several objectives."""
    if len(results.objectives) > 1:
        return {suggestion.number for suggestion in results.front()}
    return {suggestion.number for suggestion in results.ranked(results.objectives[0])[:1]}


def _kind(results: SearchResults, suggestion: Suggestion) -> str:
    if suggestion.number in _chosen(results):
        return "best"
    return "compared" if suggestion.length == results.longest else "shorter"


def _chosen_name(results: SearchResults) -> str:
    return "the best" if len(results.objectives) == 1 else "on the Pareto front"
