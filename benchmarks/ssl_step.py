"""A training step of BYOL: how fast it is against peers, and what is spent beside it, as ratios of one run.

    python benchmarks/ssl_step.py                        # 32 RGB images of 64 pixels; 2 minutes, more beside other work
    python benchmarks/ssl_step.py --batch 256 --size 128 --threads 16 --steps 40    # on a machine of its own, or a GPU
    python benchmarks/ssl_step.py --parts step tracin --json figures.json

- ``step``: ``BYOLTraining.step`` against the same step written as lightly's example writes it, with lightly's own
  classes where it is installed and else with plain modules that do the same. Same ResNet-18, weights and optimizer; the
  views are given to both, to the peer standardised already. Then in bfloat16 under autocast, claimed only where the
  processor has instructions for it. The losses of the first step are compared.
- ``tracin``: pairwise TracIn of a batch of 256, both directions of the loss, from what a step leaves (inputs and
  outputs of the predictor's last layer), against ``torch.func.vmap(grad)`` of that layer, and against captum's
  TracInCPFast, which knows one direction and is asked for all four products. The influences are compared.
- ``selection``: what a way to choose positives adds to a step: choice, additional term and its gradient, and the
  metrics, less the same of plain BYOL; in percent of a plain step. What trained models keep was computed before. Ways
  that look at other views, or through other networks, need passes of their own.
- ``input``: from indices to both augmented views of a batch; in percent of a step that includes it.
- ``epoch``: what an epoch spends beside its steps, and a training of one epoch beside these: validation on 16 images, a
  checkpoint and the last state. A study spaces checkpoints. In percent of the steps.

``benchmarks/augmentation.py`` measures BYOL's augmentation. Clock and memory: ``parts/contenders.py``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from parts import byol_peer, tracin_peers
from parts.contenders import Contender, Turn, Work, rounds_of, timed, times
from parts.pictures_training import Given, Sizes, started, views_of

from trainables import runtime
from trainables.data.cache import open_images
from trainables.ssl.byol import BYOLTraining
from trainables.ssl.positives import (
    FalseNegatives,
    FeatureSimilarity,
    FeatureTransformation,
    Positives,
    SameLabel,
    TracIn,
)
from trainables.ssl.selection import StepViews, selection_metrics
from trainables.training import train

# Times as fast at least, and percent at most.
BFLOAT16_GOAL, GRADIENTS_GOAL, CAPTUM_GOAL = 2.0, 150.0, 3.5
SELECTION_GOAL, INPUT_GOAL, EPOCH_GOAL = 1.0, 5.0, 3.0
OTHER_LOSS, OTHER_INFLUENCE = 1e-4, 1e-4
"""How far peers may be apart in float32: of the loss, and of the largest influence."""


@dataclass(frozen=True)
class Figure:
    """One claim: a median over rounds with its range."""

    what: str
    median: float
    lowest: float
    highest: float
    unit: str
    note: str = ""
    goal: float | None = None
    peak_memory_mb: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_reached(self) -> bool:
        assert self.goal is not None
        return self.median >= self.goal if self.unit == "times" else self.median <= self.goal


def main() -> None:
    arguments = parsed_arguments()
    print(
        f"{arguments.batch} RGB images of {arguments.size} px, {runtime.device()}, {arguments.threads} threads, "
        f"{arguments.rounds} rounds; bfloat16 instructions: {', '.join(bfloat16_instructions()) or 'none'}; "
        f"peer of the step: {'lightly' if byol_peer.has_lightly() else 'plain modules, as lightly is not installed'}"
    )
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        sizes = Sizes(arguments.batch, arguments.size, arguments.steps, arguments.threads, Path(folder))
        open_images(sizes.data(), sizes.trial())
        for part in arguments.parts:
            for figure in PARTS[part](sizes, arguments.rounds):
                figures.append(figure)
                print(line_of(figure), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="what to measure")
    parser.add_argument("--batch", type=int, default=32, help="images of a step; TracIn alone always takes 256")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--steps", type=int, default=4, help="steps of an epoch")
    parser.add_argument("--rounds", type=int, default=3, help="rounds the medians are of")
    parser.add_argument("--threads", type=int, default=1, help="CPU cores to keep busy")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


def line_of(figure: Figure) -> str:
    spread = f"{figure.median:.3g} {figure.unit} ({figure.lowest:.3g} to {figure.highest:.3g})"
    memory = ", ".join(f"{name} {mb:.0f} MB" for name, mb in figure.peak_memory_mb.items())
    goal = "" if figure.goal is None else f"goal {figure.goal:g}: {'reached' if figure.is_reached else 'missed'}"
    return "  ".join(part for part in (f"{figure.what:58}", f"{spread:32}", goal, memory, figure.note) if part)


def bfloat16_instructions() -> list[str]:
    """Of this device, those that multiply bfloat16."""
    if runtime.device().type == "cuda":
        return ["cuda"] if torch.cuda.is_bf16_supported(including_emulation=False) else []
    return [name for name in ("amx_bf16", "avx512_bf16") if torch.cpu.get_capabilities().get(name)]


# step


def our_step(sizes: Sizes, precision: str) -> Work:
    """A step of ours on ready views; gives the loss as the peer counts it."""
    training, positions_B = started(sizes, precision=precision), torch.arange(sizes.batch)
    ready = views_of(training, positions_B)
    training.augmented = lambda images_BCHW, indices_B, view, epoch: ready[view]  # type: ignore[method-assign]
    return lambda: float(training.step(positions_B, 0, 0).shares_by_name["loss"]) / 4 - 1


def peer_step(sizes: Sizes, precision: str) -> Work:
    """A step of the peer on the same views."""
    training = started(sizes)
    ready = [training.encoder._standardised(view) for view in views_of(training, torch.arange(sizes.batch)).values()]
    config = training.config
    peer = byol_peer.PeerBYOL(
        training.networks,
        uses_lightly=byol_peer.has_lightly(),
        learning_rate=config.learning_rate,
        momentum=config.target_momentum,
    )

    def step() -> float:
        with runtime.autocast(training.device, precision == "bfloat16"):
            loss = peer.forward(*ready)
        peer.descend(loss)
        return float(loss.detach())

    return step


def measure_step(sizes: Sizes, num_rounds: int) -> Iterator[Figure]:
    """Ours against the peer, in float32 and bfloat16."""
    names = [("ours", our_step, "float32"), ("peer", peer_step, "float32")]
    if bfloat16_instructions():
        names += [("ours bfloat16", our_step, "bfloat16"), ("peer bfloat16", peer_step, "bfloat16")]
    contenders = {
        name: Contender(build, sizes, precision, num_threads=sizes.threads, keeps_memory=build is our_step)
        for name, build, precision in names
    }
    first, rounds = rounds_of(contenders, num_rounds)
    apart = {name: abs(loss - first["peer"]) for name, loss in first.items()}
    if apart["ours"] > OTHER_LOSS:
        raise SystemExit(f"other losses in the first step: {first}")
    yield of_pair("step: ours against the peer", rounds, "peer", "ours", note=f"losses {apart['ours']:.0e} apart")
    if "ours bfloat16" in contenders:
        note = f"losses {apart['ours bfloat16']:.0e} apart"
        what = "step: ours in bfloat16 against the peer"
        yield of_pair(what, rounds, "peer", "ours bfloat16", goal=BFLOAT16_GOAL, note=note)
        yield of_pair("step: both in bfloat16", rounds, "peer bfloat16", "ours bfloat16")


def of_pair(
    what: str,
    rounds: Sequence[Mapping[str, Turn]],
    slow: str,
    fast: str,
    *,
    goal: float | None = None,
    note: str = "",
) -> Figure:
    """By how much one of two contenders is faster."""
    memory = {name: rounds[-1][name].peak_memory_mb for name in (fast, slow)}
    return Figure(what, *times(rounds, slow, fast), "times", note, goal, memory)


# tracin


def measure_tracin(sizes: Sizes, num_rounds: int) -> Iterator[Figure]:
    """The closed form against gradients of each image, and against captum."""
    builds = {"closed form": tracin_peers.closed_form, "vmap(grad)": tracin_peers.of_gradients}
    if tracin_peers.has_captum():
        builds["captum"] = tracin_peers.with_captum
    contenders = {
        name: Contender(build, num_threads=sizes.threads, keeps_memory=name == "closed form")
        for name, build in builds.items()
    }
    first, rounds = rounds_of(contenders, num_rounds)
    ours_BB = torch.from_numpy(first.pop("closed form"))
    for name, theirs in first.items():
        apart = float((ours_BB - torch.from_numpy(theirs)).abs().max() / ours_BB.abs().max())
        if apart > OTHER_INFLUENCE:
            raise SystemExit(f"{name} gives other influences: {apart:.1e} of the largest apart")
        goal = CAPTUM_GOAL if name == "captum" else GRADIENTS_GOAL
        note = f"influences {apart:.0e} of the largest apart"
        yield of_pair(f"tracin: closed form against {name}", rounds, name, "closed form", goal=goal, note=note)


# selection


def ways(sizes: Sizes) -> dict[str, Positives]:
    """All ways to choose, those that need further passes last."""
    plain = started(sizes).config
    trained: Any = Given(replace(plain, pretrain_seed=1), sizes.folder)
    return {
        "by label": SameLabel(labels=plain.labels),
        "feature transformation": FeatureTransformation(),
        "FNC, training views": FalseNegatives(),
        "feature similarity, training views": FeatureSimilarity(views="training"),
        "TracIn, training views": TracIn(views="training"),
        "feature similarity, trained, plain views": FeatureSimilarity(model=trained, views="plain"),
        "TracIn, trained, light views": TracIn(models=(trained,)),
        "TracIn, trained, training views (passes)": TracIn(models=(trained,), views="training"),
        "feature similarity, light views (passes)": FeatureSimilarity(views="light"),
        "TracIn, light views (passes)": TracIn(),
    }


def choices(sizes: Sizes) -> Work:
    """Seconds of a plain step, and of what follows its passes in each way."""
    plain, positions_B = started(sizes), torch.arange(sizes.batch)
    trainings = {"": plain, **{name: started(sizes, positives=way) for name, way in ways(sizes).items()}}
    images = tuple(views_of(plain, positions_B).values())

    def turn() -> dict[str, float]:
        seconds = {"step": timed(lambda: plain.step(positions_B, 0, 0))[0]}
        with torch.no_grad():
            passes, _ = plain._passes(images, sizes.batch)
        step = StepViews(positions_B, slice(0, sizes.batch), images, passes, 0, 0)
        for name, training in trainings.items():
            repeats = [timed(lambda training=training: after_passes(training, step))[0] for _ in range(3)]
            seconds[name] = statistics.median(repeats)
        return seconds

    return turn


def after_passes(training: BYOLTraining, step: StepViews) -> None:
    """What a step does between the passes and the networks' gradients, and its metrics."""
    predictions_VnD = step.passes.predictions_VnD.clone().requires_grad_(True)
    weights_nB = training._weights(step)
    training._loss(replace(step.passes, predictions_VnD=predictions_VnD), step, weights_nB).backward()
    if training._choose is not None:
        assert training._is_same is not None
        same_nB = training._is_same(step.positions_n, step.positions_B)
        selection_metrics(weights_nB, same_nB, len(step.positions_B), training.world)


def measure_selection(sizes: Sizes, num_rounds: int) -> Iterator[Figure]:
    """Each way on its own, beside plain BYOL."""
    rounds = alone(choices, sizes, num_rounds)
    for name in list(rounds[0].value)[2:]:
        shares = [(turn.value[name] - turn.value[""]) / turn.value["step"] for turn in rounds]
        goal = None if "(passes)" in name or "trained" in name else SELECTION_GOAL
        yield percent(f"selection: {name}", shares, goal)


# input, epoch


def inputs(sizes: Sizes) -> Work:
    """Seconds from indices to both views, and of the whole step."""
    training, positions_B = started(sizes), torch.arange(sizes.batch)
    return lambda: (
        timed(lambda: views_of(training, positions_B))[0],
        timed(lambda: training.step(positions_B, 0, 0))[0],
    )


def measure_input(sizes: Sizes, num_rounds: int) -> Iterator[Figure]:
    """The share of a step that passes before its networks see anything."""
    rounds = alone(inputs, sizes, num_rounds)
    shares = [of_views / of_step for of_views, of_step in (turn.value for turn in rounds)]
    yield percent("input: indices to views", shares, INPUT_GOAL, rounds[-1])


def epochs(sizes: Sizes) -> Work:
    """Seconds of a training of one epoch, and what its parts took."""
    context = sizes.trial()
    training = started(sizes)
    seconds: Counter[str] = Counter()

    def watch(name: str) -> None:
        method = getattr(training, name)

        def watched(*arguments: Any) -> Any:
            spent, value = timed(lambda: method(*arguments))
            seconds[name] += spent
            return value

        setattr(training, name, watched)

    for name in ("step", "train_epoch", "validate", "save"):
        watch(name)

    def turn() -> Counter[str]:
        seconds.clear()
        seconds["all"] = timed(lambda: train(training, 1, context))[0]
        return Counter(seconds)

    return turn


def measure_epoch(sizes: Sizes, num_rounds: int) -> Iterator[Figure]:
    """What is spent beside the steps."""
    turns = alone(epochs, sizes, num_rounds)
    rounds = [turn.value for turn in turns]
    beside = [seconds["train_epoch"] / seconds["step"] - 1 for seconds in rounds]
    yield percent("epoch: beside its steps", beside, EPOCH_GOAL, turns[-1])
    yield percent("epoch: validation", [seconds["validate"] / seconds["step"] for seconds in rounds])
    yield percent("epoch: two states written", [seconds["save"] / seconds["step"] for seconds in rounds])
    yield percent("epoch: all beside the steps", [seconds["all"] / seconds["step"] - 1 for seconds in rounds])


def alone(build: Callable[[Sizes], Work], sizes: Sizes, num_rounds: int) -> list[Turn]:
    """The rounds of one contender without others."""
    contender = Contender(build, sizes, num_threads=sizes.threads, keeps_memory=True)
    _, rounds = rounds_of({"ours": contender}, num_rounds)
    return [turns["ours"] for turns in rounds]


def percent(what: str, shares: Sequence[float], goal: float | None = None, last: Turn | None = None) -> Figure:
    """Of shares, with the memory of the process until its last turn."""
    median, lowest, highest = (100 * of(shares) for of in (statistics.median, min, max))
    memory = {} if last is None else {"process": last.peak_memory_mb}
    return Figure(what, median, lowest, highest, "%", goal=goal, peak_memory_mb=memory)


PARTS: dict[str, Callable[[Sizes, int], Iterator[Figure]]] = {
    "step": measure_step,
    "tracin": measure_tracin,
    "selection": measure_selection,
    "input": measure_input,
    "epoch": measure_epoch,
}

if __name__ == "__main__":
    main()
