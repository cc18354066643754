"""Trainables that cost nothing, for tests of everything around them."""

import errno
import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.api.trainable import Trainable, grows, recorded, seed


@dataclass(frozen=True)
class Count(Trainable):
    """Adds ``increment`` in every epoch, with a checkpoint after each; writes the sum."""

    exporter = "toy_exporter:export_sum"

    num_epochs: int = 3
    increment: int = 1
    upstream: Trainable | None = None
    epoch_s: float = recorded(0.0)
    die_in_epoch: int | None = recorded(None)  # SIGKILL, once
    log_path: Path | None = recorded(None)  # a line an epoch, to see from outside what was computed how often

    def run(self, context):
        total, start = 0, 0
        if (folder := context.load_checkpoint()) is not None:
            start, total = (int(v) for v in (folder / "state.txt").read_text().split())
        elif self.upstream is not None:
            total = int((context.result_dir(self.upstream) / "sum.txt").read_text())
        for epoch in range(start, self.num_epochs):
            time.sleep(self.epoch_s)
            self._note(f"epoch {epoch}")
            total += self.increment
            context.log({"train/sum": total}, step=epoch)
            context.report_progress(epoch + 1, self.num_epochs, "epochs")
            if epoch == self.die_in_epoch and not self._noted("died"):
                self._note("died")
                os.kill(os.getpid(), signal.SIGKILL)
            context.offer_checkpoint(lambda folder: (folder / "state.txt").write_text(f"{epoch + 1} {total}"))  # noqa: B023
        (context.output_dir / "sum.txt").write_text(str(total))
        (context.output_dir / "artifacts").mkdir()
        (context.output_dir / "artifacts" / "sum.csv").write_text(f"sum\n{total}\n")
        return {"sum": float(total)}

    def work_flop(self):
        return 1e6 * self.num_epochs

    def _note(self, line):
        if self.log_path:
            with open(self.log_path, "a") as file:
                file.write(line + "\n")

    def _noted(self, line):
        return bool(self.log_path) and line in Path(self.log_path).read_text().splitlines()


@dataclass(frozen=True)
class Grow(Trainable):
    """Adds the number of every epoch; a longer one goes on from a shorter one."""

    num_epochs: int = grows(3)
    factor: int = 1
    upstream: Trainable | None = None
    fail_at: int | None = recorded(None)  # a failure for good, in this epoch
    stop_at: int | None = recorded(None)  # an interruption, before this epoch
    log_path: Path | None = recorded(None)

    def run(self, context):
        start, total = 0, 0
        if (folder := context.load_checkpoint()) is not None:
            start, total = (int(v) for v in (folder / "state.txt").read_text().split())
        for epoch in range(start, self.num_epochs):
            if epoch == self.stop_at:
                raise KeyboardInterrupt
            if epoch == self.fail_at:
                raise ValueError(f"epoch {epoch} cannot be")
            if self.log_path:
                with open(self.log_path, "a") as file:
                    file.write(f"{self.num_epochs}: epoch {epoch}\n")
            total += self.factor * epoch
            context.log({"train/sum": total}, step=epoch)
            context.report_progress(epoch + 1, self.num_epochs, "epochs")
            context.offer_checkpoint(lambda folder: (folder / "state.txt").write_text(f"{epoch + 1} {total}"))  # noqa: B023
        context.save_state(lambda folder: (folder / "state.txt").write_text(f"{self.num_epochs} {total}"))
        context.log({"val/end": total}, step=self.num_epochs)  # after the state: the longer one logs its own
        (context.output_dir / "sum.txt").write_text(str(total))
        return {"sum": float(total)}

    def work_flop(self):
        return 1e6 * self.num_epochs


@dataclass(frozen=True)
class Climb(Trainable):
    """A training whose validation loss falls with its length, for every x in another way: curves cross."""

    x: float
    num_epochs: int = grows(3)
    seed: int = seed()
    fails_above: float = 1.0
    horizon: int = 0
    log_path: Path | None = recorded(None)

    def loss(self):
        return (self.x - 0.3) ** 2 + (1.2 - self.x) / self.num_epochs + 0.001 * self.seed

    def run(self, context):
        folder = context.load_checkpoint()
        start = int((folder / "state.txt").read_text()) if folder else 0
        if self.x > self.fails_above:
            raise ValueError(f"x = {self.x} is too large")
        if self.log_path:
            with open(self.log_path, "a") as file:
                file.writelines(f"{self.x} {self.seed} {epoch}\n" for epoch in range(start, self.num_epochs))
        context.save_state(lambda folder: (folder / "state.txt").write_text(str(self.num_epochs)))
        return {"val/loss": self.loss(), "val/size": self.x * self.num_epochs}

    def work_flop(self):
        return 1e6 * self.num_epochs


@dataclass(frozen=True)
class Judge(Trainable):
    """Measures a training: its own length is no part of it."""

    training: Climb
    strictness: float = 1.0

    def run(self, context):
        context.result_dir(self.training)
        return {"val/loss": self.training.loss() * self.strictness}

    def work_flop(self):
        return 5e6


@dataclass(frozen=True)
class Diverge(Trainable):
    """Logs NaN at step 2."""

    seed: int = 0

    def run(self, context):
        for step in range(5):
            context.log({"train/loss": math.nan if step == 2 else 1.0}, step)
        return {}


@dataclass(frozen=True)
class Misconfigured(Trainable):
    """Refuses its configuration when it runs."""

    size: int = -1
    upstream: Trainable | None = None

    def run(self, context):
        raise ValueError(f"size = {self.size}: expected at least 1")


@dataclass(frozen=True)
class Flaky(Trainable):
    """Fails with an error that another try may cure, until it was tried ``num_failures`` times."""

    num_failures: int
    log_path: Path = recorded(None)

    def run(self, context):
        with open(self.log_path, "a") as file:
            file.write("try\n")
        if len(self.log_path.read_text().splitlines()) <= self.num_failures:
            raise OSError("the network share went away")
        return {"tries": float(self.num_failures + 1)}


@dataclass(frozen=True)
class Fills(Trainable):
    """Finds its disk full as long as a file is there."""

    number: int = 0
    full: Path = recorded(None)

    def run(self, context):
        if self.full.exists():
            raise OSError(errno.ENOSPC, "No space left on device", str(self.full))
        return {"number": float(self.number)}


@dataclass(frozen=True)
class Starves(Trainable):
    """Has never memory enough."""

    batch_size: int = 64
    log_path: Path = recorded(None)

    def run(self, context):
        with open(self.log_path, "a") as file:
            file.write("try\n")
        raise MemoryError("too many images")


@dataclass(frozen=True)
class Mended(Trainable):
    """Fails for good until a file is there."""

    cure: Path = recorded(None)

    def run(self, context):
        if not self.cure.exists():
            raise ValueError("not mended yet")
        (context.output_dir / "sum.txt").write_text("5")
        return {"sum": 5.0}


@dataclass(frozen=True)
class Squares(Trainable):
    """Maps squaring over items; every computed item leaves a line."""

    spreads = "items"

    num_items: int = 10
    batch_size: int = 2
    item_s: float = recorded(0.0)
    die_at_item: int | None = recorded(None)
    log_path: Path | None = recorded(None)

    def run(self, context):
        results = context.map(self.square, list(range(self.num_items)), batch_size=self.batch_size)
        values = np.array([int(r["square"]) for r in results])
        np.save(context.output_dir / "squares.npy", values)
        for i, value in enumerate(values):
            context.log({"square": float(value)}, step=i)
        return {"total": float(values.sum())}

    def square(self, items):
        time.sleep(self.item_s * len(items))
        with open(self.log_path, "a") as file:
            file.writelines(f"item {item} by {os.getpid()}\n" for item in items)
        if self.die_at_item in items and "died" not in self.log_path.read_text():
            with open(self.log_path, "a") as file:
                file.write("died\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return [{"square": np.array(item * item)} for item in items]


@dataclass(frozen=True)
class ReadsText(Trainable):
    """Its meaning lies in a file."""

    path: Path = recorded(None)
    repeat: int = 1

    def source_files(self):
        return {"text": self.path}

    def run(self, context):
        return {"length": float(len(self.path.read_text()) * self.repeat)}


@dataclass(frozen=True)
class OnGpu(Count):
    """Computes on a GPU where there is one, it says."""

    uses_gpu = True


@dataclass(frozen=True)
class BadItems(Squares):
    """Refuses every item."""

    def square(self, items):
        raise ValueError(f"item {items[0]} is bad")


@dataclass(frozen=True)
class Bowl(Trainable):
    """A validation loss that is lowest at x = 0.3, y = "flat"."""

    x: float
    y: str = "flat"
    upstream: Trainable | None = None
    fails_above: float = 1.0
    seed: int = 0
    wait_s: float = recorded(0.0)
    log_path: Path | None = recorded(None)

    def run(self, context):
        time.sleep(self.wait_s)
        if self.log_path:
            with open(self.log_path, "a") as file:
                file.write(f"{self.x} {self.y} {self.seed}\n")
        if self.x > self.fails_above:
            raise ValueError(f"x = {self.x} is too large")
        loss = (self.x - 0.3) ** 2 + (self.y != "flat") + 0.001 * self.seed
        context.log({"val/loss": loss}, step=0)
        return {"val/loss": loss, "val/size": self.x, "test/loss": 0.0}
