"""The tables of additional positives: BYOL-TracIn's Table 1 from our numbers, and what differs over pretrainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from analysis.positives.cost import UNITS, Work, pretraining_work
from analysis.positives.differences import COMPARED, Difference, Outcome
from analysis.positives.evidence import LabelledSet, mean_std, percent
from analysis.positives.findings import FAMILIES, Told, claims, told_of
from analysis.published.positives import PUBLISHED, published_difference, published_score
from analysis.render.table import Column, Table
from trainables.api.names import BY_LABEL

_DECIMALS = 3


def score_table(found: LabelledSet) -> Table:
    """As in the paper: mean(std) over the fine-tunings of the first pretraining, the published numbers beside it.

    Columns of the frame: way; for each share of the labels, as a percentage, ``P``, ``P std``, ``P n``, ``P best``
    (whether it is printed bold) and, of the data sets of the paper, ``P published`` and ``P published std``; for each
    unit of work that was spent, ``UNIT`` and ``UNIT in all``, of the first pretraining.
    """
    kind, tunings = ("Linear probes", "linear probes") if found.is_probe else ("Fine-tuned", "fine-tunings")
    frame = pl.DataFrame({"way": found.roles})
    columns = [Column("positives", "way")]
    for fraction in found.fractions:
        name = percent(fraction)
        frame = frame.hstack(_scores(found, fraction, name))
        columns += [Column(f"{name} % of labels", name, _DECIMALS, std=f"{name} std", bold=f"{name} best")]
        columns += [Column("n", f"{name} n")]
        if found.published_as in PUBLISHED:
            columns += [Column("published", f"{name} published", _DECIMALS, std=f"{name} published std")]
    works = {role: pretraining_work(found, role) for role in found.roles}
    of_work = _work_columns(works)
    decimals = 0 if any((series.max() or 0) >= 100 for series in of_work) else 1  # type: ignore[operator]
    columns += [Column(f"pretraining, {series.name}", series.name, decimals) for series in of_work]
    note = (
        f"{found.score.capitalize()} on test images, mean(std) over n {tunings} of the first pretraining. "
        f"Bold: the highest mean, as printed, of the ways that choose without labels, all but {BY_LABEL}; that "
        "it is better does not follow. Each fine-tuning draws its share of the labels; smaller shares lie inside "
        "larger ones. Those of a random start begin with the same weights."
    )
    if of_work:
        note += (
            " Work of the first pretraining, without fine-tunings, as the clock took it; in all: with the pretraining "
            "of the model that chooses."
        )
    return Table("scores", f"{kind} on a share of the labels: {found.title}", frame.hstack(of_work), columns, note)


def _scores(found: LabelledSet, fraction: float, name: str) -> pl.DataFrame:
    """The columns of one share of the labels, a row a role."""
    values = [
        list(row.of_fine_tunings(found.metric)) if (row := found.row(role, fraction)) else [] for role in found.roles
    ]
    means, stds = zip(*map(mean_std, values), strict=True)
    schema: dict[str, Any] = {name: pl.Float64, f"{name} std": pl.Float64, f"{name} n": pl.Int64}
    content: list[Sequence[Any]] = [means, stds, list(map(len, values))]
    frame = pl.DataFrame(dict(zip(schema, content, strict=True)), schema=schema)
    frame = frame.with_columns(pl.Series(f"{name} best", _best(dict(zip(found.roles, means, strict=True)))))
    if found.published_as not in PUBLISHED:
        return frame
    published = [published_score(found.published_as, role, fraction) or (None, None) for role in found.roles]
    printed, spreads = zip(*published, strict=True)
    return frame.with_columns(
        pl.Series(f"{name} published", printed, pl.Float64), pl.Series(f"{name} published std", spreads, pl.Float64)
    )


def _best(means: Mapping[str, float | None]) -> list[bool]:
    """Where the highest mean of those that see no label stands; of means that are printed alike everywhere."""
    printed = {role: round(mean, _DECIMALS) for role, mean in means.items() if mean is not None and role != BY_LABEL}
    highest = max(printed.values(), default=None)
    return [role in printed and printed[role] == highest for role in means]


def _work_columns(works: Mapping[str, tuple[Work, Work] | None]) -> list[pl.Series]:
    """A column a unit that any work was measured in, and what it comes to in all where this is more."""
    columns = []
    for unit in UNITS:
        own, in_all = ([work[i].get(unit) if work else None for work in works.values()] for i in (0, 1))
        columns += [pl.Series(unit, own, pl.Float64)] if any(own) else []
        columns += [pl.Series(f"{unit} in all", in_all, pl.Float64)] if any(in_all) and in_all != own else []
    return columns


def pretraining_table(found: LabelledSet) -> Table:
    """What differs with the pretraining: mean(std) over pretrainings of one fine-tuning each.

    Columns of the frame: way, for each share ``P``, ``P std``, and n.
    """
    schema: dict[str, Any] = {"way": pl.String}
    for fraction in found.fractions:
        schema |= {percent(fraction): pl.Float64, f"{percent(fraction)} std": pl.Float64}
    rows = []
    for role in found.roles:
        of_shares = [
            list(row.of_pretrainings(found.tested).values()) if (row := found.row(role, fraction)) else []
            for fraction in found.fractions
        ]
        cells = [value for values in of_shares for value in mean_std(values)]
        rows.append([role, *cells, min(map(len, of_shares), default=0)])
    columns = [Column("positives", "way")]
    columns += [Column(f"{name} % of labels", name, std=f"{name} std") for name in map(percent, found.fractions)]
    note = (
        f"{found.tested_score.capitalize()}, mean(std) over n pretrainings (--pretrain-seeds N), each with one "
        "fine-tuning, which draws labels of its own."
    )
    frame = pl.DataFrame(rows, schema | {"n": pl.Int64}, orient="row")
    return Table("pretrainings", f"Over pretrainings: {found.title}", frame, [*columns, Column("n", "n")], note)


def difference_table(found: LabelledSet, told: Told) -> Table:
    """Every pair of ways that is compared, over pretrainings.

    Columns of the frame: way, against; for each share of the labels ``P``, ``P low``, ``P high``, ``P p`` (after
    Holm), ``P n``, ``P told`` (whether the difference is said to be there, printed bold) and, of the data sets of the
    paper, ``P published``.
    """
    frame = pl.DataFrame(COMPARED, schema={"way": pl.String, "against": pl.String}, orient="row")
    columns = [Column("positives", "way"), Column("against", "against")]
    for fraction, differences in told.items():
        name = percent(fraction)
        frame = frame.join(_difference_frame(found, fraction, differences), ["way", "against"], "left")
        title, low, high = f"{name} % of labels", f"{name} low", f"{name} high"
        columns += [Column(title, name, _DECIMALS, low, high, signed=True, bold=f"{name} told")]
        columns += [Column("p", f"{name} p", significant_digits=2), Column("n", f"{name} n")]
        if found.published_as in PUBLISHED:
            columns += [Column("published", f"{name} published", _DECIMALS, signed=True)]
    note = (
        f"Differences of the {found.tested_score} over n pretrainings, each with one fine-tuning; pairs are of one "
        "seed. Brackets: each difference's own 95 % interval (Student's, of pairs). p: two-sided, after Holm over all "
        "rows of its share of the labels. Bold: p below 0.05."
    )
    return Table("differences", f"Differences over pretrainings: {found.title}", frame, columns, note)


def _difference_frame(found: LabelledSet, fraction: float, differences: Sequence[Difference]) -> pl.DataFrame:
    name = percent(fraction)
    schema: dict[str, Any] = {"way": pl.String, "against": pl.String}
    schema |= dict.fromkeys([name, f"{name} low", f"{name} high", f"{name} p"], pl.Float64)
    schema |= {f"{name} n": pl.Int64, f"{name} told": pl.Boolean}
    rows: list[list[Any]] = [
        [d.first, d.second, d.value, d.low, d.high, d.p_adjusted, d.n, d.outcome in (Outcome.HIGHER, Outcome.LOWER)]
        for d in differences
    ]
    if found.published_as in PUBLISHED:
        schema |= {f"{name} published": pl.Float64}
        for row in rows:
            row.append(published_difference(found.published_as, row[0], row[1], fraction))
    return pl.DataFrame(rows, schema, orient="row")


def claim_table(sets: Sequence[LabelledSet]) -> list[Table]:
    """Every claim of the paper beside what our numbers say of it, on these data sets; nothing where none bears on one.

    Columns of the frame: claim, data, labels, statistic, finding.
    """
    rows = [
        (claim, found.title, *rest)
        for found in sets
        if any(row.cell.done for row in found.rows)
        for claim, *rest in claims(found, told_of(found))
    ]
    if not rows:
        return []
    frame = pl.DataFrame(rows, schema=["claim", "data", "labels", "statistic", "finding"], orient="row")
    columns = [
        Column("claim", "claim", width=0.2),
        Column("data", "data"),
        Column("labels", "labels"),
        Column("statistic", "statistic", width=0.15),
        Column("what it says here", "finding", width=0.4),
    ]
    note = f"Over pretrainings, each with one fine-tuning, in pairs of one seed (--pretrain-seeds N). {FAMILIES}"
    return [Table("claims", "The paper's claims", frame, columns, note)]
