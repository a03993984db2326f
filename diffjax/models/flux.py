"""FLUX.1's transformer: blocks of two streams, then of one, with rotary positions.

Layers have the names that its published files use. Tokens are 2x2 patches of latents, (B, T, C).
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.layers import attention
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
from diffjax.models.stacking import plus, repeat
from diffjax.models.text.encoding import heads_of, tanh_gelu
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
        h = attention(rotate_pairs(q, wave), rotate_pairs(k, wave), v)
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
        h = attention(rotate_pairs(q, wave), rotate_pairs(k, wave), v)
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
      remat: compute a block again in the backward pass in place of keeping what is inside it.
      scan_blocks: compile one block of either kind for all; see `stack_blocks`.
    """

    heads: int
    head_width: int
    depth: int
    single_depth: int
    channels: int
    axes: tuple[int, ...] = (16, 56, 56)
    guided: bool = False
    remat: bool = False
    scan_blocks: bool = False

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Cond = None, train: bool = False) -> Array:
        """The velocity (B, T, channels).

        Args:
          x: tokens (B, T, C).
          t: times (B,) in [0, 1].
          cond: `tokens` (B, L, E), `vector` (B, V), `guidance` (B,) where the network has it, and
            `image_ids` (T, axes), by default row and column of a square. `residuals` of a
            ControlNet are two sequences, for the blocks of two streams and for those of one.
          train: no effect.
        """
        width = self.heads * self.head_width
        x = dense(width, x.dtype, name="x_embedder")(x)
        h, embedding, _ = self.blocks(x, t, cond, *(cond or {}).get("residuals", ((), ())))
        scale, shift = chunks(embedding, width, 2, "norm_out.linear")
        h = modulate(plain_norm(h), shift, scale)
        return dense(self.channels, h.dtype, name="proj_out")(h)

    def blocks(
        self, x: Array, t: Array, cond: Cond, double: Sequence[Array], single: Sequence[Array]
    ) -> tuple[Array, Array, tuple[Any, Any]]:
        """All blocks; in a compact method.

        Args:
          x: image tokens (B, T, D).
          t: times.
          cond: conditions.
          double: what is added to the image after the blocks of two streams; block i of N reads
            number floor(i / ceil(N / n)) of n, none where there are none.
          single: likewise after those of one stream.

        Returns:
          (image tokens, the embedding (B, D), the image tokens as they leave each block of two
          streams and of one).
        """
        width = self.heads * self.head_width
        text = dense(width, x.dtype, name="context_embedder")(needed(cond, "tokens", "FLUX"))
        ids = cond["image_ids"] if "image_ids" in cond else square(x.shape[1], len(self.axes))
        ids = jnp.concatenate([jnp.zeros((text.shape[1], len(self.axes))), ids])
        wave, embedding = rotary(ids, self.axes), self.embed(t, cond, width).astype(x.dtype)
        length = text.shape[1]
        options = {"remat": self.remat, "scan": self.scan_blocks}

        def two(block, streams, residual):
            x, text = block(*streams, embedding, wave)
            return (plus(x, residual), text), x

        def one(block, h, residual):
            h = block(h, embedding, wave)
            x = h[:, length:]
            return h if residual is None else h.at[:, length:].set(x + residual), x

        given = residuals_of(double, self.depth, x, self.scan_blocks)
        make, name = partial(FluxBlock, self.heads), "transformer_blocks."
        (x, text), after_two = repeat(
            make, two, (x, text), self.depth, inputs=given, name=name, **options
        )
        given = residuals_of(single, self.single_depth, x, self.scan_blocks)
        make, h = partial(FluxSingleBlock, self.heads), jnp.concatenate([text, x], axis=1)
        name = "single_" + name
        h, after_one = repeat(make, one, h, self.single_depth, inputs=given, name=name, **options)
        return h[:, length:], embedding, (after_two, after_one)

    def embed(self, t: Array, cond: Cond, width: int) -> Array:
        """The sum of the embeddings of time, guidance and vector, (B, width)."""
        place = "time_text_embed."
        h = waves(1000 * t, width, place + "timestep_embedder")
        if self.guided:
            scale = needed(cond, "guidance", "FLUX")
            h = h + waves(1000 * scale, width, place + "guidance_embedder")
        vector = needed(cond, "vector", "FLUX")
        return h + Embedder(width, name=place + "text_embedder")(vector)


class FluxControlNet(Flux):
    """The blocks of a `Flux`, which read a picture: its outputs are the residuals of a larger one.

    The outputs of its blocks leave through layers that begin at zero (Zhang et al. 2023).
    """

    @nn.compact
    def __call__(
        self, x: Array, t: Array, cond: Cond = None, train: bool = False
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """What is added after the blocks of two streams, and after those of one.

        Args:
          x: tokens (B, T, C), as `Flux` takes them, and likewise what follows.
          t: times (B,).
          cond: `image` (B, T, C'), tokens of the picture's latents, and what `Flux` takes.
          train: no effect.
        """
        width = self.heads * self.head_width
        picture = needed(cond, "image", "a FLUX ControlNet")
        if picture.shape[:2] != x.shape[:2]:
            raise InputError(
                f"a FLUX ControlNet takes cond['image'] ({x.shape[0]}, {x.shape[1]}, C); got the "
                f"shape {picture.shape}. Encode the picture at the size of x."
            )
        zeros = {"kernel_init": nn.initializers.zeros}
        hint = dense(width, x.dtype, name="controlnet_x_embedder", **zeros)(picture)
        x = dense(width, x.dtype, name="x_embedder")(x) + hint
        _, _, outputs = self.blocks(x, t, cond, (), ())
        return tuple(
            tuple(dense(width, h.dtype, name=f"{kind}.{i}", **zeros)(h) for i, h in enumerate(own))
            for kind, own in zip(LEAVING, outputs, strict=True)
        )


LEAVING = ("controlnet_blocks", "controlnet_single_blocks")


def residuals_of(given: Sequence[Array], blocks: int, like: Array, scan: bool) -> Any:
    """What is added after each of so many blocks, as `inputs` of `repeat`; None where nothing is.

    Raises:
      InputError: more of them than blocks, or of another shape.
    """
    if not given:
        return None
    wrong = [residual.shape for residual in given if residual.shape != like.shape]
    if len(given) > blocks or wrong:
        raise InputError(
            f"this FLUX takes up to {blocks} residuals of the shape {like.shape} for these blocks; "
            f"got {len(given)}, one of {[*wrong, like.shape][0]}. Is the ControlNet one for it?"
        )
    every = math.ceil(blocks / len(given))
    each = [given[i // every] for i in range(blocks)]
    return jnp.stack(each) if scan else each


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
