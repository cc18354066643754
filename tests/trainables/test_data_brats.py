"""BraTS in its on-disk layout, with the defects that the real one has."""

import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from trainables.api.errors import BadData
from trainables.api.identity import FileDigests, key_of
from trainables.data.brats import FOLDER_NAME, ODD_MASK_NAME, BraTS, write_brats
from trainables.data.cache import open_table

SHAPE = (40, 40, 7)
MEDIAN = 3


def _dataset(root, **fields):
    return replace(BraTS(root, image_size_px=40, num_val=1, volume_shape=SHAPE), **fields)


@pytest.fixture
def root(tmp_path):
    write_brats(tmp_path / "data", num_cases=5, volume_shape=SHAPE, odd_mask_case=3)
    return tmp_path / "data"


def _case(root, number):
    return root / FOLDER_NAME / f"BraTS20_Training_{number:03d}"


def _file(root, number, kind):
    return _case(root, number) / f"BraTS20_Training_{number:03d}_{kind}.nii.gz"


def _stored_slice(path):
    """The median slice front up; the writer stores the axes to the left and to the back, as BraTS does."""
    volume = nibabel.load(path)
    assert nibabel.aff2axcodes(volume.affine) == ("L", "P", "S")
    return volume.get_fdata()[:, :, MEDIAN].T


def _overwrite(path, voxels):
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0])), path)


@pytest.mark.parametrize("modality", ["flair", "t1", "t1ce", "t2"])
def test_image_is_the_normalised_median_slice_of_the_modality(root, modality):
    dataset = _dataset(root, modality=modality)
    for number, record in enumerate(dataset.records(), start=1):
        assert record.position == MEDIAN
        image_CHW, _ = dataset.decode(record)
        stored = _stored_slice(_file(root, number, modality))
        white = np.percentile(stored[stored > 0], 99.5)
        np.testing.assert_array_equal(image_CHW[0], np.rint(np.minimum(stored / white, 1) * 255))
        assert (image_CHW[0][stored == 0] == 0).all()


def test_the_scale_of_the_scanner_does_not_matter(root):
    dataset = _dataset(root)
    record = dataset.records()[0]
    before, _ = dataset.decode(record)
    path = _file(root, 1, "flair")
    volume = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image((volume.get_fdata() * 7).astype(np.int16), volume.affine), path)
    np.testing.assert_array_equal(dataset.decode(record)[0], before)


@pytest.mark.parametrize("roi_classes", [(1, 2, 4), (1, 4), (4,), (2,)])
def test_mask_is_the_union_of_the_classes(root, roi_classes):
    dataset = _dataset(root, roi_classes=roi_classes)
    record = dataset.records()[0]
    labels = _stored_slice(_file(root, 1, "seg"))
    assert set(np.unique(labels)) == {0, 1, 2, 4}
    expected = sum((labels == label).astype(int) for label in roi_classes)
    np.testing.assert_array_equal(dataset.decode(record)[1], expected)


def test_the_mask_with_the_odd_name_is_found(root):
    assert (_case(root, 3) / ODD_MASK_NAME).is_file()
    assert not _file(root, 3, "seg").exists()
    dataset = _dataset(root)
    np.testing.assert_array_equal(
        dataset.decode(dataset.records()[2])[1], _stored_slice(_case(root, 3) / ODD_MASK_NAME) > 0
    )


def test_a_mask_that_lost_its_orientation_stays_on_its_image(root):
    dataset = _dataset(root)
    record = dataset.records()[0]
    before = dataset.decode(record)[1]
    path = _file(root, 1, "seg")
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(nibabel.load(path).dataobj), np.eye(4)), path)
    np.testing.assert_array_equal(dataset.decode(record)[1], before)
    assert not np.array_equal(before, before[::-1])


def test_uncompressed_volumes_give_the_same_images(root, tmp_path):
    write_brats(tmp_path / "plain", num_cases=5, volume_shape=SHAPE, suffix=".nii")
    compressed, plain = _dataset(root), _dataset(tmp_path / "plain")
    assert {path.suffix for path in plain.source_files().values()} == {".nii"}
    for one, other in zip(compressed.records(), plain.records(), strict=True):
        for left, right in zip(compressed.decode(one), plain.decode(other), strict=True):
            np.testing.assert_array_equal(left, right)


def test_a_case_without_tumour_in_the_slice_is_kept_with_an_empty_mask(root, tmp_path):
    index = open_table(_dataset(root), tmp_path / "cache").index
    assert index["id"][4] == "BraTS20_Training_005"
    assert index["mask_fraction"][4] == 0
    assert (index["mask_fraction"][:4] > 0.01).all()


def test_the_root_may_hold_the_folder_or_be_it(root, tmp_path):
    (tmp_path / "data" / FOLDER_NAME / "name_mapping.csv").write_text("Grade,BraTS_2020_subject_ID\n")
    direct = _dataset(root / FOLDER_NAME)
    shutil.copytree(root, tmp_path / "disk" / "BraTS2020_TrainingData")
    deeper = _dataset(tmp_path / "disk")
    keys = {key_of(dataset, FileDigests()) for dataset in (_dataset(root), direct, deeper)}
    assert len(keys) == 1
    assert direct.records() == deeper.records() == _dataset(root).records()


@pytest.mark.parametrize("exists", [True, False])
def test_a_missing_root_says_what_was_expected_and_what_to_do(tmp_path, exists):
    root = tmp_path / "brats"
    if exists:
        root.mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        key_of(BraTS(root), FileDigests())
    message = str(caught.value)
    assert str(root) in message
    assert ("holds no folder" if exists else "does not exist") in message
    assert "BraTS20_Training_001_flair.nii[.gz]" in message
    assert "--data-root DIR" in message


@pytest.fixture
def full_root(tmp_path):
    """All 369 case folders; which patients are in which split does not hang on their content."""
    for number in range(1, 370):
        _case(tmp_path, number).mkdir(parents=True)
    return tmp_path


def test_369_patients_split_into_329_and_40(full_root):
    records = BraTS(full_root).records()
    assert [record.id for record in records] == [f"BraTS20_Training_{number:03d}" for number in range(1, 370)]
    assert all(record.group == record.id and record.position == 77 for record in records)
    splits = [record.split for record in records]
    assert (splits.count("train"), splits.count("val")) == (329, 40)


def test_the_split_hangs_on_its_seed_alone(full_root):
    def validation(**fields):
        return {record.id for record in BraTS(full_root, **fields).records() if record.split == "val"}

    assert validation() == validation(modality="t2") == validation(roi_classes=(4,)) == validation(image_size_px=64)
    assert len(validation() & validation(split_seed=1)) < 15
    with pytest.raises(ValueError, match=r"num_val = 369, but .* holds 369 cases"):
        validation(num_val=369)


def test_every_bad_file_is_listed_and_no_good_one(tmp_path):
    root = tmp_path / "data"
    write_brats(root, num_cases=10, volume_shape=SHAPE)
    image, mask = "flair", "seg"
    _file(root, 1, image).write_bytes(_file(root, 1, image).read_bytes()[:200])
    _file(root, 2, mask).unlink()
    _overwrite(_file(root, 3, image), np.ones((40, 40, 6), np.int16))
    _overwrite(_file(root, 4, mask), np.full(SHAPE, 3, np.int16))
    _overwrite(_file(root, 5, image), np.full(SHAPE, np.nan, np.float32))
    _overwrite(_file(root, 6, image), np.zeros(SHAPE, np.int16))
    _file(root, 7, image).write_bytes(b"")
    _file(root, 7, mask).write_bytes(b"no volume at all")
    with pytest.raises(BadData) as caught:
        open_table(_dataset(root), tmp_path / "cache", num_workers=2)
    problems = {name.split("/")[1].removesuffix(".nii.gz"): reason for name, reason in caught.value.problems.items()}
    assert set(problems) == {
        "BraTS20_Training_001_flair",
        "BraTS20_Training_002_seg",
        "BraTS20_Training_003_flair",
        "BraTS20_Training_004_seg",
        "BraTS20_Training_005_flair",
        "BraTS20_Training_006_flair",
        "BraTS20_Training_007_flair",
        "BraTS20_Training_007_seg",
    }
    assert problems["BraTS20_Training_002_seg"] == "missing"
    assert problems["BraTS20_Training_003_flair"] == "shape (40, 40, 6), expected (40, 40, 7)"
    assert "unexpected label values [3" in problems["BraTS20_Training_004_seg"]
    assert "NaN" in problems["BraTS20_Training_005_flair"]
    assert "above zero" in problems["BraTS20_Training_006_flair"]
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modality": "ct"}, "modality = 'ct': use one of flair, t1, t1ce, t2"),
        ({"roi_classes": ()}, r"roi_classes = \(\)"),
        ({"roi_classes": (3,)}, r"roi_classes = \(3,\): use some of \(1, 2, 4\)"),
        ({"roi_classes": (4, 1)}, "rising order"),
        ({"num_val": -1}, "num_val = -1"),
    ],
)
def test_impossible_fields_are_refused(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        BraTS(tmp_path, **fields)


def test_the_writer_keeps_to_the_layout_at_full_size(tmp_path):
    folder = write_brats(tmp_path, num_cases=1, modalities=["t2"])
    assert sorted(str(path.relative_to(tmp_path)) for path in folder.glob("*/*")) == [
        f"{FOLDER_NAME}/BraTS20_Training_001/BraTS20_Training_001_seg.nii.gz",
        f"{FOLDER_NAME}/BraTS20_Training_001/BraTS20_Training_001_t2.nii.gz",
    ]
    dataset = BraTS(tmp_path, modality="t2", num_val=0)
    image_CHW, mask_HW = dataset.decode(dataset.records()[0])
    volume = nibabel.load(folder / "BraTS20_Training_001" / "BraTS20_Training_001_t2.nii.gz")
    assert (volume.shape, volume.get_data_dtype()) == ((240, 240, 155), np.int16)
    np.testing.assert_array_equal(image_CHW[0] > 0, np.asanyarray(volume.dataobj[..., 77]).T > 0)
    assert image_CHW[0][mask_HW == 1].mean() > 1.1 * image_CHW[0][(image_CHW[0] > 0) & (mask_HW == 0)].mean()
