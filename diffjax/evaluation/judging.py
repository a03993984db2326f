"""Blind judging in pairs: what the page shows, and what judgements say."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffjax.errors import InputError
from diffjax.evaluation.compare import wilson
from diffjax.evaluation.pictures import uri
from diffjax.evaluation.sides import Side

PAIRS = 40


def blind_pairs(samples: Side, other: Side, seed: int) -> list[dict]:
    """Pairs of a sample and another image, of one class where both have labels, in random order.

    Args:
      samples: the side that is judged.
      other: real images, or samples of another run.
      seed: of the choice and the order.

    Returns:
      At most 40 of {"a": data URI, "b": data URI, "other": the side, "A" or "B", of the other}.
    """
    rng = np.random.default_rng(seed)
    labelled = samples.labels is not None and other.labels is not None
    chosen = rng.permutation(len(samples.images))[:PAIRS]
    pairs = []
    for i in chosen:
        among = np.arange(len(other.images))
        among = np.flatnonzero(other.labels == samples.labels[i]) if labelled else among
        if not len(among):
            continue
        shown = [uri(samples.images[i], 256), uri(other.images[rng.choice(among)], 256)]
        other_is_a = bool(rng.integers(2))
        a, b = reversed(shown) if other_is_a else shown
        pairs.append({"a": a, "b": b, "other": "A" if other_is_a else "B"})
    return pairs


class Question(NamedTuple):
    """What a page of pairs asks.

    Attributes:
      samples: name of the side that is judged.
      other: name of what it is judged against.
      real: whether that is real images.
      fingerprint: of both.
    """

    samples: str
    other: str
    real: bool
    fingerprint: str


def question(samples: Side, other: Side, real: bool) -> Question:
    """The question of two sides."""
    return Question(samples.name, other.name, real, f"{samples.fingerprint}-{other.fingerprint}")


def win_rate(choices: Iterable[bool]) -> tuple[float, float, float]:
    """Share of judgements that chose the sample, with Wilson's 95% interval.

    Args:
      choices: True where the sample was chosen.

    Returns:
      Rate, low and high: Wilson 1927; 1/2 means that nobody can tell.

    Raises:
      InputError: there is no judgement.
    """
    choices = [*choices]
    if not choices:
        raise InputError("there are no judgements yet; open judge.html.")
    share = sum(choices) / len(choices)
    return share, *wilson(share, len(choices))


class Judged(NamedTuple):
    """A file of judgements.

    Attributes:
      path: of the file.
      question: what was asked.
      choices: whether the sample was chosen, of each pair.
    """

    path: Path
    question: Question
    choices: list[bool]


def read_judgements(paths: Sequence[Path]) -> list[Judged]:
    """Files of judgements, as judge.html saves them.

    Raises:
      InputError: a file that is no such thing.
    """
    found = []
    for path in paths:
        try:
            read = json.loads(Path(path).read_text())
            choices = [bool(each["sample_won"]) for each in read["judgements"]]
            found.append(Judged(Path(path), Question(**read["question"]), choices))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} holds no judgements as judge.html saves them.") from error
    return found


def merged(judged: Sequence[Judged], samples: Side) -> list[dict[str, Any]]:
    """Win rates of judgements, those of one question together.

    Args:
      judged: from `read_judgements`.
      samples: the side that is judged now.

    Returns:
      For each question {"other", "real", "num", "judges", "value", "low", "high"}.

    Raises:
      InputError: judgements of other samples.
    """
    found: dict[tuple, list] = {}
    for path, asked, choices in judged:
        if asked.fingerprint.split("-")[0] != samples.fingerprint:
            raise InputError(
                f"{path} judges other samples than these {len(samples.images)} of {samples.name}; "
                "give the --num, --seed and weights that judge.html was made with."
            )
        found.setdefault((asked.other, asked.real), []).append(choices)
    rows = []
    for (other, real), judges in found.items():
        value, low, high = win_rate(choice for choices in judges for choice in choices)
        num = sum(map(len, judges))
        row = {"other": other, "real": real, "num": num, "judges": len(judges)}
        rows.append(row | {"value": value, "low": low, "high": high})
    return rows
