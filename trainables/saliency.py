"""Saliency maps of a pair of views, one frozen dataclass a method, all batched.

A method explains the similarity S(a, b) = cos(f(a), f(b)) of an *anchor*, the unrotated image, and a *view*, the same
image rotated; f is the raw output of the encoder's head. It gives one map for each view, in the view's frame. To
add a method, add a dataclass below ``SaliencyMethod``; the contract test finds it.

Shapes: N anchors, P pairs (views of anchors), S noise samples, C channels, H x W pixels, D embedding dimensions.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from trainables import augment, runtime
from trainables.api.trainable import recorded
from trainables.models.encoder import check_choice
from trainables.models.frozen import LARGEST_HEAP_BLOCK_BYTES, FrozenEncoder

NoiseOn = Literal["view", "both"]
Prepared = Mapping[str, Tensor]

_CPU_BUDGET_BYTES = 1 << 30
_CUDA_BUDGET_BYTES = 8 << 30
# More gains nothing.
_CPU_LARGEST_BATCH = 16
_CUDA_LARGEST_BATCH = 512
_FREE_MEMORY_SHARE = 0.5
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
        interpolation: augment.Interpolation = "bilinear",
        fill: augment.Fill = "zero",
    ) -> None:
        if not len(ids) == len(images_NCHW) == len(masks_NHW):
            raise ValueError(f"{len(ids)} ids, {len(images_NCHW)} images and {len(masks_NHW)} masks: as many of each")
        self.ids, self.images_NCHW, self.masks_NHW = ids, images_NCHW, masks_NHW
        self.interpolation, self.fill = interpolation, fill
        self._noise: dict[tuple[int, int, str], Tensor] = {}
        self._noise_bytes_left = int(runtime.free_memory(images_NCHW.device) * _NOISE_MEMORY_SHARE)

    def views(self, rows_P: Tensor, angles_deg_P: Tensor) -> Views:
        """The anchors of these rows, each rotated by its angle."""
        return Views(rows_P, angles_deg_P, self.rotate(self.images_NCHW[rows_P], angles_deg_P))

    def rotate(self, images_PCHW: Tensor, angles_deg_P: Tensor) -> Tensor:
        """Any images, rotated the way the views are."""
        return augment.rotate(images_PCHW, angles_deg_P, self.interpolation, self.fill)

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


class SaliencyMethod(ABC):
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
        encoder = _required(encoder, self)
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
        encoder = _required(encoder, self)
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
            budget = min(largest_budget, int(runtime.free_memory(encoder.device) * _FREE_MEMORY_SHARE))
        channels, height, width = anchors.images_NCHW.shape[1:]
        affordable = budget // encoder.bytes_per_image((channels, height, width))
        # Larger blocks are taken from the system, and given back, each time.
        reusable = LARGEST_HEAP_BLOCK_BYTES // encoder.largest_block_bytes((height, width))
        most = _CUDA_LARGEST_BATCH if on_gpu else min(_CPU_LARGEST_BATCH, reusable)
        return max(1, min(affordable, most))


@dataclass(frozen=True)
class FixedMap(SaliencyMethod):
    """Control: a map that does not depend on the angle, and only makes the trip there and back.

    The map of the unrotated image, rotated with the view. A curve of it shows what interpolation, corners and
    binarisation do, and nothing of how the encoder sees rotated images.

    Raises:
        ValueError: ``of`` has no map at 0 degrees.
    """

    of: SaliencyMethod = dataclasses.field(default_factory=SmoothGrad)

    def __post_init__(self) -> None:
        if self.of.skips(0.0):
            raise ValueError(f"{self.of} has no map of the unrotated image: fix a method that is defined at 0 degrees")

    # An instance's, since it depends on ``of``; the base has it for the class.
    @property
    def needs_encoder(self) -> bool:  # type: ignore[override]
        return self.of.needs_encoder

    @property
    def encoder_dtype(self) -> torch.dtype:
        return self.of.encoder_dtype

    def prepare(self, encoder: FrozenEncoder | None, anchors: Anchors) -> Prepared:
        """The maps of the unrotated images [N, H, W]."""
        num = len(anchors.ids)
        views = anchors.views(torch.arange(num), torch.zeros(num, dtype=torch.float64))
        return {"maps": self.of.maps(encoder, anchors, self.of.prepare(encoder, anchors), views)}

    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        maps_P1HW = prepared["maps"][views.rows_P.to(prepared["maps"].device), None]
        return anchors.rotate(maps_P1HW, views.angles_deg_P)[:, 0]


@dataclass(frozen=True)
class ImageIntensity(SaliencyMethod):
    """Control: the view itself as map, its brightest channel. No model is involved."""

    needs_encoder: ClassVar[bool] = False

    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        return views.images_PCHW.amax(dim=1)


@dataclass(frozen=True)
class MaskRoundTrip(SaliencyMethod):
    """Control: the mask itself as map, rotated with the view. The Dice that is left is the ceiling for any map."""

    needs_encoder: ClassVar[bool] = False

    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        masks_P1HW = anchors.masks_NHW[views.rows_P.to(anchors.masks_NHW.device), None]
        return anchors.rotate(masks_P1HW.to(views.images_PCHW.dtype), views.angles_deg_P)[:, 0]


def _required(encoder: FrozenEncoder | None, method: SaliencyMethod) -> FrozenEncoder:
    if encoder is None:
        raise ValueError(f"{type(method).__name__} explains an encoder: give one")
    return encoder


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
