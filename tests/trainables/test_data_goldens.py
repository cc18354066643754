"""What the examples decode to, for ever: results of one configuration must not change their meaning unseen."""

import hashlib

import numpy as np
import pytest

from trainables.data.brats import BraTS, BraTSClasses, BraTSTumour
from trainables.data.folder import Folder, FolderMask
from trainables.data.folder_volumes import FolderVolumeMask, FolderVolumes
from trainables.data.kvasir import Kvasir, KvasirPolyp
from trainables.data.lung_mask import LungMask, Lungs
from trainables.data.mni152 import MNI152, MNI152Tissue, MNI152Tissues

ADVICE = (
    "another {what} of {name}: if that is meant, raise `version` of the class (of the base class, if all data sets "
    "change), so that no old result is taken for a new one, and then correct the value here"
)
RECORDS = {
    MNI152: "24feedd806f73987",
    BraTS: "014ec5a2797654d0",
    Kvasir: "97aac273ad7e0380",
    LungMask: "f934ee1fd4a48639",
    Folder: "71ac63daa2695409",
    FolderVolumes: "6c1fd501b2745f95",
}
# Values of lossless files, float64 on the way: exact.
IMAGES = {
    MNI152: "136b0d5b55126823",
    BraTS: "5dfbfd5b60bfa66a",
    Folder: "94b7544b8729d39c",
    FolderVolumes: "e9ef650d31ffe807",
}
ANNOTATIONS = {
    (MNI152Tissue, MNI152): "7fdbc5e4a1128e81",
    (MNI152Tissues, MNI152): "7e1a7e1124fe4402",
    (BraTSTumour, BraTS): "b92a953087465d40",
    (BraTSClasses, BraTS): "144512fdaad6c063",
    (FolderMask, Folder): "942c5596a2cd1aa5",
    (FolderVolumeMask, FolderVolumes): "c5aee5845e3b7064",
}
# JPEG is decoded a little differently by other versions of its library.
MEANS = {
    Kvasir: (KvasirPolyp, 68.5219, 0.11475),
    LungMask: (Lungs, 70.3346, 0.11534),
}


def _digest(*values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def _pixels(arrays: list[np.ndarray]) -> str:
    return hashlib.sha256(np.stack(arrays).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("dataset_class", RECORDS, ids=lambda cls: cls.name)
def test_records(dataset_class, tmp_path):
    records = dataset_class.example(tmp_path).records()
    found = _digest([(record.id, record.group, record.split, record.position) for record in records])
    assert found == RECORDS[dataset_class], ADVICE.format(what="choice or split", name=dataset_class.__name__)


@pytest.mark.parametrize("dataset_class", IMAGES, ids=lambda cls: cls.name)
def test_images(dataset_class, tmp_path):
    dataset = dataset_class.example(tmp_path)
    found = _pixels([dataset.decode(record) for record in dataset.records()])
    assert found == IMAGES[dataset_class], ADVICE.format(what="decoding", name=dataset_class.__name__)


@pytest.mark.parametrize(("annotation_class", "dataset_class"), ANNOTATIONS, ids=lambda cls: cls.__name__)
def test_annotations(annotation_class, dataset_class, tmp_path):
    annotation = annotation_class.example(dataset_class.example(tmp_path))
    found = _pixels([annotation.decode(record) for record in annotation.records()])
    expected = ANNOTATIONS[annotation_class, dataset_class]
    assert found == expected, ADVICE.format(what="decoding", name=annotation_class.__name__)


@pytest.mark.parametrize("dataset_class", MEANS, ids=lambda cls: cls.name)
def test_jpeg(dataset_class, tmp_path):
    dataset = dataset_class.example(tmp_path)
    region_class, image_mean, mask_mean = MEANS[dataset_class]
    region = region_class(dataset)
    for part, expected, tolerance in ((dataset, image_mean, 0.1), (region, mask_mean, 0.001)):
        found = float(np.mean([part.decode(record) for record in dataset.records()]))
        assert found == pytest.approx(expected, abs=tolerance), ADVICE.format(what="decoding", name=type(part).__name__)
