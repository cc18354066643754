"""The user's own volumes: slices, masks, labels, and what can be wrong with them."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest
from fake_context import FakeContext
from layouts import defects
from PIL import Image

from trainables.api.errors import BadData
from trainables.api.identity import FileDigests, key_of
from trainables.data.cache import open_annotation, open_images, survey
from trainables.data.datasets import lookup
from trainables.data.folder import Folder, write_folder
from trainables.data.folder_volumes import FolderVolumeLabels, FolderVolumeMask, FolderVolumes, write_volumes
from trainables.data.square import pad_to_square
from trainables.data.synthetic import picture, write_volume


@pytest.fixture
def context(tmp_path):
    return FakeContext(tmp_path / "trial")


@pytest.fixture
def volumes(tmp_path):
    return write_volumes(tmp_path / "vol umes", num_volumes=4)


def _problems(open_part) -> dict[str, str]:
    with pytest.raises(BadData) as caught:
        open_part()
    return caught.value.problems


def _source(root, image_size_px=48):
    return lookup(f"folder:{root}", image_size_px, None)


def test_volumes_give_slices_with_content_and_the_region_has_those_that_show_it(volumes, context):
    empty = np.asanyarray(nibabel.load(volumes / "images/scan 2.nii.gz").dataobj).copy()
    empty[:, :, [0, 11]] = -1000
    write_volume(volumes / "images/scan 2.nii.gz", empty)
    source = _source(volumes, 30)
    assert isinstance(source.images, FolderVolumes)
    records = source.images.records()
    table, region = open_images(source.images, context), open_annotation(source.regions["mask"], context)
    assert (region.index.filter("annotated")["mask_fraction"] > 0).all()
    assert table.index["group"].unique().sort().to_list() == ["patient 1", "patient 2", "patient 3"]
    assert source.labels.class_names == ("left", "right")
    for number in range(4):
        image = nibabel.load(volumes / f"images/scan {number}.nii.gz")
        mask = nibabel.load(volumes / f"masks/scan {number}.nii.gz")
        voxels = nibabel.as_closest_canonical(image).get_fdata()
        region_RAS = nibabel.as_closest_canonical(mask).get_fdata() > 0
        present = np.flatnonzero(region_RAS.any(axis=(0, 1))).tolist()
        assert 2 < len(present) < 12
        of_volume = [(row, r) for row, r in enumerate(records) if r.file == f"images/scan {number}.nii.gz"]
        assert [record.position for _, record in of_volume] == [*(range(1, 11) if number == 2 else range(12))]
        shown = [r.position for r in source.regions["mask"].records() if r.file == f"images/scan {number}.nii.gz"]
        assert shown == present
        assert [r.position for row, r in of_volume if region.annotated[row]] == present
        black, white = np.percentile(voxels, [0.5, 99.5])
        for row, record in of_volume:
            upright = np.fliplr(np.rot90(voxels[:, :, record.position]))
            expected = np.rint(((upright - black) / (white - black)).clip(0, 1) * 255)
            np.testing.assert_array_equal(table.images_NCHW[row, 0], pad_to_square(expected))
            expected_mask = np.fliplr(np.rot90(region_RAS[:, :, record.position]))
            np.testing.assert_array_equal(region.masks_NHW[row], pad_to_square(expected_mask))


def test_the_orientation_of_the_file_does_not_matter(volumes):
    images, before = FolderVolumes(volumes, 32), {}
    for record in images.records():
        before[record.id] = images.decode(record), FolderVolumeMask(images).decode(record)
    for path in volumes.glob("*/*.nii.gz"):
        volume = nibabel.load(path)
        turned = volume.as_reoriented(np.array([[2, -1], [0, 1], [1, 1]]))
        assert nibabel.aff2axcodes(turned.affine) != nibabel.aff2axcodes(volume.affine)
        nibabel.save(turned, path)
    assert {record.id for record in images.records()} == set(before)
    for record in images.records():
        np.testing.assert_array_equal(images.decode(record), before[record.id][0])
        np.testing.assert_array_equal(FolderVolumeMask(images).decode(record), before[record.id][1])


def test_volumes_without_masks_give_every_slice(volumes, context):
    defects.rename(volumes / "masks", "annotations")
    source = _source(volumes, 32)
    assert source.regions == {}
    assert [r.position for r in source.images.records()] == [*range(12)] * 4
    assert len(open_images(source.images, context)) == 48


def test_a_whole_volume_stays_on_one_side_and_one_volume_says_so(volumes):
    for group in ("scan 0", "scan 2", "scan 3"):
        for kind in ("images", "masks"):
            (volumes / kind / f"{group}.nii.gz").unlink()
    (volumes / "labels.csv").unlink()
    images = FolderVolumes(volumes, 32)
    assert {record.split for record in images.records()} == {"train"}
    assert (images.card().groups, images.card().num_groups, images.card().name) == ("volumes", 1, "vol umes")


def test_groups_are_patients_only_where_the_table_says_it_of_all(volumes, tmp_path):
    images = FolderVolumes(volumes, 32)
    assert (images.card().groups, images.card().num_groups) == ("patients", 3)
    table = (volumes / "labels.csv").read_text()
    (volumes / "labels.csv").write_text(table.replace("patient 2", ""))
    assert images.card().groups == "volumes"
    (volumes / "labels.csv").unlink()
    assert images.card().groups == "volumes"
    root = write_folder(tmp_path / "pictures", num_images=4)
    pictures = Folder(root, 32, channels=3)
    assert pictures.card().groups == "patients"
    text = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join(text[:-1]) + "\n")
    assert pictures.card().groups == "images", "of one picture nothing is known"
    (root / "labels.csv").write_text("image,label\n")
    assert pictures.card().groups == "images"


def test_every_bad_volume_is_named(tmp_path, context):
    root = write_volumes(tmp_path / "data", num_volumes=9)
    images, masks = root / "images", root / "masks"
    defects.empty(images / "scan 0.nii.gz")
    defects.truncate(images / "scan 1.nii.gz", 0.6)
    Image.fromarray(picture(0, 20, 20)[0]).save(images / "photo.png")
    mask = np.asanyarray(nibabel.load(masks / "scan 2.nii.gz").dataobj)
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), masks / "scan 2.nii.gz")
    write_volume(masks / "scan 3.nii.gz", np.ones((30, 24, 11), np.uint8))
    defects.rename(masks / "scan 4.nii.gz", "scan 4 seg.nii.gz")
    defects.link_to_itself(masks / "scan 5.nii.gz")
    header = nibabel.Nifti1Header()
    header.set_data_shape((10000, 10000, 10000))
    (images / "scan 6.nii.gz").unlink()
    (images / "scan 6.nii").write_bytes(header.binaryblock + bytes(100))
    write_volume(images / "scan 7.nii.gz", np.full((30, 24, 12), 3, np.int16))
    dataset = FolderVolumes(root, 32)
    problems = _problems(lambda: open_images(dataset, context))
    expected = {
        "images/scan 0.nii.gz": "is empty (0 bytes)",
        "images/scan 1.nii.gz": "expected a whole NIfTI volume",
        "images/photo.png": "expected .nii, .nii.gz",
        "images/scan 6.nii": "claims 1e+12 voxels, expected at most",
        "images/scan 7.nii.gz": "nearly all voxels are 3: expected an image",
    }
    assert set(problems) == set(expected)
    for file, reason in expected.items():
        assert reason in problems[file]
    region = FolderVolumeMask(replace(dataset, excluded=tuple(survey(dataset, context))))
    problems = _problems(lambda: open_annotation(region, context))
    expected = {
        "masks/scan 2.nii.gz": "its affine contradicts the image's (axes RAS and LPS",
        "masks/scan 3.nii.gz": "has shape (30, 24, 11), and its image (30, 24, 12)",
        "masks/scan 4.nii": "missing: expected scan 4.nii or scan 4.nii.gz, found scan 4 seg.nii.gz",
        "masks/scan 5.nii.gz": "symbolic link that leads back to itself",
    }
    assert set(problems) == set(expected)
    for file, reason in expected.items():
        assert reason in problems[file]
    bad = survey(region, context)
    assert [id_ for id_ in bad if id_.endswith("/axial_006")] == [f"scan {number}/axial_006" for number in (2, 3, 4, 5)]
    usable = open_annotation(replace(region, excluded=tuple(bad)), context)
    assert usable.index.filter("annotated")["id"].str.split("/").list.first().unique().to_list() == ["scan 8"]
    assert len(open_images(region.images, context)) > usable.annotated.sum()


@pytest.mark.parametrize("with_masks", [True, False])
def test_pipes_and_headers_of_no_place_are_named_among_volumes(tmp_path, context, with_masks):
    root = write_volumes(tmp_path / "data", num_volumes=6)
    images, masks = root / "images", root / "masks"
    defects.pipe(images / "scan 0.nii.gz")
    for folder, number in ((images, 1), (images, 2), (masks, 3)):
        path = folder / f"scan {number}.nii.gz"
        voxels = np.asanyarray(nibabel.load(path).dataobj)
        path.unlink()
        nan_or_nothing = np.full((3, 4), np.nan if number == 2 else 0)
        defects.sform(folder / f"scan {number}.nii", voxels, nan_or_nothing)
    if not with_masks:
        defects.rename(masks, "annotations")
    dataset = lookup(f"folder:{root}", 32, None).images
    problems = _problems(lambda: open_images(dataset, context))
    assert set(problems) == {"images/scan 0.nii.gz", "images/scan 1.nii", "images/scan 2.nii"}
    assert "is a pipe, a socket or a device" in problems["images/scan 0.nii.gz"]
    assert "its affine [0 0 0 0] [0 0 0 0] [0 0 0 0] is no place in space" in problems["images/scan 1.nii"]
    assert "its affine [nan nan nan nan]" in problems["images/scan 2.nii"]
    bad = survey(dataset, context)
    assert {id_.split("/")[0] for id_ in bad} == {"scan 0", "scan 1", "scan 2"}
    rest = replace(dataset, excluded=tuple(bad))
    assert len(open_images(rest, context)) == len(rest.records()) > 5
    if with_masks:
        problems = _problems(lambda: open_annotation(FolderVolumeMask(rest), context))
        assert list(problems) == ["masks/scan 3.nii"]
        assert "is no place in space" in problems["masks/scan 3.nii"]
        assert {id_.split("/")[0] for id_ in survey(FolderVolumeMask(rest), context)} == {"scan 3"}


@pytest.mark.parametrize("what", ["empty file", "missing", "no mask folder", "other region", "empty region"])
def test_no_mask_changes_the_images_of_volumes(volumes, what):
    """A bad annotation never removes an image from a pretraining, nor changes its key."""
    images, path = FolderVolumes(volumes, 32), volumes / "masks/scan 1.nii.gz"
    before, key, region_key = (images.records(), key_of(images, FileDigests()),
                               key_of(FolderVolumeMask(images), FileDigests()))  # fmt: skip
    if what == "empty file":
        defects.empty(path)
    elif what == "missing":
        path.unlink()
    elif what == "no mask folder":
        defects.rename(volumes / "masks", "annotations")
    else:
        mask_XYZ = np.zeros((30, 24, 12), np.uint8)
        mask_XYZ[5:9, 5:9, 2] = what == "other region"
        write_volume(path, mask_XYZ)
    assert images.records() == before
    assert key_of(images, FileDigests()) == key
    assert key_of(FolderVolumeMask(images), FileDigests()) != region_key
    of_volume = [r.position for r in FolderVolumeMask(images).records() if r.file == "images/scan 1.nii.gz"]
    assert of_volume == {"other region": [2], "empty region": []}.get(what, [6]), "the middle stands for a bad mask"


def test_volumes_whose_masks_are_all_empty_are_named(volumes):
    for path in (volumes / "masks").iterdir():
        write_volume(path, np.zeros((30, 24, 12), np.uint8))
    problems = _problems(FolderVolumeMask(FolderVolumes(volumes, 32)).records)
    assert set(problems) == {f"masks/scan {number}.nii.gz" for number in range(4)}


def test_slices_of_a_labelled_volume_have_its_label(volumes, context):
    images = FolderVolumes(volumes, 32)
    table = open_annotation(FolderVolumeLabels(images), context)
    for id_, label in zip(table.index["id"], table.labels_N, strict=True):
        assert table.class_names[label] == ("left", "right")[int(id_[5]) % 2]


def test_volumes_with_capital_suffixes_are_read(tmp_path):
    root = write_volumes(tmp_path / "own", num_volumes=2)
    expected = [FolderVolumes(root).decode(record) for record in FolderVolumes(root).records()]
    for kind in ("images", "masks"):
        (root / kind / "scan 1.nii.gz").rename(root / kind / "scan 1.NII.GZ")
    images = FolderVolumes(root)
    found = [images.decode(record) for record in images.records()]
    np.testing.assert_array_equal(found, expected)
    mask = FolderVolumeMask(images)
    assert all(mask.decode(record).any() for record in mask.records())


@pytest.mark.parametrize("odd", [-1.0, np.nan])
def test_masks_of_volumes_with_negative_voxels_or_nan_are_named(tmp_path, odd):
    root = write_volumes(tmp_path / "own", num_volumes=3)
    path = root / "masks" / "scan 1.nii.gz"
    voxels = np.asarray(nibabel.load(path).dataobj).astype(np.float32)
    voxels[voxels > 0] = odd
    nibabel.save(nibabel.Nifti1Image(voxels, nibabel.load(path).affine), path)
    mask = FolderVolumeMask(FolderVolumes(root))
    record = next(record for record in mask.records() if "scan 1" in record.id)
    assert "negative voxels or NaN" in _problems(lambda: mask.decode(record))["masks/scan 1.nii.gz"]
