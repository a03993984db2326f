"""Published systems whole: what is drawn from a prompt, and what is refused."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from golden_adapter import run_pipeline
from safetensors.numpy import load_file, save_file
from scripts import run
from systems import described, write_json, write_system

from diffjax import parallel
from diffjax.errors import InputError
from diffjax.pretrained.prompts import chunks_of, clip_rows, pieces_of, prompts_of
from diffjax.pretrained.systems import open_system
from diffjax.pretrained.tokenizer import load_tokenizer
from diffjax.run.encode import encode_once
from diffjax.run.weights import load_frozen

SAMPLE = ("sample", "--steps", "2")


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    """The folder of a tiny Stable Diffusion 1."""
    return write_system(tmp_path_factory.mktemp("systems") / "sd", "sd_ddim")


@pytest.fixture
def spoilt(sd, tmp_path):
    """A copy of it, to be spoilt."""
    return shutil.copytree(sd, tmp_path / "spoilt")


@pytest.mark.parametrize(
    "name",
    [
        "sd_ddim",
        *(
            pytest.param(name, marks=pytest.mark.exhaustive)
            for name in ("sdxl_euler", "sd3_text", "flux_text", "pixart", "sd_inpaint_9ch")
        ),
    ],
)
def test_a_prompt_draws_what_diffusers_draws(name, tmp_path):
    folder, (spec, io) = write_system(tmp_path / name, name), described(name)
    inputs = {key[3:]: io[key] for key in io if key.startswith("in_")}
    noises = [io[key] for key in sorted(io) if key.startswith("out_noise_")]
    out = run_pipeline(folder, spec["call"], inputs, noises)
    for got, want in (("image", "out_image"), ("trace", "out_trace")):
        if want in io:
            np.testing.assert_allclose(out[got], io[want], atol=1e-3 * np.abs(io[want]).max())


def test_sample_draws_from_prompts(sd, tmp_path, monkeypatch, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a photo of a cat\n\ntwo dogs!\n")
    flags = ("--pretrained", sd, "--prompt", f"@{prompts}", "--negative-prompt", "blurry")
    size = ("--height", "24", "--width", "16", "--num", "4", "--out", tmp_path / "x.npz")
    code, said, told = run(monkeypatch, capsys, *SAMPLE, *flags, *size)
    assert code == 0, told
    assert "guidance scale 7.5" in said
    with np.load(tmp_path / "x.npz") as file:
        assert file["samples"].shape == (4, 24, 16, 3)
        ids = file["text_encoder_ids"]
    np.testing.assert_array_equal(ids[:2], ids[2:])
    assert (ids[0] != ids[1]).any()


def test_a_prompt_is_encoded_once(sd):
    """Six samples of two prompts: the encoder is called on two rows, and is given up after."""
    model = open_system(sd).model
    rows = []

    def encode(frozen, raw):
        rows.append(raw["text_encoder_ids"].shape[0])
        return {"tokens": jnp.zeros((rows[-1], 16, 32)) + raw["text_encoder_ids"][:, :, 2, None]}

    condition = model.conditions[0]._replace(encode=encode)
    model, mesh = model._replace(conditions=(condition,)), parallel.make_mesh()
    raw = open_system(sd).raw(["a cat", "two dogs"] * 3, ["blurry"] * 6)
    model, left, given = encode_once(model, load_frozen(model.frozen, mesh), raw, mesh)
    assert rows == [2, 1]
    assert set(left) == set(model.frozen) == {"vae"}
    assert given["tokens"].shape == given["null_tokens"].shape == (6, 16, 32)
    np.testing.assert_array_equal(given["tokens"][:2], given["tokens"][4:])
    np.testing.assert_array_equal(given["tokens"][:, 0, 0], raw["text_encoder_ids"][:, 0, 2])


# --- prompts ----------------------------------------------------------------------------


def test_weights_are_those_of_their_words(sd):
    tokenizer = load_tokenizer(sd / "tokenizer")
    plain, ones = clip_rows(tokenizer, ["a photo of a cat"], weighted=True)
    heavy, weights = clip_rows(tokenizer, ["a (photo of:1.5) a cat"], weighted=True)
    np.testing.assert_array_equal(plain, heavy)
    assert (ones == 1).all()
    words = [len(tokenizer.encode(text)) - 2 for text in ("a", "photo of", "a cat")]
    wanted = np.repeat([1, 1, 1.5, 1], [1, words[0], words[1], words[2] + 1])
    np.testing.assert_array_equal(weights[0, 0, : len(wanted)], wanted)
    assert (weights[0, 0, len(wanted) :] == 1).all()
    assert pieces_of("a (photo of:1.5) cat", weighted=False) == [("a (photo of:1.5) cat", 1.0)]


def test_a_long_prompt_in_chunks_loses_no_token(sd):
    tokenizer = load_tokenizer(sd / "tokenizer")
    text = "a photo of a cat and two dogs in the snow near a red house"
    tokens = tokenizer.encode(text)
    chunks = chunks_of(tokenizer, [text])
    assert chunks > 1
    ids, _ = clip_rows(tokenizer, [text], chunks)
    assert [i for row in ids[0] for i in row if i not in (tokens[0], tokens[-1])] == tokens[1:-1]
    cut, _ = clip_rows(tokenizer, [text])
    np.testing.assert_array_equal(cut[0, 0], [*tokens[: tokenizer.length - 1], tokens[-1]])


def test_prompts_of_a_file_are_taken_in_turn(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("one\ntwo\n")
    assert prompts_of("--prompt", f"@{file}", 3) == ["one", "two", "one"]
    with pytest.raises(InputError, match="2 prompts for 1 samples; give --num 2"):
        prompts_of("--prompt", f"@{file}", 1)
    with pytest.raises(InputError, match="cannot be read"):
        prompts_of("--prompt", f"@{tmp_path / 'none'}", 1)
    file.write_text("\n")
    with pytest.raises(InputError, match="has no prompt"):
        prompts_of("--prompt", f"@{file}", 1)


# --- what is refused --------------------------------------------------------------------


def without_part(folder):
    shutil.rmtree(folder / "text_encoder")


def index_with(**entries):
    def spoil(folder):
        index = json.loads((folder / "model_index.json").read_text())
        write_json(folder / "model_index.json", index | entries)

    return spoil


def one_tensor_more(part):
    def spoil(folder):
        file = folder / part / "model.safetensors"
        save_file(load_file(file) | {"another.weight": np.zeros(2, np.float32)}, file)

    return spoil


def without_text(folder):
    index_with(text_encoder=[None, None], tokenizer=[None, None])(folder)


@pytest.mark.parametrize(
    ("spoil", "flags", "words"),
    [
        (without_part, (), "without its text_encoder"),
        (index_with(vae=["diffusers", "VQModel"]), (), "the vae of a .* is a VQModel"),
        (index_with(extra=["diffusers", "Else"]), (), "with a part 'extra'"),
        (index_with(_class_name="ElsePipeline", text_encoder_2=["t", "C"]), (), "ElsePipeline"),
        (one_tensor_more("unet"), (), "1 tensors that the network does not.*another.weight"),
        (one_tensor_more("vae"), (), "the vae of .*another.weight"),
        (without_text, ("--prompt", "a cat"), "has no text encoder"),
        (None, ("--height", "15"), "multiples of 2; got --height 15"),
        (None, ("--width", "many"), "--width must be a whole number"),
        (None, ("--prompt", "@none.txt"), "cannot be read"),
    ],
)
def test_a_spoilt_system_is_refused_by_name(spoilt, spoil, flags, words, monkeypatch, capsys):
    import re

    if spoil:
        spoil(spoilt)
    out = ("--out", spoilt / "x.png")
    code, _, said = run(monkeypatch, capsys, *SAMPLE, "--pretrained", spoilt, *flags, *out)
    assert code == 2
    assert re.search(words, said), said
    assert not (spoilt / "x.png").exists()


def test_a_network_without_text_takes_no_prompt(tmp_path, monkeypatch, capsys):
    from test_published import reference, write_folder

    config, tensors, _ = reference("diffusers_unet2d")
    folder = write_folder(tmp_path / "unet", config, tensors)
    flags = ("--pretrained", folder, "--prompt", "a cat")
    code, _, said = run(monkeypatch, capsys, *SAMPLE, *flags)
    assert code == 2
    assert "--prompt" in said
