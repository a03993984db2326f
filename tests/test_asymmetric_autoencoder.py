"""The asymmetric autoencoder gives its reference's numbers, with and without what is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import reference, write_folder
from safetensors.numpy import load_file
from tiny import close

from diffjax import pretrained
from diffjax.errors import InputError


@pytest.mark.exhaustive
def test_asymmetric_autoencoder(tmp_path):
    config, tensors, io = reference("asymmetric_autoencoder_kl")
    model = pretrained.load(write_folder(tmp_path / "in", config, tensors))
    x, mask, z, plain, kept = (
        jnp.asarray(io[name].transpose(0, 2, 3, 1))
        for name in ("in_x", "in_mask", "out_mean", "out_decoded", "out_decoded_masked")
    )
    with jax.default_matmul_precision("highest"):
        close(z, jax.jit(model.encode)(model.params, x)[0], 2e-5)
        decode = jax.jit(model.decode)
        close(plain, decode(model.params, z), 2e-5)
        close(kept, decode(model.params, z, x, mask), 2e-5)
        # A mask of ones draws all anew, and what is under it in the image does not matter.
        close(plain, decode(model.params, z, x, jnp.ones_like(mask)), 1e-6)
        other = jnp.where(mask > 0, -x, x)
        np.testing.assert_allclose(decode(model.params, z, other, mask), kept, atol=1e-4)
    with pytest.raises(InputError, match="images of 16 x 16; got a kept mask of 8 x 16"):
        model.decode(model.params, z, x, mask[:, :8])
    pretrained.save_safetensors(tmp_path / "out", model)
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert back.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(back[key], value)
