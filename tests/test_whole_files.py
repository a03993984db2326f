"""Whole systems in one file: its names, its parts, and what is refused."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from nets import weight
from safetensors.numpy import load_file, save_file
from systems import GOLDEN, write_system

from diffjax.errors import InputError
from diffjax.pretrained.sd3_file import transformer_config, transformer_tensors
from diffjax.pretrained.systems import is_system, open_system


def write_one_file(folder, path, more=None):
    """The tensors of a folder in one file, by the names of diffusers' conversion."""
    names, tensors = json.loads((GOLDEN / "pipelines" / "ldm_names.json").read_text()), {}
    for part, table in names.items():
        own = load_file(folder / part / "model.safetensors")
        for theirs, name in table.items():
            conv = part == "vae" and ".mid.attn_1." in theirs and own[name].ndim == 2
            tensors[theirs] = own[name][:, :, None, None] if conv else own[name]
    text = load_file(folder / "text_encoder" / "model.safetensors")
    tensors |= {f"cond_stage_model.transformer.{name}": w for name, w in text.items()}
    averages = {"model_ema.decay": np.zeros(1, np.float32), "betas": np.zeros(9, np.float32)}
    save_file(tensors | averages | (more or {}), path)
    return path


@pytest.mark.exhaustive
def test_one_file_of_the_latent_diffusion_code_is_the_same_system(sd, spoilt):
    for part in ("unet", "vae", "text_encoder"):
        (spoilt / part / "model.safetensors").unlink()
    (spoilt / "model_index.json").unlink()
    file = write_one_file(sd, spoilt / "whole.safetensors")
    assert is_system(file)
    folder, whole = open_system(sd), open_system(file)
    assert whole.scheduler == folder.scheduler
    same_weights(folder, whole)
    for name, words in (
        ("model.diffusion_model.other", "the unet of .*1 tensors that the network does not"),
        ("else.weight", "'else.weight' belongs to no part"),
        ("text_encoders.clip_l.x", "'text_encoders.clip_l.x' belongs to no part"),
    ):
        write_one_file(sd, file, {name: np.zeros(1, np.float32)})
        with pytest.raises(InputError, match=words):
            open_system(file).leaves()
    write_one_file(sd, file)
    shutil.rmtree(spoilt / "tokenizer")
    with pytest.raises(InputError, match="without its tokenizer"):
        open_system(file)


OPEN_CLIP = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def open_clip(folder, prefix):
    """The tensors of a text encoder as OpenCLIP has them, which diffusers' conversion reads."""
    own, found = load_file(folder / "model.safetensors"), {"logit_scale": np.ones(1, np.float32)}
    for name, w in own.items():
        renamed = name
        for theirs, ours in OPEN_CLIP.items():
            renamed = renamed.replace(theirs, ours)
        if name == "text_projection.weight":
            found["text_projection"] = np.ascontiguousarray(w.T)
        elif "q_proj" in name:
            parts = [own[name.replace("q_proj", f"{which}_proj")] for which in "qkv"]
            fused = re.sub(r"self_attn.q_proj.(\w+)", r"attn.in_proj_\1", renamed)
            found[fused] = np.concatenate(parts)
        elif "k_proj" not in name and "v_proj" not in name:
            found[renamed] = w
    return {prefix + name: w for name, w in found.items()}


def same_weights(one, other):
    trees = [
        {"unet": s.leaves()} | {k: f() for k, f in s.model.frozen.items()} for s in (one, other)
    ]
    jax.tree.map(np.testing.assert_array_equal, *(jax.tree.map(np.asarray, t) for t in trees))


@pytest.mark.exhaustive
def test_one_file_of_stable_diffusion_xl_is_the_same_system(tmp_path):
    folder = write_system(tmp_path / "xl", "sdxl_euler")
    names = json.loads((GOLDEN / "pipelines" / "ldm_names_sdxl.json").read_text())
    unet = load_file(folder / "unet" / "model.safetensors")
    tensors = {theirs: unet[name] for theirs, name in names.items()}
    text = load_file(folder / "text_encoder" / "model.safetensors")
    tensors |= {f"conditioner.embedders.0.transformer.{name}": w for name, w in text.items()}
    tensors |= open_clip(folder / "text_encoder_2", "conditioner.embedders.1.model.")
    first = json.loads((GOLDEN / "pipelines" / "ldm_names.json").read_text())["vae"]
    vae = load_file(folder / "vae" / "model.safetensors")
    tensors |= {theirs: vae[name] for theirs, name in first.items()}
    whole = shutil.copytree(folder, tmp_path / "whole")
    for file in (*whole.glob("*/model.safetensors"), whole / "model_index.json"):
        file.unlink()
    save_file(tensors, whole / "xl.safetensors")
    assert is_system(whole / "xl.safetensors")
    one, other = open_system(folder), open_system(whole / "xl.safetensors")
    assert one.scheduler == other.scheduler
    same_weights(one, other)
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        (whole / part / "config.json").unlink()
    alone = open_system(whole / "xl.safetensors")  # by the published configurations
    assert alone.model.example.shape == (128, 128, 4)
    assert alone.scheduler["_class_name"] == "EulerDiscreteScheduler"


@pytest.mark.exhaustive
def test_one_file_of_stable_diffusion_2_says_what_it_predicts(sd, spoilt):
    file = write_one_file(sd, spoilt / "two.safetensors")
    tensors = {n: w for n, w in load_file(file).items() if not n.startswith("cond_stage_model")}
    text = open_clip(sd / "text_encoder", "cond_stage_model.model.")
    more = "cond_stage_model.model.transformer.resblocks.2.ln_1.weight"  # left out as unused
    save_file(tensors | text | {more: np.ones(32, np.float32)}, file)
    for part in ("unet", "vae", "text_encoder"):
        (spoilt / part / "model.safetensors").unlink()
    (spoilt / "model_index.json").unlink()
    same_weights(open_system(sd), open_system(file))
    (spoilt / "unet" / "config.json").unlink()
    shutil.rmtree(spoilt / "scheduler")
    with pytest.raises(InputError, match="does not say whether it predicts eps or v; put its"):
        open_system(file)


def of_sd3_file(tensors, component):
    """The tensors of a transformer by the names of Stable Diffusion 3's one file."""
    names = json.loads((GOLDEN / "pipelines" / "ldm_names_sd3.json").read_text())[component]
    found = {}
    for theirs, entry in names.items():
        w = np.concatenate([tensors[name] for name in entry["names"]])
        w = np.concatenate(np.split(w, 2)[::-1]) if entry["swapped"] else w
        found[theirs] = np.ascontiguousarray(w)
    return found


def test_names_and_shapes_of_one_file_of_stable_diffusion_35():
    """Its second attention and its norms, and the configuration that its shapes say."""
    spec = json.loads((GOLDEN / "nets" / "diffusers_sd3_dual.json").read_text())
    config = spec["config"]
    tensors = {name: weight(name, shape) for name, shape in spec["parameters"].items()}
    theirs = of_sd3_file(tensors, "diffusers_sd3_dual")
    found = transformer_tensors(theirs, tensors, config)
    assert found.keys() == tensors.keys()
    for name, w in tensors.items():
        np.testing.assert_array_equal(found[name], w)
    side = config["pos_embed_max_size"]
    theirs["pos_embed"] = np.zeros((1, side**2, 4))
    said = transformer_config({f"model.diffusion_model.{name}": w for name, w in theirs.items()})
    for name in said.keys() - {"num_attention_heads", "_class_name"}:  # heads are 64 wide there
        assert said[name] == config[name], name


@pytest.mark.exhaustive
def test_one_file_of_stable_diffusion_3_is_the_same_system(tmp_path):
    folder = write_system(tmp_path / "sd3", "sd3_text")
    own = load_file(folder / "transformer" / "model.safetensors")
    found = of_sd3_file(own, "sd3t_transformer")
    tensors = {f"model.diffusion_model.{name}": w for name, w in found.items()}
    tensors["model.diffusion_model.pos_embed"] = np.zeros((1, 4, 4), np.float32)
    names = json.loads((GOLDEN / "pipelines" / "ldm_names.json").read_text())["vae"]
    own = load_file(folder / "vae" / "model.safetensors")
    tensors |= {theirs: own[name] for theirs, name in names.items() if name in own}
    prefixes = {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "text_encoder_3": "t5xxl"}
    for part, prefix in prefixes.items():
        own = load_file(folder / part / "model.safetensors")
        tensors |= {f"text_encoders.{prefix}.transformer.{name}": w for name, w in own.items()}
    whole = shutil.copytree(folder, tmp_path / "whole")
    for file in (*whole.glob("*/model.safetensors"), whole / "model_index.json"):
        file.unlink()
    file = whole / "sd3.safetensors"
    save_file(tensors, file)
    assert is_system(file)
    one, other = open_system(folder), open_system(file)
    assert one.scheduler == other.scheduler
    same_weights(one, other)
    less = {n: w for n, w in tensors.items() if not n.startswith("text_encoders.t5xxl")}
    save_file(less, file)
    for name in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(whole / name)
    assert "text_encoder_3" not in open_system(file).model.frozen
    save_file({n: w for n, w in less.items() if "clip_g" not in n}, file)
    shutil.rmtree(whole / "text_encoder_2")
    with pytest.raises(InputError, match="without its text_encoder_2"):
        open_system(file)
    save_file({n: w for n, w in less.items() if "text_encoders" not in n}, file)
    shutil.copytree(folder / "text_encoder_2", whole / "text_encoder_2")
    shutil.copy(folder / "text_encoder" / "model.safetensors", whole / "text_encoder")
    system = open_system(file)  # the text encoders stand beside it
    assert {"text_encoder", "text_encoder_2"} < system.model.frozen.keys()
    save_file(less | {"model.diffusion_model.other": np.zeros(1, np.float32)}, file)
    with pytest.raises(InputError, match=r"the transformer of .*1 tensors that the network does"):
        open_system(file).leaves()


@pytest.mark.exhaustive
def test_one_file_alone_is_stable_diffusion_15(sd, tmp_path):
    shutil.copytree(sd / "tokenizer", tmp_path / "tokenizer")
    system = open_system(write_one_file(sd, tmp_path / "whole.safetensors"))
    assert system.model.example.shape == (64, 64, 4)
    assert system.scheduler["_class_name"] == "PNDMScheduler"
