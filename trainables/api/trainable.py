"""What a trainable is: a frozen dataclass that is its own configuration and does its own work."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, cast, get_args, runtime_checkable

if TYPE_CHECKING:
    from trainables.api.context import Context

RECORDED_ONLY = "recorded_only"
UNHASHED_AT = "unhashed_at"
SEED = "seed"
GROWS = "grows"
Spreads = Literal["no", "items", "processes"]


class Part:
    """Base of everything that a configuration is made of: data sets, augmentations, methods, sweeps, sources.

    Subclasses are frozen dataclasses. Raise ``version`` of the class, or of the base that owns the meaning, when the
    same fields come to mean something else.
    """

    version: ClassVar[int] = 1
    family: ClassVar[str] = ""
    """Set by a base whose members share names with others: ``"sweep"`` tells its Rotation from the augmentation."""


P = TypeVar("P", bound=Part)


class Trainable(Part, ABC):
    """Anything that can be trained or measured. Subclasses are frozen dataclasses.

    The fields are the whole configuration, so they are also the identity of the result: two equal
    trainables share one result, for ever. A trainable that needs the outcome of another holds that
    other trainable in a field; it reads the outcome through ``context.result_dir(self.other)``.

    Raise ``version`` when the results of the same configuration change their meaning.
    """

    spreads: ClassVar[Spreads] = "no"
    """What several workers can share of ``run``: ``items``, what it does in ``context.map``; ``processes``, all of it,
    as ranks of ``runtime.world()``; or nothing."""
    exporter: ClassVar[str] = ""
    """A function ``package.module:function`` that gets the folder of a result and the file to write. It writes the
    model for other programs, and may return what a person has to know to load it. Empty: there is nothing to export."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.spreads not in get_args(Spreads):
            raise TypeError(f"{cls.__name__}.spreads = {cls.spreads!r}: expected one of {', '.join(get_args(Spreads))}")

    @abstractmethod
    def run(self, context: Context) -> Mapping[str, float]:
        """Do the work, write result files to ``context.output_dir`` and return the summary metrics.

        May be called again after a crash, with the last checkpoint and all finished items of
        ``context.map`` at hand.
        """

    @property
    def uses_gpu(self) -> bool:
        """Whether ``run`` computes on a GPU where there is one; without it a trial gets none."""
        return False

    @property
    def most_workers(self) -> int | None:
        """How many workers can share it at most; None for as many as one likes."""
        return None

    def check(self) -> None:
        """Look, before anything runs, whether the data can serve this configuration. Cheap: counts, no pixels.

        Raises:
            ValueError: naming the field, what the data allow, and what to do.
        """

    def work_flop(self) -> float:
        """Rough floating-point operations of ``run``; used for the cost estimate of a plan only."""
        return 0.0


@runtime_checkable
class ReadsFiles(Protocol):
    """A part of a configuration whose meaning lies in files: a data set, a file of weights.

    The content of these files, not their place on disk, enters the key. A part may say what of them counts, with a
    method ``content(digests) -> JSON``, from the SHA-256 of every file by name (a data set: the sorted list of id,
    split and digest); without it, all names and digests count.
    """

    def source_files(self) -> Mapping[str, Path]:
        """Every file that is read, by a name that does not depend on where the files lie."""


def changed(part: P, **fields: Any) -> P:
    """``dataclasses.replace``: a part with other fields. Also of what is only known to be some data set or region."""
    return cast(P, dataclasses.replace(cast(Any, part), **fields))


def recorded(default: Any = dataclasses.MISSING) -> Any:
    """A field that is recorded with the run and never hashed: a path, a number of processes."""
    return dataclasses.field(default=default, metadata={RECORDED_ONLY: True})


def added(default: Any, *, unhashed_at: Any) -> Any:
    """A field added later, which changes nothing at the value ``unhashed_at``.

    At that value it is left out of the key, so results from before the field stay valid.
    """
    return dataclasses.field(default=default, metadata={UNHASHED_AT: unhashed_at})


def seed(default: int = 0) -> Any:
    """A seed: hashed like any field, and known as such, so that a cell can gather the trials that differ by it only."""
    return dataclasses.field(default=default, metadata={SEED: True})


def grows(default: int) -> Any:
    """The length of a training. Trainables that are equal in all but it are one family: a longer one goes on from the
    published state of a shorter one, bitwise as if it had run through."""
    return dataclasses.field(default=default, metadata={GROWS: True})
