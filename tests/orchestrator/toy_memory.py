"""A trainable that takes more memory than there is."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.api.trainable import Trainable, recorded


@dataclass(frozen=True)
class Eats(Trainable):
    """Takes ``size_bytes`` and keeps them for a while; with ``once``, at its first try only."""

    size_bytes: int = 3_000_000_000
    once: bool = recorded(False)
    log_path: Path = recorded(None)

    def run(self, context):
        tries = self.log_path.read_text().count("try") if self.log_path.exists() else 0
        with open(self.log_path, "a") as file:
            file.write("try\n")
        if not self.once or not tries:
            eaten = np.ones(self.size_bytes, dtype=np.uint8)
            time.sleep(60)
            return {"sum": float(eaten[0])}
        return {"sum": 1.0}
