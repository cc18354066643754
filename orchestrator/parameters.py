"""Configurations as MLflow shows them: short enough to stand side by side. The whole is in ``configuration.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

_LONGEST_LIST = 6
_MAX_CHARACTERS = 100
_MAX_NAME_CHARACTERS = 250
_REFUSED = re.compile(r"[^\w.\- :/]", re.ASCII)  # in a name, by MLflow


def parameters(configuration: Any, *, without: Collection[str] = ()) -> dict[str, str]:
    """A described configuration as short texts by dotted name.

    A part stands under its field's name with its class; long lists as their ends and number; files by their last
    name (what is in them is the data set's digest). What says nothing is left out: None and what is empty, and the
    dotted names in ``without``.
    """
    pairs = _pairs(configuration, "")
    return {valid_name(name): text for name, text in pairs if name not in without}


def valid_name(name: str) -> str:
    """The name of a parameter or tag with ``_`` for each character that MLflow refuses."""
    return _REFUSED.sub("_", name)[:_MAX_NAME_CHARACTERS]


def _pairs(value: Any, name: str) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        found = [(name or "class", str(value["class"]))] if "class" in value else []
        inner = [(f"{name}.{field}" if name else str(field), v) for field, v in value.items() if field != "class"]
    elif isinstance(value, list) and any(isinstance(element, Mapping | list) for element in value):
        found, inner = [], [(f"{name}.{i}", element) for i, element in enumerate(value)]
    else:
        text = _text(value)
        return [(name, text)] if text else []
    return found + [pair for inner_name, v in inner for pair in _pairs(v, inner_name)]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        if len(value) > _LONGEST_LIST:
            text = f"{_end(value[0])}…{_end(value[-1])}, {len(value)} values"
        else:
            text = ", ".join(_text(element) for element in value)
    elif isinstance(value, str):
        text = value.rstrip("/").rpartition("/")[2] if value.startswith("/") else value
    else:
        text = json.dumps(value)
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"


def _end(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else _text(value)
