import math

import numpy as np
import pytest

from trainables.api import axis


def test_a_value_of_a_turn_stands_for_the_arc_around_it() -> None:
    np.testing.assert_allclose(axis.shares((0, 90, 180, 270), 360), [0.25] * 4)
    np.testing.assert_allclose(axis.shares((90, 0, 45), 360), [(22.5 + 135) / 360, (22.5 + 135) / 360, 45 / 360])
    # 0 and 360 are one direction, and share its arc.
    np.testing.assert_allclose(axis.shares((0, 90, 180, 270, 360), 360), [0.125, 0.25, 0.25, 0.25, 0.125])
    np.testing.assert_allclose(axis.shares((-90, 270, 90), 360), [0.25, 0.25, 0.5])


def test_a_value_of_a_line_stands_for_half_the_way_to_its_neighbours() -> None:
    values = np.array([0.0, 0.01, 0.03, 0.08])
    heights = np.array([4.0, 1.0, 7.0, 2.0])
    assert axis.shares(values, None) @ heights == pytest.approx(np.trapezoid(heights, values) / 0.08)
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(axis.shares(values[order], None), axis.shares(values, None)[order])


@pytest.mark.parametrize("period", [None, 360.0])
def test_shares_sum_to_one(period: float | None) -> None:
    for values in ((5.0,), (1.0, 300.0), tuple(range(0, 361, 7))):
        assert axis.shares(values, period).sum() == pytest.approx(1)


@pytest.mark.parametrize("period", [None, 360.0])
def test_a_place_is_met_up_to_rounding_and_in_every_turn(period: float | None) -> None:
    values = (0.3, 0.1 + 0.2, 0.3 + 1e-12, 0.3 + 1e-6, 360.3, -359.7)
    turns = period is not None
    assert axis.is_at(values, 0.3, period).tolist() == [True, True, True, False, turns, turns]
    assert axis.is_at((0.0, 1e-7, 360.0), 0.0, period).tolist() == [True, period is not None, turns]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("period", [None, 360.0])
def test_what_is_no_number_is_no_place_and_warns_of_nothing(period: float | None) -> None:
    assert axis.is_at((math.inf, -math.inf, math.nan), 0.0, period).tolist() == [False] * 3
