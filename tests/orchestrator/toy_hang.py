"""A toy that hangs in C code which never lets go of the interpreter."""

import ctypes
from dataclasses import dataclass
from pathlib import Path

from orchestrator import time_limit
from trainables.api.trainable import Trainable, recorded

time_limit.C_CODE_MARGIN_S = 1.0  # also in Ray's workers, which import this file


@dataclass(frozen=True)
class Hangs(Trainable):
    """Notes that it began, and hangs."""

    log_path: Path = recorded()

    def run(self, context):
        with self.log_path.open("a") as file:
            file.write("began\n")
        ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the lock
        return {"value": 1.0}
