"""What a study of additional positives says, in sentences: each follows from tests over pretrainings, and from nothing
else."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from analysis.curves.words import listed
from analysis.positives.differences import (
    AGAINST_BYOL,
    MIN_PAIRS,
    START,
    TRACIN_AGAINST_FEATURES,
    TRACIN_AGAINST_OTHERS,
    UPPER_BOUND,
    Difference,
    Outcome,
    Pair,
    differences,
    least_difference,
    num_planned,
    of_pairs,
)
from analysis.positives.evidence import ROLES, LabelledSet, mean_std, percent
from analysis.published.positives import PUBLISHED, published_difference
from analysis.render.table import number
from trainables.api.names import BY_FEATURES_PRETRAINED, BY_TRACIN_PRETRAINED, NUM_UNSEEN_CLASSES

Told = Mapping[float, Sequence[Difference]]
"""Share of the labels -> its family of differences."""
Claim = tuple[str, str, str, str]
"""Claim, share of the labels, statistic, what the numbers say of it."""

POSITIVES_HELP = "Additional positives are better than BYOL alone"
TRACIN_IS_BETTER = "TracIn-pretrained is better than FS-pretrained in all settings (published: by up to 0.006)"
TRACIN_IS_BEST = "TracIn-pretrained is better than all other ways that choose without labels"
LABELS_ARE_THE_BOUND = "Positives by label are the upper bound"
PRETRAINING_HELPS = "Pretraining helps: BYOL is better than a random start"
_PAIRS: Mapping[str, Sequence[Pair]] = {
    POSITIVES_HELP: AGAINST_BYOL,
    TRACIN_IS_BETTER: TRACIN_AGAINST_FEATURES,
    TRACIN_IS_BEST: TRACIN_AGAINST_OTHERS,
    LABELS_ARE_THE_BOUND: UPPER_BOUND,
    PRETRAINING_HELPS: START,
}
_RULE = (
    "Fine-tunings of one pretraining differ in the fine-tuning alone: that one way is better than another does not "
    "follow from them, and is not said."
)


def told_of(found: LabelledSet) -> Told:
    """The differences at every share of the labels, rising."""
    return {fraction: differences(found, fraction) for fraction in found.fractions}


def claims(found: LabelledSet, told: Told) -> list[Claim]:
    """The claims of the paper, share by share."""
    rows = []
    for claim, pairs in _PAIRS.items():
        for fraction, family in told.items():
            if own := of_pairs(family, pairs):
                statistic = f"difference over pretrainings{_published(found, pairs, fraction)}"
                rows.append((claim, f"{percent(fraction)} %", statistic, sentence(found, claim, fraction, own)))
        if claim == TRACIN_IS_BETTER and len(told) > 1 and (counted := setting_sentence(told)):
            rows.append((claim, "all", "settings with a difference", counted))
    return rows


def answers(found: LabelledSet, told: Told) -> list[str]:
    """What is told over pretrainings, the largest share of the labels first; then what the highest means are."""
    highest = _highest_sentences(found)
    if not highest:
        return ["No fine-tuning is finished yet.", _RULE]
    said = []
    for fraction in reversed(list(told)):
        for claim in (POSITIVES_HELP, TRACIN_IS_BETTER):
            own = of_pairs(told[fraction], _PAIRS[claim])
            if any(difference.p is not None for difference in own):
                said.append(sentence(found, claim, fraction, own))
    return [*said, _RULE, *highest]


def sentence(found: LabelledSet, claim: str, fraction: float, own: Sequence[Difference]) -> str:
    """What is said of one claim at one share of the labels. ``own``: its differences."""
    where = f"With {percent(fraction)} % of the labels"
    if claim == POSITIVES_HELP:
        subject, rest = f"the {found.tested_score} with additional positives", "that with BYOL alone "
        words = {
            Outcome.HIGHER: f"is higher than {rest}for {{}}",
            Outcome.LOWER: f"is lower than {rest}for {{}}",
            Outcome.NOT_TOLD_APART: f"is not told apart from {rest}for {{}}",
            Outcome.UNKNOWN: f"cannot be told against {rest}for {{}}",
        }
        return f"{where}, {subject} {_grouped(own, words, 0)}."
    subject = f"the {found.tested_score} of {own[0].first}"
    words = {
        Outcome.HIGHER: "is higher than that of {}",
        Outcome.LOWER: "is lower than that of {}",
        Outcome.NOT_TOLD_APART: "is not told apart from that of {}",
        Outcome.UNKNOWN: "cannot be told against that of {}",
    }
    return f"{where}, {subject} {_grouped(own, words, 1)}.{_bound(own) if claim == LABELS_ARE_THE_BOUND else ''}"


def setting_sentence(told: Told) -> str:
    """In how many shares of the labels TracIn is told from features; nothing where one is not in the study."""
    outcomes = [d.outcome for family in told.values() for d in of_pairs(family, TRACIN_AGAINST_FEATURES)]
    if not outcomes:
        return ""
    counts = [f"{outcome.value} in {outcomes.count(outcome)}" for outcome in Outcome]
    return (
        f"Of {len(outcomes)} shares of the labels, {BY_TRACIN_PRETRAINED} is {', '.join(counts[:-1])}; it "
        f"{counts[-1]} (against {BY_FEATURES_PRETRAINED})."
    )


def _grouped(own: Sequence[Difference], words: Mapping[Outcome, str], named: int) -> str:
    """``is higher than … FT (+0.012 …) and FS (…); is not told apart from … FNC (…)``."""
    parts = []
    for outcome, text in words.items():
        names = {(d.first, d.second)[named]: d for d in own if d.outcome is outcome}
        if outcome is Outcome.UNKNOWN:
            by_reason: dict[str, list[str]] = {}
            for name, difference in names.items():
                by_reason.setdefault(difference.why, []).append(name)
            parts += [f"{text.format(listed(of_reason))}: {why}" for why, of_reason in by_reason.items()]
        elif outcome is Outcome.NOT_TOLD_APART and len(names) > 1:  # their numbers stand in the table
            parts.append(text.format(listed([*names])))
        elif names:
            parts.append(text.format(listed([f"{name} ({_numbers(d)})" for name, d in names.items()])))
    return "; ".join(parts)


def _bound(own: Sequence[Difference]) -> str:
    """Whether the labels' own choice is above all others."""
    outcomes = {difference.outcome for difference in own}
    if outcomes == {Outcome.HIGHER}:
        return " It is above every way here that chooses without labels."
    if Outcome.LOWER in outcomes:
        return " So it is no upper bound."
    return " That it is the upper bound is not shown."


def _numbers(difference: Difference) -> str:
    assert difference.value is not None
    text, p = number(difference.value, 3, signed=True), difference.p_adjusted
    if difference.low is not None and difference.high is not None:
        low, high = (number(end, 3, signed=True) for end in (difference.low, difference.high))
        text += f" [{low}, {high}]"
    p_text = "" if p is None else ", p < 0.001 after Holm" if p < 0.001 else f", p = {number(p, 3)} after Holm"
    return f"{text}{p_text}, n = {difference.n}"


def _published(found: LabelledSet, pairs: Sequence[Pair], fraction: float) -> str:
    values = [v for pair in pairs if (v := published_difference(found.published_as, *pair, fraction)) is not None]
    if not values:
        return ""
    ends = dict.fromkeys(number(value, 3, signed=True) for value in (min(values), max(values)))
    return f" (published, of one pretraining each: {' to '.join(ends)})"


def _highest_sentences(found: LabelledSet) -> list[str]:
    """What the numbers of Table 1 are; which way is better is not said, as no fine-tuning tests it."""
    sentences = []
    for fraction in reversed(found.fractions):
        scores = {
            role: mean_std(row.of_fine_tunings(found.metric)) for role in ROLES if (row := found.row(role, fraction))
        }
        known = {role: mean for role, (mean, _) in scores.items() if mean is not None}
        if known:
            best = max(known, key=lambda role: known[role])
            text = (
                f"With {percent(fraction)} % of the labels the highest mean {found.score} over fine-tunings is that of "
            )
            sentences.append(f"{text}{best}, {known[best]:.3f}, and the lowest {min(known.values()):.3f}.")
    return sentences


def caveats(found: LabelledSet, told: Told) -> list[str]:
    """What is to be kept in mind."""
    said = [
        "What is told apart is told of these test images: each way has images that it always gets right or wrong. "
        "Further pretrainings do not change that, so of other images of the same kind more is said than holds.",
        "The choice of positives, its precision and its hubs stand in MLflow with every pretraining, epoch by epoch.",
        *_unseen_sentences(found),
    ]
    if found.published_as not in PUBLISHED:
        said.append(f"{found.title} is none of the paper's data sets: its numbers are not to be held against ours.")
    if not any(num_planned(found, fraction) for fraction in told):
        return [
            *said,
            f"A test takes {MIN_PAIRS} pretrainings of each way (--pretrain-seeds {MIN_PAIRS}), better more.",
        ]
    return [*said, *_least_sentences(found, told), FAMILIES]


def _unseen_sentences(found: LabelledSet) -> list[str]:
    """Where a small share of the labels leaves classes out: nothing teaches them, and they count all the same."""
    most: dict[float, float] = {}
    for row in found.rows:
        numbers = row.cell.values.get(NUM_UNSEEN_CLASSES, ())
        most[row.fraction] = max([most.get(row.fraction, 0.0), *numbers])
    parts = [f"{number:.0f} with {percent(fraction)} %" for fraction, number in most.items() if number]
    if not parts:
        return []
    return [
        f"Classes that no labelled training image shows count in the {found.score} all the same, so a small share of "
        f"the labels is scored on what it cannot teach. There are up to {listed(parts)} of the labels "
        "(classes.csv of each trial names them)."
    ]


FAMILIES = (
    "All that is said of one data set and share of the labels shares the level of 5 % (Holm). Nothing corrects over "
    "shares and data sets: of studies with six such families of nothing but noise, up to one in four would say "
    "something. What is not told apart may differ."
)


def _least_sentences(found: LabelledSet, told: Told) -> list[str]:
    """How large a difference has to be to be shown by what is there, a sentence for all shares."""
    parts = []
    for fraction, family in told.items():
        stds = [difference.std for difference in family if difference.std]
        if not stds:
            continue
        num_pairs = min(difference.n for difference in family if difference.std)
        least, num_tests = least_difference(num_pairs, num_planned(found, fraction)), num_planned(found, fraction)
        parts.append(
            f"with {percent(fraction)} % of the labels, {num_pairs} pretrainings and {num_tests} tests, of "
            f"{number(least, 1)} standard deviations of the difference of a pair, here about "
            f"{number(least * statistics.median(stds), 3)}"
        )
    if not parts:
        return []
    return [
        f"The strictest test shows a difference from some size on: {'; '.join(parts)}. That none is shown does not say "
        "that there is none. More pretrainings (--pretrain-seeds) show smaller ones."
    ]
