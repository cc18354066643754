import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from trainables.models.encoder import Encoder, build_encoder
from trainables.models.frozen import FrozenEncoder

CPU = torch.device("cpu")
ENCODERS = [("resnet18", "v2", 1, 32), ("resnet18", "v1", 3, 45), ("resnet50", "v2", 3, 32)]


def lively_encoder(backbone: str = "resnet18", head: str = "v2", channels: int = 1, seed: int = 0) -> Encoder:
    """An encoder of one's own, whose batch normalisations all do something."""
    return copy.deepcopy(_lively_encoder(backbone, head, channels, seed))


@functools.cache
def _lively_encoder(backbone: str, head: str, channels: int, seed: int) -> Encoder:
    statistics = {"mean": [0.2, 0.3, 0.4][:channels], "std": [0.5, 0.25, 0.3][:channels]}
    encoder = build_encoder(backbone, head, channels, 16, **statistics, seed=seed).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in [
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.7, 1.2),
                (module.bias.data, -0.2, 0.2),
            ]:
                values.copy_(low + (high - low) * torch.rand(values.shape, generator=generator))
    return encoder


def images_of(num: int, channels: int, size: int = 32) -> Tensor:
    return torch.rand(num, channels, size, size, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def input_gradient(frozen: FrozenEncoder, images: Tensor, weights: Tensor, *, guided: bool = False) -> Tensor:
    """Gradient of sum(weights * embeddings) along the fast path."""
    tape = frozen.forward(images, guided=guided)
    (gradient,) = torch.autograd.grad((tape.embeddings_BD * weights).sum(), tape.features_BF)
    return frozen.image_gradient(frozen.stem_gradient(tape, gradient), images.shape[2:])


def autograd_gradient(encoder: nn.Module, images: Tensor, weights: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_(True)
    return torch.autograd.grad((encoder(leaf) * weights).sum(), leaf)[0]


class SameOperations(nn.Module):
    """The folded convolutions in the same order, as plain torch, differentiated by autograd."""

    def __init__(self, frozen: FrozenEncoder) -> None:
        super().__init__()
        self.frozen = frozen

    def forward(self, images: Tensor) -> Tensor:
        frozen = self.frozen
        maps = F.max_pool2d(F.relu(convolved(frozen._stem, images - frozen._mean)), 3, stride=2, padding=1)
        for block in frozen._blocks:
            inner = maps
            for convolution in block.convolutions[:-1]:
                inner = F.relu(convolved(convolution, inner))
            shortcut = maps if block.projection is None else convolved(block.projection, maps)
            maps = F.relu(convolved(block.convolutions[-1], inner) + shortcut)
        return frozen._head(maps.mean(dim=(2, 3)))


def convolved(convolution: Any, images: Tensor) -> Tensor:
    images = images.contiguous(memory_format=torch.channels_last)
    return F.conv2d(images, convolution.weight, convolution.bias, convolution.stride, convolution.padding)


@pytest.mark.parametrize(("backbone", "head", "channels", "size"), ENCODERS)
def test_embeddings_and_gradients_agree_with_the_plain_encoder(
    backbone: str, head: str, channels: int, size: int
) -> None:
    encoder = lively_encoder(backbone, head, channels).double()
    images, weights = images_of(2, channels, size), torch.randn(2, 16, dtype=torch.float64)
    frozen = FrozenEncoder(encoder, CPU, torch.float64)
    wanted = encoder(images)
    torch.testing.assert_close(frozen.embeddings(images), wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(frozen.forward(images).embeddings_BD.detach(), wanted, rtol=1e-10, atol=1e-12)
    gradient = autograd_gradient(encoder, images, weights)
    found = input_gradient(frozen, images, weights)
    torch.testing.assert_close(found, gradient, rtol=0, atol=1e-9 * float(gradient.abs().max()))


@pytest.mark.parametrize("channels", [1, 3])
def test_in_float32_it_agrees_with_autograd_through_the_same_operations(channels: int) -> None:
    frozen = FrozenEncoder(lively_encoder(channels=channels), CPU)
    images, weights = images_of(16, channels).float(), torch.randn(16, 16)
    wanted = autograd_gradient(SameOperations(frozen), images, weights)
    torch.testing.assert_close(
        input_gradient(frozen, images, weights), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max())
    )


def test_the_pull_back_of_a_mean_is_the_mean_of_the_pull_backs() -> None:
    encoder = lively_encoder(channels=3).double()
    frozen = FrozenEncoder(encoder, CPU, torch.float64)
    images, weights = images_of(5, 3), torch.randn(1, 16, dtype=torch.float64)
    tape = frozen.forward(images)
    (gradient,) = torch.autograd.grad((tape.embeddings_BD * weights).sum(), tape.features_BF)
    mean = frozen.image_gradient(frozen.stem_gradient(tape, gradient).mean(dim=0, keepdim=True), (32, 32))
    wanted = autograd_gradient(encoder, images, weights).mean(dim=0, keepdim=True)
    torch.testing.assert_close(mean, wanted, rtol=0, atol=1e-9 * float(wanted.abs().max()))


@pytest.mark.parametrize("num", [5, 6, 16])
def test_an_images_result_does_not_depend_on_its_place_in_the_batch(num: int) -> None:
    frozen = FrozenEncoder(lively_encoder(), CPU)
    images, weights = images_of(num, 1).float(), torch.ones(1, 16)
    order = torch.randperm(num, generator=torch.Generator().manual_seed(1))
    assert torch.equal(frozen.embeddings(images[order]), frozen.embeddings(images)[order])
    found = input_gradient(frozen, images, weights)
    assert torch.equal(input_gradient(frozen, images[order], weights), found[order])


def test_the_encoder_it_was_made_of_is_left_as_it_was() -> None:
    encoder = lively_encoder()
    before = copy.deepcopy(encoder.state_dict())
    frozen = FrozenEncoder(encoder, CPU)
    images = images_of(2, 1).float()
    kept = images.clone()
    first = input_gradient(frozen, images, torch.ones(1, 16))
    assert all(torch.equal(before[name], values) for name, values in encoder.state_dict().items())
    assert torch.equal(images, kept)
    assert torch.equal(input_gradient(frozen, images, torch.ones(1, 16)), first)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_operations_are_counted_as_torch_counts_them(backbone: str) -> None:
    encoder = lively_encoder(backbone, "v1", 3)
    stem, blocks = FrozenEncoder(encoder, CPU).flop((65, 65))
    counter = FlopCounterMode(display=False)
    with counter:
        encoder(images_of(1, 3, 65).float())
    convolutions = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    assert stem + blocks == convolutions
    assert stem == 2 * 64 * 3 * 49 * 33 * 33


def test_the_memory_of_an_image_covers_what_a_pass_keeps() -> None:
    frozen = FrozenEncoder(lively_encoder(), CPU)
    tape = frozen.forward(images_of(4, 1).float())
    assert 4 * frozen.bytes_per_image((1, 32, 32)) >= tape.num_bytes() > 4 * 4 * 64 * 16 * 16


def test_bfloat16_stays_near_float32() -> None:
    encoder = lively_encoder()
    images, weights = images_of(4, 1).float(), torch.ones(1, 16)
    exact, rounded = FrozenEncoder(encoder, CPU), FrozenEncoder(encoder, CPU, torch.bfloat16)
    torch.testing.assert_close(rounded.embeddings(images), exact.embeddings(images), rtol=0.05, atol=0.05)
    gradients = [input_gradient(frozen, images, weights).double().flatten() for frozen in (exact, rounded)]
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95


def test_what_cannot_be_frozen_is_refused_by_name() -> None:
    encoder = lively_encoder()
    encoder.trunk = nn.Sequential(nn.Conv2d(1, 1, 1))
    with pytest.raises(TypeError, match=r"Sequential.*ResNet"):
        FrozenEncoder(encoder, CPU)
    encoder = lively_encoder()
    encoder.trunk.layer2[0].bn1 = nn.GroupNorm(4, 128)
    with pytest.raises(TypeError, match=r"GroupNorm.*folded"):
        FrozenEncoder(encoder, CPU)


def guided_by_hooks(encoder: Encoder) -> Encoder:
    """The published way: a backward hook on every nn.ReLU. torchvision's, which share a module, work in place."""
    encoder = copy.deepcopy(encoder)
    for module in encoder.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
            module.register_full_backward_hook(lambda module, gradient, _: (gradient[0].clamp(min=0),))
    return encoder


@pytest.mark.parametrize(("backbone", "head", "channels", "size"), ENCODERS)
def test_guided_backpropagation_agrees_with_hooks_on_every_rectification(
    backbone: str, head: str, channels: int, size: int
) -> None:
    encoder = lively_encoder(backbone, head, channels).double()
    images = images_of(2, channels, size)
    weights = torch.randn(2, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    frozen = FrozenEncoder(encoder, CPU, torch.float64)
    plain, found = (input_gradient(frozen, images, weights, guided=guided) for guided in (False, True))
    wanted = autograd_gradient(guided_by_hooks(encoder), images, weights)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))
    assert (found - plain).abs().max() > 0.1 * plain.abs().max()


def test_a_guided_pass_leaves_the_embeddings_and_the_plain_gradient_as_they_are() -> None:
    frozen = FrozenEncoder(lively_encoder(), CPU)
    images, weights = images_of(3, 1).float(), torch.ones(1, 16)
    before = input_gradient(frozen, images, weights)
    assert torch.equal(frozen.forward(images, guided=True).embeddings_BD, frozen.forward(images).embeddings_BD)
    assert torch.equal(input_gradient(frozen, images, weights), before)
