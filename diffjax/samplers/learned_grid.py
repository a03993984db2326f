"""Time grids learned for one denoiser, one sampler and one number of steps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from diffjax.errors import InputError
from diffjax.grids import karras
from diffjax.samplers.checks import count, warn_unless
from diffjax.samplers.decoupled import decoupled
from diffjax.samplers.loop import sample
from diffjax.samplers.runge_kutta import heun
from diffjax.schedules import logsnr
from diffjax.types import (
    Array,
    Cond,
    Denoiser,
    Grid,
    PRNGKeyArray,
    PyTree,
    Sampler,
    Samples,
    Scalar,
    Schedule,
)

ROOM = 0.2  # of the log-SNR range, where learning begins: what is below the last noisy time

# (loss, point, key) -> the loss there and its gradient
Gradient = Callable[[Callable[[PyTree], Array], PyTree, PRNGKeyArray], tuple[Array, PyTree]]


def backpropagated(
    loss: Callable[[PyTree], Array], point: PyTree, key: PRNGKeyArray
) -> tuple[Array, PyTree]:
    """The loss and its gradient by reverse mode, back through the scan of the sampler.

    The memory is that of all steps of the network. Blind to samples that jump from one mode of
    the data to another: the loss is a step there, and steps have no slope.
    """
    return jax.value_and_grad(loss)(point)


def smoothed(pairs: int = 6, width: float = 0.2) -> Gradient:
    """The gradient of E loss(point + width eps), from antithetic pairs of forward runs.

    g = mean over pairs of eps (loss(point + width eps) - loss(point - width eps)) / (2 width),
    eps ~ N(0, I): Salimans et al. 2017, "Evolution strategies", Section 2.1. No backward pass: the
    memory of one run, 2 pairs + 1 runs a step. It sees the jumps that `backpropagated` does not.

    Args:
      pairs: of perturbed points; more for less noise.
      width: of the perturbation; in log-shares of a learned grid.

    Returns:
      (loss, point, key) -> the loss at the point, and the estimate.
    """

    def gradient(loss, point, key):
        flat, unravel = ravel_pytree(point)

        def along(eps):
            ahead, behind = (loss(unravel(flat + s * width * eps)) for s in (1, -1))
            return eps * (ahead - behind) / (2 * width)

        draws = jax.random.normal(key, (pairs, *flat.shape), flat.dtype)
        return loss(point), unravel(jnp.mean(lax.map(along, draws), axis=0))

    return gradient


def ordered_logsnrs(logits: Array, low: Scalar, high: Scalar) -> Array:
    """Log-SNRs low < l_1 < ... < high whose increments are a softmax of the logits.

    l_k = low + (high - low) sum_{i <= k} softmax(logits)_i: ordered for any logits.

    Args:
      logits: one per increment (n,).
      low: the first log-SNR.
      high: what the last increment reaches.

    Returns:
      n + 1 log-SNRs, the first low, the last high.
    """
    shares = jnp.cumsum(jax.nn.softmax(logits))
    return jnp.append(low, low + (high - low) * shares).at[-1].set(high)


def _logits(logsnrs: Array, high: Array, free_end: bool) -> Array:
    """What `ordered_logsnrs` needs to begin at a grid, with room at the end if it is free."""
    shares = jnp.diff(logsnrs) / (high - logsnrs[0])
    if not free_end:
        return jnp.log(shares)
    room = jnp.maximum(1 - jnp.sum(shares), ROOM)
    return jnp.log(jnp.append(shares * (1 - room) / jnp.sum(shares), room))


def learn_grid(
    key: PRNGKeyArray,
    denoiser: Denoiser,
    sampler: Sampler,
    schedule: Schedule,
    ts: Grid,
    x: Samples,
    cond: Cond = None,
    target: Samples | None = None,
    steps: int = 300,
    learning_rate: float = 0.1,
    free_end: bool = True,
    gradient: Gradient = backpropagated,
) -> tuple[Array, Array]:
    """Times that bring a sampler of few steps nearest to the fine solution, by gradient.

    min over t_1 > ... > t_{n-1} of the root mean square of sample(x; ts) - target: Tong et al.
    2024 (LD3), with Adam through the scan of the sampler itself. The times are
    increments of log-SNR under a softmax, so that they stay ordered; t_0 and the clean end
    stay. The sampler's own coefficients are left alone. Pure: call it inside `jax.jit`, with
    a network's params as arguments.

    Args:
      key: of the sampler's noise, which a deterministic sampler, which this is for, ignores,
        and of the draws of `gradient`.
      denoiser: (x_t, t, cond) -> Prediction.
      sampler: the sampler to fit, differentiable in its times.
      schedule: the noise schedule.
      ts: n + 1 decreasing times where learning begins, at least 3, the last clean.
      x: noise at ts[0]; some hundreds of samples, thousands for data of many modes.
      cond: condition of each sample, or None.
      target: the fine solution from x; default Heun of 128 steps.
      steps: of Adam, each one run of the sampler and its gradient.
      learning_rate: of Adam at its start, in the logits; it falls to 0 by a cosine.
      free_end: whether the last noisy time may move, up to t_min; else it stays.
      gradient: `backpropagated`, or `smoothed(...)` where memory is short or samples jump.

    Returns:
      The best n + 1 times found, ts if none was better, and the root mean square at each step
      (steps,).

    Raises:
      InputError: fewer than 3 times, or a start without a finite log-SNR.
    """
    grid, logits = _movable(schedule, jnp.asarray(ts), free_end)
    key, error = _log_error(key, denoiser, schedule, ts, x, cond, target)

    def at(logits):
        return error(sampler, grid(logits))

    logits, losses = descend(key, at, logits, steps, learning_rate, gradient)
    better = jnp.nanmin(losses) < error(sampler, ts)
    return jnp.where(better, grid(logits), ts), jnp.exp(losses)


def learn_decoupled_grid(
    key: PRNGKeyArray,
    denoiser: Denoiser,
    sampler: Sampler,
    schedule: Schedule,
    ts: Grid,
    x: Samples,
    cond: Cond = None,
    target: Samples | None = None,
    steps: int = 300,
    learning_rate: float = 0.1,
    free_end: bool = True,
    gradient: Gradient = backpropagated,
) -> tuple[Array, Array, Array]:
    """Times of the sampler and, apart from them, those about which the denoiser is asked.

    As `learn_grid`, which has the arguments and errors, over the offsets of `decoupled` too:
    the decoupled time steps of Tong et al. 2024 (LD3). For a sampler that is not stochastic,
    as many calls and smaller errors. It begins at offsets of 0, and best at the times that
    `learn_grid` has found: from there it is never worse on the samples it learns from.

    Returns:
      The times (n + 1,), the offsets (n,), and the root mean square at each step (steps,). Use
      them as `sample(key, denoiser, decoupled(schedule, sampler, offsets), x, times)`.
    """
    grid, logits = _movable(schedule, jnp.asarray(ts), free_end)
    key, error = _log_error(key, denoiser, schedule, ts, x, cond, target)

    def at(point):
        logits, offsets = point
        return error(decoupled(schedule, sampler, offsets), grid(logits))

    start = logits, jnp.zeros(ts.shape[0] - 1)
    (logits, offsets), losses = descend(key, at, start, steps, learning_rate, gradient)
    better = jnp.nanmin(losses) < error(sampler, ts)
    return jnp.where(better, grid(logits), ts), jnp.where(better, offsets, 0), jnp.exp(losses)


def _movable(schedule: Schedule, ts: Grid, free_end: bool) -> tuple[Callable, Array]:
    """Logits -> a grid, and the logits of ts, with room at the end if it is free."""
    logsnrs = _noisy_logsnrs(schedule, ts)
    high = jnp.maximum(logsnr(schedule, schedule.t_min), logsnrs[-1]) if free_end else logsnrs[-1]

    def grid(logits):
        inner = ordered_logsnrs(logits, logsnrs[0], high)[1 : ts.shape[0] - 1]
        return jnp.concatenate([ts[:1], schedule.t_from_logsnr(inner), ts[-1:]])

    return grid, _logits(logsnrs, high, free_end)


def _log_error(
    key, denoiser, schedule, ts, x, cond, target
) -> tuple[PRNGKeyArray, Callable[[Sampler, Grid], Array]]:
    """A key for the descent, and (sampler, grid) -> log of the root mean square to the target."""
    noise_key, descent_key = jax.random.split(key)
    if target is None:
        fine = karras(schedule, 128).at[0].set(ts[0])
        target = sample(jax.random.key(0), denoiser, heun(schedule), x, fine, cond)

    def error(sampler, ts):
        out = sample(noise_key, denoiser, sampler, x, ts, cond)
        return jnp.log(jnp.mean((out - target) ** 2)) / 2

    return descent_key, error


def _noisy_logsnrs(schedule: Schedule, ts: Grid) -> Array:
    """Log-SNR of all times but the last, or an InputError where no grid can be learned."""
    if ts.shape[0] < 3:
        raise InputError(f"a grid to learn needs at least 2 steps; got {ts.shape[0] - 1}.")
    logsnrs = logsnr(schedule, ts[:-1])
    if not isinstance(logsnrs, jax.core.Tracer) and not jnp.all(jnp.isfinite(logsnrs)):
        raise InputError(
            "a learned grid needs a finite log-SNR at every time but the clean end; start "
            "below a zero terminal SNR, e.g. with grids.trailing(schedule, n + 1)[1:]."
        )
    return logsnrs


def descend(
    key: PRNGKeyArray,
    loss: Callable[[PyTree], Array],
    start: PyTree,
    steps: int = 300,
    learning_rate: float = 0.1,
    gradient: Gradient = backpropagated,
) -> tuple[PyTree, Array]:
    """Adam with a cosine decay on a few numbers: the best argument seen, and every loss (steps,).

    `learn_grid` is this over times; over `Amed` it fits `amed` to one grid. A descent that
    is not finite warns.
    """
    count("steps", steps)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def update(carry, key):
        point, state, best, least = carry
        value, slope = gradient(loss, point, key)
        best = jax.tree.map(lambda new, old: jnp.where(value < least, new, old), point, best)
        change, state = optimizer.update(slope, state)
        return (optax.apply_updates(point, change), state, best, jnp.minimum(value, least)), value

    least = jnp.asarray(jnp.inf, jax.eval_shape(loss, start).dtype)
    carry = (start, optimizer.init(start), start, least)
    (_, _, best, _), losses = lax.scan(update, carry, jax.random.split(key, steps))
    warn_unless(
        jnp.all(jnp.isfinite(losses)),
        "the descent met a loss that is NaN or infinite and kept the best argument before; the "
        "sampler has no derivative there, or the learning rate is too high. Lower it, or take "
        "gradient=smoothed().",
    )
    return best, losses
