"""MoCo on several workers is MoCo on one: same batches, same keys, same negatives, same gradients."""

import dataclasses
from pathlib import Path

import pytest
import torch
from fake_context import FakeContext
from spread_moco import CONFIG, DATA, context_of_worker, cut_short, differences, state_of, trained, training_in
from workers import WorkerFailed, in_workers

from trainables import runtime
from trainables.api.identity import FileDigests, describe, key_of
from trainables.data.cache import open_images
from trainables.ssl import moco
from trainables.ssl.moco import MoCoTraining

# Every way to lie among 2, 3 and 4 workers: groups of 8, 4 and 2 images.
CONFIGS = {
    1: dataclasses.replace(CONFIG, batch_norm_groups=1),
    2: dataclasses.replace(CONFIG, batch_norm_groups=2),
    4: dataclasses.replace(CONFIG, batch_norm_groups=4, augmented_views="key", pretrain_seed=1),
}


def _all_trained(root):
    cut_short()
    return {groups: trained(torch.float64, config, root / str(groups)) for groups, config in CONFIGS.items()}


@pytest.fixture(scope="module")
def of_one(tmp_path_factory):
    """In a process of its own, because networks are cut short in it."""
    return in_workers(1, _all_trained, tmp_path_factory.mktemp("one"))[0]


def assert_as_one(found, expected, tolerance):
    """The first worker's rows and state are those of one worker; the others' state is the first's, bit by bit."""
    first, *others = found
    far = {name: away for name, away in differences(first, expected).items() if away > tolerance}
    assert far == {}
    for other in others:
        assert other.keys() == {name for name in expected if "of epoch" not in name}
        assert [name for name, values in other.items() if not torch.equal(values, first[name])] == []


@pytest.mark.parametrize("size", [2, 3, 4])
def test_three_epochs_in_float64_are_those_of_one_worker(of_one, tmp_path, size):
    """Every metric, both networks with their statistics, the queue and the momenta."""
    found = in_workers(size, _all_trained, tmp_path)
    for groups, expected in of_one.items():
        losses = [float(expected[f"train/loss of epoch {epoch}"]) for epoch in (1, 2, 3)]
        assert losses[2] < losses[0]  # something was learnt, so that there is something to compare
        assert_as_one([each[groups] for each in found], expected, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "groups"), [(2, 1), (2, 2), (3, 4), (4, 2)])
def test_the_whole_network_in_float64_too(tmp_path, size, groups):
    expected = trained(torch.float64, CONFIGS[groups], tmp_path / "one")
    found = in_workers(size, trained, torch.float64, CONFIGS[groups], tmp_path / "many")
    assert_as_one(found, expected, 1e-6)


def _one_step(dtype, root):
    """What one step from the start makes of the weights: momenta are gradients then."""
    cut_short()
    torch.set_num_threads(1)
    context = context_of_worker(root)
    training = training_in(dtype, CONFIG, context)
    training.begin()
    loss = training.step(torch.arange(8), 0, 0).shares_by_name["loss"]
    found = {name: values for name, values in state_of(training).items() if "momentum" in name or "queue" in name}
    return found | {"loss": training.world.sum(loss)}


def test_one_step_in_float32_is_as_near_to_the_exact_one_on_several_workers_as_on_one(tmp_path):
    """Sums in another order are no worse: the error against float64, over all gradients, is of the same size."""
    (exact,) = in_workers(1, _one_step, torch.float64, tmp_path / "exact")

    def error(found):
        away = {
            name: float((values.double() - exact[name]).norm() / exact[name].norm()) for name, values in found.items()
        }
        return torch.tensor(list(away.values())).square().mean().sqrt()

    (one,) = in_workers(1, _one_step, torch.float32, tmp_path / "one")
    assert 0 < error(one) < 1e-3
    for size in (2, 3):
        for found in in_workers(size, _one_step, torch.float32, tmp_path / str(size)):
            # Seen: 0.4 to 1.0 times as far, 6e-6 on one worker. A wrong term is 1000 times as far and more.
            assert error(found) < 4 * error(one)


def _begun(root):
    """Only the first worker may look for weights to start from, and has its own bits of them."""
    cut_short()
    workers = runtime.world()
    training = MoCoTraining(CONFIG, open_images(DATA, context_of_worker(root)))
    if not workers.is_first:
        moco._start = None
        with torch.no_grad():
            training.query.head[0].weight.add_(1e-7)
    training.begin()
    return training.provenance, state_of(training)


def test_all_begin_with_what_the_first_has(tmp_path):
    (provenance, first), (same, other) = in_workers(2, _begun, tmp_path)
    assert provenance == same
    assert provenance["num_workers"] == 2
    assert all(torch.equal(values, other[name]) for name, values in first.items())


def _validated(root, num_val):
    cut_short()
    data = dataclasses.replace(DATA, num_val=num_val)
    config = dataclasses.replace(CONFIG, data=data)
    training = training_in(torch.float64, config, context_of_worker(root))
    seen = []
    training.query.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    return training.validate(), seen


@pytest.mark.parametrize(("num_val", "shares"), [(7, [[3, 3], [2, 2], [2, 2]]), (2, [[2, 2]] * 3), (0, [[]] * 3)])
def test_workers_share_the_validation_images_where_there_are_enough(tmp_path, num_val, shares):
    ((expected, _),) = in_workers(1, _validated, tmp_path / "one", num_val)
    found = in_workers(3, _validated, tmp_path, num_val)
    assert [metrics for metrics, _ in found] == [expected] * 3
    assert [seen for _, seen in found] == shares


def _with_too_many(root):
    config = dataclasses.replace(CONFIG, batch_size=2, queue_size=4, batch_norm_groups=1)
    MoCoTraining(config, open_images(DATA, context_of_worker(root)))


def test_more_workers_than_images_in_a_batch_are_refused(tmp_path):
    with pytest.raises(WorkerFailed, match="batch_size = 2 is less than one image for each of 3 workers") as failed:
        in_workers(3, _with_too_many, tmp_path)
    assert [type(error) for error in failed.value.errors.values()] == [ValueError] * 3


def test_the_number_of_workers_is_in_no_key():
    assert CONFIG.spreads == "processes"
    assert CONFIG.most_workers == 8
    assert "workers" not in str(describe(CONFIG))
    assert len(key_of(CONFIG, FileDigests())) > 8


def test_alone_nothing_is_sent_and_the_number_of_workers_is_noted(tmp_path, monkeypatch):
    for name in ("all_gather", "all_reduce", "broadcast", "broadcast_object_list"):
        monkeypatch.setattr(torch.distributed, name, None)
    context = FakeContext(Path(tmp_path))
    config = dataclasses.replace(CONFIG, num_epochs=1)
    config.run(context)
    assert '"num_workers": 1' in (context.output_dir / "artifacts/provenance.json").read_text()
