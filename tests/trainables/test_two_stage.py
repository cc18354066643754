"""A curve in two stages: what the pilot measures, what it chooses from, and what the curve makes of it."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from curve_fixtures import GivenEncoder, intensity_curve, run, smoothgrad_curve
from fake_context import FakeContext

from trainables.api.identity import FileDigests, Keys
from trainables.interpretability.grid import FEWER_ANGLES_DEG, PILOT_ANGLES_DEG, GridChoice, choose_grid
from trainables.interpretability.selection import ImageChoice
from trainables.interpretability.two_stage import CurvePilot, TwoStageCurve, on_grid, passes
from trainables.saliency.controls import MaskRoundTrip
from trainables.saliency.gradients import SmoothGrad
from trainables.sweeps import GaussianBlur

DEGREES = tuple(map(float, range(0, 361, 3)))


@pytest.fixture(scope="module")
def full():
    return smoothgrad_curve(method=SmoothGrad(num_samples=5), values=DEGREES)


@pytest.fixture(scope="module")
def piloted(full, tmp_path_factory):
    """Pilot, its folder, and its measured curves with their folders."""
    folder, pilot = tmp_path_factory.mktemp("pilot"), CurvePilot.of(full)
    upstream = []
    for place, curve in enumerate(pilot.measured[0]):
        _, context = run(curve, folder / str(place))
        upstream.append((curve, context.output_dir))
    context = FakeContext(folder / "pilot", upstream=upstream)
    metrics = pilot.run(context)
    return pilot, context.output_dir, upstream, metrics


def test_a_pilot_measures_a_few_images_at_angles_of_its_own_with_fewer_samples_and_with_all():
    curve = smoothgrad_curve(method=SmoothGrad(num_samples=50), values=DEGREES, images=ImageChoice(5))
    pilot = CurvePilot.of(curve, num_images=4)
    (measured,) = pilot.measured
    assert [part.method.num_samples for part in measured] == [10, 25, 50]
    for part in measured:
        assert replace(part, method=curve.method, values=DEGREES, images=curve.images) == curve
        assert part.images == ImageChoice(4)
    assert [part.values for part in measured] == [FEWER_ANGLES_DEG, FEWER_ANGLES_DEG, PILOT_ANGLES_DEG]
    assert (pilot.values, pilot.num_images) == (DEGREES, 5)


def test_of_a_method_without_samples_the_angles_alone_are_chosen():
    pilot = CurvePilot.of(intensity_curve(values=DEGREES))
    assert [len(of_encoder) for of_encoder in pilot.measured] == [1]


def test_the_choice_is_made_from_the_headline_of_the_measured_curves(piloted):
    _, folder, upstream, metrics = piloted
    dice = []  # of 1, of 2 and of all 5 samples
    for _, result in upstream:
        rows = pl.read_parquet(result / "curve.parquet").filter(field_of_view="full", binarisation="otsu")
        by_image = [part.sort("value")["dice"].to_numpy() for _, part in sorted(rows.group_by("image_id"))]
        dice.append(np.stack(by_image))
    expected = choose_grid(dice[2][None], np.stack(dice[:2])[None], [1, 2, 5], DEGREES, 5, 1.05)
    assert GridChoice.read(folder / "artifacts/grid.json") == expected
    assert metrics["num_angles"] == len(expected.angles_deg)
    assert metrics["num_samples"] == expected.num_samples


def test_the_second_stage_is_the_curve_at_what_was_chosen(full, piloted, tmp_path):
    pilot, folder, _, _ = piloted
    found = GridChoice.read(folder / "artifacts/grid.json")
    chosen = replace(found, angles_deg=(0.0, 45.0, 90.0, 300.0), num_samples=2)
    given = tmp_path / "given"
    given.mkdir()
    chosen.write(given / "artifacts/grid.json")
    staged = TwoStageCurve.of(full, pilot)
    frame, context = run(staged, tmp_path / "staged", FakeContext(tmp_path / "staged", upstream=[(pilot, given)]))
    plain = replace(full, values=(0.0, 45.0, 90.0, 300.0), method=SmoothGrad(num_samples=2))
    expected, of_plain = run(plain, tmp_path / "plain")
    assert frame.equals(expected)
    assert context.rows == of_plain.rows
    assert GridChoice.read(context.output_dir / "artifacts/grid.json") == chosen


def test_a_control_takes_the_angles_and_keeps_its_method(piloted):
    pilot, folder, _, _ = piloted
    mask = TwoStageCurve.of(intensity_curve(method=MaskRoundTrip(), values=DEGREES), pilot)
    chosen = GridChoice.read(folder / "artifacts/grid.json")
    measured = on_grid(mask, chosen)
    assert (measured.values, measured.method) == (chosen.angles_deg, MaskRoundTrip())


def test_the_pilot_is_part_of_what_a_curve_is(full):
    keys = Keys(FileDigests())
    staged = [TwoStageCurve.of(full, CurvePilot.of(full, widening=widening)) for widening in (1.05, 1.2)]
    assert len({keys.key(trial) for trial in (full, *staged)}) == 3


def test_passes_count_images_angles_and_samples():
    curve = smoothgrad_curve(method=SmoothGrad(num_samples=50), values=DEGREES, images=ImageChoice(5))
    assert passes(curve) == 5 * (50 * len(DEGREES) + 0.5)


def test_a_pilot_of_two_encoders_measures_both(full):
    other = replace(full, encoder=GivenEncoder(backbone="other"))
    pilot = CurvePilot.of(full, other)
    assert [[part.encoder for part in of_encoder] for of_encoder in pilot.measured] == [
        [full.encoder] * 3, [other.encoder] * 3,
    ]  # fmt: skip


def curve(**settings):
    return intensity_curve(**({"values": DEGREES} | settings))


PILOT = CurvePilot.of(curve())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: CurvePilot.of(curve(sweep=GaussianBlur(), values=(0.0, 0.02))), "a pilot is for rotations"),
        (lambda: CurvePilot.of(curve(), num_images=3), "a curve of 3 image.* leave out --two-stage"),
        (lambda: CurvePilot.of(curve(), widening=0.9), "widening = 0.9"),
        (lambda: CurvePilot((), DEGREES, 5), "at least one curve"),
        (lambda: CurvePilot(((curve(), curve(cut_to_circle=True)),), DEGREES, 5), "differ in more than"),
        (lambda: CurvePilot(((curve(values=(2.0, 1.0)),),), DEGREES, 5), "72 with all noise samples and 24 with fewer"),
        (lambda: TwoStageCurve.of(curve(values=(0.0, 30.0)), PILOT), "the pilot is for another curve"),
        (lambda: TwoStageCurve.of(curve(images=ImageChoice(4)), PILOT), "the pilot is for another curve"),
        (lambda: TwoStageCurve.of(curve(cut_to_circle=True), PILOT), "the pilot is for another curve"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
