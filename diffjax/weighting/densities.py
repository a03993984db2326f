"""Densities p(t) of training times, each a pure state machine."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.errors import InputError, check_finite, check_positive
from diffjax.schedules import logsnr
from diffjax.types import Array, Schedule, TimeDensity


def _stateless(draw_unit) -> TimeDensity:
    """A density with importance 1 and no state from (key, batch) -> times."""

    def draw(key, batch, state):
        t = draw_unit(key, batch)
        return t, jnp.ones_like(t)

    return TimeDensity(lambda: (), draw, lambda state, t, losses: state)


def uniform(schedule: Schedule) -> TimeDensity:
    """Independent uniform times on [t_min, t_max].

    Args:
      schedule: gives the range.

    Returns:
      A time density of importance 1, without state.
    """
    low, high = schedule.t_min, schedule.t_max
    return _stateless(lambda key, batch: jax.random.uniform(key, (batch,), minval=low, maxval=high))


def stratified(schedule: Schedule) -> TimeDensity:
    """Low-discrepancy uniform times, t_i ~ (i + u) / B: Kingma et al. 2021, appendix I.1.

    One uniform draw u shifts a regular comb, so that each batch covers the range evenly
    and the loss has less variance; each t_i alone is still uniform.

    Args:
      schedule: gives the range.

    Returns:
      A time density of importance 1, without state.
    """
    low, high = schedule.t_min, schedule.t_max

    def draw(key, batch):
        comb = (jnp.arange(batch) / batch + jax.random.uniform(key)) % 1
        return low + (high - low) * comb

    return _stateless(draw)


def edm_lognormal(schedule: Schedule, mean: float = -1.2, std: float = 1.2) -> TimeDensity:
    """log(sigma/alpha) ~ N(mean, std^2): Karras et al. 2022, Table 1.

    Args:
      schedule: turns noise levels into times, clipped to [t_min, t_max].
      mean: P_mean of the paper.
      std: P_std of the paper.

    Returns:
      A time density without state; of importance 1, for it is a part of the loss.

    Raises:
      InputError: std is not positive, or mean is not finite.
    """
    check_positive("edm_lognormal", std=std)
    check_finite("edm_lognormal", mean=mean)

    def draw(key, batch):
        level = mean + std * jax.random.normal(key, (batch,))
        return jnp.clip(schedule.t_from_logsnr(-2 * level), schedule.t_min, schedule.t_max)

    return _stateless(draw)


def logit_normal(schedule: Schedule, mean: float = 0.0, std: float = 1.0) -> TimeDensity:
    """logit(t) ~ N(mean, std^2), t scaled to [t_min, t_max]: Esser et al. 2024 (SD3), Eq. 19.

    Args:
      schedule: gives the range; the paper's is `rectified_flow`.
      mean: m of the paper; below 0 favours times near the data.
      std: s of the paper.

    Returns:
      A time density without state; of importance 1, for it is a part of the loss.

    Raises:
      InputError: std is not positive, or mean is not finite.
    """
    check_positive("logit_normal", std=std)
    check_finite("logit_normal", mean=mean)
    low, high = schedule.t_min, schedule.t_max

    def draw(key, batch):
        share = jax.nn.sigmoid(mean + std * jax.random.normal(key, (batch,)))
        return low + (high - low) * share

    return _stateless(draw)


def second_moment(
    schedule: Schedule, bins: int = 100, history: int = 10, uniform_share: float = 0.001
) -> TimeDensity:
    """Importance sampling by the second moment of the loss: Nichol & Dhariwal 2021, Eq. 18.

    p(t) is proportional to sqrt(E[L_t^2]), estimated from the last `history` losses of
    each bin of times; uniform until every bin has that many. Within a bin t is uniform.

    Args:
      schedule: gives the range.
      bins: number of equal bins of [t_min, t_max]; for DDPM on its own grid, T.
      history: losses remembered per bin.
      uniform_share: share of draws that stays uniform, in (0, 1].

    Returns:
      A time density whose state is (losses (bins, history), counts (bins,)).

    Raises:
      InputError: a number is out of range; when drawing, the loss was given no state.
    """
    return _by_bins(
        "second_moment",
        schedule,
        (bins, history, uniform_share),
        remember=lambda t, losses: losses,
        size=lambda losses: jnp.sqrt(jnp.mean(losses**2, axis=1)),
    )


def score_norm(
    schedule: Schedule,
    weight: Callable[[Array], Array],
    bins: int = 100,
    history: int = 100,
    uniform_share: float = 0.001,
) -> TimeDensity:
    """Importance sampling by the size of the score: p(t) is proportional to E[|score(x_t, t)|^2].

    Of the best denoiser, the score and its denoising target differ by an error orthogonal to
    the score (Vincent 2011, Eq. 9), so that per element
    E|score|^2 = 1/sigma^2 - alpha^2/sigma^4 E|x0_hat - x0|^2: the loss alone tells it. It is
    estimated from the last `history` losses of each bin; uniform until every bin has that many.

    Args:
      schedule: gives the range.
      weight: the loss's own weight of logsnr, by which its losses are divided.
      bins: number of equal bins of [t_min, t_max].
      history: losses remembered per bin; they are noisier than their mean where the SNR is high.
      uniform_share: share of draws that stays uniform, in (0, 1].

    Returns:
      A time density whose state is (squares (bins, history), counts (bins,)).

    Raises:
      InputError: a number is out of range; when drawing, the loss was given no state.
    """

    def remember(t, losses):
        alpha, sigma, w = schedule.alpha(t), schedule.sigma(t), weight(logsnr(schedule, t))
        error = jnp.where(w > 0, losses / jnp.where(w > 0, w, 1), 0)
        return (1 - (alpha / sigma) ** 2 * error) / sigma**2

    return _by_bins(
        "score_norm",
        schedule,
        (bins, history, uniform_share),
        remember,
        size=lambda squares: jnp.maximum(jnp.mean(squares, axis=1), 0),
    )


def _by_bins(name, schedule, numbers, remember, size) -> TimeDensity:
    """A density over bins of times by what is remembered of their losses.

    remember(t, losses) -> numbers (B,), of which size((bins, history)) -> p (bins,) up to a factor.
    """
    bins, history, uniform_share = numbers
    for what, value in (("bins", bins), ("history", history)):
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} needs a whole number of {what} above 0; got {value}.")
    if not 0 < uniform_share <= 1:
        raise InputError(f"{name} needs a uniform_share in (0, 1]; got {uniform_share}.")
    low, width = schedule.t_min, schedule.t_max - schedule.t_min

    def init():
        return jnp.zeros((bins, history)), jnp.zeros((bins,), jnp.int32)

    def probabilities(state):
        remembered, counts = state
        sizes = size(remembered)
        warm = jnp.all(counts >= history) & (jnp.sum(sizes) > 0)
        p = jnp.where(warm, sizes, 1.0)
        p = p / jnp.sum(p)
        return (1 - uniform_share) * p + uniform_share / bins

    def draw(key, batch, state):
        if state == ():
            raise InputError(
                f"{name} keeps a state, and the loss was given none; put "
                "`density_state=density.init()` in the training context."
            )
        p = probabilities(state)
        bin_key, place_key = jax.random.split(key)
        index = jax.random.choice(bin_key, bins, (batch,), p=p)
        place = jax.random.uniform(place_key, (batch,))
        return low + width * (index + place) / bins, 1 / (bins * p[index])

    def update(state, t, losses):
        # A ring buffer per bin. Losses of one bin in a batch take successive slots; those
        # beyond the buffer's length are dropped rather than written in an undefined order.
        remembered, counts = state
        index = jnp.clip((t - low) / width * bins, 0, bins - 1).astype(jnp.int32)
        same = index[:, None] == index[None, :]
        rank = jnp.sum(jnp.tril(same, -1), axis=1)
        slot = jnp.where(rank < history, (counts[index] + rank) % history, history)
        values = remember(t, losses)
        return remembered.at[index, slot].set(values, mode="drop"), counts.at[index].add(1)

    return TimeDensity(init, draw, update)


def on_steps(density: TimeDensity, schedule: Schedule, T: int) -> TimeDensity:
    """Round a density of continuous times to the steps t = k/T, k = 1 .. T, of a beta table.

    Args:
      density: any time density over the schedule's range.
      schedule: gives the range.
      T: number of steps.

    Returns:
      The density with times on the grid, as DDPM trains (Ho et al. 2020, Alg. 1).

    Raises:
      InputError: T is no whole number above 0.
    """
    if not isinstance(T, int) or T < 1:
        raise InputError(f"on_steps needs a whole number T of steps above 0; got {T}.")
    low, width = schedule.t_min, schedule.t_max - schedule.t_min

    def draw(key, batch, state):
        t, importance = density.draw(key, batch, state)
        k = jnp.clip(jnp.floor((t - low) / width * T), 0, T - 1) + 1
        return k / T, importance

    def update(state, t, losses):
        middle = low + width * (t * T - 0.5) / T
        return density.update(state, middle, losses)

    return TimeDensity(density.init, draw, update)
