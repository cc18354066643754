"""Occlusion, class activation maps and averaged transforms against slow loops written from their formulas."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam, Occlusion
from test_frozen import CPU, guided_by_hooks, lively_encoder
from test_saliency import all_views, anchors_of, computed
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

from trainables.models.frozen import FrozenEncoder
from trainables.saliency.base import Anchors
from trainables.saliency.cam import GradCAM, InteractionCAM
from trainables.saliency.occlusion import ConditionalOcclusion, PairwiseOcclusion
from trainables.saliency.transforms import AveragedTransforms
from trainables.sweeps import Brightness, GaussianBlur, Rotation

VALUES = (30.0, 200.0)


def similarity(encoder: nn.Module, one: Tensor, two: Tensor) -> Tensor:
    return torch.cosine_similarity(encoder(one[None]), encoder(two[None]))[0]


def pairs_of(anchors: Anchors, views):
    """(anchor, view, value) of each pair."""
    for row, value, view in zip(views.rows_P.tolist(), views.values_P.tolist(), views.images_PCHW, strict=True):
        yield anchors.images_NCHW[row], view, value


def assert_maps(method, slow, *, channels=1, sweep=None, values=VALUES, relative=1e-9):
    """The maps of both sides are those of ``slow(encoder, explained, other, ...)``, and differ from one another."""
    encoder = lively_encoder(channels=channels).double()
    anchors = anchors_of(channels=channels, sweep=sweep or Rotation())
    frozen = FrozenEncoder(encoder, CPU, torch.float64)
    views = all_views(anchors, values)
    prepared = method.prepare(frozen, anchors)
    found = {of: getattr(method, of)(frozen, anchors, prepared, views) for of in ("maps", "anchor_maps")}
    for of, maps_PHW in found.items():
        wanted = torch.stack([slow(encoder, anchors, place, views, of) for place in range(len(views.rows_P))]).detach()
        torch.testing.assert_close(maps_PHW, wanted, rtol=0, atol=relative * float(wanted.abs().max()))
    assert (found["maps"] - found["anchor_maps"]).abs().max() > 0.01 * found["maps"].max()
    return found


def sides(anchors, place, views, of):
    """The image that is explained, and the other one."""
    row = int(views.rows_P[place])
    pair = views.images_PCHW[place], anchors.images_NCHW[row]
    return pair if of == "maps" else pair[::-1]


# -- class activation maps -----------------------------------------------------------------------------------------


def maps_and_gradients(encoder, explained, other):
    """The last stage's maps of both images, and the similarity's gradients at them, by autograd."""
    found = [encoder.feature_maps(image[None]).detach().requires_grad_(True) for image in (explained, other)]
    embeddings = [encoder.head(maps.mean(dim=(2, 3))) for maps in found]
    gradients = torch.autograd.grad(torch.cosine_similarity(*embeddings).sum(), found)
    return [maps.detach()[0] for maps in found], [gradient[0] for gradient in gradients]


def enlarged(map_hw, size):
    return functional.interpolate(map_hw[None, None], size, mode="bilinear", align_corners=False)[0, 0]


@pytest.mark.parametrize("rectify", ["map", "channels"])
@pytest.mark.parametrize("channels", [1, 3])
def test_grad_cam_is_its_formula(rectify, channels):
    def slow(encoder, anchors, place, views, of):
        (maps, _), (gradient, _) = maps_and_gradients(encoder, *sides(anchors, place, views, of))
        if rectify == "map":
            found = sum(gradient[d].mean() * maps[d] for d in range(len(maps))).clamp(min=0)
        else:
            found = sum(maps[d] * gradient[d].clamp(min=0) for d in range(len(maps)))
        return enlarged(found, views.images_PCHW.shape[2:])

    assert_maps(GradCAM(rectify), slow, channels=channels)


class Score(nn.Module):
    """The similarity of images to others, whose own pass captum is not to see."""

    def __init__(self, encoder, others):
        super().__init__()
        self.encoder, self.others_BD = encoder, encoder(others).detach()

    def forward(self, images):
        return torch.cosine_similarity(self.others_BD, self.encoder(images))


def test_grad_cam_is_captum_s():
    encoder = lively_encoder(channels=3).double()
    anchors = anchors_of(channels=3)
    views = all_views(anchors, VALUES)
    cam = LayerGradCam(Score(encoder, anchors.images_NCHW[views.rows_P]), encoder.trunk.layer4)
    wanted_P1hw = cam.attribute(views.images_PCHW.clone(), relu_attributions=True).detach()
    found = computed(GradCAM(), FrozenEncoder(encoder, CPU, torch.float64), anchors, views)
    wanted = torch.stack([enlarged(map_hw, found.shape[1:]) for (map_hw,) in wanted_P1hw])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9 * float(wanted.max()))


def reduced(maps, reduction, scaled):
    if reduction == "mean":
        return maps.mean(dim=(1, 2))
    if reduction == "max":
        return maps.amax(dim=(1, 2))
    mean = maps.mean(dim=(1, 2))
    products = torch.stack([mean @ maps[:, y, x] for y in range(maps.shape[1]) for x in range(maps.shape[2])])
    weights = (products / math.sqrt(len(mean)) if scaled else products).softmax(dim=0)
    return sum(w * position for w, position in zip(weights, maps.flatten(1).T, strict=True))


@pytest.mark.parametrize(
    ("reduction", "scaled", "interacts"),
    [("mean", True, False), ("max", True, False), ("attention", True, False), ("attention", False, False),
     ("mean", True, True), ("max", True, True), ("attention", False, True)],
)  # fmt: skip
def test_interaction_cam_is_its_formula(reduction, scaled, interacts):
    def slow(encoder, anchors, place, views, of):
        (maps, others), (own, foreign) = maps_and_gradients(encoder, *sides(anchors, place, views, of))
        joint = reduced(maps, reduction, scaled) * reduced(others, reduction, scaled)
        if interacts:  # the matrix over channels, position by position
            matrix = sum(torch.outer(a, b) for a, b in zip(own.flatten(1).T, foreign.flatten(1).T, strict=True))
            weights = matrix.amax(dim=1)[:, None, None].expand_as(maps)
        else:
            weights = own
        found = sum(maps[d] * joint[d] * weights[d].clamp(min=0) for d in range(len(maps)))
        return enlarged(found, views.images_PCHW.shape[2:])

    assert_maps(InteractionCAM(reduction, scaled, interacts), slow)


def test_activation_maps_have_no_map_where_the_view_is_the_anchor():
    for method in (GradCAM(), InteractionCAM(), AveragedTransforms()):
        assert not method.is_defined_at_neutral
    assert ConditionalOcclusion().is_defined_at_neutral
    assert PairwiseOcclusion().is_defined_at_neutral


# -- occlusion -----------------------------------------------------------------------------------------------------


def falls(encoder, explained, other, windows):
    whole = similarity(encoder, explained, other)
    return torch.stack([whole - similarity(encoder, explained.masked_fill(window, 0), other) for window in windows])


def test_conditional_occlusion_is_the_mean_fall_over_the_windows_that_hold_a_pixel():
    method = ConditionalOcclusion(window_share=0.3, num_windows=5)

    def slow(encoder, anchors, place, views, of):
        explained, other = sides(anchors, place, views, of)
        windows = method.windows((32, 32))
        found = falls(encoder, explained, other, windows)
        mean = torch.zeros(32, 32, dtype=torch.float64)
        for y in range(32):
            for x in range(32):
                mean[y, x] = found[windows[:, y, x]].mean()
        return mean - mean.min()

    assert_maps(method, slow)


def test_conditional_occlusion_orders_pixels_as_captum_s():
    """captum sums over windows and does not divide by their number: the same where each pixel is in as many."""
    encoder = lively_encoder().double()
    anchors = anchors_of()
    views = all_views(anchors, (30.0,))
    method = ConditionalOcclusion(window_share=0.25, num_windows=4)  # 8 pixels each, side by side
    occlusion = Occlusion(Score(encoder, anchors.images_NCHW))
    with torch.inference_mode():
        wanted = occlusion.attribute(views.images_PCHW, sliding_window_shapes=(1, 8, 8), strides=(1, 8, 8))[:, 0]
    found = computed(method, FrozenEncoder(encoder, CPU, torch.float64), anchors, views)
    wanted = wanted - wanted.amin(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=1e-5 * float(wanted.max()))


def test_the_stretched_form_is_the_tool_s():
    method = ConditionalOcclusion(window_share=0.3, num_windows=5, placement="stretched")

    def slow(encoder, anchors, place, views, of):
        explained, other = sides(anchors, place, views, of)
        grid = falls(encoder, explained, other, method.windows((32, 32))).view(5, 5)
        return enlarged((grid - grid.min()) / (grid.max() - grid.min()), (32, 32))

    stretched = assert_maps(method, slow)["maps"]
    assert stretched.max() <= 1
    assert stretched.min() == 0


@pytest.mark.parametrize(("share", "num", "side"), [(2 / 7, 21, 224), (2 / 7, 21, 96), (0.25, 4, 32), (0.3, 7, 33)])
def test_windows_reach_from_border_to_border_and_leave_out_no_pixel(share, num, side):
    windows = ConditionalOcclusion(share, num).windows((side, side))
    assert len(windows) == num**2
    assert bool(windows.any(dim=0).all())
    sizes = windows.sum(dim=(1, 2))
    assert set(sizes.tolist()) == {round(share * side) ** 2}
    assert bool(windows[0, 0, 0])
    assert bool(windows[-1, -1, -1])
    if side == 224:  # the tool's grid: 64 pixels every 8
        assert windows[1].nonzero()[0].tolist() == [0, 8]
        assert windows[21].nonzero()[0].tolist() == [8, 0]


def test_windows_that_hold_black_alone_cost_no_pass(monkeypatch):
    encoder = FrozenEncoder(lively_encoder(), CPU)
    anchors = anchors_of(dtype=torch.float32)
    anchors.images_NCHW[:, :, :, 16:] = 0
    views = anchors.views(torch.tensor([0, 1]), torch.tensor([0.0, 0.0], dtype=torch.float64))
    method = ConditionalOcclusion(0.25, 4)
    prepared = method.prepare(encoder, anchors)
    seen = []
    embeddings = encoder.embeddings
    monkeypatch.setattr(encoder, "embeddings", lambda images: seen.append(len(images)) or embeddings(images))
    maps = method.maps(encoder, anchors, prepared, views)
    assert sum(seen) == 16 + 16  # the views; and 2 x 8 of 2 x 16 windows
    falls_of = maps[:, :, 16:]
    assert torch.equal(falls_of, falls_of[:, :1, :1].expand_as(falls_of))


@pytest.mark.parametrize(("share", "num", "side"), [(0.2, 3, 32), (2 / 7, 40, 32)])
def test_a_grid_that_does_not_fit_is_named(share, num, side):
    with pytest.raises(ValueError, match=f"num_windows = {num} of .* pixels do not fit on {side} pixels"):
        ConditionalOcclusion(share, num).windows((side, side))


@pytest.mark.parametrize("credit", ["coverage", "smaller_norm"])
def test_pairwise_occlusion_is_its_formula(credit):
    method = PairwiseOcclusion(num_erasures=6, temperature=0.1, credit=credit)

    def slow(encoder, anchors, place, views, of):
        row = int(views.rows_P[place])
        anchor, view = anchors.images_NCHW[row], views.images_PCHW[place]
        erased = {which: method._erased(anchors, row, which) for which in ("anchor", "view")}
        whole, drops, shorter = similarity(encoder, anchor, view), [], []
        for n in range(6):
            one, two = anchor.masked_fill(erased["anchor"][n], 0), view.masked_fill(erased["view"][n], 0)
            drops.append(whole - similarity(encoder, one, two))
            shorter.append("anchor" if encoder(one[None]).norm() < encoder(two[None]).norm() else "view")
        weights = (torch.stack(drops) / 0.1).softmax(dim=0)
        own, image = ("view", view) if of == "maps" else ("anchor", anchor)
        total, count = torch.zeros(2, 32, 32, dtype=torch.float64)
        for n in range(6):
            if credit == "coverage":
                total[erased[own][n]] += 6 * weights[n]
                count[erased[own][n]] += 1
            elif shorter[n] == own:
                total[image.masked_fill(erased[own][n], 0).sum(dim=0) == 0] += weights[n]
        if credit == "smaller_norm":
            return total / (total.max() + 1e-9)
        return torch.where(count > 0, total / count.clamp(min=1), 1)

    assert_maps(method, slow)


def test_rectangles_are_the_image_s_own_and_within_their_bounds():
    anchors = anchors_of()
    method = PairwiseOcclusion(num_erasures=200, min_area=0.1, max_area=0.3)
    erased = method._erased(anchors, 0, "view")
    shares = erased.flatten(1).double().mean(dim=1)
    assert 0.08 < shares.min() < 0.12
    assert 0.28 < shares.max() < 0.32
    for rectangle in erased[:20]:
        rows, columns = rectangle.any(dim=1), rectangle.any(dim=0)
        assert bool((rectangle == rows[:, None] & columns[None]).all())
        assert 0.95 <= rows.sum() / columns.sum() <= 1.6
    others = Anchors(("new", "image 0"), anchors.images_NCHW, anchors.masks_NHW, anchors.sweep)
    assert torch.equal(method._erased(others, 1, "view"), erased)
    assert not torch.equal(method._erased(anchors, 1, "view"), erased)
    assert not torch.equal(method._erased(anchors, 0, "anchor"), erased)
    assert not torch.equal(dataclasses.replace(method, erase_seed=1)._erased(anchors, 0, "view"), erased)
    covered = erased.double().mean(dim=0)
    assert covered[4:-4, 4:-4].min() > 0.05
    assert covered[0].max() > 0  # up to the border
    assert covered[:, -1].max() > 0


# -- averaged transforms -------------------------------------------------------------------------------------------


def slow_transforms(method):
    def slow(encoder, anchors, place, views, of):
        encoder = guided_by_hooks(encoder) if method.guided else encoder
        row, value = int(views.rows_P[place]), float(views.values_P[place])
        anchor, view, sweep = anchors.images_NCHW[row], views.images_PCHW[place], anchors.sweep
        total, num = torch.zeros_like(anchor), method.num_strengths
        for z in range(1, num + 1):
            away = value - sweep.neutral
            if sweep.period is not None and away > sweep.period / 2:
                away -= sweep.period
            at = torch.tensor([sweep.neutral + away * z / num], dtype=torch.float64)
            if method.path == "pixels":
                step = (1 - z / (num + 1)) * anchor + z / (num + 1) * view
            else:
                step = sweep.view(anchor[None], at)[0]
            explained, other = (step, anchor) if of == "maps" else (anchor, step)
            leaf = explained[None].clone().requires_grad_(True)
            score = torch.cosine_similarity(encoder(leaf), encoder(other[None]).detach())
            gradient = torch.autograd.grad(score, leaf)[0][0]
            if of == "maps" and method.path == "sweep":
                gradient = torch.stack([sweep.back(channel[None], at)[0] for channel in gradient])
            total += gradient / num
        image = anchor
        if of == "maps":
            image = step if method.path == "pixels" else view
            if method.path == "sweep":
                there = torch.tensor([value], dtype=torch.float64)
                total = torch.stack([sweep.there(channel[None], there)[0] for channel in total])
        found = (total * image if method.times_input else total).abs().amax(dim=0)
        return gaussian_blur(found[None], [11, 11], [5.0, 5.0])[0] if method.blur_map else found

    return slow


@pytest.mark.parametrize(
    ("method", "channels"),
    [
        (AveragedTransforms(3), 1),
        (AveragedTransforms(3), 3),
        (AveragedTransforms(3, times_input=True), 1),
        (AveragedTransforms(3, path="pixels"), 1),
        (AveragedTransforms(9, path="pixels", times_input=True, guided=True, blur_map=True), 3),
    ],
    ids=["sweep", "colour", "times input", "pixels", "the tool"],
)
def test_averaged_transforms_are_their_formula(method, channels):
    assert_maps(method, slow_transforms(method), channels=channels)


@pytest.mark.parametrize(("sweep", "values"), [(GaussianBlur(), (0.02, 0.05)), (Brightness(), (0.4, 1.5))])
def test_averaged_transforms_follow_the_sweep(sweep, values):
    method = AveragedTransforms(3)
    assert_maps(method, slow_transforms(method), sweep=sweep, values=values)


def test_the_last_strength_is_the_view_itself_and_the_last_mixture_is_not():
    anchors = anchors_of()
    views = all_views(anchors, (40.0,))
    for path, is_view in (("sweep", True), ("pixels", False)):
        steps, values = AveragedTransforms(4, path=path)._steps(anchors, views[:1])
        assert len(steps) == 4
        assert torch.allclose(steps[-1], views.images_PCHW[0]) is is_view
        assert float(values[-1]) == 40.0
    _, values = AveragedTransforms(4)._steps(anchors, views[:1])
    np.testing.assert_allclose(values, [10, 20, 30, 40])
    _, values = AveragedTransforms(2)._steps(anchors, all_views(anchors, (300.0,))[:1])
    np.testing.assert_allclose(values, [-30, -60])


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (GradCAM, {"rectify": "none"}, "rectify = 'none'"),
        (InteractionCAM, {"reduction": "sum"}, "reduction = 'sum'"),
        (ConditionalOcclusion, {"window_share": 1.0}, "window_share = 1.0"),
        (ConditionalOcclusion, {"num_windows": 1}, "num_windows = 1"),
        (ConditionalOcclusion, {"placement": "grid"}, "placement = 'grid'"),
        (PairwiseOcclusion, {"num_erasures": 1}, "num_erasures = 1"),
        (PairwiseOcclusion, {"min_area": 0.5}, "min_area, max_area = 0.5, 0.3"),
        (PairwiseOcclusion, {"max_area": 0.8}, "their product has to be below 1"),
        (PairwiseOcclusion, {"temperature": 0.0}, "temperature = 0.0"),
        (PairwiseOcclusion, {"credit": "both"}, "credit = 'both'"),
        (AveragedTransforms, {"num_strengths": 0}, "num_strengths = 0"),
        (AveragedTransforms, {"path": "angle"}, "path = 'angle'"),
    ],
)
def test_impossible_settings_are_named(method, settings, message):
    with pytest.raises(ValueError, match=message):
        method(**settings)
