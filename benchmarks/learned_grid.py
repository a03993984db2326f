"""Learned times against the Karras grid: `python benchmarks/learned_grid.py`.

DPM-Solver++(2M) with few calls on exact Gaussian mixtures, root mean square to the fine
solution from held-out noise, as a ratio to the Karras grid of rho 7. `rho` is the best of
several rho for Karras, `best table` the best of the other grids.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffjax import grids, prior_sample, sample, samplers, schedules
from diffjax.types import Prediction

CALLS = (4, 6, 8, 10)
SCHEDULES = {"edm": schedules.edm(), "vp_linear": schedules.vp_linear()}
TABLES = (grids.uniform_logsnr, grids.vp_uniform, grids.align_your_steps, grids.beta_quantiles)
RHOS = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0)


def mixture_denoiser(schedule, means, std):
    """E[x0 | x_t] of a mixture of equally likely isotropic Gaussians around means (K, d)."""

    def denoiser(x, t, cond):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        variance = alpha**2 * std**2 + sigma**2
        logits = alpha * x @ means.T - alpha**2 / 2 * jnp.sum(means**2, axis=1)[None]
        mean = jax.nn.softmax(logits / variance) @ means
        return Prediction(mean + alpha * std**2 / variance * (x - alpha * mean))

    return denoiser


def row(schedule, denoiser, dimensions, n):
    """Errors of the Karras grid, of the best rho, of the best table, and of the learned times."""
    sampler = samplers.dpmpp_2m(schedule)
    run = jax.jit(lambda x, ts: sample(jax.random.key(0), denoiser, sampler, x, ts))
    fine = grids.karras(schedule, 200)
    solve = jax.jit(lambda x: sample(jax.random.key(0), denoiser, samplers.heun(schedule), x, fine))
    learn = jax.jit(partial(samplers.learn_grid, jax.random.key(1), denoiser, sampler, schedule))
    train, test = (
        prior_sample(jax.random.key(seed), schedule, (2048, dimensions)) for seed in (2, 3)
    )
    target = solve(test)

    def error(ts):
        return float(jnp.sqrt(jnp.mean((run(test, ts) - target) ** 2)))

    learned, _ = learn(grids.karras(schedule, n), train)
    return (
        error(grids.karras(schedule, n)),
        min(error(grids.karras(schedule, n, rho=rho)) for rho in RHOS),
        min(error(grid(schedule, n)) for grid in TABLES),
        error(learned),
    )


def main():
    """Print the table."""
    problems = {"3 modes in 2-D": (3, 2), "16 modes in 16-D": (16, 16)}
    print(f"{'':30}{'calls':>6}{'karras':>9}{'rho':>8}{'table':>8}{'learned':>9}")
    for problem, shape in problems.items():
        for name, schedule in SCHEDULES.items():
            means = np.random.default_rng(0).standard_normal(shape)
            denoiser = mixture_denoiser(schedule, jnp.asarray(means), std=0.3)
            for n in tqdm(CALLS, desc=name, leave=False):
                base, *others = row(schedule, denoiser, shape[1], n)
                ratios = "".join(f"{value / base:8.2f}" for value in others)
                print(f"{problem + ', ' + name:30}{n:6}{base:9.4f}{ratios}")


if __name__ == "__main__":
    main()
