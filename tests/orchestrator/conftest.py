"""The toy trainables for this folder, also in Ray's workers, and one local Ray for the whole session."""

import os
import sys
from pathlib import Path

import pytest

_HERE = str(Path(__file__).parent)
sys.path[:0] = [_HERE, str(Path(_HERE).with_name("faults"))]
os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (_HERE, os.environ.get("PYTHONPATH")) if p)


@pytest.fixture(scope="session")
def cluster():
    """Ray with two cores, started once; left behind by nobody."""
    from orchestrator.cluster import Cluster

    with Cluster("local") as cluster:
        yield cluster


@pytest.fixture
def quick_settings(tmp_path):
    """A function that makes settings for a store: checkpoints at every offer."""
    from orchestrator.attempt import Settings
    from orchestrator.study import Resources

    def make(store, **resources):
        return Settings(store.uri, tmp_path / "cache", Resources(**resources), {"code_version": "test"}, 0.0)

    return make


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """Address of an MLflow database that the tests share; each has an experiment of its own."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def submitted(tmp_path, quick_settings, request):
    """A function that submits trials of a study named after the test, running the first ``n``: see ``tracked``."""
    from tracked import submit

    from orchestrator.store import Store

    store = Store(str(tmp_path / "results"))
    name = "".join(c if c.isalnum() else "_" for c in request.node.name)

    def make(trials, n=None, **given):
        submit(store, quick_settings(store), name, trials, n, **given)
        return store, name

    return make
