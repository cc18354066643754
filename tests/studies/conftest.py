"""Data sets that a test can write and read in a moment."""

from functools import partial

import pytest

from studies.curve_recipes import CurveStudyOptions
from trainables.data import datasets
from trainables.data.brats import BraTS, write_brats

SMALL_VOLUME = (40, 40, 155)


@pytest.fixture
def small_brats(tmp_path, monkeypatch):
    """BraTS whose volumes are small, so that a test can write and read them."""
    monkeypatch.setattr(datasets, "BraTS", partial(BraTS, volume_shape=SMALL_VOLUME))

    def write(num_cases):
        write_brats(tmp_path / "data", num_cases, modalities=["flair"], volume_shape=SMALL_VOLUME, suffix=".nii")
        return CurveStudyOptions(scale="full", data_root=tmp_path / "data", cache_dir=tmp_path / "cache")

    return write


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Data are prepared in a folder of the tests, not in the user's."""
    monkeypatch.setenv("QUARTERTURN_CACHE", str(tmp_path_factory.getbasetemp() / "studies-cache"))
