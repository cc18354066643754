"""Trials that share a GPU through Ray, and one that has several; where there is none, what Ray is only told of."""

import pytest
import torch

ray = pytest.importorskip("ray", reason="Ray is not installed")

from gpu_toys import Meets  # noqa: E402
from tiny_shapes import TinyShapes  # noqa: E402

from orchestrator.attempt import Settings  # noqa: E402
from orchestrator.inputs import record_digests  # noqa: E402
from orchestrator.launch import launch  # noqa: E402
from orchestrator.plan import make_plan  # noqa: E402
from orchestrator.store import Store  # noqa: E402
from orchestrator.study import Resources, Study  # noqa: E402
from trainables.api.identity import FileDigests, Keys  # noqa: E402
from trainables.ssl.moco import MoCo  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one_gpu():
    """Ray on this machine, with four cores, as it is told, and one GPU at least."""
    told = {} if torch.cuda.is_available() else {"num_gpus": 1}
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, **told)
    yield
    ray.shutdown()


class Silent:
    """A listener that hears nothing."""

    def __getattr__(self, event):
        return lambda key, what=None: None


def trained(folder, workers, gpus):
    """The result of a small MoCo with so many workers of Ray Train."""
    store = Store(str(folder / f"results of {workers}"))
    data = TinyShapes(num_train=10, num_val=4, image_size_px=33)
    moco = MoCo(data, backbone="resnet18", num_epochs=1, batch_size=4, queue_size=8, embedding_dim=16)
    keys = Keys(FileDigests())
    plan = make_plan(Study("together", "?", {"moco": moco}), store, keys)
    record_digests(plan.planned[0].trial.parts, store, keys)
    settings = Settings(store.uri, folder / "cache", Resources(1.0, gpus, workers), {"code_version": "test"}, 0.0)
    assert launch(plan, store, settings, Silent()).failures == {}
    return make_plan(plan.study, store, keys).planned[0].result


@pytest.mark.parametrize("workers", [2, 4])
def test_a_pretraining_over_several_workers_of_ray_train_is_that_of_one(one_gpu, tmp_path, workers):
    """nccl where there are as many GPUs, else gloo on CPUs."""
    gpus = 1.0 if torch.cuda.device_count() >= workers else 0.0
    alone, together = trained(tmp_path, 1, gpus), trained(tmp_path, workers, gpus)
    assert together.key == alone.key
    assert (alone.provenance["workers"], together.provenance["workers"]) == ("1", str(workers))
    # Two steps in float32: the order of sums alone differs.
    assert together.metrics == pytest.approx(alone.metrics, rel=1e-3, abs=1e-3)


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
