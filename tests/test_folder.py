"""Folders of images: what each kind of file becomes, what is refused, and by what name."""

import json
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from scripts import run

from diffjax import data
from diffjax.data.image import decode, fit, square
from diffjax.errors import InputError

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (8, 8, 3), np.uint8)


def save(path, pixels=NOISE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **options)
    return path


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, bits, colour, raw):
    """A PNG by its specification, independent of Pillow's writer."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def labels(source):
    return [int(source.examples[i]["label"]) for i in range(len(source.examples))]


# --- what folders mean ---


def test_class_folders_in_the_order_of_their_names(tmp_path):
    for name in ("b/2.png", "b/deeper/1.webp", "a/9.PNG", "c/.hidden.png", ".cache/x.png"):
        save(tmp_path / name, lossless=True)
    with pytest.warns(UserWarning, match="1 class folders hold no image, such as c; each keeps"):
        source = data.folder(tmp_path, size=8)
    assert labels(source) == [0, 1, 1]
    assert source.num_classes == 3
    assert source.shape == (8, 8, 3)
    for i in range(3):
        np.testing.assert_array_equal(source.examples[i]["x"], NOISE)


@pytest.mark.parametrize(
    "make",
    [
        lambda root: (root / "b").mkdir(),
        lambda root: save(root / "b/1.gif"),
        lambda root: save(root / "b/.hidden.png"),
        lambda root: (root / "b/deeper").mkdir(parents=True),
    ],
    ids=["empty", "other format", "hidden", "empty below"],
)
@pytest.mark.filterwarnings("ignore:.*not read")
def test_a_class_without_an_image_keeps_its_number(tmp_path, make):
    for name in ("a/1.png", "c/1.png"):
        save(tmp_path / name)
    make(tmp_path)
    with pytest.warns(UserWarning, match="1 class folders hold no image, such as b"):
        source = data.folder(tmp_path, size=8)
    assert labels(source) == [0, 2]
    assert source.num_classes == 3


def test_links_are_followed(tmp_path):
    """To a class, to a folder in a class and to an image; each in its alphabetic place."""
    root, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    save(root / "a/1.png")
    save(root / "c/1.png", 255 - NOISE)
    save(elsewhere / "1.png", NOISE // 2)
    (root / "b").symlink_to(elsewhere)
    (root / "c" / "deeper").symlink_to(elsewhere)
    (root / "c" / "2.png").symlink_to(elsewhere / "1.png")
    source = data.folder(root, size=8)
    assert labels(source) == [0, 1, 2, 2, 2]
    wanted = [NOISE, NOISE // 2, 255 - NOISE, NOISE // 2, NOISE // 2]
    for i, pixels in enumerate(wanted):
        np.testing.assert_array_equal(source.examples[i]["x"], pixels)


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("a/loop", "..", "a/loop is a link to a folder that it is in itself"),
        ("loop", ".", "loop is a link to a folder that it is in itself"),
        ("b", "gone", "b: the link leads nowhere"),
        ("b", "b", "Too many levels of symbolic links|the link leads nowhere"),
    ],
)
def test_links_that_are_refused(tmp_path, name, target, message):
    save(tmp_path / "a/1.png")
    (tmp_path / name).symlink_to(target)
    with pytest.raises(InputError, match=message):
        data.folder(tmp_path, size=8)


def test_files_of_other_formats_are_counted_and_named(tmp_path):
    for name in ("1.png", "2.jfif", "3.JPE"):
        save(tmp_path / name, format="png" if name == "1.png" else "jpeg")
    for name in ("a.gif", "b.GIF", "deep/c.bmp"):
        save(tmp_path / name)
    (tmp_path / "IMG_1").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    with pytest.warns(UserWarning, match="not read: ") as caught:
        source = data.folder(tmp_path, size=8)
    assert len(source.examples) == 3
    said = str(caught[0].message)
    for text in (
        "2 .gif such as a.gif",
        "1 .bmp such as deep/c.bmp",
        "1 without suffix such as IM",
    ):
        assert text in said
    for path in tmp_path.glob("[123].*"):
        path.unlink()
    with pytest.raises(InputError, match=r"found none, but 2 \.gif such as a\.gif, "):
        data.folder(tmp_path, size=8)


def test_conditions_are_left_aside_when_asked(tmp_path):
    """So that images in and beside folders are one set, whatever else lies there."""
    for name in ("1.png", "a/2.png", "b/3.png"):
        save(tmp_path / name)
    (tmp_path / "1.txt").write_text("one")
    with pytest.raises(InputError, match="2 of 3 images have no caption"):
        data.folder(tmp_path, size=8)
    source = data.folder(tmp_path, size=8, conditional=False)
    assert source.num_classes == 0
    assert [list(source.examples[i]) for i in range(3)] == [["x"]] * 3


def test_flat_folder_is_unconditional(tmp_path):
    save(tmp_path / "1.png")
    source = data.folder(tmp_path, size=8)
    assert source.num_classes == 0
    assert list(source.examples[0]) == ["x"]


def test_captions_of_metadata(tmp_path):
    for name in ("x/1.png", "2.png"):
        save(tmp_path / name)
    rows = [{"file_name": "2.png", "text": "two"}, {"file_name": "./x/1.png", "caption": " öne "}]
    text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "metadata.jsonl").write_text(text, "utf-8")
    source = data.folder(tmp_path, size=8)
    assert [source.examples[i]["caption"] for i in range(2)] == ["two", "öne"]
    assert source.num_classes == 0
    captions = next(data.batches(source, 2))["caption"]
    assert sorted(captions.tolist()) == ["two", "öne"]


def test_captions_beside_the_images(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f"the letter {name}\n")
    source = data.folder(tmp_path, size=8)
    assert source.examples[1]["caption"] == "the letter b"


def test_marks_and_spellings_of_captions(tmp_path):
    """A byte-order mark is no part of a caption; é is one letter or two; .TXT is .txt."""
    save(tmp_path / "caf\u0065\u0301.png")
    save(tmp_path / "b.v1.png")
    (tmp_path / "b.v1.TXT").write_text("two\n", "utf-8-sig")
    (tmp_path / "caf\u00e9.txt").write_text("eins", "utf-8-sig")
    source = data.folder(tmp_path, size=8)
    assert [source.examples[i]["caption"] for i in range(2)] == ["two", "eins"]
    rows = [{"file_name": "caf\u00e9.png", "text": "un"}, {"file_name": "b.v1.png", "text": "deux"}]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "metadata.jsonl").write_text(text, "utf-8-sig")
    source = data.folder(tmp_path, size=8)
    assert [source.examples[i]["caption"] for i in range(2)] == ["deux", "un"]


ROW = '{"file_name": "%s", "text": "one"}'


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["photos/a.png"], r"line 1: there is no image 'photos/a.png' .* such as 'a.png'"),
        (["/data/a.png"], r"line 1: there is no image '/data/a.png' .* such as 'a.png'"),
        (["a.png", "B.PNG"], r"line 2: there is no image 'B.PNG' .* such as 'b.png'"),
        (["a.png", "b.png", "c.png"], r"line 3: there is no image 'c.png'"),
        (["x\\\\b.png"], r"line 1: there is no image .* such as 'b.png'"),
        (["a.png", "b.png", "./a.png"], r"line 3: './a.png' has a caption in line 1 already"),
        (["a.png"], r"1 of 2 images have no caption, such as b.png"),
        ([], r"expected a row for each image; it has none"),
    ],
)
def test_rows_that_match_no_image(tmp_path, rows, message):
    for name in ("a.png", "b.png"):
        save(tmp_path / name)
    (tmp_path / "metadata.jsonl").write_text("\n".join(ROW % row for row in rows) + "\n")
    with pytest.raises(InputError, match=message):
        data.folder(tmp_path, size=8)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "file_name,text\na.png,one\n"),
        ("x/metadata.csv", "file_name,text\na.png,one\n"),
        ("x/metadata.jsonl", ROW % "a.png"),
        ("Metadata.JSONL", ROW % "x/a.png"),
    ],
)
def test_metadata_of_another_form_or_place_is_named(tmp_path, name, text):
    save(tmp_path / "x/a.png")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"{name}: captions are read from .*first row is .*a.png"):
        data.folder(tmp_path, size=8)


@pytest.mark.parametrize(
    "row",
    ['{"file_name": "a.png"}', '{"file_name": "a.png", "text": null}', '["a.png", "one"]',
     '{"file_name": 3, "text": "one"}', '{"file_name": "a.png", "text": ["one"]}', "[" * 100_000],
)  # fmt: skip
def test_rows_of_another_form(tmp_path, row):
    save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text(row)
    with pytest.raises(InputError, match="line 1: expected"):
        data.folder(tmp_path, size=8)


@pytest.mark.parametrize("text", [b"\xff\xfeo\0", b"o\0n\0e\0", b"caf\xe9"])
@pytest.mark.parametrize("name", ["a.txt", "metadata.jsonl"])
def test_captions_of_another_encoding_are_named(tmp_path, name, text):
    save(tmp_path / "a.png")
    (tmp_path / name).write_bytes(text)
    with pytest.raises(InputError, match=f"{name}: expected text in UTF-8"):
        data.folder(tmp_path, size=8)


@pytest.mark.parametrize("decode_all", [True, False])
def test_read_at_the_start_or_when_asked(tmp_path, monkeypatch, decode_all):
    """What is too large to hold reads the same pixels from the files."""
    for i in range(3):
        save(tmp_path / f"{i}.png", NOISE + np.uint8(i))
    monkeypatch.setattr("diffjax.data.source.IN_MEMORY", 100)
    source = data.folder(tmp_path, size=8, decode_all=decode_all)
    assert not source.in_memory
    for i in range(3):
        np.testing.assert_array_equal(source.examples[i]["x"], NOISE + np.uint8(i))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no such folder"),
        (lambda root: root.mkdir(), "found none"),
        (lambda root: (save(root / "a/1.png"), save(root / "2.png")), "found 2.png beside 1 "),
        (
            lambda root: (save(root / "1.png"), save(root / "2.png"),
                          (root / "2.txt").write_text("two")),
            "1 of 2 images have no caption, such as 1.png",
        ),
        (
            lambda root: (save(root / "1.png"), (root / "metadata.jsonl").write_text("{]")),
            'metadata.jsonl, line 1: expected .* got "',
        ),
        (
            lambda root: (save(root / "1.png"), (root / "1.txt").write_bytes(b"\xff\xfe")),
            "UTF-8",
        ),
    ],
)  # fmt: skip
def test_folders_that_are_refused(tmp_path, make, message):
    make(tmp_path / "set")
    with pytest.raises(InputError, match=message.replace('got "', "got '")):
        data.folder(tmp_path / "set", size=8)


# --- what each kind of image becomes ---


@pytest.mark.parametrize("turned", [1, 3, 6, 7])
@pytest.mark.parametrize(("cut", "size"), [(0, 32), (0, 64), (3, 64), (0, 100), (1, 25), (0, 213)])
def test_large_photos_are_decoded_smaller_and_look_the_same(cut, size, turned, tmp_path):
    """Photos of 640 x 427, or a little less, against a decode of all their pixels."""
    from sklearn.datasets import load_sample_images

    for photo in load_sample_images().images:
        exif = Image.Exif()
        exif[0x0112] = turned
        path = tmp_path / "a.jpg"
        Image.fromarray(photo[cut:, cut:]).save(path, quality=92, exif=exif)
        wanted = fit(decode(path), size).astype(int)
        gap = np.abs(square(path, size).astype(int) - wanted)
        assert gap.mean() < (1 if size < 213 else 1e-9)
        assert np.percentile(gap, 99) <= 6
        grey = np.abs(square(path, size, 1).astype(int) - fit(decode(path, 1), size))
        assert grey.mean() < 1


def test_a_small_result_of_a_transparent_png_is_that_of_its_pixels(tmp_path):
    """Two bits of grey with one value transparent, which is scaled before the pixels are read."""
    raw = (b"\0" + bytes([0b00011011] * 2)) * 8
    whole = png(8, 8, 2, 0, raw)
    (tmp_path / "a.png").write_bytes(whole[:33] + chunk(b"tRNS", struct.pack(">H", 1)) + whole[33:])
    wanted = fit(decode(tmp_path / "a.png", 1), 2)
    np.testing.assert_array_equal(square(tmp_path / "a.png", 2, 1), wanted)


def test_a_large_photo_is_decoded_smaller(tmp_path, monkeypatch):
    asked = []
    path = tmp_path / "a.jpg"
    Image.new("RGB", (640, 640)).save(path)
    Image.new("RGB", (640, 640)).save(tmp_path / "a.png")
    draft = JpegImageFile.draft
    monkeypatch.setattr(
        JpegImageFile, "draft", lambda self, *a: (asked.append(a), draft(self, *a))[1]
    )
    for size in (40, 64, 160, 161):
        square(path, size)
    square(tmp_path / "a.png", 40)
    assert asked == [(None, (80, 80)), (None, (160, 160)), (None, (320, 320))]


def test_sixteen_bits_are_scaled(tmp_path):
    """v / 257, so that 65535 is 255; both edges and a half on the way."""
    values = [0, 128, 129, 257, 32896, 65406, 65407, 65535]
    raw = b"\0" + struct.pack(">8H", *values)
    (tmp_path / "a.png").write_bytes(png(8, 1, 16, 0, raw))
    grey = np.asarray(decode(tmp_path / "a.png", 1))[0]
    assert grey.tolist() == [0, 0, 1, 1, 128, 254, 255, 255]


def test_sixteen_bit_colour(tmp_path):
    values = [0, 32896, 65535]
    (tmp_path / "a.png").write_bytes(png(1, 1, 16, 2, b"\0" + struct.pack(">3H", *values)))
    assert np.asarray(decode(tmp_path / "a.png"))[0, 0].tolist() == [0, 128, 255]


def test_one_bit(tmp_path):
    (tmp_path / "a.png").write_bytes(png(4, 1, 1, 0, b"\0" + bytes([0b10100000])))
    assert np.asarray(decode(tmp_path / "a.png", 1))[0].tolist() == [255, 0, 255, 0]


def test_palette(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((1, 0), 1)
    save(tmp_path / "a.png", picture)
    pixels = np.asarray(decode(tmp_path / "a.png"))
    assert pixels[0].tolist() == [[10, 20, 30], [200, 100, 50]]


def test_palette_with_transparency(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((1, 0), 1)
    save(tmp_path / "a.png", picture, transparency=0)
    pixels = np.asarray(decode(tmp_path / "a.png"))
    assert pixels[0].tolist() == [[255, 255, 255], [200, 100, 50]]


@pytest.mark.parametrize(
    ("bits", "colour", "clear", "raw", "wanted"),
    [
        (1, 0, [1], bytes([0b01000000]), [0, 255]),
        (2, 0, [2], bytes([0b10010000]), [255, 85]),
        (2, 0, [3], bytes([0b10010000]), [170, 85]),
        (4, 0, [3], bytes([0x3A]), [255, 170]),
        (8, 0, [10], bytes([10, 11]), [255, 11]),
        (16, 0, [1000], struct.pack(">2H", 1000, 2000), [255, 8]),
        (16, 0, [8], struct.pack(">2H", 8 * 257, 8), [8, 255]),
        (8, 2, [9, 9, 9], bytes([9, 9, 9, 8, 8, 8]), [255, 8]),
        (16, 2, [2313] * 3, struct.pack(">6H", *[2313] * 3, *[9] * 3), [255, 0]),
        (16, 2, [9] * 3, struct.pack(">6H", *[2313] * 3, *[9] * 3), [9, 255]),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_one_transparent_colour_over_white(tmp_path, bits, colour, clear, raw, wanted, channels):
    """The tRNS chunk holds the sample as it is stored: PNG specification, section 11.3.2.1."""
    whole = png(2, 1, bits, colour, b"\0" + raw)
    end_of_header = 8 + 25
    said = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))
    (tmp_path / "a.png").write_bytes(whole[:end_of_header] + said + whole[end_of_header:])
    pixels = np.asarray(decode(tmp_path / "a.png", channels)).reshape(2, channels)
    np.testing.assert_array_equal(pixels, np.repeat([wanted], channels, 0).T)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_alpha_over_white(tmp_path, suffix):
    """a colour + (1 - a) 255."""
    rgba = np.array([[[100, 0, 50, 255], [100, 0, 50, 0], [100, 0, 50, 128]]], np.uint8)
    save(tmp_path / f"a.{suffix}", rgba, lossless=True, exact=True)
    pixels = np.asarray(decode(tmp_path / f"a.{suffix}")).astype(int)
    a = rgba[..., 3:] / 255
    np.testing.assert_allclose(pixels, a * rgba[..., :3] + (1 - a) * 255, atol=1)


def test_cmyk(tmp_path):
    """White, cyan and black in ink are those in light, within what JPEG loses."""
    inks = np.zeros((16, 48, 4), np.uint8)
    inks[:, 16:32, 0] = 255
    inks[:, 32:, 3] = 255
    save(tmp_path / "a.jpg", Image.fromarray(inks, "CMYK"), quality=100)
    pixels = np.asarray(decode(tmp_path / "a.jpg")).astype(int)
    wanted = [[255, 255, 255], [0, 255, 255], [0, 0, 0]]
    np.testing.assert_allclose(pixels[8, [8, 24, 40]], wanted, atol=3)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(1, lambda x: x), (2, np.fliplr), (3, lambda x: np.rot90(x, 2)), (4, np.flipud),
     (6, lambda x: np.rot90(x, -1)), (8, np.rot90)],
)  # fmt: skip
def test_exif_orientation(tmp_path, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = NOISE[:, :5]
    save(tmp_path / "a.png", pixels, exif=exif)
    np.testing.assert_array_equal(np.asarray(decode(tmp_path / "a.png")), upright(pixels))


def test_first_frame_of_an_animation(tmp_path):
    other = Image.fromarray(255 - NOISE)
    save(tmp_path / "a.webp", save_all=True, append_images=[other], lossless=True)
    np.testing.assert_array_equal(np.asarray(decode(tmp_path / "a.webp")), NOISE)


def test_bytes_count_and_not_the_name(tmp_path):
    save(tmp_path / "a.webp", lossless=True).rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(np.asarray(decode(tmp_path / "a.jpg")), NOISE)


# --- crop and resize ---


def test_central_square():
    """What is beside the square leaves no trace, even through the filter."""
    wide = np.zeros((8, 20, 3), np.uint8)
    wide[:, 6:14] = 77
    for pixels in (wide, wide.transpose(1, 0, 2)):
        for size in (3, 8, 16):
            assert (fit(Image.fromarray(pixels), size) == 77).all()


def test_the_same_size_is_a_copy():
    np.testing.assert_array_equal(fit(Image.fromarray(NOISE), 8), NOISE)


def test_no_aliasing():
    """Stripes too fine for the result become their mean; without a filter they stay stripes."""
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    small = fit(Image.fromarray(stripes), 8)
    assert small.shape == (8, 8, 1)
    assert (np.abs(small[:, 1:-1].astype(int) - 127.5) < 3).all()


def test_a_ramp_keeps_its_place():
    """A symmetric filter keeps a line: the new pixel i is the mean of old 4i .. 4i + 3."""
    ramp = np.tile(np.arange(0, 128, 2, dtype=np.uint8), (64, 1))
    small = fit(Image.fromarray(ramp), 16)[8, :, 0]
    inner = np.arange(3, 13)
    np.testing.assert_allclose(small[inner], 8 * inner + 3, atol=0.51)


# --- what cannot be read ---


def test_grey_and_colour(tmp_path):
    save(tmp_path / "a.png", NOISE[..., 0])
    np.testing.assert_array_equal(
        data.folder(tmp_path, size=8).examples[0]["x"], np.repeat(NOISE[..., :1], 3, axis=2)
    )
    grey = data.folder(tmp_path, size=8, channels=1)
    assert grey.shape == (8, 8, 1)
    np.testing.assert_array_equal(grey.examples[0]["x"], NOISE[..., :1])


def damaged(root):
    """Files that cannot be read, and the reason that each is given."""
    photo = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    for suffix in ("png", "jpg", "webp"):
        whole = save(root / f"whole.{suffix}", photo).read_bytes()
        (root / f"cut.{suffix}").write_bytes(whole[: len(whole) // 2])
    (root / "empty.png").write_bytes(b"")
    (root / "text.png").write_text("I am not an image.")
    save(root / "gif.gif")
    (root / "gif.gif").rename(root / "gif.png")
    (root / "header.png").write_bytes(png(8, 8, 8, 2, b"")[:20])
    flipped = bytearray((root / "whole.png").read_bytes())
    flipped[len(flipped) // 2] ^= 255
    (root / "flipped.png").write_bytes(flipped)
    (root / "bomb.png").write_bytes(png(50_000, 50_000, 8, 0, b"\0" * 1000))
    (root / "limit.png").write_bytes(png(9_000, 8_000, 8, 0, b"\0" * 1000))
    (root / "folder.png").mkdir()
    (root / "nowhere.png").symlink_to(root / "gone.png")
    return {
        "cut.png": "truncated",
        "cut.jpg": "truncated",
        "cut.webp": "could not create decoder",
        "empty.png": "an empty file",
        "text.png": "not a PNG, JPEG or WebP image",
        "gif.png": "not a PNG, JPEG or WebP image",
        "header.png": "Truncated",
        "flipped.png": "broken data stream",
        "bomb.png": "more than the 67,108,864 pixels allowed",
        "nowhere.png": "No such file",
        "limit.png": "9000 x 8000 are more than the 67,108,864 pixels allowed",
    }


def reasons(text):
    """File name to reason, of the lines of a report."""
    return dict(line.strip().split(": ", 1) for line in str(text).splitlines()[1:])


def test_each_damaged_image_is_named(tmp_path):
    wanted = damaged(tmp_path)
    with pytest.raises(InputError, match=r"11 of 14 images cannot be read; .*skip_unre") as error:
        data.folder(tmp_path, size=8)
    found = reasons(error.value)
    assert set(found) == set(wanted)
    for name, reason in wanted.items():
        assert re.search(reason, found[name]), (name, found[name])


def test_damaged_images_are_skipped_when_asked(tmp_path):
    wanted = damaged(tmp_path)
    with pytest.warns(UserWarning, match="leaving out 11 of 14") as caught:
        source = data.folder(tmp_path, size=8, skip_unreadable=True)
    assert set(reasons(caught[0].message)) == set(wanted)
    assert len(source.examples) == 3


def test_labels_stay_with_their_images(tmp_path):
    """A class of which nothing can be read keeps its number."""
    for name, value in {"a/1.png": 1, "a/2.png": 2, "b/3.png": 3, "c/4.png": 4}.items():
        save(tmp_path / name, np.full((8, 8), value, np.uint8))
    for name in ("a/1.png", "b/3.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(UserWarning, match="2 of 4"):
        source = data.folder(tmp_path, size=8, skip_unreadable=True)
    assert source.num_classes == 3
    assert labels(source) == [0, 2]
    assert [source.examples[i]["x"].max() for i in range(2)] == [2, 4]


def test_nothing_is_left(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="none of the 1 images can be read"):
        data.folder(tmp_path, size=8, skip_unreadable=True)


def test_headers_alone(tmp_path):
    """Without decoding, what a header shows is named at the start, the rest at its turn."""
    whole = save(tmp_path / "cut.png", RNG.integers(0, 256, (64, 64, 3), np.uint8)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    source = data.folder(tmp_path, size=8, decode_all=False)
    with pytest.raises(InputError, match=r"cut.png: .*truncated"):
        source.examples[0]
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 of 2 .*\n  empty.png: an empty file"):
        data.folder(tmp_path, size=8, decode_all=False)


BOMBS = """
import resource, sys
from diffjax.data import image
from diffjax.data.image import Unreadable, decode
import PIL.Image, numpy
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        decode(path)
    except Unreadable as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_bombs_take_no_memory(tmp_path):
    """2.5 gigapixels of PNG, 268 megapixels of WebP: refused within 32 MiB."""
    (tmp_path / "a.png").write_bytes(png(50_000, 50_000, 8, 0, b"\0" * 10**7))
    # A lossless WebP whose header says 16383 x 16383.
    bits = (16382 | 16382 << 14).to_bytes(4, "little")
    stream = b"\x2f" + bits + b"\0" * 27
    riff = b"WEBPVP8L" + struct.pack("<I", len(stream)) + stream
    (tmp_path / "b.webp").write_bytes(b"RIFF" + struct.pack("<I", len(riff)) + riff)
    run = subprocess.run(
        [sys.executable, "-c", BOMBS, tmp_path / "a.png", tmp_path / "b.webp"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    *said, grown = run.stdout.splitlines()
    assert len(said) == 2, run.stderr
    assert all("pixels allowed" in line for line in said), said
    assert int(grown) < 32


# --- training on them ---

UNCONDITIONAL = """
import sys
sys.path.insert(0, {tests!r})
import jax, jax.numpy as jnp, optax
from diffjax import conditioning, data, losses, schedules, weighting
from diffjax.experiment import Experiment, Model, Sampling
from diffjax.parameterization import make_denoiser, predict_v

def net(params, x, t, cond, key=None):
    assert cond is None, cond
    return params["w"] * x

def get_config(steps: int = 3):
    s = schedules.vp_cosine()
    density = weighting.stratified(s)
    loss = losses.denoising_loss(net, s, predict_v, weighting.snr_plus_one, density)
    model = Model(
        init=lambda key: {{"w": jnp.ones(())}},
        denoiser=lambda params: make_denoiser(net, params, s, predict_v),
        example=jax.ShapeDtypeStruct({shape}, jnp.float32),
        schedule=s,
        conditions=(conditioning.label({classes}),) if {classes} else (),
        sampling=Sampling(steps=1),
    )
    return Experiment(
        model=model,
        source=lambda: data.folder({photos!r}, size=4),
        loss=lambda frozen: loss,
        optimizer=optax.sgd(1e-3),
        steps=steps,
        batch_size=8,
    )
"""


@pytest.mark.parametrize(
    ("shape", "classes", "message"),
    [
        ((4, 4, 3), 0, ""),
        ((4, 4, 3), 2, "has 2 classes and the data no labels"),
        ((8, 8, 3), 0, "of shape (8, 8, 3); the data has (4, 4, 3)"),
    ],
)
def test_captioned_folders_are_trained_on(tmp_path, monkeypatch, capsys, shape, classes, message):
    """Without conditions, and with one sentence where the experiment wants others."""
    for i in range(8):
        save(tmp_path / f"photos/{i}.png")
        (tmp_path / f"photos/{i}.txt").write_text(f"photo {i}")
    config = tmp_path / "config.py"
    tests, photos = str(Path(__file__).parent), str(tmp_path / "photos")
    config.write_text(
        UNCONDITIONAL.format(tests=tests, photos=photos, shape=shape, classes=classes)
    )
    code, _, err = run(monkeypatch, capsys, "train", config, "--workdir", tmp_path / "run")
    assert code == (2 if message else 0), err
    assert message in err
    assert "Traceback" not in err
    if not message:
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        assert np.isfinite(json.loads(lines[-1])["loss"])
