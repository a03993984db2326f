"""Prompts on the host: from a flag or a file, with weights, in chunks, as a batch of tokens."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffjax.errors import InputError, sentence
from diffjax.pretrained.tokenizer import Tokenizer, tokenize

Pieces = Sequence[tuple[str, float]]
"""A prompt as texts, each with its weight."""

WEIGHTED = re.compile(r"\(([^()]+):\s*([0-9]*\.?[0-9]+)\s*\)")
"""(word:1.2); other brackets are text."""


def read_prompts(text: str) -> list[str]:
    """The prompts of a flag: one text, or for @FILE its lines that are not empty.

    Raises:
      InputError: the file cannot be read, or holds no prompt.
    """
    if not text.startswith("@"):
        return [text]
    path = Path(text[1:])
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the prompts {text} cannot be read as UTF-8: {sentence(error)}"
        ) from error
    lines = [line for line in lines if line]
    if not lines:
        raise InputError(f"{path} has no prompt; write one on each line.")
    return lines


def prompts_of(flag: str, text: str, num: int) -> list[str]:
    """`num` prompts: those of a flag, begun again where there are fewer.

    Raises:
      InputError: there are more than samples, or the file cannot be read.
    """
    found = read_prompts(text)
    if len(found) > num:
        raise InputError(
            f"{flag} has {len(found)} prompts for {num} samples; give --num {len(found)} or more."
        )
    return [found[i % len(found)] for i in range(num)]


def pieces_of(prompt: str, weighted: bool = True) -> Pieces:
    """The texts of a prompt with their weights: "a (red:1.2) fox" has three.

    Args:
      prompt: any text.
      weighted: False takes brackets as text.
    """
    if not weighted:
        return [(prompt, 1.0)]
    parts = WEIGHTED.split(prompt)  # text, word, weight, text, ...
    plain = [(text, 1.0) for text in parts[::3]]
    heavy = [(word, float(weight)) for word, weight in zip(parts[1::3], parts[2::3], strict=True)]
    mixed = [piece for pair in zip(plain, [*heavy, ("", 1.0)], strict=True) for piece in pair]
    return [(text, weight) for text, weight in mixed if text.strip()]


def clip_rows(
    tokenizer: Tokenizer, texts: Sequence[str], chunks: int = 1, weighted: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of prompts in chunks, each with start and end, and their weights.

    Args:
      tokenizer: of a CLIP tower of L tokens.
      texts: B prompts.
      chunks: C; of a prompt that is longer than C (L - 2) tokens the rest is cut.
      weighted: whether (word:1.2) is a weight.

    Returns:
      (ids (B, C, L) int32, weights (B, C, L) float32, 1 at start, end and padding).
    """
    room, (start, end) = tokenizer.length - 2, tokenizer.encode("")
    ids = np.full((len(texts), chunks, tokenizer.length), tokenizer.pad, np.int32)
    weights = np.ones(ids.shape, np.float32)
    for row, text in enumerate(texts):
        tokens, heavy = tokens_of(tokenizer, text, weighted)
        for chunk in range(chunks):
            part = slice(chunk * room, (chunk + 1) * room)
            found = [start, *tokens[part], end]
            ids[row, chunk, : len(found)] = found
            weights[row, chunk, 1 : len(found) - 1] = heavy[part]
    return ids, weights


def tokens_of(tokenizer: Tokenizer, text: str, weighted: bool) -> tuple[list[int], list[float]]:
    """The tokens of a prompt without start and end, and the weight of each."""
    tokens, weights = [], []
    for piece, weight in pieces_of(text, weighted):
        found = tokenizer.encode(piece)[1:-1]
        tokens += found
        weights += [weight] * len(found)
    return tokens, weights


def chunks_of(tokenizer: Tokenizer, texts: Sequence[str], weighted: bool = False) -> int:
    """Chunks that the longest of the prompts needs, at least 1."""
    longest = max(len(tokens_of(tokenizer, text, weighted)[0]) for text in texts)
    return max(1, -(-longest // (tokenizer.length - 2)))


def masked_rows(
    tokenizer: Tokenizer, texts: Sequence[str], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of prompts (B, length) int32 and their mask, of encoders other than CLIP."""
    return tokenize(tokenizer, texts, length)
