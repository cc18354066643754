"""The report of a search with rungs: nothing is compared across lengths."""

import polars as pl
import pytest
from charts import layers_of, panels_of
from synthetic_search import ACCURACY, FabricatedSearch, with_rungs

from analysis.search import figures
from analysis.search.findings import answer, caveats
from analysis.search.report import search_report
from analysis.search.suggestions import load_search
from analysis.search.tables import rung_table, suggestion_table


def climbed(folder, *suggestions, lengths=(4, 12), reduction=3, **changes):
    """A search with rungs, from the stages of its suggestions."""
    search = FabricatedSearch(folder, num_suggestions=len(suggestions))
    search.manifest["search"]["rungs"] = {"lengths": list(lengths), "reduction": reduction}
    for stages in suggestions:
        search.climb(*stages)
    return load_search(search.store, search.manifest)


LOW, MIDDLE, HIGH = [0.1, 0.2], [0.4, 0.5], [0.8, 0.9]


def test_the_best_is_one_of_those_that_went_farthest(tmp_path):
    results = climbed(tmp_path, [MIDDLE], [LOW, MIDDLE], [HIGH], [LOW, [0.5, 0.6]])
    objective = results.objectives[0]
    assert [s.number for s in results.ranked(objective)] == [4, 2, 3, 1]
    assert [s.number for s in results.compared] == [2, 4]
    assert [s.number for s in results.front()] == [4]
    assert results.best_so_far(objective) == pytest.approx([0.45, 0.55])
    assert results.longest == 12
    said = answer(results)
    assert "Of 2 suggestion(s) with a value after 12 epochs, of 4 tried, suggestion 4" in said
    assert "has the highest val/retrieval_accuracy: 0.550" in said
    assert "the best of 4 was chosen" in said
    assert "curves cross" in " ".join(caveats(results))


def test_a_beginning_that_was_left_behind_is_compared_where_it_stopped(tmp_path):
    results = climbed(tmp_path, [MIDDLE], [[0.45, 0.6], HIGH], [LOW])
    said = answer(results)
    assert "Suggestion 1, where the search began, was not among the best after 4 epochs and went no further" in said
    assert "there it has 0.450" in said
    assert "suggestion 2 has 0.525" in said
    assert "better in 2 of 2 seeds" in said
    assert "0.850 (std" in said
    assert "overlap with those" not in said


def test_a_beginning_that_was_promoted_and_failed_was_not_left_behind(tmp_path):
    search = FabricatedSearch(tmp_path, num_suggestions=2)
    search.manifest["search"]["rungs"] = {"lengths": [4, 12], "reduction": 2}
    search.climb(MIDDLE, [None, 0.5], state="failed")
    search.climb(LOW, HIGH)
    said = answer(load_search(search.store, search.manifest))
    assert "has no value after 12 epochs (failed), and one after 4: there it has 0.450" in said
    assert "not among the best" not in said


def test_while_suggestions_are_to_come_a_beginning_may_still_go_on(tmp_path):
    search = FabricatedSearch(tmp_path, num_suggestions=9)
    search.manifest["search"]["rungs"] = {"lengths": [4, 12], "reduction": 2}
    search.climb(MIDDLE)
    search.climb(LOW, HIGH)
    said = answer(load_search(search.store, search.manifest))
    assert "where the search began, has gone no further than 4 epochs so far: there it has 0.450" in said


def test_a_beginning_that_came_as_far_is_compared_there(tmp_path):
    said = answer(climbed(tmp_path, [LOW, MIDDLE], [HIGH, HIGH], [LOW]))
    assert "Suggestion 1, where the search began, has 0.45" in said
    assert "lies beyond the spread over seeds" in said


def test_before_anything_came_to_the_end_the_longest_so_far_counts(tmp_path):
    results = climbed(tmp_path, [MIDDLE], [LOW, MIDDLE], [HIGH], lengths=(4, 12, 36))
    assert results.longest == 12
    assert [s.number for s in results.compared] == [2]


def test_what_fails_or_runs_on_its_way_keeps_the_value_that_it_had(tmp_path):
    search = with_rungs(tmp_path)
    results = load_search(search.store, search.manifest)
    four = results.suggestions[3]
    assert (four.state, four.length, len(four.seed_values[ACCURACY])) == ("complete", 4, 2)
    assert [stage.state for stage in four.stages] == ["complete", "failed"]
    assert results.suggestions[17].state == "running"


def test_a_result_that_has_vanished_is_lost_at_its_length_only(tmp_path):
    search = with_rungs(tmp_path)
    search.store.remove("results/s9-seed0-36.json")
    nine = load_search(search.store, search.manifest).suggestions[8]
    assert [stage.state for stage in nine.stages] == ["complete", "complete", "lost"]
    assert (nine.state, nine.length) == ("complete", 12)


def test_tables_count_the_rungs_and_the_epochs(tmp_path):
    results = climbed(tmp_path, [LOW], [LOW, MIDDLE], [HIGH, HIGH], [LOW], lengths=(4, 12), reduction=2)
    assert results.epochs() == (2 * (4 + 12 + 12 + 4), 2 * 4 * 12)
    table = rung_table(results)
    assert table.frame.select("epochs", "suggestions", "with a value").rows() == [(4, 4, 4), (12, 2, 2)]
    assert "64 epochs were trained, over all seeds; all 4 suggestions to the end would have taken 96" in table.note
    frame = suggestion_table(results).frame
    assert frame.select("suggestion", "epochs").rows() == [(3, 12), (2, 12), (1, 4), (4, 4)]


def test_failed_stages_are_counted(tmp_path):
    search = with_rungs(tmp_path)
    frame = rung_table(load_search(search.store, search.manifest)).frame
    assert frame.select("epochs", "suggestions", "with a value", "failed", "running").rows() == [
        (4, 18, 17, 0, 1), (12, 6, 5, 1, 0), (36, 1, 1, 0, 0),
    ]  # fmt: skip


def test_curves_go_through_the_means_at_each_length(tmp_path):
    results = climbed(tmp_path, [MIDDLE], [LOW, MIDDLE], [HIGH, HIGH])
    data = figures.curve_data(results)
    assert data.filter(number=2).select("epochs", "mean", "kind").rows() == [
        (4, pytest.approx(0.15), "compared"), (12, pytest.approx(0.45), "compared"),
    ]  # fmt: skip
    assert data.filter(number=1).select("epochs", "kind").rows() == [(4, "shorter")]
    assert set(data.filter(number=3)["kind"]) == {"best"}
    (panel,) = panels_of(figures.curve_figure(results))
    (lines,) = layers_of(panel, "line")
    assert (lines.fields["x"], lines.fields["y"], lines.fields["detail"]) == ("epochs", "mean", "number")


def test_the_best_so_far_is_of_one_length(tmp_path):
    data = figures.progress_data(climbed(tmp_path, [HIGH], [LOW, MIDDLE], [LOW, LOW]))
    assert data["best_so_far"].to_list() == [None, pytest.approx(0.45), pytest.approx(0.45)]
    assert data["kind"].to_list() == ["shorter", "best", "compared"]
    assert data["epochs"].to_list() == [4, 12, 12]


def test_the_page_says_what_the_rungs_saved(tmp_path):
    search = with_rungs(tmp_path)
    report, *_ = search_report(search.store, search.manifest, tmp_path / "out")
    page = report.read_text()
    assert "after 4, 12, 36 epochs; the best 1 of 3 goes on to the next" in page
    assert "<dd>264 over all seeds, of 1296 if all went to the end</dd>" in page
    assert "suggestion 4 after 12 epochs, failed" in page
    assert "train/loss is NaN at epoch 9" in page
    assert "How the suggestions fared at the rungs" in page
    assert (tmp_path / "out/tables/rungs.csv").exists()
    assert pl.read_csv(tmp_path / "out/tables/suggestions.csv")["epochs"][0] == 36


def test_a_search_without_rungs_speaks_of_none(tmp_path):
    search = FabricatedSearch(tmp_path)
    search.add(retrieval_accuracy=[0.5, 0.7])
    report, *_ = search_report(search.store, search.manifest, tmp_path / "out")
    page = report.read_text()
    assert not [word for word in ("Rungs", "Epochs trained", "epochs;", "rungs") if word in page]
    assert not (tmp_path / "out/tables/rungs.csv").exists()
