"""Segments of metric histories: written once, named by their content."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

from orchestrator.documents import Result, short_digest
from orchestrator.storage import DamagedResult, Storage


class Journals(Storage):
    """The part of a store that holds the journals of its trials, and takes word of what a reader finds damaged."""

    def write_segment(self, key: str, name: str, rows: list[list[Any]]) -> str:
        """One journal segment, rows of [metric, step, value, time in ms]; returns its full name, with a digest."""
        content = json.dumps(rows, allow_nan=False).encode()
        name = f"{name}-{short_digest(content)}.json"
        self.write_bytes(f"trials/{key}/journal/{name}", content)
        return name

    def segment(self, key: str, name: str) -> list[list[Any]]:
        """The rows of one journal segment. Raises DamagedResult when it is missing or differs from its digest."""
        path = f"trials/{key}/journal/{name}"
        content = self.read_bytes(path)
        if content is None:
            raise DamagedResult(f"{self.uri}/{path} is missing")
        if not name.endswith(f"-{short_digest(content)}.json"):
            raise DamagedResult(f"{self.uri}/{path} does not match its digest")
        return list(json.loads(content))

    def rows(self, result: Result) -> list[list[Any]]:
        """The whole journal of a result. Raises DamagedResult, after reporting it, when a segment is not whole."""
        try:
            return [row for name in result.segments for row in self.segment(result.key, name)]
        except DamagedResult as error:
            self.report_damage(result.key, result.token, str(error))
            raise

    def report_damage(self, key: str, token: str, message: str) -> None:
        """Leave word that the result with this token is damaged, where the storage takes it: the next plan computes it
        anew."""
        with contextlib.suppress(OSError):
            self.write_document(word_path(key), {"token": token, "message": message})
        print(f"warning: the result of trial {key} is damaged: {message}", file=sys.stderr, flush=True)


def word_path(key: str) -> str:
    """Where it is said that a result is damaged."""
    return f"damaged/{key}.json"
