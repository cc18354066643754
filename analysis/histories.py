"""The histories of many trials as one frame, of which only what is new is read from the store.

A trial's history is a few files of a few rows each; ten thousand of them take minutes over a network. So what was read
once stays in the analysis cache, in chunks of many trials each:

    histories/<digest of the store's address>/<digest of the content>.parquet

A chunk knows its trials by key and by a token of their journal, so one that was computed again is read again; a chunk
that does not match its digest is thrown away, and its trials are read again. The cache may be removed at any time.
"""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from analysis.results import HISTORY_SCHEMA, StudyResults, cache_dir
from orchestrator.store import Result

# One row a trial and metric: a key a row of the history would be most of the memory.
_CHUNK = {
    "key": pl.String(),
    "token": pl.String(),
    "metric": pl.String(),
    "step": pl.List(pl.Int64),
    "value": pl.List(pl.Float64),
}
_TRIALS_A_CHUNK = 1000
# More of them are made one: each call may add one, however few trials are new.
_MOST_CHUNKS = 16


def histories(results: StudyResults, keys: Iterable[str] | None = None) -> pl.DataFrame:
    """What finished trials logged: columns key, metric, step, value.

    Trial by trial in the order of ``keys`` (all that are finished, in the order of the manifest), metric by metric in
    the order in which each was logged first, and in the order of logging. Keys without a result have no rows. Raises
    DamagedResult, after reporting it, when a journal that is new is not what was published.
    """
    given = results.results if keys is None else [key for key in keys if key in results.results]
    wanted = {key: _token(results.results[key]) for key in given}
    folder = cache_dir() / "histories" / hashlib.sha256(results.store.uri.encode()).hexdigest()[:16]
    known, chunks = _known(folder)
    there = set(zip(known["key"], known["token"], strict=True))
    new = [key for key, token in wanted.items() if (key, token) not in there and results.results[key].segments]
    for start in range(0, len(new), _TRIALS_A_CHUNK):
        chunk = _read(results, new[start : start + _TRIALS_A_CHUNK], wanted)
        chunks.append(_write(folder, chunk))
        known = known.vstack(chunk)
    if len(chunks) > _MOST_CHUNKS:
        whole = _write(folder, _once(known))
        for path in set(chunks) - {whole}:
            path.unlink(missing_ok=True)
    order = pl.DataFrame(
        {"key": list(wanted), "token": list(wanted.values())}, schema={"key": pl.String, "token": pl.String}
    )
    found = order.join(_once(known), on=["key", "token"], maintain_order="left_right")
    return found.select("key", *HISTORY_SCHEMA).explode("step", "value")


def _token(result: Result) -> str:
    """Segments are named with the digests of what they hold."""
    return hashlib.sha256("\n".join(result.segments).encode()).hexdigest()[:16]


def _read(results: StudyResults, keys: Sequence[str], tokens: dict[str, str]) -> pl.DataFrame:
    """The histories of some trials, from their journals."""
    rows: list[tuple[str, str, str, list[int], list[float]]] = []
    for key in keys:
        found: dict[str, tuple[list[int], list[float]]] = {}
        for metric, step, value, _ in results.store.rows(results.results[key]):
            steps, values = found.setdefault(metric, ([], []))
            steps.append(step)
            values.append(float(value))
        rows += [(key, tokens[key], metric, steps, values) for metric, (steps, values) in found.items()]
    return pl.DataFrame(rows, schema=_CHUNK, orient="row")


def _once(chunks: pl.DataFrame) -> pl.DataFrame:
    """Two processes may have read the same trial."""
    return chunks.unique(["key", "token", "metric"], keep="first", maintain_order=True)


def _known(folder: Path) -> tuple[pl.DataFrame, list[Path]]:
    """What the whole chunks hold, and where they are; others are removed."""
    frames, whole = [pl.DataFrame(schema=_CHUNK)], []
    for path in sorted(folder.glob("*.parquet")):
        content = path.read_bytes()
        if path.stem == _digest(content):
            frames.append(pl.read_parquet(io.BytesIO(content)))
            whole.append(path)
        else:
            path.unlink(missing_ok=True)
    return pl.concat(frames), whole


def _write(folder: Path, chunk: pl.DataFrame) -> Path:
    buffer = io.BytesIO()
    chunk.write_parquet(buffer)
    content = buffer.getvalue()
    path = folder / f"{_digest(content)}.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{uuid.uuid4().hex}"
    aside.write_bytes(content)
    os.replace(aside, path)
    return path


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
