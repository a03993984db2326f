"""Sources and the pipeline: every example once an epoch, batch i a function of i."""

import os
import subprocess
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from PIL import Image

from diffjax import data
from diffjax.errors import InputError


def numbered(n=20, size=4):
    x = np.arange(n, dtype=np.float32)[:, None, None, None] * np.ones(
        (1, size, size, 1), np.float32
    )
    x = x + np.arange(size, dtype=np.float32)[None, None, :, None] / 10  # columns differ
    return data.Source(data.Arrays(x=x, label=np.arange(n, dtype=np.int32)), x.shape[1:], n)


def take(iterator, n):
    return [next(iterator) for _ in range(n)]


def test_digits_are_the_real_ones():
    source = data.digits()
    assert len(source.examples) == 1797
    assert source.shape == (8, 8, 1)
    first = source.examples[0]
    assert first["label"] == 0
    assert first["x"].dtype == np.float32
    np.testing.assert_array_equal(first["x"][0, :, 0] * 8 + 8, [0, 0, 5, 13, 9, 1, 0, 0])


def test_every_example_once_an_epoch_in_a_new_order():
    batches = take(data.batches(numbered(), 5, seed=1), 8)
    labels = np.concatenate([b["label"] for b in batches])
    for epoch in (labels[:20], labels[20:]):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(20))
    assert (labels[:20] != labels[20:]).any()
    for batch in batches:
        np.testing.assert_array_equal(batch["x"][:, 0, 0, 0], batch["label"])


@pytest.mark.parametrize("augment", [(), (data.flip, data.random_shift(1))], ids=["", "augmented"])
def test_batch_i_does_not_depend_on_where_iteration_began(augment):
    whole = take(data.batches(numbered(), 6, seed=3, augment=augment), 12)
    for start in (1, 7):
        for a, b in zip(
            whole[start:], take(data.batches(numbered(), 6, 3, start, augment), 5), strict=False
        ):
            np.testing.assert_array_equal(a["x"], b["x"])
    other = take(data.batches(numbered(), 6, seed=4, augment=augment), 12)
    assert any((a["label"] != b["label"]).any() for a, b in zip(whole, other, strict=True))


def test_flip_mirrors_about_half_left_to_right():
    batches = take(data.batches(numbered(), 20, augment=(data.flip,)), 30)
    first_column = np.concatenate([b["x"][:, 0, 0, 0] - b["label"] for b in batches])
    mirrored = np.isclose(first_column, 0.3, atol=1e-4)
    assert np.isclose(first_column[~mirrored], 0, atol=1e-4).all()
    assert 0.42 < mirrored.mean() < 0.58  # 600 fair coins: 4 standard deviations


def coordinates(height, width):
    """An image whose pixel (i, j) holds (i, j), and a mask beside it."""
    x = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)
    return {"x": x.astype(np.float32), "mask": x.sum(-1, keepdims=True)}


def test_crops_are_windows_of_every_place_equally_often():
    crop, rng = data.random_crop(3, ("x", "mask")), np.random.default_rng(0)
    counts = np.zeros((3, 2), int)
    for _ in range(1200):
        cut = crop(coordinates(5, 4), rng)
        top, left = cut["x"][0, 0].astype(int)
        np.testing.assert_array_equal(cut["x"], coordinates(3, 3)["x"] + (top, left))
        np.testing.assert_array_equal(cut["mask"], cut["x"].sum(-1, keepdims=True))
        counts[top, left] += 1
    assert (np.abs(counts - 200) < 60).all()  # 4.6 standard deviations


def test_shifts_are_uniform_and_mirror_at_the_edge():
    shift, rng = data.random_shift(2), np.random.default_rng(0)
    counts = np.zeros((5, 5), int)
    for _ in range(2500):
        moved = shift({"x": np.stack([coordinates(6, 8)["x"]] * 2)}, rng)["x"]
        np.testing.assert_array_equal(moved[0], moved[1])  # the frames of a video move as one
        down, right = 3 - moved[0][3, 3].astype(int)
        counts[down, right] += 1
        rows, columns = np.abs(np.arange(6) - down), np.abs(np.arange(8) - right)
        rows, columns = np.minimum(rows, 10 - rows), np.minimum(columns, 14 - columns)
        wanted = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1)
        np.testing.assert_array_equal(moved[0], wanted)
    assert (np.abs(counts - 100) < 50).all()  # 5 standard deviations


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (lambda: data.random_crop(0), "at least 1 pixel; got 0"),
        (lambda: data.random_crop(9), "at least 9 x 9 pixels; got 4 x 6"),
        (lambda: data.random_shift(0), "at least 1 pixel; got 0"),
        (lambda: data.random_shift(4), "larger than the shift of 4 pixels; got 4 x 6"),
    ],
)
def test_augmentations_that_are_refused(augment, message):
    with pytest.raises(InputError, match=message):
        augment()(coordinates(4, 6), np.random.default_rng(0))


def pairs(n=12):
    """Examples of several arrays: points with a mask, a video, tokens, a caption, a nested dict."""
    return data.Source(
        data.Arrays(
            x=np.arange(n * 30, dtype=np.float64).reshape(n, 10, 3),
            mask=np.arange(n * 10).reshape(n, 10) % 3 == 0,
            video=np.arange(n * 16, dtype=np.uint8).reshape(n, 2, 2, 2, 2),
            tokens=np.arange(n * 5, dtype=np.int64).reshape(n, 5),
            text=[{"caption": "a" * i, "width": np.float32(i)} for i in range(n)],
        ),
        (10, 3),
        0,
    )


def test_batches_are_trees_of_arrays():
    """Nothing is scaled but the bytes of x, and each array keeps its own example's row."""
    batch = next(data.batches(pairs(), 4))
    first = batch["x"][:, 0, 0].astype(int) // 30
    assert batch["x"].dtype == np.float32
    for name in ("mask", "video", "tokens"):
        np.testing.assert_array_equal(batch[name], np.stack(pairs().examples.arrays[name])[first])
        assert batch[name].dtype == pairs().examples.arrays[name].dtype
    assert [len(caption) for caption in batch["text"]["caption"]] == first.tolist()
    np.testing.assert_array_equal(batch["text"]["width"], first)


def test_integer_x_stays_as_it_is():
    tokens = np.arange(60, dtype=np.int32).reshape(12, 5)
    batch = next(data.batches(data.Source(data.Arrays(x=tokens), (5,), 0), 3))
    assert batch["x"].dtype == np.int32
    np.testing.assert_array_equal(batch["x"], tokens[batch["x"][:, 0] // 5])


def test_strings_never_reach_jax():
    batch = next(data.batches(pairs(), 4))
    arrays = data.arrays_of(batch)
    assert set(arrays) == {"x", "mask", "video", "tokens", "text"}
    assert set(arrays["text"]) == {"width"}
    assert "caption" in batch["text"]  # the batch itself is as it was
    np.testing.assert_array_equal(
        jax.jit(lambda b: b["text"]["width"])(arrays), batch["text"]["width"]
    )
    others = {"x": np.zeros(2), "at": np.zeros(2, "M8[s]"), "bytes": [b""], "object": [None, 1]}
    assert set(data.arrays_of(others)) == {"x"}


def test_an_augmentation_is_any_function_of_an_example_and_a_generator():
    """In order, with draws of one generator that are the example's own in each epoch."""

    def noted(example, rng):
        return example | {"draw": rng.random()}

    def twice(example, rng):
        return example | {"both": np.array([example["draw"], rng.random()])}

    batches = take(data.batches(numbered(6), 6, augment=(noted, twice)), 2)
    assert all((b["both"][:, 0] == b["draw"]).all() for b in batches)
    draws = np.concatenate([b["both"] for b in batches])
    assert len(np.unique(draws)) == 24


def test_array_scales_bytes_to_the_unit_interval(tmp_path):
    x = np.array([0, 255, 51], np.uint8).reshape(3, 1, 1, 1)
    np.savez(tmp_path / "a.npz", x=x, label=np.array([0, 4, 2]))
    source = data.array(tmp_path / "a.npz")
    assert source.num_classes == 5
    batch = next(data.batches(source, 3))
    assert batch["x"].dtype == np.float32
    values = dict(zip(batch["label"].tolist(), batch["x"].ravel().tolist(), strict=True))
    assert values == pytest.approx({0: -1, 4: 1, 2: -0.6}, abs=1e-6)


BYTES = np.arange(2 * 8 * 6 * 3, dtype=np.uint8).reshape(2, 8, 6, 3)


def test_array_keeps_what_has_a_row_for_each_image(tmp_path):
    mask, names = np.array([True, False]), np.array(["one", "two"])
    np.savez(tmp_path / "a.npz", x=BYTES, mask=mask, caption=names, classes=np.arange(5))
    with pytest.warns(UserWarning, match=r"a.npz: not read, .*\['classes'\]"):
        source = data.array(tmp_path / "a.npz")
    assert set(source.examples[1]) == {"x", "mask", "caption"}
    assert source.examples[1]["caption"] == "two"
    assert source.num_classes == 0


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": BYTES}, r"no array `x` among \['images'\]"),
        ({"x": BYTES[0]}, r"got `x` \(8, 6, 3\) uint8"),
        ({"x": BYTES / 255}, "float64"),
        ({"x": BYTES[:0]}, "at least one image"),
        ({"x": BYTES, "label": [0.0, 1.0]}, "`label` .* float64"),
        ({"x": BYTES, "label": [True, False]}, "`label` .* bool"),
        ({"x": BYTES, "label": [[0], [1]]}, r"`label` \(2, 1\)"),
        ({"x": BYTES, "label": [0]}, r"`label` \(1,\)"),
        ({"x": BYTES, "label": [-1, 1]}, "numbered from 0; got -1 to 1"),
        ({"x": BYTES, "label": [0, 2**40]}, f"numbered from 0; got 0 to {2**40}"),
        ({"x": BYTES, "caption": np.array([None, "a"])}, "allow_pickle"),
    ],
)
def test_arrays_that_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message):
        data.array(tmp_path / "a.npz")


def test_images_of_a_file_and_a_folder_are_the_same(tmp_path):
    """The same central squares, resized by the same filter, whichever form they come in."""
    np.savez(tmp_path / "a.npz", x=BYTES, label=[1, 0])
    for name, pixels in zip(("b/1.png", "a/2.png"), BYTES, strict=True):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "set" / name)
    for size in (4, 6, 16):
        for conditional in (False, True):
            file = data.images(tmp_path / "a.npz", size, conditional)
            folder = data.images(tmp_path / "set", size, conditional)
            assert file.shape == folder.shape == (size, size, 3)
            assert file.num_classes == folder.num_classes == 2 * conditional
            for i in (0, 1):
                one, other = file.examples[i], folder.examples[1 - i]
                assert set(one) == set(other) == ({"x", "label"} if conditional else {"x"})
                chex.assert_trees_all_equal(one, other)
    np.testing.assert_array_equal(
        data.images(tmp_path / "a.npz", 6).examples[0]["x"], BYTES[0, 1:7]
    )


@pytest.mark.parametrize(
    ("name", "conditional", "message"),
    [
        ("nowhere", False, "expected a folder of images or an .npz file; it is neither"),
        ("text.md", False, "expected a folder of images or an .npz file; it is neither"),
        ("a.npz", True, "expected classes or captions; there are none"),
        ("four.npz", False, "images of 1 or 3 channels to resize; got 4 and 4 channels"),
    ],
)
def test_images_that_are_refused(tmp_path, name, conditional, message):
    (tmp_path / "text.md").write_text("")
    np.savez(tmp_path / "a.npz", x=BYTES)
    np.savez(tmp_path / "four.npz", x=np.zeros((2, 8, 8, 4), np.uint8))
    with pytest.raises(InputError, match=message):
        data.images(tmp_path / name, 4, conditional)


# --- what an experiment asks of its data ---


def classes(*numbers, **more):
    x = np.zeros((len(numbers), 4, 4, 1), np.float32)
    examples = data.Arrays(x=x, label=np.array(numbers), **more)
    return data.Source(examples, (4, 4, 1), max(numbers) + 1)


def test_data_that_fit_are_accepted():
    data.check(classes(0, 4, 2), (4, 4, 1), 5)
    data.check(classes(0, 4, 2), (4, 4, 1), 10)
    data.check(classes(0, 4, 2), (4, 4, 1))
    data.check(numbered(), (2, 2, 1), 20, (data.flip, data.random_crop(2)))
    cloud = {"points": np.zeros((3, 10, 3)), "mask": np.ones((3, 10), bool)}
    clouds = [{name: leaf[i] for name, leaf in cloud.items()} for i in range(3)]
    source = data.Source(data.Arrays(x=clouds, text=["a", "b", "c"]), (), 0)
    like = {"points": jax.ShapeDtypeStruct((10, 3), np.float32), "mask": (10,)}
    data.check(source, like)
    with pytest.raises(InputError, match=r"\(11,\)}; the data has {.*\(10,\)"):
        data.check(source, like | {"mask": (11,)})


def without_x(source):
    return source._replace(examples=data.Arrays(label=source.examples.arrays["label"]))


def failing(example, rng):
    return example["nothing"]


@pytest.mark.parametrize(
    ("source", "shape", "num_classes", "augment", "message"),
    [
        (classes(*range(11)), (4, 4, 1), 10, (), "has 10 classes and the data 11"),
        (classes(3, -1), (4, 4, 1), 4, (), "from 0 to 3, .* has the label -1"),
        (
            classes(1, 1)._replace(num_classes=1),
            (4, 4, 1),
            1,
            (),
            "from 0 to 0, .* has the label 1",
        ),
        (classes(0.0, 1.0), (4, 4, 1), 2, (), "labels that are integers; the data has float64"),
        (classes(0, 1), (8, 8, 1), 2, (), r"of shape \(8, 8, 1\); the data has \(4, 4, 1\)"),
        (classes(0, 1), (4, 4, 3), 2, (), r"of shape \(4, 4, 3\); the data has \(4, 4, 1\)"),
        (classes(0, 1), (4, 4, 1), 2, (data.random_crop(2),), r"the data has \(2, 2, 1\)"),
        (classes(0, 1), (4, 4, 1), 2, (failing,), "an augmentation failed .*KeyError: 'nothing'"),
        (pairs(), (10, 3), 2, (), "has 2 classes and the data no labels"),
        (without_x(classes(0, 1)), (4, 4, 1), 2, (), r"with \"x\"; the data has \['label'\]"),
    ],
)
def test_data_that_do_not_fit(source, shape, num_classes, augment, message):
    with pytest.raises(InputError, match=message):
        data.check(source, shape, num_classes, augment)


@pytest.mark.parametrize("label", [-1, 5])
def test_labels_that_no_one_could_check_before_end_the_run(label):
    """Such as those of a set whose test split has -1 for each."""

    class Streamed(Counted):
        def __getitem__(self, index):
            return super().__getitem__(index) | {"label": np.int32(label if index == 3 else 0)}

    batches = data.batches(data.Source(Streamed(6), (2, 2, 1), 5), 3)
    with pytest.raises(InputError, match=f"from 0 to 4, .* the label {label}"):
        take(batches, 2)


@pytest.mark.parametrize("processes", [2, 3, 6])
def test_shares_of_processes_are_the_rows_of_the_batch(processes):
    """So each example is seen once an epoch, and the batch is the same on any number of hosts."""
    whole = take(data.batches(numbered(), 12, seed=3, start=2, augment=(data.flip,)), 7)
    shares = [
        data.batches(numbered(), 12, 3, 2, (data.flip,), process_index=p, process_count=processes)
        for p in range(processes)
    ]
    for batch in whole:
        parts = [next(share) for share in shares]
        for name in ("x", "label"):
            rows = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(rows, batch[name])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"batch_size": 0}, "at least 1; got 0"),
        ({"batch_size": 10, "process_count": 4}, "multiple of the 4 processes .* got 10"),
        ({"batch_size": 4, "process_index": 2, "process_count": 2}, "below the 2 .* got 2"),
        ({"batch_size": 4, "start": -1}, "at least 0; got -1 and 0"),
        ({"batch_size": 4, "workers": -2}, "at least 0; got 0 and -2"),
    ],
)
def test_bad_arguments(keywords, message):
    with pytest.raises(InputError, match=message):
        data.batches(numbered(), **keywords)


class Counted:
    """Bytes that count how often they are read."""

    def __init__(self, n):
        self.reads = [0] * n

    def __len__(self):
        return len(self.reads)

    def __getitem__(self, index):
        self.reads[index] += 1
        return {"x": np.full((2, 2, 1), index, np.uint8), "label": np.int32(index)}


def test_a_small_source_is_read_once():
    examples = Counted(12)
    source = data.cache_in_memory(data.Source(examples, (2, 2, 1), 12, in_memory=False))
    assert source.in_memory
    for _ in range(2):
        for i in range(12):
            assert source.examples[i]["label"] == i
    assert examples.reads == [1] * 12


def test_a_large_source_is_not_cached():
    source = data.Source(Counted(2), (1 << 15, 1 << 14, 3), 2, in_memory=False)
    assert data.cache_in_memory(source) is source


WORKERS = """
import sys
import numpy as np
from test_data import numbered, take
from diffjax import data

if __name__ == "__main__":
    workers, start = int(sys.argv[1]), int(sys.argv[2])
    augment = (data.flip, data.random_shift(1))
    alone = data.batches(numbered(), 6, 1, start, augment)
    shared = data.batches(numbered(), 6, 1, start, augment, workers=workers)
    for a, b in zip(take(alone, 8), take(shared, 8)):
        print(sorted(b), all((a[k] == b[k]).all() for k in a))
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("workers", "start"),
    [(2, 5), *(pytest.param(w, s, marks=pytest.mark.exhaustive) for w, s in [(1, 0), (3, 2)])],
)
def test_workers_do_not_change_the_batches(tmp_path, workers, start):
    """Two epochs from any step, and a clean end while the workers still read ahead."""
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    here = Path(__file__).parent
    run = subprocess.run(
        [sys.executable, script, str(workers), str(start)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.stderr == ""
    assert run.stdout.splitlines() == ["['label', 'x'] True"] * 8
