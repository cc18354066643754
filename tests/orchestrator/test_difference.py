"""What has changed since a submission, and why: one test a cause."""

import dataclasses
import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from toy import Climb, Count, Judge

from orchestrator import printing
from orchestrator.difference import difference
from orchestrator.inputs import record_digests
from orchestrator.manifest import entries_of, manifest_of
from orchestrator.options import StudyOptions
from orchestrator.outlook import outlook_of
from orchestrator.plan import make_plan
from orchestrator.since import since_last, since_lines
from orchestrator.store import Store
from orchestrator.study import Entry, Resources, Study
from trainables.api.identity import FileDigests, Keys, left_out_of
from trainables.api.trainable import Part, Trainable, added, recorded, seed


@dataclass(frozen=True)
class Data(Part):
    folder: Path = recorded(None)
    image_size_px: int = 96

    def source_files(self):
        return {path.name: path for path in sorted(self.folder.iterdir())}


@dataclass(frozen=True)
class Method(Part):
    num_samples: int = 10


@dataclass(frozen=True)
class Other(Part):
    strength: float = 0.5


@dataclass(frozen=True)
class Pretrain(Trainable):
    data: Data
    learning_rate: float = 0.03
    pretrain_seed: int = seed()
    cache: str = recorded("here")

    def run(self, context):
        return {}


@dataclass(frozen=True)
class Curve(Trainable):
    data: Data
    encoder: Pretrain
    method: Part = Method()
    values: tuple[int, ...] = tuple(range(0, 360, 45))
    smooth: int = added(0, unhashed_at=0)

    def run(self, context):
        return {}


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "results"))


@pytest.fixture
def data(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(5):
        (tmp_path / "images" / f"image_{number}").write_text(str(number))
    return Data(tmp_path / "images")


def trials_of(data, num_seeds=2, change=lambda trial: trial):
    encoders = [change(Pretrain(data, pretrain_seed=n)) for n in range(num_seeds)]
    curves = [change(Curve(data, encoder)) for encoder in encoders]
    return {f"curve {n}": Entry(curve, "trained", {"data": "toy"}) for n, curve in enumerate(curves)}


def planned(store, trials, **facts):
    return make_plan(Study("s", "?", trials, facts=facts), store, Keys(FileDigests()))


def submit(store, trials, name="a", code="1a2b3c4d5e6f", **facts):
    keys = Keys(FileDigests())
    plan = planned(store, trials, **facts)
    record_digests((part for p in plan.planned for part in p.trial.parts), store, keys)
    store.write_document(f"studies/s/{name}.json", manifest_of(plan, "python x.py", {"code_version": code}, keys))


def since(store, trials, **facts):
    return since_last(planned(store, trials, **facts), store, Keys(FileDigests()))


def changes(store, trials):
    """(number, class, why, number that hang on them)."""
    found = since(store, trials).found
    return [(len(c.keys), c.kind, c.text, len(c.dependents)) for c in found.changes], len(found.unchanged)


def test_a_field_is_told_once_where_it_is_and_dependents_hang_on_it(store, data):
    submit(store, trials_of(data))
    faster = trials_of(data, change=lambda t: replace(t, learning_rate=0.06) if isinstance(t, Pretrain) else t)
    assert changes(store, faster) == ([(2, "Pretrain", "learning_rate 0.03 -> 0.06", 2)], 0)


def test_what_changes_in_both_is_told_of_the_first(store, data):
    submit(store, trials_of(data))
    larger = trials_of(replace(data, image_size_px=128))
    assert changes(store, larger) == ([(2, "Pretrain", "data.image_size_px 96 -> 128", 2)], 0)


def test_a_dependent_with_a_reason_of_its_own_tells_it(store, data):
    submit(store, trials_of(data))

    def change(trial):
        is_encoder = isinstance(trial, Pretrain)
        return replace(trial, learning_rate=0.06) if is_encoder else replace(trial, method=Method(25), values=(0, 1))

    assert changes(store, trials_of(data, change=change))[0] == [
        (2, "Pretrain", "learning_rate 0.03 -> 0.06", 0),
        (2, "Curve", "method.num_samples 10 -> 25, values 0, 45, 90, 135, 180, 225, 270, 315 -> 0, 1", 0),
    ]


def test_another_part_is_told_without_its_fields(store, data):
    submit(store, trials_of(data))
    other = trials_of(data, change=lambda t: replace(t, method=Other()) if isinstance(t, Curve) else t)
    assert changes(store, other) == ([(2, "Curve", "method Method -> Other", 0)], 2)


def test_a_raised_version_is_told_and_by_an_old_manifest_it_is_not(store, data, monkeypatch):
    submit(store, trials_of(data))
    before = json.loads(store.read_bytes("studies/s/a.json"))
    monkeypatch.setattr(Method, "version", 3)
    (told,), num_unchanged = changes(store, trials_of(data))
    assert (told[0], told[1], num_unchanged) == (2, "Curve", 2)
    assert told[2].endswith("Method's version 1 -> 3")
    for entry in before["trials"]:
        del entry["meaning"], entry["files"]
    store.write_document("studies/s/a.json", before)
    assert changes(store, trials_of(data)) == ([(2, "Curve", "not told by that submission", 0)], 2)


def test_changed_data_are_told_by_file(store, data):
    submit(store, trials_of(data))
    (data.folder / "image_3").write_text("another")
    (data.folder / "image_5").write_text("one more")
    said = "content of Data: 2 of 6 files differ (image_3, image_5)"
    assert changes(store, trials_of(data)) == ([(2, "Pretrain", said, 2)], 0)
    store.remove("data")  # as gc does
    assert changes(store, trials_of(data)) == ([(2, "Pretrain", "content of Data", 2)], 0)


def test_what_does_not_count_is_no_reason(store, data, tmp_path):
    submit(store, trials_of(data))
    moved = data.folder.rename(tmp_path / "elsewhere")
    recorded_only = trials_of(
        replace(data, folder=moved), change=lambda t: replace(t, cache="there") if isinstance(t, Pretrain) else t
    )
    assert changes(store, recorded_only) == ([], 4)
    both = trials_of(
        replace(data, folder=moved),
        change=lambda t: replace(t, cache="there", learning_rate=1.0) if isinstance(t, Pretrain) else t,
    )
    assert changes(store, both)[0] == [(2, "Pretrain", "learning_rate 0.03 -> 1.0", 2)]
    before = json.loads(store.read_bytes("studies/s/a.json"))
    for entry in before["trials"]:
        entry["configuration"].pop("smooth", None)  # of a submission from before there was the field
    store.write_document("studies/s/a.json", before)
    assert changes(store, both)[0] == [(2, "Pretrain", "learning_rate 0.03 -> 1.0", 2)]


def test_a_renamed_trial_is_as_before_and_more_and_gone_are_told_by_what_they_have(store, data):
    submit(store, trials_of(data, num_seeds=3))
    renamed = {f"renamed {name}": entry for name, entry in trials_of(data, num_seeds=3).items()}
    assert changes(store, renamed) == ([], 6)
    found = since(store, trials_of(data, num_seeds=5))
    lines = since_lines(found, planned(store, trials_of(data, num_seeds=5)), Resources())
    assert lines[1].startswith("  4 trials more: pretrain_seed 3, 4   +8.0 core-s")
    assert lines[2:] == ["  6 as before"]
    fewer = trials_of(data, num_seeds=1)
    lines = since_lines(since(store, fewer), planned(store, fewer), Resources())
    assert lines[1:] == ["  4 are gone: pretrain_seed 1, 2", "  2 as before"]


def test_a_longer_training_is_a_changed_one(store):
    submit(store, {"t": Judge(Climb(0.3, 3))})
    assert changes(store, {"t": Judge(Climb(0.3, 6))})[0] == [(1, "Climb", "num_epochs 3 -> 6", 1)]


def test_alike_trials_are_paired_with_the_nearest():
    keys = Keys(FileDigests())

    def entries(*trials):
        plan = make_plan(Study("s", "?", {f"t{n}": trial for n, trial in enumerate(trials)}),
                         Store("memory://difference"), keys)  # fmt: skip
        return entries_of(plan, keys)

    before = [{**entry, "name": f"then {entry['name']}"} for entry in entries(Count(3, 1), Count(5, 2))]
    now = entries(Count(5, 7), Count(4, 1))
    found = difference(before, now, {})
    assert sorted(change.text for change in found.changes) == ["increment 2 -> 7", "num_epochs 3 -> 4"]


def test_the_newest_submission_of_the_scale_counts_and_another_one_is_said(store, data):
    assert since(store, trials_of(data)) is None
    assert since_lines(None, planned(store, trials_of(data)), Resources())[0].startswith("no earlier submission")
    submit(store, trials_of(data), "a", "aaaaaaaaaa", scale="laptop")
    submit(store, trials_of(replace(data, image_size_px=8)), "b", "bbbbbbbbbb", scale="smoke")
    store.write_bytes("studies/s/c.json", b"{")
    found = since(store, trials_of(data), scale="laptop")
    assert (found.is_same_scale, found.code_before, found.found.changes) == (True, "aaaaaaaaaa", ())
    found = since(store, trials_of(data), scale="full")
    assert (found.is_same_scale, found.code_before) == (False, "bbbbbbbbbb")
    first, *_ = since_lines(found, planned(store, trials_of(data)), Resources())
    assert "at scale smoke, as there is none at this one (code bbbbbbb -> " in first


def test_it_goes_with_a_plan_for_people_and_scripts(store, data, capsys):
    with pytest.raises(ValueError, match="--diff goes with --plan"):
        StudyOptions(diff=True)
    submit(store, trials_of(data))
    trials = trials_of(data, change=lambda t: replace(t, learning_rate=0.06) if isinstance(t, Pretrain) else t)
    plan = planned(store, trials)
    outlook = outlook_of(plan, StudyOptions(plan=True, diff=True), store, Keys(FileDigests()))
    printing.show_plan(plan, printing.make_console(), as_json=False, outlook=outlook)
    said = capsys.readouterr().out
    assert "  2 Pretrain: learning_rate 0.03 -> 0.06; and 2 that hang on them   +8.0 core-s" in said
    printing.show_plan(plan, printing.make_console(), as_json=True, outlook=outlook)
    told = json.loads(capsys.readouterr().out)["difference"]
    assert told["changes"][0]["why"] == "learning_rate 0.03 -> 0.06"
    assert told["unchanged"] == []


def test_fields_that_do_not_count_are_known(data):
    curve = Curve(data, Pretrain(data))
    assert left_out_of(curve) == {
        "data.folder": True, "encoder.data.folder": True, "encoder.cache": True, "smooth": False,
    }  # fmt: skip
    assert "smooth" not in left_out_of(dataclasses.replace(curve, smooth=2))


def test_the_last_submission_is_the_one_with_the_highest_number_whatever_the_clock_says(store, data):
    for number, code in enumerate(["aaaaaaaaaa", "bbbbbbbbbb"], start=1):
        submit(store, trials_of(data), code, code)
        document = json.loads(store.read_bytes(f"studies/s/{code}.json"))
        store.write_document(f"studies/s/{code}.json", document | {"number": number, "submitted_at": 9.0 - number})
    assert since(store, trials_of(data)).code_before == "bbbbbbbbbb"
