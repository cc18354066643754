"""Schedules: their values against the definitions, and the horizon that replace keeps."""

import math

import pytest

from trainables.schedules import Constant, Cosine, Polynomial, Warmup, horizon


def test_the_cosine_falls_from_one_to_nothing_at_its_horizon():
    assert [Cosine().factor(epoch, 8) for epoch in (0, 2, 4, 6, 8)] == pytest.approx(
        [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0]
    )


def test_the_polynomial_is_a_power_of_what_is_left():
    assert [Polynomial().factor(epoch, 100) for epoch in (0, 50, 99)] == pytest.approx([1, 0.5**0.9, 0.01**0.9])
    assert Polynomial(2.0).factor(3, 4) == pytest.approx(1 / 16)
    assert horizon(40, None, Polynomial()) == 40
    with pytest.raises(ValueError, match="power = 0"):
        Polynomial(0.0)


def test_a_constant_is_one_whatever_the_horizon():
    assert {Constant().factor(epoch, end) for epoch in (0, 5) for end in (None, 3)} == {1.0}


def test_warm_up_is_a_line_and_hands_over_to_the_rest_of_the_horizon():
    schedule = Warmup(4)
    assert [schedule.factor(epoch, 12) for epoch in (0, 1, 3.5)] == [0, 0.25, 0.875]
    assert [schedule.factor(epoch, 12) for epoch in (4, 6, 8, 12)] == pytest.approx(
        [1, 0.5 + math.sqrt(0.125), 0.5, 0], abs=1e-12
    )
    assert [Warmup(4, Constant()).factor(epoch, None) for epoch in (2, 4, 90)] == [0.5, 1, 1]


def test_the_horizon_is_the_length_unless_given_and_nothing_without_an_end():
    assert horizon(40, None, Cosine()) == 40
    assert horizon(10, 40, Cosine()) == 40
    assert horizon(10, 40, Constant(), Warmup(2)) == 40
    assert horizon(10, None, Constant(), Warmup(2, Constant())) is None
    assert horizon(10, 7, Constant()) is None


def test_a_training_longer_than_its_schedule_is_refused_with_the_ways_out():
    with pytest.raises(ValueError, match=r"num_epochs = 60 .* schedule_epochs = 40.*schedule_epochs=60.*Constant\(\)"):
        horizon(60, 40, Cosine())


def test_a_warm_up_must_leave_something_of_the_schedule():
    with pytest.raises(ValueError, match=r"warmup_epochs = 5 takes all of schedule_epochs = 5"):
        horizon(5, None, Warmup(5))
    with pytest.raises(ValueError, match="warmup_epochs = 0"):
        Warmup(0)
