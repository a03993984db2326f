"""A network made worse at call time, for `guidance.autoguidance` to lead away from.

Modules are chosen by their path, such as ("block_3", "attention"); parameters stay as they are.
"""

from collections.abc import Callable, Sequence
from functools import wraps

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.layers import attending
from diffjax.types import Array, Network, Scalar

Chosen = Callable[[Sequence[str]], bool]
"""A module's path in the network -> whether it is meant. Blocks in a scan have one path."""


def by_name(*names: str) -> Chosen:
    """Modules of which a part of the path is one of the names.

    Args:
      *names: such as "block_3".
    """
    return lambda path: bool(set(names) & set(path))


def _intercepted(network: Network, chosen: Chosen, instead: Callable) -> Network:
    """The network whose chosen modules are called by `instead(call, args, kwargs)`."""

    @wraps(network)
    def changed(params, x, c_noise, cond, key):
        met = []

        def interceptor(call, args, kwargs, context):
            path = context.module.path
            if context.method_name == "__call__" and path and chosen(path):
                met.append(path)
                return instead(call, args, kwargs)
            return call(*args, **kwargs)

        with nn.intercept_methods(interceptor):
            out = network(params, x, c_noise, cond, key)
        if not met:
            raise InputError("no module of the network is chosen; look at the names of its params.")
        return out

    return changed


def skip_layers(network: Network, chosen: Chosen) -> Network:
    """The network without some of its blocks: skip-layer guidance, as of Stable Diffusion 3.5.

    A chosen block gives its first argument back, so that it must be residual.

    Args:
      network: of a Linen module, from `network`.
      chosen: which blocks, such as `by_name("block_3")`; parts of them need not be named.

    Returns:
      The weaker network, for the denoiser that is guided away from.

    Raises:
      InputError: when called, if no module is chosen.
    """
    return _intercepted(network, chosen, lambda call, args, kwargs: args[0])


def perturbed_attention(network: Network, chosen: Chosen) -> Network:
    """Self-attention in which every token sees itself alone: Ahn et al. 2024 (PAG), Eq. 11.

    Args:
      network: of a Linen module, from `network`.
      chosen: within which modules; attention to a context stays as it is.

    Returns:
      The weaker network.

    Raises:
      InputError: when called, if no module is chosen.
    """

    def itself(attend, q, k, v, mask):
        other = q.shape[1] != k.shape[1]
        return attend(q, k, v, mask) if other else v.reshape(*v.shape[:2], -1)

    return _attended(network, chosen, itself)


def smoothed_attention(network: Network, chosen: Chosen) -> Network:
    """Self-attention with one query for all: Hong 2024 (SEG), Eq. 12, for an infinite blur.

    Args:
      network: of a Linen module, from `network`.
      chosen: within which modules; attention to a context stays as it is.

    Returns:
      The weaker network.

    Raises:
      InputError: when called, if no module is chosen.
    """

    def smooth(attend, q, k, v, mask):
        mean = jnp.broadcast_to(q.mean(axis=1, keepdims=True), q.shape)
        return attend(q if q.shape[1] != k.shape[1] else mean, k, v, mask)

    return _attended(network, chosen, smooth)


def blurred_attention(network: Network, chosen: Chosen, sigma: Scalar) -> Network:
    """Self-attention whose queries are blurred over the picture: Hong 2024 (SEG), Eq. 12.

    A blur of 0 is the network itself, and an infinite one `smoothed_attention`.

    Args:
      network: of a Linen module of pictures (B, H, W, C), from `network`.
      chosen: within which modules; attention to a context stays as it is.
      sigma: standard deviation of the Gaussian in tokens, above 0; may be traced.

    Returns:
      The weaker network.

    Raises:
      InputError: when called, if no module is chosen, or tokens are no grid over the picture.
    """

    @wraps(network)
    def changed(params, x, c_noise, cond, key):
        def blurred(attend, q, k, v, mask):
            if q.shape[1] == k.shape[1]:
                q = blur(q, x.shape[1:3], sigma)
            return attend(q, k, v, mask)

        return _attended(network, chosen, blurred)(params, x, c_noise, cond, key)

    return changed


def blur(tokens: Array, picture: tuple[int, int], sigma: Scalar) -> Array:
    """A Gaussian blur over the grid of tokens, whose weights sum to 1 at the edges too.

    Args:
      tokens: (B, N, ...), row by row.
      picture: (H, W), of which N is a whole fraction.
      sigma: standard deviation in tokens.

    Returns:
      The same shape.

    Raises:
      InputError: N tokens are no grid of that picture.
    """
    n = tokens.shape[1]
    rows = round((n * picture[0] / picture[1]) ** 0.5)
    columns = n // max(rows, 1)
    if rows * columns != n or rows * picture[1] != columns * picture[0]:
        raise InputError(f"{n} tokens are no grid over a picture of {picture}; take other modules.")

    def weights(m):
        distance = jnp.arange(m)[:, None] - jnp.arange(m)[None]
        return jax.nn.softmax(-(distance**2) / (2 * jnp.asarray(sigma, tokens.dtype) ** 2))

    grid = tokens.reshape(tokens.shape[0], rows, columns, -1)
    blurred = jnp.einsum("ij,kl,bjlc->bikc", weights(rows), weights(columns), grid)
    return blurred.reshape(tokens.shape)


def _attended(network: Network, chosen: Chosen, rule: Callable[..., Array]) -> Network:
    def instead(call, args, kwargs):
        with attending(rule):
            return call(*args, **kwargs)

    return _intercepted(network, chosen, instead)
