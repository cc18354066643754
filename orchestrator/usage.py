"""What a command cannot use, said in one line; and how a command ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

from trainables.api.errors import BadData

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
EXIT_BROKEN_PIPE = 141  # as a shell reports a process that SIGPIPE ended


class UsageError(Exception):
    """What the user typed, or the files and places it names, cannot be used; nothing has run."""


@contextlib.contextmanager
def usage_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn exceptions of these kinds into UsageError; without any, those that mean bad input before anything runs."""
    caught = kinds or (ValueError, TypeError, BadData, OSError)
    try:
        yield
    except BrokenPipeError:
        raise
    except caught as error:
        if os.environ.get("QUARTERTURN_TRACEBACK"):
            raise
        raise UsageError(str(error)) from error


def exit_with(command: Callable[[], int]) -> NoReturn:
    """Run a command and exit with its status: 2 with one line for a UsageError, 130 for Ctrl-C.

    When whoever reads the output has gone, as ``| head`` does, 141 and no word.
    """
    try:
        code = _status(command)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer is written when Python ends: to nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_BROKEN_PIPE
    sys.exit(code)


def _status(command: Callable[[], int]) -> int | str | None:
    try:
        return command()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        raise
    except OSError as error:  # in mid run: a disk that is full, a share that went away
        if os.environ.get("QUARTERTURN_TRACEBACK"):
            raise
        what = f"{error.strerror}: {error.filename}" if error.strerror and error.filename else str(error)
        print(f"error: {what}. What is done is kept: once that is mended, the same command goes on", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except SystemExit as end:  # after --help, or a flag that does not exist
        return end.code
