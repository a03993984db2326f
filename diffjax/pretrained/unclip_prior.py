"""unCLIP's prior as a condition: a picture's embedding, drawn for a prompt before the picture."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.conditioning import Condition, Raw
from diffjax.diffusion import sample_keys
from diffjax.guidance import classifier_free
from diffjax.parameterization import make_denoiser
from diffjax.pretrained.architecture import Pretrained
from diffjax.pretrained.beside import own_key, start_and_noise
from diffjax.pretrained.pipeline import Part
from diffjax.pretrained.prompts import masked_rows, prompts_of
from diffjax.pretrained.reading import Tower
from diffjax.samplers import sample
from diffjax.types import Array, Cond, Params, PyTree

STEPS, SCALE = 25, 4.0
PART = "prior"


def text_of(clip: Tower, frozen: Mapping[str, PyTree], ids: Any, mask: Any) -> dict[str, Array]:
    """What the prior reads of texts: `tokens` (B, L, D), `vector` (B, D) and `token_mask` (B, L).

    Their encoder sees the padding too.

    Args:
      clip: the text encoder.
      frozen: its parameters, by name.
      ids: tokens (B, L).
      mask: 1 at the text's tokens.
    """
    out = clip.part.network.encode(frozen[clip.name], jnp.asarray(ids), None)
    given = jnp.asarray(mask).astype(jnp.float32)
    return {"tokens": out.last, "vector": out.text_embeds, "token_mask": given}


def draw_embedding(
    prior: Part, params: Params, cond: Cond, null: Cond, scale: Any, start: Array, noise: Array
) -> Array:
    """The embedding of a picture, drawn for a text: Ramesh et al. 2022, section 2.2.

    Args:
      prior: unCLIP's prior.
      params: its parameters.
      cond: from `text_of`.
      null: that of the texts that guidance leads away from.
      scale: of the guidance, a number or (B,).
      start: standard normal (B, D).
      noise: standard normal (steps, 1, B, D).

    Returns:
      (B, D), as CLIP makes them.
    """
    found = prior.network
    assert isinstance(found, Pretrained)
    usual = found.sampling
    denoiser = make_denoiser(found.network, params, found.schedule, found.parameterization)
    guided = usual.finish(classifier_free(denoiser, scale, null))
    ts = usual.grid(found.schedule, len(noise))
    sampler = usual.sampler(found.schedule, **usual.options)
    x = sample(jax.random.key(0), guided, sampler, start, ts, cond, noise=noise)
    return x * params["clip_std"] + params["clip_mean"]


def embedding(prior: Part, clip: Tower, width: int) -> Condition:
    """The embedding of a picture, kept under guidance, under the flag `--prior-guidance-scale`.

    Args:
      prior: unCLIP's prior.
      clip: the text encoder.
      width: D, of the embedding.

    Returns:
      The condition; its raw arrays are the tokens of the prompt and of what guidance leads away
      from, the scale, and a seed for each sample.
    """

    def flags(
        num: int,
        prompt: str = "",
        negative_prompt: str | None = None,
        prior_guidance_scale: float = SCALE,
        seed: int = 0,
    ):
        """Flags.

        Args:
          num: number of samples.
          prompt: text that is drawn.
          negative_prompt: what guidance leads away from.
          prior_guidance_scale: of the draw of the picture's embedding; 1 is no guidance.
          seed: of all draws.
        """
        texts = prompts_of("--prompt", prompt, num)
        unwanted = prompts_of("--negative-prompt", negative_prompt or "", num)
        keys = sample_keys(own_key(seed), num)
        seeds = jax.vmap(lambda key: jax.random.bits(key, dtype=jnp.uint32))(keys)
        scale = np.full(num, prior_guidance_scale, np.float32)
        return rows(clip, texts, unwanted) | {"prior_scale": scale, "prior_seed": np.asarray(seeds)}

    length = clip.tokenizer.length
    of = jax.ShapeDtypeStruct
    example = {name: of((length,), jnp.int32) for name in rows(clip, [], [])}
    example |= {"prior_scale": of((), jnp.float32), "prior_seed": of((), jnp.uint32)}
    return Condition(example, None, flags, drawn(prior, clip, width), own=(clip.name, PART))


def rows(clip: Tower, texts: Sequence[str], unwanted: Sequence[str]) -> Raw:
    """The tokens and masks of both kinds of texts."""
    found = {}
    for name, some in (("prior", texts), ("prior_null", unwanted)):
        ids, mask = masked_rows(clip.tokenizer, some, clip.tokenizer.length)
        found |= {f"{name}_ids": ids, f"{name}_mask": mask}
    return found


def drawn(prior: Part, clip: Tower, width: int) -> Callable:
    """The `encode` of `embedding`."""

    def encode(frozen: Mapping[str, PyTree], raw: Mapping[str, Any]) -> dict[str, Array]:
        cond, null = (
            text_of(clip, frozen, raw[f"{name}_ids"], raw[f"{name}_mask"])
            for name in ("prior", "prior_null")
        )
        keys = jax.vmap(jax.random.key)(jnp.asarray(raw["prior_seed"]))
        scale = jnp.asarray(raw["prior_scale"])
        own = (cond, null, scale, *start_and_noise(keys, STEPS, (width,)))
        return {"image_embedding": draw_embedding(prior, frozen[PART], *own)}

    return encode
