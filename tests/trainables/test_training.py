"""The loop of all trainings, with a training of one number."""

import json
import math

import pytest
import torch
from fake_context import FakeContext, Killed

from trainables import runtime
from trainables.api.errors import NonFiniteMetric
from trainables.training import train


class Doubling:
    """Multiplies its number by 2 an epoch, and notes what is asked of it."""

    def __init__(self, factor=2.0):
        self.factor, self.value, self.calls, self.threads = factor, torch.zeros(()), [], []

    def begin(self):
        self.calls.append("begin")
        self.value = torch.ones(())

    def train_epoch(self, epoch, context):
        self.calls.append(epoch)
        self.threads.append(torch.get_num_threads())
        self.value = self.value * self.factor
        return {"train/value": float(min(self.value, torch.tensor(1e30)))}

    def validate(self):
        return {"val/third": float(self.value) / 3} if self.value < 1e30 else {}

    def weights(self):
        return {"value": self.value}

    def save(self, folder):
        runtime.save_state(folder / "doubling.pt", {"value": self.value})

    def restore(self, folder):
        self.calls.append("restore")
        self.value = runtime.load_state(folder / "doubling.pt")["value"]


@pytest.fixture(autouse=True)
def threads():
    """Leaves the number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_every_epoch_is_logged_under_its_number_and_the_last_is_returned(tmp_path):
    context, training = FakeContext(tmp_path), Doubling()
    metrics = train(training, 3, context)
    assert training.calls == ["begin", 0, 1, 2]
    assert [step for step, _ in context.rows] == [1, 2, 3]
    assert [row["train/value"] for _, row in context.rows] == [2, 4, 8]
    assert metrics == {"train/value": 8, "val/third": 8 / 3} == context.rows[-1][1]


def test_a_killed_training_restores_instead_of_beginning(tmp_path):
    first = FakeContext(tmp_path, kill_after_checkpoints=2)
    with pytest.raises(Killed):
        train(Doubling(), 3, first)
    second, training = first.again(), Doubling()
    assert train(training, 3, second) == {"train/value": 8, "val/third": 8 / 3}
    assert training.calls == ["restore", 2]
    third, training = second.again(), Doubling()  # killed after the last epoch, before it was published
    assert train(training, 3, third) == {"train/value": 8, "val/third": 8 / 3}
    assert training.calls == ["restore"]
    assert third.rows == []


def test_the_final_state_is_left_also_where_no_checkpoint_was_taken(tmp_path):
    short = FakeContext(tmp_path / "short", keep_checkpoints=False)
    train(Doubling(), 2, short)
    long, training = FakeContext(tmp_path / "long").start_from(short), Doubling()
    assert train(training, 5, long)["train/value"] == 32
    assert training.calls == ["restore", 2, 3, 4]


def test_a_longer_state_is_not_taken_for_a_shorter_training(tmp_path):
    long = FakeContext(tmp_path / "long")
    train(Doubling(), 4, long)
    with pytest.raises(ValueError, match="has 4 epochs, and 2 were asked for"):
        train(Doubling(), 2, FakeContext(tmp_path / "short").start_from(long))


def test_a_training_keeps_its_number_of_threads(tmp_path):
    short = FakeContext(tmp_path / "short", num_cpus=2)
    train(Doubling(), 1, short)
    assert json.loads((tmp_path / "short/state/training.json").read_text())["num_threads"] == 2
    long, training = FakeContext(tmp_path / "long", num_cpus=1).start_from(short), Doubling()
    train(training, 3, long)
    assert training.threads == [2, 2]
    assert json.loads((tmp_path / "long/state/training.json").read_text())["num_threads"] == 2


def test_weights_that_are_not_finite_at_the_end_are_refused_and_leave_no_state(tmp_path):
    with pytest.raises(NonFiniteMetric, match=r"weights.* step 2"):
        train(Doubling(math.inf), 2, FakeContext(tmp_path))
    assert not (tmp_path / "state").exists()
