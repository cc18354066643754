"""What a study of explanation methods says, in sentences: each follows from one verdict, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.curves.words import listed
from analysis.explanations.evidence import HEADLINE, Against, RegionSet
from analysis.render.table import number
from analysis.significance import Outcome, Verdict
from trainables.api.names import MASK_FRACTION, TRAINED, UNTRAINED

_HOLDS = (Outcome.LEARNT, Outcome.NO_INTERVAL)


def answers(found: RegionSet, verdicts: Mapping[Against, Verdict]) -> list[str]:
    """Which method leads and whether the others can be told from it; then for each method whether training matters."""
    means = {method: found.mean(method, TRAINED, HEADLINE) for method in found.methods}
    ranked = sorted((mean[0], method) for method, mean in means.items() if mean is not None)[::-1]
    if not ranked:
        return ["No method has a result on a trained encoder yet, so nothing can be said."]
    best = ranked[0][1]
    chance = found.mean(best, TRAINED, MASK_FRACTION)
    leads = f"{_name(best)} has the highest average precision, {number(ranked[0][0], 3)}"
    leads += f" (chance {number(chance[0], 3)})" if chance else ""
    if len(ranked) > 1:
        leads += f"; {_rivals(best, [method for _, method in ranked[1:]], verdicts)}"
    own = _of_training(found, best, verdicts)
    said = [f"{leads}. {own[:1].upper()}{own[1:]}"]
    said += [_of_training(found, method, verdicts) for _, method in ranked[1:]]
    return [text[:1].upper() + text[1:] for text in said]


def _rivals(best: str, others: list[str], verdicts: Mapping[Against, Verdict]) -> str:
    """From which others the best is told apart, from which not, and with which there is no test."""
    apart: list[str] = []
    alike: list[str] = []
    untested: list[str] = []
    for other in others:
        pairs = [Against((a, TRAINED), (b, TRAINED)) for a, b in ((best, other), (other, best))]
        outcome = next(verdicts[pair].outcome for pair in pairs if pair in verdicts)
        where = apart if outcome in _HOLDS else alike if outcome is Outcome.NOT_TOLD_APART else untested
        where.append(_name(other))
    said = []
    if apart and not (alike or untested):
        said.append(f"every other method is told apart from it{_whom(verdicts)}")
    elif apart:
        said.append(f"it is told apart from {listed(apart)}{_whom(verdicts)}")
    if alike:
        said.append(f"it is not told apart from {listed(alike)}")
    if untested:
        said.append(f"with {listed(untested)} there is no test over seeds")
    return "; ".join(said)


def _of_training(found: RegionSet, method: str, verdicts: Mapping[Against, Verdict]) -> str:
    verdict = verdicts[Against((method, TRAINED), (method, UNTRAINED))]
    name = _name(method)
    if verdict.outcome is Outcome.UNKNOWN or not isinstance(verdict.difference, float):
        return f"Whether training changes what {name} finds cannot be told: {verdict.why_text}."
    levels = [found.mean(method, role, HEADLINE) for role in (TRAINED, UNTRAINED)]
    said = " against ".join(number(level[0], 3) for level in levels if level is not None)
    p = f", {verdict.p_text}" if verdict.p_adjusted is not None else ""
    if verdict.outcome is Outcome.NOT_TOLD_APART:
        return (
            f"{name}: whether maps of trained encoders fit the region better than those of untrained ones cannot be "
            f"told ({said}{p}: {verdict.why_text})."
        )
    word = "better" if verdict.difference > 0 else "worse"
    ending = {
        Outcome.LEARNT: "over seeds and over blocks of images",
        Outcome.NO_INTERVAL: f"over seeds, on these images; of others nothing is said: {verdict.why_text}",
    }.get(verdict.outcome, f"for this encoder; {verdict.why_text}")
    return f"{name}: maps of trained encoders fit the region {word} than those of untrained ones ({said}{p}), {ending}."


def _whom(verdicts: Mapping[Against, Verdict]) -> str:
    """What has to be added where nothing is said of other images than these."""
    outcomes = {verdict.outcome for verdict in verdicts.values()}
    return " on these images" if Outcome.NO_INTERVAL in outcomes else ""


def _name(method: str) -> str:
    """For sentences; CAM is an abbreviation."""
    return method.replace("_", " ").replace("cam", "CAM")


def caveats(found: RegionSet) -> list[str]:
    """What keeps the numbers from meaning more."""
    facts = found.results.manifest["facts"]
    said = []
    if facts.get("pretraining_start", "").startswith("random"):
        said.append("The pretrainings started from random weights, the thesis's from released ones.")
    return [
        *said,
        "That a map fits the region is the thesis's hypothesis of what makes it interpretable (H1); an encoder may use "
        "other pixels, and a map that shows them would be right and score low.",
        "Methods are compared in their sound forms; the thesis's tool has quirks (README), and it picked by eye.",
        "The largest of several averages is larger than what it estimates; being told apart accounts for all pairs of "
        "methods, the average itself does not.",
        "Rank correlations are of a few shown images at one angle, and have no interval; maps of smooth noise "
        "correlate, too, and coarse ones (CAM) more than fine ones. The table has it between seeds.",
        "Methods without a map of the unchanged image are measured at the same angles as the others.",
    ]
