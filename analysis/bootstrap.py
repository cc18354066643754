"""How intervals are made, as data: what ``resampling.Resampling`` draws."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: number of resamples, images a block, two-sided confidence in (0, 1), seed."""

    num_samples: int = 2000
    block_length: int = 1
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.block_length < 1 or not 0 < self.confidence < 1:
            raise ValueError(f"{self}: num_samples and block_length must be at least 1, confidence in (0, 1)")
