"""Drifting models: a generator in one step that follows a field of data and its own samples."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.distill.frozen_teacher import SCALE
from diffjax.losses import split_batch
from diffjax.parameterization import check_trainable, make_denoiser
from diffjax.types import (
    Array,
    Cond,
    LossFn,
    Network,
    Parameterization,
    PerSample,
    Samples,
    Scalar,
    Schedule,
)

NEVER = -1e9
"""Added to the logit of a pair that does not count; finite, for columns without any."""


def distances(x: Array, y: Array) -> Array:
    """|x_i - y_j| of all pairs: x (B, C) and y (N, C) to (B, N)."""
    return jnp.sqrt(jnp.sum((x[:, None] - y[None]) ** 2, -1))


def drift(
    x: Array, positive: Array, negative: Array, temperature: Scalar, weight: Array | None = None
) -> Array:
    """Towards data and away from what is generated: Deng et al. 2026 (drifting), Algorithm 2.

    V(x) = sum k(x, y+) k(x, y-) (y+ - y-) with the kernel exp(-|x - y| / temperature), normalised
    over all y and over all x, of which the geometric mean is taken. It changes its sign where the
    two sets change places, and is zero where they are one.

    Args:
      x: (B, C).
      positive: data (N, C).
      negative: generated samples (M, C).
      temperature: of the kernel, positive, in units of x.
      weight: (B, N + M) factors of the kernel, not negative; 0 where a pair does not count, such
        as that of a sample with itself. Default 1.

    Returns:
      V (B, C).
    """
    others = jnp.concatenate([positive, negative])
    logits = -distances(x, others) / temperature
    if weight is not None:
        counted = weight > 0
        logits += jnp.where(counted, jnp.log(jnp.where(counted, weight, 1)), NEVER)
    kernel = jnp.sqrt(jax.nn.softmax(logits, 1) * jax.nn.softmax(logits, 0))
    near, far = jnp.split(kernel, [len(positive)], 1)
    total = lambda a: jnp.sum(a, 1, keepdims=True)  # noqa: E731
    return (near * total(far)) @ positive - (far * total(near)) @ negative


def drifted(
    x: Array,
    positive: Array,
    negative: Array,
    temperatures: Sequence[float],
    weight: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Drift without a unit: Deng et al. 2026, appendix A.6, Eq. 18-25.

    Features are divided by S, for which the mean distance of pairs is sqrt(C); the drift at each
    temperature, which is in units of sqrt(C) then, by its root mean square; drifts are added up.

    Args:
      x: (B, C) features of what is moved.
      positive: (N, C) features of data.
      negative: (M, C) features of generated samples.
      temperatures: of the kernel, each positive; the paper's are 0.02, 0.05 and 0.2.
      weight: as for `drift`; of the mean distance too.

    Returns:
      S, the drift of x / S, and the root mean square of the drift before it was divided, per
      temperature: zero where the laws are one.
    """
    others, root = jnp.concatenate([positive, negative]), np.sqrt(x.shape[1])
    size = jnp.average(distances(x, others), weights=weight) / root
    scaled = [a / size for a in (x, positive, negative)]
    fields = jnp.stack([drift(*scaled, tau * root, weight) for tau in temperatures])
    lengths = jnp.sqrt(jnp.mean(fields**2, (1, 2)))
    return size, jnp.sum(fields / (lengths[:, None, None] + 1e-12), 0), lengths


def kernel_weights(alike: Array, scale: PerSample | None = None) -> Array:
    """Weights of the pairs of B samples with B data and B samples, and with B data as negatives.

    Deng et al. 2026, appendix A.7: data of any condition repel with a weight w, for which
    1 / (1 - gamma) is the scale, gamma their share of the negatives.

    Args:
      alike: (B, B), 1 where two conditions are the same, else 0.
      scale: (B,) of guidance, at least 1; None leaves the last B columns out.

    Returns:
      (B, 2B), or (B, 3B) with a scale.
    """
    count = len(alike)
    own = alike * (1 - jnp.eye(count))
    columns = [alike, own]
    if scale is not None:
        repel = (scale - 1) * jnp.sum(own, 1) / count
        columns.append(jnp.broadcast_to(repel[:, None], (count, count)))
    return jnp.concatenate(columns, 1)


def same_label(cond: Cond) -> Array:
    """(B, B), 1 where two samples have one cond["label"], else 0."""
    label = cond["label"]
    return (label[:, None] == label[None]).astype(float)


def whole(x: Samples) -> tuple[Array, ...]:
    """One feature: the sample itself, (B, ...) to (B, C)."""
    return (x.reshape(len(x), -1),)


def drifting(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    temperatures: Sequence[float] = (0.02, 0.05, 0.2),
    features: Callable[[Samples], Sequence[Array]] = whole,
    alike: Callable[[Cond], Array] | None = None,
) -> LossFn:
    """|phi(x) - sg(phi(x) + V)|^2 of one-step samples x: Deng et al. 2026 (drifting), Eq. 26.

    Args:
      network: of one time; the generator is x0_hat(sigma_T z, t_max).
      schedule: the noise schedule.
      parameterization: what the network predicts, finite at t_max.
      temperatures: of the kernel, as for `drifted`.
      features: phi, frozen: (B, ...) -> features (B, C) of any number; default the sample itself.
      alike: cond -> (B, B), which of the batch attract and repel each other, such as `same_label`;
        default all.

    Returns:
      A `LossFn` that needs no teacher; a batch's cond["guidance_scale"] guides it. Its value is
      about constant; aux has `drift`, which falls.

    Raises:
      InputError: the parameterization is not finite at t_max, such as that of eps at a zero SNR.
    """
    check_trainable(schedule, parameterization, (schedule.t_max,))

    def loss(params, key, batch, **context):
        data, cond = split_batch(batch)
        z_key, network_key = jax.random.split(key)
        end = jnp.full(data.shape[:1], schedule.t_max, data.dtype)
        z = schedule.sigma(end[0]) * jax.random.normal(z_key, data.shape, data.dtype)
        denoiser = make_denoiser(network, params, schedule, parameterization, network_key)
        x = denoiser(z, end, cond).x0
        pairs = jnp.ones((len(data),) * 2) if alike is None else alike(cond)
        scale = (cond or {}).get(SCALE)
        weight = kernel_weights(pairs, scale)
        moved, real = features(x), features(data)
        value, lengths = jnp.zeros(()), []
        for own, known in zip(moved, real, strict=True):
            still = jax.lax.stop_gradient(own)
            repel = still if scale is None else jnp.concatenate([still, known])
            size, field, length = drifted(still, known, repel, temperatures, weight)
            value += jnp.mean((own / size - (still / size + field)) ** 2)
            lengths.append(length)
        return value, {"drift": jnp.mean(jnp.stack(lengths))}

    return loss


def at_one_scale(loss: LossFn, scales: tuple[float, float]) -> LossFn:
    """A loss of batches with one guidance scale for all, drawn uniformly from (low, high)."""

    def drawn(params, key, batch, **context):
        scale_key, key = jax.random.split(key)
        x = batch["x"]
        scale = jax.random.uniform(scale_key, (), x.dtype, *scales)
        return loss(params, key, {**batch, SCALE: jnp.full(x.shape[:1], scale)}, **context)

    return drawn
