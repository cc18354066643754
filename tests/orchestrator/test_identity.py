"""Keys change with everything a result depends on, and with nothing else."""

import dataclasses
import importlib
import json
import math
import pkgutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import pytest
from toy import Count, ReadsText

import trainables
from trainables.api import identity
from trainables.api.identity import FileDigests, Keys, canonical, describe, identity_name, key_of, length_of, seeds_of
from trainables.api.trainable import Part, Trainable, added, grows, recorded, seed


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


def test_a_raised_version_of_a_base_counts_below_a_version_of_ones_own():
    def methods(version_of_base):
        base = type("Method", (Part,), {"version": version_of_base})
        part = dataclass(frozen=True)(type("Smooth", (base,), {"version": 3, "__module__": "trainables.saliency"}))
        return part()

    assert key(methods(1)) == key(methods(1))
    assert key(methods(1)) != key(methods(2))


def test_an_added_field_counts_only_away_from_its_old_meaning():
    @dataclass(frozen=True)
    class Encoder(Trainable):  # the class above, one release later
        seed: int = 0
        augmentation: Rotation = Rotation()
        num_workers: int = recorded(2)
        nesterov: bool = added(False, unhashed_at=False)

        def run(self, context):
            return {}

    Encoder.__qualname__ = "Encoder"
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
    first = FileDigests(tmp_path / "memo.json").digest_files({"data": file})
    read = []
    monkeypatch.setattr("trainables.api.identity.sha256_of", lambda path: read.append(path) or "other")
    assert FileDigests(tmp_path / "memo.json").digest_files({"data": file}) == first
    assert read == []
    file.write_bytes(b"changed")
    assert FileDigests(tmp_path / "memo.json").digest_files({"data": file}) != first
    assert read == [file]


def test_a_garbled_memo_only_costs_time(tmp_path):
    (tmp_path / "data.bin").write_bytes(b"one")
    (tmp_path / "memo.json").write_text("{ half")
    digests = FileDigests(tmp_path / "memo.json")
    assert digests.digest_files({"d": tmp_path / "data.bin"}) == FileDigests().digest_files(
        {"d": tmp_path / "data.bin"}
    )


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


# -- declared types -----------------------------------------------------------------------------------


class Protocolled(Protocol):
    def load(self): ...


@dataclass(frozen=True)
class Typed(Part):
    number: float = 0.0
    count: int = 0
    flag: bool = False
    maybe: float | None = None
    whole: "int | None" = None
    either: int | float = 0
    values: tuple[float, ...] = ()
    pair: tuple[int, float] = (0, 0.0)
    steps: Sequence[float] = ()
    named: Mapping[str, float] = field(default_factory=dict)
    choice: Literal["a", 2] = "a"
    level: Literal["otsu"] | float = "otsu"
    marked: Annotated[float, "in px"] = 0.0
    source: "Protocolled | float | None" = None
    anything: Any = None
    unknown: "OnlyForTypeCheckers" = None  # noqa: F821


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        ({"number": 180}, {"number": 180.0}),
        ({"number": -0.0}, {"number": 0.0}),
        ({"number": np.float64(0.5)}, {"number": 0.5}),
        ({"count": 3.0}, {"count": 3}),
        ({"count": np.int64(3)}, {"count": 3}),
        ({"flag": np.bool_(True)}, {"flag": True}),
        ({"maybe": 2}, {"maybe": 2.0}),
        ({"whole": 2.0}, {"whole": 2}),
        ({"values": [0, 90]}, {"values": (0.0, 90.0)}),
        ({"values": range(2)}, {"values": (0.0, 1.0)}),
        ({"pair": (1.0, 2)}, {"pair": (1, 2.0)}),
        ({"steps": [1]}, {"steps": (1.0,)}),
        ({"named": {"a": 1}}, {"named": {"a": 1.0}}),
        ({"choice": 2.0}, {"choice": 2}),
        ({"level": 1}, {"level": 1.0}),
        ({"marked": 1}, {"marked": 1.0}),
        ({"source": 1}, {"source": 1.0}),
    ],
)
def test_one_value_has_one_key_however_it_is_spelt(fields, same):
    assert key(Typed(**fields)) == key(Typed(**same))
    assert key(Typed(**same)) != key(Typed()) or "-0.0" in str(fields)


@pytest.mark.parametrize(
    ("fields", "other"),
    [
        ({"either": 1}, {"either": 1.0}),
        ({"anything": 1}, {"anything": True}),
        ({"unknown": 1}, {"unknown": 1.5}),
        ({"maybe": 0}, {"maybe": None}),
        ({"pair": (1, 2)}, {"pair": (2, 1)}),
        ({"choice": 2}, {"choice": "a"}),
    ],
)
def test_values_that_differ_have_two_keys(fields, other):
    assert key(Typed(**fields)) != key(Typed(**other))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"number": True}, r"Typed\.number = True .* a number"),
        ({"count": 0.5}, r"Typed\.count = 0\.5 .* a whole number"),
        ({"count": True}, r"Typed\.count"),
        ({"flag": 1}, r"Typed\.flag = 1 .* True or False"),
        ({"maybe": "x"}, r"Typed\.maybe = 'x' .* float or NoneType"),
        ({"values": (0.0, True)}, r"Typed\.values\[1\] = True"),
        ({"pair": (1,)}, r"Typed\.pair = \(1,\) .* 2 values"),
        ({"choice": "b"}, r"Typed\.choice = 'b' .* one of 'a', 2"),
        ({"number": math.inf}, r"finite"),
        ({"named": {1: 2.0}}, r"Typed\.named .* string keys"),
    ],
)
def test_what_a_class_does_not_declare_is_refused_by_name(fields, said):
    with pytest.raises(TypeError, match=said):
        key(Typed(**fields))


# -- names of classes ---------------------------------------------------------------------------------


def probe_of(module, family=""):
    members = {"__module__": module, "family": family, "__annotations__": {"size": int}, "size": 1}
    return dataclass(frozen=True)(type("Probe", (Part,), members))()


def test_classes_of_one_name_in_two_studies_differ():
    assert key(probe_of("studies.first")) != key(probe_of("studies.second"))


def test_classes_of_trainables_may_move_and_families_keep_their_names_apart():
    assert key(probe_of("trainables.saliency")) == key(probe_of("trainables.saliency.gradients"))
    assert key(probe_of("trainables.sweeps", "sweep")) != key(probe_of("trainables.augment"))


def test_no_two_classes_of_trainables_share_an_identity():
    owners = {}
    for module in pkgutil.walk_packages(trainables.__path__, "trainables."):
        for value in vars(importlib.import_module(module.name)).values():
            is_own = isinstance(value, type) and value.__module__.startswith("trainables.")
            if is_own and dataclasses.is_dataclass(value):
                owners.setdefault(identity_name(value), set()).add(value)
    assert len(owners) > 15
    shared = {name: found for name, found in owners.items() if len(found) > 1}
    assert shared == {}, "give the Part base of one of them a `family`"


def test_a_study_has_the_same_keys_run_as_imported(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "study.py").write_text(
        "from dataclasses import dataclass\n"
        "from trainables.api.trainable import Part\n"
        "from trainables.api.identity import FileDigests, key_of\n"
        "@dataclass(frozen=True)\n"
        "class Probe(Part):\n"
        "    size: int = 1\n"
        "print(key_of(Probe(), FileDigests()))\n"
    )
    ways = ([str(tmp_path / "package" / "study.py")], ["-m", "package.study"], ["-c", "import package.study"])
    path = f"{Path(__file__).parents[2]}:{tmp_path}"
    said = [
        subprocess.run([sys.executable, *way], capture_output=True, text=True, env={"PYTHONPATH": path}, check=True)
        for way in ways
    ]
    assert len({done.stdout for done in said}) == 1
    assert len(said[0].stdout.strip()) == 32


# -- seeds, cells, families ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Pretraining(Trainable):
    rate: float = 0.1
    pretrain_seed: int = seed()
    num_epochs: int = grows(3)

    def run(self, context):
        return {}


@dataclass(frozen=True)
class Tuning(Trainable):
    encoder: Pretraining = Pretraining()
    parts: tuple[Pretraining, ...] = ()
    finetune_seed: int = seed(5)

    def run(self, context):
        return {}


def test_a_cell_is_a_configuration_without_its_seeds():
    keys = Keys(FileDigests())
    seeds = [Tuning(Pretraining(pretrain_seed=i), finetune_seed=j) for i in range(2) for j in range(2)]
    assert len({keys.key(t) for t in seeds}) == 4
    assert len({keys.cell(t, "trained", {"data": "a"}) for t in seeds}) == 1
    others = [keys.cell(seeds[0], "trained", {"data": "b"}), keys.cell(seeds[0], "untrained", {"data": "a"})]
    others += [keys.cell(Tuning(Pretraining(rate=0.2)), "trained", {"data": "a"})]
    others += [keys.cell(Tuning(Pretraining(num_epochs=4)), "trained", {"data": "a"})]
    assert len({keys.cell(seeds[0], "trained", {"data": "a"}), *others}) == 5


def test_seeds_are_found_by_their_place():
    tuning = Tuning(Pretraining(pretrain_seed=7), (Pretraining(), Pretraining(pretrain_seed=2)), 9)
    assert seeds_of(tuning) == {
        "encoder.pretrain_seed": 7, "parts.0.pretrain_seed": 0, "parts.1.pretrain_seed": 2, "finetune_seed": 9,
    }  # fmt: skip


def test_what_could_change_after_it_was_hashed_has_no_key():
    @dataclass
    class Changes(Part):
        size: int = 1

    with pytest.raises(TypeError, match=r"Changes can change after it was hashed; .*frozen=True"):
        Keys(FileDigests()).key(Changes())


def test_a_word_that_nobody_knows_for_what_workers_share_is_refused():
    with pytest.raises(TypeError, match=r"Spread.spreads = 'item': expected one of no, items, processes"):

        class Spread(Trainable):
            spreads = "item"


def test_a_family_is_equal_in_all_but_its_own_length():
    keys = Keys(FileDigests())
    assert keys.family(Pretraining()) == keys.family(Pretraining(num_epochs=9))
    assert keys.family(Pretraining(pretrain_seed=1)) != keys.family(Pretraining())
    assert keys.family(Tuning()) is None
    assert keys.key(Tuning(Pretraining(num_epochs=9))) != keys.key(Tuning())
    assert (length_of(Pretraining(num_epochs=9)), length_of(Tuning())) == (9, None)
    assert keys.family(Pretraining()) not in {keys.key(Pretraining()), keys.cell(Pretraining())}


def test_a_family_holds_what_it_was_trained_on():
    @dataclass(frozen=True)
    class Longer(Trainable):
        start: Pretraining
        num_steps: int = grows(5)

        def run(self, context):
            return {}

    keys = Keys(FileDigests())
    assert keys.family(Longer(Pretraining(), 1)) == keys.family(Longer(Pretraining(), 2))
    assert keys.family(Longer(Pretraining())) != keys.family(Longer(Pretraining(num_epochs=9)))
    assert keys.family(Longer(Pretraining())) != keys.family(Longer(Pretraining(pretrain_seed=9)))


# -- content of files ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Images(Part):
    """Many files of which only those with an even number count."""

    root: Path = recorded(None)
    num_files: int = recorded(6)
    size: int = 8

    def source_files(self):
        return {f"{i:06d}": self.root / f"{i:06d}.bin" for i in range(self.num_files)}

    def content(self, digests):
        return sorted([name, digest] for name, digest in digests.items() if int(name) % 2 == 0)


@dataclass(frozen=True)
class Training(Trainable):
    images: Images = Images()
    rate: float = 0.1

    def run(self, context):
        return {}


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(6):
        (tmp_path / "images" / f"{i:06d}.bin").write_bytes(bytes([i]))
    return Images(tmp_path / "images")


def test_a_part_says_what_of_its_files_counts(images):
    before = key(Training(images))
    (images.root / "000001.bin").write_bytes(b"another")
    assert key(Training(images)) == before
    assert key(Training(dataclasses.replace(images, num_files=5))) == before
    (images.root / "000002.bin").write_bytes(b"another")
    assert key(Training(images)) != before


def test_one_changed_digit_in_the_memo_changes_no_key(images, tmp_path):
    memo = tmp_path / "digests.json"
    before = key_of(Training(images), FileDigests(memo))
    entries = json.loads(memo.read_text())
    name, entry = next(iter(entries.items()))
    entries[name] = ("1" if entry[0] == "0" else "0") + entry[1:]
    memo.write_text(json.dumps(entries))
    assert key_of(Training(images), FileDigests(memo)) == before
    assert json.loads(memo.read_text())[name] == entry


def test_files_are_hashed_once_for_many_trials_and_progress_is_told(tmp_path, monkeypatch):
    hashed, told = [], []
    monkeypatch.setattr(identity, "sha256_of", lambda path: hashed.append(path) or f"{len(hashed):064d}")
    monkeypatch.setattr(identity, "_PROGRESS_S", 0.0)
    monkeypatch.setattr(Path, "stat", lambda path, **options: type("S", (), {"st_size": 1, "st_mtime_ns": 1}))
    data = Images(tmp_path / "absent", num_files=100_000)
    begun = time.monotonic()
    keys = Keys(FileDigests(on_progress=lambda done, total: told.append((done, total))))
    found = {keys.key(Training(dataclasses.replace(data), rate=i / 5000)) for i in range(5000)}
    assert len(found) == 5000
    assert len(hashed) == len(set(hashed)) == 100_000
    assert told[-1] == (100_000, 100_000)
    assert time.monotonic() - begun < 15


def test_golden_values_of_keys():
    """Keys are for ever: results of years are found by them."""
    found = {
        "typed": key(dataclasses.replace(Typed(), number=180, values=(0, 90.5), named={"b": 1, "a": -0.0})),
        "training": key(Pretraining(0.1, 3, 100)),
        "nested": key(Tuning(Pretraining(1), (Pretraining(),))),
        "family": Keys(FileDigests()).family(Pretraining(0.1, 3, 100)),
        "cell": Keys(FileDigests()).cell(Tuning(), "trained", {"data": "a"}),
        "count": key(Count(5, 2, upstream=Count(3))),
    }
    assert found == GOLDEN, (
        "The canonical form has changed, so every result of every store would be computed again. If that is meant, "
        "raise the version of each class whose meaning changed instead of changing the form for all; only when the "
        "form itself has to change, write the new values down here."
    )
    form = json.dumps(canonical(Typed(number=180, values=(0, -0.0)), FileDigests()), sort_keys=True)
    assert '"class": "test_identity.Typed"' in form
    assert '"field:number": 180.0' in form
    assert '"field:values": [0.0, 0.0]' in form
    assert '"versions": []' in form


GOLDEN = {
    "typed": "f74a311fdc1b13895aad720a843eb16c",
    "training": "b3112ddeae59bacc24ba879f3830cfdd",
    "nested": "b08dd557c95a802da2111d05acd09262",
    "family": "b2e8de9ad36cc197656c104570ea42bd",
    "cell": "1045680150cc61432f798daebea0b427",
    "count": "a17f0b32c97d2e71f93438f03ccbccd3",
}
