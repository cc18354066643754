"""Trainables whose ranks add up in torch's process group, without any training."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from trainables.api.trainable import Trainable, recorded


@dataclass(frozen=True)
class Ranks(Trainable):
    """In every epoch the sum of all ranks' ``1``: whatever their number, once divided by it, the sum of epochs."""

    spreads = "processes"

    num_epochs: int = 3
    number: int = 0
    upstream: Trainable | None = None
    epoch_s: float = recorded(0.0)
    kill_rank: int | None = recorded(None)  # SIGKILL in epoch 1, once
    fail_rank: int | None = recorded(None)  # ValueError in epoch 1
    exit_rank: int | None = recorded(None)  # sys.exit in epoch 1
    kills_controller: bool = recorded(False)  # of Ray Train, in epoch 1, once
    log_path: Path = recorded(None)

    def run(self, context):
        import torch
        from torch import distributed

        size = distributed.get_world_size() if distributed.is_initialized() else 1
        rank = distributed.get_rank() if size > 1 else 0
        state = torch.zeros(2)
        if (folder := context.load_checkpoint()) is not None:
            state = torch.tensor([float(v) for v in (folder / "state.txt").read_text().split()])
        if size > 1:
            distributed.broadcast(state, 0)
        start, total = int(state[0]), float(state[1])
        for epoch in range(start, self.num_epochs):
            self.note(f"epoch {epoch} rank {rank} of {size} pid {os.getpid()}")
            time.sleep(self.epoch_s)
            self.disturb(epoch, rank)
            one = torch.ones(1)
            if size > 1:
                distributed.all_reduce(one)
            total += float(one) / size
            context.log({"train/sum": total}, step=epoch)
            context.report_progress(epoch + 1, self.num_epochs, "epochs")
            context.offer_checkpoint(lambda folder: (folder / "state.txt").write_text(f"{epoch + 1} {total}"))  # noqa: B023
        (context.output_dir / "sum.txt").write_text(f"{total} {rank}")
        return {"sum": total}

    def disturb(self, epoch, rank):
        if epoch == 1 and rank == 0 and self.kills_controller and "died" not in self.log_path.read_text():
            self.note("died")
            for process in Path("/proc").glob("[0-9]*"):
                # Of this Ray only: workers of one Ray have one parent, its raylet.
                is_mine = process.exists() and parent_of(process) == str(os.getppid())
                if is_mine and b"ray::TrainController" in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
            time.sleep(600)
        if epoch == 1 and rank == self.fail_rank:
            raise ValueError(f"rank {rank} cannot go on")
        if epoch == 1 and rank == self.exit_rank:
            raise SystemExit(7)
        if epoch == 1 and rank == self.kill_rank and "died" not in self.log_path.read_text():
            self.note("died")
            os.kill(os.getpid(), signal.SIGKILL)

    def note(self, line):
        with open(self.log_path, "a") as file:
            file.write(line + "\n")


def parent_of(process):
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return ""
