"""Consistency models: a denoiser of one time that gives the same x0 all along a trajectory."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.diffusion import q_sample
from diffjax.distill.distance import squared
from diffjax.distill.flow_map import heun_step
from diffjax.distill.teacher import Teacher
from diffjax.errors import InputError
from diffjax.losses import split_batch
from diffjax.parameterization import check_trainable, make_denoiser
from diffjax.schedules import logsnr
from diffjax.types import (
    Array,
    Coefficients,
    Cond,
    Grid,
    LossFn,
    Network,
    Parameterization,
    Params,
    PRNGKeyArray,
    Samples,
    Schedule,
    per_sample,
)


def consistency_preconditioning(
    sigma_data: float = 0.5, sigma_min: float = 0.002
) -> Parameterization:
    """Coefficients for which x0_hat is x itself at sigma_min: Song et al. 2023, appendix C.

    With r = sigma/alpha and y = x_t/alpha: c_skip = sigma_data^2/((r - sigma_min)^2 +
    sigma_data^2), c_out = sigma_data (r - sigma_min)/sqrt(r^2 + sigma_data^2), c_in and c_noise of
    `edm_preconditioning`. `edm_preconditioning` itself is x at a clean time.

    Args:
      sigma_data: standard deviation of the data, positive.
      sigma_min: the noise level at which the network is not used.

    Returns:
      A parameterization, for alpha(t) and sigma(t) above 0.
    """

    def coefficients(schedule, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        r = sigma / alpha
        root = jnp.sqrt(r**2 + sigma_data**2)
        return Coefficients(
            c_skip=sigma_data**2 / ((r - sigma_min) ** 2 + sigma_data**2) / alpha,
            c_out=sigma_data * (r - sigma_min) / root,
            c_in=1 / (root * alpha),
            c_noise=-logsnr(schedule, t) / 8,
        )

    return coefficients


def by_network_output(
    schedule: Schedule, parameterization: Parameterization
) -> Callable[[Array, Array], Array]:
    """(t, s) -> 1/c_out(t)^2, by which squared distances of x0_hat are those of network outputs.

    Without it the last times before clean data, where c_out is small, are hardly trained, while
    everything earlier is taught by them. For `predict_v` on a schedule that preserves variance it
    is 1/sigma^2, the SNR + 1 of Salimans & Ho 2022, section 4.

    Args:
      schedule: the noise schedule.
      parameterization: what the network predicts, with c_out other than 0 at noisy times.

    Returns:
      A weighting of `consistency_distillation`, for t that are noisy.
    """
    return lambda t, s: 1 / parameterization(schedule, t).c_out ** 2


def consistency_distillation(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    teacher: Teacher,
    grid: Grid,
    decay: float = 0.0,
    distance: Callable[[Array], Array] = squared,
    weighting: Callable[[Array, Array], Array] = lambda t, s: jnp.ones_like(t),
) -> LossFn:
    """d(f(x_t, t), f-(x_s, s)), x_s by the teacher's Heun step: Song et al. 2023, Algorithm 2.

    Args:
      network: of one time.
      schedule: the noise schedule of both.
      parameterization: one for which x0_hat is x at the lowest time of the grid, such as
        `consistency_preconditioning`, or at a clean time `edm_preconditioning`.
      teacher: frozen -> denoiser.
      grid: N decreasing times, such as `grids.karras(schedule, 18)`.
      decay: of the average of past parameters that f- is; 0 is the student itself, as in iCT.
      distance: of the difference of the two predictions.
      weighting: (t, s) -> weight; the paper's is 1, see `by_network_output`.

    Returns:
      A `LossFn` that is given `frozen`; with a decay, the context needs `target`, a copy of the
      initial parameters.

    Raises:
      InputError: the parameterization is not finite where the grid begins; when called with a
        decay and without `target`.
    """
    ts = jnp.asarray(grid)
    check_trainable(schedule, parameterization, ts[:1])

    def loss(params, key, batch, *, frozen, target=None, **context):
        if decay and target is None:
            raise InputError(
                "consistency_distillation with a decay needs `target`, a copy of the initial "
                "parameters, in the training context; got none. Use decay=0 for the student itself."
            )
        x0, cond = split_batch(batch)
        index_key, eps_key, network_key = jax.random.split(key, 3)
        i = jax.random.randint(index_key, x0.shape[:1], 0, ts.shape[0] - 1)
        t, s = ts[i], ts[i + 1]
        x_t = q_sample(schedule, x0, t, jax.random.normal(eps_key, x0.shape, x0.dtype))
        known = teacher(frozen)
        x_s = heun_step(schedule, lambda x, t: known(x, t, cond), x_t, t, s)
        past = params if target is None else target
        ahead = boundary_denoiser(network, past, schedule, parameterization, network_key)(
            x_s, s, cond
        )
        student = boundary_denoiser(network, params, schedule, parameterization, network_key)
        difference = student(x_t, t, cond) - jax.lax.stop_gradient(ahead)
        value = jnp.mean(weighting(t, s) * distance(difference))
        if target is None:
            return value, {}
        moved = jax.tree.map(
            lambda old, new: jax.lax.stop_gradient(decay * old + (1 - decay) * new), target, params
        )
        return value, {"context": {"target": moved}}

    return loss


def boundary_denoiser(
    network: Network,
    params: Params,
    schedule: Schedule,
    parameterization: Parameterization,
    key: PRNGKeyArray | None,
) -> Callable[[Samples, Array, Cond], Samples]:
    """(x, t, cond) -> x0_hat, which is x itself where t is clean.

    Arguments as for `make_denoiser`, whose coefficients need not be finite at a clean time.
    """
    denoiser = make_denoiser(network, params, schedule, parameterization, key)

    def predict(x, t, cond):
        clean = schedule.sigma(t) == 0
        noisy = jnp.where(clean, schedule.t_max, t)  # any time at which the network is finite
        x0 = denoiser(x, noisy, cond).x0
        return jnp.where(per_sample(clean, x), x, x0)

    return predict
