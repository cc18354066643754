"""The one loop of all trainings: resume or begin, an epoch, log, checkpoint, and at the end the state to grow from.

    training = MyTraining(config, ...)
    metrics = train(training, config.num_epochs, context)

A training that was killed and resumed, or that goes on from a shorter one of its family, ends bitwise as one that ran
through: what an epoch does follows from the saved state and the number of the epoch alone.

Several workers (``runtime.world``) run the loop in step. Where they begin, and whether metrics are finite, is the first
worker's to say, so that none waits for one that has stopped; it alone has a context that keeps anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from torch import Tensor

from trainables import runtime
from trainables.api.context import Context
from trainables.api.errors import NonFiniteMetric
from trainables.world import World

_LOOP_FILE = "training.json"


class Training(Protocol):
    """What a method does in its training; the loop does the rest."""

    def begin(self) -> None:
        """What only a training from its first epoch on does: take weights to start from, fill a queue.

        Files that are not in ``context.cache_dir`` may be on the first worker's machine only.
        """

    def train_epoch(self, epoch: int, context: Context) -> Mapping[str, float]:
        """One epoch, counted from 0; returns its metrics. Reports progress within the epoch.

        Afterwards the state is the same on all workers, and the metrics are those of all.
        """

    def validate(self) -> Mapping[str, float]:
        """Metrics of the state after an epoch, which it leaves as it is."""

    def weights(self) -> Mapping[str, Tensor]:
        """What will be published, to be finite at the end."""

    def save(self, folder: Path) -> None:
        """The full state after a whole epoch. The first worker alone is asked to: it waits for no other here."""

    def restore(self, folder: Path) -> None:
        """Continue from what ``save`` wrote, instead of ``begin``."""


@dataclass(frozen=True)
class _Loop:
    """Where a training stands, saved beside its state."""

    num_threads: int
    """Sums in float32 depend on it, so a training keeps the number that it began with, wherever it goes on."""
    epochs_done: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)

    def save(self, training: Training, folder: Path) -> None:
        training.save(folder)
        (folder / _LOOP_FILE).write_text(json.dumps(asdict(self)))


def train(training: Training, num_epochs: int, context: Context) -> Mapping[str, float]:
    """Train until ``num_epochs`` epochs are done; returns the metrics of the last, which are logged under their number.

    Begins where the furthest state lies that ``context`` has. Leaves the final state for longer trainings.

    Raises:
        NonFiniteMetric: the training diverged.
        ValueError: the state is of a longer training.
    """
    world = runtime.world()
    loop = _begin_or_resume(training, context, world)
    if loop.epochs_done > num_epochs:
        raise ValueError(f"the state that was found has {loop.epochs_done} epochs, and {num_epochs} were asked for")
    for epoch in range(loop.epochs_done, num_epochs):
        metrics = world.share({**training.train_epoch(epoch, context), **training.validate()})
        _check_finite(metrics, epoch + 1)  # on every worker: the context of the first alone looks at what is logged
        context.log(metrics, step=epoch + 1)
        loop = _Loop(loop.num_threads, epoch + 1, metrics)
        context.offer_checkpoint(lambda folder, loop=loop: loop.save(training, folder))  # type: ignore[misc]
    is_finite = all(bool(tensor.isfinite().all()) for tensor in training.weights().values())
    if not world.share(is_finite):
        raise NonFiniteMetric("weights", math.nan, num_epochs)  # the last step is in no metric
    context.save_state(lambda folder: loop.save(training, folder))
    return loop.metrics


def _begin_or_resume(training: Training, context: Context, world: World) -> _Loop:
    runtime.keep_freed_memory()
    with TemporaryDirectory(dir=context.output_dir) as scratch:
        checkpoint = world.share_folder(context.load_checkpoint(), Path(scratch))
        if checkpoint is not None:
            loop = _Loop(**json.loads((checkpoint / _LOOP_FILE).read_text()))
            runtime.use_cores(loop.num_threads)
            training.restore(checkpoint)
            return loop
    loop = _Loop(num_threads=context.num_cpus)
    runtime.use_cores(loop.num_threads)
    training.begin()
    return loop


def _check_finite(metrics: Mapping[str, float], step: int) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise NonFiniteMetric(name, value, step)
