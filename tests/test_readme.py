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
