"""One step of BYOL against the same step written as lightly's example writes it, with its own classes and without."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from fake_context import FakeContext
from test_byol import TINY
from tiny_shapes import TinyShapes
from torch import nn

from trainables import runtime
from trainables.data.cache import open_images
from trainables.ssl.byol import BYOL

_FILE = Path(__file__).parents[2] / "benchmarks" / "parts" / "byol_peer.py"
_SPEC = importlib.util.spec_from_file_location("peer_of_byol", _FILE)
byol_peer = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = byol_peer
_SPEC.loader.exec_module(byol_peer)

VIEWS = ("first", "second")
POSITIONS = torch.tensor([3, 1, 4, 8, 9, 2])


@pytest.fixture(params=["plain modules", "lightly"])
def uses_lightly(request):
    if request.param == "lightly":
        pytest.importorskip("lightly")
    return request.param == "lightly"


@pytest.fixture
def both(tmp_path, uses_lightly):
    """A training of ours in float64, a peer with the same weights, and the views that both see."""
    runtime.use_cores(1)
    data = TinyShapes(num_train=10, num_val=4, channels=3)
    config = BYOL(data, batch_size=6, num_epochs=2, embedding_dim=16, learning_rate=0.05, schedule=TINY.schedule)
    training = config.begun(open_images(data, FakeContext(tmp_path)), FakeContext(tmp_path))
    networks = training.networks.double()
    images = training.train_images.images(POSITIONS)
    views = {view: training.augmented(images, POSITIONS, view, 0).double() for view in VIEWS}
    training.augmented = lambda images, positions, view, epoch: views[view]
    standardised = [networks.online._standardised(views[view]) for view in VIEWS]
    peer = byol_peer.PeerBYOL(networks, uses_lightly=uses_lightly, learning_rate=0.05, momentum=0.99)
    return training, peer, standardised


def norms_of(head):
    return [layer for layer in head.modules() if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))]


def pairs(training, peer):
    """Of parameters that both have, ours and theirs: biases before batch normalisation and at an end are not shared."""
    networks = training.networks
    found = list(zip(networks.online.trunk.parameters(), peer.backbone.parameters(), strict=True))
    for heads in ((networks.online.head, peer.projector), (networks.predictor, peer.predictor)):
        linear = [[layer.weight for layer in byol_peer.linear_layers(head)] for head in heads]
        norms = [[values for layer in norms_of(head) for values in layer.parameters()] for head in heads]
        found += [*zip(*linear, strict=True), *zip(*norms, strict=True)]
    return found


def test_gradients_of_a_step_are_the_peers(both):
    """Ours sums 2 - 2 cos over both directions, the example halves the sum of negative cosines: a quarter."""
    training, peer, views = both
    ours = training.step(POSITIONS, 0, 0).shares_by_name["loss"]
    theirs = peer.forward(*views)
    theirs.backward()
    torch.testing.assert_close(ours, 4 + 4 * theirs.detach(), rtol=1e-10, atol=0)
    for own, other in pairs(training, peer):
        assert own.grad.abs().max() > 0
        torch.testing.assert_close(own.grad, 4 * other.grad, rtol=1e-7, atol=1e-10)
    hidden = training.networks.predictor.hidden[0]
    assert hidden.bias.grad.abs().max() < 1e-10, "a bias before batch normalisation has no effect"


def test_the_target_and_its_statistics_move_as_the_peers(both):
    training, peer, views = both
    before = training.networks.target.trunk.conv1.weight.clone()
    training.step(POSITIONS, 0, 0)
    peer.forward(*views)
    with torch.no_grad():  # our weights after the step, which the example's target is moved to at its next
        for own, other in pairs(training, peer):
            other.copy_(own)
    peer.forward(*views)
    target = training.networks.target
    backbone, _ = peer.target
    assert not torch.equal(target.trunk.conv1.weight, before)
    for own, other in zip(target.trunk.parameters(), backbone.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-14)
    training.step(POSITIONS, 0, 0)
    torch.testing.assert_close(target.trunk.bn1.running_var, backbone[1].running_var)
