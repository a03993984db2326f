"""A new word for a text encoder, learned from a few pictures: textual inversion, Gal et al. 2023.

The word is `*`: of the frozen encoder's table of input embeddings its row alone is trained, and
the base network stays as it is. The encoder runs within the step, and in every call of a draw.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import data
from diffjax.conditioning import Condition, text
from diffjax.errors import InputError
from diffjax.experiment import Experiment
from diffjax.pretrained.load import leaves_of
from diffjax.pretrained.tokenizer import load_tokenizer, tokenize
from diffjax.recipe.dreambooth import pictures_of
from diffjax.recipe.text import MINILM, open_encoder, text_arrays, tokenizer_folder
from diffjax.recipe.training import Training
from diffjax.run.weights import from_run
from diffjax.run.workdir import load_experiment, read_record
from diffjax.types import Array, Cond, Params

WORD = "*"


class Words(NamedTuple):
    """A text encoder one of whose words is learned.

    Attributes:
      tokens: texts -> {"ids", "mask"}, each (B, L).
      encode: (parameters, ids, mask) -> tokens, token_mask and vector.
      load: () -> its parameters.
      row: in the table of input embeddings, of the word.
      first: row of the word that it begins as.
      width: of a row.
    """

    tokens: Callable[[Sequence[str]], dict[str, np.ndarray]]
    encode: Callable[..., Mapping[str, Array]]
    load: Callable[[], Params]
    row: int
    first: int
    width: int


def words_of(encoder: str, length: int, first: str) -> Words:
    """The encoder of a run by caption, as its flags --text and --text-length name it.

    Args:
      encoder: minilm, or a folder.
      length: tokens of a text.
      first: word that the new one begins as.

    Raises:
      InputError: a word is not one token of the encoder, or its table is not known.
    """
    folder, opened, network = open_encoder(encoder)
    tokenizer = load_tokenizer(tokenizer_folder(folder))

    def tokens(texts):
        ids, mask = tokenize(tokenizer, texts, length)
        return {"ids": ids, "mask": mask}

    def one(word):
        ids, mask = (tokens([word])[name][0] for name in ("ids", "mask"))
        bare = tokens([""])["mask"][0].sum()
        if mask.sum() != bare + 1:
            raise InputError(f"{word!r} is not one token of the text encoder; give another word.")
        return int(ids[bare // 2])

    if "word_embeddings" not in opened.like:
        raise InputError(f"textual inversion knows the table of BERT, such as {MINILM}'s, only.")
    width = opened.like["word_embeddings"]["embedding"].shape[1]

    def encode(params, ids, mask):
        return text_arrays(network.encode, params, ids, mask)

    def load():
        return jax.tree.map(np.asarray, leaves_of(opened))

    return Words(tokens, encode, load, one(WORD), one(first), width)


def with_word(params: Params, row: int, vector: Array) -> Params:
    """The encoder's parameters with a vector as one row of its input embeddings."""
    table = jnp.asarray(params["word_embeddings"]["embedding"]).at[row].set(vector)
    return {**params, "word_embeddings": {"embedding": table}}


def read_by(words: Words, base: Condition) -> Callable[[Params, Params, Mapping[str, Array]], Cond]:
    """(encoder, vector of the word, {"ids", "mask"}) -> the arrays of the base's condition.

    A text of no token is the base's null.
    """

    def arrays(encoder, vector, raw):
        asked = raw["mask"].sum(1) > 0
        mask = raw["mask"].at[:, 0].set(1)  # attention wants a token
        found = words.encode(with_word(encoder, words.row, vector), raw["ids"], mask)

        def chosen(name):
            null = jnp.asarray(base.null[name], jnp.float32)[None]
            return jnp.where(asked.reshape(-1, *(1,) * (null.ndim - 1)), found[name], null)

        return {name: chosen(name) for name in base.example}

    return arrays


def of_word(words: Words, length: int) -> Condition:
    """A prompt as ids and mask, whose null has no token."""
    like = jax.ShapeDtypeStruct((length,), jnp.int32)
    condition = text("prompt", {"ids": like, "mask": like}, words.tokens)
    return condition._replace(null={name: np.zeros(length, np.int32) for name in ("ids", "mask")})


def with_new_word(
    workdir: str | Path, train: Training, pictures: str | Path, prompts: Sequence[str], first: str
) -> Experiment:
    """The experiment of a run by caption, of which one word's embedding is trained.

    Args:
      workdir: of the base, by caption alone, read by a BERT such as MiniLM.
      train: from `recipe.cosine_adam` and the like.
      pictures: a folder of the subject's pictures.
      prompts: texts with the word `*`, given to the pictures in turn.
      first: word that it begins as.

    Returns:
      The experiment; its prompts may have `*`.

    Raises:
      InputError: the base is no run by caption, or a word is not one token.
    """
    base, trained = load_experiment(workdir), from_run(workdir)
    options = read_record(workdir)["options"]
    if "text" not in options or len(base.model.conditions) != 1:
        raise InputError(f"{workdir} is not asked by a caption alone; give a run by caption.")
    length = options["text_length"]
    words = words_of(options["text"], length, first)
    arrays, model = read_by(words, base.model.conditions[0]), base.model

    def whole(params, frozen):
        of_base = model.whole(frozen["base"], frozen)
        return {"base": of_base, "encoder": frozen["encoder"], "word": params["word"]}

    def denoiser(params):
        of_base = model.denoiser(params["base"])
        return lambda x, t, cond: of_base(x, t, arrays(params["encoder"], params["word"], cond))

    def loss(frozen):
        def of_word(params, key, batch, **context):
            found = arrays(frozen["encoder"], params["word"], batch)
            return base.loss(frozen)(frozen["base"], key, {"x": batch["x"], **found}, **context)

        return of_word

    def start(params, frozen):
        return {"word": frozen["encoder"]["word_embeddings"]["embedding"][words.first]}, {}

    def source():
        x = pictures_of(pictures, model)
        rows = np.resize(np.arange(len(prompts)), len(x) * len(prompts))
        raw = {name: a[rows] for name, a in words.tokens(prompts).items()}
        return data.Source(data.Arrays(x=np.repeat(x, len(prompts), 0), **raw), x.shape[1:], 0)

    changed: dict[str, Any] = {
        "init": lambda key: {"word": jnp.zeros(words.width)},
        "denoiser": denoiser,
        "whole": whole,
        "conditions": (of_word(words, length),),
        "frozen": {**model.frozen, "base": trained.load, "encoder": words.load},
    }
    return base._replace(
        model=model._replace(**changed), loss=loss, source=source, start=start, augment=(),
        **train._asdict(),
    )  # fmt: skip
