import json

import numpy as np
import polars as pl
import pytest

from trainables.data.cache import RegionTable
from trainables.interpretability.selection import ImageChoice, Selection, even_places

SPLITS = ["train", "train", "val", "test", "train"] * 2
INDEX = pl.DataFrame(
    {
        "row": np.arange(10, dtype=np.int64),
        "id": [f"image {i}" for i in range(10)],
        "group": [f"patient {i // 3}" for i in range(10)],
        "split": SPLITS,
        "position": np.arange(10, dtype=np.int64) % 3,
    }
)
EVERYWHERE = np.ones((4, 4), dtype=bool)


def masks(empty: tuple[int, ...] = (3, 6)) -> np.ndarray:
    masks_NHW = np.zeros((10, 4, 4), dtype=np.uint8)
    masks_NHW[:, 1:3, 1:3] = 1
    masks_NHW[list(empty)] = 0
    return masks_NHW


def select(
    choice: ImageChoice,
    masks_NHW: np.ndarray | None = None,
    kept_HW: np.ndarray = EVERYWHERE,
    missing: tuple[int, ...] = (),
) -> Selection:
    annotated = ~np.isin(np.arange(10), missing)
    table = RegionTable(INDEX.with_columns(annotated=pl.Series(annotated)), masks() if masks_NHW is None else masks_NHW)
    return Selection.of(choice, INDEX, table, kept_HW, "tumour")


def numbers(selection: Selection) -> list[int]:
    return selection.rows.tolist()


def test_images_come_from_the_splits_evenly() -> None:
    assert numbers(select(ImageChoice(3))) == [1, 4, 7]  # the middles of thirds of 0 1 2 4 5 7 9: places 1, 3, 5
    assert numbers(select(ImageChoice(2, splits=("val",)))) == [2, 7]
    assert numbers(select(ImageChoice(8, splits=("test", "train", "val")))) == [0, 1, 2, 4, 5, 7, 8, 9]
    assert even_places(7, 3).tolist() == [1, 3, 5]


def test_images_come_at_random_by_seed() -> None:
    drawn = {tuple(numbers(select(ImageChoice(3, "random", seed)))) for seed in range(5)}
    assert len(drawn) > 1
    assert all(len(set(choice)) == 3 and list(choice) == sorted(choice) for choice in drawn)
    assert not {3, 6} & {number for choice in drawn for number in choice}
    assert numbers(select(ImageChoice(3, "random", 4))) == numbers(select(ImageChoice(3, "random", 4)))


def test_images_without_a_region_in_the_field_of_view_are_left_out_and_named() -> None:
    assert select(ImageChoice(3)).left_out_ids == ["image 6"]
    masks_NHW = masks()
    masks_NHW[8] = 0
    masks_NHW[8, 0, 0] = 1
    inside = EVERYWHERE.copy()
    inside[0] = False
    selection = select(ImageChoice(7, splits=("train", "val", "test")), masks_NHW, inside)
    assert selection.left_out_ids == ["image 3", "image 6", "image 8"]
    assert selection.ids == [f"image {number}" for number in (0, 1, 2, 4, 5, 7, 9)]
    assert selection.index.columns == ["image_id", "group", "position"]
    assert json.loads(selection.index.write_json())[3] == {"image_id": "image 4", "group": "patient 1", "position": 1}


def test_images_without_a_mask_of_their_own_are_no_images_with_an_empty_one() -> None:
    selection = select(ImageChoice(6), missing=(1, 6))
    assert numbers(selection) == [0, 2, 4, 5, 7, 9]
    assert selection.left_out_ids == []


def test_too_few_images_say_how_many_there_are() -> None:
    with pytest.raises(ValueError, match=r"num = 75, but only 7 of the 8 images in train, val have tumour.*at most 7"):
        select(ImageChoice(75))


def test_empty_masks_are_named_instead_of_a_number() -> None:
    with pytest.raises(ValueError, match=r"tumour is empty in all of the 8 images in train, val: look at its masks"):
        select(ImageChoice(1), masks(tuple(range(10))))
    with pytest.raises(ValueError, match=r"tumour lies outside the field of view that all values keep"):
        select(ImageChoice(1), None, ~EVERYWHERE)


def test_a_split_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"tumour has no image in test; its splits are: train, val"):
        ImageChoice(1, splits=("test", "val")).check(["train", "val"], "tumour")
    with pytest.raises(ValueError, match=r"images.num = 3, but tumour has only 2 images in val: ask for at most 2"):
        ImageChoice(3, splits=("val",)).check(SPLITS, "tumour")
    ImageChoice(2, splits=("val",)).check(SPLITS, "tumour")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num": 0}, "images.num = 0"),
        ({"choose": "first"}, "images.choose = 'first'.*'evenly'"),
        ({"splits": ()}, "images.splits is empty"),
    ],
)
def test_impossible_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageChoice(**settings)
