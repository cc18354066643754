"""MLflow that is away, hangs, says 503 to what it did; its database locked or garbled."""

import contextlib
import sqlite3
from collections.abc import Callable
from random import Random

from fault import NewWorld, at_a_moment
from kills import kill_driver
from mlflow_server import Proxy


def in_mode(mode: str, to_the_end: bool = False) -> Callable[[NewWorld, Random, int], None]:
    """The server is in trouble from a random moment on, until trials have ended meanwhile or until the command has."""

    def play(new_world: NewWorld, moments: Random, times: int) -> None:
        proxy: Proxy = new_world.proxy()
        world = new_world(tracking_uri=proxy.uri, name=f"faults_{mode.replace(' ', '_')}_{to_the_end}")
        driver = world.start(2.0)
        at_a_moment(world, driver, world.num_noted, moments, 3.0)
        world.disturbed()
        done, proxy.mode = len(world.finished()), mode
        try:
            assert world.wait(driver, lambda: "MLflow is behind" in world.output and len(world.finished()) > done + 1)
            if to_the_end:
                world.ends(driver, 0)
        finally:
            proxy.mode = "pass"
        if to_the_end:
            world.finish()
        else:
            world.ends(driver)

    return play


def locked_database(new_world: NewWorld, moments: Random, times: int) -> None:
    """Another program writes into MLflow's SQLite file for as long as two trials take."""
    world = new_world()
    database = world.storage / "mlflow.db"
    driver = world.start(2.0)
    at_a_moment(world, driver, lambda: world.num_noted() and database.exists(), moments, 3.0)
    world.disturbed()
    done = len(world.finished())
    with contextlib.closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert world.wait(driver, lambda: len(world.finished()) > done + 1), world.output
        connection.execute("ROLLBACK")
    world.ends(driver)


def garbled_database(new_world: NewWorld, moments: Random, times: int) -> None:
    """MLflow's SQLite file is overwritten with something else; a person moves it away, as is said."""
    world = new_world()
    driver = world.start(2.0)
    at_a_moment(world, driver, lambda: world.num_noted() and (world.storage / "mlflow.db").exists(), moments, 3.0)
    kill_driver(world, driver)
    for path in world.storage.glob("mlflow.db*"):
        path.write_bytes(b"<html>502 Bad Gateway</html>" * 500)
    world.ends(world.start(0.0), 0)
    for path in world.storage.glob("mlflow.db*"):
        path.unlink()
    world.finish()
