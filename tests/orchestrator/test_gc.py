"""What gc removes, and what it never does."""

import dataclasses
import os
import time
import uuid

import pytest
import toy

from orchestrator import commands
from orchestrator.attempt import Payload
from orchestrator.claims import Claim
from orchestrator.documents import sealed
from orchestrator.manifest import ManifestWriter, manifest_of
from orchestrator.plan import make_plan
from orchestrator.search.suggestions import Suggestions
from orchestrator.storage import storage_mark
from orchestrator.store import Failure, Generation, Result, SavedState, Store
from orchestrator.study import Study
from orchestrator.trial import run_trial
from trainables.api.identity import FileDigests, Keys


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return Store(str(tmp_path / "results") if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def entry(key, **changes):
    return {"key": key, "name": key, "class": "C", "upstream": [], "named": True, "configuration": {}} | changes


def write_manifest(store, *entries, study="s", file="a", **changes):
    manifest = {"study": study, "submitted_at": 1.5, "trials": list(entries), **changes}
    store.write_document(f"studies/{study}/{file}.json", sealed(manifest))


def finish(store, key, state=None, segments=()):
    """A finished trial, with a file."""
    store.write_document(f"trials/{key}/trial.json", {"key": key, "upstream": []})
    store.write_bytes(f"trials/{key}/published/t/a.txt", b"x")
    assert store.publish(Result(key, {}, {}, list(segments), 1.0, 2.0, 1.0, 1, 5.0, {}, "t", 0, state))


def everything(store):
    return sorted(path for path in store._sizes(""))


def gc(store, **flags):
    assert commands.gc(store.uri, **flags) == 0


def test_what_a_search_decided_on_is_kept_without_a_manifest_that_names_it(store, capsys):
    write_manifest(store, entry("named"))
    for key in ("named", "base", "suggested", "forgotten"):
        finish(store, key)
    store.write_document("trials/suggested/trial.json", {"upstream": ["base"]})
    store.write_document("studies/s/suggestions/000001.json", {"params": {}, "keys": ["suggested"]})
    gc(store, delete=True)
    assert store.finished() == {"named", "base", "suggested"}
    gc(store, delete=True, latest_only=True)
    assert store.finished() == {"named", "base", "suggested"}
    assert "forgotten" in capsys.readouterr().out


def test_what_earlier_submissions_suggested_is_forgotten_with_them(store):
    write_manifest(store, entry("old"), entry("older"), number=1)
    write_manifest(store, entry("new"), number=2, file="b")
    store.write_document("studies/s/suggestions/000001.json", {"params": {}, "keys": ["old"]})
    for key in ("old", "new"):
        finish(store, key)
    gc(store, delete=True)
    assert store.finished() == {"old", "new"}
    gc(store, delete=True, latest_only=True)
    assert store.finished() == {"new"}


@pytest.mark.parametrize("document", [[1], "x", {}, None, {"keys": [1]}, {"keys": ["../x"]}])
def test_nothing_is_removed_beside_a_suggestion_that_cannot_be_read(store, document):
    write_manifest(store, entry("named"))
    finish(store, "other")
    store.write_document("studies/s/suggestions/000001.json", document)
    before = everything(store)
    with pytest.raises(ValueError, match=r"suggestions/000001\.json is garbled"):
        gc(store, delete=True)
    assert everything(store) == before


def test_nothing_is_removed_while_a_trial_runs(store, capsys):
    write_manifest(store, entry("named"))
    store.write_bytes("data/abc.json.gz", b"x")
    finish(store, "forgotten")
    with Claim(store, "trials/forgotten-too"):
        before = everything(store)
        gc(store)  # a list does no harm
        with pytest.raises(ValueError, match=f"trial forgotten-too is run by process {os.getpid()}.*--even-claimed"):
            gc(store, delete=True)
        assert everything(store) == before
    gc(store, delete=True)
    assert store.finished() == set()
    store.create_document("trials/k/claim.json", {"token": "t", "beat": 3, "host": "elsewhere", "pid": 1})
    with pytest.raises(ValueError, match="process 1 on elsewhere"):
        gc(store, delete=True)
    gc(store, delete=True, even_claimed=True)
    assert not store.exists("trials/k")
    capsys.readouterr()


def test_nothing_is_removed_while_a_launch_waits_to_try_again(store, capsys):
    write_manifest(store, entry("waits"))
    store.write_bytes("data/abc.json.gz", b"x")
    with Claim(store, ".tune/s-0123"):
        before = everything(store)
        with pytest.raises(ValueError, match=rf"the launch s-0123 is run by process {os.getpid()}.*--even-claimed"):
            gc(store, delete=True)
        assert everything(store) == before
    store.write_document(".tune/s-4567/claim.json", dead_claim())
    gc(store, delete=True)
    assert not store.names("data")
    assert not store.names(".tune")
    store.write_document(".tune/s-89ab/claim.json", {"token": "t", "beat": 3, "host": "elsewhere", "pid": 1})
    gc(store, delete=True, even_claimed=True)
    assert not store.names(".tune")
    capsys.readouterr()


def test_a_manifest_whose_key_changed_by_a_digit_removes_nothing(store):
    write_manifest(store, entry("k1"))
    finish(store, "k1")
    content = store.read_bytes("studies/s/a.json")
    store.write_bytes("studies/s/a.json", content.replace(b'"k1"', b'"k2"'))
    with pytest.raises(ValueError, match=r"studies/s/a\.json is garbled"):
        gc(store, delete=True)
    assert store.finished() == {"k1"}


def test_the_last_submission_is_the_last_one_whatever_the_clock_said(store, monkeypatch):
    keys = Keys(FileDigests())
    for now, trial in [(2000.0, toy.Count(1)), (1000.0, toy.Count(2)), (1500.0, toy.Count(3))]:
        monkeypatch.setattr("orchestrator.manifest.time.time", lambda now=now: now)
        study = Study("s", "?", {"c": trial})
        manifest = manifest_of(make_plan(study, store, keys), "c", {}, keys)
        ManifestWriter(store, manifest, Suggestions(study, store, keys)).write()
        finish(store, keys.key(trial))
    assert [m["number"] for m in store.manifests()] == [1, 2, 3]
    gc(store, delete=True, latest_only=True)
    assert store.finished() == {keys.key(toy.Count(3))}


def test_of_a_finished_trial_only_what_its_result_names_stays(store):
    write_manifest(store, entry("k", family="f", length=3))
    segment, shared = (store.write_segment("k", name, [["m", 0, 1.0, 1]]) for name in ("001", "002"))
    store.write_document("families/f/3.json", {"key": "k"})
    store.write_document("families/f/2.json", {"key": "gone"})
    store.write_document("families/other/2.json", {"key": "gone"})
    state = SavedState("s", {}, [shared])
    finish(store, "k", state, [segment])
    store.write_document("results/k.json", sealed(dataclasses.asdict(store.result("k")) | {"length": 3}))
    store.write_bytes("trials/k/state/s/state.txt", b"x")
    gc(store, delete=True)
    kept = everything(store)
    assert {f"trials/k/journal/{name}" for name in (segment, shared)} < set(kept)
    for path in (
        "published/u/a.txt", "state/u/a.txt", "checkpoints/1/a.pt", "items/1.npz", "progress/1.json", "crash.json",
        "failure.json", "journal/003-0.json", "damaged/1.json", "claim.json.0123", "claim.json",
    ):  # fmt: skip
        store.write_bytes(f"trials/k/{path}", b"[1]")
    store.write_document("trials/k/claim.json", dead_claim())
    store.write_document("damaged/k.json", {"token": "an earlier one", "message": "bad"})
    store.write_document("families/f/2.json", {"key": "gone"})
    gc(store)
    gc(store, delete=True)
    assert everything(store) == kept


def dead_claim():
    from orchestrator import claims

    return {"token": "t", "beat": 0, **claims._this_process(), "pid_start": "1"}


def test_of_an_unfinished_trial_only_what_no_resumable_state_names_goes(store):
    write_manifest(store, entry("k"), entry("failed"))
    segment = store.write_segment("k", "001", [["m", 0, 1.0, 1]])
    good = Generation("001-abc-00001", "checkpoints/001-abc-00001", {}, ["1.npz"], {}, [segment])
    store.write_generations("k", [good])
    store.record_failure("failed", Failure("crash", "", "", 1, 0.0))
    for path in ("checkpoints/001-abc-00001/a.pt", "items/1.npz", "crash.json", "trial.json"):
        store.write_bytes(f"trials/k/{path}", b"{}")
    kept = everything(store)
    for path in (
        "checkpoints/2/a.pt",
        "items/2.npz",
        "journal/2-0.json",
        "published/t/a",
        "state/t/a",
        "progress/3.json",
    ):
        store.write_bytes(f"trials/k/{path}", b"{}[")
    with Claim(store, "trials/k"):
        gc(store)
        assert len(everything(store)) == len(kept) + 7
    gc(store, delete=True)
    assert everything(store) == kept


def test_a_damaged_result_keeps_its_files_until_its_claimant_has_looked(store):
    write_manifest(store, entry("k"))
    finish(store, "k")
    before = everything(store)
    store.report_damage("k", "t", "it looks bad")
    gc(store, delete=True)
    assert set(before) < set(everything(store))
    assert store.look("k").damage


def test_half_written_files_of_an_hour_ago_go(tmp_path):
    store = Store(str(tmp_path / "results"))
    write_manifest(store, entry("k"))
    finish(store, "k")
    number = uuid.uuid4().hex
    places = [f"results/.k.json.{number}", f".mlflow.db.{number}.new", f"trials/k/published/t/.a.txt.{number}"]
    others = ["results/.nfs0123", ".tune/x/.a.json.0123", f".tune/.y.{number}", "trials/k/.hidden"]
    for path in (*places, *others):
        store.write_bytes(path, b"x")
    gc(store, delete=True)
    assert all((tmp_path / "results" / path).exists() for path in places)
    for path in (*places, *others):
        if (tmp_path / "results" / path).exists():
            os.utime(tmp_path / "results" / path, (time.time() - 4000,) * 2)
    gc(store, delete=True)
    assert not any((tmp_path / "results" / path).exists() for path in places)
    assert all((tmp_path / "results" / path).exists() for path in others if not path.startswith(".tune/x"))


def test_of_a_cache_folder_only_what_this_storage_left_and_does_not_need_goes(store, tmp_path, capsys):
    write_manifest(store, entry("k"), entry("running"))
    finish(store, "k")
    cache = tmp_path / "cache"
    mark, other = storage_mark(store), storage_mark(Store(str(tmp_path / "other")))
    gone = [f"fetched/{mark}/k/old", f"fetched/{mark}/forgotten/t"]
    gone += [f"trial-{mark}-k-abc_12", f"rank-1-{mark}-gone-abc_12"]
    stay = [
        f"fetched/{mark}/k/t",
        f"fetched/{other}/k/old",
        f"trial-{other}-k-abc",
        f"trial-{mark}-running-abc",
        "mni152-0123",
        "trial-x",
    ]
    for path in (*gone, *stay):
        (cache / path).mkdir(parents=True)
        (cache / path / "file").write_text("x" * 1000)
    with Claim(store, "trials/running"):
        gc(store, cache_dir=cache)
        assert sum((cache / path).exists() for path in gone) == len(gone)
        gc(store, delete=True, cache_dir=cache, even_claimed=True)
    assert [path for path in gone if (cache / path).exists()] == []
    assert [path for path in stay if not (cache / path).exists()] == []
    gc(store, delete=True, cache_dir=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    capsys.readouterr()


def test_what_another_storage_fetched_into_the_cache_stays(tmp_path, capsys):
    stores, cache = [Store(f"memory://{uuid.uuid4().hex}") for _ in range(2)], tmp_path / "cache"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_bytes(b"x")
    for store, key in zip(stores, ("one", "other"), strict=True):
        write_manifest(store, entry(key))
        files = store.upload(tmp_path / "out", f"trials/{key}/published/t")
        assert store.publish(Result(key, {}, files, [], 1.0, 2.0, 1.0, 1, 5.0, {}, "t"))
    fetched = [store.fetch(key, cache) for store, key in zip(stores, ("one", "other"), strict=True)]
    for store in stores:
        gc(store, delete=True, cache_dir=cache)
    assert [(folder / "a.txt").read_bytes() for folder in fetched] == [b"x", b"x"]
    capsys.readouterr()


def test_after_gc_nothing_is_left_to_remove_and_nothing_is_to_be_computed(tmp_path, quick_settings, capsys):
    store, keys = Store(str(tmp_path / "results")), Keys(FileDigests())
    study = Study("s", "?", {"long": toy.Grow(4), "short": toy.Grow(2), "count": toy.Count(2)})
    manifest = manifest_of(make_plan(study, store, keys), "c", {}, keys)
    ManifestWriter(store, manifest, Suggestions(study, store, keys)).write()
    for trial in make_plan(study, store, keys).runnable():
        run_trial(Payload(trial, quick_settings(store)))
    gc(store, delete=True, cache_dir=tmp_path / "cache")
    capsys.readouterr()
    gc(store, cache_dir=tmp_path / "cache")
    assert capsys.readouterr().out == "0 things, 0.0 MB\n"
    assert make_plan(study, store, keys).is_complete
