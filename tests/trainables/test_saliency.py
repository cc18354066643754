"""SmoothGrad is held against slow loops given the same noise, never against another draw of it."""

import dataclasses

import pytest
import torch
from captum.attr import Saliency
from members import members
from test_frozen import CPU, SameOperations, guided_by_hooks, images_of, lively_encoder
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

import trainables.saliency
import trainables.sweeps
from trainables.api.identity import FileDigests, key_of
from trainables.augment import resample
from trainables.models.frozen import FrozenEncoder
from trainables.saliency.base import Anchors, SaliencyMethod, Views
from trainables.saliency.controls import FixedMap, ImageIntensity, MaskRoundTrip
from trainables.saliency.gradients import SmoothGrad
from trainables.saliency.occlusion import PairwiseOcclusion
from trainables.sweeps import Brightness, CentreCrop, GaussianBlur, Rotation, Sweep

ANGLES_DEG = (0.0, 30.0, 90.0)
TURN = Rotation()
METHODS = members(trainables.saliency, SaliencyMethod)
SWEEPS = [sweep() for sweep in members(trainables.sweeps, Sweep)]


def changed(sweep: Sweep) -> tuple[float, ...]:
    """Two values at which the view is not the anchor."""
    return tuple(value for value in sweep.default_values() if not sweep.is_neutral(value))[1:3]


def test_the_methods_and_sweeps_are_found() -> None:
    assert {SmoothGrad, FixedMap, ImageIntensity, MaskRoundTrip} <= set(METHODS)
    assert {Rotation, GaussianBlur, CentreCrop, Brightness} <= {type(sweep) for sweep in SWEEPS}


def anchors_of(num: int = 2, channels: int = 1, dtype: torch.dtype = torch.float64, sweep: Sweep = TURN) -> Anchors:
    images = images_of(num, channels).to(dtype)
    images = images * torch.linspace(0.5, 1.0, num, dtype=dtype)[:, None, None, None]  # ranges of their own
    masks = (images[:, 0] > 0.3).to(dtype)
    return Anchors(tuple(f"image {place}" for place in range(num)), images, masks, sweep)


def all_views(anchors: Anchors, values: tuple[float, ...] = ANGLES_DEG) -> Views:
    num = len(anchors.ids)
    rows = torch.arange(num).repeat(len(values))
    return anchors.views(rows, torch.tensor(values, dtype=torch.float64).repeat_interleave(num))


def computed(method: SaliencyMethod, encoder: FrozenEncoder | None, anchors: Anchors, views: Views) -> Tensor:
    return method.maps(encoder, anchors, method.prepare(encoder, anchors), views)


def slow_smoothgrad(method: SmoothGrad, encoder: nn.Module, anchors: Anchors, views: Views, of: str = "view") -> Tensor:
    """One sample of one pair at a time, autograd through the encoder as it is."""
    if method.guided:
        encoder = guided_by_hooks(encoder)
    maps = []
    for row, view in zip(views.rows_P.tolist(), views.images_PCHW, strict=True):
        anchor = anchors.images_NCHW[row]
        explained, other = (view, anchor) if of == "view" else (anchor, view)
        noise = anchors.noise(row, method.num_samples, method.noise_seed)
        gradient = torch.zeros_like(view)
        for sample in noise * method.sigma * (anchor.max() - anchor.min()):
            noisy = (explained + sample)[None].requires_grad_(True)
            noisy_other = other + sample if method.noise_on == "both" else other
            score = torch.cosine_similarity(encoder(noisy_other[None]).detach(), encoder(noisy))
            gradient += torch.autograd.grad(score, noisy)[0][0] / method.num_samples
        maps.append((gradient * explained if method.times_input else gradient).abs().max(dim=0).values)
    maps_PHW = torch.stack(maps)
    return gaussian_blur(maps_PHW, [11, 11], [5.0, 5.0]) if method.blur_map else maps_PHW


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("times_input", [False, True])
@pytest.mark.parametrize("noise_on", ["explained", "both"])
def test_smoothgrad_agrees_with_one_sample_at_a_time(channels: int, times_input: bool, noise_on: str) -> None:
    encoder = lively_encoder(channels=channels).double()
    anchors = anchors_of(channels=channels)
    method = SmoothGrad(num_samples=2, noise_on=noise_on, times_input=times_input, noise_seed=5)
    views = all_views(anchors, (30.0,))
    wanted = slow_smoothgrad(method, encoder, anchors, views)
    found = computed(method, FrozenEncoder(encoder, CPU, torch.float64), anchors, views)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9 * float(wanted.max()))


@pytest.mark.parametrize("times_input", [False, True])
@pytest.mark.parametrize("noise_on", ["explained", "both"])
@pytest.mark.parametrize("sweep", [Rotation(), GaussianBlur()])
def test_the_anchors_map_agrees_with_one_sample_at_a_time(sweep: Sweep, noise_on: str, times_input: bool) -> None:
    encoder = lively_encoder().double()
    anchors = anchors_of(sweep=sweep)
    frozen = FrozenEncoder(encoder, CPU, torch.float64)
    method = SmoothGrad(num_samples=3, noise_on=noise_on, times_input=times_input, noise_seed=5)
    views = all_views(anchors, (0.3, 0.1))
    wanted = slow_smoothgrad(method, encoder, anchors, views, of="anchor")
    for images_at_once in (2, 1000):
        budget = images_at_once * frozen.bytes_per_image((1, 32, 32))
        limited = dataclasses.replace(method, memory_budget_bytes=budget)
        found = limited.anchor_maps(frozen, anchors, limited.prepare(frozen, anchors), views)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9 * float(wanted.max()))
    of_views = slow_smoothgrad(method, encoder, anchors, views)
    assert (of_views - wanted).abs().max() > 0.01 * wanted.max()


@pytest.mark.parametrize("of", ["view", "anchor"])
@pytest.mark.parametrize(("guided", "blur_map"), [(True, False), (False, True), (True, True)])
def test_the_form_of_the_thesiss_tool_agrees_with_hooks_and_a_plain_blur(guided: bool, blur_map: bool, of: str) -> None:
    encoder = lively_encoder(channels=3).double()
    anchors = anchors_of(channels=3)
    method = SmoothGrad(num_samples=2, noise_on="both", times_input=True, guided=guided, blur_map=blur_map)
    views = all_views(anchors, (30.0,))
    wanted = slow_smoothgrad(method, encoder, anchors, views, of)
    frozen = FrozenEncoder(encoder, CPU, torch.float64)
    compute = method.maps if of == "view" else method.anchor_maps
    found = compute(frozen, anchors, method.prepare(frozen, anchors), views)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12 * float(wanted.max()))
    plain = slow_smoothgrad(SmoothGrad(2, noise_on="both", times_input=True), encoder, anchors, views, of)
    assert (plain - wanted).abs().max() > 0.1 * plain.max()


@pytest.mark.parametrize("noise_on", ["explained", "both"])
def test_the_memory_budget_changes_nothing(noise_on: str) -> None:
    encoder = lively_encoder().double()
    frozen = FrozenEncoder(encoder, CPU, torch.float64)
    anchors = anchors_of()
    views = all_views(anchors, (30.0,))
    wanted = slow_smoothgrad(SmoothGrad(num_samples=3, noise_on=noise_on), encoder, anchors, views)
    for images_at_once in (1, 2, 4, 7, 1000):
        budget = images_at_once * frozen.bytes_per_image((1, 32, 32))
        method = SmoothGrad(num_samples=3, noise_on=noise_on, memory_budget_bytes=budget)
        found = computed(method, frozen, anchors, views)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9 * float(wanted.max()))


@pytest.mark.parametrize("batch", [1, 5, 16])
def test_the_batch_stays_within_the_memory_budget(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = FrozenEncoder(lively_encoder(), CPU)
    anchors = anchors_of(dtype=torch.float32)
    sizes = []
    forward = frozen.forward
    monkeypatch.setattr(frozen, "forward", lambda images, **how: sizes.append(len(images)) or forward(images, **how))
    method = SmoothGrad(num_samples=4, memory_budget_bytes=batch * frozen.bytes_per_image((1, 32, 32)))
    computed(method, frozen, anchors, all_views(anchors))
    assert max(sizes) <= batch
    assert max(sizes) >= batch * 0.6  # and uses it


class RepeatedToBatch(nn.Module):
    """One image computed as a row of a batch of 16, because batches of other sizes are rounded differently."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        padding = images.detach().expand(15, -1, -1, -1)
        return self.encoder(torch.cat([images, padding]))[:1]


@pytest.mark.parametrize("noise_on", ["explained", "both"])
def test_smoothgrad_in_float32_agrees_where_the_order_of_operations_is_kept(noise_on: str) -> None:
    frozen = FrozenEncoder(lively_encoder(channels=3), CPU)
    anchors = anchors_of(channels=3, dtype=torch.float32)
    method = SmoothGrad(num_samples=4, noise_on=noise_on)
    views = all_views(anchors, (30.0, 90.0))
    wanted = slow_smoothgrad(method, RepeatedToBatch(SameOperations(frozen)), anchors, views)
    found = computed(method, frozen, anchors, views)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * float(wanted.max()))


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_the_gradient_of_the_pair_agrees_with_captum(backbone: str) -> None:
    encoder = lively_encoder(backbone, channels=3).double()
    anchors = anchors_of(num=2, channels=3)
    views = all_views(anchors, (40.0,))

    def score(view: Tensor) -> Tensor:
        return torch.cosine_similarity(encoder(anchors.images_NCHW), encoder(view))

    wanted = Saliency(score).attribute(views.images_PCHW.clone().requires_grad_(True), abs=True).amax(dim=1)
    method = SmoothGrad(num_samples=1, sigma=0.0)
    found = computed(method, FrozenEncoder(encoder, CPU, torch.float64), anchors, views)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9 * float(wanted.max()))


def test_noise_belongs_to_the_image_and_not_to_its_company() -> None:
    anchors = anchors_of()
    others = Anchors(("new", "image 1"), anchors.images_NCHW, anchors.masks_NHW, anchors.sweep)
    assert torch.equal(anchors.noise(1, 4, 0), others.noise(1, 4, 0))
    assert not torch.equal(anchors.noise(0, 4, 0), anchors.noise(1, 4, 0))
    assert not torch.equal(anchors.noise(0, 4, 0), anchors.noise(0, 4, 1))


def test_noise_is_the_same_when_it_is_not_kept() -> None:
    kept, drawn_anew = anchors_of(), anchors_of()
    drawn_anew._noise_bytes_left = 0
    for _ in range(2):
        assert torch.equal(kept.noise(1, 3, 0), drawn_anew.noise(1, 3, 0))
    assert kept._noise
    assert not drawn_anew._noise


def test_shared_noise_is_not_defined_where_the_view_is_the_anchor() -> None:
    assert not SmoothGrad(noise_on="both").is_defined_at_neutral
    assert SmoothGrad().is_defined_at_neutral


@pytest.mark.parametrize("method", METHODS)
class TestContract:
    """What every method promises. A new one is found by itself."""

    def example(self, method: type[SaliencyMethod]) -> SaliencyMethod:
        fields = {field.name for field in dataclasses.fields(method)}
        few = {"num_samples": 2, "num_windows": 4, "num_erasures": 4, "num_strengths": 2}
        return method(**{name: value for name, value in few.items() if name in fields})

    def test_is_a_frozen_dataclass_with_an_identity(self, method: type[SaliencyMethod]) -> None:
        assert dataclasses.is_dataclass(method)
        assert method.__dataclass_params__.frozen
        example = self.example(method)
        assert key_of(example, FileDigests()) == key_of(self.example(method), FileDigests())
        assert hash(example) == hash(self.example(method))

    @pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: type(sweep).__name__)
    @pytest.mark.parametrize("of", ["maps", "anchor_maps"])
    def test_maps_do_not_depend_on_the_batch_and_change_nothing(
        self, method: type[SaliencyMethod], of: str, sweep: Sweep
    ) -> None:
        example = self.example(method)
        encoder = FrozenEncoder(lively_encoder(), CPU) if example.needs_encoder else None
        anchors = anchors_of(dtype=torch.float32, sweep=sweep)
        neutral = (sweep.neutral,) if example.is_defined_at_neutral else ()
        views = all_views(anchors, (*neutral, *changed(sweep)))
        images, seen = anchors.images_NCHW.clone(), views.images_PCHW.clone()
        prepared = example.prepare(encoder, anchors)
        compute = getattr(example, of)
        together = compute(encoder, anchors, prepared, views)
        assert together.shape == (len(views.rows_P), 32, 32)
        assert together.isfinite().all()
        assert (together >= 0).all()
        for place in (0, 3, len(views.rows_P) - 1):
            part = views[place : place + 1]
            assert torch.equal(compute(encoder, anchors, prepared, part)[0], together[place])
        assert torch.equal(anchors.images_NCHW, images)
        assert torch.equal(views.images_PCHW, seen)

    @pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: type(sweep).__name__)
    def test_where_the_view_is_the_anchor_both_have_one_map(self, method: type[SaliencyMethod], sweep: Sweep) -> None:
        example = self.example(method)
        if not example.is_defined_at_neutral or method is PairwiseOcclusion:
            pytest.skip("there is no map, or both images are erased at places of their own")
        encoder = FrozenEncoder(lively_encoder(), CPU) if example.needs_encoder else None
        anchors = anchors_of(dtype=torch.float32, sweep=sweep)
        views = all_views(anchors, (sweep.neutral,))
        prepared = example.prepare(encoder, anchors)
        maps = [compute(encoder, anchors, prepared, views) for compute in (example.maps, example.anchor_maps)]
        torch.testing.assert_close(*maps, rtol=0, atol=1e-5 * float(maps[0].max()))

    def test_prepared_tensors_serve_in_another_process(self, method: type[SaliencyMethod]) -> None:
        example = self.example(method)
        encoder = FrozenEncoder(lively_encoder(), CPU) if example.needs_encoder else None
        anchors, elsewhere = anchors_of(dtype=torch.float32), anchors_of(dtype=torch.float32)
        prepared = {name: torch.from_numpy(t.numpy().copy()) for name, t in example.prepare(encoder, anchors).items()}
        views = all_views(anchors, ANGLES_DEG[1:])
        here = computed(example, encoder, anchors, views)
        assert torch.equal(example.maps(encoder, elsewhere, prepared, views), here)


def test_a_method_that_explains_refuses_to_do_without_an_encoder() -> None:
    anchors = anchors_of()
    with pytest.raises(ValueError, match="SmoothGrad explains an encoder"):
        SmoothGrad().prepare(None, anchors)


def test_the_fixed_map_is_the_unrotated_map_rotated() -> None:
    encoder = FrozenEncoder(lively_encoder(), CPU)
    anchors = anchors_of(dtype=torch.float32, sweep=Rotation("nearest"))
    smoothgrad = SmoothGrad(num_samples=2)
    unrotated = computed(smoothgrad, encoder, anchors, all_views(anchors, (0.0,)))
    found = computed(FixedMap(smoothgrad), encoder, anchors, all_views(anchors, (0.0, 37.0)))
    rotated = resample.rotate(unrotated[:, None], 37.0, "nearest")[:, 0]
    torch.testing.assert_close(found, torch.cat([unrotated, rotated]))


def test_the_fixed_map_of_a_control_needs_no_encoder() -> None:
    assert not FixedMap(ImageIntensity()).needs_encoder
    assert FixedMap(SmoothGrad(bf16=True)).encoder_dtype == torch.bfloat16


def test_a_map_that_is_not_defined_at_the_neutral_value_cannot_be_fixed() -> None:
    with pytest.raises(ValueError, match="no map of the unchanged image"):
        FixedMap(SmoothGrad(noise_on="both"))


def test_intensity_is_the_brightest_channel_of_the_view() -> None:
    anchors = anchors_of(channels=3)
    views = all_views(anchors)
    assert torch.equal(computed(ImageIntensity(), None, anchors, views), views.images_PCHW.max(dim=1).values)


def test_the_mask_makes_the_trip_the_views_make() -> None:
    anchors = anchors_of(sweep=Rotation(fill="reflect"))
    views = all_views(anchors, (0.0, 25.0))
    wanted = resample.rotate(anchors.masks_NHW[:, None], 25.0, "bilinear", "reflect")[:, 0]
    found = computed(MaskRoundTrip(), None, anchors, views)
    torch.testing.assert_close(found, torch.cat([anchors.masks_NHW, wanted]))


@pytest.mark.parametrize("sweep", [GaussianBlur(), Brightness()])
def test_what_moves_no_pixel_leaves_the_fixed_map_and_the_mask_as_they_are(sweep: Sweep) -> None:
    anchors = anchors_of(sweep=sweep)
    views = all_views(anchors, (0.05, 0.2))
    assert torch.equal(computed(MaskRoundTrip(), None, anchors, views), anchors.masks_NHW.repeat(2, 1, 1))
    intensity = anchors.images_NCHW[:, 0].repeat(2, 1, 1)
    assert torch.equal(computed(FixedMap(ImageIntensity()), None, anchors, views), intensity)
    assert (computed(ImageIntensity(), None, anchors, views) - intensity).abs().max() > 0.1


def test_a_crop_enlarges_the_mask_with_the_view() -> None:
    anchors = anchors_of(sweep=CentreCrop())
    views = all_views(anchors, (0.5,))
    wanted = anchors.sweep.view(anchors.masks_NHW[:, None], views.values_P)[:, 0]
    assert torch.equal(computed(MaskRoundTrip(), None, anchors, views), wanted)
    assert not torch.equal(wanted, anchors.masks_NHW)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 0}, "num_samples = 0"),
        ({"sigma": -0.1}, "sigma = -0.1"),
        ({"noise_on": "view"}, "noise_on = 'view'.*'both'"),
        ({"memory_budget_bytes": 0}, "memory_budget_bytes = 0"),
    ],
)
def test_impossible_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SmoothGrad(**settings)


def test_the_memory_budget_is_no_part_of_the_identity() -> None:
    digests = FileDigests()
    assert key_of(SmoothGrad(memory_budget_bytes=1 << 20), digests) == key_of(SmoothGrad(), digests)
    assert key_of(SmoothGrad(times_input=True), digests) != key_of(SmoothGrad(), digests)
