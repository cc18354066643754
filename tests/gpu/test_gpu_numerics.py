"""The checks of a GPU, on the CPU, so that they are right on the day there is one; and where there is one, on it."""

import subprocess
import sys
from pathlib import Path

import numerics
import pytest
import torch
from torch import nn

from trainables.data import batches
from trainables.saliency.gradients import SmoothGrad

ROOT = Path(__file__).resolve().parents[2]
DEVICES = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("check", numerics.CHECKS, ids=lambda check: check.__name__)
def test_numbers_of_a_device_are_those_of_the_cpu(check, device):
    assert "\n" not in check(device)


def changed_from_the_second_call(function, change):
    """The first call is the CPU's; what comes after it is a device that computes something else."""
    calls = []

    def changed(*given, **named):
        calls.append(1)
        made = function(*given, **named)
        return made if len(calls) == 1 else change(made)

    return changed


@pytest.mark.parametrize(
    ("name", "change"), [("maps", lambda maps: maps * (1 + 1e-7)), ("anchor_maps", lambda maps: maps.roll(1, dims=1))]
)
def test_other_maps_are_noticed(monkeypatch, name, change):
    monkeypatch.setattr(SmoothGrad, name, changed_from_the_second_call(getattr(SmoothGrad, name), change))
    with pytest.raises(AssertionError, match="maps differ by"):
        numerics.smoothgrad(numerics.CPU)


def test_another_queue_is_noticed(monkeypatch):
    def change(state):
        return {name: values + 1e-6 * (name == "queue keys_KD") for name, values in state.items()}

    monkeypatch.setattr(numerics, "state_of", changed_from_the_second_call(numerics.state_of, change))
    with pytest.raises(AssertionError, match="queue keys_KD differs by"):
        numerics.moco_steps(numerics.CPU)


def test_images_that_are_streamed_wrong_are_noticed(monkeypatch):
    take = batches._Streamed.take
    monkeypatch.setattr(batches._Streamed, "take", lambda self, positions: take(self, positions).flip(0))
    with pytest.raises(AssertionError):
        numerics.device_images(numerics.CPU)


def test_a_precision_that_is_none_is_noticed(monkeypatch):
    monkeypatch.setattr(
        "trainables.runtime.autocast", lambda device, enabled: torch.autocast(device.type, enabled=False)
    )
    with pytest.raises(AssertionError):
        numerics.bfloat16(numerics.CPU)


def test_a_network_that_bfloat16_turns_too_far_is_noticed(monkeypatch):
    convolve = nn.Conv2d.forward

    def forward(self, images):
        made = convolve(self, images)
        return made if made.dtype == torch.float32 else made + made.std() * torch.randn_like(made)

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    with pytest.raises(AssertionError, match="cosine"):
        numerics.bfloat16(numerics.CPU)


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_without_a_gpu_one_line_says_so(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    answer = run("tests/gpu/check.py")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == "no GPU here (torch.cuda.is_available() is False): nothing to check\n"


def test_the_numbers_need_no_orchestrator(tmp_path):
    places = [str(ROOT / "tests" / name) for name in ("trainables", "gpu")]
    lines = f"import sys; sys.path[:0] = {places}; import numerics; print(*sys.modules)"
    answer = run("-c", lines)
    assert answer.returncode == 0, answer.stderr
    loaded = {name.split(".")[0] for name in answer.stdout.split()}
    assert "trainables" in loaded
    assert loaded.isdisjoint({"ray", "mlflow", "optuna", "orchestrator", "pytest", "captum"})
