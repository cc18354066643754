"""Reading NIfTI slices: orientation against nibabel's, and headers that must not be believed."""

import gzip
import itertools

import nibabel
import numpy as np
import pytest
from layouts import defects

from trainables.api.errors import BadData
from trainables.data.nifti import (
    MOST_VOXELS,
    Scan,
    contradiction,
    read_place,
    read_scan,
    upright,
)
from trainables.data.nifti import (
    canonical as scan_canonical,
)

SHAPE = (5, 6, 7)
ORIENTATIONS = [
    "".join(codes) for first, second in (("LR", "AP"), ("AP", "LR")) for codes in itertools.product(first, second, "SI")
]


def _volume(shape=SHAPE):
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


def _affine(codes):
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for axis, code in enumerate(codes):
        world_axis = next(index for index, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        affine[world_axis, axis] = 1 if code in "RAS" else -1
    return affine


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_slices_are_shown_front_up_and_right_side_left(tmp_path, codes, suffix):
    path = tmp_path / f"volume{suffix}"
    volume = nibabel.Nifti1Image(_volume(), _affine(codes))
    assert "".join(nibabel.aff2axcodes(volume.affine)) == codes
    nibabel.save(volume, path)
    slice_index = 2
    canonical = nibabel.as_closest_canonical(volume).get_fdata()
    height = slice_index if codes[2] == "S" else SHAPE[2] - 1 - slice_index
    expected = np.fliplr(np.rot90(canonical[:, :, height]))
    scan = read_scan(path, SHAPE, slice_index)
    assert scan.shape == SHAPE
    assert scan.is_placed
    np.testing.assert_array_equal(upright(scan.voxels, scan.affine), expected)
    np.testing.assert_array_equal(read_scan(path).voxels, _volume())
    np.testing.assert_array_equal(scan_canonical(read_scan(path)), canonical)


def test_a_volume_cut_in_another_direction_is_refused(tmp_path):
    path = tmp_path / "sagittal.nii"
    nibabel.save(nibabel.Nifti1Image(_volume(), _affine("PSR")), path)
    with pytest.raises(BadData, match=r"sagittal\.nii: axes point to PSR: the third has to be the body axis"):
        read_scan(path, SHAPE, 2)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_slice_of_a_volume_with_a_fourth_axis_of_one_is_that_slice(tmp_path, suffix):
    path = tmp_path / f"volume{suffix}"
    nibabel.save(nibabel.Nifti1Image(_volume()[..., None], np.eye(4)), path)
    np.testing.assert_array_equal(read_scan(path, slice_index=2).voxels, _volume()[..., 2])


def test_scaling_of_the_header_is_applied(tmp_path):
    path = tmp_path / "scaled.nii"
    volume = nibabel.Nifti1Image(_volume(), np.eye(4))
    volume.header.set_slope_inter(2.0, 10.0)
    nibabel.save(volume, path)
    np.testing.assert_allclose(read_scan(path, SHAPE).voxels, nibabel.load(path).get_fdata())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("shape", "expected", "message"),
    [
        ((10000, 10000, 10000), SHAPE, r"shape \(10000, 10000, 10000\), expected \(5, 6, 7\)"),
        ((10000, 10000, 10000), None, r"claims 1e\+12 voxels, expected at most 1.07e\+09"),
        ((300, 300, 100), None, "claims more voxels than a file of .* bytes can hold"),
        ((5, 6, 7, 3), None, r"shape \(5, 6, 7, 3\), expected three axes"),
        ((20000, 1, 1), None, r"shape \(20000, 1, 1\), expected at most 16384 voxels along an axis"),
    ],
)
def test_a_header_that_claims_too_much_is_refused_before_reading(tmp_path, suffix, shape, expected, message):
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.float64)
    path = tmp_path / f"bomb{suffix}"
    content = header.binaryblock + bytes(100)
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    for slice_index in (0, None):
        with pytest.raises(BadData, match=f"bomb{suffix}: .*{message}"):
            read_scan(path, expected, slice_index)
    if expected is None:
        with pytest.raises(BadData, match=message):
            read_place(path, path.name)
    assert MOST_VOXELS < 10**12


def test_a_volume_that_compresses_well_is_not_taken_for_a_lie(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((200, 200, 100), np.int16), np.eye(4)), tmp_path / "empty.nii.gz")
    assert read_scan(tmp_path / "empty.nii.gz").voxels.shape == (200, 200, 100)
    shape, affine = read_place(tmp_path / "empty.nii.gz", "empty")
    assert shape == (200, 200, 100)
    np.testing.assert_array_equal(affine, np.eye(4))


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        (np.zeros((3, 4)), "[0 0 0 0] [0 0 0 0] [0 0 0 0]"),
        (np.diag([1, np.nan, 1, 1])[:3], "[1 0 0 0] [0 nan 0 0] [0 0 1 0]"),
        (np.diag([1, np.inf, 1, 1])[:3], "[1 0 0 0] [0 inf 0 0] [0 0 1 0]"),
        ([[1, 0, 0, np.nan], [0, 1, 0, 0], [0, 0, 1, 0]], "[1 0 0 nan] [0 1 0 0] [0 0 1 0]"),
        ([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], "[1 1 0 0] [0 0 1 0] [0 0 0 0]"),
    ],
)
@pytest.mark.parametrize(
    "read", [read_scan, lambda path: read_scan(path, SHAPE, 2), lambda path: read_place(path, "x")]
)
def test_an_affine_that_is_no_place_is_named(tmp_path, rows, shown, read):
    defects.sform(tmp_path / "x.nii", _volume(), rows)
    with pytest.raises(BadData) as caught:
        read(tmp_path / "x.nii")
    (reason,) = caught.value.problems.values()
    assert reason == f"its affine {shown} is no place in space: expected three directions, correct the header"


def test_small_voxels_and_slanted_axes_are_places(tmp_path):
    affine = np.array([[1e-5, 1e-5, 0, -900], [0, 1e-6, 0, 0], [0, 0, 1e-4, 0]])
    nibabel.save(nibabel.Nifti1Image(_volume(), np.vstack([affine, [0, 0, 0, 1]])), tmp_path / "small.nii")
    np.testing.assert_allclose(read_scan(tmp_path / "small.nii", SHAPE, 2).affine[:3], affine, rtol=1e-5)


def _scan(affine, shape=SHAPE, is_placed=True):
    return Scan(np.zeros(shape), np.asarray(affine, float), shape, is_placed)


def test_a_mask_has_to_lie_where_its_image_does():
    image = _scan(np.diag([-1, -1, 2, 1]))
    near = np.diag([-1.0, -1, 2, 1])
    near[0, 3] = 0.4
    assert contradiction(_scan(near), image) is None
    near[0, 3] = 0.6
    assert "corners up to 0.6 mm apart" in contradiction(_scan(near), image)
    assert "axes RAS and LPS" in contradiction(_scan(np.diag([1, 1, 2, 1])), image)
    assert contradiction(_scan(np.diag([1, 1, 2, 1]), is_placed=False), image) is None
    assert "has shape (5, 6, 8), and its image (5, 6, 7)" in contradiction(_scan(image.affine, (5, 6, 8)), image)
    # The same axes with another distance between slices.
    assert "apart" in contradiction(_scan(np.diag([-1, -1, 2.2, 1])), image)


def test_a_volume_without_affine_says_so(tmp_path):
    nibabel.save(nibabel.Nifti1Image(_volume(), None), tmp_path / "lost.nii")
    assert not read_scan(tmp_path / "lost.nii").is_placed


def test_colour_volumes_are_refused(tmp_path):
    colours = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "colour.nii")
    with pytest.raises(BadData, match="expected numbers"):
        read_scan(tmp_path / "colour.nii", SHAPE)


@pytest.mark.parametrize("content", [b"", b"text", gzip.compress(b"text")])
def test_what_is_no_volume_is_named(tmp_path, content):
    path = tmp_path / "broken.nii.gz"
    path.write_bytes(content)
    with pytest.raises(BadData) as caught:
        read_scan(path, SHAPE)
    assert list(caught.value.problems) == ["broken.nii.gz"]
    assert caught.value.problems["broken.nii.gz"]
