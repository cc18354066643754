"""What trials will cost, by the nearest kin that has run."""

import random

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


# -- devices, lengths, and how sure it is -------------------------------------------------------------


def on(device, busy_s, *, cell="c", shape="s", kind="MoCo", work_flop=1e12):
    return Spent(Cost(kind, cell, True, work_flop, shape, device), busy_s, work_flop)


H100, LAPTOP, XEON = "NVIDIA H100", "CPU Laptop", "CPU Xeon"


def test_another_devices_rate_is_a_guess():
    wanted = on(H100, 0).cost
    estimate = Estimates([on(LAPTOP, 9000.0)]).estimate(wanted)
    assert estimate.ground == "guess"
    assert not Estimates([on(LAPTOP, 9000.0)]).is_measured(wanted)
    assert estimate.low_s < 900.0
    estimate = Estimates([on(LAPTOP, 9000.0), on(H100, 60.0, cell="d")]).estimate(wanted)
    assert (estimate.ground, estimate.seconds, estimate.num) == ("measured", 60.0, 1)
    estimate = Estimates([on(LAPTOP, 9000.0), on(H100, 60.0, kind="Curve", cell="e", shape="t")]).estimate(wanted)
    assert (estimate.ground, estimate.seconds) == ("guess", 60.0), "the device says more than the class elsewhere"


def test_another_processor_is_kin():
    estimate = Estimates([on(LAPTOP, 40.0), on(H100, 1.0)]).estimate(on(XEON, 0).cost)
    assert (estimate.ground, estimate.seconds) == ("kin", 40.0)


def epochs(num, busy_s):
    return on(H100, busy_s, cell=f"{num} epochs", work_flop=num * 1e12)


def test_two_lengths_tell_start_up_and_rate_apart():
    estimates = Estimates([epochs(1, 65.0), epochs(2, 70.0), epochs(4, 80.0)])
    estimate = estimates.estimate(epochs(100, 0).cost)
    assert (estimate.seconds, estimate.start_s) == (pytest.approx(560.0), pytest.approx(60.0))
    assert (estimate.ground, estimate.num) == ("measured", 3)
    assert estimate.low_s < 560.0 < estimate.high_s
    assert estimate.after(0.5).seconds == pytest.approx(60.0 + 250.0), "it starts again"


def test_one_length_may_be_all_start_up_and_the_interval_says_so():
    one = Estimates([epochs(1, 65.0)])
    longer, itself, shorter = (one.estimate(epochs(num, 0).cost) for num in (100, 1, 0.01))
    assert longer.seconds == pytest.approx(6500.0)
    assert longer.low_s < 560.0 < longer.high_s
    assert (itself.low_s, itself.high_s) == (pytest.approx(65.0 / 1.5), pytest.approx(65.0 * 1.5))
    assert shorter.seconds < 1.0
    assert shorter.high_s > 60.0
    hours = Estimates([epochs(1, 36_000.0)]).estimate(epochs(100, 0).cost)
    assert hours.low_s > 0.5 * hours.seconds, "nothing starts up for hours"


def test_longer_ones_that_took_no_longer_say_how_little_an_epoch_takes():
    estimate = Estimates([epochs(1, 65.0), epochs(10, 64.0)]).estimate(epochs(100, 0).cost)
    assert estimate.seconds == pytest.approx(640.0)
    assert estimate.low_s < 65.0


def test_of_a_silent_trial_the_start_is_assumed_and_lengths_say_nothing():
    silent = Cost("Pilot", "x", False, 0.0)
    assert Estimates([]).estimate(silent).seconds == pytest.approx(2.0)
    assert Estimates([]).estimate(silent).after(0.5).seconds == pytest.approx(1.0)


@pytest.mark.parametrize(("is_same_cell", "spreads"), [(True, (0.2, 0.3)), (False, (0.5, 0.7))])
def test_nine_in_ten_intervals_hold_what_was_left_out(is_same_cell, spreads):
    rng, held = random.Random(0), []
    for spread in spreads:
        for num in (3, 5, 8, 16):
            for _ in range(60):
                cells = ["c" if is_same_cell else str(i) for i in range(num)]
                trials = [on(H100, 100 * rng.lognormvariate(0, spread), cell=cell, shape=cell) for cell in cells]
                left_out, *others = trials
                estimate = Estimates(others).estimate(left_out.cost)
                held.append(estimate.low_s <= left_out.busy_s <= estimate.high_s)
                assert estimate.ground == ("measured" if is_same_cell else "kin")
    assert 0.80 < sum(held) / len(held) < 0.97
