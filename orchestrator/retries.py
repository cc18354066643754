"""What follows when an attempt of a trial fails: another one, and when; or nothing. Pure, so that it can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from orchestrator.kinds import Kind

# A mount that is late by half a minute is no end of a trial; who crashes a fourth time crashes by itself.
CRASH_WAITS_S = (2.0, 8.0, 32.0)
# A trial that takes its node down with it, again and again, is not to go through a cluster at full speed.
_LOST_AT_ONCE, _LOST_FIRST_WAIT_S, _LOST_LONGEST_WAIT_S = 3, 10.0, 300.0
# A full disk costs no attempt, unless it is the trial that fills it again and again.
_FULL_FIRST_WAIT_S, _FULL_LONGEST_WAIT_S, _FULL_MOST_TIMES = 10.0, 300.0, 20


@dataclass(frozen=True)
class Again:
    """Another attempt."""

    in_s: float = 0.0
    is_alone: bool = False
    """With a node of its own, if it is one that a single node holds."""


def after(kinds: Sequence[Kind]) -> Again | None:
    """What follows the last of the failures that a trial had in this submission; None is its end.

    A lost node is not charged, and after the third in a row takes a while; a crash is tried three times more, later and
    later; without memory once more, with nobody beside; what is invalid or took too long, never.
    """
    last = kinds[-1]
    number, is_alone = kinds.count(last), Kind.OUT_OF_MEMORY in kinds
    if last is Kind.PREEMPTED:
        return Again(_lost_wait_s(kinds), is_alone)
    if last is Kind.CRASHED and number <= len(CRASH_WAITS_S):
        return Again(CRASH_WAITS_S[number - 1], is_alone)
    if last is Kind.OUT_OF_MEMORY and number == 1:
        return Again(0.0, is_alone)
    if last is Kind.DISK_FULL and number <= _FULL_MOST_TIMES:
        return Again(min(_FULL_LONGEST_WAIT_S, _FULL_FIRST_WAIT_S * 2 ** (number - 1)), is_alone)
    return None


def _lost_wait_s(kinds: Sequence[Kind]) -> float:
    in_a_row = sum(1 for _ in takewhile(lambda kind: kind is Kind.PREEMPTED, reversed(kinds)))
    if in_a_row <= _LOST_AT_ONCE:
        return 0.0
    return min(_LOST_LONGEST_WAIT_S, _LOST_FIRST_WAIT_S * 2.0 ** (in_a_row - _LOST_AT_ONCE - 1))
