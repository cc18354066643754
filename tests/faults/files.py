"""Every kind of file of a half-done study is garbled, truncated, or of another shape; all in this process."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

from fault import NewWorld
from toy import Count, Diverge, Grow, Squares
from world import World

from orchestrator import commands
from orchestrator.attempt import Payload, Settings
from orchestrator.claims import _this_process
from orchestrator.manifest import manifest_of
from orchestrator.plan import Plan, make_plan
from orchestrator.reporting import report_on
from orchestrator.store import DamagedResult
from orchestrator.study import Resources, Study
from orchestrator.trial import run_trial
from trainables.api.identity import FileDigests, Keys

NAME = "garbled"
_MOST_SUBMISSIONS = 4
_READER_ERRORS = (ValueError, OSError)  # of which `python -m orchestrator` makes one line


@dataclasses.dataclass(frozen=True)
class Stops(Squares):
    """Is interrupted at an item, where a file says so."""

    def square(self, items):
        if 6 in items and self.log_path.with_suffix(".stops").exists():
            raise KeyboardInterrupt
        return super().square(items)


# What becomes of a file's content, given that of another file.
WAYS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "empty": lambda content, other: b"",
    "half": lambda content, other: content[: len(content) // 2],
    "flipped": lambda content, other: bytes(b ^ 1 if i % 7 == 3 else b for i, b in enumerate(content)),
    "a list": lambda content, other: b"[]",
    "a mapping": lambda content, other: b"{}",
    "another's": lambda content, other: other,
}


def trials(folder: Path, *, is_stopped: bool) -> dict[str, object]:
    """Two that are done in the half-done store, two that are on their way, one that fails, one that did not begin."""
    base = Count(3, log_path=folder / "base")
    return {
        "base": base,
        "short": Grow(2, log_path=folder / "short"),
        "long": Grow(6, stop_at=5 if is_stopped else None, log_path=folder / "long"),
        "items": Stops(8, 2, log_path=folder / "items"),
        "diverges": Diverge(),
        "tuned": Count(2, 2, upstream=base, log_path=folder / "tuned"),
    }


class Session:
    """What a submission does, without Ray: plan, run, report."""

    def __init__(self, world: World, *, is_stopped: bool = False) -> None:
        self.world, self.store = world, world.store
        cache = world.folder / "cache"
        self.study = Study(NAME, "?", trials(world.folder, is_stopped=is_stopped), report="fault_study:report")
        self.keys = Keys(FileDigests(cache / "digests.json"))
        self.settings = Settings(self.store.uri, cache, Resources(), {"code_version": "test"}, 0.0)

    def plan(self) -> Plan:
        """As `--plan` makes it."""
        return make_plan(self.study, self.store, self.keys)

    def submit(self, names: set[str] | None = None) -> None:
        """Write the manifest, run the trials (of these names), and report on them."""
        plan = self.plan()
        manifest = manifest_of(plan, "python x.py", {"code_version": "test"}, self.keys)
        manifest["submitted_at"] = 1.0
        self.store.write_document(f"studies/{NAME}/submission.json", manifest)
        for trial in plan.runnable():
            if names is None or trial.name in names:
                with contextlib.suppress(KeyboardInterrupt):
                    run_trial(Payload(trial, self.settings), say=lambda message: None)
        self.read_all()
        report_on(self.study, self.store, manifest, self.plan(), lambda said: None)

    def read_all(self) -> None:
        """As a report does: whoever meets damage leaves word of it."""
        for key in self.store.finished():
            with contextlib.suppress(DamagedResult):
                self.store.fetch(key, self.settings.cache_dir)
                if (result := self.store.result(key)) is not None:
                    self.store.rows(result)

    def sync(self) -> None:
        """As a person does who reads what it says."""
        try:
            commands.sync(str(self.world.storage))
        except ValueError as error:
            if "move it away" not in str(error):
                raise
            for path in self.world.storage.glob("mlflow.db*"):
                path.unlink()
            commands.sync(str(self.world.storage))


def half_done(world: World) -> None:
    """A store whose study was killed on its way, with a file of every kind."""
    (world.folder / "items.stops").touch()
    session = Session(world, is_stopped=True)
    session.submit({"base", "short", "long", "items", "diverges"})
    session.sync()
    (open_key,) = (p.trial.key for p in session.plan().planned if p.trial.name == "long")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    claim = {**_this_process(), "pid": dead.pid, "token": "gone", "beat": 3}
    session.store.write_document(f"trials/{open_key}/claim.json", claim)
    (world.folder / "items.stops").unlink()


def kinds(storage: Path) -> dict[str, list[Path]]:
    """Files of a store by kind: their path without what tells one from the other."""
    found: dict[str, list[Path]] = {}
    for path in sorted(path for path in storage.rglob("*") if path.is_file()):
        if "mlflow-artifacts" not in path.parts and path.suffix not in (".db-wal", ".db-shm"):
            kind = re.sub(r"[0-9a-f]{6,}|\d+", "*", path.relative_to(storage).as_posix())
            found.setdefault(kind, []).append(path)
    return found


def garble(new_world: NewWorld, moments: Random, times: int) -> None:
    """One file at a time: readers change nothing, and the next submissions make all of it right again."""
    original, undisturbed = new_world(name=NAME), new_world(name=NAME)
    finish(undisturbed)
    original.compare = undisturbed.compare = undisturbed
    half_done(original)
    cases = [(paths, way) for paths in kinds(original.storage).values() for way in WAYS]
    for paths, way in moments.sample(cases, min(times, len(cases))):
        world = new_world(name=NAME, compare=undisturbed)
        shutil.copytree(original.folder, world.folder, dirs_exist_ok=True)
        path = world.storage / paths[0].relative_to(original.storage)
        other = paths[1] if len(paths) > 1 else moments.choice(sorted(original.storage.rglob("*.json")))
        world.label = f"{way}: {path.relative_to(world.folder)}"
        path.write_bytes(WAYS[way](path.read_bytes(), other.read_bytes()))
        world.disturbed()
        world.finished_before[-1] = {
            key: seen for key, seen in world.finished_before[-1].items() if key not in str(path)
        }
        read(world)
        finish(world)
    finish(original)


def read(world: World) -> None:
    """Plan, status and gc look at it, and change nothing."""
    before = digests(world.storage)
    session = Session(world)
    with contextlib.redirect_stdout(io.StringIO()):
        session.plan()
        commands.status(str(world.storage))
        with contextlib.suppress(*_READER_ERRORS):
            commands.gc(str(world.storage))
    assert digests(world.storage) == before


def finish(world: World) -> None:
    """Submit until nothing is left to do."""
    session = Session(world)
    for _ in range(_MOST_SUBMISSIONS):
        session.submit()
        session.sync()
        session.read_all()
        if not session.plan().runnable():
            return
    raise AssertionError(f"there is always something to run: {session.plan().runnable()}")


def digests(folder: Path) -> dict[str, str]:
    """Of all files below a folder, but those that SQLite makes when it reads."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".db-wal", ".db-shm")
    }
