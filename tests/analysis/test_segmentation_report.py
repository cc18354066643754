"""Reports of segmentations: which number reaches which column and axis, what is said both ways and of noise."""

import re

import numpy as np
import polars as pl
import pytest
from charts import layers_of, panels_of
from synthetic_segmentation import CLASSES, FabricatedSegmentations, finished
from synthetic_study import MNI152

from analysis.exhibits.segmentation import sample, scores_of, shares
from analysis.paper import MISSING, write_paper
from analysis.render import page
from analysis.results import load_study
from analysis.segmentation import figures
from analysis.segmentation.evidence import AGAINST, Pair, judged, target_sets
from analysis.segmentation.findings import answers, verdict_sentence
from analysis.segmentation.report import segmentation_report
from analysis.segmentation.tables import class_table, fraction_table, score_table
from analysis.significance import Missing, Outcome
from trainables.api.names import MOCO_TRUNK, RANDOM_TRUNK, UNET


def sets_of(made):
    return target_sets(load_study(made.store, made.manifest))


def said_of(made):
    """(sentence, verdict) of each comparison."""
    found = sets_of(made)
    (target,) = found
    verdicts = {pair: verdict for (_, pair), verdict in judged(found).items()}
    return {pair: (verdict_sentence(target, pair, verdict), verdict) for pair, verdict in verdicts.items()}


def sentence(made, first=MOCO_TRUNK, second=UNET, fraction=1.0):
    return said_of(made)[Pair(first, second, fraction)][0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def target(whole):
    (found,) = sets_of(whole)
    return found


# -- what is said --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("moco", "word", "other"), [(0.8, "higher", "lower"), (0.4, "lower", "higher")])
def test_a_difference_is_said_with_its_direction_levels_and_interval(tmp_path, moco, word, other):
    said = sentence(finished(tmp_path, unet=0.6, moco=moco))
    assert f"the Dice without background of MoCo trunk is {word} than that of UNet, by 0." in said
    assert other not in said
    levels = r"\((\d\.\d+)\(0\.\d+\), n = 3 against (\d\.\d+)\(0\.\d+\), n = 3; p [<=] 0\.\d+ after Holm\)"
    level = re.search(levels, said)
    assert float(level[1]) == pytest.approx(moco, abs=0.05)
    assert float(level[2]) == pytest.approx(0.6, abs=0.05)
    assert "It holds over seeds and over patients like these." in said
    ends = re.search(r"difference ([+−][\d.]+) to ([+−][\d.]+)\)", said).groups()
    low, high = (float(end.replace("−", "-")) for end in ends)
    assert low < moco - 0.6 < high
    assert low * high > 0


def test_the_same_is_said_of_no_difference(tmp_path):
    said = sentence(finished(tmp_path, unet=0.6, moco=0.605))
    assert "MoCo trunk and UNet are not told apart by Dice without background" in said
    assert not {"higher", "lower"} & set(said.split())


def test_one_volume_says_nothing_of_others(tmp_path):
    made = FabricatedSegmentations(tmp_path, MNI152)
    made.arms({UNET: 0.5, MOCO_TRUNK: 0.8})
    said, verdict = said_of(made)[Pair(MOCO_TRUNK, UNET, 1.0)]
    assert verdict.outcome is Outcome.NO_INTERVAL
    assert "is higher than" in said
    assert "of others nothing is said: one volume has no interval for people" in said
    assert "like these" not in said


def test_one_seed_has_no_test(tmp_path):
    made = FabricatedSegmentations(tmp_path)
    made.arms({UNET: 0.5, MOCO_TRUNK: 0.8}, num_seeds=1)
    assert "It is said of these two trainings alone: one seed has no test." in sentence(made)


def test_what_is_not_there_is_named(tmp_path):
    made = FabricatedSegmentations(tmp_path)
    made.arms({UNET: 0.5})
    made.scored(MOCO_TRUNK, 0, np.full((12, 3), 0.5), is_done=False)
    assert "cannot be compared from what is there: no result of MoCo trunk" in sentence(made)


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_noise_is_rarely_called_a_difference(tmp_path, monkeypatch, num_seeds):
    """Networks alike, seeds and patients vary: at most one study in twenty says anything of any of its comparisons."""
    made = FabricatedSegmentations(tmp_path)
    for fraction in (0.1, 1.0):
        made.arms(dict.fromkeys([UNET, MOCO_TRUNK, RANDOM_TRUNK], 0.6), num_seeds=num_seeds, fraction=fraction)
    (found,) = sets_of(made)
    rng, num_studies, wrong = np.random.default_rng(0), 400, 0
    ids = [f"image {i:02d}" for i in range(12)]

    def draw(self, row):
        if row is None:
            return []
        of_images_N = images_of[row.fraction]
        return [
            pl.DataFrame({"image_id": ids, "group": ids, "position": [0] * 12,
                          "dice": of_images_N + rng.normal(0, 0.02) + rng.normal(0, 0.02, 12)})
            for _ in range(num_seeds)
        ]  # fmt: skip

    monkeypatch.setattr(type(found), "_dice_of_images", draw)
    for _ in range(num_studies):
        images_of = {fraction: 0.6 + rng.normal(0, 0.1, 12) for fraction in found.fractions}
        outcomes = {verdict.outcome for verdict in judged([found]).values()}
        wrong += Outcome.LEARNT in outcomes
    assert wrong / num_studies < 0.05


def test_all_comparisons_that_are_planned_share_the_level(tmp_path):
    """An interim report says nothing that the final one takes back for their number alone."""
    made = finished(tmp_path)
    before = {pair: verdict.p_adjusted for pair, (_, verdict) in said_of(made).items()}
    made.store.remove(f"results/{made.manifest['trials'][0]['key']}.json")
    (found,) = sets_of(made)
    assert len(found.pairs()) == 6
    assert {pair: verdict.interval.confidence for pair, (_, verdict) in said_of(made).items() if verdict.interval} == (
        dict.fromkeys(before, 1 - 0.05 / 6)
    )


def test_answers_begin_with_all_masks_and_the_thesis_s_pair(target, whole):
    verdicts = {pair: verdict for (_, pair), verdict in judged([target]).items()}
    said = answers(target, verdicts)
    assert [text.split(",")[0] for text in said] == [
        *["With 100 % of the masks"] * 2, *["With 50 % of the masks"] * 2, *["With 10 % of the masks"] * 2,
    ]  # fmt: skip
    assert "of MoCo trunk is higher than that of UNet" in said[0]
    assert "of MoCo trunk is higher than that of random trunk" in said[1]


def test_frozen_trunks_are_compared_with_frozen_ones():
    assert (
        (MOCO_TRUNK, UNET), (MOCO_TRUNK, RANDOM_TRUNK), (f"{MOCO_TRUNK}, frozen", f"{RANDOM_TRUNK}, frozen"),
    ) == AGAINST  # fmt: skip


# -- what is compared ----------------------------------------------------------------------------------------------


def test_images_are_paired_by_id_and_the_background_does_not_count(tmp_path):
    made = FabricatedSegmentations(tmp_path)
    dice = {
        UNET: np.array([[0.9, 0.2, 0.4], [0.9, 0.6, 0.8]]),
        MOCO_TRUNK: np.array([[0.1, 0.5, 0.7], [0.1, 0.9, 0.9]]),
    }
    for role, dice_NK in dice.items():
        made.scored(role, 0, dice_NK, groups=["b", "a"])
    (found,) = sets_of(made)
    compared = found.comparison(Pair(MOCO_TRUNK, UNET, 1.0))
    assert compared.groups == ["a", "b"]
    np.testing.assert_allclose(compared.trained_SN, [[0.9, 0.6]])
    np.testing.assert_allclose(compared.untrained_SN, [[0.7, 0.3]])


def test_which_images_and_classes_are_compared_follows_from_the_truth(tmp_path):
    """Image 0 has the background only, and one network finds a class there; image 1 has one class, image 2 both."""
    made = FabricatedSegmentations(tmp_path)
    nan = np.nan
    made.scored(UNET, 0, np.array([[1, nan, nan], [1, 0.5, nan], [1, 0.1, 0.3]]))
    made.scored(MOCO_TRUNK, 0, np.array([[1, 0.0, nan], [1, 0.7, 0.0], [1, 0.6, 0.8]]),
                absent={(0, "core"), (1, "oedema")})  # fmt: skip
    (found,) = sets_of(made)
    compared = found.comparison(Pair(MOCO_TRUNK, UNET, 1.0))
    np.testing.assert_allclose(compared.trained_SN, [[0.7, 0.7]])
    np.testing.assert_allclose(compared.untrained_SN, [[0.5, 0.2]])
    empty = FabricatedSegmentations(tmp_path / "empty")
    for role in (UNET, MOCO_TRUNK):
        empty.scored(role, 0, np.array([[1.0, nan, nan]]))
    assert sets_of(empty)[0].comparison(Pair(MOCO_TRUNK, UNET, 1.0)) == Missing(
        "no validation image has a class but the background"
    )


def test_levels_in_a_sentence_are_of_what_is_compared(tmp_path):
    """A class that is in few images weighs otherwise in the table: there the other network leads."""
    made = FabricatedSegmentations(tmp_path)
    for role, common, rare in ((MOCO_TRUNK, 0.80, 0.40), (UNET, 0.77, 0.50)):
        for seed in range(3):
            dice_NK = np.full((12, 3), np.nan)
            dice_NK[:, 0], dice_NK[:, 1] = 0.9, common + 0.001 * seed
            dice_NK[0, 2] = rare
            made.scored(role, seed, dice_NK)
    (found,) = sets_of(made)
    moco, unet = (found.row(role, 1.0).mean("foreground_dice") for role in (MOCO_TRUNK, UNET))
    assert moco < unet
    said = sentence(made)
    levels = [float(level) for level in re.search(r"\((\d\.\d+)\(.*? against (\d\.\d+)\(", said).groups()]
    assert levels[0] > levels[1]
    assert "higher" in said or "are not told apart" in said


# -- tables --------------------------------------------------------------------------------------------------------


def test_scores_are_mean_and_std_over_seeds_with_the_thesis_beside(target):
    table = score_table(target)
    frame = table.frame
    ours = frame.filter(pl.col("n").is_not_null())
    assert ours["network"].to_list() == [UNET, UNET, MOCO_TRUNK, MOCO_TRUNK, RANDOM_TRUNK, RANDOM_TRUNK]
    row = next(r for r in target.rows if (r.role, r.fraction, r.split) == (MOCO_TRUNK, 1.0, "val"))
    (line,) = ours.filter(network=MOCO_TRUNK, split="validation").to_dicts()
    for metric in ("dice", "iou", "sensitivity", "specificity", "foreground_dice"):
        values = row.cell.values[f"val/{metric}"]
        assert line[metric] == pytest.approx(np.mean(values))
        assert line[f"{metric} std"] == pytest.approx(np.std(values, ddof=1))
    assert line["n"] == 3
    published = frame.filter(pl.col("n").is_null())
    assert published.select("network", "split", "dice", "iou", "sensitivity", "specificity").rows() == [
        ("thesis, Table 4.1: UNet", "training", 0.7250, 0.6823, 0.8423, 0.9707),
        ("thesis, Table 4.1: UNet", "validation", 0.7370, 0.6968, 0.8376, 0.9739),
        ("thesis, Table 4.2: MoCo trunk", "training", 0.8886, 0.8760, 0.9638, 0.9835),
        ("thesis, Table 4.2: MoCo trunk", "validation", 0.8804, 0.8729, 0.9759, 0.9787),
    ]
    titles = {column.title: column.value for column in table.columns}
    assert titles["IoU"] == "iou"
    assert titles["Dice without background"] == "foreground_dice"


def test_the_thesis_stands_beside_its_own_data_only(tmp_path):
    made = FabricatedSegmentations(tmp_path, MNI152)
    made.arms({UNET: 0.5})
    assert score_table(sets_of(made)[0]).frame.height == 1


def test_every_share_has_its_number_of_masks(target):
    frame = fraction_table(target).frame
    assert frame["fraction"].to_list() == [0.1] * 3 + [0.5] * 3 + [1.0] * 3
    assert frame.filter(fraction=0.5)["masks"].unique().to_list() == ["60 to 62"]
    (line,) = frame.filter(fraction=0.1, network=UNET).to_dicts()
    row = next(r for r in target.rows if (r.role, r.fraction, r.split) == (UNET, 0.1, "val"))
    assert line["dice"] == pytest.approx(np.mean(row.cell.values["val/dice"]))
    assert "10 %" in fraction_table(target).cells()[0]


def test_each_class_has_its_own_column(target):
    frame = class_table(target).frame
    assert target.class_names == list(CLASSES)
    row = next(r for r in target.rows if (r.role, r.fraction, r.split) == (UNET, 1.0, "val"))
    (line,) = frame.filter(network=UNET).to_dicts()
    for name in CLASSES:
        assert line[f"dice/{name}"] == pytest.approx(np.mean(row.cell.values[f"val/dice/{name}"]))


# -- figures -------------------------------------------------------------------------------------------------------


def test_a_point_is_a_seed_at_its_masks_and_a_line_goes_through_the_means(target):
    data = figures.fraction_data(target)
    assert data.height == 27
    part = data.filter(network=MOCO_TRUNK, fraction=0.5)
    assert part["num_labelled"].to_list() == [60, 61, 62]
    row = next(r for r in target.rows if (r.role, r.fraction, r.split) == (MOCO_TRUNK, 0.5, "val"))
    assert part["dice"].to_list() == pytest.approx(row.cell.values["val/foreground_dice"])
    assert part["mean"].unique().to_list() == pytest.approx([np.mean(row.cell.values["val/foreground_dice"])])
    assert part["mean_labelled"].unique().to_list() == [61.0]
    (panel,) = panels_of(figures.fraction_figure(target))
    (lines,), (points,) = layers_of(panel, "line"), layers_of(panel, "point")
    assert (lines.fields["x"], lines.fields["y"], lines.fields["color"]) == ("mean_labelled", "mean", "network")
    assert (points.fields["x"], points.fields["y"], points.fields["color"]) == ("num_labelled", "dice", "network")
    assert points.encoding["x"]["scale"]["type"] == "log"
    assert lines.encoding["color"]["scale"]["domain"] == [UNET, MOCO_TRUNK, RANDOM_TRUNK]
    assert len(points.rows) == 27


def test_frozen_trunks_have_the_colour_of_their_own_and_are_dashed(tmp_path):
    made = FabricatedSegmentations(tmp_path)
    made.arms({MOCO_TRUNK: 0.7, f"{MOCO_TRUNK}, frozen": 0.5})
    (panel,) = panels_of(figures.fraction_figure(sets_of(made)[0]))
    (lines,) = layers_of(panel, "line")
    colours = lines.encoding["color"]["scale"]["range"]
    assert colours[0] == colours[1]
    dashes = lines.encoding["strokeDash"]["scale"]
    assert dict(zip(dashes["domain"], dashes["range"], strict=True)) == {
        MOCO_TRUNK: [1, 0], f"{MOCO_TRUNK}, frozen": [5, 4],
    }  # fmt: skip


def test_the_paper_shows_every_share_of_the_masks_where_there_are_several(whole, tmp_path):
    results = load_study(whole.store, whole.manifest)
    figure, table = shares(results)
    assert figure.name == table.name == "shares-brats-tumour_classes"
    assert len(layers_of(panels_of(figure)[0], "point")[0].rows) == 27
    assert table.frame["fraction"].n_unique() == 3
    alone = FabricatedSegmentations(tmp_path)
    alone.arms({UNET: 0.5})
    assert shares(load_study(alone.store, alone.manifest)) == []


def test_pictures_show_image_truth_and_every_network(target):
    (pictures,) = figures.samples(target)
    rows = pictures.rows
    assert "(core, oedema)" in pictures.caption
    assert [name for name, _ in rows] == ["image 00", "image 01"]
    assert [tile.title for tile in rows[0][1]] == ["image", "truth", UNET, MOCO_TRUNK, RANDOM_TRUNK]
    image, truth, unet, moco, _ = (tile.pixels for tile in rows[0][1])
    assert (image == 80).all()
    size = truth.shape[1]
    assert (truth[:, : size // 3] == 80).all()  # the background is left grey
    one, two = truth[0, size // 2], truth[0, -1]
    assert not np.array_equal(one, two)
    assert one[0] > one[2]  # orange
    assert two[2] > two[0]  # blue
    # Predictions are moved by the length of the name, so each tile is of its own network.
    for pixels, role in ((unet, UNET), (moco, MOCO_TRUNK)):
        np.testing.assert_array_equal(pixels, np.roll(truth, len(role) * size // 24, axis=1))


def test_figure_4_1_has_a_tile_a_class_and_the_whole(target):
    (pictures,) = figures.class_pictures(target, MOCO_TRUNK)
    (_, predicted), (_, true), (_, whole) = pictures.rows
    assert [tile.title for tile in predicted] == [f"prediction: {name}" for name in CLASSES]
    assert [tile.title for tile in true] == [f"truth: {name}" for name in CLASSES]
    assert "Validation image image 01" in pictures.caption
    assert [tile.title for tile in whole] == ["input image", "prediction", "truth"]
    shares = [tile.pixels.mean() / 255 for tile in true]
    assert shares == pytest.approx([1 / 3] * 3)
    assert np.array_equal(sum(tile.pixels.astype(int) for tile in true), np.full_like(true[0].pixels, 255, dtype=int))
    assert not np.array_equal(predicted[1].pixels, true[1].pixels)
    assert figures.class_pictures(target, "no such network") == []


# -- the page ------------------------------------------------------------------------------------------------------


def test_the_page_stands_alone_and_names_what_is_missing(tmp_path):
    made = finished(tmp_path)
    made.scored(MOCO_TRUNK, 7, np.full((12, 3), 0.5), is_done=False)
    page, drawn, tables = segmentation_report(made.store, made.manifest, tmp_path / "out")
    html = page.read_text()
    assert page.parent.name == "brats-tumour_classes"
    assert 'src="http' not in html
    assert "Incomplete: MoCo trunk · 100 % of masks · val · brats · tumour classes: 3 of 4 seeds" in html
    assert "finetune_seed 7 (not finished)" in html
    assert "With 100 % of the masks, the Dice without background of MoCo trunk is higher" in html
    assert {path.name for path in drawn.iterdir()} == {"label_fractions.svg", "label_fractions.png", "samples.png"}
    assert {path.stem for path in tables.iterdir()} == {"scores", "label_fractions", "classes"}


def test_a_study_without_a_result_has_its_page(tmp_path):
    made = FabricatedSegmentations(tmp_path)
    for role in (UNET, MOCO_TRUNK):
        made.scored(role, 0, np.full((3, 3), 0.5), is_done=False)
    html = segmentation_report(made.store, made.manifest, tmp_path / "out")[0].read_text()
    assert "cannot be compared from what is there: no result of MoCo trunk and UNet" in html


# -- exhibits ------------------------------------------------------------------------------------------------------


def test_the_thesis_s_exhibits_are_of_the_network_that_they_name(whole):
    results = load_study(whole.store, whole.manifest)
    (supervised,), (own,) = scores_of(UNET)(results), scores_of(MOCO_TRUNK)(results)
    assert supervised.frame["network"].to_list() == [UNET, UNET, *["thesis, Table 4.1: UNet"] * 2]
    assert own.frame["network"].to_list() == [MOCO_TRUNK] * 2 + ["thesis, Table 4.2: MoCo trunk"] * 2
    assert supervised.name == "scores-UNet-brats-tumour_classes"
    assert own.name.startswith("scores-MoCo_trunk-brats-tumour_classes")
    (pictures,) = sample(results)
    assert pictures.title == "MoCo trunk, brats · tumour_classes"
    assert pictures.name == "classes-brats-tumour_classes"


def test_the_paper_shows_segmentations_under_their_scale(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_library", lambda: "")
    made = FabricatedSegmentations(tmp_path)
    made.arms({UNET: 0.5, MOCO_TRUNK: 0.7})
    made.store.write_document("studies/segmentation/1.json", made.manifest | {"submitted_at": 1.0})
    html = write_paper(made.store, tmp_path / "paper").read_text()
    sections = dict(re.findall(r"<h2>(.*?)</h2>\n(.*?)</section>", html, re.S))
    assert "<li>Table 4.2: Self-supervised model, training and validation</li>" in sections[MISSING]
    shown = sections["At scale laptop, not Table 4.2: Self-supervised model, training and validation"]
    assert "MoCo trunk" in shown
    assert "<td>UNet</td>" not in shown
    assert (
        'id="figure-classes-' in sections["At scale laptop, not Figure 4.1: Sample result of the self-supervised model"]
    )
    assert len(list((tmp_path / "paper/figures").glob("classes-*.png"))) == 1
    assert len(list((tmp_path / "paper/tables").glob("scores-*.csv"))) == 2
    facts = {"scale": "full", "pretraining_start": "released weights (moco.pth.tar)"}
    made.store.write_document("studies/segmentation/2.json", made.manifest | {"submitted_at": 2.0, "facts": facts})
    html = write_paper(made.store, tmp_path / "paper").read_text()
    sections = dict(re.findall(r"<h2>(.*?)</h2>\n(.*?)</section>", html, re.S))
    assert "<td>UNet</td>" in sections["Table 4.1: Supervised model, training and validation"]
