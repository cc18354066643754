"""MoCo as a trial: it learns, it resumes bitwise, it says where it started."""

import copy
import dataclasses
import json
import math

import pytest
import torch
from fabricated_weights import released_checkpoint, save
from fake_context import FakeContext, Killed
from tiny_shapes import TinyShapes
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainables import runtime
from trainables.api.errors import NonFiniteMetric
from trainables.api.identity import FileDigests, describe, key_of
from trainables.augment.combine import Combine
from trainables.augment.geometric import HorizontalFlip, Rotation
from trainables.data.cache import open_images
from trainables.models.encoder import build_encoder, calibrate_batch_norm
from trainables.models.released import ReleasedWeights
from trainables.models.sources import Untrained
from trainables.schedules import Constant, Cosine
from trainables.ssl import losses
from trainables.ssl.moco import MoCo, MoCoTraining
from trainables.ssl.pretraining import Step

TINY = MoCo(
    TinyShapes(num_train=10, num_val=4),
    backbone="resnet18",
    num_epochs=3,
    batch_size=4,
    queue_size=8,
    embedding_dim=16,
    schedule=Cosine(),
)


CONSTANT = dataclasses.replace(TINY, schedule=Constant())


def encoder_of(context):
    return torch.load(context.output_dir / "encoder.pt", weights_only=True)["state_dict"]


def assert_same_encoder(one, two):
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    context = FakeContext(tmp_path_factory.mktemp("undisturbed"))
    return context, TINY.run(context)


@pytest.mark.parametrize("killed_after", [1, 3])
def test_killed_and_resumed_is_bitwise_the_undisturbed_training(undisturbed, tmp_path, killed_after):
    """After the third checkpoint nothing is left to train: publishing alone is repeated."""
    expected_context, expected_metrics = undisturbed
    first = FakeContext(tmp_path, kill_after_checkpoints=killed_after)
    with pytest.raises(Killed):
        TINY.run(first)
    torch.rand(17)  # the resumed process has another global random state
    second = first.again()
    assert TINY.run(second) == expected_metrics
    assert_same_encoder(encoder_of(second), encoder_of(expected_context))
    assert first.rows + second.rows == expected_context.rows
    provenance = [
        json.loads((c.output_dir / "artifacts/provenance.json").read_text()) for c in (second, expected_context)
    ]
    assert provenance[0] == provenance[1]


def test_the_schedule_metrics_and_steps_that_are_logged(undisturbed):
    context, metrics = undisturbed
    assert [step for step, _ in context.rows] == [1, 2, 3]
    assert metrics == context.rows[-1][1]
    assert context.metric("learning_rate") == pytest.approx([0.03, 0.03 * 0.75, 0.03 * 0.25])
    assert set(metrics) == {
        "train/loss",
        "train/contrast_accuracy",
        "train/embedding_std",
        "train/effective_rank",
        "learning_rate",
        "val/retrieval_accuracy",
    }
    assert 0 < metrics["train/embedding_std"] < 1.5 / math.sqrt(16)
    assert 1 < metrics["train/effective_rank"] <= 16
    assert context.progress[-1] == (3, 3, "epochs")


def test_load_gives_the_trained_query_encoder_frozen(undisturbed, tmp_path):
    context, _ = undisturbed
    encoder = TINY.load(FakeContext(tmp_path, upstream=[(TINY, context.output_dir)]))
    assert_same_encoder(encoder.state_dict(), encoder_of(context))
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    untrained = Untrained(TINY.data, "resnet18", embedding_dim=16).load(context)
    assert torch.equal(encoder.mean, untrained.mean)
    assert not torch.equal(encoder.trunk.layer4[1].conv2.weight, untrained.trunk.layer4[1].conv2.weight)


def test_a_random_start_is_said_plainly(undisturbed):
    context, _ = undisturbed
    provenance = json.loads((context.output_dir / "artifacts/provenance.json").read_text())
    assert provenance["init"] == "random"
    assert "random start" in provenance["summary"]
    assert provenance["num_train_images"] == 10


def test_it_learns(tmp_path):
    config = dataclasses.replace(
        TINY,
        data=TinyShapes(num_train=32, num_val=8),
        augmentation=Rotation(20.0),
        num_epochs=4,
        batch_size=8,
        queue_size=16,
        embedding_dim=128,
        key_momentum=0.9,
        learning_rate=0.01,
        schedule=Constant(),
    )
    context = FakeContext(tmp_path, keep_checkpoints=False)
    config.run(context)
    loss, accuracy = context.metric("train/loss"), context.metric("train/contrast_accuracy")
    assert loss[-1] < loss[0] - 0.5
    assert loss[-1] < math.log(17) - 0.7
    assert accuracy[-1] > max(accuracy[0], 6 / 17)


def started(config, root):
    runtime.use_cores(1)
    training = MoCoTraining(config, open_images(config.data, FakeContext(root)))
    training.begin()
    return training


def test_a_step_is_the_papers(tmp_path):
    """Loss, gradient, momentum update and queue of one step, from the definitions."""
    training = started(dataclasses.replace(TINY, batch_norm_groups=1, weight_decay=0.1), tmp_path)
    positions = torch.tensor([3, 1, 4, 8])
    images = training.train_images.images(positions)
    views = [training.augmented(images, positions, view, 0) for view in ("query", "key")]
    negatives, weight = training.queue.keys_KD.clone(), training.query.head[2].weight.detach().clone()
    with torch.no_grad():  # the shuffle permutes one group of batch normalisation, which changes nothing
        keys = nn.functional.normalize(training.key(views[1]), dim=1)
    with torch.enable_grad():
        queries = nn.functional.normalize(training.query(views[0]), dim=1)
        expected = losses.info_nce(losses.contrast_logits(queries, keys, negatives, 0.2))
        (gradient,) = torch.autograd.grad(expected, training.query.head[2].weight)
    key_weight = training.key.head[2].weight.clone()
    loss = training.step(positions, epoch=0, step=0).shares_by_name["loss"]
    torch.testing.assert_close(loss, expected.detach(), atol=1e-5, rtol=1e-4)
    updated = training.query.head[2].weight.detach().clone()
    torch.testing.assert_close(updated, weight - 0.03 * (gradient + 0.1 * weight), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(training.queue.keys_KD[:4], keys, atol=1e-4, rtol=1e-3)
    assert torch.equal(training.queue.keys_KD[4:], negatives[4:])
    assert torch.equal(training.key.head[2].weight, key_weight)  # both were equal before the first step
    training.step(positions, epoch=0, step=1)
    torch.testing.assert_close(training.key.head[2].weight, 0.999 * key_weight + 0.001 * updated)


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a device: reading a value of a tensor."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(operator), "the host reads a value"
        assert "nonzero" not in str(operator), "the host reads a number of elements"
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_reads_no_value_from_the_device(tmp_path, precision):
    training = started(dataclasses.replace(TINY, precision=precision), tmp_path)
    with NoWaiting():
        for step in range(2):
            training.step(torch.arange(4), epoch=0, step=step)
        with pytest.raises(AssertionError, match="the host reads a value"):
            float(torch.ones(()) + 1)


def test_keys_come_back_in_order_and_meet_other_groups(tmp_path):
    """Each key follows from its own group of the shuffled batch."""
    training = started(dataclasses.replace(TINY, batch_norm_groups=2), tmp_path)
    images = training.train_images.images(torch.arange(4))
    shuffled = torch.randperm(4, generator=runtime.generator("shuffle", 1))
    assert shuffled.tolist() not in ([0, 1, 2, 3], [1, 0, 3, 2])
    keys = training._keys(images, runtime.generator("shuffle", 1))
    key_encoder = training.key
    for group in shuffled.split(2):
        for module in key_encoder.modules():
            if hasattr(module, "num_groups"):
                module.num_groups = 1
        with torch.no_grad():
            alone = nn.functional.normalize(key_encoder(images[group]), dim=1)
        torch.testing.assert_close(keys[group], alone, atol=1e-5, rtol=1e-4)


def test_views_are_per_image_and_epoch_and_key_view_leaves_queries_plain(tmp_path):
    training = started(TINY, tmp_path)
    images = training.train_images.images(torch.arange(6))
    together = training.augmented(images, torch.arange(6), "key", 2)
    assert torch.equal(together[[4, 1]], training.augmented(images[[4, 1]], torch.tensor([4, 1]), "key", 2))
    assert not torch.equal(together, training.augmented(images, torch.arange(6), "key", 3))
    assert not torch.equal(together, training.augmented(images, torch.arange(6), "query", 2))
    seen = {}
    for augmented_views in ("both", "key"):
        plain_key = started(dataclasses.replace(TINY, augmented_views=augmented_views), tmp_path / augmented_views)
        shown = []
        plain_key.query.register_forward_pre_hook(lambda _, arguments, shown=shown: shown.append(arguments[0]))
        plain_key.step(torch.arange(4), epoch=0, step=0)
        seen[augmented_views] = shown[0]
    assert torch.equal(seen["key"], images[:4])
    assert not torch.equal(seen["both"], images[:4])


def order_of_epoch(training, epoch, root):
    taken = []

    def step(positions, epoch, step):
        taken.append(positions.tolist())
        return Step({"loss": torch.zeros(())}, torch.rand(4, 16))

    training.step = step
    training.train_epoch(epoch, FakeContext(root))
    return taken


def test_an_epoch_takes_every_image_once_but_for_the_rest(tmp_path):
    training = started(TINY, tmp_path)
    other_seed = started(dataclasses.replace(TINY, pretrain_seed=1), tmp_path)
    orders = [order_of_epoch(training, 0, tmp_path), order_of_epoch(training, 1, tmp_path)]
    orders.append(order_of_epoch(other_seed, 0, tmp_path))
    for steps in orders:
        assert len(steps) == 2  # 10 images: 2 are left over
        assert len({position for step in steps for position in step}) == 8
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def draws_of(config, root, monkeypatch):
    """What every draw of one epoch gives, by its purpose: generators by their seed, uniform numbers by value."""
    draws, generator, uniforms = {}, runtime.generator, runtime.uniforms

    def noted_generator(purpose, *parts):
        drawn = generator(purpose, *parts)
        draws.setdefault(purpose, []).append(drawn.initial_seed())
        return drawn

    def noted_uniforms(indices, num_draws, view, *parts):
        numbers = uniforms(indices, num_draws, view, *parts)
        # The same images are asked for in another order: a seed shows in the numbers of one image.
        first = uniforms(torch.zeros(1, dtype=torch.int64), num_draws, view, *parts)
        draws.setdefault(view, []).append(tuple(first.flatten().tolist()))
        return numbers

    with monkeypatch.context() as patch:
        patch.setattr(runtime, "generator", noted_generator)
        patch.setattr(runtime, "uniforms", noted_uniforms)
        config.run(FakeContext(root))
    return draws


def test_the_pretrain_seed_is_in_every_draw(tmp_path, monkeypatch):
    """Order, both views, shuffle, and all of the queue's filling: left out of one of them, seeds would share it."""
    configs = [dataclasses.replace(CONSTANT, num_epochs=2, pretrain_seed=seed) for seed in (0, 1)]
    one, two = (draws_of(config, tmp_path / str(i), monkeypatch) for i, config in enumerate(configs))
    assert set(one) == {"order", "query", "key", "shuffle", "fill order", "fill", "fill shuffle", "val"}
    for purpose in one:
        assert len(one[purpose]) == len(two[purpose])
        assert not set(one[purpose]) & set(two[purpose]), purpose
    # Every epoch draws anew, but for the validation views, which stay.
    assert len(set(one["order"])) == len(set(one["query"])) == len(set(one["key"])) == 2
    assert len(set(one["shuffle"])) == 4
    assert len(set(one["val"])) == 1
    assert set(one["query"]).isdisjoint(one["key"])


def test_start_weights_follow_the_pretrain_seed(tmp_path):
    one, two = (started(dataclasses.replace(TINY, pretrain_seed=seed), tmp_path / str(seed)) for seed in (0, 1))
    for place in ("trunk.conv1.weight", "trunk.layer4.1.conv2.weight", "head.0.weight", "head.2.weight"):
        assert not torch.equal(one.query.state_dict()[place], two.query.state_dict()[place])
    assert_same_encoder(one.query.state_dict(), build_encoder("resnet18", "v2", 1, 16, *statistics(one)).state_dict())


def statistics(training):
    return training.query.mean.flatten().tolist(), training.query.std.flatten().tolist()


@pytest.mark.parametrize("seed", [0, 3])
def test_the_untrained_control_has_not_the_start_weights_of_the_pretraining(tmp_path, seed):
    """A control that shared them would be the pretraining's twin, and no draw of its own."""
    training = started(dataclasses.replace(TINY, pretrain_seed=seed), tmp_path)
    control = Untrained(TINY.data, "resnet18", "v2", init_seed=seed, embedding_dim=16).load(FakeContext(tmp_path))
    weights = dict(training.query.named_parameters())
    shared = [
        name for name, w in control.named_parameters() if w.ndim > 1 and torch.equal(w, weights[name].contiguous())
    ]
    assert shared == []


def test_retrieval_is_counted_with_the_encoder_as_it_will_be_used(tmp_path):
    training = started(dataclasses.replace(TINY, data=TinyShapes(num_train=10, num_val=9)), tmp_path)
    calibrate_batch_norm(training.query, [training.train_images.images(torch.arange(10))])
    images = training.val_images.images(torch.arange(9))
    views = training.augmented(images, torch.arange(9), "val", 0)
    peer = copy.deepcopy(training.query).eval()
    found = 0
    for place in range(9):
        query = peer(images[place : place + 1])
        cosines = [nn.functional.cosine_similarity(query, peer(views[k : k + 1])).item() for k in range(9)]
        found += cosines.index(max(cosines)) == place
    assert 0 < found < 9
    before = copy.deepcopy(training.query.state_dict())
    assert training.validate() == {"val/retrieval_accuracy": pytest.approx(found / 9)}
    assert_same_encoder(training.query.state_dict(), before)


def test_the_queue_begins_with_keys_of_different_training_images(tmp_path):
    training = started(TINY, tmp_path)
    keys = training.queue.keys_KD
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(8))
    assert (keys @ keys.T - torch.eye(8)).max() < 1 - 1e-6


def test_continues_from_released_weights_with_head_in_both_encoders(tmp_path):
    checkpoint, network = released_checkpoint()
    config = dataclasses.replace(TINY, init=save(checkpoint, tmp_path), num_epochs=1, learning_rate=1e-9)
    training = started(config, tmp_path / "start")
    for encoder in (training.query, training.key):
        assert torch.equal(encoder.head[2].weight, network.fc[2].weight)
        assert torch.equal(encoder.trunk.conv1.weight, network.conv1.weight.sum(dim=1, keepdim=True))
    context = FakeContext(tmp_path / "run")
    config.run(context)
    torch.testing.assert_close(encoder_of(context)["head.2.weight"], network.fc[2].weight.detach())
    provenance = json.loads((context.output_dir / "artifacts/provenance.json").read_text())
    assert provenance["init"] == "released"
    assert provenance["weights"]["epoch"] == 800
    assert "fc.2.weight" in provenance["weights"]["loaded"]
    assert "module.queue" in provenance["weights"]["unused"]
    assert provenance["summary"].startswith("continued from moco.pth.tar (resnet18, epoch 800")


def test_a_resumed_training_needs_the_released_file_no_more(tmp_path):
    checkpoint, _ = released_checkpoint()
    weights = save(checkpoint, tmp_path)
    config = dataclasses.replace(TINY, init=weights, num_epochs=2)
    first = FakeContext(tmp_path / "run", kill_after_checkpoints=1)
    with pytest.raises(Killed):
        config.run(first)
    (tmp_path / "moco.pth.tar").unlink()
    second = first.again()
    config.run(second)
    assert json.loads((second.output_dir / "artifacts/provenance.json").read_text())["weights"]["epoch"] == 800


def test_divergence_is_named_with_its_epoch(tmp_path):
    with pytest.raises(NonFiniteMetric, match=r"train/.* step 1"):
        dataclasses.replace(TINY, learning_rate=1e30, schedule=Constant()).run(FakeContext(tmp_path))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch_size": 12, "queue_size": 12}, r"batch_size = 12 .* 10 images of tiny_shapes.*take at most 10"),
        ({"queue_size": 12}, r"queue_size = 12 is not below the 10 training images.*take at most 8"),
        ({"batch_size": 10, "queue_size": 10}, r"queue_size = 10.*lower batch_size = 10 first"),
        ({"data": TinyShapes(num_train=10, num_val=1)}, r"tiny_shapes has 1 validation image"),
        ({"data": TinyShapes(num_train=0, num_val=4)}, r"batch_size = 4.*training split of 0 images"),
    ],
)
def test_sizes_that_the_data_cannot_serve_are_named_before_anything_runs(tmp_path, changes, named):
    config = dataclasses.replace(TINY, **changes)
    with pytest.raises(ValueError, match=named):
        config.check()
    if config.data.num_train:
        with pytest.raises(ValueError, match=named):
            config.run(FakeContext(tmp_path))


def test_sizes_that_just_fit_pass():
    dataclasses.replace(TINY, data=TinyShapes(num_train=9, num_val=2), queue_size=8).check()
    dataclasses.replace(TINY, data=TinyShapes(num_train=9, num_val=0), queue_size=4).check()


def test_bfloat16_trains_close_to_float32(tmp_path):
    runs = [dataclasses.replace(TINY, precision=precision, num_epochs=1) for precision in ("float32", "bfloat16")]
    one, two = (run.run(FakeContext(tmp_path / run.precision)) for run in runs)
    assert one["train/loss"] != two["train/loss"]
    assert one["train/loss"] == pytest.approx(two["train/loss"], abs=0.3)


def test_three_channels_and_no_validation_split(tmp_path):
    data = TinyShapes(num_train=8, num_val=0, channels=3)
    metrics = dataclasses.replace(TINY, data=data, num_epochs=1, queue_size=4).run(FakeContext(tmp_path))
    assert "val/retrieval_accuracy" not in metrics
    assert len(metrics) == 5


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("backbone", "resnet19", "resnet19"),
        ("head", "v3", "v3"),
        ("head", None, "head = None"),
        ("augmented_views", "query", "'query'"),
        ("precision", "float16", "'float16'"),
        ("num_epochs", 0, "num_epochs = 0"),
        ("queue_size", 10, "queue_size = 10.*batch_size = 4.*take 8"),
        ("batch_norm_groups", 3, "batch_norm_groups = 3"),
        ("batch_norm_groups", 4, "at least 2 images"),
        ("learning_rate", 0.0, "learning_rate = 0.0"),
        ("weight_decay", -1.0, "-1.0"),
        ("key_momentum", 1.0, "key_momentum = 1.0"),
        ("sgd_momentum", -0.1, "sgd_momentum = -0.1"),
        ("temperature", 0.0, "temperature = 0.0"),
        ("embedding_dim", 0, "embedding_dim = 0"),
    ],
)
def test_fields_are_checked_at_once(field, value, named):
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(TINY, **{field: value})


def test_the_temperature_is_the_papers_for_each_head():
    assert TINY.temperature == TINY.contrast_temperature == 0.2
    assert dataclasses.replace(TINY, head="v1", temperature=None).temperature == 0.07
    assert dataclasses.replace(TINY, temperature=0.5).contrast_temperature == 0.5


def test_what_is_left_out_and_the_same_written_out_are_one_result():
    cosine = dataclasses.replace(TINY, schedule=Cosine())
    pairs = [
        (TINY, dataclasses.replace(TINY, temperature=0.2)),
        (cosine, dataclasses.replace(cosine, schedule_epochs=3)),
        (CONSTANT, dataclasses.replace(CONSTANT, schedule_epochs=70)),
    ]
    for one, two in pairs:
        assert one == two
        assert key_of(one, FileDigests()) == key_of(two, FileDigests())


def test_the_schedule_stays_when_the_length_is_replaced():
    long = dataclasses.replace(TINY, num_epochs=40, schedule_epochs=None)
    short = dataclasses.replace(long, num_epochs=10)
    assert (long.schedule_epochs, short.schedule_epochs) == (40, 40)
    assert [short.learning_rate_at(epoch) for epoch in range(10)] == [long.learning_rate_at(e) for e in range(10)]
    assert key_of(short, FileDigests()) != key_of(dataclasses.replace(short, schedule_epochs=10), FileDigests())
    with pytest.raises(ValueError, match=r"num_epochs = 41.*schedule_epochs = 40.*give schedule_epochs=41 too"):
        dataclasses.replace(long, num_epochs=41)
    assert dataclasses.replace(CONSTANT, num_epochs=500).schedule_epochs is None
    assert dataclasses.replace(CONSTANT, num_epochs=5, schedule=Cosine()).schedule_epochs == 5


def test_the_key_changes_with_what_changes_the_result_and_with_nothing_else(tmp_path):
    digests = FileDigests()
    for name in "ab":
        (tmp_path / name).write_bytes(b"weights")
    a, b = (dataclasses.replace(TINY, init=ReleasedWeights(str(tmp_path / name))) for name in "ab")
    assert key_of(a, digests) == key_of(b, digests)
    others = [
        TINY,
        a,
        dataclasses.replace(TINY, pretrain_seed=1),
        dataclasses.replace(TINY, batch_norm_groups=1),
        dataclasses.replace(TINY, augmentation=Combine((Rotation(), HorizontalFlip()))),
    ]
    assert len({key_of(other, digests) for other in others}) == len(others)
    assert describe(a)["init"]["path"] == str(tmp_path / "a")


def test_work_is_in_proportion():
    assert dataclasses.replace(CONSTANT, num_epochs=6).work_flop() == pytest.approx(2 * TINY.work_flop())
    larger = dataclasses.replace(TINY, data=TinyShapes(image_size_px=64, num_train=10))
    assert larger.work_flop() == pytest.approx(4 * TINY.work_flop())
    full = dataclasses.replace(TINY, data=TinyShapes(image_size_px=224, num_train=1), num_epochs=1)
    assert full.work_flop() == pytest.approx(4 * 3.6e9)
