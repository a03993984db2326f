"""tensorflow-datasets: Fashion-MNIST built from Debian's files and read without TensorFlow."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from PIL import Image
from tensorflow_datasets.core import GeneratorBasedBuilder, Version, features

import diffjax
from diffjax import data
from diffjax.data import prepare
from diffjax.errors import InputError

debian = pytest.mark.skipif(
    not prepare.DEBIAN.is_dir(),
    reason="Debian's package dataset-fashion-mnist is not installed (apt-get install it)",
)
LIMIT = 500

# As published, by url_checksums/fashion_mnist.txt of tensorflow-datasets.
SHA256 = """
346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073 t10k-images-idx3-ubyte.gz
67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5 t10k-labels-idx1-ubyte.gz
3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84 train-images-idx3-ubyte.gz
a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845 train-labels-idx1-ubyte.gz
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data_dir with the first images of each split."""
    data_dir = tmp_path_factory.mktemp("tfds")
    prepare.prepare("fashion_mnist", data_dir, LIMIT)
    return data_dir


def rows(images, labels):
    """Images with their labels, in an order of their own: tfds shuffles what it writes."""
    flat = np.concatenate([images.reshape(len(images), -1), labels[:, None]], axis=1)
    return flat[np.lexsort(flat.T)]


def read(source):
    examples = [source.examples[i] for i in range(len(source.examples))]
    return rows(np.stack([e["x"] for e in examples]), np.stack([e["label"] for e in examples]))


@debian
def test_the_original_files(tmp_path):
    prepare.restore(prepare.DEBIAN, tmp_path)
    files = sorted(tmp_path.iterdir())
    found = [f"{hashlib.sha256(p.read_bytes()).hexdigest()} {p.name}" for p in files]
    assert found == SHA256.split("\n")[1:-1]


@debian
@pytest.mark.parametrize(("split", "part"), [("train", "train"), ("test", "t10k")])
def test_what_is_read_is_what_was_published(prepared, split, part):
    source = data.tfds("fashion_mnist", split, prepared)
    assert (source.shape, source.num_classes) == ((28, 28, 1), 10)
    images, labels = (prepare.idx(prepare.DEBIAN / f"{part}-{k}.gz")[:LIMIT] for k in prepare.KINDS)
    np.testing.assert_array_equal(read(source), rows(images, labels))


@debian
@pytest.mark.exhaustive
def test_the_whole_set(tmp_path):
    prepare.prepare("fashion_mnist", tmp_path)
    for split, part in {"train": "train", "test": "t10k"}.items():
        images, labels = (prepare.idx(prepare.DEBIAN / f"{part}-{k}.gz") for k in prepare.KINDS)
        np.testing.assert_array_equal(
            read(data.tfds("fashion_mnist", split, tmp_path)), rows(images, labels)
        )


READ = """
import sys
from diffjax import data

source = data.tfds("fashion_mnist", data_dir=sys.argv[1])
batch = next(data.batches(source, 64, augment=(data.flip,)))
print(batch["x"].shape, batch["x"].dtype, batch["x"].min(), batch["x"].max(), batch["label"].dtype)
assert "tensorflow" not in sys.modules
"""


@pytest.mark.exhaustive
@debian
def test_no_tensorflow_at_run_time(prepared, tmp_path):
    """With one installed that stops whoever imports it."""
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    run = subprocess.run(
        [sys.executable, "-c", READ, prepared],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert run.stdout == "(64, 28, 28, 1) float32 -1.0 1.0 int32\n", run.stderr


@debian
def test_resized(prepared):
    """Nearer to the means of 2 x 2 pixels than to the same a pixel to any side."""
    small = data.tfds("fashion_mnist", "train", prepared, size=14)
    whole = data.tfds("fashion_mnist", "train", prepared)
    assert small.shape == (14, 14, 1)
    for i in range(20):
        blocks = whole.examples[i]["x"].reshape(14, 2, 14, 2).mean((1, 3))
        errors = [
            np.abs(np.roll(blocks, shift, (0, 1)) - small.examples[i]["x"][..., 0]).mean()
            for shift in [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
        ]
        assert np.argmin(errors) == 0


class Photos(GeneratorBasedBuilder, skip_registration=True):
    """Three colour images of different sizes, with captions or classes."""

    VERSION = Version("1.0.0")
    pkg_dir_path = epath.Path(__file__).parent
    classes = False

    def _info(self):
        said = features.ClassLabel(num_classes=9) if self.classes else features.Text()
        return self.dataset_info_from_configs(
            features=features.FeaturesDict({"said": said, "photo": features.Image()})
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(3):
            photo = Image.new("RGB", (20 + i, 30), (i, 100, 200))
            yield i, {"photo": photo, "said": 8 - i if self.classes else f"photo {i}"}


class Classified(Photos, skip_registration=True):
    classes = True


@pytest.mark.parametrize("builder", [Photos, Classified])
def test_photos_of_different_sizes(tmp_path, builder):
    """A set that only its folder describes, with images named otherwise."""
    builder(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    with pytest.raises(InputError, match="different sizes; pass size="):
        data.tfds(builder.name, data_dir=tmp_path)
    source = data.tfds(builder.name, data_dir=tmp_path, size=8)
    assert source.num_classes == (9 if builder.classes else 0)
    for i in range(3):
        example = source.examples[i]
        which = 8 - example["label"] if builder.classes else int(example["caption"][-1])
        np.testing.assert_array_equal(example["x"], np.full((8, 8, 3), (which, 100, 200)))


@debian
def test_part_of_a_split(prepared):
    assert len(data.tfds("fashion_mnist", "train[:10%]", prepared).examples) == LIMIT // 10


@debian
@pytest.mark.parametrize("split", ["nope", "train[:x]"])
def test_no_such_split(prepared, split):
    with pytest.raises(InputError, match=r"split .* cannot be read .* it has train, test\."):
        data.tfds("fashion_mnist", split, prepared)


def test_not_prepared_says_what_to_type(tmp_path):
    with pytest.raises(InputError) as error:
        data.tfds("fashion_mnist", data_dir=tmp_path)
    command = f"python -m diffjax.data.prepare fashion_mnist --data-dir {tmp_path}"
    assert str(error.value).endswith(f"type: {command}")


@pytest.mark.parametrize("make", [data.tfds, prepare.prepare])
def test_no_such_set(make):
    with pytest.raises(InputError, match="'nonsense' is not a set of tensorflow-datasets"):
        make("nonsense")


def test_no_network_and_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "DEBIAN", tmp_path / "none")

    def unreachable(*arguments, **keywords):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(InputError, match=r"no route to host.*apt-get install dataset-fashion-mn"):
        prepare.prepare("fashion_mnist", tmp_path)


@pytest.mark.parametrize(
    "damaged", [b"", b"PK\3\4", bytes.fromhex("1f8b08080000000000036100")], ids=str
)
def test_not_such_a_gzip_file(damaged):
    with pytest.raises(InputError, match=r"a.gz: expected a gzip file without a file name"):
        prepare.original_gzip(damaged, "a", 0)


@debian
def test_what_to_type_next(prepared, capsys):
    """What is there is not built again."""
    prepare.main("fashion_mnist", prepared)
    out = capsys.readouterr().out
    assert f"train {LIMIT}, test {LIMIT}. To read it:\n" in out
    (command,) = [line for line in out.splitlines() if "diffjax.data.tfds(" in line]
    assert len(eval(command.strip(), {"diffjax": diffjax}).examples) == LIMIT


@pytest.mark.exhaustive
def test_errors_of_the_command(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "diffjax.data.prepare", "nonsense", "--data-dir", tmp_path],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("prepare: error: 'nonsense' is not a set"), run.stderr
