"""The autoencoder of a run or of a published folder, to encode with or to keep frozen."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.latents import Autoencoder
from diffjax.run.weights import whole_average
from diffjax.run.workdir import load_experiment
from diffjax.types import Params

PART = "autoencoder"


class Opened(NamedTuple):
    """An autoencoder with its weights.

    Attributes:
      autoencoder: its functions.
      load: () -> its parameters, read once; a value of `frozen`.
    """

    autoencoder: Autoencoder
    load: Callable[[], Params]


def open_autoencoder(path: str | Path, shape: tuple[int, ...] = (256, 256, 3)) -> Opened:
    """The autoencoder of a workdir of train.py, or of a published folder.

    Args:
      path: of either.
      shape: of one picture, for a published folder.

    Raises:
      InputError: it is a workdir of something else, or neither.
    """
    path = Path(path)
    if not (path / "checkpoints").is_dir() and not (path / "config.py").is_file():
        return of_published(path, shape)
    experiment = load_experiment(path)
    if PART not in experiment.parts:
        raise InputError(
            f"{path} is no run of an autoencoder; train one with "
            "`python train.py configs/emoji_autoencoder.py`."
        )

    load = functools.cache(lambda: whole_average(path, experiment))
    return Opened(experiment.parts[PART], load)


def of_published(path: Path, shape: tuple[int, ...]) -> Opened:
    """What `open_autoencoder` gives, of weights published elsewhere."""
    from diffjax import pretrained
    from diffjax.pretrained.load import leaves_of, open_network

    opened = open_network(path)
    found = opened.architecture.finish({}, opened.config)
    if not isinstance(found, pretrained.Autoencoder):
        raise InputError(f"{path} is not an autoencoder; give one such as AutoencoderKL.")
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    mean, _ = jax.eval_shape(found.encode, opened.like, x)
    load = functools.cache(lambda: jax.tree.map(np.asarray, leaves_of(opened)))
    return Opened(Autoencoder(found.encode, found.decode, mean.shape[1:]), load)
