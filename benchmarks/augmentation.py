"""Augmented images per second, against torchvision's transforms called for each image.

    python benchmarks/augmentation.py                    # 128 RGB images of 128 pixels; about a minute
    python benchmarks/augmentation.py --quick            # 16 images of 64 pixels: does it run at all
    python benchmarks/augmentation.py --json figures.json

Contenders, with the same parameters' ranges, float32 images in memory and one thread each:

- ``ours``: one ``apply`` of a combination to the whole batch, the uniform numbers drawn within the time.
- ``torchvision``: transforms.v2 on one image after the other, which is how each image gets parameters of its own there.

Each has a process of its own: ours keeps freed memory, as a training does, theirs is what a user's script is. They take
turns: a round times both once, in CPU seconds of their process, so that other work on the machine counts for little. A
ratio is the median over rounds of the ratio within a round. The goal is set for crop, flip, rotation and jitter
together.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torchvision.transforms import v2

from trainables import runtime
from trainables.augment.augmentation import Augmentation
from trainables.augment.combine import Combine
from trainables.augment.geometric import HorizontalFlip, RandomResizedCrop, Rotation
from trainables.augment.photometric import ColourJitter, GaussianBlur

GOAL, GOAL_CASE = 5.0, "crop + flip + rotation + jitter"
KERNEL_PX = 13  # a tenth of the side, as SimCLR


@dataclass(frozen=True)
class Figures:
    case: str
    image_size_px: int
    ours_images_per_s: float
    torchvision_images_per_s: float
    ratio: float
    lowest_ratio: float
    highest_ratio: float


def main() -> None:
    arguments = parsed_arguments()
    size_px, num_images, rounds = (64, 16, 3) if arguments.quick else (128, 128, arguments.rounds)
    print(f"{num_images} RGB images of {size_px} pixels, float32, one thread, {rounds} rounds; images per CPU second\n")
    print(f"{'':33} {'ours':>7} {'torchvision':>12} {'ratio (lowest to highest)':>28}")
    figures = []
    with Contender(True, size_px, num_images) as ours, Contender(False, size_px, num_images) as theirs:
        for name in cases(size_px):
            seconds = [(ours.seconds(name), theirs.seconds(name)) for _ in range(rounds + 1)][1:]
            figures.append(figures_of(name, size_px, num_images, seconds))
            print(line_of(figures[-1]), flush=True)
    if arguments.json:
        content = {"goal": GOAL, "goal_case": GOAL_CASE, "figures": [asdict(entry) for entry in figures]}
        arguments.json.write_text(json.dumps(content, indent=1))


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Batched augmentation against torchvision for each image.")
    parser.add_argument("--quick", action="store_true", help="few small images, three rounds")
    parser.add_argument("--rounds", type=int, default=7, help="how often both are timed; 7")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


def cases(size_px: int) -> dict[str, tuple[Augmentation, Callable[[Tensor], Tensor]]]:
    """What is timed, by name: ours and torchvision's, each alone and together."""
    parts: dict[str, tuple[Augmentation, Callable[[Tensor], Tensor]]] = {
        "crop": (RandomResizedCrop(0.2, 1.0), v2.RandomResizedCrop(size_px, (0.2, 1.0))),
        "flip": (HorizontalFlip(0.5), v2.RandomHorizontalFlip(0.5)),
        "rotation": (Rotation(180.0), v2.RandomRotation(180.0, v2.InterpolationMode.BILINEAR)),
        "jitter": (ColourJitter(0.4, 0.4, 0.4, 0.1), v2.ColorJitter(0.4, 0.4, 0.4, 0.1)),
        "blur": (GaussianBlur(0.1, 2.0, KERNEL_PX), v2.GaussianBlur(KERNEL_PX, (0.1, 2.0))),
    }
    together = {}
    for names in (("crop", "flip", "rotation", "jitter"), tuple(parts)):
        ours = Combine(tuple(parts[name][0] for name in names))
        together[" + ".join(names)] = (ours, v2.Compose([parts[name][1] for name in names]))
    return parts | together


class Contender:
    """A process that times one of the two on demand."""

    def __init__(self, is_ours: bool, size_px: int, num_images: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        self._process = context.Process(target=serve, args=(there, is_ours, size_px, num_images))

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.send(None)
        self._process.join()

    def seconds(self, case: str) -> float:
        """CPU seconds of one pass over all images."""
        self._connection.send(case)
        return float(self._connection.recv())


def serve(connection: Connection, is_ours: bool, size_px: int, num_images: int) -> None:
    """Time the cases that are asked for, until None comes."""
    torch.set_num_threads(1)
    if is_ours:
        runtime.keep_freed_memory()
    images_BCHW = torch.rand(num_images, 3, size_px, size_px, generator=runtime.generator("images"))
    while (case := connection.recv()) is not None:
        ours, theirs = cases(size_px)[case]
        start = time.process_time()
        if is_ours:
            draws_BN = runtime.uniforms(torch.arange(num_images), ours.num_draws, "benchmark")
            ours.apply(images_BCHW, draws_BN)
        else:
            torch.stack([theirs(image_CHW) for image_CHW in images_BCHW])
        connection.send(time.process_time() - start)


def figures_of(case: str, size_px: int, num_images: int, seconds: Sequence[tuple[float, float]]) -> Figures:
    ratios = [torchvision / ours for ours, torchvision in seconds]
    rates = [num_images / statistics.median(column) for column in zip(*seconds, strict=True)]
    return Figures(case, size_px, rates[0], rates[1], statistics.median(ratios), min(ratios), max(ratios))


def line_of(figures: Figures) -> str:
    reached = ""
    if figures.case == GOAL_CASE:
        reached = f"  goal {GOAL:.0f}: {'reached' if figures.ratio >= GOAL else 'missed'}"
    spread = f"{figures.ratio:.1f} ({figures.lowest_ratio:.1f} to {figures.highest_ratio:.1f})"
    rates = f"{figures.ours_images_per_s:7.0f} {figures.torchvision_images_per_s:12.0f}"
    return f"{shortened(figures.case.split(' + ')):33} {rates} {spread:>28}{reached}"


def shortened(parts: Sequence[str]) -> str:
    return " + ".join(parts) if len(parts) <= 4 else "all five"


if __name__ == "__main__":
    main()
