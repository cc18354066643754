"""Batches: the same pixels whether they live on the device or come from the memmap."""

import numpy as np
import pytest
import torch
from fake_context import FakeContext
from tiny_dataset import TinyDataset, TinyRegion

from trainables.data.batches import DeviceImages
from trainables.data.cache import open_annotation, open_images

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ROWS = np.array([8, 1, 5, 0, 3])


@pytest.fixture
def dataset(tmp_path):
    return TinyDataset.example(tmp_path / "data")


@pytest.fixture
def table(dataset, tmp_path):
    return open_images(dataset, FakeContext(tmp_path))


@pytest.fixture
def region(dataset, tmp_path):
    return open_annotation(TinyRegion(dataset), FakeContext(tmp_path))


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


@pytest.mark.parametrize("memory_share", [0.5, 0.0])
@pytest.mark.parametrize("positions", [[0, 1, 2], [4, 0, 4, 2], [3]])
@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_positions_are_those_of_the_rows_given(table, region, device, memory_share, positions, kind):
    batches = DeviceImages(table, ROWS, device, memory_share, annotation=region)
    assert batches.on_device == (memory_share > 0)
    assert len(batches) == 5
    rows = ROWS[positions]
    images_BCHW, masks_BHW = batches.images(kind(positions)), batches.classes(kind(positions))
    assert (images_BCHW.dtype, masks_BHW.dtype) == (torch.float32, torch.uint8)
    assert images_BCHW.device.type == masks_BHW.device.type == device.type
    np.testing.assert_array_equal(images_BCHW.cpu(), np.float32(table.images_NCHW[rows]) / np.float32(255))
    np.testing.assert_array_equal(masks_BHW.cpu(), region.masks_NHW[rows])


def test_batches_do_not_change_the_table(table, device):
    for memory_share in (0.5, 0.0):
        batches = DeviceImages(table, ROWS, device, memory_share)
        before = batches.images(torch.arange(5)).clone()
        batches.images(torch.arange(5)).zero_()
        assert torch.equal(batches.images(torch.arange(5)), before)


def test_images_without_an_annotation_have_no_classes(table, device):
    with pytest.raises(ValueError, match="no annotation"):
        DeviceImages(table, ROWS, device).classes([0])


@pytest.mark.parametrize("with_masks", [True, False])
def test_what_takes_too_much_memory_stays_on_disk(table, region, device, monkeypatch, with_masks):
    region = region if with_masks else None
    needed = len(ROWS) * (3 + with_masks) * 8 * 8
    monkeypatch.setattr("trainables.runtime.free_memory", lambda _: 2 * needed)
    assert DeviceImages(table, ROWS, device, memory_share=0.5, annotation=region).on_device
    monkeypatch.setattr("trainables.runtime.free_memory", lambda _: 2 * needed - 1)
    assert not DeviceImages(table, ROWS, device, memory_share=0.5, annotation=region).on_device


def test_impossible_rows_and_shares_are_refused(table):
    with pytest.raises(IndexError, match="table has rows 0 to 8"):
        DeviceImages(table, np.array([0, 9]), torch.device("cpu"))
    with pytest.raises(ValueError, match=r"memory_share = 1\.5"):
        DeviceImages(table, ROWS, torch.device("cpu"), memory_share=1.5)
