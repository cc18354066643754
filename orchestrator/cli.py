"""The command line of all studies, and ``python -m orchestrator``."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import tyro

from orchestrator.options import StudyOptions
from orchestrator.usage import exit_with, usage_errors

if TYPE_CHECKING:
    from orchestrator.study import Study

Options = TypeVar("Options", bound=StudyOptions)

# `--plan` without a `--no-plan`, and no `{None}` among what a flag takes.
_STYLE: tuple[Any, ...] = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
_MAY_BE_EMPTY = ("retry_failed",)  # which means all classes then


def main(options_type: type[Options], make_study: Callable[[Options], Study], description: str) -> None:
    """Command line of a study file: parse, plan, run, report.

    Exits with 0, 1 (failures), 2 (usage), 130 (interrupted) or 141 (nobody reads the output).
    """

    def run() -> int:
        with usage_errors():
            options = tyro.cli(options_type, description=description, config=_STYLE)
            _refuse_without_values(options)
        # Not for --help: what plans and runs takes longer to load than help to read.
        from orchestrator.submission import submit

        return submit(options, lambda: make_study(options))

    exit_with(run)


def _refuse_without_values(options: StudyOptions) -> None:
    """A flag for several values that was given none would silently mean its default. Raises ValueError."""
    given = {argument.partition("=")[0].replace("_", "-") for argument in sys.argv[1:]}
    for field in dataclasses.fields(options):
        flag = f"--{field.name.replace('_', '-')}"
        if field.name not in _MAY_BE_EMPTY and getattr(options, field.name) == () and flag in given:
            raise ValueError(f"{flag}: expected at least one value; without the flag its default holds")


def orchestrator_main() -> None:
    """Entry of ``python -m orchestrator``."""

    def run() -> int:
        from orchestrator.commands import gc, status, sync
        from orchestrator.export import export
        from orchestrator.optuna_export import optuna
        from orchestrator.places import give_home
        from orchestrator.verify import verify

        give_home(Path(tempfile.gettempdir()))

        commands: dict[str, Callable[..., Any]] = {
            "status": status,
            "sync": sync,
            "gc": gc,
            "verify": verify,
            "export": export,
            "optuna": optuna,
        }
        with usage_errors(ValueError, OSError):
            code = tyro.extras.subcommand_cli_from_dict(commands, prog="python -m orchestrator", config=_STYLE)
        return int(code)

    exit_with(run)
