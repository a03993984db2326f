"""A prompt as a condition: its raw arrays, its negative as the null, and its flags."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from diffjax.conditioning import Condition
from diffjax.errors import InputError
from diffjax.pretrained.pipeline import Pipeline
from diffjax.pretrained.prompts import prompts_of
from diffjax.pretrained.reading import Reader


def raw_prompts(
    reader: Reader,
    extra: Mapping[str, np.ndarray],
    prompts: Sequence[str],
    negatives: Sequence[str] | None = None,
    chunked: bool = False,
    weighted: bool = False,
) -> dict[str, np.ndarray]:
    """The raw arrays of prompts, and of the negatives that guidance leads away from.

    Args:
      reader: how the system reads texts.
      extra: name -> raw value of every sample.
      prompts: B texts.
      negatives: B texts; None is the system's own null.
      chunked: whether a prompt of more tokens than CLIP takes is read in chunks; else it is cut.
      weighted: whether (word:1.2) is a weight of CLIP's states; else it is text.

    Returns:
      Arrays (B, ...) by name, those of the negatives as `null_` and the name.
    """
    fixed, num = {**reader.extra, **extra}, len(prompts)
    unwanted = [""] * num if negatives is None else negatives
    chunks = reader.chunks([*prompts, *unwanted], weighted) if chunked else 1

    def arrays(texts, constants):
        rows = {name: np.broadcast_to(a, (num, *np.shape(a))) for name, a in constants.items()}
        return {**reader.tokenize(texts, chunks, weighted), **rows}

    without = {} if negatives is not None else reader.null
    nulls = arrays(unwanted, {**fixed, **without, **reader.off})
    return arrays(prompts, fixed) | {f"null_{name}": array for name, array in nulls.items()}


def no_reader(pipeline: Pipeline, denoiser: dict[str, Any], length: int | None) -> Reader:
    """The reader of a folder without text encoders, which refuses every prompt."""

    def refuse(texts, chunks, weighted):
        raise InputError(
            f"{pipeline.folder} has no text encoder, so that it cannot read a prompt; add its "
            "text_encoder and tokenizer folders, or give embeddings from Python."
        )

    return Reader(refuse, lambda frozen, raw: {}, {})


def prompt(reader: Reader, extra: Mapping[str, np.ndarray]) -> Condition:
    """A prompt, with a negative one in place of its null. Arguments as for `raw_prompts`."""

    def flags(
        num: int,
        prompt: str = "",
        negative_prompt: str | None = None,
        long_prompts: Literal["cut", "chunks"] = "cut",
        weighted: bool = True,
    ):
        """Flags.

        Args:
          num: number of samples.
          prompt: text that is drawn, or @FILE of one prompt a line, taken in turn.
          negative_prompt: what guidance leads away from, likewise; default nothing.
          long_prompts: of a prompt of more tokens than the encoder takes, cut the end, or read it
            in chunks (CLIP alone).
          weighted: whether (word:1.2) is a weight of CLIP's states.
        """
        wanted = prompts_of("--prompt", prompt, num)
        unwanted = None
        if negative_prompt is not None:
            unwanted = prompts_of("--negative-prompt", negative_prompt, num)
        return raw_prompts(reader, extra, wanted, unwanted, long_prompts == "chunks", weighted)

    if not reader.parts:
        return Condition({}, None, flags)
    one = {name: array[0] for name, array in raw_prompts(reader, extra, [""]).items()}
    null = {name: one[f"null_{name}"] for name in one if f"null_{name}" in one}
    example = {name: jax.ShapeDtypeStruct(one[name].shape, one[name].dtype) for name in null}
    return Condition(example, null, flags, reader.encode, own=tuple(reader.parts))
