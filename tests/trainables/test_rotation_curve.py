import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import cloudpickle
import numpy as np
import polars as pl
import pytest
import torch
from fake_context import FakeContext, Killed
from polars.testing import assert_frame_equal
from skimage.filters import threshold_otsu
from sklearn.metrics import average_precision_score
from test_frozen import CPU, lively_encoder

from trainables import augment
from trainables.api.errors import NonFiniteMetric
from trainables.api.identity import FileDigests, key_of
from trainables.data.annotations import Region
from trainables.data.records import Dataset, Record
from trainables.models.encoder import Encoder
from trainables.models.frozen import FrozenEncoder
from trainables.rotation_curve import RotationCurve, inscribed_circle
from trainables.saliency import Anchors, FixedMap, ImageIntensity, MaskRoundTrip, SmoothGrad

SIZE = 32


@dataclass(frozen=True)
class Blobs(Dataset):
    """A bright region on noise. Images 3 and 6 have no region, image 8 one outside the inscribed circle."""

    name: ClassVar[str] = "blobs"
    image_size_px: int = SIZE
    num_images: int = 10

    def source_files(self) -> Mapping[str, Path]:
        return {}

    def records(self) -> list[Record]:
        splits = ["train", "train", "val", "test", "train"] * 2
        return [Record(f"image {i}", f"patient {i // 3}", splits[i], position=i % 3) for i in range(self.num_images)]

    def decode(self, record: Record) -> np.ndarray:
        return self.image_and_mask(record)[0]

    def image_and_mask(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        number = int(record.id.split()[1])
        random = np.random.default_rng(number)
        mask_HW = np.zeros((SIZE, SIZE), dtype=np.uint8)
        if number == 8:
            mask_HW[:3, :3] = 1
        elif number not in (3, 6):
            mask_HW[6 + number : 16 + number, 9:20] = 1
        image_HW = random.integers(0, 120, (SIZE, SIZE)) + 100 * mask_HW
        return image_HW.astype(np.uint8)[None], mask_HW

    @classmethod
    def example(cls, folder: Path) -> Self:
        return cls()


@dataclass(frozen=True)
class BlobRegion(Region):
    images: Blobs = Blobs()
    name = "blob"

    def source_files(self) -> Mapping[str, Path]:
        return {}

    def file(self, record: Record) -> str:
        return ""

    def decode(self, record: Record) -> np.ndarray:
        return self.images.image_and_mask(record)[1]


@dataclass(frozen=True)
class GivenEncoder:
    channels: int = 1
    backbone: str = "resnet18"

    def load(self, context: FakeContext) -> Encoder:
        return lively_encoder(channels=self.channels)


@dataclass(frozen=True)
class BrokenEncoder(GivenEncoder):
    """Trained one step too far: a weight of its last block is NaN."""

    def load(self, context: FakeContext) -> Encoder:
        encoder = super().load(context)
        with torch.no_grad():
            encoder.resnet.layer4[0].conv1.weight[0, 0, 0, 0] = math.nan
        return encoder


class PicklingContext(FakeContext):
    """Sends the function of ``map`` through cloudpickle, as another process would get it."""

    def map(self, function, items, *, batch_size=1):
        return super().map(cloudpickle.loads(cloudpickle.dumps(function)), items, batch_size=batch_size)


def intensity_curve(**settings) -> RotationCurve:
    defaults = {"method": ImageIntensity(), "angles_deg": (0, 30, 90), "num_images": 5}
    return RotationCurve(BlobRegion(), **(defaults | settings))


def smoothgrad_curve(**settings) -> RotationCurve:
    defaults = {"encoder": GivenEncoder(), "method": SmoothGrad(num_samples=2)}
    return intensity_curve(**(defaults | settings))


def run(curve: RotationCurve, folder: Path, context: FakeContext | None = None) -> tuple[pl.DataFrame, FakeContext]:
    context = context or FakeContext(folder)
    curve.run(context)
    return pl.read_parquet(context.output_dir / "curve.parquet"), context


def pick(frame: pl.DataFrame, **values) -> pl.DataFrame:
    return frame.filter(*(pl.col(name) == value for name, value in values.items()))


def pixels_of(image_id: str) -> tuple[torch.Tensor, torch.Tensor]:
    image, mask = Blobs().image_and_mask(Record(image_id, "", ""))
    return torch.from_numpy(image / 255).float(), torch.from_numpy(mask)


def slow_prediction(rule: str, values: np.ndarray, num_in_mask: int) -> np.ndarray:
    if rule == "soft":
        return values
    if rule == "top_area":
        border = np.sort(values)[-num_in_mask]
        above, tied = values > border, values == border
        return above + tied * (num_in_mask - above.sum()) / tied.sum()
    level = {"otsu": threshold_otsu, "mean": np.mean, "percentile": lambda v: np.percentile(v, 70)}[rule](values)
    return (values > level).astype(float)


@pytest.mark.parametrize("field_of_view", ["full", "circle"])
def test_every_score_agrees_with_one_image_at_a_time(field_of_view: str, tmp_path: Path) -> None:
    frame, _ = run(intensity_curve(percentile=70), tmp_path)
    inside = inscribed_circle(SIZE) if field_of_view == "circle" else torch.ones(SIZE, SIZE, dtype=torch.bool)
    assert frame.height == 3 * 5 * 2 * 5
    for row in pick(frame, field_of_view=field_of_view).iter_rows(named=True):
        image, mask = pixels_of(row["image_id"])
        view = augment.rotate(image[None], row["angle_deg"])
        values = augment.rotate(view, -row["angle_deg"])[0, 0][inside].double().numpy()
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
    frame, _ = run(intensity_curve(angles_deg=(0,), num_images=3), tmp_path)
    assert frame.columns[:3] == ["image_id", "group", "position"]
    first = pick(frame, field_of_view="full", binarisation="otsu")
    numbers = [int(image_id.split()[1]) for image_id in first["image_id"]]
    assert first["group"].to_list() == [f"patient {number // 3}" for number in numbers]
    assert first["position"].to_list() == [number % 3 for number in numbers]
    assert frame.schema["position"] == pl.Int64
    assert frame.schema["angle_deg"] == pl.Float64


def test_the_mask_round_trip_is_lossless_at_quarter_turns_only(tmp_path: Path) -> None:
    frame, _ = run(intensity_curve(method=MaskRoundTrip(), angles_deg=(0, 45, 90, 180, 270, 360)), tmp_path)
    for rule in ("otsu", "top_area", "mean", "soft"):
        for angle in (0, 90, 180, 270, 360):
            assert pick(frame, angle_deg=angle, binarisation=rule)["dice"].min() == pytest.approx(1)
    assert pick(frame, angle_deg=45, binarisation="soft")["dice"].max() < 0.99


def test_smoothgrad_maps_are_those_of_the_pair(tmp_path: Path) -> None:
    curve = smoothgrad_curve(angles_deg=(50, 200))
    _, context = run(curve, tmp_path)
    samples = np.load(context.output_dir / "samples.npz")
    assert samples["angles_deg"].tolist() == [0, 95]
    ids = samples["image_id"].tolist()
    images, masks = map(torch.stack, zip(*map(pixels_of, ids), strict=True))
    anchors = Anchors(tuple(ids), images, masks)
    encoder = FrozenEncoder(lively_encoder(), CPU)
    prepared = curve.method.prepare(encoder, anchors)
    np.testing.assert_array_equal(samples["images_KHW"], (images[:, 0] * 255).round())
    np.testing.assert_array_equal(samples["masks_KHW"], masks)
    for place, angle in enumerate((0.0, 95.0)):
        views = anchors.views(torch.arange(len(ids)), torch.full((len(ids),), angle))
        maps = curve.method.maps(encoder, anchors, prepared, views)
        np.testing.assert_allclose(samples["rotated_KAHW"][:, place], views.images_PCHW[:, 0], atol=1e-6)
        np.testing.assert_allclose(samples["maps_rotated_KAHW"][:, place], maps, rtol=0, atol=1e-5 * maps.max())
        back = augment.rotate(maps[:, None], -angle)[:, 0]
        np.testing.assert_allclose(samples["maps_KAHW"][:, place], back, rtol=0, atol=1e-5 * maps.max())


def test_angles_computed_for_pictures_only_are_not_in_the_curve(tmp_path: Path) -> None:
    frame, context = run(intensity_curve(angles_deg=(30, 95)), tmp_path)
    assert frame["angle_deg"].unique().sort().to_list() == [30, 95]
    assert [step for step, _ in context.rows] == [30, 95]


def test_an_interrupted_curve_goes_on_and_ends_bitwise_equal(tmp_path: Path) -> None:
    curve = smoothgrad_curve(angles_deg=range(0, 100, 10))
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
    assert_frame_equal(pick(fixed, angle_deg=0), pick(moving, angle_deg=0))
    scores = [pick(frame, angle_deg=30, binarisation="otsu")["dice"] for frame in (fixed, moving)]
    assert not scores[0].equals(scores[1])
    quarter, start = (pick(fixed, angle_deg=angle)["dice"].to_numpy() for angle in (90, 0))
    np.testing.assert_allclose(quarter, start)


def test_shared_noise_leaves_whole_turns_out_of_curve_and_pictures(tmp_path: Path) -> None:
    method = SmoothGrad(num_samples=2, noise_on="both")
    frame, context = run(smoothgrad_curve(method=method, angles_deg=(0, 45, 360)), tmp_path)
    assert frame["angle_deg"].unique().to_list() == [45]
    assert np.load(context.output_dir / "samples.npz")["angles_deg"].tolist() == [95]
    with pytest.raises(ValueError, match="not defined at any"):
        smoothgrad_curve(method=method, angles_deg=(0, 360))


def test_the_headline_is_logged_with_the_angle_as_step(tmp_path: Path) -> None:
    curve = intensity_curve(binarisations=("mean", "otsu"), angles_deg=(-90, 30))
    frame, context = run(curve, tmp_path)
    assert [step for step, _ in context.rows] == [-90, 30]
    for step, logged in context.rows:
        for field_of_view, prefix in (("full", ""), ("circle", "circle/")):
            means = pick(frame, angle_deg=step, field_of_view=field_of_view, binarisation="mean").mean()
            for name in ("dice", "auprc", "map_fraction", "chance_dice"):
                assert logged[prefix + name] == pytest.approx(means[name].item())


def test_fractional_angles_are_logged_by_place(tmp_path: Path) -> None:
    _, context = run(intensity_curve(angles_deg=(0, 0.5, 1)), tmp_path)
    assert [(step, metrics["angle_deg"]) for step, metrics in context.rows] == [(0, 0), (1, 0.5), (2, 1)]


def test_the_table_holds_the_means_and_the_summary_the_headline(tmp_path: Path) -> None:
    curve = intensity_curve()
    context = FakeContext(tmp_path)
    summary = curve.run(context)
    frame = pl.read_parquet(context.output_dir / "curve.parquet")
    table = pl.read_csv(context.output_dir / "artifacts" / "curve.csv")
    assert table.height == 3 * 2 * 5
    for row in table.iter_rows(named=True):
        part = pick(frame, **{name: row[name] for name in ("angle_deg", "field_of_view", "binarisation")})
        assert row["dice"] == pytest.approx(part["dice"].mean())
        assert row["num_images"] == 5
    headline = pick(table, field_of_view="full", binarisation="otsu")["dice"]
    assert summary["dice_mean"] == pytest.approx(headline.mean())
    assert (summary["dice_min"], summary["dice_max"]) == pytest.approx((headline.min(), headline.max()))


def test_images_without_a_mask_inside_the_circle_are_left_out_and_recorded(tmp_path: Path) -> None:
    context = FakeContext(tmp_path)
    summary = intensity_curve(splits=("train", "val", "test"), num_images=7).run(context)
    selection = json.loads((context.output_dir / "artifacts" / "selection.json").read_text())
    assert selection["left_out_for_empty_mask"] == ["image 3", "image 6", "image 8"]
    assert selection["image_ids"] == [f"image {number}" for number in (0, 1, 2, 4, 5, 7, 9)]
    assert (summary["num_images"], summary["num_left_out_for_empty_mask"]) == (7, 3)


def test_images_come_from_the_splits_evenly_or_at_random(tmp_path: Path) -> None:
    def ids(**settings) -> list[str]:
        frame, _ = run(intensity_curve(**({"angles_deg": (0,), "num_images": 3} | settings)), tmp_path)
        return frame["image_id"].unique(maintain_order=True).to_list()

    assert ids() == ["image 1", "image 4", "image 7"]  # the middles of thirds of 0 1 2 4 5 7 9: places 1, 3, 5
    assert ids(splits=("val",), num_images=2) == ["image 2", "image 7"]
    drawn = {tuple(ids(image_selection="random", selection_seed=seed)) for seed in range(5)}
    assert len(drawn) > 1
    assert all(len(set(choice)) == 3 for choice in drawn)
    assert ids(image_selection="random") == ids(image_selection="random")


def test_too_few_images_say_how_many_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"num_images = 75, but only 7 of the 8 images in train, val have a mask"):
        intensity_curve(num_images=75).run(FakeContext(tmp_path))


def test_cut_images_show_nothing_outside_the_circle(tmp_path: Path) -> None:
    outside = ~inscribed_circle(SIZE).numpy()
    rotated = {}
    for cut in (False, True):
        _, context = run(intensity_curve(cut_image_to_circle=cut), tmp_path / str(cut))
        rotated[cut] = np.load(context.output_dir / "samples.npz")["rotated_KAHW"]
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
        there_and_back = augment.rotate(augment.rotate(ones, angle), -angle)[0, 0]
        torch.testing.assert_close(there_and_back[inside], torch.ones(int(inside.sum()), dtype=torch.float64))
    assert inside.sum() > 0.6 * math.pi / 4 * (size - 2) ** 2


def test_an_encoder_with_holes_has_no_curve(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteMetric, match="'encoder weights' is nan"):
        run(smoothgrad_curve(encoder=BrokenEncoder(), angles_deg=(30, 60)), tmp_path)


def test_maps_with_holes_are_no_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_a_hole(method, encoder, anchors, prepared, views):
        maps_PHW = views.images_PCHW[:, 0].clone()
        maps_PHW[0, 3, 3] = math.nan
        return maps_PHW

    monkeypatch.setattr(ImageIntensity, "maps", with_a_hole)
    with pytest.raises(NonFiniteMetric, match="'saliency map' is nan at step 60"):
        run(intensity_curve(angles_deg=(60,)), tmp_path)


def test_an_encoder_for_other_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes 3 channels and blobs has 1"):
        smoothgrad_curve(encoder=GivenEncoder(channels=3)).run(FakeContext(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": None, "method": SmoothGrad()}, "SmoothGrad explains an encoder"),
        ({"encoder": GivenEncoder()}, "ImageIntensity uses no encoder"),
        ({"angles_deg": ()}, "at least one angle"),
        ({"angles_deg": (0, 90, 0)}, "each once"),
        ({"angles_deg": (0, math.inf)}, "finite"),
        ({"num_images": 0}, "num_images = 0"),
        ({"image_selection": "first"}, "image_selection = 'first'.*'evenly'"),
        ({"binarisations": ()}, "at least one"),
        ({"binarisations": ("median",)}, "'median'.*otsu"),
        ({"percentile": 120}, "percentile = 120"),
        ({"interpolation": "cubic"}, "interpolation = 'cubic'.*'bicubic'"),
        ({"fill": "white"}, "fill = 'white'.*'reflect'"),
    ],
)
def test_impossible_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        intensity_curve(**settings)


def test_equal_angles_have_one_identity_however_they_are_written() -> None:
    keys = {key_of(intensity_curve(angles_deg=a), FileDigests()) for a in (range(3), [0, 1, 2], (0.0, 1.0, 2.0))}
    assert len(keys) == 1


def test_the_estimate_of_work_grows_with_angles_images_and_samples() -> None:
    curve = smoothgrad_curve()
    base = curve.work_flop()
    assert base == pytest.approx(2 * 2 * 5 * 3 * 3.6e9 * (SIZE / 224) ** 2)
    assert dataclasses.replace(curve, angles_deg=range(6)).work_flop() == pytest.approx(2 * base)
    assert dataclasses.replace(curve, method=SmoothGrad(num_samples=6)).work_flop() == pytest.approx(3 * base)
