"""Counts requests to the store and writes to MLflow, in every process that begins with this folder on PYTHONPATH.

Driver, feeder and trials are processes of their own. Each writes its counts, as they are, to a file of its own below
the folder that ``QUARTERTURN_COUNTS`` names; without it nothing is counted.
"""

import functools
import importlib.abc
import importlib.machinery
import os
import struct
import sys

KINDS = ("store requests", "MLflow writes")
_STORE = (
    "read_bytes", "write_bytes", "create_document", "take_away", "remove", "exists", "names", "_sizes", "_put", "_get",
)  # fmt: skip
_MLFLOW = (
    "create_run", "log_batch", "log_inputs", "set_terminated", "update_run", "delete_run", "set_experiment_tag",
)  # fmt: skip
# Module -> the class in it, its methods that are counted, and as what.
_COUNTED = {
    "orchestrator.storage": ("Storage", _STORE, 0),
    "orchestrator.experiment": ("MlflowClient", _MLFLOW, 1),
}


class _Counts:
    """The counts of this process, in its file from the first on."""

    def __init__(self, folder):
        self._folder, self._pid, self._file, self._numbers = folder, None, -1, [0] * len(KINDS)

    def add(self, kind):
        if self._pid != os.getpid():  # the first, or forked
            self._pid, self._numbers = os.getpid(), [0] * len(KINDS)
            self._file = os.open(f"{self._folder}/{self._pid}", os.O_WRONLY | os.O_CREAT)
        self._numbers[kind] += 1
        os.pwrite(self._file, struct.pack(f"<{len(KINDS)}q", *self._numbers), 0)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules with something to count, and counts in them."""

    def __init__(self, counts):
        self._counts = counts

    def find_spec(self, name, path, target=None):
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name in _COUNTED else None
        if spec is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                owner, methods, kind = _COUNTED[name]
                for method in methods:
                    self._count(getattr(module, owner), method, kind)

            spec.loader.exec_module = exec_module
        return spec

    def _count(self, owner, method, kind):
        given, add = getattr(owner, method), self._counts.add

        @functools.wraps(given)
        def counted(*values, **named):
            add(kind)
            return given(*values, **named)

        setattr(owner, method, counted)


def counted(folder):
    """What all processes have counted, by kind."""
    totals = [0] * len(KINDS)
    for entry in os.scandir(folder):
        with open(entry.path, "rb") as file:
            numbers = struct.unpack(f"<{len(KINDS)}q", file.read())
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
    return dict(zip(KINDS, totals, strict=True))


if "QUARTERTURN_COUNTS" in os.environ:
    sys.meta_path.insert(0, _Finder(_Counts(os.environ["QUARTERTURN_COUNTS"])))
