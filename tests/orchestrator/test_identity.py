"""Keys change with everything a result depends on, and with nothing else."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from toy import Count, ReadsText

from trainables.api.identity import FileDigests, canonical, describe, key_of
from trainables.api.trainable import Trainable, added, recorded


@dataclass(frozen=True)
class Rotation:
    max_deg: float = 180.0


@dataclass(frozen=True)
class Encoder(Trainable):
    seed: int = 0
    augmentation: Rotation = Rotation()
    num_workers: int = recorded(2)

    def run(self, context):
        return {}


@dataclass(frozen=True)
class Curve(Trainable):
    encoder: Trainable = Encoder()
    angles_deg: tuple[float, ...] | range = (0, 1, 2)
    options: dict = field(default_factory=dict)

    def run(self, context):
        return {}


def key(configuration):
    return key_of(configuration, FileDigests())


def test_every_field_at_every_depth_counts():
    base = Curve()
    changed = [
        dataclasses.replace(base, angles_deg=(0, 1)),
        dataclasses.replace(base, options={"a": 1}),
        Curve(encoder=Encoder(seed=1)),
        Curve(encoder=Encoder(augmentation=Rotation(90.0))),
        Curve(encoder=Curve()),
    ]
    assert len({key(c) for c in [base, *changed]}) == 6


def test_recorded_fields_and_spelling_of_sequences_do_not_count():
    assert key(Encoder(num_workers=8)) == key(Encoder(num_workers=2))
    assert key(Curve(encoder=Encoder(num_workers=8))) == key(Curve())
    assert key(Curve(angles_deg=range(3))) == key(Curve(angles_deg=[0, 1, 2])) == key(Curve())


def test_class_name_and_version_count():
    other = type("Other", (Encoder,), {})
    newer = type("Encoder", (Encoder,), {"version": 2})
    assert len({key(Encoder()), key(other()), key(newer())}) == 3


def test_an_added_field_counts_only_away_from_its_old_meaning():
    @dataclass(frozen=True)
    class Encoder(Trainable):  # the class above, one release later
        seed: int = 0
        augmentation: Rotation = Rotation()
        num_workers: int = recorded(2)
        nesterov: bool = added(False, unhashed_at=False)

        def run(self, context):
            return {}

    assert key(Encoder()) == key(globals()["Encoder"]())
    assert key(Encoder(nesterov=True)) != key(Encoder())


def test_content_of_files_counts_and_their_place_does_not(tmp_path):
    for folder, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file.txt").write_text(text)
    keys = [key(ReadsText(path=tmp_path / folder / "file.txt")) for folder in "abc"]
    assert keys[0] == keys[1] != keys[2]
    nested = [key(Count(upstream=ReadsText(path=tmp_path / folder / "file.txt"))) for folder in "abc"]
    assert nested[0] == nested[1] != nested[2]


def test_a_missing_input_file_is_named_with_its_reader(tmp_path):
    missing = tmp_path / "weights.pth"
    with pytest.raises(FileNotFoundError, match=rf"{missing} does not exist, and ReadsText reads it: check the path"):
        key_of(Count(upstream=ReadsText(missing)), FileDigests())


def test_digests_are_remembered_until_the_file_changes(tmp_path, monkeypatch):
    file = tmp_path / "data.bin"
    file.write_bytes(b"one")
    first = FileDigests(tmp_path / "memo.json").digest_all({"data": file})
    read = []
    monkeypatch.setattr("trainables.api.identity.sha256_of", lambda path: read.append(path) or "other")
    assert FileDigests(tmp_path / "memo.json").digest_all({"data": file}) == first
    assert read == []
    file.write_bytes(b"changed")
    assert FileDigests(tmp_path / "memo.json").digest_all({"data": file}) != first
    assert read == [file]


def test_a_garbled_memo_only_costs_time(tmp_path):
    (tmp_path / "data.bin").write_bytes(b"one")
    (tmp_path / "memo.json").write_text("{ half")
    digests = FileDigests(tmp_path / "memo.json")
    assert digests.digest_all({"d": tmp_path / "data.bin"}) == FileDigests().digest_all({"d": tmp_path / "data.bin"})


@pytest.mark.parametrize(
    ("value", "named"), [(float("nan"), "Curve.options"), ({1, 2}, "{1, 2}"), (Path("x"), "recorded()")]
)
def test_what_has_no_canonical_form_is_named(value, named):
    with pytest.raises(TypeError, match=r"Curve\.options") as caught:
        key(Curve(options={"bad": value}))
    assert named in str(caught.value)


def test_canonical_form_is_plain_json_and_description_is_whole():
    form = canonical(Curve(), FileDigests())
    assert form["field:encoder"] == {"trial": key(Encoder())}
    assert json.loads(json.dumps(form)) == form
    assert describe(Curve())["encoder"]["num_workers"] == 2
