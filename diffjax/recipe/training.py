"""How parameters are trained: optimizer, learning rate, averages, batches."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffjax.training import at_rate, ema
from diffjax.training.posthoc_ema import power_averages
from diffjax.types import Array, Params


class Training(NamedTuple):
    """How parameters are trained: fields of `Experiment` of the same names."""

    optimizer: optax.GradientTransformation
    averages: Mapping[str, Callable[[Array], Array]]
    learning_rate: Callable[[Array], Array]
    steps: int
    batch_size: int
    accumulate: int
    seed: int


def cosine(warmup: int, steps: int) -> Callable[[Array], Array]:
    """A rate that rises to 1, in at most half of the steps, then falls to 0 on a cosine."""
    warmup = max(min(warmup, steps // 2), 1)
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, max(steps, 2))


def at_peak(
    optimizer: optax.GradientTransformation,
    shape: Callable[[Array], Array],
    lr: float,
    clip_norm: float | None,
    averages: Mapping[str, Callable[[Array], Array]],
    *given: int,
) -> Training:
    """Training by an optimizer whose rate is `shape`, at most 1, at the peak rate `lr`.

    Args:
      optimizer: of the clipped gradient.
      shape: step -> rate of the optimizer.
      lr: peak learning rate.
      clip_norm: largest global norm of the gradient; None does not clip.
      averages: of the parameters.
      *given: the other fields of `Training`.
    """
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    whole = at_rate(optax.chain(clip, optimizer), lr)
    return Training(whole, averages, lambda step: lr * shape(step), *given)


def cosine_adam(
    steps: int = 1000,
    batch_size: int = 64,
    lr: float = 2e-3,
    warmup: int = 100,
    clip_norm: float = 1.0,
    ema_decay: float = 0.998,
    accumulate: int = 1,
    seed: int = 0,
    ema_lengths: tuple[float, ...] = (),
) -> Training:
    """Adam, with a learning rate that rises, and falls to 0 along a cosine.

    Args:
      steps: training steps.
      batch_size: examples per step.
      lr: peak learning rate, after warm-up and before its cosine decay to 0.
      warmup: steps of linear warm-up.
      clip_norm: largest global norm of the gradient.
      ema_decay: limit of the moving average of the parameters.
      accumulate: microbatches of a batch, one gradient at a time.
      seed: of everything random in training.
      ema_lengths: of power-function averages that are kept too, such as 0.05 0.10, with
        snapshots at every checkpoint; sample.py --ema then rebuilds any length.
    """
    rate = cosine(warmup, steps)
    averages = {"ema": ema(ema_decay), **power_averages(ema_lengths)}
    given = (averages, steps, batch_size, accumulate, seed)
    return at_peak(optax.adam(rate), rate, lr, clip_norm, *given)


def staged_adam(
    batch_size: int = 64,
    lr: float = 1e-3,
    clip_norm: float = 1.0,
    ema_decay: float = 0.99,
    seed: int = 0,
) -> Callable[[int, int], Training]:
    """(steps of a stage, stages) -> Adam whose learning rate and averages begin anew at each stage.

    Args:
      batch_size: examples per step.
      lr: learning rate where a stage begins, from where it falls to 0 along a cosine.
      clip_norm: largest global norm of the gradient.
      ema_decay: limit of the moving average of the parameters.
      seed: of everything random in training.
    """

    def training(stage: int, stages: int) -> Training:
        fall, average = optax.cosine_decay_schedule(1.0, max(stage, 1)), ema(ema_decay)
        within = lambda step: jnp.where(step < stage * stages, step % stage, stage)  # noqa: E731
        rate = lambda step: fall(within(step))  # noqa: E731
        averages = {"ema": lambda step: average(within(step))}
        given = (averages, stage * stages, batch_size, 1, seed)
        return at_peak(optax.adam(rate), rate, lr, clip_norm, *given)

    return training


def warmup_adam(
    steps: int = 1000,
    batch_size: int = 128,
    lr: float = 2e-4,
    warmup: int = 5_000,
    clip_norm: float | None = 1.0,
    weight_decay: float = 0.0,
    ema_decay: float = 0.9999,
    accumulate: int = 1,
    seed: int = 0,
    ema_lengths: tuple[float, ...] = (),
) -> Training:
    """Adam, with a learning rate that rises and stays.

    Args:
      steps: training steps.
      batch_size: examples per step.
      lr: learning rate after the warm-up, where it stays.
      warmup: steps of linear warm-up.
      clip_norm: largest global norm of the gradient; None does not clip.
      weight_decay: of AdamW.
      ema_decay: limit of the moving average of the parameters.
      accumulate: microbatches of a batch, one gradient at a time.
      seed: of everything random in training.
      ema_lengths: of power-function averages that are kept too, such as 0.05 0.10, with
        snapshots at every checkpoint; sample.py --ema then rebuilds any length.
    """
    rate = optax.linear_schedule(0.0, 1.0, warmup) if warmup else optax.constant_schedule(1.0)
    adam = optax.adamw(rate, weight_decay=weight_decay) if weight_decay else optax.adam(rate)
    averages = {"ema": ema(ema_decay), **power_averages(ema_lengths)}
    given = (averages, steps, batch_size, accumulate, seed)
    return at_peak(adam, rate, lr, clip_norm, *given)


def cosine_muon(
    steps: int = 3000,
    batch_size: int = 32,
    lr: float = 3e-3,
    warmup: int = 100,
    clip_norm: float = 1.0,
    ema_decay: float = 0.998,
    accumulate: int = 1,
    seed: int = 0,
    ema_lengths: tuple[float, ...] = (),
) -> Training:
    """Muon on the kernels within layers and Adam on the rest (Jordan et al. 2024), along a cosine.

    Args:
      steps: training steps.
      batch_size: examples per step.
      lr: peak learning rate, after warm-up and before its cosine decay to 0.
      warmup: steps of linear warm-up.
      clip_norm: largest global norm of the gradient.
      ema_decay: limit of the moving average of the parameters.
      accumulate: microbatches of a batch, one gradient at a time.
      seed: of everything random in training.
      ema_lengths: of power-function averages that are kept too, such as 0.05 0.10, with
        snapshots at every checkpoint; sample.py --ema then rebuilds any length.
    """
    rate = cosine(warmup, steps)
    muon = optax.contrib.muon(
        rate, adam_learning_rate=rate, muon_weight_dimension_numbers=matrices, consistent_rms=0.2
    )
    averages = {"ema": ema(ema_decay), **power_averages(ema_lengths)}
    given = (averages, steps, batch_size, accumulate, seed)
    return at_peak(muon, rate, lr, clip_norm, *given)


def matrices(params: Params) -> Params:
    """The axes that Muon takes as a matrix's input and output; None leaves a leaf to Adam.

    All kernels within layers, a convolution as the matrix from its window to its features; the
    first and the last convolution and the embeddings stay with Adam (Jordan et al. 2024).
    """
    axes = optax.contrib.MuonDimensionNumbers

    def of(path, leaf):
        inside = {"residual", "attention"} & {key.key for key in path}
        return axes(tuple(range(leaf.ndim - 1)), -1) if inside and leaf.ndim > 1 else None

    return jax.tree_util.tree_map_with_path(of, params)
