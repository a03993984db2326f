"""Random folders, captions, damaged images and npz files: each loads, or is refused by a sentence.

A failure prints its seed; `Random(seed)` makes the same case again.
"""

import json
import random
import warnings
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from diffjax import data
from diffjax.errors import InputError

CASES = 300
NAMES = ["a", "b.v1", "É", "e\u0301", "x y", ".hidden", "A", "metadata"]
SUFFIXES = [".png", ".jpg", ".JPE", ".jfif", ".webp", ".gif", ".txt", ".TXT", ".md", "", ".csv"]
MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"]
ROWS = ['{"file_name": "%s", "text": "one"}', '{"file_name": "./%s", "caption": ""}', "%s", "[]",
        '{"file_name": "%s"}', '{"file_name": 3, "text": "%s"}',
        '{"file_name": "/%s", "text": 1}']  # fmt: skip


def encoded(chance):
    """An image file, often damaged."""
    mode, kind = chance.choice(MODES), chance.choice(["PNG", "JPEG", "WEBP", "GIF"])
    picture, file = Image.new(mode, (chance.randint(1, 9), chance.randint(1, 9))), BytesIO()
    try:
        picture.save(file, kind)
    except (OSError, KeyError, ValueError):
        picture.convert("RGB").save(file, kind)
    content = bytearray(file.getvalue())
    for _ in range(chance.choice([0, 0, 1, 5])):
        content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content[: chance.choice([len(content)] * 3 + [chance.randrange(len(content))])])


def fill(folder, chance, depth=0):
    """Files, links and folders of any sort."""
    folder.mkdir(exist_ok=True)
    for _ in range(chance.randint(0, 5)):
        path = folder / (chance.choice(NAMES) + chance.choice(SUFFIXES))
        if path.exists() or path.is_symlink():
            continue
        kind = chance.random()
        if kind < 0.2 and depth < 2:
            fill(path, chance, depth + 1)
        elif kind < 0.25:
            path.symlink_to(chance.choice([".", "..", "gone", path.name, folder]))
        elif path.suffix.lower() in (".txt", ".csv"):
            path.write_bytes(chance.choice([b"one", b"", b"\xef\xbb\xbftwo", b"\xff\xfe", b"a\0"]))
        else:
            path.write_bytes(encoded(chance))
    if chance.random() < 0.2:
        known = [p.name for p in folder.iterdir()] or ["a.png"]
        rows = [
            chance.choice(ROWS).replace("%s", chance.choice(known))
            for _ in range(chance.randint(0, 4))
        ]
        (folder / "metadata.jsonl").write_text("\n".join(rows), "utf-8")


def read(make):
    """Whether it loads; then every example is what the source says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            source = make()
        except InputError:
            return False
    for i in range(len(source.examples)):
        example = source.examples[i]
        assert example["x"].shape == source.shape
        assert example["x"].dtype == np.uint8
        assert 0 <= example.get("label", 0) < max(source.num_classes, 1)
        assert example.get("caption", "text")
    return True


@pytest.mark.exhaustive
def test_folders(tmp_path):
    loaded = 0
    for seed in range(CASES):
        print(json.dumps({"seed": seed}))
        chance, root = random.Random(seed), tmp_path / str(seed)
        fill(root, chance)
        keywords = {
            "size": chance.randint(1, 6),
            "channels": chance.choice([1, 3]),
            "skip_unreadable": chance.random() < 0.7,
            "conditional": chance.random() < 0.5,
        }
        loaded += read(lambda root=root, keywords=keywords: data.folder(root, **keywords))
    assert CASES / 20 < loaded < CASES


@pytest.mark.exhaustive
def test_npz_files(tmp_path):
    loaded, path = 0, tmp_path / "a.npz"
    for seed in range(CASES):
        print(json.dumps({"seed": seed}))
        g = np.random.default_rng(seed)
        shape = g.integers(int(g.random() > 0.1), 4, g.choice([3, 4, 4, 4, 4, 4, 5])).tolist()
        shape[-1] = int(g.choice([1, 3, 3, shape[-1]]))
        arrays = {str(g.choice(["x"] * 5 + ["y"])): g.integers(0, 256, shape).astype(
            g.choice(["uint8"] * 5 + ["float32", "int64"]))}  # fmt: skip
        if g.random() < 0.5:
            low = int(g.choice([-1, 0, 0, 0]))
            arrays["label"] = g.integers(low, 5, shape[0] + int(g.choice([0, 0, 0, 1])))
        np.savez(path, **arrays)
        if g.random() < 0.2:
            content = bytearray(path.read_bytes())
            content[int(g.integers(len(content)))] ^= 255
            path.write_bytes(content[: int(g.integers(len(content)))])
        size = int(g.integers(0, 5))
        loaded += read(lambda size=size, seed=seed: data.images(path, size, bool(seed % 2)))
    assert CASES / 20 < loaded < CASES
