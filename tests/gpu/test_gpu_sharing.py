"""Trials that share a GPU through Ray; where there is none, one that Ray is only told of."""

import pytest
import torch

ray = pytest.importorskip("ray", reason="Ray is not installed")

from gpu_toys import Meets  # noqa: E402

from orchestrator.launch import launch  # noqa: E402
from orchestrator.plan import make_plan  # noqa: E402
from orchestrator.store import Store  # noqa: E402
from orchestrator.study import Resources, Study  # noqa: E402
from orchestrator.trial import Settings  # noqa: E402
from trainables.api.identity import FileDigests, Keys  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one_gpu():
    """Ray on this machine, with two cores and one GPU."""
    told = {} if torch.cuda.is_available() else {"num_gpus": 1}
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, **told)
    yield
    ray.shutdown()


class Silent:
    """A listener that hears nothing."""

    def __getattr__(self, event):
        return lambda key, what=None: None


def test_two_trials_of_half_a_gpu_run_at_once(one_gpu, tmp_path):
    (folder := tmp_path / "at work").mkdir()
    store = Store(str(tmp_path / "results"))
    trials = {f"trial {number}": Meets(number, folder=folder) for number in range(2)}
    plan = make_plan(Study("sharing", "?", trials), store, Keys(FileDigests()))
    settings = Settings(store.uri, tmp_path / "cache", Resources(0.5, 0.5, 1), {"code_version": "test"}, 0.0)
    outcome = launch(plan, store, settings, Silent())
    assert outcome.failures == {}
    results = [planned.result for planned in make_plan(plan.study, store, Keys(FileDigests())).planned]
    assert [result.metrics for result in results] == [{"sum": 1000.0}] * 2
