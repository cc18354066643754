"""Slots that nobody waits for: drivers say so, and trials that spread their items over workers borrow them.

The word lies in Ray's own key-value store, a key for each driver's job: no process has to serve it, and it goes with
the cluster. A driver repeats it with a number that rises; one that does so no longer is gone, and its word with it.
"""

from __future__ import annotations

import itertools
import time

import ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list, _internal_kv_put

from orchestrator.resources import Amount

_NAMESPACE = "quarterturn"
_PREFIX = b"idle-"
SAID_EVERY_S = 5.0
_GONE_AFTER_S = 30.0
_beats = itertools.count()


def announce(is_idle: bool) -> None:
    """For the driver: whether all trials that are ready run, so that free slots stay free. To be repeated."""
    said = f"{next(_beats)} {int(is_idle)}"
    _internal_kv_put(_own_key(), said.encode(), overwrite=True, namespace=_NAMESPACE)


class Word:
    """For trials: what the drivers of the cluster say."""

    def __init__(self) -> None:
        self._heard: dict[bytes, tuple[bytes, float]] = {}  # what was said, and since when on this process's clock

    def is_idle(self) -> bool:
        """Whether nobody waits for a slot, as the own driver and all others that are there say."""
        now, own = time.monotonic(), _own_key()
        said = {key: _internal_kv_get(key, namespace=_NAMESPACE) for key in self._keys()}
        for key, word in said.items():
            if word is not None and self._heard.get(key, (b"", 0.0))[0] != word:
                self._heard[key] = word, now
        there = {key: word for key, (word, since) in self._heard.items() if now - since < _GONE_AFTER_S}
        return own in there and all(word.endswith(b" 1") for word in there.values())

    @staticmethod
    def _keys() -> list[bytes]:
        return list(_internal_kv_list(_PREFIX, namespace=_NAMESPACE))


def has_room(amount: Amount) -> bool:
    """Whether the cluster has so much free now."""
    free = ray.available_resources()
    return Amount(free.get("CPU", 0.0), free.get("GPU", 0.0)).holds(amount)


def _own_key() -> bytes:
    job: str = ray.get_runtime_context().get_job_id()
    return _PREFIX + job.encode()
