"""What is paid for is not lost, and nothing outside the storage is touched."""

import dataclasses
import json
import uuid

import pytest
import toy

from orchestrator.attempt import Payload
from orchestrator.documents import NewerResult, sealed
from orchestrator.kinds import Kind
from orchestrator.plan import make_plan
from orchestrator.storage import FileEntry
from orchestrator.store import DamagedResult, Failure, Generation, Result, SavedState, Store
from orchestrator.study import Study
from orchestrator.trial import run_trial
from orchestrator.usage import UsageError
from trainables.api.identity import FileDigests, Keys


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return Store(str(tmp_path / "results") if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def publish(store, tmp_path, key="k1", token="t", text="content"):
    folder = tmp_path / f"out-{key}-{token}"
    folder.mkdir()
    (folder / "a.txt").write_text(text)
    files = store.upload(folder, f"trials/{key}/published/{token}")
    result = Result(key, {"m": 1.5}, files, [], 1.0, 2.0, 1.0, 1, 5.0, {"code_version": "x"}, token)
    assert store.publish(result)
    return result


def resealed(document, **changes):
    """As another version of the program writes it: changed, with the digest that belongs to it."""
    return sealed({**{name: value for name, value in document.items() if name != "digest"}, **changes})


def first_trial(store, trials):
    return make_plan(Study("s", "?", trials), store, Keys(FileDigests())).runnable()[0]


# -- results of other versions ------------------------------------------------------------------------


def test_a_field_that_a_newer_version_added_is_left_alone(store, tmp_path):
    result = publish(store, tmp_path)
    document = store.read_document("results/k1.json")
    document["files"]["a.txt"]["crc"] = 3
    store.write_document("results/k1.json", resealed(document, added=[1], state=None))
    assert store.result("k1") == result
    store.settle_damage("k1")
    assert store.finished() == {"k1"}


def test_a_result_of_a_newer_shape_is_never_set_aside(store, tmp_path):
    publish(store, tmp_path)
    document = store.read_document("results/k1.json")
    store.write_document("results/k1.json", resealed(document, metrics=[["m", 1.5]]))
    before = store.read_bytes("results/k1.json")
    look = store.look("k1")
    assert look.result is None
    assert "results/k1.json was written by a newer version of this program: update the code" in look.damage
    with pytest.raises(NewerResult, match="update the code"):
        store.settle_damage("k1")
    assert store.read_bytes("results/k1.json") == before


def test_a_trial_with_a_result_of_a_newer_shape_fails_for_good_and_no_plan_runs_it(store, tmp_path, quick_settings):
    trials = {"c": toy.Count(1)}
    trial = first_trial(store, trials)
    payload = Payload(trial, quick_settings(store))
    if store.is_local:
        run_trial(payload)
    else:
        store.write_document(f"results/{trial.key}.json", sealed(dataclasses.asdict(
            Result(trial.key, {}, {}, [], 1.0, 2.0, 1.0, 1, 5.0, {}, "t")
        )))  # fmt: skip
    document = store.read_document(f"results/{trial.key}.json")
    store.write_document(f"results/{trial.key}.json", resealed(document, busy_s="1 s"))
    with pytest.raises(UsageError, match="update the code"):
        first_trial(store, trials)
    run_trial(payload)  # a driver that planned before
    assert store.failure(trial.key).kind == Kind.INVALID
    assert "update the code" in store.failure(trial.key).message
    assert store.finished() == {trial.key}


def test_another_sealed_document_in_the_place_of_a_result_is_damage(store):
    store.write_document("results/k1.json", sealed({"study": "s", "trials": []}))
    assert "garbled" in store.look("k1").damage
    store.settle_damage("k1")
    assert store.finished() == set()


def test_a_result_of_another_trial_is_damage(store, tmp_path):
    result = publish(store, tmp_path, "k2")
    store.write_bytes("results/k1.json", store.read_bytes("results/k2.json"))
    assert store.result("k1") is None
    store.settle_damage("k1")
    assert store.finished() == {"k2"}
    assert store.result("k2") == result


# -- nothing outside ----------------------------------------------------------------------------------

OUTSIDE = ["../../../victim", "/etc", "a/../../../../victim", "..", "a/..", "."]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("place", ["token", "state", "segments"])
def test_a_result_whose_names_lead_out_of_the_storage_is_damage(store, tmp_path, place, name):
    result = publish(store, tmp_path)
    changed = {
        "token": {"token": name},
        "state": {"state": SavedState(name, {}, [])},
        "segments": {"segments": [name]},
    }[place]
    store.write_document("results/k1.json", sealed(dataclasses.asdict(dataclasses.replace(result, **changed))))
    assert store.result("k1") is None
    with pytest.raises(DamagedResult):
        store.fetch("k1", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    store.settle_damage("k1")
    assert store.finished() == set()


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("place", ["checkpoint", "items", "segments"])
def test_a_resumable_state_whose_names_lead_out_of_the_storage_is_garbled(store, place, name):
    changed = {"name": "002", place: name if place == "checkpoint" else [name]}
    good = Generation("001", checkpoint="checkpoints/001-abc-00001", items=["1.npz"], segments=["1-0.json"])
    store.write_generations("k1", [good])
    store.write_document("trials/k1/progress/002.json", dataclasses.asdict(dataclasses.replace(good, **changed)))
    assert store.generations("k1") == [good]


def test_a_resumable_state_that_says_nothing_is_passed_over(store):
    good = Generation("001", fraction=0.5)
    store.write_generations("k1", [good])
    store.write_document("trials/k1/progress/002.json", {})
    assert store.generations("k1") == [good]


def test_a_checkpoint_outside_is_not_removed_by_the_attempts_that_follow(tmp_path, quick_settings):
    store = Store(str(tmp_path / "results"))
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "dear.txt").write_text("dear")
    trial = first_trial(store, {"c": toy.Count(6)})
    bad = Generation("000", checkpoint="../../../victim", fraction=0.1)
    store.write_document(f"trials/{trial.key}/progress/000.json", dataclasses.asdict(bad))
    run_trial(Payload(trial, quick_settings(store)))
    assert store.result(trial.key).metrics == {"sum": 6.0}
    assert (victim / "dear.txt").read_text() == "dear"


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/x", "a/../b", "a\0b"])
def test_no_path_leads_out_of_the_storage(store, tmp_path, path):
    for use in (
        store.read_document, store.remove, store.exists, store.names, store.size_bytes, store.take_away,
        lambda path: store.write_document(path, 1), lambda path: store.create_document(path, 1),
        lambda path: store.download(path, {"a": FileEntry("0" * 64, 1)}, tmp_path / "cache"),
    ):  # fmt: skip
        with pytest.raises(DamagedResult, match="outside"):
            use(path)


def test_a_report_whose_paths_lead_out_of_the_storage_is_forgotten(store):
    from orchestrator.snapshot import report_files

    document = {"token": "t", "paths": ["../../x"], "files": {"a": {"sha256": "0" * 64, "size_bytes": 1}}}
    store.write_document("reports/s/made_from.json", document)
    assert report_files(store, "s") is None


def test_a_folder_that_vanished_is_no_empty_result(store, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        store.upload(tmp_path / "gone", "trials/k1/published/t")
    (tmp_path / "empty").mkdir()
    assert store.upload(tmp_path / "empty", "trials/k1/published/t") == {}


# -- word of damage -----------------------------------------------------------------------------------


def test_word_of_damage_holds_for_the_result_it_spoke_of(store, tmp_path, capsys):
    first = publish(store, tmp_path)
    store.report_damage("k1", first.token, "a.txt is bad")
    assert store.look("k1").damage == "a.txt is bad"
    store.set_aside("k1")  # killed before the word was taken away
    second = publish(store, tmp_path, token="u")
    assert store.result("k1") == second
    assert not store.exists("damaged/k1.json")
    store.report_damage("k1", first.token, "a reader that was late")
    assert store.result("k1") == second
    store.write_document("damaged/k1.json", "word that names no result")
    assert store.look("k1").damage == "word that names no result"
    capsys.readouterr()


def test_a_result_is_published_although_what_was_before_it_cannot_be_removed(store, tmp_path, monkeypatch):
    store.write_generations("k1", [Generation("1")])
    store.record_failure("k1", Failure("crash", "", "", 1, 0.0))
    tried = []

    def refuse(self, path):
        tried.append(path)
        raise PermissionError(13, "not ours", path)

    monkeypatch.setattr(Store, "remove", refuse)
    result = publish(store, tmp_path)
    assert store.result("k1") == result
    assert {"damaged/k1.json", "trials/k1/progress", "trials/k1/failure.json"} == set(tried)


def test_a_result_is_published_although_the_storage_answers_no_more(store, tmp_path, monkeypatch):
    def refuse(self, path):
        raise TimeoutError("no answer")

    monkeypatch.setattr(Store, "names", refuse)
    monkeypatch.setattr(Store, "remove", refuse)
    result = publish(store, tmp_path)
    assert store.result("k1") == result


# -- manifests ----------------------------------------------------------------------------------------

ENTRY = {"key": "k1", "name": "n", "class": "C", "upstream": [], "named": True, "configuration": {}}
WHOLE = {"study": "s", "question": "?", "command": "c", "submitted_at": 1.5, "trials": [ENTRY]}
WHOLE |= {"provenance": {}, "facts": {}}


def test_a_manifest_in_which_a_digit_changed_is_garbled(store):
    store.write_document("studies/s/a.json", sealed(WHOLE))
    assert list(store.manifests()) == [WHOLE]
    content = store.read_bytes("studies/s/a.json")
    store.write_bytes("studies/s/a.json", content.replace(b'"k1"', b'"k2"'))
    assert list(store.manifests()) == []


def test_manifests_of_before_the_digest_are_read(store):
    store.write_document("studies/s/a.json", WHOLE)
    assert list(store.manifests()) == [WHOLE]


@pytest.mark.parametrize(
    "change",
    [
        {"trials": [{}]}, {"trials": [1]}, {"trials": None}, {"study": 3}, {"study": "other"}, {"command": None},
        {"submitted_at": "x"}, {"submitted_at": True}, {"trials": [ENTRY | {"key": "../x"}]},
        {"trials": [ENTRY | {"key": 1}]}, {"trials": [ENTRY | {"name": None}]}, {"trials": [ENTRY | {"class": 1}]},
        {"trials": [ENTRY | {"upstream": "abc"}]}, {"trials": [ENTRY | {"upstream": [1]}]},
        {"trials": [ENTRY | {"upstream": ["../x"]}]}, {"trials": [ENTRY | {"named": "yes"}]},
        {"trials": [{name: value for name, value in ENTRY.items() if name != "configuration"}]},
        {"trials": [ENTRY | {"family": "f"}]}, {"trials": [ENTRY | {"family": "f", "length": "2"}]},
        {"trials": [ENTRY | {"labels": []}]}, {"trials": [ENTRY | {"seeds": 1}]}, {"search": [1]},
        {"search": {}}, {"search": {"suggestions": 1}}, {"facts": 1}, {"provenance": []},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_a_manifest_with_a_field_of_another_shape_is_none(store, change):
    store.write_document("studies/s/a.json", WHOLE | change)
    assert list(store.manifests()) == []
