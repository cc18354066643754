"""Every trainable that grows: n epochs and then n + m are bitwise n + m at once."""

import dataclasses
import importlib
import json
import pkgutil
from inspect import isabstract

import pytest
import torch
from fake_context import FakeContext
from tiny_shapes import TinyClasses, TinyLabels, TinyShapeMask, TinyShapes

import trainables
from trainables.api.trainable import GROWS, Trainable
from trainables.augment.combine import THESIS_AUGMENTATION
from trainables.classification.training import Classification
from trainables.models.sources import Untrained
from trainables.schedules import Constant, Cosine
from trainables.segmentation.networks import TrunkUNet, UNet
from trainables.segmentation.training import Segmentation
from trainables.ssl.byol import BYOL
from trainables.ssl.moco import MoCo
from trainables.ssl.positives import TracIn

_MOCO = MoCo(TinyShapes(num_train=10, num_val=4), backbone="resnet18", batch_size=4, queue_size=8, embedding_dim=16)
# Small configurations of every class that grows: one with a schedule that ends, where it has schedules.
_SEGMENTATION = Segmentation(
    TinyClasses(TinyShapes(num_train=7, num_val=3)), UNet((4, 8)), schedule_epochs=9, num_epochs=3, batch_size=3
)
EXAMPLES = [
    _MOCO,
    dataclasses.replace(_MOCO, schedule=Cosine(), schedule_epochs=9, num_epochs=3, pretrain_seed=2),
    BYOL(
        TinyShapes(num_train=10, num_val=4),
        num_epochs=3,
        schedule_epochs=9,
        schedule=Cosine(),
        batch_size=4,
        embedding_dim=16,
        positives=TracIn(start_epoch=1),
    ),
    dataclasses.replace(_SEGMENTATION, augmentation=THESIS_AUGMENTATION),
    Classification(
        TinyLabels(TinyShapes(num_train=7, num_val=3)),
        Untrained(TinyShapes(num_train=7, num_val=3), "resnet18"),
        augmentation=THESIS_AUGMENTATION,
        num_epochs=3,
        schedule_epochs=9,
        batch_size=4,
    ),
    dataclasses.replace(
        _SEGMENTATION,
        target=TinyShapeMask(TinyShapes(num_train=7, num_val=3)),
        network=TrunkUNet(Untrained(TinyShapes(num_train=7, num_val=3), "resnet18"), is_frozen=True),
        schedule=Constant(),
        schedule_epochs=None,
    ),
]


def subclasses_of(base):
    return {base} | {each for child in base.__subclasses__() for each in subclasses_of(child)}


def length_field(trainable):
    (name,) = (field.name for field in dataclasses.fields(trainable) if field.metadata.get(GROWS))
    return name


def test_every_class_that_grows_has_its_example_here():
    for module in pkgutil.walk_packages(trainables.__path__, "trainables."):
        importlib.import_module(module.name)
    growing = {
        cls.__qualname__
        for cls in subclasses_of(Trainable)
        if cls.__module__.startswith("trainables.")
        and not isabstract(cls)
        and dataclasses.is_dataclass(cls)
        and any(field.metadata.get(GROWS) for field in dataclasses.fields(cls))
    }
    assert growing == {type(example).__qualname__ for example in EXAMPLES}


def grown(example, lengths, root):
    """Train to each of the lengths, each from the state of the one before; returns the contexts and last metrics."""
    contexts = []
    for length in lengths:
        context = FakeContext(root / str(length))
        if contexts:
            context.start_from(contexts[-1])
        metrics = dataclasses.replace(example, **{length_field(example): length}).run(context)
        contexts.append(context)
        torch.rand(13)  # another process has another global random state
    return contexts, metrics


def published(context):
    files = sorted(path for path in context.output_dir.rglob("*") if path.is_file())
    return {str(path.relative_to(context.output_dir)): path.read_bytes() for path in files}


def tensors_of(content, where=""):
    """Every tensor and plain value of a state, by its place."""
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list | tuple):
        items = enumerate(content)
    else:
        return {where: content}
    return {k: v for name, value in items for k, v in tensors_of(value, f"{where}/{name}").items()}


def assert_same_state(one, two):
    """Files of tensors are compared by value, all others by their bytes."""
    names = [sorted(path.name for path in (context.root / "state").iterdir()) for context in (one, two)]
    assert names[0] == names[1]
    for name in names[0]:
        first, second = (context.root / "state" / name for context in (one, two))
        if name.endswith(".json"):
            assert json.loads(first.read_text()) == json.loads(second.read_text())
            continue
        first, second = (tensors_of(torch.load(path, weights_only=True)) for path in (first, second))
        assert first.keys() == second.keys()
        different = [
            place
            for place, value in first.items()
            if not (torch.equal(value, second[place]) if isinstance(value, torch.Tensor) else value == second[place])
        ]
        assert different == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{type(e).__name__}-{type(e.schedule).__name__}")
def test_grown_is_bitwise_what_runs_through(example, tmp_path):
    """Files, state, metrics and rows; grown twice, so that a state that was itself restored is handed on."""
    steps, metrics = grown(example, (1, 2, 4), tmp_path / "grown")
    (at_once,), expected_metrics = grown(example, (4,), tmp_path / "at once")
    assert metrics == expected_metrics
    assert [row for context in steps for row in context.rows] == at_once.rows
    assert published(steps[-1]) == published(at_once)
    assert_same_state(steps[-1], at_once)


def test_work_is_that_of_the_whole_length():
    """What a growth saves is the orchestrator's to say."""
    for example in EXAMPLES:
        name = length_field(example)
        one, four = (dataclasses.replace(example, **{name: length}).work_flop() for length in (1, 4))
        assert four == pytest.approx(4 * one)
