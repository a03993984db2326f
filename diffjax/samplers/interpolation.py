"""Between two samples, along the sphere on which their noise lies."""

import jax
import jax.numpy as jnp

from diffjax.samplers.loop import encode, sample
from diffjax.types import Array, Cond, Denoiser, Float, Grid, Sampler, Samples

PARALLEL = 1e-4  # radians below which the arc is its chord


def interpolate(x_T_a: Samples, x_T_b: Samples, weights: Float[Array, " w"]) -> Array:
    """Spherical interpolation of noise: Song et al. 2021 (DDIM), Eq. 67.

    sin((1 - w) theta)/sin(theta) a + sin(w theta)/sin(theta) b, with theta the angle between
    a and b, for each pair. In high dimension it keeps the length of noise, which a straight
    line would shorten.

    Args:
      x_T_a: noise (B, ...), the result at weight 0.
      x_T_b: noise (B, ...), the result at weight 1; not the opposite of a.
      weights: places along the arc (W,).

    Returns:
      Noise (W, B, ...).
    """
    a, b = (x.reshape(x.shape[0], -1) for x in (x_T_a, x_T_b))
    lengths = jnp.linalg.norm(a, axis=1) * jnp.linalg.norm(b, axis=1)
    cosine = jnp.sum(a * b, axis=1) / jnp.where(lengths == 0, 1, lengths)
    theta = jnp.arccos(jnp.clip(cosine, -1, 1))
    close = jnp.sin(theta) < PARALLEL
    sine = jnp.where(close, 1, jnp.sin(theta))

    def at(w):
        from_a = jnp.where(close, 1 - w, jnp.sin((1 - w) * theta) / sine)
        from_b = jnp.where(close, w, jnp.sin(w * theta) / sine)
        return (from_a[:, None] * a + from_b[:, None] * b).reshape(x_T_a.shape)

    return jax.vmap(at)(jnp.asarray(weights))


def interpolate_samples(
    denoiser: Denoiser,
    sampler: Sampler,
    x_a: Samples,
    x_b: Samples,
    weights: Float[Array, " w"],
    ts: Grid,
    cond: Cond = None,
) -> Array:
    """Encode two batches, go from one's noise to the other's, and decode each place.

    Song et al. 2021 (DDIM), section 5.3, on data rather than on drawn noise.

    Args:
      denoiser: (x_t, t, cond) -> Prediction.
      sampler: a deterministic one: `ddim` with eta 0, `heun`, ...
      x_a: data (B, ...), returned at weight 0 up to the solver's error.
      x_b: data (B, ...), returned at weight 1.
      weights: places between them (W,).
      ts: a decreasing grid with sigma(ts[-1]) > 0, as for `encode`.
      cond: condition of each pair, or None; both encoding and decoding are under it.

    Returns:
      Samples at ts[-1] (W, B, ...).
    """
    ends = [encode(denoiser, sampler, x, ts, cond) for x in (x_a, x_b)]

    def decode(x):
        return sample(jax.random.key(0), denoiser, sampler, x, ts, cond)

    return jax.lax.map(decode, interpolate(*ends, weights))
