"""Augmented views for self-supervised learning, and how well an encoder finds an image by its view.

Shapes: B images of a batch, C channels, H x W pixels, N images, D embedding dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables import runtime
from trainables.augment.augmentation import Augmentation
from trainables.data.batches import DeviceImages
from trainables.world import World

_EVALUATION_BATCH = 64


def augmented(
    augmentation: Augmentation, images_BCHW: Tensor, indices_B: Tensor, view: str, pretrain_seed: int, epoch: int
) -> Tensor:
    """A view of each image, which depends on its index, ``view``, the seed and the epoch, and not on its batch."""
    draws_BN = runtime.uniforms(indices_B, augmentation.num_draws, view, pretrain_seed, epoch)
    return augmentation.apply(images_BCHW, draws_BN)


@dataclass(frozen=True)
class DrawnViews:
    """A view of each of some images, made when it is asked for: ``views[places_B]`` is [B, C, H, W]."""

    augmentation: Augmentation
    images: DeviceImages
    indices_N: Tensor
    """What the views follow from: an image's position, plus the number of images for every time that it came before."""
    view: str
    pretrain_seed: int
    epoch: int

    def __len__(self) -> int:
        return len(self.indices_N)

    def __getitem__(self, places_B: Tensor) -> Tensor:
        indices_B = self.indices_N[places_B]
        images_BCHW = self.images.images(indices_B % len(self.images))
        return augmented(self.augmentation, images_BCHW, indices_B, self.view, self.pretrain_seed, self.epoch)


@torch.no_grad()
def retrieval_accuracy(
    embed: Callable[[Tensor], Tensor], images: DeviceImages, augmentation: Augmentation, pretrain_seed: int
) -> float:
    """Share of the images whose augmented view, the same one every epoch, is nearest to them; chance is 1 / N.

    Several workers embed a part of the images each.

    Args:
        embed: images [B, C, H, W] to embeddings of unit length [B, D].
        images: at least two.
    """
    world = runtime.world()
    if world.size > len(images):
        world = World()  # somebody would have none; all do everything
    queries, keys = [], []
    for positions_B in torch.split(torch.arange(len(images))[world.part(len(images))], _EVALUATION_BATCH):
        images_BCHW = images.images(positions_B)
        queries.append(embed(images_BCHW))
        keys.append(embed(augmented(augmentation, images_BCHW, positions_B, "val", pretrain_seed, 0)))
    queries_ND, keys_ND = (world.gather(torch.cat(parts), len(images)) for parts in (queries, keys))
    similarities_NN = queries_ND @ keys_ND.T
    others_NN = similarities_NN.clone().fill_diagonal_(-math.inf)
    retrieved_N = similarities_NN.diagonal() > others_NN.amax(dim=1)
    return float(retrieved_N.float().mean())
