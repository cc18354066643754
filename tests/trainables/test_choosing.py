"""How rightly a trained network chooses: precision, chance and hubs from the definitions, and the pictures."""

import dataclasses

import numpy as np
import pytest
import torch
from fake_context import FakeContext
from PIL import Image
from test_byol import TINY
from tiny_shapes import TinyFindings, TinyLabels, TinyShapes

from trainables.data.cache import open_images
from trainables.models.encoder import Encoder
from trainables.models.sources import Untrained
from trainables.ssl.byol import UntrainedBYOL
from trainables.ssl.choosing import ChoiceScores, _Counts
from trainables.ssl.positives import FalseNegatives, FeatureSimilarity, TracIn
from trainables.ssl.selection import fixed_views
from trainables.ssl.tracin import output_gradients

DATA = TinyShapes(num_train=12, num_val=0)  # its last label is missing
LABELS = TinyLabels(DATA)
SHORT, LONG = (dataclasses.replace(TINY, data=DATA, num_epochs=n, schedule_epochs=3) for n in (1, 3))
BY_FEATURES = FeatureSimilarity(model=LONG, views="plain")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(training, folder of its result) of a short and a long one."""
    found = []
    for config in (SHORT, LONG):
        context = FakeContext(tmp_path_factory.mktemp("byol"))
        config.run(context)
        found.append((config, context.output_dir))
    return found


@pytest.fixture
def scored(trained, tmp_path):
    """A function: (metrics, samples, context) of a way to choose."""

    def make(positives, folder="one", **changes):
        config = ChoiceScores(LONG, positives, LABELS, top_ks=(1, 2, 3), batch_size=12, num_orders=1)
        context = FakeContext(tmp_path / folder, upstream=trained)
        metrics = dataclasses.replace(config, **changes).run(context)
        return metrics, dict(np.load(context.output_dir / "samples.npz")), context

    return make


def similarities(trained, way):
    """[12, 12], slowly: every pair from the two images' own vectors."""
    (_, context_folder) = trained[1]
    table = open_images(DATA, FakeContext(context_folder.parent / "again"))
    images = torch.from_numpy(np.array(table.images_NCHW)).float() / 255
    total = torch.zeros(12, 12)
    for config, folder in trained if way == "TracIn" else trained[1:]:
        networks = config.load_networks(FakeContext(folder.parent / "load", upstream=trained))
        with torch.no_grad():
            if way == "features":
                vectors = networks.online.features(images)
                vectors = [vector / vector.norm() for vector in vectors]
            else:
                views = fixed_views(images, "light")
                passed, targets = [networks.passed(v) for v in views], [networks.target(v) for v in views]
                vectors = [
                    sum(
                        torch.outer(
                            output_gradients(passed[v][1][i : i + 1], targets[1 - v][i : i + 1])[0], passed[v][2][i]
                        )
                        for v in (0, 1)
                    ).flatten()
                    for i in range(12)
                ]
        total += torch.tensor([[float(a @ b) for b in vectors] for a in vectors])
    return total


WAYS = {"features": BY_FEATURES, "TracIn": TracIn(models=(SHORT, LONG))}


@pytest.mark.parametrize("way", WAYS)
def test_precision_and_hubs_are_those_of_the_definition(trained, scored, way):
    metrics, _, _ = scored(WAYS[way])
    alike, labels = similarities(trained, way), [i % 3 for i in range(11)]
    for top_k in (1, 2, 3):
        right, chosen_by, shuffled = 0, np.zeros(12), []
        for anchor in range(12):
            others = sorted((i for i in range(12) if i != anchor), key=lambda i: -alike[anchor, i])[:top_k]
            chosen_by[others] += 1
            right += sum(anchor < 11 and i < 11 and labels[i] == labels[anchor] for i in others)
            if anchor < 11:  # each choice dealt out to any other anchor that has a label
                shuffled += [
                    np.mean([i < 11 and labels[i] == labels[other] for other in range(11) if other != i])
                    for i in others
                ]
        assert metrics[f"precision/top_{top_k}"] == pytest.approx(right / (11 * top_k))
        assert metrics[f"shuffled/top_{top_k}"] == pytest.approx(np.mean(shuffled))
        assert metrics[f"largest_hub/top_{top_k}"] == pytest.approx(chosen_by.max() / 12)
        assert metrics[f"selected/top_{top_k}"] == 1.0
    assert metrics["num_anchors"] == 11
    # Of 11 anchors 8 have three others of their class (0 and 1 have four images each), 3 have two.
    assert metrics["chance"] == pytest.approx((8 * 3 + 3 * 2) / (11 * 11))


def test_a_shared_finding_is_right_and_who_is_not_near_enough_is_not_chosen(scored):
    metrics, _, _ = scored(TracIn(models=(LONG,)), labels=TinyFindings(DATA))
    assert 0 < metrics["chance"] < 1
    assert metrics["precision/top_1"] < 1
    near = FalseNegatives(threshold=0.999999)
    chosen, samples, _ = scored(near, "strict")
    assert chosen["selected/top_1"] < 1, "who is not near enough is not chosen"
    assert set(samples["chosen_ids_AR"].flatten()) >= {""}


def test_pictures_show_the_nearest_first_and_the_same_anchors_for_every_way(trained, scored):
    _, by_features, context = scored(BY_FEATURES)
    _, by_tracin, _ = scored(TracIn(models=(LONG,)), "other")
    assert by_features["image_id"].tolist() == by_tracin["image_id"].tolist()
    alike = similarities(trained, "features")
    for place, anchor in enumerate(map(int, by_features["image_id"])):
        nearest = sorted((i for i in range(12) if i != anchor), key=lambda i: -alike[anchor, i])[:3]
        assert [int(id_) for id_ in by_features["chosen_ids_AR"][place]] == nearest
        assert by_features["labels_A"][place] == "abc"[anchor % 3]
        words = ["abc"[i % 3] if i < 11 else "" for i in nearest]
        assert by_features["chosen_labels_AR"][place].tolist() == words
        assert by_features["is_right_AR"][place].tolist() == [word == "abc"[anchor % 3] for word in words]
        expected = DATA.decode(DATA.records()[nearest[0]])[0]
        # A frame and what is around it take 8 pixels; an image of 32 is enlarged three times.
        shown = by_features["tiles_ATHWC"][place, 1, 8:-8:3, 8:-8:3]
        np.testing.assert_array_equal(shown, np.repeat(expected[:, :, None], 3, axis=2))
    picture = Image.open(context.output_dir / "artifacts" / "choices.png")
    assert picture.size == (4 * 112, 4 * 112)
    right, wrong = (0, 158, 115), (213, 94, 0)
    frames = [[picture.getpixel((112 * (rank + 1) + 5, 112 * row + 5)) for rank in range(3)] for row in range(4)]
    assert frames == [[right if is_right else wrong for is_right in row] for row in by_features["is_right_AR"]]


def test_another_seed_cuts_other_batches(scored):
    by_seed = [scored(BY_FEATURES, f"{seed}", choice_seed=seed, batch_size=6)[0] for seed in (0, 1, 0)]
    assert by_seed[0] == by_seed[2]
    assert by_seed[0] != by_seed[1]


def test_views_of_a_training_are_drawn_anew_in_each_order(scored):
    plain = scored(dataclasses.replace(BY_FEATURES, views="training"), "views")[0]
    other = scored(dataclasses.replace(BY_FEATURES, views="training"), "drawn", choice_seed=3)[0]
    assert plain != other


def test_choosing_one_image_of_a_common_class_is_no_better_than_when_it_is_shuffled():
    """Half of the images are of one class, of which everybody chooses the same one."""
    same = torch.tensor([[a % 2 == b % 2 or a % 4 == b % 4 for b in range(12)] for a in range(12)])
    chosen = torch.zeros(12, 12, dtype=torch.bool)
    chosen[:, 2] = True
    chosen[2] = False
    counts = _Counts()
    counts.add(chosen, same)
    summary = counts.summary()
    assert summary["precision"] == pytest.approx(summary["shuffled"])


def test_images_are_passed_once_whatever_the_number_of_choices(scored, monkeypatch):
    passed = []
    features = Encoder.features
    monkeypatch.setattr(Encoder, "features", lambda self, images: passed.append(len(images)) or features(self, images))
    scored(TracIn(models=(LONG,)))
    assert sum(passed) == 2 * 2 * 12, "both networks, both views"


def test_an_untrained_network_chooses_too(scored):
    metrics, _, _ = scored(TracIn(models=(UntrainedBYOL(Untrained(DATA, "resnet18", "byol", 0, 16)),)))
    other, _, _ = scored(TracIn(models=(UntrainedBYOL(Untrained(DATA, "resnet18", "byol", 1, 16)),)), "other")
    assert 0 <= metrics["precision/top_1"] <= 1
    assert metrics != other, "of another seed other weights"


def test_what_nobody_was_trained_for_is_refused():
    for positives in (FeatureSimilarity(), TracIn()):
        with pytest.raises(ValueError, match="without a trained network"):
            ChoiceScores(LONG, positives, LABELS)
    with pytest.raises(ValueError, match="must be more than the largest of top_ks"):
        ChoiceScores(LONG, BY_FEATURES, LABELS, batch_size=5)
    with pytest.raises(ValueError, match="larger than the training split of 12 images"):
        ChoiceScores(LONG, BY_FEATURES, LABELS, batch_size=13).check()
