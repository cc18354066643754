"""The user's own images: pictures, volumes, labels.csv, and what can be wrong with them."""

import os
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
from trainables.data.datasets import DATASETS, lookup
from trainables.data.folder import Folder, FolderLabels, FolderMask, write_folder
from trainables.data.folder_volumes import FolderVolumeLabels, FolderVolumeMask, FolderVolumes, write_volumes
from trainables.data.square import pad_to_square, resize
from trainables.data.synthetic import picture, write_volume


@pytest.fixture
def context(tmp_path):
    return FakeContext(tmp_path / "trial")


@pytest.fixture
def root(tmp_path):
    """A path with odd characters, as on people's disks."""
    return write_folder(tmp_path / "my images, été #1 [100%]", num_images=8)


@pytest.fixture
def volumes(tmp_path):
    return write_volumes(tmp_path / "vol umes", num_volumes=4)


def _problems(open_part) -> dict[str, str]:
    with pytest.raises(BadData) as caught:
        open_part()
    return caught.value.problems


def _source(root, image_size_px=48):
    return lookup(f"folder:{root}", image_size_px, None)


def test_pictures_come_with_masks_and_labels(root, context):
    source = _source(root)
    assert source.name == "folder-my images, été #1 [100%]"
    assert isinstance(source.images, Folder)
    assert source.images.num_channels == 3
    assert list(source.regions) == ["mask"]
    assert [record.id for record in source.images.records()] == [f"picture {number}" for number in range(8)]
    assert [record.group for record in source.images.records()][:3] == ["patient 0", "patient 0", "patient 1"]
    table, region = open_images(source.images, context), open_annotation(source.regions["mask"], context)
    for number in (0, 5):
        pixels_HW3, mask_HW = picture(number, 44, 36 + number)
        expected = np.stack([resize(pad_to_square(pixels_HW3[..., channel]), 48) for channel in range(3)])
        np.testing.assert_array_equal(table.images_NCHW[number], np.rint(expected))
        np.testing.assert_array_equal(region.masks_NHW[number], resize(pad_to_square(mask_HW > 0), 48) > 0.5)
    labels = open_annotation(source.labels, context)
    assert labels.class_names == ("flat", "round")
    assert labels.labels_N.tolist() == [1, 1, 0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("stored_as", ["L", "RGB", "RGBA", "I;16"])
def test_grey_pictures_have_one_channel_however_they_are_stored(tmp_path, stored_as):
    for number in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        grey = Image.fromarray(picture(number, 30, 40)[0]).convert("L")
        path = tmp_path / "images" / f"{number}.png"
        if stored_as == "I;16":
            Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(path)
        else:
            grey.convert(stored_as).save(path)
    source = _source(tmp_path, 40)
    assert source.images.num_channels == 1
    expected = np.asarray(Image.fromarray(picture(1, 30, 40)[0]).convert("L"))
    np.testing.assert_array_equal(source.images.decode(source.images.records()[1])[0, 5:35], expected)
    Image.fromarray(picture(9, 30, 40)[0]).save(tmp_path / "images" / "colour.png")
    assert _source(tmp_path).images.num_channels == 3
    problems = _problems(lambda: [source.images.decode(record) for record in source.images.records()])
    assert "has colours, and the others were grey when the folder was looked at" in problems["images/colour.png"]


def test_any_usual_format_and_nested_paths(tmp_path, context):
    for number, suffix in enumerate((".png", ".jpg", ".JPEG", ".tif", ".bmp", ".webp")):
        for kind, part in (("images", 0), ("masks", 1)):
            folder = tmp_path / kind / "ward ä" / f"day {number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            mask_suffix = ".png" if number % 2 else suffix
            Image.fromarray(picture(number, 24, 30)[part]).save(folder / f"s.{number}{(suffix, mask_suffix)[part]}")
    (tmp_path / "images" / ".hidden").write_text("of an editor")
    source = _source(tmp_path, 32)
    ids = [record.id for record in source.images.records()]
    assert ids == [f"ward ä/day {number % 2}/s.{number}" for number in (0, 2, 4, 1, 3, 5)]
    assert source.labels is None
    region = open_annotation(source.regions["mask"], context)
    for row, number in enumerate((0, 2, 4, 1, 3, 5)):
        expected = resize(pad_to_square(picture(number, 24, 30)[1] > 0), 32) > 0.5
        assert (region.masks_NHW[row] != expected).mean() < 0.02
    assert len(open_images(source.images, context)) == 6


def test_linked_folders_are_followed_and_loops_end(root, tmp_path):
    (tmp_path / "linked" / "images").mkdir(parents=True)
    (tmp_path / "linked" / "images" / "all").symlink_to(root / "images")
    (tmp_path / "linked" / "images" / "loop").symlink_to(tmp_path / "linked" / "images")
    records = Folder.found(tmp_path / "linked", 32).records()
    assert [record.id for record in records] == [f"all/picture {number}" for number in range(8)]


def test_without_masks_there_are_images_only(root, context):
    defects.rename(root / "masks", "annotations")
    source = _source(root)
    assert source.regions == {}
    assert len(open_images(source.images, context)) == 8
    with pytest.raises(ValueError, match="has images only, and a region was asked for"):
        _ = source.region


def test_splits_are_drawn_by_group_and_label_where_none_are_given(tmp_path):
    root = write_folder(tmp_path / "data", num_images=40)
    records = Folder(root).records()
    validation = {record.group for record in records if record.split == "val"}
    assert len(validation) == 4
    assert {record.group for record in records if record.split == "train"}.isdisjoint(validation)
    flat = {record.group for record in records if FolderLabels(Folder(root)).labels()[record.id] == 0}
    assert len(validation & flat) == 2
    assert validation != {r.group for r in Folder(root, split_seed=1).records() if r.split == "val"}
    (root / "labels.csv").unlink()
    splits = [record.split for record in Folder(root).records()]
    assert (splits.count("train"), splits.count("val")) == (32, 8)


@pytest.mark.parametrize(
    "form", ["image,group,split\n{rows}", "﻿ID ; Split ;group\n{swapped}", "note,id,split,group\n{noted}"]
)
def test_given_splits_and_groups_are_taken(root, form):
    splits = ["train", "train", "val", "val", "test", "test", "train", "train"]
    cells = [(f"picture {number}", f"p{number // 2}", split) for number, split in enumerate(splits)]
    rows = "\n".join(f"images/{name}.png,{group},{split}" for name, group, split in reversed(cells))
    swapped = "\n".join(f"{name};{split} ; {group}" for name, group, split in cells)
    noted = "\n".join(f"hello,{name}.jpg,{split},{group}" for name, group, split in cells)
    (root / "labels.csv").write_text(form.format(rows=rows, swapped=swapped, noted=noted), encoding="utf-8")
    records = Folder(root).records()
    assert [(record.id, record.group, record.split) for record in records] == cells
    assert Folder(root).card().counts == {"train": 4, "val": 2, "test": 2}


def test_every_wrong_row_is_listed_at_once(root):
    (root / "labels.csv").write_text(
        "image,group,split\npicture 0,a,train\npicture 0,a,train\nelsewhere.png,a,train\n"
        "picture 1,a,val\npicture 2,b,dev\n"
    )
    problems = _problems(Folder(root).records)
    assert set(problems) == {
        "labels.csv line 3",
        "labels.csv line 4",
        "labels.csv line 6",
        "labels.csv",
        "labels.csv group a",
    }
    assert "a second row for 'picture 0'" in problems["labels.csv line 3"]
    assert "there is no image 'elsewhere.png'" in problems["labels.csv line 4"]
    assert "split 'dev': use one of train, val, test" in problems["labels.csv line 6"]
    assert problems["labels.csv"].startswith("6 images have no split, and others have one (picture 2, picture 3")
    assert "is in train and val" in problems["labels.csv group a"]
    (root / "labels.csv").write_text("name,label\nx,y\n")
    assert "expected a column image or id, found name, label" in _problems(Folder(root).records)["labels.csv line 1"]
    (root / "labels.csv").write_bytes(b"image,label\nx,\xff\n")
    assert "is no UTF-8 text" in _problems(Folder(root).records)["labels.csv"]


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_a_table_may_end_its_lines_in_any_way(root, end):
    rows = [f"picture {number},p{number % 2},{('train', 'val')[number % 2]}" for number in range(8)]
    (root / "labels.csv").write_bytes(end.join(["image,group,split", *rows]).encode())
    assert [(r.group, r.split) for r in Folder(root).records()] == [("p0", "train"), ("p1", "val")] * 4


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",,,", "names no image: expected one in the column image or id, fill it in or remove the row"),
        (" ,a,train,", "names no image"),
        (".,a,train,", "there is no image '.' in images/"),
        ("images/,a,train,", "there is no image 'images/' in images/"),
        (".nii.gz,a,train,", "there is no image '.nii.gz' in images/"),
        ("x" * 500 + ",,,", f"there is no image '{'x' * 80}...' in images/"),
        ("x" * 200_000 + ",,,", "is no row of a table (field larger than field limit (131072)): look for a quotation"),
        ('"picture 0,a,train,' + "x" * 200_000, "is no row of a table (field larger"),
        ("picture 0,a," + "y" * 500 + ",", f"split '{'y' * 80}...': use one of train, val, test"),
    ],
)
def test_a_row_that_names_nothing_is_named_by_its_line(root, row, reason):
    (root / "labels.csv").write_text(f"image,group,split,label\n\n{row}\n")
    problems = _problems(Folder(root).records)
    assert list(problems) == ["labels.csv line 3"]
    assert problems["labels.csv line 3"].startswith(reason)


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        *[(column, "group") for column in ("patient", "Patient ID", "patient_ids", "subject", "case", "gruop")],
        *[(column, "split") for column in ("fold", "set", "spit", "Splits", "splt")],
        *[(column, "label") for column in ("class", "target", "labels", "lable")],
    ],
)
def test_a_column_that_may_be_misspelt_is_asked_about(root, column, meant):
    others = [name for name in ("group", "split", "label") if name != meant]
    (root / "labels.csv").write_text(f"image,{column},{','.join(others)}\npicture 0,a,,\n")
    problems = _problems(Folder(root).records)
    assert list(problems) == ["labels.csv line 1"]
    assert problems["labels.csv line 1"].startswith(f"column {column.lower()!r}: did you mean {meant!r}? Rename it")
    # Beside the known column it is another one.
    (root / "labels.csv").write_text(f"image,{meant},{column}\n")
    assert len(Folder(root).records()) == 8


def test_other_columns_are_left_alone(root):
    (root / "labels.csv").write_text("image,age,sex,age_group,folder,note,image_id,,hospital,lab\npicture 0,1,2,3,4\n")
    assert [record.group for record in Folder(root).records()] == [f"picture {number}" for number in range(8)]


def test_names_that_are_not_utf_8_are_named(root, tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    (root / "images" / f"{odd}.png").write_bytes(b"")
    for part in (lambda: _source(root), Folder(root).records):
        problems = _problems(part)
        assert problems == {
            r"caf\udce9.png": "its name is not UTF-8 or holds control characters: rename the file, or the folder"
        }
    write_folder(tmp_path / odd, num_images=2)
    with pytest.raises(ValueError, match=r"caf\\udce9: the path is not UTF-8 or holds control.*: rename the folder"):
        _source(tmp_path / odd)


def test_labels_may_be_missing_and_change_no_pretraining(root, context):
    images = Folder.found(root, 32)
    before = key_of(images, FileDigests()), key_of(FolderLabels(images), FileDigests())
    text = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(text.replace("picture 3.png,patient 1,flat", "picture 3.png,patient 1,"))
    labels = open_annotation(FolderLabels(images), context)
    assert labels.labels_N.tolist() == [1, 1, 0, -1, 1, 1, 0, 0]
    assert labels.annotated.tolist() == [True] * 3 + [False] + [True] * 4
    after = key_of(images, FileDigests()), key_of(FolderLabels(images), FileDigests())
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_every_bad_picture_of_a_folder_is_named(root, context):
    for kind, part in (("images", 0), ("masks", 1)):
        for number in range(8, 12):
            Image.fromarray(picture(number, 44, 44)[part]).save(root / kind / f"picture {number}.png")
    defects.empty(root / "images/picture 0.png")
    defects.truncate(root / "images/picture 1.png")
    (root / "images/notes.txt").write_text("no image")
    defects.other_size(root / "masks/picture 3.png")
    defects.rename(root / "masks/picture 4.png", "picture 4 mask.png")
    images = Folder(root, 32, channels=3)
    problems = _problems(lambda: open_images(images, context))
    assert set(problems) == {"images/picture 0.png", "images/picture 1.png", "images/notes.txt"}
    problems = _problems(lambda: open_annotation(FolderMask(replace(images, excluded=("notes",))), context))
    assert set(problems) == {"masks/picture 3.png", "masks/picture 4.png"}
    assert "is 38 x 44 pixels, and its image 39 x 44" in problems["masks/picture 3.png"]
    assert "expected picture 4.png or picture 4.jpg" in problems["masks/picture 4.png"]
    assert "found picture 4 mask.png" in problems["masks/picture 4.png"]
    bad = survey(images, context)
    assert list(bad) == ["notes", "picture 0", "picture 1"]
    assert len(open_images(replace(images, excluded=tuple(bad)), context)) == 10


def test_pipes_are_named_and_not_waited_for(root, context):
    """Opening one waits for a writer, for ever."""
    defects.pipe(root / "images/picture 0.png")
    (root / "images/picture 1.png").unlink()
    (root / "images/picture 1.png").symlink_to("/dev/zero")
    defects.pipe(root / "masks/picture 2.png")
    source = _source(root, 32)
    reason = "is a pipe, a socket or a device: a regular file was expected, move it out of the folder"
    problems = _problems(lambda: open_images(source.images, context))
    assert problems == {"images/picture 0.png": reason, "images/picture 1.png": reason}
    rest = replace(source.images, excluded=tuple(survey(source.images, context)))
    assert len(rest.records()) == 6
    assert _problems(lambda: open_annotation(FolderMask(rest), context)) == {"masks/picture 2.png": reason}
    FolderMask(source.images).decode(source.images.records()[0])  # whose image is a pipe
    defects.pipe(root / "labels.csv")
    assert _problems(source.images.records) == {"labels.csv": reason}


def test_masks_that_are_all_empty_are_named(root, context):
    for path in (root / "masks").iterdir():
        Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    images = Folder(root, 32, channels=3)
    problems = _problems(lambda: open_annotation(FolderMask(images), context))
    assert "all 8 masks are empty: expected pixels of the region in some" in problems["mask"]


@pytest.mark.parametrize("what", ["nothing", "a file", "no images", "empty images"])
def test_a_path_that_holds_no_images_says_what_was_expected(tmp_path, what):
    path = tmp_path / "data"
    if what == "a file":
        path.write_text("")
    elif what != "nothing":
        path.mkdir()
    if what == "empty images":
        (path / "images").mkdir()
    state = {"nothing": "does not exist", "a file": "is a file", "no images": "holds no folder images"}.get(
        what, "is empty"
    )
    with pytest.raises(FileNotFoundError, match=f"{state}; expected .*images"):
        lookup(f"folder:{path}", 32, None)


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


def test_pictures_and_volumes_in_one_folder_are_told_apart(root, volumes):
    for path in (volumes / "images").iterdir():
        path.rename(root / "images" / path.name)
    with pytest.raises(ValueError, match="the folder holds pictures and volumes: keep one kind") as caught:
        _source(root)
    assert "4 volumes (scan 0.nii.gz, scan 1.nii.gz, scan 2.nii.gz, ...), 8 pictures (picture 0.png" in str(
        caught.value
    )
    # What is neither is named as a bad image of the one kind there is.
    for path in (root / "images").glob("*.nii.gz"):
        path.unlink()
    (root / "images" / "notes.txt").write_text("")
    assert isinstance(_source(root).images, Folder)


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


def test_the_table_knows_every_name_and_says_what_to_give(tmp_path):
    assert list(DATASETS) == ["mni152", "brats", "kvasir", "lung_mask", "folder:PATH"]
    assert all(entry.images and entry.origin and entry.licence for entry in DATASETS.values())
    mni152 = lookup("mni152", 64, None)
    assert (mni152.images.image_size_px, list(mni152.regions)) == (64, ["white_matter", "grey_matter"])
    assert mni152.region == mni152.regions["white_matter"]
    for name, folder in (("brats", "MICCAI_BraTS2020"), ("kvasir", "Kvasir-SEG"), ("lung_mask", "ChestXray")):
        with pytest.raises(
            ValueError, match=f"{name} is not packaged: give --data-root with the folder that holds {folder}"
        ):
            lookup(name, 64, None)
        source = lookup(name, 48, tmp_path)
        assert (source.name, source.images.root, source.images.image_size_px) == (name, tmp_path, 48)
        assert all(region.images == source.images and key == region.name for key, region in source.regions.items())
    assert list(lookup("brats", 48, tmp_path).regions) == ["tumour", "tumour_1+4", "tumour_4"]
    with pytest.raises(
        ValueError, match="there is no data set 'imagenet': use one of mni152, brats, kvasir, lung_mask, folder"
    ):
        lookup("imagenet", 64, None)
    with pytest.raises(ValueError, match="give the folder after the colon"):
        lookup("folder:PATH", 64, None)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("picture 0.png,patient, 0,round", "has more cells than the header has columns ('round' is beyond the last)"),
        ("picture 0.png,patient 0,round,,", None),
    ],
)
def test_a_row_longer_than_the_header_is_named_unless_the_rest_is_empty(tmp_path, line, reason):
    root = write_folder(tmp_path / "own", num_images=4)
    table = root / "labels.csv"
    table.write_text(table.read_text().replace("picture 0.png,patient 0,round", line))
    if reason is None:
        assert FolderLabels(Folder(root)).class_names == ("flat", "round")
    else:
        assert reason in _problems(Folder(root).records)["labels.csv line 2"]


def test_a_column_named_twice_is_refused(tmp_path):
    root = write_folder(tmp_path / "own", num_images=4)
    table = root / "labels.csv"
    table.write_text(table.read_text().replace("image,group,label", "image,group,Group"))
    assert "the column group more than once" in _problems(Folder(root).records)["labels.csv line 1"]


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
