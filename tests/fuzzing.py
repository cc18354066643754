"""Readers of files held against mutated files: which errors come out, what is opened, how long it takes, how large.

A test starts this file as a process of its own (``Fuzzer``), which forks for each parser: a parser that hangs, dies or
wants the whole memory ends its fork only, and the test says so.
"""

import contextlib
import faulthandler
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mutations

LONGEST_CASE_S = 20  # of a processor; by the clock, on a machine that does other things, far longer
_LONGEST_WAIT_S = 600
MOST_BYTES = 3 << 30  # more than the process had: an image of as many pixels as are allowed, in float64, and its square
_MOST_FINDINGS = 10
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect")
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
_LIBRARIES = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]), "/proc/", "/sys/", "/etc/", "/usr/", "/dev/")

Mutate = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Parser:
    """A kind of file, examples of it, and what reads it."""

    path: Path
    """Where its reader finds it."""
    valid: Sequence[bytes]
    """What may lie there, and is read by the first reader."""
    readers: Sequence[Callable[[Path], object]]
    allowed: tuple[type[Exception], ...]
    """What a reader may raise; says which file is meant."""
    names: Sequence[str] = ()
    """Of the files that an error may mean; by default the file's own."""
    others: Sequence[bytes] = ()
    """Content of other files, of which a part may come in."""
    may_write: bool = False
    """Whether readers may change files of the folder."""
    inside: Callable[[bytes, Mutate], bytes] = lambda content, mutate: mutate(content)
    """Changes what a checksum or a compression would guard, so that the change is met behind it."""


class Fuzzer:
    """A process with all parsers of a module, each made by a function of a folder; for ``with``."""

    def __init__(self, module: str, folder: Path) -> None:
        command = [sys.executable, __file__, module, str(folder)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> "Fuzzer":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate("")

    def findings(self, parser: str, num_cases: int, seed: int = 0) -> list[str]:
        """What went wrong in so many cases, each with what finds it again."""
        self._process.stdin.write(f"{json.dumps([parser, num_cases, seed])}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def case(parser: Parser, name: str, seed: int, number: int) -> tuple[bytes, str]:
    """The bytes of one case, and what was done to valid ones."""
    rng, done = random.Random(f"{name} {seed} {number}"), []

    def mutate(content: bytes) -> bytes:
        changed, what = mutations.mutated(content, rng, (*parser.valid, *parser.others))
        done.append(what)
        return changed

    content = rng.choice((*parser.valid, *parser.others))
    goes_inside = content in parser.valid and rng.random() < 0.5
    content = parser.inside(content, mutate) if goes_inside else mutate(content)
    return content, done[0]


def main() -> None:
    """Answer each line of the input."""
    module, folder = importlib.import_module(sys.argv[1]), Path(sys.argv[2])
    for line in sys.stdin:
        name, num_cases, seed = json.loads(line)
        report = folder / f"{name}.json"
        report.write_text("[]")
        pid = os.fork()
        if pid == 0:
            _run(module.PARSERS[name], name, num_cases, seed, folder / name, report)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        found = json.loads(report.read_text())
        if status:
            found.append(f"it ended the process with the status {status}, or did not end")
        print(json.dumps(found), flush=True)


def _run(make: Callable[[Path], Parser], name: str, num_cases: int, seed: int, folder: Path, report: Path) -> None:
    folder.mkdir(parents=True)
    parser, elsewhere = make(folder), folder.with_suffix(".elsewhere")
    elsewhere.mkdir()
    os.chdir(elsewhere)
    watch = _Watch(folder, parser.may_write)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MOST_BYTES, in_use + MOST_BYTES))
    found = [f"valid content {number}: {what}" for number, what in enumerate(_refusals(parser)) if what]
    for number in range(num_cases):
        content, done = case(parser, name, seed, number)
        parser.path.write_bytes(content)
        os.utime(parser.path, ns=(number, number + 1))  # tables are kept as long as size and time stay the same
        report.write_text(json.dumps([*found, f"case {number}: {done}"]))
        signal.setitimer(signal.ITIMER_PROF, LONGEST_CASE_S)  # which ends the process
        faulthandler.dump_traceback_later(_LONGEST_WAIT_S, exit=True)
        found += [f"case {number}: {done}: {what}" for what in _problems(parser, watch)]
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        if len(found) >= _MOST_FINDINGS:
            break
    found += [f"it left {path}" for path in elsewhere.iterdir()]
    shutil.rmtree(folder)
    report.write_text(json.dumps(found))


def _refusals(parser: Parser) -> list[str]:
    """What is said of each valid content: if it were refused, nothing behind would be tried."""
    said = []
    for number, content in enumerate(parser.valid):
        parser.path.write_bytes(content)
        os.utime(parser.path, ns=(0, -1 - number))
        said.append(_problem(replace(parser, allowed=()), parser.readers[0]))
    return said


def _problems(parser: Parser, watch: "_Watch") -> list[str]:
    problems = []
    for read in parser.readers:
        before = _files(watch.folder)
        with watch:
            problem = _problem(parser, read)
        if problem:
            problems.append(problem)
        problems += [f"it did {deed}" for deed in watch.deeds]
        if not parser.may_write and _files(watch.folder) != before:
            problems.append("it changed a file")
    return problems


def _problem(parser: Parser, read: Callable[[Path], object]) -> str:
    try:
        read(parser.path)
    except BaseException as error:
        chain, cause = [], error
        while cause is not None:
            chain.append(cause)
            cause = cause.__cause__ or cause.__context__
        if any(isinstance(each, MemoryError) for each in chain) or not isinstance(error, parser.allowed):
            where = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {str(error)[:300]} ({where.filename}:{where.lineno})"
        if not any(name in str(error) for name in parser.names or (parser.path.name,)):
            return f"names no file: {type(error).__name__}: {str(error)[:300]}"
    return ""


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            state = path.stat()
            found[str(path)] = state.st_size, state.st_mtime_ns
    return found


class _Watch:
    """Sees what is opened or started beside the files of a folder and of libraries; for ``with``."""

    def __init__(self, folder: Path, may_write: bool) -> None:
        self.folder, self.deeds, self._is_on, self._may_write = folder, [], False, may_write
        self._places = (str(folder), *_LIBRARIES)
        sys.addaudithook(self._hear)

    def __enter__(self) -> None:
        self.deeds, self._is_on = [], True

    def __exit__(self, *_: object) -> None:
        self._is_on = False

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._is_on and (event in _PROGRAMS or (event in _CHANGES and not self._may_write)):
            self.deeds.append(f"{event} {arguments}")
        if self._is_on and event == "open" and isinstance(arguments[0], str | bytes):
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            places = (str(self.folder),) if writes and self._may_write else () if writes else self._places
            if not os.path.abspath(os.fsdecode(path)).startswith(places):
                self.deeds.append(f"{event} {arguments}")


if __name__ == "__main__":
    main()
