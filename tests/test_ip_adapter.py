"""IP-Adapter: a U-Net that reads a picture, by its reference's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import reference, weight, write_folder
from safetensors.numpy import save_file
from tiny import close

from diffjax import pretrained
from diffjax.errors import InputError
from diffjax.pretrained.ip_adapter import ip_adapter

# Of the released file's names: the layers are numbered through down, up and middle.
SHAPES = {
    "image_proj.proj.weight": (96, 20),
    "image_proj.proj.bias": (96,),
    "image_proj.norm.weight": (24,),
    "image_proj.norm.bias": (24,),
    **{
        f"ip_adapter.{n}.to_{letter}_ip.weight": (width, 24)
        for n, width in ((1, 32), (3, 32), (5, 32), (7, 64))
        for letter in "kv"
    },
}


def adapter_file(path, shapes=SHAPES):
    save_file({name: weight(name, shape) for name, shape in shapes.items()}, path)
    return path


@pytest.mark.exhaustive
def test_a_unet_reads_a_picture(tmp_path):
    config, tensors, io = reference("unet_ip_adapter")
    model = pretrained.load(write_folder(tmp_path / "unet", config, tensors))
    images = {k: np.moveaxis(a, 1, -1) if a.ndim == 4 else a for k, a in io.items()}
    io = jax.tree.map(jnp.asarray, images)
    x, t, cond = io["in_x"], io["in_t"], {"tokens": io["in_context"]}
    file = adapter_file(tmp_path / "ip.safetensors")
    for scale in (1.0, 0.6, 0.0):
        adapted = ip_adapter(model, file, scale)
        with jax.default_matmul_precision("highest"):
            tokens = adapted.tokens.network(adapted.tokens.params, io["in_image_embeds"])
            both = cond | {"image_tokens": tokens}
            y = jax.jit(lambda *a, net=adapted.unet.network: net(*a, None))(
                adapted.unet.params, x, t, both
            )
        close(io["out_image_tokens"], tokens, 2e-5)
        close(io[f"out_y_scale_{scale}"], y, 2e-5)
    with pytest.raises(InputError, match="image_tokens"):
        jax.eval_shape(lambda c: adapted.unet.network(adapted.unet.params, x, t, c, None), cond)
    wrong = SHAPES | {"ip_adapter.9.to_k_ip.weight": (32, 24)}
    with pytest.raises(InputError, match=r"'9\.to_k_ip"):
        ip_adapter(model, adapter_file(tmp_path / "more.safetensors", wrong))
    with pytest.raises(InputError, match="is not an IP-Adapter"):
        ip_adapter(model, adapter_file(tmp_path / "other.safetensors", {"conv.weight": (2, 2)}))


@pytest.mark.exhaustive
def test_the_resampler_by_both_names(tmp_path):
    """diffusers' own names, and those of the published file, whose heads are 64 wide."""
    config, tensors, io = reference("ip_adapter_plus_projection")
    model = pretrained.load(write_folder(tmp_path / "plus", config, tensors))
    with jax.default_matmul_precision("highest"):
        found = jax.jit(model.network)(model.params, jnp.asarray(io["in_x"]))
    close(io["out_tokens"], found, 2e-5)

    sizes = {"embed_dims": 6, "output_dims": 5, "hidden_dims": 8, "depth": 2, "heads": 1}
    sizes |= {"num_queries": 3, "ffn_ratio": 4.0, "_class_name": config["_class_name"]}
    published = {
        "latents": (1, 3, 8),
        "proj_in.weight": (8, 6),
        "proj_in.bias": (8,),
        "proj_out.weight": (5, 8),
        "proj_out.bias": (5,),
        "norm_out.weight": (5,),
        "norm_out.bias": (5,),
    }
    ours = {name: weight(name, shape) for name, shape in published.items()}
    theirs = dict(ours)
    block = (
        ("0.norm1.weight", "ln0.weight", (8,)),
        ("0.norm1.bias", "ln0.bias", (8,)),
        ("0.norm2.weight", "ln1.weight", (8,)),
        ("0.norm2.bias", "ln1.bias", (8,)),
        ("0.to_q.weight", "attn.to_q.weight", (64, 8)),
        ("0.to_out.weight", "attn.to_out.0.weight", (8, 64)),
        ("1.0.weight", "ff.0.weight", (8,)),
        ("1.0.bias", "ff.0.bias", (8,)),
        ("1.1.weight", "ff.1.net.0.proj.weight", (32, 8)),
        ("1.3.weight", "ff.1.net.2.weight", (8, 32)),
    )
    for i in range(2):
        for old, new, shape in block:
            ours[f"layers.{i}.{new}"] = theirs[f"layers.{i}.{old}"] = weight(f"{i}.{new}", shape)
        k, v = (weight(f"{i}.{letter}", (64, 8)) for letter in "kv")
        theirs[f"layers.{i}.0.to_kv.weight"] = np.concatenate([k, v])
        ours[f"layers.{i}.attn.to_k.weight"], ours[f"layers.{i}.attn.to_v.weight"] = k, v
    expected = pretrained.load(write_folder(tmp_path / "own", sizes, ours))
    from diffjax.pretrained.ip_adapter import projection

    found = projection(theirs)
    assert jax.tree.all(jax.tree.map(np.array_equal, found.params, expected.params))
    assert found.module == expected.module
