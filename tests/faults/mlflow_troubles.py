"""MLflow that is away, hangs, or says 503 to what it did."""

from collections.abc import Callable
from random import Random

from fault import NewWorld, at_a_moment
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
