"""A three-channel data set of .npy files that notes every decoding: lets tests watch the cache at work."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from trainables.api.errors import BadData
from trainables.api.trainable import recorded
from trainables.data.records import Dataset, ImageArray, Record

SIDE = 8


@dataclass(frozen=True)
class TinyDataset(Dataset):
    name: ClassVar[str] = "tiny"

    folder: Path = recorded()
    pause_s: float = recorded(0.0)
    image_size_px: int = SIDE

    @property
    def num_channels(self) -> int:
        return 3

    def source_files(self) -> Mapping[str, Path]:
        return {path.name: path for path in sorted(self.folder.glob("*.npy"))}

    def records(self) -> list[Record]:
        names = sorted(self.source_files())
        splits = ["val" if number % 3 == 2 else "train" for number in range(len(names))]
        return [
            Record(name, f"group {name}", split, {"image": name}) for name, split in zip(names, splits, strict=True)
        ]

    def decode(self, record: Record) -> tuple[ImageArray, ImageArray]:
        time.sleep(self.pause_s)
        with (self.folder / "decoded.log").open("a") as log:
            log.write(f"{record.id}\n")
        try:
            image_CHW = np.load(self.folder / record.files["image"])
        except ValueError as error:
            raise BadData("tiny", {record.files["image"]: "damaged"}) from error
        return image_CHW, (image_CHW[0] > 127).astype(np.uint8)

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
