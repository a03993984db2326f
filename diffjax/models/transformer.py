"""What transformers are put together from: norms, MLPs, attention, patches and conditions.

Tokens are (B, T, D). Parameters are float32; computation is in `dtype`, and norms and
softmax are float32 whatever it is. A block takes what its parts are made by, e.g.
`DiTBlock(norm=RMSNorm, mlp=SwiGLU)`, so that a new part needs no edit here.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.layers import Dtype, attention, full
from diffjax.models.position import Cells, no_rotation
from diffjax.types import Array

xavier = nn.initializers.xavier_uniform()
zeros = nn.initializers.zeros
small = nn.initializers.normal(0.02)


class BlockContext(NamedTuple):
    """What every block sees beside the tokens it transforms.

    Attributes:
      embedding: of time and label, (B, D), None where they come as tokens.
      where: positions of the tokens; None where there is none.
      tokens: condition (B, L, E) to attend to, None where there is none.
      token_mask: (B, L) bool, False where a token is padding; None is all True.
      mask: (B, T) bool, which of the tokens that are transformed may be attended to.
    """

    embedding: Array | None = None
    where: Cells | None = None
    tokens: Array | None = None
    token_mask: Array | None = None
    mask: Array | None = None


def flat_dot(x: Array, kernel: Array, dimensions, **kwargs) -> Array:
    """x (..., D) times kernel (D, E) as one product of matrices.

    With the leading axes merged, the gradient of the kernel is one product of matrices too,
    which XLA's CPU compiler does not see through batched axes.
    """
    flat = x.reshape(-1, x.shape[-1])
    y = jax.lax.dot_general(flat, kernel, (((1,), (0,)), ((), ())), **kwargs)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def dense(features: int, dtype: Dtype, **kwargs) -> nn.Dense:
    """A dense layer of any leading axes, Xavier-uniform where nothing else is said."""
    return nn.Dense(
        features, dtype=dtype, dot_general=flat_dot, **{"kernel_init": xavier, **kwargs}
    )


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def standardised(x: Array, epsilon: float) -> Array:
    """(x - mean) / sqrt(var + epsilon) over the last axis: Ba et al. 2016, Eq. 3.

    The derivative, r (dx - mean(dx) - y mean(y dx)), is of the result y and r = 1/sqrt(var +
    epsilon) alone: nothing else is kept for the backward pass.

    Args:
      x: (..., D).
      epsilon: added to the variance.

    Returns:
      The shape of x.
    """
    return _with_scale(x, epsilon)[0]


def _with_scale(x, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    r = jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return centred * r, r


@standardised.defjvp
def _standardised_derivative(epsilon, primals, tangents):
    y, r = _with_scale(*primals, epsilon)
    (dx,) = tangents
    return y, r * (dx - dx.mean(-1, keepdims=True) - y * (y * dx).mean(-1, keepdims=True))


class Affine(nn.Module):
    """x scale + bias, a number each for a channel."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (..., D) to its shape."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", zeros, x.shape[-1:])
        scale, bias = (jnp.expand_dims(z, range(x.ndim - 1)) for z in (scale, bias))
        return x * scale + bias


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016) in float32, cast back to the compute type.

    Attributes:
      affine: whether it has a scale and a bias.
      epsilon: added to the variance.
    """

    affine: bool = False
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (..., D) to its shape."""
        y = standardised(x.astype(full(x.dtype)), self.epsilon)
        return (Affine(name="norm")(y) if self.affine else y).astype(x.dtype)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2)) times a scale (Zhang & Sennrich 2019, Eq. 4), in float32.

    Attributes:
      affine: whether it has the scale.
      epsilon: added to the mean square.
    """

    affine: bool = True
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (..., D) to its shape."""
        norm = nn.RMSNorm(
            self.epsilon,
            dtype=full(x.dtype),
            use_scale=self.affine,
            name="norm",
        )
        return norm(x).astype(x.dtype)


def no_norm(name: str):
    """The norm that does nothing."""
    return lambda x: x


class MLP(nn.Module):
    """W2 f(W1 x), by default of GELU in its tanh form (Hendrycks & Gimpel 2016).

    Attributes:
      ratio: hidden width over D.
      activation: f.
      dtype: type of the computation.
    """

    ratio: float = 4.0
    activation: Callable[[Array], Array] = partial(nn.gelu, approximate=True)
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (..., D) to its shape."""
        h = dense(int(self.ratio * x.shape[-1]), self.dtype, name="layer_in")(x)
        return dense(x.shape[-1], self.dtype, name="layer_out")(self.activation(h))


class SwiGLU(nn.Module):
    """W2 (silu(W x) * V x), without biases: Shazeer 2020, Eq. 6.

    Attributes:
      ratio: the hidden width is 2/3 of it times D, so that there are as many parameters as
        in an `MLP` of this ratio.
      dtype: type of the computation.
    """

    ratio: float = 4.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (..., D) to its shape."""
        hidden = int(2 * self.ratio * x.shape[-1] / 3)
        both = dense(2 * hidden, self.dtype, use_bias=False, name="layer_in")(x)
        gate, h = jnp.split(both, 2, axis=-1)
        return dense(x.shape[-1], self.dtype, use_bias=False, name="layer_out")(nn.silu(gate) * h)


class QKV(nn.Module):
    """Queries, keys and values of one fused layer.

    Attributes:
      heads: number of heads; must divide D.
      qk_norm: makes the norm of queries and keys over a head's channels, e.g. `RMSNorm`
        (Henry et al. 2020; Dehghani et al. 2023), by default none.
      rotate: (queries or keys (B, T, heads, D), where) -> turned, e.g. `rope_2d`.
      bias: whether the layer has a bias.
      dtype: type of the computation.
    """

    heads: int
    qk_norm: Callable = no_norm
    rotate: Callable[[Array, Cells], Array] = no_rotation
    bias: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, where: Cells) -> tuple[Array, Array, Array]:
        """x (B, T, D) to three of (B, T, heads, D / heads)."""
        qkv = dense(3 * x.shape[-1], self.dtype, use_bias=self.bias, name="dense")(x)
        q, k, v = jnp.split(qkv.reshape(*x.shape[:2], 3 * self.heads, -1), 3, axis=2)
        q, k = self.qk_norm(name="norm_q")(q), self.qk_norm(name="norm_k")(k)
        return self.rotate(q, where), self.rotate(k, where), v


class SelfAttention(nn.Module):
    """Multi-head attention of the tokens to each other (Vaswani et al. 2017, section 3.2.2).

    Attributes:
      heads: number of heads; must divide D.
      qkv: makes queries, keys and values: `partial(QKV, qk_norm=..., rotate=...)`.
      dtype: type of the computation.
    """

    heads: int
    qkv: Callable[..., nn.Module] = QKV
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, context: BlockContext) -> Array:
        """x (B, T, D) to its shape."""
        q, k, v = self.qkv(heads=self.heads, dtype=self.dtype, name="qkv")(x, context.where)
        return dense(x.shape[-1], self.dtype, name="out")(attention(q, k, v, context.mask))


class CrossAttention(nn.Module):
    """Multi-head attention of the tokens to those of the condition.

    Attributes:
      heads: number of heads; must divide D.
      qk_norm: as in `QKV`.
      dtype: type of the computation.
    """

    heads: int
    qk_norm: Callable = no_norm
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, context: BlockContext) -> Array:
        """x (B, T, D) to its shape; starts at zero, as if there were no condition."""
        if context.tokens is None:
            raise InputError('cross-attention needs cond["tokens"] (B, L, E); got none.')
        heads = partial(jnp.reshape, shape=(x.shape[0], -1, self.heads, x.shape[-1] // self.heads))
        q = heads(dense(x.shape[-1], self.dtype, name="q")(x))
        kv = dense(2 * x.shape[-1], self.dtype, name="kv")(context.tokens)
        k, v = map(heads, jnp.split(kv, 2, axis=-1))
        q, k = self.qk_norm(name="norm_q")(q), self.qk_norm(name="norm_k")(k)
        h = attention(q, k, v, context.token_mask)
        return dense(x.shape[-1], self.dtype, kernel_init=zeros, name="out")(h)
