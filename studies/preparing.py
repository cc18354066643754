"""Looking at data before a study runs: the cache they are prepared in, and what is wrong with them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.options import StudyOptions
from trainables.api.errors import BadData

if TYPE_CHECKING:
    from trainables.data.annotations import PixelAnnotation
    from trainables.data.cache import OwnContext
    from trainables.data.datasets import Source
    from trainables.data.records import Dataset

_DECODED_AT_ONCE = 2000  # images
_SILENT_S = 2.0
_PAUSE_S = 0.2
_CLEAR = "\r\x1b[K"


class ProgressLine:
    """One line on stderr that says how far preparing is, once it has taken two seconds; only on a terminal."""

    def __init__(self) -> None:
        self._began_s = self._said_s = time.monotonic()
        self._is_shown = False

    def __call__(self, done: float, total: float, unit: str) -> None:
        """Called often; the line goes when all is done."""
        now_s = time.monotonic()
        if done >= total:
            if self._is_shown:
                print(_CLEAR, end="", file=sys.stderr, flush=True)
            self._began_s, self._is_shown = now_s, False
        elif now_s - self._began_s > _SILENT_S and now_s - self._said_s > _PAUSE_S and sys.stderr.isatty():
            print(f"{_CLEAR}preparing data: {done:.0f} of {total:.0f} {unit}", end="", file=sys.stderr, flush=True)
            self._said_s, self._is_shown = now_s, True


def data_context(options: StudyOptions) -> OwnContext:
    """The cache in which data are prepared before a study runs; its trials find them there."""
    from orchestrator.attempt import default_cache_dir
    from trainables.data.cache import OwnContext

    return OwnContext((options.cache_dir or default_cache_dir()).resolve(), ProgressLine())


def is_decoded_at_once(images: Dataset) -> bool:
    """Whether a data set is decoded in a minute or so, so that all that is wrong with it is named before anything runs.

    A larger one is prepared by its trials."""
    return len(images.records()) <= _DECODED_AT_ONCE


def check_weights(**paths: Path | None) -> None:
    """Look, before anything runs, whether files of weights can be read.

    Args:
        paths: by flag.

    Raises:
        ValueError: naming the flag and the file.
    """
    from trainables.models.weight_files import read_weight_file

    for flag, path in paths.items():
        if path is None:
            continue
        try:
            read_weight_file(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{flag} {path}: {error}") from error


def check(sources: Iterable[tuple[Source, Sequence[PixelAnnotation]]], options: StudyOptions) -> None:
    """Look at every image and annotation that a study is to use, before anything runs.

    Sets that are decoded at once are prepared for the trials by it; of larger ones the files are glanced at.

    Raises:
        BadData: all files that cannot be used, of large sets those that are missing or empty or have no readable
            header, of all data sets together.
    """
    from trainables.data.cache import open_annotation, open_images
    from trainables.data.glance import missing_files

    context, problems = data_context(options), dict[str, str]()

    def look(source: Source, at: Callable[[], object]) -> None:
        try:
            at()
        except BadData as error:
            note(source, error.problems)

    def note(source: Source, found: Mapping[str, str]) -> None:
        problems.update({f"{source.name}: {name}": reason for name, reason in sorted(found.items())})

    for source, read in sources:
        if is_decoded_at_once(source.images):
            look(source, partial(open_images, source.images, context))
            for annotation in read:
                look(source, partial(open_annotation, annotation, context))
        else:
            parts: list[Dataset | PixelAnnotation] = [source.images, *read]
            for part in parts:
                note(source, missing_files(part))
    if problems:
        raise BadData("data sets", problems)
