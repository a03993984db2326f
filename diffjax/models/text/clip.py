"""CLIP's two towers: Radford et al. 2021, section 2.4. Layers have the published names."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from diffjax.errors import InputError
from diffjax.models.softmax import mask_bias
from diffjax.models.text.encoding import (
    EncoderBlock,
    Encoding,
    causal_bias,
    quick_gelu,
)
from diffjax.models.transformer import dense
from diffjax.types import Array

LEGACY_END = 2  # the end token that old files name, which is not theirs: the largest id is


class CLIPText(nn.Module):
    """The causal transformer over tokens; it reads the state at the end token.

    Attributes:
      vocabulary: number of tokens.
      length: the most tokens of a text.
      width: D.
      depth: number of blocks.
      heads: number of heads.
      hidden: width of the MLPs.
      activation: of the MLPs; `quick_gelu` in OpenAI's weights.
      projection: E of the projected vector; None is without.
      end: the end token's id; 2 stands for the largest id of each text.
      epsilon: of the norms.
    """

    vocabulary: int
    length: int
    width: int
    depth: int
    heads: int
    hidden: int
    activation: Callable[[Array], Array] = quick_gelu
    projection: int | None = None
    end: int = LEGACY_END
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, ids: Array, mask: Array | None = None) -> Encoding:
        """ids (B, L) int, mask (B, L) 1 at tokens and 0 at padding -> its states."""
        if ids.shape[1] > self.length:
            raise InputError(f"expected at most {self.length} tokens; got {ids.shape[1]}.")
        embed = nn.Embed(self.vocabulary, self.width, name="token_embedding")
        places = nn.Embed(self.length, self.width, name="position_embedding")
        x = embed(ids) + places(jnp.arange(ids.shape[1]))[None]
        bias, hidden = causal_bias(ids.shape[1]), [x]
        bias = bias if mask is None else bias + mask_bias(mask)
        for i in range(self.depth):
            kind = (self.heads, self.hidden, self.activation, self.epsilon)
            x = EncoderBlock(*kind, name=f"layers_{i}")(x, bias)
            hidden.append(x)
        last = nn.LayerNorm(self.epsilon, name="final_layer_norm")(x)
        pooled = last[jnp.arange(ids.shape[0]), end_of(ids, self.end)]
        embeds = None
        if self.projection:
            embeds = dense(self.projection, x.dtype, use_bias=False, name="text_projection")(pooled)
        return Encoding(last, hidden[-2], pooled, embeds, hidden=tuple(hidden))


def final_norm(params: Any, x: Array, epsilon: float = 1e-5) -> Array:
    """The last norm of a text tower on other states, as under diffusers' clip_skip.

    Args:
      params: of a `CLIPText`.
      x: states (B, L, D), such as `penultimate`.
      epsilon: of the norm.
    """
    return nn.LayerNorm(epsilon).apply({"params": params["final_layer_norm"]}, x)


def end_of(ids: Array, end: int) -> Array:
    """Where each text ends (B,): at its first `end`, or where `end` is 2 at its largest id."""
    return jnp.argmax(ids if end == LEGACY_END else ids == end, axis=1)


class CLIPVision(nn.Module):
    """The transformer over patches, with a class token first.

    Attributes:
      image: height and width of a picture.
      patch: of a patch.
      width: D.
      depth: number of blocks.
      heads: number of heads.
      hidden: width of the MLPs.
      activation: of the MLPs.
      projection: E of the projected vector; None is without.
      epsilon: of the norms.
    """

    image: int
    patch: int
    width: int
    depth: int
    heads: int
    hidden: int
    activation: Callable[[Array], Array] = quick_gelu
    projection: int | None = None
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, pixels: Array) -> Encoding:
        """Normalised pixels (B, H, W, C) -> states with the class token first."""
        x = patches_of(pixels, self.image, self.patch, self.width, False)
        first = self.param("class_embedding", nn.initializers.normal(0.02), (self.width,))
        first = jnp.broadcast_to(first[None, None], (x.shape[0], 1, self.width))
        x = jnp.concatenate([first, x], axis=1)
        places = nn.Embed(x.shape[1], self.width, name="position_embedding")
        x = x + places(jnp.arange(x.shape[1]))[None]
        x = nn.LayerNorm(self.epsilon, name="pre_layrnorm")(x)
        hidden = [x]
        for i in range(self.depth):
            kind = (self.heads, self.hidden, self.activation, self.epsilon)
            x = EncoderBlock(*kind, name=f"layers_{i}")(x, None)
            hidden.append(x)
        pooled = nn.LayerNorm(self.epsilon, name="post_layernorm")(x[:, 0])
        embeds = None
        if self.projection:
            layer = dense(self.projection, x.dtype, use_bias=False, name="visual_projection")
            embeds = layer(pooled)
        return Encoding(x, hidden[-2], pooled, image_embeds=embeds, hidden=tuple(hidden))


def patches_of(pixels: Array, image: int, patch: int, width: int, bias: bool) -> Array:
    """Patches (B, T, width) of pictures, row by row; called within a module.

    Raises:
      InputError: the pictures are of another size.
    """
    if pixels.ndim != 4 or pixels.shape[1:3] != (image, image):
        raise InputError(f"expected pixels (B, {image}, {image}, C); got shape {pixels.shape}.")
    layer = nn.Conv(width, (patch, patch), patch, "VALID", use_bias=bias, name="patch_embedding")
    x = layer(pixels)
    return x.reshape(x.shape[0], -1, width)


class CLIPModel(nn.Module):
    """Both towers, and how alike a picture and a text are.

    Attributes:
      text: makes the text tower.
      vision: makes the vision tower.
    """

    text: Callable[..., CLIPText]
    vision: Callable[..., CLIPVision]

    @nn.compact
    def __call__(self, ids: Array, pixels: Array, mask: Array | None = None) -> Array:
        """exp(scale) times the cosines (pictures, texts) of the two projected vectors."""
        texts = unit(self.text(name="text_model")(ids, mask).text_embeds)
        pictures = unit(self.vision(name="vision_model")(pixels).image_embeds)
        scale = self.param("logit_scale", nn.initializers.constant(2.6592), ())
        return jnp.exp(scale) * pictures @ texts.T


def unit(x: Array) -> Array:
    """x over its length."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
