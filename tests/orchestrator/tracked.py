"""What the tests of MLflow share: a study in a store, and what MLflow says of it."""

from mlflow import MlflowClient

from orchestrator.attempt import Payload
from orchestrator.manifest import manifest_of
from orchestrator.plan import make_plan
from orchestrator.study import Study
from orchestrator.trial import run_trial
from trainables.api.identity import FileDigests, Keys


def submit(store, settings, name, trials, n=None, *, fields=None, cards=None, file="submission"):
    """Write the manifest of trials and run the first ``n``; ``fields`` of entries, by name, replace the manifest's."""
    study = Study(name, "Does it track?", trials, facts={"scale": "smoke"})
    plan = make_plan(study, store, Keys(FileDigests()))
    manifest = manifest_of(plan, "python x.py --a", {"code_version": "v+changes"}, Keys(FileDigests()))
    manifest |= {"user": "someone", "cards": cards or {}}
    for entry in manifest["trials"]:
        entry |= {"cell": "", "role": "", "labels": {}, "seeds": {}, **(fields or {}).get(entry["name"], {})}
    store.write_document(f"studies/{name}/{file}.json", manifest)
    for trial in plan.runnable()[:n]:
        run_trial(Payload(trial, settings))


def first_runnable(store, name, trials):
    return make_plan(Study(name, "?", trials), store, Keys(FileDigests())).runnable()[0]


def runs_of(database, name):
    client = MlflowClient(tracking_uri=database)
    experiment = client.get_experiment_by_name(name)
    return client, {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def history(client, run, metric):
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric)]
