"""What can be read: every public function says what it does, and no file is crowded."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "diffjax").rglob("*.py"))
CROWDED = 350


def public(tree, prefix=""):
    """Names and nodes of the public functions and classes, and of a class's methods."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{node.name}.")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_documented(path):
    source = path.read_text()
    tree = ast.parse(source)
    assert ast.get_docstring(tree), "a module begins with a sentence on what it holds"
    for name, node in public(tree):
        if name.endswith(".setup"):  # Linen's own
            continue
        assert ast.get_docstring(node), f"{name} needs a docstring"
    assert len(source.splitlines()) <= CROWDED, "split the file by family"
