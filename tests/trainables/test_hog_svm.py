"""HOG and SVM against the plain loop with scikit-image and scikit-learn; folds that leak nothing; what angles tell."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
import torch
from fake_context import FakeContext, Killed
from skimage.feature import hog
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC
from tiny_shapes import TinyShapes

from trainables.api.identity import FileDigests, Keys
from trainables.augment.resample import rotate
from trainables.hog_svm import Hog, HogSvm, Svm, _Work, folds

DATA = TinyShapes(num_train=12, num_val=4)
TINY = HogSvm(DATA, angles_deg=(0.0, 40.0, 90.0), num_images=14, svm=Svm(num_folds=3, num_inner_folds=2))


def images_of(config):
    """Id and grey pixels of the images that are used."""
    records = config.data.records()
    return {record.id: config.data.decode(record).mean(axis=0) / 255 for record in records}


def slow(config, angle_deg, ids):
    """Every image at every angle anew, GridSearchCV on features."""
    pixels = images_of(config)

    def features(image, turns):
        tensor = torch.from_numpy(image).float()[None, None]
        for turn in turns:
            tensor = rotate(tensor, turn)
        return hog(tensor[0, 0].double().numpy())

    turns = [angle_deg] if config.change == "rotated" else [angle_deg, -angle_deg]
    X = np.array([features(pixels[i], []) for i in ids] + [features(pixels[i], turns) for i in ids])
    y = np.repeat([0, 1], len(ids))
    groups = np.tile(np.arange(len(ids)), 2)
    right = np.zeros(len(y))
    for held_out in folds(groups, config.svm.num_folds, "folds", config.fold_seed):
        inner = folds(groups[~held_out], config.svm.num_inner_folds, "inner folds", config.fold_seed)
        splits = [(np.flatnonzero(~out), np.flatnonzero(out)) for out in inner]
        search = GridSearchCV(SVC(kernel="linear"), {"C": list(config.svm.penalties)}, cv=splits)
        search.fit(X[~held_out], y[~held_out])
        right[held_out] = search.predict(X[held_out]) == y[held_out]
    return right.reshape(2, len(ids)).mean(axis=0)


@pytest.mark.parametrize("change", ["rotated", "round_trip"])
def test_accuracies_are_those_of_the_plain_loop(change, tmp_path):
    config = dataclasses.replace(TINY, change=change)
    config.run(context := FakeContext(tmp_path))
    frame = pl.read_parquet(context.output_dir / "accuracy.parquet")
    for angle in (40.0,) if change == "round_trip" else (40.0, 90.0):  # the round trip by 90 degrees is exact
        part = frame.filter(value=angle)
        np.testing.assert_array_equal(part["accuracy"], slow(config, angle, part["image_id"].to_list()))


def test_an_exact_copy_is_never_told_by_rounding(tmp_path):
    config = dataclasses.replace(TINY, change="round_trip", angles_deg=(0.0, 90.0, 180.0))
    config.run(context := FakeContext(tmp_path))
    assert set(pl.read_parquet(context.output_dir / "accuracy.parquet")["accuracy"]) == {0.5}


def test_the_rbf_kernel_is_scikit_learns_on_one_gram_matrix():
    rng = np.random.default_rng(0)
    features, classes = rng.random((24, 50)), np.repeat([0, 1], 12)
    features[12:] += 0.1
    groups = np.tile(np.arange(12), 2)
    svm = Svm("rbf", num_folds=3, num_inner_folds=2)
    right, chosen = svm.accuracies(features @ features.T, classes, groups, fold_seed=3)
    for fold, held_out in enumerate(folds(groups, 3, "folds", 3)):
        penalty, gamma = svm.settings[chosen[fold]]
        train = features[~held_out]
        scale = gamma / euclidean_distances(train, squared=True).mean()
        machine = SVC(C=penalty, gamma=scale).fit(train, classes[~held_out])
        np.testing.assert_array_equal(right[held_out], machine.predict(features[held_out]) == classes[held_out])
    assert 0.5 < right.mean() <= 1


def test_folds_part_groups_evenly_and_other_seeds_part_them_otherwise():
    groups = np.repeat(np.arange(10), [1, 2, 3, 4, 5, 5, 4, 3, 2, 1])
    held_out = folds(groups, 3, "folds", 0)
    assert (np.sum(held_out, axis=0) == 1).all()
    for out in held_out:
        assert not set(groups[out]) & set(groups[~out])
        assert 6 <= out.sum() <= 14
    assert not np.array_equal(held_out, folds(groups, 3, "folds", 1))
    assert not np.array_equal(held_out, folds(groups, 3, "inner folds", 0))
    assert len(folds(groups[:3], 5, "folds", 0)) == 2


def test_an_image_and_its_copy_are_on_one_side():
    """Else the machine would be asked about an image that it has seen: at 0 degrees it would know nothing more."""
    seen = []

    class Watched(Svm):
        def _predicted(self, gram_MM, classes_M, train, test, setting):
            num = len(classes_M) // 2
            seen.append(set((train % num).tolist()) & set((test % num).tolist()))
            return super()._predicted(gram_MM, classes_M, train, test, setting)

    rng = np.random.default_rng(0)
    features = rng.random((16, 5))
    groups = np.tile(np.arange(8), 2)
    Watched(num_folds=3, num_inner_folds=2).accuracies(features @ features.T, np.repeat([0, 1], 8), groups, 0)
    assert seen
    assert set.union(*seen) == set()


def test_nothing_can_be_told_where_both_samples_are_the_same_and_much_where_they_are_not(tmp_path):
    config = dataclasses.replace(TINY, angles_deg=(0.0, 2.0, 45.0, 360.0), num_images=16)
    metrics = config.run(context := FakeContext(tmp_path))
    frame = pl.read_parquet(context.output_dir / "accuracy.parquet")
    means = dict(frame.group_by("value", maintain_order=True).agg(pl.col("accuracy").mean()).iter_rows())
    assert means[0.0] == means[360.0] == 0.5
    assert set(frame.filter(value=0.0)["accuracy"]) == {0.5}
    assert means[45.0] > 0.7
    assert metrics["accuracy_mean"] == pytest.approx((means[2.0] + means[45.0]) / 2)
    assert metrics["num_images"] == 16
    assert context.rows == [(int(angle), {"accuracy": pytest.approx(mean)}) for angle, mean in means.items()]


def test_the_circle_takes_the_corners_away():
    """Of bright images the black corners of a rotation tell all; inside the circle there are none."""
    work = []
    for cut in (False, True):
        config = dataclasses.replace(TINY, cut_to_circle=cut)
        bright = np.full((3, 1, 32, 32), 200, np.uint8)
        work.append(_Work(config, bright, ["a", "b", "c"]))
    whole, cut = (one._images(45.0) for one in work)
    assert whole[0, 0, 0] == 0
    assert work[0]._images(None)[0, 0, 0] > 0.7
    circle = work[1]._images(None)
    assert circle[0, 0, 0] == 0
    assert circle[0, 16, 16] > 0.7
    np.testing.assert_allclose(cut[:, 8:24, 8:24], circle[:, 8:24, 8:24], atol=1e-6)


def test_the_round_trip_comes_back(tmp_path):
    images = np.stack([DATA.decode(record) for record in DATA.records()[:3]])
    there = _Work(dataclasses.replace(TINY, change="round_trip"), images, ["a", "b", "c"])
    np.testing.assert_array_equal(there._images(90.0), there._images(None))
    back, away = there._images(30.0), _Work(TINY, images, ["a", "b", "c"])._images(30.0)
    original = there._images(None)
    assert 0 < np.abs(back - original)[:, 8:24, 8:24].mean() < 0.5 * np.abs(away - original)[:, 8:24, 8:24].mean()


def test_killed_and_resumed_is_the_undisturbed_one(tmp_path):
    expected = FakeContext(tmp_path / "whole")
    metrics = TINY.run(expected)
    first = FakeContext(tmp_path / "killed", kill_after_items=2)
    with pytest.raises(Killed):
        TINY.run(first)
    second = first.again()
    assert TINY.run(second) == metrics
    tables = [pl.read_parquet(c.output_dir / "accuracy.parquet") for c in (second, expected)]
    assert tables[0].equals(tables[1])
    chosen = json.loads((second.output_dir / "artifacts/settings.json").read_text())["C and gamma, a fold"]
    assert set(chosen) == {"0", "40", "90"}
    assert all(len(settings) == 3 and {c for c, _ in settings} <= set(Svm().penalties) for settings in chosen.values())


def test_samples_are_images_with_their_histograms_drawn(tmp_path):
    TINY.run(context := FakeContext(tmp_path))
    samples = dict(np.load(context.output_dir / "samples.npz"))
    assert len(samples["image_id"]) == 2
    pixels = images_of(TINY)
    for name, image, drawn in zip(samples["image_id"], samples["images_KHW"], samples["histograms_KHW"], strict=True):
        np.testing.assert_allclose(image, pixels[name] * 255, atol=0.51)
        wanted = hog(pixels[name].astype(np.float32).astype(np.float64), visualize=True)[1]
        np.testing.assert_allclose(drawn, wanted, atol=1e-4)


def test_which_images_and_folds_follow_from_their_seeds(tmp_path):
    def ids(config, name):
        config.run(context := FakeContext(tmp_path / name))
        return pl.read_parquet(context.output_dir / "accuracy.parquet").filter(value=40.0)

    base = ids(dataclasses.replace(TINY, num_images=8), "base")
    assert base["image_id"].n_unique() == 8
    assert base["image_id"].is_sorted()
    other = ids(dataclasses.replace(TINY, num_images=8, selection_seed=1), "selection")
    assert set(other["image_id"]) != set(base["image_id"])
    refolded = ids(dataclasses.replace(TINY, num_images=8, fold_seed=1), "folds")
    assert set(refolded["image_id"]) == set(base["image_id"])
    keys = Keys(FileDigests())
    assert keys.cell(TINY) == keys.cell(dataclasses.replace(TINY, fold_seed=4))
    assert keys.key(TINY) != keys.key(dataclasses.replace(TINY, fold_seed=4))


def test_gammas_are_no_part_of_a_linear_machine():
    keys = Keys(FileDigests())
    assert keys.key(dataclasses.replace(TINY, svm=Svm(gammas=(5.0,)))) == keys.key(dataclasses.replace(TINY, svm=Svm()))
    assert len(Svm("rbf").settings) == 15


def test_features_are_scikit_images():
    images = np.random.default_rng(0).random((2, 40, 40))
    found = Hog(orientations=6, pixels_per_cell=5, cells_per_block=2).features(images)
    wanted = [hog(image, 6, pixels_per_cell=(5, 5), cells_per_block=(2, 2)) for image in images]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: dataclasses.replace(TINY, change="turned"), "change = 'turned'"),
        (lambda: dataclasses.replace(TINY, num_images=3), "num_images = 3"),
        (lambda: dataclasses.replace(TINY, splits=("all",)), "splits = 'all'"),
        (lambda: dataclasses.replace(TINY, angles_deg=(0.0, 0.0)), "each once"),
        (lambda: dataclasses.replace(TINY, hog=Hog(pixels_per_cell=16)), "smaller than one block of 3 cells of 16"),
        (lambda: Hog(orientations=0), "orientations = 0"),
        (lambda: Svm("poly"), "kernel = 'poly'"),
        (lambda: Svm(penalties=(0.0,)), "penalties"),
        (lambda: Svm(num_folds=1), "num_folds"),
    ],
)
def test_what_cannot_be_is_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_too_few_groups_are_named():
    with pytest.raises(ValueError, match=r"tiny_shapes: the 3 images drawn of train, val are of 3 group\(s\)"):
        dataclasses.replace(TINY, data=TinyShapes(num_train=2, num_val=1)).check()
