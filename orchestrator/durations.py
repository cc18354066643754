"""How long trials take: what the plan estimated, corrected by what trials of the kind took in this run."""

from __future__ import annotations

import bisect
import math

UNKNOWN_S = 1.0
"""A trial of which nothing is known. Positive, so that a longer path is longer, and nothing counts as over at once."""


class Durations:
    """Seconds of trials by kind.

    The correction of a kind is the median of took / estimated over its finished trials and one that stands for the
    estimate itself, so a single odd trial (one that another driver had finished) moves it half way at most.
    """

    def __init__(self) -> None:
        # Kind, and whether the estimate was measured -> log(took / estimated), sorted.
        self._logs: dict[tuple[str, bool], list[float]] = {}
        self._guessed: list[float] = []  # the same over all kinds whose estimates were guesses
        self._took_s: dict[str, list[float]] = {}  # kind -> seconds of trials without an estimate, sorted
        self._factors: dict[tuple[str, bool], float] = {}

    def learn(self, kind: str, estimated_s: float | None, is_measured: bool, took_s: float) -> None:
        """A trial has ended well. ``estimated_s`` as the plan had it; ``is_measured`` as in ``seconds``."""
        if took_s <= 0 or not math.isfinite(took_s):
            return
        if not _is_known(estimated_s):
            bisect.insort(self._took_s.setdefault(kind, []), took_s)
            return
        assert estimated_s is not None
        log = math.log(took_s / estimated_s)
        bisect.insort(self._logs.setdefault((kind, is_measured), []), log)
        if not is_measured:
            bisect.insort(self._guessed, log)
        self._factors.clear()

    def seconds(self, kind: str, estimated_s: float | None, is_measured: bool) -> float:
        """What a trial of this kind takes, always positive.

        Guesses (not ``is_measured``: nothing of the kind has run before) are wrong by a factor that is the machine's:
        until one of the kind has ended, they are corrected by what other guesses were wrong by.
        """
        if not _is_known(estimated_s):
            took_s = self._took_s.get(kind)
            return took_s[len(took_s) // 2] if took_s else UNKNOWN_S
        assert estimated_s is not None
        if (kind, is_measured) not in self._factors:
            prior = 0.0 if is_measured or not self._guessed else _median_with(self._guessed, 0.0)
            self._factors[kind, is_measured] = math.exp(_median_with(self._logs.get((kind, is_measured), []), prior))
        return estimated_s * self._factors[kind, is_measured]


def _is_known(estimated_s: float | None) -> bool:
    return estimated_s is not None and 0 < estimated_s < math.inf


def _median_with(ordered: list[float], one_more: float) -> float:
    """The median of sorted values and one more."""
    if not ordered:
        return one_more
    middle = len(ordered) // 2
    below = ordered[middle - 1] if middle else -math.inf
    above = ordered[middle + 1] if middle + 1 < len(ordered) else math.inf
    if len(ordered) % 2 == 0:
        return min(max(one_more, below), ordered[middle])
    return (ordered[middle] + min(max(one_more, below), above)) / 2
