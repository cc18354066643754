"""Slots that nobody waits for: the driver says so, and trials that spread their items over workers borrow them.

The word lies in Ray's own key-value store, under the driver's job: no process has to serve it, and it goes with the
cluster.
"""

from __future__ import annotations

import ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

from orchestrator.resources import Amount

_NAMESPACE = "quarterturn"


def announce(is_idle: bool) -> None:
    """For the driver: whether all trials that are ready run, so that free slots stay free."""
    _internal_kv_put(_key(), b"1" if is_idle else b"0", overwrite=True, namespace=_NAMESPACE)


def is_announced() -> bool:
    """For trials: whether nobody waits for a slot."""
    return bool(_internal_kv_get(_key(), namespace=_NAMESPACE) == b"1")


def has_room(amount: Amount) -> bool:
    """Whether the cluster has so much free now."""
    free = ray.available_resources()
    return Amount(free.get("CPU", 0.0), free.get("GPU", 0.0)).holds(amount)


def _key() -> str:
    return f"idle-{ray.get_runtime_context().get_job_id()}"
