"""Can a support vector machine tell, by its histogram of oriented gradients, whether an image was rotated? (Thesis,
chapter 6; Dalal & Triggs 2005.)

Shapes: N images, C channels, H x W pixels, F numbers of a histogram, A angles, K folds.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from trainables import runtime
from trainables.api import names
from trainables.api.checks import check_choice
from trainables.api.trainable import Part, Spreads, Trainable, seed
from trainables.data.cache import ImageTable, open_images
from trainables.data.records import SPLITS, Dataset
from trainables.sweeps import Rotation

if TYPE_CHECKING:
    from trainables.api.context import Arrays, Context

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
Change = Literal["rotated", "round_trip"]
Kernel = Literal["linear", "rbf"]

_LEAST_GROUPS = 4
_NUM_SHOWN = 2
# One image of the smallest size: rough, for estimates only.
_HOG_FLOP_PER_PIXEL, _FIT_FLOP_PER_PAIR = 2e3, 2e3


@dataclass(frozen=True)
class Hog(Part):
    """Histograms of oriented gradients, scikit-image's with its defaults; grey values (the mean of the channels)."""

    orientations: int = 9
    pixels_per_cell: int = 8
    cells_per_block: int = 3

    def __post_init__(self) -> None:
        for name in ("orientations", "pixels_per_cell", "cells_per_block"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: at least 1")

    def check(self, image_size_px: int) -> None:
        """Raises ValueError where an image is smaller than one block."""
        block_px = self.pixels_per_cell * self.cells_per_block
        if image_size_px < block_px:
            raise ValueError(
                f"an image of {image_size_px} pixels is smaller than one block of {self.cells_per_block} cells of "
                f"{self.pixels_per_cell} pixels: lower pixels_per_cell or cells_per_block"
            )

    def picture(self, image_HW: NDArray[Any]) -> Floats:
        """The histogram of a grey image as scikit-image draws it [H, W]: in each cell strokes along the edges that it
        counts."""
        from skimage.feature import hog

        cell, block = (self.pixels_per_cell,) * 2, (self.cells_per_block,) * 2
        drawn: Floats = hog(image_HW, self.orientations, pixels_per_cell=cell, cells_per_block=block, visualize=True)[1]
        return drawn

    def features(self, images_NHW: NDArray[Any]) -> Floats:
        """[N, F] of grey images in [0, 1]."""
        from skimage.feature import hog  # not for a plan

        cell, block = (self.pixels_per_cell,) * 2, (self.cells_per_block,) * 2
        return np.stack(
            [hog(image, self.orientations, pixels_per_cell=cell, cells_per_block=block) for image in images_NHW]
        )


@dataclass(frozen=True)
class Svm(Part):
    """A support vector classifier whose parameters are chosen by cross-validation within each training part.

    Both folds keep images of a group (a patient) together, and an image with its changed copy: neither is ever on both
    sides of a fold.

    Args:
        kernel: ``linear``, or ``rbf``, exp(-gamma |x - y|^2).
        penalties: values of C to choose from.
        gammas: of ``rbf``, in units of one over the mean squared distance of the training images.
        num_folds: over which the accuracy is measured.
        num_inner_folds: over which parameters are chosen.
    """

    kernel: Kernel = "linear"
    penalties: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    gammas: tuple[float, ...] = (0.1, 1.0, 10.0)
    num_folds: int = 5
    num_inner_folds: int = 3

    def __post_init__(self) -> None:
        check_choice("kernel", self.kernel, get_args(Kernel))
        if not self.penalties or min(self.penalties) <= 0 or not self.gammas or min(self.gammas) <= 0:
            raise ValueError(f"penalties = {self.penalties}, gammas = {self.gammas}: positive, one of each at least")
        if min(self.num_folds, self.num_inner_folds) < 2:
            raise ValueError(f"num_folds, num_inner_folds = {self.num_folds}, {self.num_inner_folds}: at least 2")
        # What cannot change the result must not make another identity.
        object.__setattr__(self, "gammas", self.gammas if self.kernel == "rbf" else (1.0,))

    @property
    def settings(self) -> list[tuple[float, float]]:
        """(C, gamma) in the order in which the first of equally good ones is taken."""
        return list(itertools.product(self.penalties, self.gammas))

    def accuracies(self, gram_MM: Floats, classes_M: Places, groups_M: Places, fold_seed: int) -> tuple[Floats, Places]:
        """Whether each of M samples is told right [M], 0 or 1, by the machine of the fold that it is not in; and which
        of ``settings`` each fold chose [K].

        Args:
            gram_MM: products of the samples' features.
            groups_M: samples of a group stay on one side of every fold.
        """
        right_M, chosen = np.zeros(len(classes_M)), []
        for held_out_M in folds(groups_M, self.num_folds, "folds", fold_seed):
            train, test = np.flatnonzero(~held_out_M), np.flatnonzero(held_out_M)
            best = self._best(gram_MM, classes_M, groups_M, train, fold_seed)
            right_M[test] = self._predicted(gram_MM, classes_M, train, test, self.settings[best]) == classes_M[test]
            chosen.append(best)
        return right_M, np.array(chosen)

    def _best(self, gram_MM: Floats, classes_M: Places, groups_M: Places, train: Places, fold_seed: int) -> int:
        """The setting with the most samples right over the inner folds of the training part, the first of equals."""
        right = np.zeros(len(self.settings))
        for held_out in folds(groups_M[train], self.num_inner_folds, "inner folds", fold_seed):
            inner, validation = train[~held_out], train[held_out]
            for place, setting in enumerate(self.settings):
                predicted = self._predicted(gram_MM, classes_M, inner, validation, setting)
                right[place] += (predicted == classes_M[validation]).sum()
        return int(right.argmax())

    def _predicted(
        self, gram_MM: Floats, classes_M: Places, train: Places, test: Places, setting: tuple[float, float]
    ) -> Places:
        from sklearn.svm import SVC  # not for a plan

        penalty, gamma = setting
        kernel_train, kernel_test = self._kernel(gram_MM, train, test, gamma)
        machine = SVC(C=penalty, kernel="precomputed").fit(kernel_train, classes_M[train])
        predicted: Places = machine.predict(kernel_test)
        return predicted

    def _kernel(self, gram_MM: Floats, train: Places, test: Places, gamma: float) -> tuple[Floats, Floats]:
        """Between training samples, and from test to training samples: one Gram matrix serves all of them."""
        products = [gram_MM[np.ix_(rows, train)] for rows in (train, test)]
        if self.kernel == "linear":
            return products[0], products[1]
        squares_M = gram_MM.diagonal()
        distances = [
            squares_M[rows][:, None] + squares_M[train] - 2 * product
            for rows, product in zip((train, test), products, strict=True)
        ]
        scale = gamma / distances[0].mean()
        return np.exp(-scale * distances[0]), np.exp(-scale * distances[1])


@dataclass(frozen=True)
class HogSvm(Trainable):
    """Accuracy of telling images rotated by an angle from the same images unrotated, for each angle.

    Writes ``accuracy.parquet`` (a row for each angle and image: the share of its two samples that was told right, .5 by
    chance), ``artifacts/accuracy.csv`` (means over images), ``artifacts/settings.json`` (what each fold chose) and
    ``samples.npz`` (a few images with their histograms drawn). Logs ``accuracy`` at each angle.

    Args:
        change: ``rotated``; or ``round_trip``, rotated and rotated back, which shows what of the accuracy is the blur
            of two interpolations.
        cut_to_circle: blacken both images outside the inscribed circle, so that the corners that a rotation brings in
            tell nothing.
        angles_deg: by default 0 to 360 in steps of 1, as in the thesis.
        num_images: at most so many, drawn with ``selection_seed``.
    """

    spreads: ClassVar[Spreads] = "items"

    data: Dataset
    change: Change = "rotated"
    cut_to_circle: bool = False
    angles_deg: tuple[float, ...] = tuple(float(angle) for angle in range(361))
    num_images: int = 75
    splits: tuple[str, ...] = ("train", "val")
    hog: Hog = Hog()
    svm: Svm = Svm()
    selection_seed: int = seed()
    fold_seed: int = seed()

    def __post_init__(self) -> None:
        check_choice("change", self.change, get_args(Change))
        sweep = Rotation()
        object.__setattr__(self, "angles_deg", tuple(sweep.snapped(angle) + 0.0 for angle in self.angles_deg))
        sweep.check(self.angles_deg)
        self.hog.check(self.data.image_size_px)
        for split in self.splits:
            check_choice("splits", split, SPLITS)
        if self.num_images < _LEAST_GROUPS:
            raise ValueError(f"num_images = {self.num_images}: at least {_LEAST_GROUPS}")

    def check(self) -> None:
        """Raises ValueError where there are fewer groups than folds need."""
        groups = [record.group for record in self.data.records() if record.split in self.splits]
        num_groups = len({groups[place] for place in self._drawn(len(groups))})
        if num_groups < _LEAST_GROUPS:
            raise ValueError(
                f"{self.data.name}: the {min(len(groups), self.num_images)} images drawn of {', '.join(self.splits)} "
                f"are of {num_groups} group(s): a group is on one side of each fold, and at least {_LEAST_GROUPS} are "
                "needed"
            )

    def run(self, context: Context) -> Mapping[str, float]:
        """Compute, write and log; returns ``accuracy_mean`` over the angles but 0 and 360, at which both samples of an
        image are the same, and ``num_images``.

        Raises:
            BadData: the data cannot be read.
        """
        runtime.use_cores(context.num_cpus)
        table = open_images(self.data, context)
        rows = self._rows(table)
        index = table.index[rows.tolist()]
        work = _Work(self, table.images_NCHW[rows], index["group"].to_list())
        results = context.map(work, list(self.angles_deg))
        frame = pl.concat(
            index.select(
                pl.lit(angle).alias(names.VALUE), pl.col("id").alias(names.IMAGE_ID), names.GROUP, names.POSITION,
                pl.Series(names.ACCURACY, result["right_N"]),
            )
            for angle, result in zip(self.angles_deg, results, strict=True)
        )  # fmt: skip
        frame.write_parquet(context.output_dir / names.ACCURACY_FILE)
        self._write(context.output_dir / "artifacts", frame, results)
        np.savez_compressed(context.output_dir / names.SAMPLES_FILE, **self._samples(work, index))
        for place, (angle, result) in enumerate(zip(self.angles_deg, results, strict=True)):
            context.log({names.ACCURACY: float(result["right_N"].mean())}, int(angle) if self._is_whole else place)
        changed = frame.filter(~pl.col(names.VALUE).is_in([0.0, 360.0]))
        mean = float(changed[names.ACCURACY].to_numpy().mean()) if len(changed) else 0.5
        return {f"{names.ACCURACY}_mean": mean, "num_images": float(len(rows))}

    def work_flop(self) -> float:
        pixels = self.data.image_size_px**2
        num_fits = self.svm.num_folds * (self.svm.num_inner_folds * len(self.svm.settings) + 1)
        a_step = self.num_images * pixels * _HOG_FLOP_PER_PIXEL
        return len(self.angles_deg) * (a_step + num_fits * self.num_images**2 * _FIT_FLOP_PER_PAIR)

    @property
    def _is_whole(self) -> bool:
        return all(angle.is_integer() for angle in self.angles_deg)

    def _rows(self, table: ImageTable) -> Places:
        there = np.flatnonzero(table.index["split"].is_in(self.splits).to_numpy())
        return there[self._drawn(len(there))]

    def _drawn(self, num: int) -> Places:
        """Which of so many images are used, in rising order."""
        order = np.random.default_rng(runtime.seed_of("hog images", self.selection_seed)).permutation(num)
        return np.sort(order[: self.num_images])

    def _samples(self, work: _Work, index: pl.DataFrame) -> dict[str, Any]:
        """A few images, spread evenly over those that are used."""
        places = np.unique(np.linspace(0, index.height - 1, min(_NUM_SHOWN, index.height) + 2)[1:-1].astype(int))
        images_KHW = work.images_of(places)
        return {
            names.IMAGE_ID: np.array(index["id"].gather(places.tolist()).to_list()),
            "images_KHW": np.round(images_KHW * 255).astype(np.uint8),
            "histograms_KHW": np.stack([self.hog.picture(image_HW) for image_HW in images_KHW]).astype(np.float32),
        }

    def _write(self, folder: Path, frame: pl.DataFrame, results: Sequence[Arrays]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        means = frame.group_by(names.VALUE, maintain_order=True).agg(pl.col(names.ACCURACY).mean())
        means.write_csv(folder / "accuracy.csv")
        chosen = {
            f"{angle:g}": [self.svm.settings[place] for place in result["chosen_K"].tolist()]
            for angle, result in zip(self.angles_deg, results, strict=True)
        }
        (folder / "settings.json").write_text(json.dumps({"C and gamma, a fold": chosen}, indent=1))


class _Work:
    """What ``context.map`` calls with angles, in this process or in another. The unchanged images' histograms, which
    all angles share, are computed once a process."""

    def __init__(self, config: HogSvm, images_NCHW: NDArray[Any], groups: Sequence[str]) -> None:
        self.config, self.images_NCHW = config, images_NCHW
        self.groups_N = np.unique(np.array(groups), return_inverse=True)[1]
        self._unchanged_NF: Floats | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_unchanged_NF": None}

    def __call__(self, angles_deg: Sequence[float]) -> list[Arrays]:
        if self._unchanged_NF is None:
            self._unchanged_NF = self.config.hog.features(self._images(None))
        return [self._result(angle, self._unchanged_NF) for angle in angles_deg]

    def _result(self, angle_deg: float, unchanged_NF: Floats) -> Arrays:
        num, config = len(unchanged_NF), self.config
        changed_NF = config.hog.features(self._images(angle_deg))
        features_MF = np.concatenate([unchanged_NF, changed_NF])
        classes_M = np.repeat([0, 1], num)
        gram_MM = features_MF @ features_MF.T
        # A matrix product rounds equal rows differently; a copy that is exact must not be told by that.
        same = np.flatnonzero((unchanged_NF == changed_NF).all(axis=1))
        gram_MM[same + num] = gram_MM[same]
        gram_MM[:, same + num] = gram_MM[:, same]
        right_M, chosen_K = config.svm.accuracies(gram_MM, classes_M, np.tile(self.groups_N, 2), config.fold_seed)
        return {"right_N": right_M.reshape(2, num).mean(axis=0), "chosen_K": chosen_K}

    def images_of(self, places: Places) -> Floats:
        """Some of the images, unchanged and grey [K, H, W] in [0, 1]."""
        return self._images(None)[places]

    def _images(self, angle_deg: float | None) -> Floats:
        """Grey images [N, H, W] in [0, 1], changed by an angle where one is given."""
        images_NCHW = torch.from_numpy(self.images_NCHW).float().div_(255)
        sweep = Rotation()
        if angle_deg is not None:
            angles_N = torch.full((len(images_NCHW),), angle_deg, dtype=torch.float64)
            images_NCHW = sweep.view(images_NCHW, angles_N)
            if self.config.change == "round_trip":
                images_NCHW = sweep.view(images_NCHW, -angles_N)
        if self.config.cut_to_circle:
            images_NCHW = images_NCHW * sweep.kept(images_NCHW.shape[-1], self.config.angles_deg)
        return images_NCHW.mean(dim=1).double().numpy()


def folds(groups_M: Places, num_folds: int, purpose: str, fold_seed: int) -> list[NDArray[np.bool_]]:
    """Which samples are held out in each fold: whole groups, in an order drawn with the seed, each to the fold that has
    the fewest samples so far. As many folds as there are groups at most."""
    groups, sizes = np.unique(groups_M, return_counts=True)
    rng = np.random.default_rng(runtime.seed_of(purpose, fold_seed))
    num_folds = min(num_folds, len(groups))
    totals, fold_of = np.zeros(num_folds), {}
    for place in rng.permutation(len(groups)):
        smallest = int(totals.argmin())
        fold_of[groups[place]] = smallest
        totals[smallest] += sizes[place]
    own_M = np.array([fold_of[group] for group in groups_M])
    return [own_M == fold for fold in range(num_folds)]
