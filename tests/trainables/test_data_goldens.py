"""What the examples decode to, for ever: results of one configuration must not change their meaning unseen."""

import hashlib

import numpy as np
import pytest

from trainables.data.brats import BraTS, BraTSClasses, BraTSTumour
from trainables.data.chest_xray14 import ChestXray14, ChestXray14Findings
from trainables.data.digits import Digit, MNIST5k, SklearnDigits
from trainables.data.folder import Folder, FolderMask
from trainables.data.folder_volumes import FolderVolumeMask, FolderVolumes
from trainables.data.isic2016 import ISIC2016, ISIC2016Malignancy
from trainables.data.isic2019 import ISIC2019, ISIC2019Diagnosis
from trainables.data.kvasir import Kvasir, KvasirPolyp
from trainables.data.lung_mask import LungMask, Lungs
from trainables.data.mni152 import MNI152, MNI152Tissue, MNI152Tissues
from trainables.data.shenzhen import Shenzhen, ShenzhenTuberculosis

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
    MNIST5k: "a665b38650b2c842",
    SklearnDigits: "7ed561ba4fdd46ff",
    ISIC2019: "1f32ae42caecc641",
    ISIC2016: "025b63ddc17d5568",
    ChestXray14: "3f5b503285925bbe",
    Shenzhen: "1f9274f37cff9489",
}
# Values of lossless files, float64 on the way: exact.
IMAGES = {
    MNI152: "136b0d5b55126823",
    BraTS: "5dfbfd5b60bfa66a",
    Folder: "94b7544b8729d39c",
    FolderVolumes: "e9ef650d31ffe807",
    MNIST5k: "f3c42d7dc05dcee4",
    SklearnDigits: "abfc54d77b9b175f",
    ChestXray14: "b4cf5f75eebf2c46",
    Shenzhen: "c64de56564101f11",
}
ANNOTATIONS = {
    (MNI152Tissue, MNI152): "7fdbc5e4a1128e81",
    (MNI152Tissues, MNI152): "7e1a7e1124fe4402",
    (BraTSTumour, BraTS): "b92a953087465d40",
    (BraTSClasses, BraTS): "144512fdaad6c063",
    (FolderMask, Folder): "942c5596a2cd1aa5",
    (FolderVolumeMask, FolderVolumes): "c5aee5845e3b7064",
}
LABELS = {
    (Digit, MNIST5k): "bb61ae2252df5e5e",
    (ISIC2019Diagnosis, ISIC2019): "8e40e7c8235e849d",
    (ISIC2016Malignancy, ISIC2016): "c20dda2f2645847e",
    (ChestXray14Findings, ChestXray14): "8d49ee2ec29823cf",
    (ShenzhenTuberculosis, Shenzhen): "06be9d5574b7c86e",
}
# JPEG is decoded a little differently by other versions of its library.
MEANS = {
    Kvasir: (KvasirPolyp, 68.5219, 0.11475),
    LungMask: (Lungs, 70.3346, 0.11534),
    ISIC2019: (None, 65.3648, 0.0),
    ISIC2016: (None, 71.0249, 0.0),
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


@pytest.mark.parametrize(("labels_class", "dataset_class"), LABELS, ids=lambda cls: cls.__name__)
def test_labels(labels_class, dataset_class, tmp_path):
    labels = labels_class(dataset_class.example(tmp_path))
    found = _digest(labels.class_names, [(id_, np.asarray(label).tolist()) for id_, label in labels.labels().items()])
    assert found == LABELS[labels_class, dataset_class], ADVICE.format(what="labelling", name=labels_class.__name__)


@pytest.mark.parametrize("dataset_class", MEANS, ids=lambda cls: cls.name)
def test_jpeg(dataset_class, tmp_path):
    dataset = dataset_class.example(tmp_path)
    region_class, image_mean, mask_mean = MEANS[dataset_class]
    parts = [(dataset, image_mean, 0.1)]
    if region_class is not None:
        parts.append((region_class(dataset), mask_mean, 0.001))
    for part, expected, tolerance in parts:
        found = float(np.mean([part.decode(record) for record in dataset.records()]))
        assert found == pytest.approx(expected, abs=tolerance), ADVICE.format(what="decoding", name=type(part).__name__)
