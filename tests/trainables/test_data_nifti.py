"""Reading NIfTI slices: orientation against nibabel's, and headers that must not be believed."""

import gzip
import itertools

import nibabel
import numpy as np
import pytest

from trainables.api.errors import BadData
from trainables.data.nifti import read_axial_slice, read_volume, upright

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
    np.testing.assert_array_equal(upright(*read_axial_slice(path, SHAPE, slice_index)), expected)
    np.testing.assert_array_equal(read_volume(path, SHAPE), _volume())


def test_a_volume_cut_in_another_direction_is_refused(tmp_path):
    path = tmp_path / "sagittal.nii"
    nibabel.save(nibabel.Nifti1Image(_volume(), _affine("PSR")), path)
    with pytest.raises(BadData, match=r"sagittal\.nii: axes point to PSR: the third has to be the body axis"):
        read_axial_slice(path, SHAPE, 2)


def test_scaling_of_the_header_is_applied(tmp_path):
    path = tmp_path / "scaled.nii"
    volume = nibabel.Nifti1Image(_volume(), np.eye(4))
    volume.header.set_slope_inter(2.0, 10.0)
    nibabel.save(volume, path)
    np.testing.assert_allclose(read_volume(path, SHAPE), nibabel.load(path).get_fdata())


def test_a_header_that_claims_terabytes_is_refused_before_reading(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 1000))
    header.set_data_dtype(np.float64)
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(100)))
    with pytest.raises(BadData, match=r"bomb.nii.gz: shape \(30000, 30000, 1000\), expected \(5, 6, 7\)"):
        read_axial_slice(path, SHAPE, 0)


def test_colour_volumes_are_refused(tmp_path):
    colours = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "colour.nii")
    with pytest.raises(BadData, match="expected numbers"):
        read_volume(tmp_path / "colour.nii", SHAPE)


@pytest.mark.parametrize("content", [b"", b"text", gzip.compress(b"text")])
def test_what_is_no_volume_is_named(tmp_path, content):
    path = tmp_path / "broken.nii.gz"
    path.write_bytes(content)
    with pytest.raises(BadData) as caught:
        read_volume(path, SHAPE)
    assert list(caught.value.problems) == ["broken.nii.gz"]
    assert caught.value.problems["broken.nii.gz"]
