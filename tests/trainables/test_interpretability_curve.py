import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from curve_fixtures import (
    REGION,
    SIZE,
    BrokenEncoder,
    GivenEncoder,
    PicklingContext,
    intensity_curve,
    pick,
    pixels_of,
    run,
    smoothgrad_curve,
)
from fake_context import FakeContext, Killed
from polars.testing import assert_frame_equal
from skimage.filters import threshold_otsu
from sklearn.metrics import average_precision_score
from test_frozen import CPU, lively_encoder

from trainables.api.errors import NonFiniteMetric
from trainables.api.identity import FileDigests, key_of
from trainables.augment import resample
from trainables.data.folder import Folder, FolderMask, write_folder
from trainables.interpretability.scoring import Scoring
from trainables.interpretability.selection import ImageChoice
from trainables.models.frozen import FrozenEncoder
from trainables.saliency.base import Anchors
from trainables.saliency.controls import FixedMap, ImageIntensity, MaskRoundTrip
from trainables.saliency.gradients import SmoothGrad
from trainables.sweeps import GaussianBlur, Rotation, inscribed_circle


def slow_prediction(rule: str, values: np.ndarray, num_in_mask: int) -> np.ndarray:
    if rule == "soft":
        return values
    if rule == "top_area":
        border = np.sort(values)[-num_in_mask]
        above, tied = values > border, values == border
        return above + tied * (num_in_mask - above.sum()) / tied.sum()
    level = {"otsu": threshold_otsu, "mean": np.mean, "percentile": lambda v: np.percentile(v, 70)}[rule](values)
    return (values > level).astype(float)


@pytest.mark.parametrize("field_of_view", ["full", "kept"])
def test_every_score_agrees_with_one_image_at_a_time(field_of_view: str, tmp_path: Path) -> None:
    frame, _ = run(intensity_curve(scoring=Scoring(percentile=70)), tmp_path)
    inside = inscribed_circle(SIZE) if field_of_view == "kept" else torch.ones(SIZE, SIZE, dtype=torch.bool)
    assert frame.height == 3 * 5 * 2 * 5
    for row in pick(frame, field_of_view=field_of_view).iter_rows(named=True):
        image, mask = pixels_of(row["image_id"])
        view = resample.rotate(image[None], row["value"])
        values = resample.rotate(view, -row["value"])[0, 0][inside].double().numpy()
        values = (values - values.min()) / (values.max() - values.min())
        truth = mask[inside].numpy()
        p = truth.mean()
        assert row["mask_fraction"] == pytest.approx(p)
        assert row["all_ones_dice"] == pytest.approx(2 * p / (1 + p))
        assert row["auprc"] == pytest.approx(average_precision_score(truth, values))
        prediction = slow_prediction(row["binarisation"], values, int(truth.sum()))
        q, dice = prediction.mean(), 2 * (prediction * truth).sum() / (prediction.sum() + truth.sum())
        assert row["dice"] == pytest.approx(dice, abs=1e-6)
        assert row["map_fraction"] == pytest.approx(q, abs=1e-6)
        assert row["chance_dice"] == pytest.approx(2 * p * q / (p + q), abs=1e-6)


def test_rows_name_the_image_and_its_place(tmp_path: Path) -> None:
    frame, _ = run(intensity_curve(values=(90,), images=ImageChoice(3)), tmp_path)
    assert frame.columns[:3] == ["image_id", "group", "position"]
    first = pick(frame, field_of_view="full", binarisation="otsu")
    numbers = [int(image_id.split()[1]) for image_id in first["image_id"]]
    assert first["group"].to_list() == [f"patient {number // 3}" for number in numbers]
    assert first["position"].to_list() == [number % 3 for number in numbers]
    assert frame.schema["position"] == pl.Int64
    assert frame.schema["value"] == pl.Float64


def test_the_mask_round_trip_is_lossless_at_quarter_turns_only(tmp_path: Path) -> None:
    frame, _ = run(intensity_curve(method=MaskRoundTrip(), values=(0, 45, 90, 180, 270, 360)), tmp_path)
    for rule in ("otsu", "top_area", "mean", "soft"):
        for angle in (0, 90, 180, 270, 360):
            assert pick(frame, value=angle, binarisation=rule)["dice"].min() == pytest.approx(1)
    assert pick(frame, value=45, binarisation="soft")["dice"].max() < 0.99


def test_smoothgrad_maps_are_those_of_the_pair(tmp_path: Path) -> None:
    curve = smoothgrad_curve(values=(50, 200))
    _, context = run(curve, tmp_path)
    samples = np.load(context.output_dir / "samples.npz")
    assert samples["values"].tolist() == [0, 95]
    ids = samples["image_id"].tolist()
    images, masks = map(torch.stack, zip(*map(pixels_of, ids), strict=True))
    anchors = Anchors(tuple(ids), images, masks, Rotation())
    encoder = FrozenEncoder(lively_encoder(), CPU)
    prepared = curve.method.prepare(encoder, anchors)
    np.testing.assert_array_equal(samples["images_KHW"], (images[:, 0] * 255).round())
    np.testing.assert_array_equal(samples["masks_KHW"], masks)
    for place, angle in enumerate((0.0, 95.0)):
        views = anchors.views(torch.arange(len(ids)), torch.full((len(ids),), angle))
        maps = curve.method.maps(encoder, anchors, prepared, views)
        np.testing.assert_allclose(samples["views_KVHW"][:, place], views.images_PCHW[:, 0], atol=1e-6)
        np.testing.assert_allclose(samples["view_maps_KVHW"][:, place], maps, rtol=0, atol=1e-5 * maps.max())
        back = resample.rotate(maps[:, None], -angle)[:, 0]
        np.testing.assert_allclose(samples["maps_KVHW"][:, place], back, rtol=0, atol=1e-5 * maps.max())


def test_angles_computed_for_pictures_only_are_not_in_the_curve(tmp_path: Path) -> None:
    frame, context = run(intensity_curve(values=(30, 95)), tmp_path)
    assert frame["value"].unique().sort().to_list() == [30, 95]
    assert [step for step, _ in context.rows] == [30, 95]


def test_an_interrupted_curve_goes_on_and_ends_bitwise_equal(tmp_path: Path) -> None:
    curve = smoothgrad_curve(values=range(0, 100, 10))
    whole, undisturbed = run(curve, tmp_path / "whole")
    context = FakeContext(tmp_path / "killed", kill_after_items=3)
    kept = min(3, undisturbed.batch_sizes[0])
    with pytest.raises(Killed):
        curve.run(context)
    context.finished_items = dict(list(context.finished_items.items())[:kept])
    resumed, after = run(curve, tmp_path, context.again())
    assert sum(after.batch_sizes) == 11 - kept
    assert after.batch_sizes != undisturbed.batch_sizes
    assert_frame_equal(resumed, whole, check_exact=True)
    samples = [np.load(c.output_dir / "samples.npz") for c in (undisturbed, after)]
    for name in samples[0].files:
        np.testing.assert_array_equal(samples[0][name], samples[1][name])


def test_the_work_can_go_to_another_process(tmp_path: Path) -> None:
    curve = smoothgrad_curve(method=FixedMap(SmoothGrad(num_samples=2)))
    here, _ = run(curve, tmp_path / "here")
    there, _ = run(curve, tmp_path / "there", PicklingContext(tmp_path / "there"))
    assert_frame_equal(there, here, check_exact=True)


def test_the_fixed_map_starts_where_the_method_does(tmp_path: Path) -> None:
    method = SmoothGrad(num_samples=2)
    moving, _ = run(smoothgrad_curve(method=method), tmp_path / "a")
    fixed, _ = run(smoothgrad_curve(method=FixedMap(method)), tmp_path / "b")
    assert_frame_equal(pick(fixed, value=0), pick(moving, value=0))
    scores = [pick(frame, value=30, binarisation="otsu")["dice"] for frame in (fixed, moving)]
    assert not scores[0].equals(scores[1])
    quarter, start = (pick(fixed, value=angle)["dice"].to_numpy() for angle in (90, 0))
    np.testing.assert_allclose(quarter, start)


def test_shared_noise_leaves_whole_turns_out_of_curve_and_pictures(tmp_path: Path) -> None:
    method = SmoothGrad(num_samples=2, noise_on="both")
    frame, context = run(smoothgrad_curve(method=method, values=(0, 45, 360)), tmp_path)
    assert frame["value"].unique().to_list() == [45]
    assert np.load(context.output_dir / "samples.npz")["values"].tolist() == [95]


def test_the_headline_is_logged_with_the_angle_as_step(tmp_path: Path) -> None:
    curve = intensity_curve(scoring=Scoring(("mean", "otsu")), values=(270, 30))
    frame, context = run(curve, tmp_path)
    assert [step for step, _ in context.rows] == [270, 30]
    for step, logged in context.rows:
        for field_of_view, prefix in (("full", ""), ("kept", "kept/")):
            means = pick(frame, value=step, field_of_view=field_of_view, binarisation="mean").mean()
            for name in ("dice", "auprc", "map_fraction", "chance_dice"):
                assert logged[prefix + name] == pytest.approx(means[name].item())


def test_groups_are_those_of_now_also_where_the_images_were_prepared_before(tmp_path: Path) -> None:
    """The key of the images knows no groups, so their table stays; the blocks of a curve's statistics are the new."""
    root = write_folder(tmp_path / "mine", num_images=6)
    choice, context = ImageChoice(4, splits=("train",)), FakeContext(tmp_path / "trial")

    def groups(written: list[str]) -> list[str]:
        rows = [f"picture {number},{group},train" for number, group in enumerate(written)]
        (root / "labels.csv").write_text("\n".join(["image,group,split", *rows]) + "\n")
        curve = replace(intensity_curve(images=choice), region=FolderMask(Folder.found(root, SIZE)))
        frame, _ = run(curve, tmp_path, context)
        return frame["group"].unique().sort().to_list()

    assert groups(["ann", "ann", "ann", "bob", "bob", "bob"]) == ["ann", "bob"]
    assert groups(["a", "b", "c", "d", "e", "f"]) == ["a", "c", "d", "f"]


def test_fractional_angles_are_logged_by_place(tmp_path: Path) -> None:
    _, context = run(intensity_curve(values=(0, 0.5, 1)), tmp_path)
    assert [(step, metrics["value"]) for step, metrics in context.rows] == [(0, 0), (1, 0.5), (2, 1)]


def test_the_table_holds_the_means_and_the_summary_the_headline(tmp_path: Path) -> None:
    curve = intensity_curve()
    context = FakeContext(tmp_path)
    summary = curve.run(context)
    frame = pl.read_parquet(context.output_dir / "curve.parquet")
    table = pl.read_csv(context.output_dir / "artifacts" / "curve.csv")
    assert table.height == 3 * 2 * 5
    for row in table.iter_rows(named=True):
        part = pick(frame, **{name: row[name] for name in ("value", "field_of_view", "binarisation")})
        assert row["dice"] == pytest.approx(part["dice"].mean())
        assert row["num_images"] == 5
    for field_of_view, prefix in (("full", ""), ("kept", "kept/")):
        at_30, at_90 = pick(table, field_of_view=field_of_view, binarisation="otsu").rows(named=True)[1:]
        # 30 stands for the 45 degrees from 15 to 60, 90 for the 165 from 60 to 225; the rest is that of 0.
        for name, entry in (("dice", "val/interpretability"), ("auprc", "auprc_mean")):
            mean = (45 * at_30[name] + 165 * at_90[name]) / 210
            found = summary[entry if not prefix else f"{prefix}{name}_mean"]
            assert found == pytest.approx(mean, abs=1e-12)
        if not prefix:
            assert summary["dice_min"] == pytest.approx(min(at_30["dice"], at_90["dice"]))
            assert summary["dice_max"] == pytest.approx(max(at_30["dice"], at_90["dice"]))
    assert json.loads((context.output_dir / "artifacts" / "sweep.json").read_text()) == {
        "name": "Rotation",
        "title": "rotation angle",
        "unit": "°",
        "period": 360.0,
        "neutral": 0.0,
    }


def test_the_neutral_value_is_measured_and_counts_for_no_number(tmp_path: Path) -> None:
    method = MaskRoundTrip()  # without a loss at 0 only
    with_it, without = (
        intensity_curve(method=method, values=values).run(FakeContext(tmp_path / str(len(values))))
        for values in ((0, 30, 60, 360), (30, 60))
    )
    assert with_it["dice_max"] == without["dice_max"] < 0.9999
    assert with_it["val/interpretability"] == pytest.approx(without["val/interpretability"], abs=0.01)
    frame = pl.read_parquet(tmp_path / "4" / "output" / "curve.parquet")
    assert pick(frame, value=0, binarisation="soft")["dice"].min() == pytest.approx(1)


def test_a_curve_on_test_images_speaks_of_them(tmp_path: Path) -> None:
    summary = intensity_curve(images=ImageChoice(2, splits=("test", "val"))).run(FakeContext(tmp_path))
    assert "test/interpretability" in summary
    assert "val/interpretability" not in summary


def test_images_without_a_mask_inside_the_circle_are_left_out_and_recorded(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    summary = intensity_curve(images=ImageChoice(7, splits=("train", "val", "test"))).run(context)
    selection = json.loads((context.output_dir / "artifacts" / "selection.json").read_text())
    assert selection["left_out_for_empty_mask"] == ["image 3", "image 6", "image 8"]
    assert selection["image_ids"] == [f"image {number}" for number in (0, 1, 2, 4, 5, 7, 9)]
    assert (summary["num_images"], summary["num_left_out_for_empty_mask"]) == (7, 3)


def test_a_curve_is_checked_by_counts_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(REGION.images), "image_and_mask", None)
    intensity_curve(images=ImageChoice(8)).check()
    with pytest.raises(ValueError, match="num = 9, but blob of blobs has only 8 images in train, val: ask for at"):
        intensity_curve(images=ImageChoice(9)).check()


def test_cut_images_show_nothing_outside_the_circle(tmp_path: Path) -> None:
    outside = ~inscribed_circle(SIZE).numpy()
    rotated = {}
    for cut in (False, True):
        _, context = run(intensity_curve(cut_to_circle=cut), tmp_path / str(cut))
        rotated[cut] = np.load(context.output_dir / "samples.npz")["views_KVHW"]
    assert not rotated[True][:, :, outside].any()
    assert rotated[False][:, :, outside].any()
    inner = inscribed_circle(SIZE - 6).numpy()
    np.testing.assert_array_equal(
        rotated[True][:, :, 3:-3, 3:-3][..., inner], rotated[False][:, :, 3:-3, 3:-3][..., inner]
    )


@pytest.mark.parametrize("size", [16, 31, 32])
def test_nothing_from_beyond_the_border_reaches_the_circle(size: int) -> None:
    ones = torch.ones(1, 1, size, size, dtype=torch.float64)
    inside = inscribed_circle(size)
    for angle in (1.0, 17.0, 45.0, 133.7):
        there_and_back = resample.rotate(resample.rotate(ones, angle), -angle)[0, 0]
        torch.testing.assert_close(there_and_back[inside], torch.ones(int(inside.sum()), dtype=torch.float64))
    assert inside.sum() > 0.6 * math.pi / 4 * (size - 2) ** 2


def test_an_encoder_with_holes_has_no_curve(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteMetric, match="'encoder weights' is nan"):
        run(smoothgrad_curve(encoder=BrokenEncoder(), values=(30, 60)), tmp_path)


def test_maps_with_holes_are_no_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_a_hole(method, encoder, anchors, prepared, views):
        maps_PHW = views.images_PCHW[:, 0].clone()
        maps_PHW[0, 3, 3] = math.nan
        return maps_PHW

    monkeypatch.setattr(ImageIntensity, "maps", with_a_hole)
    with pytest.raises(NonFiniteMetric, match="'saliency map' is nan at step 60"):
        run(intensity_curve(values=(60,)), tmp_path)


def test_an_encoder_for_other_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes 3 channels and blobs has 1"):
        smoothgrad_curve(encoder=GivenEncoder(channels=3)).run(FakeContext(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": None, "method": SmoothGrad()}, "SmoothGrad explains an encoder"),
        ({"encoder": GivenEncoder()}, "ImageIntensity uses no encoder"),
        ({"values": (0, 90, 0)}, "each once"),
        ({"values": (0, math.inf)}, "inf"),
        ({"values": (0, 360)}, "the view is the anchor at all of them"),
        ({"explains": "both"}, "explains = 'both'.*'anchor'"),
        ({"sweep": GaussianBlur(), "values": (0.1,), "cut_to_circle": True}, "GaussianBlur keeps no circle"),
    ],
)
def test_impossible_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        intensity_curve(**settings)


def test_equal_values_have_one_identity_however_they_are_written() -> None:
    written = (range(3), [0, 1, 2], (0.0, 1.0, 2.0), (-0.0, 1.0, 2.0))
    assert len({key_of(intensity_curve(values=values), FileDigests()) for values in written}) == 1
    assert intensity_curve(values=()).values == Rotation().default_values()


def test_what_cannot_change_the_result_makes_no_other_identity() -> None:
    def key(**settings) -> str:
        return key_of(intensity_curve(**settings), FileDigests())

    assert key(images=ImageChoice(5, selection_seed=1)) == key()
    assert key(images=ImageChoice(5, splits=("val", "train"))) == key()
    assert key(images=ImageChoice(5, "random", 1)) != key(images=ImageChoice(5, "random", 2)) != key()
    without = ("otsu", "soft")
    assert key(scoring=Scoring(without, 70)) == key(scoring=Scoring(without))
    assert key(scoring=Scoring(percentile=70)) != key()
    assert key(scoring=Scoring(percentile=80)) == key()


def test_the_estimate_of_work_grows_with_values_images_and_samples() -> None:
    curve = smoothgrad_curve()
    passes = 2 * 3.6e9 * (SIZE / 224) ** 2
    assert curve.work_flop() == pytest.approx(passes * 5 * (0.5 + 2 * 3))
    assert dataclasses.replace(curve, values=range(6)).work_flop() == pytest.approx(passes * 5 * (0.5 + 2 * 6))
    more_samples = dataclasses.replace(curve, method=SmoothGrad(num_samples=6))
    assert more_samples.work_flop() == pytest.approx(passes * 5 * (0.5 + 6 * 3))
    fixed = dataclasses.replace(curve, method=FixedMap(SmoothGrad(num_samples=6)))
    assert fixed.work_flop() == pytest.approx(passes * 5 * (0.5 + 6))
