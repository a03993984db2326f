"""Distribution matching: a generator follows the difference of two denoisers on its own samples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.diffusion import q_sample
from diffjax.distill.adversarial_head import Adversary, no_adversary
from diffjax.distill.distance import squared
from diffjax.distill.teacher import Teacher
from diffjax.losses import split_batch
from diffjax.parameterization import check_trainable, make_denoiser
from diffjax.schedules import logsnr
from diffjax.types import (
    Anyshape,
    LossFn,
    Network,
    Parameterization,
    Samples,
    Schedule,
    TimeDensity,
)


def matching_gradient(x: Samples, real: Samples, fake: Samples) -> Samples:
    """(x0_fake - x0_real) / mean |x - x0_real|, the mean over a sample: Yin et al. 2024, Eq. 7-8.

    It is the gradient of KL(generated || real) at a noise level, up to its scale.

    Args:
      x: generated samples.
      real: the teacher's x0_hat of x noised to a level.
      fake: that of a denoiser of the generated samples.

    Returns:
      x's shape.
    """
    axes = tuple(range(1, x.ndim))
    return (fake - real) / jnp.mean(jnp.abs(x - real), axes, keepdims=True)


def distribution_matching(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    teacher: Teacher,
    density: TimeDensity,
    weighting: Callable[[Anyshape], Anyshape],
    every: int = 5,
    adversary: Adversary = no_adversary,
) -> LossFn:
    """DMD2 in one step: x - sg(x - gradient) for the generator, denoising of x for the critic.

    Yin et al. 2024 (DMD2), section 4, without pairs. The generator is x = x0_hat(sigma_T z, t_max);
    it moves in one of `every` steps, the critic in all of them.

    Args:
      network: of generator and critic, which both begin at the teacher's parameters.
      schedule: the noise schedule.
      parameterization: what the networks predict, finite at t_max.
      teacher: frozen -> denoiser, guided or not.
      density: of the times of both terms, one without state.
      weighting: logsnr -> weight of the critic's squared error of x0.
      every: critic steps per generator step; the paper's 5.
      adversary: added to both losses, such as `adversarial_head`, which reads the data.

    Returns:
      A `LossFn` of params {"generator", "critic"} that is given `frozen`; without an adversary
      only the shape and the conditions of the batch are used. The context has `iteration`; aux has
      the terms.

    Raises:
      InputError: the parameterization is not finite at t_max, such as that of eps at a zero SNR.
    """
    check_trainable(schedule, parameterization, (schedule.t_max,))

    def loss(params, key, batch, *, frozen, iteration=0, **context):
        x0, cond = split_batch(batch)
        z_key, time_key, eps_key, critic_key, game_key = jax.random.split(key, 5)
        end = jnp.full(x0.shape[:1], schedule.t_max, x0.dtype)
        z = schedule.sigma(end[0]) * jax.random.normal(z_key, x0.shape, x0.dtype)
        make = lambda p: make_denoiser(network, p, schedule, parameterization)  # noqa: E731
        x = make(params["generator"])(z, end, cond).x0
        still = jax.lax.stop_gradient(x)
        t, _ = density.draw(time_key, x0.shape[0], density.init())
        x_t = q_sample(schedule, still, t, jax.random.normal(eps_key, x.shape, x.dtype))
        fake = make(jax.lax.stop_gradient(params["critic"]))(x_t, t, cond).x0
        gradient = matching_gradient(still, teacher(frozen)(x_t, t, cond).x0, fake)
        target = jax.lax.stop_gradient(still - gradient)
        generator = jnp.mean((x - target) ** 2) / 2
        critic = make_denoiser(network, params["critic"], schedule, parameterization, critic_key)
        error = squared(critic(x_t, t, cond).x0 - still)
        denoising = jnp.mean(weighting(logsnr(schedule, t)) * error)
        game = adversary(params, game_key, x, x0, cond)
        moves = jnp.asarray(iteration) % every == 0
        value = jnp.where(moves, generator + game.generator, 0) + denoising + game.critic
        seen = {"generator": generator, "critic": denoising}
        seen |= {"fools": game.generator, "tells": game.critic}
        return value, {**seen, "context": {"iteration": jnp.asarray(iteration) + 1}}

    return loss
