"""A search of many suggestions costs so much a suggestion, however many there are."""

import pytest
from counting import CountedStore, steps_in
from optuna.distributions import FloatDistribution
from toy import Bowl

from orchestrator import commands, graph, manifest_parts, plan
from orchestrator import manifest as manifests
from orchestrator.following import Manifests
from orchestrator.manifest import ManifestWriter, entries_of, manifest_of
from orchestrator.options import StudyOptions
from orchestrator.plan import make_plan
from orchestrator.printing import make_console
from orchestrator.search import decisions
from orchestrator.search.sampling import Attributes
from orchestrator.search.suggestions import Suggestions
from orchestrator.store import Result, Store, garbled_manifests
from orchestrator.study import Search, Study
from orchestrator.submission import _Submission
from orchestrator.verify import verify
from orchestrator.view import View
from trainables.api.identity import FileDigests, Keys

SPACE = {"x": FloatDistribution(0.0, 1.0)}


class Driver:
    """Makes suggestions of one search as a submission does; each has its result before the next is made."""

    def __init__(self, folder):
        self.store = CountedStore(str(folder))
        make = lambda params: {"val/loss": [Bowl(**params, y="flat", seed=seed) for seed in range(2)]}  # noqa: E731
        study = Study("s", "?", search=Search(SPACE, make, {"val/loss": "minimize"}, 1000))
        options = StudyOptions(storage=self.store.uri, cache_dir=folder / "cache")
        self.submission = _Submission(study, options, self.store, folder / "cache", make_console())
        self.suggestions = self.submission.suggestions
        first = self.submission.plan()
        self.manifest = ManifestWriter(
            self.store, manifest_of(first, "x", {}, self.submission.keys), self.submission.suggestions
        )
        self.manifest.write()
        self.view, self.done = View(first, make_console(), int), set()

    def suggest(self, count):
        for _ in range(count):
            study = self.suggestions.next(self.done, set())
            for trial in self.submission._suggested(study, self.manifest, self.view).runnable():
                self.store.publish(Result(trial.key, {"val/loss": 0.5}, {}, [], 0.0, 1.0, 1.0, 1, 0.0, {}))
                self.done.add(trial.key)


@pytest.fixture(autouse=True)
def at_random(monkeypatch):
    """Optuna's own time, which grows with what it has seen, is not the question."""
    found = lambda search, number, seen, untried, possible: (possible({"x": number / 1001}), Attributes())  # noqa: E731
    monkeypatch.setattr("orchestrator.search.suggestions.sample", found)


def test_twice_as_many_suggestions_cost_twice_as_much(tmp_path):
    steps, requests, written = [], [], []
    for count in (40, 80, 160):
        driver = Driver(tmp_path / str(count))
        driver.store.bytes_written = 0
        driver.store.requests.clear()
        modules = [manifests, manifest_parts, plan, graph, decisions]
        steps.append(steps_in(modules, lambda driver=driver, count=count: driver.suggest(count)))
        requests.append(driver.store.requests.total())
        written.append(driver.store.bytes_written)
    for found in (steps, requests, written):
        assert found[2] < 2.4 * found[1]
        assert found[1] < 2.4 * found[0]


def test_readers_meet_the_same_manifest_in_parts_and_whole(tmp_path):
    driver = Driver(tmp_path)
    driver.suggest(29)
    folder = f"studies/s/{driver.manifest._name.removesuffix('.json')}"
    assert driver.store.names(folder)
    (in_parts,) = Store(driver.store.uri).manifests()
    assert len(in_parts["trials"]) == 58
    states = [suggestion["state"] for suggestion in in_parts["search"]["suggestions"]]
    assert states == ["complete"] * 28 + ["running"]  # as things stood when the last was added
    driver.suggestions.update(driver.done, set())
    driver.manifest.write()
    assert not driver.store.names(folder)
    (whole,) = Store(driver.store.uri).manifests()
    assert in_parts["trials"] == whole["trials"]
    assert whole["search"] == driver.suggestions.describe()
    last = whole["search"]["suggestions"].pop()
    assert last.pop("state") == "complete"
    assert in_parts["search"]["suggestions"][:-1] == whole["search"]["suggestions"]


def test_a_part_that_is_garbled_hides_nothing_else(tmp_path):
    driver = Driver(tmp_path)
    driver.suggest(29)
    folder = f"studies/s/{driver.manifest._name.removesuffix('.json')}"
    first, *_ = driver.store.names(folder)
    for content in (b"[", b'{"trials": [3, {"key": "k"}]}', b"[]"):
        driver.store.write_bytes(f"{folder}/{first}", content)
        (found,) = driver.store.manifests()
        assert len(found["trials"]) == 56
    driver.manifest.write()
    (whole,) = driver.store.manifests()
    assert len(whole["trials"]) == 58


def test_nothing_is_written_of_nothing_new(tmp_path):
    driver = Driver(tmp_path)
    driver.suggest(29)
    (found,) = driver.store.manifests()
    driver.suggestions.update(driver.done, set())
    driver.manifest.add(found["trials"])  # the last suggestion is complete now
    before = driver.store.bytes_written
    driver.manifest.add(found["trials"])
    assert driver.store.bytes_written == before


def test_a_study_without_a_search_has_a_whole_manifest_and_no_parts(tmp_path):
    store, keys = CountedStore(str(tmp_path)), Keys(FileDigests())
    study = Study("s", "?", {f"t{x}": Bowl(x / 10, "flat") for x in range(9)})
    entries = entries_of(make_plan(study, store, keys), keys)
    document = manifest_of(make_plan(study, store, keys), "x", {}, keys) | {"trials": entries[:8]}
    writer = ManifestWriter(store, document, Suggestions(study, store, keys))
    writer.write()
    for count in (8, 9, 9):
        writer.add(entries[:count])
        (name,) = store.names("studies/s")
        assert name.endswith(".json")
        (found,) = store.manifests()
        assert len(found["trials"]) == count


PARTS = [
    b"[",
    b"[]",
    b'{"trials": 3, "suggestions": []}',
    b'{"trials": [], "suggestions": [{"number": []}]}',
    b'{"trials": [{"key": [], "name": "x", "named": true}], "suggestions": []}',
    b'{"trials": [{"key": "k", "name": "x", "named": true}], "suggestions": []}',
]


@pytest.mark.parametrize("content", [*PARTS, None], ids=str)
def test_a_part_that_is_garbled_is_named_and_kept_and_gc_removes_nothing(tmp_path, content, capsys):
    driver = Driver(tmp_path)
    driver.suggest(29)
    folder = f"studies/s/{driver.manifest._name.removesuffix('.json')}"
    path = f"{folder}/{driver.store.names(folder)[0]}"
    garbled = content or driver.store.read_bytes(path).replace(b"true", b"false")  # it has a digest
    driver.store.write_bytes(path, garbled)
    assert [manifest["study"] for manifest in driver.store.manifests()] == ["s"]
    for _ in range(2):
        assert list(garbled_manifests(driver.store)) == [f"{driver.store.uri}/{path}"]
        with pytest.raises(ValueError, match=rf"{path} is garbled"):
            commands.gc(driver.store.uri, delete=True)
        commands.status(driver.store.uri)
        assert f"{path} is garbled" in capsys.readouterr().err
        verify(driver.store.uri)
        assert f"{path}: expected a part of a manifest with its digest" in capsys.readouterr().out
        driver.manifest.write()
        assert driver.store.names(folder) == [path.rsplit("/", 1)[1]]
        assert driver.store.read_bytes(path) == garbled


def test_parts_of_before_have_no_digest(tmp_path):
    driver = Driver(tmp_path)
    driver.suggest(29)
    folder = f"studies/s/{driver.manifest._name.removesuffix('.json')}"
    for name in driver.store.names(folder):
        document = driver.store.read_document(f"{folder}/{name}")
        assert document.pop("digest")
        driver.store.write_document(f"{folder}/{name}", document)
    assert list(garbled_manifests(driver.store)) == []
    (found,) = driver.store.manifests()
    assert len(found["trials"]) == 58


def test_a_feeder_reads_only_the_parts_that_are_new(tmp_path):
    driver = Driver(tmp_path)
    driver.suggest(20)
    followed = Manifests(driver.store, "s")
    followed.refresh()
    driver.suggest(1)
    followed.grow()
    assert followed.entries.keys() == driver.done
    driver.suggest(1)
    driver.store.requests.clear()
    followed.grow()
    assert followed.entries.keys() == driver.done
    assert driver.store.requests == {"list": 1, "read": 1}
