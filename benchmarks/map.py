"""The map of the package, from the first sentence of each part: `python benchmarks/map.py`.

Writes docs/map.md, in the order in which parts import each other; a test holds it.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))


def first_sentence(path: Path) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]


def parts(order: list[str]) -> list[tuple[str, str]]:
    """(name, sentence) of every file and folder of the package, folders with their files."""
    found = []
    for name in order:
        folder, file = ROOT / "diffjax" / name, ROOT / "diffjax" / f"{name.replace('.', '/')}.py"
        if file.is_file():
            found.append((str(file.relative_to(ROOT)), first_sentence(file)))
        elif folder.is_dir():
            found.append((f"diffjax/{name}/", first_sentence(folder / "__init__.py")))
            own = {"__init__", *(n.split(".")[1] for n in order if n.startswith(f"{name}."))}
            files = sorted(path for path in folder.glob("*.py") if path.stem not in own)
            found += [(f"diffjax/{name}/{path.name}", first_sentence(path)) for path in files]
    return found


def text(order: list[str]) -> str:
    """The map as Markdown."""
    rows = parts(order)
    lines = [f"| `{name}` | {sentence.replace('|', chr(92) + '|')} |" for name, sentence in rows]
    head = [
        "# The map of the package",
        "",
        "Made by `python benchmarks/map.py` from the first line of each file. A part imports from",
        "itself and from the parts above it.",
        "",
        "| file | what it holds |",
        "|---|---|",
    ]
    return "\n".join([*head, *lines]) + "\n"


if __name__ == "__main__":
    from test_imports import ORDER

    (ROOT / "docs" / "map.md").write_text(text(ORDER))
