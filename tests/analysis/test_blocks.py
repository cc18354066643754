from dataclasses import replace

import numpy as np
import pytest
from scipy import signal

from analysis.blocks import (
    Blocks,
    block_mean_correlation,
    blocks_of,
    choose_blocks,
    needed_length,
    neighbour_correlation,
    without_bias,
)
from analysis.bootstrap import Bootstrap
from analysis.resampling import Resampling


def autoregressive(correlation, rows, num_images, rng):
    """Unit-variance AR(1) series, [rows, N]."""
    noise = rng.normal(size=(rows, num_images + 200)) * np.sqrt(1 - correlation**2)
    return signal.lfilter([1], [1, -correlation], noise, axis=1)[:, 200:]


def test_blocks_are_contiguous_and_stay_within_a_group():
    groups = ["a"] * 7 + ["b"] * 2 + ["c"] * 4
    assert blocks_of(groups, 3).tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 3]
    assert blocks_of(groups, 1).tolist() == list(range(13))
    with pytest.raises(ValueError, match="'a' do not stand together"):
        blocks_of(["a", "b", "a"], 1)


def test_neighbour_correlation_is_pooled_over_series_and_stays_within_groups():
    rng = np.random.default_rng(0)
    series = autoregressive(0.7, 40, 50, rng)
    pooled = neighbour_correlation(series, ["v"] * 50)
    assert pooled == pytest.approx(0.7 - (1 + 3 * 0.7) / 50, abs=0.04), "with the bias of 50 images"
    assert neighbour_correlation(series * np.exp(1j), ["v"] * 50) == pytest.approx(pooled)
    loud = series.copy()
    loud[0] = 1000 * rng.normal(size=50) + 5000
    assert neighbour_correlation(loud, ["v"] * 50) == pytest.approx(pooled, abs=0.05), "each series counts alike"
    jumps = np.repeat(rng.normal(size=(40, 25)), 2, axis=1)
    pairs = [str(i // 2) for i in range(50)]
    assert neighbour_correlation(jumps, pairs) == pytest.approx(1.0)
    assert neighbour_correlation(jumps, ["v"] * 50) == pytest.approx(0.5, abs=0.1)
    assert np.isnan(neighbour_correlation(jumps, [str(i) for i in range(50)])), "no neighbours"
    assert np.isnan(neighbour_correlation(np.full(50, 0.3), ["v"] * 50)), "nothing varies"


@pytest.mark.parametrize(("correlation", "num_images"), [(0.0, 8), (0.5, 8), (0.5, 30), (0.9, 30), (0.9, 75)])
def test_bias_of_a_short_series_is_taken_away(correlation, num_images):
    rows = autoregressive(correlation, 1500, num_images, np.random.default_rng(1))
    seen = np.mean([neighbour_correlation(row, ["v"] * num_images) for row in rows])
    assert without_bias(seen, num_images) == pytest.approx(correlation, abs=0.07)
    if correlation == 0.9 and num_images == 30:
        assert seen < 0.8, "or there is no bias to take away"


@pytest.mark.parametrize(("correlation", "length"), [(0.3, 1), (0.5, 3), (0.8, 6), (0.9, 20)])
def test_correlation_of_block_means(correlation, length):
    series = autoregressive(correlation, 1, 400_000, np.random.default_rng(2))[0]
    means = series[: len(series) // length * length].reshape(-1, length).mean(axis=1)
    assert block_mean_correlation(correlation, length) == pytest.approx(
        np.corrcoef(means[:-1], means[1:])[0, 1], abs=0.02
    )


def test_blocks_grow_with_the_correlation():
    assert [needed_length(r, 75) for r in (-0.3, 0.0, 0.05, 0.5, 0.7, 0.9)] == [1, 1, 1, 8, 17, 57]
    assert needed_length(1.0, 75) == 75
    assert needed_length(0.9, 20) == 20
    lengths = [
        choose_blocks([autoregressive(r, 6, 75, np.random.default_rng(3))], ["v"] * 75, "volumes").length
        for r in (0, 0.5, 0.7)
    ]
    assert lengths[0] <= 2 < lengths[1] < lengths[2]


def test_the_length_follows_the_correlation_without_its_bias():
    series = autoregressive(0.6, 3, 20, np.random.default_rng(8))
    chosen = choose_blocks([series], ["v"] * 20, "volumes")
    assert chosen.correlation == neighbour_correlation(series, ["v"] * 20)
    assert chosen.length == needed_length(without_bias(chosen.correlation, 20), 20)
    assert chosen.length > needed_length(chosen.correlation, 20)


def test_a_block_is_a_whole_person_from_three_on():
    rng = np.random.default_rng(4)
    groups = ["a"] * 5 + ["b"] * 2 + ["c"] * 9
    chosen = choose_blocks([rng.normal(size=(4, 16))], groups, "patients")
    assert chosen == replace(choose_blocks([rng.normal(size=(4, 16))], groups, "volumes"), kind="patients",
                             correlation=chosen.correlation)  # fmt: skip
    assert chosen.assignment.tolist() == [0] * 5 + [1] * 2 + [2] * 9
    assert (chosen.num_blocks, chosen.num_groups, chosen.are_whole_groups, chosen.speak_of_others) == (3, 3, True, True)
    assert chosen.can_give_intervals
    assert abs(chosen.correlation) < 0.5, "reported all the same"


def test_one_volume_and_two_people_are_one_series_that_speaks_of_nobody_else():
    rng = np.random.default_rng(5)
    slabs = [f"slab {i // 4}" for i in range(40)]
    cases = (
        (slabs, "slabs of one volume", 1), (["v"] * 40, "volumes", 1), (["a"] * 15 + ["b"] * 25, "patients", 2),
    )  # fmt: skip
    for groups, kind, number in cases:
        rough = choose_blocks([rng.normal(size=(8, 40))], groups, kind)
        assert (rough.num_groups, rough.are_whole_groups, rough.speak_of_others) == (number, False, False)
        assert rough.length <= 2
        assert rough.can_give_intervals
        smooth = choose_blocks([np.cumsum(rng.normal(size=(8, 40)), axis=1)], groups, kind)
        assert smooth.length > 13
        assert not smooth.can_give_intervals
        assert smooth.correlation > 0.7
    assert choose_blocks([rng.normal(size=40)], slabs, "volumes").are_whole_groups


def test_images_whose_patients_are_not_known_are_one_series_in_their_order():
    rng = np.random.default_rng(7)
    names = [f"image {i:02d}" for i in range(60)]
    smooth = autoregressive(0.6, 6, 60, rng)
    chosen = choose_blocks([smooth], names, "images")
    assert (chosen.num_groups, chosen.are_whole_groups, chosen.speak_of_others) == (60, False, True)
    of_volume = choose_blocks([smooth], ["v"] * 60, "volumes")
    assert chosen.groups == of_volume.groups
    assert chosen.length == needed_length(without_bias(chosen.correlation, 60), 60, 0.05) > of_volume.length
    assert chosen.correlation == pytest.approx(neighbour_correlation(smooth, ["v"] * 60))
    assert chosen.length > 5
    assert choose_blocks([smooth], names, "patients").length == 1, "people are apart whatever neighbours look like"
    assert choose_blocks([rng.normal(size=(6, 60))], names, "images").length <= 2


def test_the_largest_correlation_of_the_series_counts():
    rng = np.random.default_rng(6)
    rough, smooth = rng.normal(size=(8, 60)), autoregressive(0.8, 1, 60, rng)[0]
    alone, both = (choose_blocks(series, ["v"] * 60, "volumes") for series in ([smooth], [rough, smooth]))
    assert alone == both
    assert both.length > 5 > choose_blocks([rough], ["v"] * 60, "volumes").length


def test_what_cannot_be_seen_has_no_interval():
    assert not choose_blocks([np.zeros(3)], ["v"] * 3, "volumes").can_give_intervals
    assert not choose_blocks([np.full(20, 0.1)], ["v"] * 20, "volumes").can_give_intervals
    with pytest.raises(ValueError, match="'a' do not stand together"):
        choose_blocks([np.zeros(3)], ["a", "b", "a"], "images")
    with pytest.raises(ValueError, match=r"\(2,\).* for 3 images"):
        choose_blocks([np.zeros(2)], ["a", "b", "c"], "patients")


def test_chosen_blocks_reach_the_resamples():
    chosen = choose_blocks([np.arange(20.0)], [f"slab {i // 5}" for i in range(20)], "slabs of one volume")
    chosen = Blocks(chosen.groups, 4, 5, 0.4, "slabs of one volume", 1)
    resampling = Resampling(chosen.groups, chosen.applied_to(Bootstrap(50, seed=3)))
    assert resampling.num_blocks == 5
    assert resampling.bootstrap == Bootstrap(50, block_length=4, seed=3)
    assert resampling.block_of_N.tolist() == chosen.assignment.tolist()
