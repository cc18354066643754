"""Functions named as text: found without being loaded, loaded when called, and known by their code."""

import sys

import pytest

from orchestrator.entry import check_entry, code_digest, load_entry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package ``drawn`` with a module ``page`` that cannot be loaded twice unnoticed."""
    folder = tmp_path / "drawn"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "page.py").write_text("def draw(x):\n    return x + 1\n\n\nstyle = 3\n")
    (folder / "ink.py").write_text("COLOUR = 'black'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] in ("drawn", "alone")]:
        del sys.modules[name]


def test_an_entry_is_looked_up_without_loading_it(package):
    check_entry("drawn.page:draw")
    code_digest("drawn.page:draw")
    assert "drawn.page" not in sys.modules
    assert load_entry("drawn.page:draw")(2) == 3


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("drawn.page", "expected 'package.module:function'"),
        ("drawn.page:", "expected 'package.module:function'"),
        ("drawn.pages:draw", "there is no module drawn.pages"),
        ("drown.page:draw", "there is no module drown.page"),
        ("drawn.page:drew", "page.py has no function drew"),
        ("drawn.page:style", "page.py has no function style"),
    ],
)
def test_a_wrong_entry_is_named(package, entry, said):
    for look in (check_entry, load_entry):
        with pytest.raises(ValueError, match=said) as caught:
            look(entry)
        assert repr(entry) in str(caught.value)


def test_the_digest_knows_every_file_of_the_package_and_the_function(package):
    before = code_digest("drawn.page:draw")
    assert code_digest("drawn.page:draw") == before
    assert code_digest("drawn.page:other") != before
    (package / "ink.py").write_text("COLOUR = 'white'\n")
    assert code_digest("drawn.page:draw") != before
    alone = package.parent / "alone.py"
    alone.write_text("def draw():\n    return 1\n")
    single = code_digest("alone:draw")
    alone.write_text("def draw():\n    return 2\n")
    assert code_digest("alone:draw") != single
