"""Cells and the frame of a study: means over seeds with their n, what is missing, and what was computed otherwise."""

import pytest
from synthetic_study import MADE, FabricatedStudy, labels

from analysis.cells import cells_of, missing_lines, mixed_lines
from analysis.results import leaves, load_study
from trainables.api.names import cell_name, label_values

COMMAND = "python studies/toy_curves.py"


def fabricated(folder, seeds=3):
    """Trained curves of ``seeds`` seeds with the values .1, .2, … and one mask."""
    made = FabricatedStudy(folder)
    for seed in range(seeds):
        metrics = {"val/interpretability": 0.1 * (seed + 1)} | ({"extra": 1.0} if seed == 0 else {})
        made.add(f"t{seed}", "trained", labels(), {"encoder.pretrain_seed": seed}, files={}, metrics=metrics)
    made.add("m", "mask", labels(), files={}, metrics={"val/interpretability": 0.9})
    return made


def cells(made, **chosen):
    return cells_of(load_study(made.store, made.manifest), **chosen)


def test_a_cell_has_mean_std_and_n_over_its_seeds(tmp_path):
    trained, mask = cells(fabricated(tmp_path))
    assert (trained.role, trained.n, trained.num_wanted) == ("trained", 3, 3)
    assert trained.mean("val/interpretability") == pytest.approx(0.2)
    assert trained.std("val/interpretability") == pytest.approx(0.1), "n - 1"
    assert trained.mean("extra") is None, "never a mean over fewer seeds than the cell has"
    assert trained.mean("unknown") is None
    assert (mask.n, mask.mean("val/interpretability"), mask.std("val/interpretability")) == (1, 0.9, None)


def test_cells_are_chosen_by_role_and_labels(tmp_path):
    made = fabricated(tmp_path)
    made.add("g", "trained", labels(region="grey_matter"), {"encoder.pretrain_seed": 0}, files={})
    assert [cell.role for cell in cells(made)] == ["trained", "mask", "trained"]
    assert [cell.n for cell in cells(made, role="trained")] == [3, 1]
    assert [cell.n for cell in cells(made, role="trained", region="grey_matter")] == [1]
    assert cells(made, data="brats") == []


def test_a_cell_with_missing_seeds_says_which_and_how_to_get_them(tmp_path):
    made = fabricated(tmp_path, seeds=1)
    made.add("t1", "trained", labels(), {"encoder.pretrain_seed": 1, "images.selection_seed": 0})
    made.manifest["trials"][0]["seeds"]["images.selection_seed"] = 0  # it has this one too, and the same
    (trained, mask) = cells(made)
    assert (trained.n, trained.num_wanted, trained.mean("val/interpretability")) == (1, 2, 0.1)
    assert missing_lines([trained, mask], COMMAND) == [
        (
            "trained · rotation · mni152 · white matter: 1 of 2 seeds",
            f"lacks pretrain_seed 1 (not finished): `{COMMAND}` computes it",
        )
    ]


def test_a_cell_is_mixed_by_what_its_mean_goes_over_only(tmp_path):
    made = FabricatedStudy(tmp_path)
    for seed, device in ((0, "cpu"), (7, "H100")):
        made.pretraining(seed, made=MADE | {"device": device})
    metrics = {"val/interpretability": 0.1}
    made.add("t0", "trained", labels(), {"encoder.pretrain_seed": 0}, files={}, metrics=metrics, upstream=["moco-0"])
    made.add("t7", "trained", labels(), {"encoder.pretrain_seed": 7}, upstream=["moco-7"])
    (trained,) = cells(made, role="trained")
    assert (trained.n, trained.num_wanted) == (1, 2)
    assert trained.mixed == {}
    made.publish("t7", {}, metrics={"val/interpretability": 0.2})
    (trained,) = cells(made, role="trained")
    assert trained.n == 2
    assert any("H100" in values for values in trained.mixed.values())


def test_a_failed_seed_asks_for_retry_and_one_that_waits_does_not(tmp_path):
    made = fabricated(tmp_path, seeds=1)
    made.add("moco", named=False)
    made.add("t1", "trained", labels(), {"encoder.pretrain_seed": 1}, upstream=["moco"])
    ((_, waiting),) = missing_lines(cells(made, role="trained"), COMMAND)
    assert "pretrain_seed 1 (waits for a trial without result (not finished))" in waiting
    assert waiting.endswith(f"`{COMMAND}` computes it")
    made.fail("moco", "non-finite", "train/loss is NaN")
    ((_, blocked),) = missing_lines(cells(made, role="trained"), COMMAND)
    assert blocked.endswith(f"`{COMMAND}` with --retry-failed once the cause is mended")
    made.fail("t1", "non-finite", "train/loss is NaN")
    ((_, failed),) = missing_lines(cells(made, role="trained"), COMMAND)
    assert "pretrain_seed 1 (invalid: train/loss is NaN)" in failed
    assert failed.endswith(f"`{COMMAND}` with --retry-failed once the cause is mended")


@pytest.mark.parametrize("name", ["device", "cpu", "threads"])
def test_seeds_that_were_computed_on_different_machines_are_said(tmp_path, name):
    made = fabricated(tmp_path)
    made.add("t3", "trained", labels(), {"encoder.pretrain_seed": 3}, files={}, made=MADE | {name: "other"})
    trained, mask = cells(made)
    assert trained.mixed == {name: sorted([MADE[name], "other"])}
    assert mask.mixed == {}
    line, _ = mixed_lines([trained, mask])
    assert line.startswith("trained · rotation · mni152 · white matter: its seeds were computed with different ")
    assert f"{name} ({', '.join(sorted([MADE[name], 'other']))})" in line


def test_how_the_encoder_was_trained_counts_as_well(tmp_path):
    made = fabricated(tmp_path, seeds=0)
    for seed, threads in ((0, "1"), (1, "2")):
        made.add(f"moco{seed}", named=False, files={}, made=MADE | {"threads": threads})
        made.add(f"t{seed}", "trained", labels(), {"encoder.pretrain_seed": seed}, upstream=[f"moco{seed}"], files={},
                 metrics={"val/interpretability": 0.1})  # fmt: skip
    (line,) = mixed_lines(cells(made, role="trained"))
    assert "computed with different threads of what it was made from (1, 2)." in line


def test_machines_that_are_alike_are_no_word_worth(tmp_path):
    assert mixed_lines(cells(fabricated(tmp_path))) == []


@pytest.mark.parametrize("name", ["device", "cpu", "threads", "version.torch"])
def test_roles_that_are_compared_and_were_computed_on_different_machines_are_said(tmp_path, name):
    made = fabricated(tmp_path)
    made.add("u0", "untrained", labels(), {"encoder.init_seed": 0}, files={}, made=MADE | {name: "other"})
    made.add("u1", "untrained", labels(sweep="blur"), files={}, made=MADE | {name: "other"})
    made.add("u2", "untrained", labels(region="grey_matter"))
    (line,) = mixed_lines(cells(made))
    usual = MADE.get(name, "unknown")
    assert line.startswith("rotation · mni152 · white matter: curves that are compared were computed with different ")
    assert f"{name}: trained with {usual}, mask with {usual}, untrained with other." in line


def test_a_cell_is_called_as_in_mlflow(tmp_path):
    (trained, _) = cells(fabricated(tmp_path))
    assert trained.name == cell_name("trained", labels()) == "trained · rotation · mni152 · white matter"
    sorted_by_name = dict(sorted(labels(method="tool").items()))
    assert cell_name("mask", sorted_by_name) == "mask · rotation · tool · mni152 · white matter"
    assert cell_name("", {"data": "mni152"}) == "mni152"
    # The name of a data set is that of the command line, whatever it is made of.
    mine = {"data": "folder-my_images", "region": "grey_matter"}
    assert cell_name("mask", mine) == "mask · folder-my_images · grey matter"


def test_labels_stand_in_reading_order_whatever_their_order_in_the_manifest():
    sorted_by_name = dict(sorted(labels("d", "r", "s", method="m", other="o").items()))
    assert label_values(sorted_by_name) == ["d", "r", "s", "m", "o"]


def test_frame_has_labels_seeds_configuration_metrics_and_how_it_was_made(tmp_path):
    made = FabricatedStudy(tmp_path)
    configuration = {"class": "Curve", "values": [0.0, 90.0], "encoder": {"class": "MoCo", "num_epochs": 40},
                     "chain": [{"class": "Flip"}]}  # fmt: skip
    made.add("moco", named=False, files={})
    made.add("t0", "trained", labels(), {"encoder.pretrain_seed": 0}, upstream=["moco"], files={},
             metrics={"val/interpretability": 0.25}, configuration=configuration)  # fmt: skip
    made.add("m", "mask", labels(sweep="blur"))
    frame = load_study(made.store, made.manifest).frame()
    assert frame["key"].to_list() == ["t0", "m"], "only what the study names"
    row = frame.row(0, named=True)
    assert {name: row[name] for name in row if not name.startswith(("cell", "name"))} == {
        "key": "t0", "class": "Toy", "role": "trained", "state": "done", "reason": "", "label.data": "mni152",
        "label.region": "white_matter", "label.sweep": "rotation", "seed.encoder.pretrain_seed": 0,
        "config.class": "Curve", "config.values": "0.0, 90.0", "config.encoder.class": "MoCo",
        "config.encoder.num_epochs": "40", "config.chain.0.class": "Flip", "metric.val/interpretability": 0.25,
        "made.device": "cpu", "made.cpu": "AMD EPYC", "made.threads": "1", "config.num_samples": None,
    }  # fmt: skip
    assert frame.row(1, named=True)["state"] == "missing"
    assert frame.row(1, named=True)["reason"] == "not finished"
    assert frame["label.sweep"].to_list() == ["rotation", "blur"]


def test_leaves_of_a_configuration():
    assert leaves({"a": {"b": 1, "c": [1, 2]}, "d": None, "e": [[1], [2]]}) == [
        ("a.b", "1"), ("a.c", "1, 2"), ("d", "None"), ("e.0", "1"), ("e.1", "2"),
    ]  # fmt: skip


def test_results_give_histories_labels_and_samples(tmp_path):
    made = FabricatedStudy(tmp_path)
    made.pretraining(0)
    made.add("t0", "trained", labels(), files={})
    results = load_study(made.store, made.manifest)
    history = results.history("moco-0")
    assert history.filter(metric="train/loss").select("step", "value").rows()[:2] == [(1, 5.0), (2, 2.5)]
    assert results.labels("data") == ["mni152"]
    assert results.labels("unknown") == []
    assert results.samples("t0", "samples.npz") is None
    assert [entry["key"] for entry in results.entries()] == ["t0"]
