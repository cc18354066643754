"""What a plan costs by class of trainable, and how it is told."""

import dataclasses
import json
import math
import random
from dataclasses import dataclass

import pytest
from toy import Count, Grow, Squares

from orchestrator import printing
from orchestrator.cost_text import amount_text, cost_lines, forecast_line, work_text
from orchestrator.costs import Amount, amount_of, costs_of
from orchestrator.devices import Devices
from orchestrator.estimates import Cost, Estimate, Spent
from orchestrator.forecast import Forecast, forecast_of
from orchestrator.options import StudyOptions
from orchestrator.outlook import Outlook, outlook_of
from orchestrator.plan import make_plan
from orchestrator.resources import Amount as Room
from orchestrator.resources import Capacity
from orchestrator.store import Store
from orchestrator.study import Resources, Study
from trainables.api.identity import FileDigests, Keys
from trainables.api.trainable import Trainable, seed

HERE = Devices("CPU Xeon", "NVIDIA H100")


@dataclass(frozen=True)
class Train(Trainable):
    toy_seed: int = seed()
    uses_gpu = True

    def run(self, context):
        return {}

    def work_flop(self):
        return 1e12


@dataclass(frozen=True)
class Tune(Trainable):
    encoder: Train
    label_fraction: float = 1.0
    uses_gpu = True

    def run(self, context):
        return {}

    def work_flop(self):
        return 1e11


@dataclass(frozen=True)
class Score(Trainable):
    model: Tune

    def run(self, context):
        return {}

    def work_flop(self):
        return 1e9


def spent_on(trainable, busy_s, device="NVIDIA H100"):
    keys = Keys(FileDigests())
    kind, flop = type(trainable).__name__, trainable.work_flop()
    cost = Cost(kind, keys.cell(trainable), trainable.uses_gpu, flop, keys.shape(trainable), device)
    return {keys.key(trainable): Spent(cost, busy_s, flop)}


def plan_of(trials, spent=None, devices=HERE):
    return make_plan(
        Study("s", "?", trials), Store("memory://costs"), Keys(FileDigests()), spent=spent or {}, devices=devices
    )


def tuned(num_seeds=2, fractions=(0.1, 0.5, 1.0)):
    return {f"{n} {share}": Score(Tune(Train(n), share)) for n in range(num_seeds) for share in fractions}


def test_each_class_says_what_it_rests_on_and_devices_are_not_added_to_each_other():
    spent = spent_on(Train(8), 3600.0) | spent_on(Train(9), 3600.0) | spent_on(Tune(Train(8), 0.3), 360.0)
    costs = costs_of(plan_of(tuned(), spent), Resources(cpus=4.0, gpus=0.5))
    train, tune, score = costs.rows
    assert [(row.kind, row.count, row.unit, row.ground) for row in costs.rows] == [
        ("Train", 2, "GPU", "measured"), ("Tune", 6, "GPU", "kin"), ("Score", 6, "core", "guess"),
    ]  # fmt: skip
    assert train.amount.seconds == pytest.approx(2 * 3600 * 0.5), "of half a GPU each"
    assert train.num_measured == (2, 2)
    assert tune.amount.seconds == pytest.approx(6 * 360 * 0.5)
    assert costs.total("GPU").seconds == pytest.approx(train.amount.seconds + tune.amount.seconds)
    assert costs.total("core").seconds == score.amount.seconds
    said = work_text(costs)
    assert "78 GPU-min and 86 core-s" in said
    assert "Train: measured; Tune: from trials of the kind; Score: a guess" in said
    assert json.loads(json.dumps(costs.to_json()))["costs"][0]["amount"]["seconds"] == train.amount.seconds


def test_where_there_is_no_gpu_all_are_cores():
    costs = costs_of(plan_of(tuned(), devices=Devices("CPU Xeon", None)), Resources(gpus=1.0))
    assert {row.unit for row in costs.rows} == {"core"}


def test_sharing_saves_what_each_trial_would_pay_alone_and_growth_what_is_not_computed_again():
    plan = plan_of(tuned(num_seeds=2), spent_on(Train(8), 100.0) | spent_on(Tune(Train(8), 0.3), 10.0))
    saved = costs_of(plan, Resources(gpus=1.0)).saved_by_sharing_s
    assert saved == {"GPU": pytest.approx(2 * 2 * 100.0), "core": 0.0}
    named = {**tuned(num_seeds=1), "itself": Train(0)}
    assert costs_of(plan_of(named), Resources(gpus=1.0)).saved_by_sharing_s["GPU"] == pytest.approx(3 * 12.0)
    grown = plan_of({"2": Grow(2), "8": Grow(8)}, spent_on(Grow(4), 40.0, "CPU Xeon"))
    costs = costs_of(grown, Resources(cpus=2.0))
    assert costs.saved_by_growth_s == {"GPU": 0.0, "core": pytest.approx(2 * 20.0)}
    assert costs.rows[0].amount.seconds == pytest.approx(2 * 80.0)


def test_what_has_a_result_costs_nothing(tmp_path):
    assert costs_of(plan_of({"t": Count(2)}), Resources()).rows
    empty = dataclasses.replace(plan_of({"t": Count(2)}), planned=())
    assert costs_of(empty, Resources()).rows == ()
    assert cost_lines(costs_of(empty, Resources())) == []


def test_an_interval_of_a_sum_knows_what_its_trials_have_in_common():
    """Sums of log-normal trials around a mean of which the same is known."""
    one = Estimate(100.0, 100 / 1.3, 130.0, math.log(1.5), "measured", 5)
    alone, many = amount_of([(one, 1)]), amount_of([(one, 400)])
    assert (alone.low_s, alone.high_s) == (pytest.approx(one.low_s), pytest.approx(one.high_s))
    assert many.high_s / many.seconds == pytest.approx(1.3, rel=0.01)
    rng, held = random.Random(0), []
    amount = amount_of([(one, 10)])
    for _ in range(1000):
        common = rng.lognormvariate(0, math.log(1.3) / 1.645)
        total = sum(100 * common * rng.lognormvariate(0, math.log(1.5) / 1.645) for _ in range(10))
        held.append(amount.low_s <= total <= amount.high_s)
    assert 0.85 < sum(held) / 1000 < 0.95


def test_a_search_pays_for_what_it_will_suggest():
    examples = [Study("s", "?", {"x": Tune(Train(0), share)}) for share in (0.1, 0.2)]
    plan = make_plan(Study("s", "?", {"own": Score(Tune(Train(5)))}), Store("memory://costs"), Keys(FileDigests()),
                     to_suggest=7, examples=examples, spent={}, devices=HERE)  # fmt: skip
    costs = costs_of(plan, Resources(gpus=1.0))
    assert [(row.kind, row.count) for row in costs.rows if row.is_to_come] == [("Train", 1), ("Tune", 7)]
    in_all_s = math.fsum(costs.total(unit).seconds for unit in ("GPU", "core"))
    assert in_all_s == pytest.approx(plan.estimated_s()), "each on one device"
    assert forecast_of(plan, Resources(gpus=1.0), Capacity((Room(4.0, 1.0),))) is not None


def test_people_read_it(capsys):
    spent = spent_on(Train(8), 36000.0) | spent_on(Train(9), 36000.0) | spent_on(Tune(Train(8), 0.3), 360.0)
    plan = plan_of(tuned(), spent)
    forecast = Forecast(Capacity((Room(64.0, 4.0),)), 147_600.0, 126_000.0, 187_200.0, 39_600.0)
    outlook = Outlook(costs_of(plan, Resources(gpus=1.0)), forecast)
    printing.show_plan(plan, printing.make_console(), as_json=False, outlook=outlook)
    said = capsys.readouterr().out
    assert "  Train  2 to run     20 GPU-h  (14-28)     measured on 2, NVIDIA H100" in said
    assert "a guess: nothing of the kind has finished on Xeon" in said
    assert "on 4 GPU, 64 CPU now: about 41.0 h (35.0 h to 2.2 days); the longest chain takes 11.0 h" in said
    assert "one training for all that share it saves 40 GPU-h" in said
    printing.show_plan(plan, printing.make_console(), as_json=True, outlook=outlook)
    found = json.loads(capsys.readouterr().out)
    assert found["makespan_s"] == 147_600.0
    assert found["saved_s"]["sharing"]["GPU"] == 4 * 36000.0
    assert len(found["costs"]) == 3


def test_amounts_are_told_in_units_that_people_read():
    for seconds, said in ((3.0, "3.0 core-s"), (600.0, "10 core-min"), (6.7e6, "1,861 core-h")):
        assert amount_text(Amount(seconds, seconds, seconds), "core") == said


# -- when it will be over ------------------------------------------------------------------------------


def test_a_forecast_knows_chains_and_slots():
    spent = spent_on(Count(1), 10.0, "CPU Xeon")
    long = Count(6, upstream=Count(4))
    plan = plan_of({"long": long, "a": Count(2), "b": Count(3)}, spent)
    one, many = (forecast_of(plan, Resources(), Capacity((Room(cpus),))) for cpus in (1.0, 9.0))
    assert one.longest_chain_s == many.longest_chain_s == pytest.approx(100.0)
    assert one.low_s < 150.0 < one.high_s
    assert many.low_s < 100.0 < many.high_s
    assert many.seconds < one.seconds
    assert forecast_of(plan, Resources(), Capacity((Room(9.0),)), max_concurrent=1).seconds == one.seconds


def test_idle_slots_help_what_spreads():
    plan = plan_of({"items": Squares(10), "b": Count(1)})
    alone, helped = (forecast_of(plan, Resources(), Capacity((Room(cpus),))) for cpus in (2.0, 4.0))
    assert helped.seconds < alone.seconds
    assert "on 4 CPU now" in forecast_line(helped)


def test_where_no_cluster_answers_the_costs_stand_alone():
    options = StudyOptions(plan=True, address="http://127.0.0.1:1")
    outlook = outlook_of(plan_of({"a": Count(2)}), options, Store("memory://costs"), Keys(FileDigests()))
    assert outlook.forecast is None
    assert "takes jobs only" in outlook.lines()[-1]
    assert outlook.to_json()["makespan_s"] is None


def test_where_a_trial_fits_no_node_no_time_is_told(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    options = StudyOptions(plan=True, workers_per_trial=10**6)
    plan = plan_of({"items": Squares(10)}, devices=Devices("CPU Xeon", None))
    outlook = outlook_of(plan, options, Store("memory://costs"), Keys(FileDigests()))
    assert outlook.lines()[-1].endswith("one of the trials fits no node")
