"""Kvasir-SEG and the Lung Mask Image Dataset in their layouts, with their defects, and every kind of bad picture."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from fake_context import FakeContext
from layouts import defects
from PIL import Image

from trainables.api.errors import BadData
from trainables.data import pictures
from trainables.data.cache import open_annotation, open_images, survey
from trainables.data.kvasir import Kvasir, KvasirPolyp, write_kvasir
from trainables.data.lung_mask import LungMask, Lungs, write_lung_mask
from trainables.data.square import pad_to_square, resize
from trainables.data.synthetic import picture


@pytest.fixture
def context(tmp_path):
    return FakeContext(tmp_path / "trial")


@pytest.fixture
def kvasir(tmp_path):
    return Kvasir(write_kvasir(tmp_path / "data", num_images=14), image_size_px=64)


@pytest.fixture
def lung(tmp_path):
    return LungMask(write_lung_mask(tmp_path / "data", {"train": 7, "val": 3, "test": 2}), image_size_px=48)


def _problems(open_part) -> dict[str, str]:
    with pytest.raises(BadData) as caught:
        open_part()
    return caught.value.problems


def test_kvasir_is_the_padded_colours_and_the_thresholded_mask(kvasir):
    record = kvasir.records()[3]
    assert (record.id, record.group, record.file) == ("cju003polyp", "cju003polyp", "images/cju003polyp.jpg")
    stored = np.asarray(Image.open(kvasir.folder() / record.file)).astype(float)
    assert stored.shape == (49, 58, 3)
    for channel, image_HW in enumerate(kvasir.decode(record)):
        expected = np.rint(resize(pad_to_square(stored[..., channel]), 64))
        np.testing.assert_array_equal(image_HW, expected.clip(0, 255))
    grey = np.asarray(Image.open(kvasir.folder() / "masks" / "cju003polyp.jpg").convert("L"))
    assert {0, 255} < set(np.unique(grey)), "the masks have the grey levels of JPEG"
    np.testing.assert_array_equal(KvasirPolyp(kvasir).decode(record), resize(pad_to_square(grey >= 128), 64) > 0.5)


def test_kvasirs_split_follows_its_seed_and_share(kvasir):
    def validation(**fields):
        return {record.id for record in replace(kvasir, **fields).records() if record.split == "val"}

    assert len(validation()) == 3
    assert len(validation(val_share=0.5)) == 7
    assert validation() < validation(val_share=0.5)
    assert validation() != validation(split_seed=1)
    assert validation() == validation(image_size_px=32)


def test_the_root_may_hold_the_folder_or_be_it(kvasir, lung):
    for dataset in (kvasir, lung):
        assert replace(dataset, root=dataset.root.parent).records() == dataset.records()


@pytest.mark.parametrize(("cls", "wanted"), [(Kvasir, "Kvasir-SEG/images"), (LungMask, "ChestXray/train/image")])
@pytest.mark.parametrize("exists", [True, False])
def test_a_missing_root_says_what_was_expected_and_what_to_do(tmp_path, cls, wanted, exists):
    root = tmp_path / "root"
    if exists:
        root.mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        cls(root).records()
    message = str(caught.value)
    for said in (str(root), wanted, "--data-root DIR", "holds no" if exists else "does not exist"):
        assert said in message


def test_lungs_come_in_the_published_split_in_grey(lung):
    records = lung.records()
    assert [record.split for record in records] == ["train"] * 7 + ["val"] * 3 + ["test"] * 2
    assert [record.id for record in records][:2] == ["train_cxrimage_0", "train_cxrimage_1"]
    assert records[10].id == "test_cxrimage_10"
    suffixes = {record.file.rsplit(".")[-1] for record in records}
    mask_suffixes = {Lungs(lung).file(record).rsplit(".")[-1] for record in records}
    assert (suffixes, mask_suffixes) == ({"png", "jpeg"}, {"jpeg", "jpg", "png"})
    for number in (0, 1, 2):
        pixels_HW3, mask_HW = picture(number, 48, 40)
        stored = Image.open(lung.folder() / records[number].file)
        assert stored.mode == ("L", "RGBA", "L")[number]
        grey = np.asarray(Image.fromarray(pixels_HW3).convert("L")).astype(float)
        tolerance = 40 if number == 2 else 0  # that one is a JPEG, of much noise
        np.testing.assert_allclose(lung.decode(records[number])[0][:, 4:44], grey, atol=tolerance)
        np.testing.assert_array_equal(Lungs(lung).decode(records[number])[:, 4:44], mask_HW > 0)


def test_many_lungs_are_ordered_by_number(tmp_path):
    lung = LungMask(write_lung_mask(tmp_path, {"train": 12}))
    assert [record.id for record in lung.records()] == [f"train_cxrimage_{number}" for number in range(12)]


def test_every_bad_picture_is_listed_by_name_at_once(kvasir, context, monkeypatch):
    images, masks = kvasir.folder() / "images", kvasir.folder() / "masks"

    def name(number):
        return f"cju{number:03d}polyp.jpg"

    defects.empty(images / name(0))
    defects.truncate(images / name(1))
    defects.no_image(images / name(2))
    defects.link_to_itself(images / name(3))
    defects.dangling_link(images / name(4))
    defects.forbid(images / name(5), monkeypatch)
    defects.bomb(images / name(6))
    defects.rename(images / name(7), "cju007polyp.xcf")
    defects.other_size(masks / name(8))
    defects.rename(masks / name(9), "cju009polyp_mask.jpg")
    defects.truncate(masks / name(10))
    defects.folder_instead(masks / name(11))
    (masks / name(12)).unlink()
    (images / ".DS_Store").write_text("of the system")
    (images / "Thumbs.db").write_text("of the system")
    image_problems = _problems(lambda: open_images(kvasir, context))
    expected = {
        f"images/{name(0)}": "is empty (0 bytes): copy it again",
        f"images/{name(1)}": "cannot be decoded (image file is truncated",
        f"images/{name(2)}": "is no image: expected .png",
        f"images/{name(3)}": "symbolic link that leads back to itself",
        f"images/{name(4)}": "symbolic link to /nowhere/at/all, which does not exist",
        f"images/{name(5)}": "may not be read (Permission denied): allow it, for example with chmod a+r",
        f"images/{name(6)}": "claims more than 89478485 pixels: make it smaller, or cut it into tiles",
        "images/cju007polyp.xcf": "expected .png, .jpg",
    }
    assert set(image_problems) == set(expected)
    for file, reason in expected.items():
        assert reason in image_problems[file]
    mask_problems = _problems(lambda: open_annotation(KvasirPolyp(kvasir), context))
    expected = {
        "masks/cju007polyp.jpg": None,
        f"masks/{name(8)}": "is 47 x 64 pixels, and its image 48 x 64: make the mask on the image's own pixels",
        f"masks/{name(9)}": "missing: expected cju009polyp.jpg or cju009polyp.jpeg or cju009polyp.png, "
        "found cju009polyp_mask.jpg",
        f"masks/{name(10)}": "cannot be decoded",
        f"masks/{name(11)}": "is a folder: a file was expected",
        f"masks/{name(12)}": "missing: expected cju012polyp.jpg or cju012polyp.jpeg or cju012polyp.png, found",
    }
    expected.pop("masks/cju007polyp.jpg")
    assert set(mask_problems) == set(expected)
    for file, reason in expected.items():
        assert reason in mask_problems[file]
    bad = survey(kvasir, context)
    assert list(bad) == [f"cju{number:03d}polyp" for number in range(8)]
    rest = replace(kvasir, excluded=tuple(bad))
    polyps = KvasirPolyp(rest, excluded=tuple(survey(KvasirPolyp(rest), context)))
    assert len(open_images(rest, context)) == 6
    assert open_annotation(polyps, context).annotated.tolist() == [False] * 5 + [True]


def test_lungs_of_another_size_than_their_image_are_named(lung, context):
    defects.other_size(lung.folder() / "train" / "mask" / "cxrmask_3.jpeg")
    problems = _problems(lambda: open_annotation(Lungs(lung), context))
    assert list(problems) == ["train/mask/cxrmask_3.jpeg"]
    assert "is 39 x 48 pixels, and its image 40 x 48" in problems["train/mask/cxrmask_3.jpeg"]


def test_misnamed_lungs_are_named(lung, context):
    image = lung.folder() / "train" / "image"
    defects.rename(image / "cxrimage_4.png", "xray_4.png")
    defects.rename(lung.folder() / "val" / "mask" / "cxrmask_8.png", "cxrimage_8_mask.png")
    problems = _problems(lambda: open_images(lung, context))
    assert list(problems) == ["train/image/xray_4.png"]
    assert "expected cxrimage_<N>.png, .jpeg or .jpg" in problems["train/image/xray_4.png"]
    problems = _problems(lambda: open_annotation(Lungs(replace(lung, excluded=("train_xray_4",))), context))
    assert list(problems) == ["val/mask/cxrmask_8.jpeg"]
    assert "expected cxrmask_8.jpeg or cxrmask_8.jpg or cxrmask_8.png, found" in problems["val/mask/cxrmask_8.jpeg"]
    assert "cxrimage_8_mask.png" in problems["val/mask/cxrmask_8.jpeg"]


def test_images_that_differ_by_their_suffix_only_are_named(kvasir):
    shutil.copy(kvasir.folder() / "images/cju000polyp.jpg", kvasir.folder() / "images/cju000polyp.png")
    problems = _problems(kvasir.records)
    assert set(problems) == {"cju000polyp.jpg", "cju000polyp.png"}
    assert "has the same name as cju000polyp.png: rename or remove one" in problems["cju000polyp.jpg"]


def _save(tmp_path, array, suffix, mode=None):
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(array, mode).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    return pictures.read_picture(path, path.name)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp"])
def test_every_lossless_format_gives_its_pixels(tmp_path, suffix):
    pixels_HW3, _ = picture(0, 12, 15)
    image = _save(tmp_path, pixels_HW3, suffix)
    np.testing.assert_array_equal(pictures.colours(image), pixels_HW3.transpose(2, 0, 1))
    weights = np.array([299, 587, 114]) / 1000
    np.testing.assert_allclose(pictures.grey(image)[0], pixels_HW3 @ weights, atol=0.51)
    assert not pictures.is_grey(image)
    assert pictures.is_grey(_save(tmp_path, np.repeat(pixels_HW3[..., :1], 3, axis=2), suffix))


def test_sixteen_bits_keep_their_white_and_other_depths_are_refused(tmp_path):
    deep = np.array([[0, 257, 65535], [32768, 1, 256]], dtype=np.uint16)
    image = _save(tmp_path, deep, ".png")
    np.testing.assert_allclose(pictures.grey(image)[0], deep / 257)
    assert pictures.colours(image).shape == (3, 2, 3)
    for kind in (np.float32, np.int32, np.int16):
        with pytest.raises(BadData, match="32-bit or signed numbers: expected 8 or 16 bits without sign, convert it"):
            _save(tmp_path, deep.astype(kind), ".tif")
    defects.several_pages(tmp_path / "pages.tif")
    with pytest.raises(BadData, match="holds 3 images: expected one"):
        pictures.read_picture(tmp_path / "pages.tif", "pages.tif")


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (0, 7)])
def test_masks_of_lossless_files_are_what_is_not_0(tmp_path, values):
    inside = picture(1, 10, 12)[1] > 0
    stored = np.where(inside, values[1], values[0]).astype(np.uint8)
    for array in (stored, np.repeat(stored[..., None], 3, axis=2)):
        np.testing.assert_array_equal(pictures.mask(_save(tmp_path, array, ".png"), "m"), inside)
    for deep in (stored.astype(np.uint16), stored.astype(np.int32)):
        Image.fromarray(deep).save(tmp_path / "deep.tif")
        image = pictures.read_picture(tmp_path / "deep.tif", "deep", is_mask=True)
        np.testing.assert_array_equal(pictures.mask(image, "deep"), inside)
    Image.fromarray(inside).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(pictures.mask(pictures.read_picture(tmp_path / "bits.png", "b"), "b"), inside)


def _mask(path, picture):
    picture.save(path)
    return pictures.mask(pictures.read_picture(path, path.name, is_mask=True), path.name)


@pytest.mark.parametrize(
    ("palette", "is_inside"),
    [([0, 0, 0, 255, 0, 0], True), ([255, 255, 255, 0, 0, 0], False), ([0, 0, 0, 0, 0, 9], True)],
)
def test_masks_with_a_palette_go_by_its_colours(tmp_path, palette, is_inside):
    inside = picture(1, 10, 12)[1] > 0
    paletted = Image.fromarray(inside.astype(np.uint8), "P")
    paletted.putpalette(palette)
    np.testing.assert_array_equal(_mask(tmp_path / "p.png", paletted), inside == is_inside)


def test_a_palette_of_one_colour_is_refused(tmp_path):
    paletted = Image.fromarray((picture(1, 10, 12)[1] > 0).astype(np.uint8), "P")
    paletted.putpalette([200] * 6)
    with pytest.raises(BadData, match=r"p\.png: has a palette that shows all classes in one colour: save it as grey"):
        _mask(tmp_path / "p.png", paletted)
    # One index only is a mask that covers everything, or nothing.
    paletted = Image.fromarray(np.zeros((4, 5), np.uint8), "P")
    paletted.putpalette([200] * 6)
    assert _mask(tmp_path / "p.png", paletted).all()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("grey", [0, 255])
def test_a_mask_of_one_colour_is_where_it_is_opaque(tmp_path, suffix, grey):
    inside = picture(1, 10, 12)[1] > 0
    alpha = np.where(inside, 255, 0).astype(np.uint8)
    painted = np.dstack([np.full((*inside.shape, 3), grey, np.uint8), alpha])
    path = tmp_path / f"m{suffix}"
    Image.fromarray(painted).save(path, **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    np.testing.assert_array_equal(pictures.mask(pictures.read_picture(path, "m"), "m"), inside)
    if suffix == ".png":
        np.testing.assert_array_equal(_mask(path, Image.fromarray(painted[..., 2:])), inside)
        paletted = Image.fromarray(inside.astype(np.uint8), "P")
        paletted.putpalette([grey] * 6)
        paletted.info["transparency"] = bytes([0, 255])
        np.testing.assert_array_equal(_mask(path, paletted), inside)


def test_colours_and_transparency_may_agree_but_not_contradict(tmp_path):
    inside = picture(1, 10, 12)[1] > 0
    values = np.where(inside, 255, 0).astype(np.uint8)
    path = tmp_path / "m.png"
    np.testing.assert_array_equal(_mask(path, Image.fromarray(np.dstack([values, values]))), inside)
    for alpha in (0, 128, 255):
        layers = np.dstack([values, np.full_like(values, alpha)])
        np.testing.assert_array_equal(_mask(path, Image.fromarray(layers)), inside)
    other = np.roll(values, 2, axis=1)
    for layers in (np.dstack([values, other]), np.dstack([values, values, values, other])):
        with pytest.raises(BadData, match=r"m\.png: shows one shape in its colours and another in its transparency"):
            _mask(path, Image.fromarray(layers))


def test_masks_of_lossy_files_are_thresholded_at_128(tmp_path):
    inside = picture(1, 40, 48)[1]
    for suffix, options in ((".jpg", {"quality": 60}), (".webp", {"quality": 40})):
        Image.fromarray(inside).save(tmp_path / f"mask{suffix}", **options)
        image = pictures.read_picture(tmp_path / f"mask{suffix}", "mask")
        grey = np.asarray(image.convert("L"))
        assert len(np.unique(grey)) > 2
        np.testing.assert_array_equal(pictures.mask(image, "mask"), grey >= 128)
        assert (pictures.mask(image, "mask") != (inside > 0)).mean() < 0.02


def test_the_threshold_lies_at_128(tmp_path):
    stored = np.repeat(np.array([0, 100, 150, 255], np.uint8), 16)[None].repeat(16, axis=0)
    Image.fromarray(stored).save(tmp_path / "mask.jpg", quality=100)
    image = pictures.read_picture(tmp_path / "mask.jpg", "mask")
    for inside in (pictures.mask(image, "mask"), pictures.bright_mask(image)):
        np.testing.assert_array_equal(inside, stored > 128)


def test_the_limit_against_bombs_is_on():
    assert Image.MAX_IMAGE_PIXELS is not None


def test_lungs_of_an_image_in_a_folder_of_its_own_lie_in_one_of_the_same_name(tmp_path):
    root = write_lung_mask(tmp_path, {"train": 2})
    for kind, name in (("image", "cxrimage_0.png"), ("mask", "cxrmask_0.jpeg")):
        (root / "train" / kind / "site").mkdir()
        (root / "train" / kind / name).rename(root / "train" / kind / "site" / name)
    lungs = Lungs(LungMask(root, image_size_px=32))
    (moved,) = [record for record in lungs.records() if "site" in record.file]
    assert lungs.file(moved) == "train/mask/site/cxrmask_0.jpeg"
    assert lungs.decode(moved).any()


def test_an_image_that_is_long_and_thin_is_refused_before_it_is_decoded(tmp_path):
    """The square around it would take gigabytes."""
    Image.new("L", (pictures.MOST_SIDE_PX, 1)).save(tmp_path / "long.png")
    assert pictures.read_picture(tmp_path / "long.png", "long.png").size == (2**14, 1)
    Image.new("L", (1, pictures.MOST_SIDE_PX + 1)).save(tmp_path / "high.png")
    for read in (pictures.read_picture, pictures.picture_size):
        with pytest.raises(BadData, match=r"high\.png: is 1 x 16385 pixels: expected at most 16384 a side"):
            read(tmp_path / "high.png", "high.png")


def test_a_tiff_whose_tags_are_damaged_is_named(tmp_path):
    """Pillow reads the second directory only when it is asked how many there are, and fails in ways of its own."""
    path = tmp_path / "a.tif"
    first, second = Image.new("L", (3, 3)), Image.new("L", (3, 3))
    first.save(path, save_all=True, append_images=[second])
    content = path.read_bytes()
    width_tag = b"\x00\x01\x04\x00\x01\x00\x00\x00"
    assert content.count(width_tag) == 2
    place = content.rindex(width_tag)
    path.write_bytes(content[:place] + b"\x99\x99" + content[place + 2 :])
    with pytest.raises(BadData, match=r"a\.tif: cannot be decoded \(Missing dimensions\)"):
        pictures.read_picture(path, path.name)


def test_colours_that_cannot_be_shown_are_refused(tmp_path):
    Image.new("LAB", (3, 3)).save(tmp_path / "a.tif")
    with pytest.raises(BadData, match=r"a\.tif: has colours of the kind LAB: expected grey or RGB, convert it"):
        pictures.read_picture(tmp_path / "a.tif", "a.tif")


def test_a_program_under_the_name_of_an_image_is_not_run(tmp_path):
    """PostScript, which Pillow has Ghostscript draw."""
    Image.new("RGB", (3, 3)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    for read in (pictures.read_picture, pictures.picture_size):
        with pytest.raises(BadData, match=r"a\.png: is no image"):
            read(tmp_path / "a.png", "a.png")
