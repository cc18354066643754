"""What an exhibit is: a numbered table or figure of a paper, made from the curves and cells of studies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analysis.pages.evidence import CurveSet
from analysis.render.style import Figure
from analysis.render.table import Table


@dataclass(frozen=True)
class Exhibit:
    """One entry of ``analysis.paper``.

    ``study``: whose results it is made from; ``command``: what computes them. ``make`` gets the sets of
    curves of that study and returns what is drawn or printed; nothing where the data it shows were not measured.
    """

    number: str
    title: str
    study: str
    command: str
    make: Callable[[Sequence[CurveSet]], Sequence[Figure | Table]]
