"""SmoothGrad of a pair: maps per second, memory, and how much of the machine's convolution rate is used.

    python benchmarks/saliency.py                    # ResNet-18 and -50 at 128 and 224 pixels; some minutes on 2 cores
    python benchmarks/saliency.py --quick            # ResNet-18 at 64 pixels: does it run at all
    python benchmarks/saliency.py --json figures.json

Contenders, given the same encoder, image, view and number of samples, in float32:

- ``ours``: ``SmoothGrad.maps`` of one view. The anchor's embedding, once for all angles of a curve, was made before.
- ``one at a time``: the plain encoder with frozen parameters, the noise on both views, the gradient to both views, one
  sample after another: how the published tool for contrastive encoders (explain-cl) computes it.
- ``captum``: ``NoiseTunnel(Saliency)`` on the pair, all samples in one batch; the gradient to both views.

Each contender has a process of its own, as it would in use, and they take turns: a round times every one of them
once, and the convolution rate. A ratio is the median over rounds of the ratio within a round, so what slows the whole
machine for a while cancels.

The convolution rate is the highest among the forward passes of ResNet's own 3 x 3 convolutions (64 channels at 56 x 56
to 512 at 7 x 7, batch 16, channels-last). The share is: floating-point operations of the convolutions that ``ours``
executes, over its time, over this rate. Executed are, for each sample, one forward pass of all convolutions and
one backward pass to the input of all but the first, and for each map one backward pass of the first. A multiply-add is
two operations; nothing but convolutions counts, and the anchor's forward pass neither in work nor in time.

Peak memory is what a contender adds to the memory of its process, from the first map to the last: what the process
held when it was ready is not counted (resident memory on Linux; allocated memory on a GPU).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from captum.attr import NoiseTunnel, Saliency
from parts.contenders import memory_mb, synchronise
from torch import Tensor

from trainables import runtime
from trainables.api.names import Backbone
from trainables.models.encoder import Encoder, build_encoder, frozen
from trainables.models.frozen import FrozenEncoder
from trainables.saliency.base import Anchors
from trainables.saliency.gradients import SmoothGrad
from trainables.sweeps import Rotation

GOALS = {"one at a time": 3.5, "captum": 2.2}
SHARE_GOAL, SHARE_GOAL_SIZE_PX = 0.65, 224
CONVOLUTIONS = ((64, 56), (128, 28), (256, 14), (512, 7))
CHANNELS = 3

CONTENDERS = ("ours", "one at a time", "captum")
CONVOLUTION_RATE = "convolution rate"


@dataclass(frozen=True)
class Case:
    backbone: Backbone
    image_size_px: int
    num_samples: int
    num_threads: int


@dataclass
class Figures:
    """What was measured for one encoder and image size."""

    backbone: str
    image_size_px: int
    maps_per_second: dict[str, float]
    speedup_over: dict[str, float]
    peak_memory_mb: dict[str, float]
    convolution_gflop_per_second: float
    share_of_convolution_rate: float


def main() -> None:
    arguments = parsed_arguments()
    backbones, sizes, samples, rounds = arguments.backbones, arguments.sizes, arguments.samples, arguments.rounds
    if arguments.quick:
        backbones, sizes, samples, rounds = ["resnet18"], [64], 4, 1
    cases = [Case(backbone, size, samples, arguments.threads) for backbone in backbones for size in sizes]
    print(f"{runtime.device()}, {arguments.threads} threads, {samples} samples, {rounds} rounds")
    print(HEADER)
    figures = []
    for case in cases:
        figures.append(measured(case, rounds))
        print(line_of(figures[-1]), flush=True)
    print(f"goals: {GOALS} times, and at {SHARE_GOAL_SIZE_PX} px {SHARE_GOAL:.0%} of the convolution rate")
    if arguments.json:
        content = {"torch": torch.__version__, "device": str(runtime.device()), "rounds": rounds}
        content |= {"threads": arguments.threads, "samples": samples, "figures": [asdict(f) for f in figures]}
        arguments.json.write_text(json.dumps(content, indent=1))


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed and memory of SmoothGrad of a pair against two peers.")
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "resnet50"], help="encoders to measure")
    parser.add_argument("--sizes", nargs="+", type=int, default=[128, 224], help="image sides in pixels")
    parser.add_argument("--samples", type=int, default=10, help="noise samples a map")
    parser.add_argument("--rounds", type=int, default=5, help="rounds the medians are of")
    parser.add_argument("--threads", type=int, default=2, help="CPU cores to keep busy")
    parser.add_argument("--quick", action="store_true", help="one small case, one round, to see that it runs")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


def measured(case: Case, rounds: int) -> Figures:
    """Time the contenders in turn, each in its own process."""
    workers = {name: Worker(name, case) for name in (*CONTENDERS, CONVOLUTION_RATE)}
    try:
        for worker in workers.values():
            worker.ask()  # warms up: libraries choose and compile their kernels
        answers = [{name: worker.ask() for name, worker in workers.items()} for _ in range(rounds)]
    finally:
        for worker in workers.values():
            worker.stop()
    flop = executed_flop(case)
    last = answers[-1]
    return Figures(
        case.backbone,
        case.image_size_px,
        {name: 1 / statistics.median(answer[name][0] for answer in answers) for name in CONTENDERS},
        {name: statistics.median(answer[name][0] / answer["ours"][0] for answer in answers) for name in GOALS},
        {name: last[name][1] for name in CONTENDERS},
        statistics.median(answer[CONVOLUTION_RATE][0] for answer in answers) / 1e9,
        statistics.median(flop / answer["ours"][0] / answer[CONVOLUTION_RATE][0] for answer in answers),
    )


class Worker:
    """A process that does one contender's work when asked."""

    def __init__(self, name: str, case: Case) -> None:
        # Not forked: a child shall have an allocator and threads of its own.
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(theirs, name, case), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self) -> tuple[float, float]:
        """Do it once: (seconds, or operations a second for the convolution rate; peak MB so far)."""
        self._connection.send("go")
        answer: tuple[float, float] = self._connection.recv()
        return answer

    def stop(self) -> None:
        self._connection.close()
        self._process.join()


def serve(connection: Connection, name: str, case: Case) -> None:
    """The life of a worker's process."""
    runtime.use_cores(case.num_threads)
    measure = convolution_rate() if name == CONVOLUTION_RATE else timed(contender(name, case))
    held = memory_mb(peak=False)
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        connection.send((measure(), memory_mb(peak=True) - held))


def timed(work: Callable[[], object]) -> Callable[[], float]:
    return lambda: seconds_of(work)


def contender(name: str, case: Case) -> Callable[[], object]:
    """What makes the map of one pair."""
    device, size = runtime.device(), case.image_size_px
    mean, std = [0.4] * CHANNELS, [0.25] * CHANNELS
    encoder = frozen(build_encoder(case.backbone, "v2", CHANNELS, mean=mean, std=std)).to(device)
    image = torch.rand(1, CHANNELS, size, size, generator=runtime.generator("benchmark")).to(device)
    anchors = Anchors(("image",), image, image[:, 0], Rotation())
    method = SmoothGrad(num_samples=case.num_samples, times_input=True)
    views = anchors.views(torch.tensor([0]), torch.tensor([30.0], dtype=torch.float64))
    scale = method.sigma * float(image.max() - image.min())
    noise_SCHW = anchors.noise(0, case.num_samples, method.noise_seed) * scale
    if name == "one at a time":
        return lambda: one_at_a_time(encoder, image, views.images_PCHW, noise_SCHW)
    if name == "captum":
        return lambda: with_captum(encoder, image, views.images_PCHW, case.num_samples, scale)
    runtime.keep_freed_memory()
    fast = FrozenEncoder(encoder, device)
    prepared = method.prepare(fast, anchors)
    return lambda: method.maps(fast, anchors, prepared, views)


def one_at_a_time(encoder: Encoder, image: Tensor, view: Tensor, noise_SCHW: Tensor) -> list[Tensor]:
    """The maps of both views, one sample after another."""
    totals = [torch.zeros_like(image), torch.zeros_like(view)]
    for sample in noise_SCHW:
        noisy = [(image + sample).requires_grad_(True), (view + sample).requires_grad_(True)]
        score = torch.cosine_similarity(encoder(noisy[0]), encoder(noisy[1])).sum()
        for total, gradient in zip(totals, torch.autograd.grad(score, noisy), strict=True):
            total += gradient
    return [(total * x / len(noise_SCHW)).abs().amax(dim=1) for total, x in zip(totals, (image, view), strict=True)]


def with_captum(encoder: Encoder, image: Tensor, view: Tensor, num_samples: int, scale: float) -> list[Tensor]:
    """The maps of both views, all samples in one batch."""
    tunnel = NoiseTunnel(Saliency(lambda a, b: torch.cosine_similarity(encoder(a), encoder(b))))
    inputs = (image.clone().requires_grad_(True), view.clone().requires_grad_(True))
    gradients = tunnel.attribute(inputs, nt_type="smoothgrad", nt_samples=num_samples, stdevs=(scale, scale), abs=False)
    return [(gradient * x).abs().amax(dim=1) for gradient, x in zip(gradients, (image, view), strict=True)]


def executed_flop(case: Case) -> float:
    """Operations of the convolutions that ``ours`` executes for one map."""
    encoder = build_encoder(case.backbone, "v2", CHANNELS).eval()
    stem, blocks = FrozenEncoder(encoder, torch.device("cpu")).flop((case.image_size_px, case.image_size_px))
    return case.num_samples * (stem + 2 * blocks) + stem


def convolution_rate() -> Callable[[], float]:
    """Measures operations a second of ResNet's own 3 x 3 convolutions, forward; the best of them."""
    layers = []
    for channels, size in CONVOLUTIONS:
        images = torch.randn(16, channels, size, size, device=runtime.device())
        weight = torch.randn(channels, channels, 3, 3, device=runtime.device())
        layers.append([tensor.contiguous(memory_format=torch.channels_last) for tensor in (images, weight)])

    def rate(images: Tensor, weight: Tensor) -> float:
        seconds = min(seconds_of(lambda: torch.conv2d(images, weight, padding=1)) for _ in range(4))
        return 2.0 * images.numel() * len(weight) * 9 / seconds

    return lambda: max(rate(images, weight) for images, weight in layers)


def seconds_of(work: Callable[[], object]) -> float:
    synchronise()
    start = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - start


HEADER = (
    "encoder    px | maps/s: ours  one at a time  captum | times: one at a time  captum"
    " | peak MB: ours  one at a time  captum | conv GFLOP/s  share"
)


def line_of(figures: Figures) -> str:
    speed, memory, times = figures.maps_per_second, figures.peak_memory_mb, figures.speedup_over
    return (
        f"{figures.backbone:<9}{figures.image_size_px:>4} |"
        f"{speed['ours']:>13.2f}{speed['one at a time']:>15.2f}{speed['captum']:>8.2f} |"
        f"{times['one at a time']:>21.2f}{times['captum']:>8.2f} |"
        f"{memory['ours']:>14.0f}{memory['one at a time']:>15.0f}{memory['captum']:>8.0f} |"
        f"{figures.convolution_gflop_per_second:>13.0f}{figures.share_of_convolution_rate:>7.0%}"
    )


if __name__ == "__main__":
    main()
