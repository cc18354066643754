"""BYOL: its step from the definitions, its schedules, and that it goes on as if it had not stopped."""

import dataclasses
import math

import pytest
import torch
from fake_context import FakeContext
from tiny_shapes import TinyShapes
from torch import nn

from trainables import runtime
from trainables.augment.geometric import Rotation
from trainables.data.cache import open_images
from trainables.schedules import Constant, Hold
from trainables.ssl.byol import BYOL
from trainables.ssl.losses import regression_loss

TINY = BYOL(
    TinyShapes(num_train=10, num_val=4),
    augmentation=Rotation(20.0),
    num_epochs=3,
    batch_size=4,
    embedding_dim=16,
    schedule=Constant(),
)


def started(config, root):
    runtime.use_cores(1)
    context = FakeContext(root)
    training = config.begun(open_images(config.data, context), context)
    training.begin()
    return training


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    context = FakeContext(tmp_path_factory.mktemp("byol"))
    return context, TINY.run(context)


def test_the_loss_is_lightlys_up_to_its_factor():
    """Mean over images, summed over directions; lightly halves the sum of its negative cosines (plus 2)."""
    loss = pytest.importorskip("lightly.loss").NegativeCosineSimilarity()
    p1, p2, z1, z2 = torch.randn(4, 6, 8)
    ours = (regression_loss(p1, z2) + regression_loss(p2, z1)).mean()
    theirs = 0.5 * (loss(p1, z2) + loss(p2, z1))
    torch.testing.assert_close(ours, 4 + 4 * theirs)


def test_a_step_is_the_papers(tmp_path):
    """Loss, gradient and the target's move of one step, from the definitions."""
    training = started(dataclasses.replace(TINY, weight_decay=0.1), tmp_path)
    positions = torch.tensor([3, 1, 4, 8])
    images = training.train_images.images(positions)
    first, second = (training.augmented(images, positions, view, 0) for view in ("first", "second"))
    networks = training.networks
    weight = networks.predictor.last.weight.detach().clone()
    target_weight = networks.target.trunk.conv1.weight.clone()

    def predicted(view):
        return networks.predictor(networks.online(view))[0]

    with torch.no_grad():
        z1, z2 = networks.target(first), networks.target(second)
    p1, p2 = predicted(first), predicted(second)
    unit = nn.functional.normalize
    expected = ((unit(p1) - unit(z2)) ** 2).sum(dim=1).mean() + ((unit(p2) - unit(z1)) ** 2).sum(dim=1).mean()
    (gradient,) = torch.autograd.grad(expected, networks.predictor.last.weight)
    made = training.step(positions, epoch=0, step=0)
    torch.testing.assert_close(made.shares_by_name["loss"], expected.detach(), atol=1e-5, rtol=1e-4)
    updated = networks.predictor.last.weight.detach()
    torch.testing.assert_close(updated, weight - 0.1 * (gradient + 0.1 * weight), atol=1e-5, rtol=1e-3)
    online_weight = networks.online.trunk.conv1.weight.detach()
    torch.testing.assert_close(networks.target.trunk.conv1.weight, 0.99 * target_weight + 0.01 * online_weight)


def test_the_target_keeps_statistics_of_its_own_and_takes_no_gradient(tmp_path):
    training = started(TINY, tmp_path)
    for step in range(2):
        training.step(torch.arange(4) + 4 * step, 0, step)
    networks = training.networks
    assert networks.target.training
    assert not any(parameter.requires_grad for parameter in networks.target.parameters())
    online, target = networks.online.trunk.bn1, networks.target.trunk.bn1
    assert int(online.num_batches_tracked) == int(target.num_batches_tracked) == 4  # two views a step
    assert not torch.equal(online.running_mean, target.running_mean)


def test_the_targets_momentum_rises_on_a_cosine_to_the_horizon():
    config = dataclasses.replace(TINY, num_epochs=100, schedule_epochs=300)
    assert config.target_momentum_at(0) == pytest.approx(0.99)
    assert config.target_momentum_at(300) == 1.0
    assert config.target_momentum_at(100) == pytest.approx(1 - 0.01 * (math.cos(math.pi / 3) + 1) / 2)
    assert dataclasses.replace(TINY, num_epochs=5, schedule_epochs=None).schedule_epochs == 5


def test_the_rate_is_held_and_then_on_a_cosine():
    config = dataclasses.replace(TINY, num_epochs=300, schedule_epochs=None, schedule=Hold(10))
    assert [config.learning_rate_at(epoch) for epoch in (0, 9, 10)] == [0.1, 0.1, 0.1]
    assert config.learning_rate_at(155) == pytest.approx(0.05)
    assert config.learning_rate_at(299) == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="hold_epochs = 10 takes all of schedule_epochs = 10"):
        dataclasses.replace(TINY, num_epochs=10, schedule_epochs=None, schedule=Hold(10))


def test_what_it_logs_and_publishes(undisturbed):
    context, metrics = undisturbed
    assert [step for step, _ in context.rows] == [1, 2, 3]
    assert set(metrics) == {
        "train/loss", "train/embedding_std", "train/effective_rank", "learning_rate", "val/retrieval_accuracy",
    }  # fmt: skip
    assert 0 < metrics["train/loss"] <= 8
    later = FakeContext(context.output_dir.parent / "later", upstream=[(TINY, context.output_dir)])
    encoder, networks = TINY.load(later), TINY.load_networks(later)
    assert encoder.config.head == "byol"
    assert torch.equal(networks.online.trunk.conv1.weight, encoder.trunk.conv1.weight)
    assert not networks.training
    assert not torch.equal(networks.target.trunk.conv1.weight, encoder.trunk.conv1.weight)


def test_steps_towards_a_target_that_hardly_moves_lower_the_loss(tmp_path):
    """Over epochs the loss says little, as the target moves away from where it began."""
    training = started(dataclasses.replace(TINY, target_momentum=0.9999, learning_rate=0.03), tmp_path)
    losses = [float(training.step(torch.arange(8)[:4], 0, 0).shares_by_name["loss"]) for _ in range(12)]
    assert losses[-1] < 0.5 * losses[0]


def test_wrong_fields_are_named():
    with pytest.raises(ValueError, match="head = 'v2': BYOL trains with its projector"):
        dataclasses.replace(TINY, head="v2")
    with pytest.raises(ValueError, match=r"target_momentum = 1\.0: a momentum lies in \[0, 1\)"):
        dataclasses.replace(TINY, target_momentum=1.0)
