"""Saliency methods: what they all have in common, and the pairs that they explain.

A method explains the similarity S(a, b) = cos(f(a), f(b)) of an *anchor*, the unrotated image, and a *view*, the same
image rotated; f is the raw output of the encoder's head. It gives one map for each view, in the view's frame. To
add a method, add a dataclass below ``SaliencyMethod`` in a file of this folder; the contract test finds it.

Shapes: N anchors, P pairs (views of anchors), S noise samples, C channels, H x W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainables import runtime
from trainables.api.trainable import Part
from trainables.augment import resample
from trainables.data.batches import free_memory
from trainables.models.frozen import FrozenEncoder

Prepared = Mapping[str, Tensor]

_NOISE_MEMORY_SHARE = 0.25


class Anchors:
    """The unrotated images that views are made of, with what can be kept for them in this process.

    Args:
        ids: names the images; an image's noise depends on its id, not on which others are here.
        images_NCHW: in [0, 1], on the device that the encoder is on.
        masks_NHW: 0 or 1. For the control that measures the ceiling; no method that explains may look at them.
        interpolation, fill: how the views were rotated.
    """

    def __init__(
        self,
        ids: tuple[str, ...],
        images_NCHW: Tensor,
        masks_NHW: Tensor,
        interpolation: resample.Interpolation = "bilinear",
        fill: resample.Fill = "zero",
    ) -> None:
        if not len(ids) == len(images_NCHW) == len(masks_NHW):
            raise ValueError(f"{len(ids)} ids, {len(images_NCHW)} images and {len(masks_NHW)} masks: as many of each")
        self.ids, self.images_NCHW, self.masks_NHW = ids, images_NCHW, masks_NHW
        self.interpolation, self.fill = interpolation, fill
        self._noise: dict[tuple[int, int, str], Tensor] = {}
        self._noise_bytes_left = int(free_memory(images_NCHW.device) * _NOISE_MEMORY_SHARE)

    def views(self, rows_P: Tensor, angles_deg_P: Tensor) -> Views:
        """The anchors of these rows, each rotated by its angle."""
        return Views(rows_P, angles_deg_P, self.rotate(self.images_NCHW[rows_P], angles_deg_P))

    def rotate(self, images_PCHW: Tensor, angles_deg_P: Tensor) -> Tensor:
        """Any images, rotated the way the views are."""
        return resample.rotate(images_PCHW, angles_deg_P, self.interpolation, self.fill)

    def noise(self, row: int, num_samples: int, noise_seed: int) -> Tensor:
        """Standard normal noise of one image [S, C, H, W]: the same at every angle, on every device."""
        key = (noise_seed, num_samples, self.ids[row])
        if key in self._noise:
            return self._noise[key]
        generator = runtime.generator("noise of an image", noise_seed, self.ids[row])
        images_NCHW = self.images_NCHW
        # Drawn on the CPU in float32 whatever computes with it, so that the device does not change the maps.
        noise_SCHW = torch.randn((num_samples, *images_NCHW.shape[1:]), generator=generator)
        noise_SCHW = noise_SCHW.to(images_NCHW.device, images_NCHW.dtype)
        if noise_SCHW.nbytes <= self._noise_bytes_left:
            # First come, first kept: each angle visits the images in the same order, so evicting would keep nothing.
            self._noise_bytes_left -= noise_SCHW.nbytes
            self._noise[key] = noise_SCHW
        return noise_SCHW


@dataclass(frozen=True)
class Views:
    """Pairs to explain: view p shows the anchor ``rows_P[p]`` rotated by ``angles_deg_P[p]``."""

    rows_P: Tensor
    """int64, on the CPU."""
    angles_deg_P: Tensor
    """float64, on the CPU."""
    images_PCHW: Tensor

    def __getitem__(self, part: slice) -> Views:
        return Views(self.rows_P[part], self.angles_deg_P[part], self.images_PCHW[part])

    def padded(self, num_pairs: int) -> Views:
        """The last pair repeated until there are ``num_pairs``."""
        places_P = torch.arange(num_pairs).clamp_(max=len(self.rows_P) - 1)
        images_PCHW = self.images_PCHW[places_P.to(self.images_PCHW.device)]
        return Views(self.rows_P[places_P], self.angles_deg_P[places_P], images_PCHW)


class SaliencyMethod(Part, ABC):
    """Base of the methods. Subclasses are frozen dataclasses.

    ``prepare`` does once what depends on the anchors alone; ``maps`` is called for every batch of angles, possibly
    in other processes, with what ``prepare`` returned.
    """

    needs_encoder: ClassVar[bool] = True

    @property
    def encoder_dtype(self) -> torch.dtype:
        """The precision in which the encoder is to compute."""
        return torch.float32

    @property
    def passes_per_map(self) -> int:
        """Forward and backward passes of one image for one map; for estimates of cost and for batch sizes."""
        return 0

    def skips(self, angle_deg: float) -> bool:
        """Whether the method is not defined at this angle, which a curve then leaves out."""
        return False

    def prepare(self, encoder: FrozenEncoder | None, anchors: Anchors) -> Prepared:
        """Tensors that serve all angles."""
        return {}

    @abstractmethod
    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        """One map for each view, in the view's frame [P, H, W], not negative; higher is more salient.

        A view's map does not depend on which other views are in the batch.
        """


def required(encoder: FrozenEncoder | None, method: SaliencyMethod) -> FrozenEncoder:
    if encoder is None:
        raise ValueError(f"{type(method).__name__} explains an encoder: give one")
    return encoder
