"""SIGKILL and the gentler signals: of the driver, of trials and their ranks, of Ray's node, of the feeder."""

import signal
import time
from random import Random

from fault import NewWorld, at_a_moment
from world import RANKS_STUDY, World, kill

NUM_TRIALS = 8  # of the study of faults
_MOST_CRASHES = 3  # that one trial may have


def kill_drivers(new_world: NewWorld, moments: Random, times: int) -> None:
    """At random moments: every second time of its start, else from its first trial on; until the study is done."""
    world = None
    for number in range(times):
        world = world or new_world()
        begun = len(world.output)
        driver = world.start(2.0)
        if number % 2 or not world.finished_before:  # the first life of a study reaches its first trial
            world.wait(driver, lambda w=world, b=begun: "started" in w.output[b:])
        time.sleep(moments.uniform(0.0, 8.0))
        if driver.poll() is not None:  # the study is done: the next one
            assert driver.returncode == 0, world.output
            world = new_world()
            driver = world.start(2.0)
            at_a_moment(world, driver, lambda w=world: "started" in w.output, moments, 4.0)
        kill_driver(world, driver)
    world.finish()


def kill_driver(world: World, driver) -> None:
    """One kill; its trials die with it, a little later."""
    world.killed([driver.pid], ends=world.pids("ray::"))
    assert driver.wait() == -signal.SIGKILL


def kill_in_report(new_world: NewWorld, moments: Random, times: int) -> None:
    """While the report is drawn, when all trials are done."""
    world = new_world()
    (world.folder / "report_s").write_text("4")
    for _ in range(times):
        driver = world.start(0.0)
        at_a_moment(world, driver, lambda: world.store.exists("reports/faults/begun"), moments, 2.0)
        kill_driver(world, driver)
    (world.folder / "report_s").unlink()
    world.finish()


def interrupt(new_world: NewWorld, moments: Random, times: int) -> None:
    """Ctrl-C, and what `ray job stop` sends."""
    world = new_world()
    for number in [signal.SIGINT, signal.SIGTERM][:times]:
        begun = len(world.output)
        driver = world.start(2.0)
        at_a_moment(world, driver, lambda b=begun: "started" in world.output[b:], moments, 4.0)
        world.killed([], ends=world.pids("ray::"))
        driver.send_signal(number)
        world.ends(driver, 130)
    world.finish()


def kill_trials(new_world: NewWorld, moments: Random, times: int) -> None:
    """Of one that runs, whichever; the driver goes on."""
    world, killed = new_world(), []
    driver = world.start(2.0)
    for _ in range(times):
        at_a_moment(world, driver, lambda: candidates(world, killed), moments, 3.0)
        assert world.wait(driver, lambda: candidates(world, killed))
        pid, key = moments.choice(candidates(world, killed))
        killed.append(key)
        world.killed([pid], names=(world.log_of(key),))
    world.ends(driver)


def candidates(world: World, killed: list[str]) -> list[tuple[int, str]]:
    """Processes of trials that began to compute, and may crash once more."""
    running = world.running().items()
    return [(pid, key) for pid, key in running if world.noted(key) and killed.count(key) < _MOST_CRASHES]


def kill_half_up(new_world: NewWorld, moments: Random, times: int) -> None:
    """Of a trial whose checkpoint is half in the store."""
    world = new_world()
    (world.folder / "odd1.does").write_text("carries_weight")
    driver = world.start(0.0)
    for _ in range(times):
        assert world.wait(driver, lambda: half_up(world)), world.output
        world.killed(half_up(world), names=("odd1",))
    world.ends(driver)


def half_up(world: World) -> list[int]:
    """Processes of trials that bring a checkpoint which is not valid yet."""
    found = []
    for pid, key in world.running().items():
        valid = {generation.checkpoint for generation in world.store.generations(key)}
        checkpoints = {f"checkpoints/{name}" for name in world.store.names(f"trials/{key}/checkpoints")}
        if checkpoints - valid and len(world.noted(key)) > 1:
            found.append(pid)
    return found


def kill_ranks(new_world: NewWorld, moments: Random, times: int) -> None:
    """One of the two processes that train one trial."""
    while times:
        world = new_world(study=RANKS_STUDY)
        driver = world.start(2.0)
        for _ in range(min(times, _MOST_CRASHES)):
            noted = len(world.lines("ranks"))
            at_a_moment(world, driver, lambda w=world, n=noted: len(w.lines("ranks")) >= n + 2, moments, 2.0)
            pid = int(moments.choice(world.lines("ranks")[-2:]).split()[-1])
            world.killed([pid], ends=world.pids("RayTrainWorker"), names=("ranks",))
            times -= 1
        world.ends(driver)


def kill_raylets(new_world: NewWorld, moments: Random, times: int) -> None:
    """Ray itself, under the driver: its trials die with it, and the driver ends."""
    world = new_world()
    for _ in range(times):
        begun = len(world.output)
        driver = world.start(8.0)  # it takes a while until a node counts as dead
        at_a_moment(world, driver, lambda b=begun: "started" in world.output[b:], moments, 4.0)
        raylets = world.pids("/raylet/raylet ")
        world.killed(raylets, ends=world.pids("ray::"))
        world.ends(driver, 130)
    world.finish()


def kill_feeders(new_world: NewWorld, moments: Random, times: int) -> None:
    """While trials run, some times in one study: another takes over each time."""
    for count in (times - times // 2, times // 2):
        world = new_world() if count else None
        driver = world.start(3.0) if world else None
        for _ in range(count):
            at_a_moment(world, driver, lambda w=world: w.num_noted() and feeders(w), moments, 1.0)
            world.disturbed()
            kill(feeders(world))
            assert world.wait(driver, lambda w=world: not feeders(w)), world.output
        if world:
            world.ends(driver)


def kill_feeder_in_making(new_world: NewWorld, moments: Random, times: int) -> None:
    """While it makes MLflow's database."""
    for _ in range(times):
        world = new_world()
        driver = world.start(0.0)
        at_a_moment(world, driver, lambda w=world: list(w.storage.glob(".mlflow.db.*.new")), moments, 0.2)
        world.disturbed()
        kill(feeders(world))
        world.ends(driver)


def feeders(world: World) -> list[int]:
    """The processes that feed MLflow."""
    return world.pids(" sync ")
