"""LoRA files from and to LoRAs of ours: round trips are bit-equal, and others are refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from nets import reference, write_folder
from safetensors.numpy import load_file, save_file
from tiny import close

from diffjax import lora, pretrained
from diffjax.errors import InputError
from diffjax.models.stacking import unstack_blocks
from diffjax.pretrained import lora_files
from diffjax.pretrained.load import architecture_of
from diffjax.pretrained.lora import merge_lora, with_lora
from diffjax.pretrained.tensors import read_metadata

G = np.random.default_rng(0)
FORMS = {"peft": lora_files.peft, "kohya": lora_files.kohya}
PARAMS = {
    "down_0": {"conv": {"kernel": G.standard_normal((3, 3, 4, 6)), "bias": np.zeros(6)}},
    "middle": {"qkv": {"kernel": G.standard_normal((5, 8))}, "norm": {"scale": np.ones(5)}},
}
PARAMS = jax.tree.map(np.float32, PARAMS)


def drawn(params, which=lora.dense_and_conv, rank=2, method=lora.lora):
    """What a method makes of random numbers, float32."""
    shapes = method.init(jax.random.key(0), params, which, rank)
    tree = jax.tree.map(lambda a: G.standard_normal(a.shape).astype(np.float32), shapes)
    return jax.tree.map(np.asarray, method.lora(params, tree))


def same_tree(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["lora", "dora", "lora_ga"])
def test_a_round_trip_is_bit_equal(tmp_path, form, method):
    """Tree to file and back, and file to tree and back."""
    names, tree = lora_files.own_layers(PARAMS), drawn(PARAMS, method=getattr(lora, method))
    for i, (path, layer) in enumerate(lora.layers(tree).items()):
        layer["alpha"] = np.float32(0.3 + i)
        tree[path[0]][path[1]]["kernel"] = layer
    files = [tmp_path / f"{i}.safetensors" for i in (0, 1)]
    lora_files.write_lora(files[0], tree, names, PARAMS, FORMS[form])
    back = lora_files.read_lora(files[0], names, PARAMS)
    same_tree(tree, jax.tree.map(np.asarray, back))
    lora_files.write_lora(files[1], back, names, PARAMS, FORMS[form])
    same_tree(*(load_file(file) for file in files))
    assert read_metadata(files[0]) == read_metadata(files[1])


@pytest.mark.parametrize("form", FORMS)
def test_a_file_merges_into_torch_s_layout_as_its_tree_into_ours(tmp_path, form):
    """Our writer against the reader of published files, on kernels in PyTorch's layout."""
    names = lora_files.own_layers(PARAMS)
    tree = drawn(PARAMS, method=lora.dora)
    lora_files.write_lora(tmp_path / "l.safetensors", tree, names, PARAMS, FORMS[form])
    theirs = {
        "down_0.conv.weight": PARAMS["down_0"]["conv"]["kernel"].transpose(3, 2, 0, 1),
        "middle.qkv.weight": PARAMS["middle"]["qkv"]["kernel"].T,
    }
    new = with_lora(theirs, tmp_path / "l.safetensors", 0.7)
    ours = lora.merge(PARAMS, tree, 0.7)
    conv = np.asarray(new["down_0.conv.weight"]).transpose(2, 3, 1, 0)
    close(ours["down_0"]["conv"]["kernel"], conv, 1e-6)
    close(ours["middle"]["qkv"]["kernel"], np.asarray(new["middle.qkv.weight"]).T, 1e-6)


@pytest.mark.exhaustive
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["diffusers_unet2d", "adm_unet", "clip_text_quick_gelu"])
def test_a_published_network_s_lora_under_its_reference_s_names(tmp_path, form, name):
    """Fused and reordered layers too: what is written and merged by names is `lora.merge`."""
    config, tensors, _ = reference(name)
    kinds = {"adm_unet": {"architecture": "adm"}}
    kinds["clip_text_quick_gelu"] = {"architectures": ["CLIPTextModel"]}
    config = config | kinds.get(name, {})
    model = pretrained.load(write_folder(tmp_path, config, tensors))
    names, part = architecture_of(model.config).names, "text_encoder" if "clip" in name else "unet"
    tree = drawn(model.params)
    prefix = {"peft": f"{part}.", "kohya": "lora_te_" if "clip" in name else "lora_unet_"}[form]

    def write(path, tree):
        make = lambda changes: FORMS[form](changes, prefix)  # noqa: E731
        lora_files.write_lora(path, tree, names, model.params, make)

    file = tmp_path / "lora" / "l.safetensors"
    file.parent.mkdir()
    write(file, tree)
    new = merge_lora(model, file, 0.5, part)
    jax.tree.map(lambda a, b: close(a, b, 2e-6), lora.merge(model.params, tree, 0.5), new.params)
    back = lora_files.read_lora(file, names, model.params, part)
    write(tmp_path / "lora" / "again.safetensors", back)
    one, two = load_file(file), load_file(tmp_path / "lora" / "again.safetensors")
    same_tree(one, two)


def test_blocks_in_a_scan_are_written_one_by_one(tmp_path):
    kernel = G.standard_normal((3, 4, 5)).astype(np.float32)
    params = {"block_0_to_2": {"dense": {"kernel": kernel}}, "out": {"kernel": kernel[0]}}
    tree, apart = drawn(params), unstack_blocks(params)
    names = lora_files.own_layers(apart)
    lora_files.write_lora(tmp_path / "l.safetensors", unstack_blocks(tree), names, apart)
    back = lora_files.read_lora(tmp_path / "l.safetensors", names, apart)
    stacked = lora_files.stack_like(back, params)
    for one, other in zip(*(jax.tree.leaves(lora.merge(params, t)) for t in (tree, stacked))):  # noqa: B905
        np.testing.assert_array_equal(one, other)
    del back["block_1"]
    with pytest.raises(InputError, match="does not change all blocks of block_0_to_2 alike"):
        lora_files.stack_like(back, params)


def test_several_with_scales_are_their_sum(tmp_path):
    names, trees = lora_files.own_layers(PARAMS), [drawn(PARAMS), drawn(PARAMS, rank=1)]
    found = PARAMS
    for i, (tree, form) in enumerate(zip(trees, FORMS.values(), strict=True)):
        path = tmp_path / f"{i}.safetensors"
        lora_files.write_lora(path, tree, names, PARAMS, form)
        found = lora.merge(found, lora_files.read_lora(path, names, PARAMS), (0.5, -2.0)[i])
    for path, layer in lora.layers(trees[0]).items():
        other = lora.layers(trees[1])[path]
        kernel = PARAMS[path[0]][path[1]]["kernel"]
        change = 0.5 * layer["a"] @ layer["b"] - 2 * other["a"] @ other["b"]
        close(kernel + change, found[path[0]][path[1]]["kernel"], 1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unet.nowhere.lora_A.weight": np.ones((1, 5))}, "changes 'nowhere', which this network"),
        ({"unet.middle.qkv.lora_A.weight": np.ones((2, 6))}, r"shapes \(2, 6\) and"),
        ({"unet.middle.qkv.bias": np.ones(8)}, "is of no known form"),
    ],
)
def test_a_file_of_another_network_is_refused(tmp_path, change, words):
    names, path = lora_files.own_layers(PARAMS), tmp_path / "l.safetensors"
    lora_files.write_lora(path, drawn(PARAMS), names, PARAMS)
    save_file({**load_file(path), **jax.tree.map(np.float32, change)}, path)
    with pytest.raises(InputError, match=words):
        lora_files.read_lora(path, names, PARAMS)


def test_the_base_is_in_the_file(tmp_path):
    names, path = lora_files.own_layers(PARAMS), tmp_path / "l.safetensors"
    lora_files.write_lora(path, drawn(PARAMS), names, PARAMS, base="abc")
    lora_files.check_base(path, {"abc", "def"})
    with pytest.raises(InputError, match=r"another base \(fingerprint abc; this is def\)"):
        lora_files.check_base(path, {"def"})
    lora_files.write_lora(path, drawn(PARAMS), names, PARAMS)
    lora_files.check_base(path, {"def"})


def test_peft_s_metadata_says_what_it_is(tmp_path):
    """As PEFT reads it: ranks and alphas that differ are in patterns."""
    tree = drawn(PARAMS)
    tree["middle"]["qkv"]["kernel"]["alpha"] = np.float32(6)
    changes = lora_files.written(tree, lora_files.own_layers(PARAMS), PARAMS)
    _, metadata = lora_files.peft(changes)
    settings = json.loads(metadata["lora_adapter_metadata"])
    assert settings["unet.r"] == settings["unet.lora_alpha"] == 2
    assert settings["unet.alpha_pattern"] == {"middle.qkv": 6.0}
    assert settings["unet.target_modules"] == ["down_0.conv", "middle.qkv"]


def test_kohya_s_names_must_differ(tmp_path):
    params = {"a_b": {"kernel": np.ones((2, 2))}, "a": {"b": {"kernel": np.ones((2, 2))}}}
    with pytest.raises(InputError, match="one name for two layers, lora_unet_a_b"):
        lora_files.write_lora(
            tmp_path / "l", drawn(params), lora_files.own_layers(params), params, lora_files.kohya
        )


def test_a_merge_reads_alphas():
    layer = {"a": jnp.ones((2, 4)), "b": jnp.ones((4, 3)), "alpha": jnp.float32(2)}
    new = lora.merge({"w": jnp.zeros((2, 3))}, {"w": layer}, 3.0)
    np.testing.assert_allclose(new["w"], 3 * (2 / 4) * 4)
    tiny.close(new["w"], lora.merge({"w": jnp.zeros((2, 3))}, {"w": layer}, 3.0)["w"])
