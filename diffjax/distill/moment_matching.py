"""Moment matching: the mean of x0 given x_s is the teacher's, where a student made x_s."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax.diffusion import q_posterior, q_sample
from diffjax.distill.distance import squared
from diffjax.distill.teacher import Teacher
from diffjax.losses import split_batch
from diffjax.parameterization import check_trainable, make_denoiser
from diffjax.samplers.checks import count
from diffjax.schedules import clean_time, logsnr
from diffjax.types import (
    Anyshape,
    LossFn,
    Network,
    Parameterization,
    Samples,
    Schedule,
    Time,
    per_sample,
)


def posterior_of_jump(
    schedule: Schedule, x0: Samples, x_t: Samples, t: Time, s: Time, noise: Samples
) -> Samples:
    """A draw of q(x_s | x_t, x0), by `q_posterior`, whose arguments it has; s below t."""
    mean, variance, _ = q_posterior(schedule, x0, x_t, t, s)
    return mean + per_sample(jnp.sqrt(variance), mean) * noise


def moment_matching(
    network: Network,
    schedule: Schedule,
    parameterization: Parameterization,
    teacher: Teacher,
    steps: int,
    weighting: Callable[[Anyshape], Anyshape],
    every: int = 2,
) -> LossFn:
    """w x . sg(g_critic(x_s) - g_teacher(x_s)) for x = x0_hat(x_t): Salimans et al. 2024, Alg. 2.

    x_s ~ q(x_s | x_t, x) with s at most 1/steps of the time before t. The critic learns x and
    the teacher's prediction, each with weight w. Here t is one of the times that the sampler asks
    about, `even_times(schedule, steps)`.

    Args:
      network: of generator and critic, which both begin at the teacher's parameters.
      schedule: the noise schedule.
      parameterization: what the networks predict, finite at t_max.
      teacher: frozen -> denoiser, guided or not.
      steps: of the student, at least 1.
      weighting: logsnr of s -> w, finite.
      every: the generator moves in one of so many steps, the critic in all; the paper alternates.

    Returns:
      A `LossFn` of params {"generator", "critic"} that is given `frozen`, whose context has
      `iteration`. The student is sampled with `ancestral` on `even_times`.

    Raises:
      InputError: steps is not a positive integer, or the parameterization is not finite at t_max.
    """
    count("steps of moment_matching", steps)
    check_trainable(schedule, parameterization, (schedule.t_max,))
    clean = clean_time(schedule)

    def draw(key, batch):
        which, part = jax.random.split(key)
        length = (schedule.t_max - clean) / steps
        t = clean + length * jax.random.randint(which, (batch,), 1, steps + 1)
        share = jax.random.uniform(part, (batch,), minval=1e-3)
        return t, jnp.maximum(t - share * length, schedule.t_min)

    def loss(params, key, batch, *, frozen, iteration=0, **context):
        x0, cond = split_batch(batch)
        time_key, eps_key, noise_key, first, second = jax.random.split(key, 5)
        t, s = draw(time_key, x0.shape[0])
        x_t = q_sample(schedule, x0, t, jax.random.normal(eps_key, x0.shape, x0.dtype))
        make = lambda p, key=None: make_denoiser(network, p, schedule, parameterization, key)  # noqa: E731
        x = make(params["generator"], first)(x_t, t, cond).x0
        still = jax.lax.stop_gradient(x)
        noise = jax.random.normal(noise_key, x0.shape, x0.dtype)
        x_s = posterior_of_jump(schedule, still, x_t, t, s, noise)
        known = jax.lax.stop_gradient(teacher(frozen)(x_s, s, cond).x0)
        guess = make(params["critic"], second)(x_s, s, cond).x0
        w = weighting(logsnr(schedule, s))
        critic = jnp.mean(w * (squared(guess - still) + squared(guess - known)))
        gap = jax.lax.stop_gradient(guess - known)
        moment = jnp.mean(w * jnp.mean(x * gap, axis=tuple(range(1, x.ndim))))
        moves = jnp.asarray(iteration) % every == 0
        value = jnp.where(moves, moment, 0) + critic
        step = {"iteration": jnp.asarray(iteration) + 1}
        return value, {"generator": moment, "critic": critic, "context": step}

    return loss
