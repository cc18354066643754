"""One submission of a study: plan, run what is missing, report on all of it."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from orchestrator import printing
from orchestrator.attempt import DEFAULT_CHECKPOINT_INTERVAL_S, Settings, default_cache_dir
from orchestrator.budget import Budget, budget_of
from orchestrator.context import Progress
from orchestrator.cost_records import record_costs
from orchestrator.costs import costs_of, resources_of
from orchestrator.devices import devices_for
from orchestrator.entry import check_entry
from orchestrator.estimates import Spent
from orchestrator.feeder import Feeder
from orchestrator.graph import trials_of
from orchestrator.inputs import record_digests
from orchestrator.kinds import Kind
from orchestrator.manifest import ManifestWriter, entries_of, manifest_of
from orchestrator.options import StudyOptions
from orchestrator.outlook import outlook_of
from orchestrator.places import check_writable, give_home, opened
from orchestrator.plan import Plan, State, check_trials, make_plan
from orchestrator.provenance import provenance, without_password
from orchestrator.publishing import known_of
from orchestrator.reporting import report_on
from orchestrator.resources import usual_demand
from orchestrator.search.suggestions import Suggestions
from orchestrator.snapshot import report_files, snapshot, sqlite_path, tracking_uri_of
from orchestrator.store import Store
from orchestrator.study import Study
from orchestrator.usage import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, UsageError, usage_errors
from orchestrator.view import View
from trainables.api.identity import FileDigests, Keys
from trainables.api.trainable import Trainable

if TYPE_CHECKING:
    from orchestrator.launch import Outcome


def submit(options: StudyOptions, make_study: Callable[[], Study]) -> int:
    """Do what is missing of a study and report on all of it; returns the exit status.

    Raises UsageError, having changed nothing, for input that cannot be used.
    """
    console = printing.make_console()
    with usage_errors():
        store, cache_dir = opened(options.storage), (options.cache_dir or default_cache_dir()).resolve()
        give_home(cache_dir)
        study = make_study()
        if study.report is not None:
            check_entry(study.report)
        tracking_uri = "" if options.plan else tracking_uri_of(options.tracking_uri, store)
        if not options.plan:
            check_writable(store, cache_dir)
        submission = _Submission(study, options, store, cache_dir, console)
        plan = submission.plan(retry_failed=options.kinds_to_retry)
        check_trials(plan.runnable())
        budget = budget_of(plan, options)
    if options.plan:
        outlook = outlook_of(plan, options, store, submission.keys, budget)
        printing.show_plan(plan, console, as_json=options.json, outlook=outlook)
        return EXIT_OK
    command = shlex.join(["python", *map(without_password, sys.argv)])
    document = manifest_of(plan, command, provenance(), submission.keys)
    manifest = ManifestWriter(store, document, submission.suggestions)
    chosen = _within(budget, plan, console)
    with contextlib.ExitStack() as fed:
        if is_running := bool(chosen.runnable() or chosen.is_to_go_on):
            if submission.run(chosen, manifest, fed, tracking_uri):
                submission.plan_after(plan, has_run=True)
                console.print("Interrupted. The same command goes on where this one stopped.")
                return EXIT_INTERRUPTED
        else:
            manifest.write()
        after = submission.plan_after(plan, has_run=is_running)
        # All of it, also what another driver suggested, as it ended.
        manifest.add(entries_of(after, submission.keys))
        manifest.write()
        printing.show_troubles(after, console, budget)
        printing.show_search(submission.suggestions, console)
        paths = report_on(study, store, manifest.document, after, lambda said: printing.say(said, console))
        if not is_running:
            submission.catch_up(plan, fed, tracking_uri)
    charts = known_of(store, study.name, tracking_uri).charts
    printing.show_end(after, paths or [], tracking_uri, charts, console)
    is_complete = after.is_complete and not submission.suggestions.stopped_because
    return EXIT_OK if is_complete and paths is not None else EXIT_FAILED


def _within(budget: Budget | None, plan: Plan, console: Console) -> Plan:
    """The plan of what fits the budget, having said what does not."""
    if budget is None:
        return plan
    printing.say(budget.line, console)
    return budget.of(plan)


@dataclass(frozen=True)
class _ViewAndFeeder:
    """What the trials of a launch say reaches the screen, and their keys the feeder."""

    view: View
    feeder: Feeder

    def started(self, key: str) -> None:
        self.view.started(key)
        self.feeder.tell(key, "started")

    def waits(self, key: str) -> None:
        self.view.waits(key)

    def progressed(self, key: str, progress: Progress) -> None:
        self.view.progressed(key, progress)

    def noted(self, key: str, message: str) -> None:
        self.view.noted(key, message)

    def done(self, key: str) -> None:
        self.feeder.tell(key, "ended")
        self.view.done(key)

    def failed(self, key: str, reason: str) -> None:
        self.feeder.tell(key, "ended")
        self.view.failed(key, reason)


class _Submission:
    """A study, its options, and where its results are."""

    def __init__(self, study: Study, options: StudyOptions, store: Store, cache_dir: Path, console: Console) -> None:
        self.store = store
        self._options, self._cache_dir, self._console = options, cache_dir, console
        say = printing.say_digests(console) if not options.json else (lambda done, total: None)
        self.keys = Keys(FileDigests(cache_dir / "digests.json", say))
        self.suggestions = Suggestions(study, store, self.keys, options.lag)
        self._devices = devices_for(options.address, options.gpus_per_trial)
        self._spent: Mapping[str, Spent] = {}  # what the study has measured, as of its last plan

    def plan(self, *, retry_failed: Collection[Kind] = ()) -> Plan:
        """The plan of all that is known so far; the suggestions of a search are settled by it."""
        self.suggestions.refresh()
        plan = make_plan(
            self.suggestions.study(),
            self.store,
            self.keys,
            retry_failed=retry_failed,
            to_suggest=self.suggestions.num_left,
            examples=self.suggestions.examples,
            promotions=self.suggestions.promotions,
            devices=self._devices,
        )
        self._spent = plan.spent
        by_state = {state: {p.trial.key for p in plan.planned if p.state is state} for state in State}
        self.suggestions.update(done=by_state[State.DONE], lost=by_state[State.FAILED] | by_state[State.BLOCKED])
        return plan

    def plan_after(self, before: Plan, *, has_run: bool) -> Plan:
        """The plan as things stand in the end; what finished trials cost is written down for other studies.

        Where nothing ran it was looked up a moment ago, unless for another chance, which the budget did not have.
        """
        if not has_run and not self._options.kinds_to_retry:
            return before
        after = self.plan()
        if has_run:
            record_costs(self.store, after.spent_on_done)
        return after

    def run(self, plan: Plan, manifest: ManifestWriter, fed: contextlib.ExitStack, tracking_uri: str) -> bool:
        """Run what is runnable; True if the user ended it early. MLflow is fed until ``fed`` is closed."""
        # Ray is slow to load: not for --plan, not for --help, not when nothing is left to do.
        from orchestrator.cluster import Cluster

        console = self._console
        done = f"{plan.counts()[State.DONE]} of {plan.num_needed} trials are done"
        costs = costs_of(plan, resources_of(plan, self._options))
        said = f"{plan.study.name}: {done}, {printing.to_run_text(plan)}, {printing.estimate_text(plan, costs)}"
        console.print(said, highlight=False)
        with usage_errors():
            cluster = Cluster(self._options.address)
        # The feeder loads MLflow while Ray starts, and publishes the last runs while the report is drawn.
        feeder = fed.enter_context(self._feeder(plan, tracking_uri))
        with cluster:
            settings = self._settings(plan, manifest)
            manifest.write()
            record_costs(self.store, plan.spent_on_done)  # of trials whose driver was killed
            self._record_digests(plan)
            if self._options.kinds_to_retry:
                for trial in plan.runnable():
                    self.store.clear_failure(trial.key)
            outcome = self._launch(plan, manifest, settings, feeder)
        return outcome.was_interrupted

    def _settings(self, plan: Plan, manifest: ManifestWriter) -> Settings:
        """How the trials run on the connected cluster. Raises UsageError where it can never hold one."""
        from orchestrator.cluster import resources_for

        options = self._options
        try:
            resources = resources_for(
                self._trainables(plan),
                cpus=options.cpus_per_trial,
                gpus=options.gpus_per_trial,
                workers=options.workers_per_trial,
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
        facts = manifest.document["provenance"]
        limit_s = None if options.time_limit is None else 60.0 * options.time_limit
        return Settings(self.store.uri, self._cache_dir, resources, facts, _checkpoint_interval_s(), limit_s)

    def _launch(self, plan: Plan, manifest: ManifestWriter, settings: Settings, feeder: Feeder) -> Outcome:
        from orchestrator.cluster import capacity, what_lacks
        from orchestrator.launch import launch

        max_concurrent = self._options.max_concurrent
        to_come = self._to_come(plan)
        usual = usual_demand(to_come or self._trainables(plan), settings.resources)

        def slots() -> int:
            return capacity().num_at_once(usual)

        with View(plan, self._console, slots, lambda: what_lacks(usual)) as view:
            kept: list[Study] = []  # a suggestion that the storage did not take whole: it is next

            def more(done: Collection[str], lost: Collection[str]) -> Plan | None:
                room = min(slots(), max_concurrent or math.inf)
                suggested = kept[0] if kept else self.suggestions.next(done, lost, room)
                if suggested is None:
                    return None
                kept[:] = [suggested]
                plan = self._suggested(suggested, manifest, view)
                kept.clear()
                return plan

            listener = _ViewAndFeeder(view, feeder)
            return launch(plan, self.store, settings, listener, max_concurrent=max_concurrent, more=more, usual=usual)

    def catch_up(self, plan: Plan, fed: contextlib.ExitStack, tracking_uri: str) -> None:
        """Nothing ran, but MLflow may lack something from an earlier submission, or be another one."""
        known = known_of(self.store, plan.study.name, tracking_uri)
        shots = [snapshot(self.store, p.trial.key, p.result) for p in plan.planned]
        report = report_files(self.store, plan.study.name)
        is_known = all(shot is None or known.tokens.get(shot.key) == shot.token for shot in shots)
        is_known = is_known and known.report == (report.token if report else "")
        if not is_known or _is_missing_database(tracking_uri):
            fed.enter_context(self._feeder(plan, tracking_uri))

    @contextlib.contextmanager
    def _feeder(self, plan: Plan, tracking_uri: str) -> Iterator[Feeder]:
        """A feeder; at the end MLflow has everything, or it is said how to bring it the rest."""
        with Feeder(self.store.uri, tracking_uri, plan.study.name) as feeder:
            yield feeder
        if not feeder.is_up_to_date:
            printing.say_behind(self.store, tracking_uri, self._console)

    def _trainables(self, plan: Plan) -> list[Trainable]:
        """What is to run, and the like of what a search will suggest."""
        return [*(trial.trainable for trial in plan.runnable()), *self._to_come(plan)]

    def _to_come(self, plan: Plan) -> list[Trainable]:
        """The like of what a search will suggest."""
        to_come = self.suggestions.examples if plan.is_to_go_on else []
        return [trial.trainable for example in to_come for trial in trials_of(example, self.keys)]

    def _suggested(self, study: Study, manifest: ManifestWriter, view: View) -> Plan:
        """The plan of one more suggestion of the search, which manifest and view know from here on."""
        plan = make_plan(
            study,
            self.store,
            self.keys,
            to_suggest=self.suggestions.num_left,
            examples=self.suggestions.examples,
            promotions=self.suggestions.promotions,
            spent=self._spent,
            devices=self._devices,
            one_by_one=True,
        )
        manifest.add(entries_of(plan, self.keys))
        self._record_digests(plan)
        view.add(plan)
        return plan

    def _record_digests(self, plan: Plan) -> None:
        """What the trials to come will read of their data sets instead of hashing them."""
        record_digests((part for trial in plan.runnable() for part in trial.parts), self.store, self.keys)


def _is_missing_database(tracking_uri: str) -> bool:
    path = sqlite_path(tracking_uri)
    return path is not None and not path.exists()


def _checkpoint_interval_s() -> float:
    """Seconds between two checkpoints of a trial: ``QUARTERTURN_CHECKPOINT_S``, else 15."""
    return float(os.environ.get("QUARTERTURN_CHECKPOINT_S") or DEFAULT_CHECKPOINT_INTERVAL_S)
