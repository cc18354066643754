"""What a trainable may ask of whoever runs it. No Ray, no MLflow: the same on one core and on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from trainables.api.trainable import Part, ReadsFiles, Trainable

Item = TypeVar("Item")
Arrays = Mapping[str, np.ndarray[Any, Any]]


class Context(Protocol):
    """The world of one trial."""

    @property
    def output_dir(self) -> Path:
        """An empty local folder. What lies in it when ``run`` returns is published, whole or not at all.

        Files under ``output_dir / "artifacts"`` (figures, small tables) are shown in MLflow too.
        """

    @property
    def cache_dir(self) -> Path:
        """A node-local folder that other trials share and that may vanish between two trials."""

    @property
    def num_cpus(self) -> int:
        """How many CPU cores this trial may keep busy."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics (``split/name``) at an integer step.

        Raises:
            NonFiniteMetric: a value is NaN or infinite. The trial fails and is not retried.
        """

    def report_progress(self, done: float, total: float, unit: str) -> None:
        """Tell the live view how far the trial is: ``done`` of ``total`` ``unit``. Cheap; call it often."""

    def offer_checkpoint(self, write: Callable[[Path], None]) -> bool:
        """Offer to save the full state now; it is taken when the last checkpoint is old enough.

        ``write`` gets an empty local folder to put files into. Everything logged so far becomes part
        of the checkpoint. Returns whether the offer was taken.
        """

    def load_checkpoint(self) -> Path | None:
        """The folder of the furthest state there is, or None on a fresh start: the last whole checkpoint of this trial,
        or what a shorter training of its family left with ``save_state``."""

    def save_state(self, write: Callable[[Path], None]) -> None:
        """Publish, with the result and apart from its files, the full state after the last epoch, in the form of a
        checkpoint. Longer trainings of the family go on from it."""

    def key(self, part: Part) -> str:
        """Identity of a part of this trial's configuration; reads no file."""

    def digests(self, part: ReadsFiles) -> Mapping[str, str]:
        """SHA-256 of each file that a part of this trial's configuration reads, by name, as it was planned."""

    def result_dir(self, upstream: Trainable) -> Path:
        """The published files of a finished trial that this one holds in a field, on local disk."""

    def map(
        self,
        function: Callable[[Sequence[Item]], Sequence[Arrays]],
        items: Sequence[Item],
        *,
        batch_size: int = 1,
    ) -> list[Arrays]:
        """Apply ``function`` to the items, in batches of up to ``batch_size``; results in the items' order.

        Resume, parallelism and progress in one: the arrays of a finished item are kept, and after a
        crash only the others are computed. ``function`` must give the same arrays for an item whatever
        else is in its batch, and must be picklable by cloudpickle (it may run in another process).
        At most one call of ``map`` a trial.
        """
