"""What a search decided, one document a decision: a new point, or a suggestion that rises to the next rung.

    studies/<study>/suggestions/000017.json
    {"params": {...}, "keys": [...],       the point, and the keys of the trials that were decided on
     "promotes": 4, "length": 12,          with rungs: the number of the promoted point's document, if it is a promotion
     "saw": [1, 2, ...], "failed": [3],    the documents whose results were known, and those that were known to fail
     "sampler": {"trial": {}, "study": {}}}   what Optuna's sampler noted

A decision is a function of the search, the decisions before it and the results that it saw. Documents of before this
have ``params`` and ``keys`` only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.search.sampling import Attributes, SuggestionState
from orchestrator.store import Store
from orchestrator.study import Search

Values = Mapping[str, float]  # objective -> value


@dataclass
class Decision:
    """A suggestion at a rung, and what became of it there."""

    document: int  # number of its document; another configuration of the study may have some in between
    suggestion: int
    rung: int
    attributes: Attributes = field(default_factory=Attributes)
    state: SuggestionState = SuggestionState.RUNNING
    reason: str = ""
    values: Values | None = None


class Documents:
    """The documents of a study's decisions, each read once, in the order of their numbers."""

    def __init__(self, store: Store, study: str) -> None:
        self._store, self._folder = store, f"studies/{study}/suggestions"
        self._last = 0

    def new(self) -> list[tuple[int, Any]]:
        """Number and content of all that are there since the last call, also those of other drivers."""
        if self._last:
            return self._next()
        stems = (name.removesuffix(".json") for name in self._store.names(self._folder))
        # A listing may lag behind, and documents have no gaps: what it lacks below its last is asked for by name.
        last = max((int(stem) for stem in stems if stem.isdigit() and len(stem) == 6), default=0)
        return [self._read(number) for number in range(self._last + 1, last + 1)]

    def _next(self) -> list[tuple[int, Any]]:
        """Those that follow the last: documents have no gaps, and a listing of all would grow with the search."""
        found = []
        while self._store.exists(self._path(self._last + 1)):
            found.append(self._read(self._last + 1))
        return found

    def create(self, document: Mapping[str, Any]) -> tuple[int, Any]:
        """Write the next document; returns its number and content, which are another's where another was faster."""
        number = self._last + 1
        if not self._store.create_document(self._path(number), document):
            return self._read(number)
        self._last = number
        return number, document

    def _read(self, number: int) -> tuple[int, Any]:
        self._last = max(self._last, number)
        return number, self._store.read_document(self._path(number))

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:06d}.json"


def document_of(
    params: Mapping[str, Any],
    keys: Collection[str],
    seen: Iterable[Decision],
    attributes: Attributes,
    *,
    length: int | None,
    promotes: int | None,
) -> dict[str, Any]:
    """What is written down of a decision."""
    document: dict[str, Any] = {"params": dict(params), "keys": sorted(keys)}
    if length is not None:
        document |= {"length": length, "promotes": promotes}
    document["saw"] = [d.document for d in seen if d.state is SuggestionState.COMPLETE]
    document["failed"] = [d.document for d in seen if d.state is SuggestionState.FAILED]
    document["sampler"] = {"trial": dict(attributes.trial), "study": dict(attributes.study)}
    return document


def attributes_of(document: Mapping[str, Any]) -> Attributes:
    """What a sampler noted, from a document; nothing where it is of another shape."""
    noted = document.get("sampler")
    if not isinstance(noted, Mapping) or not all(isinstance(noted.get(n), Mapping) for n in ("trial", "study")):
        return Attributes()
    return Attributes(noted["trial"], noted["study"])


def promotion_of(document: Mapping[str, Any], search: Search) -> tuple[int, int] | None:
    """Number of the promoted document and the rung that it rises to; None for a new point.

    Raises ValueError where it is none of this search: another length, or no rungs.
    """
    promotes, length = document.get("promotes"), document.get("length")
    if promotes is None:
        return None
    lengths: Sequence[int] = search.rungs.lengths[1:] if search.rungs else ()
    if not isinstance(promotes, int) or length not in lengths:
        raise ValueError(f"a promotion to {length} is none of a search with the lengths {list(lengths)}")
    return promotes, lengths.index(length) + 1
