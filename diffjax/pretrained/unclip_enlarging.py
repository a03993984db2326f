"""unCLIP's small pictures enlarged: a network for all steps but the last, another for that."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from diffjax.parameterization import make_denoiser
from diffjax.pretrained.architecture import Pretrained
from diffjax.pretrained.beside import joined, start_and_noise
from diffjax.pretrained.pipeline import Part
from diffjax.samplers import sample
from diffjax.types import Array, Denoiser, Keys, Params, PyTree

STEPS = 7
PARTS = ("super_res_first", "super_res_last")


def enlarge(
    parts: Sequence[Part], params: Sequence[Params], small: Array, start: Array, noise: Array
) -> Array:
    """Large pictures, drawn for small ones: Ramesh et al. 2022, section 2.1.

    The small one is shown without noise, enlarged bicubically.

    Args:
      parts: the network of all steps but the last, and that of the last.
      params: of each.
      small: pictures (B, h, w, C) in [-1, 1].
      start: standard normal (B, H, W, C).
      noise: standard normal (steps, 1, B, H, W, C); the last is not used.

    Returns:
      (B, H, W, C).
    """
    large = jax.image.resize(jnp.clip(small, -1, 1), start.shape, "bicubic")
    found = parts[0].network
    assert isinstance(found, Pretrained)
    usual, key = found.sampling, jax.random.key(0)

    def denoiser(part: Part, params: Params) -> Denoiser:
        network = joined(part.network.network, "large")
        made = make_denoiser(network, params, found.schedule, found.parameterization)
        return usual.finish(made)

    ts, cond = usual.grid(found.schedule, len(noise)), {"large": large}
    sampler = usual.sampler(found.schedule, **usual.options)
    first, last = (denoiser(*pair) for pair in zip(parts, params, strict=True))
    x = sample(key, first, sampler, start, ts[:-1], cond, noise=noise[:-1])
    return sample(jax.random.clone(key), last, sampler, x, ts[-2:], cond, noise=noise[-1:])


def enlarging(parts: Sequence[Part], size: tuple[int, int, int]) -> Callable:
    """The `decode` of unCLIP's codec: (frozen, small) -> large.

    The noise of a picture is a function of the small one, so that decoding is one too.

    Args:
      parts: as for `enlarge`.
      size: (H, W, C) of the large pictures.
    """

    def decode(frozen: Mapping[str, PyTree], small: Array) -> Array:
        params = [frozen[name] for name in PARTS]
        return enlarge(parts, params, small, *start_and_noise(keys_of(small), STEPS, size))

    return decode


def keys_of(x: Array) -> Keys:
    """A key for each picture: the signs of 32 fixed projections, which rounding does not change.

    Charikar 2002, section 3.
    """
    flat = x.reshape(len(x), -1)
    planes = jax.random.normal(jax.random.key(0), (flat.shape[1], 32))
    bits = jnp.dot(flat, planes, precision=lax.Precision.HIGHEST) > 0
    seeds = jnp.sum(bits.astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)[None], axis=1)
    return jax.vmap(jax.random.key)(seeds.astype(jnp.uint32))
