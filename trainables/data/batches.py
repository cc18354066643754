"""Batches out of the prepared data set: the images live on the device as uint8, and a batch is an index.

Shapes: B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables import runtime
from trainables.data.cache import ImageTable, PixelTable
from trainables.data.records import ImageArray

Positions = Tensor | np.ndarray[Any, Any]


class DeviceImages:
    """Some rows of a table, in the given order; images, and what an annotation says of their pixels where one is given,
    are asked for by position in that order.

    All of them are held on the device when they take no more than ``memory_share`` of its free memory. Otherwise each
    batch is read from the memmap, and on its way to a GPU it is pinned. The values are the same bit by bit.
    """

    def __init__(
        self,
        table: ImageTable,
        rows: np.ndarray[Any, Any],
        device: torch.device,
        memory_share: float = 0.5,
        *,
        annotation: PixelTable | None = None,
    ) -> None:
        if not 0 <= memory_share <= 1:
            raise ValueError(f"memory_share = {memory_share}: use a share of free memory from 0 to 1")
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(table):
            raise IndexError(f"rows from {rows.min()} to {rows.max()}: the table has rows 0 to {len(table) - 1}")
        self.device = device
        self._num = len(rows)
        num_bytes = rows.size * (table.images_NCHW[:1].nbytes + (annotation.values_NHW[:1].nbytes if annotation else 0))
        self.on_device = num_bytes <= memory_share * runtime.free_memory(device)
        source = _Resident if self.on_device else _Streamed
        self._images = source(table.images_NCHW, rows, device)
        self._classes = source(annotation.values_NHW, rows, device) if annotation else None

    def __len__(self) -> int:
        return self._num

    def images(self, positions: Positions) -> Tensor:
        """float32 images_BCHW in [0, 1], on the device."""
        return self._images.take(positions).float().div_(255)

    def classes(self, positions: Positions) -> Tensor:
        """uint8 classes_BHW, of a region 0 or 1, on the device. Raises ValueError where no annotation was given."""
        if self._classes is None:
            raise ValueError("these images were given no annotation: pass annotation=open_annotation(...)")
        return self._classes.take(positions)


class _Resident:
    """The rows as one tensor on the device."""

    def __init__(self, array: ImageArray, rows: np.ndarray[Any, Any], device: torch.device) -> None:
        self._values = torch.from_numpy(array[rows]).to(device)

    def take(self, positions: Positions) -> Tensor:
        return self._values[torch.as_tensor(positions, device=self._values.device)]


class _Streamed:
    """The rows stay on disk. They are read in rising order, which a memmap serves several times faster."""

    def __init__(self, array: ImageArray, rows: np.ndarray[Any, Any], device: torch.device) -> None:
        self._array, self._rows, self._device = array, rows, device

    def take(self, positions: Positions) -> Tensor:
        rows = self._rows[torch.as_tensor(positions).cpu().numpy()]
        rising, back = np.unique(rows, return_inverse=True)
        values = torch.from_numpy(self._array[rising][back])
        if self._device.type == "cuda":
            return values.pin_memory().to(self._device, non_blocking=True)
        return values.to(self._device)
