# ruff: noqa: E402  # numbers of threads are read when libraries load
"""How fast is HOG + SVM over angles, against the plain serial loop with scikit-image and GridSearchCV?

Both give, for each angle, the accuracy of telling rotated from unrotated images, parameters chosen by cross-validation
within each fold, on the same folds; the accuracies are compared, image by image. One core each. The loop computes
histograms of both images at every angle and gives scikit-learn features; ours computes unrotated histograms once, and
one Gram matrix an angle for all folds and settings. Then ours on several workers, in processes that share nothing.

    python benchmarks/hog_svm.py [--angles 12] [--images 60] [--size 96] [--workers 2] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import torch
from skimage.feature import hog
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

from trainables.augment.resample import rotate
from trainables.data.cache import OwnContext, open_images
from trainables.data.mni152 import MNI152
from trainables.hog_svm import HogSvm, _Work, folds

_work: Any = None


def plain_loop(config: HogSvm, images_NCHW: Any, groups_N: Any, angle_deg: float) -> Any:
    """What a user would write: share of the two samples of each image that is told right [N]."""
    images_NHW = torch.from_numpy(images_NCHW).float().div(255).mean(dim=1)
    rotated_NHW = rotate(images_NHW[:, None], angle_deg)[:, 0]
    features = np.array([hog(image) for image in torch.cat([images_NHW, rotated_NHW]).double().numpy()])
    classes, groups = np.repeat([0, 1], len(images_NHW)), np.tile(groups_N, 2)
    right = np.zeros(len(classes))
    for held_out in folds(groups, config.svm.num_folds, "folds", config.fold_seed):
        inner = folds(groups[~held_out], config.svm.num_inner_folds, "inner folds", config.fold_seed)
        splits = [(np.flatnonzero(~out), np.flatnonzero(out)) for out in inner]
        search = GridSearchCV(SVC(kernel="linear"), {"C": list(config.svm.penalties)}, cv=splits)
        search.fit(features[~held_out], classes[~held_out])
        right[held_out] = search.predict(features[held_out]) == classes[held_out]
    return right.reshape(2, -1).mean(axis=0)


def start(config: HogSvm, images_NCHW: Any, groups: list[str]) -> None:
    """Of a worker process."""
    global _work
    torch.set_num_threads(1)
    _work = _Work(config, images_NCHW, groups)
    _work([0.0])  # loads what is loaded once


def of_worker(angle_deg: float) -> Any:
    """One angle in a worker process."""
    return _work([angle_deg])[0]["right_N"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--angles", type=int, default=12, help="how many angles, evenly round the circle")
    parser.add_argument("--images", type=int, default=60, help="how many images of the packaged slices")
    parser.add_argument("--size", type=int, default=96, help="side of the images in pixels")
    parser.add_argument("--workers", type=int, default=2, help="processes of the second comparison")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed, in turns")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    angles = tuple((np.arange(options.angles) * 360 / options.angles + 7).tolist())
    config = HogSvm(MNI152(image_size_px=options.size), angles_deg=angles, num_images=options.images)
    with tempfile.TemporaryDirectory() as folder:
        table = open_images(config.data, OwnContext(Path(folder)))
        rows = config._rows(table)
        images_NCHW, groups = np.array(table.images_NCHW[rows]), table.index[rows.tolist()]["group"].to_list()
    groups_N = np.unique(np.array(groups), return_inverse=True)[1]
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.workers, start, (config, images_NCHW, groups)) as pool:
        pool.map(of_worker, angles[: options.workers], chunksize=1)
        loop_s, own_s, shared_s = [], [], []
        for _ in range(options.rounds):
            begun = time.perf_counter()
            wanted = [plain_loop(config, images_NCHW, groups_N, angle) for angle in angles]
            loop_s.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            work = _Work(config, images_NCHW, groups)
            found = [result["right_N"] for result in work(angles)]
            own_s.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            shared = pool.map(of_worker, angles, chunksize=1)
            shared_s.append(time.perf_counter() - begun)
    assert all(np.array_equal(one, two) for one, two in zip(wanted, found, strict=True)), "other accuracies"
    assert all(np.array_equal(one, two) for one, two in zip(found, shared, strict=True)), "other accuracies in workers"
    times = statistics.median(a / b for a, b in zip(loop_s, own_s, strict=True))
    effective = statistics.median(a / b for a, b in zip(own_s, shared_s, strict=True))
    print(f"{options.images} images of {options.size} px, {options.angles} angles: the same accuracies, image by image")
    print(f"against the plain loop, one core each: {times:.1f} times as fast")
    print(f"on {options.workers} workers: {effective:.2f} times one ({effective / options.workers:.2f} a worker)")
    if options.json:
        figures = {"times_plain_loop": times, "workers": options.workers, "effective": effective}
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
