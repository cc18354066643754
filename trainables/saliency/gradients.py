"""SmoothGrad of a pair, plain or by guided backpropagation, all samples of many pairs in a batch.

Shapes: N anchors, P pairs (views of anchors), S noise samples, C channels, H x W pixels, D embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from trainables import runtime
from trainables.api.checks import check_choice
from trainables.api.trainable import recorded
from trainables.augment.blur import gaussian_blur
from trainables.models.frozen import FrozenEncoder
from trainables.saliency.base import Anchors, Prepared, SaliencyMethod, Views, required

NoiseOn = Literal["explained", "both"]

_CPU_BUDGET_BYTES = 1 << 30
_CUDA_BUDGET_BYTES = 8 << 30
# More gains nothing.
_CPU_LARGEST_BATCH = 16
_CUDA_LARGEST_BATCH = 512
_FREE_MEMORY_SHARE = 0.5
# 11 x 11 pixels: cut at 1.1 standard deviations, nearly a box.
_BLUR_SIGMA_PX, _BLUR_RADIUS_PX = 5.0, 5


@dataclass(frozen=True)
class SmoothGrad(SaliencyMethod):
    """The mean gradient over noisy copies of an image, largest channel: SmoothGrad (arXiv:1706.03825) of a pair.

    The view's map = max over channels of abs(mean_n dS(a, v + e_n) / dv), the anchor's = that of
    mean_n dS(a + e_n, v) / da, with e_n normal of standard deviation ``sigma`` times (maximum - minimum) of the anchor.
    The noise is fixed for each image, so a curve over values shows the value and not the noise. The paper's score is a
    class; here it is the similarity of the pair.

    The thesis's tool (explain-cl): ``SmoothGrad(50, sigma=0.15 / range**2, noise_on="both", times_input=True,
    guided=True, blur_map=True)``, as its notebook calls it.

    Args:
        num_samples: 25. The paper sees little change beyond 50; half of that costs half.
        sigma: fraction of the image's range. The paper's 0.10 to 0.20 gives the sharpest maps. The tool of the thesis
            divides by the range where the paper multiplies.
        noise_on: ``explained`` (default) keeps the other image of the pair clean, which is defined at every value.
            ``both`` adds the same e_n to both, as the tool of the thesis does; where the view is the anchor, the
            similarity is then exactly 1 and its gradient rounding noise, so these values are left out.
        times_input: multiplies the gradient by the clean image before the absolute value, as the tool of the thesis
            does. Off by default: it makes every black pixel 0 by force, the corners that a rotation brings in among
            them, and copies the image's brightness into the map, so that Dice follows the image as well as the encoder.
        guided: guided backpropagation (arXiv:1412.6806) at every rectification instead of the gradient, as in the tool
            of the thesis. Off by default: such maps hardly depend on the weights of upper layers (arXiv:1810.03292).
        blur_map: convolves the map with a Gaussian of 11 x 11 pixels, deviation 5 pixels, the border mirrored, before
            it is brought back; as the tool of the thesis does. Off by default: a smoother map overlaps more with any
            large region.
        noise_seed: of the noise; with it, each image's id.
        bf16: convolutions in bfloat16. Off by default: on untrained networks it changed maps by 25 to 50 %.
        memory_budget_bytes: for activations; by default 1 GiB on a CPU and 8 GiB on a GPU, or half of the free
            memory if that is less. Results do not depend on it beyond rounding.

    Raises:
        ValueError: a value outside what is said above.
    """

    num_samples: int = 25
    sigma: float = 0.15
    noise_on: NoiseOn = "explained"
    times_input: bool = False
    guided: bool = False
    blur_map: bool = False
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
    def passes_per_map(self) -> float:
        return self.num_samples

    @property
    def passes_per_anchor(self) -> float:
        return 0.5 if self.noise_on == "explained" else 0.5 * self.num_samples  # forward only

    @property
    def is_defined_at_neutral(self) -> bool:
        return self.noise_on != "both"

    def prepare(self, encoder: FrozenEncoder | None, anchors: Anchors) -> Prepared:
        """The anchors' embeddings: one each [N, 1, D], or one for each noise sample [N, S, D]."""
        encoder = required(encoder, self)
        size = self._batch_size(encoder, anchors)
        if self.noise_on == "explained":
            parts = [encoder.embeddings(images_BCHW) for images_BCHW in torch.split(anchors.images_NCHW, size)]
            return {"anchor_embeddings": torch.cat(parts)[:, None]}
        embeddings = []
        for row, image_CHW in enumerate(anchors.images_NCHW):
            noisy_SCHW = self._noisy_copies(anchors, row, image_CHW, slice(None))
            embeddings.append(torch.cat([encoder.embeddings(part) for part in torch.split(noisy_SCHW, size)]))
        return {"anchor_embeddings": torch.stack(embeddings)}

    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        encoder = required(encoder, self)

        def anchor_embeddings(part: Views) -> Tensor:
            return prepared["anchor_embeddings"][part.rows_P.to(encoder.device)]

        return self._maps(encoder, anchors, views, views, anchor_embeddings)

    def anchor_maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        encoder = required(encoder, self)
        size = self._batch_size(encoder, anchors)

        def view_embeddings(part: Views) -> Tensor:
            if self.noise_on == "explained":
                return encoder.embeddings(part.images_PCHW)[:, None]
            noisy_BCHW = self._noisy(anchors, part, slice(None))
            embeddings_BD = torch.cat([encoder.embeddings(images) for images in torch.split(noisy_BCHW, size)])
            return embeddings_BD.view(len(part.rows_P), self.num_samples, -1)

        explained = Views(views.rows_P, views.values_P, anchors.images_NCHW[views.rows_P])
        return self._maps(encoder, anchors, explained, views, view_embeddings)

    def _maps(
        self,
        encoder: FrozenEncoder,
        anchors: Anchors,
        explained: Views,
        views: Views,
        embeddings_of_others: Callable[[Views], Tensor],
    ) -> Tensor:
        """Maps of the images of ``explained``, compared with the other image of each pair.

        Args:
            embeddings_of_others: from views to the raw embeddings of the images that are not explained: [P, 1, D], or
                one for each noise sample [P, S, D].
        """
        size = self._batch_size(encoder, anchors)
        pairs_at_once = max(1, size // self.num_samples)
        num_parts = -(-self.num_samples // size)  # of the samples of one pair; even ones, none nearly empty
        samples_at_once = -(-self.num_samples // num_parts)
        maps = []
        for start in range(0, len(views.rows_P), pairs_at_once):
            part = explained[start : start + pairs_at_once]
            # Batches of one size only: others are rounded differently, and a map must not depend on its company.
            others_P1D = embeddings_of_others(views[start : start + pairs_at_once].padded(pairs_at_once))
            padded = part.padded(pairs_at_once)
            gradients_PCHW = self._mean_gradient(encoder, anchors, padded, others_P1D, samples_at_once)
            gradients_PCHW = gradients_PCHW[: len(part.rows_P)]
            if self.times_input:
                gradients_PCHW = gradients_PCHW * part.images_PCHW
            maps.append(gradients_PCHW.abs().amax(dim=1))
        return blurred(torch.cat(maps)) if self.blur_map else torch.cat(maps)

    def _mean_gradient(
        self, encoder: FrozenEncoder, anchors: Anchors, explained: Views, others_P1D: Tensor, samples_at_once: int
    ) -> Tensor:
        """Mean over n of dS by each explained image [P, C, H, W], in the images' dtype."""
        others_PSD = others_P1D.expand(-1, self.num_samples, -1)
        total_PShw: Tensor | None = None
        for start in range(0, self.num_samples, samples_at_once):
            chosen = slice(start, start + samples_at_once)
            noisy_BCHW = self._noisy(anchors, explained, chosen)
            part_PShw = _summed_stem_gradient(encoder, noisy_BCHW, others_PSD[:, chosen], guided=self.guided)
            total_PShw = part_PShw if total_PShw is None else total_PShw + part_PShw
        assert total_PShw is not None
        height, width = explained.images_PCHW.shape[2:]
        mean_PCHW = encoder.image_gradient(total_PShw / self.num_samples, (height, width))
        return mean_PCHW.to(explained.images_PCHW.dtype)

    def _noisy(self, anchors: Anchors, views: Views, chosen: slice) -> Tensor:
        """The chosen noisy copies of each image, those of one image in a row [P * S, C, H, W]."""
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
            budget = min(largest_budget, int(runtime.free_memory(encoder.device) * _FREE_MEMORY_SHARE))
        channels, height, width = anchors.images_NCHW.shape[1:]
        affordable = budget // encoder.bytes_per_image((channels, height, width))
        # Larger blocks are taken from the system, and given back, each time.
        reusable = runtime.LARGEST_HEAP_BLOCK_BYTES // encoder.largest_block_bytes((height, width))
        most = _CUDA_LARGEST_BATCH if on_gpu else min(_CPU_LARGEST_BATCH, reusable)
        return max(1, min(affordable, most))


def _summed_stem_gradient(encoder: FrozenEncoder, noisy_BCHW: Tensor, others_PSD: Tensor, *, guided: bool) -> Tensor:
    """Sum over samples of the similarity's gradient at the stem's output [P, stem channels, h, w].

    The stem is linear, so the samples can be summed before its pull-back.
    """
    num_pairs, num_samples = others_PSD.shape[:2]
    tape = encoder.forward(noisy_BCHW, guided=guided)
    embeddings_PSD = tape.embeddings_BD.view(num_pairs, num_samples, -1)
    score = torch.cosine_similarity(embeddings_PSD, others_PSD, dim=2).sum()
    (features_gradient_BF,) = torch.autograd.grad(score, tape.features_BF)
    gradient_BhwC = encoder.stem_gradient(tape, features_gradient_BF).permute(0, 2, 3, 1)
    # As rows of memory, which is channels-last: several times faster than a sum of images.
    sum_PX = gradient_BhwC.reshape(num_pairs, num_samples, -1).sum(dim=1, dtype=encoder.head_dtype)
    return sum_PX.view(num_pairs, *gradient_BhwC.shape[1:]).permute(0, 3, 1, 2)


def blurred(maps_PHW: Tensor) -> Tensor:
    """Maps under the Gaussian of ``blur_map``."""
    sigmas_P = torch.full((len(maps_PHW),), _BLUR_SIGMA_PX, dtype=torch.float64)
    radii_P = torch.full((len(maps_PHW),), _BLUR_RADIUS_PX)
    return gaussian_blur(maps_PHW[:, None], sigmas_P, radii_P)[:, 0]
