"""What trials hold, and what fits on which nodes."""

import pytest
from toy import Count, OnGpu, Squares

from orchestrator.resources import Amount, Capacity, Demand, demand_of, usual_demand
from orchestrator.study import Resources


class OfTwo(Squares):
    most_workers = 2


@pytest.mark.parametrize(
    ("trainable", "demand"),
    [
        (Count(), Demand(Amount(1.0, 0.0), 1)),
        (OnGpu(), Demand(Amount(1.0, 0.5), 1)),
        (Squares(), Demand(Amount(1.0, 0.0), 4)),
        (OfTwo(), Demand(Amount(1.0, 0.0), 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_gpu_only_where_it_computes_on_one_and_workers_only_where_it_spreads(trainable, demand):
    assert demand_of(trainable, Resources(cpus=1.0, gpus=0.5, workers=4)) == demand


def test_a_demand_has_to_fit_node_by_node():
    has = Capacity((Amount(2.0, 1.0), Amount(1.0, 0.0)))
    assert has.can_hold(Demand(Amount(1.0), 3))
    assert not has.can_hold(Demand(Amount(1.0), 4))
    assert not has.can_hold(Demand(Amount(1.5), 2))
    assert has.can_hold(Demand(Amount(1.0, 0.5), 2))
    assert not has.can_hold(Demand(Amount(1.0, 0.6), 2))
    assert has.can_hold(Demand(Amount(0.1, 0.1), 10))
    shares = Capacity((Amount(8.0, 2.0),))  # a share is of one GPU: 0.6 and 0.6 are two of them
    assert shares.can_hold(Demand(Amount(1.0, 0.6), 2))
    assert not shares.can_hold(Demand(Amount(1.0, 0.6), 3))
    assert shares.num_at_once(Demand(Amount(1.0, 0.6))) == 2
    assert shares.num_at_once(Demand(Amount(1.0, 0.5))) == 4


def test_more_than_one_gpu_is_a_whole_number_of_them():
    with pytest.raises(ValueError, match=r"gpus = 1.5: expected a whole number"):
        Resources(gpus=1.5)
    assert Resources(gpus=2.0).gpus == 2


def test_how_many_run_at_once():
    has = Capacity((Amount(4.0, 1.0), Amount(3.0, 0.0)))
    assert has.num_at_once(Demand(Amount(1.0))) == 7
    assert has.num_at_once(Demand(Amount(2.0))) == 3
    assert has.num_at_once(Demand(Amount(1.0, 0.5))) == 2
    assert has.num_at_once(Demand(Amount(1.0), 4)) == 1
    assert Capacity(()).num_at_once(Demand(Amount(1.0))) == 1


def test_what_running_trials_leave():
    has = Capacity((Amount(4.0, 1.0), Amount(3.0, 0.0)))
    assert has.left_by([Demand(Amount(1.0, 0.25), 3), Demand(Amount(2.0))]) == Amount(2.0, 0.25)


def test_the_usual_demand_is_that_of_most():
    resources = Resources(cpus=1.0, gpus=1.0, workers=2)
    assert usual_demand([Count(), OnGpu(), OnGpu()], resources) == Demand(Amount(1.0, 1.0))
    assert usual_demand([], resources) == Demand(Amount(1.0, 1.0))
