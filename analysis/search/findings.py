"""What a search says, in sentences; and what it does not."""

from __future__ import annotations

import math

from analysis.render.table import number, significant
from analysis.search.suggestions import Objective, SearchResults, Suggestion, is_apart, num_seeds_won
from analysis.search.tables import decimals_of


def answer(results: SearchResults) -> str:
    """The best suggestion, or the front, against where the search began, with what cannot be told."""
    if not results.complete:
        return "No suggestion has a value yet, so nothing can be said."
    if len(results.objectives) > 1:
        return _front_answer(results)
    objective = results.objectives[0]
    ranked = results.ranked(objective)
    best = ranked[0]
    lines = [_best_sentence(results, objective, best)]
    others = [suggestion for suggestion in ranked[1:] if suggestion.length == best.length]
    equals = [s for s in others if s.mean(objective) == best.mean(objective)]
    if equals:
        lines.append(f"As high on average: {_named(equals)}." if objective.direction == "maximize"
                     else f"As low on average: {_named(equals)}.")  # fmt: skip
    lines.append(_against_beginning(results, objective, best))
    lines += _rivals(objective, best, others)
    return " ".join([*lines, optimism(results)])


def optimism(results: SearchResults) -> str:
    """Why the value of what a search chose is no estimate of what it will do."""
    count = len(results.complete)
    if count < 2:
        return "The value is one of validation."
    return (
        f"The value is one of validation, and optimistic: the best of {count} was chosen on the same images it is "
        "measured on."
    )


def setting(results: SearchResults, suggestion: Suggestion) -> str:
    """``learning_rate 0.03, momentum 0.99``."""
    places = {parameter.name: parameter.place(suggestion.params) for parameter in results.space}
    return ", ".join(f"{n} {p if isinstance(p, str) else significant(p, 3)}" for n, p in places.items())


def chance_of_being_apart(first: Suggestion, second: Suggestion, objective: Objective) -> float:
    """Of two settings that are alike, how often every seed of the one named first beats every seed of the other."""
    num_first, num_second = first.num_seeds(objective), second.num_seeds(objective)
    return 1 / math.comb(num_first + num_second, num_first)


def _best_sentence(results: SearchResults, objective: Objective, best: Suggestion) -> str:
    word = "highest" if objective.direction == "maximize" else "lowest"
    return (
        f"Of {_compared(results)}, suggestion {best.number} ({setting(results, best)}) "
        f"has the {word} {objective.name}: {_value(results, objective, best)}."
    )


def _compared(results: SearchResults) -> str:
    if results.longest is None:
        return f"{len(results.complete)} suggestion(s) with a value"
    return (
        f"{len(results.compared)} suggestion(s) with a value after {results.longest} epochs, of "
        f"{len(results.complete)} tried"
    )


def _value(results: SearchResults, objective: Objective, suggestion: Suggestion) -> str:
    decimals = decimals_of(results, objective)
    mean, std = suggestion.mean(objective), suggestion.std(objective)
    if std is None:
        return f"{number(mean, decimals)} (one seed)"
    return f"{number(mean, decimals)} (std {number(std, decimals)} over {suggestion.num_seeds(objective)} seeds)"


def _against_beginning(results: SearchResults, objective: Objective, best: Suggestion) -> str:
    """Suggestion 1 is the first starting point where the study names any, else the sampler's first."""
    first = next((s for s in results.suggestions if s.number == 1), None)
    if first is None or first.state != "complete":
        return "Suggestion 1, where the search began, has no value to compare with."
    if first is best:
        return "This is where the search began: nothing that it tried is better."
    if first.length != best.length:
        return _against_shorter_beginning(results, objective, best, first)
    decimals = decimals_of(results, objective)
    difference = number(best.mean(objective) - first.mean(objective), decimals, signed=True)
    beginning = f"Suggestion 1, where the search began, has {_value(results, objective, first)}"
    apart = is_apart(best, first, objective)
    if apart is None:
        return (
            f"{beginning}. Whether the difference of {difference} is more than the luck of a seed cannot be told: "
            "that takes several seeds of both."
        )
    verdict = "beyond" if apart else "within"
    ending = "" if apart else ": it cannot be told"
    return (
        f"{beginning}. The difference of {difference} lies {verdict} the spread over seeds{ending} "
        f"({_seed_by_seed(best, first, objective)})."
    )


def _against_shorter_beginning(
    results: SearchResults, objective: Objective, best: Suggestion, first: Suggestion
) -> str:
    """With rungs, where the beginning was left behind on the way."""
    then = best.at(first.length)
    won = num_seeds_won(then, first, objective)
    known = "of other seeds" if won is None else f"better in {won} of {then.num_seeds(objective)} seeds"
    left_behind = f"was not among the best after {first.length} epochs and went no further"
    if first.stages[-1].length != first.length:
        further = first.stages[-1]
        left_behind = f"has no value after {further.length} epochs ({further.state}), and one after {first.length}"
    elif len(results.suggestions) < results.num_suggestions:
        left_behind = f"has gone no further than {first.length} epochs so far"
    return (
        f"Suggestion 1, where the search began, {left_behind}: there it has {_value(results, objective, first)}, and "
        f"suggestion {best.number} has {_value(results, objective, then)} ({known})."
    )


def _seed_by_seed(better: Suggestion, other: Suggestion, objective: Objective) -> str:
    if is_apart(better, other, objective):
        return f"every seed of suggestion {better.number} is better than every seed of suggestion {other.number}"
    won = num_seeds_won(better, other, objective)
    if won is None:
        return "their seeds overlap"
    return f"their seeds overlap; seed by seed it is better in {won} of {better.num_seeds(objective)}"


def _rivals(objective: Objective, best: Suggestion, others: list[Suggestion]) -> list[str]:
    close = [other for other in others if is_apart(best, other, objective) is False]
    if not close:
        return []
    return [f"Its seeds overlap with those of {len(close)} other suggestion(s): which of these is best cannot be told."]


def _front_answer(results: SearchResults) -> str:
    front = results.front()
    names = " and ".join(objective.name for objective in results.objectives)
    forms, are = ("forms", "It is") if len(front) == 1 else ("form", "They are")
    lines = [
        f"Of {_compared(results)}, {len(front)} {forms} the Pareto front of {names}: no "
        f"other is as good in all of them and better in one. {are} {_named(front)}."
    ]
    for objective in results.objectives:
        best = next(suggestion for suggestion in results.ranked(objective) if suggestion in front)
        word = "Highest" if objective.direction == "maximize" else "Lowest"
        lines.append(f"{word} {objective.name}: suggestion {best.number}, {_value(results, objective, best)}.")
    first = next((s for s in results.complete if s.number == 1), None)
    if first is None:
        lines.append("Suggestion 1, where the search began, has no value to compare with.")
    elif first not in results.compared:
        lines.append(
            f"Suggestion 1, where the search began, has gone no further than {first.length} epochs, so it is not "
            "compared: others were promoted in its place, or nothing is decided yet."
        )
    else:
        lines.append(f"Suggestion 1, where the search began, is {'' if first in front else 'not '}on the front.")
    lines.append("The front compares means; the spread over seeds, which stands in the table, may reorder it.")
    return " ".join([*lines, optimism(results)])


def _named(suggestions: list[Suggestion]) -> str:
    numbers = [str(number_) for number_ in sorted(suggestion.number for suggestion in suggestions)]
    return "suggestion " + numbers[0] if len(numbers) == 1 else "suggestions " + ", ".join(numbers)


def caveats(results: SearchResults) -> list[str]:
    """What to keep in mind beside the answer."""
    found = [
        "To say how well the chosen setting does, train it anew with seeds that the search has not seen, and measure "
        "it on a test split that the search has not seen.",
    ]
    single = [s for s in results.compared if any(s.num_seeds(objective) < 2 for objective in results.objectives)]
    if single:
        found.append("With one seed a suggestion has no spread: differences between such suggestions may be luck.")
    if results.longest is not None:
        found.append(
            "Suggestions that went no further may be better in the end than they were where they stopped: curves "
            "cross. Only those of the longest length are compared."
        )
    objective = results.objectives[0]
    ranked = [suggestion for suggestion in results.ranked(objective) if suggestion.length == results.longest]
    if len(results.objectives) == 1 and len(ranked) > 1 and is_apart(ranked[0], ranked[-1], objective) is not None:
        times = round(1 / chance_of_being_apart(ranked[0], ranked[-1], objective))
        found.append(
            "Beyond the spread over seeds means here: every seed of one is better than every seed of the other. Two "
            f"settings that are alike come out so once in {times} times by luck, and the best of many more often."
        )
    return found
