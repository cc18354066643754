"""What every data set keeps to. A new module in trainables/data is found by itself."""

import importlib
import pickle
import pkgutil

import numpy as np
import pytest

import trainables.data
from trainables.api.identity import FileDigests, key_of
from trainables.api.trainable import ReadsFiles
from trainables.data.cache import open_table
from trainables.data.records import Dataset


def _datasets() -> list[type[Dataset]]:
    for module in pkgutil.iter_modules(trainables.data.__path__):
        importlib.import_module(f"trainables.data.{module.name}")
    found, waiting = [], [Dataset]
    while waiting:
        subclasses = waiting.pop().__subclasses__()
        waiting += subclasses
        found += [cls for cls in subclasses if cls.__module__.startswith("trainables.")]
    return sorted(found, key=lambda cls: cls.name)


@pytest.fixture(params=_datasets(), ids=lambda cls: cls.name)
def dataset_class(request):
    return request.param


@pytest.fixture
def dataset(dataset_class, tmp_path):
    return dataset_class.example(tmp_path / "data")


def test_the_known_data_sets_are_found():
    names = [cls.name for cls in _datasets()]
    assert {"mni152", "brats"} <= set(names)
    assert len(set(names)) == len(names)


def test_records_are_unique_and_stable_and_their_files_exist(dataset):
    records = dataset.records()
    assert len({record.id for record in records}) == len(records) > 1
    assert records == dataset.records()
    names = {name for record in records for name in record.files.values()}
    assert names <= set(dataset.source_files())
    assert all(path.is_file() for path in dataset.source_files().values())


def test_no_group_is_on_two_sides_of_a_split(dataset):
    splits_of_group = {}
    for record in dataset.records():
        splits_of_group.setdefault(record.group, set()).add(record.split)
    assert all(len(splits) == 1 for splits in splits_of_group.values())
    assert (
        {"train", "val"}
        <= {split for splits in splits_of_group.values() for split in splits}
        <= {"train", "val", "test"}
    )


def test_the_cache_holds_what_decode_gives(dataset, tmp_path):
    table = open_table(dataset, tmp_path / "cache", num_workers=3)
    records = dataset.records()
    assert table.index["id"].to_list() == [record.id for record in records]
    assert table.index["position"].to_list() == [record.position for record in records]
    for row, record in enumerate(records):
        image_CHW, mask_HW = dataset.decode(record)
        side = dataset.image_size_px
        assert (image_CHW.shape, image_CHW.dtype) == ((dataset.num_channels, side, side), np.uint8)
        assert (mask_HW.shape, mask_HW.dtype) == ((side, side), np.uint8)
        assert set(np.unique(mask_HW)) <= {0, 1}
        np.testing.assert_array_equal(table.images_NCHW[row], image_CHW)
        np.testing.assert_array_equal(table.masks_NHW[row], mask_HW)


def test_images_use_the_grey_levels_and_most_have_a_region(dataset, tmp_path):
    table = open_table(dataset, tmp_path / "cache")
    assert table.images_NCHW.max() > 200
    assert table.images_NCHW.min() == 0
    assert (table.index["mask_fraction"] > 0).mean() > 0.5
    assert table.index["mask_fraction"].max() < 0.6


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


def test_it_travels_to_another_process(dataset):
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy == dataset
    assert copy.records() == dataset.records()
