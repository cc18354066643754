"""MoCo's dictionary of negative keys: first in, first out."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class KeyQueue(nn.Module):
    """The last K keys, on their device. Its state dict holds the keys and the place of the oldest.

    Shapes: K keys in the queue, B keys in a batch, D embedding dimensions.
    """

    keys_KD: Tensor

    def __init__(self, queue_size: int, embedding_dim: int) -> None:
        super().__init__()
        self.register_buffer("keys_KD", torch.zeros(queue_size, embedding_dim))
        # A number on the host, so that a push never waits for the device.
        self._oldest = 0

    @torch.no_grad()
    def push(self, keys_BD: Tensor) -> None:
        """Replace the B oldest keys.

        Raises:
            ValueError: B does not divide K, so that a batch would wrap around.
        """
        queue_size, batch_size = len(self.keys_KD), len(keys_BD)
        if queue_size % batch_size:
            raise ValueError(f"{batch_size} keys do not divide a queue of {queue_size}")
        self.keys_KD[self._oldest : self._oldest + batch_size] = keys_BD
        self._oldest = (self._oldest + batch_size) % queue_size

    def get_extra_state(self) -> dict[str, int]:
        return {"oldest": self._oldest}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self._oldest = state["oldest"]
