"""Files whose names leave open which is meant, or that look the same and are not."""

import gzip
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from PIL import Image

from trainables.api.errors import BadData
from trainables.data import labels_csv
from trainables.data.cache import OwnContext, open_annotation, open_images
from trainables.data.datasets import lookup
from trainables.data.folder import Folder, FolderLabels, FolderMask, write_folder
from trainables.data.folder_volumes import FolderVolumeMask, FolderVolumes, write_volumes
from trainables.data.kvasir import Kvasir, KvasirPolyp, write_kvasir
from trainables.data.lung_mask import LungMask, write_lung_mask


@pytest.fixture
def context(tmp_path):
    return OwnContext(tmp_path / "cache")


def problems_of(make):
    with pytest.raises(BadData) as caught:
        make()
    return caught.value.problems


def test_two_masks_of_one_image_are_named_wherever_the_first_would_win(tmp_path, context):
    root = write_folder(tmp_path / "pictures", 4)
    Image.open(root / "masks/picture 1.png").save(root / "masks/picture 1.tif")
    assert problems_of(lambda: open_annotation(FolderMask(Folder.found(root, 32)), context)) == {
        "masks/picture 1.png": "lies beside masks/picture 1.tif: expected one of them, remove the others"
    }
    root = write_volumes(tmp_path / "volumes", 3)
    (root / "masks/scan 2.nii").write_bytes(gzip.decompress((root / "masks/scan 2.nii.gz").read_bytes()))
    (name,) = problems_of(lambda: open_annotation(FolderVolumeMask(FolderVolumes(root, 32)), context))
    assert name == "masks/scan 2.nii"


def test_a_second_name_of_the_same_mask_is_no_second_mask(tmp_path, context):
    root = write_folder(tmp_path, 4)
    (root / "masks/picture 1.PNG").hardlink_to(root / "masks/picture 1.png")
    assert len(open_annotation(FolderMask(Folder.found(root, 32)), context).masks_NHW) == 4


@pytest.mark.parametrize("of_image", ["NFC", "NFD"])
@pytest.mark.parametrize("of_mask", ["NFC", "NFD"])
@pytest.mark.parametrize("of_row", ["NFC", "NFD"])
def test_accents_are_one_name_as_one_character_or_two(tmp_path, context, of_image, of_mask, of_row):
    root = write_folder(tmp_path, 4)
    for form, kind in ((of_image, "images"), (of_mask, "masks")):
        (root / kind / "picture 1.png").rename(root / kind / unicodedata.normalize(form, "Geschwür.png"))
    rows = "image,label\n" + unicodedata.normalize(of_row, "Geschwür.png") + ",ulcer\n"
    (root / "labels.csv").write_text(rows)
    images = Folder.found(root, 32)
    assert open_annotation(FolderMask(images), context).masks_NHW.any(axis=(1, 2)).all()
    assert FolderLabels(images).labels() == {unicodedata.normalize(of_image, "Geschwür"): 0}


def test_x_rays_whose_names_differ_in_capitals_would_share_a_mask(tmp_path):
    folder = write_lung_mask(tmp_path, {"train": 3, "val": 2})
    (folder / "train/image/CXRIMAGE_0.png").write_bytes((folder / "train/image/cxrimage_0.png").read_bytes())
    assert set(problems_of(LungMask(tmp_path).records)) == {
        "train/image/CXRIMAGE_0.png", "train/image/cxrimage_0.png"
    }  # fmt: skip


def test_a_compressed_volume_under_another_name_says_its_name(tmp_path, context):
    root = write_volumes(tmp_path, 3)
    (root / "images/scan 1.nii.gz").rename(root / "images/scan 1.nii")
    (reason,) = problems_of(lambda: open_images(FolderVolumes(root, 32), context)).values()
    assert reason.startswith("is compressed by gzip: name it scan 1.nii.gz")


def test_a_lossless_polyp_mask_of_0_and_1_is_named_and_an_empty_one_is_not(tmp_path, context):
    folder = write_kvasir(tmp_path, 4)
    paths = sorted((folder / "masks").iterdir())
    for path, inside in zip(paths, (1, 0, 255), strict=False):
        size = Image.open(path).size
        path.unlink()
        mask_HW = np.zeros(size[::-1], np.uint8)
        mask_HW[:9] = inside
        Image.fromarray(mask_HW).save(path.with_suffix(".png"))
    assert problems_of(lambda: open_annotation(KvasirPolyp(Kvasir(tmp_path, 32)), context)) == {
        "masks/cju000polyp.png": "is 1 at its brightest pixel, and 128 and more is inside: save it with 0 outside and "
        "255 inside"
    }


def test_an_empty_kvasir_says_so(tmp_path):
    (tmp_path / "Kvasir-SEG/images").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="Kvasir-SEG/images is empty; expected images: unpack it again"):
        Kvasir(tmp_path).records()


def test_a_root_may_be_text_and_the_current_folder_has_its_name(tmp_path, context, monkeypatch):
    write_folder(tmp_path / "pictures", 4)
    write_volumes(tmp_path / "volumes", 3)
    for images, mask in (
        (Folder(str(tmp_path / "pictures"), 32, 3), FolderMask),
        (FolderVolumes(str(tmp_path / "volumes"), 32), FolderVolumeMask),
    ):
        assert len(open_images(images, context)) == len(images.records())
        assert open_annotation(mask(images), context).masks_NHW.any()
    monkeypatch.chdir(tmp_path / "pictures")
    assert Folder.found(".", 32).card().name == "pictures"


def test_a_table_that_is_a_folder_says_what_to_do(tmp_path):
    root = write_folder(tmp_path, 4)
    (root / "labels.csv").unlink()
    (root / "labels.csv").mkdir()
    reason = problems_of(Folder(root, 32, 3).records)["labels.csv"]
    assert reason == "is a folder: a file was expected, move it away or rename it"


def test_classes_are_those_of_the_images_that_are_left_in(tmp_path):
    """Result and key go together: what is excluded is not in the key."""
    root = write_folder(tmp_path, 6)
    rows = [f"picture {n}.png,{label}" for n, label in enumerate(("artefact", "flat", "round", "flat", "round", ""))]
    (root / "labels.csv").write_text("image,label\n" + "\n".join(rows))
    whole = lookup(f"folder:{root}", 32, None)
    assert whole.labels.class_names == ("artefact", "flat", "round")
    kept = whole.of_kept(["picture 0"])
    assert kept.labels.class_names == ("flat", "round")
    assert kept.labels.labels() == {"picture 1": 0, "picture 2": 1, "picture 3": 0, "picture 4": 1}
    assert [record.id for record in kept.labels.records()] == ["picture 1", "picture 2", "picture 3", "picture 4"]
    of_kept = FolderLabels(whole.images, excluded=("picture 0",))
    assert of_kept.class_names == ("flat", "round")
    assert "picture 0" not in of_kept.labels()


def test_a_second_mask_is_seen_also_when_the_first_was_decoded_before(tmp_path, context):
    root = write_folder(tmp_path / "pictures", 4)
    open_annotation(FolderMask(Folder.found(root, 32)), context)
    Image.open(root / "masks/picture 1.png").save(root / "masks/picture 1.tif")
    assert list(problems_of(lambda: open_annotation(FolderMask(Folder.found(root, 32)), context))) == [
        "masks/picture 1.png"
    ]


def test_a_row_is_of_the_file_of_its_name_before_one_that_lacks_its_suffix(tmp_path):
    root = write_folder(tmp_path, 4)
    for kind in ("images", "masks"):
        for number, name in enumerate(("a.png", "a.png.png", "v1.png", "v1.2.png")):
            (root / kind / f"picture {number}.png").rename(root / kind / name)
    (root / "labels.csv").write_text("image,label\na.png,short\na.png.png,long\nv1.2,two\nv1,one\n")
    rows = labels_csv.read_rows(root, ["a", "a.png", "v1", "v1.2"])
    assert {id_: row.label for id_, row in rows.items()} == {"a": "short", "a.png": "long", "v1": "one", "v1.2": "two"}


def test_images_that_differ_by_the_form_of_their_accents_are_named(tmp_path):
    root = write_folder(tmp_path, 3)
    for number, form in enumerate(("NFC", "NFD")):
        (root / f"images/picture {number}.png").rename(root / "images" / unicodedata.normalize(form, "é.png"))
    problems = problems_of(Folder(root, 32, 3).records)
    assert len(problems) == 2
    assert all(
        "(whose accents are written in another form): rename or remove one" in text for text in problems.values()
    )


@pytest.mark.parametrize("odd", ["two\nlines.png", "red\x1b[31m.png"])
def test_names_with_control_characters_are_refused_and_shown_as_text(tmp_path, odd):
    root = write_folder(tmp_path, 3)
    (root / "images/picture 0.png").rename(root / "images" / odd)
    ((name, reason),) = problems_of(Folder(root, 32, 3).records).items()
    assert name == repr(odd)[1:-1]
    assert "holds control characters: rename the file" in reason


def test_a_folder_is_read_once_whatever_leads_to_it(tmp_path):
    root, place = write_folder(tmp_path, 3), tmp_path / "images"
    for number in range(24):
        place = place / f"level {number}"
        place.mkdir()
    (place / "picture 9.png").write_bytes((root / "images/picture 0.png").read_bytes())
    place = tmp_path / "images"
    for number in range(24):
        for link in ("a", "b"):
            (place / link).symlink_to(place / f"level {number}")
        place = place / f"level {number}"
    names = [record.id for record in Folder(root, 32, 3).records()]
    assert names == ["/".join([*(f"level {n}" for n in range(24)), "picture 9"]), "picture 0", "picture 1", "picture 2"]


def test_pictures_above_the_limit_are_named_in_every_thread_and_nothing_else_is_said(tmp_path, context):
    root = write_folder(tmp_path, 12)
    for number in range(1, 12):  # more than the limit, less than twice as much, at which Pillow refuses by itself
        Image.new("1", (12_000, 10_000)).save(root / f"images/picture {number}.png")
    images, reason = Folder(root, 32, 3), "claims 12000 x 10000 = more than 89478485 pixels: make it smaller"
    problems = problems_of(lambda: open_images(images, context))
    assert len(problems) == 11
    assert all(problem.startswith(reason) for problem in problems.values())
    assert len(open_annotation(FolderMask(images), context).masks_NHW) == 12  # of masks there is nothing to say
    code = "import sys; from pathlib import Path; from trainables.data import pictures; from trainables.api.errors "
    code += "import BadData\ntry: pictures.picture_size(Path(sys.argv[1]), 'x')\nexcept BadData as error: print(error)"
    path = root / "images/picture 1.png"
    said = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert reason in said.stdout
    assert not said.stderr


def test_a_picture_of_one_colour_is_named(tmp_path, context):
    root = write_folder(tmp_path, 4)
    Image.new("RGB", (40, 40), (9, 20, 30)).save(root / "images/picture 2.png")
    assert problems_of(lambda: open_images(Folder.found(root, 32), context)) == {
        "images/picture 2.png": "is one colour throughout: expected an image, move it away"
    }


def test_a_table_under_a_name_in_capitals_is_not_passed_over(tmp_path):
    root = write_folder(tmp_path, 4)
    (root / "labels.csv").rename(root / "Labels.CSV")
    assert problems_of(Folder(root, 32, 3).records) == {
        "Labels.CSV": "is not read under this name: rename it to labels.csv, or to something else"
    }
