"""What multistep solvers share: one denoiser call per step, and a polynomial through the past.

Each step is x_s = Euler + sum_j w_j (m_j - m_0), where m_0 is what the denoiser says now
(its eps_hat or x0_hat) and m_1, m_2, ... what it said before. A method is its table of
weights, made once from the whole grid; a row of zeros is a first-order step.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion import eps_from_x0, q_sample
from diffjax.errors import InputError
from diffjax.types import Array, Grid, Sampler, Schedule

# Gauss-Legendre on [0, 1]: exact for polynomials, and to rounding for exp over 40 e-folds.
POINTS, POINT_WEIGHTS = np.polynomial.legendre.leggauss(32)
POINTS, POINT_WEIGHTS = (POINTS + 1) / 2, POINT_WEIGHTS / 2

# Extrapolation may multiply the rounding of what the denoiser said by this much.
LIMIT = 100.0


class History(NamedTuple):
    """State of a multistep solver.

    Attributes:
      index: the number of steps taken.
      weights: (n, order - 1), row i for step i, of m_1 - m_0, m_2 - m_0, ...
      past: (order - 1, *x.shape), m_1, m_2, ..., zeros until there are any.
    """

    index: Array
    weights: Array
    past: Array


def check_order(order: int, most: int) -> None:
    """Refuse an order that a family does not have."""
    if order not in range(1, most + 1):
        raise InputError(f"order must be a whole number from 1 to {most}; got {order!r}.")


def push(past: Array, new: Array) -> Array:
    """The history with a new entry in front and the oldest dropped."""
    return jnp.concatenate([new[None], past])[: past.shape[0]]


def combine(weights: Array, past: Array, new: Array) -> Array:
    """sum_j w_j (m_j - m_0), of x's shape."""
    # Term by term: XLA's CPU backend sums over a leading axis some 100 times slower.
    terms = (w * (m - new) for w, m in zip(weights, past, strict=True))
    return sum(terms, jnp.zeros_like(new))


def linear_multistep(
    schedule: Schedule,
    order: int,
    weights: Callable[[Grid], Array],
    follow: Callable[[Array, Array], Array],
) -> Sampler:
    """The solver of a table of weights.

    Args:
      schedule: the noise schedule.
      order: steps that a formula looks at, the present one included.
      weights: ts -> (n, order - 1), see `History`.
      follow: (x0_hat, eps_hat) -> the m of the formula.

    Returns:
      A deterministic sampler, one denoiser call per step, with a `History` as its state.
    """

    def init(x, ts):
        table = weights(jnp.asarray(ts)).astype(x.dtype)
        return History(jnp.asarray(0), table, jnp.zeros((order - 1, *x.shape), x.dtype))

    def step(noise, denoise, x, t, s, state):
        x0 = denoise(x, t).x0
        eps = eps_from_x0(schedule, x, t, x0)
        new = follow(x0, eps)
        change = combine(state.weights[state.index], state.past, new)
        state = History(state.index + 1, state.weights, push(state.past, new))
        return q_sample(schedule, x0, s, eps) + change, state

    return Sampler(init, step)


# --- weights -----------------------------------------------------------------------------


def windows(c: Array, order: int) -> tuple[Array, Array, Array]:
    """The last `order` grid points at each step, newest first, and where the step ends.

    Args:
      c: (n + 1,) a coordinate of the grid, not finite where it has none.
      order: grid points wanted.

    Returns:
      (n, order) coordinates, 0 where unusable; (n, order) bool, whether they are there to use,
      none in a step of no length or with an end that is not finite, and only as many as are
      `tame`; (n,) the step's end, finite in any case.
    """
    index = np.arange(c.shape[0] - 1)[:, None] - np.arange(order)
    finite = jnp.isfinite(c)
    ends = finite[:-1] & finite[1:] & (c[:-1] != c[1:])
    there = (index >= 0) & finite[index] & ends[:, None]
    nodes, stop = jnp.where(there, c[index], 0), jnp.where(ends, c[1:], 1)
    usable = jax.vmap(tame)(nodes, there, stop[:, None])
    return jnp.where(usable, nodes, 0), usable, stop


def lagrange(nodes: Array, usable: Array, u: Array) -> Array:
    """The Lagrange basis on the usable nodes at u.

    Args:
      nodes: (q,) where a polynomial is given.
      usable: (q,) bool; the basis is that of these alone.
      u: (p,) where it is wanted.

    Returns:
      (q, p), 0 for nodes that are not usable.
    """
    pair = usable[:, None] & usable[None, :] & ~np.eye(nodes.shape[0], dtype=bool)
    gap = jnp.where(pair, nodes[:, None] - nodes[None, :], 1)
    factors = (u[None, None, :] - nodes[None, :, None]) / gap[:, :, None]
    basis = jnp.prod(jnp.where(pair[:, :, None], factors, 1), axis=1)
    return jnp.where(usable[:, None], basis, 0)


def tame(nodes: Array, usable: Array, u: Array) -> Array:
    """The usable nodes without the oldest, until sum_j |L_j| is at most `LIMIT` at every u.

    That sum, the Lebesgue function, is how much the polynomial multiplies an error in its
    values. It is large where a step is much longer than the gaps between the nodes.

    Args:
      nodes: (q,) newest first.
      usable: (q,) bool.
      u: (p,) where the polynomial is used.

    Returns:
      (q,) bool.
    """
    for oldest in range(nodes.shape[0] - 1, 0, -1):
        growth = jnp.max(jnp.sum(jnp.abs(lagrange(nodes, usable, u)), axis=0))
        usable = usable & ((growth <= LIMIT) | (np.arange(nodes.shape[0]) != oldest))
    return usable


def integrals(
    nodes: Array, usable: Array, stop: Array, density: Callable[[Array, Array], Array]
) -> Array:
    """Integral over a step of density(u, stop) L_j(u), for the Lagrange basis L on the nodes.

    Args:
      nodes: (q,) where the polynomial is given; the step starts at the first.
      usable: (q,) bool; the basis is that of the usable nodes alone.
      stop: where the step ends.
      density: weight in the integral.

    Returns:
      (q,), 0 for nodes that are not usable.
    """
    h = stop - nodes[0]
    u = nodes[0] + h * jnp.asarray(POINTS, nodes.dtype)
    weighted = h * jnp.asarray(POINT_WEIGHTS, nodes.dtype) * density(u, stop)
    return jnp.sum(lagrange(nodes, usable, u) * weighted[None, :], axis=1)


def adams(c: Array, order: int, density: Callable[[Array, Array], Array]) -> Array:
    """Adams-Bashforth on any grid: the `integrals` of each step on the points before it.

    Args:
      c: (n + 1,) the coordinate in which m is a polynomial.
      order: points in a formula; fewer while there is not enough past.
      density: (c, c at the end of the step) -> weight in the integral.

    Returns:
      (n, order), newest first; zeros for a step with an infinite end.
    """
    return jax.vmap(lambda *step: integrals(*step, density))(*windows(c, order))
