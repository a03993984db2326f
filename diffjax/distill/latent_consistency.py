"""Latent consistency distillation: consistency of a guided teacher over k steps of its table."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.diffusion import q_sample
from diffjax.distill.distance import elementwise_huber
from diffjax.distill.flow_map import jump
from diffjax.distill.guidance import GuidedTeacher
from diffjax.errors import InputError
from diffjax.losses import split_batch
from diffjax.parameterization import make_denoiser
from diffjax.types import Array, Coefficients, LossFn, Network, Parameterization, Schedule


def boundary(
    parameterization: Parameterization,
    T: int = 1000,
    sigma_data: float = 0.5,
    scaling: float = 10.0,
) -> Parameterization:
    """Another parameterization with x0_hat near x at step 0: Luo et al. 2023 (LCM), Eq. 9.

    x0_hat = c_skip x_t + c_out (that of the parameterization), with k = scaling (T t - 1),
    c_skip = sigma_data^2/(k^2 + sigma_data^2) and c_out = k/sqrt(k^2 + sigma_data^2).

    Args:
      parameterization: such as `at_steps(predict_eps, T)`.
      T: number of steps of the beta table.
      sigma_data: 0.5 in the published models.
      scaling: of the step; 10 in the published models.

    Returns:
      A parameterization.
    """

    def coefficients(schedule, t):
        inner = parameterization(schedule, t)
        k = scaling * (T * t - 1)
        skip, out = sigma_data**2 / (k**2 + sigma_data**2), k / jnp.sqrt(k**2 + sigma_data**2)
        return Coefficients(skip + out * inner.c_skip, out * inner.c_out, inner.c_in, inner.c_noise)

    return coefficients


def latent_consistency(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    teacher: GuidedTeacher,
    steps: int = 50,
    T: int = 1000,
    scales: tuple[float, float] = (4.0, 16.0),
    distance: Callable[[Array], Array] | None = None,
    weighting: Callable[[Array, Array], Array] = lambda t, s: jnp.ones_like(t),
) -> LossFn:
    """d(f(x_t, t, w), sg f(x_s, s, w)), x_s by one guided DDIM step: Luo et al. 2023, Algorithm 1.

    The times are steps k - 1, 2k - 1, ... of the table with k = T/steps, and s is k earlier, at
    least step 0. The student itself stands for its average of parameters.

    Args:
      network: one that reads cond["guidance_scale"] (B,).
      schedule: the noise schedule of a beta table of T steps.
      parameterization: `boundary(at_steps(predict_eps))`.
      teacher: (frozen, x_t, t, cond, scale) -> x0_hat, such as `guided_by(...)`.
      steps: of the solver, a divisor of T.
      T: steps of the table.
      scales: guidance scales are drawn uniformly between these; 1 is no guidance, so the paper's
        w of 3 to 15 is 4 to 16.
      distance: default `elementwise_huber()`.
      weighting: (t, s) -> weight; the paper's is 1, see `by_network_output`.

    Returns:
      A `LossFn` that is given `frozen`.

    Raises:
      InputError: steps does not divide T.
    """
    if steps < 1 or T % steps:
        raise InputError(f"steps of latent_consistency must divide T = {T}; got {steps}.")
    k = T // steps
    distance = elementwise_huber() if distance is None else distance

    def loss(params, key, batch, *, frozen, **context):
        x0, cond = split_batch(batch)
        index_key, eps_key, scale_key, network_key = jax.random.split(key, 4)
        index = k * jax.random.randint(index_key, x0.shape[:1], 1, steps + 1) - 1
        t, s = (index + 1) / T, (jnp.maximum(index - k, 0) + 1) / T
        x_t = q_sample(schedule, x0, t, jax.random.normal(eps_key, x0.shape, x0.dtype))
        scale = jax.random.uniform(scale_key, t.shape, x0.dtype, *scales)
        x_s = jump(schedule, x_t, t, s, teacher(frozen, x_t, t, cond, scale))
        asked = {**(cond or {}), "guidance_scale": scale}
        student = make_denoiser(network, params, schedule, parameterization, network_key)
        target = jax.lax.stop_gradient(student(x_s, s, asked).x0)
        difference = student(x_t, t, asked).x0 - target
        return jnp.mean(weighting(t, s) * distance(difference)), {}

    return loss
