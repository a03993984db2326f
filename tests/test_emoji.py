"""The emoji: their captions, their split, and the prepared set where this machine has it."""

import importlib
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from diffjax import data
from diffjax.errors import InputError

e = importlib.import_module("diffjax.data.emoji")  # diffjax.data.emoji is its function

prepared = pytest.mark.skipif(
    not (e.emoji_folder() / e.FILE).is_file(),
    reason="the emoji are not prepared (python -m diffjax.data.prepare emoji)",
)


def entry(name, code, category="Food & Drink", **more):
    usual = {"short_name": name.lower().replace(" ", "_"), "subcategory": "food-fruit"}
    names = {"name": name.upper(), "unified": code, "image": f"{code.lower()}.png"}
    return {"category": category, "has_img_google": True} | usual | names | more


def png(alpha):
    file = io.BytesIO()
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[..., 3] = alpha
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_captions():
    cldr = {"tts": ["red apple"], "default": ["apple", "red apple", "...", *"abcdefgh"]}
    assert e.captions_of(entry("Apple Red", "1F34E"), cldr) == [
        "red apple",
        "red apple: apple, a, b, c, d, e",
        "apple red",
    ]
    flag = entry("Egypt Flag", "1F1EA-1F1EC", "Flags", subcategory="country-flag")
    assert e.captions_of(flag, None) == ["egypt flag", "egypt flag: country flag"]


def archives(tmp_path, monkeypatch, entries, annotations, pictures):
    """Tarballs of a set of our own in the place where the real ones are looked for."""
    folder = tmp_path / "emoji"
    folder.mkdir()
    files = {e.NAMES: json.dumps(entries).encode()}
    files |= {f"{e.PICTURES}/{name}": raw for name, raw in pictures.items()}
    text = json.dumps({"annotations": {"annotations": annotations}}).encode()
    for (package, (name, _)), members in zip(
        e.ARCHIVES.items(), (files, {e.ANNOTATIONS: text}), strict=True
    ):
        with tarfile.open(folder / name, "w:gz") as file:
            for member, raw in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(raw)
                file.addfile(info, io.BytesIO(raw))
        sha = e.hashlib.sha256((folder / name).read_bytes()).hexdigest()
        monkeypatch.setitem(e.ARCHIVES, package, (name, sha))
    return folder


def test_prepares_from_tarballs(tmp_path, monkeypatch):
    """Transparency shows white, components are left out, an emoji is found without its FE0F."""
    entries = [
        entry("Heart", "2764-FE0F"),
        entry("Pear", "1F350"),
        entry("Skin", "1F3FB", "Component"),
    ]
    pictures = {"2764-fe0f.png": png(0), "1f350.png": png(255)}
    annotations = {"\u2764": {"tts": ["red heart"], "default": ["love"]}}
    folder = archives(tmp_path, monkeypatch, entries, annotations, pictures)
    assert e.prepare_emoji(tmp_path) == folder / e.FILE
    source = data.emoji("all", 8, tmp_path)
    first, second = source.examples[0], source.examples[1]
    assert len(source.examples) == 2
    assert (first["x"] == 255).all()
    assert (second["x"] == 0).all()
    assert (first["caption"], second["caption"]) == ("red heart", "pear")
    assert first["code"] == "2764-FE0F"
    with pytest.raises(InputError, match="split train, test or all; got 'valid'"):
        data.emoji("valid", 8, tmp_path)


def test_another_tarball_is_refused(tmp_path, monkeypatch):
    folder = archives(tmp_path, monkeypatch, [entry("Pear", "1F350")], {}, {"1f350.png": png(1)})
    name, _ = e.ARCHIVES["emoji-datasource-google@16.0.0"]
    (folder / name).write_bytes(b"another")
    with pytest.raises(InputError, match=r"is not emoji-datasource-google@16.0.0: its SHA-256"):
        e.prepare_emoji(tmp_path)
    assert not (folder / e.FILE).exists()


def test_not_prepared(tmp_path):
    with pytest.raises(InputError, match=r"python -m diffjax.data.prepare emoji --data-dir"):
        data.emoji(data_dir=tmp_path)


def test_each_form_of_a_caption_is_equally_likely():
    example = {"captions": np.array(["a", "b", "c", ""]), "caption": "a"}
    rng = np.random.default_rng(0)
    drawn = [data.one_caption(example, rng)["caption"] for _ in range(3000)]
    counts = np.array([drawn.count(text) for text in "abc"])
    assert counts.sum() == 3000
    assert (abs(counts - 1000) < 5 * np.sqrt(3000 * 2 / 9)).all()


@prepared
def test_the_real_set():
    train, test, whole = (data.emoji(split, 8) for split in ("train", "test", "all"))
    assert len(whole.examples) == len(train.examples) + len(test.examples) == 1906
    codes = [set(s.examples.arrays["code"]) for s in (train, test)]
    assert not codes[0] & codes[1]
    assert abs(len(test.examples) - 190.6) < 4 * np.sqrt(1906 * 0.09)
    assert set(test.examples.arrays["label"]) == set(range(9))
    assert data.emoji("all").shape == (64, 64, 3)
    (avocado,) = (x for x in whole.examples.arrays["captions"] if x[0] == "avocado")
    assert "avocado: food, fruit" in avocado


@prepared
def test_batches_depend_on_the_seed_alone():
    source = data.emoji("train", 8)
    one, again, other = (
        next(data.batches(source, 64, seed=seed, augment=(data.one_caption,))) for seed in (0, 0, 1)
    )
    assert (one["caption"] == again["caption"]).all()
    assert (one["caption"] != other["caption"]).any()
    assert (one["caption"] != one["captions"][:, 0]).any()
