"""Captions encoded once: a table of embeddings beside the data, looked up in every batch."""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.atomic import atomic_write
from diffjax.data.augment import Augmentation, Example
from diffjax.data.emoji import one_caption
from diffjax.data.source import Examples, Source
from diffjax.errors import InputError

ARRAYS = ("tokens", "token_mask", "vector")


class Table(NamedTuple):
    """Embeddings of distinct texts.

    Attributes:
      row: text -> its row.
      starts: (N + 1,), where each text's tokens begin in `tokens`.
      tokens: (tokens of all texts, D) float16, without padding.
      vector: (N, V) float16.
      length: L, of a text's tokens with their padding.
    """

    row: Mapping[str, int]
    starts: np.ndarray
    tokens: np.ndarray
    vector: np.ndarray
    length: int

    def arrays(self, text: str, names: Sequence[str] = ARRAYS) -> dict[str, np.ndarray]:
        """Of `tokens` (L, D), `token_mask` (L,) and `vector` (V,) those asked for, float32."""
        i = self.row[text]
        vector = {"vector": self.vector[i].astype(np.float32)}
        if "tokens" not in names:
            return vector
        found = self.tokens[self.starts[i] : self.starts[i + 1]]
        tokens = np.zeros((self.length, self.tokens.shape[1]), np.float32)
        tokens[: len(found)] = found
        mask = (np.arange(self.length) < len(found)).astype(np.float32)
        found = {"tokens": tokens, "token_mask": mask, **vector}
        return {name: found[name] for name in names}


class _Embedded:
    """Examples with the arrays of their caption."""

    def __init__(self, examples: Examples, table: Table, names: Sequence[str]):
        self.examples, self.table, self.names = examples, table, names

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        example = self.examples[index]
        return example | self.table.arrays(str(example["caption"]), self.names)


def embedded(
    make: Callable[[], Source], encoder: Any, folder: str | Path, names: Sequence[str] = ARRAYS
) -> tuple[Callable[[], Source], Augmentation]:
    """A source of captions with their embeddings, and the augmentation that draws among forms.

    Args:
      make: () -> a source with `caption`, and perhaps `captions`, forms of it.
      encoder: with `encode` and `fingerprint`, such as a `recipe.TextEncoder`.
      folder: where the table is kept, under the fingerprint of the encoder and the captions.
      names: of the arrays that examples have.

    Returns:
      (() -> the source, whose examples have the arrays of `caption`; the augmentation, which draws
      one of `captions` and looks it up). Each distinct caption is encoded once, when the source is
      first made.
    """

    @functools.cache
    def loaded():
        source = make()
        return source, read_table(texts_of(source.examples), encoder, Path(folder))

    def of_source():
        source, table = loaded()
        return source._replace(examples=_Embedded(source.examples, table, names))

    def draw(example, rng):
        example = one_caption(example, rng) if "captions" in example else example
        return example | loaded()[1].arrays(str(example["caption"]), names)

    return of_source, draw


def texts_of(examples: Examples) -> list[str]:
    """Every distinct caption in all its forms, sorted.

    Raises:
      InputError: the examples have no captions.
    """
    if "caption" not in examples[0]:
        raise InputError(
            f"expected a source with captions; it has {', '.join(sorted(examples[0]))}."
        )
    held = getattr(examples, "arrays", {})
    rows = range(len(examples)) if "caption" not in held else ()
    found = {str(examples[i]["caption"]) for i in rows}
    found |= {str(text) for i in rows for text in examples[i].get("captions", ())}
    found |= {str(text) for name in ("caption", "captions") for text in _flat(held.get(name, ()))}
    return sorted(found - {""})


def _flat(array: Any) -> Iterable:
    return np.asarray(array).reshape(-1)


def read_table(texts: Sequence[str], encoder: Any, folder: Path) -> Table:
    """The table of these texts by this encoder, read from the folder or made and kept there."""
    given = json.dumps([encoder.fingerprint(), *texts]).encode()
    path = folder / f"captions_{hashlib.sha256(given).hexdigest()[:16]}.npz"
    length = encoder.example["tokens"].shape[0]
    try:
        with np.load(path) as file:
            arrays = [file[name] for name in ("starts", "tokens", "vector")]
    except Exception:  # not there, or not whole
        arrays = encoded(texts, encoder)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.savez(file, **dict(zip(("starts", "tokens", "vector"), arrays, strict=True)))
    return Table({text: i for i, text in enumerate(texts)}, *arrays, length)


def encoded(texts: Sequence[str], encoder: Any) -> list[np.ndarray]:
    """The arrays of a table: starts, tokens without their padding, vectors."""
    found = encoder.encode(texts)
    mask = found["token_mask"] > 0
    starts = np.concatenate([[0], np.cumsum(mask.sum(1))])
    return [starts, found["tokens"][mask].astype(np.float16), found["vector"].astype(np.float16)]
