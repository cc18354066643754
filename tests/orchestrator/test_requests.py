"""How many requests a trial costs on an object store, where each is paid for and waited for."""

from collections import Counter

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from toy import Count

from orchestrator.attempt import Payload
from orchestrator.plan import make_plan
from orchestrator.store import Store
from orchestrator.study import Study
from orchestrator.trial import run_trial
from trainables.api.identity import FileDigests, Keys


class Counting(MemoryFileSystem):
    """Counts what is asked of it from outside."""

    protocol = "counting"
    store = {}
    pseudo_dirs = [""]
    asked = Counter()
    is_inside = False


def counted(name):
    def ask(self, *arguments, **options):
        if Counting.is_inside:
            return getattr(MemoryFileSystem, name)(self, *arguments, **options)
        Counting.asked[name] += 1
        Counting.is_inside = True
        try:
            return getattr(MemoryFileSystem, name)(self, *arguments, **options)
        finally:
            Counting.is_inside = False

    return ask


for name in ("cat_file", "pipe_file", "put_file", "get_file", "ls", "find", "exists", "rm", "mv", "size", "open"):
    setattr(Counting, name, counted(name))
fsspec.register_implementation("counting", Counting, clobber=True)


@pytest.fixture
def store():
    Counting.store.clear()
    Counting.asked.clear()
    return Store("counting://results")


def test_what_a_trial_costs(store, quick_settings):
    """Numbers that were reached: they are to fall, not to rise."""
    study, settings = Study("s", "?", {"c": Count(1)}), quick_settings(store)
    (trial,) = make_plan(study, store, Keys(FileDigests())).runnable()
    Counting.asked.clear()
    run_trial(Payload(trial, settings))  # with one checkpoint and two files
    assert Counting.asked.total() == 27, Counting.asked
    Counting.asked.clear()
    run_trial(Payload(trial, settings))
    assert Counting.asked.total() == 4, Counting.asked
    Counting.asked.clear()
    assert make_plan(study, store, Keys(FileDigests())).is_complete
    assert Counting.asked.total() == 6, Counting.asked
