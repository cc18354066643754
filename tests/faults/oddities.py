"""Trials that misbehave, memory that is short, a clock that is set back."""

import os
from pathlib import Path
from random import Random

from fault import NewWorld, at_a_moment
from kills import kill_driver
from world import World

_DAY_S = 86_400.0
_SPARE_BYTES = 1_500_000_000


def misbehave(new_world: NewWorld, moments: Random, times: int) -> None:
    """NaN, None, sys.exit, os._exit, one in each of four trials; mended, they are tried again."""
    world = new_world()
    ways = ["logs_nan", "returns_none", "calls_exit", "ends_its_process"]
    fail(world, ways)
    assert [len(world.lines(f"odd{n}.tries")) for n in range(1, 5)] == [1, 1, 1, 4]
    mend(world, ways)


def hang(new_world: NewWorld, moments: Random, times: int) -> None:
    """A trial sleeps for ever; a time limit of seconds ends it, with the line where it was."""
    world = new_world()
    fail(world, ["hangs"], "--time-limit", "0.25")
    assert len(world.lines("odd1.tries")) == 1
    mend(world, ["hangs"])


def fail(world: World, ways: list[str], *flags: str) -> None:
    """Run the study with trials that do these things: all others end well."""
    for number, way in enumerate(ways, start=1):
        (world.folder / f"odd{number}.does").write_text(way)
    world.ends(world.start(0.0, *flags), 1)
    world.disturbed()
    assert len(world.finished()) == 8 - len(ways), world.output


def mend(world: World, ways: list[str]) -> None:
    """They behave now; the same command alone leaves them, and tries them again when it is told to."""
    for number in range(1, len(ways) + 1):
        (world.folder / f"odd{number}.does").unlink()
    world.ends(world.start(0.0), 1)
    world.finish("--retry-failed")


def eat_memory(new_world: NewWorld, moments: Random, times: int) -> None:
    """A trial takes more memory than is left below Ray's threshold; Ray's monitor ends it, or one beside it."""
    world = new_world()
    (world.folder / "odd1.does").write_text("eats")
    facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(facts[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    threshold = (total - available + _SPARE_BYTES) / total
    world.disturbed()
    driver = world.start(0.0, RAY_memory_usage_threshold=f"{threshold:.4f}", RAY_memory_monitor_refresh_ms="100")
    world.ends(driver, 0, 1)
    assert not (world.folder / "odd1.does").exists()
    world.finish("--retry-failed")


def set_clock_back(new_world: NewWorld, moments: Random, times: int) -> None:
    """By a day while trials run, and by another between two submissions."""
    clock = str(Path(__file__).with_name("shifted_clock"))
    world = new_world()
    path = os.pathsep.join([clock, os.environ["PYTHONPATH"]])
    world.environment |= {"PYTHONPATH": path, "QUARTERTURN_TEST_CLOCK": str(world.folder / "shift_s")}
    (world.folder / "shift_s").write_text("0")
    driver = world.start(1.0)
    at_a_moment(world, driver, world.num_noted, moments, 3.0)
    world.disturbed()
    (world.folder / "shift_s").write_text(str(-_DAY_S))
    assert world.wait(driver, lambda: len(world.finished()) > len(world.finished_before[0]) + 1), world.output
    results = [world.store.result(key) for key in world.finished()]
    assert any(result.ended_at < result.started_at for result in results)
    kill_driver(world, driver)
    (world.folder / "shift_s").write_text(str(-2 * _DAY_S))
    world.finish()
