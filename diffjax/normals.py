"""Standard normal draws of a step, as `jax.random.normal` makes them, faster on CPUs.

JAX's Threefry (Salmon et al. 2011) is a loop over its rounds on a CPU, which costs eight times
the map from bits to normals. Written out it is one vectorised kernel. XLA would merge that kernel
with the map, and then vectorise neither; a loop that runs once keeps them apart.
"""

import math
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from diffjax.types import Array, Index, Keys

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = np.uint32(0x1BD11BDA)


def normals(keys: Keys, step: Index, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """Standard normal numbers for each sample: `jax.random.normal` of its key and the step.

    Bit for bit the same on every platform as `normal(fold_in(key, step), shape, dtype)`.

    Args:
      keys: (B,).
      step: folded into each key.
      shape: of one sample's numbers.
      dtype: of the result.

    Returns:
      (B, *shape).
    """
    plain = partial(_plain, shape=shape, dtype=dtype)
    if not _is_written_out(keys, shape, dtype):
        return plain(keys, step)
    fast = partial(_written_out, shape=shape)
    return lax.platform_dependent(keys, jnp.asarray(step), cpu=fast, default=plain)


def _is_written_out(keys: Keys, shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether the numbers are single precision, from JAX's default generator and counters."""
    return (
        str(jax.random.key_impl(keys)) == "threefry2x32"
        and jax.config.jax_threefry_partitionable
        and dtype == jnp.float32
        and math.prod(shape) < 2**32
    )


def _plain(keys: Keys, step: Index, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    draw = lambda key: jax.random.normal(jax.random.fold_in(key, step), shape, dtype)  # noqa: E731
    return jax.vmap(draw)(keys)


def _written_out(keys: Keys, step: Index, shape: tuple[int, ...]) -> Array:
    words = jax.random.key_data(jax.vmap(jax.random.fold_in, (0, None))(keys, step))
    once = lax.min(lax.bitwise_or(step.astype(jnp.int32), 1), 1)  # 1, which XLA cannot know
    size = (keys.shape[0], math.prod(shape))
    bits = lax.fori_loop(0, once, lambda _, __: threefry_bits(words, size), jnp.zeros(size, "u4"))
    return bits_to_normals(bits).reshape(keys.shape[0], *shape)


def threefry_bits(words: Array, size: tuple[int, int]) -> Array:
    """Random bits: both outputs of Threefry-2x32 with 20 rounds of counter (0, i), one xor other.

    Salmon et al. 2011, section 3.3; the counters are JAX's, with `jax_threefry_partitionable`.

    Args:
      words: (B, 2) uint32, the data of B keys.
      size: (B, n).

    Returns:
      (B, n) uint32.
    """
    a, b = words[:, :1], words[:, 1:]
    schedule = (a, b, a ^ b ^ PARITY)
    counter = lax.broadcasted_iota(jnp.uint32, size, 1)
    state = (jnp.broadcast_to(a, size), counter + b)
    for i in range(5):
        state = reduce(_round, ROTATIONS[i % 2], state)
        x, y = state
        state = x + schedule[(i + 1) % 3], y + schedule[(i + 2) % 3] + np.uint32(i + 1)
    return state[0] ^ state[1]


def _round(state: tuple[Array, Array], bits: int) -> tuple[Array, Array]:
    x, y = state
    x = x + y
    return x, ((y << np.uint32(bits)) | (y >> np.uint32(32 - bits))) ^ x


def bits_to_normals(bits: Array) -> Array:
    """sqrt(2) erfinv(u), u uniform in (-1, 1) by the 23 highest bits of each word.

    Args:
      bits: uint32.

    Returns:
      float32, its shape; as `jax.random.normal` maps them.
    """
    low = np.nextafter(np.float32(-1), np.float32(0))
    one = np.float32(1).view(np.uint32)
    floats = lax.bitcast_convert_type((bits >> np.uint32(9)) | one, jnp.float32) - np.float32(1)
    u = jnp.maximum(low, floats * (np.float32(1) - low) + low)
    return np.float32(math.sqrt(2)) * lax.erf_inv(u)
