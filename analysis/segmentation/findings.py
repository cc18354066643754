"""What a study of segmentations says, in sentences: each follows from one verdict, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.render.table import number
from analysis.segmentation.evidence import Pair, TargetSet
from analysis.significance import Outcome, Verdict

_WHAT = "Dice without background"


def answers(found: TargetSet, verdicts: Mapping[Pair, Verdict]) -> list[str]:
    """A sentence a comparison, the largest share of the masks first; without any, what is missing."""
    if not verdicts:
        return ["No two networks that are compared are among the rows of this study."]
    ordered = sorted(verdicts, key=lambda pair: -pair.fraction)
    return [verdict_sentence(found, pair, verdicts[pair]) for pair in ordered]


def verdict_sentence(found: TargetSet, pair: Pair, verdict: Verdict) -> str:
    """What is said of two networks at one share of the masks."""
    where = f"With {100 * pair.fraction:.3g} % of the masks"
    if verdict.outcome is Outcome.UNKNOWN:
        return f"{where}, {pair.first} and {pair.second} cannot be compared from what is there: {verdict.why_text}."
    levels = " against ".join(map(_level, found.compared_levels(pair)))
    levels += f"; {verdict.p_text}" if verdict.p_adjusted is not None else ""
    assert isinstance(verdict.difference, float)
    word = "higher" if verdict.difference > 0 else "lower"
    if verdict.outcome is Outcome.NOT_TOLD_APART:
        return f"{where}, {pair.first} and {pair.second} are not told apart by {_WHAT} ({levels}: {verdict.why_text})."
    by = f"that of {pair.second}, by {number(abs(verdict.difference), 3)}{_interval(verdict)}"
    said = f"{where}, the {_WHAT} of {pair.first} is {word} than {by} ({levels})"
    if verdict.outcome is Outcome.LEARNT:
        return f"{said}. It holds over seeds and over {_whom(verdict)}."
    if verdict.outcome is Outcome.NO_INTERVAL:
        return f"{said}. It holds over seeds, on these images; of others nothing is said: {verdict.why_text}."
    return f"{said}. It is said of these two trainings alone: one seed has no test."


def _level(level: tuple[float, float | None, int]) -> str:
    mean, std, num_seeds = level
    return f"{number(mean, 3)}{f'({number(std, 3)})' if std is not None else ''}, n = {num_seeds}"


def _interval(verdict: Verdict) -> str:
    if verdict.interval is None or not isinstance(verdict.difference, float):
        return ""
    ends = (verdict.difference + sign * verdict.interval.radius for sign in (-1, 1))
    low, high = (number(end, 3, signed=True) for end in ends)
    return f" ({100 * verdict.interval.confidence:.3g} % interval of the difference {low} to {high})"


def _whom(verdict: Verdict) -> str:
    kind = verdict.blocks.kind if verdict.blocks is not None else "images"
    return "images like these; patients are not known" if kind == "images" else f"{kind} like these"


def caveats(found: TargetSet) -> list[str]:
    """What keeps the numbers from meaning more."""
    facts = found.results.manifest["facts"]
    said = []
    if facts.get("pretraining_start", "").startswith("random"):
        said.append("The pretrainings started from random weights, the thesis's from released ones.")
    return [
        *said,
        "The UNet and the networks on a trunk differ in size, depth and resolution, so their difference is no effect "
        "of pretraining: that is told by the same trunk from random weights.",
        "A difference is said to be there when a test over seeds and an interval over blocks of images both leave out "
        "0; all comparisons of the study share the level (Holm, Bonferroni). Seeds vary pretraining, fine-tuning and "
        "which masks are used together.",
        "Networks are compared on the classes that an image has; what they find of others counts in the tables alone.",
        "A released trunk is one training: its seeds vary the decoder, the order and the masks.",
        "The pretrainings have seen all training images, without masks, whatever share of the masks is used.",
        "Networks were trained for a fixed number of epochs, with rates of the thesis; none was tuned on validation.",
    ]
