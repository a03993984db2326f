"""UniPC: a predictor and a corrector that share each denoiser call."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from diffjax.diffusion import eps_from_x0, q_sample
from diffjax.samplers.checks import choose
from diffjax.samplers.info import described
from diffjax.samplers.linear_multistep import (
    check_order,
    combine,
    integrals,
    push,
    windows,
)
from diffjax.schedules import logsnr
from diffjax.types import Array, Sampler, Schedule

# B(h) of the first-order formulas, as a function of -h.
VARIANTS = {"bh1": lambda minus_h: minus_h, "bh2": jnp.expm1}


class UniPC(NamedTuple):
    """State of `unipc`.

    Attributes:
      index: the number of steps taken.
      predict: (n, order - 1) weights of m_1 - m_0, m_2 - m_0, ... in the predictor of a step.
      correct: (n, order) the same in its corrector, and last that of the new m - m_0.
      past: (order, *x.shape), the x0_hats m_0, m_1, ... of the last steps.
      x: the corrected sample at the start of the last step.
      t: the time of it.
    """

    index: Array
    predict: Array
    correct: Array
    past: Array
    x: Array
    t: Array


@described(
    "Zhao et al. 2023, Alg. 1 (UniC) and Alg. 2 (UniP)",
    order=lambda order, **_: order + 1,
    calls=lambda n, corrector_last, **_: n,
)
def unipc(
    schedule: Schedule, order: int = 3, variant: str = "bh2", corrector_last: bool = False
) -> Sampler:
    """UniPC-p with data prediction: Zhao et al. 2023, Alg. 1 (UniC) and Alg. 2 (UniP).

    x_s = Euler + alpha_s sum_j (m_j - m_0) (integral of e^(u - lambda_s) L_j(u) over the step),
    m = x0_hat, L the Lagrange basis in lambda on the last p points, in the corrector also on s.
    A lone difference has the paper's weight B(h)/2. A step corrects x with its own x0_hat (from
    the second on) and predicts onwards; p is at most the number of steps left.

    Args:
      schedule: the noise schedule.
      order: p, 1 to 3; the order of accuracy is p + 1.
      variant: B(h), "bh1" (h) or "bh2" (e^h - 1).
      corrector_last: correct the result too, for one more call, unless it is clean data.

    Returns:
      A deterministic sampler of order 2 to 4, one denoiser call per step.

    Raises:
      InputError: an order that is not 1, 2 or 3, or an unknown variant.
    """
    check_order(order, 3)
    scale = choose("variant", variant, VARIANTS)

    def step(noise, denoise, x, t, s, state):
        x0 = denoise(x, t).x0
        x = jnp.where(state.index == 0, x, _correct(schedule, state, x0, t))
        past = push(state.past, x0)
        x_s = _advance(schedule, x, t, s, past[0], state.predict[state.index], past[1:])
        state = state._replace(index=state.index + 1, past=past, x=x, t=t)
        if not corrector_last:
            return x_s, state
        correct = partial(_correct, schedule, state)
        more = (state.index < state.predict.shape[0]) | (schedule.sigma(s) == 0)
        return lax.cond(more, lambda: x_s, lambda: correct(denoise(x_s, s).x0, s)), state

    return Sampler(partial(_start, schedule, order, scale), step)


def _start(schedule, order, scale, x, ts):
    """The state before the first step, with the weights of all."""
    ts = jnp.asarray(ts)
    alpha = schedule.alpha(ts[1:])[:, None]
    tables = _tables(logsnr(schedule, ts) / 2, order, scale)
    predict, correct = ((alpha * table).astype(x.dtype) for table in tables)
    past = jnp.zeros((order, *x.shape), x.dtype)
    return UniPC(jnp.asarray(0), predict, correct, past, x, ts[0])


def _advance(schedule, x, t, s, x0, weights, others):
    """Euler from t to s along x0, plus the weighted differences of the other x0_hats to it."""
    euler = q_sample(schedule, x0, s, eps_from_x0(schedule, x, t, x0))
    return euler + combine(weights, others, x0)


def _correct(schedule, state, x0, s):
    """The last step again, from where it began to s, now that x0_hat at s is known."""
    others = jnp.concatenate([state.past[1:], x0[None]])
    weights = state.correct[state.index - 1]
    return _advance(schedule, state.x, state.t, s, state.past[0], weights, others)


def _tables(half: Array, order: int, scale: Callable[[Array], Array]) -> tuple[Array, Array]:
    """The predictor's weights (n, order - 1) and the corrector's (n, order), over alpha_s."""
    left = jnp.cumsum((half[:-1] != half[1:])[::-1])[::-1]
    nodes, usable, stop = windows(half, order)
    ends = usable[:, :1]
    usable &= np.arange(order)[None, :] < left[:, None]
    known = jnp.sum(usable, axis=1, keepdims=True)
    h = stop[:, None] - nodes[:, :1]

    def exact(nodes, usable):
        """Every weight but that of m_0, which the others are differences to."""
        over_step = partial(integrals, density=lambda u, stop: jnp.exp(u - stop))
        return jax.vmap(over_step)(nodes, usable, stop)[:, 1:]

    gap = jnp.where(usable[:, 1:], nodes[:, 1:] - nodes[:, :1], 1)
    first = np.arange(order - 1)[None, :] == 0
    predict = exact(nodes, usable)
    predict = jnp.where((known == 2) & first, -scale(-h) / 2 * h / gap, predict)

    last = np.arange(order)[None, :] == order - 1
    correct = exact(jnp.append(nodes, stop[:, None], 1), jnp.append(usable, ends, 1))
    correct = jnp.where((known == 1) & last, -scale(-h) / 2, correct)
    return predict, correct
