"""How fast is each explanation method, against a plain loop over pairs, windows and strengths?

    python benchmarks/explanations.py                       # all eight, ResNet-18 at 96 pixels; some minutes on 2 cores
    python benchmarks/explanations.py --methods grad_cam --size 224 --backbone resnet50
    python benchmarks/explanations.py --rounds 1 --images 1 --size 64  # does it run at all

Both make the maps of the same views of packaged T1 slices (at 16 angles for class activation maps, 2 for gradients, 4
and 1 for occlusion, where a map takes the loop seconds), in float32, with the same drawn noise and rectangles; the
maps are compared. The loop is what a user writes by the methods' formulas, and what captum does by default: every image
by itself through the plain encoder with frozen weights, one pair after another, both images of each pair. Ours makes
what depends on the image alone once for all its views, which is counted. They take turns; a ratio is the median over
rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from trainables import runtime
from trainables.data.cache import OwnContext, open_images
from trainables.data.mni152 import MNI152
from trainables.models.encoder import Encoder, build_encoder, frozen
from trainables.models.frozen import FrozenEncoder
from trainables.saliency.base import Anchors, SaliencyMethod, Views
from trainables.saliency.cam import GradCAM, InteractionCAM
from trainables.saliency.gradients import SmoothGrad
from trainables.saliency.occlusion import ConditionalOcclusion, PairwiseOcclusion
from trainables.saliency.transforms import AveragedTransforms
from trainables.sweeps import Rotation

Loop = Callable[[Encoder, Anchors, Views, int], Tensor]
"""The map of view p, by the formula."""

_TOLERANCE = 0.01  # mean difference of a map, of its mean: float32, where rectifications may fall to the other side


def pair(anchors: Anchors, views: Views, p: int) -> tuple[int, Tensor, Tensor]:
    """Row, anchor and view of pair p."""
    row = int(views.rows_P[p])
    return row, anchors.images_NCHW[row], views.images_PCHW[p]


def similarity(encoder: Encoder, view_CHW: Tensor, anchor_CHW: Tensor) -> Tensor:
    return torch.cosine_similarity(encoder(view_CHW[None]), encoder(anchor_CHW[None]))[0]


def gradient(encoder: Encoder, view_CHW: Tensor, anchor_CHW: Tensor) -> Tensor:
    leaf = view_CHW.clone().requires_grad_(True)
    (found_CHW,) = torch.autograd.grad(similarity(encoder, leaf, anchor_CHW), leaf)
    return found_CHW


def smoothgrad(method: SmoothGrad) -> Loop:
    def loop(encoder: Encoder, anchors: Anchors, views: Views, p: int) -> Tensor:
        row, anchor_CHW, view_CHW = pair(anchors, views, p)
        scale = method.sigma * float(anchor_CHW.max() - anchor_CHW.min())
        noise_SCHW = anchors.noise(row, method.num_samples, method.noise_seed) * scale
        total = sum(gradient(encoder, view_CHW + noise, anchor_CHW) for noise in noise_SCHW)
        return torch.as_tensor(total).div(method.num_samples).abs().amax(dim=0)

    return loop


def averaged_transforms(method: AveragedTransforms) -> Loop:
    def loop(encoder: Encoder, anchors: Anchors, views: Views, p: int) -> Tensor:
        (_, anchor_CHW, _), sweep, value = pair(anchors, views, p), anchors.sweep, float(views.values_P[p])
        away = (value + 180) % 360 - 180
        total = torch.zeros_like(anchor_CHW)
        for z in range(1, method.num_strengths + 1):
            at = torch.full((len(anchor_CHW),), away * z / method.num_strengths, dtype=torch.float64)
            step_CHW = sweep.view(anchor_CHW[None], at[:1])[0]
            total += sweep.back(gradient(encoder, step_CHW, anchor_CHW), at) / method.num_strengths
        there = torch.full((len(anchor_CHW),), value, dtype=torch.float64)
        return sweep.there(total, there).abs().amax(dim=0)

    return loop


def conditional_occlusion(method: ConditionalOcclusion) -> Loop:
    @torch.inference_mode()
    def loop(encoder: Encoder, anchors: Anchors, views: Views, p: int) -> Tensor:
        _, anchor_CHW, view_CHW = pair(anchors, views, p)
        whole = similarity(encoder, view_CHW, anchor_CHW)
        size = (view_CHW.shape[1], view_CHW.shape[2])
        total_HW, count_HW = torch.zeros(size), torch.zeros(size)
        for window_HW in method.windows(size):
            fall = whole - similarity(encoder, view_CHW.masked_fill(window_HW, 0), anchor_CHW)
            total_HW[window_HW] += fall.cpu()
            count_HW[window_HW] += 1
        mean_HW = total_HW / count_HW
        return mean_HW - mean_HW.min()

    return loop


def pairwise_occlusion(method: PairwiseOcclusion) -> Loop:
    @torch.inference_mode()
    def loop(encoder: Encoder, anchors: Anchors, views: Views, p: int) -> Tensor:
        row, anchor_CHW, view_CHW = pair(anchors, views, p)
        whole = similarity(encoder, view_CHW, anchor_CHW)
        of_anchor_RHW, of_view_RHW = (method._erased(anchors, row, which) for which in ("anchor", "view"))
        falls = [
            whole - similarity(encoder, view_CHW.masked_fill(two, 0), anchor_CHW.masked_fill(one, 0))
            for one, two in zip(of_anchor_RHW, of_view_RHW, strict=True)
        ]
        weights_R = (torch.stack(falls) / method.temperature).softmax(dim=0)
        total_HW, count_HW = torch.zeros_like(view_CHW[0]), torch.zeros_like(view_CHW[0])
        for weight, erased_HW in zip(weights_R, of_view_RHW, strict=True):
            total_HW[erased_HW] += method.num_erasures * weight
            count_HW[erased_HW] += 1
        return torch.where(count_HW > 0, total_HW / count_HW.clamp(min=1), 1)

    return loop


def activation_map(method: GradCAM | InteractionCAM) -> Loop:
    def reduced(maps_FL: Tensor, reduction: str) -> Tensor:
        mean_F = maps_FL.mean(dim=1)
        if reduction == "max":
            return maps_FL.amax(dim=1)
        weights_L = (mean_F @ maps_FL / math.sqrt(len(mean_F))).softmax(dim=0)
        return mean_F if reduction == "mean" else maps_FL @ weights_L

    def loop(encoder: Encoder, anchors: Anchors, views: Views, p: int) -> Tensor:
        _, anchor_CHW, view_CHW = pair(anchors, views, p)
        images = view_CHW, anchor_CHW
        maps = [encoder.feature_maps(image[None]).detach().requires_grad_(True) for image in images]
        embeddings = [encoder.head(each.mean(dim=(2, 3))) for each in maps]
        (of_view,) = torch.autograd.grad(torch.cosine_similarity(*embeddings).sum(), maps[:1])
        own_FL, other_FL = (each.detach()[0].flatten(1) for each in maps)
        weights_F = of_view[0].flatten(1).mean(dim=1)
        if isinstance(method, InteractionCAM):
            joint_F = reduced(own_FL, method.reduction) * reduced(other_FL, method.reduction)
            weights_F = joint_F * weights_F.clamp(min=0)
        map_hw = (weights_F @ own_FL).clamp(min=0).view(maps[0].shape[2:])
        size = tuple(images[0].shape[1:])
        return functional.interpolate(map_hw[None, None], size, mode="bilinear", align_corners=False)[0, 0]

    return loop


def contenders() -> dict[str, tuple[SaliencyMethod, Loop, int]]:
    """Each method with its loop, and at how many angles each image is shown."""
    smooth, averaged = SmoothGrad(), AveragedTransforms()
    conditional, pairwise, grad = ConditionalOcclusion(), PairwiseOcclusion(), GradCAM()
    found: dict[str, tuple[SaliencyMethod, Loop, int]] = {
        "smoothgrad": (smooth, smoothgrad(smooth), 2),
        "averaged_transforms": (averaged, averaged_transforms(averaged), 2),
        "conditional_occlusion": (conditional, conditional_occlusion(conditional), 1),
        "pairwise_occlusion": (pairwise, pairwise_occlusion(pairwise), 4),
        "grad_cam": (grad, activation_map(grad), 16),
    }
    for reduction in ("mean", "max", "attention"):
        interaction = InteractionCAM(reduction)
        found[f"interaction_cam_{reduction}"] = interaction, activation_map(interaction), 16
    return found


def main() -> None:
    every = contenders()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(every), default=list(every), help="which to time")
    parser.add_argument("--backbone", choices=["resnet18", "resnet50"], default="resnet18", help="of the encoder")
    parser.add_argument("--size", type=int, default=96, help="side of the image in pixels")
    parser.add_argument("--images", type=int, default=4, help="slices, evenly through the volume")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed, in turns")
    parser.add_argument("--threads", type=int, default=2, help="CPU cores to keep busy")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    runtime.use_cores(options.threads)
    runtime.keep_freed_memory()
    device, figures = runtime.device(), {}
    with tempfile.TemporaryDirectory() as folder:
        table = open_images(MNI152(image_size_px=options.size), OwnContext(Path(folder)))
        step = len(table.images_NCHW) // (options.images + 1)
        images_NCHW = torch.from_numpy(table.images_NCHW[step::step][: options.images].copy()).to(device) / 255
    channels = images_NCHW.shape[1]
    built = build_encoder(options.backbone, "v2", channels, mean=[0.4] * channels, std=[0.25] * channels)
    encoder = frozen(built).to(device)
    fast = FrozenEncoder(encoder, device)
    print(f"{options.backbone}, {options.size} px, {options.images} images, {device}")
    print(f"{'method':<28}{'pairs':>6}{'times as fast':>15}")
    for name in options.methods:
        method, loop, num_angles = every[name]
        rows_P = torch.arange(options.images).repeat_interleave(num_angles)
        values_P = ((torch.arange(num_angles, dtype=torch.float64) + 0.3) * 360 / num_angles).repeat(options.images)
        ids = tuple(f"image {row}" for row in range(options.images))
        loop_s, own_s = [], []
        for _ in range(options.rounds):
            # Anew for each: what is kept for an image is made within the time.
            anchors = Anchors(ids, images_NCHW, images_NCHW[:, 0], Rotation())
            views = anchors.views(rows_P, values_P)
            begun = time.perf_counter()
            wanted_PHW = torch.stack([loop(encoder, anchors, views, p) for p in range(len(rows_P))])
            loop_s.append(_since(begun))
            anchors = Anchors(ids, images_NCHW, images_NCHW[:, 0], Rotation())
            begun = time.perf_counter()
            found_PHW = method.maps(fast, anchors, method.prepare(fast, anchors), views)
            own_s.append(_since(begun))
            apart = float((found_PHW - wanted_PHW.to(device)).abs().mean() / wanted_PHW.abs().mean())
            assert apart < _TOLERANCE, f"{name}: maps differ by {apart:.1e} of their mean"
        figures[name] = statistics.median(a / b for a, b in zip(loop_s, own_s, strict=True))
        print(f"{name:<28}{len(rows_P):>6}{figures[name]:>15.1f}", flush=True)
    if options.json:
        content = {"times_plain_loop": figures, "backbone": options.backbone, "size_px": options.size}
        options.json.write_text(json.dumps(content | {"images": options.images, "device": str(device)}, indent=1))


def _since(begun: float) -> float:
    if runtime.device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
