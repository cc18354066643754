"""The cache: decoded once, whole or not at all, by one process at a time, and made again when damaged."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_dataset import TinyDataset

from trainables.api.errors import BadData
from trainables.data.cache import open_table

OPEN_IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tiny_dataset import TinyDataset
from trainables.data.cache import open_table
table = open_table(TinyDataset(Path(sys.argv[2]), pause_s=float(sys.argv[4])), Path(sys.argv[3]), num_workers=1)
print(int(table.images_NCHW.astype("int64").sum()))
"""


@pytest.fixture
def dataset(tmp_path):
    return TinyDataset.example(tmp_path / "data")


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


def _folders(cache_dir: Path) -> list[Path]:
    return [path for path in cache_dir.iterdir() if path.is_dir()]


def _start_opening(dataset: TinyDataset, cache_dir: Path, pause_s: float) -> subprocess.Popen:
    arguments = [str(Path(__file__).parent), str(dataset.folder), str(cache_dir), str(pause_s)]
    return subprocess.Popen(
        [sys.executable, "-c", OPEN_IN_ANOTHER_PROCESS, *arguments], stdout=subprocess.PIPE, text=True
    )


def _wait_until_decoding(dataset: TinyDataset) -> None:
    end = time.monotonic() + 60
    while not dataset.decoded():
        assert time.monotonic() < end, "the other process never began to decode"
        time.sleep(0.01)


def test_a_second_opening_decodes_nothing(dataset, cache_dir):
    first = open_table(dataset, cache_dir)
    second = open_table(dataset, cache_dir)
    assert sorted(dataset.decoded()) == sorted(record.id for record in dataset.records())
    np.testing.assert_array_equal(first.images_NCHW, second.images_NCHW)
    assert first.index.equals(second.index)


def test_tables_cannot_be_written_to(dataset, cache_dir):
    table = open_table(dataset, cache_dir)
    with pytest.raises(ValueError, match="read-only"):
        table.images_NCHW[0] = 0


def test_progress_counts_up_to_the_end(dataset, cache_dir):
    seen = []
    open_table(dataset, cache_dir, lambda *report: seen.append(report), num_workers=2)
    assert seen == [(done, 9, "images") for done in range(1, 10)]


def test_rows_are_those_of_the_splits_in_index_order(dataset, cache_dir):
    table = open_table(dataset, cache_dir)
    assert table.rows("val").tolist() == [2, 5, 8]
    assert table.rows("val", "train").tolist() == list(range(9))
    with pytest.raises(ValueError, match="no split named test; this data set has train, val"):
        table.rows("test")


def test_mean_and_standard_deviation_agree_with_the_obvious_ones(dataset, cache_dir, monkeypatch):
    monkeypatch.setattr("trainables.data.cache._STATISTICS_ROWS", 2)
    table = open_table(dataset, cache_dir)
    rows = table.rows("train")
    mean, std = table.mean_std(rows)
    pixels = table.images_NCHW[rows].astype(np.float64) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 2, 3)), rtol=1e-12)
    with pytest.raises(ValueError, match="no rows"):
        table.mean_std([])


def test_index_tells_mask_fraction_and_source(dataset, cache_dir):
    table = open_table(dataset, cache_dir)
    np.testing.assert_allclose(table.index["mask_fraction"], table.masks_NHW.mean(axis=(1, 2)))
    before = table.index["source_sha256"].to_list()
    assert len(set(before)) == 9
    np.save(dataset.folder / "4.npy", np.zeros((3, 8, 8), np.uint8))
    after = open_table(dataset, cache_dir).index["source_sha256"].to_list()
    assert [row for row in range(9) if before[row] != after[row]] == [4]


def test_changed_content_makes_a_new_cache_beside_the_old(dataset, cache_dir):
    open_table(dataset, cache_dir)
    np.save(dataset.folder / "4.npy", np.full((3, 8, 8), 7, np.uint8))
    assert (open_table(dataset, cache_dir).images_NCHW[4] == 7).all()
    assert len(_folders(cache_dir)) == 2


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10)


def _flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_truncate, _flip_last_byte, Path.unlink])
@pytest.mark.parametrize("name", ["images.npy", "masks.npy", "index.parquet", "contents.json"])
def test_a_damaged_cache_is_made_again_with_a_message(dataset, cache_dir, name, damage, caplog):
    whole = np.array(open_table(dataset, cache_dir).images_NCHW)
    (folder,) = _folders(cache_dir)
    damage(folder / name)
    with caplog.at_level(logging.WARNING):
        table = open_table(dataset, cache_dir)
    assert "damaged" in caplog.text
    assert str(folder) in caplog.text
    assert len(dataset.decoded()) == 2 * 9
    np.testing.assert_array_equal(table.images_NCHW, whole)


def test_exactly_the_bad_files_are_listed_and_nothing_is_left(dataset, cache_dir):
    for name in ("2.npy", "7.npy"):
        (dataset.folder / name).write_bytes(b"not an array")
    with pytest.raises(BadData) as caught:
        open_table(dataset, cache_dir)
    assert caught.value.problems == {"2.npy": "damaged", "7.npy": "damaged"}
    assert _folders(cache_dir) == []


def test_a_full_disk_is_an_error_that_says_what_to_do(dataset, cache_dir, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with pytest.raises(OSError, match=r"No space left on device.*--cache-dir"):
        open_table(dataset, cache_dir)
    assert _folders(cache_dir) == []


def test_two_processes_at_once_decode_once(dataset, cache_dir):
    first = _start_opening(dataset, cache_dir, pause_s=0.1)
    _wait_until_decoding(dataset)
    table = open_table(dataset, cache_dir)
    assert len(dataset.decoded()) == 9
    output, _ = first.communicate(timeout=60)
    assert first.returncode == 0
    assert int(output) == table.images_NCHW.astype(np.int64).sum()


def test_a_killed_process_leaves_nothing_that_is_read_or_in_the_way(dataset, cache_dir):
    process = _start_opening(dataset, cache_dir, pause_s=0.2)
    _wait_until_decoding(dataset)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [folder.suffix for folder in _folders(cache_dir)] == [".partial"]
    table = open_table(dataset, cache_dir)
    for row, record in enumerate(dataset.records()):
        np.testing.assert_array_equal(table.images_NCHW[row], dataset.decode(record)[0])
    assert [folder.suffix for folder in _folders(cache_dir)] == [""]
