"""A frozen ResNet for gradients with respect to its input: nothing is computed that only training needs.

Three things make it fast without changing a formula. Batch normalisation is folded into the convolutions. Memory is
channels-last, and rectifications work in place, forward and backward. And the input gradient is split at the
output of the first convolution, the *stem*: the stem is linear, so the mean of many input gradients is one
pull-back of the mean stem gradient, whereas a pull-back to one or three channels is the slowest convolution of all.

The backward pass is written out instead of left to autograd, because in-place gradients are unsafe for a graph that
others may hook into; the small graph from the pooled features to the embeddings stays with autograd, so that any
score can be put on top.

Shapes: B images, C channels, H x W pixels, S stem channels, F features, D embedding dimensions.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from trainables.models.encoder import Encoder
from trainables.models.trunk import Trunk

_POOL = {"kernel_size": [3, 3], "stride": [2, 2], "padding": [1, 1], "dilation": [1, 1], "ceil_mode": False}
# Gradients and the workspace of a convolution, beside the activations that the tape keeps.
_WORKSPACE_SHARE = 0.5
_HEAD_ROWS = 16
_HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
_PACKED_FOR_BATCH = 16


@dataclass
class Tape:
    """What a forward pass leaves for one backward pass, which consumes it."""

    features_BF: Tensor
    """After global average pooling; a leaf that requires its gradient."""
    embeddings_BD: Tensor
    """Raw head output, connected to ``features_BF`` by autograd."""
    maps_BFhw: Tensor
    """Output of the last residual stage."""
    stem_BShw: Tensor
    pool_indices: Tensor
    block_inputs: list[list[Tensor]]
    """For each block, the inputs of its convolutions in order; each is the output of a rectification."""
    guided: bool = False
    """Whether rectifications let positive gradients through only, on the way back."""

    def num_bytes(self) -> int:
        kept = [self.maps_BFhw, self.stem_BShw, self.pool_indices]
        kept += [tensor for inputs in self.block_inputs for tensor in inputs]
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in kept}.values())


class FrozenEncoder:
    """An encoder in evaluation mode, on one device, for embeddings and input gradients.

    For one size of batch, an image's results are bitwise the same whatever the other images and its place among
    them (on a CPU; batches of other sizes may be rounded differently).

    Args:
        encoder: its weights and running statistics are copied; it is left as it was.
        dtype: of images, trunk and gradients. The head stays in float32 when this is bfloat16.

    Raises:
        TypeError: the trunk is not a torchvision ResNet with batch normalisation.
    """

    def __init__(self, encoder: Encoder, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        trunk = encoder.trunk
        if not isinstance(trunk, Trunk):
            raise TypeError(f"the trunk is a {type(trunk).__name__}; only torchvision's ResNet can be frozen so far")
        self.device, self.dtype = device, dtype
        self.head_dtype = torch.float32 if dtype == torch.bfloat16 else dtype
        # Division by std goes into the stem's weights. The mean cannot: the stem pads with the standardised 0.
        self._mean = encoder.mean.detach().to(device, dtype)
        self._stem = _Convolution.folded(trunk.conv1, trunk.bn1, device, dtype, input_std=encoder.std)
        stages = (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4)
        self._blocks = [_Block.folded(block, device, dtype) for stage in stages for block in stage]
        self._head = copy.deepcopy(encoder.head).eval().requires_grad_(False).to(device, self.head_dtype)
        self._guided_head = _with_guided_rectifications(self._head)
        self._bytes_by_shape: dict[tuple[int, ...], int] = {}

    @torch.no_grad()
    def embeddings(self, images_BCHW: Tensor) -> Tensor:
        """Images in [0, 1] to raw embeddings [B, D] in ``head_dtype``, without anything for a backward pass."""
        return self._embedded(self._features(self.feature_maps(images_BCHW)), self._head)

    @torch.no_grad()
    def feature_maps(self, images_BCHW: Tensor) -> Tensor:
        """Images in [0, 1] to the last residual stage's maps [B, F, H / 32, W / 32], not negative."""
        maps_BFhw = self._pooled(self._stem_output(images_BCHW))[0]
        for block in self._blocks:
            maps_BFhw = block.forward(maps_BFhw)[0]
        return maps_BFhw

    def head_gradients(self, anchor_maps_BFhw: Tensor, view_maps_BFhw: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of cos(f(anchor), f(view)) at the last stage's maps: of the anchor's and the view's [B, F].

        They are the same at every position, as the head sees the maps' means alone.
        """
        num_positions = anchor_maps_BFhw[0, 0].numel()
        features = [self._features(maps).requires_grad_(True) for maps in (anchor_maps_BFhw, view_maps_BFhw)]
        with torch.enable_grad():
            embeddings = [self._embedded(of_image_BF, self._head) for of_image_BF in features]
            score = torch.cosine_similarity(embeddings[0], embeddings[1]).sum()
            by_anchor_BF, by_view_BF = torch.autograd.grad(score, features)
        return by_anchor_BF / num_positions, by_view_BF / num_positions

    @torch.no_grad()
    def forward(self, images_BCHW: Tensor, *, guided: bool = False) -> Tape:
        """Images in [0, 1], any dtype, on the device. Needs ``bytes_per_image`` for each.

        Args:
            guided: for guided backpropagation (Springenberg et al. 2015, arXiv:1412.6806) instead of the gradient:
                what a rectification hands back is rectified too, at each of them, the head's included. The
                embeddings are the same.
        """
        stem_BShw = self._stem_output(images_BCHW)
        maps_BFhw, pool_indices = self._pooled(stem_BShw)
        block_inputs = []
        for block in self._blocks:
            maps_BFhw, inputs = block.forward(maps_BFhw)
            block_inputs.append(inputs)
        features_BF = self._features(maps_BFhw).requires_grad_(True)
        with torch.enable_grad():
            embeddings_BD = self._embedded(features_BF, self._guided_head if guided else self._head)
        return Tape(features_BF, embeddings_BD, maps_BFhw, stem_BShw, pool_indices, block_inputs, guided)

    @torch.no_grad()
    def stem_gradient(self, tape: Tape, features_gradient_BF: Tensor) -> Tensor:
        """From the gradient with respect to ``tape.features_BF`` to that of the stem's output [B, S, h, w].

        Consumes the tape, so that memory is free as soon as it can be.
        """
        output = tape.maps_BFhw
        share_BF11 = (features_gradient_BF / output[0, 0].numel()).to(self.dtype)[:, :, None, None]
        if tape.guided:
            share_BF11.clamp_(min=0)
        gradient = torch.where(output > 0, share_BF11, 0)
        for place in range(len(self._blocks) - 1, -1, -1):
            inputs = tape.block_inputs.pop()
            gradient = self._blocks[place].backward(gradient, inputs, guided=tape.guided)
            # Before the first block lies the pooling, whose overlapping windows are to be summed before a clamp.
            _mask_by_output(gradient, inputs[0], guided=tape.guided and place > 0)
        stem_gradient_BShw: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            gradient, tape.stem_BShw, *_POOL.values(), tape.pool_indices
        )
        return stem_gradient_BShw.clamp_(min=0) if tape.guided else stem_gradient_BShw

    @torch.no_grad()
    def image_gradient(self, stem_gradient_BShw: Tensor, image_size: tuple[int, int]) -> Tensor:
        """The pull-back through the linear stem, to images of ``image_size`` = (H, W): [B, C, H, W]."""
        shape = (len(stem_gradient_BShw), self._mean.shape[1], *image_size)
        images_BCHW = torch.empty(shape, device=self.device, dtype=self.dtype, memory_format=torch.channels_last)
        return self._stem.backward(_channels_last(stem_gradient_BShw.to(self.dtype)), images_BCHW)

    def bytes_per_image(self, image_shape: tuple[int, ...]) -> int:
        """Memory that one image [C, H, W] takes in a forward and backward pass, measured once."""
        if image_shape not in self._bytes_by_shape:
            tape = self.forward(torch.zeros((1, *image_shape), device=self.device))
            self._bytes_by_shape[image_shape] = int(tape.num_bytes() * (1 + _WORKSPACE_SHARE))
        return self._bytes_by_shape[image_shape]

    def largest_block_bytes(self, image_size: tuple[int, int]) -> int:
        """Memory of one image's largest activation, the stem's output."""
        (height, width), _ = self._stem.flop(image_size)
        return len(self._stem.weight) * height * width * self.dtype.itemsize

    def flop(self, image_size: tuple[int, int]) -> tuple[float, float]:
        """Operations of the convolutions for one image: (the stem's alone, those of all blocks).

        A multiply-add counts as two. A forward pass executes both numbers; ``stem_gradient`` the second, and
        ``image_gradient`` the first.
        """
        size, stem_flop = self._stem.flop(image_size)
        size = ((size[0] + 1) // 2, (size[1] + 1) // 2)
        blocks_flop = 0.0
        for block in self._blocks:
            size, flop = block.flop(size)
            blocks_flop += flop
        return stem_flop, blocks_flop

    def _stem_output(self, images_BCHW: Tensor) -> Tensor:
        centred_BCHW = torch.empty(
            images_BCHW.shape, device=self.device, dtype=self.dtype, memory_format=torch.channels_last
        )
        torch.sub(images_BCHW.to(self.dtype), self._mean, out=centred_BCHW)
        return _channels_last(self._stem.forward(centred_BCHW))

    def _pooled(self, stem_BShw: Tensor) -> tuple[Tensor, Tensor]:
        # Rectification and maximum commute, and after pooling it has a quarter of the pixels to visit.
        pooled, indices = torch.ops.aten.max_pool2d_with_indices(stem_BShw, *_POOL.values())
        return pooled.relu_(), indices

    def _features(self, maps_BFhw: Tensor) -> Tensor:
        return maps_BFhw.to(self.head_dtype).mean(dim=(2, 3))

    def _embedded(self, features_BF: Tensor, head: nn.Module) -> Tensor:
        # Matrix products of few rows round differently row by row; padded, a row's result does not depend on its place.
        padding = -len(features_BF) % _HEAD_ROWS
        embeddings: Tensor = head(nn.functional.pad(features_BF, (0, 0, 0, padding)))
        return embeddings[: len(features_BF)]


class _Kernel:
    """A convolution, an addition and a rectification as one step, where the device has such a step."""

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int]) -> None:
        self.weight, self.bias, self.stride, self.padding = weight, bias, stride, padding
        self._is_fused = _HAS_ONEDNN and weight.device.type == "cpu" and weight.dtype == torch.float32
        self._packed: Tensor | None = None

    def __call__(self, images: Tensor, add: Tensor | None = None, *, rectify: bool = False) -> Tensor:
        if self._is_fused:
            return self._fused(images, add, rectify)
        output = torch.conv2d(images, self.weight, self.bias, self.stride, self.padding)
        if add is not None:
            output += add
        return output.relu_() if rectify else output

    def _fused(self, images: Tensor, add: Tensor | None, rectify: bool) -> Tensor:
        # As torch.compile does it. Plain conv2d reorders the weights each time, and takes a slower kernel for small
        # batches of 1 x 1 convolutions on one thread.
        onednn = torch.ops.mkldnn
        if self._packed is None:
            size = [_PACKED_FOR_BATCH, *images.shape[1:]]
            self._packed = onednn._reorder_convolution_weight(self.weight, self.padding, self.stride, [1, 1], 1, size)
        geometry = (self._packed, self.bias, self.padding, self.stride, [1, 1], 1)
        output: Tensor
        if add is None:
            output = onednn._convolution_pointwise(images, *geometry, "relu" if rectify else "none", [], "")
        else:
            unary = "relu" if rectify else None
            output = onednn._convolution_pointwise.binary(images, add, *geometry, "add", 1.0, unary, [], None)
        return output


class _Convolution:
    """A convolution with its batch normalisation folded in."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: list[int], padding: list[int]) -> None:
        self.weight, self.bias, self.stride, self.padding = weight, bias, stride, padding
        self._forward = _Kernel(weight, bias, stride, padding)
        self._backward: _Kernel | None = None
        size = list(weight.shape[2:])
        if stride == [1, 1] or (size == [1, 1] and padding == [0, 0]):
            # The backward pass is a convolution too, with kernels flipped and channels exchanged.
            flipped = _channels_last(weight.flip(2, 3).transpose(0, 1))
            self._backward = _Kernel(flipped, None, [1, 1], [size[axis] - 1 - padding[axis] for axis in (0, 1)])

    @classmethod
    def folded(
        cls,
        convolution: nn.Conv2d,
        norm: nn.BatchNorm2d,
        device: torch.device,
        dtype: torch.dtype,
        input_std: Tensor | None = None,
    ) -> _Convolution:
        _check_foldable(convolution, norm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        # In float64, so that folding costs no accuracy beyond the final rounding.
        weight, bias = fuse_conv_bn_weights(
            nn.Parameter(convolution.weight.detach().double()),
            None,
            norm.running_mean.double(),
            norm.running_var.double(),
            norm.eps,
            nn.Parameter(norm.weight.detach().double()),
            nn.Parameter(norm.bias.detach().double()),
        )
        padding = convolution.padding
        assert not isinstance(padding, str)
        kernel = weight.detach() if input_std is None else weight.detach() / input_std.double().to(weight.device)
        kernel = kernel.to(device, dtype).contiguous(memory_format=torch.channels_last)
        return cls(kernel, bias.detach().to(device, dtype), [*convolution.stride], [*padding])

    def forward(self, images: Tensor, add: Tensor | None = None, *, rectify: bool = False) -> Tensor:
        return self._forward(images, add, rectify=rectify)

    def backward(self, gradient: Tensor, images: Tensor, add: Tensor | None = None) -> Tensor:
        """The gradient by ``images``, of which only the shape counts; plus ``add``, which may be used up."""
        if self._backward is not None and self.stride == [1, 1]:
            return self._backward(gradient, add)
        if self._backward is not None and add is not None:
            # Only the pixels that a strided 1 x 1 convolution reads have a gradient.
            add[:, :, :: self.stride[0], :: self.stride[1]] += self._backward(gradient)
            return add
        wanted = [True, False, False]
        found: Any = torch.ops.aten.convolution_backward(
            gradient, images, self.weight, None, self.stride, self.padding, [1, 1], False, [0, 0], 1, wanted
        )
        input_gradient: Tensor = found[0]
        return input_gradient if add is None else input_gradient.add_(add)

    def flop(self, size: tuple[int, int]) -> tuple[tuple[int, int], float]:
        kernel = self.weight.shape[2:]
        height, width = (
            (size[axis] + 2 * self.padding[axis] - kernel[axis]) // self.stride[axis] + 1 for axis in (0, 1)
        )
        return (height, width), 2.0 * self.weight.numel() * height * width


class _Block:
    """A residual block: convolutions in a row, rectified in between, added to the identity or its projection."""

    def __init__(self, convolutions: list[_Convolution], projection: _Convolution | None) -> None:
        self.convolutions, self.projection = convolutions, projection

    @classmethod
    def folded(cls, block: nn.Module, device: torch.device, dtype: torch.dtype) -> _Block:
        from torchvision.models.resnet import BasicBlock, Bottleneck  # not for a plan, which freezes no encoder

        if not isinstance(block, BasicBlock | Bottleneck):
            raise TypeError(f"a {type(block).__name__} is no residual block of torchvision")
        pairs: list[tuple[Any, Any]] = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
        if isinstance(block, Bottleneck):
            pairs.append((block.conv3, block.bn3))
        convolutions = [_Convolution.folded(convolution, norm, device, dtype) for convolution, norm in pairs]
        projection = None
        if block.downsample is not None:
            projection = _Convolution.folded(block.downsample[0], block.downsample[1], device, dtype)
        return cls(convolutions, projection)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The block's output and the input of each of its convolutions."""
        inputs = [images]
        for convolution in self.convolutions[:-1]:
            inputs.append(convolution.forward(inputs[-1], rectify=True))
        shortcut = images if self.projection is None else self.projection.forward(images)
        return self.convolutions[-1].forward(inputs[-1], shortcut, rectify=True), inputs

    def backward(self, gradient: Tensor, inputs: list[Tensor], *, guided: bool) -> Tensor:
        """From the gradient before the last rectification to that of the block's input."""
        inner = gradient
        for place in range(len(self.convolutions) - 1, 0, -1):
            inner = self.convolutions[place].backward(inner, inputs[place])
            _mask_by_output(inner, inputs[place], guided=guided)
        if self.projection is None:
            return self.convolutions[0].backward(inner, inputs[0], add=gradient)
        return self.projection.backward(gradient, inputs[0], add=self.convolutions[0].backward(inner, inputs[0]))

    def flop(self, size: tuple[int, int]) -> tuple[tuple[int, int], float]:
        total = 0.0 if self.projection is None else self.projection.flop(size)[1]
        for convolution in self.convolutions:
            size, flop = convolution.flop(size)
            total += flop
        return size, total


def _check_foldable(convolution: nn.Conv2d, norm: nn.Module) -> None:
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or not norm.affine:
        raise TypeError(f"{norm} cannot be folded: only batch normalisation with running statistics and weights can")
    is_plain = convolution.groups == 1 and convolution.dilation == (1, 1) and convolution.bias is None
    if not is_plain or isinstance(convolution.padding, str):
        raise TypeError(f"{convolution} has groups, dilation, a bias or named padding, which no ResNet-18 to -152 has")


def _mask_by_output(gradient: Tensor, output: Tensor, *, guided: bool) -> None:
    """In place, the backward pass of the rectification that gave ``output``; the guided one also drops negatives."""
    torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)
    if guided:
        gradient.clamp_(min=0)


class _GuidedRectification(torch.autograd.Function):
    """max(x, 0), whose gradient is rectified as well."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        output = values.clamp(min=0)
        context.save_for_backward(output)
        return output

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (output,) = context.saved_tensors
        return torch.where(output > 0, gradient.clamp(min=0), 0)


class _GuidedReLU(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        rectified: Tensor = _GuidedRectification.apply(values)
        return rectified


def _with_guided_rectifications(head: nn.Module) -> nn.Module:
    """A head with the same weights, whose ``nn.ReLU`` are guided."""
    if isinstance(head, nn.ReLU):
        return _GuidedReLU()
    guided = copy.copy(head)
    guided._modules = {name: None if m is None else _with_guided_rectifications(m) for name, m in head._modules.items()}
    return guided


def _channels_last(images: Tensor) -> Tensor:
    """The same values with the channel stride 1, also where one channel makes both layouts count as contiguous."""
    if images.stride(1) == 1:
        return images
    return torch.empty_like(images, memory_format=torch.channels_last).copy_(images)
