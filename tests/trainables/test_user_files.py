"""Whatever is done to a file that users bring, its reader says which file cannot be used, and does nothing else."""

import pytest
from fuzzing import Fuzzer
from user_files import PARSERS


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory):
    with Fuzzer("user_files", tmp_path_factory.mktemp("fuzz")) as fuzzer:
        yield fuzzer


@pytest.mark.parametrize("parser", PARSERS)
def test_what_is_done_to_a_file_is_said_by_name_and_nothing_else_happens(fuzzer, parser):
    assert fuzzer.findings(parser, num_cases=40) == []


@pytest.mark.slow
@pytest.mark.parametrize("parser", PARSERS)
def test_the_same_of_very_many_files(fuzzer, parser):
    assert fuzzer.findings(parser, num_cases=3_000, seed=1) == []
