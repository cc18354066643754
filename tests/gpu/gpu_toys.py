"""A trial that shows that another one has the GPU at the same time."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from trainables import runtime
from trainables.api.trainable import Trainable, recorded

_PATIENCE_S = 120


@dataclass(frozen=True)
class Meets(Trainable):
    """Waits until ``num`` of its kind are at work, then computes on the device that it was given."""

    number: int
    num: int = 2
    folder: Path = recorded(None)

    @property
    def uses_gpu(self):
        return True

    def run(self, context):
        (self.folder / str(self.number)).touch()
        until = time.monotonic() + _PATIENCE_S
        while (there := len(list(self.folder.iterdir()))) < self.num:
            if time.monotonic() > until:
                raise ValueError(f"{there} of {self.num} are at work at once")
            time.sleep(0.05)
        return {"sum": float(torch.ones(1000, device=runtime.device()).sum())}
