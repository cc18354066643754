"""Additional positives: who is chosen in each way, from the definitions, and what the loss makes of it."""

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from fake_context import FakeContext
from test_byol import TINY, started
from tiny_shapes import TinyFindings, TinyLabels, TinyShapes
from torch import nn

from trainables import runtime
from trainables.api.trainable import Part
from trainables.ssl import selection
from trainables.ssl.byol_networks import statistics_kept
from trainables.ssl.losses import regression_loss
from trainables.ssl.positives import FalseNegatives, FeatureSimilarity, FeatureTransformation, SameLabel, TracIn
from trainables.ssl.selection import StepViews, selection_metrics, top

DATA = TinyShapes(num_train=10, num_val=4)
LABELS = TinyLabels(DATA)
POSITIONS = torch.tensor([3, 1, 4, 8, 9])
unit = nn.functional.normalize


@dataclass(frozen=True)
class Trained(Part):
    """Networks after a few steps, as a source of its own."""

    seed: int = 5

    def load_networks(self, context):
        training = started(dataclasses.replace(TINY, pretrain_seed=self.seed, learning_rate=0.02), context.output_dir)
        for step in range(3):
            training.step(torch.arange(4) + step, 0, step)
        return training.networks.eval().requires_grad_(False)


def training_with(positives, root, **changes):
    return started(dataclasses.replace(TINY, batch_size=5, positives=positives, **changes), root)


def views_of(training, positions=POSITIONS, epoch=0, step=0):
    """What the step sees, without moving anything."""
    images = training.train_images.images(positions)
    views = tuple(training.augmented(images, positions, view, epoch) for view in ("first", "second"))
    with statistics_kept(training.networks), torch.no_grad():
        passes, _ = training._passes(views, len(positions))
    return StepViews(positions, slice(0, len(positions)), views, passes, epoch, step)


def chosen(weights):
    """Places that each image has chosen."""
    return [row.nonzero()[:, 0].tolist() for row in weights]


def nearest(similarities, num=1):
    similarities = similarities.clone().fill_diagonal_(-torch.inf)
    return [sorted(row.argsort(descending=True)[:num].tolist()) for row in similarities]


# -- the most similar ----------------------------------------------------------------------------------------------


def test_the_most_similar_others_get_equal_weights():
    similarities = torch.tensor([[9.0, 1.0, 3.0, 2.0], [5.0, 9.0, -1.0, 4.0]])
    assert chosen(top(similarities, slice(0, 2), 1)) == [[2], [0]]
    assert torch.equal(top(similarities, slice(0, 2), 2), torch.tensor([[0, 0, 0.5, 0.5], [0.5, 0, 0, 0.5]]))
    # The same two images as the third and fourth of the batch: other places are their own.
    assert chosen(top(similarities, slice(2, 4), 1)) == [[0], [1]]
    assert chosen(top(similarities, slice(0, 2), 9)) == [[1, 2, 3], [0, 2, 3]], "a batch has no more"


def test_what_is_ruled_out_is_never_chosen():
    similarities = torch.tensor([[9.0, -torch.inf, 3.0], [-torch.inf, 9.0, -torch.inf]])
    assert chosen(top(similarities, slice(0, 2), 2)) == [[2], []]


# -- feature similarity --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top_k", [1, 2])
def test_feature_similarity_takes_the_nearest_directions_of_both_views(tmp_path, top_k):
    training = training_with(FeatureSimilarity(top_k=top_k, views="training"), tmp_path)
    step = views_of(training)
    features = step.passes.features_VnF
    cosines = unit(unit(features[0], dim=1) + unit(features[1], dim=1), dim=1)
    assert chosen(training._weights(step)) == nearest(cosines @ cosines.T, top_k)


def test_a_trained_model_sees_the_plain_image_in_evaluation_mode(tmp_path):
    training = training_with(FeatureSimilarity(model=Trained(), views="plain"), tmp_path)
    networks = Trained().load_networks(FakeContext(tmp_path / "trained"))
    features = unit(networks.online.features(training.train_images.images(POSITIONS)), dim=1)
    expected = nearest(features @ features.T)
    assert chosen(training._weights(views_of(training))) == expected
    other = training_with(FeatureSimilarity(model=Trained(6), views="plain"), tmp_path / "other")
    assert chosen(other._weights(views_of(other))) != expected


def test_feature_similarity_in_light_views_leaves_the_network_as_it_is(tmp_path):
    training = training_with(FeatureSimilarity(views="light"), tmp_path)
    step = views_of(training)
    before = {name: values.clone() for name, values in training.networks.state_dict().items()}
    with statistics_kept(training.networks), torch.no_grad():
        shown = selection.fixed_views(training.train_images.images(POSITIONS), "light")
        directions = sum(unit(training.networks.online.features(view), dim=1) for view in shown)
    directions = unit(directions, dim=1)
    assert chosen(training._weights(step)) == nearest(directions @ directions.T)
    changed = [name for name, values in training.networks.state_dict().items() if not torch.equal(values, before[name])]
    assert all(name.endswith("num_batches_tracked") for name in changed)


# -- TracIn --------------------------------------------------------------------------------------------------------


def influence_of(networks, views):
    """Products of the gradients of each image's loss with respect to the last layer, by autograd [B, B]."""
    weight = networks.predictor.last.weight.requires_grad_()
    predictions = [networks.predictor(networks.online(view))[0] for view in views]
    targets = [networks.target(view).detach() for view in views]
    losses = regression_loss(predictions[0], targets[1]) + regression_loss(predictions[1], targets[0])
    rows = [torch.autograd.grad(loss, weight, retain_graph=True)[0].flatten() for loss in losses]
    return torch.stack(rows) @ torch.stack(rows).T


def light(images):
    """The plain image, and its centre of 128 of 140 pixels, flipped (by another implementation, up to its border)."""
    side = images.shape[2]
    crop = side * 128 / 140
    places = (torch.arange(side) + 0.5) / side * crop + (side - crop) / 2
    grid = places / side * 2 - 1
    flipped = torch.stack(torch.meshgrid(grid, -grid, indexing="ij")[::-1], dim=-1).expand(len(images), -1, -1, -1)
    return images, nn.functional.grid_sample(images, flipped, align_corners=False, padding_mode="border")


def test_the_light_views_are_the_papers():
    images = torch.rand(2, 1, 35, 35)
    plain, cropped = selection.fixed_views(images, "light")
    assert plain is images
    inner = (..., slice(1, -1), slice(1, -1))  # a crop reads nothing beyond its edges
    torch.testing.assert_close(cropped[inner], light(images)[1][inner], atol=1e-4, rtol=1e-3)
    assert selection.fixed_views(images, "plain")[1] is images


@pytest.mark.parametrize("normalize", ["none", "cosine"])
def test_tracin_of_the_network_in_training_is_that_of_its_gradients(tmp_path, normalize):
    training = training_with(TracIn(views="training", normalize=normalize), tmp_path)
    step = views_of(training)
    with statistics_kept(training.networks), torch.enable_grad():
        expected = influence_of(training.networks, step.images_nCHW)
    if normalize == "cosine":
        lengths = expected.diagonal().sqrt()
        expected = expected / lengths / lengths[:, None]
    assert chosen(training._weights(step)) == nearest(expected)


def test_tracin_in_light_views_leaves_the_network_as_it_is(tmp_path):
    training = training_with(TracIn(), tmp_path)
    step = views_of(training)
    before = {name: values.clone() for name, values in training.networks.state_dict().items()}
    with statistics_kept(training.networks), torch.enable_grad():
        images = training.train_images.images(POSITIONS)
        expected = influence_of(training.networks, selection.fixed_views(images, "light"))
    assert chosen(training._weights(step)) == nearest(expected)
    changed = [name for name, values in training.networks.state_dict().items() if not torch.equal(values, before[name])]
    assert all(name.endswith("num_batches_tracked") for name in changed)
    assert training.networks.training


@pytest.mark.parametrize("views", ["light", "plain", "training"])
def test_several_trained_models_add_their_influences(tmp_path, views):
    """The features that are kept give what the models give of the views themselves."""
    training = training_with(TracIn(models=(Trained(5), Trained(6)), views=views), tmp_path)
    step = views_of(training)
    images = training.train_images.images(POSITIONS)
    shown = step.images_nCHW if views == "training" else selection.fixed_views(images, views)
    expected = sum(
        influence_of(Trained(seed).load_networks(FakeContext(tmp_path / f"trained {seed}")), shown) for seed in (5, 6)
    )
    assert chosen(training._weights(step)) == nearest(expected.detach())


# -- FNC, labels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.5])
def test_false_negatives_are_near_enough_in_some_pair_of_views(tmp_path, threshold):
    training = training_with(FalseNegatives(top_k=2, threshold=threshold), tmp_path)
    step = views_of(training)
    drawn = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    step = dataclasses.replace(step, passes=dataclasses.replace(step.passes, targets_VnD=drawn))
    directions = unit(drawn, dim=2)
    cosines = torch.stack([directions[u] @ directions[v].T for u in (0, 1) for v in (0, 1)]).amax(dim=0)
    weights = training._weights(step)
    expected = [
        [place for place in places if cosines[row, place] > threshold] for row, places in enumerate(nearest(cosines, 2))
    ]
    assert chosen(weights) == expected
    assert weights.sum(dim=1).tolist() == [float(bool(places)) for places in expected]


def test_one_image_of_the_same_label_is_drawn(tmp_path):
    training = training_with(SameLabel(labels=LABELS), tmp_path)
    positions = torch.tensor([0, 3, 6, 1, 5])  # labels 0 0 0 1 2
    every = [
        chosen(training._weights(views_of(training, positions, epoch=e, step=s))) for e in range(6) for s in (0, 1)
    ]
    assert {tuple(places[3]) for places in every} == {tuple(places[4]) for places in every} == {()}
    for row, others in ((0, {1, 2}), (1, {0, 2}), (2, {0, 1})):
        assert all(len(places[row]) == 1 for places in every)
        assert {places[row][0] for places in every} == others
    again = training_with(SameLabel(labels=LABELS), tmp_path / "again", pretrain_seed=1)
    others = [chosen(again._weights(views_of(again, positions, epoch=e, step=s))) for e in range(6) for s in (0, 1)]
    assert others != every


def test_all_of_the_same_label_and_shared_findings(tmp_path):
    every = training_with(SameLabel(labels=LABELS, which="mean"), tmp_path)
    positions = torch.tensor([0, 3, 6, 1, 5])
    assert chosen(every._weights(views_of(every, positions))) == [[1, 2], [0, 2], [0, 1], [], []]
    findings = training_with(SameLabel(labels=TinyFindings(DATA), which="mean"), tmp_path / "findings")
    positions = torch.tensor([0, 1, 3, 6, 4])  # none; one; one and two; two and four; four
    assert chosen(findings._weights(views_of(findings, positions))) == [[], [2], [1, 3], [2, 4], [3]]


def test_an_image_without_a_label_shares_none(tmp_path):
    labels = TinyLabels(TinyShapes(num_train=10, num_val=0))
    training = training_with(SameLabel(labels=labels, which="mean"), tmp_path, data=labels.images)
    positions = torch.tensor([9, 0, 3, 6, 1])  # 9 would be of the first class
    assert chosen(training._weights(views_of(training, positions))) == [[], [2, 3], [1, 3], [1, 2], []]


# -- feature transformation ----------------------------------------------------------------------------------------


def test_a_pair_is_moved_apart_by_the_formula():
    predictions, targets = unit(torch.randn(4, 8), dim=1), unit(torch.randn(4, 8), dim=1)
    moved, moved_targets = FeatureTransformation(per="pair").moved(3 * predictions, targets, torch.arange(4), 0)
    before, after = (predictions * targets).sum(dim=1), (moved * moved_targets).sum(dim=1)
    factors = (moved - targets).norm(dim=1) / (predictions - targets).norm(dim=1)
    torch.testing.assert_close(after, before + 2 * factors * (1 - factors) * (1 - before))
    assert bool((after <= before).all())


def test_factors_are_one_and_a_beta_of_two_and_two():
    """Mean 1.5 and variance 1/20, of every dimension by itself."""
    ones, zeros = torch.zeros(4000, 2), torch.zeros(4000, 2)
    ones[:, 0], zeros[:, 1] = 1, 1
    moved, _ = FeatureTransformation().moved(ones, zeros, torch.arange(4000), 0)
    factors = torch.stack([moved[:, 0], 1 - moved[:, 1]], dim=1)
    assert float(factors.min()) >= 1
    torch.testing.assert_close(factors.mean(dim=0), torch.tensor([1.5, 1.5]), atol=0.02, rtol=0)
    torch.testing.assert_close(factors.var(dim=0), torch.tensor([0.05, 0.05]), atol=0.005, rtol=0)
    assert abs(float(torch.corrcoef(factors.T)[0, 1])) < 0.06


def gradient_of(positives, predictions, targets):
    predictions = predictions.clone().requires_grad_()
    pair = positives.moved(predictions, targets, torch.arange(len(targets)), 0) if positives else (predictions, targets)
    loss = 2 - 2 * (pair[0] * pair[1]).sum(dim=1) if positives else regression_loss(*pair)
    return torch.autograd.grad(loss.sum(), predictions)[0]


def test_one_factor_for_a_pair_only_rescales_byols_gradient():
    """Of the product of the pair; so that form is degenerate, and one for each dimension is not."""
    generator = torch.Generator().manual_seed(1)
    predictions, targets = (torch.randn(6, 32, generator=generator) for _ in range(2))
    plain = gradient_of(None, predictions, targets)
    scalar = gradient_of(FeatureTransformation(per="pair"), predictions, targets)
    each = gradient_of(FeatureTransformation(), predictions, targets)
    cosine = nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(plain, scalar), torch.ones(6), atol=1e-5, rtol=0)
    assert bool((cosine(plain, each) < 0.999).all())


# -- in the training -----------------------------------------------------------------------------------------------


def test_the_additional_term_is_byols_with_the_others_targets(tmp_path):
    training = training_with(FeatureSimilarity(weight=0.7), tmp_path)
    step = views_of(training)
    weights = torch.tensor(
        [[0, 1, 0, 0, 0], [0.5, 0, 0.5, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0.25, 0.25, 0.25, 0.25, 0]]
    )
    found = training._loss(step.passes, step, weights)
    (p1, p2), (z1, z2) = step.passes.predictions_VnD, step.passes.targets_VnD
    expected = torch.zeros(())
    for i in range(5):
        for p, z in ((p1, z2), (p2, z1)):
            expected += regression_loss(p[i : i + 1], z[i : i + 1]).sum()
            for j in range(5):
                expected += 0.7 * weights[i, j] * regression_loss(p[i : i + 1], z[j : j + 1]).sum()
    torch.testing.assert_close(found, expected / 5)


@pytest.mark.parametrize("positives", [FeatureSimilarity(start_epoch=2), FeatureTransformation(start_epoch=2)])
def test_before_its_first_epoch_it_is_plain_byol(tmp_path, positives):
    training, plain = training_with(positives, tmp_path), training_with(None, tmp_path / "plain")
    losses = {
        epoch: [
            each._loss(step.passes, step, each._weights(step))
            for each in (training, plain)
            for step in [views_of(each, epoch=epoch)]
        ]
        for epoch in (1, 2)
    }
    assert torch.equal(*losses[1])
    assert not torch.equal(*losses[2])


def test_what_was_chosen_is_measured():
    weights = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0], [0, 0.5, 0, 0.5], [0, 1, 0, 0]])
    same = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]).bool()
    every, alone = slice(0, 4), runtime.world()
    found = selection_metrics(weights, same, every, 4, alone)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {"selected": 0.75, "largest_hub": 0.75, "selection_chosen": 4, "selection_right": 2}
    )
    # Of an image without a label nobody knows: the third, which chose rightly once, does not count.
    same[2, 2] = False
    found = selection_metrics(weights, same, every, 4, alone)
    assert (float(found["selection_chosen"]), float(found["selection_right"])) == (2, 1)
    assert "selection_right" not in selection_metrics(weights, None, every, 4, alone)
    nothing = selection_metrics(torch.zeros(4, 4), same, every, 4, alone)
    assert {name: float(value) for name, value in nothing.items()} == dict.fromkeys(nothing, 0.0)
    # The second worker's images are the third and fourth of the batch.
    own = selection_metrics(weights[2:], same[2:], slice(2, 4), 4, alone)
    assert (float(own["selection_chosen"]), float(own["selection_right"])) == (1, 0)


def test_a_precision_is_of_the_whole_epoch_and_of_nothing_where_nobody_chose(tmp_path):
    config = dataclasses.replace(TINY, positives=SameLabel(labels=LABELS), labels=LABELS, num_epochs=1)
    assert config.run(FakeContext(tmp_path))["train/selection_precision"] == 1.0, "images without a partner count not"
    later = dataclasses.replace(config, positives=TracIn(start_epoch=1), num_epochs=2)
    context = FakeContext(tmp_path / "later")
    later.run(context)
    assert [("train/selection_precision" in row) for _, row in context.rows] == [False, True]


@pytest.mark.parametrize(
    "positives",
    [
        FeatureSimilarity(),
        TracIn(top_k=2),
        FalseNegatives(threshold=-0.9),
        SameLabel(labels=LABELS),
        FeatureTransformation(),
    ],
    ids=lambda positives: type(positives).__name__,
)
def test_each_way_trains_and_logs(tmp_path, positives):
    config = dataclasses.replace(TINY, positives=positives, labels=LABELS, num_epochs=1)
    context = FakeContext(tmp_path)
    metrics = config.run(context)
    if isinstance(positives, FeatureTransformation):
        assert "train/selected" not in metrics
        return
    assert {"train/selected", "train/largest_hub", "train/selection_precision"} <= set(metrics)
    assert not any("right" in name or "_chosen" in name for name in metrics)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FeatureSimilarity(weight=0.0), "weight = 0.0: a positive number"),
        (lambda: TracIn(start_epoch=-1), "start_epoch = -1"),
        (lambda: TracIn(top_k=0), "top_k = 0: at least 1"),
        (lambda: TracIn(views="bright"), "views = 'bright'"),
        (lambda: TracIn(normalize="length"), "normalize = 'length'"),
        (lambda: FalseNegatives(threshold=1.0), "threshold = 1.0: a cosine"),
        (lambda: SameLabel(), "need the labels"),
        (lambda: SameLabel(labels=LABELS, which="two"), "which = 'two'"),
        (lambda: FeatureTransformation(per="image"), "per = 'image'"),
    ],
)
def test_wrong_fields_are_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()
