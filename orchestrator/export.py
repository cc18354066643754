"""``python -m orchestrator export``: a result as a file for other programs."""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import tyro

from orchestrator.entry import load_entry
from orchestrator.options import DefaultInHelp
from orchestrator.places import opened
from orchestrator.store import Result, Store
from orchestrator.usage import EXIT_OK
from trainables.api.trainable import Trainable

_PACKAGES = ("trainables",)  # what a storage that somebody gave us may choose from: classes of this code, imported


def export(
    key: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="KEY")],
    out: Path,
    storage: DefaultInHelp[str | None] = None,
) -> int:
    """Write a finished trial's model as a file for other programs, such as encoder.safetensors for torchvision.

    Args:
        key: Key of the trial, or its beginning, as the plan, status --json and MLflow show it.
        out: The file to write.
        storage: Folder or URL of the results (default: $QUARTERTURN_STORAGE or ./results).
    """
    store = opened(storage)
    result = _result(store, key)
    write = load_entry(_exporter(store, result.key))
    with tempfile.TemporaryDirectory() as fetched:
        said = write(store.fetch(result.key, Path(fetched)), out)
    print(f"{out}: trial {result.key[:8]} of {store.uri}")
    if said:
        print(said)
    return EXIT_OK


def _result(store: Store, beginning: str) -> Result:
    """The finished trial whose key begins so. Raises ValueError where there is none, or more than one."""
    keys = [key for key in sorted(store.finished()) if key.startswith(beginning)]
    results = [result for result in map(store.result, keys) if result is not None]
    if len(results) == 1:
        return results[0]
    if results:
        found = ", ".join(result.key for result in results)
        raise ValueError(f"key {beginning!r}: {len(results)} finished trials of {store.uri} begin so: {found}")
    is_known = keys or any(key.startswith(beginning) for key in store.names("trials"))
    what = "that trial is not done" if is_known else "no trial begins so"
    raise ValueError(f"key {beginning!r}: {what} in {store.uri}; `python -m orchestrator status --json` lists the keys")


def _exporter(store: Store, key: str) -> str:
    """What the trial's class names as its exporter. The document in the storage names a class of ours and nothing
    else: no other module is imported, and what is called says the code."""
    found = store.read_document(f"trials/{key}/trial.json")
    document: dict[str, Any] = found if isinstance(found, dict) else {}
    module, name = str(document.get("module", "")), str(document.get("class", ""))
    if module.partition(".")[0] not in _PACKAGES:
        raise ValueError(f"trial {key}: its class {module}.{name} is none of {', '.join(_PACKAGES)}: nothing is loaded")
    try:
        trainable = getattr(import_module(module), name, None)
    except (ImportError, ValueError) as error:
        raise ValueError(f"trial {key}: its class {module}.{name} is not among the code here: {error}") from error
    if not (isinstance(trainable, type) and issubclass(trainable, Trainable) and trainable.exporter):
        raise ValueError(f"trial {key}: a {name} has nothing to export; an encoder has, such as that of a pretraining")
    return trainable.exporter
