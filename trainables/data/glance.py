"""What is plainly wrong with the files of any number of images, without decoding them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainables.api.errors import BadData
from trainables.data import nifti, pictures
from trainables.data.annotations import PixelAnnotation
from trainables.data.decoding import num_cores
from trainables.data.records import Dataset, Record


def missing_files(part: Dataset | PixelAnnotation) -> dict[str, str]:
    """Files that are missing or empty, or whose header cannot be read: name -> reason, in order of the names.

    Sizes and headers alone are looked at, some thousand files a second; what is plainly wrong is then decoded, so that
    it is said in the words that decoding has for it. Damage further inside is found by decoding only.

    Raises:
        FileNotFoundError, BadData: what no record stands for is wrong.
    """
    files = part.source_files()
    records: dict[str, Record] = {}
    for record in part.records():
        if name := record.file if isinstance(part, Dataset) else part.file(record):
            records.setdefault(name, record)
    with ThreadPoolExecutor(num_cores()) as pool:
        looks_usable = list(pool.map(lambda name: _looks_usable(files.get(name), name), records))
    problems: dict[str, str] = {}
    for record, usable in zip(records.values(), looks_usable, strict=True):
        if usable:
            continue
        try:
            part.decode(record)
        except BadData as error:
            problems |= error.problems
    return dict(sorted(problems.items()))


def _looks_usable(path: Path | None, name: str) -> bool:
    try:
        if path is None or not path.stat().st_size:
            return False
        if name.lower().endswith(nifti.SUFFIXES):
            nifti.read_place(path, name)
        elif name.lower().endswith(pictures.SUFFIXES):
            pictures.picture_size(path, name)
        else:
            return False  # of another kind: decoding says whether it can be used
    except (BadData, OSError):
        return False
    return True
