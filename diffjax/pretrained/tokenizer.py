"""Text to token ids, from the files that a published tokenizer's folder holds.

Needs the extra `text` (the libraries `tokenizers` and `sentencepiece`).
"""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.errors import InputError, sentence

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
"""CLIP's words: letters, one digit, or other signs (Radford et al. 2021, released code)."""

CLIP_MERGES = 49152 - 256 - 2


class Tokenizer(NamedTuple):
    """A tokenizer of one text encoder.

    Attributes:
      encode: text -> its ids with start and end, of any length.
      length: tokens that the encoder takes.
      pad: id that shorter texts are filled with.
    """

    encode: Callable[[str], list[int]]
    length: int
    pad: int


def tokenize(
    tokenizer: Tokenizer, texts: Sequence[str], length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The ids of several texts, padded at the end; a long text loses its middle, never its end.

    Args:
      tokenizer: from `load_tokenizer`.
      texts: B texts.
      length: L; None for the tokenizer's own.

    Returns:
      (ids (B, L) int32, mask (B, L) int32 that is 1 at the text's tokens and 0 at padding).
    """
    length = tokenizer.length if length is None else length
    ids = np.full((len(texts), length), tokenizer.pad, np.int32)
    mask = np.zeros((len(texts), length), np.int32)
    for row, text in enumerate(texts):
        found = tokenizer.encode(text)
        found = found if len(found) <= length else [*found[: length - 1], found[-1]]
        ids[row, : len(found)], mask[row, : len(found)] = found, 1
    return ids, mask


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a published folder.

    Args:
      folder: with vocab.json and merges.txt (CLIP), spiece.model or sentencepiece.model (T5),
        vocab.txt (BERT) or tokenizer.json, and perhaps a tokenizer_config.json.

    Raises:
      InputError: none of them is there, one is damaged, or the extra `text` is not installed.
    """
    folder = Path(folder)
    settings = _settings(folder)
    for names, make in KINDS.items():
        if all((folder / name).is_file() for name in names):
            return _read(make, folder, settings)
    listed = ", ".join(" and ".join(names) for names in KINDS)
    raise InputError(f"{folder} has no tokenizer; expected one of {listed}.")


def _read(make: Callable, folder: Path, settings: dict[str, Any]) -> Tokenizer:
    try:
        return make(folder, settings)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(
            'this tokenizer needs the extra "text"; install it with pip install "diffjax[text]".'
        ) from error
    except Exception as error:
        raise InputError(
            f"{folder}: the tokenizer's files are damaged: {sentence(error)}"
        ) from error


def _settings(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            try:
                found |= json.loads(path.read_text())
            except (ValueError, TypeError) as error:
                raise InputError(f"{path} is not JSON of one object: {sentence(error)}") from error
    return found


def _finished(encode: Callable, to_id: Callable, settings: dict, pad: str, length: int):
    """A tokenizer with the length and the padding of its settings."""
    token = settings.get("pad_token", pad)
    token = token.get("content") if isinstance(token, dict) else token
    given = settings.get("model_max_length", length)
    own = to_id(token) if token is not None else None
    return Tokenizer(encode, int(given) if given < 1e6 else length, 0 if own is None else own)


# --- CLIP -------------------------------------------------------------------------------


def clip_tokenizer(
    vocab: dict[str, int], merges: list[tuple[str, str]], settings: dict
) -> Tokenizer:
    """CLIP's byte pairs: as transformers', so NFC, spaces joined, lower case, no HTML unescaping.

    Args:
      vocab: token to id, the two special ones last.
      merges: pairs, the first joined first.
      settings: of tokenizer_config.json.
    """
    from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Fast

    fast = Fast(models.BPE(vocab, merges, end_of_word_suffix="</w>", unk_token=END))
    parts = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    fast.normalizer = normalizers.Sequence(parts)
    words = pre_tokenizers.Split(Regex(WORDS), "removed", invert=True)
    fast.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False)])
    fast.add_special_tokens([AddedToken(t, normalized=False) for t in (START, END)])
    start, end = vocab[START], vocab[END]

    def encode(text):
        return [start, *fast.encode(text, add_special_tokens=False).ids, end]

    return _finished(encode, fast.token_to_id, settings, END, 77)


def byte_letters() -> list[str]:
    """The printable letter that stands for each byte, in the order of CLIP's vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in shown] + [chr(256 + i) for i in range(256 - len(shown))]


def _clip_folder(folder: Path, settings: dict) -> Tokenizer:
    vocab = json.loads((folder / "vocab.json").read_text())
    lines = (folder / "merges.txt").read_text().splitlines()[1:]
    return clip_tokenizer(vocab, [tuple(line.split()) for line in lines if line], settings)


def clip_tokenizer_of_merges(path: str | Path) -> Tokenizer:
    """CLIP's tokenizer from OpenAI's bpe_simple_vocab_16e6.txt.gz."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : CLIP_MERGES + 1]
    merges = [tuple(line.split()) for line in lines]
    letters = byte_letters()
    tokens = [*letters, *(c + "</w>" for c in letters), *map("".join, merges), START, END]
    return clip_tokenizer({token: i for i, token in enumerate(tokens)}, merges, {})


# --- others -----------------------------------------------------------------------------


def t5_tokenizer(path: str | Path, settings: dict[str, Any]) -> Tokenizer:
    """T5's unigram pieces (Kudo 2018) by sentencepiece, with the end id after them."""
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))

    def encode(text):
        return [*pieces.encode(text), pieces.eos_id()]

    return _finished(encode, pieces.piece_to_id, settings, "<pad>", 512)


def bert_tokenizer(path: str | Path, settings: dict[str, Any]) -> Tokenizer:
    """BERT's word pieces, lower-cased unless the settings say otherwise."""
    from tokenizers import BertWordPieceTokenizer

    fast = BertWordPieceTokenizer(str(path), lowercase=settings.get("do_lower_case", True))
    return _finished(lambda text: fast.encode(text).ids, fast.token_to_id, settings, "[PAD]", 512)


def _json_tokenizer(folder: Path, settings: dict) -> Tokenizer:
    from tokenizers import Tokenizer as Fast

    fast = Fast.from_file(str(folder / "tokenizer.json"))
    fast.no_padding()
    fast.no_truncation()
    return _finished(lambda text: fast.encode(text).ids, fast.token_to_id, settings, "<pad>", 512)


KINDS: dict[tuple[str, ...], Callable[[Path, dict], Tokenizer]] = {
    ("vocab.json", "merges.txt"): _clip_folder,
    ("spiece.model",): lambda folder, s: t5_tokenizer(folder / "spiece.model", s),
    ("sentencepiece.model",): lambda folder, s: t5_tokenizer(folder / "sentencepiece.model", s),
    ("vocab.txt",): lambda folder, s: bert_tokenizer(folder / "vocab.txt", s),
    ("tokenizer.json",): _json_tokenizer,
}
"""Files of a folder -> (folder, settings) -> its tokenizer."""
