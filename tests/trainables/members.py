"""The members of a family of plug-ins, found by themselves, so that a new one cannot miss its contract tests."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType


def members(where: ModuleType, base: type) -> list[type]:
    """The classes below ``base`` that can be made, in a module or in any module of a package; in order of name."""
    names = {f"{where.__name__}.{found.name}" for found in pkgutil.iter_modules(getattr(where, "__path__", []))}
    for name in names:
        importlib.import_module(name)
    names.add(where.__name__)
    classes, waiting = [], [base]
    while waiting:
        subclasses = waiting.pop().__subclasses__()
        waiting += subclasses
        classes += [c for c in subclasses if c.__module__ in names and not inspect.isabstract(c)]
    return sorted(set(classes), key=lambda c: c.__name__)
