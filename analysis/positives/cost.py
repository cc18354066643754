"""What a pretraining cost: seconds of work, as the results record it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from analysis.positives.evidence import LabelledSet, pretrain_seed
from analysis.results import Entry
from orchestrator.store import Result

CORE_SECONDS, GPU_SECONDS = "core-seconds", "GPU-seconds"
UNITS = (CORE_SECONDS, GPU_SECONDS)

Work = Mapping[str, float]
"""Unit -> seconds."""


def pretraining_work(found: LabelledSet, role: str) -> tuple[Work, Work] | None:
    """Of the first pretraining of a way, its own work, and that with the pretrainings that it is made from: the model
    that chooses for it. None for a random start, and while a part of it has no result."""
    entry = _first(found, role)
    if entry is None:
        return None
    by_key = {trial["key"]: trial for trial in found.results.manifest["trials"]}
    classifiers = [by_key[key] for key in entry["upstream"] if key in by_key]
    own = {key for classifier in classifiers for key in classifier["upstream"]}
    works = {key: _work(found, key) for key in own | _before(own, by_key)}
    known = {key: work for key, work in works.items() if work is not None}
    if not own or len(known) < len(works):
        return None
    return _sum(known[key] for key in own), _sum(known.values())


def _first(found: LabelledSet, role: str) -> Entry | None:
    """A trial on the first pretraining of a way."""
    rows = [row for row in found.rows if row.role == role]
    entries = [entry for row in rows for entry in [*row.cell.done, *(entry for entry, _ in row.cell.missing)]]
    return next((entry for entry in entries if pretrain_seed(entry) == 0), None)


def _before(keys: set[str], by_key: Mapping[str, Entry]) -> set[str]:
    """Whatever trials are made from, however far up."""
    above = {key for trial in keys if trial in by_key for key in by_key[trial]["upstream"]}
    return above | _before(above, by_key) if above else set()


def _work(found: LabelledSet, key: str) -> Work | None:
    """Of a training and of the shorter ones that it went on from; None where one of them has no result."""
    result = found.results.results.get(key) or found.results.store.result(key)
    if result is None or "device" not in result.provenance:
        return None
    own = _own_work(result)
    if result.continued_from is None:
        return own
    before = _work(found, result.continued_from.key)
    return None if before is None else _sum([own, before])


def _own_work(result: Result) -> Work:
    """``busy_s`` is summed over workers, each of which has a GPU, or as many cores as it has threads."""
    if result.provenance["device"] != "cpu":
        return {GPU_SECONDS: result.busy_s}
    return {CORE_SECONDS: result.busy_s * int(result.provenance.get("threads", 1))}


def _sum(works: Iterable[Work]) -> Work:
    total: dict[str, float] = {}
    for work in works:
        total |= {unit: total.get(unit, 0.0) + seconds for unit, seconds in work.items()}
    return total
