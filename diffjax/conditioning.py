"""What can be asked for: a condition's arrays, its null value, and the flags that give it.

A condition is given as raw arrays, the same in a batch of data and on the command line, and
encoded on the device: a label as it is, a prompt's tokens by a text encoder. Its null stands
for "not given"; classifier-free guidance needs one, and keeps a condition that has none, such
as a mask.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.media.image import load_image
from diffjax.types import Cond, PyTree

Raw = Mapping[str, Any]
"""Arrays of a batch by name, as the data or the command line gives them."""


def _as_it_is(frozen: Mapping[str, PyTree], raw: Raw) -> Raw:
    return raw


class Condition(NamedTuple):
    """Something that a model can be asked for.

    Attributes:
      example: name -> shape and dtype of each raw array, without the batch axis.
      null: name -> raw value that stands for "not given", broadcast to the batch; None where
        guidance keeps the condition.
      flags: (num, **flags) -> raw arrays of `num` samples; its keywords are flags of sample.py.
      encode: (frozen, raw) -> the arrays that the network is given, e.g. {"tokens",
        "token_mask"}; a pure function, traced with the sampler and the training step.
      classes: number of classes of a label; 0 for anything else.
      own: names of frozen networks that only `encode` reads; they may go once it has been called.
    """

    example: Mapping[str, jax.ShapeDtypeStruct]
    null: Raw | None
    flags: Callable[..., Raw]
    encode: Callable[[Mapping[str, PyTree], Raw], Raw] = _as_it_is
    classes: int = 0
    own: tuple[str, ...] = ()


def label(classes: int) -> Condition:
    """A class label `label`, an int from 0 to classes - 1; the null label is `classes`.

    Args:
      classes: number of classes.

    Returns:
      The condition; without --label its samples cycle through the classes.
    """

    def flags(num: int, label: int | None = None):
        """Flags.

        Args:
          num: number of samples.
          label: class of every sample; default cycles through the classes.
        """
        if label is not None and not 0 <= label < classes:
            raise InputError(f"--label must be from 0 to {classes - 1}; got {label}.")
        labels = np.arange(num) % classes if label is None else np.full(num, label)
        return {"label": labels.astype(np.int32)}

    example = {"label": jax.ShapeDtypeStruct((), jnp.int32)}
    return Condition(example, {"label": np.int32(classes)}, flags, classes=classes)


def image(name: str, shape: tuple[int, int, int], help: str = "") -> Condition:
    """A picture under `name`, kept under guidance: a low-resolution image, a map, a mask.

    Args:
      name: of the array and of the flag, such as image or mask.
      shape: (H, W, C) that the network is given.
      help: what the picture is, for --help.

    Returns:
      The condition; its raw array is float32 in [-1, 1], the same picture for every sample of
      one call of sample.py.
    """
    height, width, channels = shape

    def flags(num: int, **given: Path | None):
        path = given.get(name)
        if path is None:
            flag = name.replace("_", "-")
            raise InputError(f"give --{flag} FILE: this model draws for a given picture.")
        picture = load_image(path, (height, width), channels)
        return {name: np.broadcast_to(picture, (num, *picture.shape))}

    flags = _with_flag(flags, name, Path | None, None, help or "picture that every sample is for.")
    return Condition({name: jax.ShapeDtypeStruct(shape, jnp.float32)}, None, flags)


def mask(shape: tuple[int, int], name: str = "mask") -> Condition:
    """A mask (H, W, 1), -1 where a picture is kept and 1 where it is drawn anew."""
    return image(name, (*shape, 1), "mask: white where the picture is drawn anew.")


def text(
    name: str,
    example: Mapping[str, jax.ShapeDtypeStruct],
    tokenize: Callable[[list[str]], Raw],
    encode: Callable[[Mapping[str, PyTree], Raw], Raw] = _as_it_is,
) -> Condition:
    """A text under the flag `name`, tokenized on the host and encoded on the device.

    Args:
      name: of the flag, such as prompt.
      example: shapes and dtypes of the tokens of one text.
      tokenize: texts -> raw arrays; its result for "" is the null.
      encode: as for `Condition`, by a text encoder in `frozen`.

    Returns:
      The condition.
    """

    def flags(num: int, **given: str):
        return tokenize([given.get(name, "")] * num)

    null = {key: np.asarray(value)[0] for key, value in tokenize([""]).items()}
    flags = _with_flag(flags, name, str, "", "text that every sample is for.")
    return Condition(example, null, flags, encode)


def _with_flag(function: Callable, name: str, kind: Any, default: Any, help: str) -> Callable:
    """A function of (num, **given) that shows one keyword with its type, default and help."""
    import inspect

    keyword = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
    num = inspect.Parameter("num", inspect.Parameter.POSITIONAL_ONLY)
    function.__signature__ = inspect.Signature([num, keyword.replace(annotation=kind)])
    function.__doc__ = f"Flags.\n\nArgs:\n  {name}: {help}\n"
    return function


def encode(conditions: Iterable[Condition], frozen: Mapping[str, PyTree], raw: Raw) -> Cond:
    """The conditions of a batch as the network is given them; None where there are none.

    Args:
      conditions: of a model.
      frozen: parameters of its frozen networks, by name.
      raw: arrays by name; those that no condition names are left aside.

    Returns:
      Arrays by name.
    """
    found = {}
    for condition in conditions:
        found |= condition.encode(frozen, {name: raw[name] for name in condition.example})
    return found or None


def nulls(
    conditions: Iterable[Condition], frozen: Mapping[str, PyTree], raw: Raw | None = None
) -> dict[str, PyTree]:
    """The null value of each encoded array, of conditions that have one.

    Args:
      conditions: of a model.
      frozen: parameters of its frozen networks, by name.
      raw: arrays by name; where one is called `null_` and the name of a condition's array, such
        as a negative prompt's, it is the null of each sample.

    Returns:
      Arrays by name: (B, ...) where `raw` has the nulls, else without the batch axis.
    """
    found = {}
    for condition in conditions:
        if condition.null is None:
            continue
        given = {name: (raw or {}).get(f"null_{name}") for name in condition.example}
        one = {
            name: jnp.asarray(condition.null[name], like.dtype)[None]
            if given[name] is None
            else jnp.asarray(given[name])
            for name, like in condition.example.items()
        }
        each = any(value is not None for value in given.values())
        encoded = condition.encode(frozen, one)
        found |= encoded if each else jax.tree.map(lambda leaf: leaf[0], encoded)
    return found


def zeros(conditions: Iterable[Condition], num: int) -> dict[str, np.ndarray]:
    """Raw arrays of zeros for `num` samples, to initialise a network with."""
    return {
        name: np.zeros((num, *like.shape), like.dtype)
        for name, like in examples(conditions).items()
    }


def examples(conditions: Iterable[Condition]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every raw array, without the batch axis."""
    return {name: like for c in conditions for name, like in c.example.items()}
