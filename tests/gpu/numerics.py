"""What a device computes against what the CPU does: functions that take the device, and say what they saw.

Torch and `trainables` are all that they need. On the CPU itself they hold too, which the normal tests check. Each
returns one line for a person, and raises AssertionError.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl
import torch
from fake_context import FakeContext
from spread_moco import CONFIG, DATA, cut_short, differences, state_of, trained, training_in
from torch import Tensor, nn
from workers import in_workers

from trainables import runtime
from trainables.data.batches import DeviceImages
from trainables.data.cache import ImageTable
from trainables.models.encoder import Encoder, build_encoder, frozen
from trainables.models.frozen import FrozenEncoder
from trainables.saliency.base import Anchors
from trainables.saliency.gradients import SmoothGrad
from trainables.ssl.moco import MoCo, MoCoTraining
from trainables.sweeps import Rotation

CPU = torch.device("cpu")
# Float64 has 16 digits. Another order of sums in a ResNet-18, forward and backward, leaves 12 of them at worst, and
# each step of a training may take one: workers on CPUs, who sum in other orders, end 2e-13 apart.
MAPS_TOLERANCE, STEPS_TOLERANCE = 1e-9, 1e-8
# bfloat16 rounds to 2^-9 = 0.2 %. Some 20 layers' independent roundings turn an embedding by about 0.01 (a cosine of
# 0.9999 to the exact one); a similarity then moves by 0.01 and a logit, over a temperature of 0.2, by 0.05.
BFLOAT16_COSINE, BFLOAT16_LOSS = 0.995, 0.1
NUM_STEPS = 3


def smoothgrad(device: torch.device) -> str:
    """Maps of views and of anchors in float64, as the paper draws them and as the thesis's tool does."""
    encoder = _lively_encoder()
    worst = 0.0
    for method in (SmoothGrad(3), SmoothGrad(3, noise_on="both", times_input=True, guided=True, blur_map=True)):
        expected, found = (_maps(method, encoder, where) for where in (CPU, device))
        for wanted, maps in zip(expected, found, strict=True):
            assert maps.device.type == device.type
            worst = max(worst, float((maps.cpu() - wanted).abs().max() / wanted.max()))
    assert 0 <= worst < MAPS_TOLERANCE, f"maps differ by {worst:.1e} of their largest value"
    return f"SmoothGrad in float64: maps differ by {worst:.0e} of their largest value"


def moco_steps(device: torch.device) -> str:
    """Three steps in float64: loss, both networks, queue and momenta."""
    expected, found = (_after_steps(torch.float64, CONFIG, where) for where in (CPU, device))
    away = differences(found, expected)
    worst = max(away, key=lambda name: away[name])
    assert away[worst] < STEPS_TOLERANCE, f"{worst} differs by {away[worst]:.1e} of its largest value"
    return f"MoCo in float64, {NUM_STEPS} steps: {worst} differs most, by {away[worst]:.0e}"


def bfloat16(device: torch.device) -> str:
    """Autocast really rounds, and stays near float32: queries of the first step and its loss."""
    losses_, queries = [], []
    for precision in ("float32", "bfloat16"):
        training, seen = _begun(torch.float32, replace(CONFIG, precision=precision), device), []
        training.query.trunk.conv1.register_forward_hook(lambda _, given, made, seen=seen: seen.append(made.dtype))
        first = training.step(torch.arange(CONFIG.batch_size), 0, 0)
        assert seen == [getattr(torch, precision)]
        assert first.embeddings_nD.dtype == torch.float32
        losses_.append(float(first.shares_by_name["loss"]))
        queries.append(first.embeddings_nD)
        for step in range(1, NUM_STEPS):
            training.step(torch.arange(CONFIG.batch_size), 0, step)
        assert all(bool(values.isfinite().all()) for values in training.weights().values())
    cosine = float((queries[0] * queries[1]).sum(dim=1).min())
    away = abs(losses_[0] - losses_[1])
    assert cosine < 1
    assert cosine > BFLOAT16_COSINE, f"a query in bfloat16 has a cosine of {cosine:.4f} to that in float32"
    assert away < BFLOAT16_LOSS, f"losses {losses_[0]:.3f} and {losses_[1]:.3f} differ by {away:.3f}"
    return f"bfloat16: cosines to float32 of at least {cosine:.4f}, losses differ by {away:.3f}"


def device_images(device: torch.device) -> str:
    """The same values whether the images are held on the device or streamed to it."""
    random = np.random.default_rng(0)
    pixels_NCHW = random.integers(0, 256, (9, 3, 8, 8), dtype=np.uint8)
    index = pl.DataFrame({"row": range(9)})
    rows, positions = np.array([8, 1, 5, 0, 3]), torch.tensor([4, 0, 4, 2])
    wanted = np.float32(pixels_NCHW[rows[positions]]) / np.float32(255)
    for memory_share in (0.5, 0.0):
        images = DeviceImages(ImageTable(pixels_NCHW, index), rows, device, memory_share)
        assert images.on_device == (memory_share > 0)
        found = images.images(positions)
        assert found.device.type == device.type
        np.testing.assert_array_equal(found.cpu().numpy(), wanted)
    assert runtime.free_memory(device) > 0
    return "DeviceImages: bitwise the same, held and streamed"


def workers(device: torch.device) -> str:
    """MoCo of one epoch in float64, cut short: over all GPUs by NCCL, or two workers of one device by gloo."""
    size, backend = (torch.cuda.device_count(), "nccl") if device.type == "cuda" else (2, "gloo")
    if size == 1:
        size, backend = 2, "gloo"
    size = min(size, CONFIG.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        (expected,) = in_workers(1, _one_epoch, device.type, Path(folder) / "one")
        found = in_workers(size, _one_epoch, device.type, Path(folder) / "many", backend=backend)
    away = max(differences(found[0], expected).values())
    assert away < STEPS_TOLERANCE, f"{size} workers are {away:.1e} away from one"
    for other in found[1:]:
        assert all(torch.equal(values, found[0][name]) for name, values in other.items()), "workers differ"
    return f"{size} workers over {backend}: {away:.0e} away from one, all alike"


CHECKS: tuple[Callable[[torch.device], str], ...] = (smoothgrad, moco_steps, bfloat16, device_images, workers)


def _lively_encoder() -> Encoder:
    """Small, and with batch normalisations that all do something."""
    encoder = frozen(build_encoder("resnet18", "v2", 3, 16, [0.2, 0.3, 0.4], [0.5, 0.25, 0.3]))
    generator = runtime.generator("lively")
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(torch.rand(module.num_features, generator=generator) * 0.6 - 0.3)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return encoder.double()


def _maps(method: SmoothGrad, encoder: Encoder, device: torch.device) -> list[Tensor]:
    generator = runtime.generator("images")
    images_NCHW = torch.rand(2, 3, 33, 33, generator=generator, dtype=torch.float64).to(device)
    anchors = Anchors(("one", "two"), images_NCHW, (images_NCHW[:, 0] > 0.3).double(), Rotation())
    views = anchors.views(torch.tensor([0, 1, 1]), torch.tensor([30.0, 30.0, 90.0], dtype=torch.float64))
    fast = FrozenEncoder(encoder, device, torch.float64)
    prepared = method.prepare(fast, anchors)
    return [method.maps(fast, anchors, prepared, views), method.anchor_maps(fast, anchors, prepared, views)]


def _begun(dtype: torch.dtype, config: MoCo, device: torch.device) -> MoCoTraining:
    """A training on this device at its first step."""
    runtime.use_cores(torch.get_num_threads())
    with mock.patch.object(runtime, "device", return_value=device), tempfile.TemporaryDirectory() as folder:
        training = training_in(dtype, config, FakeContext(Path(folder)))
        training.begin()
    training.query.train()
    return training


def _after_steps(dtype: torch.dtype, config: MoCo, device: torch.device) -> dict[str, Tensor]:
    training = _begun(dtype, config, device)
    positions_BS = torch.arange(CONFIG.batch_size * NUM_STEPS).view(NUM_STEPS, -1) % DATA.num_train
    made = [training.step(positions_B, 0, step) for step, positions_B in enumerate(positions_BS)]
    return state_of(training) | {f"loss {step}": each.shares_by_name["loss"].cpu() for step, each in enumerate(made)}


def _one_epoch(device: str, root: Path) -> dict[str, Tensor]:
    """On a worker: its own GPU, or the CPU."""
    cut_short()
    if device == "cpu":
        torch.cuda.is_available = lambda: False
    elif torch.distributed.get_backend() == "nccl":
        torch.cuda.set_device(runtime.device())
    found = trained(torch.float64, replace(CONFIG, num_epochs=1), root)
    return {name: values.cpu() for name, values in found.items() if "epoch" not in name}
