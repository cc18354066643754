"""Random numbers, threads, memory and state files."""

import os

import numpy as np
import pytest
import torch

from trainables import runtime


def splitmix64(seed, place):
    """The reference algorithm in Python integers: output number ``place`` (from 1) of the stream."""
    mask = 2**64 - 1
    z = (seed + place * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_uniforms_are_the_splitmix64_stream():
    indices, num_draws = [0, 3, 112_119], 4
    seed = runtime.seed_of("view", 7)
    drawn = runtime.uniforms(torch.tensor(indices), num_draws, "view", 7)
    expected = [[(splitmix64(seed, i * num_draws + k + 1) >> 11) * 2.0**-53 for k in range(num_draws)] for i in indices]
    np.testing.assert_array_equal(drawn.numpy(), expected)


def test_splitmix64_known_values():
    """Published first outputs for the seed 1234567 (Vigna's splitmix64.c)."""
    assert [splitmix64(1234567, place) for place in (1, 2)] == [6457827717110365317, 3203168211198807973]


def test_uniforms_ignore_the_rest_of_the_batch():
    together = runtime.uniforms(torch.arange(100), 3, "view", 0, 5)
    assert torch.equal(together[[42, 7]], runtime.uniforms(torch.tensor([42, 7]), 3, "view", 0, 5))
    assert not torch.equal(together, runtime.uniforms(torch.arange(100), 3, "view", 0, 6))


def test_uniforms_are_uniform_and_uncorrelated():
    draws = runtime.uniforms(torch.arange(20_000), 2, "statistics").numpy()
    assert draws.min() >= 0
    assert draws.max() < 1
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    assert np.abs(counts / draws.size * 20 - 1).max() < 0.1
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.03
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.03


def test_seeds_depend_on_every_part_and_their_borders():
    parts = [("a", 1, 2), ("a", 2, 1), ("a", 12), ("a", 1), ("b", 1, 2), ("a", "1", 2)]
    assert len({runtime.seed_of(*part) for part in parts}) == len(parts)
    assert runtime.seed_of("a", np.int64(1)) == runtime.seed_of("a", 1)
    # Fixed for ever: results of one configuration must be the same on every machine and in every session.
    assert (
        runtime.seed_of("order", 0, 0)
        == int.from_bytes(__import__("hashlib").sha256(b'["order", 0, 0]').digest()[:8], "big") >> 1
    )


def test_generators_of_equal_parts_agree():
    draw = lambda *parts: torch.rand(3, generator=runtime.generator(*parts))  # noqa: E731
    assert torch.equal(draw("order", 0, 3), draw("order", 0, 3))
    assert not torch.equal(draw("order", 0, 3), draw("order", 0, 4))


def test_use_cores_sets_the_threads():
    before = torch.get_num_threads()
    try:
        runtime.use_cores(2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ValueError, match="num_cpus = 0"):
        runtime.use_cores(0)


def test_autocast_is_bfloat16_only_where_asked():
    weights = torch.rand(4, 4)
    with runtime.autocast(torch.device("cpu"), True):
        assert (weights @ weights).dtype == torch.bfloat16
    with runtime.autocast(torch.device("cpu"), False):
        assert (weights @ weights).dtype == torch.float32


def test_state_comes_back_and_code_does_not(tmp_path):
    path = tmp_path / "state.pt"
    runtime.save_state(path, {"weights": torch.arange(3.0), "epoch": 4, "names": ["a"]})
    state = runtime.load_state(path)
    assert state["epoch"] == 4
    assert torch.equal(state["weights"], torch.arange(3.0))
    assert list(tmp_path.iterdir()) == [path]
    torch.save({"code": pytest.raises}, path)
    with pytest.raises(Exception, match=r"(?i)weights.only"):
        runtime.load_state(path)
    torch.save([1], path)
    with pytest.raises(ValueError, match="list"):
        runtime.load_state(path)


@pytest.mark.parametrize("name", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_free_memory_is_part_of_the_machine(name):
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if name == "cuda":
        total = torch.cuda.get_device_properties(torch.device(name)).total_memory
    assert 2**20 < runtime.free_memory(torch.device(name)) <= total


MIB = 2**20


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """A function that writes the files of a cgroup, and one that says where this process is."""
    monkeypatch.setattr(runtime, "_CGROUP_ROOT", tmp_path / "fs")
    monkeypatch.setattr(runtime, "_CGROUPS_OF_PROCESS", tmp_path / "of_process")

    def write(place, **files):
        folder = tmp_path / "fs" / place
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_text(f"{content}\n")

    return write, (tmp_path / "of_process").write_text


def test_memory_is_what_the_container_leaves(cgroups):
    write, process = cgroups
    process("0::/pod/box\n")
    write("pod", memory__max=50 * MIB, memory__current=40 * MIB, memory__stat=f"anon 5\ninactive_file {3 * MIB}")
    write("pod/box", memory__max="max", memory__current=40 * MIB, memory__stat="inactive_file 0")
    assert runtime.free_memory(torch.device("cpu")) == 13 * MIB
    write("pod/box", memory__max=42 * MIB)
    assert runtime.free_memory(torch.device("cpu")) == 2 * MIB
    write("pod/box", memory__max=30 * MIB)
    assert runtime.free_memory(torch.device("cpu")) == 0


def test_memory_of_a_container_is_found_at_the_root_and_in_version_1(cgroups):
    write, process = cgroups
    process("5:cpuset:/x\n7:memory,hugetlb:/docker/of-the-host\n")
    stat = f"inactive_file 1\ntotal_inactive_file {2 * MIB}"
    write("memory", memory__limit_in_bytes=20 * MIB, memory__usage_in_bytes=15 * MIB, memory__stat=stat)
    assert runtime.free_memory(torch.device("cpu")) == 7 * MIB


def test_without_a_limit_memory_is_the_machines(cgroups):
    write, process = cgroups
    process("0::/\n")
    unlimited = runtime.free_memory(torch.device("cpu"))
    write("", memory__max="max", memory__current=1, memory__stat="inactive_file 0")
    assert runtime.free_memory(torch.device("cpu")) == pytest.approx(unlimited, rel=0.2)
