"""What a study of augmentation types says, in sentences: each follows from verdicts, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.augmentations.evidence import ALONE, BEST_ANGLE, INTERACTION, MEASURES, DataSet, Effect
from analysis.augmentations.tables import TITLES, expected_front_size
from analysis.curves.words import listed
from analysis.render.table import number
from analysis.significance import Outcome, Verdict
from trainables.api.names import EXACT_ANGLE, UNTRAINED

Verdicts = Mapping[tuple[Effect, str], Verdict]
_HOLDS = (Outcome.LEARNT, Outcome.NO_INTERVAL)


def answers(found: DataSet, verdicts: Verdicts) -> list[str]:
    """Of each measure what changes it; the front; the angle of the curve's maximum; interactions."""
    if not any(found.levels(arm.name, measure) for arm in found.arms for measure in MEASURES):
        return ["No encoder has been measured yet, so nothing can be said."]
    said = [measure_sentence(found, measure, verdicts) for measure in MEASURES]
    said += front_sentences(found)
    if found.of(EXACT_ANGLE):
        said += dict.fromkeys(angle_sentence(found, measure, verdicts) for measure in MEASURES)
    said += interaction_sentences(found, verdicts)
    return said


def measure_sentence(found: DataSet, measure: str, verdicts: Verdicts) -> str:
    """Which augmentations raise or lower a measure against none, and of which no difference is shown."""
    what, groups = f"the {TITLES[measure]}", dict[str, dict[str, Verdict]]()
    for (effect, of), verdict in verdicts.items():
        if of == measure and effect.kind == ALONE and found.arm(effect.title).role != UNTRAINED:
            groups.setdefault(_group(verdict), {})[effect.title] = verdict
    if not groups:
        return f"What augmentation does to {what} cannot be told: no pretraining without augmentation is in the study."
    changed = {word: groups[word] for word in ("higher", "lower") if word in groups}
    parts = [
        f"is {word} with {listed([f'{name} ({_numbers(verdict)})' for name, verdict in of_word.items()])}"
        for word, of_word in changed.items()
    ]
    start = f"Against pretrainings without augmentation, {what}"
    if changed:
        text = f"{start} {', and '.join(parts)}{_reach([v for each in changed.values() for v in each.values()])}."
        text += f" Of {listed([*groups['alike']])} no difference is shown." if "alike" in groups else ""
    elif "alike" in groups:
        text = f"{start} is not shown to change with {listed([*groups['alike']])}."
    else:
        text = f"{start}: nothing can be said."
    if "alone" in groups:
        text += f" With one seed there is no test, so nothing is said of {listed([*groups['alone']])}."
    if "unknown" in groups:
        names = [f"{name} ({verdict.why_text})" for name, verdict in groups["unknown"].items()]
        text += f" Nothing can be said of {listed(names)}."
    return text + _untrained_sentence(measure, verdicts)


def _untrained_sentence(measure: str, verdicts: Verdicts) -> str:
    """Whether training matters at all: untrained encoders against those trained without augmentation."""
    verdict = next(
        (v for (e, of), v in verdicts.items() if of == measure and e.kind == ALONE and e.title == UNTRAINED), None
    )
    if verdict is None or verdict.outcome not in (*_HOLDS, Outcome.NOT_TOLD_APART):
        return ""
    if verdict.outcome is Outcome.NOT_TOLD_APART:
        return " Untrained encoders cannot be told apart from those without augmentation."
    word = "higher" if _difference(verdict) > 0 else "lower"
    return f" Of untrained encoders it is {word} than of those without augmentation ({_numbers(verdict)})."


def front_sentences(found: DataSet) -> list[str]:
    """Which augmentations no other exceeds in both means, and how firm that is."""
    front, seeds = found.front(), found.fronts_of_seeds()
    if not front:
        return []
    counts = {name: sum(name in of_seed for of_seed in seeds) for name in front}
    named = [f"{name} (on that of {counts[name]} of {len(seeds)} seeds)" for name in front]
    points = found.points()
    return [
        f"On the Pareto front of both means {'lies' if len(front) == 1 else 'lie'} {listed(named)}, of "
        f"{len(points)} augmentations; if all were alike, {expected_front_size(len(points)):.1f} would lie there by "
        "luck."
    ]


def angle_sentence(found: DataSet, measure: str, verdicts: Verdicts) -> str:
    """Whether training with the angle at the curve's maximum is better than with other exact angles."""
    best, what = found.best_angle_deg, f"the {TITLES[measure]}"
    if best is None:
        return "Whether the angle of the curve's maximum is the one to train with cannot be told yet."
    top = (
        f"Of the angles that were trained with, the curve of encoders trained as in the thesis is highest at {best:g}°"
    )
    pair = next(((e, v) for (e, of), v in verdicts.items() if of == measure and e.kind == BEST_ANGLE), None)
    if pair is None:
        return f"{top}; no other exact angle is in the study, so whether it is the better one to train with is open."
    effect, verdict = pair
    if verdict.outcome is Outcome.UNKNOWN:
        return f"{top}; whether training with exactly that angle changes {what} cannot be told: {verdict.why_text}."
    levels = [found.levels(name, measure) for name in effect.arms]
    own = sum(levels[0].values()) / max(len(levels[0]), 1)
    rest = [value for each in levels[1:] for value in each.values()]
    numbers = f"{number(own, 3)} against {number(sum(rest) / max(len(rest), 1), 3)} with other exact angles"
    p = f"; {verdict.p_text}" if verdict.p_adjusted is not None else ""
    if verdict.outcome is Outcome.NOT_TOLD_APART:
        return f"{top}; that training with exactly that angle changes {what} is not shown ({numbers}{p})."
    word = "raises" if _difference(verdict) > 0 else "lowers"
    if verdict.outcome is Outcome.THIS_ENCODER:
        return f"{top}; in the one seed there is, training with exactly that angle {word} {what} ({numbers}): no test."
    return f"{top}; training with exactly that angle {word} {what} ({numbers}{p}){_reach([verdict])}."


def interaction_sentences(found: DataSet, verdicts: Verdicts) -> list[str]:
    """Of pairs, which do more or less together than the sum of both; nothing where the study has none."""
    said = []
    for measure in MEASURES:
        of_pairs = {e: v for (e, of), v in verdicts.items() if of == measure and e.kind == INTERACTION}
        holding = {effect: verdict for effect, verdict in of_pairs.items() if verdict.outcome in _HOLDS}
        if not of_pairs:
            continue
        if not holding:
            said.append(f"No interaction of two augmentations is shown in the {TITLES[measure]}.")
            continue
        words = {effect: "more" if _difference(verdict) > 0 else "less" for effect, verdict in holding.items()}
        named = [
            f"{effect.title} ({words[effect]} than the sum of both, {_numbers(verdict)})"
            for effect, verdict in holding.items()
        ]
        reach = _reach(list(holding.values()))
        said.append(f"In the {TITLES[measure]} there are interactions of {listed(named)}{reach}.")
    return said


def _group(verdict: Verdict) -> str:
    if verdict.outcome in _HOLDS:
        return "higher" if _difference(verdict) > 0 else "lower"
    return {
        Outcome.NOT_TOLD_APART: "alike" if verdict.num_trained > 1 else "alone",
        Outcome.THIS_ENCODER: "alone",
    }.get(verdict.outcome, "unknown")


def _reach(verdicts: list[Verdict]) -> str:
    """For whom it holds."""
    if all(verdict.outcome is Outcome.LEARNT for verdict in verdicts):
        return ", over seeds and over blocks of images"
    why = next(v.why_text for v in verdicts if v.outcome is not Outcome.LEARNT)
    return f", over seeds, on these images; of others nothing is said: {why}"


def _difference(verdict: Verdict) -> float:
    assert isinstance(verdict.difference, float)
    return verdict.difference


def _numbers(verdict: Verdict) -> str:
    return f"{number(_difference(verdict), 3, signed=True)}, {verdict.p_text}"


def caveats(found: DataSet) -> list[str]:
    """What keeps the numbers from meaning more."""
    facts = found.results.manifest["facts"]
    said = []
    if facts.get("pretraining_start", "").startswith("random"):
        said.append("The pretrainings started from random weights, the thesis's from released ones.")
    return [
        *said,
        "All encoders are measured in the same way: segmentations see no augmentation, maps are those of the same "
        "rotations. That rotation is what they are measured with favours no training by itself, but it is one choice.",
        "A difference is said to be there when a test over seeds and an interval over blocks of images both leave out "
        "0 (where there is such an interval); all that is said of the study shares the level (Holm, Bonferroni). "
        "The intervals of table and figure are each by itself.",
        "Settings of the pretraining are those of the rotation study for all augmentations: another learning rate may "
        "suit another augmentation better.",
        "That a map fits the region is the thesis's hypothesis of what makes it interpretable.",
    ]
