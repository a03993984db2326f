"""SA-Solver: stochastic Adams predictor and corrector, Xue et al. 2023, for x0 prediction."""

import jax.numpy as jnp
from jax import lax

from diffjax.samplers.checks import at_least, count
from diffjax.samplers.exponential import (
    HUGE,
    exponential_step,
    half_logsnr,
    log_step,
    moments,
)
from diffjax.types import Array, InputError, Sampler, Scalar, Schedule, per_sample

MAX_ORDER = 4


def _lagrange(nodes: list[Array], j: int) -> list[Array]:
    """Coefficients, of v^0 upwards, of the polynomial that is 1 at node j and 0 at the others."""
    coefficients = [jnp.ones_like(nodes[j])]
    for i in range(len(nodes)):
        if i != j:
            scale = 1 / (nodes[j] - nodes[i])
            shifted = [jnp.zeros_like(scale), *(scale * c for c in coefficients)]
            scaled = [-nodes[i] * scale * c for c in coefficients]
            scaled.append(jnp.zeros_like(scale))
            coefficients = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


def adams_weights(nodes: list[Array], z: Array) -> list[Array]:
    """The integral of z e^(-z (1 - v)) over v in [0, 1] as a weighted sum over the nodes.

    b_j = integral of z e^(-z (1 - v)) l_j(v), with l_j the Lagrange basis: Xue et al. 2023,
    Eq. 15 and 18 in the variable v = (lambda - lambda_t)/h. A node at minus infinity (a large
    negative number, no two equal) has weight 0, which leaves the lower order.

    Args:
      nodes: where x0_hat is known, in units of the step.
      z: (1 + tau^2) h.

    Returns:
      One weight per node, summing to 1 - e^-z.
    """
    m = moments(z, len(nodes))
    products = [
        [c * m_p for c, m_p in zip(_lagrange(nodes, j), m, strict=True)] for j in range(len(nodes))
    ]
    return [sum(terms) for terms in products]


def _adams_step(schedule, x, x0s, nodes, t, s, noise, eta):
    """One exponential step with x0_hat interpolated at the nodes; first order where h is HUGE."""
    h = log_step(schedule, t, s)
    regular = h < HUGE
    z = (1 + eta) * h
    width = jnp.where(regular, h, 1)
    start = half_logsnr(schedule, t)
    places = [(node - start) / width for node in nodes]
    weights = adams_weights(places, (1 + eta) * width)
    first_order = [moments(z, 1)[0]] + [jnp.zeros_like(z)] * (len(nodes) - 1)
    weights = [jnp.where(regular, a, b) for a, b in zip(weights, first_order, strict=True)]
    data = sum(per_sample(w, x) * x0 for w, x0 in zip(weights, x0s, strict=True))
    return exponential_step(schedule, x, data, t, s, noise, eta)


def sa_solver(
    schedule: Schedule, tau: Scalar = 1.0, predictor_order: int = 3, corrector_order: int = 3
) -> Sampler:
    """Stochastic Adams predictor-corrector: Xue et al. 2023, Alg. 1, with tau constant.

    Both take x_s by the equation of `exponential.py` with eta = tau^2 and x0_hat the polynomial
    through its latest values; the corrector repeats the step with the value at its end, and
    the same noise. A step is: x0_hat at the x given; the corrector for the step before; the
    predictor for this one, so that a path holds uncorrected samples. Orders warm up; the steps
    to clean data and from alpha 0 are first order, and the latter is not corrected.

    Args:
      schedule: the noise schedule.
      tau: noise, at least 0: 0 is the probability flow, 1 the reverse SDE; may be traced.
      predictor_order: number of x0_hat in the predictor, 1 to 4.
      corrector_order: number of x0_hat in the corrector, the newest included, 1 to 4.

    Returns:
      A sampler that wants one noise array per step and calls the denoiser once. Its state is
      the corrected x, noise and time of the step before, and the last x0_hat with their lambda.

    Raises:
      InputError: tau is negative, or an order is not an integer from 1 to 4.
    """
    at_least("tau", tau)
    for name, order in (("predictor_order", predictor_order), ("corrector_order", corrector_order)):
        count(name, order)
        if order > MAX_ORDER:
            raise InputError(f"{name} must be at most {MAX_ORDER}; got {order}.")
    kept = max(predictor_order, corrector_order, 2) - 1
    eta = tau**2

    def init(x, ts):
        nowhere = [jnp.asarray(-(2 + i) * HUGE, float) for i in range(kept)]
        return x, jnp.zeros_like(x), jnp.asarray(ts[0]), [jnp.zeros_like(x)] * kept, nowhere

    def step(noise, denoise, x, t, s, state):
        x_before, noise_before, t_before, x0s, lambdas = state
        here = half_logsnr(schedule, t)
        x0s = [denoise(x, t).x0, *x0s]
        lambdas = [here.astype(lambdas[0].dtype), *lambdas]

        def advance(order, x, t, s, noise):
            return _adams_step(schedule, x, x0s[:order], lambdas[:order], t, s, noise, eta)

        x = lax.cond(
            here - lambdas[1] < HUGE,
            lambda: advance(corrector_order, x_before, t_before, t, noise_before),
            lambda: x,
        )
        x_next = advance(predictor_order, x, t, s, noise[0])
        return x_next, (x, noise[0], jnp.asarray(t), x0s[:-1], lambdas[:-1])

    return Sampler(init, step, draws=1)
