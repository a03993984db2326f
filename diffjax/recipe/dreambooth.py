"""One subject from a few pictures: DreamBooth, Ruiz et al. 2023."""

import inspect
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffjax import data
from diffjax.conditioning import Condition, Raw
from diffjax.errors import InputError, sentence
from diffjax.experiment import Model


def prompted(conditions: Sequence[Condition], prompt: str, num: int) -> Raw:
    """The raw arrays of a prompt that a model is asked, the same for `num` samples.

    Raises:
      InputError: the model is not asked by a prompt alone.
    """
    found = {}
    for condition in conditions:
        if "prompt" not in inspect.signature(condition.flags).parameters:
            raise InputError("the base is not asked by a prompt alone; give a run by caption.")
        found |= condition.flags(num, prompt=prompt)
    if not found:
        raise InputError("the base is asked nothing; give a run by caption.")
    return found


def subject(
    model: Model,
    pictures: str | Path,
    prompt: str,
    prior: str | Path | None,
    prior_prompt: str,
    weight: float,
) -> data.Source:
    """The pictures of a subject under its prompt, and the base's own under that of its class.

    A denoising loss of it is that of Ruiz et al. 2023, Eq. 2, over 1 + weight: with the pictures
    that the base drew itself, it keeps what it knows of the class.

    Args:
      model: the base's, asked by a prompt.
      pictures: a folder of the subject's pictures, or an npz of them.
      prompt: that names the subject, by a rare word.
      prior: npz that sample.py drew from the base for `prior_prompt`; None is no prior.
      prior_prompt: of the class.
      weight: lambda of the prior's loss.

    Returns:
      The source.

    Raises:
      InputError: pictures, prior or base that are not what they should be.
    """
    x = pictures_of(pictures, model)
    own = as_source(x, prompted(model.conditions, prompt, len(x)))
    if prior is None:
        return own
    drawn = samples_of(prior)
    return data.mixed(
        own, as_source(drawn, prompted(model.conditions, prior_prompt, len(drawn))), weight
    )


def pictures_of(pictures: str | Path, model: Model) -> np.ndarray:
    """The pictures of a folder or an npz at the size that a model draws, (N, H, W, C)."""
    found = data.images(pictures, model.example.shape[0])
    return np.stack([example["x"] for example in found.examples])


def as_source(x: np.ndarray, raw: Raw) -> data.Source:
    """Images in memory with the arrays of their condition."""
    return data.Source(data.Arrays(x=x, **raw), x.shape[1:], 0)


def samples_of(path: str | Path) -> np.ndarray:
    """Images that sample.py wrote to an npz.

    Raises:
      InputError: it has none.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["samples"]
    except Exception as error:
        raise InputError(
            f"{path} has no `samples` ({sentence(error)}); draw them with sample.py --out {path}."
        ) from error
