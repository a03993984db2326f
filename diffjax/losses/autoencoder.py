"""Losses of autoencoders: reconstruction, the KL of a Gaussian posterior, and codebooks.

A reconstruction loss is a function of (x, x_hat) to one number per sample, in nats; those of
this file may be added and scaled. An objective is a function of (params, key, x) to a
`Reconstruction`, and `autoencoder_loss` or `adversarial.adversarial_loss` trains it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion import gaussian_kl
from diffjax.latents import sample_posterior, straight_through
from diffjax.losses.denoising import split_batch
from diffjax.types import Anyshape, Array, LossFn, Params, PerSample, PRNGKeyArray, Samples, Scalar

Distance = Callable[[Samples, Samples], PerSample]
"""(x, x_hat) -> (B,), nats where it is a likelihood's."""

Encode = Callable[[Params, Array], tuple[Array, Array]]
"""(params, x) -> (mean, logvar)."""

Decode = Callable[[Params, Array], Array]
"""(params, z) -> x_hat."""

Features = Callable[[Array], Sequence[Array]]
"""(B, H, W, C) -> arrays (B, h, w, c), of fixed weights or none."""


class Reconstruction(NamedTuple):
    """What an autoencoder's objective says of a batch.

    Attributes:
      x_hat: the reconstruction.
      distance: of each sample from it, (B,).
      penalty: the rest of the objective, (B,).
      aux: scalars to log.
    """

    x_hat: Samples
    distance: PerSample
    penalty: PerSample
    aux: dict[str, Array]


Objective = Callable[[Params, PRNGKeyArray, Samples], Reconstruction]


def per_sample_sum(x: Samples) -> PerSample:
    """The sum of each sample's numbers, (B, ...) to (B,)."""
    return jnp.sum(x.reshape(x.shape[0], -1), axis=1)


# --- distances --------------------------------------------------------------------------


def l1(x: Samples, x_hat: Samples) -> PerSample:
    """sum |x - x_hat|: a Laplace likelihood of unit scale, up to a constant."""
    return per_sample_sum(jnp.abs(x - x_hat))


def l2(x: Samples, x_hat: Samples) -> PerSample:
    """sum (x - x_hat)^2 / 2: a Gaussian likelihood of unit variance, up to a constant."""
    return per_sample_sum((x - x_hat) ** 2) / 2


def gaussian_nll(logvar: Scalar) -> Distance:
    """-log N(x; x_hat, exp(logvar) I), the whole of it.

    Args:
      logvar: natural logarithm of the variance per dimension.

    Returns:
      (x, x_hat) -> nats per sample (B,).
    """

    def nll(x, x_hat):
        return per_sample_sum(
            ((x - x_hat) ** 2 * jnp.exp(-logvar) + logvar + np.log(2 * np.pi)) / 2
        )

    return nll


def feature_distance(features: Features) -> Distance:
    """The squared distance between unit-length features: Zhang et al. 2018, all weights 1.

    Args:
      features: x -> arrays (B, h, w, c), such as the layers of a trained network.

    Returns:
      (x, x_hat) -> (B,): per array the mean over its pixels, at most 4; summed over arrays.
    """

    def unit(f):
        return f * jax.lax.rsqrt(jnp.sum(f**2, axis=-1, keepdims=True) + 1e-10)

    def distance(x, x_hat):
        pairs = zip(features(x), features(x_hat), strict=True)
        squares = [jnp.sum((unit(a) - unit(b)) ** 2, axis=-1) for a, b in pairs]
        return sum(jnp.mean(s.reshape(s.shape[0], -1), axis=1) for s in squares)

    return distance


def multiscale(distance: Distance, levels: int = 3) -> Distance:
    """A distance summed over an image pyramid: coarse structure counts at every level.

    Args:
      distance: of (x, x_hat) at one resolution.
      levels: resolutions, each half the one before by averages of 2x2 pixels.

    Returns:
      (x, x_hat) -> (B,).
    """

    def halve(x):
        b, height, width, c = x.shape
        return jnp.mean(x.reshape(b, height // 2, 2, width // 2, 2, c), axis=(2, 4))

    def total(x, x_hat):
        value = distance(x, x_hat)
        for _ in range(levels - 1):
            x, x_hat = halve(x), halve(x_hat)
            value = value + distance(x, x_hat)
        return value

    return total


def weighted_sum(*terms: tuple[Scalar, Distance]) -> Distance:
    """sum w_i distance_i, from pairs (w_i, distance_i)."""
    return lambda x, x_hat: sum(weight * distance(x, x_hat) for weight, distance in terms)


# --- what is paid for the latents ---------------------------------------------------------


def kl_to_standard_normal(mean: Samples, logvar: Samples) -> PerSample:
    """KL(N(mean, exp(logvar)) || N(0, I)): Kingma & Welling 2014.

    Args:
      mean: of the posterior (B, ...).
      logvar: natural logarithm of its variance, of the same shape.

    Returns:
      Nats per sample (B,), summed over the latent dimensions; at least 0.
    """
    return per_sample_sum(gaussian_kl(mean, logvar, 0.0, 0.0))


def codebook_terms(z: Anyshape, codes: Anyshape) -> tuple[PerSample, PerSample]:
    """|sg[z] - e|^2 and |z - sg[e]|^2: the last two terms of van den Oord et al. 2017, Eq. 3.

    The first moves the codes alone, the second the encoder alone.

    Args:
      z: what the encoder said (B, ..., D).
      codes: the nearest code of each, with its gradient to the codebook.

    Returns:
      (codebook, commitment), each (B,), summed over the latent dimensions.
    """
    stop = jax.lax.stop_gradient
    return per_sample_sum((stop(z) - codes) ** 2), per_sample_sum((z - stop(codes)) ** 2)


# --- objectives -------------------------------------------------------------------------


def variational(
    encode: Encode, decode: Decode, distance: Distance, beta: Scalar = 1.0
) -> Objective:
    """E_q distance(x, decode(z)) + beta KL(q(z | x) || N(0, I)), by one draw of z.

    With `gaussian_nll` and beta 1 it is the negative of the evidence lower bound (Kingma &
    Welling 2014), above -log p(x) in nats; another beta is that of Higgins et al. 2017.

    Args:
      encode: (params, x) -> (mean, logvar).
      decode: (params, z) -> x_hat.
      distance: of (x, x_hat), per sample.
      beta: weight of the KL; latent diffusion has it near 1e-6.

    Returns:
      An objective; aux has `reconstruction` and `kl`, means over the batch.
    """

    def objective(params, key, x):
        mean, logvar = encode(params, x)
        x_hat = decode(params, sample_posterior(key, mean, logvar))
        far, kl = distance(x, x_hat), kl_to_standard_normal(mean, logvar)
        aux = {"reconstruction": jnp.mean(far), "kl": jnp.mean(kl)}
        return Reconstruction(x_hat, far, beta * kl, aux)

    return objective


def vector_quantized(
    encode: Decode,
    quantize: Decode,
    decode_codes: Decode,
    distance: Distance,
    commitment: Scalar = 0.25,
) -> Objective:
    """distance + |sg[z] - e|^2 + commitment |z - sg[e]|^2: van den Oord et al. 2017, Eq. 3.

    Args:
      encode: (params, x) -> z (B, ..., D).
      quantize: (params, z) -> the nearest code of each, with its gradient to the codebook.
      decode_codes: (params, codes) -> x_hat.
      distance: of (x, x_hat), per sample.
      commitment: their beta. The released VQGAN code has it in front of the other term.

    Returns:
      An objective; aux has `reconstruction`, `codebook` (the squared error of the codes).
    """

    def objective(params, key, x):
        z = encode(params, x)
        codes = quantize(params, z)
        x_hat = decode_codes(params, straight_through(z, codes))
        codebook, commit = codebook_terms(z, codes)
        far = distance(x, x_hat)
        aux = {"reconstruction": jnp.mean(far), "codebook": jnp.mean(codebook)}
        return Reconstruction(x_hat, far, codebook + commitment * commit, aux)

    return objective


def autoencoder_loss(objective: Objective) -> LossFn:
    """The mean of an objective over the batch.

    Args:
      objective: `variational` or `vector_quantized`.

    Returns:
      loss(params, key, batch) -> (scalar, the objective's aux); of the batch it uses "x".
    """

    def loss(params, key, batch):
        x, _ = split_batch(batch)
        result = objective(params, key, x)
        return jnp.mean(result.distance + result.penalty), result.aux

    return loss
