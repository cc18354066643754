"""The histories of many trials in one frame: each journal is read once, whatever becomes of the cache."""

import dataclasses

import polars as pl
import pytest

from analysis import histories as module
from analysis.histories import histories
from analysis.results import load_study
from orchestrator.store import DamagedResult, Result, Store


class Trials:
    """Writes trials with two metrics and two segments, and remembers which journals were read."""

    def __init__(self, folder):
        self.store, self.read = Store(str(folder / "results")), []
        rows = self.store.rows
        self.store.rows = lambda result: (self.read.append(result.key), rows(result))[1]

    def publish(self, key, factor=1.0):
        segments = [
            self.store.write_segment(key, f"{s}", [[m, s, factor * s, 0] for m in ("train/loss", "val/dice")])
            for s in range(2)
        ]
        self.store.publish(Result(key, {}, {}, segments, 0.0, 1.0, 1.0, 1, 0.0, {}))

    def load(self, *keys):
        entries = [{"key": key, "upstream": [], "named": True} for key in keys]
        return load_study(self.store, {"trials": entries})


@pytest.fixture
def trials(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "cache_dir", lambda: tmp_path / "cache")
    return Trials(tmp_path)


def chunks(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.parquet"))


def test_the_frame_is_all_histories_one_after_the_other(trials):
    for key, factor in (("b", 2.0), ("a", 1.0)):
        trials.publish(key, factor)
    frame = histories(trials.load("b", "a", "waits"), ["a", "waits", "b"])
    assert frame.schema == {"key": pl.String, "metric": pl.String, "step": pl.Int64, "value": pl.Float64}
    assert frame.rows() == [
        (key, metric, step, factor * step)
        for key, factor in (("a", 1.0), ("b", 2.0))
        for metric in ("train/loss", "val/dice")
        for step in range(2)
    ]
    results = trials.load("a")
    alone = results.history("a").sort("metric", maintain_order=True)
    assert frame.filter(key="a").drop("key").equals(alone)


def test_only_what_is_new_is_read(trials):
    trials.publish("a")
    histories(trials.load("a"))
    trials.publish("b")
    both = histories(trials.load("a", "b"))
    assert trials.read == ["a", "b"]
    assert histories(trials.load("a", "b")).equals(both)
    assert histories(trials.load("b")).equals(both.filter(key="b"))
    assert histories(trials.load()).is_empty()
    assert trials.read == ["a", "b"]


def test_a_trial_that_was_computed_again_is_read_again(trials):
    trials.publish("a")
    histories(trials.load("a"))
    trials.store.set_aside("a")
    trials.publish("a", factor=3.0)
    assert histories(trials.load("a"))["value"].to_list() == [0.0, 3.0, 0.0, 3.0]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:]])
def test_a_damaged_chunk_is_made_anew(trials, tmp_path, damage):
    trials.publish("a")
    before = histories(trials.load("a"))
    (chunk,) = chunks(tmp_path)
    whole = chunk.read_bytes()
    chunk.write_bytes(damage(whole))
    assert histories(trials.load("a")).equals(before)
    assert trials.read == ["a", "a"]
    assert chunk.read_bytes() == whole


def test_many_small_chunks_become_one(trials, tmp_path):
    keys = [f"k{n:02d}" for n in range(20)]
    for number, key in enumerate(keys):
        trials.publish(key)
        histories(trials.load(*keys[: number + 1]))
    assert trials.read == keys
    assert len(chunks(tmp_path)) < 10
    assert histories(trials.load(*keys))["key"].unique(maintain_order=True).to_list() == keys
    assert trials.read == keys


def test_many_trials_are_several_chunks(trials, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TRIALS_A_CHUNK", 2)
    keys = ["a", "b", "c"]
    for key in keys:
        trials.publish(key)
    assert len(histories(trials.load(*keys))) == 12
    assert len(chunks(tmp_path)) == 2


def test_a_trial_in_two_chunks_is_there_once(trials, tmp_path):
    trials.publish("a")
    before = histories(trials.load("a"))
    (chunk,) = chunks(tmp_path)
    other = pl.read_parquet(chunk).vstack(pl.DataFrame(schema=pl.read_parquet(chunk).schema))
    module._write(chunk.parent, pl.concat([other, other]))
    assert len(chunks(tmp_path)) == 2
    assert histories(trials.load("a")).equals(before)


def test_a_journal_that_is_not_whole_is_said(trials):
    trials.publish("a")
    results = trials.load("a")
    result = dataclasses.replace(results.results["a"], segments=["0-000000000000.json"])
    broken = dataclasses.replace(results, results={"a": result})
    with pytest.raises(DamagedResult, match="is missing"):
        histories(broken)
