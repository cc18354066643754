"""The Ray cluster of one submission: connected to or started, what it has, and whether it is alive."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# Tune reads these when it is imported. No logger files of its own: the journal is the record. No strict check of a
# searched metric: nothing is searched by metric here. Many pending trials, or slots stay empty (one is the default).
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A trial that asked for no GPU sees none, or all trials of a machine would meet on one.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
# Trials keep the driver's working folder: a relative path means the same in both.
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "16")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "600")

import ray
import yaml

from orchestrator.resources import Amount, Capacity, Demand, demand_of
from orchestrator.study import Resources
from orchestrator.usage import EXIT_INTERRUPTED, UsageError
from trainables.api.trainable import Trainable

# Nodes whose type has a name are an autoscaler's: that of `ray up`, which leaves the file on the head, or of KubeRay.
_NODE_TYPE = "ray.io/node-group"
_BOOTSTRAP = Path(os.path.expanduser("~/ray_bootstrap_config.yaml"))  # as it stands for a user without a home
_LOOK_S = 2.0
_MOST_MISSED = 3
_ENDS_WITHIN_S = 20.0
_MESSAGE = "Ray on this machine is gone (its raylet died). The same command goes on where this one stopped."


class Cluster:
    """A connection to Ray for one submission: an existing cluster, or one started here and shut down at the end."""

    def __init__(self, address: str | None) -> None:
        """``address`` (or ``RAY_ADDRESS``) names a cluster; without either, Ray starts on this machine.

        Raises ValueError for an address that takes jobs only; entering the context, UsageError for one that is none, or
        where nothing answers.
        """
        self._address = address or os.environ.get("RAY_ADDRESS") or "local"

        if self._address.startswith(("http://", "https://", "ray://")):
            raise ValueError(
                f"the Ray address {self._address!r} takes jobs only; submit with `ray job submit --address "
                f"{self._address} -- python studies/<study>.py`, or unset RAY_ADDRESS to run on this machine"
            )

    def __enter__(self) -> Cluster:
        arguments: dict[str, Any] = {"include_dashboard": False} if self._address == "local" else {}
        try:
            ray.init(
                address=self._address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
                **arguments,
            )
        except (ConnectionError, ValueError) as error:
            raise UsageError(
                f"no Ray cluster answers at {self._address!r}: {error}. Start one with `ray start --head`"
            ) from error
        return self

    def __exit__(self, *exception: object) -> None:
        ray.shutdown()


def resources_for(trainables: Sequence[Trainable], *, cpus: float, gpus: float | None, workers: int) -> Resources:
    """What one worker of a trial gets on the connected cluster; ``gpus=None`` is one where the cluster has any.

    Raises ValueError, which names the flag to change, when the cluster can never hold a trial: when it does not grow,
    or grows by nodes that are known and too small; and when it may grow by GPUs and it is not said whether to wait.
    """
    has = capacity()
    if gpus is None and has.can_grow and has.total.gpus < 1 and any(t.uses_gpu for t in trainables):
        raise ValueError(
            "trials of this study compute on a GPU, and the cluster shows none now and may grow: say "
            "--gpus-per-trial 1 to wait for nodes with GPUs, or --gpus-per-trial 0 to compute on CPUs"
        )
    if gpus is None:
        gpus = 1.0 if has.total.gpus >= 1 else 0.0
    resources = Resources(cpus, gpus, workers)
    demands = {demand_of(trainable, resources) for trainable in trainables}
    too_large = [demand for demand in demands if not _may_hold(has, demand)]
    if too_large:
        largest = max(too_large, key=lambda demand: (demand.total.cpus, demand.total.gpus))
        grows = f", and grows by {_words_of_nodes(node_types())}" if has.can_grow else ""
        raise ValueError(
            f"a trial asks for {words_of_demand(largest)}, and the cluster has {_words_of_nodes(has.nodes)}{grows}: "
            "lower --workers-per-trial or --gpus-per-trial"
        )
    return resources


def _may_hold(has: Capacity, demand: Demand) -> bool:
    """Whether the cluster holds a trial, or may come to; where nobody knows what it grows by, it may."""
    if has.can_hold(demand):
        return True
    types = node_types()
    return has.can_grow and (not types or any(Capacity((node,)).can_hold(Demand(demand.worker)) for node in types))


def node_types() -> tuple[Amount, ...]:
    """What nodes a cluster of `ray up` grows by, as the file on its head says; empty where that is not known."""
    try:
        described = yaml.safe_load(_BOOTSTRAP.read_text())
        types = described["available_node_types"].values()
        offered = [node["resources"] for node in types if node.get("max_workers", 1)]
        return tuple(Amount(float(node.get("CPU", 0)), float(node.get("GPU", 0))) for node in offered)
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        return ()


def what_lacks(demand: Demand) -> str:
    """Why a trial waits on and on, where none of the nodes that are there could hold it; empty where one could."""
    if capacity().can_hold(demand):
        return ""
    return f"none of the nodes that are there has the {words_of_demand(demand)} of a trial"


def nodes_alive() -> set[str]:
    """Ids of the nodes of the connected cluster."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def capacity() -> Capacity:
    """What the connected cluster has, as of a second ago at most: it is asked at every step of Tune."""
    return _capacity_in(int(time.monotonic()))


@functools.lru_cache(maxsize=1)
def _capacity_in(second: int) -> Capacity:
    nodes = [node for node in ray.nodes() if node["Alive"]]
    offered = [node["Resources"] for node in nodes]
    amounts = tuple(Amount(resources.get("CPU", 0.0), resources.get("GPU", 0.0)) for resources in offered)
    return Capacity(amounts, can_grow=any(_NODE_TYPE in node["Labels"] for node in nodes) or _BOOTSTRAP.exists())


def words_of_demand(demand: Demand) -> str:
    """What a trial holds, for people: ``2 times 4 CPU with 1 GPU``."""
    workers = f"{demand.num_workers} times " if demand.num_workers > 1 else ""
    return workers + _words_of(demand.worker)


def _words_of_nodes(nodes: Sequence[Amount]) -> str:
    return " and ".join(map(_words_of, nodes)) or "no nodes"


def _words_of(amount: Amount) -> str:
    return f"{amount.cpus:g} CPU" + (f" with {amount.gpus:g} GPU" if amount.gpus else "")


@contextlib.contextmanager
def watched_node() -> Iterator[threading.Event]:
    """End the block as Ctrl-C does when the Ray node of this process dies; the event tells that it did.

    Tune would wait for ever for actors that nobody runs any more. What does not end in order then ends at once.
    """
    node_id, is_over, is_lost = ray.get_runtime_context().get_node_id(), threading.Event(), threading.Event()

    def watch() -> None:
        missed = 0
        while missed < _MOST_MISSED:  # a cluster that is slow to answer is not dead
            if is_over.wait(_LOOK_S):
                return
            missed = 0 if _is_alive(node_id) else missed + 1
        is_lost.set()
        print(f"error: {_MESSAGE}", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGINT)
        if not is_over.wait(_ENDS_WITHIN_S):
            os._exit(EXIT_INTERRUPTED)

    threading.Thread(target=watch, name="node watch", daemon=True).start()
    try:
        yield is_lost
    finally:
        is_over.set()


def _is_alive(node_id: str) -> bool:
    try:
        return any(node["Alive"] for node in ray.nodes() if node["NodeID"] == node_id)
    except Exception:  # whatever a connection to nothing raises
        return False
