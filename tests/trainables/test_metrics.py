import numpy as np
import pytest
import torch
from skimage.filters import threshold_otsu
from sklearn.metrics import average_precision_score, f1_score

from trainables.metrics import localisation, overlap, ranking
from trainables.metrics.binarise import BINARISATIONS, Binarisation, binarise, min_max, otsu_threshold


def random_maps(num_images: int = 6, num_pixels: int = 400, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    maps_BN = torch.randn(num_images, num_pixels, generator=generator, dtype=torch.float64) ** 3
    masks_BN = (torch.rand(num_images, num_pixels, generator=generator) < 0.2).double()
    return maps_BN, masks_BN


def test_dice_of_sets_is_the_f1_score() -> None:
    maps_BN, masks_BN = random_maps()
    predictions_BN = (maps_BN > 0.3).double()
    wanted = [f1_score(mask, prediction) for mask, prediction in zip(masks_BN, predictions_BN, strict=True)]
    np.testing.assert_allclose(overlap.dice(predictions_BN, masks_BN), wanted, atol=1e-8)


def test_dice_is_equation_5_1_with_the_union_of_sets() -> None:
    prediction, mask = torch.tensor([[1, 1, 1, 0, 0]]), torch.tensor([[0, 1, 1, 1, 1]])
    intersection, union = 2, 5
    assert overlap.dice(prediction, mask).item() == pytest.approx(2 * intersection / (intersection + union))
    assert overlap.dice(mask, mask).item() == pytest.approx(1.0)


def test_dice_of_two_empty_sets_is_zero() -> None:
    assert overlap.dice(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


def test_soft_dice_weighs_pixels_by_the_map() -> None:
    prediction, mask = torch.tensor([[0.5, 0.25, 1.0]]), torch.tensor([[1.0, 0.0, 1.0]])
    assert overlap.dice(prediction, mask).item() == pytest.approx(2 * 1.5 / (1.75 + 2.0))


def test_dice_refuses_images_that_are_not_flat() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 3\).*flatten"):
        overlap.dice(torch.zeros(2, 3, 3), torch.zeros(2, 3, 3))


def test_chance_dice_is_that_of_all_placements() -> None:
    # Over all cyclic shifts of a set, every pixel is covered equally often: the mean is exactly the chance level.
    mask = torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    prediction = torch.tensor([1.0, 1, 0, 0, 1, 1, 0, 0, 0, 0])
    shifted = torch.stack([prediction.roll(shift) for shift in range(10)])
    mean = overlap.dice(shifted, mask.expand(10, -1)).mean()
    chance = overlap.chance_dice(torch.tensor(0.3), torch.tensor(0.4))
    assert chance.item() == pytest.approx(mean.item(), abs=1e-6)
    assert overlap.chance_dice(torch.tensor(0.0), torch.tensor(0.0)).item() == 0


def test_all_ones_dice_is_the_dice_of_an_all_ones_map() -> None:
    _, masks_BN = random_maps()
    wanted = overlap.dice(torch.ones_like(masks_BN), masks_BN)
    np.testing.assert_allclose(overlap.all_ones_dice(masks_BN.mean(dim=1)), wanted, atol=1e-8)


@pytest.mark.parametrize("levels", [None, 7, 2])
def test_average_precision_agrees_with_scikit_learn_with_and_without_ties(levels: int | None) -> None:
    maps_BN, masks_BN = random_maps(seed=1)
    if levels is not None:
        maps_BN = (min_max(maps_BN) * levels).round()
    wanted = [average_precision_score(mask, values) for mask, values in zip(masks_BN, maps_BN, strict=True)]
    np.testing.assert_allclose(ranking.average_precision(maps_BN, masks_BN), wanted, atol=1e-12)


def test_average_precision_of_a_constant_map_is_the_mask_fraction() -> None:
    _, masks_BN = random_maps()
    np.testing.assert_allclose(ranking.average_precision(torch.ones_like(masks_BN), masks_BN), masks_BN.mean(dim=1))


def test_average_precision_names_the_rows_with_an_empty_mask() -> None:
    maps_BN, masks_BN = random_maps()
    masks_BN[[1, 4]] = 0
    with pytest.raises(ValueError, match=r"\[1, 4\]"):
        ranking.average_precision(maps_BN, masks_BN)


@pytest.mark.parametrize("seed", range(3))
def test_otsu_agrees_with_scikit_image(seed: int) -> None:
    maps_BN, _ = random_maps(num_images=8, num_pixels=900, seed=seed)
    maps_BN[0] = maps_BN[0].round()
    maps_BN[1] = (maps_BN[1] > 1).double()
    wanted = [threshold_otsu(values.numpy()) for values in maps_BN]
    np.testing.assert_allclose(otsu_threshold(maps_BN), wanted, rtol=1e-9, atol=1e-12)


def test_threshold_rules_agree_with_numpy() -> None:
    maps_BN, masks_BN = random_maps(seed=3)
    values = maps_BN.numpy()
    wanted = {
        "otsu": np.stack([row > threshold_otsu(row) for row in values]),
        "mean": values > values.mean(axis=1, keepdims=True),
        "percentile": values > np.percentile(values, 90, axis=1, keepdims=True),
    }
    for rule, prediction in wanted.items():
        np.testing.assert_array_equal(binarise(maps_BN, masks_BN, rule, 90), prediction)


def test_soft_is_the_min_max_map() -> None:
    maps = torch.tensor([[2.0, 4.0, 3.0], [-1.0, -1.0, -1.0]])
    soft = binarise(maps, torch.ones(2, 3), "soft")
    np.testing.assert_allclose(soft, [[0, 1, 0.5], [0, 0, 0]])


def test_top_area_takes_as_many_of_the_highest_pixels_as_the_mask_has() -> None:
    maps_BN, masks_BN = random_maps(seed=4)
    prediction_BN = binarise(maps_BN, masks_BN, "top_area")
    for values, mask, prediction in zip(maps_BN, masks_BN, prediction_BN, strict=True):
        wanted = values.topk(int(mask.sum())).indices.sort().values
        np.testing.assert_array_equal(prediction.nonzero().flatten(), wanted)


def test_top_area_shares_what_is_left_among_tied_pixels() -> None:
    maps = torch.tensor([[5.0, 1, 1, 1, 1, 0]])
    masks = torch.tensor([[1.0, 1, 1, 0, 0, 0]])
    np.testing.assert_allclose(binarise(maps, masks, "top_area"), [[1, 0.5, 0.5, 0.5, 0.5, 0]])


def test_top_area_of_an_empty_mask_is_empty() -> None:
    assert binarise(torch.rand(1, 5), torch.zeros(1, 5), "top_area").sum() == 0


@pytest.mark.parametrize("rule", BINARISATIONS)
def test_binarisation_depends_on_a_row_and_on_the_order_of_its_values_only(rule: Binarisation) -> None:
    maps_BN, masks_BN = random_maps(seed=5)
    together = binarise(maps_BN, masks_BN, rule)
    scaled = binarise(maps_BN * 8 - 16, masks_BN, rule)  # exact in floating point but for the shift
    np.testing.assert_allclose(scaled, together, atol=1e-9)
    alone = binarise(maps_BN[2:3], masks_BN[2:3], rule)
    np.testing.assert_array_equal(alone[0], together[2])


@pytest.mark.parametrize("rule", ["otsu", "mean", "percentile", "soft"])
def test_a_constant_map_covers_nothing(rule: Binarisation) -> None:
    assert binarise(torch.full((1, 9), 0.7), torch.ones(1, 9), rule).sum() == 0


def test_binarise_refuses_an_unknown_rule_and_an_impossible_percentile() -> None:
    with pytest.raises(ValueError, match=r"'median'.*otsu"):
        binarise(torch.rand(1, 4), torch.ones(1, 4), "median")
    with pytest.raises(ValueError, match=r"percentile = 101.*0 to 100"):
        binarise(torch.rand(1, 4), torch.ones(1, 4), "percentile", 101)


# -- where a map lies -----------------------------------------------------------------------------------------------


def test_the_pointing_game_asks_for_the_highest_pixel() -> None:
    maps_BN = torch.tensor([[0.1, 0.9, 0.3], [0.9, 0.1, 0.3], [0.5, 0.5, 0.2], [0.0, 0.0, 0.0]])
    masks_BN = torch.tensor([[0, 1, 0]] * 4)
    assert localisation.pointing_game(maps_BN, masks_BN).tolist() == pytest.approx([1, 0, 0.5, 1 / 3])


def test_the_relevance_mass_is_the_share_of_the_map_inside() -> None:
    maps_BN = torch.tensor([[0.1, 0.9, 0.3], [2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
    masks_BN = torch.tensor([[0, 1, 0]] * 4)
    assert localisation.relevance_mass(maps_BN, masks_BN).tolist() == pytest.approx([0.9 / 1.3, 0, 1, 1 / 3])


def test_a_map_that_knows_nothing_has_the_mask_s_share_in_both() -> None:
    generator = torch.Generator().manual_seed(0)
    maps_BN = torch.rand(2000, 50, generator=generator)
    masks_BN = torch.zeros(2000, 50)
    masks_BN[:, :10] = 1
    for score in (localisation.pointing_game, localisation.relevance_mass):
        assert float(score(maps_BN, masks_BN).mean()) == pytest.approx(0.2, abs=0.03)
