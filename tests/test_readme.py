"""The README's example runs as shown and prints what its comment says."""

import contextlib
import io
import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_library_example():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    promised = [float(number) for number in re.search(r"print.*# (.*)", code).group(1).split()]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    printed = [float(number) for number in out.getvalue().split()]
    # 10,000 draws: the mean within four standard errors, 0.02, and so the deviation.
    assert all(abs(a - b) < 0.02 for a, b in zip(printed, promised, strict=True))


def test_every_path_it_names_exists():
    root = Path(__file__).parent.parent
    named = re.findall(r"`((?:diffjax|configs|tests|benchmarks|docs)/[\w./]*)`", README)
    named += re.findall(r"\]\((?!http)([\w./]+)\)", README)
    assert named
    assert [path for path in named if not (root / path).exists()] == []


def test_the_map_is_that_of_the_package():
    import importlib.util

    from test_imports import ORDER

    root = Path(__file__).parent.parent
    spec = importlib.util.spec_from_file_location("map", root / "benchmarks" / "map.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    said = (root / "docs" / "map.md").read_text()
    assert said == module.text(ORDER), "run python benchmarks/map.py"
    assert len(said.splitlines()) > 100
