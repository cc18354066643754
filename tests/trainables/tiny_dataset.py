"""A three-channel data set of .npy files that notes every decoding: lets tests watch the cache at work."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from trainables.api.errors import BadData
from trainables.api.trainable import recorded
from trainables.data import reading
from trainables.data.annotations import Region
from trainables.data.records import Dataset, ImageArray, Record

SIDE = 8
_PARSER = threading.Lock()  # of .npy headers: Python's literal_eval fails in threads (3.11, gh-106905)


@dataclass(frozen=True)
class TinyDataset(Dataset):
    name: ClassVar[str] = "tiny"

    folder: Path = recorded()
    pause_s: float = recorded(0.0)
    image_size_px: int = SIDE
    excluded: tuple[str, ...] = recorded(())

    @property
    def num_channels(self) -> int:
        return 3

    def source_files(self) -> Mapping[str, Path]:
        return {path.name: path for path in sorted(self.folder.glob("*.npy"))}

    def records(self) -> list[Record]:
        names = sorted(self.source_files())
        splits = ["val" if number % 3 == 2 else "train" for number in range(len(names))]
        records = [Record(name, f"group {name}", split, name) for name, split in zip(names, splits, strict=True)]
        return self._kept(records)

    def decode(self, record: Record) -> ImageArray:
        time.sleep(self.pause_s)
        with (self.folder / "decoded.log").open("a") as log:
            log.write(f"{record.id}\n")
        try:
            content = io.BytesIO(reading.read(self.folder / record.file, record.file))
            with _PARSER:
                image_CHW: ImageArray = np.load(content)
        except ValueError as error:
            raise BadData("tiny", {record.file: "damaged"}) from error
        return image_CHW

    @classmethod
    def example(cls, folder: Path) -> Self:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(9):
            random = np.random.default_rng(number)
            np.save(folder / f"{number}.npy", random.integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8))
        return cls(folder)

    def decoded(self) -> list[str]:
        log = self.folder / "decoded.log"
        return log.read_text().split() if log.exists() else []


@dataclass(frozen=True)
class TinyRegion(Region):
    """Where the first channel is bright, read from the images' own files."""

    images: TinyDataset
    threshold: int = 127
    excluded: tuple[str, ...] = recorded(())

    @property
    def name(self) -> str:
        return "bright"

    def source_files(self) -> Mapping[str, Path]:
        return self.images.source_files()

    def file(self, record: Record) -> str:
        return record.file

    def decode(self, record: Record) -> ImageArray:
        try:
            image_CHW = np.load(io.BytesIO(reading.read(self.images.folder / record.file, record.file)))
        except ValueError as error:
            raise BadData("tiny", {record.file: "damaged"}) from error
        return (image_CHW[0] > self.threshold).astype(np.uint8)
