"""Names that several rooms share: metrics, columns of curves, result files. Loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

# What an encoder is built of.
Backbone = Literal["resnet10_16", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
"""torchvision's, and ``resnet10_16`` for small images on a laptop: one block a stage, 16 channels in the first."""
MoCoHead = Literal["v1", "v2"]
"""``v1`` Linear(F, D) (He et al. 2020), ``v2`` Linear(F, F)-ReLU-Linear(F, D) without batch normalisation (Chen et al.
2020, arXiv:2003.04297)."""
Head = Literal["v1", "v2", "byol"]
"""MoCo's, and BYOL's projector, Linear(F, 4096)-BN-ReLU-Linear(4096, D) (Grill et al. 2020, arXiv:2006.07733)."""

# Scores of a map against a region.
DICE = "dice"
MASK_FRACTION = "mask_fraction"
MAP_FRACTION = "map_fraction"
CHANCE_DICE = "chance_dice"
ALL_ONES_DICE = "all_ones_dice"
AUPRC = "auprc"
POINTING_GAME = "pointing_game"
RELEVANCE_MASS = "relevance_mass"
INTERPRETABILITY = "val/interpretability"
"""One number a curve: its mean headline Dice over the swept values, so that a search can take it as objective."""

# Scores of predicted classes of pixels.
IOU = "iou"
SENSITIVITY = "sensitivity"
SPECIFICITY = "specificity"
CLASS_SCORES = (DICE, IOU, SENSITIVITY, SPECIFICITY)
FOREGROUND_DICE = "foreground_dice"
"""The mean over all classes but the background."""

# Roles of encoders that are explained.
TRAINED = "trained"
UNTRAINED = "untrained"
RELEASED = "released"
INTENSITY = "intensity"
ANCHOR = "trained, anchor"
"""The map of the unchanged image of a pair, to look at beside that of its view."""
RANDOMISED = "randomised down to "
"""Before the name of the lowest layer that has fresh weights."""
RANDOMISED_LAYERS = ("head", "layer4", "layer3", "layer2", "layer1", "stem")
"""From the output to the input."""

# HOG and SVM: roles, what is told from the unchanged image; and labels, of which pixels both show.
ROTATED = "rotated"
ROUND_TRIP = "round trip"
FULL_FIELD = "full field"
IN_CIRCLE = "inscribed circle"

# Segmentation: roles of what is compared, a network and where its encoder comes from.
UNET = "UNet"
MOCO_TRUNK = "MoCo trunk"
RANDOM_TRUNK = "random trunk"
RELEASED_TRUNK = "released trunk"
FROZEN = ", frozen"
"""After the role of a trunk that is not trained along."""

# Ways to choose additional positives: roles, as the paper names its rows.
RANDOM_START = "Random"
BYOL_ALONE = "BYOL"
FALSE_NEGATIVES = "FNC"
TRANSFORMED = "FT"
BY_FEATURES = "FS"
BY_FEATURES_PRETRAINED = "FS-pretrained"
BY_TRACIN = "BYOL-TracIn"
BY_TRACIN_PRETRAINED = "BYOL-TracIn-pretrained"
BY_LABEL = "BYOL-Sup"
# What a trained BYOL chooses, without a training that uses it.
CHOSEN_BY_TRACIN = "chosen by TracIn"
CHOSEN_BY_COSINE = "chosen by TracIn, cosine"
CHOSEN_BY_FEATURES = "chosen by features"
SUMMED = "all summed"
LINEAR_PROBE = "linear probe"
"""Checkpoint of what several choose together."""

# Augmentation types: roles of pretrainings, by what augmented them.
NO_AUGMENTATION = "no augmentation"
ONE_AUGMENTATION = "one augmentation"
TWO_AUGMENTATIONS = "two augmentations"
EXACT_ANGLE = "one exact angle"
THESIS_AUGMENTATIONS = "rotation or flip (thesis)"
"""One of three transformations for each image."""
THESIS_CURVE = "rotation or flip (thesis), whole circle"
UNTRAINED_CURVE = "untrained, whole circle"
"""Curves over all angles of these encoders."""

# Labels: what of an encoder is measured.
OF_USE = "segmentation"
OF_MAPS = "interpretability"

# Columns of ``scores.parquet``: a row for each image and class.
CLASS = "class"
NUM_BOTH, NUM_PREDICTED, NUM_TRUE, NUM_PIXELS = "num_both", "num_predicted", "num_true", "num_pixels"

ACCURACY = "accuracy"
"""Of a classifier; also the column of ``accuracy.parquet``."""

# Columns of ``curve.parquet``: a row for each image, value, field of view and binarisation.
IMAGE_ID = "image_id"
GROUP = "group"
POSITION = "position"
VALUE = "value"
"""Where the sweep stands, in its unit (degrees for rotation)."""
FIELD_OF_VIEW = "field_of_view"
BINARISATION = "binarisation"

FieldOfView = Literal["full", "kept"]
"""All pixels of the image, or those that every value of the sweep keeps (rotation: the inscribed circle)."""
FIELDS_OF_VIEW: tuple[FieldOfView, ...] = get_args(FieldOfView)

# Methods, as labels name them.
SMOOTHGRAD = "smoothgrad"
SMOOTHGRAD_OF_TOOL = "smoothgrad_of_the_tool"
"""SmoothGrad in the form of the thesis's tool: guided backpropagation, blurred, times the input."""
AVERAGED_TRANSFORMS = "averaged_transforms"
CONDITIONAL_OCCLUSION = "conditional_occlusion"
PAIRWISE_OCCLUSION = "pairwise_occlusion"
GRAD_CAM = "grad_cam"
INTERACTION_CAM = "interaction_cam"
"""With the reduction after it: ``interaction_cam_mean``."""

# Predictions of a classifier, a row an image and class.
PROBABILITY = "probability"
IS_OF_CLASS = "is_of_class"
NUM_UNSEEN_CLASSES = "num_unseen_classes"
"""Classes of the scored images that no training image with a label shows."""

# Files of results.
CURVE_FILE = "curve.parquet"
SAMPLES_FILE = "samples.npz"
SELECTION_FILE = "artifacts/selection.json"
SWEEP_FILE = "artifacts/sweep.json"
"""Of a curve's sweep: name, title and unit of its axis, period (or null), neutral value."""
GRID_FILE = "artifacts/grid.json"
"""What a pilot chose for a curve: its angles."""
ENCODER_FILE = "encoder.pt"
NETWORKS_FILE = "networks.pt"
"""Of BYOL: encoder, predictor and target."""
SEGMENTER_FILE = "segmenter.pt"
CLASSIFIER_FILE = "classifier.pt"
PREDICTIONS_FILE = "predictions.parquet"
LABELLED_FILE = "artifacts/labelled.json"
"""Which images a segmentation was trained on."""
SCORES_FILE = "scores.parquet"
ACCURACY_FILE = "accuracy.parquet"
START_FILE = "artifacts/provenance.json"
"""How a pretraining really started: from which weights, on how many images and threads."""


_LABEL_ORDER = ("data", "region", "sweep", "method", "augmentation", "range", "second", "second_range", "measure")


def label_values(labels: Mapping[str, str]) -> list[str]:
    """The values of labels in reading order; a manifest that was written and read again has sorted their names."""
    known = {name: place for place, name in enumerate(_LABEL_ORDER)}
    return [labels[name] for name in sorted(labels, key=lambda name: (known.get(name, len(known)), name))]


def cell_name(role: str, labels: Mapping[str, str]) -> str:
    """What a cell is called in MLflow and in reports: its role, what sets it apart from others of that role, and last
    what many share: MLflow shows the beginnings of names. Of an augmentation the labels say all that the role does."""
    said = {n: label if n == "data" else label.replace("_", " ") for n, label in labels.items()}
    shared = label_values({n: said.pop(n) for n in ("data", "region") if n in said})
    return " · ".join(filter(None, ["" if "augmentation" in labels else role, *label_values(said), *shared]))


def differing_seeds(of_trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Paths of the seeds that are not the same in all trials of a cell: what its mean goes over."""
    paths = dict.fromkeys(path for seeds in of_trials for path in seeds)
    return [path for path in paths if len({str(seeds.get(path)) for seeds in of_trials}) > 1]
