"""How far inverse methods are from the exact posterior: `python benchmarks/inverse.py`.

Prints two tables. The first is one number measured of one number: prior N(0, 1/4),
noise of variance 0.04, y = 1, beside what theory gives: the moments of the reverse SDE under each
method's score, by quadrature. The second averages over measurements of data drawn from the prior,
for a normal prior in four dimensions and a mixture in two: the distance of the mean in units of
the posterior's deviation, the ratio of deviations, the 2-Wasserstein distance to exact samples
(a second set of which is the floor), and how often the datum is within the 90% interval.
"""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import editing, grids, prior_sample, sample, samplers, schedules
from diffjax.evaluation import wasserstein
from diffjax.types import Prediction

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracles import reverse_moments

CIRCLE = schedules.vp_cosine()
CASES, SAMPLES, STEPS = 100, 200, 200


# --- exact answers --------------------------------------------------------------------------


def mixture_denoiser(weights, means, covariances):
    """E[x0 | x_t] of normal laws: weights (K,), means (K, d), covariances (K, d, d)."""
    values, vectors = np.linalg.eigh(covariances)

    def denoiser(x, t, cond):
        alpha, sigma = CIRCLE.alpha(t), CIRCLE.sigma(t)
        variance = alpha**2 * values + sigma**2  # (K, d)
        rest = jnp.einsum("kde,bkd->bke", vectors, x[:, None] - alpha * means[None])
        log = jnp.log(weights)[None] - jnp.sum(rest**2 / variance[None] + jnp.log(variance), -1) / 2
        gain = jnp.einsum("kde,bke->bkd", vectors, (alpha * values / variance)[None] * rest)
        share = jax.nn.softmax(log, axis=1)[..., None]
        return Prediction(jnp.sum(share * (means[None] + gain), axis=1))

    return denoiser


def posterior(weights, means, covariances, matrix, noise_std, y):
    """The mixture given y = A x + noise: weights, means and covariances again."""
    new = []
    for w, m, c in zip(weights, means, covariances, strict=True):
        s = matrix @ c @ matrix.T + noise_std**2 * np.eye(len(matrix))
        rest, gain = y - matrix @ m, c @ matrix.T @ np.linalg.inv(s)
        log = np.log(w) - rest @ np.linalg.solve(s, rest) / 2 - np.linalg.slogdet(s)[1] / 2
        new.append((log, m + gain @ rest, c - gain @ matrix @ c))
    log, means, covariances = (np.stack(part) for part in zip(*new, strict=True))
    share = np.exp(log - log.max())
    return share / share.sum(), means, covariances


def draw(rng, weights, means, covariances, n):
    """n exact samples of a mixture."""
    which = rng.choice(len(weights), n, p=weights)
    roots = np.linalg.cholesky(covariances + 1e-12 * np.eye(means.shape[1]))
    return means[which] + np.einsum("nde,ne->nd", roots[which], rng.normal(size=(n, len(means[0]))))


# --- methods --------------------------------------------------------------------------------


def by_pigdm(variance):
    """A score of y by the variance of x0 given x_t, (schedule, t) -> r^2."""

    def run(key, denoiser, operator, y, noise_std, x, ts):
        guided = editing.pigdm(denoiser, CIRCLE, operator, y, noise_std, variance)
        return sample(key, guided, samplers.ancestral(CIRCLE), x, ts)

    return run


def by_dps(scale):
    """DPS's own steps."""

    def run(key, denoiser, operator, y, noise_std, x, ts):
        return sample(key, denoiser, editing.dps(CIRCLE, operator.apply, y, scale), x, ts)

    return run


def by_ddnm(key, denoiser, operator, y, noise_std, x, ts):
    """DDNM+."""
    return sample(key, denoiser, editing.ddnm(CIRCLE, operator, y, noise_std), x, ts)


def by_ddrm(key, denoiser, operator, y, noise_std, x, ts):
    """DDRM."""
    start = editing.ddrm_start(CIRCLE, operator, y, noise_std, ts[0], x / CIRCLE.sigma(ts[0]))
    return sample(key, denoiser, editing.ddrm(CIRCLE, operator, y, noise_std), start, ts)


def by_daps(key, denoiser, operator, y, noise_std, x, ts):
    """DAPS at 50 levels of 50 Langevin steps."""

    def log_likelihood(x0):
        return -jnp.sum((operator.apply(x0) - y) ** 2, 1) / (2 * noise_std**2)

    denoise = lambda x, t: denoiser(x, t, None).x0  # noqa: E731
    longest = noise_std**2
    return editing.daps(
        key, CIRCLE, denoise, log_likelihood, x, ts[:: STEPS // 50], 0.1, 50, longest=longest
    )


def by_smc(key, denoiser, operator, y, noise_std, x, ts):
    """One population of particles for each measurement."""

    def one(key, y, x):
        def log_likelihood(x0, t):
            rest, spread = y[None] - operator.apply(x0), editing.guided_variance(CIRCLE, t)
            solved = operator.function(lambda e: 1 / (spread * e + noise_std**2), rest)
            log = operator.function(lambda e: jnp.log(spread * e + noise_std**2), jnp.eye(len(y)))
            return -jnp.sum(rest * solved, 1) / 2 - jnp.trace(log) / 2

        return editing.twisted_smc(key, CIRCLE, denoiser, log_likelihood, x, ts).x

    cases = len(x) // SAMPLES
    y, x = (a.reshape(cases, SAMPLES, -1) for a in (y, x))
    return jax.vmap(one)(jax.random.split(key, cases), y[:, 0], x).reshape(cases * SAMPLES, -1)


METHODS = {
    "DPS, score of x0_hat": by_pigdm(lambda schedule, t: 0.0 * t),
    "DPS, Algorithm 1, scale 0.3": by_dps(0.3),
    "PiGDM": by_pigdm(editing.guided_variance),
    "DDNM+": by_ddnm,
    "DDRM": by_ddrm,
    "DAPS": by_daps,
    "twisted SMC": by_smc,
}


def run(method, denoiser, operator, y, noise_std, seed=0):
    """Samples (cases, SAMPLES, d) of measurements y (cases, m)."""
    many = jnp.repeat(jnp.asarray(y), SAMPLES, 0)
    d = operator.adjoint(many[:1]).shape[1]
    x = prior_sample(jax.random.key(seed), CIRCLE, (len(many), d))
    ts = grids.uniform_logsnr(CIRCLE, STEPS)
    key = jax.random.key(seed + 1)
    drawn = jax.jit(partial(method, denoiser=denoiser, operator=operator, noise_std=noise_std))
    return np.asarray(drawn(key, y=many, x=x, ts=ts)).reshape(len(y), SAMPLES, d)


# --- tables ---------------------------------------------------------------------------------


def scalar_table():
    """One number, against theory."""
    prior, noise, y = 0.25, 0.04, 1.0
    denoiser = mixture_denoiser(np.ones(1), np.zeros((1, 1)), np.full((1, 1, 1), prior))
    operator = editing.from_matrix(np.eye(1))
    exact = (y * prior / (prior + noise), np.sqrt(prior * noise / (prior + noise)))
    twists = {
        "DPS, score of x0_hat": lambda tau: 0.0,
        "PiGDM": lambda tau: tau / (1 + tau),
        "PiGDM, r^2 of the prior": lambda tau: prior * tau / (prior + tau),
    }

    def right(schedule, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return prior * sigma**2 / (prior * alpha**2 + sigma**2)

    methods = METHODS | {"PiGDM, r^2 of the prior": by_pigdm(right)}
    print("| method | mean | deviation | W2 | W2 by theory |\n|---|---|---|---|---|")
    print(f"| exact | {exact[0]:.3f} | {exact[1]:.3f} | 0 | 0 |")
    for name, method in methods.items():
        drawn = run(method, denoiser, operator, np.full((CASES, 1), y), noise**0.5).reshape(-1)
        far = np.hypot(drawn.mean() - exact[0], drawn.std() - exact[1])
        wanted = ""
        if name in twists:
            mean, std = reverse_moments(twists[name])
            wanted = f"{np.hypot(mean - exact[0], std - exact[1]):.3f}"
        print(f"| {name} | {drawn.mean():.3f} | {drawn.std():.3f} | {far:.3f} | {wanted} |")


def problems():
    """(weights, means, covariances, A, noise) by name."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4)) / 2
    normal = (np.ones(1), np.zeros((1, 4)), (root @ root.T + 0.05 * np.eye(4))[None])
    means = np.array([[1.5, 0.5], [-1.0, 1.0], [0.0, -1.5]])
    stds = np.array([0.4, 0.25, 0.5])
    mixture = (np.array([0.5, 0.3, 0.2]), means, stds[:, None, None] ** 2 * np.eye(2))
    return {
        "normal, 2 of 4": (*normal, rng.normal(size=(2, 4)) / 2, 0.2),
        "mixture, 1 of 2": (*mixture, np.array([[0.8, 0.6]]), 0.2),
    }


def figures(drawn, exact, law, truth):
    """Distance of means, ratio of deviations, W2 and coverage, averaged over the cases."""
    means = np.stack([w @ m for w, m, _ in law])
    stds = np.stack(
        [np.sqrt(w @ (np.diagonal(c, axis1=1, axis2=2) + m**2) - (w @ m) ** 2) for w, m, c in law]
    )
    off = np.mean(np.abs(drawn.mean(1) - means) / stds)
    ratio = np.mean(drawn.std(1)) / np.mean(stds)
    far = np.mean([wasserstein(a, b) for a, b in zip(drawn, exact, strict=True)])
    low, high = np.quantile(drawn, [0.05, 0.95], axis=1)
    return off, ratio, far, np.mean((truth >= low) & (truth <= high))


def posterior_table():
    """Averages over measurements of data from the prior."""
    print("\n| problem | method | mean off by | deviation over exact | W2 | 90% interval holds |")
    print("|---|---|---|---|---|---|")
    for problem, (*prior, matrix, noise_std) in problems().items():
        rng = np.random.default_rng(1)
        truth = draw(rng, *prior, CASES)
        y = truth @ matrix.T + noise_std * rng.normal(size=(CASES, len(matrix)))
        law = [posterior(*prior, matrix, noise_std, one) for one in y]
        exact, again = (np.stack([draw(rng, *one, SAMPLES) for one in law]) for _ in range(2))
        denoiser, operator = mixture_denoiser(*prior), editing.from_matrix(matrix)
        rows = {"exact samples": lambda *_, again=again: again} | {
            name: partial(run, method) for name, method in METHODS.items()
        }
        for name, method in rows.items():
            drawn = method(denoiser, operator, y, noise_std)
            off, ratio, far, inside = figures(drawn, exact, law, truth)
            numbers = f"{off:.2f} | {ratio:.2f} | {far:.3f} | {inside:.1%}"
            print(f"| {problem} | {name} | {numbers} |", flush=True)


if __name__ == "__main__":
    with jax.enable_x64(True):
        scalar_table()
        posterior_table()
