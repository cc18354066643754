"""Predictions of a segmenter over many images. Shapes: B images, H x W pixels, K classes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from trainables import runtime
from trainables.data.batches import DeviceImages
from trainables.metrics.classes import Overlap, overlap
from trainables.models.unet import Segmenter

_BATCH = 32


@torch.inference_mode()
def predictions(
    segmenter: Segmenter, images: DeviceImages, positions_N: Tensor, precision: str = "float32"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions and the most probable class of every pixel [B, H, W] uint8, batch by batch; the segmenter is set to
    evaluation mode."""
    segmenter.eval()
    for positions_B in torch.split(positions_N, _BATCH):
        images_BCHW = images.images(positions_B).contiguous(memory_format=torch.channels_last)
        with runtime.autocast(images.device, precision == "bfloat16"):
            logits_BKHW = segmenter(images_BCHW)
        yield positions_B, logits_BKHW.argmax(dim=1).to(torch.uint8)


def overlap_of(segmenter: Segmenter, images: DeviceImages, positions_N: Tensor, precision: str = "float32") -> Overlap:
    """How the predictions overlap with the annotation of the images, an image a row, in the order of the positions."""
    parts = [
        overlap(predicted_BHW, images.classes(positions_B), segmenter.num_classes)
        for positions_B, predicted_BHW in predictions(segmenter, images, positions_N, precision)
    ]
    both, predicted, true = (torch.cat([getattr(part, name) for part in parts]) for name in _COUNTS)
    return Overlap(both, predicted, true, parts[0].num_pixels)


_COUNTS = ("both_BK", "predicted_BK", "true_BK")
