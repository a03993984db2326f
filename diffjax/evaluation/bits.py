"""Bits per dimension of single images, by the probability flow of a run."""

from collections.abc import Callable

import jax
import numpy as np

from diffjax import conditioning, grids, media
from diffjax.errors import InputError
from diffjax.evaluation.compare import Figure
from diffjax.evaluation.drawn import Run
from diffjax.likelihood import heun_step, ode_bits_per_dim
from diffjax.run.draw import conditions_of

STEPS, BATCH = 20, 100
"""Heun steps, uniform in logsnr, and images of one compiled call."""


def bits_per_dim(
    run: Run,
    images: np.ndarray,
    labels: np.ndarray | None,
    seed: int = 0,
    progress: Callable[[int], object] = lambda n: None,
) -> np.ndarray:
    """Bits per dimension of each image: `likelihood.ode_bits_per_dim` with uniform noise.

    The denoiser is the model's own, conditional and without guidance or clipping. 20 steps of
    Heun's method and one probe: the mean over images is what to read.

    Args:
      run: whose model diffuses pixels.
      images: (N, H, W, C) uint8.
      labels: (N,), where the model is conditional on a label.
      seed: of noise and probes.
      progress: called with the number of images of each batch.

    Returns:
      (N,) float64.

    Raises:
      InputError: a latent model, a condition other than a label, or labels that are missing.
    """
    model = run.experiment.model
    if model.codec is not media.pixels or model.example.shape != images.shape[1:]:
        raise InputError("--likelihood is of models of pixels; leave it out for a latent model.")
    raw = _conditions(run, len(images), labels)
    ts = grids.uniform_logsnr(model.schedule, STEPS)[:-1]

    @jax.jit
    def estimate(params, frozen, key, x, raw):
        cond = conditioning.encode(model.conditions, frozen, raw)
        denoiser = model.denoiser(params)
        return ode_bits_per_dim(denoiser, model.schedule, ts, step=heun_step)(key, x, cond)

    found, size = [], min(BATCH, len(images))
    for first in range(0, len(images), size):
        rows = np.minimum(np.arange(first, first + size), len(images) - 1)
        key = jax.random.fold_in(jax.random.key(seed), first)
        x = images[rows].astype(np.float32) / 127.5 - 1
        part = {name: array[rows] for name, array in raw.items()}
        count = min(size, len(images) - first)
        found.append(np.asarray(estimate(run.params, run.frozen, key, x, part), float)[:count])
        progress(count)
    return np.concatenate(found)


def _conditions(run: Run, num: int, labels: np.ndarray | None) -> dict[str, np.ndarray]:
    wanted = conditioning.examples(run.experiment.model.conditions)
    if wanted.keys() - {"label"}:
        raise InputError("--likelihood knows conditions on labels alone; leave it out.")
    if "label" in wanted and labels is None:
        raise InputError("--likelihood needs the labels of the images, which are missing.")
    raw = conditions_of(run.experiment.model, num)
    return raw if labels is None or "label" not in raw else {"label": labels.astype(np.int32)}


def figure(bits: np.ndarray) -> Figure:
    """Their mean with a normal interval; less is better."""
    mean = float(bits.mean())
    reach = 1.96 * float(bits.std(ddof=1)) / np.sqrt(len(bits))
    return Figure(mean, mean - reach, mean + reach, np.nan, "lower")
