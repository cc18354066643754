"""Several workers of torch.distributed in processes of this machine, as the orchestrator starts them; over gloo."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from torch import distributed

_PATIENCE_S = 120
# Children of one server that has loaded everything begin at once; nothing of this process's threads is in them.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["torch.distributed", "torchvision", "trainables.ssl.moco", "fake_context", "workers"]
)


Answer = tuple[bytes, bytes | None, str]
"""What a worker's function gave, or the error that it raised and its text."""


class WorkerFailed(AssertionError):
    """Some workers raised."""

    def __init__(self, errors: dict[int, BaseException], texts: dict[int, str]) -> None:
        super().__init__("\n".join(texts.values()))
        self.errors = errors


def in_workers(
    size: int, function: Callable[..., Any], *arguments: Any, backend: str = "gloo", **named: Any
) -> list[Any]:
    """Call ``function(*arguments, **named)`` on each of ``size`` workers; what they return, in the order of ranks.

    Args:
        function: of a module that can be imported; returns what can be pickled.

    Raises:
        WorkerFailed: with what every worker raised that did; the others are stopped a while after the first of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        pipes = [_PROCESSES.Pipe(duplex=False) for _ in range(size)]
        processes = [
            _PROCESSES.Process(
                target=_serve, args=(rank, size, backend, folder, theirs, partial(function, *arguments, **named))
            )
            for rank, (_, theirs) in enumerate(pipes)
        ]
        for process, (_, theirs) in zip(processes, pipes, strict=True):
            process.start()
            theirs.close()
        try:
            answers = _answers([ours for ours, _ in pipes])
        finally:
            for process in processes:
                process.kill()  # whoever has answered is at its end
                process.join()
    errors = {rank: pickle.loads(error) for rank, (_, error, _) in answers.items() if error is not None}
    if errors or len(answers) < size:
        texts = {rank: f"worker {rank}: {text}" for rank, (_, error, text) in answers.items() if error is not None}
        raise WorkerFailed(errors, texts or {0: f"of {size} workers only {sorted(answers)} answered"})
    return [pickle.loads(answers[rank][0]) for rank in range(size)]


def _answers(connections: list[Connection]) -> dict[int, Answer]:
    """Of every worker that says something in time."""
    answers: dict[int, Answer] = {}
    waiting, patience_s = set(connections), float(_PATIENCE_S)
    while waiting and (ready := wait(list(waiting), timeout=patience_s)):
        for connection in ready:
            assert isinstance(connection, Connection)
            waiting.remove(connection)
            try:
                answer = connection.recv()
            except EOFError:
                patience_s = 2.0
                continue
            answers[connections.index(connection)] = answer
            if answer[1] is not None:
                patience_s = 2.0  # those that wait for it will wait for ever
    return answers


def _serve(rank: int, size: int, backend: str, folder: str, answer: Connection, work: Callable[[], Any]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    torch.set_num_threads(1)
    try:
        store = distributed.FileStore(str(Path(folder) / "store"), size)
        patience = datetime.timedelta(seconds=_PATIENCE_S)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
        # Plain pickling: through torch's own, tensors would lie in memory that is shared with a process that ends.
        answer.send((pickle.dumps(work()), None, ""))
    except BaseException as error:
        answer.send((b"", _pickled(error), traceback.format_exc()))
    # Nobody leaves before all have what they were sent.
    answer.close()
    wait([multiprocessing.parent_process().sentinel], timeout=_PATIENCE_S)  # type: ignore[union-attr]


def _pickled(error: BaseException) -> bytes:
    try:
        pickle.loads(content := pickle.dumps(error))
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return content
