"""Augmented images per second, against torchvision's transforms called for each image, and against kornia.

    python benchmarks/augmentation.py                    # 128 RGB images of 128 pixels; two minutes
    python benchmarks/augmentation.py --images 256       # BYOL's batch
    python benchmarks/augmentation.py --quick            # 16 images of 64 pixels: does it run at all
    python benchmarks/augmentation.py --json figures.json

Contenders, with the same parameters' ranges, float32 images in memory and one thread each:

- ``ours``: one ``apply`` of a combination to the whole batch, the uniform numbers drawn within the time.
- ``torchvision``: transforms.v2 on one image after the other, which is how each image gets parameters of its own there.
- ``kornia``, where it is installed: its augmentations in sequence on the whole batch, parameters for each image. Crops
  are cut out as slices, its default and the faster of its two ways.

Each has a process of its own: ours keeps freed memory, as a training does, theirs is what a user's script is. They take
turns (``parts/contenders.py``). Goals are set against torchvision for crop, flip, rotation and jitter together, and
against both for BYOL's augmentation.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from parts.contenders import Contender, Turn, Work, times
from torch import Tensor
from torchvision.transforms import v2

from trainables import runtime
from trainables.augment.augmentation import Augmentation
from trainables.augment.combine import BYOL_AUGMENTATION, Combine
from trainables.augment.geometric import HorizontalFlip, RandomResizedCrop, Rotation, VerticalFlip
from trainables.augment.photometric import ColourJitter, GaussianBlur

BYOL_CASE = "BYOL"
AREAS, JITTER, SIGMAS_PX = (0.2, 1.0), (0.4, 0.4, 0.4, 0.1), (0.1, 2.0)
BYOL_AREAS = ((128 / 140) ** 2, (128 / 140) ** 2)
KERNEL_PX = 13  # a tenth of the side, as SimCLR
TOGETHER = "crop + flip + rotation + jitter"
CASES = {
    **{name: (name,) for name in ("crop", "flip", "rotation", "jitter", "blur")},
    TOGETHER: ("crop", "flip", "rotation", "jitter"),
    "all five": ("crop", "flip", "rotation", "jitter", "blur"),
    BYOL_CASE: ("flip", "vertical flip", "rotation", "BYOL's crop", "jitter"),
}
PEERS = ("torchvision", "kornia")
GOALS = {(TOGETHER, "torchvision"): 5.0, (BYOL_CASE, "torchvision"): 5.0, (BYOL_CASE, "kornia"): 2.3}


@dataclass(frozen=True)
class Figures:
    """Of one case and one peer."""

    case: str
    peer: str
    image_size_px: int
    ours_images_per_s: float
    peer_images_per_s: float
    ratio: float
    lowest_ratio: float
    highest_ratio: float


def main() -> None:
    arguments = parsed_arguments()
    size_px, num_images, rounds = (64, 16, 3) if arguments.quick else (128, arguments.images, arguments.rounds)
    assert ours_of(CASES[BYOL_CASE]) == BYOL_AUGMENTATION
    peers = [peer for peer in PEERS if importlib.util.find_spec(peer)]
    print(f"{num_images} RGB images of {size_px} pixels, float32, one thread, {rounds} rounds; images per CPU second")
    if "kornia" not in peers:
        print("kornia is not installed: not measured")
    print(f"{'':33} {'peer':12} {'ours':>7} {'peer':>7} {'times as fast (range)':>22}")
    with ExitStack() as stack:
        contenders = {
            name: stack.enter_context(
                Contender(contender, name, size_px, num_images, num_threads=1, keeps_memory=name == "ours")
            )
            for name in ("ours", *peers)
        }
        figures = []
        for case in CASES:
            turns = [{name: it.turn(case) for name, it in contenders.items()} for _ in range(rounds + 1)][1:]
            for peer in peers:
                figures.append(figures_of(case, peer, size_px, num_images, turns))
                print(line_of(figures[-1]), flush=True)
    memory_mb = {name: turn.peak_memory_mb for name, turn in turns[-1].items()}
    print("peak memory over all cases: " + ", ".join(f"{name} {mb:.0f} MB" for name, mb in memory_mb.items()))
    if arguments.json:
        goals = [{"case": case, "peer": peer, "times": goal} for (case, peer), goal in GOALS.items()]
        content = {"goals": goals, "figures": [asdict(entry) for entry in figures], "peak_memory_mb": memory_mb}
        arguments.json.write_text(json.dumps(content, indent=1))


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Batched augmentation against torchvision for each image, and kornia.")
    parser.add_argument("--quick", action="store_true", help="few small images, three rounds")
    parser.add_argument("--images", type=int, default=128, help="images of a batch; 128")
    parser.add_argument("--rounds", type=int, default=7, help="how often all are timed; 7")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


def ours_of(names: Sequence[str]) -> Augmentation:
    """Our augmentation of a case, alone or together."""
    parts: dict[str, Augmentation] = {
        "crop": RandomResizedCrop(*AREAS),
        "BYOL's crop": RandomResizedCrop(*BYOL_AREAS, 1.0, 1.0),
        "flip": HorizontalFlip(0.5),
        "vertical flip": VerticalFlip(0.5),
        "rotation": Rotation(180.0),
        "jitter": ColourJitter(*JITTER),
        "blur": GaussianBlur(*SIGMAS_PX, KERNEL_PX),
    }
    chosen = tuple(parts[name] for name in names)
    return chosen[0] if len(chosen) == 1 else Combine(chosen)


def torchvision_of(names: Sequence[str], size_px: int) -> Callable[[Tensor], Tensor]:
    """The same of one image."""
    parts = {
        "crop": v2.RandomResizedCrop(size_px, AREAS),
        "BYOL's crop": v2.RandomResizedCrop(size_px, BYOL_AREAS, (1.0, 1.0)),
        "flip": v2.RandomHorizontalFlip(0.5),
        "vertical flip": v2.RandomVerticalFlip(0.5),
        "rotation": v2.RandomRotation(180.0, v2.InterpolationMode.BILINEAR),
        "jitter": v2.ColorJitter(*JITTER),
        "blur": v2.GaussianBlur(KERNEL_PX, SIGMAS_PX),
    }
    return v2.Compose([parts[name] for name in names])


def kornia_of(names: Sequence[str], size_px: int) -> Callable[[Tensor], Tensor]:
    """The same of a batch."""
    import kornia.augmentation as kornia

    size = (size_px, size_px)
    parts = {
        "crop": kornia.RandomResizedCrop(size, AREAS, p=1.0),
        "BYOL's crop": kornia.RandomResizedCrop(size, BYOL_AREAS, (1.0, 1.0), p=1.0),
        "flip": kornia.RandomHorizontalFlip(p=0.5),
        "vertical flip": kornia.RandomVerticalFlip(p=0.5),
        "rotation": kornia.RandomRotation(180.0, p=1.0),
        "jitter": kornia.ColorJitter(*JITTER, p=1.0),
        "blur": kornia.RandomGaussianBlur((KERNEL_PX, KERNEL_PX), SIGMAS_PX, p=1.0),
    }
    return kornia.AugmentationSequential(*(parts[name] for name in names), same_on_batch=False)


def contender(name: str, size_px: int, num_images: int) -> Work:
    """What augments all images as a case says."""
    images_BCHW = torch.rand(num_images, 3, size_px, size_px, generator=runtime.generator("images"))

    def with_ours(case: str) -> None:
        ours = ours_of(CASES[case])
        ours.apply(images_BCHW, runtime.uniforms(torch.arange(num_images), ours.num_draws, "benchmark"))

    def with_torchvision(case: str) -> None:
        one_by_one = torchvision_of(CASES[case], size_px)
        torch.stack([one_by_one(image_CHW) for image_CHW in images_BCHW])

    def with_kornia(case: str) -> None:
        kornia_of(CASES[case], size_px)(images_BCHW)

    return {"ours": with_ours, "torchvision": with_torchvision, "kornia": with_kornia}[name]


def figures_of(case: str, peer: str, size_px: int, num_images: int, rounds: Sequence[Mapping[str, Turn]]) -> Figures:
    """Medians over rounds."""
    rates = [num_images / statistics.median(turns[name].seconds for turns in rounds) for name in ("ours", peer)]
    return Figures(case, peer, size_px, *rates, *times(rounds, peer, "ours"))


def line_of(figures: Figures) -> str:
    goal = GOALS.get((figures.case, figures.peer))
    reached = "" if goal is None else f"  goal {goal:g}: {'reached' if figures.ratio >= goal else 'missed'}"
    spread = f"{figures.ratio:.1f} ({figures.lowest_ratio:.1f} to {figures.highest_ratio:.1f})"
    rates = f"{figures.ours_images_per_s:7.0f} {figures.peer_images_per_s:7.0f}"
    return f"{figures.case:33} {figures.peer:12} {rates} {spread:>22}{reached}"


if __name__ == "__main__":
    main()
