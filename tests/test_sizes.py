"""A function fits a screen or two, a class and a file stay one thing."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("analysis", "orchestrator", "studies", "trainables")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
MOST_LINES = {ast.FunctionDef: 50, ast.ClassDef: 200}
MOST_CODE_LINES = 350


def docstring_lines(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from range(node.lineno, node.end_lineno + 1)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_has_grown_too_long(path):
    source = path.read_text()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        most = MOST_LINES.get(type(node))
        if most is not None:
            assert node.end_lineno - node.lineno + 1 <= most, f"{node.name} in line {node.lineno}: split it"
    said = set(docstring_lines(tree))
    lines = enumerate(source.splitlines(), start=1)
    code = [n for n, line in lines if line.strip() and not line.strip().startswith("#") and n not in said]
    assert len(code) <= MOST_CODE_LINES, "which of its things wants a file of its own?"
