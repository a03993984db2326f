"""Methods that begin with a measurement: what an operator makes of a picture, and noise."""

from collections.abc import Callable

import jax.numpy as jnp

from diffjax import editing, samplers
from diffjax.editing.edit import Edit
from diffjax.editing.methods.images import SamplerMaker
from diffjax.editing.operators import LinearOperator, Operator
from diffjax.types import Array, Denoiser, Sampler, Scalar, Schedule


def apply_of(operator: Operator) -> Callable[[Array], Array]:
    """A itself, of an operator that is linear or not."""
    return operator.apply if isinstance(operator, LinearOperator) else operator


def _by_sampling(make: Callable[[Denoiser, Array], tuple[Denoiser, Sampler]], linear: bool) -> Edit:
    """The edit that samples with what `make` makes of the denoiser and the measurement."""

    def run(key, denoiser, x, ts, cond, first):
        denoiser, sampler = make(denoiser, cond["measurement"])
        return samplers.sample(key, denoiser, sampler, x, ts, cond, first), ts.shape[0] - 1

    return Edit(run, ("measurement",), linear=linear)


def _by_sampler(make: Callable[[Array], Sampler], linear: bool) -> Edit:
    """The edit of the sampler that `make` makes of the measurement."""
    return _by_sampling(lambda denoiser, y: (denoiser, make(y)), linear)


def dps(schedule: Schedule, operator: Operator | None = None, scale: Scalar = 1.0) -> Edit:
    """Diffusion posterior sampling, for any differentiable operator: Chung et al. 2023.

    Args:
      schedule: the noise schedule.
      operator: what was measured.
      scale: length of the steps along the gradient.
    """
    return _by_sampler(lambda y: editing.dps(schedule, apply_of(operator), y, scale), False)


def pigdm(
    schedule: Schedule,
    operator: Operator | None = None,
    noise_std: Scalar = 0.0,
    sampler: SamplerMaker = samplers.ddim,
) -> Edit:
    """Pseudo-inverse guidance: Song et al. 2023 (PiGDM).

    Args:
      schedule: the noise schedule.
      operator: what was measured, linear.
      noise_std: standard deviation of the measurement's noise.
      sampler: name of the sampler.
    """

    def make(denoiser, y):
        return editing.pigdm(denoiser, schedule, operator, y, noise_std), sampler(schedule)

    return _by_sampling(make, True)


def ddnm(
    schedule: Schedule,
    operator: Operator | None = None,
    noise_std: Scalar = 0.0,
    eta: Scalar = 0.85,
) -> Edit:
    """The range of the operator corrected at every step: Wang et al. 2023 (DDNM and DDNM+).

    Args:
      schedule: the noise schedule.
      operator: what was measured, linear.
      noise_std: standard deviation of the measurement's noise; above 0 it is DDNM+.
      eta: share of new noise where nothing is measured, 0 to 1.
    """
    return _by_sampler(lambda y: editing.ddnm(schedule, operator, y, noise_std, eta), True)


def ddrm(
    schedule: Schedule,
    operator: Operator | None = None,
    noise_std: Scalar = 0.0,
    eta: Scalar = 0.85,
    eta_b: Scalar = 1.0,
) -> Edit:
    """Each singular direction by how much its measurement says: Kawar et al. 2022 (DDRM).

    Args:
      schedule: the noise schedule.
      operator: what was measured, linear.
      noise_std: standard deviation of the measurement's noise.
      eta: share of new noise in directions that say little, 0 to 1.
      eta_b: share of the measurement in directions that say much, 0 to 1.
    """
    inner = _by_sampler(lambda y: editing.ddrm(schedule, operator, y, noise_std, eta, eta_b), True)

    def run(key, denoiser, x, ts, cond, first):
        noise = x / schedule.sigma(ts[0])
        y = cond["measurement"]
        x = editing.ddrm_start(schedule, operator, y, noise_std, ts[0], noise)
        return inner.run(key, denoiser, x, ts, cond, first)

    return inner._replace(run=run)


def daps(
    schedule: Schedule,
    operator: Operator | None = None,
    noise_std: Scalar = 0.0,
    rate: Scalar = 0.1,
    langevin_steps: int = 20,
) -> Edit:
    """Langevin steps about x0_hat at levels that are not coupled: Zhang et al. 2025 (DAPS).

    Args:
      schedule: the noise schedule.
      operator: what was measured, differentiable.
      noise_std: standard deviation of the measurement's noise; at least 0.05 is assumed.
      rate: length of a Langevin step over the smaller of the two variances.
      langevin_steps: Langevin steps per level.
    """
    variance = jnp.maximum(noise_std, 0.05) ** 2

    def run(key, denoiser, x, ts, cond, first):
        y, apply = cond["measurement"], apply_of(operator)

        def log_likelihood(x0):
            return -jnp.sum(jnp.square(apply(x0) - y)) / (2 * variance)

        def spread(schedule, t):
            return (schedule.sigma(t) / schedule.alpha(t)) ** 2

        def denoise(x, t):
            return denoiser(x, t, cond).x0

        x = editing.daps(
            key,
            schedule,
            denoise,
            log_likelihood,
            x,
            ts,
            rate,
            langevin_steps,
            spread,
            first,
            variance,
        )
        return x, ts.shape[0] - 1

    return Edit(run, ("measurement",))


def twisted_smc(
    schedule: Schedule, operator: Operator | None = None, noise_std: Scalar = 0.0
) -> Edit:
    """Particles weighted towards the posterior, exact for many: Wu et al. 2023 (TDS).

    The samples of a batch are the particles of one measurement, the first of those given.

    Args:
      schedule: the noise schedule.
      operator: what was measured, linear.
      noise_std: standard deviation of the measurement's noise; at least 0.05 is assumed.
    """
    variance = jnp.maximum(noise_std, 0.05) ** 2

    def run(key, denoiser, x, ts, cond, first):
        y = cond["measurement"][:1]

        def log_likelihood(x0, t):
            rest = y - operator.apply(x0)
            spread = editing.guided_variance(schedule, t)
            solved = operator.function(lambda e: 1 / (spread * e + variance), rest)
            return -jnp.sum(rest * solved, axis=tuple(range(1, rest.ndim))) / 2

        drawn = editing.twisted_smc(key, schedule, denoiser, log_likelihood, x, ts, cond)
        return drawn.x, drawn.effective.min()

    unit = "particles effective at the fewest"
    return Edit(run, ("measurement",), linear=True, unit=unit)
