"""MNI152 against the packaged volumes themselves."""

import itertools

import nibabel
import numpy as np
import pytest

from trainables.api.errors import BadData
from trainables.api.identity import FileDigests, key_of
from trainables.data.cache import open_table
from trainables.data.mni152 import FILES, MNI152, NATIVE_SIZE_PX, packaged_folder


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return open_table(MNI152(), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def canonical():
    """The volumes with axes to the right, the front and the top, read by nibabel alone."""
    volumes = {role: nibabel.load(packaged_folder() / name) for role, name in FILES.items()}
    return {role: np.asanyarray(nibabel.as_closest_canonical(volume).dataobj) for role, volume in volumes.items()}


def _radiological(slice_XY):
    return np.fliplr(np.rot90(slice_XY))


def test_native_slices_are_the_volumes_voxels_front_up(canonical):
    for roi in ("white_matter", "grey_matter"):
        dataset = MNI152(image_size_px=NATIVE_SIZE_PX, roi=roi)
        for record in dataset.records()[::25]:
            image_CHW, mask_HW = dataset.decode(record)
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


def test_white_matter_is_where_t1_is_bright(table):
    for row in np.flatnonzero(table.index["mask_fraction"] > 0.02):
        image, mask = table.images_NCHW[row, 0].astype(float), table.masks_NHW[row].astype(bool)
        rest_of_brain = (image > 0) & ~mask
        assert image[mask].mean() > 1.2 * image[rest_of_brain].mean()


def test_images_and_masks_are_mirror_symmetric(table):
    np.testing.assert_array_equal(table.images_NCHW, table.images_NCHW[..., ::-1])
    np.testing.assert_array_equal(table.masks_NHW, table.masks_NHW[..., ::-1])


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
    (image, mask), (small_image, small_mask) = native.decode(record), small.decode(record)
    assert small_image.mean() == pytest.approx(image.mean(), rel=0.01)
    assert small_mask.mean() == pytest.approx(mask.mean(), rel=0.05)
    brain, small_brain = image[0] > 60, small_image[0] > 60
    for axis in (0, 1):
        extent, small_extent = brain.any(axis=axis).mean(), small_brain.any(axis=axis).mean()
        assert small_extent == pytest.approx(extent, abs=2 / 64)


def test_every_choice_of_slices_and_pixels_counts_in_the_key():
    variants = [
        MNI152(),
        MNI152(roi="grey_matter"),
        MNI152(image_size_px=64),
        MNI152(slab_length=10),
        MNI152(gap=5),
        MNI152(val_every=4),
    ]
    digests = FileDigests()
    assert len({key_of(variant, digests) for variant in variants}) == len(variants)
    assert key_of(MNI152(folder=packaged_folder()), digests) == key_of(MNI152(), digests)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"roi": "skull"}, "roi = 'skull': use one of white_matter, grey_matter"),
        ({"gap": -1}, "gap = -1"),
        ({"val_every": 1}, "val_every = 1"),
        ({"image_size_px": 0}, "image_size_px = 0"),
    ],
)
def test_impossible_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MNI152(**fields)


def test_missing_and_damaged_volumes_are_named(tmp_path):
    dataset = MNI152.example(tmp_path / "data")
    for role in ("image", "grey_matter"):
        path = tmp_path / "data" / FILES[role]
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BadData) as caught:
        open_table(dataset, tmp_path / "cache")
    assert set(caught.value.problems) == {FILES["image"], FILES["grey_matter"]}
    (tmp_path / "data" / FILES["image"]).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {FILES['image']}; install nilearn again"):
        dataset.records()
