"""Whatever befalls a document of a store, its readers go on without it or call it damaged, and do nothing else."""

import pytest
from fuzzing import Fuzzer
from store_files import PARSERS


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory):
    with Fuzzer("store_files", tmp_path_factory.mktemp("fuzz")) as fuzzer:
        yield fuzzer


@pytest.mark.parametrize("parser", PARSERS)
def test_a_changed_document_is_passed_over_or_called_damaged(fuzzer, parser):
    assert fuzzer.findings(parser, num_cases=25) == []


@pytest.mark.slow
@pytest.mark.parametrize("parser", PARSERS)
def test_the_same_of_very_many_documents(fuzzer, parser):
    assert fuzzer.findings(parser, num_cases=3_000, seed=1) == []
