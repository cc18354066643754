"""What a submission prints before and after its trials run."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from typing import get_args

from rich.console import Console
from rich.table import Table

from orchestrator.budget import Budget
from orchestrator.cost_text import work_text
from orchestrator.costs import Costs, costs_of
from orchestrator.options import RetriedClass
from orchestrator.outlook import Outlook
from orchestrator.plan import TO_RUN, Plan, PlannedTrial, State
from orchestrator.provenance import without_password
from orchestrator.search.suggestions import Suggestions
from orchestrator.store import Store
from orchestrator.study import Resources
from orchestrator.view import duration_text

ROWS_SHOWN = 60
_LOG_COLUMNS = 160


class _Console(Console):
    """Leaves it to the command line to end a process whose reader has gone (rich itself exits with 1)."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def make_console() -> Console:
    """Logs of jobs and pipes are no terminals, and are not 80 columns wide."""
    console = _Console(file=sys.stdout, emoji=False)
    return console if console.is_terminal else _Console(file=sys.stdout, width=_LOG_COLUMNS, emoji=False)


def say(text: str, console: Console) -> None:
    """One line as it is: paths and messages are neither wrapped nor coloured."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def say_digests(console: Console) -> Callable[[int, int], None]:
    """Tells how far the hashing of data sets is, which takes minutes the first time and seconds later."""

    def say(done: int, total: int) -> None:
        console.print(f"reading data sets: {done} of {total} files", highlight=False)

    return say


def show_plan(plan: Plan, console: Console, *, as_json: bool, outlook: Outlook | None = None) -> None:
    """The trials of a plan with their states and what they will cost, as a table or one JSON object."""
    outlook = outlook or Outlook(costs_of(plan, Resources()))
    if as_json:
        print(json.dumps(plan.to_json() | outlook.to_json()))
        return
    _show_trials(plan, console)
    _say_what_a_search_adds(plan, console)
    for line in outlook.lines():
        say(line, console)
    for name, fact in plan.study.facts.items():
        say(f"{name.replace('_', ' ')}: {fact}", console)
    said = ", ".join(f"{n} {state}{_by_class(plan, state)}" for state, n in plan.counts().items() if n)
    say(f"{len(plan.planned)} trials: {said or 'none yet'}; {estimate_text(plan, outlook.costs)}", console)


def _show_trials(plan: Plan, console: Console) -> None:
    table = Table(title=f"{plan.study.name}: {plan.study.question}", title_justify="left")
    for column in ("trial", "class", "key", "state", "estimate", "reason"):
        table.add_column(column, overflow="fold")
    for p in plan.planned[:ROWS_SHOWN]:
        done = f" ({p.fraction:.0%} done)" if p.state is State.RESUMABLE else ""
        estimate = duration_text(p.estimated_s) if p.estimated_s is not None else ""
        table.add_row(
            p.trial.name,
            type(p.trial.trainable).__name__,
            p.trial.key[:8],
            f"{p.state.value}{done}",
            estimate,
            f"{p.reason}, which saves about {duration_text(p.continues.saved_s)}" if p.continues else p.reason,
        )
    if plan.planned:
        console.print(table)
    if len(plan.planned) > ROWS_SHOWN:
        console.print(f"... and {len(plan.planned) - ROWS_SHOWN} more trials (--json lists all)")


def _say_what_a_search_adds(plan: Plan, console: Console) -> None:
    if plan.to_suggest:
        each = duration_text(plan.suggestion_s)
        console.print(
            f"{plan.to_suggest} suggestions of the search to come, about {each} of work each", highlight=False
        )
    for promoted in plan.promoted:
        each, which = duration_text(promoted.each_s), " of them" if plan.to_suggest else ""
        console.print(
            f"at least {promoted.count}{which} will be promoted to length {promoted.length}, if none fails: "
            f"about {each} more of work each",
            highlight=False,
        )


def _by_class(plan: Plan, state: str) -> str:
    """Of the failed ones, how many in which way; nothing of the others."""
    return f" ({', '.join(f'{n} {kind}' for kind, n in plan.failures().items())})" if state == State.FAILED else ""


def to_run_text(plan: Plan) -> str:
    """How many trials are to run, and how many suggestions of a search will add more."""
    to_come = [f"{plan.to_suggest} suggestions"] if plan.to_suggest else []
    if num_promoted := sum(promoted.count for promoted in plan.promoted):
        to_come.append(f"at least {num_promoted} promotions")
    return f"{len(plan.runnable())} to run" + (f", {' and '.join(to_come)} to come" if to_come else "")


def estimate_text(plan: Plan, costs: Costs) -> str:
    """What is left to compute, in a phrase that says how sure it is."""
    if not plan.runnable() and not plan.is_to_go_on:
        return "nothing left to compute"
    return work_text(costs)


def say_behind(store: Store, tracking_uri: str, console: Console) -> None:
    """MLflow could not be brought up to date: nothing is lost, and how to catch up."""
    console.print(
        f"warning: MLflow at {without_password(tracking_uri)} lacks some runs; nothing is lost. Bring them with\n"
        f"  python -m orchestrator sync --storage {shlex.quote(store.uri)} "
        f"--tracking-uri {shlex.quote(without_password(tracking_uri))}",
        highlight=False,
        soft_wrap=True,
    )


def show_troubles(plan: Plan, console: Console, budget: Budget | None = None) -> None:
    """A table of the trials without a result, with reasons; nothing if there are none."""

    def reason(p: PlannedTrial) -> str:
        is_unpaid = budget is not None and p.state in TO_RUN and p.trial.key not in budget.keys
        return p.reason or ("it did not fit the budget" if is_unpaid else "the same command computes it")

    troubled = [p for p in plan.planned if p.state not in (State.DONE, State.UNNEEDED)]
    if not troubled:
        return
    table = Table(title="Trials without a result", title_justify="left")
    for column in ("trial", "key", "state", "reason"):
        table.add_column(column, overflow="fold")
    for p in troubled[:ROWS_SHOWN]:
        table.add_row(p.trial.name, p.trial.key[:8], p.state.value, reason(p))
    console.print(table)
    if plan.counts()[State.FAILED]:
        # Storages of earlier versions may have others, which the bare flag takes along.
        classes = [name for kind in plan.failures() if (name := kind.replace(" ", "-")) in get_args(RetriedClass)]
        here = f" (here {' '.join(classes)})" if classes else ""
        say(f"Once the cause of a failure is mended: the same command with --retry-failed{here}", console)


def show_search(suggestions: Suggestions, console: Console) -> None:
    """Why a search stopped early, if it did, and its best suggestions; nothing without a search."""
    if suggestions.stopped_because:
        console.print(f"The search stopped: {suggestions.stopped_because}", style="red", markup=False, soft_wrap=True)
    elif suggestions.num_left or suggestions.promotions:
        left = f"{suggestions.num_left} suggestions" if suggestions.num_left else "promotions"
        console.print(f"The search stopped with {left} left: its points failed, or wait for")
        console.print("a trial that failed, or its sampler had no new ones. The same command goes on.")
    best = suggestions.best()
    if not best:
        return
    title = "Pareto front" if len(best[0][1]) > 1 else "Best suggestions" if len(best) > 1 else "Best suggestion"
    title += f", at length {suggestions.highest_length}" if suggestions.highest_length else ""
    table = Table(title=title, title_justify="left")
    table.add_column("suggestion", justify="right")
    for name in [*best[0][1], *best[0][0].params]:
        table.add_column(name, overflow="fold")
    for suggestion, values in best[:ROWS_SHOWN]:
        shown = [f"{value:.4g}" for value in values.values()]
        shown += [f"{value:.4g}" if isinstance(value, float) else str(value) for value in suggestion.params.values()]
        table.add_row(str(suggestion.number), *shown)
    console.print(table)


def show_end(plan: Plan, paths: list[str], tracking_uri: str, charts: str, console: Console) -> None:
    """How many trials are done, what they took, where the report is, and how to open MLflow, at its page ``charts``."""
    done = plan.counts()[State.DONE]
    took = f", after {plan.finished_s():.0f} s of work, summed over workers" if done else ""
    console.print(f"{plan.study.name}: {done} of {plan.num_needed} trials are done{took}", highlight=False)
    shown = without_password(tracking_uri)
    if shown.startswith(("http://", "https://")):
        said = [f"Compare the runs in MLflow: {shown.rstrip('/')}{charts}"]
    else:
        said = [f"Compare the runs in MLflow: mlflow ui --backend-store-uri {shlex.quote(shown)}"]
        said += [f"  then http://127.0.0.1:5000{charts}"] if charts else []
    for line in [*(f"  {path}" for path in paths), *said]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
