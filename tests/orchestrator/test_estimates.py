"""What trials will cost, by the nearest kin that has run."""

import pytest

from orchestrator.estimates import Cost, Estimates, Spent


def cost(kind="MoCo", cell="c", *, uses_gpu=True, work_flop=1e12):
    return Cost(kind, cell, uses_gpu, work_flop)


def spent(busy_s, kind="MoCo", cell="c", *, uses_gpu=True, work_flop=1e12, own_flop=None):
    own = work_flop if own_flop is None else own_flop
    return Spent(cost(kind, cell, uses_gpu=uses_gpu, work_flop=work_flop), busy_s, own)


def test_the_nearest_kin_tells():
    same_cell, same_class = spent(10.0), spent(40.0, cell="d")
    same_device, other = spent(70.0, "Curve", "e"), spent(900.0, "Hog", "f", uses_gpu=False)
    for finished, seconds, is_measured in (
        ([other, same_device, same_class, same_cell], 10.0, True),
        ([other, same_device, same_class], 40.0, True),
        ([other, same_device], 70.0, False),
        ([other], 900.0, False),
        ([], 2.0 + 1e12 / 1e11, False),
    ):
        estimates = Estimates(finished)
        assert estimates.seconds(cost()) == pytest.approx(seconds)
        assert estimates.is_measured(cost()) is is_measured


def test_the_median_counts_in_proportion_to_the_work():
    estimates = Estimates([spent(1.0), spent(2.0), spent(90.0)])
    assert estimates.seconds(cost(work_flop=5e12)) == pytest.approx(10.0)


def test_what_went_on_from_a_shorter_one_counts_by_its_own_work():
    assert Estimates([spent(5.0, own_flop=0.5e12)]).seconds(cost()) == pytest.approx(10.0)


def test_without_stated_work_the_seconds_of_its_kind_count_and_of_no_other():
    silent = cost("Ceiling", "x", work_flop=0.0)
    finished = [spent(s, "Ceiling", cell, work_flop=0.0) for s, cell in ((3.0, "x"), (7.0, "y"), (9.0, "z"))]
    assert Estimates(finished).seconds(silent) == 3.0
    assert Estimates(finished).seconds(cost("Ceiling", "w", work_flop=0.0)) == 7.0
    assert Estimates(finished).is_measured(silent)
    others = Estimates([spent(100.0)])
    assert 0.0 < others.seconds(silent) < 10.0, "little, and not nothing"
    assert not others.is_measured(silent)


def test_a_guess_counts_the_start_of_every_trial():
    assert Estimates([]).seconds(cost(work_flop=1.0)) == pytest.approx(2.0)


def test_what_took_no_time_says_nothing():
    assert Estimates([spent(0.0)]).seconds(cost()) == pytest.approx(2.0 + 1e12 / 1e11)
