"""Few-step methods on a mixture in one dimension: `python benchmarks/few_step.py`.

Every method trains the same network (ResidualMLP of two or three blocks) and is compared with the
exact flow map F_0^-1(F_1(z)): the root mean square error at 1, 2 and 4 steps. Training stops when
each has spent as many network evaluations (forward passes; a JVP counts as two, a gradient as
two more). Methods with a teacher learn from the exact denoiser, which is not counted.
"""

import argparse
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffjax import distill, models, sample, samplers, schedules, weighting
from diffjax.losses import denoising_loss
from diffjax.models import network
from diffjax.parameterization import at_steps, make_denoiser, predict_v, predict_velocity
from diffjax.types import Prediction

WEIGHTS, MEANS, STDS = np.array([0.6, 0.4]), np.array([-1.0, 1.2]), np.array([0.3, 0.5])
LINE, CIRCLE = schedules.rectified_flow(), schedules.gvp()
VELOCITY, V = at_steps(predict_velocity, 50), at_steps(predict_v, 50)
BATCH = 256


def data(key, n):
    """n draws (n, 1) of the mixture."""
    which, noise = jax.random.split(key)
    k = jax.random.choice(which, 2, (n,), p=jnp.asarray(WEIGHTS))
    return (jnp.asarray(MEANS)[k] + jnp.asarray(STDS)[k] * jax.random.normal(noise, (n,)))[:, None]


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


def exact_map(z):
    """F_0^-1(F_1(z)) by bisection, z (n,) standard normal."""
    from scipy.stats import norm

    low, high = np.full(z.shape, -10.0), np.full(z.shape, 10.0)
    for _ in range(60):
        middle = (low + high) / 2
        cdf = sum(
            w * norm.cdf((middle - m) / s) for w, m, s in zip(WEIGHTS, MEANS, STDS, strict=True)
        )
        low, high = (
            np.where(cdf < norm.cdf(z), middle, low),
            np.where(cdf < norm.cdf(z), high, middle),
        )
    return (low + high) / 2


class Method(NamedTuple):
    """A row: its loss of a network, evaluations per training step, and how it is sampled."""

    loss: object
    cost: float
    schedule: object
    parameterization: object
    two_times: bool
    sampler: object
    steps: tuple[int, ...] = (1, 2, 4)


def methods(one, two, steps):
    """Every row for `steps` evaluations; `one` and `two` are networks of one and two times."""
    on_line = weighting.logit_normal(LINE, -0.4, 1.0)
    on_circle = weighting.uniform(CIRCLE)
    teacher = lambda schedule: lambda frozen: exact(schedule)  # noqa: E731
    line_weight = lambda level: (1 + jnp.exp(level / 2)) ** 2  # noqa: E731
    grid = jnp.linspace(1.0, 0.0, 41)
    flow = lambda schedule: distill.flow_map_sampler(schedule)  # noqa: E731
    squares = distill.adaptive(0.0)
    return {
        "flow matching, Euler": Method(
            denoising_loss(one, LINE, VELOCITY, line_weight, weighting.uniform(LINE)),
            3,
            LINE,
            VELOCITY,
            False,
            samplers.euler,
        ),
        "consistency distillation": Method(
            distill.consistency_distillation(
                one,
                CIRCLE,
                V,
                teacher(CIRCLE),
                grid,
                weighting=distill.by_network_output(CIRCLE, V),
            ),
            4,
            CIRCLE,
            V,
            False,
            distill.consistency_sampler,
        ),
        "sCM, teacher": Method(
            distill.scm(
                one,
                CIRCLE,
                V,
                on_circle,
                distill.velocity_of_teacher(CIRCLE, teacher(CIRCLE)),
                warmup=int(steps / 8),
            ),
            4,
            CIRCLE,
            V,
            False,
            distill.consistency_sampler,
        ),
        "sCM, data": Method(
            distill.scm(one, CIRCLE, V, on_circle, warmup=int(steps / 8)),
            4,
            CIRCLE,
            V,
            False,
            distill.consistency_sampler,
        ),
        "ECT": Method(
            distill.easy_consistency(
                one,
                CIRCLE,
                V,
                int(steps / 4),
                mean=0.0,
                std=1.6,
                distance=distill.pseudo_huber(0.03),
            ),
            4,
            CIRCLE,
            V,
            False,
            distill.consistency_sampler,
        ),
        "iCT": Method(
            distill.consistency_training(
                one,
                CIRCLE,
                V,
                int(steps / 4),
                distill.pseudo_huber(0.03),
                mean=0.0,
                std=1.6,
                points=lambda k, K: distill.doubling(k, K, 10, 160),
                levels=partial(distill.consistency_levels, sigma_min=0.01),
            ),
            4,
            CIRCLE,
            V,
            False,
            distill.consistency_sampler,
        ),
        "MeanFlow": Method(
            distill.mean_flow(two, LINE, VELOCITY, on_line, distance=squares, together=0.5),
            4,
            LINE,
            VELOCITY,
            True,
            flow,
        ),
        "improved MeanFlow": Method(
            distill.improved_mean_flow(two, LINE, VELOCITY, on_line, distance=squares),
            5,
            LINE,
            VELOCITY,
            True,
            flow,
        ),
        "shortcut": Method(
            distill.shortcut(two, LINE, VELOCITY, line_weight, steps=32),
            5,
            LINE,
            VELOCITY,
            True,
            flow,
        ),
        "SoFlow": Method(
            distill.solution_flow(
                two, LINE, VELOCITY, on_line, int(steps / 4), share=0.5, distance=squares
            ),
            4,
            LINE,
            VELOCITY,
            True,
            flow,
        ),
        "CTM, teacher": Method(
            distill.consistency_trajectory(
                two, CIRCLE, V, teacher(CIRCLE), grid, weighting.snr_plus_one, denoising=0.5
            ),
            8,
            CIRCLE,
            V,
            True,
            flow,
        ),
        "drifting": Method(
            distill.drifting(one, CIRCLE, V),
            3,
            CIRCLE,
            V,
            False,
            distill.consistency_sampler,
            (1,),
        ),
    }


def train(key, loss, params, steps):
    """Adam with a cosine rate, and the average of the last parameters, in one scan."""
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    def step(carry, key):
        params, ema, state, context = carry
        data_key, loss_key = jax.random.split(key)
        batch = {"x": data(data_key, BATCH)}
        (_, _), grads = jax.value_and_grad(loss, has_aux=True)(
            params, loss_key, batch, **({"frozen": {}} | context)
        )
        updates, state = optimizer.update(grads, state)
        params = optax.apply_updates(params, updates)
        ema = jax.tree.map(lambda e, p: 0.995 * e + 0.005 * p, ema, params)
        return (params, ema, state, {"iteration": context["iteration"] + 1}), None

    start = (params, params, optimizer.init(params), {"iteration": jnp.asarray(0)})
    return jax.lax.scan(step, start, jax.random.split(key, steps))[0][1]


def without_frozen(loss):
    """A loss that ignores what it does not ask for."""
    return lambda params, key, batch, frozen=None, iteration=0: loss(params, key, batch)


def error(method, net, params, z, wanted, n):
    """Root mean square to the exact map, or between sorted draws where only the law is learned."""
    make = distill.two_time_denoiser if method.two_times else make_denoiser
    denoiser = make(net, params, method.schedule, method.parameterization)
    ts = jnp.linspace(1.0, 0.0, n + 1)
    x = sample(jax.random.key(9), denoiser, method.sampler(method.schedule), z[:, None], ts)[:, 0]
    if method.steps == (1,) or (n > 1 and method.sampler is distill.consistency_sampler):
        x, wanted = jnp.sort(x), jnp.sort(wanted)
    return float(jnp.sqrt(jnp.mean((x - wanted) ** 2)))


def run(evaluations, names=None, width=64):
    """Errors at 1, 2 and 4 steps of each method."""
    module = models.ResidualMLP(width=width, depth=2)
    one, two = network(module), network(models.TwoTimes(module))
    x, t = jnp.zeros((2, 1)), jnp.ones(2)
    z = jnp.asarray(np.random.default_rng(0).standard_normal(4096), jnp.float32)
    wanted = jnp.asarray(exact_map(np.asarray(z, float)), jnp.float32)
    table = {}
    for name, method in methods(one, two, evaluations).items():
        if names is not None and name not in names:
            continue
        net = two if method.two_times else one
        whole = models.TwoTimes(module) if method.two_times else module
        params = whole.init(jax.random.key(0), x, t, {"until": t} if method.two_times else None)[
            "params"
        ]
        loss = without_frozen(method.loss) if "flow matching" in name else method.loss
        steps = int(evaluations / method.cost)
        params = jax.jit(partial(train, loss=loss, steps=steps))(jax.random.key(1), params=params)
        table[name] = [error(method, net, params, z, wanted, n) for n in method.steps]
        print(f"{name:28}{steps:8}" + "".join(f"{value:9.4f}" for value in table[name]), flush=True)
    return table


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="names of rows")
    parser.add_argument("--evaluations", type=int, default=24_000, help="of each network")
    arguments = parser.parse_args()
    print(f"{'method':28}{'steps':>8}{'1':>9}{'2':>9}{'4':>9}")
    run(arguments.evaluations, arguments.only)


if __name__ == "__main__":
    main()
