"""Encoders, their parts, and weights that come from a file."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torchvision
from fake_context import FakeContext
from tiny_shapes import TinyShapes
from torch import nn

from trainables import runtime
from trainables.api.names import RANDOMISED_LAYERS
from trainables.models.batch_norm import SplitBatchNorm2d
from trainables.models.encoder import (
    build_encoder,
    calibrate_batch_norm,
    frozen,
    load_encoder,
    save_encoder,
)
from trainables.models.momentum import momentum_copy, update_momentum_encoder
from trainables.models.queue import KeyQueue
from trainables.models.sources import Randomised, Untrained


def images(batch=4, channels=1, size=32):
    return torch.rand(batch, channels, size, size, generator=runtime.generator("encoder images", batch))


def test_encoder_is_the_torchvision_network_on_standardised_images():
    encoder = frozen(build_encoder("resnet18", "v2", 3, 16, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]))
    peer = torchvision.models.resnet18(num_classes=16)
    peer.fc = copy.deepcopy(encoder.head)
    peer.load_state_dict(encoder.released_state())
    batch = images(channels=3)
    standardised = torchvision.transforms.functional.normalize(batch, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    torch.testing.assert_close(encoder(batch), peer.eval()(standardised))
    torch.testing.assert_close(encoder.head(encoder.features(batch)), encoder(batch))
    torch.testing.assert_close(encoder.feature_maps(batch).mean(dim=(2, 3)), encoder.features(batch))


@pytest.mark.parametrize(
    ("backbone", "channels"), [("resnet18", [64, 64, 128, 256, 512]), ("resnet50", [64, 256, 512, 1024, 2048])]
)
def test_stages_are_those_of_the_torchvision_network(backbone, channels):
    """Stem before its pooling, then each layer; 45 px: sides are rounded up."""
    encoder = frozen(build_encoder(backbone, "v1", 1, 16, [0.3], [0.6]))
    batch = images(2, size=45)
    stages = encoder.stages(batch)
    trunk, maps = encoder.trunk, (batch - 0.3) / 0.6
    maps = (
        trunk.conv1(maps)
        .sub(trunk.bn1.running_mean.view(1, -1, 1, 1))
        .div((trunk.bn1.running_var + 1e-5).sqrt().view(1, -1, 1, 1))
    )
    expected = [maps.clamp(min=0)]
    maps = nn.functional.max_pool2d(expected[0], 3, 2, 1)
    for layer in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
        for block in layer:
            maps = block(maps)
        expected.append(maps)
    for found, wanted in zip(stages, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert [maps.shape[1] for maps in stages] == channels
    assert [maps.shape[2] for maps in stages] == [23, 12, 6, 3, 2]
    assert torch.equal(stages[-1], encoder.feature_maps(batch))


def test_heads_are_those_of_moco():
    v1, v2 = build_encoder("resnet18", "v1", 1, 16).head, build_encoder("resnet18", "v2", 1, 16).head
    assert isinstance(v1, nn.Linear)
    assert (v1.in_features, v1.out_features) == (512, 16)
    assert [type(layer) for layer in v2] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [(v2[i].in_features, v2[i].out_features) for i in (0, 2)] == [(512, 512), (512, 16)]


def test_initial_weights_follow_the_seed_and_leave_the_global_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (build_encoder("resnet18", "v1", 1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one.trunk.layer3[0].conv1.weight, same.trunk.layer3[0].conv1.weight)
    assert torch.equal(one.trunk.conv1.weight, same.trunk.conv1.weight)
    assert not torch.equal(one.trunk.conv1.weight, other.trunk.conv1.weight)


def test_an_encoder_comes_back_from_its_file(tmp_path):
    encoder = build_encoder("resnet18", "v2", 1, 16, [0.2], [0.4], seed=3, batch_norm_groups=2)
    encoder(images())  # moves the running statistics
    save_encoder(encoder, tmp_path / "encoder.pt")
    loaded = load_encoder(tmp_path / "encoder.pt")
    assert torch.equal(loaded(images()), encoder.eval()(images()))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("resnet19", "v1", 1), "resnet19"),
        (("resnet18", "v3", 1), "v3"),
        (("resnet18", "v1", 2), "in_channels = 2"),
        (("resnet18", "v1", 1, 0), "embedding_dim = 0"),
        (("resnet18", None, 1, 128), "embedding_dim = 128: without a head it is 512"),
        (("resnet18", "v1", 1, 8, [0.0], [0.0]), "positive"),
        (("resnet18", "v1", 3, 8, [0.0], [1.0]), "3 channels"),
    ],
)
def test_errors_of_build_encoder_name_the_value(arguments, named):
    with pytest.raises(ValueError, match=named):
        build_encoder(*arguments)


def test_split_batch_norm_is_batch_norm_of_each_part():
    split, parts = SplitBatchNorm2d(3, num_groups=2), [nn.BatchNorm2d(3) for _ in range(2)]
    for layer in (split, *parts):
        nn.init.constant_(layer.weight, 1.7)
        nn.init.constant_(layer.bias, -0.3)
    batch = torch.randn(6, 3, 5, 5, generator=runtime.generator("split")) * torch.arange(1, 7).view(6, 1, 1, 1)
    expected = torch.cat([layer(part) for layer, part in zip(parts, batch.chunk(2), strict=True)])
    torch.testing.assert_close(split(batch), expected)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(split, name), sum(getattr(layer, name) for layer in parts) / 2)
    plain = nn.BatchNorm2d(3)
    plain.load_state_dict(split.state_dict())
    assert torch.equal(split.eval()(batch), plain.eval()(batch))


def test_split_batch_norm_refuses_unequal_parts():
    with pytest.raises(ValueError, match="batch of 5 does not divide into 2"):
        SplitBatchNorm2d(3, num_groups=2)(torch.rand(5, 3, 2, 2))


def test_momentum_update_is_the_average_of_parameters_only():
    fast, slow = build_encoder("resnet18", "v1", 1, seed=1), momentum_copy(build_encoder("resnet18", "v1", 1, seed=2))
    fast(images())  # the fast network's statistics must not reach the slow one
    before = copy.deepcopy(slow)
    update_momentum_encoder(slow, fast, 0.9)
    for new, old, source in zip(slow.parameters(), before.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * source, atol=1e-7, rtol=1e-6)
        assert not new.requires_grad
    for new, old in zip(slow.buffers(), before.buffers(), strict=True):
        assert torch.equal(new, old)


def test_the_fused_momentum_update_is_bitwise_that_of_each_tensor():
    fast, slow = build_encoder("resnet18", "v2", 1, seed=1), momentum_copy(build_encoder("resnet18", "v2", 1, seed=2))
    expected = [
        one.detach().lerp(other.detach(), 1 - 0.99)
        for one, other in zip(slow.parameters(), fast.parameters(), strict=True)
    ]
    update_momentum_encoder(slow, fast, 0.99)
    assert all(torch.equal(new, one) for new, one in zip(slow.parameters(), expected, strict=True))


def test_queue_is_first_in_first_out():
    queue, pushed = KeyQueue(6, 2), [torch.full((2, 2), float(step)) for step in range(5)]
    for keys in pushed:
        queue.push(keys)
    assert queue.keys_KD[:, 0].tolist() == [3.0, 3.0, 4.0, 4.0, 2.0, 2.0]
    resumed = KeyQueue(6, 2)
    resumed.load_state_dict(queue.state_dict())
    resumed.push(torch.full((2, 2), 5.0))
    assert resumed.keys_KD[:, 0].tolist() == [3.0, 3.0, 4.0, 4.0, 5.0, 5.0]
    with pytest.raises(ValueError, match="4 keys do not divide a queue of 6"):
        queue.push(torch.zeros(4, 2))


def test_calibration_is_the_plain_average_over_batches():
    encoder = build_encoder("resnet18", "v1", 1)
    encoder(images(8) + 1)  # earlier statistics must not count
    batches = [images(4), images(6)]
    with torch.no_grad():
        stems = [encoder.trunk.conv1(batch) for batch in batches]
    calibrate_batch_norm(encoder, batches)
    expected = torch.stack([stem.mean(dim=(0, 2, 3)) for stem in stems]).mean(dim=0)
    torch.testing.assert_close(encoder.trunk.bn1.running_mean, expected, atol=1e-6, rtol=1e-5)
    assert encoder.trunk.bn1.momentum == 0.1


def test_random_encoder_is_calibrated_standardised_and_repeatable(tmp_path):
    data = TinyShapes(num_train=40, num_val=4)
    source = Untrained(data, "resnet18", "v2", init_seed=4)
    encoder, again = source.load(FakeContext(tmp_path / "a")), source.load(FakeContext(tmp_path / "b"))
    assert all(torch.equal(one, two) for one, two in zip(encoder.buffers(), again.buffers(), strict=True))
    train = np.stack([data.decode(record) for record in data.records() if record.split == "train"]) / 255
    assert float(encoder.mean) == pytest.approx(train.mean(), abs=1e-6)
    assert float(encoder.std) == pytest.approx(train.std(), abs=1e-6)
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    batch = torch.from_numpy(train).float()
    normalised = encoder.trunk.bn1(encoder.trunk.conv1((batch - encoder.mean) / encoder.std))
    assert float(normalised.mean(dim=(0, 2, 3)).abs().max()) < 0.05
    assert float((normalised.var(dim=(0, 2, 3)) - 1).abs().max()) < 0.2
    other = dataclasses.replace(source, init_seed=5).load(FakeContext(tmp_path / "a"))
    assert not torch.equal(other.trunk.conv1.weight, encoder.trunk.conv1.weight)


@pytest.mark.parametrize("down_to", RANDOMISED_LAYERS)
def test_cascading_randomisation_keeps_what_lies_below(down_to, tmp_path):
    data = TinyShapes(num_train=12, num_val=4)
    kept = Untrained(data, "resnet18", init_seed=1)
    found = Randomised(kept, data, down_to, init_seed=2).load(FakeContext(tmp_path))
    before, fresh = (Untrained(data, "resnet18", init_seed=seed).load(FakeContext(tmp_path)) for seed in (1, 2))
    depth = RANDOMISED_LAYERS.index(down_to)
    for place, name in enumerate(RANDOMISED_LAYERS):
        modules = {"head": "head", "stem": "trunk.conv1"}.get(name, f"trunk.{name}")
        weights = [
            [p for n, p in encoder.get_submodule(modules).named_parameters()] for encoder in (found, before, fresh)
        ]
        of = 2 if place <= depth else 1
        assert all(torch.equal(own, other) for own, other in zip(weights[0], weights[of], strict=True)), name
        assert not torch.equal(weights[1][0], weights[2][0])
    assert torch.equal(found.mean, before.mean)
    assert not found.training
    assert not [p for p in found.parameters() if p.requires_grad]


def test_running_statistics_below_what_is_randomised_stay_as_they_were(tmp_path):
    """Those of a pretraining are not the calibrated ones."""
    data = TinyShapes(num_train=12, num_val=4)

    class Trained(Untrained):
        def load(self, context):
            encoder = super().load(context)
            for name, buffer in encoder.named_buffers():
                if "running" in name:
                    buffer.add_(0.25)
            return encoder

    before = Trained(data, "resnet18", init_seed=1)
    context = FakeContext(tmp_path)
    for down_to in ("head", "layer3"):
        found = Randomised(before, data, down_to, init_seed=2).load(context)
        changed = {
            name.split(".")[1]
            for (name, own), (_, was) in zip(found.named_buffers(), before.load(context).named_buffers(), strict=True)
            if "running" in name and not torch.equal(own, was)
        }
        assert changed == (set() if down_to == "head" else {"layer3", "layer4"})


def test_randomised_down_to_the_stem_is_the_untrained_encoder(tmp_path):
    data = TinyShapes(num_train=12, num_val=4)
    found = Randomised(Untrained(data, "resnet18", init_seed=1), data, "stem", 2).load(FakeContext(tmp_path))
    expected = Untrained(data, "resnet18", init_seed=2).load(FakeContext(tmp_path))
    assert found.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, msg=name)


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="down_to = 'layer5'"):
        Randomised(Untrained(TinyShapes()), TinyShapes(), "layer5")
