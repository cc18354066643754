"""Segmentation as a trial: networks, loss, scores against torchmetrics and by hand, fractions of labels."""

import dataclasses
import json
import math

import numpy as np
import polars as pl
import pytest
import torch
from fake_context import FakeContext, Killed
from tiny_shapes import TinyClasses, TinyShapeMask, TinyShapes
from torch import nn

from trainables import runtime
from trainables.api import names
from trainables.api.identity import FileDigests, Keys
from trainables.augment.combine import THESIS_AUGMENTATION
from trainables.augment.geometric import HorizontalFlip
from trainables.data.batches import DeviceImages
from trainables.data.cache import open_annotation, open_images
from trainables.metrics.classes import mean_over_images, overlap
from trainables.models.encoder import build_encoder
from trainables.models.sources import Untrained
from trainables.models.trunk import FINEST_STRIDE, STAGE_CHANNELS
from trainables.models.unet import Segmenter, UNetEncoder, UNetEncoderConfig, load_segmenter, save_segmenter
from trainables.segmentation.losses import soft_dice_loss
from trainables.segmentation.networks import TrunkUNet, UNet
from trainables.segmentation.predicting import predictions
from trainables.segmentation.scores import SegmentationScores
from trainables.segmentation.target import labelled_rows
from trainables.segmentation.training import Segmentation, SegmentationTraining

DATA = TinyShapes(num_train=12, num_val=5)
TINY = Segmentation(TinyClasses(DATA), UNet((6, 12)), num_epochs=3, batch_size=4, learning_rate=0.01)
ON_TRUNK = dataclasses.replace(TINY, network=TrunkUNet(Untrained(DATA, "resnet18")))


def unet(in_channels=1, widths=(4, 8, 16), num_classes=3):
    encoder = UNetEncoder(UNetEncoderConfig(in_channels, widths), [0.0] * in_channels, [1.0] * in_channels)
    return Segmenter(encoder, num_classes)


# -- networks ------------------------------------------------------------------------------------------------------


def test_the_baseline_has_the_thesis_s_blocks():
    """Four double convolutions down, three steps up, four outputs."""
    made = Segmenter(UNetEncoder(UNetEncoderConfig(1, UNet().widths), [0.0], [1.0]), num_classes=4)
    assert len(made.encoder.blocks) == 4
    assert len(made.decoder.blocks) == 3
    assert made.decoder.classify.out_channels == 4
    convolutions = [m for m in made.encoder.blocks[0].modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 2
    assert [stage.shape[1:] for stage in made.encoder.stages(torch.zeros(1, 1, 64, 64))] == [
        (64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8),
    ]  # fmt: skip


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_the_table_of_stages_is_the_trunk_s(backbone):
    encoder = build_encoder(backbone, None, 1, STAGE_CHANNELS[backbone][-1]).eval()
    with torch.inference_mode():
        stages = encoder.stages(torch.zeros(1, 1, 64, 64))
    assert tuple(stage.shape[1] for stage in stages) == encoder.stage_channels == STAGE_CHANNELS[backbone]
    assert [64 // stage.shape[2] for stage in stages] == [FINEST_STRIDE * 2**place for place in range(5)]
    made = Segmenter(encoder, num_classes=4)
    assert len(made.decoder.blocks) == 5
    assert not [name for name, _ in made.named_parameters() if "head" in name]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (24, 64)])
def test_logits_have_the_image_s_sides_whatever_these_are(height, width):
    for made in (unet(), Segmenter(build_encoder("resnet18", "v2", 1), num_classes=3)):
        made.eval()
        with torch.inference_mode():
            logits = made(torch.rand(2, 1, height, width))
        assert logits.shape == (2, 3, height, width)


def test_every_stage_reaches_the_logits_and_takes_a_gradient():
    made = unet().eval()
    stages = [stage.detach().requires_grad_(True) for stage in made.encoder.stages(torch.rand(1, 1, 16, 16))]
    made.decoder(stages)[0, 1].sum().backward()
    assert all(stage.grad.abs().sum() > 0 for stage in stages)


def test_an_image_is_segmented_by_itself_and_where_it_is():
    """In evaluation the logits of an image do not depend on its batch, and move with it."""
    made = unet(widths=(4, 8)).eval()
    images = torch.rand(3, 1, 32, 32, generator=runtime.generator("images"))
    with torch.inference_mode():
        torch.testing.assert_close(made(images)[1:2], made(images[1:2]))
        moved = made(images.roll(4, dims=3))
    torch.testing.assert_close(moved[..., 12:24], made(images)[..., 8:20], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [unet, lambda: Segmenter(build_encoder("resnet18", "v2", 1, mean=[0.2]), 3)])
def test_a_saved_segmenter_is_read_with_its_statistics(make, tmp_path):
    made, images = make(), torch.rand(2, 1, 32, 32)
    made.train()(images)  # running statistics of its own
    save_segmenter(made, tmp_path / "segmenter.pt")
    found = load_segmenter(tmp_path / "segmenter.pt")
    assert not found.training
    assert not [p for p in found.parameters() if p.requires_grad]
    with torch.inference_mode():
        assert torch.equal(found(images), made.eval()(images))


def test_images_are_standardised_as_the_training_split_is():
    def logits(mean, std, images):
        made = Segmenter(UNetEncoder(UNetEncoderConfig(1, (4, 8)), [mean], [std]), 2).eval()
        made.load_state_dict(
            {**reference, **{n: v for n, v in made.state_dict().items() if n in ("encoder.mean", "encoder.std")}}
        )
        with torch.inference_mode():
            return made(images)

    reference = unet(widths=(4, 8), num_classes=2).state_dict()
    images = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(logits(0.25, 0.5, images), logits(0.0, 1.0, (images - 0.25) / 0.5))


# -- loss and scores -----------------------------------------------------------------------------------------------


def random_classes(seed, shape=(5, 12, 12), num_classes=4, absent=()):
    classes = torch.from_numpy(np.random.default_rng(seed).integers(0, num_classes, shape))
    for name in absent:
        classes[classes == name] = 0
    return classes


def test_the_loss_is_the_formula_and_nothing_where_all_is_right():
    logits = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classes = random_classes(1, (2, 5, 4), 3)
    for image in range(2):
        probabilities = logits[image].softmax(dim=0)
        dice = []
        for k in range(3):
            true = (classes[image] == k).double()
            both = float((probabilities[k] * true).sum())
            dice.append((2 * both + 1) / (float(probabilities[k].sum()) + float(true.sum()) + 1))
        assert soft_dice_loss(logits, classes)[image].item() == pytest.approx(1 - sum(dice) / 3)
    sure = 1e3 * nn.functional.one_hot(classes, 3).permute(0, 3, 1, 2).double()
    assert soft_dice_loss(sure, classes).tolist() == pytest.approx([0, 0])
    assert soft_dice_loss(sure.bfloat16(), classes).dtype == torch.float32


def test_scores_are_torchmetrics():
    from torchmetrics.functional.classification import multiclass_recall, multiclass_specificity
    from torchmetrics.functional.segmentation import dice_score, mean_iou

    predicted, true = random_classes(0), random_classes(1)
    found = overlap(predicted, true, 4)
    expected = {
        "dice": dice_score(predicted, true, 4, include_background=True, average="none", input_format="index"),
        "iou": mean_iou(predicted, true, 4, include_background=True, per_class=True, input_format="index"),
        "sensitivity": multiclass_recall(predicted, true, 4, average="none", multidim_average="samplewise"),
        "specificity": multiclass_specificity(predicted, true, 4, average="none", multidim_average="samplewise"),
    }
    for name, values in expected.items():
        torch.testing.assert_close(getattr(found, name)(), values.double(), rtol=1e-6, atol=1e-6)


def test_what_an_absent_class_counts():
    """Image 0: class 1 is predicted and not there. Image 1: class 1 is neither. Image 2: it is there, and missed."""
    true = torch.tensor([[[0, 0]], [[0, 0]], [[1, 0]]])
    predicted = torch.tensor([[[1, 0]], [[0, 0]], [[0, 0]]])
    found = overlap(predicted, true, 2)
    nan = math.nan
    for name, expected in {
        "dice": [0.0, nan, 0.0], "iou": [0.0, nan, 0.0], "sensitivity": [nan, nan, 0.0], "specificity": [0.5, 1.0, 1.0],
    }.items():  # fmt: skip
        np.testing.assert_equal(getattr(found, name)()[:, 1].numpy(), expected)
    assert mean_over_images(found.dice()).tolist() == pytest.approx([(2 / 3 + 1 + 2 / 3) / 3, 0.0])
    assert math.isnan(mean_over_images(overlap(true[1:2], true[1:2], 2).dice())[1])


def test_classes_beyond_the_known_ones_are_named():
    with pytest.raises(ValueError, match="true classes reach from 0 to 3: expected 0 to 2"):
        overlap(random_classes(0, num_classes=3), random_classes(1), 3)
    with pytest.raises(ValueError, match=r"\(5, 12, 12\) and \(5, 12\)"):
        overlap(random_classes(0), random_classes(1)[:, 0], 4)


# -- trainings -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    context = FakeContext(tmp_path_factory.mktemp("undisturbed"))
    return context, TINY.run(context)


def test_killed_and_resumed_is_bitwise_the_undisturbed_training(undisturbed, tmp_path):
    expected_context, expected_metrics = undisturbed
    first = FakeContext(tmp_path, kill_after_checkpoints=2)
    with pytest.raises(Killed):
        TINY.run(first)
    torch.rand(17)
    second = first.again()
    assert TINY.run(second) == expected_metrics
    assert first.rows + second.rows == expected_context.rows
    states = [
        torch.load(c.output_dir / "segmenter.pt", weights_only=True)["state_dict"] for c in (second, expected_context)
    ]
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []


def test_what_is_logged(undisturbed):
    context, metrics = undisturbed
    assert metrics == context.rows[-1][1]
    assert context.metric("learning_rate") == pytest.approx([0.01 * (1 - epoch / 3) ** 0.9 for epoch in range(3)])
    assert set(metrics) == {"train/loss", "learning_rate", "val/dice", "val/foreground_dice"}


@pytest.mark.parametrize("target", [TinyClasses(DATA), TinyShapeMask(DATA)])
def test_it_learns(target, tmp_path):
    long = dataclasses.replace(TINY, target=target, num_epochs=80, schedule_epochs=80)
    metrics = long.run(context := FakeContext(tmp_path))
    assert context.metric("train/loss")[-1] < 0.5 * context.metric("train/loss")[0]
    assert metrics["val/foreground_dice"] > 0.8


def test_seeds_change_weights_order_and_views_and_the_label_seed_only_which_images(undisturbed, tmp_path):
    _, metrics = undisturbed
    other = dataclasses.replace(TINY, finetune_seed=1)
    assert other.run(FakeContext(tmp_path / "seed"))["train/loss"] != metrics["train/loss"]
    same = dataclasses.replace(TINY, label_seed=1)
    assert same.run(FakeContext(tmp_path / "label"))["train/loss"] == metrics["train/loss"]
    augmented = dataclasses.replace(TINY, augmentation=THESIS_AUGMENTATION)
    assert augmented.run(FakeContext(tmp_path / "views"))["train/loss"] != metrics["train/loss"]


@pytest.mark.parametrize("is_frozen", [False, True])
def test_a_frozen_trunk_stays_as_it_was_and_a_fine_tuned_one_does_not(is_frozen, tmp_path):
    network = TrunkUNet(Untrained(DATA, "resnet18"), is_frozen)
    context = FakeContext(tmp_path)
    dataclasses.replace(ON_TRUNK, network=network, num_epochs=1).run(context)
    trained = load_segmenter(context.output_dir / "segmenter.pt").encoder.trunk.state_dict()
    before = network.encoder.load(context).trunk.state_dict()
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, trained[name])]
    assert bool(changed) is not is_frozen
    if not is_frozen:
        assert set(changed) == set(before)  # also its running statistics


def test_a_trunk_keeps_the_statistics_of_its_own_encoder(tmp_path):
    """A network of its own takes those of the training split, all of it, whatever fraction has labels."""
    context = FakeContext(tmp_path)
    images, annotation = open_images(DATA, context), open_annotation(TINY.target, context)
    few = dataclasses.replace(TINY, label_fraction=0.3)
    own = SegmentationTraining(few, images, annotation, context)
    mean, std = images.mean_std(images.rows("train"))
    assert own.segmenter.encoder.mean.flatten().tolist() == pytest.approx(mean)
    assert own.segmenter.encoder.std.flatten().tolist() == pytest.approx(std)
    other_data = dataclasses.replace(DATA, seed=5)
    network = TrunkUNet(Untrained(other_data, "resnet18"))
    on_trunk = SegmentationTraining(dataclasses.replace(few, network=network), images, annotation, context)
    expected = network.encoder.load(context)
    assert torch.equal(on_trunk.segmenter.encoder.mean.cpu(), expected.mean)


def test_an_encoder_of_other_channels_is_refused(tmp_path):
    network = TrunkUNet(Untrained(dataclasses.replace(DATA, channels=3), "resnet18"))
    with pytest.raises(ValueError, match="takes 3 channels and the images have 1"):
        dataclasses.replace(TINY, network=network).run(FakeContext(tmp_path))


def test_fractions_are_nested_by_group_and_drawn_by_their_seed(tmp_path):
    context = FakeContext(tmp_path)
    images, annotation = open_images(DATA, context), open_annotation(TINY.target, context)
    chosen = {fraction: set(labelled_rows(images, annotation, fraction, 0)) for fraction in (0.1, 0.25, 0.5, 1.0)}
    assert [len(rows) for rows in chosen.values()] == [1, 3, 6, 12]
    assert chosen[0.1] < chosen[0.25] < chosen[0.5] < chosen[1.0] == set(range(12))
    assert set(labelled_rows(images, annotation, 0.5, 1)) != chosen[0.5]
    few = dataclasses.replace(TINY, label_fraction=0.25)
    assert (few.num_labelled(), few.most_workers, TINY.most_workers) == (3, 3, 4)
    few.run(context)
    ids = json.loads((context.output_dir / "artifacts/labelled.json").read_text())["ids"]
    assert sorted(ids) == sorted(images.index["id"].gather(list(chosen[0.25])).to_list())


def test_only_annotated_images_are_trained_and_scored_on(tmp_path):
    without = dataclasses.replace(TINY, target=TinyClasses(DATA, excluded=("000", "001", "012")))
    assert without.num_labelled() == 10
    metrics = without.run(context := FakeContext(tmp_path / "training"))
    assert len(json.loads((context.output_dir / "artifacts/labelled.json").read_text())["ids"]) == 10
    scores = SegmentationScores(without, "val")
    found = scores.run(scoring := FakeContext(tmp_path / "scoring", upstream=[(without, context.output_dir)]))
    assert pl.read_parquet(scoring.output_dir / "scores.parquet")["image_id"].n_unique() == 4
    assert found["val/dice"] == pytest.approx(metrics["val/dice"])


def test_what_cannot_be_is_refused():
    for wrong, said in (
        ({"label_fraction": 0.0}, "label_fraction = 0.0"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0"),
        ({"precision": "float16"}, "precision = 'float16'"),
        ({"num_epochs": 9, "schedule_epochs": 5}, "is longer than schedule_epochs"),
    ):
        with pytest.raises(ValueError, match=said):
            dataclasses.replace(TINY, **wrong)
    with pytest.raises(ValueError, match=r"widths = \(4,\)"):
        UNet((4,))
    no_masks = TinyClasses(DATA, excluded=tuple(f"{i:03d}" for i in range(12)))
    with pytest.raises(ValueError, match="brightness of tiny_shapes is known for no training image"):
        dataclasses.replace(TINY, target=no_masks).check()
    with pytest.raises(ValueError, match="known for no image of split 'test'"):
        SegmentationScores(TINY, "test").check()


def test_keys_know_what_counts():
    keys = Keys(FileDigests())
    assert keys.family(TINY) == keys.family(dataclasses.replace(TINY, num_epochs=2))
    others = [
        dataclasses.replace(TINY, label_fraction=0.5),
        dataclasses.replace(TINY, target=TinyShapeMask(DATA)),
        dataclasses.replace(TINY, augmentation=THESIS_AUGMENTATION),
        ON_TRUNK,
        dataclasses.replace(TINY, network=TrunkUNet(Untrained(DATA, "resnet18"), is_frozen=True)),
    ]
    assert len({keys.key(t) for t in [TINY, *others]}) == 6
    assert keys.cell(TINY) == keys.cell(dataclasses.replace(TINY, finetune_seed=3, label_seed=2))


def test_bfloat16_trains_to_about_the_same(tmp_path):
    metrics = [
        dataclasses.replace(TINY, num_epochs=12, schedule_epochs=12, precision=precision).run(
            FakeContext(tmp_path / precision)
        )
        for precision in ("float32", "bfloat16")
    ]
    assert metrics[0] != metrics[1]
    assert metrics[1]["train/loss"] == pytest.approx(metrics[0]["train/loss"], rel=0.05)


# -- scores on a split ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(undisturbed, tmp_path_factory):
    training, _ = undisturbed
    found = {}
    for split in ("train", "val"):
        context = FakeContext(tmp_path_factory.mktemp(split), upstream=[(TINY, training.output_dir)])
        found[split] = SegmentationScores(TINY, split, num_shown=2).run(context), context
    return found


def test_scores_are_means_over_images_and_then_over_classes(scored, undisturbed):
    for split, num_images in (("train", 12), ("val", 5)):
        metrics, context = scored[split]
        frame = pl.read_parquet(context.output_dir / "scores.parquet")
        assert frame.height == num_images * 3
        assert frame["image_id"].n_unique() == num_images
        by_class = frame.group_by("class", maintain_order=True).agg(pl.col(names.CLASS_SCORES).mean())
        assert by_class["class"].to_list() == ["background", "dark", "bright"]
        for name in ("dice", "iou", "sensitivity", "specificity"):
            assert metrics[f"{split}/{name}"] == pytest.approx(by_class[name].mean())
        assert metrics[f"{split}/foreground_dice"] == pytest.approx(by_class["dice"][1:].mean())
        assert metrics[f"{split}/dice/dark"] == pytest.approx(by_class["dice"][1])
        assert (frame.group_by("image_id").agg(pl.col("num_true").sum())["num_true"] == 32 * 32).all()
    assert scored["val"][0]["val/dice"] == pytest.approx(undisturbed[1]["val/dice"])


def test_counts_are_those_of_the_predictions(scored, undisturbed):
    _, context = scored["val"]
    frame = pl.read_parquet(context.output_dir / "scores.parquet")
    segmenter = load_segmenter(undisturbed[0].output_dir / "segmenter.pt")
    for id_ in frame["image_id"].unique():
        (record,) = (record for record in DATA.records() if record.id == id_)
        with torch.inference_mode():
            image = torch.from_numpy(DATA.decode(record))[None].float() / 255
            predicted = segmenter(image).argmax(dim=1)[0].numpy()
        true = TINY.target.decode(record)
        for k, name in enumerate(TINY.target.class_names):
            (row,) = frame.filter(image_id=id_, **{"class": name}).to_dicts()
            assert row["num_both"] == ((predicted == k) & (true == k)).sum()
            assert (row["num_predicted"], row["num_true"]) == ((predicted == k).sum(), (true == k).sum())


def test_samples_are_image_truth_and_prediction(scored, undisturbed):
    _, context = scored["val"]
    samples = dict(np.load(context.output_dir / "samples.npz"))
    segmenter = load_segmenter(undisturbed[0].output_dir / "segmenter.pt")
    assert samples["class_names"].tolist() == ["background", "dark", "bright"]
    for place, id_ in enumerate(samples["image_id"]):
        (record,) = (record for record in DATA.records() if record.id == id_)
        np.testing.assert_array_equal(samples["images_SHW"][place], DATA.decode(record)[0])
        np.testing.assert_array_equal(samples["true_SHW"][place], TINY.target.decode(record))
        with torch.inference_mode():
            predicted = segmenter(torch.from_numpy(DATA.decode(record))[None].float() / 255).argmax(dim=1)[0]
        np.testing.assert_array_equal(samples["predicted_SHW"][place], predicted)
    assert (context.output_dir / "artifacts/samples.png").stat().st_size > 100


def test_a_class_that_is_nowhere_is_left_out_of_the_mean_and_said(undisturbed, tmp_path):
    rare = dataclasses.replace(TINY, target=TinyClasses(dataclasses.replace(DATA, seed=3)))
    _, context = undisturbed[1], FakeContext(tmp_path, upstream=[(rare, undisturbed[0].output_dir)])
    decode = TinyClasses.decode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TinyClasses, "decode", lambda self, record: np.minimum(decode(self, record), 1))
        patch.setattr(Segmenter, "forward", lambda self, images: _only_first_two(images))
        metrics = SegmentationScores(rare, "val").run(context)
    assert "val/dice/bright" not in metrics
    assert metrics["val/dice"] == pytest.approx((metrics["val/dice/background"] + metrics["val/dice/dark"]) / 2)
    table = pl.read_csv(context.output_dir / "artifacts/classes.csv")
    assert table.filter(pl.col("class") == "bright")["dice"].to_list() == [None]


def _only_first_two(images):
    logits = torch.zeros(len(images), 3, *images.shape[2:])
    logits[:, 2] = -1.0
    logits[:, 1] = images[:, 0] - 0.5
    return logits


def test_predictions_set_evaluation_mode_and_take_no_gradient(undisturbed):
    segmenter = unet(num_classes=3).train()
    context = undisturbed[0]
    images, annotation = open_images(DATA, context), open_annotation(TINY.target, context)
    shown = DeviceImages(images, np.arange(3), torch.device("cpu"), annotation=annotation)
    before = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    ((positions, found),) = predictions(segmenter, shown, torch.tensor([2, 0]))
    assert positions.tolist() == [2, 0]
    assert found.dtype == torch.uint8
    assert not found.requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in segmenter.state_dict().items())


def test_masks_are_trained_on_as_they_moved_with_the_images(tmp_path, monkeypatch):
    """Flipping every image in training is training on data that were flipped before."""
    flipping = dataclasses.replace(TINY, augmentation=HorizontalFlip(p=1.0))
    flipping.run(found := FakeContext(tmp_path / "flipping"))
    images, classes = DeviceImages.images, DeviceImages.classes
    monkeypatch.setattr(DeviceImages, "images", lambda self, at: images(self, at).flip(3))
    monkeypatch.setattr(DeviceImages, "classes", lambda self, at: classes(self, at).flip(2))
    TINY.run(expected := FakeContext(tmp_path / "flipped"))
    assert found.metric("train/loss") == pytest.approx(expected.metric("train/loss"), rel=1e-5)
    monkeypatch.setattr(DeviceImages, "classes", classes)
    mixed = TINY.run(FakeContext(tmp_path / "mixed", cache_dir=found.cache_dir))
    assert mixed["train/loss"] != pytest.approx(found.metric("train/loss")[-1], rel=1e-3)


def test_one_image_of_one_coarse_pixel_is_refused_before_anything_runs():
    few = dataclasses.replace(ON_TRUNK, label_fraction=0.05)
    with pytest.raises(ValueError, match=r"label_fraction = 0.05 leaves batches of 1 of the 1 training image"):
        few.check()
    dataclasses.replace(few, label_fraction=0.2).check()
    dataclasses.replace(TINY, label_fraction=0.05).check()  # whose coarsest stage has 16 x 16
