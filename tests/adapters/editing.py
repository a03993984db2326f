"""Editing and inverse problems on the exact mixture: how `check_metrics.py` calls them."""

from functools import wraps

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import editing, sample, samplers, schedules
from diffjax.diffusion import q_sample
from diffjax.types import Prediction

_KEY = 0  # of samplers whose noise is given


def _double(f):
    """Run in double precision and return NumPy."""

    @wraps(f)
    def run(*args):
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, f(*args))

    return run


def _denoiser(problem, schedule, label=None):
    """E[x0 | x_t] of the mixture, or of its components of one class."""
    weights, means, stds = (jnp.asarray(problem[k], float) for k in ("weights", "means", "stds"))
    if label is not None:
        weights = jnp.where(jnp.asarray(problem["labels"]) == label, weights, 1e-300)

    def denoiser(x, t, cond):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        variance = alpha**2 * stds**2 + sigma**2
        residual = x[:, None] - alpha * means[None]
        logits = (jnp.log(weights) - x.shape[-1] / 2 * jnp.log(variance))[None]
        logits = logits - jnp.sum(residual**2, -1) / (2 * variance)[None]
        each = means[None] + (alpha * stds**2 / variance)[None, :, None] * residual
        return Prediction(jnp.sum(jax.nn.softmax(logits)[..., None] * each, 1))

    return denoiser


def _schedule(case):
    """The schedule, and the number of table steps."""
    return schedules.from_betas(np.asarray(case["betas"], float)), len(case["betas"])


def _grid(case, last=-1):
    """Times of the case's table indices, and of the last: -1 is clean."""
    T = len(case["betas"])
    return (jnp.append(jnp.asarray(case["timesteps"], float), last) + 1) / T


def _noise(z):
    """Noise of one draw a step."""
    return jnp.asarray(z, float)[:, None]


def _walk(denoiser, sampler, x, ts, noise):
    run = jax.jit(
        lambda x, noise: editing.walk(jax.random.key(_KEY), denoiser, sampler, x, ts, None, noise)
    )
    return run(jnp.asarray(x, float), noise)


@_double
def _sdedit(case, problem):
    schedule, T = _schedule(case)
    n, strength, eta = int(case["n"]), float(case["strength"]), float(case["eta"])
    part = _grid(case)
    skipped = editing.strength_steps(n, strength)
    above = part[0] + jnp.arange(skipped, 0, -1) * (T // n) / T  # the steps that are left out
    noise = case["step_noise"]
    if not noise.size:
        noise = np.zeros((n - skipped, *case["guide"].shape))
    return editing.sdedit(
        jax.random.key(_KEY),
        schedule,
        _denoiser(problem, schedule),
        samplers.ddim(schedule, eta),
        jnp.asarray(case["guide"]),
        jnp.concatenate([above, part]),
        strength,
        jnp.asarray(case["noise"]),
        None,
        _noise(noise),
    )


def _ends(case):
    """Decreasing times of an inversion."""
    steps = np.sort(case["timesteps"])[::-1]
    return _grid({**case, "timesteps": steps}, -1 if case["alpha_to_one"] else 0)


@_double
def _ddim_inversion(case, problem):
    schedule, _ = _schedule(case)
    denoiser = _denoiser(problem, schedule)
    return editing.ddim_inversion(schedule, denoiser, jnp.asarray(case["x0"]), _ends(case))


@_double
def _ddim_reconstruction(case, problem):
    schedule, _ = _schedule(case)
    sampler = samplers.ddim(schedule)
    return _walk(_denoiser(problem, schedule), sampler, case["result"], _ends(case), None)


@_double
def _ddim_inversion_current(case, problem):
    schedule, _ = _schedule(case)
    ts = _ends(case)[::-1]  # its first two are the same level
    return _walk(_denoiser(problem, schedule), samplers.ddim(schedule), case["x0"], ts, None)


def _walk_times(case):
    return (jnp.asarray(case["times"], float) + 1) / len(case["betas"])


@_double
def _repaint(case, problem):
    schedule, _ = _schedule(case)
    sampler = editing.repaint(schedule, jnp.asarray(case["known"]), jnp.asarray(case["mask"]))
    noise = jnp.stack([case["step_noise"], case["known_noise"]], 1)
    return _walk(_denoiser(problem, schedule), sampler, problem["z"], _walk_times(case), noise)


@_double
def _repaint_diffusers(case, problem):
    """Its scheduler puts the known part in after a step, and goes up by the table's next betas."""
    schedule, T = _schedule(case)
    denoiser, known = _denoiser(problem, schedule), jnp.asarray(case["known"])
    steps, betas = case["timesteps"], np.asarray(case["betas"])
    stride = int(-np.diff(steps).min())
    down = samplers.ddim(schedule, float(case["eta"])).step
    draws = iter(jnp.asarray(case["draws"]))
    x, last = jnp.asarray(problem["z"], float), steps[0] + 1
    for k in steps:
        if k < last:
            z = next(draws)
            t, s = jnp.asarray((k + 1) / T), jnp.asarray(max(k - stride + 1, 0) / T)
            eta_noise = z if k > 0 else jnp.zeros_like(z)
            x, _ = down(eta_noise[None], lambda x, t: denoiser(x, t, None), x, t, s, ())
            x = editing.fill(x, q_sample(schedule, known, s, z), jnp.asarray(case["mask"]))
        else:
            for beta in betas[last : last + stride]:
                x = np.sqrt(1 - beta) * x + np.sqrt(beta) * next(draws)
        last = k
    return x


@_double
def _dps(case, problem):
    schedule, T = _schedule(case)
    operator = editing.from_matrix(case["A"])
    sampler = editing.dps(schedule, operator.apply, jnp.asarray(case["y"]), float(case["scale"]))
    ts = jnp.arange(T, -1, -1) / T
    return _walk(_denoiser(problem, schedule), sampler, problem["z"], ts, _noise(case["noise"]))


@_double
def _pigdm_reddiff(case, problem):
    schedule, _ = _schedule(case)
    operator = editing.from_matrix(case["A"])
    sampler = editing.pigdm_steps(schedule, operator, jnp.asarray(case["y"]), float(case["eta"]))
    return _walk(
        _denoiser(problem, schedule), sampler, case["start"], _grid(case), _noise(case["noise"])
    )


@_double
def _pigdm_denoiser(case, problem):
    schedule, _ = _schedule(case)
    denoiser = editing.pigdm(
        _denoiser(problem, schedule),
        schedule,
        editing.from_matrix(case["A"]),
        jnp.asarray(case["y"]),
        float(case["sigma_y"]),
    )
    x = jnp.asarray(problem["z"], float)
    return sample(jax.random.key(_KEY), denoiser, samplers.ddim(schedule), x, _grid(case))


@_double
def _ddnm(case, problem):
    schedule, _ = _schedule(case)
    sampler = editing.ddnm(
        schedule,
        editing.from_matrix(case["A"]),
        jnp.asarray(case["y"]),
        float(case["sigma_y"]),
        float(case["eta"]),
    )
    return _walk(
        _denoiser(problem, schedule),
        sampler,
        problem["z"],
        _walk_times(case),
        _noise(case["noise"]),
    )


@_double
def _ddrm(case, problem):
    schedule, _ = _schedule(case)
    given = schedule, editing.from_matrix(case["A"]), jnp.asarray(case["y"]), float(case["sigma_y"])
    ts = _grid(case)
    start = editing.ddrm_start(*given, ts[0], jnp.asarray(case["start_noise"]))
    sampler = editing.ddrm(*given, float(case["eta"]), float(case["eta_b"]))
    return _walk(_denoiser(problem, schedule), sampler, start, ts, _noise(case["noise"]))


@_double
def _ddpm_maps(case, problem):
    schedule, _ = _schedule(case)
    x0, noise = jnp.asarray(case["x0"])[None], jnp.asarray(case["noise"])[::-1, None]
    _, maps = editing.ddpm_inversion(
        schedule, _denoiser(problem, schedule), x0, _grid(case, 0), noise
    )
    return maps[::-1, 0]


@_double
def _ddpm_edit(case, problem):
    schedule, _ = _schedule(case)
    plain, label = (_denoiser(problem, schedule, k) for k in (None, int(case["label"])))
    scale = float(case["scale"])

    def guided(x, t, cond):
        base = plain(x, t, None).x0
        return Prediction(base + scale * (label(x, t, None).x0 - base))

    maps = jnp.asarray(case["zs"]).at[0].set(0)[::-1, None]
    x = jnp.asarray(case["xts"])[-1:]
    return editing.replay(schedule, guided, x, _grid(case, 0), maps)[0]


# --- closed forms ------------------------------------------------------------------------


@_double
def _sdedit_gauss(case, problem):
    """x0 given x_t, and the law of exact SDEdit over its noise, for normal data."""
    a, mean, cov = np.sqrt(case["alpha_bar"]), case["mean"], case["cov"]
    s2 = 1 - case["alpha_bar"]
    gain = a * cov @ np.linalg.inv(a**2 * cov + s2 * np.eye(len(mean)))
    posterior = cov - a * gain @ cov
    return {
        "x0_mean": mean + gain @ (case["x_t"] - a * mean),
        "x0_cov": posterior,
        "out_mean": mean + a * gain @ (case["guide"] - mean),
        "out_cov": posterior + s2 * gain @ gain.T,
    }


def _constant_schedule(case):
    """One time of a variance-preserving process."""
    alpha_bar = float(case["alpha_bar"])
    return schedules.gvp(), jnp.asarray(2 / np.pi * np.arccos(np.sqrt(alpha_bar)))


def _likelihood_parts(case, denoiser):
    """What the library says at x_t: x0_hat, PiGDM's score and prediction, DPS's gradients."""
    schedule, t = _constant_schedule(case)
    operator = editing.from_matrix(case["A"])
    x, y, noise_std = jnp.asarray(case["x_t"]), jnp.asarray(case["y"]), float(case["sigma_y"])
    denoise = lambda x: denoiser(x, t, None).x0  # noqa: E731
    x0, norm_gradient = editing.residual_norm_gradient(operator.apply, denoise, x, y)
    norm = jnp.linalg.norm(operator.apply(x0) - y, axis=1, keepdims=True)
    return {
        "x0_hat": x0,
        "pigdm_score": editing.pigdm_score(denoiser, schedule, operator, y, noise_std, x, t),
        "pigdm_x0": editing.pigdm(denoiser, schedule, operator, y, noise_std)(x, t, None).x0,
        "dps_norm_grad": norm_gradient,
        "dps_sq_grad": 2 * norm * norm_gradient,
    }


def _gauss_update(mean, cov, A, y, s2):
    """Mean and covariance of x given y = A x + noise of variance s2."""
    gain = cov @ A.T @ np.linalg.inv(A @ cov @ A.T + s2 * np.eye(len(A)))
    return mean + (y - mean @ A.T) @ gain.T, cov - gain @ A @ cov


@_double
def _linear_gauss(case, problem):
    A, y, s2, ab = case["A"], case["y"], case["sigma_y"] ** 2, float(case["alpha_bar"])
    mean, cov, d = case["mean"], case["cov"], len(case["mean"])
    a = np.sqrt(ab)
    posterior_mean, posterior_cov = _gauss_update(mean[None], cov, A, y, s2)
    gain = a * cov @ np.linalg.inv(ab * cov + (1 - ab) * np.eye(d))
    x0_cov = cov - a * gain @ cov

    def denoiser(x, t, cond):
        return Prediction(mean[None] + (x - a * mean[None]) @ gain.T)

    x0_hat = np.asarray(denoiser(case["x_t"], None, None).x0)
    rest = (y - x0_hat @ A.T) @ np.linalg.inv(A @ x0_cov @ A.T + s2 * np.eye(len(A)))
    exact_score = rest @ A @ gain
    return {
        **_likelihood_parts(case, denoiser),
        "posterior_mean": posterior_mean,
        "posterior_cov": posterior_cov,
        "x0_cov": x0_cov,
        "exact_score": exact_score,
        "exact_x0": x0_hat + (1 - ab) / a * exact_score,
    }


def _mixture_update(weights, means, covs, A, y, s2):
    """Mean and covariance (B, ...) of a mixture of normals given y = A x + noise, for each y.

    Means are (B, K, d), weights (B, K) and covariances (K, d, d).
    """
    logits, centres, spreads = [], [], []
    for k, cov in enumerate(covs):
        inner = A @ cov @ A.T + s2 * np.eye(len(A))
        rest = y - means[:, k] @ A.T
        quadratic = np.sum(rest @ np.linalg.inv(inner) * rest, 1)
        logits.append(np.log(weights[:, k]) - (quadratic + np.linalg.slogdet(inner)[1]) / 2)
        centre, spread = _gauss_update(means[:, k], cov, A, y, s2)
        centres.append(centre)
        spreads.append(spread)
    p = np.asarray(jax.nn.softmax(jnp.asarray(logits), 0)).T
    centres, spreads = np.stack(centres, 1), np.stack(spreads)
    mean = np.einsum("bk,bkd->bd", p, centres)
    away = centres - mean[:, None]
    cov = np.einsum("bk,kde->bde", p, spreads) + np.einsum("bk,bkd,bke->bde", p, away, away)
    return mean, cov


@_double
def _linear_mixture(case, problem):
    A, y, s2, ab = case["A"], case["y"], case["sigma_y"] ** 2, float(case["alpha_bar"])
    weights, means, stds = problem["weights"], problem["means"], problem["stds"]
    x, d, a = case["x_t"], means.shape[1], np.sqrt(ab)
    batch = len(x)
    covs = np.stack([std**2 * np.eye(d) for std in stds])
    prior = np.broadcast_to(weights, (batch, len(weights)))
    everywhere = np.broadcast_to(means, (batch, *means.shape))
    mean, cov = _mixture_update(prior, everywhere, covs, A, y, s2)
    # x0 given x_t is a mixture too, which y updates.
    variance = ab * stds**2 + 1 - ab
    residual = x[:, None] - a * means[None]
    logits = np.log(weights) - np.sum(residual**2, -1) / (2 * variance) - d / 2 * np.log(variance)
    given = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
    centres = means[None] + (a * stds**2 / variance)[None, :, None] * residual
    spreads = np.stack(
        [s**2 * (1 - ab) / v * np.eye(d) for s, v in zip(stds, variance, strict=True)]
    )
    exact_x0, _ = _mixture_update(given, centres, spreads, A, y, s2)
    schedule, _ = _constant_schedule(case)
    return {
        **_likelihood_parts(case, _denoiser(problem, schedule)),
        "posterior_mean": mean,
        "posterior_cov": cov,
        "exact_x0": exact_x0,
    }


FUNCTIONS = {
    "strength_steps": editing.strength_steps,
    "repaint_times": editing.repaint_times,
    "sdedit_gauss": _sdedit_gauss,
    "linear_gauss": _linear_gauss,
    "linear_mixture": _linear_mixture,
    "run_sdedit": _sdedit,
    "run_ddim_inversion": _ddim_inversion,
    "run_ddim_reconstruction": _ddim_reconstruction,
    "run_ddim_inversion_current": _ddim_inversion_current,
    "run_repaint": _repaint,
    "run_repaint_diffusers": _repaint_diffusers,
    "run_dps": _dps,
    "run_pigdm_reddiff": _pigdm_reddiff,
    "run_pigdm_denoiser": _pigdm_denoiser,
    "run_ddnm": _ddnm,
    "run_ddnmplus": _ddnm,
    "run_ddrm": _ddrm,
    "run_ddpm_inversion": _ddpm_maps,
    "run_ddpm_inversion_edit": _ddpm_edit,
}
