"""Files are hashed once for a submission; its trials know keys and digests without reading any."""

import gzip
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from toy import Count

from orchestrator.attempt import Payload
from orchestrator.failures import last_crash
from orchestrator.inputs import KnownPart, find, known_parts, record_digests, recorded_digests
from orchestrator.manifest import manifest_of
from orchestrator.plan import make_plan
from orchestrator.store import DamagedResult, Store
from orchestrator.study import Study
from orchestrator.trial import run_trial
from trainables.api import identity
from trainables.api.identity import FileDigests, Keys, key_of
from trainables.api.trainable import Part, Trainable, recorded


@dataclass(frozen=True)
class Images(Part):
    root: Path = recorded(None)
    num_files: int = 50

    def source_files(self):
        return {f"{i:06d}": self.root / f"{i:06d}" for i in range(self.num_files)}

    def content(self, digests):
        return [[name, digest] for name, digest in sorted(digests.items())]


@dataclass(frozen=True)
class Training(Trainable):
    images: Images = Images()
    rate: float = 0.1
    upstream: Trainable | None = None
    stranger: Part | None = recorded(None)

    def run(self, context):
        digests = context.digests(self.images)
        assert isinstance(digests, Mapping)
        (context.output_dir / "key").write_text(context.key(self.images))
        if self.upstream is not None:
            assert (context.result_dir(self.upstream) / "key").read_text() == context.key(self.images)
        if self.stranger is not None:
            context.key(Count(99))
        return {"files": float(len(digests)), "first": float(int(digests["000000"][:8], 16))}


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(50):
        (tmp_path / "images" / f"{i:06d}").write_bytes(bytes([i]))
    return Images(tmp_path / "images")


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "results"))


def run_all(store, settings, trials, keys):
    plan = make_plan(Study("s", "?", trials), store, keys)
    record_digests((part for trial in plan.runnable() for part in trial.parts), store, keys)
    for trial in plan.runnable():
        run_trial(Payload.decode(Payload(trial, settings).encode()))
    return plan


def test_a_plan_and_three_trials_hash_each_file_once(store, quick_settings, images, tmp_path, monkeypatch):
    hashed, real = [], identity.sha256_of
    monkeypatch.setattr(identity, "sha256_of", lambda path: hashed.append(path) or real(path))
    base = Training(images)
    trials = {"base": base, "a": Training(images, 0.2, base), "b": Training(Images(images.root), 0.3, base)}
    keys = Keys(FileDigests(tmp_path / "digests.json"))
    plan = run_all(store, quick_settings(store), trials, keys)
    manifest_of(plan, "python x.py", {}, keys)
    assert sorted(hashed) == sorted(images.source_files().values())
    first = float(int(real(images.root / "000000")[:8], 16))
    for p in plan.planned:
        assert store.result(p.trial.key).metrics == {"files": 50.0, "first": first}
    assert len(store.names("data")) == 1
    published = store.fetch(plan.planned[0].trial.key, tmp_path) / "key"
    assert published.read_text() == key_of(images, FileDigests())


def test_a_trial_that_asks_for_a_stranger_is_told(store, quick_settings, images):
    plan = run_all(store, quick_settings(store), {"t": Training(images, stranger=images)}, Keys(FileDigests()))
    failure = store.failure(plan.planned[0].trial.key)
    assert "no part of this trial's configuration" in failure.message
    assert failure.kind == "invalid"


@dataclass(frozen=True)
class Share(Part):
    """As scikit-learn has it: 1 is one, 1.0 is all."""

    images: int | float = 1


@dataclass(frozen=True)
class Shares(Trainable):
    one: Share = Share(1)
    all: Share = Share(1.0)

    def run(self, context):
        return {}


def test_equal_parts_with_keys_of_their_own_are_told_apart():
    keys, shares = Keys(FileDigests()), Shares()
    known = known_parts(shares, keys)
    assert shares.one == shares.all
    assert find(shares.one, known).key == keys.key(Share(1)) != keys.key(Share(1.0)) == find(shares.all, known).key


def test_changed_digests_are_refused(store, images):
    keys = Keys(FileDigests())
    known = known_parts(images, keys)
    record_digests(known, store, keys)
    digests = dict(recorded_digests(known[0], store))
    assert digests == keys.files(images)
    content = json.dumps({**digests, "000000": "0" * 64}).encode()
    store.write_bytes(f"data/{store.names('data')[0]}", gzip.compress(content))
    with pytest.raises(DamagedResult, match="garbled"):
        recorded_digests(known[0], store)
    record_digests(known, store, keys)
    assert recorded_digests(known[0], store) == digests


@pytest.mark.parametrize(
    "content", [gzip.compress(b"[" * 100_000, mtime=0), gzip.compress(b"", mtime=0)[:10] + b"\xff" * 20]
)
def test_damaged_digests_are_refused_in_whatever_way_they_fail(store, images, content):
    keys = Keys(FileDigests())
    (known,) = known_parts(images, keys)
    record_digests([known], store, keys)
    store.write_bytes(f"data/{store.names('data')[0]}", content)
    with pytest.raises(DamagedResult, match="garbled"):
        recorded_digests(known, store)


def test_lost_digests_blame_nobody_and_come_back(store, quick_settings, images):
    settings, keys = quick_settings(store), Keys(FileDigests())
    plan = make_plan(Study("s", "?", {"t": Training(images)}), store, keys)
    (trial,) = plan.runnable()
    parts = trial.parts
    record_digests(parts, store, keys)
    store.write_bytes(f"data/{store.names('data')[0]}", b"garbled")
    run_trial(Payload(trial, settings))
    assert "garbled" in last_crash(store, trial.key).message
    assert store.failure(trial.key) is None
    run_all(store, settings, {"t": Training(images)}, keys)
    assert store.result(trial.key) is not None


def test_the_keys_that_travel_are_those_of_the_plan(images):
    keys = Keys(FileDigests())
    training = Training(images, 0.2, Training(images))
    known = known_parts(training, keys)
    assert {entry.key for entry in known} == {keys.key(part) for part in (training, training.upstream, images)}
    assert find(Images(images.root), known).key == keys.key(images)
    with pytest.raises(ValueError, match="hold it in a field"):
        find(Images(images.root, 3), known)


def test_five_thousand_trials_over_one_large_data_set_take_seconds(store, tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "sha256_of", lambda path: "0" * 64)
    monkeypatch.setattr(Path, "stat", lambda path, **options: type("S", (), {"st_size": 1, "st_mtime_ns": 1}))
    images = Images(tmp_path / "absent", 100_000)
    base = Training(images)
    trials = {str(i): Training(images, i / 5000 + 1, base) for i in range(5000)}
    begun = time.process_time()
    plan = make_plan(Study("s", "?", trials), store, Keys(FileDigests()))
    assert len(plan.planned) == 5001
    assert time.process_time() - begun < 15


def test_digests_lost_from_the_store_are_named(store):
    with pytest.raises(DamagedResult, match="submit again"):
        recorded_digests(KnownPart(None, "k", "d"), store)
