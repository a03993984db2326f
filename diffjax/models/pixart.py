"""PixArt's transformer (Chen et al. 2023): one adaLN for all blocks, and text by cross-attention.

Layers have the names that its published files use.
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from diffjax.models.layers import attention, sinusoidal_embedding
from diffjax.models.patches import unpatchify
from diffjax.models.position import Cells, cells, sincos_2d
from diffjax.models.published_layers import TwoLayers, modulate, needed, plain_norm, waves
from diffjax.models.stacking import repeat
from diffjax.models.text.encoding import heads_of, tanh_gelu
from diffjax.models.transformer import dense
from diffjax.types import Array, Cond


def attend(x: Array, tokens: Array, heads: int, mask: Array | None, name: str) -> Array:
    """Attention of x to tokens, with the names of diffusers; called within a module."""
    width = x.shape[-1]
    of = zip("qkv", (x, tokens, tokens), strict=True)
    layers = [dense(width, x.dtype, name=f"{name}.to_{letter}")(h) for letter, h in of]
    h = attention(*(heads_of(h, heads) for h in layers), mask)
    return dense(width, x.dtype, name=f"{name}.to_out.0")(h)


class PixArtBlock(nn.Module):
    """Self-attention, cross-attention and MLP; six vectors scale, shift and gate."""

    heads: int

    @nn.compact
    def __call__(self, x: Array, six: Array, text: Array, mask: Array | None) -> Array:
        """x (B, T, D), six (B, 6, D) of the time, text (B, L, D)."""
        width = x.shape[-1]
        own = self.param("scale_shift_table", nn.initializers.normal(0.02), (6, width))
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = (
            v[:, 0] for v in jnp.split(own[None] + six, 6, axis=1)
        )
        h = modulate(plain_norm(x), shift, scale)
        x = x + gate[:, None] * attend(h, h, self.heads, None, "attn1")
        x = x + attend(x, text, self.heads, mask, "attn2")
        h = modulate(plain_norm(x), shift_mlp, scale_mlp)
        h = tanh_gelu(dense(4 * width, x.dtype, name="ff.net.0.proj")(h))
        return x + gate_mlp[:, None] * dense(width, x.dtype, name="ff.net.2")(h)


class PixArt(nn.Module):
    """PixArt-alpha and PixArt-sigma.

    Attributes:
      heads: number of heads.
      width: D.
      depth: number of blocks.
      channels: of the result.
      patch: side of a patch.
      side: patches of the images that it was trained on, along one side.
      scale: of the positions.
      sized: whether resolution and aspect ratio are conditions.
      captioned: whether the text goes through two layers first.
    """

    heads: int
    width: int
    depth: int
    channels: int
    patch: int = 2
    side: int = 64
    scale: float = 1.0
    sized: bool = False
    captioned: bool = True

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """The raw output (B, H, W, channels).

        Args:
          x: latents (B, H, W, C).
          t: times (B,) in steps.
          cond: `tokens` (B, L, E), perhaps `token_mask` (B, L), and where the network has them
            `resolution` (B, 2) and `aspect_ratio` (B, 1).
          train: no effect.
        """
        (_, height, width, _), p = x.shape, self.patch
        text = needed(cond, "tokens", "PixArt")
        if self.captioned:
            text = TwoLayers(self.width, tanh_gelu, name="caption_projection")(text)
        mask, embedding = cond.get("token_mask"), self.embed(t, cond).astype(x.dtype)
        six = dense(6 * self.width, x.dtype, name="adaln_single.linear")(nn.silu(embedding))
        six = six.reshape(-1, 6, self.width)
        h = nn.Conv(self.width, (p, p), p, "VALID", name="pos_embed.proj")(x)
        places = self.positions(height // p, width // p).astype(h.dtype)
        h = h.reshape(h.shape[0], -1, self.width) + places[None]
        step = lambda block, h, _: (block(h, six, text, mask), None)  # noqa: E731
        make = partial(PixArtBlock, self.heads)
        h, _ = repeat(make, step, h, self.depth, name="transformer_blocks.")
        own = self.param("scale_shift_table", nn.initializers.normal(0.02), (2, self.width))
        shift, scale = (v[:, 0] for v in jnp.split(own[None] + embedding[:, None], 2, axis=1))
        h = modulate(plain_norm(h), shift, scale)
        h = dense(p * p * self.channels, h.dtype, name="proj_out")(h)
        return unpatchify(h, height, width, p)

    def positions(self, height: int, width: int) -> Array:
        """Fixed positions (T, D) of the patches, as if their grid were `side` patches wide."""
        where = cells(height, width)
        where = Cells(where.row * self.side / height, where.column * self.side / width)
        return jnp.asarray(sincos_2d(where, self.width, self.scale), jnp.float32)

    def embed(self, t: Array, cond: Cond) -> Array:
        """The embedding of time and perhaps of sizes, (B, D)."""
        place = "adaln_single.emb."
        h = waves(t, self.width, place + "timestep_embedder")
        if not self.sized:
            return h
        sizes = []
        for name in ("resolution", "aspect_ratio"):
            numbers = needed(cond, name, "PixArt")
            w = sinusoidal_embedding(numbers.reshape(-1), 256)
            w = TwoLayers(self.width // 3, name=f"{place}{name}_embedder")(w)
            sizes.append(w.reshape(numbers.shape[0], -1))
        return h + jnp.concatenate(sizes, axis=1)
