"""What several workers do together, each operation against what it is to give; and that one worker pays nothing."""

import os
import pickle

import pytest
import torch
from torch import nn
from workers import WorkerFailed, in_workers

from trainables import runtime, world
from trainables.world import World


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("num", [0, 1, 5, 12])
def test_parts_are_contiguous_whole_and_even(size, num):
    parts = World(0, size).parts(num)
    assert len(parts) == size
    assert [place for part in parts for place in range(num)[part]] == list(range(num))
    lengths = [part.stop - part.start for part in parts]
    assert sorted(lengths, reverse=True) == lengths
    assert max(lengths) - min(lengths) <= 1
    assert [World(rank, size).part(num) for rank in range(size)] == parts


def test_alone_everything_is_what_it_was(tmp_path):
    alone, tensor, parameter = runtime.world(), torch.rand(3), nn.Parameter(torch.rand(2))
    assert (alone.rank, alone.size, alone.is_first) == (0, 1, True)
    parameter.grad = gradient = torch.rand(2)
    before = gradient.clone()
    assert alone.gather(tensor, 3) is tensor
    assert alone.sum(tensor) is tensor
    assert alone.mean(tensor) is tensor
    assert alone.share(value := object()) is value
    assert alone.from_first(lambda: value) is value
    assert alone.share_folder(tmp_path, tmp_path / "into") is tmp_path
    assert alone.share_folder(None, tmp_path) is None
    alone.sum_gradients([parameter])
    alone.average([tensor])
    alone.share_state(nn.Linear(1, 1))
    assert parameter.grad is gradient
    assert torch.equal(gradient, before)
    assert tensor[alone.part(3)].data_ptr() == tensor.data_ptr()


def _tensors_together():
    workers = runtime.world()
    rank = workers.rank
    rows = torch.arange(10, dtype=torch.float64).view(5, 2)
    given = torch.tensor([rank + 1.0, 1.0])
    found = {
        "who": (rank, workers.size, workers.is_first, os.environ["LOCAL_RANK"]),
        "rows": workers.gather(rows[workers.part(5)], 5),
        "columns": workers.gather(rows.T[workers.part(2)], 2),  # strided, and nothing for the third
        "whole numbers": workers.gather(torch.full((1,), rank), workers.size),
        "sum": workers.sum(given),
        "mean": workers.mean(given),
    }
    assert given.tolist() == [rank + 1.0, 1.0]
    averaged = [torch.full((2, 1), float(rank)), torch.full((3,), 2.0 * rank, dtype=torch.float64)]
    workers.average(averaged)
    return found | {"averaged": averaged}


def test_tensors_are_gathered_summed_and_averaged():
    for rank, found in enumerate(in_workers(3, _tensors_together)):
        assert found["who"] == (rank, 3, rank == 0, str(rank))
        assert torch.equal(found["rows"], torch.arange(10, dtype=torch.float64).view(5, 2))
        assert torch.equal(found["columns"], torch.arange(10, dtype=torch.float64).view(5, 2).T)
        assert found["whole numbers"].tolist() == [0, 1, 2]
        assert found["sum"].tolist() == [6.0, 3.0]
        assert found["mean"].tolist() == [2.0, 1.0]
        assert [values.tolist() for values in found["averaged"]] == [[[1.0], [1.0]], [2.0, 2.0, 2.0]]
        assert [values.dtype for values in found["averaged"]] == [torch.float32, torch.float64]


def _wrong_rows():
    runtime.world().gather(torch.zeros(2), 3)


def test_another_number_of_rows_than_its_part_is_named():
    with pytest.raises(WorkerFailed, match="worker 1 of 2 has 2 of 3 rows: expected 1"):
        in_workers(2, _wrong_rows)


def _gradients():
    workers = runtime.world()
    rank = workers.rank
    weight = nn.Parameter(torch.zeros(2, 3, 2, 2).to(memory_format=torch.channels_last))
    weight.grad = (torch.arange(24.0).view(2, 3, 2, 2) * (rank + 1)).to(memory_format=torch.channels_last)
    small = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    small.grad = torch.tensor([1e-9, rank], dtype=torch.float64)
    unused = nn.Parameter(torch.zeros(1))
    counted, one = [], world.distributed.all_reduce
    world.distributed.all_reduce = lambda *given: counted.append(one(*given))
    workers.sum_gradients([weight, unused, small])
    return weight.grad, small.grad, unused.grad, len(counted)


def test_gradients_are_summed_in_place_one_transfer_a_dtype():
    for weight, small, unused, num_transfers in in_workers(2, _gradients):
        assert torch.equal(weight, torch.arange(24.0).view(2, 3, 2, 2) * 3)
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert small.tolist() == [2e-9, 1.0]
        assert unused is None
        assert num_transfers == 2


class Loud(Exception):
    """Cannot be made from its message alone."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def _raise(error):
    raise error


def _values(folder):
    workers = runtime.world()
    called = []
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    for tensor in network.state_dict().values():
        tensor.fill_(workers.rank + 3)
    workers.share_state(network)
    found = {
        "value": workers.share({"rank": workers.rank, "at": float("nan")}),
        "made": workers.from_first(lambda: called.append(workers.rank) or "made"),
        "called": called,
        "state": {name: tensor.unique().tolist() for name, tensor in network.state_dict().items()},
    }
    for error in (ValueError("bad"), Loud("this", "that")):
        with pytest.raises(Exception, match=r"bad|this and that") as raised:
            workers.from_first(lambda error=error: _raise(error))
        found[type(error).__name__] = type(raised.value).__name__
    return found


def test_what_the_first_has_all_have(tmp_path):
    for rank, found in enumerate(in_workers(3, _values, tmp_path)):
        assert found["value"]["rank"] == 0
        assert found["made"] == "made"
        assert found["called"] == ([0] if rank == 0 else [])
        assert set(map(tuple, found["state"].values())) == {(3,)}
        assert found["ValueError"] == "ValueError"
        assert found["Loud"] == ("Loud" if rank == 0 else "RuntimeError")
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(Loud(1, 2)))


def _folders(root):
    workers = runtime.world()
    world._CHUNK_BYTES = 1000
    own, into = root / f"own {workers.rank}", root / f"into {workers.rank}"
    into.mkdir()
    assert workers.share_folder(None if workers.is_first else root, into) is None
    got = workers.share_folder(own if workers.is_first else None, into)
    return got, {path.relative_to(got).as_posix(): path.read_bytes() for path in got.rglob("*") if path.is_file()}


def test_a_folder_of_the_first_comes_to_all_whole(tmp_path):
    contents = {"state.pt": os.urandom(2500), "empty": b"", "deep/er/full.bin": os.urandom(2000), "one": b"1"}
    for name, content in contents.items():
        path = tmp_path / "own 0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for rank, (folder, found) in enumerate(in_workers(3, _folders, tmp_path)):
        assert folder == tmp_path / ("own 0" if rank == 0 else f"into {rank}")
        assert found == contents


def test_each_worker_has_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert runtime.device() == torch.device("cuda")  # alone, whatever the environment says
    monkeypatch.setattr(runtime, "current_world", lambda: World(5, 8))
    assert runtime.device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")  # three workers on two GPUs
    assert runtime.device() == torch.device("cuda", 0)
    monkeypatch.delenv("LOCAL_RANK")
    assert runtime.device() == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.device() == torch.device("cpu")


@pytest.mark.parametrize(
    ("backends", "expected"),
    [
        ("cpu:gloo,cuda:gloo", {"cpu"}),
        ("cuda:nccl", {"cuda"}),
        ("cpu:gloo,cuda:nccl", {"cpu", "cuda"}),
    ],
)
def test_what_a_backend_sends_from_where_it_lies(backends, expected):
    assert world._sent_from(backends) == expected


def _last_one_fails():
    if runtime.world().rank == 1:
        raise KeyError("lost")
    runtime.world().sum(torch.zeros(1))


def test_the_error_of_any_worker_comes_back():
    """Of the harness itself: a worker that waits for one that has failed is not waited for."""
    with pytest.raises(WorkerFailed) as failed:
        in_workers(2, _last_one_fails)
    assert isinstance(failed.value.errors[1], KeyError)
