"""All that is known of the curves of one data set, region and sweep: what findings, figures and tables read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import numpy as np
import polars as pl

from analysis.arrays import Complexes, Floats
from analysis.blocks import Blocks, choose_blocks
from analysis.bootstrap import Bootstrap
from analysis.cards import group_kind
from analysis.curves.panels import ROLES, TRAINED, UNTRAINED, Curve, Panel, curve_frame, panels
from analysis.curves.samples import Samples
from analysis.curves.sweep import SweepFacts, read_sweep
from analysis.headline import UnknownPeriod, headline
from analysis.published.rotation import PublishedCurve, rotation_curve
from analysis.render.files import file_name
from analysis.resampling import Resampling
from analysis.results import Entry, StudyResults
from analysis.rotation.wave import CoarseGrid
from analysis.significance import Comparison, Missing, Verdict, comparison_blocks, verdicts
from analysis.trends.trend import TooFewValues
from trainables.api.card import Groups
from trainables.api.names import BINARISATION, FIELD_OF_VIEW, IMAGE_ID, SAMPLES_FILE, label_values

NOT_GROUPING = ("sweep", "method")
"""Labels that tell the curve sets of one page apart; all others make pages."""
HEADLINE_FIELD = "full"
"""As in the thesis; the pixels that every value keeps stand beside it, described and without a verdict."""


@dataclass(frozen=True, eq=False)
class CurveSet:
    """The curves that are compared with one another, cut into panels; ``binarisation`` is the headline's.

    ``frame``: the rows behind the panels, of the images that all curves share; ``kind``: what a group of them is.
    """

    labels: Mapping[str, str]
    sweep: SweepFacts
    frame: pl.DataFrame
    panels: Sequence[Panel]
    binarisation: str
    kind: Groups
    bootstrap: Bootstrap
    facts: Mapping[str, str] = field(default_factory=dict)
    """Of the study: its scale, where pretrainings start, and what is not the scale's own."""

    @property
    def published(self) -> PublishedCurve | None:
        """What the thesis printed of the same data set, region and kind of map under rotation."""
        return rotation_curve(self.labels) if self.sweep.is_rotation else None

    @property
    def title(self) -> str:
        """Data set, region, sweep and method, for messages."""
        return " · ".join(label_values(self.labels))

    @property
    def heading(self) -> str:
        """The sweep, and the method where a page shows several, with a capital."""
        method = self.labels.get("method", "").replace("_", " ")
        text = ", ".join(filter(None, [self.sweep.title, method]))
        return text[:1].upper() + text[1:]

    @property
    def name(self) -> str:
        """What tells it from the others of its data set and region, for names of files."""
        return file_name(*(self.labels[name] for name in NOT_GROUPING if name in self.labels))

    @cached_property
    def headline_panel(self) -> Panel:
        """The panel on which conclusions rest."""
        return self.panel(HEADLINE_FIELD, self.binarisation)

    def panel(self, field_of_view: str, binarisation: str) -> Panel:
        """The panel of a field of view and a binarisation, which was measured."""
        return next(p for p in self.panels if (p.field_of_view, p.binarisation) == (field_of_view, binarisation))

    @property
    def fields(self) -> list[str]:
        """Fields of view that were measured, the full one first."""
        return list(dict.fromkeys(panel.field_of_view for panel in self.panels))

    @property
    def binarisations(self) -> list[str]:
        """Ways of making maps binary, the headline's first."""
        rest = dict.fromkeys(panel.binarisation for panel in self.panels)
        return [self.binarisation, *(rule for rule in rest if rule != self.binarisation)]

    @cached_property
    def comparison(self) -> Comparison | Missing:
        """Trained against untrained encoders in the headline coefficient; why not, where the values do not carry it."""
        panel = self.headline_panel
        try:
            arms = [self.coefficients(panel.curves.get(role), panel) for role in (TRAINED, UNTRAINED)]
        except (CoarseGrid, TooFewValues, UnknownPeriod) as error:
            return Missing(str(error))
        return Comparison(arms[0], arms[1], panel.groups, self.kind)

    def coefficients(self, curve: Curve | None, panel: Panel) -> Floats | Complexes:
        """The headline coefficient of every seed and image, [S, N]. Raises as ``headline``."""
        if curve is None:
            return np.zeros((0, len(panel.image_ids)))
        each = [headline(dice_NV, curve.values_V, self.sweep) for dice_NV in curve.dice_SNV]
        return cast("Floats | Complexes", np.array(each))

    @cached_property
    def blocks(self) -> Blocks:
        """How the images are put together for every interval of these curves, as the headline coefficient asks."""
        compared = self.comparison
        if isinstance(compared, Comparison) and len(compared.trained_SN) + len(compared.untrained_SN):
            return comparison_blocks(compared)
        panel = self.headline_panel
        levels = [curve.dice_NV @ self.sweep.level_weights(curve.values_V) for curve in panel.curves.values()]
        return choose_blocks(levels, panel.groups, self.kind)

    def resampling_of(self, panel: Panel) -> Resampling:
        """The resamples that all curves of a panel share, drawn once."""
        if panel.groups not in self._drawn:
            groups = panel.groups if self.blocks.are_whole_groups else ("one series",) * len(panel.groups)
            self._drawn[panel.groups] = Resampling(groups, self.blocks.applied_to(self.bootstrap))
        return self._drawn[panel.groups]

    @cached_property
    def _drawn(self) -> dict[tuple[str, ...], Resampling]:
        return {}


def curve_sets(results: StudyResults, bootstrap: Bootstrap) -> list[CurveSet]:
    """Every set of curves of a study that has at least one finished curve, in the order of its manifest.

    Raises ValueError naming the set where its curves cannot be compared: other images, other values.
    """
    cards = results.manifest.get("cards", {})
    found = []
    for labels, entries in _by_labels(results).items():
        finished = results.finished(entries)
        if not finished:
            continue
        label_map = dict(labels)
        frame = curve_frame(results, finished)
        card = cards.get(label_map.get("data", ""), {})
        sweep = read_sweep(results.folder(finished[0]["key"]))
        cut = panels(frame)
        shared = pl.concat([_rows_of(panel, frame) for panel in cut])
        binarisation, facts = str(frame[BINARISATION][0]), results.manifest["facts"]
        curve_set = CurveSet(label_map, sweep, shared, cut, binarisation, group_kind(card), bootstrap, facts)
        _check_values(curve_set)
        found.append(curve_set)
    return found


def label_sets(results: StudyResults) -> list[dict[str, str]]:
    """The labels of every set of curves that a study wants, finished or not, in the order of its manifest."""
    return [dict(labels) for labels in _by_labels(results)]


def num_planned(results: StudyResults, found: Sequence[CurveSet], *, least_seeds: int) -> int:
    """How many sets with so many seeds in each arm the manifest plans, finished or not.

    Those whose curves are there and cannot carry the coefficient will never be compared, and do not count.

    Args:
        least_seeds: 2 for a test over seeds, 1 for an interval over images.
    """
    hopeless = {tuple(sorted(s.labels.items())) for s in found if isinstance(s.comparison, Missing)}
    return sum(
        all(sum(entry["role"] == arm for entry in entries) >= least_seeds for arm in (TRAINED, UNTRAINED))
        for labels, entries in _by_labels(results).items()
        if labels not in hopeless
    )


def judged(results: StudyResults, sets: Sequence[CurveSet]) -> dict[int, Verdict]:
    """The verdict of every set, by its place; all that the study plans share the level."""
    compared = {place: found.comparison for place, found in enumerate(sets)}
    return verdicts(compared, *(num_planned(results, sets, least_seeds=least) for least in (2, 1)))


def sample_maps(results: StudyResults, found: CurveSet) -> dict[str, Samples]:
    """Role -> the sample maps of its first finished curve."""
    shown: dict[str, Samples] = {}
    for role in (TRAINED, UNTRAINED):
        entries = results.finished(results.entries(role=role, **found.labels))
        samples = results.samples(entries[0]["key"], SAMPLES_FILE) if entries else None
        if samples is not None:
            shown[role] = samples
    return shown


def _rows_of(panel: Panel, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(
        pl.col(FIELD_OF_VIEW) == panel.field_of_view,
        pl.col(BINARISATION) == panel.binarisation,
        pl.col(IMAGE_ID).is_in(panel.image_ids),
    )


def _check_values(found: CurveSet) -> None:
    """All roles have the same values, but for the neutral one, at which some methods have no map."""
    for panel in found.panels:
        values = {role: c.values_V[~found.sweep.is_neutral(c.values_V)] for role, c in panel.curves.items()}
        first, *others = values
        for role in others:
            if not np.array_equal(values[first], values[role]):
                raise ValueError(
                    f"{found.title}: {first} was measured at {_values_text(values[first])} and {role} at "
                    f"{_values_text(values[role])}; curves that are compared need the same values"
                )


def _values_text(values_V: Floats) -> str:
    return f"{len(values_V)} values from {values_V.min():g} to {values_V.max():g}" if len(values_V) else "none"


def _by_labels(results: StudyResults) -> dict[tuple[tuple[str, str], ...], list[Entry]]:
    sets: dict[tuple[tuple[str, str], ...], list[Entry]] = {}
    for entry in results.entries():
        if entry.get("role") in ROLES:
            sets.setdefault(tuple(sorted(entry["labels"].items())), []).append(entry)
    return sets
