"""What a machine with a GPU has to show: `make check-gpu`, or `python tests/gpu/check.py`. Minutes.

First numbers: each function of numerics.py holds a GPU against the CPU; torch and what `trainables` imports are all
that it needs. Then how much faster SmoothGrad of a pair is than its peers, and, where Ray is installed, trials that
share the GPU. Without a GPU it says so in one line, and all is well.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PLACES = [str(_ROOT), str(_ROOT / "tests" / "trainables"), str(_ROOT / "tests" / "gpu")]
_BENCHMARK = ["benchmarks/saliency.py", "--backbones", "resnet18", "resnet50", "--sizes", "224", "--rounds", "3"]


def main() -> int:
    sys.path[:0] = _PLACES
    import torch

    if not torch.cuda.is_available():
        print("no GPU here (torch.cuda.is_available() is False): nothing to check")
        return 0
    names = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, Python {sys.version.split()[0]}, {', '.join(names)}")
    parts = [_check_numbers(), _run_benchmark(), _share_gpu()]
    return 0 if all(parts) else 1


def _check_numbers() -> bool:
    import numerics
    import torch

    is_well = True
    for check in numerics.CHECKS:
        start = time.perf_counter()
        try:
            said = f"ok      {check(torch.device('cuda'))}"
        except Exception:  # the others are still worth seeing
            said, is_well = f"FAILED  {check.__name__}\n{traceback.format_exc()}", False
        print(f"{said} ({time.perf_counter() - start:.0f} s)", flush=True)
    return is_well


def _run_benchmark() -> bool:
    if not _is_installed("captum"):
        print("skipped the benchmark: captum, which it measures against, is not installed")
        return True
    return _run(*_BENCHMARK)


def _share_gpu() -> bool:
    if missing := [name for name in ("ray", "pytest") if not _is_installed(name)]:
        print(f"skipped trials that share a GPU: {' and '.join(missing)} not installed")
        return True
    return _run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "", "tests/gpu/test_gpu_sharing.py")


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _run(*arguments: str) -> bool:
    places = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": places}
    return subprocess.run([sys.executable, *arguments], cwd=_ROOT, env=environment).returncode == 0


if __name__ == "__main__":  # workers are processes that import this file
    sys.exit(main())
