"""Functions named as text, ``package.module:function``: nothing of what they need is loaded before they are called."""

from __future__ import annotations

import ast
import hashlib
import importlib
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def check_entry(entry: str) -> None:
    """Look whether a function is where its name says, without loading it.

    Raises ValueError naming the entry and what was not found.
    """
    module, separator, function = entry.partition(":")
    if not separator or not function.isidentifier():
        raise ValueError(f"{entry!r}: expected 'package.module:function', such as 'analysis.pages.report:curve_report'")
    source = _spec(entry, module).origin
    body = ast.parse(Path(source or "").read_text()).body
    if function not in {node.name for node in body if isinstance(node, ast.FunctionDef)}:
        raise ValueError(f"{entry!r}: {source} has no function {function}")


def load_entry(entry: str) -> Callable[..., Any]:
    """The function itself. Raises ValueError naming the entry when it is not there."""
    check_entry(entry)
    module, _, function = entry.partition(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return loaded


def code_digest(entry: str) -> str:
    """Digest of the name and of the Python files of the top-level package (or file) that the function lives in."""
    spec = _spec(entry, entry.partition(":")[0].partition(".")[0])
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = sorted(file for folder in folders for file in folder.rglob("*.py")) or [Path(spec.origin or "")]
    return hashlib.sha256(entry.encode() + b"".join(file.read_bytes() for file in files)).hexdigest()


def _spec(entry: str, module: str) -> ModuleSpec:
    """Where a module lies. The packages that it is in are loaded, as their ``__init__`` files are; itself it is not."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ValueError(f"{entry!r}: there is no module {module}")
    return spec
