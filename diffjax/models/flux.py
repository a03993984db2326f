"""FLUX.1's transformer: blocks of two streams, then of one, with rotary positions.

Layers have the names that its published files use. Tokens are 2x2 patches of latents, (B, T, C).
"""

import math

import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.published_layers import TwoLayers as Embedder
from diffjax.models.published_layers import (
    modulate,
    needed,
    plain_norm,
    rotary,
    rotate_pairs,
    scaled_rms,
    waves,
)
from diffjax.models.text.encoding import biased_attention, heads_of, tanh_gelu
from diffjax.models.transformer import dense
from diffjax.types import Array, Cond


def qkv(x: Array, heads: int, layers, norms) -> tuple[Array, Array, Array]:
    """Queries, keys and values of one stream, the first two normed; called within a module."""
    q, k, v = (heads_of(dense(x.shape[-1], x.dtype, name=f"attn.{n}")(x), heads) for n in layers)
    q, k = (Rms(name=f"attn.{n}")(h) for n, h in zip(norms, (q, k), strict=True))
    return q, k, v


IMAGE = (("to_q", "to_k", "to_v"), ("norm_q", "norm_k"))
TEXT = (("add_q_proj", "add_k_proj", "add_v_proj"), ("norm_added_q", "norm_added_k"))


class Rms(nn.Module):
    """An RMS norm with a scale."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (..., D) to its shape."""
        return scaled_rms(x, self.param("scale", nn.initializers.ones, (x.shape[-1],)))


def chunks(embedding: Array, width: int, n: int, name: str) -> list[Array]:
    """n vectors (B, width) of the embedding; called within a module."""
    h = dense(n * width, embedding.dtype, name=name)(nn.silu(embedding))
    return jnp.split(h, n, axis=-1)


def feed_forward(x: Array, name: str) -> Array:
    """An MLP four times as wide; called within a module."""
    h = tanh_gelu(dense(4 * x.shape[-1], x.dtype, name=f"{name}.net.0.proj")(x))
    return dense(x.shape[-1], x.dtype, name=f"{name}.net.2")(h)


class FluxBlock(nn.Module):
    """Joint attention of text and image, each stream with its own layers."""

    heads: int

    @nn.compact
    def __call__(self, x: Array, text: Array, embedding: Array, wave) -> tuple[Array, Array]:
        """(x (B, T, D), text (B, L, D)) to their shapes."""
        width, length = x.shape[-1], text.shape[1]
        image_6 = chunks(embedding, width, 6, "norm1.linear")
        text_6 = chunks(embedding, width, 6, "norm1_context.linear")
        images = qkv(modulate(plain_norm(x), *image_6[:2]), self.heads, *IMAGE)
        texts = qkv(modulate(plain_norm(text), *text_6[:2]), self.heads, *TEXT)
        q, k, v = (jnp.concatenate(pair, 1) for pair in zip(texts, images, strict=True))
        h = biased_attention(rotate_pairs(q, wave), rotate_pairs(k, wave), v)
        x = x + image_6[2][:, None] * dense(width, x.dtype, name="attn.to_out.0")(h[:, length:])
        h = dense(width, x.dtype, name="attn.to_add_out")(h[:, :length])
        text = text + text_6[2][:, None] * h
        h = feed_forward(modulate(plain_norm(x), *image_6[3:5]), "ff")
        x = x + image_6[5][:, None] * h
        h = feed_forward(modulate(plain_norm(text), *text_6[3:5]), "ff_context")
        return x, text + text_6[5][:, None] * h


class FluxSingleBlock(nn.Module):
    """Attention and MLP side by side over text and image as one sequence."""

    heads: int

    @nn.compact
    def __call__(self, x: Array, embedding: Array, wave) -> Array:
        """x (B, L + T, D) to its shape."""
        width = x.shape[-1]
        shift, scale, gate = chunks(embedding, width, 3, "norm.linear")
        h = modulate(plain_norm(x), shift, scale)
        mlp = tanh_gelu(dense(4 * width, x.dtype, name="proj_mlp")(h))
        q, k, v = qkv(h, self.heads, *IMAGE)
        h = biased_attention(rotate_pairs(q, wave), rotate_pairs(k, wave), v)
        h = dense(width, x.dtype, name="proj_out")(jnp.concatenate([h, mlp], axis=-1))
        return x + gate[:, None] * h


class Flux(nn.Module):
    """FLUX.1's transformer (Black Forest Labs 2024), which predicts a velocity.

    Attributes:
      heads: number of heads.
      head_width: channels of each.
      depth: blocks of two streams.
      single_depth: blocks of one.
      channels: of a token of the result.
      axes: channels of a head for each axis of the positions.
      guided: whether the guidance scale is a condition (FLUX.1 dev).
    """

    heads: int
    head_width: int
    depth: int
    single_depth: int
    channels: int
    axes: tuple[int, ...] = (16, 56, 56)
    guided: bool = False

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """The velocity (B, T, channels).

        Args:
          x: tokens (B, T, C).
          t: times (B,) in [0, 1].
          cond: `tokens` (B, L, E), `vector` (B, V), `guidance` (B,) where the network has it, and
            `image_ids` (T, axes), by default row and column of a square.
          train: no effect.
        """
        width = self.heads * self.head_width
        text = dense(width, x.dtype, name="context_embedder")(needed(cond, "tokens", "FLUX"))
        ids = cond["image_ids"] if "image_ids" in cond else square(x.shape[1], len(self.axes))
        ids = jnp.concatenate([jnp.zeros((text.shape[1], len(self.axes))), ids])
        wave, embedding = rotary(ids, self.axes), self.embed(t, cond, width)
        x = dense(width, x.dtype, name="x_embedder")(x)
        for i in range(self.depth):
            block = FluxBlock(self.heads, name=f"transformer_blocks.{i}")
            x, text = block(x, text, embedding, wave)
        h, length = jnp.concatenate([text, x], axis=1), text.shape[1]
        for i in range(self.single_depth):
            block = FluxSingleBlock(self.heads, name=f"single_transformer_blocks.{i}")
            h = block(h, embedding, wave)
        scale, shift = chunks(embedding, width, 2, "norm_out.linear")
        h = modulate(plain_norm(h[:, length:]), shift, scale)
        return dense(self.channels, h.dtype, name="proj_out")(h)

    def embed(self, t: Array, cond: Cond, width: int) -> Array:
        """The sum of the embeddings of time, guidance and vector, (B, width)."""
        place = "time_text_embed."
        h = waves(1000 * t, width, place + "timestep_embedder")
        if self.guided:
            scale = needed(cond, "guidance", "FLUX")
            h = h + waves(1000 * scale, width, place + "guidance_embedder")
        vector = needed(cond, "vector", "FLUX")
        return h + Embedder(width, name=place + "text_embedder")(vector)


def square(tokens: int, axes: int) -> Array:
    """(0, row, column) of the tokens of a square, row by row.

    Raises:
      InputError: their number is no square.
    """
    side = math.isqrt(tokens)
    if side**2 != tokens:
        raise InputError(f"{tokens} tokens are no square; give cond['image_ids'] (T, {axes}).")
    row, column = jnp.divmod(jnp.arange(tokens), side)
    zeros = [jnp.zeros(tokens)] * (axes - 2)
    return jnp.stack([*zeros, row, column], axis=1).astype(jnp.float32)
