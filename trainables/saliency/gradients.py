"""SmoothGrad of a pair, all samples of many pairs in a batch.

Shapes: N anchors, P pairs (views of anchors), S noise samples, C channels, H x W pixels, D embedding dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from trainables.api.checks import check_choice
from trainables.api.trainable import recorded
from trainables.data.batches import free_memory
from trainables.models.frozen import LARGEST_HEAP_BLOCK_BYTES, FrozenEncoder
from trainables.saliency.base import Anchors, Prepared, SaliencyMethod, Views, required

NoiseOn = Literal["view", "both"]

_CPU_BUDGET_BYTES = 1 << 30
_CUDA_BUDGET_BYTES = 8 << 30
# More gains nothing.
_CPU_LARGEST_BATCH = 16
_CUDA_LARGEST_BATCH = 512
_FREE_MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class SmoothGrad(SaliencyMethod):
    """The mean gradient over noisy copies of the view, largest channel: SmoothGrad (arXiv:1706.03825) of a pair.

    Map = max over channels of abs(mean_n dS(a, v + e_n) / dv), with e_n normal of standard deviation ``sigma`` times
    (maximum - minimum) of the unrotated image. The noise is fixed for each image, so a curve over angles shows
    the angle and not the noise. The paper's score is a class; here it is the similarity of the pair.

    Args:
        num_samples: 25. The paper sees little change beyond 50; half of that costs half.
        sigma: fraction of the image's range. The paper's 0.10 to 0.20 gives the sharpest maps. The tool of the thesis
            divides by the range where the paper multiplies.
        noise_on: ``view`` (default) keeps the anchor clean, which is defined at every angle. ``both`` adds the same e_n
            to both, as the tool of the thesis does; at 0 and 360 degrees the similarity is then exactly 1 and its
            gradient rounding noise, so these angles are left out.
        times_input: multiplies the gradient by the view before the absolute value, as the tool of the thesis does.
            Off by default: it makes every black pixel 0 by force, the corners that a rotation brings in among them,
            and copies the image's brightness into the map, so that Dice follows the image as well as the encoder.
        noise_seed: of the noise; with it, each image's id.
        bf16: convolutions in bfloat16. Off by default: on untrained networks it changed maps by 25 to 50 %.
        memory_budget_bytes: for activations; by default 1 GiB on a CPU and 8 GiB on a GPU, or half of the free
            memory if that is less. Results do not depend on it beyond rounding.

    Raises:
        ValueError: a value outside what is said above.
    """

    num_samples: int = 25
    sigma: float = 0.15
    noise_on: NoiseOn = "view"
    times_input: bool = False
    noise_seed: int = 0
    bf16: bool = False
    memory_budget_bytes: int | None = recorded(None)

    def __post_init__(self) -> None:
        check_choice("noise_on", self.noise_on, get_args(NoiseOn))
        if self.num_samples < 1:
            raise ValueError(f"num_samples = {self.num_samples}: at least 1")
        if not self.sigma >= 0:
            raise ValueError(f"sigma = {self.sigma}: a fraction of the image's range, 0 or more")
        if self.memory_budget_bytes is not None and self.memory_budget_bytes < 1:
            raise ValueError(f"memory_budget_bytes = {self.memory_budget_bytes}: at least 1, or None")

    @property
    def encoder_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.bf16 else torch.float32

    @property
    def passes_per_map(self) -> int:
        return self.num_samples

    def skips(self, angle_deg: float) -> bool:
        return self.noise_on == "both" and angle_deg % 360 == 0

    def prepare(self, encoder: FrozenEncoder | None, anchors: Anchors) -> Prepared:
        """The anchors' embeddings: one each [N, 1, D], or one for each noise sample [N, S, D]."""
        encoder = required(encoder, self)
        size = self._batch_size(encoder, anchors)
        if self.noise_on == "view":
            parts = [encoder.embeddings(images_BCHW) for images_BCHW in torch.split(anchors.images_NCHW, size)]
            return {"anchor_embeddings": torch.cat(parts)[:, None]}
        embeddings = []
        for row, image_CHW in enumerate(anchors.images_NCHW):
            noisy_SCHW = self._noisy_copies(anchors, row, image_CHW, slice(None))
            embeddings.append(torch.cat([encoder.embeddings(part) for part in torch.split(noisy_SCHW, size)]))
        return {"anchor_embeddings": torch.stack(embeddings)}

    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        encoder = required(encoder, self)
        size = self._batch_size(encoder, anchors)
        pairs_at_once = max(1, size // self.num_samples)
        num_parts = -(-self.num_samples // size)  # of the samples of one pair; even ones, none nearly empty
        samples_at_once = -(-self.num_samples // num_parts)
        maps = []
        for start in range(0, len(views.rows_P), pairs_at_once):
            part = views[start : start + pairs_at_once]
            # Batches of one size only: others are rounded differently, and a map must not depend on its company.
            gradients_PCHW = self._mean_gradient(
                encoder, anchors, prepared, part.padded(pairs_at_once), samples_at_once
            )[: len(part.rows_P)]
            if self.times_input:
                gradients_PCHW = gradients_PCHW * part.images_PCHW
            maps.append(gradients_PCHW.abs().amax(dim=1))
        return torch.cat(maps)

    def _mean_gradient(
        self, encoder: FrozenEncoder, anchors: Anchors, prepared: Prepared, views: Views, samples_at_once: int
    ) -> Tensor:
        """mean_n dS/dv for each view [P, C, H, W], in the images' dtype."""
        anchors_PSD = prepared["anchor_embeddings"][views.rows_P.to(encoder.device)]
        anchors_PSD = anchors_PSD.expand(-1, self.num_samples, -1)
        total_PShw: Tensor | None = None
        for start in range(0, self.num_samples, samples_at_once):
            chosen = slice(start, start + samples_at_once)
            noisy_BCHW = self._noisy(anchors, views, chosen)
            part_PShw = _summed_stem_gradient(encoder, noisy_BCHW, anchors_PSD[:, chosen])
            total_PShw = part_PShw if total_PShw is None else total_PShw + part_PShw
        assert total_PShw is not None
        height, width = views.images_PCHW.shape[2:]
        mean_PCHW = encoder.image_gradient(total_PShw / self.num_samples, (height, width))
        return mean_PCHW.to(views.images_PCHW.dtype)

    def _noisy(self, anchors: Anchors, views: Views, chosen: slice) -> Tensor:
        """The chosen noisy copies of each view, those of one view in a row [P * S, C, H, W]."""
        pairs = zip(views.rows_P.tolist(), views.images_PCHW, strict=True)
        return torch.cat([self._noisy_copies(anchors, row, image_CHW, chosen) for row, image_CHW in pairs])

    def _noisy_copies(self, anchors: Anchors, row: int, image_CHW: Tensor, chosen: slice) -> Tensor:
        original_CHW = anchors.images_NCHW[row]
        scale = self.sigma * (original_CHW.amax() - original_CHW.amin())
        return image_CHW + scale * anchors.noise(row, self.num_samples, self.noise_seed)[chosen]

    def _batch_size(self, encoder: FrozenEncoder, anchors: Anchors) -> int:
        """How many images go through the encoder at once."""
        on_gpu = encoder.device.type == "cuda"
        budget = self.memory_budget_bytes
        if budget is None:
            # A constant, unless memory is short: so that a repeated run rounds in the same order.
            largest_budget = _CUDA_BUDGET_BYTES if on_gpu else _CPU_BUDGET_BYTES
            budget = min(largest_budget, int(free_memory(encoder.device) * _FREE_MEMORY_SHARE))
        channels, height, width = anchors.images_NCHW.shape[1:]
        affordable = budget // encoder.bytes_per_image((channels, height, width))
        # Larger blocks are taken from the system, and given back, each time.
        reusable = LARGEST_HEAP_BLOCK_BYTES // encoder.largest_block_bytes((height, width))
        most = _CUDA_LARGEST_BATCH if on_gpu else min(_CPU_LARGEST_BATCH, reusable)
        return max(1, min(affordable, most))


def _summed_stem_gradient(encoder: FrozenEncoder, noisy_BCHW: Tensor, anchors_PSD: Tensor) -> Tensor:
    """Sum over samples of the similarity's gradient at the stem's output [P, stem channels, h, w].

    The stem is linear, so the samples can be summed before its pull-back.
    """
    num_pairs, num_samples = anchors_PSD.shape[:2]
    tape = encoder.forward(noisy_BCHW)
    embeddings_PSD = tape.embeddings_BD.view(num_pairs, num_samples, -1)
    score = torch.cosine_similarity(embeddings_PSD, anchors_PSD, dim=2).sum()
    (features_gradient_BF,) = torch.autograd.grad(score, tape.features_BF)
    gradient_BhwC = encoder.stem_gradient(tape, features_gradient_BF).permute(0, 2, 3, 1)
    # As rows of memory, which is channels-last: several times faster than a sum of images.
    sum_PX = gradient_BhwC.reshape(num_pairs, num_samples, -1).sum(dim=1, dtype=encoder.head_dtype)
    return sum_PX.view(num_pairs, *gradient_BhwC.shape[1:]).permute(0, 3, 1, 2)
