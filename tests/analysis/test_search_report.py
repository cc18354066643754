import io
import itertools
import json
import re

import polars as pl
import pytest
from charts import layers_of, panels_of
from synthetic_search import ACCURACY, LOSS, FabricatedSearch, large, params

from analysis.render.table import to_csv, to_markdown
from analysis.search import figures
from analysis.search.findings import answer, caveats, chance_of_being_apart
from analysis.search.report import search_report
from analysis.search.suggestions import is_apart, load_search
from analysis.search.tables import decimals_of, suggestion_table

BOTH = {ACCURACY: "maximize", LOSS: "minimize"}


def results_of(search):
    return load_search(search.store, search.manifest)


def accuracies(folder, *suggestions, **changes):
    """A search of one objective from the seeds' values of its suggestions."""
    search = FabricatedSearch(folder, **changes)
    for values in suggestions:
        search.add(retrieval_accuracy=values)
    return search


def section(html, name):
    return re.search(rf"<h2>{name}</h2>\n(.*?)</section>", html, re.S)[1]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    search = large(folder)
    return search, search_report(search.store, search.manifest, folder / "out")


# -- the answer -------------------------------------------------------------------------------------


def test_answer_gives_mean_std_seeds_and_setting_of_the_best(tmp_path):
    said = answer(results_of(accuracies(tmp_path, [0.5, 0.52, 0.54], [0.6, 0.7, 0.8], [0.3, 0.3, 0.3])))
    assert (
        "Of 3 suggestion(s) with a value, suggestion 2 (learning_rate 4.64e−07, num_layers 3, key_momentum 0.999) "
        in said
    )
    assert "has the highest val/retrieval_accuracy: 0.700 (std 0.100 over 3 seeds)" in said
    assert "Suggestion 1, where the search began, has 0.520 (std 0.020 over 3 seeds)" in said
    assert "The difference of +0.180 lies beyond the spread over seeds (every seed of suggestion 2 is better" in said
    assert "optimistic: the best of 3 was chosen on the same images" in said


def test_a_difference_within_the_spread_cannot_be_told(tmp_path):
    said = answer(results_of(accuracies(tmp_path, [0.5, 0.6, 0.7], [0.55, 0.72, 0.71])))
    assert "The difference of +0.0600 lies within the spread over seeds: it cannot be told" in said
    assert "seed by seed it is better in 3 of 3" in said
    said = answer(results_of(accuracies(tmp_path / "b", [0.5, 0.6, 0.7], [0.45, 0.78, 0.71])))
    assert "seed by seed it is better in 2 of 3" in said
    said = answer(results_of(accuracies(tmp_path / "c", [0.5, 0.6, 0.7], [0.55, 0.75])))
    assert "(their seeds overlap)" in said


def test_the_spread_is_judged_from_the_nearest_seeds(tmp_path):
    # Touching is not apart; the mean alone would decide otherwise.
    for folder, values, expected in (("a", [0.7, 0.9, 0.9], False), ("b", [0.71, 0.9, 0.9], True)):
        first, second = results_of(accuracies(tmp_path / folder, [0.5, 0.6, 0.7], values)).suggestions
        objective = results_of(accuracies(tmp_path / f"{folder}2", [0.5])).objectives[0]
        assert is_apart(second, first, objective) is expected
        assert is_apart(first, second, objective) is False


def test_one_seed_cannot_tell(tmp_path):
    results = results_of(accuracies(tmp_path, [0.5], [0.9], [0.8]))
    said = answer(results)
    assert "overlap" not in said
    assert "suggestion 2" in said
    assert "0.900 (one seed)" in said
    assert "The difference" not in said
    assert "Whether the difference of +0.400 is more than the luck of a seed cannot be told" in said
    assert "std" not in said
    assert any("one seed a suggestion has no spread" in caveat for caveat in caveats(results))
    assert not any("once in" in caveat for caveat in caveats(results))


def test_less_is_better_when_minimized(tmp_path):
    search = FabricatedSearch(tmp_path, {LOSS: "minimize"})
    for values in ([1.0, 1.1], [0.4, 0.5], [0.7, 0.9], [0.45, 0.48]):
        search.add(loss=values)
    results = results_of(search)
    said = answer(results)
    assert "suggestion 2 (" in said
    assert "has the lowest val/loss: 0.450 (std 0.071 over 2 seeds)" in said
    assert "The difference of −0.600 lies beyond the spread" in said
    assert "Its seeds overlap with those of 1 other suggestion(s)" in said
    assert results.best_so_far(results.objectives[0]) == pytest.approx([1.05, 0.45, 0.45, 0.45])
    assert suggestion_table(results).frame["suggestion"].to_list() == [2, 4, 3, 1]


def test_rivals_are_those_whose_seeds_overlap(tmp_path):
    said = answer(results_of(accuracies(tmp_path, [0.1, 0.2], [0.8, 0.9], [0.7, 0.85], [0.5, 0.81], [0.5, 0.79])))
    assert "Its seeds overlap with those of 2 other suggestion(s): which of these is best cannot be told" in said


def test_equal_means_are_named_and_the_earlier_stands_first(tmp_path):
    said = answer(results_of(accuracies(tmp_path, [0.5, 0.5], [0.75, 0.25], [0.75, 1.0], [1.0, 0.75])))
    assert "suggestion 3 (" in said
    assert "As high on average: suggestion 4." in said


def test_nothing_better_than_the_beginning(tmp_path):
    said = answer(results_of(accuracies(tmp_path, [0.6, 0.8], [0.5, 0.6])))
    assert "This is where the search began: nothing that it tried is better." in said
    assert "The difference" not in said


def test_a_failed_beginning_is_no_reference(tmp_path):
    search = FabricatedSearch(tmp_path)
    search.fail(search.add("failed", retrieval_accuracy=[None, 0.1])[0], "killed")
    search.add(retrieval_accuracy=[0.5, 0.6])
    assert "Suggestion 1, where the search began, has no value to compare with." in answer(results_of(search))


def test_a_single_value_is_not_called_the_best_of_many(tmp_path):
    said = answer(results_of(accuracies(tmp_path, [0.5, 0.6])))
    assert "optimistic" not in said
    assert "The value is one of validation." in said


@pytest.mark.parametrize(("num_first", "num_second"), [(2, 2), (3, 3), (2, 4)])
def test_chance_of_being_apart_is_that_of_all_orders(tmp_path, num_first, num_second):
    first, second = results_of(accuracies(tmp_path, [0.5] * num_first, [0.4] * num_second)).suggestions
    objective = results_of(accuracies(tmp_path / "other", [0.5])).objectives[0]
    ranks = range(num_first + num_second)
    orders = list(itertools.permutations(ranks))
    apart = sum(min(order[:num_first]) > max(order[num_first:]) for order in orders)
    assert chance_of_being_apart(first, second, objective) == pytest.approx(apart / len(orders))


def test_caveat_names_the_luck_of_the_seeds_at_hand(written):
    assert any("once in 20 times by luck" in caveat for caveat in caveats(results_of(written[0])))


# -- what counts -------------------------------------------------------------------------------------


def test_values_are_those_of_the_store_in_the_order_of_the_seeds(tmp_path):
    search = accuracies(tmp_path, [0.7, 0.5, 0.6])
    search.suggestions[0]["values"] = {ACCURACY: 0.123}
    suggestion = results_of(search).suggestions[0]
    assert suggestion.seed_values == {ACCURACY: (0.7, 0.5, 0.6)}


def test_no_mean_over_fewer_seeds(tmp_path):
    search = accuracies(tmp_path, [0.5, 0.6], [0.9, 0.8])
    search.store.remove("results/s2-seed1.json")
    results = results_of(search)
    assert [s.state for s in results.suggestions] == ["complete", "lost"]
    assert results.suggestions[1].reasons == ("not finished",)
    assert "suggestion 1 (" in answer(results)
    frame = suggestion_table(results).frame
    assert frame.filter(suggestion=2).select(ACCURACY, f"{ACCURACY} n", "state").row(0) == (None, None, "lost")


def test_a_trial_that_does_not_report_the_objective_is_named(tmp_path):
    search = FabricatedSearch(tmp_path)
    search.add(retrieval_accuracy=[0.5])
    search.add("failed", dice=[0.7])
    assert results_of(search).suggestions[1].reasons == ("reports no val/retrieval_accuracy, but val/dice",)


def test_what_the_search_says_of_a_failure_is_told_where_no_trial_explains_it(tmp_path):
    search = FabricatedSearch(tmp_path)
    search.add("failed", retrieval_accuracy=[0.5])
    search.suggestions[0]["reason"] = "the mean is not finite"
    assert results_of(search).suggestions[0].reasons == ("the mean is not finite",)


def test_suggestions_are_taken_by_number_not_by_place(tmp_path):
    search = accuracies(tmp_path, [0.1], [0.3], [0.2])
    search.suggestions.reverse()
    results = results_of(search)
    assert [s.number for s in results.suggestions] == [1, 2, 3]
    assert results.best_so_far(results.objectives[0]) == [0.1, 0.3, 0.3]


def test_the_front_holds_what_nobody_beats(tmp_path):
    search = FabricatedSearch(tmp_path, BOTH)
    for accuracy, loss in ((0.5, 1.0), (0.6, 1.0), (0.6, 1.0), (0.9, 2.0), (0.9, 1.9), (0.1, 0.5), (0.05, 0.6)):
        search.add(retrieval_accuracy=[accuracy], loss=[loss])
    results = results_of(search)
    assert [s.number for s in results.front()] == [2, 3, 5, 6]
    said = answer(results)
    assert "Of 7 suggestion(s) with a value, 4 form the Pareto front of val/retrieval_accuracy and val/loss" in said
    assert "They are suggestions 2, 3, 5, 6." in said
    assert "Highest val/retrieval_accuracy: suggestion 5, 0.900" in said
    assert "Lowest val/loss: suggestion 6, 0.50 (one seed)" in said
    assert "Suggestion 1, where the search began, is not on the front." in said
    frame = suggestion_table(results).frame
    assert frame["suggestion"].to_list()[:4] == [5, 2, 3, 6]
    assert frame.filter(pl.col("on the front") == "yes")["suggestion"].sort().to_list() == [2, 3, 5, 6]
    data = figures.front_data(results)
    assert data.filter(kind="best")["number"].to_list() == [2, 3, 5, 6]
    assert data.filter(number=5).row(0) == (5, 0.9, 1.9, "best")


def test_where_a_search_began_is_not_on_the_front_where_it_was_not_compared(tmp_path):
    search = FabricatedSearch(tmp_path, BOTH)
    search.manifest["search"]["rungs"] = {"lengths": [1, 2], "reduction": 2}
    search.climb([0.9])
    search.climb([0.5], [0.6])
    results = results_of(search)
    assert "has gone no further than 1 epochs, so it is not compared" in answer(results)
    assert dict(suggestion_table(results).frame.select("suggestion", "on the front").rows()) == {1: None, 2: "yes"}


def test_a_front_of_one_is_said_so(tmp_path):
    search = FabricatedSearch(tmp_path, BOTH)
    for accuracy, loss in ((0.5, 1.0), (0.6, 0.9)):
        search.add(retrieval_accuracy=[accuracy], loss=[loss])
    said = answer(results_of(search))
    assert "1 forms the Pareto front" in said
    assert "It is suggestion 2." in said


# -- tables and figures -------------------------------------------------------------------------------


def test_table_is_sorted_and_ends_with_what_has_no_value(written):
    results = results_of(written[0])
    frame = suggestion_table(results).frame
    assert frame[ACCURACY].to_list()[:14] == sorted(frame[ACCURACY].to_list()[:14], reverse=True)
    assert frame["suggestion"].to_list()[14:] == [5, 16]
    assert frame["state"].to_list()[14:] == ["failed", "running"]
    row = frame.filter(suggestion=7).row(0, named=True)
    values = [written[0].store.result(f"s7-seed{seed}").metrics[ACCURACY] for seed in range(3)]
    assert row[ACCURACY] == pytest.approx(sum(values) / 3)
    assert row[f"{ACCURACY} std"] == pytest.approx(pl.Series(values).std())
    assert row["learning_rate"] == params(7)["learning_rate"]
    assert row["key_momentum"] == str(params(7)["key_momentum"])


def test_table_prints_mean_std_and_n(tmp_path):
    table = suggestion_table(results_of(accuracies(tmp_path, [0.5, 0.52, 0.54], [0.6, 0.7, 0.8], [0.123])))
    lines = to_markdown(table).splitlines()
    assert lines[4] == "| 2 | 4.64e−07 | 3 | 0.999 | 0.700(0.100) | 3 | complete |"
    assert lines[6] == "| 3 | 1e−06 | 4 | 0.9 | 0.123 | 1 | complete |"
    assert pl.read_csv(io.StringIO(to_csv(table)))["learning_rate"][0] == params(2)["learning_rate"]


@pytest.mark.parametrize(("means", "expected"), [((0.5, 0.9), 3), ((0.5, 0.51), 4), ((100, 900), 0), ((0.5, 0.5), 3)])
def test_decimals_tell_the_means_apart(tmp_path, means, expected):
    results = results_of(accuracies(tmp_path, *([mean] for mean in means)))
    assert decimals_of(results, results.objectives[0]) == expected


def test_progress_data(tmp_path):
    search = FabricatedSearch(tmp_path)
    search.add(retrieval_accuracy=[0.5, 0.7])
    search.fail(search.add("failed", retrieval_accuracy=[None, None])[0], "killed")
    search.add(retrieval_accuracy=[0.3, 0.4])
    search.add(retrieval_accuracy=[0.9, 0.7])
    data = figures.progress_data(results_of(search)).select("number", "state", "kind", "low", "high", "best_so_far")
    assert data.rows() == [
        (1, "complete", "compared", 0.5, 0.7, 0.6),
        (2, "failed", "compared", None, None, None),
        (3, "complete", "compared", 0.3, 0.4, 0.6),
        (4, "complete", "best", 0.7, 0.9, 0.8),
    ]
    seeds = figures.seed_data(results_of(search))
    assert seeds.filter(number=4).select("seed", "value").rows() == [(0, 0.9), (1, 0.7)]
    assert seeds.height == 6


def axes(specification):
    """Field of the place -> its scale, over all panels."""
    found = {}
    for panel in specification["concat"]:
        x = panel["layer"][-1]["encoding"]["x"]
        found[x["title"]] = (x["type"], x["scale"])
    return found


def test_parameters_stand_on_their_own_axes(written):
    figure = figures.parameter_figure(results_of(written[0]))
    found = axes(figure.specification)
    assert found["learning_rate"][0] == "quantitative"
    assert found["learning_rate"][1]["type"] == "log"
    assert found["learning_rate"][1]["domain"] == [1e-7, 0.1]
    assert found["num_layers"][1]["type"] == "linear"
    assert found["num_layers"][1]["domain"] == [1, 8]
    assert found["key_momentum"][0] == "nominal"
    assert found["key_momentum"][1]["domain"] == ["0.9", "0.99", "0.999"]


def test_a_small_learning_rate_is_drawn_where_it_is(written):
    specification = figures.parameter_figure(results_of(written[0])).specification
    panel = specification["concat"][0]["layer"][-1]["data"]["name"]
    places = {row["number"]: row["place"] for row in specification["datasets"][panel]}
    assert places[1] == pytest.approx(params(1)["learning_rate"], rel=1e-5)
    assert 5 not in places


def test_every_quantity_of_the_search_stands_on_its_own_axis(written):
    results = results_of(written[0])
    figure = figures.progress_figure(results)
    panel = panels_of(figure)[0]
    (steps,) = layers_of(panel, "line")
    assert (steps.fields["x"], steps.fields["y"]) == ("number", "best_so_far")
    best = [row["best_so_far"] for row in steps.rows]
    assert best == pytest.approx(results.best_so_far(results.objectives[0]))
    assert best == sorted(best)
    assert best != pytest.approx([row["mean"] for row in steps.rows])
    (spread,) = layers_of(panel, "rule")
    assert [spread.fields[axis] for axis in ("x", "y", "y2")] == ["number", "low", "high"]
    lacking, single, means = layers_of(panel, "point")[-1], *layers_of(panel, "point")[:2]
    assert [row["number"] for row in lacking.rows] == [5, 16]
    assert (lacking.fields["x"], "y" in lacking.fields) == ("number", False)
    assert (single.fields["x"], single.fields["y"]) == ("number", "value")
    of_seven = [row["value"] for row in single.rows if row["number"] == 7]
    assert of_seven == pytest.approx([written[0].store.result(f"s7-seed{s}").metrics[ACCURACY] for s in range(3)])
    assert (means.fields["x"], means.fields["y"]) == ("number", "mean")
    assert means.encoding["color"]["field"] == "kind"
    assert means.encoding["color"]["scale"]["domain"][0] == "best"


def test_seed_points_stand_where_the_parameter_of_their_suggestion_is(written):
    for _, layers in panels_of(figures.parameter_figure(results_of(written[0]))):
        spread, single, means = layers
        assert [layer.fields["x"] for layer in layers] == ["place"] * 3
        assert [spread.fields["y"], spread.fields["y2"], single.fields["y"], means.fields["y"]] == [
            "low", "high", "value", "mean",
        ]  # fmt: skip
        places = {row["number"]: row["place"] for row in means.rows}
        assert {(row["number"], row["place"]) for row in single.rows} == set(places.items())
        assert len(single.rows) == 3 * len(means.rows)


def test_the_front_has_the_first_objective_across_and_the_second_upwards(tmp_path):
    results = results_of(large(tmp_path, BOTH))
    ((_, layers),) = panels_of(figures.front_figure(results))
    for layer in layers:
        assert (layer.fields["x"], layer.fields["y"]) == ("x", "y")
        assert layer.encoding["x"]["title"] == f"{ACCURACY} (maximize)"
        assert layer.encoding["y"]["title"] == f"{LOSS} (minimize)"
    suggestion = results.complete[2]
    row = figures.front_data(results).filter(number=suggestion.number).row(0, named=True)
    assert (row["x"], row["y"]) == tuple(suggestion.mean(objective) for objective in results.objectives)


# -- the page ----------------------------------------------------------------------------------------


def test_paths_and_files(written):
    page, figure_folder, table_folder = written[1]
    assert page.name == "report.html"
    assert {p.name for p in figure_folder.iterdir()} == {
        f"{n}.{s}" for n in ("progress", "parameters") for s in ("svg", "png")
    }
    assert {p.name for p in table_folder.iterdir()} == {f"suggestions.{s}" for s in ("md", "tex", "csv")}
    assert (figure_folder / "progress.png").read_bytes()[:4] == b"\x89PNG"
    # As many marks for means as there are suggestions with a value: a scale that lost its data would draw none.
    assert (figure_folder / "progress.svg").read_text().count('aria-roledescription="point"') >= 2 * 14


def test_page_answers_and_shows_its_set_up(written):
    search, html = written[0], written[1][0].read_text()
    results = results_of(search)
    assert answer(results) in section(html, "Answer")
    assert "Incomplete: 14 of 16 suggestions have a value" in section(html, "Answer")
    best = results.ranked(results.objectives[0])[0].number
    for text in (
        "maximize val/retrieval_accuracy", "1e-07 to 0.1, on a log scale", "one of 0.9, 0.99, 0.999", "16 suggestions",
        "toy: train 77, val 36", "<dt>Licence</dt><dd>free</dd>",
        "<dt>search begins</dt><dd>defaults</dd>", f"configuration of s{best}-seed0",
    ):  # fmt: skip
        assert text in section(html, "Set-up"), text
    assert "&lt;most&gt;" in section(html, "Question")
    assert "The images of toy are slices of one volume" in section(html, "Caveats")
    assert "python studies/toy_search.py --scale smoke" in section(html, "How to reproduce")
    assert "0123abc" in section(html, "How to reproduce")


def test_page_loads_nothing_and_holds_the_data_of_its_charts(written):
    html = written[1][0].read_text()
    assert 'src="http' not in html
    assert 'href="http' not in html
    charts = re.findall(r'<script type="application/json" data-chart="chart-(\w+)">(.*?)</script>', html, re.S)
    assert [name for name, _ in charts] == ["progress", "parameters"]
    assert all(json.loads(content)["datasets"] for _, content in charts)


def test_what_is_missing_and_why(tmp_path):
    search = accuracies(tmp_path, [0.5, 0.6], num_suggestions=9)
    failed = search.add("failed", retrieval_accuracy=[0.5, None])
    search.fail(failed[1], "train/loss is NaN <epoch 3>")
    search.add("running", retrieval_accuracy=[0.5, None])
    search.add("running", retrieval_accuracy=[0.5, 0.5])
    search.add_trial("control", named=True)
    search.add_trial("between", named=False)
    html = search_report(search.store, search.manifest, tmp_path / "out")[0].read_text()
    rows = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", section(html, "What is missing"))
    setting = "(learning_rate 4.64e−07, num_layers 3, key_momentum 0.999)"
    assert rows[0] == ("suggestion 2, failed", f"invalid: train/loss is NaN &lt;epoch 3&gt; {setting}")
    assert rows[1][0] == "suggestion 3, running"
    assert rows[1][1].startswith("not finished (")
    assert rows[2][1].startswith("all its trials are done, the search has not counted it yet (")
    assert rows[3] == ("5 suggestion(s)", "not made yet; the same command goes on")
    assert rows[4:] == [("control", "not finished")]


def test_nothing_is_missing(tmp_path):
    search = accuracies(tmp_path, [0.5, 0.6], [0.7, 0.8], num_suggestions=2)
    html = search_report(search.store, search.manifest, tmp_path / "out")[0].read_text()
    assert "Nothing: every trial" in section(html, "What is missing")
    assert "Incomplete" not in html


def test_a_report_of_several_objectives_shows_the_front_first(tmp_path):
    search = large(tmp_path, BOTH)
    html = search_report(search.store, search.manifest, tmp_path / "out")[0].read_text()
    assert re.findall(r'data-chart="chart-(\w+)"', html)[:3] == ["front", "progress", "parameters"]
    assert "minimize val/loss" in section(html, "Set-up")
    specification = figures.progress_figure(results_of(search)).specification
    titles = [panel["layer"][0]["encoding"]["y"]["title"] for panel in specification["vconcat"]]
    assert titles == [ACCURACY, LOSS]


@pytest.mark.parametrize("states", [[], ["failed", "running"]])
def test_a_search_without_any_value_still_gets_its_report(tmp_path, states):
    search = FabricatedSearch(tmp_path)
    for state in states:
        search.add(state, retrieval_accuracy=[None])
    paths = search_report(search.store, search.manifest, tmp_path / "out")
    assert "No suggestion has a value yet" in paths[0].read_text()
    assert pl.read_csv(paths[2] / "suggestions.csv").height == len(states)
