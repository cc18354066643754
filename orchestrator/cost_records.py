"""What trials cost, told by the store to other studies: ``costs/<class>.json``, the last ones of every shape.

A submission reads them when it has something to run, and its driver adds to them what its trials took. They only tell
what to expect: what two drivers write at once is lost in part, and nobody misses it.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.documents import OTHER_SHAPE, parsed
from orchestrator.estimates import Cost, Spent
from orchestrator.store import Store

_MOST_OF_SHAPE = 50
_MOST_OF_KIND = 2000
_FOLDER = "costs"


@dataclass(frozen=True)
class _Record:
    """One finished trial."""

    key: str
    cell: str
    shape: str
    device: str
    uses_gpu: bool
    work_flop: float
    busy_s: float
    own_flop: float
    at: float  # seconds since the epoch when it was written here


def recorded_costs(store: Store, kinds: Iterable[str]) -> dict[str, Spent]:
    """What finished trials of these classes cost in any study of the store, by key: one listing, a document a class."""
    written = set(store.names(_FOLDER))
    return {
        record.key: _spent(kind, record)
        for kind in sorted(set(kinds))
        if f"{kind}.json" in written
        for record in _records(store, kind)
    }


def record_costs(store: Store, spent: Mapping[str, Spent]) -> None:
    """Write down what finished trials cost, by key, as far as it is not known there, and the storage takes it."""
    kinds: dict[str, dict[str, Spent]] = {}
    for key, one in spent.items():
        if one.busy_s > 0:
            kinds.setdefault(one.cost.kind, {})[key] = one
    for kind, of_kind in kinds.items():
        known = _records(store, kind)
        if new := of_kind.keys() - {record.key for record in known}:
            now = time.time()
            kept = _last_ones([*known, *(_record(key, of_kind[key], now) for key in sorted(new))])
            with contextlib.suppress(OSError):
                store.write_document(f"{_FOLDER}/{kind}.json", [asdict(record) for record in kept], is_durable=False)


def _last_ones(records: list[_Record]) -> list[_Record]:
    """The newest of every shape and device, the oldest first."""
    num: Counter[tuple[str, str]] = Counter()
    kept = []
    for record in sorted(records, key=lambda r: r.at, reverse=True)[:_MOST_OF_KIND]:
        num[record.shape, record.device] += 1
        if num[record.shape, record.device] <= _MOST_OF_SHAPE:
            kept.append(record)
    return kept[::-1]


def _records(store: Store, kind: str) -> list[_Record]:
    document = store.read_document(f"{_FOLDER}/{kind}.json")
    found = (_parsed(entry) for entry in document) if isinstance(document, list) else ()
    return [record for record in found if record is not None]


def are_records(document: Any) -> bool:
    """Whether this is what is written of a class, and all of it can be read."""
    return isinstance(document, list) and all(_parsed(entry) is not None for entry in document)


def _parsed(entry: Any) -> _Record | None:
    try:
        record = parsed(_Record, entry)
    except OTHER_SHAPE:
        return None
    assert isinstance(record, _Record)
    return record


def _record(key: str, spent: Spent, at: float) -> _Record:
    cost = spent.cost
    return _Record(
        key, cost.cell, cost.shape, cost.device, cost.uses_gpu, cost.work_flop, spent.busy_s, spent.work_flop, at
    )


def _spent(kind: str, record: _Record) -> Spent:
    cost = Cost(kind, record.cell, record.uses_gpu, record.work_flop, record.shape, record.device)
    return Spent(cost, record.busy_s, record.own_flop)
