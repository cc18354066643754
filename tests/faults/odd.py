"""A trainable that misbehaves as a file beside its log says, until the file is gone."""

import math
import os
import sys
import time
from dataclasses import dataclass

import numpy as np
from toy import Count

_STEP_BYTES = 200_000_000
_MOST_STEPS = 40


@dataclass(frozen=True)
class Odd(Count):
    """Counts, unless `<log>.does` says otherwise."""

    def run(self, context):
        does = self.log_path.with_suffix(".does")
        with self.log_path.with_suffix(".tries").open("a") as file:
            file.write("try\n")
        if not does.exists():
            return super().run(context)
        return getattr(self, does.read_text())(context)

    def logs_nan(self, context):
        context.log({"train/sum": math.nan}, step=0)

    def returns_none(self, context):
        return None

    def calls_exit(self, context):
        sys.exit(3)

    def ends_its_process(self, context):
        os._exit(3)

    def carries_weight(self, context):
        """Counts, and its checkpoints are long on their way to the store."""
        offer = context.offer_checkpoint

        def offer_weight(write):
            def both(folder):
                write(folder)
                (folder / "weight").write_bytes(bytes(_STEP_BYTES))

            time.sleep(1.5)
            return offer(both)

        context.offer_checkpoint = offer_weight
        return super().run(context)

    def hangs(self, context):
        time.sleep(600)

    def eats(self, context):
        """Takes memory until it is killed, at its first try only."""
        self.log_path.with_suffix(".does").unlink()
        eaten = []
        for _ in range(_MOST_STEPS):
            eaten.append(np.ones(_STEP_BYTES, dtype=np.uint8))
            time.sleep(0.1)
        time.sleep(60)
