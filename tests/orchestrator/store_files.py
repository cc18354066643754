"""The documents of a store, by kind: those of two small trials and a search, and what reads them (see ``fuzzing``)."""

import gzip
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from fuzzing import Mutate, Parser
from optuna.distributions import FloatDistribution
from toy import Climb

from analysis.results import latest_manifests
from orchestrator.checkpoints import start_of
from orchestrator.claims import Claim, is_held
from orchestrator.documents import sealed
from orchestrator.failures import last_crash
from orchestrator.inputs import KnownPart, recorded_digests
from orchestrator.manifest_parts import write_part
from orchestrator.plan import failure_text, make_plan
from orchestrator.search.suggestions import Suggestions
from orchestrator.store import (
    DamagedResult,
    Failure,
    Generation,
    Lineage,
    Result,
    SavedState,
    Store,
    garbled_manifests,
)
from orchestrator.study import Search, Study
from trainables.api.identity import FileDigests, Keys, digest_of_all

DONE, BEGUN = "d" * 20, "b" * 20
FAMILY = "f" * 20
DIGESTS = {"a.png": "1" * 64, "b.png": "2" * 64}

Make = Callable[[Path], Parser]


@dataclass(frozen=True)
class Filled:
    """A store with one of everything."""

    store: Store
    folder: Path

    def path(self, name: str) -> Path:
        """Of a document; a star stands for the only one."""
        (found,) = (self.folder / "store").glob(name)
        return found


def _search() -> Study:
    def make(params: dict[str, float]) -> dict[str, list[Climb]]:
        return {"val/loss": [Climb(params["x"], 3)]}

    space = {"x": FloatDistribution(0.0, 1.0)}
    return Study("s", "?", search=Search(space, make, {"val/loss": "minimize"}, num_suggestions=5))


def filled(folder: Path) -> Filled:
    """A finished training, one that was killed and one that failed, a manifest and two suggestions."""
    store, out = Store(str(folder / "store")), folder / "out"
    out.mkdir()
    (out / "encoder.pt").write_bytes(bytes(range(200)))
    np.savez(out / "samples.npz", map=np.ones((2, 3)))
    rows = [["train/loss", step, 0.5, 1000 + step] for step in range(3)]
    files = store.upload(out, f"trials/{DONE}/published/t")
    state = SavedState("t", store.upload(out, f"trials/{DONE}/state/t"), [store.write_segment(DONE, "001-a", rows)])
    segments = [*state.segments, store.write_segment(DONE, "001-b", rows)]
    made = {"code_version": "1", "device": "cpu"}
    store.publish(
        Result(DONE, {"val/loss": 0.5}, files, segments, 1.0, 2.0, 1.0, 1, 5.0, made, "t", 3, state, Lineage("c", 1)),
        FAMILY,
    )
    _begin(store, out)
    failure = Failure("crash", "the network share went away", "Traceback", 2, 5.0)
    store.note_crash(BEGUN, failure)
    store.record_failure(BEGUN, failure)
    Claim(store, f"trials/{BEGUN}").acquire()
    store.write_document(f"damaged/{BEGUN}.json", "x is missing")
    content = gzip.compress(json.dumps(DIGESTS, sort_keys=True).encode(), mtime=0)
    store.write_bytes(f"data/{digest_of_all(DIGESTS)}.json.gz", content)
    suggestions = Suggestions(_search(), store, Keys(FileDigests()))
    for _ in range(2):
        suggestions.next(set(), set())
    entry = {"key": DONE, "name": "a", "class": "Climb", "role": "trained", "labels": {}, "configuration": {"x": 1}}
    entry |= {"upstream": [], "named": True}
    manifest = {"study": "s", "trials": [entry], "submitted_at": 5.0, "search": suggestions.describe()}
    store.write_document("studies/s/0123456789abcdef.json", manifest)
    write_part(store, "s", "0123456789abcdef.json", [entry | {"key": BEGUN}], [{"number": 3}], 2)
    shutil.rmtree(out)
    return Filled(store, folder)


def _begin(store: Store, out: Path) -> None:
    store.write_document(f"trials/{BEGUN}/trial.json", {"key": BEGUN, "attempt": 2, "configuration": {"x": 1}})
    checkpoint = store.upload(out, f"trials/{BEGUN}/checkpoints/002-00001")
    np.savez(out / "002-00000.npz", **{"0/map": np.ones((2, 3))})
    items = store.upload(out, f"trials/{BEGUN}/items")
    segments = [store.write_segment(BEGUN, "002-00002", [["train/loss", 0, 0.5, 1000]])]
    generation = Generation(
        "002-00003", "checkpoints/002-00001", checkpoint, ["002-00000.npz"], items, segments, 0.5, 2, 1.0, 3.0, 1.5
    )
    store.write_generations(BEGUN, [generation])


# -- what is changed behind a digest -----------------------------------------------------------------


def _sealed(content: bytes, mutate: Mutate) -> bytes:
    """A changed result with the digest that belongs to it, if it is one still."""
    try:
        document = json.loads(mutate(content))
        document.pop("digest", None)
        return json.dumps(sealed(document)).encode()
    except (ValueError, AttributeError, TypeError, RecursionError):
        return content[:-1]


def _in_gzip(content: bytes, mutate: Mutate) -> bytes:
    return gzip.compress(mutate(gzip.decompress(content)), 1, mtime=0)


# -- readers -----------------------------------------------------------------------------------------


def _parser(
    name: str,
    readers: Callable[[Filled], Sequence[Callable[[], object]]],
    folder: Path,
    *,
    says: Sequence[str] = (),
    may_write: bool = False,
    inside: Callable[[bytes, Mutate], bytes] = lambda content, mutate: mutate(content),
) -> Parser:
    """Of a document; readers that name it in ``says`` may call it damaged, all others have to go on without it."""
    made = filled(folder)
    path = made.path(name)
    others = [
        other.read_bytes() for other in sorted((folder / "store").rglob("*")) if other.is_file() and other != path
    ]
    reading = [lambda path, read=read: read() for read in readers(made)]
    allowed = (DamagedResult,) if says else ()
    return Parser(path, [path.read_bytes()], reading, allowed, says, others, may_write, inside)


def _result(made: Filled) -> list[Callable[[], object]]:
    store = made.store
    return [lambda: store.look(DONE), store.finished, lambda: list(store.shorter(FAMILY, 9))]


def _result_used(made: Filled) -> list[Callable[[], object]]:
    store = made.store

    def rows() -> None:
        if (result := store.result(DONE)) is not None:
            store.rows(result)

    return [lambda: store.fetch(DONE, made.folder / "cache"), rows]


def _settled(made: Filled) -> list[Callable[[], object]]:
    return [lambda: made.store.settle_damage(DONE)]


def _of_begun(made: Filled) -> list[Callable[[], object]]:
    store, key = made.store, BEGUN

    def failure() -> None:
        if (found := store.failure(key)) is not None:
            failure_text(found)

    readers = [failure, lambda: last_crash(store, key), lambda: store.generations(key), lambda: store.look(key)]
    return [*readers, lambda: is_held(store, f"trials/{key}")]


def _waited_for(made: Filled) -> list[Callable[[], object]]:
    def wait() -> None:
        said: list[str] = []
        claim = Claim(made.store, f"trials/{BEGUN}", said.append)
        if claim.acquire(may_wait=lambda: False):
            claim.release()

    return [wait]


def _start(made: Filled) -> list[Callable[[], object]]:
    names = (f"003-{number:05d}" for number in range(10**9))

    def start() -> None:
        start_of(made.store, BEGUN, 3, made.folder / "work", None, names, lambda message: None)

    return [start]


def _manifests(made: Filled) -> list[Callable[[], object]]:
    store = made.store
    return [lambda: latest_manifests(store), lambda: list(garbled_manifests(store))]


def _suggestions(made: Filled) -> list[Callable[[], object]]:
    def planned() -> None:
        keys = Keys(FileDigests())
        suggestions = Suggestions(_search(), made.store, keys)
        suggestions.update(set(), set())
        suggestions.describe()
        suggestions.best()
        make_plan(suggestions.study(), made.store, keys) if suggestions.study().trials else None

    return [planned]


def _digests(made: Filled) -> list[Callable[[], object]]:
    known = KnownPart(None, "key", digest_of_all(DIGESTS))
    return [lambda: recorded_digests(known, made.store)]


PARSERS: dict[str, Make] = {
    "result": partial(_parser, f"results/{DONE}.json", _result, inside=_sealed),
    "result-used": partial(_parser, f"results/{DONE}.json", _result_used, says=[DONE], may_write=True, inside=_sealed),
    "result-settled": partial(_parser, f"results/{DONE}.json", _settled, may_write=True, inside=_sealed),
    "family": partial(_parser, f"families/{FAMILY}/3.json", _result),
    "damage": partial(_parser, f"damaged/{BEGUN}.json", _of_begun),
    "published": partial(
        _parser, f"trials/{DONE}/published/t/samples.npz", _result_used, says=["samples.npz"], may_write=True
    ),
    "segment": partial(_parser, f"trials/{DONE}/journal/001-b*", _result_used, says=["001-b"], may_write=True),
    "failure": partial(_parser, f"trials/{BEGUN}/failure.json", _of_begun),
    "crash": partial(_parser, f"trials/{BEGUN}/crash.json", _of_begun),
    "trial": partial(_parser, f"trials/{BEGUN}/trial.json", _of_begun),
    "claim": partial(_parser, f"trials/{BEGUN}/claim.json", _of_begun),
    "claim-waited": partial(_parser, f"trials/{BEGUN}/claim.json", _waited_for, may_write=True),
    "progress": partial(_parser, f"trials/{BEGUN}/progress/*", _of_begun),
    "progress-used": partial(_parser, f"trials/{BEGUN}/progress/*", _start, may_write=True),
    "checkpoint": partial(_parser, f"trials/{BEGUN}/checkpoints/002-00001/encoder.pt", _start, may_write=True),
    "items": partial(_parser, f"trials/{BEGUN}/items/002-00000.npz", _start, may_write=True),
    "manifest": partial(_parser, "studies/s/0123456789abcdef.json", _manifests),
    "part": partial(_parser, "studies/s/0123456789abcdef/*", _manifests),
    "part-sealed": partial(_parser, "studies/s/0123456789abcdef/*", _manifests, inside=_sealed),
    "suggestion": partial(_parser, "studies/s/suggestions/000001.json", _suggestions),
    "digests": partial(_parser, "data/*", _digests, says=["data/"], inside=_in_gzip),
}
