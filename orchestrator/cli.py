"""The command line of all studies, and ``python -m orchestrator``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import tyro
from rich.console import Console

from orchestrator.commands import gc, status, sync
from orchestrator.options import StudyOptions
from orchestrator.printing import make_console
from orchestrator.study import Study
from orchestrator.submission import EXIT_INTERRUPTED, UsageError, submit, usage_errors

EXIT_USAGE = 2

Options = TypeVar("Options", bound=StudyOptions)


def main(options_type: type[Options], make_study: Callable[[Options], Study], description: str) -> None:
    """Command line of a study file: parse, plan, run, report; exits with 0, 1 (failures), 2 (usage) or 130."""
    console = make_console()
    try:
        with usage_errors():
            options = tyro.cli(options_type, description=description)
        code = submit(options, lambda: make_study(options), console)
    except UsageError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False)
        code = EXIT_USAGE
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    sys.exit(code)


def orchestrator_main() -> None:
    """Entry of ``python -m orchestrator``."""
    try:
        code = tyro.extras.subcommand_cli_from_dict({"status": status, "sync": sync, "gc": gc})
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = EXIT_USAGE
    sys.exit(code)
