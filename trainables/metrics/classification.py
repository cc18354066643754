"""How well images are classified: scikit-learn's scores, with what is done where one is not defined.

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn import metrics

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

UNDEFINED = float("nan")


def one_class_scores(probabilities_NK: Floats, labels_N: Ints) -> Mapping[str, Floats]:
    """Scores of each class [K], where every image is of one: ``sensitivity``, ``precision`` (of the images that are
    taken for the class, those that are of it), ``average_precision`` and ``auc`` (of the class against all others).

    A class without an image, or with all of them, has no sensitivity, average precision and AUC: NaN. One that nothing
    is taken for has precision 0, as scikit-learn counts it.

    Args:
        probabilities_NK: any numbers that are higher for more probable classes.
        labels_N: indices of the classes.
    """
    truth_NK = np.eye(probabilities_NK.shape[1], dtype=bool)[labels_N]
    predicted_NK = np.eye(probabilities_NK.shape[1], dtype=bool)[probabilities_NK.argmax(axis=1)]
    return _scores(probabilities_NK, truth_NK, predicted_NK)


def finding_scores(probabilities_NK: Floats, truth_NK: np.ndarray[Any, Any]) -> Mapping[str, Floats]:
    """The same of findings, of which an image has any number; one is taken for found from a probability of 0.5 on."""
    return _scores(probabilities_NK, truth_NK.astype(bool), probabilities_NK >= 0.5)


def mean_of_defined(scores_K: Floats) -> float:
    """The mean over the classes in which a score is defined; NaN where there is none."""
    defined_K = scores_K[np.isfinite(scores_K)]
    return float(defined_K.mean()) if len(defined_K) else UNDEFINED


def _scores(probabilities_NK: Floats, truth_NK: Any, predicted_NK: Any) -> Mapping[str, Floats]:
    columns = [
        _of_class(probabilities_N, truth_N, predicted_N)
        for probabilities_N, truth_N, predicted_N in zip(probabilities_NK.T, truth_NK.T, predicted_NK.T, strict=True)
    ]
    return {name: np.array([column[name] for column in columns]) for name in columns[0]}


def _of_class(probabilities_N: Floats, truth_N: Any, predicted_N: Any) -> dict[str, float]:
    is_defined = 0 < truth_N.sum() < len(truth_N)
    return {
        "sensitivity": float(metrics.recall_score(truth_N, predicted_N)) if truth_N.any() else UNDEFINED,
        "precision": float(metrics.precision_score(truth_N, predicted_N, zero_division=0)),
        "average_precision": (
            float(metrics.average_precision_score(truth_N, probabilities_N)) if is_defined else UNDEFINED
        ),
        "auc": float(metrics.roc_auc_score(truth_N, probabilities_N)) if is_defined else UNDEFINED,
    }
