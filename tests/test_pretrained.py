"""Files of weights: what is read, what is written back, and what is refused."""

import io
import json
import os
import pickle
import shutil
import zipfile

import chex
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from nets import GOLDEN, weight
from safetensors.numpy import load_file, save_file

from diffjax import pretrained
from diffjax.errors import InputError
from diffjax.pretrained.tensors import read_tensors
from diffjax.pretrained.torch_file import read_torch_file

TINY = GOLDEN / "tiny_unet2d"
"""A UNet2DModel of four channels as PyTorch saved it, inside a training checkpoint."""


@pytest.fixture
def folder(tmp_path):
    """The tiny network's folder, to be spoilt."""
    return shutil.copytree(TINY, tmp_path / "tiny")


@pytest.fixture(scope="module")
def tensors():
    """The tiny network's tensors."""
    return read_torch_file(TINY / "weights.pt")


def with_tensors(folder, tensors):
    """The folder with these weights instead."""
    (folder / "weights.pt").unlink(missing_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_a_torch_checkpoint_gives_its_tensors(tensors):
    assert len(tensors) == 44
    for name, w in tensors.items():
        np.testing.assert_array_equal(w, weight(name, w.shape))


def test_every_kind_of_torch_tensor():
    base = np.arange(24.0, dtype=np.float32).reshape(4, 6)
    expected = {
        "whole": base,
        "transposed": base.T,
        "part": base[1:3, ::2],
        "half": base[0].astype(np.float16),
        "bfloat": base[0].astype(ml_dtypes.bfloat16),
        "double": base[0].astype(np.float64),
        "long": np.arange(3),
        "bool": np.array([True, False]),
        "parameter": base[0],
        "scalar": np.float32(2.5),
        "empty": np.zeros((0, 3), np.float32),
    }
    found = read_torch_file(GOLDEN / "kinds.pt")
    assert found.keys() == expected.keys()
    for name, w in expected.items():
        np.testing.assert_array_equal(found[name], w)
        assert found[name].dtype == w.dtype


def test_a_round_trip_is_bit_equal(folder, tensors, tmp_path):
    model = pretrained.load(folder)
    pretrained.save_safetensors(tmp_path / "one", model)
    written = load_file(tmp_path / "one" / "model.safetensors")
    assert written.keys() == tensors.keys()
    for name, w in tensors.items():
        np.testing.assert_array_equal(written[name], w)
    again = pretrained.load(tmp_path / "one" / "model.safetensors")  # a file, not its folder
    chex.assert_trees_all_equal(again.params, model.params)
    assert again.config == model.config


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_becomes_float32(folder, tensors, dtype):
    rounded = {name: w.astype(dtype) for name, w in tensors.items()}
    params = pretrained.load(with_tensors(folder, rounded)).params
    kernel = params["conv_in"]["kernel"]
    assert kernel.dtype == np.float32
    theirs = rounded["conv_in.weight"].astype(np.float32)
    np.testing.assert_array_equal(kernel, theirs.transpose(2, 3, 1, 0))


def test_shards_are_one_model_and_may_not_overlap(folder, tensors):
    (folder / "weights.pt").unlink()
    names = sorted(tensors)
    for i, part in enumerate((names[:20], names[20:])):
        save_file({n: tensors[n] for n in part}, folder / f"model-0000{i}.safetensors")
    assert read_tensors(sorted(folder.glob("*.safetensors"))).keys() == tensors.keys()
    pretrained.load(folder)
    save_file({names[0]: tensors[names[0]]}, folder / "model-00002.safetensors")
    with pytest.raises(InputError, match=f"repeats the tensor '{names[0]}'"):
        pretrained.load(folder)


def renamed(tensors):
    name = "conv_in.wait"
    return {name if k == "conv_in.weight" else k: w for k, w in tensors.items()}


SPOILT = {
    "missing": (
        lambda t: {k: w for k, w in t.items() if k != "conv_out.bias"},
        r"lack 1 of 44 tensors, first 'conv_out.bias'",
    ),
    "renamed": (renamed, r"first 'conv_in.weight' \(the file has 'conv_in.wait'\)"),
    "extra": (
        lambda t: t | {"conv_inn.weight": t["conv_in.weight"]},
        r"1 tensors that the network does not, first 'conv_inn.weight' .*name is 'conv_in.weight'",
    ),
    "misshapen": (
        lambda t: t | {"conv_in.bias": np.zeros(5, np.float32)},
        r"'conv_in.bias': expected shape \(4,\), got \(5,\)",
    ),
}


@pytest.mark.parametrize(("spoil", "words"), SPOILT.values(), ids=SPOILT)
def test_a_wrong_tensor_is_named_with_the_nearest(folder, tensors, spoil, words):
    with pytest.raises(InputError, match=words):
        pretrained.load(with_tensors(folder, spoil(tensors)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "has no config.json"),
        ("{", "is not JSON"),
        ("[]", "expected an object"),
        ("{}", "is None; expected one of .*UNet2DModel"),
        ('{"_class_name": "Kandinsky"}', "is 'Kandinsky'; expected one of .*UNet2DModel"),
    ],
)
def test_a_wrong_config_is_a_sentence(folder, content, words):
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(InputError, match=words):
        pretrained.load(folder)


@pytest.mark.parametrize("name", ["weights.pt", "model.safetensors"])
def test_a_damaged_file_is_a_sentence(folder, tensors, name):
    if name != "weights.pt":
        with_tensors(folder, tensors)
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="is not an intact"):
        pretrained.load(folder)


def test_no_weights_or_several_files_are_a_sentence(folder):
    shutil.copy(folder / "weights.pt", folder / "other.pt")
    with pytest.raises(InputError, match=r"found other\.pt, weights\.pt"):
        pretrained.load(folder)
    for path in folder.glob("*.pt"):
        path.unlink()
    with pytest.raises(InputError, match="found none"):
        pretrained.load(folder)


class Attack:
    """What a hostile file can hold: a call, made when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, os.mkdir])
def test_code_in_a_torch_file_does_not_run(folder, function):
    mark = folder / "it_ran"
    argument = {
        os.system: f"touch {mark}",
        eval: f"open({str(mark)!r}, 'w')",
        os.mkdir: str(mark),
    }[function]
    pickled = io.BytesIO()
    pickle.dump({"conv_in.weight": Attack(function, argument)}, pickled, protocol=2)
    with zipfile.ZipFile(folder / "weights.pt", "w") as file:
        file.writestr("archive/data.pkl", pickled.getvalue())
    with pytest.raises(InputError, match="holds more than tensors"):
        pretrained.load(folder)
    assert not mark.exists()
    pickle.loads(pickled.getvalue())  # the attack is a real one
    assert mark.exists()


def test_the_config_of_a_save_is_that_of_the_load(folder, tmp_path):
    model = pretrained.load(folder)
    pretrained.save_safetensors(tmp_path / "out", model)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == json.loads((folder / "config.json").read_text())


def test_averaged_weights_are_taken_before_raw_ones():
    from diffjax.pretrained.torch_file import _state_dict

    raw, average = {"w": np.zeros(2)}, {"w": np.ones(2)}
    for name in ("ema", "model_ema", "ema_state_dict"):
        assert _state_dict({"model": raw, "step": 3, name: average}, "f")["w"][0] == 1
        assert _state_dict({"state_dict": {"model": raw, name: average}}, "f")["w"][0] == 1


def test_what_an_average_keeps_in_the_config_is_no_argument(folder):
    config = json.loads((folder / "config.json").read_text())
    kept = {"decay": 0.9999, "power": 0.75, "optimization_step": 7, "use_ema_warmup": True}
    (folder / "config.json").write_text(json.dumps(config | kept))
    pretrained.load(folder)


def test_variants_beside_each_other(folder, tensors):
    """The plain file is read, or the only variant; files of a Mac's folder are not weights."""
    with_tensors(folder, tensors)
    plain = folder / "model.safetensors"
    save_file({n: w + 1 for n, w in tensors.items()}, folder / "model.fp16.safetensors")
    (folder / "._model.safetensors").write_bytes(b"\0\5\26\7")
    expected = tensors["conv_in.bias"]
    np.testing.assert_array_equal(pretrained.load(folder).params["conv_in"]["bias"], expected)
    plain.rename(folder / "model.bf16.safetensors")
    with pytest.raises(InputError, match="variants bf16, fp16"):
        pretrained.load(folder)
    (folder / "model.bf16.safetensors").unlink()
    np.testing.assert_array_equal(pretrained.load(folder).params["conv_in"]["bias"], expected + 1)


def test_a_pipeline_gives_its_denoising_network(folder, tmp_path):
    pipeline = tmp_path / "pipeline"
    shutil.copytree(folder, pipeline / "unet")
    (pipeline / "model_index.json").write_text("{}")
    whole = pretrained.load(pipeline)
    chex.assert_trees_all_equal(whole.params, pretrained.load(folder).params)
    (pipeline / "unet").rename(pipeline / "vae")
    with pytest.raises(InputError, match=r"without one of unet, transformer, prior.*\(vae\)"):
        pretrained.load(pipeline)


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_float8_is_read(folder, tensors, dtype):
    name = {ml_dtypes.float8_e4m3fn: "F8_E4M3", ml_dtypes.float8_e5m2: "F8_E5M2"}[dtype]
    header, data = {}, b""
    for key, w in tensors.items():
        raw = w.astype(dtype).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[key] = {"dtype": name, "shape": list(w.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    (folder / "weights.pt").unlink()
    content = len(text).to_bytes(8, "little") + text + data
    (folder / "model.safetensors").write_bytes(content)
    bias = pretrained.load(folder).params["conv_in"]["bias"]
    np.testing.assert_array_equal(bias, tensors["conv_in.bias"].astype(dtype).astype(np.float32))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"norm_num_groups": "many"}, "norm_num_groups to be a number; got 'many'"),
        ({"layers_per_block": None}, "does not describe a UNet2DModel"),
        ({"block_out_channels": 7}, "block_out_channels to be a list; got 7"),
        ({"layers_per_block": 10**9}, "layers_per_block up to 1000"),
    ],
)
def test_malformed_numbers_are_a_sentence(folder, change, words):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=words):
        pretrained.load(folder)


def test_numbers_that_are_written_as_text(folder):
    config = json.loads((folder / "config.json").read_text())
    expected = pretrained.load(folder).params
    config["layers_per_block"] = str(config["layers_per_block"])
    config["block_out_channels"] = ",".join(map(str, config["block_out_channels"]))
    (folder / "config.json").write_text(json.dumps(config))
    chex.assert_trees_all_equal(pretrained.load(folder).params, expected)


def test_a_dit_is_of_its_scheduler(tmp_path):
    """A cosine table and v: they were read and dropped."""
    from nets import reference, write_folder

    config, tensors, _ = reference("dit")
    tensors.pop("pos_embed", None)
    folder = write_folder(tmp_path / "dit", {"architecture": "dit", **config}, tensors)
    scheduler = {"_class_name": "DDIMScheduler", "beta_schedule": "squaredcos_cap_v2"}
    scheduler |= {"prediction_type": "v_prediction"}
    (folder / "scheduler_config.json").write_text(json.dumps(scheduler))
    model = pretrained.load(folder)
    angle = (np.array([0.5, 0.0]) + 0.008) / 1.008 * np.pi / 2
    alpha = np.cos(angle[0]) / np.cos(angle[1])
    np.testing.assert_allclose(model.schedule.alpha(0.5), alpha, rtol=1e-3)
    c = model.parameterization(model.schedule, jnp.asarray(0.5))
    np.testing.assert_allclose([c.c_skip, c.c_out], [alpha, -np.sqrt(1 - alpha**2)], rtol=1e-3)
    assert model.null_label
