"""A small classifier of the user's own labelled images: features, and agreement with labels."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from diffjax.errors import InputError
from diffjax.evaluation.features import Features, fingerprint, of_network, of_params
from diffjax.types import Array, Params

SIDE = 32
"""Larger images are reduced to it by means over their pixels."""
WIDTH = 32
FEATURES = 64
STEPS, TRAIN_BATCH, RATE, SEED = 500, 128, 3e-3, 0


class Classifier(nn.Module):
    """Three convolutions at falling resolution, and a layer that knows where things are.

    Its 64 numbers are the features.
    """

    classes: int

    @nn.compact
    def __call__(self, x) -> tuple[Array, Array]:
        first = (4, 2) if min(x.shape[1:3]) >= SIDE // 2 else (3, 1)
        for i, width in enumerate((WIDTH, 2 * WIDTH, 2 * WIDTH)):
            size, stride = first if i == 0 else (3, 1)
            x = nn.Conv(width, (size, size), (stride, stride), name=f"conv{i}")(x)
            x = nn.relu(nn.GroupNorm(num_groups=8, name=f"norm{i}")(x))
            if i == 1 and min(x.shape[1:3]) >= 4:
                x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Dense(FEATURES, name="features")(x.reshape(x.shape[0], -1)))
        return x, nn.Dense(self.classes, name="logits")(x)


def prepare(images: Array) -> Array:
    """uint8 to [-1, 1], reduced to at most 32 pixels a side."""
    x = images.astype(jnp.float32) / 127.5 - 1
    factor = max(1, min(x.shape[1:3]) // SIDE)
    return nn.avg_pool(x, (factor, factor), (factor, factor)) if factor > 1 else x


def train_classifier(
    images: np.ndarray, labels: np.ndarray, classes: int, steps: int = STEPS
) -> Params:
    """Parameters of `Classifier` after some steps of Adam: seconds for small images.

    Args:
      images: (N, H, W, C) uint8.
      labels: (N,) int.
      classes: number of classes.
      steps: of 128 images each.

    Returns:
      Parameters; the same data give the same ones.
    """
    module = Classifier(classes)
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps))
    params = module.init(jax.random.key(SEED), prepare(jnp.asarray(images[:1])))["params"]

    @jax.jit
    def step(params, state, x, y):
        def loss(params):
            logits = module.apply({"params": params}, prepare(x))[1]
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    rng, state = np.random.default_rng(SEED), optimizer.init(params)
    for _ in range(steps):
        rows = rng.integers(len(images), size=TRAIN_BATCH)
        params, state = step(params, state, images[rows], labels[rows])
    return params


def classifier_features(params: Params, name: str = "classifier") -> Features:
    """Features and logits of a trained classifier.

    Args:
      params: of `Classifier`.
      name: what figures call it.

    Returns:
      64 features, and the logits.
    """
    module = Classifier(params["logits"]["bias"].shape[0])

    def apply(params, images):
        features, logits = module.apply({"params": params}, prepare(images))
        return {"features": features, "logits": logits}

    return of_network(name, apply, params, fingerprint("classifier-2", of_params(params)))


def save_classifier(path: str | Path, params: Params) -> None:
    """Write the parameters as one npz."""
    flat = {"/".join(k): np.asarray(w) for k, w in flatten_dict(params).items()}
    with open(path, "wb") as file:
        np.savez(file, **flat)


def load_classifier(path: str | Path) -> Params:
    """Read what `save_classifier` wrote.

    Raises:
      InputError: the file is damaged or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            flat = {tuple(k.split("/")): file[k] for k in file.files}
        flat["logits", "bias"]
    except Exception as error:
        raise InputError(f"{path} is not an intact classifier; delete it to train anew.") from error
    return unflatten_dict(flat)
