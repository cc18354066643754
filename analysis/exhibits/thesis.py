"""The thesis's tables and figures, numbered as there, and what this study adds to them."""

from __future__ import annotations

from analysis.exhibits import claims, explanations, hog, rotation, samples, segmentation
from analysis.exhibits.augmentations import use_and_maps
from analysis.exhibits.exhibit import Exhibit
from trainables.api.names import MOCO_TRUNK, UNET

_ROTATION = "python studies/rotation_period.py --scale full --pretrained MOCO.pth.tar --data-root DATA --datasets"

_SEGMENTATION = (
    "python studies/segmentation.py --scale full --pretrained MOCO.pth.tar --data-root DATA --datasets brats"
)

_METHODS = "python studies/saliency_methods.py --scale full --pretrained MOCO.pth.tar --data-root DATA --datasets"

_HOG = "python studies/hog_svm.py --scale full --pretrained MOCO.pth.tar --data-root DATA --datasets"

_AUGMENTATIONS = (
    "python studies/augmentation_types.py --scale full --pretrained MOCO.pth.tar --data-root DATA --datasets"
)

THESIS = (
    Exhibit(
        "Figure 3.1", "Sample image and mask, BraTS", "rotation_period", f"{_ROTATION} brats",
        samples.image_of("brats"),
    ),
    Exhibit(
        "Figure 3.2", "Sample image and mask, lung masks", "rotation_period", f"{_ROTATION} lung_mask",
        samples.image_of("lung_mask"),
    ),
    Exhibit(
        "Figure 3.3", "Sample image and mask, Kvasir-SEG", "rotation_period", f"{_ROTATION} kvasir",
        samples.image_of("kvasir"),
    ),
    Exhibit(
        "Table 4.1", "Supervised model, training and validation", "segmentation", _SEGMENTATION,
        segmentation.scores_of(UNET),
    ),
    Exhibit(
        "Table 4.2", "Self-supervised model, training and validation", "segmentation", _SEGMENTATION,
        segmentation.scores_of(MOCO_TRUNK),
    ),
    Exhibit(
        "Figure 4.1", "Sample result of the self-supervised model", "segmentation", _SEGMENTATION, segmentation.sample,
    ),
    Exhibit(
        "Figure 5.1", "Explanation methods on a sample of BraTS", "saliency_methods", f"{_METHODS} brats",
        explanations.pair,
    ),
    Exhibit(
        "Section 5.1", "Explanation methods in numbers", "saliency_methods", f"{_METHODS} brats lung_mask kvasir",
        explanations.scores,
    ),
    Exhibit(
        "Figure 5.2", "Saliency maps beside masks", "rotation_period", f"{_ROTATION} brats", samples.several_maps,
    ),
    Exhibit(
        "Figure 5.3", "Maps of an image and of its rotation, BraTS", "rotation_period", f"{_ROTATION} brats",
        samples.turned("brats"),
    ),
    Exhibit(
        "Figure 5.4", "Maps of an image and of its rotation, lung masks", "rotation_period", f"{_ROTATION} lung_mask",
        samples.turned("lung_mask"),
    ),
    Exhibit(
        "Figure 5.5", "Maps of an image and of its rotation, Kvasir-SEG", "rotation_period", f"{_ROTATION} kvasir",
        samples.turned("kvasir"),
    ),
    Exhibit(
        "Figures 5.3 to 5.5", "Maps of an image and of its rotation, other data sets and regions", "rotation_period",
        None, samples.turned(None),
    ),
    Exhibit(
        "Figure 5.6", "Interpretability over rotation, BraTS", "rotation_period", f"{_ROTATION} brats",
        rotation.curve_of("brats"),
    ),
    Exhibit(
        "Figure 5.7", "Interpretability over rotation, lung masks", "rotation_period", f"{_ROTATION} lung_mask",
        rotation.curve_of("lung_mask"),
    ),
    Exhibit(
        "Figure 5.8", "Interpretability over rotation, Kvasir-SEG", "rotation_period", f"{_ROTATION} kvasir",
        rotation.curve_of("kvasir"),
    ),
    Exhibit(
        "Figures 5.6 to 5.8", "Interpretability over rotation, other data sets and regions", "rotation_period", None,
        rotation.curve_of(None),
    ),
    Exhibit(
        "Section 5.3", "Extrema and levels beside the published ones", "rotation_period",
        f"{_ROTATION} brats lung_mask kvasir", rotation.all_published,
    ),
    Exhibit(
        "Figure 6.1", "Sample HOG features of each data set", "hog_svm", f"{_HOG} brats lung_mask kvasir",
        hog.histograms,
    ),
    Exhibit("Table 6.1", "Dice curves and SVM accuracy", "hog_svm", f"{_HOG} brats lung_mask kvasir", hog.curves),
    Exhibit("Claim 1", "Self-supervision and segmentation", "segmentation", _SEGMENTATION, claims.effective),
    Exhibit(
        "Claim 2", "A period of 90°", "rotation_period", f"{_ROTATION} brats lung_mask kvasir", claims.periodic,
    ),
    Exhibit(
        "Claim 3", "Minima or maxima at multiples of 90°", "rotation_period", f"{_ROTATION} brats lung_mask kvasir",
        claims.extrema,
    ),
    Exhibit("Claim 4", "No HOG-like features", "hog_svm", f"{_HOG} brats lung_mask kvasir", claims.not_hog),
    Exhibit(
        "Conclusion", "Optimal augmentations to train with", "augmentation_types",
        f"{_AUGMENTATIONS} brats lung_mask kvasir", claims.optimal,
    ),
    Exhibit(
        "Beyond the thesis", "Segmentation by share of the masks, with trunks trained along and as they are",
        "segmentation", None, segmentation.shares,
    ),
    Exhibit(
        "Beyond the thesis", "Use against interpretability", "augmentation_types", None, use_and_maps,
    ),
)  # fmt: skip
