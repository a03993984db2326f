"""Samplers that schedulers of diffusers need and that are combinations of ours."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from diffjax import samplers
from diffjax.samplers import dpmpp_multistep
from diffjax.samplers.info import described, per_step
from diffjax.types import Denoiser, Sampler, Scalar, Schedule, per_sample

SHORT = 15  # from this number of steps on, diffusers leaves the last steps at full order


def multistep(
    schedule: Schedule,
    family: Callable[..., Sampler] = dpmpp_multistep,
    order: int = 2,
    lower_order_final: bool = True,
    euler_at_final: bool = False,
) -> Sampler:
    """A multistep sampler whose last steps are of lower order, as diffusers has them.

    Of fewer than 15 steps the last is of order 1 and the one before of order 2 at most.

    Args:
      schedule: the noise schedule.
      family: (schedule, order) -> a `linear_multistep` sampler.
      order: of the family.
      lower_order_final: whether runs of fewer than 15 steps end so.
      euler_at_final: whether the last step is of order 1 in any run.

    Returns:
      The family's sampler, with other weights at the end of a run.
    """
    full, second = family(schedule, order=order), family(schedule, order=min(order, 2))

    def init(x, ts):
        state, n = full.init(x, ts), len(ts) - 1
        weights = state.weights
        if lower_order_final and n < SHORT and n > 1:
            row = second.init(x, ts).weights[-2]
            weights = weights.at[-2].set(jnp.pad(row, (0, weights.shape[1] - row.shape[0])))
        if euler_at_final or (lower_order_final and n < SHORT):
            weights = weights.at[-1].set(0)
        return state._replace(weights=weights)

    return Sampler(init, full.step)


def ddim_of(finish: Callable[[Denoiser], Denoiser]) -> Callable[..., Sampler]:
    """DDIM that clips x0_hat and not eps_hat, as diffusers' does: eps_hat is what the network says.

    Args:
      finish: clipping or thresholding.

    Returns:
      A constructor as `samplers.ddim`.
    """

    @described("Song et al. 2021 (DDIM), Eq. 12", order=1, calls=per_step(1), weak=True)
    def ddim(schedule: Schedule, eta: Scalar = 0.0) -> Sampler:
        plain = samplers.ddim(schedule, eta)

        def step(noise, denoise, x, t, s, state):
            said = denoise(x, t)
            x0 = finish(lambda x, t, cond: said)(x, t, None).x0
            x, state = plain.step(noise, lambda x, t: said, x, t, s, state)
            return x + per_sample(schedule.alpha(s), x) * (x0 - said.x0), state

        return plain._replace(step=step)

    ddim.__doc__ = samplers.ddim.__doc__
    return ddim


def renoise(schedule: Schedule, floor: float = 0.0) -> Sampler:
    """x_s = alpha_s x0_hat + sqrt(sigma_s^2 - floor^2) z: Song et al. 2023, Alg. 1.

    Args:
      schedule: the noise schedule.
      floor: noise that x0_hat has already: a consistency model's sigma_min.

    Returns:
      A sampler that wants one noise array per step; one denoiser call per step.
    """

    def step(noise, denoise, x, t, s, state):
        std = jnp.sqrt(jnp.maximum(schedule.sigma(s) ** 2 - floor**2, 0))
        return schedule.alpha(s) * denoise(x, t).x0 + std * noise[0], state

    return Sampler(lambda x, ts: (), step, draws=1)


def boundary(denoiser: Denoiser, T: int = 1000, scaling: Any = 10.0) -> Denoiser:
    """c_skip x_t + c_out x0_hat, which is x_t at step 0: Luo et al. 2023 (LCM), Eq. 9.

    With u = scaling k for step k = T t - 1, c_skip = 0.25/(u^2 + 0.25) and
    c_out = u/sqrt(u^2 + 0.25).

    Args:
      denoiser: any denoiser.
      T: steps of the beta table.
      scaling: of the step.

    Returns:
      The denoiser with its boundary condition.
    """

    def consistent(x, t, cond):
        out, u = denoiser(x, t, cond), scaling * (T * jnp.asarray(t) - 1)
        c_skip, c_out = 0.25 / (u**2 + 0.25), u / jnp.sqrt(u**2 + 0.25)
        return out._replace(x0=per_sample(c_skip, x) * x + per_sample(c_out, x) * out.x0)

    return consistent


def threshold(denoiser: Denoiser, quantile: Any, most: Any) -> Denoiser:
    """x0_hat clipped to a bound and divided by it: Saharia et al. 2022 (Imagen), section 2.3.

    Args:
      denoiser: of data in [-1, 1].
      quantile: of |x0_hat|, per sample; the bound is it, from 1 to `most`.
      most: largest bound.

    Returns:
      The thresholded denoiser.
    """

    def bounded(x, t, cond):
        out = denoiser(x, t, cond)
        flat = jnp.abs(out.x0).reshape(x.shape[0], -1)
        bound = per_sample(jnp.clip(jnp.quantile(flat, quantile, axis=1), 1, most), x)
        return out._replace(x0=jnp.clip(out.x0, -bound, bound) / bound)

    return bounded
