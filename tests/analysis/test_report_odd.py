"""Reports of studies that are odd, unfinished or small."""

import json

import numpy as np
import polars as pl
import pytest
from reported import ANGLES, only, reported, reported_one, section, small
from synthetic_curves import BLUR, ROTATION, frame, study
from synthetic_study import MNI152, FabricatedStudy, blur, labels

from analysis.bootstrap import Bootstrap
from analysis.pages import report
from analysis.pages.evidence import curve_sets
from analysis.render import files
from analysis.results import load_study

# -- odd studies ----------------------------------------------------------------------------------------------------


def test_two_methods_of_one_sweep_stand_on_one_page_with_files_of_their_own(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    made.curves(small(1), ROTATION, labels())
    made.curves(small(1, trained_amplitudes=(0.06,)), ROTATION, labels(method="smoothgrad_of_the_tool"))
    pages = reported(made, tmp_path / "out")
    html = only(pages)
    for heading in ("Rotation angle", "Rotation angle, smoothgrad of the tool"):
        assert f"<h2>{heading}</h2>" in html
        assert f'<p class="answer">{heading}: ' in html
    tables = tmp_path / "out" / "mni152-white_matter" / "tables"
    amplitudes = []
    for name in ("rotation", "rotation-smoothgrad_of_the_tool"):
        table = pl.read_csv(tables / f"{name}_coefficients.csv")
        amplitudes.append(table.filter(role="trained", field_of_view="full")["amplitude"].item())
    assert amplitudes == pytest.approx([0.03, 0.06], abs=0.005)


def test_labels_that_were_written_and_read_again_change_nothing(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    made.curves(small(1), ROTATION, labels(method="other"), samples=False)
    first = reported(made, tmp_path / "out")
    made.manifest = json.loads(json.dumps(made.manifest, sort_keys=True))
    assert reported(made, tmp_path / "again") == first


def test_only_untrained_curves_are_finished(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    made.curves(small(leave_out=("trained", "fixed map", "mask", "intensity")), ROTATION, labels())
    made.add("t0", "trained", labels(), {"encoder.pretrain_seed": 0}, upstream=[made.pretraining(0, is_done=False)])
    html = only(reported(made, tmp_path / "out"))
    assert "cannot be answered from what is there: no trained encoder was measured" in html
    assert "No trained encoder was measured." in html
    assert "no pretraining is finished" in html
    assert ": 0 of 1 seeds" in html


def test_only_a_mask_is_finished(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    made.curves(small().filter(role="mask"), ROTATION, labels())
    html = only(reported(made, tmp_path / "out"))
    assert "no trained encoder was measured; no untrained encoder was measured" in html


def test_a_region_and_a_sweep_without_any_finished_curve_are_said_to_be_missing(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    made.add("t0", "trained", labels(region="grey_matter"), {"encoder.pretrain_seed": 0})
    made.curves(small(1), ROTATION, labels(), samples=False)
    made.add("t1", "trained", labels(sweep="blur"), {"encoder.pretrain_seed": 0})
    pages = reported(made, tmp_path / "out")
    assert list(pages) == ["mni152-grey_matter", "mni152-white_matter"], "in the order of the manifest"
    grey, white = pages.values()
    assert "cannot be answered yet: no curve of mni152 · grey_matter is finished" in section(grey, "Answer")
    assert "trained · rotation · mni152 · grey matter: 0 of 1 seeds" in section(grey, "What is missing")
    assert "images from" not in section(grey, "Caveats")
    assert "trained · blur · mni152 · white matter: 0 of 1 seeds" in section(white, "What is missing")
    assert "blur · mni152 · white matter: 0 of 1 seeds" in section(white, "Answer")


def test_folders_whose_names_are_nearly_alike_have_pages_of_their_own(plain, tmp_path):
    names = ["folder-a b", "folder-a_b", "folder-a/b"]
    made = FabricatedStudy(tmp_path, [MNI152 | {"name": name} for name in names])
    for name in names:
        made.add(f"t{name}", "trained", labels(name, "mask"), {"encoder.pretrain_seed": 0})
    pages = reported(made, tmp_path / "out")
    assert len(pages) == 3
    assert "folder-a_b-mask" in pages, "a name that can be kept is kept"
    for name, html in zip(names, pages.values(), strict=True):
        assert f"no curve of {name} · mask is finished" in html


def test_names_of_files_tell_their_parts_apart():
    assert files.file_name("mni152", "white_matter") == "mni152-white_matter"
    alike = [("a b", "c"), ("a_b", "c"), ("a/b", "c"), ("a", "b-c"), ("a-b", "c"), ("..", "c"), ("_.", "c")]
    names = [files.file_name(*parts) for parts in alike]
    assert len(set(names)) == len(alike)
    assert not any("/" in name or name.startswith(".") for name in names)
    assert files.file_name("a b", "c") == names[0]


def test_one_image_has_no_intervals(plain, tmp_path):
    html = only(reported_one(tmp_path, small(num_images=1), ROTATION))
    assert "too few independent blocks of images for an interval" in html
    assert "over 1 images and 2 seed(s)" in html
    html = only(reported_one(tmp_path / "blur", blur(1), BLUR))
    assert "too few independent blocks of images for an interval" in html


def test_one_value_carries_neither_trend_nor_wave(plain, tmp_path):
    html = only(reported_one(tmp_path, blur(4).filter(pl.col("value").is_in([0.0, 0.04])), BLUR))
    assert "cannot be answered from what is there: a trend needs 2 values besides the neutral 0, got [0.04]" in html
    html = only(reported_one(tmp_path / "wave", small().filter(pl.col("value").is_in([0.0, 90.0])), ROTATION))
    assert "there is no angle to fit the wave to; add angles between the multiples of 90°" in html
    alone = only(reported_one(tmp_path / "alone", blur(4).filter(value=0.04), BLUR))
    assert "got [0.04]" in alone


def test_coarse_angles_are_said(plain, tmp_path):
    html = only(reported_one(tmp_path, study(2, np.arange(0, 361, 45.0)), ROTATION))
    assert "this grid resolves 0" in section(html, "Answer")
    assert "The grid of angles is too coarse" in html


def test_curves_of_different_values_are_refused_by_name(tmp_path):
    made = FabricatedStudy(tmp_path)
    rows = small(1)
    made.curves(
        rows.filter((pl.col("role") != "mask") | (pl.col("value") % 30 == 0)), ROTATION, labels(), samples=False
    )
    said = (
        "mni152 · white_matter · rotation: trained was measured at 23 values from 15 to 345 and mask at 11 values from"
    )
    with pytest.raises(ValueError, match=said):
        report.curve_report(made.store, made.manifest, tmp_path / "out")
    seeds = FabricatedStudy(tmp_path / "seeds")
    odd = (pl.col("role") == "untrained") & (pl.col("seed") == "1") & (pl.col("value") == 45)
    seeds.curves(rows.filter(~odd), ROTATION, labels(), samples=False)
    with pytest.raises(
        ValueError, match=r"the seeds \['0', '1', '2'\] of 'untrained' were measured at different values"
    ):
        report.curve_report(seeds.store, seeds.manifest, tmp_path / "out")


def test_a_method_that_has_no_map_at_the_neutral_value_may_lack_it(plain, tmp_path):
    rows = small(1).filter((pl.col("role") == "mask") | ~pl.col("value").is_in([0.0, 360.0]))
    assert "This encoder" in only(reported_one(tmp_path, rows, ROTATION))


def test_a_released_encoder_is_shown_and_no_control(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    made.curves(small(1), ROTATION, labels())
    values = np.tile(0.5 + 0.01 * np.cos(4 * np.deg2rad(ANGLES)), (4, 1))
    rows = frame("released", values, ANGLES, fields=("full", "kept"))
    made.curve(rows, ROTATION, labels(), "released", "0")
    html = only(reported(made, tmp_path / "out"))
    table = pl.read_csv(tmp_path / "out/mni152-white_matter/tables/rotation_levels.csv")
    assert table["role"].unique(maintain_order=True).to_list()[:4] == ["trained", "untrained", "released", "fixed map"]
    assert "released · rotation · mni152 · white matter" in section(html, "Set-up")
    assert "one training (n = 1): its curve has no spread over seeds" in section(html, "Caveats")


def test_seeds_that_differ_in_several_fields_are_all_counted(plain, tmp_path):
    made = FabricatedStudy(tmp_path)
    rows = small(1)
    made.curves(rows.filter(pl.col("role") != "untrained"), ROTATION, labels())
    one = rows.filter(role="untrained", seed="0")
    for place, (init, choice) in enumerate([(0, 0), (0, 1), (1, 0), (10, 1)]):
        part = one.with_columns(pl.col("dice") + 0.001 * place)
        made.curve(part, ROTATION, labels(), "untrained", str(place))
        made.trials[-1]["seeds"] = {"encoder.init_seed": init, "images.selection_seed": choice, "split_seed": 5}
    (found,) = curve_sets(load_study(made.store, made.manifest), Bootstrap(20))
    assert found.headline_panel.curves["untrained"].seeds == ("0,0", "0,1", "1,0", "10,1")
    assert len(found.comparison.untrained_SN) == 4
    assert "2 untrained" not in only(reported(made, tmp_path / "out"))


def test_images_that_one_curve_lacks_are_left_out_of_all_and_said(plain, tmp_path):
    rows = small(1).filter((pl.col("role") != "mask") | (pl.col("image_id") != "image 02"))
    html = only(reported_one(tmp_path, rows, ROTATION))
    assert "over 3 images" in html
    assert "1 image(s) without finite Dice in every curve were left out" in section(html, "Caveats")
    other = pl.when(pl.col("role") == "mask").then(pl.lit("x")).otherwise("image_id").alias("image_id")
    with pytest.raises(ValueError, match="must measure the same images"):
        reported_one(tmp_path / "none", rows.with_columns(other), ROTATION)


def test_a_smoke_test_says_that_it_is_one(plain, tmp_path):
    words = "Sizes are those of a smoke test: it shows that all fits, and nothing else."
    for scale in ("smoke", "laptop"):
        made = FabricatedStudy(tmp_path / scale)
        made.manifest["facts"]["scale"] = scale
        made.curves(small(1), ROTATION, labels(), samples=False)
        assert (words in section(only(reported(made, tmp_path / scale / "out")), "Caveats")) is (scale == "smoke")
