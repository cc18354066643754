"""Disks that are full or read-only: a small one of memory, seen by the study and nobody else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from random import Random

import pytest
from fault import NewWorld, at_a_moment
from world import World

_DISK = "mount -t tmpfs -o size=64m none {storage} && echo mounted && cat"


class Disk:
    """A disk of 64 MB under a world's storage; what is to see it runs ``inside``."""

    def __init__(self, world: World) -> None:
        world.storage.mkdir()
        self._storage = world.storage
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _DISK.format(storage=world.storage)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if self._holder.stdout.readline() != "mounted\n":
            pytest.skip("a disk that fills needs the right to mount one (root)")
        self._inside = ("nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt")
        self._world, world.inside = world, self._inside
        world.seen_at = f"/proc/{self._holder.pid}/root{world.storage}"

    def run(self, command: str) -> int:
        """A shell's exit status where the disk is seen."""
        return subprocess.run([*self._inside, "sh", "-c", command], stderr=subprocess.DEVNULL, check=False).returncode

    def fill(self) -> None:
        """Until nothing more goes onto it."""
        self.run(f"cat /dev/zero > {self._storage}/filler; cat /dev/zero > {self._storage}/more")

    def free(self) -> None:
        """Remove what filled it."""
        self.run(f"rm -f {self._storage}/filler {self._storage}/more")

    def remount(self, how: str) -> None:
        """ "ro" or "rw"."""
        assert self.run(f"mount -o remount,{how} {self._storage}") == 0

    def end(self) -> None:
        """What is on it stays, where everybody sees it; the disk goes."""
        self.run(f"cp -a {self._storage} {self._storage}.kept")
        self._world.inside, self._world.seen_at = (), ""
        self._holder.stdin.close()
        self._holder.wait(timeout=30)
        os.rmdir(self._storage)
        shutil.move(f"{self._storage}.kept", self._storage)


def refused(new_world: NewWorld, moments: Random, times: int) -> None:
    """Full from the start, read-only, no HOME to write to: one line and exit status 2, before Ray starts."""
    world = new_world()
    disk = Disk(world)
    disk.fill()
    assert_refused(world)
    disk.free()
    disk.remount("ro")
    assert_refused(world)
    disk.remount("rw")
    (world.folder / "file").touch()
    assert_refused(world, "--cache-dir", str(world.folder / "file"), HOME=str(world.folder / "file"))
    assert world.store.names("") == []
    world.finish()
    disk.end()


def assert_refused(world: World, *flags: str, **environment: str) -> None:
    """The command ends with one line more and status 2."""
    begun = len(world.output.splitlines())
    world.disturbed()
    world.ends(world.start(0.0, *flags, **environment), 2)
    (line,) = world.output.splitlines()[begun:]
    assert line.startswith("error: cannot write to the "), line


def full_in_mid_study(new_world: NewWorld, moments: Random, times: int) -> None:
    """Full while trials run, and until the user has interrupted the study that waits; then there is space again."""
    world = new_world()
    disk = Disk(world)
    driver = world.start(1.0)
    at_a_moment(world, driver, world.num_noted, moments, 4.0)
    world.disturbed()
    disk.fill()
    assert world.wait(driver, lambda: "waiting for space" in world.output), world.output
    driver.send_signal(signal.SIGINT)
    world.ends(driver, 130)
    disk.free()
    world.finish()
    disk.end()


def full_for_a_moment(new_world: NewWorld, moments: Random, times: int) -> None:
    """Full until the study has said so, then there is space again: the study goes on."""
    world = new_world()
    disk = Disk(world)
    driver = world.start(1.0)
    at_a_moment(world, driver, world.num_noted, moments, 4.0)
    world.disturbed()
    disk.fill()
    assert world.wait(driver, lambda: "waiting for space" in world.output), world.output
    disk.free()
    world.ends(driver)
    disk.end()
