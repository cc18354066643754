"""Every fault of the matrix happens to a real study; a table says what became of it. Slow."""

import re
from random import Random

import pytest
from matrix import FAULTS
from mlflow_server import mlflow_behind_proxy
from verdict import check
from world import World, kill

SEED = 1
COLUMNS = ("fault", "times", "lost", "doubled", "seconds to recover", "what the user read")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A function that gives the world of a study that nothing happened to."""
    made = {}

    def of(study, flags):
        if (study, flags) not in made:
            world = World(tmp_path_factory.mktemp("undisturbed"), study, flags)
            world.finish()
            made[study, flags] = world
        return made[study, flags]

    return of


@pytest.fixture(scope="module")
def table(tmp_path_factory, request):
    """Rows of the table, which is printed at the end and lies below the folder of the tests."""
    rows = []
    yield rows
    lines = [f"| {' | '.join(COLUMNS)} |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    path = tmp_path_factory.getbasetemp() / "faults.md"
    path.write_text("\n".join(lines) + "\n")
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n", path.read_text(), path, sep="\n")


class Worlds:
    """Makes the worlds of one scenario, and starts what they share."""

    def __init__(self, folder, request):
        self._folder, self._request, self.made = folder, request, []

    def __call__(self, **given):
        if "folder" not in given:
            given["folder"] = self._folder / f"world{len(self.made)}"
            given["folder"].mkdir()
        self.made.append(World(**given))
        return self.made[-1]

    def proxy(self):
        """Of the one MLflow server."""
        return self._request.getfixturevalue("proxy")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    """An MLflow server behind a proxy that can be in trouble."""
    with mlflow_behind_proxy(tmp_path_factory.mktemp("server")) as proxy:
        yield proxy


@pytest.fixture
def worlds(tmp_path, request):
    """What makes worlds; processes that a failed scenario left in them end."""
    made = Worlds(tmp_path, request)
    yield made
    for world in made.made:
        kill(list(world.processes()))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_fault_costs_time_and_nothing_else(fault, undisturbed, table, worlds):
    print(f"{fault.name}: seed {SEED}")
    fault.play(worlds, Random(f"{SEED} {fault.name}"), fault.times)
    made = worlds.made
    verdicts = [check(world, world.compare or undisturbed(world.study, world.flags)) for world in made]
    output = "\n".join(world.output for world in made)
    read = [found.group().strip() if (found := re.search(f".*({says}).*", output)) else "" for says in fault.says]
    recovered = [seconds for world in made for seconds in world.recovered_s]
    table.append(
        (
            fault.name,
            sum(len(world.finished_before) for world in made),
            sum(len(verdict.lost) for verdict in verdicts),
            sum(len(verdict.doubled) for verdict in verdicts),
            f"{max(recovered):.0f}" if recovered else "",
            "; ".join(read),
        )
    )
    print(*(line for verdict in verdicts for line in (*verdict.for_gc, *verdict.uncleaned)), sep="\n")
    wrong = [
        f"{w.folder.name} {w.label}: {line}"
        for w, verdict in zip(made, verdicts, strict=True)
        for line in verdict.wrong
    ]
    assert wrong == [], "\n".join(wrong)
    assert all(read), output
