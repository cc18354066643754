"""How tests are shared out between processes (``pytest -n 2 --dist loadgroup``): files stay whole, and all that start
Ray are one group, as two clusters at once would be slower than one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_WITH_RAY = ("orchestrator", "studies", "test_ray_cluster.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(_HERE)
        group = "ray" if place.parts[0] in _WITH_RAY else str(place)
        item.add_marker(pytest.mark.xdist_group(group))
