"""The processes that share a training: those of torch.distributed, or this one alone.

A batch of the whole world is split by one rule, ``World.part``: contiguous, in the order of ranks, the first parts one
longer where it does not come out even. Alone, every operation gives back what it was given.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor, distributed, nn

_CHUNK_BYTES = 64 << 20

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """This process's place among the workers, and what they do together.

    Every worker has to call the same operations in the same order. What they give is the same on all of them, bit by
    bit. Tensors may lie on any device: what the backend cannot send from there goes through the other memory.
    """

    rank: int = 0
    size: int = 1
    sent_from: frozenset[str] = frozenset()
    """Types of device whose tensors the backend sends as they lie."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def parts(self, num: int) -> list[slice]:
        """How ``num`` things are shared out, a slice for each worker, in order."""
        shortest, num_longer = divmod(num, self.size)
        starts = [rank * shortest + min(rank, num_longer) for rank in range(self.size + 1)]
        return [slice(start, stop) for start, stop in pairwise(starts)]

    def part(self, num: int) -> slice:
        """What of ``num`` things is this worker's."""
        return self.parts(num)[self.rank]

    def gather(self, rows: Tensor, num_rows: int) -> Tensor:
        """All ``num_rows`` rows [N, ...], from every worker's ``part`` of them. Takes no gradient.

        Raises:
            ValueError: another number of rows than this worker's part.
        """
        if self.size == 1:
            return rows
        lengths = [part.stop - part.start for part in self.parts(num_rows)]
        if len(rows) != lengths[self.rank]:
            raise ValueError(
                f"worker {self.rank} of {self.size} has {len(rows)} of {num_rows} rows: expected {lengths[self.rank]}, "
                "its part of them"
            )
        sent = self._for_sending(rows)
        padded = sent.new_zeros((max(lengths), *sent.shape[1:]))
        padded[: len(sent)] = sent
        received = [torch.empty_like(padded) for _ in lengths]
        distributed.all_gather(received, padded)
        whole = torch.cat([each[:length] for each, length in zip(received, lengths, strict=True)])
        return whole.to(rows.device)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all workers, a new tensor. Takes no gradient."""
        if self.size == 1:
            return tensor
        total = self._for_sending(tensor)
        distributed.all_reduce(total)
        return total.to(tensor.device)

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all workers, a new tensor. Takes no gradient."""
        return tensor if self.size == 1 else self.sum(tensor) / self.size

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over all workers: one transfer for each dtype."""
        if self.size > 1:
            _in_one(list(tensors), self.mean)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all workers: one transfer for each dtype.

        A loss that is a mean over the whole batch is, on each worker, its images' mean times their share of the batch;
        then the sum is the gradient of one worker, whether or not the parts are even.
        """
        if self.size > 1:
            _in_one([p.grad for p in parameters if p.grad is not None], self.sum)

    def share(self, value: Value) -> Value:
        """The first worker's value, for all: anything that can be pickled."""
        if self.size == 1:
            return value
        values = [value if self.is_first else None]
        distributed.broadcast_object_list(values, src=0, device=self._sending_device())
        return cast(Value, values[0])

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What ``make`` gives on the first worker, for all; nobody else calls it. What it raises, all raise."""
        if self.size == 1:
            return make()
        outcome: tuple[Value | None, Exception | None] = (None, None)
        if self.is_first:
            try:
                outcome = (make(), None)
            except Exception as error:
                self.share((None, _portable(error)))
                raise
        value, raised = self.share(outcome)
        if raised is not None:
            raise raised
        return cast(Value, value)

    def share_state(self, network: nn.Module) -> None:
        """Give the first worker's parameters and buffers to the networks of all."""
        if self.size > 1:
            _in_one(
                [tensor for tensor in network.state_dict().values() if isinstance(tensor, Tensor)], self._from_first
            )

    def share_folder(self, folder: Path | None, into: Path) -> Path | None:
        """The first worker's folder, for all: it keeps its own, the others get its files copied to ``into``.

        None where the first has none; what the others give as ``folder`` does not count.
        """
        if self.size == 1:
            return folder
        sizes = self.from_first(lambda: _sizes(folder) if folder is not None else None)
        if sizes is None:
            return None
        for name, num_bytes in sizes.items():
            if self.is_first:
                assert folder is not None
                self._send_file(folder / name, num_bytes)
            else:
                self._receive_file(into / name, num_bytes)
        return folder if self.is_first else into

    def _send_file(self, path: Path, num_bytes: int) -> None:
        with path.open("rb") as file:
            for start in range(0, num_bytes, _CHUNK_BYTES):
                content = bytearray(file.read(min(_CHUNK_BYTES, num_bytes - start)))
                self._from_first(torch.frombuffer(content, dtype=torch.uint8))

    def _receive_file(self, path: Path, num_bytes: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for start in range(0, num_bytes, _CHUNK_BYTES):
                room = torch.empty(min(_CHUNK_BYTES, num_bytes - start), dtype=torch.uint8)
                file.write(self._from_first(room).numpy().tobytes())

    def _from_first(self, tensor: Tensor) -> Tensor:
        sent = self._for_sending(tensor)
        distributed.broadcast(sent, src=0)
        return sent.to(tensor.device)

    def _for_sending(self, tensor: Tensor) -> Tensor:
        """A copy of its own, in one piece of memory that the backend reads."""
        device = tensor.device if tensor.device.type in self.sent_from else self._sending_device()
        return tensor.detach().to(device, copy=True, memory_format=torch.contiguous_format)

    def _sending_device(self) -> torch.device:
        return torch.device("cpu") if "cpu" in self.sent_from else own_gpu(self.rank)


_ALONE = World()


def current_world() -> World:
    """See ``runtime.world``."""
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return _ALONE
    return World(distributed.get_rank(), distributed.get_world_size(), _sent_from(distributed.get_backend_config()))


def _sent_from(backends: str) -> frozenset[str]:
    """The devices whose tensors are sent as they lie, of a configuration such as ``cpu:gloo,cuda:nccl``.

    gloo sends from a GPU in some operations and refuses others: its tensors go through the host.
    """
    by_device = dict(pair.split(":") for pair in backends.split(","))
    return frozenset(device for device, backend in by_device.items() if device == "cpu" or backend == "nccl")


def own_gpu(rank: int) -> torch.device:
    """The GPU of a worker: that of its place on its machine, among those that it sees; in turn where they are fewer."""
    local_rank = int(os.environ.get("LOCAL_RANK", rank))
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def _in_one(tensors: list[Tensor], transfer: Callable[[Tensor], Tensor]) -> None:
    """Replace the tensors by what ``transfer`` makes of all of one dtype and device, put in a row."""
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for group in groups.values():
        row = transfer(torch.cat([tensor.detach().reshape(-1) for tensor in group]))
        parts = torch.split(row, [tensor.numel() for tensor in group])
        with torch.no_grad():
            for tensor, part in zip(group, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _portable(error: Exception) -> Exception:
    """The error itself where it survives being pickled, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
