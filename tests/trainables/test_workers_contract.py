"""Every trainable whose workers are processes: any number of them gives what one does, killed and gone on with or not;
and the loop that they share, with a training of one number."""

import dataclasses
import importlib
import io
import json
import math
import pkgutil
from inspect import isabstract

import pytest
import torch
from fake_context import Killed
from spread_moco import context_of_worker, differences
from test_growth_contract import assert_same_state, length_field, published, subclasses_of, tensors_of
from test_training import Doubling
from tiny_shapes import TinyClasses, TinyFindings, TinyShapes
from workers import WorkerFailed, in_workers

import trainables
from trainables import runtime
from trainables.api.errors import NonFiniteMetric
from trainables.api.trainable import Trainable
from trainables.augment.combine import THESIS_AUGMENTATION
from trainables.classification.training import Classification
from trainables.data.batches import DeviceImages
from trainables.models.sources import Untrained
from trainables.schedules import Cosine
from trainables.segmentation.networks import UNet
from trainables.segmentation.training import Segmentation
from trainables.ssl.byol import BYOL
from trainables.ssl.moco import MoCo
from trainables.ssl.positives import TracIn
from trainables.training import train

# Small configurations of every class whose workers are processes, with a schedule that ends where it has schedules. In
# 33 pixels the last stage of a ResNet has 2 x 2: with one value an image, rounding decides signs in groups of two.
EXAMPLES = [
    MoCo(
        TinyShapes(num_train=10, num_val=4, image_size_px=33),
        backbone="resnet18",
        num_epochs=2,
        batch_size=4,
        queue_size=8,
        embedding_dim=16,
        schedule=Cosine(),
        schedule_epochs=9,
    ),
    BYOL(
        TinyShapes(num_train=10, num_val=4, image_size_px=33),
        augmentation=THESIS_AUGMENTATION,
        num_epochs=2,
        batch_size=5,
        embedding_dim=16,
        schedule=Cosine(),
        schedule_epochs=9,
        learning_rate=0.01,
        positives=TracIn(),
    ),
    Classification(
        TinyFindings(TinyShapes(num_train=10, num_val=4, image_size_px=33)),
        Untrained(TinyShapes(num_train=10, num_val=4, image_size_px=33), "resnet18"),
        augmentation=THESIS_AUGMENTATION,
        num_epochs=2,
        batch_size=5,
        schedule_epochs=9,
    ),
    Segmentation(
        TinyClasses(TinyShapes(num_train=10, num_val=4)),
        UNet((4, 8)),
        augmentation=THESIS_AUGMENTATION,
        num_epochs=2,
        batch_size=4,
        schedule_epochs=9,
    ),
]
# One of a kind in `make test`, all of them in `make test-slow`.
_SLOW = (BYOL, Classification)
PARAMETERS = [
    pytest.param(
        example,
        id=f"{type(example).__name__}-{place}",
        marks=pytest.mark.slow if isinstance(example, _SLOW) else (),
    )
    for place, example in enumerate(EXAMPLES)
]


def test_every_class_that_spreads_over_processes_has_its_example_here():
    for module in pkgutil.walk_packages(trainables.__path__, "trainables."):
        importlib.import_module(module.name)
    spreading = {
        cls.__qualname__
        for cls in subclasses_of(Trainable)
        if cls.__module__.startswith("trainables.") and not isabstract(cls) and cls.spreads == "processes"
    }
    assert spreading == {type(example).__qualname__ for example in EXAMPLES}


def of_length(example, length):
    return dataclasses.replace(example, **{length_field(example): length})


def _in_double():
    """Whatever is made from now on computes in float64."""
    torch.set_default_dtype(torch.float64)
    images = DeviceImages.images
    DeviceImages.images = lambda self, positions: images(self, positions).double()


def _run(example, root, shorter=None, *, is_double=False, **deaths):
    """A worker's context at the end, its summary and what it would publish; from a state on, where one is given."""
    if is_double:
        _in_double()
    first = runtime.world().is_first
    context = context_of_worker(root, **(deaths if first else {}))
    if shorter is not None and first:
        context.start_from(shorter)
    metrics = example.run(context)
    return context, metrics, published(context)


def _run_in_double(example, root, shorter=None):
    return _run(example, root, shorter, is_double=True)


def _run_and_die(example, root):
    return _run(example, root, kill_after_checkpoints=1)


def tensors_in(files):
    """Every tensor of the published files, by file and place."""
    contents = {
        name: torch.load(io.BytesIO(content), weights_only=True) for name, content in files.items() if ".pt" in name
    }
    places = {f"{name}{place}": value for name, c in contents.items() for place, value in tensors_of(c).items()}
    return {place: value for place, value in places.items() if isinstance(value, torch.Tensor)}


def assert_close(found, expected):
    (context, metrics, files), (expected_context, expected_metrics, expected_files) = found, expected
    assert context.rows == [(step, pytest.approx(row, rel=1e-6)) for step, row in expected_context.rows]
    assert metrics == pytest.approx(expected_metrics, rel=1e-6)
    tensors, expected_tensors = tensors_in(files), tensors_in(expected_files)
    assert len(tensors) > 0
    assert {name: away for name, away in differences(tensors, expected_tensors).items() if away > 1e-6} == {}


@pytest.mark.parametrize("example", PARAMETERS)
def test_any_number_of_workers_gives_what_one_does_wherever_it_goes_on(example, tmp_path):
    """In float64. Two workers go on where three ended, and one where two did."""
    one, two = of_length(example, 1), of_length(example, 2)
    (expected,) = in_workers(1, _run_in_double, two, tmp_path / "one")
    for size, then in ((3, 2), (2, 1)):
        shorter = in_workers(size, _run_in_double, one, tmp_path / f"{size} first")[0][0]
        context, metrics, files = in_workers(then, _run_in_double, two, tmp_path / f"{then} then", shorter)[0]
        context.rows = shorter.rows + context.rows
        assert_close((context, metrics, files), expected)


@pytest.mark.parametrize("example", PARAMETERS)
def test_with_two_workers_grown_or_killed_is_bitwise_what_runs_through(example, tmp_path):
    """And all workers end with the same, but the first alone is listened to."""
    one, two = of_length(example, 1), of_length(example, 2)
    at_once, other = in_workers(2, _run, two, tmp_path / "at once")
    assert other[1:] == at_once[1:]
    assert other[0].rows == []
    assert not list(other[0].root.glob("[!ow]*"))  # no state, no checkpoint
    shorter = in_workers(2, _run, one, tmp_path / "shorter")[0][0]
    grown = in_workers(2, _run, two, tmp_path / "grown", shorter)[0]
    assert grown[1:] == at_once[1:]
    assert shorter.rows + grown[0].rows == at_once[0].rows
    assert_same_state(grown[0], at_once[0])
    with pytest.raises(WorkerFailed) as failed:
        in_workers(2, _run_and_die, two, tmp_path / "killed")
    assert isinstance(failed.value.errors[0], Killed)
    resumed = in_workers(2, _run, two, tmp_path / "killed")[0]
    assert [step for step, _ in resumed[0].rows] == [2]
    assert resumed[1:] == at_once[1:]
    assert_same_state(resumed[0], at_once[0])


# -- the loop ---------------------------------------------------------------------------------------------------


class Tripling(Doubling):
    """Each worker has a factor of its own, and its metrics are NaN from an epoch of its own on."""

    def __init__(self, factors, nan_from):
        rank = runtime.world().rank
        super().__init__(factors[rank])
        self.nan_from = nan_from[rank]

    def train_epoch(self, epoch, context):
        metrics = super().train_epoch(epoch, context)
        return dict.fromkeys(metrics, math.nan) if epoch >= self.nan_from else metrics


def _tripled(num_epochs, root, shorter=None, factors=(2.0, 2.0, 2.0), nan_from=(9, 9, 9)):
    context, training = context_of_worker(root), Tripling(factors, nan_from)
    if shorter is not None and runtime.world().is_first:
        context.start_from(shorter)
    try:
        return context, training.calls, train(training, num_epochs, context)
    except Exception as error:
        return context, training.calls, error


def test_all_workers_begin_where_the_first_does_and_return_its_metrics(tmp_path):
    found = in_workers(3, _tripled, 2, tmp_path / "short", None, (2.0, 5.0, 7.0), (9, 1, 9))
    assert [calls for _, calls, _ in found] == [["begin", 0, 1]] * 3
    assert [metrics for *_, metrics in found] == [{"train/value": 4.0, "val/third": 4 / 3}] * 3
    assert [len(context.rows) for context, *_ in found] == [2, 0, 0]
    assert json.loads((tmp_path / "short/state/training.json").read_text())["epochs_done"] == 2
    assert not (tmp_path / "short/worker 1/state").exists()
    shorter = found[0][0]
    found = in_workers(3, _tripled, 3, tmp_path / "long", shorter)
    assert [calls for _, calls, _ in found] == [["restore", 2]] * 3
    assert [metrics["train/value"] for *_, metrics in found] == [8.0] * 3
    assert list((tmp_path / "long/worker 1/output").iterdir()) == []
    found = in_workers(2, _tripled, 1, tmp_path / "too short", shorter)
    assert ["has 2 epochs, and 1 were asked for" in str(error) for *_, error in found] == [True, True]


@pytest.mark.parametrize(
    ("given", "named"), [({"nan_from": (1, 9, 9)}, "train/value"), ({"factors": (math.inf, 2.0, 2.0)}, "weights")]
)
def test_all_workers_stop_where_the_first_diverges(tmp_path, given, named):
    """Also where their own numbers are finite: nobody waits for one that has stopped."""
    errors = [error for *_, error in in_workers(3, _tripled, 2, tmp_path, **given)]
    assert [type(error) for error in errors] == [NonFiniteMetric] * 3
    assert [(error.metric, error.step) for error in errors] == [(named, 2)] * 3
    assert not (tmp_path / "state").exists()


def _threads(root, shorter):
    """One worker has two cores and the other one, on machines of their own."""
    context, training = context_of_worker(root, num_cpus=2 - runtime.world().rank), Tripling((2.0, 2.0), (9, 9))
    if shorter is not None and runtime.world().is_first:
        context.start_from(shorter)
    train(training, 1 if shorter is None else 2, context)
    return context, training.threads


def test_all_workers_keep_the_number_of_threads_of_the_first_where_they_go_on(tmp_path):
    (first, threads), (_, others) = in_workers(2, _threads, tmp_path / "short", None)
    assert (threads, others) == ([2], [1])
    assert [threads for _, threads in in_workers(2, _threads, tmp_path / "long", first)] == [[2], [2]]
