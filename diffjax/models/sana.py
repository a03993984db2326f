"""Sana's transformer (Xie et al. 2024): linear attention, and convolutions in place of MLPs.

Layers have the names that its published files use.
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.layers import attention
from diffjax.models.linear_attention import ChannelNorm, GatedConv, relu_attention
from diffjax.models.patches import unpatchify
from diffjax.models.position import Cells, cells, sincos_2d
from diffjax.models.published_layers import TwoLayers, modulate, needed, plain_norm, waves
from diffjax.models.stacking import repeat
from diffjax.models.text.encoding import heads_of, tanh_gelu
from diffjax.models.transformer import dense
from diffjax.types import Array, Cond


def qkv(x: Array, tokens: Array, heads: int, bias: bool, normed: bool, name: str) -> list[Array]:
    """Queries of x, keys and values of tokens; called within a module."""
    found = []
    for letter, h in zip("qkv", (x, tokens, tokens), strict=True):
        h = dense(x.shape[-1], x.dtype, use_bias=bias, name=f"{name}.to_{letter}")(h)
        if normed and letter != "v":
            h = ChannelNorm(1e-5, False, name=f"{name}.norm_{letter}")(h)
        found.append(heads_of(h, heads))
    return found


class SanaBlock(nn.Module):
    """Linear self-attention, cross-attention and a gated convolution.

    Attributes:
      heads: of the self-attention.
      cross_heads: of the cross-attention.
      hidden: channels of the convolution.
      bias: of queries, keys and values of the self-attention.
      normed: whether queries and keys are normed.
    """

    heads: int
    cross_heads: int
    hidden: int
    bias: bool = False
    normed: bool = False

    @nn.compact
    def __call__(self, x: Array, six: Array, text: Array, mask: Array | None, size) -> Array:
        """x (B, T, D), six (B, 6, D) of the time, text (B, L, D), size (rows, columns)."""
        width = x.shape[-1]
        own = self.param("scale_shift_table", nn.initializers.normal(0.02), (6, width))
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = (
            v[:, 0] for v in jnp.split(own[None] + six, 6, axis=1)
        )
        h = modulate(plain_norm(x), shift, scale)
        h = relu_attention(*qkv(h, h, self.heads, self.bias, self.normed, "attn1"))
        h = dense(width, x.dtype, name="attn1.to_out.0")(h.reshape(x.shape))
        x = x + gate[:, None] * h
        h = attention(*qkv(x, text, self.cross_heads, True, self.normed, "attn2"), mask)
        x = x + dense(width, x.dtype, name="attn2.to_out.0")(h)
        h = modulate(plain_norm(x), shift_mlp, scale_mlp).reshape(x.shape[0], *size, width)
        return x + gate_mlp[:, None] * GatedConv(self.hidden, name="ff")(h).reshape(x.shape)


class Sana(nn.Module):
    """Sana's transformer.

    Attributes:
      heads: of the self-attention.
      cross_heads: of the cross-attention.
      width: D.
      depth: number of blocks.
      channels: of the result.
      ratio: of the convolutions' channels to D.
      patch: side of a patch.
      side: patches of the images that it was trained on, along one side.
      scale: of fixed positions; None is without.
      bias: as in `SanaBlock`.
      normed: as in `SanaBlock`.
      guided: whether the guidance scale is a condition (Sana-Sprint).
    """

    heads: int
    cross_heads: int
    width: int
    depth: int
    channels: int
    ratio: float = 2.5
    patch: int = 1
    side: int = 32
    scale: float | None = None
    bias: bool = False
    normed: bool = False
    guided: bool = False

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """The raw output (B, H, W, channels).

        Args:
          x: latents (B, H, W, C).
          t: times (B,), 0 to 1000.
          cond: `tokens` (B, L, E), perhaps `token_mask` (B, L), and `guidance` (B,) where the
            network has it.
          train: no effect.
        """
        (_, height, width, _), p = x.shape, self.patch
        text = needed(cond, "tokens", "Sana")
        text = TwoLayers(self.width, tanh_gelu, name="caption_projection")(text)
        text = ChannelNorm(1e-5, False, name="caption_norm")(text)
        embedding, mask = self.embed(t, cond), cond.get("token_mask")
        six = dense(6 * self.width, x.dtype, name="time_embed.linear")(nn.silu(embedding))
        six = six.reshape(-1, 6, self.width)
        size = (height // p, width // p)
        h = nn.Conv(self.width, (p, p), p, "VALID", name="patch_embed.proj")(x)
        h = h.reshape(h.shape[0], -1, self.width)
        if self.scale is not None:
            where = cells(*size)
            where = Cells(where.row * self.side / size[0], where.column * self.side / size[1])
            places = sincos_2d(where, self.width, self.scale)
            h = h + jnp.asarray(places, jnp.float32)[None]
        kind = (self.heads, self.cross_heads, int(self.ratio * self.width), self.bias, self.normed)
        step = lambda block, h, _: (block(h, six, text, mask, size), None)  # noqa: E731
        h, _ = repeat(partial(SanaBlock, *kind), step, h, self.depth, name="transformer_blocks.")
        own = self.param("scale_shift_table", nn.initializers.normal(0.02), (2, self.width))
        shift, scale = (v[:, 0] for v in jnp.split(own[None] + embedding[:, None], 2, axis=1))
        h = modulate(plain_norm(h), shift, scale)
        h = dense(p * p * self.channels, h.dtype, name="proj_out")(h)
        return unpatchify(h, height, width, p)

    def embed(self, t: Array, cond: Cond) -> Array:
        """The embedding of time and perhaps of the guidance scale, (B, D)."""
        if not self.guided:
            return waves(t, self.width, "time_embed.emb.timestep_embedder")
        h = waves(t, self.width, "time_embed.timestep_embedder")
        scale = needed(cond, "guidance", "Sana")
        return h + waves(scale, self.width, "time_embed.guidance_embedder")
