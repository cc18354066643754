"""What a study of augmentation types says, in sentences: each follows from verdicts, and from nothing else."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from scipy import stats

from analysis.augmentations.arms import CONTROLS
from analysis.augmentations.effects import ALONE, BEST_ANGLE, INTERACTION, Effect
from analysis.augmentations.evidence import MEASURES, TITLES, RegionSet, expected_front_size
from analysis.curves.words import listed
from analysis.render.table import number
from analysis.significance import LEVEL, Outcome, Verdict
from trainables.api.names import EXACT_ANGLE, RELEASED, UNTRAINED

Verdicts = Mapping[tuple[Effect, str], Verdict]
_HOLDS = (Outcome.LEARNT, Outcome.NO_INTERVAL)


def answers(found: RegionSet, verdicts: Verdicts) -> list[str]:
    """Of each measure what changes it; the front; the angle of the curve's maximum; interactions."""
    if not any(found.levels(arm.name, measure) for arm in found.arms for measure in MEASURES):
        return ["No encoder has been measured yet, so nothing can be said."]
    said = [measure_sentence(found, measure, verdicts) for measure in MEASURES]
    said += front_sentences(found)
    if found.of(EXACT_ANGLE):
        said += dict.fromkeys(angle_sentence(found, measure, verdicts) for measure in MEASURES)
    return said + interaction_sentences(verdicts)


def measure_sentence(found: RegionSet, measure: str, verdicts: Verdicts) -> str:
    """Which augmentations raise or lower a measure against none, and of which no difference is shown."""
    what, groups = f"the {TITLES[measure]}", dict[str, dict[str, Verdict]]()
    controls = {}
    for (effect, of), verdict in verdicts.items():
        if of == measure and effect.kind == ALONE:
            if found.arm(effect.title).role in CONTROLS:
                controls[found.arm(effect.title).role] = verdict
            else:
                groups.setdefault(_group(verdict), {})[effect.title] = verdict
    if not groups:
        return f"What augmentation does to {what} cannot be told: no pretraining without augmentation is in the study."
    changed = {word: groups[word] for word in ("higher", "lower") if word in groups}
    said = []
    if changed:
        parts = [
            f"is {word} with {listed([f'{name} ({_numbers(verdict)})' for name, verdict in of_word.items()])}"
            for word, of_word in changed.items()
        ]
        reach = _reach([verdict for of_word in changed.values() for verdict in of_word.values()])
        said.append(f"Against pretrainings without augmentation, {what} {', and '.join(parts)}{reach}.")
        said += [f"No difference is shown for {listed([*groups['alike']])}."] if "alike" in groups else []
    elif "alike" in groups:
        alike = listed([*groups["alike"]])
        said.append(f"Against pretrainings without augmentation, {what} is not shown to change with {alike}.")
    if "one seed" in groups:
        names = listed([*groups["one seed"]])
        said.append(f"With one seed there is no test: what becomes of {what} with {names} is not told.")
    if "unknown" in groups:
        names = listed([f"{name} ({verdict.why_text})" for name, verdict in groups["unknown"].items()])
        said.append(f"What becomes of {what} with {names} cannot be told.")
    return " ".join([*said, *_control_sentences(controls)])


def _control_sentences(controls: Mapping[str, Verdict]) -> list[str]:
    """Whether training matters at all: encoders that this study did not train against those without augmentation."""
    names = {UNTRAINED: "untrained encoders", RELEASED: "the released encoder that all of them start from"}
    said = []
    for role, verdict in controls.items():
        if (group := _group(verdict)) == "alike":
            said.append(f"That it differs for {names[role]} from those without augmentation is not shown.")
        elif group in ("higher", "lower"):
            said.append(f"It is {group} for {names[role]} than for those without augmentation ({_numbers(verdict)}).")
    return said


def front_sentences(found: RegionSet) -> list[str]:
    """Which augmentations no other exceeds in both means, and how firm that is; nothing from fewer than two seeds."""
    front, seeds = found.front(), found.fronts_of_seeds()
    if not front or len(seeds) < 2:
        return []
    counts = Counter(name for of_seed in seeds for name in of_seed)
    named = [f"{name} (on that of {counts[name]} of {len(seeds)} seeds)" for name in front]
    num = len(found.points())
    return [
        f"On the Pareto front of both means {'lies' if len(front) == 1 else 'lie'} {listed(named)}, of {num} ways to "
        f"train; of as many whose two measures were luck and knew nothing of one another, "
        f"{expected_front_size(num):.1f} would lie there."
    ]


def angle_sentence(found: RegionSet, measure: str, verdicts: Verdicts) -> str:
    """Whether training with the angle at the curve's maximum is better than with other exact angles."""
    chosen, what = found.best_angles_deg, f"the {TITLES[measure]}"
    if len(found.interpolated) < 2:
        return "No two exact angles at which pixels are interpolated are in the study, so none can be the better one."
    if not chosen:
        return "Whether the angle of the curve's maximum is the one to train with cannot be told yet."
    if found.best_angle_deg is None:
        counts = [f"{angle:g}° in {num} of {len(chosen)} seeds" for angle, num in sorted(Counter(chosen).items())]
        return (
            "There is no angle of the maximum to train with: the seeds do not agree at which one the curve of encoders "
            f"trained as in the thesis lies highest above that of untrained ones ({listed(counts)})."
        )
    top = (
        "Of the angles trained with, the curve of encoders trained as in the thesis lies highest above that of "
        f"untrained ones at {found.best_angle_deg:g}°, in {'all ' if len(chosen) > 1 else ''}{len(chosen)} seed(s)"
    )
    effect, verdict = next((e, v) for (e, of), v in verdicts.items() if of == measure and e.kind == BEST_ANGLE)
    group, levels = _group(verdict), found.compared_levels(effect, measure)
    if group == "unknown" or levels is None:
        return f"{top}; whether training with exactly that angle changes {what} cannot be told: {verdict.why_text}."
    if group == "one seed":
        return f"{top}; with one seed there is no test of whether training with exactly that angle changes {what}."
    numbers = f"{number(levels[0], 3)} against {number(levels[1], 3)} with other exact angles; {verdict.p_text}"
    if group == "alike":
        return f"{top}; that training with exactly that angle changes {what} is not shown ({numbers})."
    word = {"higher": "raises", "lower": "lowers"}[group]
    return f"{top}; training with exactly that angle {word} {what} ({numbers}){_reach([verdict])}."


def interaction_sentences(verdicts: Verdicts) -> list[str]:
    """Of pairs, which do more or less together than the sum of both; nothing where none was tested."""
    said = []
    for measure in MEASURES:
        of_pairs = {e: v for (e, of), v in verdicts.items() if of == measure and e.kind == INTERACTION}
        tested = {effect: verdict for effect, verdict in of_pairs.items() if _group(verdict) not in _UNTESTED}
        if len(tested) < len(of_pairs):
            left = len(of_pairs) - len(tested)
            said.append(f"{left} of {len(of_pairs)} pairs have no test of an interaction in the {TITLES[measure]}.")
        if not tested:
            continue
        holding = {effect: verdict for effect, verdict in tested.items() if verdict.outcome in _HOLDS}
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


_UNTESTED = ("one seed", "unknown")


def _group(verdict: Verdict) -> str:
    """higher, lower, alike, one seed, or unknown."""
    if verdict.outcome in _HOLDS:
        return "higher" if _difference(verdict) > 0 else "lower"
    if verdict.num_trained == 1:
        return "one seed"
    return "alike" if verdict.outcome is Outcome.NOT_TOLD_APART else "unknown"


def _reach(verdicts: Sequence[Verdict]) -> str:
    """For whom it holds."""
    short = [verdict for verdict in verdicts if verdict.outcome is not Outcome.LEARNT]
    if short:
        return f", over seeds, on these images; of others nothing is said: {short[0].why_text}"
    kinds = {verdict.blocks.kind for verdict in verdicts if verdict.blocks is not None}
    whom = "images like these; patients are not known" if kinds == {"images"} else f"{listed(sorted(kinds))} like these"
    return f", over seeds and over {whom}"


def _difference(verdict: Verdict) -> float:
    assert isinstance(verdict.difference, float)
    return verdict.difference


def _numbers(verdict: Verdict) -> str:
    return f"{number(_difference(verdict), 3, signed=True)}, {verdict.p_text}"


def least_difference(num_seeds: int, num_tests: int) -> float:
    """In standard deviations of a seed, the difference of two sides of so many seeds each that the strictest of so many
    tests calls one."""
    return float(stats.t.ppf(1 - LEVEL / num_tests / 2, 2 * num_seeds - 2)) * math.sqrt(2 / num_seeds)


def caveats(found: RegionSet, verdicts: Verdicts, num_tests: int) -> list[str]:
    """What keeps the numbers from meaning more. ``num_tests``: of the whole study."""
    facts = found.results.manifest["facts"]
    said = []
    if facts.get("pretraining_start", "").startswith("random"):
        said.append("The pretrainings started from random weights, the thesis's from released ones.")
    num_seeds = max((verdict.num_trained for verdict in verdicts.values()), default=0)
    if num_seeds > 1 and num_tests:
        said.append(
            f"With {num_seeds} seeds and {num_tests} tests that share the level, a difference has to be about "
            f"{number(least_difference(num_seeds, num_tests), 1)} standard deviations of a seed to be shown: that none "
            "is shown does not say that there is none. More seeds (--pretrain-seeds) show smaller ones."
        )
    epochs = f", but for their {facts['num_epochs']} epochs" if "num_epochs" in facts else ""
    return [
        *said,
        "All encoders are measured in one way: segmentations see no augmentation, and maps explain an image beside "
        "its rotation, at the same angles for all. Encoders that were trained with rotations have seen such pairs and "
        "others have not: that may be all that a higher Dice of their maps says.",
        "Maps are of training and validation images, as in the thesis, the Dice of decoders of validation images.",
        "A difference is said to be there when a test over seeds and an interval over blocks of images both leave out "
        "0 (where there is such an interval); all that is said of the study shares the level (Holm, Bonferroni). "
        "The intervals of table and figure are each by itself.",
        f"Settings of the pretraining are those of the rotation study for all augmentations{epochs}: another learning "
        "rate may suit another augmentation better.",
        "That a map fits the region is the thesis's hypothesis of what makes it interpretable.",
    ]
