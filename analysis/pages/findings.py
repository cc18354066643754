"""What may be said of training, in sentences: each follows from one verdict, and from nothing else."""

from __future__ import annotations

from analysis.blocks import RESIDUAL_CORRELATION, RESIDUAL_CORRELATION_OF_IMAGES, Blocks
from analysis.curves.sweep import SweepFacts
from analysis.render.table import number
from analysis.significance import Outcome, Verdict

_LIKE_THESE = "images like these; patients are not known"


def coefficient_words(sweep: SweepFacts) -> str:
    """The headline coefficient of a sweep, for a sentence."""
    if sweep.is_rotation:
        return "90° wave between the exact multiples of 90°"
    if sweep.period is not None:
        return f"curve over the {sweep.title}"
    return f"slope of Dice over the {sweep.title}"


def verdict_sentence(sweep: SweepFacts, verdict: Verdict) -> str:
    """The answer for one data set, region and sweep: on its headline coefficient, in the full field of view."""
    what = coefficient_words(sweep)
    changed = what + _of_what(verdict)
    seeds = f"{verdict.num_trained} pretraining(s) against {verdict.num_untrained} untrained encoder(s)"
    if verdict.outcome is Outcome.UNKNOWN:
        return f"Whether training changes the {what} cannot be answered from what is there: {verdict.why_text}."
    if verdict.outcome is Outcome.LEARNT:
        return (
            f"Learnt: training changes the {changed}, by {_difference(verdict)}. It holds over seeds ({seeds}, "
            f"{verdict.p_text}) and over blocks of images{_of_images(verdict)}."
        )
    if verdict.outcome is Outcome.NO_INTERVAL:
        return (
            f"On these images training changes the {changed}, by {_size(verdict)} ({seeds}, {verdict.p_text}); of "
            f"others nothing is said: {verdict.why_text}."
        )
    if verdict.outcome is Outcome.THIS_ENCODER:
        return (
            f"This encoder's {what} is {_size(verdict)} away from that of the untrained ones{_of_images(verdict)}; it "
            f"says nothing about training: {verdict.why_text}."
        )
    p = f", {verdict.p_text}" if verdict.p_adjusted is not None else ""
    return (
        f"Trained and untrained encoders are not told apart by the {what} ({seeds}{p}: {verdict.why_text}). Only "
        "this coefficient is compared; levels and shapes may differ."
    )


def blocks_sentence(verdict: Verdict) -> str:
    """How the images were put together for intervals, and whom these speak of."""
    blocks = verdict.blocks
    if blocks is None:
        return ""
    seen = "no neighbours" if blocks.correlation != blocks.correlation else f"r = {number(blocks.correlation, 2)}"
    if not blocks.can_give_intervals:
        most = RESIDUAL_CORRELATION_OF_IMAGES if blocks.kind == "images" else RESIDUAL_CORRELATION
        alike = "are alike" if blocks.correlation > most else "may be alike, which so few do not show"
        return (
            f"Neighbouring images {alike} ({seen}): {blocks.num_blocks} block(s) of {blocks.length} images are left, "
            "too few for intervals."
        )
    if blocks.are_whole_groups:
        return (
            f"Intervals draw {blocks.num_blocks} blocks, whole {blocks.kind} of up to {blocks.length} image(s) "
            f"(neighbouring images: {seen}); they speak of {blocks.kind} like these {blocks.num_groups}."
        )
    return (
        f"Intervals draw {blocks.num_blocks} blocks of up to {blocks.length} neighbouring image(s), as long as the "
        f"correlation that is seen asks ({seen}); they speak of {_whom(blocks)}."
    )


def _whom(blocks: Blocks) -> str:
    """Of whom the intervals of one series speak."""
    if blocks.kind == "images":
        return _LIKE_THESE
    if blocks.kind == "slabs of one volume" or (blocks.kind, blocks.num_groups) == ("volumes", 1):
        return "this volume only, not of other people"
    noun = blocks.kind.removesuffix("s") if blocks.num_groups == 1 else blocks.kind
    return f"the {blocks.num_groups} {noun} that there are, not of others"


def _of_images(verdict: Verdict) -> str:
    """What has to be added where patients are not known."""
    return f" ({_LIKE_THESE})" if verdict.blocks is not None and verdict.blocks.kind == "images" else ""


def _of_what(verdict: Verdict) -> str:
    """A distance of complex numbers has no sign: the sizes of both waves stand among the findings."""
    return " (its size, its phase or both)" if isinstance(verdict.difference, complex) else ""


def _difference(verdict: Verdict) -> str:
    if verdict.interval is None:
        return _size(verdict)
    level = f"{100 * verdict.interval.confidence:.3g} % interval "
    if isinstance(verdict.difference, complex):
        low, high = verdict.interval.magnitude
        return f"{_size(verdict)} ({level}{number(low, 4)} to {number(high, 4)})"
    low, high = (float(verdict.interval.value.real) + sign * verdict.interval.radius for sign in (-1, 1))
    return f"{_size(verdict)} ({level}{number(low, 4, signed=True)} to {number(high, 4, signed=True)})"


def _size(verdict: Verdict) -> str:
    difference = verdict.difference
    if isinstance(difference, complex):
        return number(abs(difference), 4)
    return "undefined" if difference is None else number(difference, 4, signed=True)
