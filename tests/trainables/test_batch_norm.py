"""Groups of batch normalisation over workers: what one worker with the whole batch computes, which is held against
torch's own layer in test_encoder.py."""

import copy
import pickle

import pytest
import torch
from torch import nn
from workers import WorkerFailed, in_workers

from trainables import runtime, world
from trainables.models.batch_norm import (
    SplitBatchNorm2d,
    batch_norm_layer,
    own_batch,
    share_running_statistics,
    spread_batch,
)
from trainables.models.encoder import build_encoder, calibrate_batch_norm

CHANNELS = 3
# (images, groups): whole groups on a worker, groups over two and more workers, one image a group, one group.
CASES = [(12, 1), (12, 2), (12, 3), (12, 4), (12, 6), (12, 12), (8, 4), (7, 1), (7, 7), (10, 5), (4, 1), (4, 2)]


def batches(num_images, dtype=torch.float64, offset=0.0):
    """Two batches of images of very different means and spreads, and a gradient of what comes out."""
    generator = runtime.generator("batches", num_images)
    shape = (2, num_images, CHANNELS, 3, 2)
    scale = torch.arange(1, num_images + 1, dtype=torch.float64).view(-1, 1, 1, 1)
    images = torch.randn(shape, generator=generator, dtype=torch.float64) * scale + scale.flip(0) + offset
    return images.to(dtype), torch.randn(shape[1:], generator=generator, dtype=torch.float64).to(dtype)


def layer_of(num_groups, momentum=0.1, dtype=torch.float64):
    layer = SplitBatchNorm2d(CHANNELS, num_groups).to(dtype)
    layer.momentum = momentum
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.5, -0.7, 0.3]))
        layer.bias.copy_(torch.tensor([0.2, 0.0, -4.0]))
        layer.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
        layer.running_var.copy_(torch.tensor([0.5, 1.0, 7.0]))
    return layer


def trained(layer, num_images, dtype=torch.float64, offset=0.0):
    """Two steps; outputs and gradients of the last one, gathered, and the state that is left."""
    workers = runtime.world()
    part = workers.part(num_images)
    images_2, gradient = batches(num_images, dtype, offset)
    for images in images_2:
        leaf = images[part].clone().requires_grad_(True)
        layer.zero_grad()
        with spread_batch(num_images):
            output = layer(leaf)
        output.backward(gradient[part])
    share_running_statistics(layer)
    workers.sum_gradients(layer.parameters())
    return {
        "output": workers.gather(output, num_images),
        "of images": workers.gather(leaf.grad, num_images),
        "of weight": layer.weight.grad,
        "of bias": layer.bias.grad,
        **layer.state_dict(),
    }


def _all_cases():
    found = {(num, groups): trained(layer_of(groups), num) for num, groups in CASES}
    found["cumulative"] = trained(layer_of(4, momentum=None), 12)
    return found


def assert_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(
            found[name], values, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("size", [2, 3, 4])
def test_any_number_of_workers_computes_what_one_does(size):
    """Outputs, gradients of images, weight and bias, running statistics and their count, the same on all workers."""
    expected = _all_cases()
    for found in in_workers(size, _all_cases):
        for case in expected:
            assert_close(found[case], expected[case], 1e-11)


def test_one_group_of_one_worker_is_torchs_layer_bit_by_bit():
    peer, ours = nn.BatchNorm2d(CHANNELS), batch_norm_layer(1)(CHANNELS)
    images_2, _ = batches(6, torch.float32)
    for images in images_2:
        assert torch.equal(ours(images), peer(images))
    assert ours.state_dict().keys() == peer.state_dict().keys()
    assert all(torch.equal(values, peer.state_dict()[name]) for name, values in ours.state_dict().items())
    peer.load_state_dict(ours.state_dict())
    for again in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(again.eval()(images), peer.eval()(images))


def _far_from_zero():
    return trained(layer_of(2, dtype=torch.float32), 10, torch.float32, offset=3000.0)


def test_means_that_are_large_against_the_spread_do_not_cancel():
    """float32 has 7 digits: a sum of squares of values near 3000 would leave a variance near 1 none."""
    exact = trained(layer_of(2), 10, offset=3000.0)
    for found in in_workers(3, _far_from_zero):
        for name in ("output", "running_var"):
            # Values of 3000 themselves are rounded to 2e-4 in float32.
            torch.testing.assert_close(found[name].double(), exact[name].double(), rtol=2e-3, atol=2e-3)


def _in_bfloat16():
    layer = layer_of(2, dtype=torch.float32)
    images, gradient = batches(9 + 1)[0][0].to(torch.bfloat16), batches(10)[1].to(torch.bfloat16)
    part = runtime.world().part(10)
    leaf = images[part].clone().requires_grad_(True)
    with spread_batch(10):
        output = layer(leaf)
    output.backward(gradient[part])
    return runtime.world().gather(output, 10), runtime.world().gather(leaf.grad, 10), layer.running_var


def test_images_of_lower_precision_are_normalised_in_that_of_the_layer():
    expected = _in_bfloat16()
    for found in in_workers(3, _in_bfloat16):
        assert [values.dtype for values in found[:2]] == [torch.bfloat16, torch.bfloat16]
        for values, wanted in zip(found[:2], expected[:2], strict=True):
            # Two roundings to 8 bits of mantissa.
            torch.testing.assert_close(values.float(), wanted.float(), rtol=2**-7, atol=2**-7)


def _transfers(num_groups):
    """How many there are forward, backward, and for the statistics of three layers."""
    counted = []
    for name in ("all_gather", "all_reduce", "broadcast"):
        one = getattr(world.distributed, name)
        setattr(world.distributed, name, lambda *given, one=one, name=name: (counted.append(name), one(*given)))
    network = nn.Sequential(*(layer_of(num_groups) for _ in range(3)))
    part = runtime.world().part(12)
    images = batches(12)[0][0][part].clone().requires_grad_(True)
    seen = []
    with spread_batch(12):
        output = network(images)
    seen.append(list(counted))
    output.sum().backward()
    seen.append(counted[len(seen[0]) :])
    before = len(counted)
    share_running_statistics(network)
    share_running_statistics(network)
    return [*seen, counted[before:]]


def test_groups_on_one_worker_need_no_word_and_others_one_each_way():
    apart, spanning = [[], [], ["all_reduce"]], [["all_gather"] * 3, ["all_reduce"] * 3, []]
    assert in_workers(2, _transfers, 4) == [apart] * 2
    assert in_workers(2, _transfers, 1) == [spanning] * 2
    assert in_workers(2, _transfers, 3) == [spanning] * 2


def _unsaid():
    layer_of(1)(torch.rand(4, CHANNELS, 2, 2, dtype=torch.float64))


def _not_its_part():
    with spread_batch(8):
        layer_of(1)(torch.rand(3, CHANNELS, 2, 2, dtype=torch.float64))


def _no_spread():
    with spread_batch(2):
        layer_of(1)(torch.rand(1, CHANNELS, 1, 1, dtype=torch.float64))
    with spread_batch(2):
        layer_of(2)(torch.rand(1, CHANNELS, 1, 1, dtype=torch.float64))


def _undivided():
    with spread_batch(5):
        layer_of(2)(torch.rand(3 - runtime.world().rank, CHANNELS, 2, 2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("function", "error", "named"),
    [
        (_unsaid, RuntimeError, "one of 2 workers: say with `spread_batch"),
        (_not_its_part, ValueError, "given 3 images of a batch of 8: expected its part of it, 4"),
        (_no_spread, ValueError, "[Ee]xpected more than 1 value|at least 2"),
        (_undivided, ValueError, "batch of 5 does not divide into 2 groups"),
    ],
)
def test_what_cannot_be_normalised_is_named_on_every_worker(function, error, named):
    with pytest.raises(WorkerFailed, match=named) as failed:
        in_workers(2, function)
    assert [type(each) for each in failed.value.errors.values()] == [error, error]


def _own_batches():
    """Each worker has another batch; what it does in evaluation needs no word at all."""
    rank = runtime.world().rank
    images = batches(4 + 2 * rank)[0][0]
    with own_batch():
        output = (layer := layer_of(2))(images)
    share_running_statistics(layer)
    encoder = build_encoder("resnet18", "v1", 1, 16, seed=3)
    calibrate_batch_norm(encoder, [torch.rand(4, 1, 33, 33, generator=runtime.generator("calibrate", 0))])
    return output, layer.eval()(images[:1]), encoder.trunk.layer3[1].bn1.running_var


def test_a_batch_of_ones_own_is_normalised_alone_also_for_a_calibration():
    found = in_workers(2, _own_batches)
    calibrated = _own_batches()[2]
    for rank, (output, evaluated, statistics) in enumerate(found):
        images, layer = batches(4 + 2 * rank)[0][0], layer_of(2)
        assert torch.equal(output, layer(images))
        assert torch.equal(evaluated, layer.eval()(images[:1]))
        torch.testing.assert_close(statistics, calibrated, rtol=1e-5, atol=1e-6)
