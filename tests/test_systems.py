"""Published systems whole: what is drawn from a prompt, and what is refused."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from golden_adapter import run_pipeline
from PIL import Image
from safetensors.numpy import load_file, save_file
from scripts import ROOT, run
from systems import described, write_json, write_system

from diffjax import parallel
from diffjax.errors import InputError
from diffjax.pretrained.architecture import shapes
from diffjax.pretrained.load import architecture_of
from diffjax.pretrained.naming import Leaf, count, expected_shapes
from diffjax.pretrained.prompts import chunks_of, clip_rows, pieces_of, prompts_of
from diffjax.pretrained.systems import open_system
from diffjax.pretrained.tokenizer import load_tokenizer
from diffjax.run.encode import encode_once
from diffjax.run.flags import early_flags, file_and_scale
from diffjax.run.weights import load_frozen, placed

SAMPLE = ("sample", "--steps", "2")


@pytest.mark.parametrize(
    "name",
    [
        *(
            pytest.param(name, marks=pytest.mark.exhaustive)
            for name in (
                "sd_ddim",
                "sdxl_euler",
                "sd3_text",
                "flux_text",
                "pixart",
                "sd2_v",
                "sd_inpaint_9ch",
                "sdxl_inpaint_9ch",
                "pixart_sigma",
                "sd_upscale",
                "unclip",
                "sd_controlnet",
                "sd_controlnets",
                "sd_ip_adapter",
                "lcm",
                "consistency_2step",
            )
        ),
    ],
)
def test_a_prompt_draws_what_diffusers_draws(name, tmp_path):
    folder, (spec, io) = write_system(tmp_path / name, name), described(name)
    inputs = {key[3:]: io[key] for key in io if key.startswith("in_")}
    noises = [io[key] for key in sorted(io) if key.startswith("out_noise_")]
    call = spec["call"]
    if "out_pixel_values" in io:  # the picture of an IP-Adapter, at the scale of its notes
        call, inputs["pixel_values"] = call | {"ip_adapter_scale": 0.6}, io["out_pixel_values"]
    out = run_pipeline(folder, call, inputs, noises)
    for got, want in (
        ("image", "out_image"),
        ("trace", "out_trace"),
        ("image_embeds", "out_image_embeds"),
    ):
        if want in io and got in out:
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


@pytest.mark.exhaustive
def test_sd3_without_t5_has_zeros_in_its_place(tmp_path):
    folder = write_system(tmp_path / "sd3", "sd3_text")
    whole = open_system(folder, text_length=12)
    index_with(text_encoder_3=[None, None], tokenizer_3=[None, None])(folder)
    part = open_system(folder)

    def tokens(system):
        condition, raw = system.model.conditions[0], system.raw(["a cat"])
        frozen = {k: jax.tree.map(np.asarray, system.model.frozen[k]()) for k in condition.own}
        return condition.encode(frozen, raw)["tokens"]

    full, without = tokens(whole), tokens(part)
    assert full.shape == (1, 16 + 12, 80)
    assert without.shape == (1, 16 + 16, 80)
    np.testing.assert_allclose(without[:, :16], full[:, :16], atol=1e-6)
    assert not without[:, 16:].any()
    assert full[:, 16:].any()


# --- weights ----------------------------------------------------------------------------


def test_weights_are_placed_leaf_by_leaf(sd, monkeypatch):
    """No leaf is read before the one before it is on its device, and opening reads none."""
    events, read, put = [], Leaf.__array__, jax.device_put
    monkeypatch.setattr(Leaf, "__array__", lambda *a, **k: events.append("read") or read(*a, **k))
    monkeypatch.setattr(jax, "device_put", lambda *a: events.append("put") or put(*a))
    leaves = open_system(sd).leaves()
    assert not events
    placed(leaves, parallel.make_mesh())
    assert events == ["read", "put"] * len(jax.tree.leaves(leaves))


def test_shards_variants_and_short_floats_are_read(spoilt):
    """A U-Net in two shards, an autoencoder in bfloat16, a text encoder as its fp16 variant."""
    shapes_of = lambda s: {"unet": s.leaves()} | {k: f() for k, f in s.model.frozen.items()}  # noqa: E731
    whole = jax.tree.map(np.asarray, shapes_of(open_system(spoilt)))
    types = {"unet": np.float32, "vae": ml_dtypes.bfloat16, "text_encoder": np.float16}
    for part, dtype in types.items():
        file = spoilt / part / "model.safetensors"
        tensors = {name: w.astype(dtype) for name, w in load_file(file).items()}
        file.unlink()
        names = sorted(tensors)
        stem = {"unet": "model-0000{}-of-00002", "text_encoder": "model.fp16"}.get(part, "model")
        for i, few in enumerate([names[::2], names[1::2]] if part == "unet" else [names]):
            shard = {name: tensors[name] for name in few}
            save_file(shard, file.with_name(stem.format(i + 1) + ".safetensors"))
    (spoilt / "unet" / "model.safetensors.index.json").write_text("{}")
    found = jax.tree.map(np.asarray, shapes_of(open_system(spoilt)))
    for part, dtype in types.items():
        short = lambda w, dtype=dtype: w.astype(dtype).astype(np.float32)  # noqa: E731
        jax.tree.map(np.testing.assert_array_equal, found[part], jax.tree.map(short, whole[part]))


LAYERS = {
    "unet": "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
    "text_encoder": "text_model.encoder.layers.1.mlp.fc1",
}


def lora_file(path, parts):
    """A LoRA file of rank 2 that changes one layer of each part; B A by part."""
    tensors, changes, g = {}, {}, np.random.default_rng(0)
    for part, (rows, columns) in parts.items():
        down, up = g.standard_normal((2, columns)), g.standard_normal((rows, 2))
        name, changes[part] = f"{part}.{LAYERS.get(part, 'x')}", up @ down
        tensors[f"{name}.lora_A.weight"] = down.astype(np.float32)
        tensors[f"{name}.lora_B.weight"] = up.astype(np.float32)
    save_file(tensors, path)
    return changes


def test_lora_files_change_the_parts_that_they_name(sd, tmp_path):
    file = tmp_path / "style.safetensors"
    changes = lora_file(file, {"unet": (64, 32), "text_encoder": (64, 32)})
    plain, styled = open_system(sd), open_system(sd, loras=[(file, 0.7), (file, 0.2)])
    trees = {
        "unet": [system.leaves() for system in (plain, styled)],
        "text_encoder": [system.model.frozen["text_encoder"]() for system in (plain, styled)],
    }
    for part, (before, after) in trees.items():
        pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        moved = [np.asarray(b) - np.asarray(a) for a, b in pairs]
        moved = [d for d in moved if d.any()]
        assert len(moved) == 1
        keys, values = moved[0][:, :64], moved[0][:, 64:]  # the U-Net's are in one array
        np.testing.assert_allclose(keys, 0.9 * changes[part].T, atol=1e-5)
        assert not values.any()
    lora_file(file, {"unet": (64, 32), "text_encoder_2": (64, 32)})
    with pytest.raises(InputError, match=r"changes text_encoder_2, which .* does not have"):
        open_system(sd, loras=[(file, 1.0)])


def test_a_lora_flag_is_a_file_and_a_scale():
    assert file_and_scale("a/b.safetensors:0.7") == (Path("a/b.safetensors"), 0.7)
    assert file_and_scale("a/b.safetensors") == (Path("a/b.safetensors"), 1.0)
    argv = ["--lora", "a:0.5", "--num", "2", "--lora=b"]
    assert early_flags(argv, "--lora") == ["a:0.5", "b"]
    argv = ["--lora", "a", "b:2", "--num", "2", "--lora=c", "d", "--eta=1", "e"]
    assert early_flags(argv, "--lora") == ["a", "b:2", "c", "d"]


UNET = {"_class_name": "UNet2DConditionModel", "block_out_channels": [320, 640, 1280, 1280]}
VAE = {
    "_class_name": "AutoencoderKL",
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
}
SD3 = {"_class_name": "SD3Transformer2DModel", "pos_embed_max_size": 192}
PIXART = {"_class_name": "PixArtTransformer2DModel", "caption_channels": 4096}
SDXL = {
    "_class_name": "UNet2DConditionModel",
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "upcast_attention": None,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
KARLO = {"layers_per_block": 3, "block_out_channels": [320, 640, 960, 1280]}
SD21 = {"attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True}


def clip(kind, width, heads, depth, projection):
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "projection_dim": projection}
    layers = {"num_attention_heads": heads, "num_hidden_layers": depth}
    return {"architectures": [kind], "hidden_act": "gelu"} | sizes | layers


LONG = pytest.mark.exhaustive
COUNTS = {
    "SD 1.5 U-Net": (UNET | {"cross_attention_dim": 768}, 859_520_964),
    "SD 2.1 U-Net": (UNET | {"cross_attention_dim": 1024} | SD21, 865_910_724),
    "x4 upscaler U-Net": (
        {"_class_name": "UNet2DConditionModel", "block_out_channels": [256, 512, 512, 1024]}
        | {"down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 3], "in_channels": 7}
        | {"up_block_types": [*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"], "num_class_embeds": 1000}
        | {"cross_attention_dim": 1024, "only_cross_attention": [True, True, True, False]}
        | {"use_linear_projection": True},
        473_398_020,
    ),
    "x4 upscaler VAE": (
        VAE
        | {"down_block_types": ["DownEncoderBlock2D"] * 3, "block_out_channels": [128, 256, 512]}
        | {"up_block_types": ["UpDecoderBlock2D"] * 3},
        55_325_927,
    ),
    "Karlo prior": ({"_class_name": "PriorTransformer"}, 1_022_030_080),
    "Karlo text projection": ({"_class_name": "UnCLIPTextProjModel"}, 7_878_400),
    "Karlo decoder": (
        KARLO
        | {"_class_name": "UNet2DConditionModel", "in_channels": 3, "out_channels": 6}
        | {"down_block_types": ["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3]}
        | {"up_block_types": [*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"]}
        | {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "class_embed_type": "identity"}
        | {"cross_attention_dim": 1536, "attention_head_dim": 64}
        | {"resnet_time_scale_shift": "scale_shift"},
        885_439_686,
    ),
    "Karlo enlargement": (
        KARLO
        | {"_class_name": "UNet2DModel", "in_channels": 6, "add_attention": False}
        | {"down_block_types": ["ResnetDownsampleBlock2D"] * 4}
        | {"up_block_types": ["ResnetUpsampleBlock2D"] * 4},
        691_579_523,
    ),
    "SD 1.5 inpainting": (UNET | {"in_channels": 9, "cross_attention_dim": 768}, 859_535_364),
    "SDXL U-Net": (SDXL, 2_567_463_684),
    "SD VAE": (VAE, 83_653_863),
    "SD 3 and FLUX VAE": (
        VAE | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
        83_819_683,
    ),
    "SD 3 medium": (
        SD3 | {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536},
        2_028_328_000,
    ),
    "SD 3.5 medium": (
        SD3
        | {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
        | {"qk_norm": "rms_norm", "pos_embed_max_size": 384, "dual_attention_layers": [*range(13)]},
        2_243_171_520,
    ),
    "SD 3.5 large": (
        SD3
        | {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432}
        | {"qk_norm": "rms_norm"},
        8_056_627_520,
    ),
    "FLUX.1 dev": (
        {"_class_name": "FluxTransformer2DModel", "guidance_embeds": True},
        11_901_408_320,
    ),
    "FLUX.1 schnell": ({"_class_name": "FluxTransformer2DModel"}, 11_891_178_560),
    "PixArt-alpha 1024": (PIXART, 611_349_152),
    "PixArt-sigma 1024": (PIXART | {"use_additional_conditions": False}, 610_856_096),
    "CLIP ViT-L text": (clip("CLIPTextModel", 768, 12, 12, 768), 123_060_480),
    "OpenCLIP ViT-H text": (clip("CLIPTextModel", 1024, 16, 23, 512), 340_387_840),
    "OpenCLIP bigG text": (clip("CLIPTextModelWithProjection", 1280, 20, 32, 1280), 694_659_840),
    "T5 v1.1 XXL": (
        {"architectures": ["T5EncoderModel"], "d_model": 4096, "d_ff": 10240, "num_layers": 24}
        | {"num_heads": 64, "feed_forward_proj": "gated-gelu"},
        4_762_310_656,
    ),
}
QUICK = ("SD VAE",)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else LONG) for n in COUNTS]
)
def test_parameters_of_published_models_are_counted(name):
    """Numbers of diffusers 0.42.1 and of the models' cards; no weight is made."""
    config, wanted = COUNTS[name]
    assert count(shapes(architecture_of(config))) == wanted


def write_sparse(folder, config):
    """A network's folder with a file of zeros in float16 that takes no place on the disk."""
    folder.mkdir()
    write_json(folder / "config.json", config)
    architecture, start, header = architecture_of(config), 0, {}
    for name, shape in expected_shapes(architecture.names, shapes(architecture)).items():
        stop = start + 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + start)
    return start


OPEN = """
import re, sys
from diffjax.pretrained.systems import open_system
system = open_system(sys.argv[1])
leaves = [system.leaves(), *(load() for load in system.model.frozen.values())]
# The peak of this program alone: ru_maxrss would be that of the process that forked it, too.
print(1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]))
"""


@LONG
def test_a_folder_of_sdxl_size_opens_without_its_weights(sd, tmp_path):
    """Every name and shape of 7 GB of weights is checked within 1 GB of memory."""
    parts = {
        "unet": SDXL | {"sample_size": 128},
        "vae": VAE,
        "text_encoder": clip("CLIPTextModel", 768, 12, 12, 768),
        "text_encoder_2": clip("CLIPTextModelWithProjection", 1280, 20, 32, 1280),
    }
    size = sum(write_sparse(tmp_path / part, config) for part, config in parts.items())
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(sd / "tokenizer", tmp_path / name)
    shutil.copytree(sd / "scheduler", tmp_path / "scheduler")
    kinds = {part: c.get("_class_name") or c["architectures"][0] for part, c in parts.items()}
    kinds |= {"tokenizer": "CLIPTokenizer", "tokenizer_2": "CLIPTokenizer"}
    kinds["scheduler"] = "DDIMScheduler"
    index = {part: ["a library", kind] for part, kind in kinds.items()}
    write_json(tmp_path / "model_index.json", index | {"_class_name": "StableDiffusionXLPipeline"})
    command = [sys.executable, "-c", OPEN, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert size > 6.8e9
    assert int(done.stdout) < 1e9


def test_pixart_by_its_older_name():
    legacy = PIXART | {"_class_name": "Transformer2DModel", "num_layers": 1}
    legacy |= {"norm_type": "ada_norm_single", "num_vector_embeds": None}
    names = architecture_of(legacy).names
    assert names == architecture_of(PIXART | {"num_layers": 1}).names
    with pytest.raises(InputError, match="double_self_attention = True is not supported"):
        architecture_of(legacy | {"double_self_attention": True})


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
    ("spoil", "size", "words"),
    [
        (without_part, {}, "without its text_encoder"),
        (index_with(vae=["diffusers", "VQModel"]), {}, "the vae of a .* is a VQModel"),
        (index_with(extra=["diffusers", "Else"]), {}, "with a part 'extra'"),
        (index_with(_class_name="ElsePipeline"), {}, "is a ElsePipeline, which is not supported"),
        (lambda folder: None, {"height": 15}, "multiples of 2; got --height 15"),
        (one_tensor_more("unet"), {}, "the unet of .*1 tensors that the network does not.*another"),
        (one_tensor_more("vae"), {}, "the vae of .*1 tensors that the network does not.*another"),
    ],
)
def test_a_spoilt_system_is_refused_by_name(spoilt, spoil, size, words):
    spoil(spoilt)
    with pytest.raises(InputError, match=words):
        read(open_system(spoilt, **size))


def read(system):
    """Check all the names of a system's tensors."""
    for load in (system.leaves, *system.model.frozen.values()):
        load()


@pytest.mark.parametrize(
    ("spoil", "flags", "words"),
    [
        (without_part, (), "without its text_encoder"),
        pytest.param(one_tensor_more("vae"), (), "the vae of .*another.weight", marks=LONG),
        pytest.param(without_text, ("--prompt", "a cat"), "has no text encoder", marks=LONG),
        pytest.param(without_text, ("--height", "15"), "multiples of 2", marks=LONG),
        (lambda folder: None, ("--width", "many"), "--width must be a whole number"),
        pytest.param(lambda folder: None, ("--prompt", "@none.txt"), "cannot be read", marks=LONG),
    ],
)
def test_sample_refuses_with_a_sentence(spoilt, spoil, flags, words, monkeypatch, capsys):
    spoil(spoilt)
    out = ("--out", spoilt / "x.png")
    code, _, said = run(monkeypatch, capsys, *SAMPLE, "--pretrained", spoilt, *flags, *out)
    assert code == 2
    assert re.search(words, said), said
    assert not (spoilt / "x.png").exists()


@LONG
def test_a_network_without_text_takes_no_prompt(tmp_path, monkeypatch, capsys):
    from test_published import reference, write_folder

    config, tensors, _ = reference("diffusers_unet2d")
    folder = write_folder(tmp_path / "unet", config, tensors)
    flags = ("--pretrained", folder, "--prompt", "a cat")
    code, _, said = run(monkeypatch, capsys, *SAMPLE, *flags)
    assert code == 2
    assert "--prompt" in said


@LONG
def test_a_prompt_changes_a_given_picture(sd, tmp_path, monkeypatch, capsys):
    """The numbers of image to image are golden elsewhere: here the flags reach it."""
    file, out = tmp_path / "style.safetensors", tmp_path / "out.npz"
    lora_file(file, {"unet": (64, 32)})
    smooth = np.add.outer(np.arange(64), np.arange(64))[..., None] + np.zeros(3)
    for name, picture in (("a", smooth), ("b", smooth[::-1])):
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / f"{name}.png")

    def edited(picture, *flags):
        given = ("--pretrained", sd, "--prompt", "a red fox", "--fit", "--steps", 4, "--out", out)
        image = ("--init-image", tmp_path / f"{picture}.png", "--strength", 0.5)
        code, told, err = run(monkeypatch, capsys, "sample", *given, *image, *flags)
        assert code == 0, err
        assert "2 steps" in told
        return np.load(out)["samples"].astype(float)

    one = edited("a")
    np.testing.assert_array_equal(one, edited("a"))
    assert np.abs(one - edited("b")).mean() > 1
    assert np.abs(one - edited("a", "--lora", f"{file}:3")).mean() > 0.1
