"""A row of the table of faults."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from world import World

ALL = 1000  # more than there are
# Fewer for a quick look; the promise is made for the full number.
_MOST_TIMES = int(os.environ.get("FAULT_TIMES") or ALL)
NewWorld = Callable[..., World]


@dataclass(frozen=True)
class Fault:
    """What is done to a study, how often, and what its user reads of it."""

    name: str
    full_times: int
    play: Callable[[NewWorld, Random, int], None]
    """Does it so many times, at moments that a seed decides, to studies that have ended in the end."""
    says: tuple[str, ...] = ()
    """Patterns of what the user reads, each of them somewhere in the output."""

    @property
    def times(self) -> int:
        """How often it is done."""
        return min(self.full_times, _MOST_TIMES)


def at_a_moment(world: World, driver, condition, moments: Random, within_s: float) -> None:
    """Wait for a condition, which has to come while the driver runs, and a random while longer."""
    assert world.wait(driver, condition), world.output
    time.sleep(moments.uniform(0.0, within_s))
