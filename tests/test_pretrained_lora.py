"""LoRA files change exactly the weights that they name, by scale alpha / r B A."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import GOLDEN, reference, weight, write_folder
from safetensors.numpy import save_file
from tiny import close

from diffjax import pretrained
from diffjax.errors import InputError
from diffjax.pretrained.lora import merge_lora, targets_of
from diffjax.pretrained.naming import to_tensors

LAYER = "text_model.encoder.layers.1.mlp.fc1"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A small text encoder of CLIP and its tensors."""
    config, tensors, _ = reference("clip_text_quick_gelu")
    config["architectures"] = ["CLIPTextModel"]
    folder = write_folder(tmp_path_factory.mktemp("clip"), config, tensors)
    return pretrained.load(folder), tensors


def merged(text, tmp_path, tensors, metadata=None, scale=0.5, **options):
    """The tensors after a merge of a file of these."""
    save_file(tensors, tmp_path / "lora.safetensors", metadata)
    model = merge_lora(text[0], tmp_path / "lora.safetensors", scale, **options)
    from diffjax.pretrained.load import architecture_of

    return to_tensors(model.params, architecture_of(model.config).names)


def matrices(rank=2, rows=64, columns=32):
    down, up = jax.random.normal(jax.random.key(0), (2, 64, 64))
    return np.array(down[:rank, :columns]), np.array(up[:rows, :rank])


A, B = matrices()
PEFT = "text_encoder."
RSLORA = {"text_encoder.lora_alpha": 6, "text_encoder.use_rslora": True}
PATTERN = {"text_encoder.lora_alpha": 6, "text_encoder.alpha_pattern": {"mlp.fc1": 10}}
FORMS = {
    "peft": ({f"{PEFT}{LAYER}.lora_A.weight": A, f"{PEFT}{LAYER}.lora_B.weight": B}, None, 0.5),
    "older": (
        {
            f"{PEFT}{LAYER}.lora_linear_layer.down.weight": A,
            f"{PEFT}{LAYER}.lora_linear_layer.up.weight": B,
        },
        None,
        0.5,
    ),
    "kohya": (
        {
            f"lora_te_{LAYER.replace('.', '_')}.lora_down.weight": A,
            f"lora_te_{LAYER.replace('.', '_')}.lora_up.weight": B,
            f"lora_te_{LAYER.replace('.', '_')}.alpha": np.array(6, np.float32),
        },
        None,
        0.5 * 6 / 2,
    ),
    "rslora": (
        {f"{PEFT}{LAYER}.lora_A.weight": A, f"{PEFT}{LAYER}.lora_B.weight": B},
        RSLORA,
        0.5 * 6 / np.sqrt(2),
    ),
    "pattern": (
        {f"{PEFT}{LAYER}.lora_A.weight": A, f"{PEFT}{LAYER}.lora_B.weight": B},
        PATTERN,
        0.5 * 10 / 2,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_changes_the_layer_that_it_names(text, tmp_path, form):
    tensors, settings, factor = FORMS[form]
    metadata = settings and {"lora_adapter_metadata": json.dumps(settings)}
    found = merged(text, tmp_path, tensors, metadata)
    for name, w in text[1].items():
        expected = w + np.float32(factor) * (B @ A) if name == f"{LAYER}.weight" else w
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-6)


def test_dora_gives_rows_their_magnitudes(text, tmp_path):
    magnitude = np.arange(1, 65, dtype=np.float32)
    tensors = FORMS["peft"][0] | {f"{PEFT}{LAYER}.lora_magnitude_vector.weight": magnitude}
    w = merged(text, tmp_path, tensors)[f"{LAYER}.weight"]
    np.testing.assert_allclose(np.linalg.norm(w, axis=1), magnitude, rtol=1e-5)
    plain = merged(text, tmp_path, FORMS["peft"][0])[f"{LAYER}.weight"]
    cosines = np.sum(w * plain, 1) / np.linalg.norm(w, axis=1) / np.linalg.norm(plain, axis=1)
    np.testing.assert_allclose(cosines, 1, rtol=1e-5)


def test_a_file_of_kohya_against_the_reference(tmp_path):
    """Layers of one file with alphas of their own."""
    place = GOLDEN.parent / "lora" / "text_encoder_kohya"
    spec = json.loads(place.with_suffix(".json").read_text())
    tensors = {name: weight(name, shape) for name, shape in spec["parameters"].items()}
    config = spec["config"] | {"architectures": ["CLIPTextModel"]}
    model = pretrained.load(write_folder(tmp_path / "clip", config, tensors))
    lora = {n: weight(n, s) for n, s in spec["lora_tensors"].items() if n not in spec["alphas"]}
    lora |= {n: np.array(a, np.float32) for n, a in spec["alphas"].items()}
    save_file(lora, tmp_path / "lora.safetensors")
    io = np.load(f"{place}_io.npz")
    model = merge_lora(model, tmp_path / "lora.safetensors", spec["scale"])
    with jax.default_matmul_precision("highest"):
        last = jax.jit(model.encode)(model.params, jnp.asarray(io["in_input_ids"])).last
    close(io["out_y_scaled"], last, 2e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text_encoder.layer_9.lora_A.weight": A}, "changes 'layer_9', which this network"),
        ({"conditioner.x.lora_A.weight": A}, "'conditioner.x.lora_A.weight' is of no known form"),
        ({f"{PEFT}{LAYER}.lora_A.weight": A[:, :7]}, r"shapes \(2, 7\) and"),
        ({f"{PEFT}{LAYER}.lora_magnitude_vector": np.ones(3, np.float32)}, "for each of 64 rows"),
    ],
)
def test_what_matches_nothing_is_refused(text, tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        merged(text, tmp_path, FORMS["peft"][0] | change)


def test_other_parts_are_left_to_them(text, tmp_path):
    other = {"unet.x.lora_A.weight": A, "unet.x.lora_B.weight": B}
    merged(text, tmp_path, FORMS["peft"][0] | other)
    with pytest.raises(InputError, match="changes no layer of a text_encoder"):
        merged(text, tmp_path, other)


def test_flux_s_fused_layers_are_several():
    place = "transformer_blocks.3.attn."
    names = [f"{place}{name}.weight" for name in ("to_q", "to_k", "to_v")]
    weights = {name: np.zeros((2, 2)) for name in names}
    assert targets_of("double_blocks_3_img_attn_qkv", weights) == names
