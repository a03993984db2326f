"""The rows of benchmarks/few_step.py: every few-step method on a mixture in one dimension."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import distill, samplers, schedules, weighting
from diffjax.losses import denoising_loss
from diffjax.parameterization import at_steps, predict_v, predict_velocity
from diffjax.types import Prediction

WEIGHTS, MEANS, STDS = np.array([0.6, 0.4]), np.array([-1.0, 1.2]), np.array([0.3, 0.5])
LINE, CIRCLE, COSINE = schedules.rectified_flow(), schedules.gvp(), schedules.vp_cosine()
VELOCITY, V = at_steps(predict_velocity, 50), at_steps(predict_v, 50)


def exact(schedule):
    """E[x0 | x_t] of the mixture."""

    def denoiser(x, t, cond):
        t = jnp.broadcast_to(t, x.shape[:1])[:, None]
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        variance = alpha**2 * STDS[None] ** 2 + sigma**2
        residual = x - alpha * MEANS[None]
        logits = jnp.log(WEIGHTS)[None] - residual**2 / (2 * variance) - jnp.log(variance) / 2
        means = MEANS[None] + alpha * STDS[None] ** 2 / variance * residual
        return Prediction(jnp.sum(jax.nn.softmax(logits) * means, 1, keepdims=True))

    return denoiser


class Method(NamedTuple):
    """A row.

    Attributes:
      loss: of a network.
      cost: evaluations of that network per training step.
      schedule: that it is trained and sampled on.
      parameterization: what the network predicts.
      sampler: schedule -> sampler.
      two_times: whether the network has two.
      players: names of networks, of which the first is sampled; () is one network.
      steps: that it is sampled in.
      maps: steps in which it is the flow map and not the law alone.
    """

    loss: object
    cost: float
    schedule: object = CIRCLE
    parameterization: object = V
    sampler: object = distill.consistency_sampler
    two_times: bool = False
    players: tuple[str, ...] = ()
    steps: tuple[int, ...] = (1, 2, 4)
    maps: tuple[int, ...] = (1,)


EVERY = {"maps": (1, 2, 4)}
ON_LINE = {"schedule": LINE, "parameterization": VELOCITY, **EVERY}
JUMPS = {"sampler": distill.flow_map_sampler, "two_times": True, **EVERY}
GAME = {"players": ("generator", "critic"), "maps": ()}


def methods(one, two, evaluations):
    """Every row; `one` and `two` are networks of one and of two times."""
    steps = lambda cost: int(evaluations / cost)  # noqa: E731
    lognormal, everywhere = weighting.logit_normal(LINE, -0.4, 1.0), weighting.uniform(CIRCLE)
    teacher = lambda frozen: exact(CIRCLE)  # noqa: E731
    guided = lambda frozen, x, t, cond, scale: exact(CIRCLE)(x, t, cond).x0  # noqa: E731
    plain = lambda params, x, t, cond, key: one(params, x, t, None, key)  # noqa: E731
    line_weight = lambda level: (1 + jnp.exp(level / 2)) ** 2  # noqa: E731
    squares, huber = distill.adaptive(0.0), distill.pseudo_huber(0.03)
    scale = {"mean": 0.0, "std": 1.6}
    circle, line = (one, CIRCLE, V), (two, LINE, VELOCITY)
    snr = weighting.snr_plus_one
    warm = lambda cost: {"warmup": steps(cost) // 2}  # noqa: E731
    follow = distill.velocity_of_teacher(CIRCLE, teacher)
    by_output = distill.by_network_output(CIRCLE, V)
    latent = distill.boundary(V)
    pairs = samplers.heun(LINE), jnp.linspace(1.0, 0.0, 33)
    return {
        "flow matching, Euler": Method(
            denoising_loss(one, LINE, VELOCITY, line_weight, weighting.uniform(LINE)),
            3,
            sampler=samplers.euler,
            **ON_LINE,
        ),
        "progressive, teacher": Method(
            distill.progressive_stages(*circle, teacher, 32, steps(5) // 5, snr),
            5,
            sampler=samplers.ddim,
            steps=(1,),
        ),
        "consistency distillation": Method(
            distill.consistency_distillation(
                *circle, teacher, jnp.linspace(1.0, 0.0, 41), weighting=by_output
            ),
            4,
        ),
        "latent consistency, teacher": Method(
            distill.latent_consistency(
                *(plain, CIRCLE, latent, guided),
                distance=distill.elementwise_huber(0.03),
                weighting=distill.by_network_output(CIRCLE, latent),
            ),
            4,
            parameterization=latent,
        ),
        "sCM, teacher": Method(distill.scm(*circle, everywhere, follow, **warm(4)), 4),
        "sCM, data": Method(distill.scm(*circle, everywhere, **warm(4)), 4),
        "ECT": Method(distill.easy_consistency(*circle, steps(4), **scale, distance=huber), 4),
        "iCT": Method(
            distill.consistency_training(
                *(*circle, steps(4), huber),
                **scale,
                points=partial(distill.doubling, last=160),
                levels=partial(distill.consistency_levels, sigma_min=0.01),
            ),
            4,
        ),
        "MeanFlow": Method(
            distill.mean_flow(*line, lognormal, distance=squares, together=0.5),
            4,
            **ON_LINE | JUMPS,
        ),
        "improved MeanFlow": Method(
            distill.improved_mean_flow(*line, lognormal, distance=squares), 5, **ON_LINE | JUMPS
        ),
        "shortcut": Method(distill.shortcut(*line, line_weight, steps=32), 5, **ON_LINE | JUMPS),
        "SoFlow": Method(
            distill.solution_flow(*line, lognormal, steps(4), share=0.5, distance=squares),
            4,
            **ON_LINE | JUMPS,
        ),
        "CTM, teacher": Method(
            distill.consistency_trajectory(
                *(two, CIRCLE, V, teacher, jnp.linspace(1.0, 0.0, 41), snr), denoising=0.5
            ),
            8,
            **JUMPS,
        ),
        "reflow, teacher": Method(
            distill.on_pairs(
                distill.reflow(one, LINE, VELOCITY, weighting.uniform(LINE), line_weight),
                *(LINE, lambda frozen: exact(LINE), *pairs),
            ),
            3,
            sampler=samplers.euler,
            **ON_LINE,
        ),
        "IMM": Method(
            distill.inductive_moment_matching(
                *(two, COSINE, V, weighting.uniform(COSINE), weighting.unit, 64),
                earlier=lambda t: 0.9 * t,
                width=0.2,
            ),
            4,
            COSINE,
            **JUMPS | {"maps": ()},
        ),
        "DMD2, teacher": Method(
            distill.distribution_matching(*circle, teacher, everywhere, snr, every=2),
            5,
            steps=(1,),
            **GAME,
        ),
        "moment matching, teacher": Method(
            distill.moment_matching(*circle, teacher, 4, snr),
            5,
            sampler=samplers.ancestral,
            steps=(4,),
            **GAME,
        ),
        "drifting": Method(distill.drifting(*circle), 3, steps=(1,), maps=()),
    }
