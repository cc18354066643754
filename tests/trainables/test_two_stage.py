"""A curve in two stages: what the pilot measures, what it chooses from, and what the curve makes of it."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from curve_fixtures import GivenEncoder, intensity_curve, run, smoothgrad_curve
from fake_context import FakeContext

from trainables.api.identity import FileDigests, Keys
from trainables.interpretability.grid import PILOT_ANGLES_DEG, GridChoice, choose_grid
from trainables.interpretability.selection import ImageChoice
from trainables.interpretability.two_stage import CurvePilot, TwoStageCurve, most_saved, passes
from trainables.saliency.gradients import SmoothGrad
from trainables.sweeps import GaussianBlur

DEGREES = tuple(map(float, range(0, 361, 3)))
OTHER = GivenEncoder(backbone="other")


@pytest.fixture(scope="module")
def full():
    return smoothgrad_curve(method=SmoothGrad(num_samples=5), values=DEGREES)


@pytest.fixture(scope="module")
def piloted(full, tmp_path_factory):
    """Pilot of two encoders, its folder, and its measured curves with their folders."""
    folder, pilot = tmp_path_factory.mktemp("pilot"), CurvePilot.of(full, replace(full, encoder=OTHER))
    upstream = []
    for place, curve in enumerate(pilot.measured):
        _, context = run(curve, folder / str(place))
        upstream.append((curve, context.output_dir))
    context = FakeContext(folder / "pilot", upstream=upstream)
    metrics = pilot.run(context)
    return pilot, context.output_dir, upstream, metrics


def test_a_pilot_measures_a_few_images_of_every_encoder_at_angles_of_its_own():
    curve = smoothgrad_curve(method=SmoothGrad(num_samples=50), values=DEGREES, images=ImageChoice(5))
    other = replace(curve, encoder=OTHER)
    pilot = CurvePilot.of(curve, other, num_images=4)
    assert pilot.measured == tuple(
        replace(each, values=PILOT_ANGLES_DEG, images=ImageChoice(4)) for each in (curve, other)
    )
    assert (pilot.values, pilot.num_images) == (DEGREES, 5)


def test_the_choice_is_made_from_the_headline_of_the_measured_curves(piloted):
    _, folder, upstream, metrics = piloted
    dice = []
    for _, result in upstream:
        rows = pl.read_parquet(result / "curve.parquet").filter(field_of_view="full", binarisation="otsu")
        by_image = [part.sort("value")["dice"].to_numpy() for _, part in sorted(rows.group_by("image_id"))]
        dice.append(np.stack(by_image))
    expected = choose_grid(np.stack(dice), DEGREES, 1.05)
    assert GridChoice.read(folder / "artifacts/grid.json") == expected
    assert metrics == {"num_angles": len(expected.angles_deg), "widening": expected.widening}


def test_the_second_stage_is_the_curve_at_what_was_chosen(full, piloted, tmp_path):
    pilot, folder, _, _ = piloted
    found = GridChoice.read(folder / "artifacts/grid.json")
    chosen = replace(found, angles_deg=(0.0, 45.0, 90.0, 300.0))
    given = tmp_path / "given"
    given.mkdir()
    chosen.write(given / "artifacts/grid.json")
    staged = TwoStageCurve.of(full, pilot)
    frame, context = run(staged, tmp_path / "staged", FakeContext(tmp_path / "staged", upstream=[(pilot, given)]))
    plain = replace(full, values=(0.0, 45.0, 90.0, 300.0))
    expected, of_plain = run(plain, tmp_path / "plain")
    assert frame.equals(expected)
    assert context.rows == of_plain.rows
    assert GridChoice.read(context.output_dir / "artifacts/grid.json") == chosen


def test_the_pilot_is_part_of_what_a_curve_is(full):
    keys = Keys(FileDigests())
    staged = [TwoStageCurve.of(full, CurvePilot.of(full, widening=widening)) for widening in (1.05, 1.2)]
    assert len({keys.key(trial) for trial in (full, *staged)}) == 3


def test_passes_count_images_angles_and_samples():
    curve = smoothgrad_curve(method=SmoothGrad(num_samples=50), values=DEGREES, images=ImageChoice(5))
    assert passes(curve) == 5 * (50 * len(DEGREES) + 0.5)


def test_what_a_pilot_can_save_is_all_but_the_fewest_angles_less_its_own_passes():
    curve = smoothgrad_curve(method=SmoothGrad(num_samples=50), values=tuple(map(float, range(361))))
    pilot = CurvePilot.of(curve, num_images=4)
    each = 50 * curve.images.num
    assert most_saved(pilot, [curve, curve, curve]) == 3 * each * (361 - 18 - 5) - passes(pilot.measured[0])
    coarse = replace(curve, values=DEGREES[::5])
    assert most_saved(CurvePilot.of(coarse), [coarse]) < 0


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
        (lambda: CurvePilot((curve(), curve(cut_to_circle=True)), DEGREES, 5), "differ in more than"),
        (lambda: CurvePilot((curve(values=(1.0, 2.0)),), DEGREES, 5), "is measured at 72 even angles"),
        (lambda: TwoStageCurve.of(curve(values=(0.0, 30.0)), PILOT), "the pilot is for another curve"),
        (lambda: TwoStageCurve.of(curve(images=ImageChoice(4)), PILOT), "the pilot is for another curve"),
        (lambda: TwoStageCurve.of(curve(cut_to_circle=True), PILOT), "the pilot is for another curve"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
