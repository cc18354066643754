"""``python -m analysis``: reports and the paper's exhibits from a storage, without computing anything."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import tyro

from analysis.paper import write_paper
from analysis.results import latest_manifests
from orchestrator.options import DefaultInHelp
from orchestrator.places import existing
from orchestrator.store import DamagedResult, garbled_manifests
from orchestrator.usage import UsageError


def report(storage: DefaultInHelp[str | None] = None, out: Path = Path("reports")) -> int:
    """Draw the report of every study of a storage again; exit status 1 where what a study asked for is garbled.

    Args:
        storage: Folder or URL of the results (default: $QUARTERTURN_STORAGE or ./results).
        out: Folder for the reports, one below it for each study.
    """
    store, code = existing(storage), 0
    for path in garbled_manifests(store):
        print(f"warning: {path} is garbled; submit its study again", file=sys.stderr)
        code = 1
    for study, manifest in latest_manifests(store).items():
        module, _, function = str(manifest.get("report") or "").partition(":")
        # What a storage names is not run unless it is a report of this room.
        if not module.startswith("analysis.") or not function:
            print(f"{study}: names no report of this program")
            continue
        for path in getattr(import_module(module), function)(store, dict(manifest), out / study):
            print(path)
    return code


def paper(storage: DefaultInHelp[str | None] = None, out: Path = Path("paper")) -> int:
    """Write every table and figure of the papers that a storage allows, and say which are missing.

    Args:
        storage: Folder or URL of the results (default: $QUARTERTURN_STORAGE or ./results).
        out: Folder for the page, its figures and its tables.
    """
    print(write_paper(existing(storage), out))
    return 0


if __name__ == "__main__":
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            {"report": report, "paper": paper}, prog="python -m analysis", config=(tyro.conf.DisallowNone,)
        )
    except (ValueError, FileNotFoundError, DamagedResult, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)
