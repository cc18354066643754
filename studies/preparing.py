"""Looking at data before a study runs: the cache they are prepared in, and what is plainly wrong with large sets."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from orchestrator.options import StudyOptions
from trainables.api.errors import BadData

if TYPE_CHECKING:
    from trainables.data.annotations import PixelAnnotation, Region
    from trainables.data.cache import OwnContext, RegionTable
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


def prepared(region: Region, context: OwnContext) -> RegionTable:
    """The annotation of a data set that is decoded at once, its images prepared too.

    Raises:
        BadData: every image and every annotation that cannot be used.
    """
    from trainables.data.cache import open_annotation, open_images

    try:
        open_images(region.images, context)
    except BadData as of_images:
        try:
            open_annotation(region, context)
        except BadData as of_region:
            both = of_images.problems | of_region.problems
            raise BadData(f"data set {region.images.name}", dict(sorted(both.items()))) from None
        raise
    return open_annotation(region, context)


def check_large(sources: Iterable[tuple[Source, Sequence[PixelAnnotation]]]) -> None:
    """Look at the files of data sets that are too large to be decoded here.

    Raises:
        BadData: all files that are missing or empty or have no readable header, of all data sets at once.
    """
    from trainables.data.glance import missing_files

    problems: dict[str, str] = {}
    for source, regions in sources:
        if not is_decoded_at_once(source.images):
            parts: list[Dataset | PixelAnnotation] = [source.images, *regions]
            for part in parts:
                problems |= {f"{source.name}: {name}": reason for name, reason in missing_files(part).items()}
    if problems:
        raise BadData("data sets", problems)
