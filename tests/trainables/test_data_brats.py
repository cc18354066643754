"""BraTS in its on-disk layout, with the defects that the real one has."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from fake_context import FakeContext
from layouts import defects

from trainables.api.errors import BadData
from trainables.api.identity import FileDigests, key_of
from trainables.data.brats import FOLDER_NAME, ODD_MASK_NAME, BraTS, BraTSClasses, BraTSTumour
from trainables.data.cache import open_annotation, open_images, survey
from trainables.data.synthetic import write_brats, write_volume

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


@pytest.mark.parametrize("modality", ["flair", "t1", "t1ce", "t2"])
def test_image_is_the_normalised_median_slice_of_the_modality(root, modality):
    dataset = _dataset(root, modality=modality)
    for number, record in enumerate(dataset.records(), start=1):
        assert record.position == MEDIAN
        image_CHW = dataset.decode(record)
        stored = _stored_slice(_file(root, number, modality))
        white = np.percentile(stored[stored > 0], 99.5)
        np.testing.assert_array_equal(image_CHW[0], np.rint(np.minimum(stored / white, 1) * 255))
        assert (image_CHW[0][stored == 0] == 0).all()


def test_the_scale_of_the_scanner_does_not_matter(root):
    dataset = _dataset(root)
    record = dataset.records()[0]
    before = dataset.decode(record)
    path = _file(root, 1, "flair")
    volume = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image((volume.get_fdata() * 7).astype(np.int16), volume.affine), path)
    np.testing.assert_array_equal(dataset.decode(record), before)


@pytest.mark.parametrize("classes", [(1, 2, 4), (1, 4), (4,), (2,)])
def test_mask_is_the_union_of_the_classes(root, classes):
    dataset = _dataset(root)
    record = dataset.records()[0]
    labels = _stored_slice(_file(root, 1, "seg"))
    assert set(np.unique(labels)) == {0, 1, 2, 4}
    expected = sum((labels == label).astype(int) for label in classes)
    np.testing.assert_array_equal(BraTSTumour(dataset, classes).decode(record), expected)


def test_label_4_is_the_class_after_2(root):
    dataset = _dataset(root)
    labels = _stored_slice(_file(root, 1, "seg"))
    classes = BraTSClasses(dataset)
    decoded = classes.decode(dataset.records()[0])
    for index, label in enumerate((0, 1, 2, 4)):
        np.testing.assert_array_equal(decoded == index, labels == label)
    assert classes.class_names == ("background", "core", "oedema", "enhancing")


def test_one_encoder_serves_every_region_and_the_modalities_differ(root):
    digests = FileDigests()
    dataset = _dataset(root)
    whole, core = BraTSTumour(dataset), BraTSTumour(dataset, (1, 4))
    assert not any("seg" in name or "Segm" in name for name in dataset.source_files())
    assert key_of(whole, digests) != key_of(core, digests)
    assert (whole.name, core.name) == ("tumour", "tumour_1+4")
    before = key_of(dataset, digests)
    assert key_of(_dataset(root, modality="t2"), digests) != before
    _file(root, 1, "seg").unlink()
    assert key_of(dataset, digests) == before
    assert key_of(BraTSTumour(dataset), digests) != key_of(whole, digests) or whole == BraTSTumour(dataset)


def test_the_mask_with_the_odd_name_is_found(root):
    assert (_case(root, 3) / ODD_MASK_NAME).is_file()
    assert not _file(root, 3, "seg").exists()
    dataset = _dataset(root)
    np.testing.assert_array_equal(
        BraTSTumour(dataset).decode(dataset.records()[2]), _stored_slice(_case(root, 3) / ODD_MASK_NAME) > 0
    )


def test_a_mask_that_lost_its_orientation_stays_on_its_image(root):
    tumour = BraTSTumour(_dataset(root))
    record = tumour.images.records()[0]
    before = tumour.decode(record)
    path = _file(root, 1, "seg")
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(nibabel.load(path).dataobj), None), path)
    np.testing.assert_array_equal(tumour.decode(record), before)
    assert not np.array_equal(before, before[::-1])


def test_an_image_whose_header_is_no_place_is_named_and_its_mask_is_not(root):
    dataset = _dataset(root)
    record = dataset.records()[0]
    path = _file(root, 1, "flair")
    before = BraTSTumour(dataset).decode(record)
    voxels = np.asanyarray(nibabel.load(path).dataobj)
    path.unlink()
    defects.sform(path.with_suffix(""), voxels, np.full((3, 4), np.nan))
    record = dataset.records()[0]
    with pytest.raises(BadData, match=r"001_flair\.nii: its affine .nan nan nan nan. .* is no place in space"):
        dataset.decode(record)
    np.testing.assert_array_equal(BraTSTumour(dataset).decode(record), before)


def test_a_mask_that_contradicts_its_image_is_refused_by_name(root):
    """Taken as its header says it would be mirrored on the image; taken as the image lies the header would be wrong."""
    tumour = BraTSTumour(_dataset(root))
    path = _file(root, 1, "seg")
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(nibabel.load(path).dataobj), np.eye(4)), path)
    with pytest.raises(BadData, match=r"001_seg.nii.gz: its affine contradicts the image's \(axes RAS and LPS"):
        tumour.decode(tumour.images.records()[0])


def test_uncompressed_volumes_give_the_same_images(root, tmp_path):
    write_brats(tmp_path / "plain", num_cases=5, volume_shape=SHAPE, suffix=".nii")
    compressed, plain = _dataset(root), _dataset(tmp_path / "plain")
    assert {path.suffix for path in plain.source_files().values()} == {".nii"}
    for one, other in zip(compressed.records(), plain.records(), strict=True):
        np.testing.assert_array_equal(compressed.decode(one), plain.decode(other))
        np.testing.assert_array_equal(BraTSTumour(compressed).decode(one), BraTSTumour(plain).decode(other))


def test_a_case_without_tumour_in_the_slice_is_kept_with_an_empty_mask(root, tmp_path):
    index = open_annotation(BraTSTumour(_dataset(root)), FakeContext(tmp_path / "trial")).index
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


@pytest.mark.parametrize(
    ("num_cases", "num_val"),
    [(1, 0), (2, 1), (3, 1), (4, 2), (10, 2), (14, 2), (42, 5), (100, 11), (368, 40), (369, 40)],
)
def test_any_number_of_patients_can_be_split(full_root, num_cases, num_val):
    for number in range(num_cases + 1, 370):
        _case(full_root, number).rmdir()
    splits = [record.split for record in BraTS(full_root).records()]
    assert (splits.count("train"), splits.count("val")) == (num_cases - num_val, num_val)
    assert sum(BraTS(full_root).card().counts.values()) == num_cases


def test_the_split_hangs_on_its_seed_alone(full_root):
    def validation(**fields):
        return {record.id for record in BraTS(full_root, **fields).records() if record.split == "val"}

    assert validation() == validation(modality="t2") == validation(image_size_px=64)
    assert BraTS(full_root, split_seed=1).content({}) != BraTS(full_root).content({})
    assert len(validation() & validation(split_seed=1)) < 15
    with pytest.raises(ValueError, match=r"num_val = 369, but .* holds 369 cases"):
        validation(num_val=369)


def test_every_bad_file_is_listed_and_no_good_one(tmp_path, monkeypatch):
    root = tmp_path / "data"
    write_brats(root, num_cases=14, volume_shape=SHAPE)
    image, mask = "flair", "seg"
    _file(root, 1, image).write_bytes(_file(root, 1, image).read_bytes()[:200])
    _file(root, 2, mask).rename(_file(root, 2, "segm"))
    write_volume(_file(root, 3, image), np.ones((40, 40, 6), np.int16))
    write_volume(_file(root, 4, mask), np.full(SHAPE, 3, np.int16))
    write_volume(_file(root, 5, image), np.full(SHAPE, np.nan, np.float32))
    write_volume(_file(root, 6, image), np.zeros(SHAPE, np.int16))
    _file(root, 7, image).write_bytes(b"")
    _file(root, 7, mask).write_bytes(b"no volume at all")
    _file(root, 8, image).unlink()
    _file(root, 8, image).symlink_to(_file(root, 8, image).name)
    shutil.rmtree(_case(root, 9))
    _case(root, 9).write_text("a file where a folder should be")
    write_volume(_file(root, 11, mask), np.ones((40, 39, 7), np.int16))
    _forbid(_file(root, 12, image), monkeypatch)
    _file(root, 13, image).unlink()
    _file(root, 13, image).symlink_to("/nowhere/at/all.nii.gz")
    context = FakeContext(tmp_path / "trial")
    dataset = _dataset(root)
    with pytest.raises(BadData) as of_images:
        open_images(dataset, context)
    with pytest.raises(BadData) as of_masks:
        open_annotation(BraTSTumour(dataset), context)
    images, masks = (
        {name.split("/")[1][17:].removesuffix(".nii.gz"): reason for name, reason in caught.value.problems.items()}
        for caught in (of_images, of_masks)
    )
    for problems, expected in [
        (
            images,
            {
                "001_flair": "expected a whole NIfTI volume, copy it again",
                "003_flair": "shape (40, 40, 6), expected (40, 40, 7)",
                "005_flair": "holds NaN",
                "006_flair": "no voxel above zero",
                "007_flair": "is empty (0 bytes)",
                "008_flair": "symbolic link that leads back to itself",
                "009_flair": "BraTS20_Training_009 is a file, where a folder was expected",
                "012_flair": "may not be read (Permission denied): allow it",
                "013_flair": "symbolic link to /nowhere/at/all.nii.gz, which does not exist",
            },
        ),
        (
            masks,
            {
                "002_seg": "expected BraTS20_Training_002_seg.nii or BraTS20_Training_002_seg.nii.gz, "
                "found BraTS20_Training_002_segm.nii.gz",
                "004_seg": "unexpected label values [3",
                "007_seg": "expected a whole NIfTI volume",
                "009_seg": "is a file, where a folder was expected",
                "011_seg": "shape (40, 39, 7), expected (40, 40, 7)",
            },
        ),
    ]:
        assert set(problems) == set(expected)
        for name, reason in expected.items():
            assert reason in problems[name]
    assert [path.name for path in context.cache_dir.iterdir() if path.is_dir()] == []
    _train_without_the_bad_ones(dataset, context)


def _train_without_the_bad_ones(dataset, context):
    bad = survey(dataset, context)
    assert [name[-3:] for name in bad] == ["001", "003", "005", "006", "007", "008", "009", "012", "013"]
    images = replace(dataset, excluded=tuple(bad))
    assert len(open_images(images, context)) == 5
    masks_bad = survey(BraTSTumour(images), context)
    assert [name[-3:] for name in masks_bad] == ["002", "004", "011"]
    region = open_annotation(BraTSTumour(images, excluded=tuple(masks_bad)), context)
    assert region.index.filter("annotated")["id"].str.slice(-3).to_list() == ["010", "014"]


def _forbid(path, monkeypatch):
    """What chmod does to others than root, who runs the tests."""
    access, read = os.access, Path.open

    def refuse(self, *arguments, **options):
        if self == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(self, *arguments, **options)

    monkeypatch.setattr(os, "access", lambda name, mode: Path(name) != path and access(name, mode))
    monkeypatch.setattr(Path, "open", refuse)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modality": "ct"}, "modality = 'ct': use one of flair, t1, t1ce, t2"),
        ({"num_val": -1}, "num_val = -1"),
    ],
)
def test_impossible_fields_are_refused(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        BraTS(tmp_path, **fields)


@pytest.mark.parametrize(
    ("classes", "message"),
    [((), r"classes = \(\)"), ((3,), r"classes = \(3,\): use some of \(1, 2, 4\)"), ((4, 1), "rising order")],
)
def test_impossible_classes_are_refused(tmp_path, classes, message):
    with pytest.raises(ValueError, match=message):
        BraTSTumour(BraTS(tmp_path), classes)


def test_the_writer_keeps_to_the_layout_at_full_size(tmp_path):
    folder = write_brats(tmp_path, num_cases=1, modalities=["t2"])
    assert sorted(str(path.relative_to(tmp_path)) for path in folder.glob("*/*")) == [
        f"{FOLDER_NAME}/BraTS20_Training_001/BraTS20_Training_001_seg.nii.gz",
        f"{FOLDER_NAME}/BraTS20_Training_001/BraTS20_Training_001_t2.nii.gz",
    ]
    dataset = BraTS(tmp_path, modality="t2", num_val=0)
    (record,) = dataset.records()
    image_CHW, mask_HW = dataset.decode(record), BraTSTumour(dataset).decode(record)
    volume = nibabel.load(folder / "BraTS20_Training_001" / "BraTS20_Training_001_t2.nii.gz")
    assert (volume.shape, volume.get_data_dtype()) == ((240, 240, 155), np.int16)
    np.testing.assert_array_equal(image_CHW[0] > 0, np.asanyarray(volume.dataobj[..., 77]).T > 0)
    assert image_CHW[0][mask_HW == 1].mean() > 1.1 * image_CHW[0][(image_CHW[0] > 0) & (mask_HW == 0)].mean()
