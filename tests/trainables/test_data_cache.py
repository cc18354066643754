"""The cache: decoded once, whole or not at all, by one process at a time, and made again when damaged."""

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_context import FakeContext
from tiny_dataset import TinyDataset, TinyRegion

from trainables.api.errors import BadData
from trainables.api.identity import FileDigests, key_of, sha256_of
from trainables.data import tables
from trainables.data.cache import OwnContext, open_annotation, open_images, survey

OPEN_IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fake_context import FakeContext
from tiny_dataset import TinyDataset
from trainables.data.cache import open_images
from trainables.data import decoding
decoding.num_cores = lambda: 1
context = FakeContext(Path(sys.argv[3]).parent / "other", cache_dir=Path(sys.argv[3]))
table = open_images(TinyDataset(Path(sys.argv[2]), pause_s=float(sys.argv[4])), context)
print(int(table.images_NCHW.astype("int64").sum()))
"""


@pytest.fixture
def dataset(tmp_path):
    return TinyDataset.example(tmp_path / "data")


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def context(tmp_path, cache_dir):
    return FakeContext(tmp_path / "trial", cache_dir=cache_dir)


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


def test_a_second_opening_decodes_nothing(dataset, cache_dir, context):
    first = open_images(dataset, context)
    second = open_images(dataset, context)
    assert sorted(dataset.decoded()) == sorted(record.id for record in dataset.records())
    np.testing.assert_array_equal(first.images_NCHW, second.images_NCHW)
    assert first.index.equals(second.index)


def test_tables_cannot_be_written_to(dataset, cache_dir, context):
    table = open_images(dataset, context)
    with pytest.raises(ValueError, match="read-only"):
        table.images_NCHW[0] = 0


def test_progress_counts_up_to_the_end(dataset, cache_dir, context):
    open_images(dataset, context)
    assert context.progress == [(done, 9, "images") for done in range(1, 10)]


def test_rows_are_those_of_the_splits_in_index_order(dataset, cache_dir, context):
    table = open_images(dataset, context)
    assert table.rows("val").tolist() == [2, 5, 8]
    assert table.rows("val", "train").tolist() == list(range(9))
    with pytest.raises(ValueError, match="no split named test; this data set has train, val"):
        table.rows("test")


def test_mean_and_standard_deviation_agree_with_the_obvious_ones(dataset, cache_dir, context, monkeypatch):
    monkeypatch.setattr("trainables.data.cache._STATISTICS_ROWS", 2)
    table = open_images(dataset, context)
    rows = table.rows("train")
    mean, std = table.mean_std(rows)
    pixels = table.images_NCHW[rows].astype(np.float64) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 2, 3)), rtol=1e-12)
    with pytest.raises(ValueError, match="no rows"):
        table.mean_std([])


def test_index_tells_the_source(dataset, cache_dir, context):
    before = open_images(dataset, context).index["source_sha256"].to_list()
    assert before == [sha256_of(dataset.folder / f"{number}.npy") for number in range(9)]
    np.save(dataset.folder / "4.npy", np.zeros((3, 8, 8), np.uint8))
    after = open_images(dataset, context).index["source_sha256"].to_list()
    assert [row for row in range(9) if before[row] != after[row]] == [4]


def test_a_region_lies_in_the_rows_of_its_images(dataset, context):
    table, region = open_images(dataset, context), open_annotation(TinyRegion(dataset), context)
    np.testing.assert_array_equal(region.masks_NHW, table.images_NCHW[:, 0] > 127)
    assert 0.3 < region.masks_NHW.mean() < 0.7
    np.testing.assert_allclose(region.index["mask_fraction"], region.masks_NHW.mean(axis=(1, 2)))
    shared = ["row", "id", "group", "position", "source_sha256"]
    assert region.index.select(shared).equals(table.index.select(shared))
    assert region.annotated.all()
    with pytest.raises(ValueError, match="read-only"):
        region.masks_NHW[0] = 0


def test_what_is_left_out_of_a_region_stays_in_the_images(dataset, context):
    (dataset.folder / "2.npy").write_bytes(b"not an array")
    whole = TinyRegion(replace(dataset, excluded=("2.npy",)))
    images = replace(dataset, excluded=("2.npy", "5.npy"))
    part = TinyRegion(images, excluded=("7.npy",))
    table, region = open_images(images, context), open_annotation(part, context)
    assert table.index["id"].to_list() == [f"{number}.npy" for number in (0, 1, 3, 4, 6, 7, 8)]
    assert region.index["annotated"].to_list() == [True, True, True, True, True, False, True]
    assert region.index["mask_fraction"].is_null().to_list() == [False] * 5 + [True, False]
    assert region.index["source_sha256"][5] is None
    assert not region.masks_NHW[5].any()
    np.testing.assert_array_equal(region.masks_NHW[6], table.images_NCHW[6, 0] > 127)
    keys = {key_of(region, FileDigests()) for region in (whole, TinyRegion(images), part)}
    assert len(keys) == 3
    assert key_of(part.images, FileDigests()) == key_of(images, FileDigests())


def test_masks_that_are_all_empty_are_refused(dataset, context):
    with pytest.raises(BadData, match="bright: all 9 masks are empty"):
        open_annotation(TinyRegion(dataset, threshold=255), context)


def test_a_survey_names_what_can_be_left_out(dataset, context):
    assert survey(dataset, context) == {}
    for name in ("2.npy", "7.npy"):
        (dataset.folder / name).write_bytes(b"not an array")
    for part in (dataset, TinyRegion(dataset)):
        problems = survey(part, context)
        assert problems == {"2.npy": "2.npy: damaged", "7.npy": "7.npy: damaged"}
    rest = replace(dataset, excluded=tuple(problems))
    assert len(open_images(rest, context)) == 7
    assert survey(rest, OwnContext(context.cache_dir)) == {}
    with pytest.raises(BadData, match="all 7 masks are empty"):
        survey(TinyRegion(rest, threshold=255), context)


class PlannedContext(FakeContext):
    """Knows the digests of a plan, whatever the files are now."""

    plan: dict = {}

    def key(self, part):
        return "planned"

    def digests(self, part):
        return self.plan


def test_what_changed_since_the_plan_is_named_and_not_used(dataset, tmp_path):
    context = PlannedContext(tmp_path / "planned")
    context.plan = FakeContext(tmp_path / "now").digests(dataset)
    for number in (3, 6):
        np.save(dataset.folder / f"{number}.npy", np.zeros((3, 8, 8), np.uint8))
    np.save(dataset.folder / "new.npy", np.zeros((3, 8, 8), np.uint8))
    for open_part in (lambda: open_images(dataset, context), lambda: open_annotation(TinyRegion(dataset), context)):
        with pytest.raises(BadData, match="has changed since the plan: submit again") as caught:
            open_part()
        assert set(caught.value.problems) == {"3.npy", "6.npy", "new.npy"}
        assert _folders(context.cache_dir) == []


def test_changed_content_makes_a_new_cache_beside_the_old(dataset, cache_dir, context):
    open_images(dataset, context)
    np.save(dataset.folder / "4.npy", np.full((3, 8, 8), 7, np.uint8))
    assert (open_images(dataset, context).images_NCHW[4] == 7).all()
    assert len(_folders(cache_dir)) == 2


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10)


def _flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_truncate, _flip_last_byte, Path.unlink])
@pytest.mark.parametrize("name", ["images.npy", "index.parquet", "contents.json"])
def test_a_damaged_cache_is_made_again_with_a_message(dataset, cache_dir, context, name, damage, caplog):
    whole = np.array(open_images(dataset, context).images_NCHW)
    (folder,) = _folders(cache_dir)
    damage(folder / name)
    with caplog.at_level(logging.WARNING):
        table = open_images(dataset, context)
    assert "damaged" in caplog.text
    assert str(folder) in caplog.text
    assert len(dataset.decoded()) == 2 * 9
    np.testing.assert_array_equal(table.images_NCHW, whole)


@pytest.mark.parametrize("content", ["5", "[1]", "null", '["images.npy"]', "[" * 100_000])
@pytest.mark.parametrize("name", ["contents.json", "verified.json"])
def test_what_is_noted_of_a_cache_may_be_anything(dataset, cache_dir, context, name, content):
    whole = np.array(open_images(dataset, context).images_NCHW)
    (folder,) = _folders(cache_dir)
    (folder / name).write_text(content)
    np.testing.assert_array_equal(open_images(dataset, context).images_NCHW, whole)


def _garble_unseen(path: Path) -> None:
    """As a failing disk does: other bytes, the same size and time."""
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(stat.st_size - 20)
        file.write(bytes(byte ^ 0xFF for byte in b"x" * 20))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_an_intact_table_is_opened_without_reading_it_or_waiting(dataset, context, cache_dir, monkeypatch):
    open_images(dataset, context)
    monkeypatch.setattr(tables, "_checksum", lambda path: pytest.fail(f"{path} was read through"))
    (folder,) = _folders(cache_dir)
    with folder.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert len(open_images(dataset, context)) == 9


def test_checksums_are_verified_once_each_time_the_machine_is_up(
    dataset, context, cache_dir, monkeypatch, tmp_path, caplog
):
    whole = np.array(open_images(dataset, context).images_NCHW)
    (folder,) = _folders(cache_dir)
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("another start")
    monkeypatch.setattr(tables, "_BOOT_ID", boot_id)
    open_images(dataset, context)
    assert len(dataset.decoded()) == 9, "an intact table is not decoded again"
    boot_id.write_text("a third start")
    _garble_unseen(folder / "images.npy")
    np.testing.assert_array_equal(open_images(dataset, context).images_NCHW, whole)
    assert "damaged" in caplog.text
    assert len(dataset.decoded()) == 2 * 9


def test_an_index_that_cannot_be_read_sends_for_the_checksums(dataset, context, cache_dir):
    whole = open_images(dataset, context).index
    (folder,) = _folders(cache_dir)
    _garble_unseen(folder / "index.parquet")
    assert open_images(dataset, context).index.equals(whole)


def test_where_nothing_can_be_noted_the_table_is_read_through(dataset, context, monkeypatch):
    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(tables.os, "replace", refuse)
    for _ in range(2):
        assert len(open_images(dataset, context)) == 9
    assert len(dataset.decoded()) == 9


def test_decoding_takes_all_cores_of_the_machine(dataset, context, monkeypatch):
    threads = set()
    barrier = threading.Barrier(3, timeout=30)

    def decode(self, record):
        threads.add(threading.get_ident())
        if len(threads) <= 3 and barrier.n_waiting < 3 and record.id in ("0.npy", "1.npy", "2.npy"):
            barrier.wait()
        return np.zeros((3, 8, 8), np.uint8)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(TinyDataset, "decode", decode)
    assert context.num_cpus == 1
    open_images(dataset, context)
    assert len(threads) == 3


def test_exactly_the_bad_files_are_listed_and_nothing_is_left(dataset, cache_dir, context):
    for name in ("2.npy", "7.npy"):
        (dataset.folder / name).write_bytes(b"not an array")
    with pytest.raises(BadData) as caught:
        open_images(dataset, context)
    assert caught.value.problems == {"2.npy": "damaged", "7.npy": "damaged"}
    assert _folders(cache_dir) == []


def test_a_full_disk_is_an_error_that_says_what_to_do(dataset, cache_dir, context, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with pytest.raises(OSError, match=r"No space left on device.*--cache-dir"):
        open_images(dataset, context)
    assert _folders(cache_dir) == []


def test_two_processes_at_once_decode_once(dataset, cache_dir, context):
    first = _start_opening(dataset, cache_dir, pause_s=0.1)
    _wait_until_decoding(dataset)
    table = open_images(dataset, context)
    assert len(dataset.decoded()) == 9
    output, _ = first.communicate(timeout=60)
    assert first.returncode == 0
    assert int(output) == table.images_NCHW.astype(np.int64).sum()


def test_a_killed_process_leaves_nothing_that_is_read_or_in_the_way(dataset, cache_dir, context):
    process = _start_opening(dataset, cache_dir, pause_s=0.2)
    _wait_until_decoding(dataset)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [folder.suffix for folder in _folders(cache_dir)] == [".partial"]
    table = open_images(dataset, context)
    for row, record in enumerate(dataset.records()):
        np.testing.assert_array_equal(table.images_NCHW[row], dataset.decode(record))
    assert [folder.suffix for folder in _folders(cache_dir)] == [""]
