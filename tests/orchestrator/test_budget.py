"""What a budget pays for: never more than it, and no training whose dependents it does not pay for."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rich.console import Console
from toy import Count, Grow, Squares

from orchestrator import printing
from orchestrator.budget import budget_of
from orchestrator.cost_records import record_costs
from orchestrator.costs import costs_of, upstream_of
from orchestrator.devices import Devices, devices_here
from orchestrator.estimates import Cost, Spent
from orchestrator.options import StudyOptions
from orchestrator.outlook import outlook_of
from orchestrator.plan import TO_RUN, make_plan
from orchestrator.search.suggestions import Suggestions
from orchestrator.store import Store
from orchestrator.study import Resources, Search, Study
from orchestrator.usage import UsageError
from trainables.api.identity import FileDigests, Keys
from trainables.api.trainable import Trainable, seed

HERE = Devices("CPU Xeon", "NVIDIA H100")
HOUR = 3600.0


@dataclass(frozen=True)
class Train(Trainable):
    method: str = "BYOL"
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


def spent_on(trainable, busy_s, device="NVIDIA H100", number=0):
    keys = Keys(FileDigests())
    kind, flop = type(trainable).__name__, trainable.work_flop()
    cost = Cost(kind, keys.cell(trainable), trainable.uses_gpu, flop, keys.shape(trainable), device)
    return {f"{keys.key(trainable)} {number}": Spent(cost, busy_s, flop)}


def measured(*methods):
    """Ten hours a training, one a tuning; nine trials each, all alike."""
    spent = {}
    for number in range(9):
        for method in methods:
            spent |= spent_on(Train(method, 90), 10 * HOUR, number=number)
            spent |= spent_on(Tune(Train(method, 90)), HOUR, number=number)
            spent |= spent_on(Tune(Train(method, 90), 0.5), HOUR, number=number)
    return spent


def plan_of(trials, spent=None, devices=HERE):
    return make_plan(
        Study("s", "?", trials), Store("memory://budget"), Keys(FileDigests()), spent=spent or {}, devices=devices
    )


def rows(*methods):
    return {f"{m}, {share}": Tune(Train(m), share) for m in methods for share in (0.5, 1.0)}


def budget(plan, text, **options):
    return budget_of(plan, StudyOptions(budget=text, **options))


def names(plan):
    return [p.trial.name for p in plan.planned if p.state in TO_RUN]


def test_what_a_budget_has_not_paid_for_is_not_said_to_be_a_matter_of_the_same_command(capsys):
    plan = plan_of(rows("BYOL", "FS", "TracIn"), measured("BYOL", "FS", "TracIn"))
    console = Console(width=200)
    printing.show_troubles(plan, console, budget(plan, "20gpuh"))
    said = capsys.readouterr().out
    assert (said.count("it did not fit the budget"), said.count("the same command computes it")) == (6, 3)
    printing.show_troubles(plan, console)
    assert "budget" not in capsys.readouterr().out


def test_a_longer_training_is_paid_for_with_the_shorter_one_that_it_goes_on_from():
    plan = plan_of({"long": Grow(8), "short": Grow(2), "other": Grow(3, factor=2)}, {})
    known = {p.trial.key: p for p in plan.planned}
    by_name = {p.trial.name: p for p in plan.planned}
    assert by_name["long"].continues.key == by_name["short"].trial.key
    found = {with_shorter: upstream_of(by_name["long"], known, with_shorter=with_shorter) for with_shorter in (0, 1)}
    assert [p.trial.name for p in found[0].values()] == ["long"]
    assert sorted(p.trial.name for p in found[1].values()) == ["long", "short"]


def test_a_budget_tells_hours_and_where_nothing_is_to_run():
    plan = plan_of(rows("BYOL", "FS"), measured("BYOL", "FS"))
    line = budget(plan, "20gpuh").line
    assert line.count(" h") == 2, line
    done = replace(plan, planned=())
    assert budget(done, "20gpuh").line == "budget 20gpuh: nothing is to run"


def test_trials_are_taken_in_order_with_what_they_wait_for_until_no_more_fit():
    plan = plan_of(rows("BYOL", "FS", "TracIn"), measured("BYOL", "FS", "TracIn"))
    one = budget(plan, "20gpuh")
    assert names(one.of(plan)) == ["BYOL, 0.5 / Train", "BYOL, 0.5", "BYOL, 1.0"]
    assert 12 < one.at_most_h <= 20
    assert one.left_out == ("FS, 0.5", "FS, 1.0", "TracIn, 0.5", "TracIn, 1.0")
    assert 11 < one.next_needs_h < 20
    assert one.line.startswith("budget 20gpuh: 3 of 9 trials fit (1")
    assert "; not started: 6, the first 'FS, 0.5' needs 1" in one.line
    assert len(budget(plan, "45gpuh").keys) == 9
    assert "not started" not in budget(plan, "45gpuh").line
    assert budget(plan, "2gpuh").keys == frozenset(), "a training whose dependents do not fit is not bought"
    half = budget(plan, "20gpuh", gpus_per_trial=0.5)
    assert len(half.keys) >= 5, "of half a GPU each"


def test_what_it_adds_up_to_is_what_the_plan_says():
    plan = plan_of(rows("BYOL", "FS"), measured("BYOL", "FS"))
    everything = budget(plan, "1000gpuh")
    assert everything.at_most_h * HOUR == pytest.approx(costs_of(plan, Resources(gpus=1.0)).total("GPU").high_s)


def test_what_fits_beside_one_that_does_not_is_taken():
    cheap = {key: replace(one, busy_s=one.busy_s / 10) for key, one in measured("BYOL").items()}
    plan = plan_of({"dear": Tune(Train("FS")), "cheap": Tune(Train("BYOL"))}, measured("FS") | cheap)
    found = budget(plan, "3gpuh")
    assert names(found.of(plan)) == ["cheap / Train", "cheap"]
    assert found.left_out == ("dear",)


def test_a_longer_training_brings_the_shorter_one_from_which_it_goes_on():
    spent = {}
    for number in range(9):
        spent |= spent_on(Grow(4), 4 * HOUR, "CPU Xeon", number)
    plan = plan_of({"8": Grow(8), "2": Grow(2), "other": Grow(2, 7)}, spent)
    assert names(budget(plan, "14cpuh").of(plan)) == ["8", "2"]
    assert names(budget(plan, "4cpuh").of(plan)) == ["2"], "six hours more, and not without the two"


def test_of_cores_all_trials_count_and_of_gpus_those_that_compute_on_one():
    spent = measured("BYOL") | spent_on(Score(Tune(Train())), 5 * HOUR, "CPU Xeon")
    plan = plan_of({"t": Score(Tune(Train()))}, spent)
    assert budget(plan, "20gpuh").left_out == ()
    assert budget(plan, "14cpuh").left_out == ("t",)
    assert budget(plan, "40cpuh").at_most_h > 16


def test_what_nobody_knows_is_refused_by_name():
    plan = plan_of(rows("BYOL") | {"s": Score(Tune(Train()))}, spent_on(Train(toy_seed=9), HOUR))
    with pytest.raises(UsageError, match=r"nobody knows what Tune will cost.*'BYOL, 0.5', or --scale smoke"):
        budget(plan, "40gpuh")
    with pytest.raises(UsageError, match="what Score, Tune will cost"):
        budget(plan, "40cpuh")


def test_gpus_where_there_are_none_are_refused():
    for plan, options in (
        (plan_of(rows("BYOL"), measured("BYOL"), Devices("CPU Xeon", None)), {}),
        (plan_of(rows("BYOL"), measured("BYOL")), {"gpus_per_trial": 0.0}),
    ):
        with pytest.raises(UsageError, match=r"no trial gets a GPU here, .* give hours of CPUs, such as 40cpuh"):
            budget(plan, "40gpuh", **options)


@pytest.mark.parametrize("text", ["40", "40 gpuh", "-3gpuh", "0cpuh", "4days", "nangpuh"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(ValueError, match="expected hours of GPUs or of cores, such as 40gpuh or"):
        StudyOptions(budget=text)


def test_a_search_has_no_bound(tmp_path):
    optuna = pytest.importorskip("optuna")
    space = {"learning_rate": optuna.distributions.IntDistribution(1, 9)}
    search = Search(space, lambda p: {"val/loss": [Count(p["learning_rate"])]}, {"val/loss": "minimize"}, 3)
    store, keys = Store(str(tmp_path)), Keys(FileDigests())
    found = Suggestions(Study("s", "?", search=search), store, keys)
    plan = make_plan(found.study(), store, keys, to_suggest=found.num_left, examples=found.examples)
    with pytest.raises(UsageError, match="a search decides what it tries as it goes"):
        budget(plan, "4cpuh")


def test_a_plan_shows_it(tmp_path):
    store, keys, options = Store(str(tmp_path)), Keys(FileDigests()), StudyOptions(plan=True, budget="20gpuh")
    plan = plan_of(rows("BYOL", "FS"), measured("BYOL", "FS"))
    outlook = outlook_of(plan, options, store, keys, budget_of(plan, options))
    assert outlook.lines()[-1].startswith("budget 20gpuh: 3 of 6 trials fit")
    told = json.loads(json.dumps(outlook.to_json()))["budget"]
    assert (len(told["keys"]), told["left_out"]) == (3, ["FS, 0.5", "FS, 1.0"])
    assert budget_of(plan, StudyOptions()) is None


def test_what_was_recorded_of_another_study_is_ground_enough(tmp_path):
    store, keys = Store(str(tmp_path)), Keys(FileDigests())
    record_costs(store, measured("BYOL"))
    plan = make_plan(Study("s", "?", {"t": Train("FS")}), store, keys, devices=HERE)
    assert budget(plan, "500gpuh").left_out == ()
    assert budget(plan, "12gpuh").left_out == ("t",), "another configuration of the class may be three times as dear"


@pytest.mark.slow
def test_a_submission_starts_what_fits_says_what_does_not_and_goes_on_later(tmp_path):
    def submit(*flags):
        study = Path(__file__).with_name("toy_study.py")
        places = ["--storage", tmp_path / "results", "--cache-dir", tmp_path / "cache", "--log-dir", tmp_path]
        done = subprocess.run(
            [sys.executable, study, *places, "--gpus-per-trial", "0", *flags],
            capture_output=True, text=True, timeout=300, cwd=tmp_path, env={**os.environ, "MLFLOW_TRACKING_URI": ""},
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    code, _, err = submit("--budget", "1cpuh")
    assert (code, "nobody knows what Count, Squares will cost" in err, list(tmp_path.iterdir())) == (2, True, [])
    base, spent = Count(6), {}
    for trainable in (base, Count(4, 2, upstream=base), Count(8, 3), Squares(10, 1)):
        spent |= spent_on(trainable, 36.0, devices_here().cpu)
    record_costs(Store(str(tmp_path / "results")), spent)
    code, out, err = submit("--budget", "0.033cpuh")
    assert code == 1, err
    assert "budget 0.033cpuh: 2 of 4 trials fit (0.02" in out
    assert "not started: 2, the first 'other' needs" in out
    assert "2 of 4 trials are done" in out
    assert {path.name for path in tmp_path.iterdir()} == {"results", "cache", "base", "tuned"}
    code, out, _ = submit("--budget", "0.033cpuh")
    assert (code, "2 of 2 trials fit" in out, "4 of 4 trials are done" in out) == (0, True, True)
