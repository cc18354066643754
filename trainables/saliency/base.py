"""Saliency methods: what they all have in common, and the pairs that they explain.

A method explains the similarity S(a, v) = cos(f(a), f(v)) of an *anchor* a, the image as it is, and a *view* v, the
same image changed by a sweep (rotated, blurred, ...); f is the raw output of the encoder's head. It gives one map for
each view, in the view's frame, and one for each anchor as it is compared with the view, in the anchor's frame. To
add a method, add a dataclass below ``SaliencyMethod`` in a file of this folder; the contract tests find it.

Shapes: N anchors, P pairs (views of anchors), S noise samples, C channels, H x W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainables import runtime
from trainables.api.trainable import Part
from trainables.models.frozen import FrozenEncoder
from trainables.sweeps import Sweep

Prepared = Mapping[str, Tensor]

_NOISE_MEMORY_SHARE = 0.25


class Anchors:
    """The images that views are made of, with what can be kept for them in this process.

    Args:
        ids: names the images; an image's noise depends on its id, not on which others are here.
        images_NCHW: in [0, 1], on the device that the encoder is on.
        masks_NHW: 0 or 1. For the control that measures the ceiling; no method that explains may look at them.
        sweep: makes the views, and moves maps between the frames of anchor and view.
    """

    def __init__(self, ids: tuple[str, ...], images_NCHW: Tensor, masks_NHW: Tensor, sweep: Sweep) -> None:
        if not len(ids) == len(images_NCHW) == len(masks_NHW):
            raise ValueError(f"{len(ids)} ids, {len(images_NCHW)} images and {len(masks_NHW)} masks: as many of each")
        self.ids, self.images_NCHW, self.masks_NHW, self.sweep = ids, images_NCHW, masks_NHW, sweep
        self._noise: dict[tuple[int, int, str], Tensor] = {}
        self._noise_bytes_left = int(runtime.free_memory(images_NCHW.device) * _NOISE_MEMORY_SHARE)

    def views(self, rows_P: Tensor, values_P: Tensor) -> Views:
        """The anchors of these rows, each at its value of the sweep."""
        return Views(rows_P, values_P, self.sweep.view(self.images_NCHW[rows_P], values_P))

    def noise(self, row: int, num_samples: int, noise_seed: int) -> Tensor:
        """Standard normal noise of one image [S, C, H, W]: the same at every value, on every device."""
        key = (noise_seed, num_samples, self.ids[row])
        if key in self._noise:
            return self._noise[key]
        generator = runtime.generator("noise of an image", noise_seed, self.ids[row])
        images_NCHW = self.images_NCHW
        # Drawn on the CPU in float32 whatever computes with it, so that the device does not change the maps.
        noise_SCHW = torch.randn((num_samples, *images_NCHW.shape[1:]), generator=generator)
        noise_SCHW = noise_SCHW.to(images_NCHW.device, images_NCHW.dtype)
        if noise_SCHW.nbytes <= self._noise_bytes_left:
            # First come, first kept: each value visits the images in the same order, so evicting would keep nothing.
            self._noise_bytes_left -= noise_SCHW.nbytes
            self._noise[key] = noise_SCHW
        return noise_SCHW


@dataclass(frozen=True)
class Views:
    """Pairs to explain: view p shows the anchor ``rows_P[p]`` at the value ``values_P[p]`` of the sweep."""

    rows_P: Tensor
    """int64, on the CPU."""
    values_P: Tensor
    """float64, on the CPU."""
    images_PCHW: Tensor

    def __getitem__(self, part: slice) -> Views:
        return Views(self.rows_P[part], self.values_P[part], self.images_PCHW[part])

    def padded(self, num_pairs: int) -> Views:
        """The last pair repeated until there are ``num_pairs``."""
        places_P = torch.arange(num_pairs).clamp_(max=len(self.rows_P) - 1)
        images_PCHW = self.images_PCHW[places_P.to(self.images_PCHW.device)]
        return Views(self.rows_P[places_P], self.values_P[places_P], images_PCHW)


class SaliencyMethod(Part, ABC):
    """Base of the methods. Subclasses are frozen dataclasses.

    ``prepare`` does once what depends on the anchors alone; ``maps`` and ``anchor_maps`` are called for every batch of
    values, possibly in other processes, with what ``prepare`` returned.
    """

    needs_encoder: ClassVar[bool] = True

    @property
    def encoder_dtype(self) -> torch.dtype:
        """The precision in which the encoder is to compute."""
        return torch.float32

    @property
    def passes_per_map(self) -> float:
        """Forward and backward passes of one image for one map; for estimates of cost and for batch sizes."""
        return 0

    @property
    def passes_per_anchor(self) -> float:
        """Passes of one image in ``prepare``; for estimates of cost."""
        return 0

    @property
    def is_defined_at_neutral(self) -> bool:
        """Whether there is a map where the view is the anchor; a curve leaves these values out where there is none."""
        return True

    def prepare(self, encoder: FrozenEncoder | None, anchors: Anchors) -> Prepared:
        """Tensors that serve all values."""
        return {}

    @abstractmethod
    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        """One map for each view, in the view's frame [P, H, W], not negative; higher is more salient.

        A view's map does not depend on which other views are in the batch.
        """

    @abstractmethod
    def anchor_maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        """One map for each pair, of its anchor as it is compared with the view, in the anchor's frame [P, H, W].

        Not negative, and independent of the batch, as ``maps``.
        """


def in_batches(compute: Callable[[Tensor], Tensor], images_BCHW: Tensor, batch_size: int) -> Tensor:
    """``compute`` of all images, in batches of one size: others are rounded differently, and what becomes of an image
    must not depend on its company. The last batch is filled up with its last image."""
    found = []
    for part_BCHW in torch.split(images_BCHW, batch_size):
        missing = batch_size - len(part_BCHW)
        padded_BCHW = torch.cat([part_BCHW, part_BCHW[-1:].expand(missing, -1, -1, -1)]) if missing else part_BCHW
        found.append(compute(padded_BCHW)[: len(part_BCHW)])
    return torch.cat(found)


def required(encoder: FrozenEncoder | None, method: SaliencyMethod) -> FrozenEncoder:
    if encoder is None:
        raise ValueError(f"{type(method).__name__} explains an encoder: give one")
    return encoder
