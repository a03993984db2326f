"""Tables in a page between two comments, which a script writes anew."""

from pathlib import Path


def write_between(path: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two marks of a file."""
    before, _, rest = path.read_text().partition(begin)
    path.write_text(f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")
