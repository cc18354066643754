"""Classes of failures, as users meet them: in tables, in documents and behind ``--retry-failed``. Loads nothing."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """Why an attempt of a trial ended without a result."""

    PREEMPTED = "preempted"
    """Its node is gone: not its fault."""
    CRASHED = "crashed"
    """Anything that another attempt may cure."""
    OUT_OF_MEMORY = "out of memory"
    INVALID = "invalid"
    """A value that is not finite, bad data, a bad configuration: it would fail the same way again."""
    TIMED_OUT = "timed out"
    DISK_FULL = "disk full"
    INTERRUPTED = "interrupted"
    """What it needs has to be computed again first, by the next submission."""

    def __repr__(self) -> str:
        return repr(self.value)


# The last ones as storages of earlier versions have them.
_BY_NAME = {kind.value: kind for kind in Kind} | {
    "crash": Kind.CRASHED,
    "non-finite": Kind.INVALID,
    "bad configuration": Kind.INVALID,
}


def kind_of(text: str) -> Kind:
    """The class that a stored failure names; what nobody knows counts as a crash."""
    return _BY_NAME.get(text, Kind.CRASHED)
