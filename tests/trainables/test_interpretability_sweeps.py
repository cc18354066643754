"""What a curve promises on every sweep. A new sweep is found by itself."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from curve_fixtures import SIZE, GivenEncoder, intensity_curve, pick, pixels_of, run, smoothgrad_curve
from fake_context import FakeContext, Killed
from members import members
from polars.testing import assert_frame_equal
from sklearn.metrics import average_precision_score
from test_frozen import CPU, lively_encoder

import trainables.sweeps
from trainables.api.names import SWEEP_FILE
from trainables.interpretability.curve import InterpretabilityCurve
from trainables.interpretability.selection import ImageChoice
from trainables.models.frozen import FrozenEncoder
from trainables.saliency.base import Anchors
from trainables.saliency.controls import FixedMap, ImageIntensity, MaskRoundTrip
from trainables.saliency.gradients import SmoothGrad
from trainables.sweeps import Brightness, CentreCrop, GaussianBlur, Rotation, Sweep

SWEEPS = [sweep() for sweep in members(trainables.sweeps, Sweep)]
METHOD = SmoothGrad(num_samples=2)


class OneByOneContext(FakeContext):
    """Asks for one item at a time."""

    def map(self, function, items, *, batch_size=1):
        return super().map(function, items, batch_size=1)


def values_of(sweep: Sweep, num: int = 4) -> tuple[float, ...]:
    """The neutral value and a few others, on an uneven grid."""
    changed = [value for value in sweep.default_values() if not sweep.is_neutral(value)]
    return (sweep.neutral, *changed[1 : 2 * num : 2][: num - 2], changed[-1])


def curve_of(sweep: Sweep, **settings) -> InterpretabilityCurve:
    """Without the image whose region lies in a corner, which a crop loses."""
    return intensity_curve(**({"sweep": sweep, "values": values_of(sweep), "images": ImageChoice(3)} | settings))


def samples_of(context: FakeContext) -> dict[str, np.ndarray]:
    return dict(np.load(context.output_dir / "samples.npz"))


def assert_same(one: FakeContext, other: FakeContext) -> None:
    frames = [pl.read_parquet(context.output_dir / "curve.parquet") for context in (one, other)]
    assert_frame_equal(*frames, check_exact=True)
    assert one.rows == other.rows
    for name, values in samples_of(one).items():
        np.testing.assert_array_equal(samples_of(other)[name], values)


def test_the_sweeps_are_found() -> None:
    assert {Rotation, GaussianBlur, CentreCrop, Brightness} <= {type(sweep) for sweep in SWEEPS}


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: type(sweep).__name__)
class TestContract:
    @pytest.mark.parametrize("explains", ["view", "anchor"])
    def test_killed_and_resumed_and_one_by_one_are_bitwise_equal(
        self, sweep: Sweep, explains: str, tmp_path: Path
    ) -> None:
        curve = curve_of(sweep, encoder=GivenEncoder(), method=METHOD, explains=explains)
        _, whole = run(curve, tmp_path, FakeContext(tmp_path / "whole"))
        killed = FakeContext(tmp_path / "killed", kill_after_items=1)
        with pytest.raises(Killed):
            curve.run(killed)
        killed.finished_items = dict(list(killed.finished_items.items())[:1])
        _, resumed = run(curve, tmp_path, killed.again())
        assert resumed.batch_sizes != whole.batch_sizes
        assert_same(resumed, whole)
        _, single = run(curve, tmp_path, OneByOneContext(tmp_path / "single"))
        assert_same(single, whole)

    def test_the_scores_are_those_of_maps_brought_back(self, sweep: Sweep, tmp_path: Path) -> None:
        frame, _ = run(curve_of(sweep), tmp_path)
        kept_HW = sweep.kept(SIZE, values_of(sweep)).numpy()
        fields = {"full": np.ones_like(kept_HW)} | ({} if kept_HW.all() else {"kept": kept_HW})
        assert set(frame["field_of_view"]) == set(fields)
        assert frame.height == 4 * 3 * 5 * len(fields)
        for row in pick(frame, binarisation="mean").iter_rows(named=True):
            image, mask = pixels_of(row["image_id"])
            value = torch.tensor([row["value"]], dtype=torch.float64)
            back_HW = sweep.back(sweep.view(image[None], value)[:, 0], value)[0].double().numpy()
            inside = fields[row["field_of_view"]]
            values, truth = back_HW[inside], mask.numpy()[inside]
            prediction = values > values.mean()
            dice = 2 * (prediction & (truth == 1)).sum() / (prediction.sum() + truth.sum())
            assert row["dice"] == pytest.approx(dice, abs=0.02)  # the mean of float32 may take a pixel more
            assert row["auprc"] == pytest.approx(average_precision_score(truth, values), abs=1e-4)

    def test_the_neutral_value_gives_the_unchanged_image(self, sweep: Sweep, tmp_path: Path) -> None:
        frames = [
            run(curve_of(sweep, encoder=GivenEncoder(), method=method), tmp_path / type(method).__name__)[0]
            for method in (METHOD, FixedMap(METHOD))
        ]
        neutral = [pick(frame, value=sweep.neutral)["dice"].to_numpy() for frame in frames]
        np.testing.assert_array_equal(*neutral)
        elsewhere = [frame.filter(pl.col("value") != sweep.neutral)["dice"].to_numpy() for frame in frames]
        assert np.abs(elsewhere[0] - elsewhere[1]).max() > 0.01
        mask, _ = run(curve_of(sweep, method=MaskRoundTrip()), tmp_path / "mask")
        assert pick(mask, value=sweep.neutral, binarisation="soft", field_of_view="full")[
            "dice"
        ].min() == pytest.approx(1, abs=1e-6)

    def test_the_objective_is_the_mean_over_the_axis_without_the_neutral_value(
        self, sweep: Sweep, tmp_path: Path
    ) -> None:
        context = FakeContext(tmp_path)
        summary = curve_of(sweep).run(context)
        frame = pl.read_parquet(context.output_dir / "curve.parquet")
        means = pick(frame, field_of_view="full", binarisation="otsu").group_by("value").agg(pl.col("dice").mean())
        dice = dict(means.iter_rows())
        total = weight = 0.0
        low, high = min(dice), max(dice)
        for value in dice:
            others = sorted(dice) if sweep.period is None else [v + k for v in dice for k in (-360, 0, 360)]
            below = max((v for v in others if v < value), default=low)
            above = min((v for v in others if v > value), default=high)
            if not sweep.is_neutral(value):
                total, weight = total + (above - below) * dice[value], weight + above - below
        assert summary["val/interpretability"] == pytest.approx(total / weight, abs=1e-12)
        assert summary["dice_max"] == pytest.approx(max(d for v, d in dice.items() if not sweep.is_neutral(v)))

    def test_the_journal_the_axis_and_the_samples_name_the_values(self, sweep: Sweep, tmp_path: Path) -> None:
        _, context = run(curve_of(sweep), tmp_path)
        values = values_of(sweep)
        if all(value.is_integer() for value in values):
            assert [step for step, _ in context.rows] == list(values)
            assert not any("value" in logged for _, logged in context.rows)
        else:
            assert [(step, logged["value"]) for step, logged in context.rows] == list(enumerate(values))
        axis = json.loads((context.output_dir / "artifacts" / "sweep.json").read_text())
        assert (axis["name"], axis["neutral"], axis["period"]) == (type(sweep).__name__, sweep.neutral, sweep.period)
        far = 95.0 if isinstance(sweep, Rotation) else max(values, key=lambda value: abs(value - sweep.neutral))
        assert samples_of(context)["values"].tolist() == [sweep.neutral, far]


@pytest.mark.parametrize("explains", ["view", "anchor"])
@pytest.mark.parametrize("sweep", [Rotation(), CentreCrop()], ids=lambda sweep: type(sweep).__name__)
def test_the_maps_of_views_are_brought_back_and_those_of_anchors_are_not(
    explains: str, sweep: Sweep, tmp_path: Path
) -> None:
    curve = curve_of(sweep, encoder=GivenEncoder(), method=METHOD, explains=explains, images=ImageChoice(4))
    _, context = run(curve, tmp_path)
    samples = samples_of(context)
    ids = tuple(samples["image_id"].tolist())
    images, masks = map(torch.stack, zip(*map(pixels_of, ids), strict=True))
    anchors, encoder = Anchors(ids, images, masks, sweep), FrozenEncoder(lively_encoder(), CPU)
    prepared = METHOD.prepare(encoder, anchors)
    for place, value in enumerate(samples["values"].tolist()):
        values_P = torch.full((len(ids),), value, dtype=torch.float64)
        views = anchors.views(torch.arange(len(ids)), values_P)
        compute = METHOD.maps if explains == "view" else METHOD.anchor_maps
        maps = compute(encoder, anchors, prepared, views)
        back = sweep.back(maps, values_P) if explains == "view" else maps
        largest = float(maps.max())
        np.testing.assert_allclose(samples["view_maps_KVHW"][:, place], maps, rtol=0, atol=1e-5 * largest)
        np.testing.assert_allclose(samples["maps_KVHW"][:, place], back, rtol=0, atol=1e-5 * largest)


def test_a_curve_of_anchors_differs_from_that_of_views_and_the_image_alone_does_not_change(tmp_path: Path) -> None:
    sweep = GaussianBlur()
    frame, _ = run(curve_of(sweep, explains="anchor"), tmp_path / "intensity")
    dice = pick(frame, binarisation="otsu", field_of_view="full").pivot("value", index="image_id", values="dice")
    assert dice.drop("image_id").to_numpy().std(axis=1).max() == 0
    frames = [
        run(smoothgrad_curve(sweep=sweep, values=(0.05,), explains=explains), tmp_path / explains)[0]
        for explains in ("view", "anchor")
    ]
    assert np.abs(frames[0]["dice"].to_numpy() - frames[1]["dice"].to_numpy()).max() > 0.01


def test_a_method_that_needs_a_difference_leaves_the_neutral_value_out(tmp_path: Path) -> None:
    method = SmoothGrad(num_samples=2, noise_on="both")
    frame, context = run(smoothgrad_curve(sweep=Brightness(), values=(0.5, 1.0, 2.0), method=method), tmp_path)
    assert frame["value"].unique().sort().to_list() == [0.5, 2.0]
    assert samples_of(context)["values"].tolist() == [2.0]
    assert [step for step, _ in context.rows] == [0, 1]


def test_a_hole_in_a_map_is_reported_at_the_step_of_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_a_hole(method, encoder, anchors, prepared, views):
        return torch.where(views.values_P[:, None, None] == 2.0, torch.nan, views.images_PCHW[:, 0])

    monkeypatch.setattr(ImageIntensity, "maps", with_a_hole)
    with pytest.raises(Exception, match="'saliency map' is nan at step 2"):
        run(curve_of(Brightness(), values=(0.5, 1.0, 2.0)), tmp_path)


def test_values_that_differ_by_rounding_from_the_neutral_one_are_one_curve() -> None:
    crop = CentreCrop()
    assert intensity_curve(sweep=crop, values=(0.9999999999999999, 0.5)).values == (1.0, 0.5)
    with pytest.raises(ValueError, match="each once"):
        intensity_curve(sweep=crop, values=(1.0, 0.5, 0.9999999999999999))


def test_a_sweep_of_a_study_bears_its_module_and_is_no_rotation_by_its_name(tmp_path: Path) -> None:
    own = type("Rotation", (Rotation,), {"__module__": "studies.own"})
    for sweep, name in ((Rotation(), "Rotation"), (own(), "studies.own.Rotation")):
        context = FakeContext(tmp_path / name)
        curve_of(sweep).run(context)
        assert json.loads((context.output_dir / SWEEP_FILE).read_text())["name"] == name
