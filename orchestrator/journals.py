"""Segments of metric histories: written once, named by their content."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.documents import short_digest
from orchestrator.storage import DamagedResult, Storage


class Journals(Storage):
    """The part of a store that holds the journals of its trials."""

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
