"""How systems read a prompt: its tokens on the host, and what the network is given of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffjax.conditioning import Raw
from diffjax.models.layers import sinusoidal_embedding
from diffjax.models.text.encoding import Encoding
from diffjax.pretrained.architecture import Encoder
from diffjax.pretrained.pipeline import Part, Pipeline, open_part, open_tokenizer
from diffjax.pretrained.prompts import chunks_of, clip_rows, masked_rows
from diffjax.pretrained.tokenizer import Tokenizer
from diffjax.types import Array, PyTree

Frozen = Mapping[str, PyTree]


class Reader(NamedTuple):
    """How a system reads a prompt.

    Attributes:
      tokenize: (prompts, chunks, weighted) -> raw arrays by name, the prompts first.
      encode: (frozen, raw) -> the arrays that the network is given.
      parts: the text encoders by name, to be loaded into `frozen`.
      chunks: (prompts, weighted) -> chunks that the longest needs; 1 where there are none.
      extra: name -> further raw values of one sample that are no text.
      null: those of `extra` that are others where no negative prompt is given.
      off: those of `extra` that are others in every null.
    """

    tokenize: Callable[[Sequence[str], int, bool], Raw]
    encode: Callable[[Frozen, Raw], dict[str, Array]]
    parts: Mapping[str, Part]
    chunks: Callable[[Sequence[str], bool], int] = lambda texts, weighted: 1
    extra: Mapping[str, np.ndarray] = {}
    null: Mapping[str, np.ndarray] = {}
    off: Mapping[str, np.ndarray] = {}


class Tower(NamedTuple):
    """A text encoder with its tokenizer.

    Attributes:
      name: of the part; its raw arrays begin with it.
      part: the encoder.
      tokenizer: text to ids.
    """

    name: str
    part: Part
    tokenizer: Tokenizer


def tower(pipeline: Pipeline, suffix: str = "") -> Tower:
    """The text encoder and the tokenizer of one suffix: "", "_2" or "_3"."""
    name = f"text_encoder{suffix}"
    part = open_part(pipeline, name)
    assert isinstance(part.network, Encoder)
    return Tower(name, part, open_tokenizer(pipeline, f"tokenizer{suffix}"))


# --- one tower --------------------------------------------------------------------------


def clip_tokens(clip: Tower, texts: Sequence[str], chunks: int, weighted: bool) -> Raw:
    """The tokens and weights of prompts under the tower's names."""
    ids, weights = clip_rows(clip.tokenizer, texts, chunks, weighted)
    return {f"{clip.name}_ids": ids, f"{clip.name}_weights": weights}


def clip_states(clip: Tower, frozen: Frozen, raw: Raw) -> tuple[Encoding, Array]:
    """What a CLIP tower says of each chunk (B C, ...), and the tokens' weights (B, C L)."""
    ids, weights = jnp.asarray(raw[f"{clip.name}_ids"]), raw[f"{clip.name}_weights"]
    out = clip.part.network.encode(frozen[clip.name], ids.reshape(-1, ids.shape[-1]))
    return out, jnp.asarray(weights).reshape(weights.shape[0], -1)


def joined(states: Array, weights: Array) -> Array:
    """States (B C, L, D) as one text (B, C L, D), each times its weight and the mean as before."""
    batch = weights.shape[0]
    states = states.reshape(batch, -1, states.shape[-1])
    heavy = states * weights[:, :, None]
    before, after = (jnp.mean(x, axis=(1, 2), keepdims=True) for x in (states, heavy))
    plain = jnp.all(weights == 1, axis=1)[:, None, None]
    return jnp.where(plain, states, heavy * (before / jnp.where(after == 0, 1, after)))


def first_chunk(vectors: Array, weights: Array) -> Array:
    """The vector of each text's first chunk: (B C, D) -> (B, D)."""
    return vectors.reshape(weights.shape[0], -1, vectors.shape[-1])[:, 0]


def masked_tokens(t5: Tower, texts: Sequence[str], length: int) -> Raw:
    """The tokens and the mask of prompts under the tower's names."""
    ids, mask = masked_rows(t5.tokenizer, texts, length)
    return {f"{t5.name}_ids": ids, f"{t5.name}_mask": mask}


def t5_states(t5: Tower, frozen: Frozen, raw: Raw, mask: Array | None = None) -> Array:
    """T5's last states (B, L, D)."""
    ids = jnp.asarray(raw[f"{t5.name}_ids"])
    return t5.part.network.encode(frozen[t5.name], ids, mask).last


# --- whole systems ----------------------------------------------------------------------


def sd_reader(pipeline: Pipeline, denoiser: dict[str, Any], length: int | None) -> Reader:
    """Stable Diffusion 1 and 2: the last states of one CLIP tower."""
    clip = tower(pipeline)

    def encode(frozen, raw):
        out, weights = clip_states(clip, frozen, raw)
        return {"tokens": joined(out.last, weights)}

    return Reader(
        lambda texts, chunks, weighted: clip_tokens(clip, texts, chunks, weighted),
        encode,
        {clip.name: clip.part},
        lambda texts, weighted: chunks_of(clip.tokenizer, texts, weighted),
    )


def sdxl_reader(pipeline: Pipeline, denoiser: dict[str, Any], length: int | None) -> Reader:
    """Stable Diffusion XL: two towers' penultimate states, a pooled vector, and sizes.

    `text_given` is 0 where the tokens and the vector are zeros, as for no negative prompt.
    """
    towers = tower(pipeline), tower(pipeline, "_2")
    size = denoiser["addition_time_embed_dim"]

    def encode(frozen, raw):
        (one, weights), (two, weights_2) = (clip_states(clip, frozen, raw) for clip in towers)
        given = jnp.asarray(raw["text_given"])[:, None]
        states = [joined(one.penultimate, weights), joined(two.penultimate, weights_2)]
        numbers = jnp.asarray(raw["time_ids"], jnp.float32)
        waves = sinusoidal_embedding(numbers.reshape(-1), size).reshape(numbers.shape[0], -1)
        pooled = given * first_chunk(two.text_embeds, weights_2)
        tokens = given[:, :, None] * jnp.concatenate(states, axis=-1)
        return {"tokens": tokens, "vector": jnp.concatenate([pooled, waves], axis=1)}

    zeros = pipeline.settings.get("force_zeros_for_empty_prompt", True)
    null = {"text_given": np.float32(0)} if zeros else {}
    return Reader(*two_towers(towers, encode), extra={"text_given": np.float32(1)}, null=null)


def two_towers(towers: Sequence[Tower], encode: Callable) -> tuple:
    """The first fields of a `Reader` of several CLIP towers of one vocabulary."""

    def tokenize(texts, chunks, weighted):
        found = [clip_tokens(clip, texts, chunks, weighted) for clip in towers]
        return {name: array for raw in found for name, array in raw.items()}

    def chunks(texts, weighted):
        return max(chunks_of(clip.tokenizer, texts, weighted) for clip in towers)

    return tokenize, encode, {clip.name: clip.part for clip in towers}, chunks


def sd3_reader(pipeline: Pipeline, denoiser: dict[str, Any], length: int | None) -> Reader:
    """Stable Diffusion 3: two CLIP towers padded to T5's width, T5 after them, two vectors.

    In a folder without T5 its states are zeros, as many as CLIP's tokens.
    """
    towers, length = (tower(pipeline), tower(pipeline, "_2")), length or 256
    t5 = tower(pipeline, "_3") if "text_encoder_3" in pipeline.classes else None

    def encode(frozen, raw):
        found = [clip_states(clip, frozen, raw) for clip in towers]
        states = [joined(out.penultimate, weights) for out, weights in found]
        vectors = [first_chunk(out.text_embeds, weights) for out, weights in found]
        clip = jnp.concatenate(states, axis=-1)
        wide = denoiser["joint_attention_dim"] - clip.shape[-1]
        clip = jnp.pad(clip, ((0, 0), (0, 0), (0, wide)))
        text = jnp.zeros_like(clip) if t5 is None else t5_states(t5, frozen, raw)
        tokens = jnp.concatenate([clip, text], axis=1)
        return {"tokens": tokens, "vector": jnp.concatenate(vectors, axis=-1)}

    tokenize, *rest = two_towers(towers, encode)
    if t5 is None:
        return Reader(tokenize, *rest)
    return Reader(*with_t5(tokenize, rest, t5, length))


def flux_reader(pipeline: Pipeline, denoiser: dict[str, Any], length: int | None) -> Reader:
    """FLUX: CLIP's pooled vector, and T5's last states without a mask."""
    clip, t5, length = tower(pipeline), tower(pipeline, "_2"), length or 512

    def encode(frozen, raw):
        out, weights = clip_states(clip, frozen, raw)
        text = t5_states(t5, frozen, raw)
        return {"tokens": text, "vector": first_chunk(out.pooled, weights)}

    tokenize, *rest = two_towers([clip], encode)
    return Reader(*with_t5(tokenize, rest, t5, length))


def with_t5(tokenize: Callable, rest: list, t5: Tower, length: int) -> tuple:
    """The first fields of a `Reader` of CLIP towers and of T5, which takes a text in one."""

    def both(texts, chunks, weighted):
        ids, _ = masked_rows(t5.tokenizer, texts, length)
        return {**tokenize(texts, 1, False), f"{t5.name}_ids": ids}

    encode, parts, _ = rest
    return both, encode, {**parts, t5.name: t5.part}


def pixart_reader(pipeline: Pipeline, denoiser: dict[str, Any], length: int | None) -> Reader:
    """PixArt: T5's last states with their mask; a prompt is taken in lower case."""
    t5 = tower(pipeline)
    length = length or (300 if pipeline.kind == "PixArtSigmaPipeline" else 120)

    def tokenize(texts, chunks, weighted):
        return masked_tokens(t5, [text.lower().strip() for text in texts], length)

    def encode(frozen, raw):
        mask = jnp.asarray(raw[f"{t5.name}_mask"])
        return {"tokens": t5_states(t5, frozen, raw, mask), "token_mask": mask.astype(jnp.float32)}

    return Reader(tokenize, encode, {t5.name: t5.part})
