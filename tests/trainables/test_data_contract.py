"""What every data set and every annotation keeps to. A new module in trainables/data is found by itself."""

import importlib
import pickle
import pkgutil
from dataclasses import fields, replace
from inspect import isabstract
from typing import get_type_hints

import numpy as np
import pytest
from fake_context import FakeContext

import trainables.data
from trainables.api.errors import BadData
from trainables.api.identity import FileDigests, key_of
from trainables.api.trainable import ReadsFiles
from trainables.data.annotations import Annotation, ClassMasks, Labels, PixelAnnotation, Region
from trainables.data.cache import LabelTable, RegionTable, open_annotation, open_images, survey
from trainables.data.digits import Digit
from trainables.data.records import SPLITS, Dataset
from trainables.data.shenzhen import ShenzhenTuberculosis


def _concrete(base: type) -> list[type]:
    for module in pkgutil.iter_modules(trainables.data.__path__):
        importlib.import_module(f"trainables.data.{module.name}")
    found, waiting = [], [base]
    while waiting:
        subclasses = waiting.pop().__subclasses__()
        waiting += subclasses
        found += [cls for cls in subclasses if cls.__module__.startswith("trainables.")]
    # What others only inherit from is no dataclass.
    can_be_made = {cls for cls in found if "__dataclass_fields__" in vars(cls) and not cls.__abstractmethods__}
    return sorted(can_be_made, key=lambda cls: cls.__name__)


@pytest.fixture(params=_concrete(Dataset), ids=lambda cls: cls.name)
def dataset_class(request):
    return request.param


@pytest.fixture
def dataset(dataset_class, tmp_path):
    return dataset_class.example(tmp_path / "data")


@pytest.fixture(params=_concrete(Annotation), ids=lambda cls: cls.__name__)
def annotation(request, tmp_path):
    images_class = get_type_hints(request.param)["images"]
    if isabstract(images_class):
        images_class = images_class.__subclasses__()[0]
    return request.param.example(images_class.example(tmp_path / "data"))


@pytest.fixture
def context(tmp_path):
    return FakeContext(tmp_path / "trial")


def test_the_known_data_sets_are_found():
    names = [cls.name for cls in _concrete(Dataset)]
    assert set(WHAT_A_GROUP_IS) == set(names)
    assert len(set(names)) == len(names)


def test_records_are_unique_and_stable_and_their_files_exist(dataset):
    records = dataset.records()
    assert len({record.id for record in records}) == len(records) > 1
    assert records == dataset.records()
    assert {record.file for record in records} == set(dataset.source_files())
    assert all(path.is_file() for path in dataset.source_files().values())


def test_no_group_is_on_two_sides_of_a_split(dataset):
    splits_of_group = {}
    for record in dataset.records():
        splits_of_group.setdefault(record.group, set()).add(record.split)
    assert all(len(splits) == 1 for splits in splits_of_group.values())
    assert {"train", "val"} <= {split for splits in splits_of_group.values() for split in splits} <= set(SPLITS)


def test_the_cache_holds_what_decode_gives(dataset, context):
    table = open_images(dataset, context)
    records, side = dataset.records(), dataset.image_size_px
    assert table.index["id"].to_list() == [record.id for record in records]
    assert table.index["split"].to_list() == [record.split for record in records]
    assert table.index["position"].to_list() == [record.position for record in records]
    digests = context.digests(dataset)
    assert table.index["source_sha256"].to_list() == [digests[record.file] for record in records]
    for row, record in enumerate(records):
        image_CHW = dataset.decode(record)
        assert (image_CHW.shape, image_CHW.dtype) == ((dataset.num_channels, side, side), np.uint8)
        np.testing.assert_array_equal(table.images_NCHW[row], image_CHW)
    assert table.images_NCHW.max() > 200
    assert table.images_NCHW.min() == 0


def test_the_key_follows_the_content_and_not_the_place(dataset, dataset_class, tmp_path):
    assert isinstance(dataset, ReadsFiles)
    key = key_of(dataset, FileDigests())
    elsewhere = dataset_class.example(tmp_path / "elsewhere")
    assert key_of(elsewhere, FileDigests()) == key
    keys = {key}
    for path in elsewhere.source_files().values():
        with path.open("ab") as file:
            file.write(b"\0")
        keys.add(key_of(elsewhere, FileDigests()))
    assert len(keys) == 1 + len(elsewhere.source_files())


def test_content_is_the_outcome_of_choosing_and_splitting(dataset, context):
    digests = context.digests(dataset)
    records = dataset.records()
    assert dataset.content(digests) == sorted([r.id, r.split, digests[r.file]] for r in records)
    missing = dataset.content({})
    assert [row[:2] for row in missing] == [row[:2] for row in dataset.content(digests)]


class ChangedSince(FakeContext):
    """The plan saw other files."""

    def digests(self, part):
        return dict.fromkeys(super().digests(part), "of other content")


def test_images_that_changed_since_the_plan_are_all_named(dataset, tmp_path):
    with pytest.raises(BadData, match="has changed since the plan: submit again") as caught:
        open_images(dataset, ChangedSince(tmp_path / "trial"))
    assert set(caught.value.problems) == set(dataset.source_files())


def test_annotations_that_changed_since_the_plan_are_all_named(annotation, tmp_path):
    if not annotation.source_files():
        pytest.skip("the names of the images say it")
    with pytest.raises(BadData, match="has changed since the plan: submit again") as caught:
        open_annotation(annotation, ChangedSince(tmp_path / "trial"))
    assert set(caught.value.problems) <= set(annotation.source_files())
    if isinstance(annotation, Region):
        assert set(caught.value.problems) == set(annotation.source_files())


def test_excluded_records_are_left_out_and_enter_by_the_content(dataset, context):
    first, *_, last = dataset.records()
    rest = replace(dataset, excluded=(first.id, last.id, "unknown"))
    left = [record for record in dataset.records() if record.id not in (first.id, last.id)]
    # Which ones are left decides; where splits are drawn, they are drawn before anything is left out.
    assert rest.records() == left
    assert key_of(rest, FileDigests()) != key_of(dataset, FileDigests())
    assert key_of(replace(dataset, excluded=("unknown",)), FileDigests()) == key_of(dataset, FileDigests())
    assert len(open_images(rest, context)) == len(left)


WITHOUT_A_FILE = (ShenzhenTuberculosis, Digit)
WHAT_A_GROUP_IS = {
    "mni152": "slabs of one volume", "brats": "patients", "kvasir": "images", "lung_mask": "images",
    "folder": "patients", "folder_volumes": "patients",
    "isic2019": "lesions", "isic2016": "images", "chestxray14": "patients", "shenzhen": "images",
    "mnist5k": "images", "digits": "images",
}  # fmt: skip
"""Of the examples; those of folders have a ``labels.csv`` with groups."""


def test_the_card_counts_images_and_groups(dataset):
    records, card = dataset.records(), dataset.card()
    assert sum(card.counts.values()) == len(records)
    for split, count in card.counts.items():
        assert count == sum(record.split == split for record in records) > 0
    assert card.num_groups == len({record.group for record in records})
    assert card.licence == dataset.licence
    assert card.groups == WHAT_A_GROUP_IS[dataset.name]
    assert card.split


def test_it_travels_to_another_process(dataset):
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy == dataset
    assert copy.records() == dataset.records()


def test_a_sound_data_set_has_no_problems(dataset, context):
    assert survey(dataset, context) == {}


def test_a_sound_annotation_has_no_problems(annotation, context):
    assert survey(annotation, context) == {}


def test_annotations_lie_on_the_rows_of_their_images(annotation, context):
    images, records = annotation.images, annotation.images.records()
    table = open_annotation(annotation, context)
    shared = ["row", "id", "group", "position"]
    assert table.index.select(shared).equals(open_images(images, context).index.select(shared))
    assert table.annotated.tolist() == [record in annotation.records() for record in records]
    assert table.annotated.any()
    if isinstance(annotation, PixelAnnotation):
        is_region = isinstance(table, RegionTable)
        values_NHW = table.masks_NHW if is_region else table.classes_NHW
        for row, record in enumerate(records):
            values_HW = annotation.decode(record)
            assert (values_HW.shape, values_HW.dtype) == ((images.image_size_px,) * 2, np.uint8)
            np.testing.assert_array_equal(values_NHW[row], values_HW)
        assert set(np.unique(values_NHW)) == set(range(2 if is_region else len(annotation.class_names)))


def test_regions_cover_a_part_of_most_images(annotation, context):
    if not isinstance(annotation, Region):
        pytest.skip("no region")
    fractions = open_annotation(annotation, context).index["mask_fraction"]
    assert (fractions > 0).mean() > 0.5
    assert fractions.max() < 0.8


def test_class_names_are_given(annotation):
    if not isinstance(annotation, ClassMasks | Labels):
        pytest.skip("no classes")
    assert len(set(annotation.class_names)) == len(annotation.class_names) > 1


def test_labels_are_those_of_the_content(annotation, context):
    if not isinstance(annotation, Labels):
        pytest.skip("no labels")
    table = open_annotation(annotation, context)
    assert isinstance(table, LabelTable)
    names = {row[0]: row[3] for row in annotation.content({})}
    for id_, label in zip(table.index["id"], table.labels_N, strict=True):
        assert (annotation.class_names[label] if label >= 0 else None) == names.get(id_)


def test_an_annotation_and_its_images_have_files_and_keys_apart(annotation, context):
    images_key, key = context.key(annotation.images), context.key(annotation)
    own = set(annotation.source_files().values()) - set(annotation.images.source_files().values())
    if not own:
        assert isinstance(annotation, WITHOUT_A_FILE)
        return
    for path in own:
        with path.open("ab") as file:
            file.write(b"\n")
    fresh = FileDigests()
    if isinstance(annotation, PixelAnnotation):  # labels count by what they say, wherever they lie in their file
        assert key_of(annotation, fresh) != key
    assert key_of(annotation.images, fresh) == images_key


def test_what_an_annotation_leaves_out_changes_it_and_not_its_images(annotation, context):
    record = annotation.records()[0]
    part = replace(annotation, excluded=(record.id,))
    assert part.images == annotation.images
    assert part.records() == annotation.records()[1:]
    assert context.key(part) != context.key(annotation)
    table = open_annotation(part, context)
    assert not table.annotated[table.index["id"].to_list().index(record.id)]


@pytest.mark.parametrize("part", [*_concrete(Dataset), *_concrete(Annotation)], ids=lambda cls: cls.__name__)
def test_fields_are_declared_in_the_subclass(part):
    """The base classes are no dataclasses, so that positional fields stay where their class put them."""
    assert "excluded" in {field.name for field in fields(part)}
