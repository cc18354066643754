"""The user's own pictures, labels.csv, and what can be wrong with them."""

import os
from dataclasses import replace

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
from trainables.data.folder_volumes import write_volumes
from trainables.data.square import pad_to_square, resize
from trainables.data.synthetic import picture


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


def test_the_table_knows_every_name_and_says_what_to_give(tmp_path):
    assert list(DATASETS) == [
        "mni152", "brats", "kvasir", "lung_mask", "mnist5k", "digits",
        "isic2019", "isic2016", "chestxray14", "shenzhen", "folder:PATH",
    ]  # fmt: skip
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
        ValueError, match="there is no data set 'imagenet': use one of mni152, brats, kvasir, lung_mask, mnist5k"
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
