"""A small store with a document and a file of every kind."""

import contextlib

import toy

from orchestrator.attempt import Payload
from orchestrator.cost_records import record_costs
from orchestrator.estimates import Cost, Spent
from orchestrator.inputs import known_parts, record_digests
from orchestrator.manifest import ManifestWriter, manifest_of
from orchestrator.manifest_parts import write_part
from orchestrator.plan import make_plan
from orchestrator.publishing import publisher
from orchestrator.search.suggestions import Suggestions
from orchestrator.snapshot import ReportFiles, record_report
from orchestrator.study import Study
from orchestrator.trial import run_trial
from trainables.api.identity import FileDigests, Keys


class StopsInItems(toy.Squares):
    """Is interrupted when some of its items are kept."""

    def square(self, items):
        if items[0] >= 4:
            raise KeyboardInterrupt
        return super().square(items)


def filled(store, quick_settings, folder):
    """The store with finished, interrupted and failed trials of a study, and the study; ``folder``: for other files."""
    keys = Keys(FileDigests())
    (folder / "text").write_text("text")
    trials = {"grown": toy.Grow(3), "longer": toy.Grow(4, stop_at=2, factor=3), "bad": toy.Misconfigured()}
    trials |= {"text": toy.ReadsText(folder / "text"), "items": toy.Squares(6, log_path=folder / "items")}
    trials["stopped"] = StopsInItems(6, log_path=folder / "items")
    study = Study("s", "?", trials)
    plan = make_plan(study, store, keys)
    manifest = ManifestWriter(store, manifest_of(plan, "c", {}, keys), Suggestions(study, store, keys))
    manifest.write()
    write_part(store, "s", manifest._name, manifest.document["trials"][:1], [{"number": 1}], 7)
    record_digests(known_parts(trials["text"], keys), store, keys)
    for trial in plan.runnable():
        with contextlib.suppress(KeyboardInterrupt):
            run_trial(Payload(trial, quick_settings(store)))
    store.write_document("studies/s/suggestions/000001.json", {"params": {}, "keys": [keys.key(toy.Grow(3))]})
    record_costs(store, {"k": Spent(Cost("Grow", "c", False, 1.0), 2.0, 1.0)})
    store.write_document(f"{publisher('s', 'sqlite:///x')}.json", {"instance": "i", "tokens": {"k": "t"}})
    (folder / "report").mkdir()
    (folder / "report" / "a.html").write_text("<p>")
    files = store.upload(folder / "report", "reports/s")
    record_report(store, ReportFiles("t", ["a.html"], files, "reports/s"))
    return store, study
