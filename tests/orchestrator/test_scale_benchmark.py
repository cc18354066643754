"""What the benchmark of growth measures and counts."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_SCRIPT = _ROOT / "benchmarks" / "scale.py"
_SPEC = importlib.util.spec_from_file_location("benchmark_of_scale", _SCRIPT)
scale = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = scale
_SPEC.loader.exec_module(scale)


def test_growth_is_the_power_of_the_number_of_trials():
    assert scale.growth((100, 3.0), (1000, 30.0)) == pytest.approx(1.0)
    assert scale.growth((100, 3.0), (1000, 300.0)) == pytest.approx(2.0)
    assert scale.growth((10, 3.0), (1000, 3.0)) == pytest.approx(0.0)


def test_a_line_tells_value_growth_and_goal():
    points = {100: dict.fromkeys(scale.MEASURES, 2.0), 1000: dict.fromkeys(scale.MEASURES, 200.0)}
    lines = {line[:18].strip(): line[18:].split() for line in scale.table(points)}
    assert lines["resume s"] == ["2.00", "200.00", "^2.00", "(goal", "at", "10,000:", "5)"]
    assert lines["run s a trial"][:2] == ["0.020", "0.200"]


def test_requests_of_all_processes_are_counted(tmp_path):
    counts = tmp_path / "counts"
    counts.mkdir()
    work = (
        "import sys; from orchestrator.store import Store; store = Store(sys.argv[1]); "
        "store.write_document('a', 1); store.read_document('a'); store.names('')"
    )
    paths = os.pathsep.join([str(scale.COUNTING), str(_ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "QUARTERTURN_COUNTS": str(counts)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", work, str(tmp_path / "results")], check=True, env=environment)
    assert scale._counted(counts) == {"store requests": 6, "MLflow writes": 0}


def test_finished_trials_are_planned_as_done(tmp_path):
    assert scale.measure_planned(5).keys() == {"planned s", "planned peak MB"}


@pytest.mark.slow
def test_a_tiny_study_has_every_measure(tmp_path):
    out = tmp_path / "scale.json"
    subprocess.run([sys.executable, str(_SCRIPT), "--trials", "2", "4", "--json", str(out)], check=True)
    points = json.loads(out.read_text())["points"]
    assert points.keys() == {"2", "4"}
    for point in points.values():
        assert set(point) >= set(scale.MEASURES)
        assert all(value > 0 for value in point.values())
