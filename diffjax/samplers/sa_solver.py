"""SA-Solver: stochastic Adams predictor and corrector, Xue et al. 2023, for x0 prediction."""

import jax.numpy as jnp
from jax import lax

from diffjax.errors import InputError
from diffjax.samplers.checks import at_least, count, is_zero
from diffjax.samplers.exponential import (
    HUGE,
    exponential_step,
    half_logsnr,
    log_step,
    moments,
)
from diffjax.samplers.info import described, per_step
from diffjax.samplers.linear_multistep import integrals, tame
from diffjax.types import Sampler, Scalar, Schedule

MAX_ORDER = 4


def _adams_step(schedule, x, x0s, nodes, t, s, noise, eta):
    """One exponential step with x0_hat the polynomial through its values at the nodes.

    Its D is the integral of (1 + eta) e^(-(1 + eta)(lambda_s - lambda)) x0_hat over the step:
    Xue et al. 2023, Eq. 15 and 18. First order where the step is HUGE.
    """

    def density(u, stop):
        return (1 + eta) * jnp.exp((1 + eta) * (u - stop))

    h = log_step(schedule, t, s)
    start, nodes = half_logsnr(schedule, t), jnp.stack(nodes)
    # The integral from the start of the step, which the corrector's first node is not.
    shifted = jnp.append(start, nodes)
    stop = start + jnp.where(h < HUGE, h, 1)
    known = tame(nodes, nodes > -HUGE, jnp.linspace(start, stop, 9))
    weights = integrals(shifted, jnp.append(False, known), stop, density)[1:]
    first_order = jnp.append(moments((1 + eta) * h, 1)[0], jnp.zeros(nodes.shape[0] - 1))
    weights = jnp.where(h < HUGE, weights, first_order)
    data = sum(w * x0 for w, x0 in zip(weights.astype(x.dtype), x0s, strict=True))
    return exponential_step(schedule, x, data, t, s, noise, eta)


@described("Xue et al. 2023, Alg. 1", order=2, calls=per_step(1), weak=True)
def sa_solver(
    schedule: Schedule, tau: Scalar = 1.0, predictor_order: int = 3, corrector_order: int = 3
) -> Sampler:
    """Stochastic Adams predictor-corrector: Xue et al. 2023, Alg. 1, with tau constant.

    Both take x_s by the equation of `exponential.py` with eta = tau^2 and x0_hat the polynomial
    through its latest values; the corrector repeats the step with the value at its end, and
    the same noise. A step is: x0_hat at the x given; the corrector for the step before; the
    predictor for this one, so that a path holds uncorrected samples. Orders warm up; the steps
    to clean data and from alpha 0 are first order, and the latter is not corrected. A
    step much longer than those before it takes fewer x0_hat, as `tame` has it.

    Args:
      schedule: the noise schedule.
      tau: noise, at least 0: 0 is the probability flow, 1 the reverse SDE; may be traced.
      predictor_order: number of x0_hat in the predictor, 1 to 4.
      corrector_order: number of x0_hat in the corrector, the newest included, 1 to 4.

    Returns:
      A sampler of weak order 2 that wants one noise array per step; one denoiser call per step. Its
      state is the corrected x, noise and time of the step before, and the last x0_hat with their
      lambda.

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

    return Sampler(init, step, draws=1, stochastic=not is_zero(eta))
