"""unCLIP (Ramesh et al. 2022), whole, as diffusers publishes it: prior, decoder and enlargement."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.experiment import Model, Sampling, classifier_free
from diffjax.media import decoded
from diffjax.models.layers import Dtype
from diffjax.parameterization import make_denoiser
from diffjax.pretrained.architecture import Module, Pretrained
from diffjax.pretrained.assembling import Opened, System
from diffjax.pretrained.latents import prior_of
from diffjax.pretrained.pipeline import Part, Pipeline, open_part
from diffjax.pretrained.precision import computing, stored
from diffjax.pretrained.prompt_condition import prompt, raw_prompts
from diffjax.pretrained.reading import Reader, Tower, masked_tokens, tower
from diffjax.pretrained.scheduler import KEY as SCHEDULER
from diffjax.pretrained.unclip_enlarging import PARTS as LARGER
from diffjax.pretrained.unclip_enlarging import enlarging
from diffjax.pretrained.unclip_prior import PART as PRIOR
from diffjax.pretrained.unclip_prior import embedding, text_of
from diffjax.types import Network


def open_unclip(
    pipeline: Pipeline,
    system: System,
    asked: tuple[int | None, int | None],
    dtype: Dtype = jnp.float32,
) -> Opened:
    """unCLIP by its configurations; no weight is read. The decoder's picture is x.

    Args:
      pipeline: from `read_pipeline`.
      system: its kind.
      asked: (H, W) in pixels; None is what it was trained on.
      dtype: of the weights, and of the decoder's computation.

    Returns:
      The system.

    Raises:
      InputError: a part that is not known or does not fit the others, or another size.
    """
    clip, text_proj = tower(pipeline), open_part(pipeline, "text_proj")
    decoder = computing(open_part(pipeline, "decoder", "decoder_scheduler"), dtype)
    prior = open_part(pipeline, PRIOR, "prior_scheduler")
    larger = [open_part(pipeline, name, "super_res_scheduler") for name in LARGER]
    check_widths(pipeline, clip, prior, text_proj, decoder)
    small, large = sizes(pipeline, decoder, larger, asked)
    reader = text_reader(clip)
    parts = {clip.name: clip.part, PRIOR: prior, **dict(zip(LARGER, larger, strict=True))}
    own = {"decoder": decoder.leaves, "text_proj": text_proj.leaves}
    leaves = stored(lambda: {name: load() for name, load in own.items()}, dtype)
    model = drawing(decoder, text_proj, small, system.guidance_scale)._replace(
        init=lambda key: jax.tree.map(np.asarray, leaves()),
        conditions=(prompt(reader, {}), embedding(prior, clip, prior.network.module.channels)),
        codec=decoded(partial(no_encoder, pipeline), enlarging(larger, large)),
        frozen={name: stored(part.leaves, dtype) for name, part in parts.items()},
    )
    raw, usual = partial(raw_prompts, reader, {}), decoder.network.sampling
    return Opened(model, leaves, raw, None, decoder.config[SCHEDULER], usual.start_std)


def drawing(decoder: Part, text_proj: Part, shape: tuple[int, int, int], scale: float) -> Model:
    """The model of the decoder alone, whose pictures have a shape (h, w, C)."""
    found = decoder.network
    assert isinstance(found, Pretrained)
    network, usual = told(text_proj, found.network), found.sampling

    def denoiser(params):
        return make_denoiser(network, params, found.schedule, found.parameterization)

    steps = usual.sampler, usual.grid, usual.steps
    return Model(
        init=lambda key: {},
        denoiser=denoiser,
        example=jax.ShapeDtypeStruct(shape, jnp.float32),
        schedule=found.schedule,
        guide=classifier_free,
        finish=usual.finish,
        prior=prior_of(usual),
        sampling=Sampling(*steps, scale, options=usual.options, num=1, batch_size=4),
    )


def text_reader(clip: Tower) -> Reader:
    """How the decoder reads a prompt; `image_given` is 0 where a learned embedding is in its place.

    That is so in every null, whatever its text.
    """

    def tokenize(texts, chunks, weighted):
        return masked_tokens(clip, texts, clip.tokenizer.length)

    def encode(frozen, raw):
        names = f"{clip.name}_ids", f"{clip.name}_mask"
        text = text_of(clip, frozen, *(raw[name] for name in names))
        given = jnp.asarray(raw["image_given"])
        states = {"text_states": text["tokens"], "text_vector": text["vector"]}
        return {**states, "token_mask": text["token_mask"], "image_given": given}

    extra, off = {"image_given": np.float32(1)}, {"image_given": np.float32(0)}
    return Reader(tokenize, encode, {clip.name: clip.part}, extra=extra, off=off)


def told(text_proj: Part, decoder: Network) -> Network:
    """The decoder under an embedding and a text, of the parameters {"decoder", "text_proj"}."""
    context = text_proj.network
    assert isinstance(context, Module)
    extra = text_proj.config.get("clip_extra_context_tokens", 4)

    def network(params, x, t, cond, key):
        names = ("image_embedding", "image_given", "text_vector", "text_states")
        given = (cond[name] for name in names)
        tokens, both = context.network(params["text_proj"], *given)
        mask = jnp.pad(cond["token_mask"], ((0, 0), (extra, 0)), constant_values=1)
        own = {"tokens": tokens, "token_mask": mask, "embedding": both}
        return decoder(params["decoder"], x, t, own, key)

    return network


def no_encoder(pipeline: Pipeline, frozen: Any, x: Any):
    """Refuse a picture to begin from.

    Raises:
      InputError: always.
    """
    raise InputError(f"{pipeline.folder} is an unCLIP, which draws from text alone.")


def sizes(
    pipeline: Pipeline, decoder: Part, larger: list[Part], asked: tuple[int | None, int | None]
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(h, w, 3) of the decoder's pictures, and (H, W, 3) of the enlarged ones.

    Raises:
      InputError: another size is asked for, or a network says none or takes other channels.
    """
    found = []
    for name, part, wanted in zip(("decoder", *LARGER), (decoder, *larger), (3, 6, 6), strict=True):
        takes, side = part.config.get("in_channels"), part.config.get("sample_size")
        if takes != wanted or not isinstance(side, int):
            raise InputError(
                f"the {name} of {pipeline.folder} takes {takes} channels of pictures of size "
                f"{side}; expected {wanted}, and a number as its sample_size."
            )
        found.append((side, side, 3))
    small, large, _ = found
    for flag, size in zip(("--height", "--width"), asked, strict=True):
        if size not in (None, large[0]):
            raise InputError(
                f"{pipeline.folder} draws {large[0]} x {large[1]} pixels; got {flag} {size}."
            )
    return small, large


def check_widths(pipeline: Pipeline, clip: Tower, prior: Part, text: Part, decoder: Part) -> None:
    """Refuse parts of other widths than those that read them.

    Raises:
      InputError: names both and their widths.
    """
    module: Any = clip.part.network.module
    embeds, context = prior.network.module.channels, text.network.module
    of_text, unet = text.config.get("clip_embeddings_dim", 768), decoder.network.module
    time = unet.embedding_channels or 4 * unet.channels
    tokens = decoder.config.get("cross_attention_dim", 1280)
    for what, makes, reader, reads in (
        ("the text encoder's states", module.width, "the prior", embeds),
        ("the text encoder's vectors", module.projection, "the prior", embeds),
        ("the prior's embeddings", embeds, "text_proj", of_text),
        ("text_proj's tokens", context.width, "the decoder", tokens),
        ("text_proj's time embedding", context.embedding, "the decoder", time),
    ):
        if makes != reads:
            raise InputError(
                f"{pipeline.folder}: {what} are of width {makes}; {reader} reads {reads}."
            )
