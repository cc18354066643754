"""What an exhibit is: a numbered table or figure of a paper, made from what a study has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analysis.render.pictures import Pictures
from analysis.render.style import Figure
from analysis.render.table import Table
from analysis.results import StudyResults

Part = Figure | Pictures | Table


@dataclass(frozen=True)
class Exhibit:
    """One entry of ``analysis.paper``.

    ``study``: whose results it is made from; ``command``: what computes them, None for what the thesis has not, which
    nobody misses. ``make`` gets what that study has at one scale and returns what is drawn or printed; nothing where
    the data it shows were not measured.
    """

    number: str
    title: str
    study: str
    command: str | None
    make: Callable[[StudyResults], Sequence[Part]]
