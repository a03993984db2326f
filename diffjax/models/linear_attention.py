"""Attention without a softmax, and the convolutional MLP beside it: Xie et al. 2024 (Sana)."""

import jax.numpy as jnp
from flax import linen as nn

from diffjax.types import Array


def relu_attention(q: Array, k: Array, v: Array) -> Array:
    """sum_s relu(q).relu(k_s) v_s / sum_s relu(q).relu(k_s), in time linear in S.

    Katharopoulos et al. 2020, Eq. 5, with the feature map relu.

    Args:
      q: queries (B, T, heads, D).
      k: keys (B, S, heads, D).
      v: values (B, S, heads, D).

    Returns:
      (B, T, heads, D).
    """
    q, k = nn.relu(q), nn.relu(k)
    sums = jnp.einsum("bshd,bshe->bhde", k, v)
    total = jnp.einsum("bthd,bhd->bth", q, k.sum(1))
    return jnp.einsum("bthd,bhde->bthe", q, sums) / (total[..., None] + 1e-15)


class ChannelNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) over channels, times a scale, plus a bias."""

    epsilon: float = 1e-5
    bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (..., C) to its shape."""
        c = x.shape[-1]
        y = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + self.epsilon)
        y = y * jnp.broadcast_to(self.param("scale", nn.initializers.ones, (c,)), y.shape)
        if not self.bias:
            return y
        return y + jnp.broadcast_to(self.param("bias", nn.initializers.zeros, (c,)), y.shape)


class GatedConv(nn.Module):
    """Widen, a depthwise 3x3 convolution, a gate, narrow: the MLP of Sana.

    Attributes:
      hidden: channels between, half of what is widened to.
      normed: whether a norm comes last.
      residual: whether the input is added.
    """

    hidden: int
    normed: bool = False
    residual: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (B, H, W, C) to its shape."""
        both = 2 * self.hidden
        h = nn.silu(nn.Conv(both, (1, 1), name="conv_inverted")(x))
        depth = nn.Conv(both, (3, 3), padding=1, feature_group_count=both, name="conv_depth")
        h, gate = jnp.split(depth(h), 2, axis=-1)
        h = nn.Conv(x.shape[-1], (1, 1), use_bias=False, name="conv_point")(h * nn.silu(gate))
        if self.normed:
            h = ChannelNorm(name="norm")(h)
        return h + x if self.residual else h
