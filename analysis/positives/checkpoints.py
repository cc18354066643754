"""The report of a study of checkpoints: which of them chooses rightly, and whether that helps; a page a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl

from analysis.positives.choices import (
    TRAINED,
    WAYS,
    Checkpoint,
    CheckpointSet,
    checkpoint_sets,
    choice_pictures,
)
from analysis.positives.differences import MIN_PAIRS, paired
from analysis.positives.evidence import TITLES, mean_std
from analysis.render.files import file_name
from analysis.render.style import Datasets, Figure, styled
from analysis.render.table import Column, Table, number
from analysis.results import load_study
from analysis.significance import LEVEL, holm
from analysis.study_page import StudyPage
from orchestrator.store import Store
from trainables.api.names import (
    BY_TRACIN_PRETRAINED,
    BYOL_ALONE,
    CHOSEN_BY_COSINE,
    CHOSEN_BY_FEATURES,
    CHOSEN_BY_TRACIN,
    SUMMED,
)

_PRECISION, _SHUFFLED = "precision/top_1", "shuffled/top_1"
UNTRAINED_CHECKPOINT = "epoch 0"
_COLOURS = {CHOSEN_BY_TRACIN: "#D55E00", CHOSEN_BY_COSINE: "#CC79A7", CHOSEN_BY_FEATURES: "#0072B2"}


def checkpoints_report(store: Store, manifest: dict[str, Any], out_dir: Path) -> Sequence[Path]:
    """Write the page of every data set of the study; returns page, figures and tables of each."""
    written: list[Path] = []
    for found in checkpoint_sets(load_study(store, manifest)):
        written += _page(found).write(out_dir / file_name(found.data))
    return written


def _page(found: CheckpointSet) -> StudyPage:
    return StudyPage(
        kind="Checkpoints that choose positives",
        subject=found.data,
        manifest=found.results.manifest,
        data=found.data,
        card=found.card,
        cells=[each.cell for each in found.checkpoints],
        answers=answers(found),
        parts=[*figures_of(found), *choice_pictures(found)],
        tables_title="Choices and scores",
        tables=[choice_table(found), *([score_table(found)] if found.of(*TRAINED) else [])],
        caveats=CAVEATS,
        configured=[each.cell for each in found.checkpoints if each.epoch in (None, found.last)],
        seed="pretraining seed",
    )


CAVEATS = (
    "What is told apart is told of these images; other images may tell otherwise, and more pretrainings do not change "
    "that.",
    "A choice is counted right where the label is the anchor's (of findings: where one is shared). Labels are used to "
    "count, never to choose.",
    "That a choice is right more often does not say that training with it makes the better encoder: that is measured "
    "apart.",
    f"Something is said to be higher or lower only from {MIN_PAIRS} pretrainings on, after Holm's correction over all "
    "that is said of a data set.",
)

Side = tuple[str, dict[int, float]]
"""In words, with a value a seed."""


def answers(found: CheckpointSet) -> list[str]:
    """How often the last model's choice is right, and what is told apart."""
    last, chance = found.find(CHOSEN_BY_TRACIN, f"epoch {found.last}"), found.chance()
    if last is None or not last.by_seed(_PRECISION) or chance is None:
        return ["No choice of the whole training's model is finished yet."]
    mean, std = mean_std([*last.by_seed(_PRECISION).values()])
    assert mean is not None
    spread = f" (± {number(std, 3)} over {len(last.by_seed(_PRECISION))} pretrainings)" if std is not None else ""
    said = [
        f"What TracIn chooses with the model of {last.name} has its anchor's label in {100 * mean:.1f} % of cases"
        f"{spread}; the same choices dealt out to other anchors in {_mean_percent(last, _SHUFFLED)}, what is drawn "
        f"from the batch in {100 * chance:.1f} %{_untrained(found)}."
    ]
    best = _best(found)
    if best is not None:
        said.append(best)
    return [*said, *verdicts(found)]


def _mean_percent(checkpoint: Checkpoint, metric: str) -> str:
    mean, _ = mean_std([*checkpoint.by_seed(metric).values()])
    return f"{100 * mean:.1f} %" if mean is not None else "an unknown share"


def _untrained(found: CheckpointSet) -> str:
    """What the control gives: similar images are often of one class without any training."""
    control = found.find(CHOSEN_BY_TRACIN, UNTRAINED_CHECKPOINT)
    if control is None or not control.by_seed(_PRECISION):
        return ""
    return f", and what an untrained network chooses so in {_mean_percent(control, _PRECISION)}"


def _best(found: CheckpointSet) -> str | None:
    """Where the highest mean stands; that it is higher than others is not said by it."""
    means = {
        (each.role, each.name): mean
        for each in found.of(*WAYS)
        if (mean := mean_std([*each.by_seed(_PRECISION).values()])[0]) is not None
    }
    if len(means) < 2:
        return None
    (role, name), value = max(means.items(), key=lambda item: item[1])
    return f"The largest share of right choices, {100 * value:.1f} %, is of what was {role}, {name}."


def verdicts(found: CheckpointSet) -> list[str]:
    """Each comparison in one sentence, both directions possible; all share the level."""
    tested = []
    for (first, first_values), (second, second_values) in comparisons(found):
        if first_values.keys() & second_values.keys():
            num, mean, _, p = paired(first_values, second_values)
            tested.append((first, second, num, mean, p))
    adjusted = holm([p for *_, p in tested], max(len(tested), len(comparisons(found))))
    said = []
    for (first, second, num, mean, _), p in zip(tested, adjusted, strict=True):
        difference = f"difference {number(mean, 3, signed=True)}"
        if p is None:
            said.append(
                f"{first} against {second}: {difference} in {num} pretraining(s), too few or too alike to test."
            )
            continue
        word = "is not told apart from" if p >= LEVEL else "is higher than" if mean > 0 else "is lower than"
        p_text = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        said.append(f"{first} {word} {second} ({difference}, {p_text} after Holm, n = {num}).")
    return said


def comparisons(found: CheckpointSet) -> list[tuple[Side, Side]]:
    """What is asked of a data set, where both sides were planned."""
    last = f"epoch {found.last}"

    def side(words: str, role: str, name: str, metric: str) -> Side | None:
        checkpoint = found.find(role, name)
        return None if checkpoint is None else (words, checkpoint.by_seed(metric))

    by_tracin = "The share of right choices by TracIn", CHOSEN_BY_TRACIN, last, _PRECISION
    others = {
        "that by features of the same model": (CHOSEN_BY_FEATURES, last, _PRECISION),
        "that by TracIn divided by the lengths of gradients": (CHOSEN_BY_COSINE, last, _PRECISION),
        "that of the three that are nearest by TracIn": (CHOSEN_BY_TRACIN, last, "precision/top_3"),
        "that by TracIn summed over all checkpoints": (CHOSEN_BY_TRACIN, SUMMED, _PRECISION),
        "that by TracIn with an untrained network": (CHOSEN_BY_TRACIN, UNTRAINED_CHECKPOINT, _PRECISION),
    }
    asked = [(side(*by_tracin), side(words, *which)) for words, which in others.items()]
    plain = side("that of BYOL alone", BYOL_ALONE, "none", found.metric)
    score = f"The {TITLES[found.metric]} of BYOL with positives chosen by"
    for name, words in ((last, f"the model of {last}"), (SUMMED, "all checkpoints together")):
        asked.append((side(f"{score} {words}", BY_TRACIN_PRETRAINED, name, found.metric), plain))
    return [(first, second) for first, second in asked if first is not None and second is not None]


def choice_table(found: CheckpointSet) -> Table:
    """Columns of the frame: way, checkpoint, for each K ``top_K`` and ``top_K std``, shuffled, hub, n."""
    top_ks = sorted({top_k for each in found.of(*WAYS) for top_k in each.top_ks})
    schema: dict[str, Any] = {"way": pl.String, "checkpoint": pl.String}
    for top_k in top_ks:
        schema |= {f"top_{top_k}": pl.Float64, f"top_{top_k} std": pl.Float64}
    schema |= {"shuffled": pl.Float64, "hub": pl.Float64, "n": pl.Int64}
    rows = []
    for each in found.of(*WAYS):
        cells = [value for k in top_ks for value in mean_std([*each.by_seed(f"precision/top_{k}").values()])]
        cells += [each.cell.mean(_SHUFFLED), each.cell.mean("largest_hub/top_1")]
        rows.append([each.role, each.name, *cells, each.cell.n])
    columns = [Column("chosen", "way"), Column("by the model of", "checkpoint")]
    columns += [Column(f"right of {k}" if k > 1 else "right", f"top_{k}", std=f"top_{k} std") for k in top_ks]
    columns += [Column("dealt out", "shuffled"), Column("largest hub", "hub"), Column("n", "n")]
    chance = found.chance()
    note = "Share of the K chosen that have the anchor's label, mean(std) over n pretrainings"
    note += f"; by chance {chance:.3f}." if chance is not None else "."
    note += (
        " Dealt out: the same choices given to other anchors of their batch; choosing common classes reaches that, too."
    )
    note += " Epoch 0: an untrained network. Largest hub: share of a batch that chose the one image that most chose."
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return Table("choices", f"How often a choice is right: {found.data}", frame, columns, note)


def score_table(found: CheckpointSet) -> Table:
    """Columns of the frame: way, checkpoint, score, ``score std``, n: over pretrainings of one fine-tuning each."""
    rows = []
    for each in found.of(*TRAINED):
        values = [*each.by_seed(found.metric).values()]
        rows.append([each.role, each.name, *mean_std(values), len(values)])
    schema = {"way": pl.String, "checkpoint": pl.String, "score": pl.Float64, "score std": pl.Float64, "n": pl.Int64}
    columns = [
        Column("positives", "way"),
        Column("chosen by", "checkpoint"),
        Column(TITLES[found.metric], "score", std="score std"),
        Column("n", "n"),
    ]
    note = "On test images, mean(std) over n pretrainings, each with one fine-tuning."
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return Table("trained", f"Trained with these choices: {found.data}", frame, columns, note)


def figures_of(found: CheckpointSet) -> list[Figure]:
    """What can be drawn of what is there."""
    return [draw(found) for draw, data in ((precision_figure, precision_data), (k_figure, k_data)) if len(data(found))]


def precision_data(found: CheckpointSet) -> pl.DataFrame:
    """One row a way, checkpoint and seed: way, epoch (null for all together), seed, precision, mean (over seeds)."""
    rows = []
    for each in found.of(*WAYS):
        values = each.by_seed(_PRECISION)
        mean, _ = mean_std([*values.values()])
        rows += [[each.role, each.epoch, seed, value, mean] for seed, value in values.items()]
    schema = {"way": pl.String, "epoch": pl.Int64, "seed": pl.Int64, "precision": pl.Float64, "mean": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def precision_figure(found: CheckpointSet) -> Figure:
    """The share of right choices over the epoch of the model that chooses."""
    data, datasets = precision_data(found), Datasets()
    colour = _colour(data)
    x = alt.X("epoch:Q", title="epochs of the model that chooses")
    y = alt.Y("precision:Q", title="share of right choices", scale=alt.Scale(zero=False))
    single = datasets.add(data.drop_nulls("epoch"))
    layers = [
        alt.Chart(single).mark_point(filled=True, size=26, opacity=0.75).encode(x, y, colour),
        alt.Chart(single).mark_line(strokeWidth=1.8).encode(x, alt.Y("mean:Q"), colour),
    ]
    summed = data.filter(pl.col("epoch").is_null()).unique(["way", "mean"], maintain_order=True)
    if len(summed):
        layers.append(
            alt.Chart(datasets.add(summed))
            .mark_rule(strokeDash=[5, 4], strokeWidth=1.6)
            .encode(alt.Y("mean:Q"), colour)
        )
    chance = pl.DataFrame({"chance": [found.chance()]})
    layers.append(alt.Chart(datasets.add(chance)).mark_rule(color="#7F7F7F").encode(alt.Y("chance:Q")))
    caption = (
        "How often the nearest image of a batch has its anchor's label; a point a pretraining, the line through the "
        "means. Dashed: TracIn summed over all checkpoints. Grey: chance."
    )
    chart = styled(alt.layer(*layers).properties(width=620, height=280))
    return Figure("precision", f"Right choices over the checkpoint, {found.data}", caption, chart, datasets)


def k_data(found: CheckpointSet) -> pl.DataFrame:
    """Of the whole training's model one row a way, K and seed: way, k, seed, precision, mean (over seeds)."""
    rows = []
    for each in found.of(*WAYS):
        if each.epoch != found.last:
            continue
        for k in each.top_ks:
            values = each.by_seed(f"precision/top_{k}")
            mean, _ = mean_std([*values.values()])
            rows += [[each.role, k, seed, value, mean] for seed, value in values.items()]
    schema = {"way": pl.String, "k": pl.Int64, "seed": pl.Int64, "precision": pl.Float64, "mean": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def k_figure(found: CheckpointSet) -> Figure:
    """The share of right choices over how many are chosen."""
    data, datasets = k_data(found), Datasets()
    named, colour = datasets.add(data), _colour(data)
    x = alt.X("k:Q", title="chosen of each batch, K", axis=alt.Axis(tickMinStep=1))
    y = alt.Y("precision:Q", title="share of right choices", scale=alt.Scale(zero=False))
    points = alt.Chart(named).mark_point(filled=True, size=26, opacity=0.75).encode(x, y, colour)
    lines = alt.Chart(named).mark_line(strokeWidth=1.8).encode(x, alt.Y("mean:Q"), colour)
    caption = "Of the model of the whole training; a point a pretraining, the line through the means."
    chart = styled(alt.layer(points, lines).properties(width=620, height=240))
    return Figure("top_k", f"Right choices over their number, {found.data}", caption, chart, datasets)


def _colour(data: pl.DataFrame) -> alt.Color:
    ways = [way for way in WAYS if way in data["way"].unique().to_list()]
    return alt.Color("way:N", title=None, scale=alt.Scale(domain=ways, range=[_COLOURS[way] for way in ways]))
