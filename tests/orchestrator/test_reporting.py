"""When a report is made anew: whenever something that it says has changed, and not otherwise."""

import copy

import pytest
from toy import Count

from orchestrator.manifest import manifest_of
from orchestrator.plan import make_plan
from orchestrator.reporting import report_on
from orchestrator.store import Result, Store
from orchestrator.study import Entry, Study
from trainables.api.card import Card
from trainables.api.identity import FileDigests, Keys

CARD = Card("toy", {"train": 3}, 2, "by group", "CC0", groups="images")


@pytest.fixture
def reported(tmp_path):
    """A function that asks for the report after a change of the manifest, and says how often it was written so far."""
    store, keys, toy = Store(str(tmp_path / "results")), Keys(FileDigests()), Count(3)
    (tmp_path / "nothing").mkdir()
    out = store.upload(tmp_path / "nothing", f"trials/{keys.key(toy)}/published/t")
    assert store.publish(Result(keys.key(toy), {"sum": 3.0}, out, [], 1.0, 2.0, 1.0, 1, 0.0, {}, "t"))
    study = Study("toy", "Why?", {"one": Entry(toy, "trained", {"data": "toy"})}, report="toy_study:report",
                  facts={"scale": "smoke"}, cards={"toy": CARD})  # fmt: skip
    plan = make_plan(study, store, keys)
    manifest = manifest_of(plan, "python toy.py", {"date": "1"}, keys)

    def ask(change=lambda manifest: None):
        changed = copy.deepcopy(manifest)
        change(changed)
        (path,) = report_on(study, store, changed, plan, pytest.fail)
        assert path.endswith("reports/toy/part/report.html")
        return (tmp_path / "results/reports/toy/written").read_text().count("once")

    return ask


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(question="Why not?"),
        lambda m: m.update(command="python toy.py --scale full"),
        lambda m: m["facts"].update(scale="full"),
        lambda m: m["cards"]["toy"].update(licence="MIT"),
        lambda m: m["trials"][0].update(role="untrained"),
        lambda m: m["trials"][0].update(labels={"data": "other"}),
        lambda m: m["trials"][0].update(name="two"),
    ],
)
def test_a_report_is_made_anew_where_anything_that_it_says_has_changed(reported, change):
    assert [reported(), reported(change), reported(change)] == [1, 2, 2]


def test_a_report_is_found_where_only_the_time_has_changed(reported):
    assert [reported(), reported(lambda m: m.update(submitted_at=0.0, provenance={"date": "2"}))] == [1, 1]
