"""What trials compute on, and the names by which results know it."""

import pytest

from orchestrator import devices
from orchestrator.devices import Devices, capacity_here, device_of, device_text, devices_for, devices_here

H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    devices_here.cache_clear()
    yield
    devices_here.cache_clear()


def test_a_result_names_its_gpu_or_its_processor():
    assert device_of({"device": H100, "cpu": "Xeon"}) == H100
    assert device_of({"device": "cpu", "cpu": "Xeon"}) == device_of({"cpu": "Xeon"}) == "CPU Xeon"
    assert device_text("CPU Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz") == "Intel Xeon Platinum 8481C"
    assert device_text("CPU ") == "a CPU"


def test_this_machine_tells_its_gpus_without_a_library(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_DEV", tmp_path)
    monkeypatch.setattr(devices, "_PROC", tmp_path / "gpus")
    assert capacity_here().total.gpus == 0
    assert devices_here().gpu is None
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia0x"):
        (tmp_path / name).touch()
    assert capacity_here().total.gpus == 2
    devices_here.cache_clear()
    assert devices_here().gpu == "", "there is one, and nobody says which"
    (tmp_path / "gpus" / "0").mkdir(parents=True)
    (tmp_path / "gpus" / "0" / "information").write_text(f"Model: \t\t {H100}\nIRQ: 3\n")
    devices_here.cache_clear()
    assert devices_here().gpu == H100
    assert devices_for(None, 0.0).gpu is None, "trials get none"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert capacity_here().total.gpus == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert capacity_here().total.gpus == 0


def test_what_is_not_known_is_what_most_trials_were_measured_on():
    measured = [H100, "CPU a", "CPU b", "CPU b", "NVIDIA T4"]
    assert devices_for("ray://head", None) == Devices("", "")
    assert Devices().among(measured) == Devices("CPU b", H100)
    assert Devices("CPU c", "").among(["CPU b"]) == Devices("CPU c", "GPU")
    part = f"{H100} MIG 3g.40gb"
    assert Devices("CPU c", H100).among([part]) == Devices("CPU c", part)
    assert Devices("CPU c", H100).among([part, H100]) == Devices("CPU c", H100)
    assert Devices("CPU c", "A100").among(measured) == Devices("CPU c", "A100"), "none of these"
    assert Devices("CPU c", None).among(measured).of(True) == "CPU c"
    assert Devices().among([]) == Devices("CPU ", None)
