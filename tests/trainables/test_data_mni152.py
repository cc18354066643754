"""MNI152 against the packaged volumes themselves."""

import itertools

import nibabel
import numpy as np
import pytest
from fake_context import FakeContext

from trainables.api.errors import BadData
from trainables.api.identity import FileDigests, key_of
from trainables.data.cache import open_annotation, open_images
from trainables.data.mni152 import FILES, MNI152, NATIVE_SIZE_PX, MNI152Tissue, MNI152Tissues, packaged_folder
from trainables.data.square import resize


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return FakeContext(tmp_path_factory.mktemp("trial"))


@pytest.fixture(scope="module")
def table(context):
    return open_images(MNI152(), context)


@pytest.fixture(scope="module")
def white_matter(context):
    return open_annotation(MNI152Tissue(MNI152()), context)


@pytest.fixture(scope="module")
def canonical():
    """The volumes with axes to the right, the front and the top, read by nibabel alone."""
    volumes = {role: nibabel.load(packaged_folder() / name) for role, name in FILES.items()}
    return {role: np.asanyarray(nibabel.as_closest_canonical(volume).dataobj) for role, volume in volumes.items()}


def _radiological(slice_XY):
    return np.fliplr(np.rot90(slice_XY))


def test_native_slices_are_the_volumes_voxels_front_up(canonical):
    for roi in ("white_matter", "grey_matter"):
        dataset = MNI152(image_size_px=NATIVE_SIZE_PX)
        for record in dataset.records()[::25]:
            image_CHW, mask_HW = dataset.decode(record), MNI152Tissue(dataset, roi).decode(record)
            t1 = _radiological(canonical["image"][..., record.position])
            probability = _radiological(canonical[roi][..., record.position])
            # Cropping only: the square lies inside the volume and loses no brain.
            rows, columns = slice(18, 18 + NATIVE_SIZE_PX), slice(2, 2 + NATIVE_SIZE_PX)
            np.testing.assert_array_equal(image_CHW[0], t1[rows, columns])
            np.testing.assert_array_equal(mask_HW, probability[rows, columns] > 127)
            assert image_CHW.astype(int).sum() == t1.astype(int).sum()


def test_149_slices_hold_all_tissues(canonical):
    one_slab = MNI152(slab_length=1000).records()
    assert len(one_slab) == 149
    for record in one_slab:
        t1, white, grey = (canonical[role][..., record.position] for role in ("image", "white_matter", "grey_matter"))
        assert (white > 127).any()
        assert (grey > 127).any()
        assert ((t1 > 0) & (white <= 127) & (grey <= 127)).any()


def test_default_splits(table):
    assert len(table.rows("train")) == 77
    assert len(table.rows("val")) == 36
    assert table.index.filter(split="val")["group"].unique().sort().to_list() == ["slab_02", "slab_05", "slab_08"]


@pytest.mark.parametrize(("slab_length", "gap"), [(12, 4), (5, 0), (7, 11)])
def test_slabs_are_contiguous_and_apart_by_the_gap(slab_length, gap):
    records = MNI152(slab_length=slab_length, gap=gap).records()
    positions = {}
    for record in records:
        positions.setdefault(record.group, []).append(record.position)
    assert all(max(slab) - min(slab) < slab_length for slab in positions.values())
    for below, above in itertools.pairwise(sorted(positions.values())):
        assert min(above) - max(below) > gap


def test_white_matter_is_where_t1_is_bright(table, white_matter):
    for row in np.flatnonzero(white_matter.index["mask_fraction"] > 0.02):
        image, mask = table.images_NCHW[row, 0].astype(float), white_matter.masks_NHW[row].astype(bool)
        rest_of_brain = (image > 0) & ~mask
        assert image[mask].mean() > 1.2 * image[rest_of_brain].mean()


def test_images_and_masks_are_mirror_symmetric(table, white_matter):
    np.testing.assert_array_equal(table.images_NCHW, table.images_NCHW[..., ::-1])
    np.testing.assert_array_equal(white_matter.masks_NHW, white_matter.masks_NHW[..., ::-1])


def test_no_rotation_about_the_centre_cuts_the_brain(table):
    side = table.images_NCHW.shape[-1]
    offset = np.arange(side) - (side - 1) / 2
    outside_circle = np.hypot(*np.meshgrid(offset, offset)) > (side - 1) / 2
    assert not table.images_NCHW[:, 0, outside_circle].any()
    widest = (table.images_NCHW > 0).any(axis=(0, 1, 3)).sum()
    assert widest > 0.9 * side, "the brain should fill the square"


def test_resizing_keeps_proportions_and_brightness():
    native, small = MNI152(image_size_px=NATIVE_SIZE_PX), MNI152(image_size_px=64)
    record = next(record for record in native.records() if record.position == 90)
    image, small_image = native.decode(record), small.decode(record)
    mask, small_mask = MNI152Tissue(native).decode(record), MNI152Tissue(small).decode(record)
    assert small_image.mean() == pytest.approx(image.mean(), rel=0.01)
    assert small_mask.mean() == pytest.approx(mask.mean(), rel=0.05)
    brain, small_brain = image[0] > 60, small_image[0] > 60
    for axis in (0, 1):
        extent, small_extent = brain.any(axis=axis).mean(), small_brain.any(axis=axis).mean()
        assert small_extent == pytest.approx(extent, abs=2 / 64)


def test_every_choice_of_slices_and_pixels_counts_in_the_key():
    variants = [
        MNI152(),
        MNI152(image_size_px=64),
        MNI152(slab_length=10),
        MNI152(gap=5),
        MNI152(val_every=4),
    ]
    digests = FileDigests()
    assert len({key_of(variant, digests) for variant in variants}) == len(variants)
    tissues = [MNI152Tissue(MNI152()), MNI152Tissue(MNI152(), "grey_matter"), MNI152Tissues(MNI152())]
    assert len({key_of(tissue, digests) for tissue in tissues}) == 3
    assert key_of(MNI152(folder=packaged_folder()), digests) == key_of(MNI152(), digests)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gap": -1}, "gap = -1"),
        ({"val_every": 1}, "val_every = 1"),
        ({"image_size_px": 0}, "image_size_px = 0"),
    ],
)
def test_impossible_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MNI152(**fields)
    with pytest.raises(ValueError, match="tissue = 'skull': use one of white_matter, grey_matter"):
        MNI152Tissue(MNI152(), "skull")


def test_white_and_grey_matter_share_their_images():
    """So one pretraining serves both: nothing of a tissue enters the identity of the images."""
    images = MNI152()
    assert list(images.source_files()) == [FILES["image"]]
    digests = {FILES["image"]: "t1"}
    assert {row[2] for row in images.content(digests)} == {"t1"}
    white, grey = MNI152Tissue(images), MNI152Tissue(images, "grey_matter")
    assert white.images == grey.images
    assert white.content({FILES["white_matter"]: "w"})[0] == ["axial_002", "slab_00", 2, "w"]


def test_how_slices_are_chosen_counts_by_its_outcome():
    """gap 4 after slabs of 12 and slabs of 1000 without any choose other slices; an unused choice changes nothing."""
    digests = {FILES["image"]: "t1"}
    assert MNI152(slab_length=1000, gap=4).content(digests) == MNI152(slab_length=900, gap=9).content(digests)
    assert MNI152().content(digests) != MNI152(val_every=4).content(digests)


def test_the_four_tissues_are_those_of_the_voxels(canonical):
    images = MNI152(image_size_px=NATIVE_SIZE_PX)
    tissues = MNI152Tissues(images)
    record = images.records()[50]
    t1, white, grey = (
        _radiological(canonical[role][..., record.position])[18 : 18 + NATIVE_SIZE_PX, 2 : 2 + NATIVE_SIZE_PX]
        for role in ("image", "white_matter", "grey_matter")
    )
    expected = np.where(t1 == 0, 0, np.where(white > 127, 3, np.where(grey > 127, 2, 1)))
    np.testing.assert_array_equal(tissues.decode(record), expected)
    assert tissues.class_names == ("background", "fluid", "grey_matter", "white_matter")
    np.testing.assert_array_equal(tissues.decode(record) == 3, MNI152Tissue(images).decode(record))


def test_a_resized_pixel_is_the_tissue_that_covers_most_of_it():
    native, small = MNI152(image_size_px=NATIVE_SIZE_PX), MNI152(image_size_px=48)
    record = native.records()[50]
    classes_SS, resized_SS = MNI152Tissues(native).decode(record), MNI152Tissues(small).decode(record)
    shares = np.stack([resize(classes_SS == index, 48) for index in range(4)])
    np.testing.assert_array_equal(np.take_along_axis(shares, resized_SS[None].astype(int), 0)[0], shares.max(axis=0))
    for index in range(4):
        assert (resized_SS == index).mean() == pytest.approx((classes_SS == index).mean(), abs=0.05)


def test_missing_and_damaged_volumes_are_named(tmp_path):
    dataset = MNI152.example(tmp_path / "data")
    for role in ("image", "grey_matter"):
        path = tmp_path / "data" / FILES[role]
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BadData) as caught:
        open_images(dataset, FakeContext(tmp_path / "trial"))
    assert set(caught.value.problems) == {FILES["image"], FILES["grey_matter"]}
    (tmp_path / "data" / FILES["image"]).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {FILES['image']}; install nilearn again"):
        dataset.records()
