"""What a figure draws, read from its specification: marks with the fields on their axes and the rows behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Layer:
    """One mark: its type, field of each channel, the whole encoding, and its rows."""

    mark: str
    fields: dict[str, str]
    encoding: dict[str, Any]
    rows: list[dict[str, Any]] = field(repr=False)
    filters: tuple[str, ...] = ()


def panels_of(figure):
    """The panels of a figure, in order: each a list of layers with its title in front."""
    specification = figure.specification
    for kind in ("concat", "hconcat", "vconcat"):
        if kind in specification:
            shared = specification.get("data")
            return [
                (part.get("title"), _layers({"data": shared} | part, specification["datasets"]))
                for part in specification[kind]
            ]
    return [(specification.get("title"), _layers(specification, specification["datasets"]))]


def layers_of(panel, mark):
    """The layers of a panel with a mark."""
    return [layer for layer in panel[1] if layer.mark == mark]


def _layers(part, datasets):
    found = []
    for layer in part.get("layer", [part]):
        if "layer" in layer:
            found += _layers(layer, datasets)
            continue
        mark = layer["mark"] if isinstance(layer["mark"], str) else layer["mark"]["type"]
        encoding = layer.get("encoding", {})
        fields = {channel: spec["field"] for channel, spec in encoding.items() if "field" in spec}
        data = layer.get("data") or part.get("data")
        filters = tuple(step["filter"] for step in layer.get("transform", []) if "filter" in step)
        found.append(Layer(mark, fields, encoding, datasets[data["name"]], filters))
    return found
