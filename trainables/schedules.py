"""Schedules: by what factor a rate is multiplied in the course of a training. Plain parts of a configuration.

A schedule that falls has to know where it ends. That is its horizon, ``schedule_epochs``, a number of its own beside
the length of the training: a training can stop before its horizon and go on later, on the same schedule.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from trainables.api.trainable import Part


class Schedule(Part, ABC):
    """A factor in [0, 1] over the epochs of a training. Subclasses are frozen dataclasses."""

    @property
    @abstractmethod
    def has_horizon(self) -> bool:
        """Whether the factors depend on where the schedule ends."""

    @abstractmethod
    def factor(self, epoch: float, schedule_epochs: int | None) -> float:
        """The factor at ``epoch``, counted from 0; steps within an epoch are its fractions.

        Args:
            schedule_epochs: the horizon; None where the schedule has none.
        """


@dataclass(frozen=True)
class Constant(Schedule):
    """The full rate throughout."""

    @property
    def has_horizon(self) -> bool:
        return False

    def factor(self, epoch: float, schedule_epochs: int | None) -> float:
        return 1.0


@dataclass(frozen=True)
class Cosine(Schedule):
    """From 1 towards 0 along half a cosine, which ends at the horizon (MoCo v2; Loshchilov & Hutter 2017)."""

    @property
    def has_horizon(self) -> bool:
        return True

    def factor(self, epoch: float, schedule_epochs: int | None) -> float:
        assert schedule_epochs is not None
        return 0.5 * (1 + math.cos(math.pi * epoch / schedule_epochs))


@dataclass(frozen=True)
class Polynomial(Schedule):
    """From 1 to 0 as a power of what is left, (1 - epoch / horizon) ** power (thesis 4.1.1; Chen et al. 2017,
    DeepLab)."""

    power: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.power < math.inf:
            raise ValueError(f"power = {self.power}: a positive number")

    @property
    def has_horizon(self) -> bool:
        return True

    def factor(self, epoch: float, schedule_epochs: int | None) -> float:
        assert schedule_epochs is not None
        return float((1 - epoch / schedule_epochs) ** self.power)


@dataclass(frozen=True)
class Warmup(Schedule):
    """From 0 to 1 on a straight line over the first epochs, then another schedule over those that are left (BYOL:
    Grill et al. 2020, section 3.3: 10 epochs, then the cosine)."""

    warmup_epochs: int
    then: Schedule = Cosine()

    def __post_init__(self) -> None:
        if self.warmup_epochs < 1:
            raise ValueError(f"warmup_epochs = {self.warmup_epochs}: at least 1; without warm-up take {self.then}")

    @property
    def has_horizon(self) -> bool:
        return self.then.has_horizon

    def factor(self, epoch: float, schedule_epochs: int | None) -> float:
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        left = None if schedule_epochs is None else schedule_epochs - self.warmup_epochs
        return self.then.factor(epoch - self.warmup_epochs, left)


@dataclass(frozen=True)
class Hold(Schedule):
    """1 over the first epochs, then another schedule over those that are left (BYOL-TracIn: Zeng et al. 2023, section
    4.1: 10 epochs, then the cosine)."""

    hold_epochs: int
    then: Schedule = Cosine()

    def __post_init__(self) -> None:
        if self.hold_epochs < 1:
            raise ValueError(f"hold_epochs = {self.hold_epochs}: at least 1; without take {self.then}")

    @property
    def has_horizon(self) -> bool:
        return self.then.has_horizon

    def factor(self, epoch: float, schedule_epochs: int | None) -> float:
        if epoch < self.hold_epochs:
            return 1.0
        left = None if schedule_epochs is None else schedule_epochs - self.hold_epochs
        return self.then.factor(epoch - self.hold_epochs, left)


def horizon(num_epochs: int, schedule_epochs: int | None, *schedules: Schedule) -> int | None:
    """What a training stores as its ``schedule_epochs`` when it is constructed.

    Without a schedule that has a horizon it is None, as it would change nothing and must not part results. Otherwise
    it is the number given, or the length of the training, and ``replace(num_epochs=...)`` keeps it.

    Raises:
        ValueError: the training is longer than its schedule.
    """
    if not any(schedule.has_horizon for schedule in schedules):
        return None
    if schedule_epochs is None:
        schedule_epochs = num_epochs
    if num_epochs > schedule_epochs:
        raise ValueError(
            f"num_epochs = {num_epochs} is longer than schedule_epochs = {schedule_epochs}, where the schedule ends: "
            f"give schedule_epochs={num_epochs} too, which is another training from its first epoch on, or plan the "
            "longest length as schedule_epochs from the beginning, or take Constant()"
        )
    for schedule in schedules:
        first = {"warmup_epochs": schedule.warmup_epochs} if isinstance(schedule, Warmup) else {}
        first |= {"hold_epochs": schedule.hold_epochs} if isinstance(schedule, Hold) else {}
        for name, epochs in first.items():
            if schedule.has_horizon and epochs >= schedule_epochs:
                raise ValueError(f"{name} = {epochs} takes all of schedule_epochs = {schedule_epochs}: take fewer")
    return schedule_epochs
