"""Decoding many records with all cores of the machine, and gathering what is wrong with them.

Decoding is zlib, JPEG and NumPy, which leave Python's lock, so threads do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby
from typing import Any

from trainables.api.errors import BadData
from trainables.data import reading

ReportProgress = Callable[[float, float, str], None]
Problems = dict[int, dict[str, str]]
"""By row: the unusable files with the reasons."""

_MOST_ROWS_PER_TASK = 64


def decode_rows(
    files: Mapping[int, str],
    decode: Callable[[int], Any],
    digests: Mapping[str, str],
    report_progress: ReportProgress | None = None,
) -> Problems:
    """Call ``decode`` for every row, from several threads; returns what it found wrong.

    Args:
        files: name of the file of each row. Neighbours in one file (slices of a volume) stay on one thread, which may
            keep the volume.
        digests: planned SHA-256 by name of file; a file that differs is a problem of its rows.
        report_progress: called with (done, total, "images").
    """

    def decode_together(rows: Sequence[int]) -> Problems:
        problems: Problems = {}
        with reading.planned(digests):
            for row in rows:
                try:
                    decode(row)
                except BadData as error:
                    problems[row] = error.problems
        return problems

    problems: Problems = {}
    with ThreadPoolExecutor(num_cores()) as pool:
        futures = {pool.submit(decode_together, rows): len(rows) for rows in _tasks(files)}
        done = 0
        try:
            for future in as_completed(futures):
                problems.update(future.result())
                done += futures[future]
                if report_progress is not None:
                    report_progress(done, len(files), "images")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return dict(sorted(problems.items()))


def num_cores() -> int:
    """Cores that this process may use: those of the machine, not those of its trial."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tasks(files: Mapping[int, str]) -> Iterator[list[int]]:
    for _, together in groupby(files, key=lambda row: files[row] or row):
        rows = list(together)
        yield from (rows[start : start + _MOST_ROWS_PER_TASK] for start in range(0, len(rows), _MOST_ROWS_PER_TASK))
