"""Encoders, tokenizers and transformers of published systems give their references' numbers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import GOLDEN, reference, write_folder
from safetensors.numpy import load_file
from tiny import close

from diffjax import pretrained
from diffjax.errors import InputError
from diffjax.models.text import T5Encoder
from diffjax.models.text.clip import end_of, final_norm
from diffjax.pretrained.architecture import shapes
from diffjax.pretrained.load import architecture_of
from diffjax.pretrained.naming import count

TOKENIZERS = GOLDEN.parent / "tokenizers"
TEXT = ("in_input_ids", "in_attention_mask")


def read(folder, name):
    """A golden network as loaded, its tensors, and its arrays."""
    config, tensors, io = reference(name)
    if "_class_name" not in config:
        described = json.loads((GOLDEN / f"{name}.json").read_text())
        config["architectures"] = [described["reference"].split()[1]]
    return pretrained.load(write_folder(folder / name, config, tensors)), tensors, io


def round_trip(folder, model, tensors):
    """The tensors written are those read, bit for bit."""
    pretrained.save_safetensors(folder / "out", model)
    back = load_file(folder / "out" / "model.safetensors")
    assert back.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(back[key].reshape(value.shape), value)


def outputs(function, *inputs):
    with jax.default_matmul_precision("highest"):
        return jax.jit(function)(*inputs)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("clip_text_quick_gelu", ("last", "penultimate", "pooled")),
        pytest.param(
            "clip_text_projection_gelu",
            ("last", "penultimate", "text_embeds"),
            marks=pytest.mark.exhaustive,
        ),
        ("t5_encoder_gated", ("last",)),
        pytest.param("bert_sentence", ("last", "embedding"), marks=pytest.mark.exhaustive),
    ],
)
def test_text_encoders(tmp_path, name, fields):
    model, tensors, io = read(tmp_path, name)
    inputs = [jnp.asarray(io[key]) for key in TEXT if key in io]
    found = outputs(model.encode, model.params, *inputs)
    for field in fields:
        close(io[f"out_{field}"], getattr(found, field), 2e-5)
    if "out_clip_skip_1" in io:
        skipped = final_norm(model.params, found.penultimate)
        close(io["out_clip_skip_1"], skipped, 2e-5)
    round_trip(tmp_path, model, tensors)


@pytest.mark.exhaustive
def test_both_towers_of_clip(tmp_path):
    model, _, io = read(tmp_path, "clip_vision_projection")
    pixels = jnp.asarray(io["in_pixel_values"].transpose(0, 2, 3, 1))
    found = outputs(model.encode, model.params, pixels)
    for field in ("image_embeds", "last", "penultimate"):
        close(io[f"out_{field}"], getattr(found, field), 2e-5)
    with pytest.raises(InputError, match=r"expected pixels \(B, 32, 32, C\)"):
        model.encode(model.params, pixels[:, :16])
    model, tensors, io = read(tmp_path, "clip_model")
    pixels = jnp.asarray(io["in_pixel_values"].transpose(0, 2, 3, 1))
    logits = outputs(model.logits, model.params, jnp.asarray(io["in_input_ids"]), pixels)
    close(io["out_logits_per_image"], logits, 2e-5)
    round_trip(tmp_path, model, tensors)


def test_the_end_of_a_text():
    """The first end token; where the file says 2, the largest id."""
    ids = jnp.array([[5, 9, 7, 7], [9, 3, 7, 8]])
    np.testing.assert_array_equal(end_of(ids, 7), [2, 2])
    np.testing.assert_array_equal(end_of(ids, 2), [1, 0])


@pytest.mark.exhaustive
def test_umt5_with_one_bias_in_every_block_is_t5():
    key, ids = jax.random.key(0), jnp.array([[3, 1, 4, 1, 5]])
    sizes = {"vocabulary": 7, "width": 8, "depth": 2, "heads": 2, "head_width": 4, "hidden": 8}
    t5, umt5 = T5Encoder(**sizes, buckets=4), T5Encoder(**sizes, buckets=4, own_bias=True)
    params = t5.init(key, ids)["params"]
    shared = {**params, "bias_1": params["bias_0"]}
    expected = t5.apply({"params": params}, ids).last
    np.testing.assert_allclose(umt5.apply({"params": shared}, ids).last, expected, rtol=1e-6)


@pytest.mark.exhaustive
def test_the_tiny_autoencoder(tmp_path):
    model, tensors, io = read(tmp_path, "autoencoder_tiny")
    x, z, y = (
        jnp.asarray(io[name].transpose(0, 2, 3, 1))
        for name in ("in_x", "out_latents", "out_decoded")
    )
    close(z, outputs(model.encode, model.params, x)[0], 2e-5)
    close(y, outputs(model.decode, model.params, z), 2e-5)
    round_trip(tmp_path, model, tensors)


def test_flux(tmp_path):
    model, tensors, io = read(tmp_path, "flux_transformer")
    cond = {"tokens": io["in_context"], "vector": io["in_pooled"], "guidance": io["in_guidance"]}
    cond = jax.tree.map(jnp.asarray, cond)
    inputs = (model.params, jnp.asarray(io["in_x"]), jnp.asarray(io["in_t"]))
    given = cond | {"image_ids": jnp.asarray(io["in_img_ids"])}
    close(io["out_y"], outputs(lambda *a: model.network(*a, given, None), *inputs), 2e-5)

    def raw(cond, tokens=16):
        x = jax.ShapeDtypeStruct((2, tokens, 16), np.float32)
        jax.eval_shape(lambda x: model.network(inputs[0], x, inputs[2], cond, None), x)

    with pytest.raises(InputError, match="guidance"):
        raw({k: v for k, v in cond.items() if k != "guidance"})
    with pytest.raises(InputError, match="15 tokens are no square"):
        raw(cond, 15)
    c = model.parameterization(model.schedule, jnp.asarray(0.3))
    np.testing.assert_allclose([c.c_skip, c.c_out, c.c_noise], [1.0, -0.3, 0.3], rtol=1e-6)
    round_trip(tmp_path, model, tensors)


@pytest.mark.exhaustive
def test_pixart(tmp_path):
    model, tensors, io = read(tmp_path, "pixart_transformer")
    x, y = (jnp.asarray(io[name].transpose(0, 2, 3, 1)) for name in ("in_x", "out_y"))
    names = {"tokens": "context", "token_mask": "mask"}
    names |= {"resolution": "resolution", "aspect_ratio": "aspect_ratio"}
    cond = {ours: jnp.asarray(io[f"in_{theirs}"]) for ours, theirs in names.items()}
    t = jnp.asarray(io["in_t"])
    close(y, outputs(lambda *a: model.network(*a, cond, None), model.params, x, t), 2e-5)
    round_trip(tmp_path, model, tensors)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["sana_transformer", "prior_transformer"])
def test_other_transformers(tmp_path, name):
    model, tensors, io = read(tmp_path, name)
    image = io["in_x"].ndim == 4
    x, y = (jnp.asarray(np.moveaxis(io[k], 1, -1) if image else io[k]) for k in ("in_x", "out_y"))
    names = {"tokens": "context", "vector": "text_embeds", "token_mask": "mask"}
    cond = {a: jnp.asarray(io[f"in_{b}"]) for a, b in names.items() if f"in_{b}" in io}
    t = jnp.asarray(io["in_t"])
    close(y, outputs(lambda *a: model.network(*a, cond, None), model.params, x, t), 2e-5)
    round_trip(tmp_path, model, tensors)


@pytest.mark.exhaustive
def test_the_deep_compression_autoencoder_and_the_adapter(tmp_path):
    model, tensors, io = read(tmp_path, "autoencoder_dc")
    x, z, y = (
        jnp.asarray(io[f"{k}"].transpose(0, 2, 3, 1)) for k in ("in_x", "out_latent", "out_decoded")
    )
    close(z, outputs(model.encode, model.params, x)[0], 2e-5)
    close(y, outputs(model.decode, model.params, z), 2e-5)
    round_trip(tmp_path, model, tensors)
    model, _, io = read(tmp_path, "t2i_adapter_full")
    features = outputs(
        model.network, model.params, jnp.asarray(io["in_image"].transpose(0, 2, 3, 1))
    )
    for i, feature in enumerate(features):
        close(io[f"out_feature_{i}"].transpose(0, 2, 3, 1), feature, 2e-5)


CLIP_L = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
BIG_G = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20}
BIG_G |= {"intermediate_size": 5120, "projection_dim": 1280}
XXL = {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
COUNTS = {
    "CLIP-L's text": ({"architectures": ["CLIPTextModel"], **CLIP_L}, 123_060_480),
    "CLIP-bigG's text": ({"architectures": ["CLIPTextModelWithProjection"], **BIG_G}, 694_659_840),
    "T5-XXL's encoder": (
        {"architectures": ["T5EncoderModel"], **XXL, "feed_forward_proj": "gated-gelu"},
        4_762_310_656,
    ),
    "FLUX.1 dev": (
        {"_class_name": "FluxTransformer2DModel", "guidance_embeds": True},
        11_901_408_320,
    ),
    "TAESD": ({"_class_name": "AutoencoderTiny"}, 2_445_063),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", COUNTS)
def test_number_of_parameters(name):
    config, expected = COUNTS[name]
    assert count(shapes(architecture_of(config))) == expected


@pytest.mark.parametrize(
    ("file", "path", "kind"),
    [("clip_bpe_small", "clip_small", "clip"), ("t5_unigram_small", "spiece_small.model", "t5")],
)
def test_tokenizers(file, path, kind):
    """Empty texts, emoji, other alphabets, special tokens inside the text."""
    pytest.importorskip("tokenizers")
    pytest.importorskip("sentencepiece")
    from diffjax.pretrained.tokenizer import load_tokenizer, t5_tokenizer

    place = TOKENIZERS / path
    tokenizer = load_tokenizer(place) if kind == "clip" else t5_tokenizer(place, {})
    for case in json.loads((TOKENIZERS / f"{file}.json").read_text())["cases"]:
        assert list(tokenizer.encode(case["text"])) == case["ids"], case["text"]


def test_padding_and_truncation(tmp_path):
    pytest.importorskip("tokenizers")
    from diffjax.pretrained.tokenizer import load_tokenizer, tokenize

    for path in (TOKENIZERS / "clip_small").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = {"model_max_length": 6, "pad_token": "!"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(tmp_path)
    ids, mask = tokenize(tokenizer, ["", "a photo of a cat"])
    start, end, pad = 1012, 1013, json.loads((tmp_path / "vocab.json").read_text())["!"]
    np.testing.assert_array_equal(ids[0], [start, end, pad, pad, pad, pad])
    np.testing.assert_array_equal(ids[1], [*tokenizer.encode("a photo of a cat")[:5], end])
    np.testing.assert_array_equal(mask, [[1, 1, 0, 0, 0, 0], [1] * 6])
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(InputError, match="tokenizer's files are damaged"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(InputError, match=r"no tokenizer; expected one of vocab\.json and merges"):
        load_tokenizer(tmp_path)
