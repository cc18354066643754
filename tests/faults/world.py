"""One study in a folder of its own while something goes wrong: how it is started, watched, disturbed and read."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient

from orchestrator.snapshot import sqlite_uri
from orchestrator.store import Store

HERE = Path(__file__).parent
FAULT_STUDY = HERE / "fault_study.py"
TOY_STUDY = HERE.parent / "orchestrator" / "toy_study.py"
RANKS_STUDY = TOY_STUDY.with_name("toy_ranks_study.py")
SEARCH_STUDY = TOY_STUDY.with_name("toy_search_study.py")
MARK = "QUARTERTURN_TEST_OF_FAULTS"
PATIENCE_S = 300.0
_ENDS_WITHIN_S = 60.0
LOGS = ("base", "tuned", "other", "items", "odd1", "odd2", "odd3", "odd4", "ranks", "bowls")


@dataclass(frozen=True)
class Seen:
    """A finished trial as it was when something went wrong."""

    attempt: int
    token: str
    num_lines: int  # of what it noted while it computed


@dataclass(eq=False)
class World:
    """A folder with the results, the cache, the notes and the output of one study, and what happened to it."""

    folder: Path
    study: Path = FAULT_STUDY
    flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    tracking_uri: str = ""
    name: str = ""  # of the study, where it is given one
    inside: tuple[str, ...] = ()  # what runs a command where the storage is to be seen
    seen_at: str = ""  # where the storage is for this process meanwhile
    compare: "World | None" = None  # whose outcome is the right one, if it is not that of the undisturbed study
    label: str = ""  # what happened to it, where a scenario has many
    finished_before: list[dict[str, Seen]] = field(default_factory=list)  # one for each disturbance
    recovered_s: list[float] = field(default_factory=list)
    troubled_at: float = 0.0  # when something began to go wrong that a command has to end for

    @property
    def storage(self) -> Path:
        """Where the results are."""
        return self.folder / "results"

    @property
    def store(self) -> Store:
        """The results."""
        store = Store(str(self.storage))
        store._root = self.seen_at or store._root  # a path that a store would resolve
        return store

    @property
    def mlflow(self) -> str:
        """Address of the MLflow that is fed."""
        return self.tracking_uri or sqlite_uri(Path(self.store.uri) / "mlflow.db")

    @property
    def output(self) -> str:
        """All that the user has read, over all submissions."""
        path = self.folder / "output"
        return path.read_text(errors="replace") if path.exists() else ""

    # -- the study's command -----------------------------------------------------------------------------

    def command(self, epoch_s: float | None = None) -> list[str]:
        """What a user types; the length of an epoch changes no result."""
        places = ["--storage", str(self.storage), "--cache-dir", str(self.folder / "cache")]
        places += ["--log-dir", str(self.folder)] if self.study != RANKS_STUDY else []
        places += ["--log-path", str(self.folder / "ranks")] if self.study == RANKS_STUDY else []
        places += ["--name", self.name] if self.name else []
        pace = [] if epoch_s is None or self.study == SEARCH_STUDY else ["--epoch-s", str(epoch_s)]
        return [*self.inside, sys.executable, str(self.study), *places, *pace, *self.flags]

    def start(self, epoch_s: float | None = None, *flags: str, **environment: str) -> subprocess.Popen:
        """Submit the study; what it prints is added to the output."""
        mlflow = {"MLFLOW_TRACKING_URI": self.tracking_uri} if self.tracking_uri else {}
        with (self.folder / "output").open("a") as output:
            return subprocess.Popen(
                [*self.command(epoch_s), *flags],
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env={
                    **os.environ, MARK: str(self.folder), "QUARTERTURN_CHECKPOINT_S": "1", **mlflow,
                    **self.environment, **environment,
                },
            )  # fmt: skip

    def ends(self, driver: subprocess.Popen, *statuses: int) -> None:
        """Wait until a command has ended, with one of these exit statuses; without any it has to end all trouble."""
        assert driver.wait(timeout=PATIENCE_S) in (statuses or (0,)), self.output
        if self.troubled_at and not statuses:
            self.recovered_s.append(time.monotonic() - self.troubled_at)
            self.troubled_at = 0.0

    def finish(self, *flags: str) -> None:
        """The same command, to its end."""
        self.ends(self.start(0.1, *flags))

    # -- waiting and disturbing --------------------------------------------------------------------------

    def wait(self, driver: subprocess.Popen, condition: Callable[[], object]) -> bool:
        """Wait until a condition holds; False if the driver ended before."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.output
            if driver.poll() is not None:
                return bool(condition())
            time.sleep(0.05)
        return True

    def disturbed(self) -> None:
        """Remember what is finished now, which may not run again. The trouble lasts until a command ends it."""
        self.finished_before.append(self.finished())
        self.troubled_at = time.monotonic()

    def killed(self, pids: list[int], *, ends: list[int] = (), names: tuple[str, ...] = ()) -> None:
        """Kill processes, which end others; the study has recovered when trials compute again.

        Those that log under ``names``, or any.
        """
        begun, turn = time.monotonic(), len(self.finished_before)
        self.finished_before.append(self.finished())
        kill(pids)

        def watch() -> None:
            while any(is_alive(pid) for pid in (*pids, *ends)):
                time.sleep(0.05)
            noted = self.num_noted(names)
            while len(self.finished_before) == turn + 1 and time.monotonic() < begun + PATIENCE_S:
                if self.num_noted(names) > noted:
                    self.recovered_s.append(time.monotonic() - begun)
                    return
                time.sleep(0.05)

        threading.Thread(target=watch, daemon=True).start()

    def finished(self) -> dict[str, Seen]:
        """The finished trials by key."""
        found = {}
        for key in self.store.finished():
            result = self.store.result(key)
            if result is not None:
                found[key] = Seen(result.attempt, result.token, len(self.noted(key)))
        return found

    # -- what can be seen from outside -------------------------------------------------------------------

    def lines(self, name: str) -> list[str]:
        """What a trial noted, under the name of its file."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def noted(self, key: str) -> list[str]:
        """What the trial of a key noted."""
        name, facts = self.log_of(key), self._configuration(key)
        lines = self.lines(name) if name else []
        # The points of a search share a file.
        own = f"{facts['x']} {facts['y']} {facts['seed']}" if "x" in facts else None
        return [line for line in lines if own in (None, line)]

    def num_noted(self, names: tuple[str, ...] = ()) -> int:
        """Lines that trials noted so far, under these names or all."""
        return sum(len(self.lines(name)) for name in names or LOGS)

    def running(self) -> dict[int, str]:
        """The trials that run now: process that holds the claim -> key."""
        found = {}
        for key in self.store.names("trials"):
            claim = self.store.read_document(f"trials/{key}/claim.json")
            if isinstance(claim, dict) and is_alive(claim.get("pid", 0)):
                found[claim["pid"]] = key
        return found

    def log_of(self, key: str) -> str:
        """The name under which the trial of a key notes."""
        return Path(self._configuration(key).get("log_path") or "").name

    def _configuration(self, key: str) -> dict:
        trial = self.store.read_document(f"trials/{key}/trial.json")
        return trial.get("configuration", {}) if isinstance(trial, dict) else {}

    def processes(self) -> dict[int, str]:
        """Living processes that descend from a driver of this world, with their command lines.

        By a variable that all of them inherit, and by their parents.
        """
        mark = f"{MARK}={self.folder}\0".encode()
        parents, marked, lines = {}, set(), {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                status = (process / "stat").read_text().rpartition(")")[2].split()
                lines[int(process.name)] = (process / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
                if status[0] in "ZX":
                    continue
                parents[int(process.name)] = int(status[1])
                if mark in (process / "environ").read_bytes() + b"\0":
                    marked.add(int(process.name))
            except OSError:
                continue
        while more := {pid for pid, parent in parents.items() if parent in marked and pid not in marked}:
            marked |= more
        return {pid: lines[pid] for pid in marked}

    def left_running(self) -> list[str]:
        """Command lines of the processes that live still after a minute."""
        deadline = time.monotonic() + _ENDS_WITHIN_S
        while (living := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return list(living.values())

    def pids(self, *words: str) -> list[int]:
        """Processes of this world whose command line has one of these words."""
        return sorted(pid for pid, line in self.processes().items() if any(word in line for word in words))


def is_alive(pid: int) -> bool:
    """Whether a process runs, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill(pids: list[int]) -> None:
    """SIGKILL to those that live still."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


# -- what is compared --------------------------------------------------------------------------------------


def outcome(world: World) -> dict:
    """The results of a study in a folder."""
    return outcome_of(world.store)


def outcome_of(store: Store) -> dict:
    """The results of a store by key, without what may differ: times, attempts, provenance."""
    found = {}
    for key in store.finished():
        result = store.result(key)
        if result is not None:
            rows = [row[:3] for segment in result.segments for row in store.segment(key, segment)]
            found[key] = (result.metrics, result.files, rows)
    return found


def runs(world: World) -> list[tuple[str, str, str, dict[str, list[tuple[int, float]]]]]:
    """What MLflow has of the study in a folder."""
    return runs_of(world.mlflow, world.name or next(iter(world.store.manifests()))["study"])


def runs_of(tracking_uri: str, name: str) -> list[tuple[str, str, str, dict[str, list[tuple[int, float]]]]]:
    """What MLflow has of a study: (kind, key or name, status, metric -> sorted (step, value)) of every run."""
    client = MlflowClient(tracking_uri=tracking_uri)
    found = []
    for run in client.search_runs([client.get_experiment_by_name(name).experiment_id]):
        tags, run_id = run.data.tags, run.info.run_id
        points = {m: sorted((p.step, p.value) for p in client.get_metric_history(run_id, m)) for m in run.data.metrics}
        identity = tags.get("quarterturn.key") or tags.get("quarterturn.cell") or ""
        found.append((tags["kind"], identity, run.info.status, points))
    return sorted(found, key=lambda run: run[:2])
